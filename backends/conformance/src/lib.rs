//! One suite that every backend passes.
//!
//! Each case builds the same segment on two devices from seeded random data, runs it on both and
//! compares within a stated tolerance ([`Tolerance`]); the first device is the oracle, normally the CPU
//! with its plain reference. Then the launches are held against what they declare: their barriers suffice
//! ([`conflicts`]), nothing undeclared is written, and what is not declared as read does not matter. A
//! second part checks the contract itself: zeroed memory, bounds, refusals, fences, ordering, counters,
//! and steps that no engine would write.
//!
//! Cases that a device says it does not support are listed in the [`Report`], never skipped in silence.
//! The suite knows the contract only (`biga-hal`); it allocates and reads through it.
//!
//! A backend's integration test is one line:
//!
//! ```ignore
//! biga_conformance::tests!(reference(), device());
//! ```
#![forbid(unsafe_code)]

mod bench;
mod cases;
mod contract;
mod data;
mod loading;
mod order;
mod report;
mod rig;

use biga_hal::Device;

pub use order::{Conflict, conflicts};
pub use report::{Failure, Report};
pub use rig::Tolerance;

/// What to vary.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Of all random data.
    pub seed: u64,
    /// Multiplies every tolerance; 1 for devices that compute in f32 and quantise activations to 8 bits at most.
    pub tolerance_factor: f32,
    /// Whether steps with block addresses outside every buffer are submitted. A device that cannot check
    /// them would fault for good; the engine never writes them.
    pub hostile_addresses: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { seed: 1, tolerance_factor: 1.0, hostile_addresses: false }
    }
}

/// A part of the suite: what one `#[test]` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Rows of tables in every format.
    Embed,
    /// RMS norms of rows and of heads.
    Norms,
    /// One row through every product.
    ProductsOneRow,
    /// Many rows through every product.
    ProductsManyRows,
    /// Rotary embeddings.
    Rope,
    /// Writes to the KV cache.
    KvAppend,
    /// One new position a sequence.
    AttentionDecode,
    /// Many new positions a sequence.
    AttentionPrefill,
    /// Residuals, activations, output selection.
    Elementwise,
    /// The choice of tokens and the step that follows.
    Sample,
    /// A whole layer with shared memory, prefill in chunks and decode.
    Layer,
    /// Allocation, copies, bounds, loading.
    Memory,
    /// Segments that contradict themselves.
    Refusals,
    /// Fences, ordering, counters.
    Submission,
    /// Steps that no engine would write.
    HostileSteps,
}

/// Every group, in the order in which [`run`] runs them.
pub const fn plan_of_tests() -> [Group; 15] {
    [
        Group::Embed,
        Group::Norms,
        Group::ProductsOneRow,
        Group::ProductsManyRows,
        Group::Rope,
        Group::KvAppend,
        Group::AttentionDecode,
        Group::AttentionPrefill,
        Group::Elementwise,
        Group::Sample,
        Group::Layer,
        Group::Memory,
        Group::Refusals,
        Group::Submission,
        Group::HostileSteps,
    ]
}

/// Runs one group.
pub fn run_group(group: Group, reference: &dyn Device, device: &dyn Device, options: &Options) -> Report {
    let mut report = Report::default();
    let pair = rig::Pair { reference, device, options };
    match group {
        Group::Embed => pair.run_all(cases::rows::embed(), &mut report),
        Group::Norms => pair.run_all(cases::rows::norms(), &mut report),
        Group::ProductsOneRow => pair.run_all(cases::products::one_row(), &mut report),
        Group::ProductsManyRows => pair.run_all(cases::products::many_rows(), &mut report),
        Group::Rope => pair.run_all(cases::rows::rope(), &mut report),
        Group::KvAppend => pair.run_all(cases::attention::append(), &mut report),
        Group::AttentionDecode => pair.run_all(cases::attention::decode(), &mut report),
        Group::AttentionPrefill => pair.run_all(cases::attention::prefill(), &mut report),
        Group::Elementwise => pair.run_all(cases::rows::elementwise(), &mut report),
        Group::Sample => cases::sample::run(&pair, &mut report),
        Group::Layer => cases::layer::run(&pair, &mut report),
        Group::Memory => {
            contract::memory(device, &mut report);
            loading::run(device, options.seed, &mut report);
        }
        Group::Refusals => contract::refusals(device, &mut report),
        Group::Submission => contract::submission(reference, device, &mut report),
        Group::HostileSteps => contract::hostile_steps(device, options, &mut report),
    }
    report
}

/// Runs everything.
pub fn run(reference: &dyn Device, device: &dyn Device, options: &Options) -> Report {
    let mut report = Report::default();
    for group in plan_of_tests() {
        report.append(run_group(group, reference, device, options));
    }
    report
}

/// One `#[test]` for each group. Takes an expression for the reference device and one for the device under
/// test, each of a type that derefs to `dyn Device`, and optionally one for the [`Options`].
#[macro_export]
macro_rules! tests {
    ($reference:expr, $device:expr) => {
        $crate::tests!($reference, $device, $crate::Options::default());
    };
    ($reference:expr, $device:expr, $options:expr) => {
        $crate::tests!(@each $reference, $device, $options,
            embed Embed, norms Norms, products_one_row ProductsOneRow, products_many_rows ProductsManyRows,
            rope Rope, kv_append KvAppend, attention_decode AttentionDecode, attention_prefill AttentionPrefill,
            elementwise Elementwise, sample Sample, layer Layer, memory Memory, refusals Refusals,
            submission Submission, hostile_steps HostileSteps);
    };
    (@each $reference:expr, $device:expr, $options:expr, $($name:ident $group:ident),+) => {
        $(
            #[test]
            fn $name() {
                let (reference, device) = ($reference, $device);
                $crate::run_group($crate::Group::$group, &*reference, &*device, &$options).assert_passed();
            }
        )+
    };
}
