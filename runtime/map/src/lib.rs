//! Memory-mapped files that may change or shrink under us.
//!
//! A model file is mapped once and read in place for as long as the model lives. Nobody can stop another
//! process from truncating or rewriting it meanwhile, and a read beyond a shrunken file's end raises SIGBUS.
//! Here both become ordinary errors: a fault inside a mapping of ours puts zeros where the file was and
//! marks the mapping as lost ([`MappedFile::lost`]), and [`MappedFile::check`] compares the file with what
//! was mapped. Whoever computes with the bytes asks one of them before trusting a result.
//!
//! This is the one crate with unsafe code outside the backends. It knows nothing of models or devices.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

mod sigbus;

/// Why a file could not be mapped, or can no longer be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `open`, `inspect`, `map`, `watch`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{} is {kind}, not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file of no bytes.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More bytes than this machine can address.
    #[error("{} has {size_bytes} bytes, more than this machine can address", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// Every place in the table of watched mappings is taken.
    #[error("cannot map {}: {max} files are mapped already", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// Size of the table.
        max: usize,
    },
    /// The path now leads elsewhere, or the file was written to.
    #[error("{} changed while in use: {what} was {was}, is {now}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// `inode`, `size` or `modification time`.
        what: &'static str,
        /// When it was mapped.
        was: i128,
        /// Now.
        now: i128,
    },
    /// A read met bytes that were no longer there; zeros were read in their place.
    #[error("{} shrank or became unreadable while in use", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
    },
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: i128,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }
}

/// A file mapped read-only and privately, from its first byte to its last.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    identity: Identity,
    // Dropped before `map`: fields drop in the order of declaration, and a range must not be watched
    // once other memory may lie there.
    watch: sigbus::Watch,
    map: Mmap,
}

impl MappedFile {
    /// Maps a file. The first call installs the SIGBUS handler.
    ///
    /// # Errors
    /// [`MapError::Io`] if it cannot be opened, read or mapped; [`MapError::NotAFile`], [`MapError::Empty`],
    /// [`MapError::TooLarge`] or [`MapError::TooMany`] as their names say.
    pub fn open(path: impl AsRef<Path>) -> Result<MappedFile, MapError> {
        let path = path.as_ref().to_path_buf();
        let io = |action| {
            let path = path.clone();
            move |source| MapError::Io { action, path, source }
        };
        let file = open_without_blocking(&path).map_err(io("open"))?;
        let metadata = file.metadata().map_err(io("inspect"))?;
        if !metadata.is_file() {
            return Err(MapError::NotAFile { path, kind: kind_of(&metadata) });
        }
        let identity = Identity::of(&metadata);
        if identity.size_bytes == 0 {
            return Err(MapError::Empty { path });
        }
        // A slice may not be longer than isize::MAX bytes.
        let Some(len) = usize::try_from(identity.size_bytes).ok().filter(|&len| isize::try_from(len).is_ok()) else {
            return Err(MapError::TooLarge { path, size_bytes: identity.size_bytes });
        };
        sigbus::install().map_err(io("watch"))?;
        // SAFETY: the mapping is private and read-only, so nothing in this process writes to it. Another
        // process may write to or truncate the file; truncation is caught by the handler that `watch`
        // registers with below, and of the bytes nobody assumes that two reads agree: what is read twice is
        // plain numbers, and lengths and offsets are checked on copies.
        let map = unsafe { MmapOptions::new().len(len).map_copy_read_only(&file) }.map_err(io("map"))?;
        let Some(watch) = sigbus::Watch::new(map.as_ptr().addr(), map.len()) else {
            return Err(MapError::TooMany { path, max: sigbus::MAX_WATCHES });
        };
        Ok(MappedFile { path, identity, watch, map })
    }

    /// The file's bytes. After a loss some of them are zeros.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Where the file was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True once a read has met bytes that were no longer there. Costs one load: cheap enough for every step.
    pub fn lost(&self) -> bool {
        self.watch.lost()
    }

    /// Compares the file at [`MappedFile::path`] with what was mapped.
    ///
    /// # Errors
    /// [`MapError::Lost`], [`MapError::Changed`], or [`MapError::Io`] if nothing is there any more.
    pub fn check(&self) -> Result<(), MapError> {
        let path = || self.path.clone();
        if self.lost() {
            return Err(MapError::Lost { path: path() });
        }
        let metadata =
            std::fs::metadata(&self.path).map_err(|source| MapError::Io { action: "inspect", path: path(), source })?;
        let (was, now) = (self.identity, Identity::of(&metadata));
        let changed = |what, was: i128, now: i128| Err(MapError::Changed { path: path(), what, was, now });
        if (was.device, was.inode) != (now.device, now.inode) {
            changed("inode", was.inode.into(), now.inode.into())
        } else if was.size_bytes != now.size_bytes {
            changed("size", was.size_bytes.into(), now.size_bytes.into())
        } else if was.modified_ns != now.modified_ns {
            changed("modification time", was.modified_ns, now.modified_ns)
        } else {
            Ok(())
        }
    }

    /// Asks the kernel to read a range ahead. A hint: a range outside the file, or a refusal, changes nothing.
    pub fn prefetch(&self, offset: usize, size_bytes: usize) {
        if offset.checked_add(size_bytes).is_some_and(|end| end <= self.map.len()) {
            let _ = self.map.advise_range(Advice::WillNeed, offset, size_bytes);
        }
    }

    /// Tells the kernel that a range was read for the last time, so that it no longer counts as memory of this
    /// process. A hint like [`MappedFile::prefetch`]: who reads the range again gets the file's bytes.
    pub fn release(&self, offset: usize, size_bytes: usize) {
        if offset.checked_add(size_bytes).is_some_and(|end| end <= self.map.len()) {
            // SAFETY: the mapping is read-only, so no page of it was ever written to and each is read from the
            // file again; where the file was lost, fresh pages are zeros as the ones before.
            let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, size_bytes) };
        }
    }
}

/// Opening a pipe for reading waits for a writer; a model path that names one must fail instead.
fn open_without_blocking(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn kind_of(metadata: &std::fs::Metadata) -> &'static str {
    if metadata.is_dir() { "a folder" } else { "a special file" }
}

#[cfg(test)]
mod tests;
