//! Fuzz targets: inputs that once failed first, then new ones for a while.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{Context, Counts, Outcome};
use crate::{cache::Cache, process, tools, workspace};

/// Replays each target's corpus, then fuzzes it. Each target counts as a test.
pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let mut counts = Counts::default();
    let mut findings = Vec::new();
    for target in targets()? {
        match fuzz(&target, context.fuzz_seconds) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                counts.failed += 1;
                findings.push(format!("{target}: {error:#}"));
            }
        }
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    Ok(Outcome::Done(counts))
}

/// The names of the fuzz targets.
///
/// # Errors
/// If there is none.
pub(crate) fn targets() -> Result<Vec<String>> {
    let listed = process::stdout_of(cargo_fuzz()?.arg("list").args(["--fuzz-dir", "fuzz"]))?;
    let targets: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
    if targets.is_empty() {
        bail!("fuzz/ has no target");
    }
    Ok(targets)
}

/// Replays the kept inputs of one target and fuzzes it for some seconds.
///
/// # Errors
/// If it finds something; the input is in `fuzz/artifacts`.
pub(crate) fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let fuzz = workspace::root().join("fuzz");
    let kept = fuzz.join("corpus").join(target);
    let grown = fuzz.join("corpus-new").join(target);
    fs::create_dir_all(&grown).with_context(|| format!("cannot create {}", grown.display()))?;
    if kept.is_dir() {
        run_target(target, &[&kept], &["-runs=0".to_owned()])?;
    }
    // New inputs go to the first folder, so that the kept ones change only by hand.
    let folders: Vec<&Path> = [grown.as_path()].into_iter().chain(kept.is_dir().then_some(kept.as_path())).collect();
    let limits = [format!("-max_total_time={seconds}"), "-rss_limit_mb=2048".to_owned(), "-timeout=20".to_owned()];
    run_target(target, &folders, &limits)
}

fn run_target(target: &str, folders: &[&Path], limits: &[String]) -> Result<()> {
    let mut command = cargo_fuzz()?;
    command.args(["run", "--fuzz-dir", "fuzz", target]).args(folders).arg("--").args(limits);
    process::run(&mut command)
}

fn cargo_fuzz() -> Result<Command> {
    let program = tools::CARGO_FUZZ.ensure(&Cache::open()?)?;
    let mut command = Command::new(program);
    // The sanitizer flags are unstable; this is how the stable compiler accepts them. The folder of its
    // own keeps the sanitised build from replacing the ordinary one.
    command.current_dir(workspace::root()).env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_TARGET_DIR", workspace::target_folder()?.join("fuzz"));
    Ok(command)
}
