//! The backends of this program, and the machine that they make.

use std::{env, num::NonZero, path::PathBuf, sync::Arc, thread};

use biga::probe::{Machine, Measurements};
use biga_cpu::{CpuBackend, CpuOptions};
use biga_vulkan::VulkanBackend;

use crate::{
    args::MachineArgs,
    exit::{input, usage},
    output::note,
};

/// More threads than this on a core only wait for each other: nothing can be learnt from such a run.
const MAX_THREADS_PER_CORE: usize = 4;

/// A machine with every backend registered and stored measurements applied. Gives the path of the
/// measurements too, where there is one. `measuring` will make that file.
///
/// # Errors
/// Far more threads than cores; a file of measurements that was typed and is not there.
pub(crate) fn machine(args: &MachineArgs, measuring: bool) -> anyhow::Result<(Machine, Option<PathBuf>)> {
    if let Some(threads) = args.threads {
        check_threads(threads, thread::available_parallelism().map_or(1, NonZero::get))?;
    }
    let mut machine = Machine::new();
    machine.register(Arc::new(CpuBackend::new(CpuOptions { threads: args.threads, kernels: args.cpu_kernels })));
    machine.register(Arc::new(VulkanBackend::with_options(args.vulkan_kernels.into())));
    let path = store(args, measuring)?;
    if let Some(path) = &path {
        let (measurements, warning) = Measurements::load(path);
        if let Some(warning) = warning {
            note(format_args!("biga: warning: {warning}"));
        }
        machine.set_measurements(measurements);
    }
    Ok((machine, path))
}

/// Where measurements are kept. What the environment names may not be there yet; what was typed is an input
/// like any other file, unless it is about to be made.
fn store(args: &MachineArgs, measuring: bool) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = args.store.as_ref().filter(|path| !measuring && !path.exists()) {
        let path = path.display();
        return Err(input(format!("no measurements in {path}: `biga probe --measure --store {path}` makes them")));
    }
    let named = || env::var_os("BIGA_MACHINE_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(args.store.clone().or_else(named).or_else(Measurements::default_path))
}

/// Warns of more threads than cores, and refuses what cannot be meant.
fn check_threads(threads: usize, cores: usize) -> anyhow::Result<()> {
    let most = cores.saturating_mul(MAX_THREADS_PER_CORE);
    if threads > most {
        return Err(usage(format!(
            "-t {threads}: at most {most} threads are started on {cores} cores; without -t there is one for each core"
        )));
    }
    if threads > cores {
        note(format_args!(
            "biga: warning: {threads} threads on {cores} cores wait for each other in every op; -t {cores} is faster"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_threads;

    #[test]
    fn threads_are_bounded_by_the_cores() {
        for (threads, cores) in [(1, 1), (4, 1), (8, 2), (5, 16)] {
            assert!(check_threads(threads, cores).is_ok(), "{threads} on {cores}");
        }
        for (threads, cores) in [(5, 1), (9, 2), (1024, 16)] {
            let message = check_threads(threads, cores).unwrap_err().to_string();
            assert!(message.contains(&format!("-t {threads}")), "{message}");
            assert!(message.contains(&format!("at most {} threads", 4 * cores)), "{message}");
        }
    }
}
