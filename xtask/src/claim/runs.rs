//! Claims that a run of our own programs decides: tests, fuzz targets, exit codes.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use super::Finding;
use crate::{
    biga_command,
    cache::Cache,
    claims::pack,
    debian, fetch, process,
    test::{self, Counts, Ran},
};

/// The exit status of `biga run --strict --policy hybrid`.
pub(super) fn strict_exit() -> Result<Finding> {
    if Path::new("/dev/accel").exists() {
        return Ok(Finding::Unavailable("this machine has an accelerator, so the fallback does not happen".into()));
    }
    let model = match std::env::var_os("BIGA_SMOLLM2") {
        Some(file) => file.into(),
        None if pack::folder().is_some() => return Ok(Finding::Unavailable("BIGA_SMOLLM2 is not set".into())),
        None => fetch::ensure(&Cache::open()?, &fetch::SMOLLM2)?,
    };
    let mut command = Command::new(biga_command::build()?);
    command.arg("run").arg(model).args(["--strict", "--policy", "hybrid", "-p", "Hello", "-n", "1"]);
    let output = process::output(&mut command)?;
    let code = output.status.code().context("biga was ended by a signal")?;
    if !output.stdout.is_empty() {
        bail!("biga wrote a text although the run was refused");
    }
    Ok(Finding::Value(f64::from(code), process::last_lines(&output.stderr, 1)))
}

/// Runs the tests of one package whose names contain the filter.
pub(super) fn tests(package: &str, filter: &str, lavapipe: bool) -> Result<Finding> {
    let ran = match pack::folder() {
        Some(folder) => packed_tests(&folder, package, filter, lavapipe)?,
        None => built_tests(package, filter, lavapipe)?,
    };
    match ran {
        Ok(Ran { counts: Counts { passed: 0, failed: 0, skipped: 0 }, .. }) => {
            bail!("no test of {package} has `{filter}` in its name")
        }
        Ok(ran) => Ok(of_tests(&ran)),
        Err(why) => Ok(Finding::Unavailable(why)),
    }
}

/// A failure is one whatever else was skipped; success is one only if nothing was.
fn of_tests(Ran { counts, missing }: &Ran) -> Finding {
    let Counts { passed, failed, skipped } = *counts;
    if failed == 0 && skipped > 0 {
        let (n, missing) = (passed + skipped, missing.join("; "));
        return Finding::Unavailable(format!("{skipped} of {n} tests were skipped: {missing}"));
    }
    Finding::Value(failed as f64, format!("{passed} passed, {skipped} skipped"))
}

/// Tests that run a shorter list on slow devices run the whole one for a claim.
const FULL: (&str, &str) = ("BIGA_FULL", "1");

fn built_tests(package: &str, filter: &str, lavapipe: bool) -> Result<std::result::Result<Ran, String>> {
    let mut environment = test::model_environment()?;
    environment.push((FULL.0, FULL.1.to_owned()));
    let root;
    let mut runner = Vec::new();
    if lavapipe {
        root = match debian::GRAPHICS.ensure(&Cache::open()?) {
            Ok(root) => root,
            Err(error) => return Ok(Err(format!("no lavapipe: {error:#}"))),
        };
        let libraries = debian::Libraries::of(&root);
        environment.extend(libraries.lavapipe_environment(256));
        environment.push(("BIGA_TEST_VULKAN", "llvmpipe".to_owned()));
        runner = libraries.runner();
    }
    test::run_package(package, filter, &runner, &environment).map(Ok)
}

/// In a pack the Vulkan device is the one that the user names: that is what the pack was carried for.
fn packed_tests(
    folder: &Path,
    package: &str,
    filter: &str,
    lavapipe: bool,
) -> Result<std::result::Result<Ran, String>> {
    let binaries = test::packed(folder, package)?;
    if binaries.is_empty() {
        return Ok(Err(format!("the tests of {package} are not in the pack")));
    }
    if lavapipe && std::env::var_os("BIGA_TEST_VULKAN").is_none() {
        return Ok(Err("BIGA_TEST_VULKAN names no Vulkan device of this machine".to_owned()));
    }
    test::run_binaries(&binaries, filter, &[], &[(FULL.0, FULL.1.to_owned())]).map(Ok)
}

/// Fuzzes these targets, or every one.
pub(super) fn fuzz(wanted: &[String], minutes: u32) -> Result<Finding> {
    if pack::folder().is_some() {
        return Ok(Finding::Unavailable("fuzzing needs the source tree".into()));
    }
    let mut targets = test::fuzz_targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !targets.contains(name)) {
        bail!("no fuzz target {unknown}; there are {}", targets.join(", "));
    }
    targets.retain(|name| wanted.is_empty() || wanted.contains(name));
    let mut findings = Vec::new();
    for target in &targets {
        if let Err(error) = test::fuzz_one(target, minutes.saturating_mul(60)) {
            println!("{target}: {error:#}");
            findings.push(target.as_str());
        }
    }
    let detail = format!("{} targets, {minutes} minutes each; found something: {}", targets.len(), or_none(&findings));
    Ok(Finding::Value(findings.len() as f64, detail))
}

/// Runs steps of the checks.
pub(super) fn steps(names: &[String]) -> Result<Finding> {
    if pack::folder().is_some() {
        return Ok(Finding::Unavailable("the checks need the source tree".into()));
    }
    let mut failed = Vec::new();
    for name in names {
        if test::run_only(name)? != ExitCode::SUCCESS {
            failed.push(name.as_str());
        }
    }
    Ok(Finding::Value(failed.len() as f64, format!("failed: {}", or_none(&failed))))
}

fn or_none(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Finding, Ran, of_tests};

    #[test]
    fn a_claim_of_tests_needs_all_of_them() {
        let of = |passed, failed, skipped| {
            let missing = vec!["BIGA_GEMMA3 is not set".to_owned()];
            of_tests(&Ran { counts: Counts { passed, failed, skipped }, missing })
        };
        assert!(matches!(of(2, 0, 0), Finding::Value(0.0, _)));
        assert!(matches!(of(1, 1, 1), Finding::Value(1.0, _)));
        for passed in [0, 1] {
            match of(passed, 0, 1) {
                Finding::Unavailable(why) => assert!(why.contains("BIGA_GEMMA3 is not set"), "{why}"),
                Finding::Value(value, detail) => panic!("{passed} passed: {value}, {detail}"),
            }
        }
    }
}
