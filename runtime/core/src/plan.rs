//! Plan: model, topology and wishes become a [`Plan`]. Pure: no device is touched.
//!
//! A plan says, for every op and phase, which device runs it and why; which ops form segments; where
//! values cross devices; where every weight and every layer's KV lives; and where each value lies in
//! memory. All phases are planned together, because weights and KV are shared between them.

//!
//! The order of the work: [`Plan::build`] tabulates what devices can do (`inputs`), turns rules, policy and
//! the cost model into an abstract problem (`decide`), solves it exactly (`placement`), and derives reasons,
//! segments, crossings, KV groups, lifetimes and memory from the answer.

pub mod request;

pub mod types;

mod inputs;

mod rules;

mod cost;

mod decide;

mod placement;

mod reason;

mod segment;

mod lifetime;

mod kv;

mod budget;

mod build;

mod verify;

mod explain;

mod json;

mod dot;

#[cfg(test)]
mod tests;

pub use budget::kv_blocks;
pub use cost::{DECODE_STEPS, buckets};
pub use explain::Explain;
pub use json::JSON_VERSION;
pub use request::{Capabilities, PlaceRule, PlanError, PlanRequest, PlannedWeight, Policy};
pub(crate) use types::MAX_IN_FLIGHT;
pub use types::{
    Arena, Crossing, CrossingMethod, Fallback, KvGroup, Limits, Location, MemoryUse, Phase, PhasePlan, Placement, Plan,
    PlannedDevice, Reason, SegmentPlan, ValueHome, WeightHome,
};
