//! The table of the book: a section a shader, a row a variant, the targets side by side.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result};

use super::{
    compile::{Kernel, Report, TARGETS},
    rules::{DOT, FMA, WMMA},
};

const BEGIN: &str = "<!-- written by `cargo xtask shaders` from here -->\n";
const END: &str = "<!-- to here -->\n";

const HEAD: &str = "| format | constants | lanes | VGPRs | waves | LDS | spilled, scratch | instructions | FMA | dot | WMMA | loads | \
    LDS loads |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// What names a variant: source, format, constants.
type Name = (String, String, Vec<(String, u32)>);

/// A page in three parts: what stands before the table, the table, what stands after it.
///
/// # Errors
/// If a mark is missing.
pub(super) fn split(page: &str) -> Result<(&str, &str, &str)> {
    let begin = page.find(BEGIN).with_context(|| format!("no line `{}`", BEGIN.trim_end()))? + BEGIN.len();
    let end = page[begin..].find(END).with_context(|| format!("no line `{}`", END.trim_end()))? + begin;
    Ok((&page[..begin], &page[begin..end], &page[end..]))
}

/// The line that names the compilers.
pub(super) fn compilers(table: &str) -> Option<&str> {
    table.lines().find(|line| line.starts_with("Compiled by "))
}

/// What can be said in a line.
///
/// # Errors
/// If the driver keeps a figure to itself.
pub(super) fn summary(reports: &[Report]) -> Result<String> {
    let sum = |name: &str| -> Result<u64> {
        reports.iter().flat_map(|report| &report.kernels).map(|kernel| kernel.statistic(name)).sum()
    };
    Ok(format!(
        "{} variants on {} targets: {} spilled registers, {} bytes of scratch.",
        variants(reports).len(),
        reports.len(),
        sum("Spilled VGPRs")? + sum("Spilled SGPRs")?,
        sum("Scratch size")?
    ))
}

/// The table.
///
/// # Errors
/// If the driver keeps a figure to itself.
pub(super) fn render(reports: &[Report]) -> Result<String> {
    let mut drivers: Vec<&str> = reports.iter().map(|report| report.driver.as_str()).collect();
    drivers.dedup();
    let targets = TARGETS.map(|target| target.name).join(" / ");
    let mut table = format!("\nCompiled by {} for {targets}.\n{}\n", drivers.join(", "), summary(reports)?);
    let mut section = None;
    for (name, kernels) in variants(reports) {
        let (source, format, constants) = name;
        if section.as_ref() != Some(&source) {
            let _ = write!(table, "\n## {source}\n\n{HEAD}");
            section = Some(source);
        }
        table.push_str(&row(&format, &constants, &kernels)?);
    }
    table.push('\n');
    Ok(table)
}

/// Every variant with its kernel for each target that has it, ordered by source, format and constants.
fn variants(reports: &[Report]) -> Vec<(Name, Vec<Option<&Kernel>>)> {
    let mut formats: Vec<&str> = Vec::new();
    let mut variants: BTreeMap<Name, Vec<Option<&Kernel>>> = BTreeMap::new();
    for (i, report) in reports.iter().enumerate() {
        for kernel in &report.kernels {
            if !formats.contains(&kernel.format.as_str()) {
                formats.push(&kernel.format);
            }
            let name = (kernel.source.clone(), kernel.format.clone(), kernel.constants.clone());
            variants.entry(name).or_insert_with(|| vec![None; reports.len()])[i] = Some(kernel);
        }
    }
    let mut variants: Vec<_> = variants.into_iter().collect();
    // Formats as the reports bring them: plain ones first, then from many bits to few.
    variants.sort_by_key(|((source, format, _), _)| (source.clone(), formats.iter().position(|one| one == format)));
    variants
}

fn row(format: &str, constants: &[(String, u32)], kernels: &[Option<&Kernel>]) -> Result<String> {
    let statistic = |name: &str| side_by_side(kernels, |kernel| Ok(kernel.statistic(name)?.to_string()));
    let count = |kind: super::rules::Kind| side_by_side(kernels, |kernel| Ok(or_empty(kind.count(kernel))));
    let lanes = constants.iter().find(|(name, _)| name == "LANES").map_or(0, |(_, value)| *value);
    let own = constants.iter().filter(|(name, _)| name != "LANES" && name != "SUBGROUP");
    let own: Vec<String> = own.map(|(name, value)| format!("{name} {value}")).collect();
    let width = side_by_side(kernels, |kernel| Ok(kernel.subgroup_size.to_string()))?;
    let cells = [
        format.to_owned(),
        own.join(", "),
        format!("{lanes} by {width}"),
        statistic("VGPRs")?,
        side_by_side(kernels, |kernel| waves(kernel).map(|waves| waves.to_string()))?,
        statistic("LDS size")?,
        side_by_side(kernels, lost)?,
        statistic("Instructions")?,
        count(FMA)?,
        count(DOT)?,
        count(WMMA)?,
        side_by_side(kernels, |kernel| Ok(loads(kernel, &["global_load_", "buffer_load_", "flat_load_"])))?,
        side_by_side(kernels, |kernel| Ok(loads(kernel, &["ds_load_"])))?,
    ];
    Ok(format!("| {} |\n", cells.join(" | ")))
}

