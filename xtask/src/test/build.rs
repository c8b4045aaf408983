//! Builds the workspace's test executables once and runs them in different environments.
//!
//! `cargo test` with another choice of packages would unify features differently and build the
//! dependencies again; so all are built together, and each suite runs the executables it wants.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    Counts,
    layers::{Layers, Messages},
};
use crate::{process, workspace};

/// A built test executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestBinary {
    /// Package name.
    pub(crate) package: String,
    /// Target name, for the header.
    pub(crate) target: String,
    /// Folder of the package: the working folder of its tests.
    pub(crate) folder: PathBuf,
    /// The executable.
    pub(crate) program: PathBuf,
}

/// Builds every test executable of the workspace.
///
/// # Errors
/// If the workspace does not build.
pub(crate) fn build() -> Result<Vec<TestBinary>> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let mut binaries = Vec::new();
    if !process::each_line(&mut command, |line| binaries.extend(test_binary(line)))? {
        bail!("the tests do not build");
    }
    if binaries.is_empty() {
        bail!("cargo built no test executable");
    }
    Ok(binaries)
}

fn test_binary(message: &str) -> Option<TestBinary> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_test = message["profile"]["test"].as_bool()?;
    let program = message["executable"].as_str().filter(|_| is_test)?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(TestBinary {
        package: package_name(message["package_id"].as_str()?)?.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        folder: manifest.parent()?.to_owned(),
        program: PathBuf::from(program),
    })
}

/// The name in `path+file:///folder/name#0.1.0` or `path+file:///folder#name@0.1.0`.
fn package_name(id: &str) -> Option<&str> {
    let (location, fragment) = id.split_once('#')?;
    match fragment.split_once('@') {
        Some((name, _)) => Some(name),
        None => location.rsplit('/').next(),
    }
}

/// The test executables that a pack carries of a package, in `tests/bin/PACKAGE/`.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn packed(pack: &Path, package: &str) -> Result<Vec<TestBinary>> {
    let folder = pack.join("tests/bin").join(package);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut binaries = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let program = entry?.path();
        let target = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        binaries.push(TestBinary { package: package.to_owned(), target, folder: pack.join("tests"), program });
    }
    binaries.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(binaries)
}

/// What a suite did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Of all its tests.
    pub(crate) counts: Counts,
    /// What tests missed that were skipped, each reason once.
    pub(crate) missing: Vec<String>,
}

/// Where and how a suite runs.
#[derive(Default)]
pub(crate) struct Suite<'a> {
    /// Words before the executable, for another root's libraries.
    pub(crate) runner: &'a [String],
    /// Variables.
    pub(crate) environment: &'a [(&'a str, String)],
    /// Arguments for the test harness.
    pub(crate) arguments: &'a [&'a str],
    /// Validation layers, if Vulkan is used.
    pub(crate) layers: Option<Layers>,
}

impl Suite<'_> {
    /// Runs the executables; all of them, whatever fails.
    ///
    /// # Errors
    /// If an executable cannot be started, or dies without a `test result:` line, or if the layers find
    /// something.
    pub(crate) fn run<'b>(&self, binaries: impl IntoIterator<Item = &'b TestBinary>) -> Result<Ran> {
        let mut total = Ran::default();
        let mut died = Vec::new();
        let mut messages = Messages::shown();
        for binary in binaries {
            println!("   {} ({})", binary.package, binary.target);
            let mut reader = OutputReader::default();
            let ok = process::each_line(&mut self.command(binary), |line| {
                if !messages.read(line) && reader.read(line) {
                    println!("{line}");
                }
            })?;
            messages.end();
            match reader.counts() {
                Some(counts) if ok == (counts.failed == 0) => {
                    total.counts += counts;
                    for reason in reader.skipped {
                        if !total.missing.contains(&reason) {
                            total.missing.push(reason);
                        }
                    }
                }
                _ => died.push(format!("{} ({})", binary.package, binary.target)),
            }
        }
        if !died.is_empty() {
            bail!("ended without a result ({} others passed): {}", total.counts.passed, died.join(", "));
        }
        if let Some(summary) = messages.summary() {
            bail!("{summary} ({} tests passed, {} failed)", total.counts.passed, total.counts.failed);
        }
        Ok(total)
    }

    /// Runs an executable that misuses Vulkan, and sees that the layers say so.
    ///
    /// # Errors
    /// If it cannot be run, or a message does not come.
    pub(crate) fn check_layers(&self, misuse: &TestBinary) -> Result<()> {
        let Some(layers) = self.layers else { return Ok(()) };
        let mut messages = Messages::default();
        let ok = process::each_line(self.command(misuse).env("BIGA_TEST_MISUSE", "1"), |line| {
            messages.read(line);
        })?;
        messages.end();
        let missed: Vec<&str> =
            layers.expected_of_misuse().iter().copied().filter(|name| !messages.counts.contains_key(*name)).collect();
        if !ok || !missed.is_empty() {
            bail!("the validation layers are not at work: misuse brings no {}", missed.join(" and no "));
        }
        Ok(())
    }

    fn command(&self, binary: &TestBinary) -> Command {
        let mut command = match self.runner.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&binary.program);
                command
            }
            None => Command::new(&binary.program),
        };
        command.arg("--show-output").args(self.arguments).current_dir(&binary.folder);
        command.env("CARGO_MANIFEST_DIR", &binary.folder).env("CARGO_PKG_NAME", &binary.package);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.envs(self.layers.into_iter().flat_map(Layers::environment));
        command
    }
}

