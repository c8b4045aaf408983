//! What was typed, and one `match` that runs it. A subcommand has a file of its own with its options.

mod build;
mod cdo;
mod diff;
mod draw;
mod dump;
mod elf;
mod exit;
mod extract;
mod files;
mod info;
mod kind;
mod merge;
mod output;
mod pdi;
mod sections;
mod split;
mod stamp;
mod txn;
mod verify;
mod xclbinutil;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

/// A paragraph is a line: clap breaks it where the terminal ends.
const AFTER: &str = "\
`-` in place of a file is standard input, or standard output.

Exit codes: 0 done; 1 failed, or something was found: by `verify` an error, by `diff` a difference, by `info` and `dump` a section that cannot be read; 2 bad usage; 3 bad input file.

A command line that starts with an option of xclbinutil is read as xclbinutil reads it, and so is each under the name xclbinutil: `xclbin --input a.xclbin --info`. `xclbin --info --help` lists those options.";

/// Build, read, check and change packages for AMD's NPUs, without Xilinx tools
#[derive(Parser)]
#[command(name = "xclbin", version, max_term_width = 100, after_help = AFTER)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(info::Options),
    Dump(dump::Options),
    Extract(extract::Options),
    Build(build::Options),
    Split(split::Options),
    Merge(merge::Options),
    Pdi(pdi::Options),
    Cdo(cdo::Options),
    Diff(diff::Options),
    Draw(draw::Options),
    Txn(txn::Options),
    Elf(elf::Options),
    Verify(verify::Options),
}

/// Runs what the command line says.
pub(crate) fn run() -> ExitCode {
    if let Some(arguments) = for_xclbinutil() {
        return exit::of(arguments.and_then(|arguments| xclbinutil::run(&arguments)));
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::of_usage(&error),
    };
    exit::of(match args.command {
        Command::Info(options) => info::run(&options),
        Command::Dump(options) => dump::run(&options),
        Command::Extract(options) => extract::run(&options),
        Command::Build(options) => build::run(&options),
        Command::Split(options) => split::run(&options),
        Command::Merge(options) => merge::run(&options),
        Command::Pdi(options) => pdi::run(&options),
        Command::Cdo(options) => cdo::run(&options),
        Command::Diff(options) => diff::run(&options),
        Command::Draw(options) => draw::run(&options),
        Command::Txn(options) => txn::run(&options),
        Command::Elf(options) => elf::run(&options),
        Command::Verify(options) => verify::run(&options),
    })
}

/// The command line, where it is one of `xclbinutil`: by the program's name or by its first option.
fn for_xclbinutil() -> Option<anyhow::Result<Vec<String>>> {
    let mut arguments = std::env::args_os();
    let program = arguments.next()?;
    let arguments: Vec<OsString> = arguments.collect();
    let is_named_so = Path::new(&program).file_stem().is_some_and(|name| name == "xclbinutil");
    let first = arguments.first().map(|first| first.to_string_lossy());
    let has_its_option = first.is_some_and(|first| xclbinutil::is_option(&first));
    let text = |argument: OsString| {
        argument.into_string().map_err(|name| {
            let bound = "options of xclbinutil are in UTF-8; `xclbin build`, `info` and `extract` take any file name";
            exit::usage(format!("{name:?}: {bound}"))
        })
    };
    (is_named_so || has_its_option).then(|| arguments.into_iter().map(text).collect())
}
