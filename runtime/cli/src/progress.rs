//! Progress bars: on standard error, and only if that is a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One bar for one task; nothing is drawn where standard error is no terminal.
pub(crate) struct Bar(ProgressBar);

/// The bar counts thousandths.
const LENGTH: u64 = 1000;

impl Bar {
    /// A bar at zero.
    pub(crate) fn new(task: &str) -> Bar {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(LENGTH), target);
        if let Ok(style) = ProgressStyle::with_template("{prefix:<12} [{bar:30}] {percent:>3} %  {elapsed}  {wide_msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(task.to_owned());
        Bar(bar)
    }

    /// Shows a fraction, 0 to 1, and what is being done.
    pub(crate) fn set(&self, fraction: f64, what: &str) {
        if self.0.message() != what {
            self.0.set_message(what.to_owned());
        }
        self.0.set_position((fraction.clamp(0.0, 1.0) * LENGTH as f64) as u64);
    }

    /// False where nothing is drawn.
    pub(crate) fn is_drawn(&self) -> bool {
        !self.0.is_hidden()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
