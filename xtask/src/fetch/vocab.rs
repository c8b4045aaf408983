//! Vocabularies with test vectors: texts and the token ids that llama.cpp gives them.
//!
//! They lie in the source package of the Python binding of llama.cpp. pip runs that package's metadata
//! hook before it hands the archive over, so the archive is pinned by hash in pip's own terms: nothing
//! of another archive is run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{byte_bar, only_file_in, watch};
use crate::{cache::Cache, process};

/// What `fetch` calls them, and their folder in the cache.
pub(super) const NAME: &str = "vocab-vectors";

const VERSION: &str = "0.3.36";
const SHA256: &str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";
const ARCHIVE_BYTES: u64 = 76_589_250;

/// The folder with `NAME.gguf`, `NAME.gguf.inp` and `NAME.gguf.out`, fetched if it is missing.
///
/// # Errors
/// If the package cannot be had or is not the expected one.
pub(crate) fn ensure_vocab_vectors(cache: &Cache) -> Result<PathBuf> {
    let folder = vocab_vectors_folder(cache);
    let _lock = cache.lock(NAME)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    eprintln!("fetching vocabularies with test vectors ({} MB)", ARCHIVE_BYTES / 1_000_000);
    let scratch = cache.scratch(NAME)?;
    let [download, temporary, unpacked] = ["download", "temporary", "unpacked"].map(|name| scratch.path().join(name));
    for folder in [&temporary, &unpacked] {
        fs::create_dir_all(folder)?;
    }
    let bar = byte_bar(ARCHIVE_BYTES);
    watch(pip_download_source(scratch.path(), &download, &temporary)?, &[&download, &temporary], &bar, 0)?;
    bar.finish_and_clear();
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(only_file_in(&download)?).arg("-C").arg(&unpacked);
    process::stdout_of(tar.args(["--strip-components=4", "--wildcards", "*/vendor/llama.cpp/models/ggml-vocab-*"]))?;
    if fs::read_dir(&unpacked)?.next().is_none() {
        bail!("the package holds no vocabularies");
    }
    fs::rename(&unpacked, &folder).with_context(|| format!("cannot move them to {}", folder.display()))?;
    Ok(folder)
}

/// Where they are once they are fetched.
pub(crate) fn vocab_vectors_folder(cache: &Cache) -> PathBuf {
    cache.path(format!("{NAME}-{VERSION}"))
}

fn pip_download_source(scratch: &Path, download: &Path, temporary: &Path) -> Result<Command> {
    let requirements = scratch.join("requirements.txt");
    fs::write(&requirements, format!("llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n"))?;
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]);
    command.args(["--no-binary", "llama-cpp-python", "--require-hashes"]);
    command.arg("--dest").arg(download).arg("-r").arg(requirements);
    command.env("TMPDIR", temporary);
    Ok(command)
}
