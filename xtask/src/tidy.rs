//! `cargo xtask tidy`: rules of this project that no other tool knows.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// Longest file that needs no second look.
const MAX_LINES: usize = 600;

/// Files that may be longer, with their greatest length: a ratchet, to be lowered and never raised.
const LONGER: &[(&str, usize)] = &[("backends/vulkan/src/device.rs", 620)];

/// Words that belong to the work on the project, not to the project; each in two halves, so that this
/// list is no finding itself.
const FORBIDDEN: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("deb.deb", "ian.org"),
    ("pypi", ".org"),
    ("registry.np", "mjs"),
    ("static.crates", ".io"),
    ("index.crates", ".io"),
    ("as an ", "ai"),
    ("clau", "de"),
    ("chat", "gpt"),
    ("assist", "ant session"),
    ("to", "do:"),
    ("fix", "me"),
];

/// Runs the checks.
///
/// # Errors
/// If a rule is broken.
pub(crate) fn run() -> Result<ExitCode> {
    check()?;
    println!("tidy");
    Ok(ExitCode::SUCCESS)
}

/// Reads every file that git knows of or would add, and reports what breaks a rule.
///
/// # Errors
/// If a rule is broken.
pub(crate) fn check() -> Result<()> {
    let listed = process::stdout_of(
        std::process::Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(workspace::root()),
    )?;
    let mut findings = Vec::new();
    for name in listed.lines() {
        let path = workspace::root().join(name);
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {name}"))?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.extend(findings_in(name, &text));
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(())
}

fn findings_in(name: &str, text: &str) -> Vec<String> {
    let mut findings = forbidden_words(name, text);
    if Path::new(name).extension().is_some_and(|extension| extension == "rs") {
        findings.extend(rust_rules(name, text));
    }
    findings
}

fn forbidden_words(name: &str, text: &str) -> Vec<String> {
    let generated = name == "Cargo.lock" || name.ends_with(".json") || name.contains("/corpus/");
    if generated {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (head, tail) in FORBIDDEN {
            if lower.contains(&format!("{head}{tail}")) {
                findings.push(format!("{name}:{}: `{head}{tail}` does not belong here", index + 1));
            }
        }
    }
    findings
}

fn rust_rules(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    // The tests of a module, in a file of their own, are about that module.
    if !text.starts_with("//!") && !name.ends_with("/tests.rs") {
        findings.push(format!("{name}:1: a module opens with `//!`: what it is and what it is not"));
    }
    let lines = text.lines().count();
    let most = LONGER.iter().find(|(file, _)| *file == name).map_or(MAX_LINES, |(_, most)| *most);
    if lines > most {
        findings.push(format!("{name}: {lines} lines, at most {most}"));
    }
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or("").trim();
        if code.starts_with(concat!("#[", "ignore")) {
            findings.push(format!("{name}:{}: a test runs or says why it cannot; none is ignored", index + 1));
        }
        if uses_unsafe(code) && !may_be_unsafe(name) {
            findings.push(format!("{name}:{}: unsafe code outside sys, runtime/map and tests", index + 1));
        }
    }
    findings
}

/// True for code; not for attributes that name the lint, strings that hold the word, or the type of a
/// function pointer, which runs nothing by itself.
fn uses_unsafe(code: &str) -> bool {
    !code.starts_with('#')
        && ["unsafe {", "unsafe fn ", "unsafe impl", "unsafe extern", "unsafe trait"]
            .iter()
            .any(|form| code.match_indices(form).any(|(at, _)| !code[..at].contains('"')))
}

fn may_be_unsafe(name: &str) -> bool {
    let in_sys = name.starts_with("backends/") && (name.contains("/sys/") || name.ends_with("/sys.rs"));
    in_sys || name.starts_with("runtime/map/") || name.starts_with("tests/") || name.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::findings_in;

    fn check(name: &str, text: &str, expected: usize) {
        let findings = findings_in(name, text);
        assert_eq!(findings.len(), expected, "{findings:?}");
    }

    #[test]
    fn unsafe_code_has_its_places() {
        let text = "//! A module.\nfn f() { unsafe { g() } }\n";
        check("runtime/core/src/a.rs", text, 1);
        check("backends/vulkan/src/sys/memory.rs", text, 0);
        check("backends/vulkan/src/queue.rs", text, 1);
        check("backends/cpu/src/kernels.rs", "//! A module.\nstruct S { f: unsafe fn(&[f32]) }\n", 0);
        check("backends/cpu/src/kernels.rs", "//! A module.\nunsafe fn f() {}\n", 1);
        check("runtime/map/src/lib.rs", text, 0);
        check("tests/tests/steady.rs", text, 0);
        check("runtime/core/src/a.rs", "//! A module.\n// unsafe { } is absent\nlet s = \"unsafe {\";\n", 0);
    }

    #[test]
    fn modules_open_with_their_purpose_and_stay_short() {
        check("a.rs", "fn f() {}\n", 1);
        check("a.rs", &format!("//! A module.\n{}", "\n".repeat(600)), 1);
        check("a.txt", "fn f() {}\n", 0);
    }

    #[test]
    fn no_test_is_ignored() {
        check("a.rs", concat!("//! A module.\n#[", "ignore]\nfn f() {}\n"), 1);
    }

    #[test]
    fn words_of_the_work_are_found_in_any_case() {
        check("README.md", concat!("see /WO", "RK/x\n"), 1);
        check("README.md", "a working folder\n", 0);
    }
}
