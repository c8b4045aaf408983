//! What ran so far: steps, fallbacks with their counts, what the devices counted.

use std::sync::Arc;

use biga_hal::{Counters, Device};

use crate::plan::{Fallback, Phase, Plan};

/// A fallback of the plan, and how often it happened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FallbackCount {
    /// Which ops, wanted where, run where, why.
    #[serde(flatten)]
    pub fallback: Fallback,
    /// Ops that ran there instead, over all steps.
    pub n_ops_run: u64,
}

/// Counts since the engine was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Steps that ran in a prefill bucket.
    pub n_prefill_steps: u64,
    /// Steps that ran in a decode bucket.
    pub n_decode_steps: u64,
    /// Every fallback of the plan, also those that have not happened yet.
    pub fallbacks: Vec<FallbackCount>,
    /// By device of the plan: its name and what it counted since it was opened.
    pub devices: Vec<(String, Counters)>,
}

pub(super) fn collect(plan: &Plan, devices: &[Arc<dyn Device>], n_steps: &[u64]) -> Stats {
    let steps = |wanted: Phase| {
        let phases = plan.phases.iter().zip(n_steps).filter(|(phase, _)| phase.phase == wanted);
        phases.map(|(_, n)| n).sum::<u64>()
    };
    let count = |fallback: &Fallback| FallbackCount {
        fallback: fallback.clone(),
        n_ops_run: steps(fallback.phase) * fallback.count as u64,
    };
    Stats {
        n_prefill_steps: steps(Phase::Prefill),
        n_decode_steps: steps(Phase::Decode),
        fallbacks: plan.fallbacks.iter().map(count).collect(),
        devices: devices.iter().map(|device| (device.info().id.to_string(), device.counters())).collect(),
    }
}
