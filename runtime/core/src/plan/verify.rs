//! Checks a plan against its graph from the definitions.
//!
//! It shares two things with the code that makes plans: which segment an op is in, which follows from the
//! plan's own lists, and [`Order`], which says what has finished when. A wrong order would pass unnoticed
//! here; what guards it is that the engine waits for more than the order asks.

use std::collections::BTreeSet;

use biga_hal::{Bucket, Rows};

use super::{
    request::PlanError,
    segment::segment_of,
    types::{CrossingMethod, Location, PhasePlan, Plan},
};
use crate::{
    load::graph::{Dependency, Graph, OpId},
    plan::lifetime::Order,
};

type Check = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl Plan {
    /// Checks everything that a plan promises: each op in one segment, in order; each value inside its arena
    /// and apart from every other that lives at the same time; each read in reach; one home per weight and
    /// per layer's KV; every budget kept.
    ///
    /// # Errors
    /// [`PlanError::Broken`] with the first promise that does not hold.
    pub fn verify(&self, graph: &Graph) -> Result<(), PlanError> {
        self.check(graph).map_err(|cause| PlanError::Broken { cause })
    }

    fn check(&self, graph: &Graph) -> Check {
        for phase in &self.phases {
            let named = |cause: String| format!("{} of {} tokens: {cause}", phase.phase, phase.bucket.tokens);
            self.check_segments(graph, phase).map_err(named)?;
            self.check_crossings(graph, phase).map_err(named)?;
            self.check_values(graph, phase).map_err(named)?;
            self.check_weights(graph, phase).map_err(named)?;
            self.check_kv(graph, phase).map_err(named)?;
        }
        self.check_memory()
    }

    fn check_segments(&self, graph: &Graph, phase: &PhasePlan) -> Check {
        let ops: Vec<OpId> = phase.segments.iter().flat_map(|segment| segment.ops.iter().copied()).collect();
        let expected: Vec<OpId> = graph.ops().map(|(op, _)| op).collect();
        ensure(ops == expected, || "segments are not all ops in order".to_owned())?;
        ensure(phase.placements.len() == ops.len(), || "placements are not one per op".to_owned())?;
        for segment in &phase.segments {
            ensure(segment.device < self.devices.len(), || format!("no device {}", segment.device))?;
            let same = |op: &OpId| phase.placements[op.0].device == segment.device;
            ensure(segment.ops.iter().all(same), || "a segment holds an op of another device".to_owned())?;
        }
        let apart = phase.segments.windows(2).all(|pair| pair[0].device != pair[1].device);
        ensure(apart, || "two segments in a row on one device".to_owned())?;
        for edge in graph.dag().raw_edges() {
            ensure(edge.source() < edge.target(), || "the order is not topological".to_owned())?;
        }
        Ok(())
    }

    fn check_crossings(&self, graph: &Graph, phase: &PhasePlan) -> Check {
        let segment_of = segment_of(&phase.segments, graph.len());
        for edge in graph.dag().raw_edges() {
            let (value, reader) = (OpId(edge.source().index()), OpId(edge.target().index()));
            let (from, to) = (phase.placements[value.0].device, phase.placements[reader.0].device);
            if from == to {
                continue;
            }
            let mut crossings = phase.crossings.iter().filter(|c| c.value == value && c.to == to);
            let crossing = crossings.next().ok_or_else(|| format!("value {} reaches {to} by no crossing", value.0))?;
            ensure(crossings.next().is_none(), || format!("value {} crosses to {to} twice", value.0))?;
            ensure(crossing.from == from, || format!("value {} crosses from another device", value.0))?;
            let in_time =
                crossing.before_segment <= segment_of[reader.0] && segment_of[value.0] < crossing.before_segment;
            ensure(in_time, || format!("value {} crosses too late for op {}", value.0, reader.0))?;
            if edge.weight == Dependency::Kv {
                continue;
            }
            let home = phase.values[value.0].as_ref().ok_or_else(|| format!("value {} has no home", value.0))?;
            let copied = home.copies.iter().any(|(device, _)| *device == to);
            ensure(copied == (crossing.method == CrossingMethod::Copy), || {
                format!("value {} to {to}: copy and crossing disagree", value.0)
            })?;
        }
        for crossing in &phase.crossings {
            let read = graph.dag().raw_edges().iter().any(|edge| {
                edge.source().index() == crossing.value.0
                    && phase.placements[edge.target().index()].device == crossing.to
            });
            ensure(read, || format!("value {} crosses to {} for nobody", crossing.value.0, crossing.to))?;
        }
        let sorted = phase.crossings.windows(2).all(|pair| pair[0].before_segment <= pair[1].before_segment);
        ensure(sorted, || "crossings are out of order".to_owned())
    }

    fn check_values(&self, graph: &Graph, phase: &PhasePlan) -> Check {
        ensure(phase.values.len() == graph.len(), || "homes are not one per op".to_owned())?;
        // Memory is made by kind, so that two arenas of one kind would be the same bytes.
        let kinds: BTreeSet<_> =
            phase.arenas.iter().map(|arena| (arena.owner, &arena.accessors, arena.host_reads)).collect();
        ensure(kinds.len() == phase.arenas.len(), || "two arenas of one kind".to_owned())?;
        let mut places: Vec<Place> = Vec::new();
        for (op, node) in graph.ops() {
            let home = phase.values[op.0].as_ref();
            ensure(home.is_some() == node.op.kind.output_width().is_some(), || format!("home of value {}", op.0))?;
            let Some(home) = home else { continue };
            let readers = graph.readers(op);
            let on = |device: usize| readers.iter().copied().filter(move |r| phase.placements[r.0].device == device);
            let copied = |device: usize| home.copies.iter().any(|(to, _)| *to == device);
            self.check_location(phase, &home.primary, value_bytes(graph, op, phase.bucket))?;
            for &reader in readers.iter().chain([&op]) {
                let device = phase.placements[reader.0].device;
                let arena = &phase.arenas[home.primary.arena];
                let in_reach = arena.owner == device || arena.accessors.contains(&device) || copied(device);
                ensure(in_reach, || format!("op {} does not reach value {}", reader.0, op.0))?;
            }
            // A host copy reads the primary no later than the reader of the copy starts.
            let mut users = readers.clone();
            users.push(op);
            places.push(Place { op, location: home.primary, users: users.clone(), copy: false });
            if let Some(location) = home.sampled {
                self.check_location(phase, &location, value_bytes(graph, op, self.limits.sampled(phase.bucket)))?;
                let own =
                    users.iter().all(|user| phase.placements[user.0].device == phase.arenas[location.arena].owner);
                ensure(own, || format!("value {} is sampled elsewhere", op.0))?;
                places.push(Place { op, location, users, copy: false });
            }
            for &(device, location) in &home.copies {
                self.check_location(phase, &location, value_bytes(graph, op, phase.bucket))?;
                ensure(phase.arenas[location.arena].owner == device, || format!("copy of value {} elsewhere", op.0))?;
                places.push(Place { op, location, users: on(device).collect(), copy: true });
            }
        }
        self.check_apart(graph, phase, &places)
    }

    fn check_location(&self, phase: &PhasePlan, location: &Location, size_bytes: u64) -> Check {
        let arena = phase.arenas.get(location.arena).ok_or_else(|| format!("no arena {}", location.arena))?;
        let end = location.offset_bytes.checked_add(location.size_bytes);
        ensure(end.is_some_and(|end| end <= arena.size_bytes), || format!("value outside arena {}", location.arena))?;
        ensure(location.offset_bytes.is_multiple_of(Location::ALIGNMENT), || "value out of alignment".to_owned())?;
        ensure(location.size_bytes == size_bytes, || {
            format!("value of {} bytes instead of {size_bytes}", location.size_bytes)
        })?;
        ensure(arena.accessors.is_sorted() && !arena.accessors.contains(&arena.owner), || {
            "accessors of an arena".to_owned()
        })
    }

    /// Two values that share bytes: one must be over before the other starts, except where the second takes
    /// the place of an input that dies in the very op that makes it.
    fn check_apart(&self, graph: &Graph, phase: &PhasePlan, places: &[Place]) -> Check {
        let segment_of = segment_of(&phase.segments, graph.len());
        let order = Order::of(&phase.segments, &segment_of, &phase.crossings);
        for (index, a) in places.iter().enumerate() {
            for b in &places[index + 1..] {
                if !a.shares_bytes(b) {
                    continue;
                }
                let apart = a.is_over_before(b, graph, &order) || b.is_over_before(a, graph, &order);
                ensure(apart, || format!("values {} and {} share memory while both live", a.op.0, b.op.0))?;
            }
        }
        Ok(())
    }

    fn check_weights(&self, graph: &Graph, phase: &PhasePlan) -> Check {
        for (op, node) in graph.ops() {
            for weight in &node.weights {
                let home = self.weights.get(weight.0).ok_or_else(|| format!("weight {} has no home", weight.0))?;
                let device = phase.placements[op.0].device;
                ensure(home.weight == *weight && home.device == device, || {
                    format!("op {} runs on {device}, its weight lives on {}", op.0, home.device)
                })?;
            }
        }
        Ok(())
    }

    fn check_kv(&self, graph: &Graph, phase: &PhasePlan) -> Check {
        for (op, node) in graph.ops().filter(|(_, node)| node.op.kind.uses_kv()) {
            let layer = node.op.layer.ok_or_else(|| format!("op {} uses KV outside every layer", op.0))?;
            let mut groups = self.kv.iter().filter(|group| group.layers.contains(&layer));
            let group = groups.next().ok_or_else(|| format!("layer {layer} has no KV group"))?;
            ensure(groups.next().is_none(), || format!("layer {layer} has two KV groups"))?;
            let device = phase.placements[op.0].device;
            ensure(group.home == device || group.accessors.contains(&device), || {
                format!("op {} does not reach the KV of layer {layer}", op.0)
            })?;
        }
        Ok(())
    }

    fn check_memory(&self) -> Check {
        ensure(self.memory.len() == self.devices.len(), || "memory is not one per device".to_owned())?;
        for (device, used) in self.devices.iter().zip(&self.memory) {
            ensure(used.total_bytes() <= device.budget_bytes, || {
                format!("{} bytes planned on {}, {} available", used.total_bytes(), device.id(), device.budget_bytes)
            })?;
        }
        for phase in &self.phases {
            for (device, used) in self.memory.iter().enumerate() {
                let arenas = phase.arenas.iter().filter(|arena| arena.owner == device);
                let bytes = arenas.map(|arena| arena.size_bytes).fold(0, u64::saturating_add);
                ensure(bytes <= used.values_bytes, || format!("arenas of {bytes} bytes on device {device}"))?;
            }
        }
        Ok(())
    }
}

