//! Claims about the time that NPU packages take: `packages` of `benches/` measures them.

use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;

use super::Finding;
use crate::{claims::pack, process, workspace};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    /// Reading and checking
    Verify,
    /// Building, PDIs included
    Build,
}

/// Runs the benchmark.
pub(super) fn time(what: What) -> Result<Finding> {
    if pack::folder().is_some() {
        return Ok(Finding::Unavailable("the benchmark is built from the source tree".into()));
    }
    process::run(workspace::cargo().args(["build", "--release", "--package", "biga-benches", "--bin", "packages"]))?;
    let program = workspace::target_folder()?.join("release/packages");
    let result: Value = serde_json::from_str(&process::stdout_of(Command::new(program).arg("--json"))?)?;
    let key = match what {
        What::Verify => "parse_and_verify_ms",
        What::Build => "build_ms",
    };
    let value = result[key].as_f64().with_context(|| format!("the benchmark gave no {key}"))?;
    Ok(Finding::Value(value, format!("{} bytes, median of {} runs", result["size_bytes"], result["runs"])))
}
