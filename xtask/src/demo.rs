//! `cargo xtask demo`: from a clone to an answer in one command.
//!
//! It needs no GPU and no Vulkan driver: what is absent shows up in the placement table as the reason
//! why the CPU took the op.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{biga_command, cache::Cache, fetch, process, setup};

/// What to ask.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The question
    #[arg(short, long, default_value = "Tell me the capital of France.")]
    prompt: String,
    /// A file or model folder to use instead of SmolLM2
    #[arg(short, long)]
    model: Option<std::path::PathBuf>,
    /// Most tokens to generate
    #[arg(short, default_value_t = 48)]
    n: u32,
}

/// Installs, builds, fetches, plans and runs.
///
/// # Errors
/// If any of these fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    setup::host_packages()?;
    let model = match &options.model {
        Some(model) => model.clone(),
        None => fetch::ensure(&Cache::open()?, &fetch::SMOLLM2)?,
    };
    let biga = biga_command::build()?;
    if !has_vulkan_loader() {
        eprintln!("\nno Vulkan loader (libvulkan.so.1) on this machine: everything runs on the CPU");
    }
    println!("\n== where each op runs, and why ==");
    process::run(Command::new(&biga).arg("plan").arg(&model).arg("--explain"))?;
    println!("\n== {} ==", options.prompt);
    process::run(
        Command::new(&biga)
            .arg("run")
            .arg(&model)
            .args(["-p", &options.prompt, "-n", &options.n.to_string()])
            .args(["--temp", "0", "--stats"]),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn has_vulkan_loader() -> bool {
    process::output(Command::new("/sbin/ldconfig").arg("-p"))
        .is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains("libvulkan.so.1"))
}
