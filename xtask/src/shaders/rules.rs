//! What every compiled kernel must keep to.

use anyhow::{Result, bail};

use super::compile::{Kernel, Report, TARGETS};

/// Kernels that no target is given: those for drivers on the CPU, and those for GPUs whose matrices lie otherwise.
const FOR_OTHERS: [&str; 6] =
    ["attention_rows", "gate_up_lanes", "matmul_direct", "matmul_rows", "matvec_lanes", "prove_held"];

/// Figures that must be zero, and their unit: registers that went to memory, and local arrays that did.
const ABSENT: [(&str, &str); 3] =
    [("Spilled VGPRs", "registers"), ("Spilled SGPRs", "registers"), ("Scratch size", "bytes a wave")];

/// A kind of instruction, by the heads of its names.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// What the table and messages call it.
    pub(super) name: &'static str,
    heads: &'static [&'static str],
}

/// Fused multiply and add, single and dual.
pub(super) const FMA: Kind = Kind { name: "FMA", heads: &["v_fma", "v_dual_fma", "v_pk_fma"] };
/// Dot products of packed small integers or halves.
pub(super) const DOT: Kind = Kind { name: "dot", heads: &["v_dot", "v_dual_dot"] };
/// Products of matrices held by a subgroup.
pub(super) const WMMA: Kind = Kind { name: "WMMA", heads: &["v_wmma"] };
const WIDE_LOAD: Kind = Kind { name: "16-byte load", heads: &["global_load_b128", "buffer_load_b128"] };

impl Kind {
    /// How many of them a kernel has.
    pub(super) fn count(&self, kernel: &Kernel) -> u64 {
        let mine = |name: &str| self.heads.iter().any(|head| name.starts_with(head));
        kernel.instructions.iter().filter(|(name, _)| mine(name)).map(|(_, count)| count).sum()
    }
}

/// What the speed of a kernel rests on: without one of these its purpose is lost. A row for each source, with
/// the formats that it holds for; none stands for all.
const MUST_SHOW: &[(&str, &[&str], &[Kind])] = &[
    ("attention", &[], &[FMA]),
    ("attention_matrix", &[], &[WMMA, WIDE_LOAD]),
    ("attention_split", &[], &[FMA]),
    ("gate_up", &[], &[DOT, WIDE_LOAD]),
    ("gate_up_one", &[], &[DOT, WIDE_LOAD]),
    ("matmul_matrix", &[], &[WMMA, WIDE_LOAD]),
    ("matmul_split", &[], &[WMMA, WIDE_LOAD]),
    ("matmul_tile", &[], &[FMA, WIDE_LOAD]),
    ("matmul_tile_i8", &[], &[DOT, WIDE_LOAD]),
    ("matvec", &[], &[FMA, WIDE_LOAD]),
    ("matvec_i8", &[], &[DOT, WIDE_LOAD]),
    ("matvec_one", &[], &[DOT, WIDE_LOAD]),
    ("read_bandwidth", &[], &[WIDE_LOAD]),
];

/// Holds every kernel of every target against the rules.
///
/// # Errors
/// If one is broken; all that are, have been printed.
pub(super) fn check(reports: &[Report]) -> Result<()> {
    let mut findings = Vec::new();
    for (target, report) in TARGETS.iter().zip(reports) {
        let found = findings_in(report)?;
        findings.extend(found.into_iter().map(|finding| format!("{}: {finding}", target.name)));
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings in compiled kernels", findings.len());
    }
    Ok(())
}

fn findings_in(report: &Report) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for (source, format) in &report.unreached {
        if !FOR_OTHERS.contains(&source.as_str()) {
            findings.push(format!("{source} {format}: no segment of `compiled_kernels` makes the backend choose it"));
        }
    }
    for (source, formats, _) in MUST_SHOW {
        let held = |kernel: &Kernel| kernel.source == *source;
        let missing = |format: &&&str| !report.kernels.iter().any(|kernel| held(kernel) && kernel.format == **format);
        if !report.kernels.iter().any(held) || formats.iter().any(|format| missing(&format)) {
            findings.push(format!("{source}: a rule asks for it, and it was not compiled"));
        }
    }
    for kernel in &report.kernels {
        findings.extend(findings_of(kernel)?);
    }
    Ok(findings)
}

fn findings_of(kernel: &Kernel) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for (name, unit) in ABSENT {
        let value = kernel.statistic(name)?;
        if value != 0 {
            findings.push(format!("{}: {name} is {value} {unit}, must be 0", kernel.title()));
        }
    }
    for (source, formats, kinds) in MUST_SHOW {
        let held = formats.is_empty() || formats.contains(&kernel.format.as_str());
        if kernel.source != *source || !held {
            continue;
        }
        for kind in kinds.iter().filter(|kind| kind.count(kernel) == 0) {
            findings.push(format!(
                "{}: no {} in the machine code ({})",
                kernel.title(),
                kind.name,
                kind.heads.join(", ")
            ));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Report, findings_in};

    fn kernel(scratch: u64, instructions: &str) -> String {
        format!(
            r#"{{"source": "matvec_i8", "format": "q4_0", "constants": [["LANES", 32]], "subgroup_size": 32,
            "statistics": {{"Spilled VGPRs": 0, "Spilled SGPRs": 0, "Scratch size": {scratch}}},
            "instructions": {{{instructions}}}}}"#
        )
    }

    fn check(text: &str, expected: &[&str]) {
        let kernel: Kernel = serde_json::from_str(text).unwrap();
        let findings = super::findings_of(&kernel).unwrap();
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, part) in findings.iter().zip(expected) {
            assert!(finding.contains(part), "{finding}");
        }
    }

    #[test]
    fn scratch_and_absent_instructions_are_found() {
        let good = r#""v_dot4_i32_iu8": 4, "global_load_b128": 2"#;
        check(&kernel(0, good), &[]);
        check(&kernel(64, good), &["Scratch size is 64"]);
        check(&kernel(0, r#""v_mul_f32_e32": 4"#), &["no dot", "no 16-byte load"]);
    }

    #[test]
    fn a_figure_that_the_driver_keeps_to_itself_is_no_zero() {
        let silent: Kernel = serde_json::from_str(&kernel(0, "").replace("Scratch size", "Scratch")).unwrap();
        let error = super::findings_of(&silent).unwrap_err();
        assert!(error.to_string().contains("`Scratch size`"), "{error}");
    }

    #[test]
    fn kernels_that_nothing_reaches_are_found() {
        let text = r#"{"device": "", "driver": "", "refusal": null, "kernels": [],
            "unreached": [["matmul_rows", "f32"], ["matvec", "q9_0"]]}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        let findings = findings_in(&report).unwrap();
        assert!(findings[0].starts_with("matvec q9_0: no segment"), "{findings:?}");
        assert!(findings[1..].iter().all(|finding| finding.contains("a rule asks for it")), "{findings:?}");
    }
}
