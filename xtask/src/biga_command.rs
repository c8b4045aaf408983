//! The built command `biga`, on the host's libraries or on lavapipe's.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{cache::Cache, debian, process, workspace};

/// A release build of `biga`, or the program that `BIGA_BIN` names.
///
/// # Errors
/// If it does not build.
pub(crate) fn build() -> Result<PathBuf> {
    if let Some(program) = env::var_os("BIGA_BIN").map(PathBuf::from) {
        if !program.is_file() {
            bail!("BIGA_BIN names {}, which is no file", program.display());
        }
        return Ok(program);
    }
    eprintln!("building biga (release; the first time takes some minutes)");
    process::run(workspace::cargo().args(["build", "--release", "--package", "biga-cli", "--bin", "biga"]))?;
    let program = workspace::target_folder()?.join("release/biga");
    if !program.is_file() {
        bail!("cargo built no {}", program.display());
    }
    Ok(program)
}

/// `biga`, seeing Mesa's CPU driver as its one Vulkan device. The outer result is an error, the inner
/// one says why this machine cannot do it.
///
/// # Errors
/// If the cache cannot be opened.
pub(crate) fn on_lavapipe(program: &Path) -> Result<std::result::Result<Command, String>> {
    let cache = Cache::open()?;
    let root = match debian::GRAPHICS.ensure(&cache).context("no lavapipe") {
        Ok(root) => root,
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    let libraries = debian::Libraries::of(&root);
    let mut command = libraries.command(program);
    command.envs(libraries.lavapipe_environment(256));
    Ok(Ok(command))
}
