//! `cargo xtask test`: the checks, in order, with a summary and one closing line of counts.
//!
//! The counts are those of the test executables' own `test result:` lines. A failed step that has no
//! failed test counts one failure, so that the closing line never hides it.

mod build;
mod fuzz;
mod layers;
mod steps;
mod summary;

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, bail};

use crate::workspace;
pub(crate) use build::{Ran, TestBinary, build as build_tests, packed};
pub(crate) use fuzz::{fuzz as fuzz_one, targets as fuzz_targets};
pub(crate) use steps::model_environment;
pub(crate) use summary::Counts;

use steps::Step;
use summary::{Row, State};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only this step (repeatable)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Leave this step out (repeatable)
    #[arg(long, value_name = "STEP")]
    skip: Vec<String>,
    /// List the steps and stop
    #[arg(long)]
    list: bool,
    /// Seconds for each fuzz target
    #[arg(long, default_value_t = 20)]
    fuzz_seconds: u32,
}

/// How a step ended, if it was no error.
pub(crate) enum Outcome {
    /// It ran; the counts of its tests, if it has any.
    Done(Counts),
    /// This machine cannot run it, and why.
    Unavailable(String),
}

/// What steps share.
pub(crate) struct Context {
    /// Seconds for each fuzz target.
    pub(crate) fuzz_seconds: u32,
    /// Test executables, once they are built.
    pub(crate) tests: Option<Vec<build::TestBinary>>,
}

/// Runs the steps.
///
/// # Errors
/// If a step name is unknown.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.list {
        for step in steps::ALL {
            println!("{:<16} {}", step.name, step.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    for name in options.only.iter().chain(&options.skip) {
        if !steps::ALL.iter().any(|step| step.name == name) {
            bail!("no step `{name}`; `cargo xtask test --list` names them");
        }
    }
    let mut context = Context { fuzz_seconds: options.fuzz_seconds, tests: None };
    let mut rows = Vec::new();
    for step in steps::ALL {
        let wanted = options.only.is_empty() || options.only.iter().any(|name| name == step.name);
        if wanted && !options.skip.iter().any(|name| name == step.name) {
            rows.push(run_step(step, &mut context));
        }
    }
    let total = summary::print(&rows);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one step as `--only` does.
///
/// # Errors
/// If its name is unknown.
pub(crate) fn run_only(name: &str) -> Result<ExitCode> {
    run(&Options { only: vec![name.to_owned()], skip: Vec::new(), list: false, fuzz_seconds: 20 })
}

/// Builds the workspace's tests and runs those of one package whose names contain `filter`; if it is the name of
/// one of the package's test executables, all tests of that one.
///
/// # Errors
/// If they do not build, or a test executable dies.
pub(crate) fn run_package(
    package: &str,
    filter: &str,
    runner: &[String],
    environment: &[(&str, String)],
) -> Result<Ran> {
    let mut binaries = build::build()?;
    binaries.retain(|binary| binary.package == package);
    if !filter.is_empty() && binaries.iter().any(|binary| binary.target == filter) {
        binaries.retain(|binary| binary.target == filter);
        return run_binaries(&binaries, "", runner, environment);
    }
    run_binaries(&binaries, filter, runner, environment)
}

/// Runs the tests of these executables whose names contain `filter`.
///
/// # Errors
/// If a test executable cannot be started or dies.
pub(crate) fn run_binaries(
    binaries: &[TestBinary],
    filter: &str,
    runner: &[String],
    environment: &[(&str, String)],
) -> Result<Ran> {
    let arguments: Vec<&str> = [filter].into_iter().filter(|filter| !filter.is_empty()).collect();
    build::Suite { runner, environment, arguments: &arguments, layers: None }.run(binaries)
}

fn run_step(step: &Step, context: &mut Context) -> Row {
    println!("\n== {}: {} ==", step.name, step.what);
    let start = Instant::now();
    let (state, counts) = match (step.run)(context) {
        Ok(Outcome::Done(counts)) if counts.failed == 0 => (State::Ok, counts),
        Ok(Outcome::Done(counts)) => (State::Failed(format!("{} failed", counts.failed)), counts),
        Ok(Outcome::Unavailable(reason)) if workspace::in_ci() => {
            (State::Failed(format!("cannot run here: {reason}")), Counts::default())
        }
        Ok(Outcome::Unavailable(reason)) => (State::Skipped(reason), Counts::default()),
        Err(error) => (State::Failed(format!("{error:#}")), Counts::default()),
    };
    let row = Row { name: step.name, state, counts, seconds: start.elapsed().as_secs_f64() };
    println!("-- {} --", row.headline());
    row
}
