//! Who takes part, on which device: what `compare run` finds out before it measures anything.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::builder::PossibleValuesParser;

use crate::{
    engines::{Engine, Name, biga::Biga, llama::Llama},
    libraries::Libraries,
    machine::{Device, Machine, Wanted},
    output::note,
    record::{EngineFacts, Session},
};

/// Where to find device and engines.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// auto (the first GPU, or else the CPU), gpu, or a name as biga --device takes it.
    #[arg(long, default_value = "auto")]
    device: Wanted,
    /// The program biga, if it is neither beside this one nor on PATH.
    #[arg(long, value_name = "FILE")]
    biga: Option<PathBuf>,
    /// A further option for biga's runs, such as --biga-option=--vulkan-kernels=gpu. Repeatable.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    biga_option: Vec<String>,
    /// A folder with llama.cpp's tools, if they are neither in a root of --libraries nor on PATH.
    #[arg(long, value_name = "DIR")]
    llama: Option<PathBuf>,
    /// Leave an engine out.
    #[arg(long, value_name = "ENGINE", value_parser = PossibleValuesParser::new(["biga", "llama.cpp"]))]
    without: Option<String>,
    /// A Debian root, whose dynamic loader and libraries both engines then run on, or a folder of libraries.
    /// Repeatable.
    #[arg(long, value_name = "DIR")]
    libraries: Vec<PathBuf>,
    /// CPU threads of both engines; all on the CPU, and their own defaults on a GPU, if not given.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// Device, engines, and what both are called in results.
pub(crate) struct Field {
    pub(crate) device: Device,
    pub(crate) threads: Option<usize>,
    /// It probes and measures the device even where it is left out as an engine.
    pub(crate) biga: Biga,
    pub(crate) engines: Vec<Box<dyn Engine>>,
    pub(crate) session: Session,
}

impl Field {
    /// Finds everyone; says on standard error who does not take part, and why.
    ///
    /// # Errors
    /// If the device is not there, or no engine is.
    pub(crate) fn gather(options: &Choice, out: &Path) -> Result<Field> {
        let libraries = Libraries::of(&options.libraries)?;
        let biga = biga(options, &libraries, out)?;
        let device = biga.device(&options.device)?;
        note(format_args!("device {}: {}", device.id, device.name));
        let threads = match options.threads {
            Some(threads) => Some(usize::from(threads)),
            None => device.is_cpu().then(|| Machine::here().threads),
        };
        let ours = biga.identity().map(|identity| (Box::new(biga.clone()) as Box<dyn Engine>, identity));
        let mut engines = Vec::new();
        let mut facts = Vec::new();
        for (name, found) in [(Name::Biga, ours), (Name::Llama, llama(options, libraries, &device))] {
            let left_out = options.without.as_ref().is_some_and(|word| *word == name.to_string());
            let found = if left_out { Err(anyhow!("left out")) } else { found };
            facts.push(match found {
                Ok((engine, identity)) => {
                    note(format_args!("{name}: {identity}"));
                    engines.push(engine);
                    EngineFacts { name, identity: Some(identity), unavailable: None }
                }
                Err(error) => {
                    note(format_args!("{name} does not take part: {error:#}"));
                    EngineFacts { name, identity: None, unavailable: Some(format!("{error:#}")) }
                }
            });
        }
        if engines.is_empty() {
            bail!("no engine takes part");
        }
        let session = Session::new(Machine::here(), device.clone(), facts, threads)?;
        Ok(Field { device, threads, biga, engines, session })
    }
}

fn biga(options: &Choice, libraries: &Libraries, out: &Path) -> Result<Biga> {
    let own = std::env::current_exe().ok();
    let beside: Vec<PathBuf> = own.as_deref().and_then(Path::parent).map(PathBuf::from).into_iter().collect();
    let program = options.biga.clone().or_else(|| libraries.find("biga", &beside));
    let program = program.context("no program biga beside this one or on PATH; --biga names it")?;
    let store = out.join("machine.json");
    Ok(Biga::new(std::path::absolute(program)?, libraries.clone(), store, options.biga_option.clone()))
}

fn llama(options: &Choice, libraries: Libraries, device: &Device) -> Result<(Box<dyn Engine>, String)> {
    let folders = options.llama.iter().map(std::path::absolute).collect::<std::io::Result<Vec<_>>>()?;
    let llama = Llama::find(libraries, &folders, device)?;
    let identity = llama.identity()?;
    Ok((Box::new(llama), identity))
}