/// Follows what a test executable writes under `--show-output`.
///
/// A test that cannot check anything prints a line that starts with `skipped:` and passes, as far as the
/// harness knows; here it counts as skipped. What else passing tests print is left out.
#[derive(Default)]
struct OutputReader {
    result: Option<Counts>,
    /// The first reason of each skipped test.
    skipped: Vec<String>,
    in_successes: bool,
    skipped_in_this_test: bool,
}

impl OutputReader {
    /// Takes a line; true if the user should see it.
    fn read(&mut self, line: &str) -> bool {
        self.result = Counts::from_result_line(line).or(self.result);
        if line == "successes:" {
            self.in_successes = true;
            return false;
        }
        if line == "failures:" || line.starts_with("test result: ") {
            self.in_successes = false;
        }
        if !self.in_successes {
            return true;
        }
        if line.starts_with("---- ") {
            self.skipped_in_this_test = false;
        }
        if let Some(reason) = line.strip_prefix("skipped:").filter(|_| !self.skipped_in_this_test) {
            self.skipped_in_this_test = true;
            self.skipped.push(reason.trim().to_owned());
        }
        line.starts_with("skip")
    }

    fn counts(&self) -> Option<Counts> {
        let mut counts = self.result?;
        let skipped = (self.skipped.len() as u64).min(counts.passed);
        counts.passed -= skipped;
        counts.skipped += skipped;
        Some(counts)
    }
}

/// Runs the documentation's examples.
///
/// # Errors
/// If cargo cannot be run, or fails with no failed example.
pub(crate) fn doc_tests() -> Result<Counts> {
    let mut total = Counts::default();
    let ok = process::each_line(workspace::cargo().args(["test", "--workspace", "--doc"]), |line| {
        println!("{line}");
        if let Some(counts) = Counts::from_result_line(line) {
            total += counts;
        }
    })?;
    if !ok && total.failed == 0 {
        bail!("the documentation's examples do not build");
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{OutputReader, package_name, test_binary};
    use crate::test::Counts;

    #[test]
    fn a_test_that_says_it_was_skipped_is_not_counted_as_passed() {
        let output = "running 3 tests\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\nskipped: no model\n\
            skipped: no device\n---- b stdout ----\nchatter\n\nsuccesses:\n    a\n    b\n\nfailures:\n\n\
            ---- c stdout ----\nskipped: not this one, it failed\n\ntest result: FAILED. 2 passed; 1 failed; 0 ignored";
        let mut reader = OutputReader::default();
        let shown: Vec<&str> = output.lines().filter(|line| reader.read(line)).collect();
        assert_eq!(reader.counts(), Some(Counts { passed: 1, failed: 1, skipped: 1 }));
        assert_eq!(reader.skipped, ["no model"]);
        assert!(shown.contains(&"skipped: no model") && !shown.contains(&"chatter"));
    }

    #[test]
    fn package_ids_hold_the_name_in_two_ways() {
        assert_eq!(package_name("path+file:///x/xtask#0.1.0"), Some("xtask"));
        assert_eq!(package_name("path+file:///x/runtime/core#biga@0.1.0"), Some("biga"));
        assert_eq!(package_name("nothing"), None);
    }

    #[test]
    fn only_test_executables_are_taken() {
        let message = r#"{"reason":"compiler-artifact","package_id":"path+file:///x/core#biga@0.1.0",
            "manifest_path":"/x/core/Cargo.toml","target":{"name":"biga"},"profile":{"test":true},"executable":"/t/biga-1"}"#;
        let binary = test_binary(message).unwrap();
        assert_eq!((binary.package.as_str(), binary.folder.as_path()), ("biga", Path::new("/x/core")));
        assert_eq!(test_binary(&message.replace("true", "false")), None);
        assert_eq!(test_binary("not json"), None);
    }
}
