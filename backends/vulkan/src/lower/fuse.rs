//! Which ops become one launch. Pure: it looks at kinds, formats and who reads what.
//!
//! What a decode step spends beside its weights are launches that wait for each other. So the ops between
//! two products join: a branch, its norm, the residual and the next norm; the norms of q and k, the rotary
//! embedding and the store in the cache; gate, up and the activation. Where a product with quantised
//! weights follows, they leave its x as quants, or as halves for matrix instructions, and the value itself is never
//! written. That is allowed only for values that nobody else reads ([`biga_hal::BoundOp::internal`]).

use std::collections::HashMap;

use biga_hal::{BoundOp, DType, OpKind, Rows, Segment, WeightRole};

use super::{flash, matrix, product::MATVEC_TOKENS};
use crate::{
    tuning::Tuning,
    weight::{CHUNK, chunks},
};

/// The most rows whose attention is split by position; beyond, there are enough workgroups without.
const SPLIT_TOKENS: usize = 64;

/// Ops that are launched together, by their index in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// An op by itself.
    Alone(usize),
    /// A branch joins the stream, which is normed. At least two of the three, or the norm with its quants or halves.
    Norm {
        branch_norm: Option<usize>,
        residual: Option<usize>,
        norm: Option<usize>,
        /// How the norm's result is wanted.
        leaves: Leaves,
    },
    /// From the qkv row to q and the cache.
    RopeAppend { qk_norm: Option<usize>, rope: usize, append: usize },
    /// Attention over splits of the positions.
    Attention { attention: usize, quantise: bool },
    /// Gate, up and activation, as quants.
    GateUp { gate_up: usize, activate: usize },
    /// An activation, as halves.
    Activate(usize),
}

/// What a product finds its x as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// The value itself.
    Floats,
    /// See `quants.glsl`.
    Quants,
    /// See `halves.glsl`.
    Halves,
}

impl Unit {
    /// How many ops it is.
    pub(super) fn len(&self) -> usize {
        match *self {
            Unit::Alone(_) | Unit::Attention { .. } | Unit::Activate(_) => 1,
            Unit::GateUp { .. } => 2,
            Unit::RopeAppend { qk_norm, .. } => 2 + usize::from(qk_norm.is_some()),
            Unit::Norm { branch_norm, residual, norm, .. } => {
                [branch_norm, residual, norm].into_iter().flatten().count()
            }
        }
    }
}

/// True if an op multiplies few rows of x, as quants, with weights that are all quantised, in formats that lanes take
/// where rows are more than the other kernels do.
pub(super) fn multiplies_few(segment: &Segment, tuning: &Tuning, bound: &BoundOp) -> bool {
    let kind = &bound.op.kind;
    let shapes = kind.weights();
    let mut matrices =
        shapes.iter().zip(&bound.weights).filter(|(shape, _)| shape.role == WeightRole::Matrix).peekable();
    !tuning.software
        && matrices.peek().is_some()
        && rows(segment, bound) > 0
        && matrices.all(|(_, weight)| {
            let rows = rows(segment, bound);
            weight.dtype.is_quantised() && (rows <= MATVEC_TOKENS || tuning.lanes_take(rows, weight.dtype))
        })
}

fn takes_quants(segment: &Segment, tuning: &Tuning, index: usize) -> bool {
    segment.ops.get(index).is_some_and(|bound| multiplies_few(segment, tuning, bound))
}

fn rows(segment: &Segment, bound: &BoundOp) -> usize {
    match bound.rows {
        Rows::Tokens => segment.bucket.tokens,
        Rows::Outputs => segment.bucket.outputs,
    }
}

/// Joins what can be joined; every op is in exactly one unit, in order. Drivers on the CPU gain nothing by it.
pub(super) fn units(segment: &Segment, tuning: &Tuning) -> Vec<Unit> {
    let mut units = Vec::new();
    let flow = Flow::of(segment);
    let mut index = 0;
    while index < segment.ops.len() {
        let joined = if tuning.software { None } else { join(segment, tuning, &flow, index) };
        let unit = joined.unwrap_or(Unit::Alone(index));
        index += unit.len();
        units.push(unit);
    }
    units
}

