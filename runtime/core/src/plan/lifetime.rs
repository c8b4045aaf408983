//! Where values lie: arenas by who reaches them, and offsets by who lives when.
//!
//! A value's memory may be used again once everyone who uses it has finished *before* its successor's maker
//! starts. Segments of different devices run at the same time unless a crossing or the order within a device
//! puts one before the other, so "before" is that order, not the order of the list.

use std::collections::BTreeMap;

use biga_hal::{Bucket, OpKind};

use super::{
    cost::{is_cpu, reaches, shares, value_bytes},
    inputs::Inputs,
    types::{Arena, Crossing, Location, SegmentPlan, ValueHome},
};
use crate::load::graph::OpId;

/// Who shares a value's memory, and who needs a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) owner: usize,
    /// Sorted, without the owner.
    pub(super) accessors: Vec<usize>,
    /// Sorted.
    pub(super) copies: Vec<usize>,
}

/// Decides whose memory a value made on `from` lies in. A value of the CPU's lies in the memory of the
/// first device that reads it and that the CPU reaches: the CPU writes there in place.
pub(super) fn reach(inputs: &Inputs, from: usize, readers: impl Iterator<Item = usize>) -> Reach {
    let mut others: Vec<usize> = readers.filter(|&reader| reader != from).collect();
    others.sort_unstable();
    others.dedup();
    let owner = match is_cpu(inputs, from) {
        true => others.iter().copied().find(|&reader| !is_cpu(inputs, reader) && shares(inputs, from, reader)),
        false => None,
    };
    let owner = owner.unwrap_or(from);
    let (mut accessors, copies): (Vec<usize>, Vec<usize>) =
        others.into_iter().filter(|&reader| reader != owner).partition(|&reader| reaches(inputs, reader, owner));
    if owner != from {
        accessors.push(from);
        accessors.sort_unstable();
    }
    Reach { owner, accessors, copies }
}

/// Which segments are certain to have finished before which start.
pub(super) struct Order {
    segment_of: Vec<usize>,
    /// Bit `b` of row `a`: segment `b` finishes before segment `a` starts.
    before: Vec<Vec<u64>>,
}

impl Order {
    pub(super) fn of(segments: &[SegmentPlan], segment_of: &[usize], crossings: &[Crossing]) -> Order {
        let words = segments.len().div_ceil(64);
        let mut before: Vec<Vec<u64>> = Vec::with_capacity(segments.len());
        let mut last_of: BTreeMap<usize, usize> = BTreeMap::new();
        let mut next_crossing = 0;
        for (index, segment) in segments.iter().enumerate() {
            let mut row = vec![0u64; words];
            let mut join = |other: usize| {
                if other < index {
                    row[other / 64] |= 1 << (other % 64);
                    let earlier: &Vec<u64> = &before[other];
                    row.iter_mut().zip(earlier).for_each(|(word, more)| *word |= more);
                }
            };
            if let Some(other) = last_of.insert(segment.device, index) {
                join(other);
            }
            while let Some(crossing) = crossings.get(next_crossing).filter(|c| c.before_segment == index) {
                join(segment_of[crossing.value.0]);
                next_crossing += 1;
            }
            before.push(row);
        }
        Order { segment_of: segment_of.to_vec(), before }
    }

    fn segment_before(&self, a: usize, b: usize) -> bool {
        self.before[b][a / 64] & (1 << (a % 64)) != 0
    }

    /// True if op `a` has finished when op `b` starts.
    pub(super) fn op_before(&self, a: OpId, b: OpId) -> bool {
        let (of_a, of_b) = (self.segment_of[a.0], self.segment_of[b.0]);
        if of_a == of_b { a < b } else { self.segment_before(of_a, of_b) }
    }

    /// True if op `a` has finished when the host may copy the value of `b`: once `b`'s segment is done.
    pub(super) fn op_before_copy(&self, a: OpId, b: OpId) -> bool {
        let (of_a, of_b) = (self.segment_of[a.0], self.segment_of[b.0]);
        of_a == of_b || self.segment_before(of_a, of_b)
    }
}

