//! Ctrl-C: the first one asks for a clean stop, the second ends the process at once.

use std::{
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context;

use crate::{exit::INTERRUPTED, output::note};

static STOP: AtomicBool = AtomicBool::new(false);

/// Starts to watch, and gives the flag that long work looks at. A step on a large model takes a while, so
/// the first one is answered at once.
///
/// # Errors
/// If the signal handler cannot be installed.
pub(crate) fn watch() -> anyhow::Result<&'static AtomicBool> {
    let on_signal = || {
        if STOP.swap(true, Ordering::Relaxed) {
            process::exit(i32::from(INTERRUPTED));
        }
        note("biga: stopping after this step; ctrl-c again ends at once");
    };
    ctrlc::set_handler(on_signal).context("cannot watch for ctrl-c")?;
    Ok(&STOP)
}

/// True once the user has asked to stop.
pub(crate) fn requested(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}
