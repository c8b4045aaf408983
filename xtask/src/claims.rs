//! `cargo xtask claims`: what the project says of itself, measured again.
//!
//! `docs/src/claims.md` is the one list. Each row's command prints, as the last line of its standard
//! output, `{"value": NUMBER}` or `{"unavailable": "why"}`; either may have a `"detail"` text. The value
//! is held against the row's bound. What cannot be measured here counts neither for nor against.

mod book;
pub(crate) mod pack;
mod report;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};
use book::Claim;
use report::{Measured, Report};

/// What to run and how to show it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this area (`main`, `vulkan`, ...)
    area: Option<String>,
    /// Only claims whose name contains this
    #[arg(long)]
    name: Option<String>,
    /// Print the claims without running them
    #[arg(long)]
    list: bool,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
    /// Write a folder that runs the area's claims on a machine with no Rust and no network
    #[arg(long, value_name = "DIR", conflicts_with_all = ["from", "json", "list"])]
    pack: Option<PathBuf>,
    /// Read results back from the JSON of another run instead of running
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    from: Option<PathBuf>,
}

/// Runs, packs or reads back the claims. The exit status is 1 if any falls short.
///
/// # Errors
/// If the list cannot be read, the area is unknown or a pack cannot be written.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let file = list_file();
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let claims = chosen(book::parse(&text)?, options)?;
    if options.list {
        for claim in &claims {
            println!("{:<8} {:<28} {:<12} {}", claim.area, claim.name, claim.bound.to_string(), claim.claim);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(folder) = &options.pack {
        pack::write(folder, &file, options.area.as_deref(), &claims)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = match &options.from {
        Some(file) => Report::read(file, &claims)?,
        None => measure(&claims, options.json)?,
    };
    if options.json {
        println!("{}", report.to_json()?);
    } else if options.from.is_some() {
        report.lines().for_each(|line| println!("{line}"));
    }
    Ok(if report.any_short() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The list: in a pack beside the program, otherwise in the workspace.
fn list_file() -> PathBuf {
    match pack::folder() {
        Some(folder) => folder.join("claims.md"),
        None => workspace::root().join("docs/src/claims.md"),
    }
}

fn chosen(claims: Vec<Claim>, options: &Options) -> Result<Vec<Claim>> {
    let mut areas: Vec<String> = claims.iter().map(|claim| claim.area.clone()).collect();
    areas.dedup();
    let chosen: Vec<Claim> = claims
        .into_iter()
        .filter(|claim| options.area.as_ref().is_none_or(|area| *area == claim.area))
        .filter(|claim| options.name.as_ref().is_none_or(|part| claim.name.contains(part.as_str())))
        .collect();
    if chosen.is_empty() {
        bail!("no claim matches; the areas are {}", areas.join(", "));
    }
    Ok(chosen)
}

fn measure(claims: &[Claim], quiet: bool) -> Result<Report> {
    let mut report = Report::of_this_machine();
    for claim in claims {
        eprintln!("{}: {}", claim.name, claim.claim);
        let start = Instant::now();
        let measured = measure_one(claim);
        report.add(claim, measured, start.elapsed().as_secs_f64());
        if !quiet && let Some(line) = report.lines().last() {
            println!("{line}");
        }
    }
    Ok(report)
}

/// A command that fails to give a value is short, not unavailable: only the command may say the latter.
fn measure_one(claim: &Claim) -> Measured {
    let mut last = String::new();
    let outcome = process::each_line(&mut command_of(claim), |line| {
        eprintln!("  {line}");
        if !line.trim().is_empty() {
            last = line.to_owned();
        }
    });
    match outcome {
        Ok(true) => Measured::from_line(&last),
        Ok(false) => Measured::broken(format!("`{}` failed", claim.command)),
        Err(error) => Measured::broken(format!("{error:#}")),
    }
}

/// `cargo xtask WORDS` runs this very program; anything else goes to a shell.
fn command_of(claim: &Claim) -> Command {
    let mut command = match (claim.command.strip_prefix("cargo xtask "), env::current_exe()) {
        (Some(words), Ok(program)) => {
            let mut command = Command::new(program);
            command.args(words.split_whitespace());
            command
        }
        _ => {
            let mut command = Command::new("sh");
            command.args(["-c", &claim.command]);
            command
        }
    };
    command.current_dir(pack::folder().as_deref().unwrap_or(Path::new(workspace::root())));
    command
}
