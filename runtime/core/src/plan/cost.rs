//! The cost model: seconds of an op on a device, and of a value between devices.
//!
//! An op costs the larger of its bytes over the device's read bandwidth and its arithmetic over the
//! device's rate, plus one launch. Bytes are its weights once per step (an embedding reads only the rows of
//! its tokens), the values it reads and writes, and the KV entries it touches, at the mean length of half
//! the context. A value that is read elsewhere costs the link's latency, and its bytes where it is copied.
//!
//! A placement is judged by one full prefill chunk of one sequence and [`DECODE_STEPS`] decode steps of one
//! sequence: a chat turn of a long question and a short answer. Neither phase is forgotten, and the one
//! that users wait for longest weighs most.

use biga_hal::{Bucket, DType, DeviceKind, Heads, OpKind, Rates, Rows};

use super::{
    inputs::{Inputs, kv_heads},
    types::{Limits, Phase},
};
use crate::load::graph::{OpId, OpNode};

/// Decode steps that are weighed against one prefill chunk.
pub const DECODE_STEPS: f64 = 128.0;

impl Phase {
    /// Both, in the order in which a sequence meets them.
    pub const ALL: [Phase; 2] = [Phase::Prefill, Phase::Decode];

    /// How often the phase's step counts when placements are compared.
    pub(super) fn weight(self) -> f64 {
        match self {
            Phase::Prefill => 1.0,
            Phase::Decode => DECODE_STEPS,
        }
    }

    /// The step by which placements are compared.
    pub(super) fn typical_step(self, limits: &Limits) -> Bucket {
        let tokens = match self {
            Phase::Prefill => limits.max_tokens,
            Phase::Decode => 1,
        };
        Bucket { tokens, sequences: 1, outputs: 1 }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Phase::Prefill => 0,
            Phase::Decode => 1,
        }
    }
}

/// Rows of a value in a step.
pub(super) fn row_count(node: &OpNode, bucket: Bucket) -> usize {
    match node.rows {
        Rows::Tokens => bucket.tokens,
        Rows::Outputs => bucket.outputs,
    }
}

/// Bytes of the value that an op makes in a step; 0 for ops without a value.
pub(super) fn value_bytes(node: &OpNode, bucket: Bucket) -> u64 {
    let width = node.op.kind.output_width().unwrap_or(0) as u64;
    (row_count(node, bucket) as u64).saturating_mul(width).saturating_mul(4)
}

/// Bytes of one position's keys and values in one layer.
pub(super) fn kv_position_bytes(heads: Heads, dtype: DType) -> u64 {
    let head = dtype.row_bytes(heads.head_dim).unwrap_or(heads.head_dim.saturating_mul(4)) as u64;
    head.saturating_mul(heads.n_kv_heads as u64).saturating_mul(2)
}

/// What an op has to move and compute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Bytes of weights and KV: what no placement can avoid.
    pub(super) stored_bytes: f64,
    /// Bytes of values read and written.
    pub(super) value_bytes: f64,
    pub(super) flops: f64,
}

impl Work {
    pub(super) fn of(inputs: &Inputs, op: OpId, bucket: Bucket, kv: DType) -> Work {
        let node = inputs.graph.op(op);
        let kind = &node.op.kind;
        let rows = row_count(node, bucket);
        let context = (inputs.limits.context / 2).max(1);
        let mut stored: f64 = match kind {
            OpKind::Embed { vocab, .. } => {
                let table = node.weights.first().map_or(0, |weight| inputs.weights[weight.0].file_bytes);
                table as f64 * rows as f64 / (*vocab).max(1) as f64
            }
            _ => node.weights.iter().map(|weight| inputs.weights[weight.0].file_bytes as f64).sum(),
        };
        if let Some(heads) = kv_heads(kind) {
            let positions = match kind {
                OpKind::Attention { window, .. } => {
                    bucket.sequences as f64 * window.map_or(context, |window| window.min(context)).max(1) as f64
                }
                _ => rows as f64,
            };
            stored += positions * kv_position_bytes(heads, kv) as f64;
        }
        let read: f64 = node.inputs.iter().map(|&input| value_bytes(inputs.graph.op(input), bucket) as f64).sum();
        let written = value_bytes(node, bucket) as f64;
        Work { stored_bytes: stored, value_bytes: read + written, flops: kind.flops(rows, context) }
    }

    /// Seconds on a device. A rate that makes no sense counts as one per second.
    pub(super) fn seconds(&self, rates: &Rates) -> f64 {
        let bytes_s = (self.stored_bytes + self.value_bytes) / rates.read_bytes_per_s.max(1.0);
        let flops_s = self.flops / rates.flops_per_s.max(1.0);
        bytes_s.max(flops_s) + rates.launch_s.max(0.0)
    }
}