/// The unit that begins at an op.
fn join(segment: &Segment, tuning: &Tuning, flow: &Flow, index: usize) -> Option<Unit> {
    match segment.ops[index].op.kind {
        OpKind::RmsNorm { .. } | OpKind::Residual { .. } => norm(segment, tuning, flow, index),
        OpKind::QkNorm { .. } | OpKind::Rope { .. } => rope_append(segment, flow, index),
        OpKind::Attention { .. } => attention(segment, tuning, flow, index),
        OpKind::GateUp { .. } => gate_up(segment, tuning, flow, index),
        OpKind::Activate { .. } => {
            let joined = matrix::multiplies(segment, tuning, index + 1) && flow.read_only_by(segment, index, index + 1);
            joined.then_some(Unit::Activate(index))
        }
        _ => None,
    }
}

fn norm(segment: &Segment, tuning: &Tuning, flow: &Flow, index: usize) -> Option<Unit> {
    let kind = |at: usize| segment.ops.get(at).map(|bound| &bound.op.kind);
    let width = *kind(index)?.input_widths().first()?;
    if !width.is_multiple_of(CHUNK) || tuning.row_lanes(width).is_none() {
        return None;
    }
    let mut at = index;
    let branch_norm = (matches!(kind(at), Some(OpKind::RmsNorm { .. }))
        && matches!(kind(at + 1), Some(OpKind::Residual { .. }))
        && flow.producers[at + 1].get(1) == Some(&Some(at))
        && flow.read_only_by(segment, at, at + 1))
    .then_some(at);
    at += usize::from(branch_norm.is_some());
    let residual = matches!(kind(at), Some(OpKind::Residual { .. })).then_some(at);
    at += usize::from(residual.is_some());
    let follows = residual.is_none_or(|residual| flow.producers.get(at).is_some_and(|p| p.contains(&Some(residual))));
    let normed = (follows && matches!(kind(at), Some(OpKind::RmsNorm { .. }))).then_some(at);
    // The launch reads what its outputs may overwrite only in the same places.
    let sources = [branch_norm, residual, normed].into_iter().flatten();
    let inputs: Vec<_> = sources.flat_map(|op| &segment.ops[op].inputs).collect();
    let clash = [residual, normed].into_iter().flatten().filter_map(|op| segment.ops[op].output.as_ref()).any(|out| {
        let range = |slice: &biga_hal::BufferSlice| {
            let size = slice.size_bytes().min((4 * width * rows(segment, &segment.ops[index])) as u64);
            (slice.device_address(), slice.device_address() + size)
        };
        let (start, end) = range(out);
        inputs.iter().map(|slice| range(slice)).any(|(s, e)| s != start && s.max(start) < e.min(end))
    });
    if clash {
        return None;
    }
    let leaves = match normed.filter(|&norm| flow.read_only_by(segment, norm, norm + 1)) {
        Some(norm) if takes_quants(segment, tuning, norm + 1) => Leaves::Quants,
        Some(norm) if matrix::multiplies(segment, tuning, norm + 1) => Leaves::Halves,
        _ => Leaves::Floats,
    };
    let unit = Unit::Norm { branch_norm, residual, norm: normed, leaves };
    (unit.len() > 1 || leaves != Leaves::Floats).then_some(unit)
}

