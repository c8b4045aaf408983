//! Programs that the checks use, each of a fixed version, installed once into the cache.
//!
//! Cargo tools are built without optimisation: they run for seconds and build in a third of the time.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{cache::Cache, fetch, process, workspace};

/// A program that cargo installs.
pub(crate) struct CargoTool {
    name: &'static str,
    version: &'static str,
}

/// Checks licences, sources and bans of the dependency tree.
pub(crate) const CARGO_DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2" };
/// Builds and runs fuzz targets.
pub(crate) const CARGO_FUZZ: CargoTool = CargoTool { name: "cargo-fuzz", version: "0.13.2" };

impl CargoTool {
    /// The program, installed if it is missing.
    ///
    /// # Errors
    /// If cargo cannot install it.
    pub(crate) fn ensure(&self, cache: &Cache) -> Result<PathBuf> {
        let folder = cache.path("tools").join(format!("{}-{}", self.name, self.version));
        let program = folder.join("bin").join(self.name);
        let _lock = cache.lock(self.name)?;
        if program.is_file() {
            return Ok(program);
        }
        let scratch = cache.scratch(self.name)?;
        let built = scratch.path().join("installed");
        let mut install = workspace::cargo();
        install.args(["install", "--locked", "--debug", self.name, "--version", &format!("={}", self.version)]);
        install.arg("--root").arg(&built);
        install.env("CARGO_TARGET_DIR", scratch.path().join("target")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        let log = cache.path(format!("{}.log", self.name));
        process::logged(&mut install, &format!("installing {} {}", self.name, self.version), &log)?;
        fs::create_dir_all(cache.path("tools"))?;
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::rename(&built, &folder)?;
        Ok(program)
    }
}

const TYPOS_VERSION: &str = "1.52.0";
const TYPOS_WHEEL_SHA256: &str = "418fd85f7fc11dec14e5482e747f6e916af56da96207cde0cdd69540a4b389f6";

/// The spelling checker, taken out of its wheel: nothing of the host's Python is changed.
///
/// # Errors
/// If pip cannot get the wheel, or it is not the expected one.
pub(crate) fn ensure_typos(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.path("tools").join(format!("typos-{TYPOS_VERSION}"));
    let program = folder.join(format!("typos-{TYPOS_VERSION}.data/scripts/typos"));
    let _lock = cache.lock("typos")?;
    if program.is_file() {
        return Ok(program);
    }
    let scratch = cache.scratch("typos")?;
    let wheels = scratch.path().join("wheels");
    eprintln!("installing typos {TYPOS_VERSION}");
    process::stdout_of(&mut fetch::pip_download(&format!("typos=={TYPOS_VERSION}"), &wheels, scratch.path()))?;
    let wheel = fetch::only_file_in(&wheels)?;
    let seen = fetch::sha256_of(&wheel)?;
    if seen != TYPOS_WHEEL_SHA256 {
        bail!("the wheel of typos {TYPOS_VERSION} has sha256 {seen}, expected {TYPOS_WHEEL_SHA256}");
    }
    let unpacked = scratch.path().join("unpacked");
    fetch::unzip(&wheel, &unpacked)?;
    let packed_program = unpacked.join(program.strip_prefix(&folder).context("the program lies in its folder")?);
    process::stdout_of(Command::new("chmod").arg("755").arg(&packed_program))?;
    fs::create_dir_all(cache.path("tools"))?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(&unpacked, &folder)?;
    Ok(program)
}