/// Seconds that a value of `bytes` takes from one device to another.
pub(super) fn crossing_s(inputs: &Inputs, from: usize, to: usize, bytes: u64) -> f64 {
    if from == to {
        return 0.0;
    }
    let devices = &inputs.topology.devices;
    let link = inputs.topology.link(devices[from].id, devices[to].id);
    let moved_s = if link.shared { 0.0 } else { bytes as f64 / link.bytes_per_s.max(1.0) };
    link.latency_s.max(0.0) + moved_s
}

/// True if two devices can use one allocation, whoever of them made the value.
pub(super) fn shares(inputs: &Inputs, a: usize, b: usize) -> bool {
    let devices = &inputs.topology.devices;
    a == b
        || (inputs.topology.link(devices[a].id, devices[b].id).shared
            && inputs.topology.link(devices[b].id, devices[a].id).shared)
}

/// True if a device can use memory that `owner` allocates. The CPU reads others' host-visible memory in
/// place, but its own pages cannot be counted on to be importable elsewhere.
pub(super) fn reaches(inputs: &Inputs, device: usize, owner: usize) -> bool {
    device == owner || (!is_cpu(inputs, owner) && shares(inputs, device, owner))
}

/// True for the host's own cores.
pub(super) fn is_cpu(inputs: &Inputs, device: usize) -> bool {
    inputs.topology.devices[device].kind == DeviceKind::Cpu
}

/// Seconds that the step takes to reach an op that reads no value: the submission of the first segment.
pub(super) fn entry_s(node: &OpNode, rates: &Rates) -> f64 {
    if node.inputs.is_empty() { rates.submit_s.max(0.0) } else { 0.0 }
}

/// Seconds that no placement on this machine beats: all weights and KV once over the best bandwidth, or
/// all arithmetic over the sum of the rates, whichever is larger.
pub(super) fn limit_s(inputs: &Inputs, bucket: Bucket, kv: impl Fn(OpId) -> DType) -> f64 {
    let mut total = Work::default();
    for (op, _) in inputs.graph.ops() {
        let work = Work::of(inputs, op, bucket, kv(op));
        total.stored_bytes += work.stored_bytes;
        total.flops += work.flops;
    }
    let rates = || inputs.topology.devices.iter().map(|info| info.rates);
    let bandwidth = rates().map(|rates| rates.read_bytes_per_s).fold(1.0, f64::max);
    let arithmetic: f64 = rates().map(|rates| rates.flops_per_s.max(0.0)).sum::<f64>().max(1.0);
    (total.stored_bytes / bandwidth).max(total.flops / arithmetic)
}

/// The step sizes that segments are compiled for, smallest first within a phase: prefill of 16, 64, 256
/// and the most tokens; decode of the powers of two to 64 and the most sequences. Sizes above the limits are
/// left out.
pub fn buckets(limits: &Limits) -> Vec<(Phase, Bucket)> {
    let sizes = |fixed: &[usize], most: usize| {
        let mut sizes: Vec<usize> = fixed.iter().copied().filter(|&size| size < most).collect();
        sizes.push(most);
        sizes
    };
    let prefill = sizes(&[16, 64, 256], limits.max_tokens).into_iter().map(|tokens| {
        let sequences = limits.max_sequences.min(tokens);
        (Phase::Prefill, Bucket { tokens, sequences, outputs: limits.max_outputs.min(tokens) })
    });
    let most = limits.max_sequences.min(limits.max_tokens).min(limits.max_outputs);
    let decode = sizes(&[1, 2, 4, 8, 16, 32, 64], most)
        .into_iter()
        .map(|size| (Phase::Decode, Bucket { tokens: size, sequences: size, outputs: size }));
    prefill.chain(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::{Limits, buckets};

    fn sizes(max_tokens: usize, max_sequences: usize) -> Vec<(usize, usize)> {
        let limits = Limits { context: 64, max_sequences, max_tokens, max_outputs: max_tokens, kv_block_len: 16 };
        buckets(&limits).iter().map(|(_, bucket)| (bucket.tokens, bucket.sequences)).collect()
    }

    #[test]
    fn buckets_end_at_the_limits() {
        assert_eq!(sizes(512, 6), [(16, 6), (64, 6), (256, 6), (512, 6), (1, 1), (2, 2), (4, 4), (6, 6)]);
        assert_eq!(sizes(8, 1), [(8, 1), (1, 1)]);
        assert_eq!(sizes(16, 16), [(16, 16), (1, 1), (2, 2), (4, 4), (8, 8), (16, 16)]);
        let powers = sizes(512, 100).split_off(4);
        assert_eq!(powers, [1, 2, 4, 8, 16, 32, 64, 100].map(|size| (size, size)));
    }
}
