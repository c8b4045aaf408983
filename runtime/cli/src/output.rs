//! Standard output: results alone. Standard error: notes. Neither panics, because a reader may leave.
//! Files: whole or not at all.

use std::{
    fmt::Display,
    fs,
    io::{self, Write},
    path::Path,
};

/// Writes a result and flushes it.
///
/// # Errors
/// The stream's own; a reader that left is [`io::ErrorKind::BrokenPipe`].
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to standard error. Where nobody reads it, there is nobody to tell.
pub(crate) fn note(text: impl Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Makes a file whole or leaves what is there: `write` fills a new one beside it, which takes its name at the
/// end. What is no regular file (a pipe, a device) is written as it is.
///
/// # Errors
/// If it cannot be written; nothing is left behind.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> anyhow::Result<()> {
    let failed = |error: io::Error| anyhow::anyhow!("cannot write {}: {error}", path.display());
    // A link keeps pointing where it does.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return write(path).map_err(failed);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = path.with_file_name(name);
    write(&new).and_then(|()| fs::rename(&new, path)).map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(error)
    })
}

/// Writes JSON, indented, with a line end.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// The version in every `--json` answer; a change of shape raises it.
pub(crate) const JSON_VERSION: u32 = 1;