/// A value in one place.
struct Place {
    op: OpId,
    location: Location,
    users: Vec<OpId>,
    copy: bool,
}

impl Place {
    fn shares_bytes(&self, other: &Place) -> bool {
        let (a, b) = (&self.location, &other.location);
        a.arena == b.arena
            && a.offset_bytes < b.offset_bytes.saturating_add(b.size_bytes)
            && b.offset_bytes < a.offset_bytes.saturating_add(a.size_bytes)
    }

    fn is_over_before(&self, other: &Place, graph: &Graph, order: &Order) -> bool {
        self.users.iter().all(|&user| {
            let in_place = !other.copy && user == other.op && {
                let node = graph.op(other.op);
                node.op.kind.in_place_input().is_some_and(|input| node.inputs.get(input) == Some(&self.op))
                    && self.location.offset_bytes == other.location.offset_bytes
                    && node.inputs.iter().filter(|&&input| input == self.op).count() == 1
            };
            let before =
                if other.copy { order.op_before_copy(user, other.op) } else { order.op_before(user, other.op) };
            in_place || (before && self.op < other.op)
        })
    }
}

fn value_bytes(graph: &Graph, op: OpId, bucket: Bucket) -> u64 {
    let node = graph.op(op);
    let rows = if node.rows == Rows::Tokens { bucket.tokens } else { bucket.outputs };
    (rows as u64).saturating_mul(node.op.kind.output_width().unwrap_or(0) as u64).saturating_mul(4)
}
