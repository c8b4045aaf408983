//! Plan: model, topology and wishes become a [`Plan`]. Pure: no device is touched.
//!
//! A plan says, for every op and phase, which device runs it and why; which ops form segments; where
//! values cross devices; where every weight and every layer's KV lives; and where each value lies in
//! memory. All phases are planned together, because weights and KV are shared between them.

pub mod request;

pub mod types;

mod placement;

pub use request::{Capabilities, PlaceRule, PlanError, PlanRequest, PlannedWeight, Policy};
pub use types::{
    Arena, Crossing, CrossingMethod, Fallback, KvGroup, Limits, Location, MemoryUse, Phase, PhasePlan, Placement, Plan,
    PlannedDevice, Reason, SegmentPlan, ValueHome, WeightHome,
};