/// Memory of one value on one device, or of several that follow each other in place.
struct Allocation {
    key: (usize, Vec<usize>, bool),
    size_bytes: u64,
    /// The op that first writes it, or whose value is first copied to it.
    start: OpId,
    is_copy: bool,
    /// Every op that writes or reads it.
    uses: Vec<OpId>,
    end: OpId,
    offset_bytes: u64,
}

impl Allocation {
    /// True if all of `self` is over before `other` begins.
    fn ends_before(&self, other: &Allocation, order: &Order) -> bool {
        self.end < other.start
            && self.uses.iter().all(|&user| match other.is_copy {
                true => order.op_before_copy(user, other.start),
                false => order.op_before(user, other.start),
            })
    }
}

/// Lays all values of a phase and bucket out.
pub(super) fn lay_out(
    inputs: &Inputs,
    devices: &[usize],
    order: &Order,
    bucket: Bucket,
) -> (Vec<Option<ValueHome>>, Vec<Arena>) {
    let mut layout = Layout { inputs, devices, order, bucket, allocations: Vec::new(), slots: Vec::new() };
    for (op, _) in inputs.graph.ops() {
        layout.add(op);
    }
    layout.place();
    layout.finish()
}

/// The allocations of one value: the primary, and one per copy.
struct Slots {
    primary: usize,
    copies: Vec<(usize, usize)>,
    sampled: Option<usize>,
}

struct Layout<'a> {
    inputs: &'a Inputs,
    devices: &'a [usize],
    order: &'a Order,
    bucket: Bucket,
    allocations: Vec<Allocation>,
    /// By op.
    slots: Vec<Option<Slots>>,
}

