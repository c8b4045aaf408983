//! Files in, whole and bounded; files out, whole or not at all, and never over another unasked.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use anyhow::Context;

use super::exit::{input, usage};

/// The longest file that is read: a package of all images that the format's 16-bit counts allow stays below.
const MAX_BYTES: u64 = 1 << 30;

/// The bytes of a file; `-` is standard input.
///
/// # Errors
/// A file that cannot be read or is longer than 1 GiB.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let unreadable = |error: io::Error| input(format!("cannot read {name}: {error}"));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
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

/// Makes a file whole or leaves what is there: a new one beside it takes its name at the end. `-` is standard
/// output; what is no regular file (a pipe, a device) is written as it is.
///
/// # Errors
/// If the file exists and `force` is not set; if it cannot be written; nothing is left behind.
pub(crate) fn write(path: &Path, bytes: &[u8], force: bool) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return super::output::print_bytes(bytes);
    }
    let name = path.display();
    let failed = |error: io::Error| anyhow::anyhow!("cannot write {name}: {error}");
    // A link keeps pointing where it does.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match target.metadata() {
        Ok(metadata) if metadata.is_dir() => return Err(usage(format!("{name} is a folder: name a file"))),
        Ok(metadata) if !metadata.is_file() => return fs::write(&target, bytes).map_err(failed),
        Ok(_) if !force => return Err(exists(path)),
        _ => {}
    }
    let mut new_name = target.file_name().unwrap_or_default().to_owned();
    new_name.push(format!(".new-{}", std::process::id()));
    let new = target.with_file_name(new_name);
    // A link instead of a new name fails where a file appeared meanwhile.
    let placed = |new: &Path| if force { fs::rename(new, &target) } else { fs::hard_link(new, &target) };
    let done = fs::write(&new, bytes).and_then(|()| placed(&new));
    if done.is_err() || !force {
        let _ = fs::remove_file(&new);
    }
    done.map_err(|error| if error.kind() == io::ErrorKind::AlreadyExists { exists(path) } else { failed(error) })
}

fn exists(path: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} exists: --force overwrites it", path.display())
}
