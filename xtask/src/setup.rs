//! `cargo xtask setup`: makes everything that the checks need, once.

use std::process::ExitCode;

use anyhow::Result;

use crate::{cache::Cache, debian, tools};

/// What to make.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the Debian roots
    #[arg(long)]
    roots: bool,
    /// Only the cargo tools and the spelling checker
    #[arg(long)]
    tools: bool,
}

/// Makes what is missing and prints where it is.
///
/// # Errors
/// If something cannot be made.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let everything = !options.roots && !options.tools;
    let cache = Cache::open()?;
    if everything {
        host_packages()?;
    }
    if everything || options.roots {
        for recipe in [debian::GRAPHICS, debian::LLAMA] {
            println!("{:<12} {}", recipe.name, recipe.ensure(&cache)?.display());
        }
    }
    if everything || options.tools {
        println!("{:<12} {}", "cargo-fuzz", tools::CARGO_FUZZ.ensure(&cache)?.display());
        println!("{:<12} {}", "cargo-deny", tools::CARGO_DENY.ensure(&cache)?.display());
        println!("{:<12} {}", "typos", tools::ensure_typos(&cache)?.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What a build and the downloads need of the host.
///
/// # Errors
/// If something is missing and cannot be installed.
pub(crate) fn host_packages() -> Result<()> {
    debian::install_packages(&[("c++", "g++"), ("git", "git"), ("python3", "python3"), ("pip3", "python3-pip")])
}
