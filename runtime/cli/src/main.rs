//! The command `biga`.
//!
//! What was typed ([`args`]) becomes what is resolved ([`open`]), and one `match` runs a subcommand.
//! Standard output carries a command's result alone ([`output`]); progress, warnings and statistics go
//! to standard error. Errors become exit codes in one place ([`exit`]). This is the only crate that
//! names the backends ([`devices`]).
#![forbid(unsafe_code)]
// They panic where a reader has left; `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod devices;
mod exit;
mod interrupt;
mod open;
mod output;
mod placements;
mod progress;
mod size;
mod stats;
mod text;

mod bench;
mod logits;
mod perplexity;
mod plan;
mod probe;
mod run;

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
};

use args::{Args, Command};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::of_usage(&error),
    };
    log_to_stderr(args.verbose);
    let done = match args.command {
        Command::Probe(args) => probe::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Logits(args) => logits::run(&args),
    };
    exit::of(done)
}

/// `-v` shows what is decided, `-vv` each step, `-vvv` each submission; `BIGA_LOG` takes a filter instead.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("BIGA_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .without_time()
        // It would be told by a macro that panics where standard error is closed.
        .log_internal_errors(false)
        .init();
}
