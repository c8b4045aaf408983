//! `xclbin verify`: what hardware would answer with garbage or a hang, before it does.

use std::{
    ffi::OsString,
    fmt::Write,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use xclbin_tools::{
    array::Device,
    verify::{self, Basis, Finding, Findings, Kind, Launch, Rule, Severity},
};

use super::{
    exit::{Outcome, input, usage},
    files,
    output::{self, note},
};

/// Places of one rule that the report lists; `--json` lists more.
const MOST_PLACES: usize = 10;

/// Find what hardware would answer with garbage or a hang
///
/// Packages (.xclbin), PDIs, CDOs, instruction streams (insts.bin) and aiebu's ELF files are told apart by their
/// first bytes. Exit code 0: nothing found, or warnings alone; 1: an error (with --deny-warnings a warning); 3: a
/// file that cannot be read or is of none of these kinds.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to check; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["rules", "explain"])]
    inputs: Vec<PathBuf>,
    /// An instruction stream that is launched with the package: its columns, patches and generation are held
    /// against it; with the name of its kernel where the package has several. May be given several times. A file
    /// whose name has a `=` is given as ./FILE
    #[arg(long, value_name = "[KERNEL=]FILE")]
    insts: Vec<OsString>,
    /// The device that the files are for: npu1 (Phoenix, Hawk Point), npu2 or npu4 (Strix and later), or a PCI id
    /// such as 17f0_10. Without it, what a partition or a stream says is taken, or what holds for every device
    #[arg(long, value_parser = device)]
    device: Option<&'static Device>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Exit with 1 where there is a warning
    #[arg(long)]
    deny_warnings: bool,
    /// Print the table of rules
    #[arg(long, conflicts_with_all = ["inputs", "explain"])]
    rules: bool,
    /// Print what a rule asks for, why, how to mend it, and where that is known from
    #[arg(long, value_name = "RULE", conflicts_with = "inputs")]
    explain: Option<String>,
}

fn device(name: &str) -> Result<&'static Device, String> {
    let names: Vec<&str> = Device::ALL.into_iter().map(|device| device.name).collect();
    Device::by_name(name).ok_or_else(|| format!("known are {}, and their PCI ids", names.join(", ")))
}

/// A stream that is launched with the packages.
struct Insts {
    name: String,
    kernel: Option<String>,
    bytes: Vec<u8>,
}

impl Insts {
    /// Reads what `--insts` names.
    fn read(wish: &OsString) -> anyhow::Result<Insts> {
        let split = wish.to_str().and_then(|wish| wish.split_once('=')).filter(|(kernel, _)| !kernel.contains('/'));
        let (kernel, path) = split.map_or((None, Path::new(wish)), |(kernel, path)| (Some(kernel), Path::new(path)));
        if kernel == Some("") {
            return Err(usage(format!("--insts {}: a kernel's name is expected before =", wish.display())));
        }
        let bytes = files::read(path)?;
        let name = path.display().to_string();
        let what = match Kind::of(&bytes) {
            Some(Kind::Stream) => return Ok(Insts { name, kernel: kernel.map(str::to_owned), bytes }),
            Some(Kind::Elf) => "an ELF file, which holds its stream: check it by itself",
            Some(Kind::Xclbin) => "a package",
            Some(Kind::Pdi) => "a PDI",
            Some(Kind::Cdo) => "a CDO",
            None if bytes.is_empty() => "empty",
            None => "none by its first bytes",
        };
        Err(input(format!("{name}: --insts takes an instruction stream (insts.bin), and the file is {what}")))
    }

    fn launch(&self) -> Launch<'_> {
        Launch { name: &self.name, bytes: &self.bytes, kernel: self.kernel.as_deref() }
    }
}

/// A file and what was found in it.
struct Checked {
    name: String,
    kind: Kind,
    found: Findings,
}

/// Checks the files, or prints rules.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if options.rules {
        return print_rules(options.json);
    }
    if let Some(name) = &options.explain {
        let rule = verify::rule(name).ok_or_else(|| usage(format!("no rule {name:?}: --rules lists them")))?;
        return print_rule(rule, options.json);
    }
    let insts: Vec<Insts> = options.insts.iter().map(Insts::read).collect::<anyhow::Result<_>>()?;
    let launches: Vec<Launch<'_>> = insts.iter().map(Insts::launch).collect();
    let mut checked = Vec::new();
    let mut n_unread = 0_usize;
    for path in &options.inputs {
        match check(path, &launches, options.device) {
            Ok(file) => checked.push(file),
            // One bad file among several does not hide the others.
            Err(error) if options.inputs.len() > 1 && error.downcast_ref::<super::exit::CliError>().is_some() => {
                note(format_args!("xclbin: error: {error:#}"));
                n_unread += 1;
            }
            Err(error) => return Err(error),
        }
    }
    if options.json {
        output::print_json(&json_of(&checked))?
    } else {
        output::print(&text_of(&checked))?
    }
    if n_unread > 0 {
        return Err(input(format!("{n_unread} of {} files could not be checked", options.inputs.len())));
    }
    let worst = if options.deny_warnings { Severity::Warning } else { Severity::Error };
    let is_bad = [Severity::Warning, Severity::Error].into_iter().any(|it| it >= worst && count(&checked, it) > 0);
    Ok(if is_bad { Outcome::Found } else { Outcome::Done })
}

