//! Segments and crossings: what placements mean for submission.

use biga_hal::Bucket;

use super::{
    cost::{crossing_s, value_bytes},
    decide::kv_readers,
    inputs::Inputs,
    lifetime::reach,
    types::{Crossing, CrossingMethod, SegmentPlan},
};
use crate::load::graph::OpId;

/// Maximal runs of ops on one device, in execution order.
pub(super) fn segments(devices: &[usize]) -> Vec<SegmentPlan> {
    let mut segments: Vec<SegmentPlan> = Vec::new();
    for (op, &device) in devices.iter().enumerate() {
        match segments.last_mut() {
            Some(last) if last.device == device => last.ops.push(OpId(op)),
            _ => segments.push(SegmentPlan { device, ops: vec![OpId(op)] }),
        }
    }
    segments
}

/// Segment of each op.
pub(super) fn segment_of(segments: &[SegmentPlan], n_ops: usize) -> Vec<usize> {
    let mut of = vec![usize::MAX; n_ops];
    for (index, segment) in segments.iter().enumerate() {
        for op in &segment.ops {
            of[op.0] = index;
        }
    }
    of
}

/// Every value (or KV append) that another device reads: one crossing per value and reading device.
pub(super) fn crossings(inputs: &Inputs, devices: &[usize], segment_of: &[usize], bucket: Bucket) -> Vec<Crossing> {
    let mut crossings = Vec::new();
    for (value, node) in inputs.graph.ops() {
        let from = devices[value.0];
        let readers = inputs.graph.readers(value);
        let (readers, bytes) =
            if readers.is_empty() { (kv_readers(inputs, value), 0) } else { (readers, value_bytes(node, bucket)) };
        let reached = reach(inputs, from, readers.iter().map(|reader| devices[reader.0]));
        let mut seen = vec![from];
        for reader in readers {
            let to = devices[reader.0];
            if seen.contains(&to) {
                continue;
            }
            seen.push(to);
            let copied = bytes > 0 && reached.copies.contains(&to);
            let method = if copied { CrossingMethod::Copy } else { CrossingMethod::Shared };
            let predicted_s = crossing_s(inputs, from, to, bytes);
            let before_segment = segment_of[reader.0];
            crossings.push(Crossing { value, from, to, before_segment, method, predicted_s });
        }
    }
    crossings.sort_by_key(|crossing| (crossing.before_segment, crossing.value));
    crossings
}
