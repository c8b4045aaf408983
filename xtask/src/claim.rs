//! `cargo xtask claim ...`: measures one claim and prints its value as JSON.
//!
//! Each subcommand starts programs and compares what they say; it holds no bound, which stands in the
//! list of claims alone.

mod compared;
mod engines;
mod packages;
mod runs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};

use crate::fetch::{GEMMA3, Model, SMOLLM2};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Prompts of 12 whose greedy text of 32 tokens is llama.cpp's
    Greedy {
        #[arg(long, value_enum, default_value_t = Weights::Smollm2)]
        model: Weights,
    },
    /// Percent between our perplexity and llama-perplexity's
    Perplexity {
        #[arg(long, value_enum, default_value_t = Weights::Smollm2)]
        model: Weights,
        #[arg(long, value_enum, default_value_t = On::Cpu)]
        on: On,
        /// Keep activations in f32 on both sides: llama.cpp reads the same weights written as F32. Only on lavapipe
        #[arg(long)]
        f32_activations: bool,
        /// Windows of 512 tokens
        #[arg(long, default_value_t = 16)]
        chunks: u32,
    },
    /// Our tokens per second over llama-bench's
    Speed {
        #[arg(value_enum)]
        phase: Phase,
        #[arg(short, long, default_value_t = 2)]
        threads: u32,
    },
    /// A figure of `cargo xtask compare` on a GPU
    Compare(compared::Options),
    /// Milliseconds that an NPU package of 4 MB takes
    Packages {
        #[arg(value_enum)]
        what: packages::What,
    },
    /// Exit status of a strict hybrid run on a machine without an NPU
    StrictExit,
    /// Failed tests among those of a package whose name contains FILTER, or that are in the test executable FILTER
    Tests {
        package: String,
        #[arg(default_value = "")]
        filter: String,
        /// Run them on lavapipe
        #[arg(long)]
        lavapipe: bool,
    },
    /// Fuzz targets with a finding
    Fuzz {
        /// Targets; without any, all of them
        targets: Vec<String>,
        /// For each target
        #[arg(long, default_value_t = 5)]
        minutes: u32,
    },
    /// Failed steps of `cargo xtask test`
    Steps {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// A real model.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Weights {
    Smollm2,
    #[value(name = "gemma3-270m")]
    Gemma3,
}

impl Weights {
    fn model(self) -> &'static Model {
        match self {
            Weights::Smollm2 => &SMOLLM2,
            Weights::Gemma3 => &GEMMA3,
        }
    }

    /// The variable that names the file where it is not to be fetched.
    fn variable(self) -> &'static str {
        match self {
            Weights::Smollm2 => "BIGA_SMOLLM2",
            Weights::Gemma3 => "BIGA_GEMMA3",
        }
    }
}

/// Where our engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum On {
    Cpu,
    Lavapipe,
}

/// Where our engine runs, and with which activations against quantised weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The CPU's fastest kernels: 8 bits.
    Cpu,
    /// The Vulkan kernels for GPUs, on lavapipe: 8 bits.
    LavapipeGpu,
    /// The Vulkan kernels for drivers on the CPU, on lavapipe: f32.
    LavapipeSoftware,
}

impl On {
    fn side(self, f32_activations: bool) -> Result<Side> {
        match (self, f32_activations) {
            (On::Cpu, false) => Ok(Side::Cpu),
            (On::Cpu, true) => bail!("--f32-activations goes with --on lavapipe"),
            (On::Lavapipe, false) => Ok(Side::LavapipeGpu),
            (On::Lavapipe, true) => Ok(Side::LavapipeSoftware),
        }
    }
}

/// A phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Phase {
    /// Reading 512 tokens.
    Prompt,
    /// Generating 128.
    Decode,
}

/// What a subcommand found.
pub(crate) enum Finding {
    /// A number, and a sentence about it.
    Value(f64, String),
    /// Why this machine cannot tell.
    Unavailable(String),
}

/// Measures and prints.
///
/// # Errors
/// If a program fails; then no value is printed and the claim is short.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let finding = match &options.what {
        What::Greedy { model } => engines::greedy(*model)?,
        What::Perplexity { model, on, f32_activations, chunks } => {
            engines::perplexity(*model, on.side(*f32_activations)?, *chunks, None)?
        }
        What::Speed { phase, threads } => engines::speed(*phase, *threads)?,
        What::Compare(options) => compared::figure(options)?,
        What::Packages { what } => packages::time(*what)?,
        What::StrictExit => runs::strict_exit()?,
        What::Tests { package, filter, lavapipe } => runs::tests(package, filter, *lavapipe)?,
        What::Fuzz { targets, minutes } => runs::fuzz(targets, *minutes)?,
        What::Steps { names } => runs::steps(names)?,
    };
    let line = match finding {
        Finding::Value(value, detail) => serde_json::json!({ "value": value, "detail": detail }),
        Finding::Unavailable(why) => serde_json::json!({ "unavailable": why }),
    };
    println!("{line}");
    Ok(ExitCode::SUCCESS)
}

/// Percent between SmolLM2's perplexity on lavapipe and llama.cpp's over a few windows, both with f32
/// activations, by the program `biga`.
///
/// # Errors
/// If a program fails.
pub(crate) fn perplexity_on_lavapipe(biga: PathBuf, chunks: u32) -> Result<Finding> {
    engines::perplexity(Weights::Smollm2, Side::LavapipeSoftware, chunks, Some(biga))
}

/// The tests' own record of llama.cpp's texts; only its prompts are used here.
const GOLDEN: &str = include_str!("../../tests/golden/smollm2.json");

/// Prompts of the text comparisons, the same as those of the tests.
fn prompts() -> Result<Vec<String>> {
    let golden: serde_json::Value = serde_json::from_str(GOLDEN)?;
    let texts = golden["texts"].as_array().context("the golden file has no texts")?;
    texts.iter().map(|text| Ok(text["prompt"].as_str().context("a golden text has no prompt")?.to_owned())).collect()
}

/// Licence texts of Debian's base system: on every machine that has the roots, and they do not change.
const TEXTS: [&str; 2] = ["GPL-3", "GFDL-1.3"];

fn text_from(licences: &Path) -> (String, Vec<PathBuf>) {
    let mut text = String::new();
    let mut missing = Vec::new();
    for name in TEXTS {
        let path = licences.join(name);
        match fs::read_to_string(&path) {
            Ok(part) => text.push_str(&part),
            Err(_) => missing.push(path),
        }
    }
    (text, missing)
}
