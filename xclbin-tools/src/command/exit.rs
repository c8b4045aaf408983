//! Errors become exit codes here and nowhere else: 0 done, 1 failed or a finding, 2 bad usage, 3 bad input file.

use std::process::ExitCode;

use super::output::note;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const INPUT: u8 = 3;

/// How a command ended when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The result is out.
    Done,
    /// The result is out and says no: `verify` found a fault, `diff` a difference.
    Found,
}

/// An error of the command line itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A wish that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file named by the user that is no good.
    #[error("{0}")]
    Input(String),
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
        Ok(Outcome::Found) => ExitCode::from(FAILED),
        Err(error) => {
            note(format_args!("xclbin: error: {error:#}"));
            ExitCode::from(code(&error))
        }
    }
}

fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<CliError>() {
        Some(CliError::Usage(_)) => return USAGE,
        Some(CliError::Input(_)) => return INPUT,
        None => {}
    }
    // What the library refuses comes from a file that the user named.
    if error.downcast_ref::<xclbin_tools::Error>().is_some() { INPUT } else { FAILED }
}