impl Layout<'_> {
    fn add(&mut self, op: OpId) {
        let node = self.inputs.graph.op(op);
        if node.op.kind.output_width().is_none() {
            self.slots.push(None);
            return;
        }
        let readers = self.inputs.graph.readers(op);
        let device_of = |reader: &OpId| self.devices[reader.0];
        let reached = reach(self.inputs, device_of(&op), readers.iter().map(device_of));
        let samples = |reader: &&OpId| matches!(self.inputs.graph.op(**reader).op.kind, OpKind::Sample { .. });
        let sampled_on = readers.iter().find(samples).map(device_of);
        let size_bytes = value_bytes(node, self.bucket).max(1).checked_next_multiple_of(Location::ALIGNMENT);
        let size_bytes = size_bytes.unwrap_or(u64::MAX);
        let copied_by_host = !reached.copies.is_empty() && !is_cpu(self.inputs, reached.owner);
        // Whoever samples, the host may ask for the logits.
        let key = (reached.owner, reached.accessors.clone(), sampled_on.is_some() || copied_by_host);
        let uses: Vec<OpId> = readers.iter().copied().chain([op]).collect();
        let primary = self.allocate(op, key, size_bytes, uses.clone(), false);
        // A device that samples its own logits reads them best in memory of its own; the CPU has no other.
        let own = sampled_on.filter(|&on| on == device_of(&op) && !is_cpu(self.inputs, on));
        let sampled = own.map(|on| {
            let bucket = self.inputs.limits.sampled(self.bucket);
            let size_bytes = value_bytes(node, bucket).max(1).next_multiple_of(Location::ALIGNMENT);
            self.allocate(op, (on, Vec::new(), false), size_bytes, uses, false)
        });
        let copies = reached.copies.iter().map(|&to| {
            let uses: Vec<OpId> = readers.iter().copied().filter(|reader| self.devices[reader.0] == to).collect();
            let host = !is_cpu(self.inputs, to) || sampled_on == Some(to);
            ((to, Vec::new(), host), to, uses)
        });
        let copies: Vec<_> = copies.collect();
        let copies =
            copies.into_iter().map(|(key, to, uses)| (to, self.allocate(op, key, size_bytes, uses, true))).collect();
        self.slots.push(Some(Slots { primary, copies, sampled }));
    }

    fn allocate(
        &mut self,
        op: OpId,
        key: (usize, Vec<usize>, bool),
        size_bytes: u64,
        uses: Vec<OpId>,
        is_copy: bool,
    ) -> usize {
        let end = uses.iter().copied().max().unwrap_or(op).max(op);
        if let (false, Some(at)) = (is_copy, self.in_place(op, &key, size_bytes)) {
            let allocation = &mut self.allocations[at];
            allocation.uses.extend(uses);
            allocation.end = allocation.end.max(end);
            return at;
        }
        self.allocations.push(Allocation { key, size_bytes, start: op, is_copy, uses, end, offset_bytes: 0 });
        self.allocations.len() - 1
    }

    /// The allocation of an input that dies in this op and whose memory the output may take.
    fn in_place(&self, op: OpId, key: &(usize, Vec<usize>, bool), size_bytes: u64) -> Option<usize> {
        let node = self.inputs.graph.op(op);
        let input = *node.inputs.get(node.op.kind.in_place_input()?)?;
        if node.inputs.iter().filter(|&&other| other == input).count() != 1 {
            return None;
        }
        let slots = self.slots.get(input.0)?.as_ref()?;
        let copy = slots.copies.iter().find(|(device, _)| *device == self.devices[op.0]);
        let at = copy.map_or(slots.primary, |&(_, at)| at);
        let allocation = &self.allocations[at];
        let over = allocation.uses.iter().all(|&user| user == op || self.order.op_before(user, op));
        (over && allocation.key == *key && allocation.size_bytes == size_bytes).then_some(at)
    }

    /// First fit by size: the largest first, each at the lowest offset that no conflicting one covers.
    fn place(&mut self) {
        let mut by_size: Vec<usize> = (0..self.allocations.len()).collect();
        by_size.sort_by_key(|&at| (u64::MAX - self.allocations[at].size_bytes, self.allocations[at].start));
        let mut placed: BTreeMap<(usize, Vec<usize>, bool), Vec<usize>> = BTreeMap::new();
        for at in by_size {
            let own = &self.allocations[at];
            let others = placed.entry(own.key.clone()).or_default();
            let mut taken: Vec<(u64, u64)> = others
                .iter()
                .map(|&other| &self.allocations[other])
                .filter(|other| !own.ends_before(other, self.order) && !other.ends_before(own, self.order))
                .map(|other| (other.offset_bytes, other.offset_bytes.saturating_add(other.size_bytes)))
                .collect();
            taken.sort_unstable();
            let mut offset = 0u64;
            for (start, end) in taken {
                if start.saturating_sub(offset) >= own.size_bytes && start >= offset {
                    break;
                }
                offset = offset.max(end);
            }
            others.push(at);
            self.allocations[at].offset_bytes = offset;
        }
    }

    fn finish(self) -> (Vec<Option<ValueHome>>, Vec<Arena>) {
        let mut index_of: BTreeMap<(usize, Vec<usize>, bool), usize> = BTreeMap::new();
        let mut arenas: Vec<Arena> = Vec::new();
        for allocation in &self.allocations {
            let index = *index_of.entry(allocation.key.clone()).or_insert_with(|| {
                let (owner, accessors, host_reads) = allocation.key.clone();
                arenas.push(Arena { owner, accessors, host_reads, size_bytes: 0 });
                arenas.len() - 1
            });
            let end = allocation.offset_bytes.saturating_add(allocation.size_bytes);
            arenas[index].size_bytes = arenas[index].size_bytes.max(end);
        }
        let place = |op: usize, at: usize, bucket: Bucket| {
            let allocation = &self.allocations[at];
            let size_bytes = value_bytes(self.inputs.graph.op(OpId(op)), bucket);
            Location { arena: index_of[&allocation.key], offset_bytes: allocation.offset_bytes, size_bytes }
        };
        let location = |op, at| place(op, at, self.bucket);
        let home = |(op, slots): (usize, &Option<Slots>)| {
            let slots = slots.as_ref()?;
            let copies = slots.copies.iter().map(|&(device, at)| (device, location(op, at))).collect();
            let sampled = slots.sampled.map(|at| place(op, at, self.inputs.limits.sampled(self.bucket)));
            Some(ValueHome { primary: location(op, slots.primary), copies, sampled })
        };
        let values = self.slots.iter().enumerate().map(home).collect();
        (values, arenas)
    }
}
