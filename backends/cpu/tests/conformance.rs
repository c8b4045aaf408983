//! The suite on the reference itself.

use biga_conformance::Options;
use biga_cpu::{CpuBackend, CpuDevice, CpuOptions, Kernels};

const OPTIONS: Options = Options { seed: 7, tolerance_factor: 1.0, hostile_addresses: true };

fn open(threads: usize, kernels: Kernels) -> Box<CpuDevice> {
    Box::new(CpuBackend::new(CpuOptions { threads: Some(threads), kernels }).open_device())
}

/// One thread against three: the sharing of work changes nothing.
mod reference {
    use super::{Kernels, OPTIONS, open};
    biga_conformance::tests!(open(1, Kernels::Reference), open(3, Kernels::Reference), OPTIONS);
}
