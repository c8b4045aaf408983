//! The suite on the reference itself, and on every kernel set against it.

use biga_conformance::Options;
use biga_cpu::{CpuBackend, CpuDevice, CpuOptions, Kernels};

const OPTIONS: Options = Options { seed: 7, tolerance_factor: 1.0, hostile_addresses: true };

fn open(threads: usize, kernels: Kernels) -> Box<CpuDevice> {
    Box::new(
        CpuBackend::new(CpuOptions { threads: Some(threads), kernels })
            .open_device()
            .expect("the set was asked for only where it runs"),
    )
}

/// One thread against three: the sharing of work changes nothing.
mod reference {
    use super::{Kernels, OPTIONS, open};
    biga_conformance::tests!(open(1, Kernels::Reference), open(3, Kernels::Reference), OPTIONS);
}

/// Defines a module that runs the suite on a kernel set where this processor has it.
macro_rules! set {
    ($module:ident, $set:expr, $threads:literal) => {
        mod $module {
            use super::{Kernels, OPTIONS, open};
            biga_conformance::tests!(open(2, Kernels::Reference), open($threads, available($set)), OPTIONS);

            fn available(set: Kernels) -> Kernels {
                if Kernels::available().contains(&set) {
                    return set;
                }
                println!("this processor does not run the {} kernels: the portable ones run instead", set.name());
                Kernels::Portable
            }
        }
    };
}

set!(portable, Kernels::Portable, 2);
set!(avx2, Kernels::Avx2, 1);
set!(avx512, Kernels::Avx512, 3);
