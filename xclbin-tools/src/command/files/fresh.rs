//! A file that is written under a name of its own, then takes its place.

use std::{
    collections::hash_map::RandomState,
    fs::{self, OpenOptions, Permissions},
    hash::BuildHasher,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Written, not yet in its place. It is removed where it never gets there.
pub(super) struct Fresh {
    temporary: PathBuf,
    place: PathBuf,
    is_new: bool,
}

impl Fresh {
    /// Writes `bytes` beside `place`, with the permissions of the file that it is to replace.
    pub(super) fn beside(place: &Path, old: Option<Permissions>, bytes: &[u8]) -> io::Result<Fresh> {
        // Names are random, so a second one that exists is no accident.
        const MOST_TRIES: usize = 16;
        let mut tries = 0;
        let (mut file, fresh) = loop {
            // Short, because the name of the place may be as long as names can be.
            let temporary = place.with_file_name(format!(".xclbin-{:016x}", random()));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => break (file, Fresh { temporary, place: place.to_owned(), is_new: old.is_none() }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < MOST_TRIES => tries += 1,
                // "Exists" would be said of the place.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(io::Error::other("no free name for a temporary file beside it"));
                }
                Err(error) => return Err(error),
            }
        };
        // Before the first byte, so that nobody reads what the old file kept to itself.
        if let Some(permissions) = old {
            file.set_permissions(permissions)?;
        }
        file.write_all(bytes)?;
        Ok(fresh)
    }

    /// Gives it its name; the name, if nothing was there before.
    pub(super) fn place(self, force: bool) -> io::Result<Option<PathBuf>> {
        if force {
            fs::rename(&self.temporary, &self.place)?;
        } else {
            // A second link fails where a file appeared meanwhile; a new name would replace it.
            match fs::hard_link(&self.temporary, &self.place) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => copy(&self.temporary, &self.place)?,
            }
        }
        Ok(self.is_new.then(|| self.place.clone()))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // After a new name there is none any more.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// For file systems without links, such as FAT: the place is made, never replaced, and removed if it stays unfinished.
fn copy(temporary: &Path, place: &Path) -> io::Result<()> {
    let mut from = fs::File::open(temporary)?;
    let mut to = OpenOptions::new().write(true).create_new(true).open(place)?;
    io::copy(&mut from, &mut to).map(drop).inspect_err(|_| drop(fs::remove_file(place)))
}

/// The keys of a new hash map are random.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_never_replaces() {
        let folder = tempfile::tempdir().expect("a folder");
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        fs::write(&from, "new").expect("a file");
        copy(&from, &to).expect("a free place");
        assert_eq!(fs::read(&to).expect("the copy"), b"new");
        fs::write(&from, "newer").expect("a file");
        assert_eq!(copy(&from, &to).expect_err("a taken place").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).expect("the copy"), b"new");
    }
}
