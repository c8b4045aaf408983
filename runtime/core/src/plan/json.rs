//! The plan for programs. The shape is versioned; fields are added, never changed, within a version.
//!
//! ```text
//! { "version": 1, "model", "policy", "rules": [text], "strict", "optimal", "gap", "limits": {...},
//!   "devices":   [ { "id", "name", "kind", "budget_bytes", "measured", "memory": {weights,in_place,kv,values,other}_bytes } ],
//!   "kv":        [ { "layers": [n], "home": id, "accessors": [id], "dtype", "window": n | null } ],
//!   "fallbacks": [ { "op", "phase", "wanted", "ran_on", "cause", "count" } ],
//!   "phases":    [ { "phase", "bucket": {tokens, sequences, outputs}, "predicted_s", "limit_s",
//!                    "segments":  [ { "device": id, "ops": [index] } ],
//!                    "crossings": [ { "value": index, "from": id, "to": id, "before_segment", "method", "predicted_s" } ],
//!                    "arenas":    [ { "owner": id, "accessors": [id], "host_reads", "size_bytes" } ] } ],
//!   "ops":       [ { "op", "class", "layer": n | null, "placements": { phase: { "device": id, "reason": {...} } } } ] }
//! ```
//!
//! Indices of ops are places in `ops`; `reason.kind` is `cost`, `user`, `policy`, `only_capable` or `fallback`.

use serde_json::{Map, Value, json};

use super::{
    request::kind_word,
    types::{PhasePlan, Plan},
};

/// Version of the shape.
pub const JSON_VERSION: u32 = 1;

impl Plan {
    /// The plan as JSON, in the shape drawn in this module's documentation.
    pub fn to_json(&self) -> Value {
        json!({
            "version": JSON_VERSION,
            "model": self.model,
            "policy": self.policy,
            "rules": self.rules().iter().map(ToString::to_string).collect::<Vec<String>>(),
            "strict": self.is_strict(),
            "optimal": self.optimal,
            "gap": self.gap,
            "limits": self.limits,
            "devices": self.devices_json(),
            "kv": self.kv_json(),
            "fallbacks": self.fallbacks,
            "phases": self.phases.iter().map(|phase| self.phase_json(phase)).collect::<Vec<Value>>(),
            "ops": self.ops_json(),
        })
    }

    fn names(&self, devices: &[usize]) -> Vec<String> {
        devices.iter().map(|&device| self.device_name(device)).collect()
    }

    fn devices_json(&self) -> Vec<Value> {
        let device = |(device, memory): (&super::PlannedDevice, &super::MemoryUse)| {
            json!({
                "id": device.id().to_string(),
                "name": device.info.name,
                "kind": kind_word(device.info.kind),
                "budget_bytes": device.budget_bytes,
                "measured": device.info.rates.measured,
                "memory": memory,
            })
        };
        self.devices.iter().zip(&self.memory).map(device).collect()
    }

    fn kv_json(&self) -> Vec<Value> {
        let group = |group: &super::KvGroup| {
            json!({
                "layers": group.layers,
                "home": self.device_name(group.home),
                "accessors": self.names(&group.accessors),
                "dtype": group.dtype.name(),
                "window": group.window,
            })
        };
        self.kv.iter().map(group).collect()
    }

    fn phase_json(&self, phase: &PhasePlan) -> Value {
        let segments = phase
            .segments
            .iter()
            .map(|segment| json!({ "device": self.device_name(segment.device), "ops": segment.ops }));
        let crossings = phase.crossings.iter().map(|crossing| {
            json!({
                "value": crossing.value,
                "from": self.device_name(crossing.from),
                "to": self.device_name(crossing.to),
                "before_segment": crossing.before_segment,
                "method": crossing.method,
                "predicted_s": crossing.predicted_s,
            })
        });
        let arenas = phase.arenas.iter().map(|arena| {
            json!({
                "owner": self.device_name(arena.owner),
                "accessors": self.names(&arena.accessors),
                "host_reads": arena.host_reads,
                "size_bytes": arena.size_bytes,
            })
        });
        json!({
            "phase": phase.phase,
            "bucket": phase.bucket,
            "predicted_s": phase.predicted_s,
            "limit_s": phase.limit_s,
            "segments": segments.collect::<Vec<Value>>(),
            "crossings": crossings.collect::<Vec<Value>>(),
            "arenas": arenas.collect::<Vec<Value>>(),
        })
    }

    fn ops_json(&self) -> Vec<Value> {
        let op = |(op, node): (crate::load::graph::OpId, &crate::load::graph::OpNode)| {
            let placements: Map<String, Value> = self
                .shown_phases()
                .map(|phase| {
                    let placement = &phase.placements[op.0];
                    let device = self.device_name(placement.device);
                    (phase.phase.to_string(), json!({ "device": device, "reason": placement.reason }))
                })
                .collect();
            json!({
                "op": node.op.kind.name(),
                "class": node.class.name(),
                "layer": node.op.layer,
                "placements": placements,
            })
        };
        self.graph().ops().map(op).collect()
    }
}
