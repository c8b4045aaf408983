//! Standard output: results alone. Standard error: notes. Neither panics, because a reader may leave.

use std::{
    fmt::Display,
    io::{self, Write},
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

/// Writes JSON, indented, with a line end.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// The version in every `--json` answer; a change of shape raises it.
pub(crate) const JSON_VERSION: u32 = 1;
