//! `cargo xtask compare`: builds `biga` and `compare`, finds llama.cpp, and runs the two side by side; or
//! packs all of that for a machine with neither Rust, nor Debian roots, nor network.

mod pack;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

use crate::{biga_command, cache::Cache, debian, process, workspace};

/// What to run, or where to pack it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write a folder that measures on another machine
    #[arg(long, value_name = "DIR", conflicts_with_all = ["lavapipe", "arguments"])]
    pack: Option<PathBuf>,
    /// Run on Mesa's CPU driver for Vulkan: to try the comparison, not for its figures
    #[arg(long)]
    lavapipe: bool,
    /// After `--`: options of `compare run`, such as `--device cpu`; `--help` shows them
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs or packs.
///
/// # Errors
/// If something does not build, llama.cpp cannot be had, or `compare` fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    match &options.pack {
        Some(folder) => pack::write(folder)?,
        None => process::run(&mut command(options.lavapipe, &options.arguments)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where results of runs on this machine are kept.
///
/// # Errors
/// If there is no place for the cache.
pub(crate) fn results_folder() -> Result<PathBuf> {
    Ok(Cache::open()?.path("compare"))
}

/// `compare run`, with both engines and folders in the cache.
///
/// # Errors
/// If something does not build or llama.cpp cannot be had.
pub(crate) fn command(lavapipe: bool, arguments: &[String]) -> Result<Command> {
    let cache = Cache::open()?;
    let mut command = Command::new(program()?);
    command.arg("run").arg("--biga").arg(biga_command::build()?);
    command.arg("--libraries").arg(debian::LLAMA_VULKAN.ensure(&cache)?);
    if lavapipe {
        let root = debian::GRAPHICS.ensure(&cache)?;
        command.arg("--libraries").arg(&root).args(["--device", "lavapipe"]);
        command.envs(debian::Libraries::of(&root).lavapipe_environment(256));
        // llama.cpp leaves out drivers that run on the CPU unless devices are chosen by number.
        command.env("GGML_VK_VISIBLE_DEVICES", "0");
    }
    let folder = results_folder()?;
    for (option, path) in [("--out", folder.clone()), ("--model-dir", folder.join("models"))] {
        if !arguments.iter().any(|word| word == option || word.starts_with(&format!("{option}="))) {
            command.arg(option).arg(path);
        }
    }
    command.args(arguments);
    Ok(command)
}

/// A release build of `compare`.
fn program() -> Result<PathBuf> {
    process::run(workspace::cargo().args(["build", "--release", "--package", "biga-benches", "--bin", "compare"]))?;
    let program = workspace::target_folder()?.join("release/compare");
    if !program.is_file() {
        bail!("cargo built no {}", program.display());
    }
    Ok(program)
}
