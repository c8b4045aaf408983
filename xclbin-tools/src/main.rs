//! The command `xclbin`: reads, builds, checks and changes NPU packages.
//!
//! Standard output carries a command's result alone; notes and errors go to standard error. Errors become exit
//! codes in one place (`command::exit`). Files are written whole or not at all (`command::files`).
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod command;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run()
}