fn check(path: &Path, launches: &[Launch<'_>], device: Option<&'static Device>) -> anyhow::Result<Checked> {
    let bytes = files::read(path)?;
    let name = path.display().to_string();
    let no_kind = || match bytes.is_empty() {
        true => input(format!("{name} is empty")),
        false => input(format!("{name} starts like no package, PDI, CDO, instruction stream or ELF file")),
    };
    let kind = Kind::of(&bytes).ok_or_else(no_kind)?;
    let found = match kind {
        Kind::Xclbin => verify::package(&bytes, launches, device),
        _ if !launches.is_empty() => {
            return Err(usage(format!("{name} is no package: --insts checks streams against a package's kernels")));
        }
        _ => verify::file(&bytes, device).ok_or_else(no_kind)?,
    };
    Ok(Checked { name, kind, found })
}

fn count(checked: &[Checked], severity: Severity) -> usize {
    checked.iter().map(|file| file.found.count_of(severity)).sum()
}

fn counts(errors: usize, warnings: usize) -> String {
    let shown = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "nothing found".to_owned(),
        (errors, warnings) => format!("{}, {}", shown(errors, "error"), shown(warnings, "warning")),
    }
}

/// The report: findings of one rule together, then what they do and how to mend them.
fn text_of(checked: &[Checked]) -> String {
    let mut text = String::new();
    for file in checked {
        text.push_str(&report(file));
    }
    if checked.len() > 1 {
        let counts = counts(count(checked, Severity::Error), count(checked, Severity::Warning));
        let _ = writeln!(text, "{} files: {counts}", checked.len());
    }
    text
}

fn report(file: &Checked) -> String {
    let mut text = String::new();
    let mut rules: Vec<&Rule> = Vec::new();
    for finding in file.found.listed().iter().filter(|finding| finding.rule.severity == Severity::Error) {
        note_rule(finding, &mut rules);
    }
    file.found.listed().iter().for_each(|finding| note_rule(finding, &mut rules));
    for rule in rules {
        let _ = writeln!(text, "{}: {}: {}", file.name, rule.severity, rule.name);
        let places = file.found.listed().iter().filter(|finding| finding.rule == rule);
        for finding in places.take(MOST_PLACES) {
            let _ = writeln!(text, "  {finding}");
        }
        let n_more = file.found.count(rule.name).saturating_sub(MOST_PLACES);
        if n_more > 0 {
            let _ = writeln!(text, "  and {n_more} more");
        }
        let _ = writeln!(text, "    effect: {}", rule.effect);
        let _ = writeln!(text, "    mend: {}", rule.mend);
    }
    let found = &file.found;
    let counts = counts(found.count_of(Severity::Error), found.count_of(Severity::Warning));
    let _ = writeln!(text, "{}: {counts} ({})", file.name, device_of(found));
    text
}

/// For which device a file was checked.
fn device_of(found: &Findings) -> String {
    match found.device() {
        None => "for any device".to_owned(),
        Some((device, Basis::Given)) => format!("for {}", device.name),
        Some((device, Basis::Partition)) => format!("for {}, as its partition fits no other", device.name),
        Some((device, Basis::Stream)) => format!("for {}, as the stream says", device.name),
    }
}

/// Rules in the order in which they were broken.
fn note_rule<'f>(finding: &'f Finding, rules: &mut Vec<&'f Rule>) {
    if !rules.contains(&finding.rule) {
        rules.push(finding.rule);
    }
}

fn json_of(checked: &[Checked]) -> Value {
    let files: Vec<Value> = checked.iter().map(json_of_file).collect();
    json!({
        "version": output::JSON_VERSION,
        "files": files,
        "n_errors": count(checked, Severity::Error),
        "n_warnings": count(checked, Severity::Warning),
    })
}

fn json_of_file(file: &Checked) -> Value {
    let findings = file.found.listed().iter().map(|finding| {
        json!({
            "rule": finding.rule.name,
            "severity": finding.rule.severity.to_string(),
            "place": finding.place,
            "value": finding.value,
            "bound": finding.bound,
            "effect": finding.rule.effect,
            "mend": finding.rule.mend,
        })
    });
    json!({
        "file": file.name,
        "kind": file.kind.name(),
        "device": file.found.device().map(|(device, _)| device.name),
        "device_from": file.found.device().map(|(_, basis)| basis.name()),
        "findings": findings.collect::<Vec<_>>(),
        "n_errors": file.found.count_of(Severity::Error),
        "n_warnings": file.found.count_of(Severity::Warning),
        "n_listed": file.found.listed().len(),
    })
}

fn json_of_rule(rule: &Rule) -> Value {
    json!({
        "name": rule.name,
        "severity": rule.severity.to_string(),
        "asks": rule.asks,
        "effect": rule.effect,
        "mend": rule.mend,
        "source": rule.source,
    })
}

fn print_rules(json: bool) -> anyhow::Result<Outcome> {
    if json {
        let rules: Vec<Value> = verify::rules().map(json_of_rule).collect();
        output::print_json(&json!({"version": output::JSON_VERSION, "rules": rules}))?;
        return Ok(Outcome::Done);
    }
    let heading = ["RULE", "SEVERITY", "ASKS"].map(str::to_owned).to_vec();
    let rows = verify::rules().map(|rule| vec![rule.name.to_owned(), rule.severity.to_string(), rule.asks.to_owned()]);
    output::print(&output::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()))?;
    Ok(Outcome::Done)
}

fn print_rule(rule: &Rule, json: bool) -> anyhow::Result<Outcome> {
    if json {
        output::print_json(&json!({"version": output::JSON_VERSION, "rules": [json_of_rule(rule)]}))?;
        return Ok(Outcome::Done);
    }
    let Rule { name, severity, asks, effect, mend, source } = rule;
    output::print(&format!("{severity}: {name}\nasks: {asks}\neffect: {effect}\nmend: {mend}\nsource: {source}\n"))?;
    Ok(Outcome::Done)
}
