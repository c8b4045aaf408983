//! Standard output: results alone. Standard error: notes, and bars where it is a terminal. Neither panics,
//! because a reader may leave.

use std::{
    fmt::Display,
    io::{self, Write},
};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Writes a result and flushes it. A reader that has seen enough is no failure.
///
/// # Errors
/// The stream's own.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Writes a line to standard error. Where nobody reads it, there is nobody to tell.
pub(crate) fn note(text: impl Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// One bar for one task, over bytes.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar at zero of `total_bytes`.
    pub(crate) fn new(task: &str, total_bytes: u64) -> Bar {
        let bar = ProgressBar::new(total_bytes);
        let template = "{prefix:<12} [{bar:30}] {percent:>3} %  {binary_bytes_per_sec}  {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(task.to_owned());
        Bar(bar)
    }

    /// So many bytes more are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
