//! `compare`: biga beside llama.cpp on the same files, on the same machine, in turns.
//!
//! A `test` is a figure, tests that share a process are a group, and a round is every group once with
//! each engine. Each sample is written to a file as soon as it is there (`record`), and the report is a
//! function of that file alone (`report`). No figure stands in this program.
#![forbid(unsafe_code)]
// They panic where a reader has left; `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod shape;

mod gguf;

mod noise;

mod output;

mod generate;

mod cost;

mod model;

mod test;

mod process;

mod libraries;

mod machine;

mod engines;

mod record;

mod field;

mod run;

mod report;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use biga::hal::DType;
use clap::{Parser, Subcommand};

use output::note;
use report::Report;
use shape::Shape;

/// Speed of biga and llama.cpp on the same files, on the same machine, in turns.
#[derive(Debug, Parser)]
#[command(name = "compare", version, max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a GGUF file with a model's shape and weights of noise.
    Generate {
        /// tiny, tiny-gemma3, smollm2-135m, llama-1b, llama-8b, llama-13b, gemma3-27b.
        shape: Shape,
        /// q4_0, q8_0 or f16.
        #[arg(value_parser = model::format_of)]
        format: DType,
        /// The file.
        out: PathBuf,
    },
    /// Measure, and report.
    Run(Box<run::Options>),
    /// Report what a file of results holds.
    Report {
        /// What `run` wrote: results.jsonl.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("compare: error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Generate { shape, format, out } => {
            let size_bytes = generate::generate(&shape, format, &out, machine::Machine::here().threads)?;
            output::print(&format!("{}: {size_bytes} bytes, weights of noise: for speed only\n", out.display()))?;
        }
        Command::Run(options) => {
            if let Some(report) = run::run(&options)? {
                print_report(&report, options.json)?;
            }
        }
        Command::Report { file, json } => {
            let lines =
                record::parse(&record::read(&file)?).with_context(|| format!("cannot use {}", file.display()))?;
            print_report(&Report::of(&lines)?, json)?;
        }
    }
    Ok(())
}

fn print_report(report: &Report, json: bool) -> Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { report.to_text() };
    output::print(&text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
