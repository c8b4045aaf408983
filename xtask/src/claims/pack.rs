//! `claims --pack DIR`: a folder that runs an area's claims elsewhere, without Rust and without network.
//!
//! ```text
//! DIR/run.sh        runs them; standard output is the JSON that `claims --from` reads
//! DIR/README.txt    how to use it
//! DIR/claims.md     the list
//! DIR/bin/          xtask, biga
//! DIR/lib/          the C++ runtime, for machines that lack it
//! DIR/tests/        test executables, with the fixtures that they read
//! ```
//! Models do not fit: `BIGA_SMOLLM2` and `BIGA_GEMMA3` name them where they are, and a claim without its
//! model says that it is unavailable.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::book::Claim;
use crate::{biga_command, process, test, workspace};

/// Packages whose tests say something about another machine: those that run on its Vulkan device.
const TESTED_ELSEWHERE: [&str; 2] = ["biga-tests", "biga-vulkan"];

/// Size that a pack may have.
const MOST_BYTES: u64 = 60 << 20;

/// The pack that this program runs in, if it does.
pub(crate) fn folder() -> Option<PathBuf> {
    env::var_os("BIGA_PACK").map(PathBuf::from)
}

/// Writes the pack.
///
/// # Errors
/// If the folder is in use, a program does not build or the pack is larger than 60 MiB.
pub(super) fn write(folder: &Path, list: &Path, area: Option<&str>, claims: &[Claim]) -> Result<()> {
    begin(folder, &["bin", "lib", "tests/bin"])?;
    process::run(workspace::cargo().args(["build", "--release", "--package", "xtask"]))?;
    let xtask = workspace::target_folder()?.join("release/xtask");
    for (program, name) in [(biga_command::build()?, "biga"), (xtask, "xtask")] {
        strip_into(&program, &folder.join("bin").join(name))?;
    }
    for library in runtime_libraries(&folder.join("bin/biga"))? {
        let name = library.file_name().context("a library has a name")?;
        fs::copy(&library, folder.join("lib").join(name))?;
    }
    fs::copy(list, folder.join("claims.md"))?;
    pack_tests(folder, claims)?;
    write_script(folder, area)?;
    println!("{}: {} claims, {:.1} MiB", folder.display(), claims.len(), end(folder)?);
    Ok(())
}

/// Makes the folders of a new pack.
///
/// # Errors
/// If the folder is in use or cannot be written to.
pub(crate) fn begin(folder: &Path, parts: &[&str]) -> Result<()> {
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty", folder.display());
    }
    for part in parts {
        fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(())
}

/// The size of a finished pack in MiB.
///
/// # Errors
/// If it is too large to travel.
pub(crate) fn end(folder: &Path) -> Result<f64> {
    let size_bytes = size_of(folder)?;
    if size_bytes > MOST_BYTES {
        bail!("the pack has {size_bytes} bytes, at most {MOST_BYTES}");
    }
    Ok(size_bytes as f64 / (1 << 20) as f64)
}

/// Copies the test executables that the claims name, and what they read.
fn pack_tests(folder: &Path, claims: &[Claim]) -> Result<()> {
    let named = |package: &str| {
        let words = format!("cargo xtask claim tests {package} ");
        claims.iter().any(|claim| format!("{} ", claim.command).starts_with(&words))
    };
    let wanted: Vec<&str> = TESTED_ELSEWHERE.into_iter().filter(|package| named(package)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    for binary in test::build_tests()?.iter().filter(|binary| wanted.contains(&binary.package.as_str())) {
        let to = folder.join("tests/bin").join(&binary.package);
        fs::create_dir_all(&to)?;
        strip_into(&binary.program, &to.join(&binary.target))?;
    }
    for data in ["fixtures", "golden"] {
        let from = workspace::root().join("tests").join(data);
        process::stdout_of(Command::new("cp").arg("-r").arg(from).arg(folder.join("tests")))?;
    }
    Ok(())
}

/// Copies a program without its symbols.
///
/// # Errors
/// If that fails.
pub(crate) fn strip_into(program: &Path, to: &Path) -> Result<()> {
    process::stdout_of(Command::new("strip").arg("-o").arg(to).arg(program)).map(drop)
}

/// The C++ runtime that a program needs beside the C library.
fn runtime_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = process::stdout_of(Command::new("ldd").arg(program))?;
    let libraries = listed.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let path = rest.split_whitespace().next()?;
        (name.starts_with("libstdc++") || name.starts_with("libgcc_s")).then(|| PathBuf::from(path))
    });
    Ok(libraries.collect())
}

fn write_script(folder: &Path, area: Option<&str>) -> Result<()> {
    let area = area.unwrap_or("");
    let script = format!(
        "#!/bin/sh\n\
         # Runs the packed claims; standard output is their JSON. Further arguments go to `xtask claims`.\n\
         BIGA_PACK=$(cd \"$(dirname \"$0\")\" && pwd) || exit 1\n\
         BIGA_BIN=\"$BIGA_PACK/bin/biga\"\n\
         export BIGA_PACK BIGA_BIN\n\
         # The machine's own C++ runtime comes first: a graphics driver may need a newer one than ours.\n\
         if ldd \"$BIGA_BIN\" | grep -q 'not found'; then\n\
         \x20 LD_LIBRARY_PATH=\"${{LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}}$BIGA_PACK/lib\"; export LD_LIBRARY_PATH\n\
         fi\n\
         exec \"$BIGA_PACK/bin/xtask\" claims {area} --json \"$@\"\n"
    );
    write_runnable(&folder.join("run.sh"), &script)?;
    fs::write(
        folder.join("README.txt"),
        "Run ./run.sh > results.json here, then `cargo xtask claims --from results.json` in the workspace.\n\
         Real models are named by BIGA_SMOLLM2 and BIGA_GEMMA3 (GGUF files), the Vulkan device to test by a part\n\
         of its name in BIGA_TEST_VULKAN; claims without theirs say so.\n",
    )?;
    Ok(())
}

/// Writes a script that can be started.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_runnable(path: &Path, script: &str) -> Result<()> {
    fs::write(path, script).with_context(|| format!("cannot write {}", path.display()))?;
    process::stdout_of(Command::new("chmod").arg("755").arg(path)).map(drop)
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut size_bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size_bytes += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size_bytes)
}
