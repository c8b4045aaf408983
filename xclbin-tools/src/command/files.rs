//! Files in, whole and bounded; files out, whole or not at all, and never over another unasked.

mod fresh;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context;

use super::exit::{input, usage};
use fresh::Fresh;

/// The longest file that is read: a package of all images that the format's 16-bit counts allow stays below.
const MAX_BYTES: u64 = 1 << 30;

/// The bytes of a file; `-` is standard input.
///
/// # Errors
/// A file that cannot be read or is longer than 1 GiB; standard input, if it was read before.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let unreadable = |error: io::Error| input(format!("cannot read {name}: {error}"));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        static WAS_READ: AtomicBool = AtomicBool::new(false);
        if WAS_READ.swap(true, Ordering::Relaxed) {
            return Err(usage("standard input is named twice, and can be read once: name a file"));
        }
        io::stdin().lock().take(MAX_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(input(format!("{name} is longer than 1 GiB, the most that is read")));
    }
    Ok(bytes)
}

/// As [`read`], and UTF-8.
///
/// # Errors
/// As [`read`]; bytes that are not UTF-8.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        input(format!("{}, byte {at}: not UTF-8: a text is expected", path.display()))
    })
}

/// What the library made of a file, an error of it under the file's name.
///
/// # Errors
/// The library's.
pub(crate) fn about<T>(path: &Path, made: xclbin_tools::Result<T>) -> anyhow::Result<T> {
    made.with_context(|| path.display().to_string())
}

/// Makes a file whole or leaves what is there, as [`write_all`].
///
/// # Errors
/// As [`write_all`].
pub(crate) fn write(path: &Path, bytes: &[u8], force: bool) -> anyhow::Result<()> {
    write_all(&[(path.to_owned(), Cow::Borrowed(bytes))], force)
}

/// Makes all files or none. Each is written beside its place first and takes its name when all are written. `-` is
/// standard output; what is no regular file (a pipe, a device) is written as it is, last of all.
///
/// # Errors
/// If one exists and `force` is not set, is a folder, or cannot be written; if two go to the same place. Nothing that
/// was made is left behind then; what `force` has overwritten by then stays overwritten.
pub(crate) fn write_all(files: &[(PathBuf, Cow<'_, [u8]>)], force: bool) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    let mut targets = Vec::new();
    for (path, bytes) in files {
        let target = Target::of(path, force)?;
        if !seen.insert(target.place().to_owned()) {
            return Err(usage(format!("{} is to be written twice: name another file", path.display())));
        }
        targets.push((path, target, bytes));
    }
    let mut fresh = Vec::new();
    for (path, target, bytes) in &targets {
        if let Target::File { place, old } = target {
            let made = Fresh::beside(place, old.clone(), bytes).map_err(|error| failed(path, &error))?;
            fresh.push((*path, made));
        }
    }
    let mut made: Vec<PathBuf> = Vec::new();
    for (path, one) in fresh {
        match one.place(force) {
            Ok(new) => made.extend(new),
            Err(error) => {
                made.iter().for_each(|path| drop(fs::remove_file(path)));
                return Err(failed(path, &error));
            }
        }
    }
    for (path, target, bytes) in &targets {
        match target {
            Target::Out => super::output::print_bytes(bytes)?,
            Target::Special(place) => fs::write(place, bytes).map_err(|error| failed(path, &error))?,
            Target::File { .. } => {}
        }
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> anyhow::Error {
    let name = path.display();
    match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!("{name} exists: --force overwrites it"),
        _ => anyhow::anyhow!("cannot write {name}: {error}"),
    }
}

/// Where bytes go.
enum Target {
    /// Standard output.
    Out,
    /// A pipe, a device.
    Special(PathBuf),
    /// A file, with the permissions of the one that it takes the place of.
    File { place: PathBuf, old: Option<Permissions> },
}

impl Target {
    fn of(path: &Path, force: bool) -> anyhow::Result<Target> {
        if path == Path::new("-") {
            return Ok(Target::Out);
        }
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Err(usage(format!("{} is a folder: name a file", path.display()))),
            Ok(metadata) if !metadata.is_file() => Ok(Target::Special(path.to_owned())),
            Ok(_) if !force => Err(failed(path, &io::ErrorKind::AlreadyExists.into())),
            Ok(metadata) => Ok(Target::File { place: followed(path), old: Some(metadata.permissions()) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Target::File { place: followed(path), old: None })
            }
            Err(error) => Err(failed(path, &error)),
        }
    }

    fn place(&self) -> &Path {
        match self {
            Target::Out => Path::new("-"),
            Target::Special(place) | Target::File { place, .. } => place,
        }
    }
}

/// Where a link leads, one that leads to no file yet, too: the link keeps pointing there. Loops do not get here,
/// because the file behind them can neither be found nor be missing.
fn followed(path: &Path) -> PathBuf {
    // As many links as Linux follows.
    const MOST_LINKS: usize = 40;
    let mut place = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&place) {
            Ok(next) => place = place.with_file_name("").join(next),
            Err(_) => break,
        }
    }
    place
}

#[cfg(test)]
mod tests;