fn rope_append(segment: &Segment, flow: &Flow, index: usize) -> Option<Unit> {
    let kind = |at: usize| segment.ops.get(at).map(|bound| &bound.op.kind);
    let qk_norm = matches!(kind(index), Some(OpKind::QkNorm { .. })).then_some(index);
    let rope = index + usize::from(qk_norm.is_some());
    let append = rope + 1;
    let (Some(OpKind::Rope { heads, .. }), Some(OpKind::KvAppend { heads: appended })) = (kind(rope), kind(append))
    else {
        return None;
    };
    let reads_q = |&reader: &usize| reader == append || matches!(kind(reader), Some(OpKind::Attention { .. }));
    let private = segment.ops[rope].internal && flow.readers[rope].iter().all(reads_q);
    let from_norm = qk_norm
        .is_none_or(|norm| flow.producers[rope].first() == Some(&Some(norm)) && flow.read_only_by(segment, norm, rope));
    let from_rope = heads == appended && flow.producers[append].first() == Some(&Some(rope));
    let (x, y) = (segment.ops[index].inputs.first()?, segment.ops[rope].output.as_ref()?);
    let apart = x.device_address() == y.device_address() || {
        let (a, b) = (x.device_address(), y.device_address());
        a.max(b) >= (a + x.size_bytes()).min(b + y.size_bytes())
    };
    let joined = private && from_norm && from_rope && apart;
    joined.then_some(Unit::RopeAppend { qk_norm, rope, append })
}

fn attention(segment: &Segment, tuning: &Tuning, flow: &Flow, index: usize) -> Option<Unit> {
    let bound = &segment.ops[index];
    let (OpKind::Attention { heads, .. }, Some(kv)) = (&bound.op.kind, &bound.kv) else { return None };
    if flash::tile(segment, bound, tuning).is_some() {
        return None;
    }
    let aligned = kv.k_offset_bytes.is_multiple_of(16)
        && kv.v_offset_bytes.is_multiple_of(16)
        && (kv.dtype == DType::Q8_0 || kv.dtype.row_bytes(heads.head_dim)?.is_multiple_of(16));
    let shape = AttentionShape::of(segment, tuning, index)?;
    if !aligned {
        return None;
    }
    let whole_chunks = (shape.heads * heads.head_dim).is_multiple_of(CHUNK);
    let quantise =
        whole_chunks && takes_quants(segment, tuning, index + 1) && flow.read_only_by(segment, index, index + 1);
    Some(Unit::Attention { attention: index, quantise })
}

fn gate_up(segment: &Segment, tuning: &Tuning, flow: &Flow, index: usize) -> Option<Unit> {
    let [gate, up] = segment.ops[index].weights.as_slice() else { return None };
    let activate = segment.ops.get(index + 1)?;
    let joined = gate.dtype == up.dtype
        && matches!(activate.op.kind, OpKind::Activate { .. })
        && gate.rows.is_multiple_of(CHUNK)
        && takes_quants(segment, tuning, index)
        && takes_quants(segment, tuning, index + 2)
        && flow.read_only_by(segment, index, index + 1)
        && flow.read_only_by(segment, index + 1, index + 2);
    joined.then_some(Unit::GateUp { gate_up: index, activate: index + 1 })
}

/// How the split attention is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttentionShape {
    /// Query heads of a workgroup, all of one KV head.
    pub(super) heads: usize,
    /// Lanes that share a key or value row.
    pub(super) row_lanes: u32,
    /// Lanes of a workgroup.
    pub(super) lanes: u32,
    /// Positions that lanes have on the way at a time.
    pub(super) batch: u32,
    /// Workgroups among which the positions of a token are split, at most.
    pub(super) splits: usize,
}

/// Workgroups that fill a device, and how many elements of q a lane of them may hold. Chosen on an H200, which holds
/// two workgroups of the first kind a compute unit and one of the second: with more, some would wait for others to end.
const WORKGROUPS: [(usize, usize); 2] = [(256, 16), (128, usize::MAX)];

/// Positions that a workgroup takes at least; `attention_split.comp` has the same.
const LEAST_SPLIT: usize = 128;

/// The most splits of a token's positions; `attention_split.comp` has the same.
const MOST_SPLITS: usize = 64;

/// Counters at the head of the scratch memory, one for each workgroup column of the split attention.
pub(super) const COUNTERS: usize = 4096;

