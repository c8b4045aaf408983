//! Errors become exit codes here and nowhere else: 0 done, 1 failed, 2 bad usage, 3 bad input file,
//! 4 a device that was asked for is not available, 130 interrupted.

use std::{io, process::ExitCode};

use biga::ErrorKind;

use crate::output::note;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const INPUT: u8 = 3;
const DEVICE_UNAVAILABLE: u8 = 4;
pub(crate) const INTERRUPTED: u8 = 130;

/// How a command ended when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The result is out.
    Done,
    /// Stopped by the user, after saying how far it came.
    Interrupted,
}

/// An error of the command line itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A wish that makes no sense, or contradicts the model.
    #[error("{0}")]
    Usage(String),
    /// A file named by the user that is no good.
    #[error("{0}")]
    Input(String),
    /// A device named by the user that is not there.
    #[error("{0}")]
    DeviceUnavailable(String),
}

/// For `return Err(usage(..))`.
pub(crate) fn usage(words: impl Into<String>) -> anyhow::Error {
    CliError::Usage(words.into()).into()
}

/// For files that the user named.
pub(crate) fn input(words: impl Into<String>) -> anyhow::Error {
    CliError::Input(words.into()).into()
}

/// The exit code of a command line that clap refused, or of `--help` and `--version`.
pub(crate) fn of_usage(error: &clap::Error) -> ExitCode {
    // Where even the message cannot be printed, the code is all that is left to say.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// The exit code of a command, its error printed.
pub(crate) fn of(done: anyhow::Result<Outcome>) -> ExitCode {
    match done {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        // The reader of our output has seen enough (`biga plan ... | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("biga: error: {}", words(&error)));
            ExitCode::from(code(&error))
        }
    }
}

/// The error with its causes, less those that the words before them have already said.
fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !words.contains(&cause) {
            let separator = if words.is_empty() { "" } else { ": " };
            words += &format!("{separator}{cause}");
        }
    }
    words
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<CliError>() {
        return match error {
            CliError::Usage(_) => USAGE,
            CliError::Input(_) => INPUT,
            CliError::DeviceUnavailable(_) => DEVICE_UNAVAILABLE,
        };
    }
    match error.downcast_ref::<biga::Error>().map(biga::Error::kind) {
        Some(ErrorKind::Usage) => USAGE,
        Some(ErrorKind::Input) => INPUT,
        Some(ErrorKind::DeviceUnavailable) => DEVICE_UNAVAILABLE,
        Some(ErrorKind::Failed) | None => FAILED,
    }
}
