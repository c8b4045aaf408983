//! The cache folder: Debian roots, cargo tools, models.
//!
//! An entry appears under its final name only when it is complete: it is made in a temporary folder of
//! the same file system and renamed. A lock file per entry keeps two processes from making it at once.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The folder that holds everything made beside the workspace.
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens the cache, creating its folder.
    ///
    /// # Errors
    /// If no folder is known or it cannot be created.
    pub(crate) fn open() -> Result<Cache> {
        let folder = folder_from(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot create the cache folder {}", folder.display()))?;
        Ok(Cache { folder })
    }

    /// A path inside the cache.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.join(relative)
    }

    /// Waits until no other process holds the lock `name`; it is released when the file is dropped.
    ///
    /// # Errors
    /// If the lock file cannot be opened or locked.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let path = self.path(format!("{name}.lock"));
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another process that makes {name}");
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(file)
    }

    /// An empty folder inside the cache, removed when dropped.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn scratch(&self, name: &str) -> Result<Scratch> {
        Scratch::inside(&self.folder, name)
    }
}

/// A temporary folder.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new one inside `parent`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn inside(parent: &Path, name: &str) -> Result<Scratch> {
        let path = parent.join(format!(".{name}.{}", std::process::id()));
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may have been renamed to its final place; what is left is only waste.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn folder_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    if let Some(folder) = variable("BIGA_CACHE") {
        return std::path::absolute(folder).context("BIGA_CACHE is no usable path");
    }
    if let Some(folder) = variable("XDG_CACHE_HOME").filter(|folder| folder.is_absolute()) {
        return Ok(folder.join("biga"));
    }
    match variable("HOME") {
        Some(home) => Ok(home.join(".cache/biga")),
        None => bail!("neither BIGA_CACHE nor HOME is set, so there is no place for the cache"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::folder_from;

    fn check(set: &[(&str, &str)], expected: Option<&str>) {
        let found =
            folder_from(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))).ok();
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn the_most_specific_variable_wins() {
        check(&[("BIGA_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")], Some("/a"));
        check(&[("XDG_CACHE_HOME", "/b"), ("HOME", "/c")], Some("/b/biga"));
        check(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/c")], Some("/c/.cache/biga"));
        check(&[], None);
    }
}
