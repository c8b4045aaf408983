//! `cargo xtask shaders`: every kernel of the Vulkan backend, compiled by the target GPUs' own compiler.
//!
//! Mesa's RADV compiles on Mesa's shim for absent hardware, so that a machine without a GPU tells registers,
//! spills and machine code. Nothing runs there. The result is a table in the book and a few rules that a
//! kernel must keep.

mod compile;
mod rules;
mod table;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};

use crate::{cache::Cache, debian, workspace};

use compile::{Compiler, TARGETS};

/// The page that holds the table.
const PAGE: &str = "docs/src/shaders.md";

/// What to do with the kernels.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Hold the table of the book against what the compiler says now, and write nothing
    #[arg(long)]
    check: bool,
    /// Print the machine code of the kernels that have all these words in their name: `matvec q4_0 TOKENS=1`
    #[arg(long, num_args = 1.., value_name = "WORD", conflicts_with = "check")]
    code: Vec<String>,
    /// The target whose machine code to print
    #[arg(long, default_value = "gfx1151", requires = "code")]
    target: String,
}

/// Compiles, then writes the table, checks it or prints machine code.
///
/// # Errors
/// If a kernel does not compile or breaks a rule, or the table is out of date and is only to be checked.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let root = debian::GRAPHICS.ensure(&Cache::open()?)?;
    if !options.code.is_empty() {
        let target = TARGETS.iter().find(|target| target.name == options.target).with_context(|| {
            format!("no target `{}`, but {}", options.target, TARGETS.map(|target| target.name).join(", "))
        })?;
        print!("{}", Compiler::new(&root)?.code(target, &options.code)?);
        return Ok(ExitCode::SUCCESS);
    }
    if options.check {
        check(&root)?;
    } else {
        write(&root)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Holds kernels against the rules, and the table of the book against what the compiler says now.
///
/// # Errors
/// If a kernel breaks a rule, or the table is out of date.
pub(crate) fn check(root: &Path) -> Result<()> {
    let reports = Compiler::new(root)?.reports()?;
    rules::check(&reports)?;
    let page = read_page()?;
    let (_, old, _) = table::split(&page).with_context(|| format!("in {PAGE}"))?;
    let new = table::render(&reports)?;
    if table::compilers(old) != table::compilers(&new) {
        // Another release of Mesa gives other figures, which is no fault of a kernel.
        println!("the table is not compared, its compiler was another one; `cargo xtask shaders` writes it anew");
    } else if old != new {
        table::print_difference(old, &new);
        bail!("{PAGE} is out of date: run `cargo xtask shaders`");
    }
    println!("{}", table::summary(&reports)?);
    Ok(())
}

fn write(root: &Path) -> Result<()> {
    let reports = Compiler::new(root)?.reports()?;
    let page = read_page()?;
    let (before, old, after) = table::split(&page).with_context(|| format!("in {PAGE}"))?;
    let new = table::render(&reports)?;
    table::print_difference(old, &new);
    fs::write(workspace::root().join(PAGE), [before, &new, after].concat())?;
    println!("{}", table::summary(&reports)?);
    rules::check(&reports)
}

fn read_page() -> Result<String> {
    fs::read_to_string(workspace::root().join(PAGE)).with_context(|| format!("cannot read {PAGE}"))
}