impl AttentionShape {
    /// For an attention op; `None` if its heads do not fit.
    pub(super) fn of(segment: &Segment, tuning: &Tuning, index: usize) -> Option<AttentionShape> {
        let bound = &segment.ops[index];
        let (OpKind::Attention { heads, .. }, Some(kv)) = (&bound.op.kind, &bound.kv) else { return None };
        if segment.bucket.tokens > SPLIT_TOKENS || !heads.head_dim.is_multiple_of(8) {
            return None;
        }
        let octets = heads.head_dim / 8;
        let mut row_lanes = 1;
        while row_lanes * 2 <= tuning.subgroup && octets.is_multiple_of(row_lanes as usize * 2) {
            row_lanes *= 2;
        }
        // Registers: each lane holds q and the sums of its elements of all heads.
        let elements = heads.head_dim / row_lanes as usize;
        let group = heads.n_heads / heads.n_kv_heads;
        let per_group = (1..=group).rev().find(|n| group.is_multiple_of(*n) && n * elements <= 64)?;
        // Shared memory: a result for each subgroup, the whole, and what each split counts for.
        let whole = per_group * (heads.head_dim + MOST_SPLITS / 2);
        let lanes = tuning.split_lanes(per_group * (heads.head_dim + 2), whole)?;
        // All that a lane has at a time lie in one block.
        let most = if per_group * elements <= 32 { 4 } else { 2 };
        let batch = [4, 2, 1].into_iter().find(|&n| n <= most && kv.block_len.is_multiple_of(n as usize))?;
        let columns = (heads.n_heads / per_group).checked_mul(segment.bucket.tokens)?;
        let context = segment.step_layout.limits.max_blocks.checked_mul(kv.block_len)?;
        let (workgroups, _) = WORKGROUPS.into_iter().find(|&(_, held)| per_group * elements <= held)?;
        let splits = (workgroups / columns).clamp(1, context.div_ceil(LEAST_SPLIT)).min(MOST_SPLITS);
        (columns <= COUNTERS).then_some(AttentionShape { heads: per_group, row_lanes, lanes, batch, splits })
    }

    /// Elements of scratch that partial results take, f32.
    pub(super) fn parts(&self, tokens: usize, n_heads: usize, head_dim: usize) -> Option<usize> {
        let splits = if self.splits > 1 { self.splits } else { 0 };
        tokens.checked_mul(n_heads)?.checked_mul(splits)?.checked_mul(head_dim + 2)
    }
}

/// Columns of x of a product, in whole chunks, and its rows.
pub(super) fn x_chunks(segment: &Segment, bound: &BoundOp) -> Option<u64> {
    let quantised = bound.weights.iter().find(|weight| weight.dtype.is_quantised())?;
    (rows(segment, bound) as u64).checked_mul(chunks(quantised.columns) as u64)
}

/// Who makes and who reads what, within a segment. A value is named by where it starts.
struct Flow {
    /// By op, by input: the op that made it, if one of this segment did.
    producers: Vec<Vec<Option<usize>>>,
    /// By op.
    readers: Vec<Vec<usize>>,
}

impl Flow {
    fn of(segment: &Segment) -> Flow {
        let mut last_writer: HashMap<u64, usize> = HashMap::new();
        let mut flow =
            Flow { producers: Vec::with_capacity(segment.ops.len()), readers: vec![Vec::new(); segment.ops.len()] };
        for (index, bound) in segment.ops.iter().enumerate() {
            let made = |slice: &biga_hal::BufferSlice| last_writer.get(&slice.device_address()).copied();
            let producers: Vec<Option<usize>> = bound.inputs.iter().map(made).collect();
            for &producer in producers.iter().flatten() {
                if flow.readers[producer].last() != Some(&index) {
                    flow.readers[producer].push(index);
                }
            }
            flow.producers.push(producers);
            if let Some(output) = &bound.output {
                last_writer.insert(output.device_address(), index);
            }
        }
        flow
    }

    /// True if the value of `maker` is nobody's business but that of `reader`, which is an op of the segment.
    fn read_only_by(&self, segment: &Segment, maker: usize, reader: usize) -> bool {
        segment.ops[maker].internal && self.readers[maker] == [reader]
    }
}