/// Waves that a SIMD unit holds at once. RADV counts each of 64 lanes for two, also where shared memory is
/// what limits them: at 12 VGPRs Mesa 26.1 reports 32, and the unit has room for 16.
fn waves(kernel: &Kernel) -> Result<u64> {
    Ok(kernel.statistic("Subgroups per SIMD")? * 32 / u64::from(kernel.subgroup_size.max(32)))
}

/// Registers that went to memory, and bytes of local memory.
fn lost(kernel: &Kernel) -> Result<String> {
    let spilled = kernel.statistic("Spilled VGPRs")? + kernel.statistic("Spilled SGPRs")?;
    Ok(format!("{spilled}, {}", kernel.statistic("Scratch size")?))
}

fn or_empty(count: u64) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

/// One cell for all targets: one text where they agree, else each.
fn side_by_side(kernels: &[Option<&Kernel>], text: impl Fn(&Kernel) -> Result<String>) -> Result<String> {
    let texts = kernels.iter().map(|kernel| kernel.map_or(Ok("-".to_owned()), &text)).collect::<Result<Vec<_>>>()?;
    match texts.first() {
        Some(first) if texts.iter().all(|text| text == first) => Ok(first.clone()),
        _ => Ok(texts.iter().map(|text| if text.is_empty() { "0" } else { text }).collect::<Vec<_>>().join(" / ")),
    }
}

/// How many loads of each width, widest first.
fn loads(kernel: &Kernel, heads: &[&str]) -> String {
    let mut widths: BTreeMap<u32, u64> = BTreeMap::new();
    for (name, count) in &kernel.instructions {
        if let Some(rest) = heads.iter().find_map(|head| name.strip_prefix(head)) {
            // `b128`, `u8`, `d16_hi_b16`; `2addr_b32` loads from two places.
            let digits = rest.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            let places = if rest.starts_with("2addr") { 2 } else { 1 };
            *widths.entry(digits.parse().unwrap_or(0)).or_default() += count * places;
        }
    }
    widths.iter().rev().map(|(bits, count)| format!("{count} b{bits}")).collect::<Vec<_>>().join(", ")
}

/// Shows the lines that one table has and the other lacks.
pub(super) fn print_difference(old: &str, new: &str) {
    let only = |these: &str, those: &str, sign: &str| {
        for line in these.lines().filter(|line| !those.lines().any(|other| other == *line)) {
            println!("{sign} {line}");
        }
    };
    only(old, new, "-");
    only(new, old, "+");
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, Kernel, loads, side_by_side, split, waves};

    fn kernel(subgroup: u32, instructions: &str) -> Kernel {
        let text = format!(
            r#"{{"source": "a", "format": "", "constants": [], "subgroup_size": {subgroup},
            "statistics": {{"Subgroups per SIMD": 16}}, "instructions": {{{instructions}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_page_is_its_three_parts() {
        let page = format!("a\n{BEGIN}b\n{END}c\n");
        let (before, table, after) = split(&page).unwrap();
        assert_eq!((table, [before, table, after].concat()), ("b\n", page.clone()));
        assert!(split(&page.replace(END, "")).is_err());
    }

    #[test]
    fn targets_share_a_cell_where_they_agree() {
        let (narrow, wide) = (kernel(32, ""), kernel(64, ""));
        let cell =
            |kernels: &[Option<&Kernel>]| side_by_side(kernels, |kernel| Ok(waves(kernel)?.to_string())).unwrap();
        assert_eq!(cell(&[Some(&narrow), Some(&narrow)]), "16");
        assert_eq!(cell(&[Some(&narrow), Some(&wide), None]), "16 / 8 / -");
    }

    #[test]
    fn loads_are_told_by_width() {
        let loaded = r#""global_load_b32": 2, "global_load_b128": 9, "global_load_d16_b16": 1, "global_load_u16": 3,
            "ds_load_b64": 4, "ds_load_2addr_stride64_b32": 5"#;
        assert_eq!(loads(&kernel(32, loaded), &["global_load_"]), "9 b128, 2 b32, 4 b16");
        assert_eq!(loads(&kernel(32, loaded), &["ds_load_"]), "4 b64, 10 b32");
    }
}
