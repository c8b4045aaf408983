//! The backends of this program, and the machine that they make.

use std::{num::NonZero, path::PathBuf, sync::Arc, thread};

use biga::probe::{Machine, Measurements};
use biga_cpu::{CpuBackend, CpuOptions};
use biga_vulkan::VulkanBackend;

use crate::args::MachineArgs;

/// A machine with every backend registered and stored measurements applied. Gives the path of the
/// measurements too, where there is one.
pub(crate) fn machine(args: &MachineArgs) -> (Machine, Option<PathBuf>) {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    if let Some(threads) = args.threads.filter(|&threads| threads > cores) {
        eprintln!(
            "biga: warning: {threads} threads on {cores} cores wait for each other in every op; -t {cores} is faster"
        );
    }
    let mut machine = Machine::new();
    machine.register(Arc::new(CpuBackend::new(CpuOptions { threads: args.threads, kernels: args.cpu_kernels })));
    machine.register(Arc::new(VulkanBackend::new()));
    let path = args.store.clone().or_else(Measurements::default_path);
    if let Some(path) = &path {
        let (measurements, warning) = Measurements::load(path);
        if let Some(warning) = warning {
            eprintln!("biga: warning: {warning}");
        }
        machine.set_measurements(measurements);
    }
    (machine, path)
}
