//! What was typed, and one `match` that runs it. A subcommand has a file of its own with its options.

mod cdo;
mod diff;
mod dump;
mod exit;
mod extract;
mod files;
mod info;
mod output;
mod pdi;
mod txn;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, read, check and change packages for AMD's NPUs, without Xilinx tools
#[derive(Parser)]
#[command(name = "xclbin", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(info::Options),
    Dump(dump::Options),
    Extract(extract::Options),
    Pdi(pdi::Options),
    Cdo(cdo::Options),
    Diff(diff::Options),
    Txn(txn::Options),
    Verify(verify::Options),
}

/// Runs what the command line says.
pub(crate) fn run() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::of_usage(&error),
    };
    exit::of(match args.command {
        Command::Info(options) => info::run(&options),
        Command::Dump(options) => dump::run(&options),
        Command::Extract(options) => extract::run(&options),
        Command::Pdi(options) => pdi::run(&options),
        Command::Cdo(options) => cdo::run(&options),
        Command::Diff(options) => diff::run(&options),
        Command::Txn(options) => txn::run(&options),
        Command::Verify(options) => verify::run(&options),
    })
}
