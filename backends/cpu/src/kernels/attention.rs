//! Attention of several queries on one kv head, in one pass over the cache.
//!
//! The queries are the heads of a group and a few neighbouring tokens, so that each cached row is read and
//! converted once for all of them. Sixteen positions make a chunk: their keys are turned so that the scores
//! of a query are sums of whole vectors, and the softmax is kept running (largest score, sum, output).

use biga_hal::DType;

use super::{
    math::{exp, fma, largest, sum, tanh},
    unpack::expand,
};
use crate::reference::AttentionShape;

/// Positions of a chunk.
const CHUNK: usize = 16;
/// Queries whose scores are computed together.
const LANES: usize = 4;

/// The work of one call.
pub(crate) struct Unit<'a> {
    /// Head geometry, scale, cap, format.
    pub(crate) shape: &'a AttentionShape,
    /// First and last position that each query sees; `[n_queries]`, a multiple of 4, unused ones `(1, 0)`.
    pub(crate) bounds: &'a [(usize, usize)],
    /// Positions in a block: the stored rows of so many positions lie together.
    pub(crate) block_len: usize,
    /// Stored rows: keys or values, first position, count (all in one block).
    pub(crate) stored: &'a dyn Fn(Part, usize, usize) -> &'a [u8],
}

/// Keys or values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Keys.
    Keys,
    /// Values.
    Values,
}

/// f32 of scratch for a head size, beside queries and outputs.
pub(crate) const fn scratch_len(head_dim: usize) -> usize {
    3 * CHUNK * head_dim
}

/// `queries` is `[n_queries, head_dim]` and becomes the output; `scratch` holds `n_queries · head_dim` for
/// the running output and then [`scratch_len`].
#[inline(always)]
pub(crate) fn attention<const FUSED: bool>(unit: &Unit<'_>, queries: &mut [f32], scratch: &mut [f32]) {
    let head_dim = unit.shape.heads.head_dim;
    let n_queries = unit.bounds.len();
    let (outputs, scratch) = scratch.split_at_mut(n_queries * head_dim);
    let (turned, scratch) = scratch.split_at_mut(CHUNK * head_dim);
    let (rows, scratch) = scratch.split_at_mut(CHUNK * head_dim);
    outputs.fill(0.0);
    queries.iter_mut().for_each(|q| *q *= unit.shape.scale);
    // Largest score and sum of each query; the caller bounds the queries.
    let mut running = [(f32::NEG_INFINITY, 0.0_f32); MAX_QUERIES];
    let used = || unit.bounds.iter().filter(|(first, last)| first <= last);
    let (Some(low), Some(high)) = (used().map(|b| b.0).min(), used().map(|b| b.1).max()) else { return };
    let mut position = low;
    while position <= high {
        let count = CHUNK.min(unit.block_len - position % unit.block_len).min(high + 1 - position);
        let stored = (unit.stored)(Part::Keys, position, count);
        turn(unit.shape.dtype, stored, count, head_dim, &mut scratch[..CHUNK * head_dim], turned);
        let stored = (unit.stored)(Part::Values, position, count);
        expand(unit.shape.dtype, stored, &mut rows[..count * head_dim]);
        for first in (0..n_queries).step_by(LANES) {
            let scores = scores::<FUSED>(&queries[first * head_dim..][..LANES * head_dim], turned, head_dim);
            for (i, scores) in scores.into_iter().enumerate() {
                let query = first + i;
                let (from, to) = unit.bounds[query];
                if position > to || position + count <= from || from > to {
                    continue;
                }
                let seen = (from.saturating_sub(position), (to + 1 - position).min(count));
                let output = &mut outputs[query * head_dim..][..head_dim];
                fold::<FUSED>(scores, seen, unit.shape.softcap, &mut running[query], output, rows);
            }
        }
        position += count;
    }
    for ((query, output), (_, sum)) in
        queries.chunks_exact_mut(head_dim).zip(outputs.chunks_exact(head_dim)).zip(running)
    {
        let share = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        query.iter_mut().zip(output).for_each(|(y, o)| *y = o * share);
    }
}

/// The most queries of one call.
pub(crate) const MAX_QUERIES: usize = 32;

/// Keys of a chunk as `[head_dim][16]`; absent positions are zeroes.
#[inline(always)]
fn turn(dtype: DType, stored: &[u8], count: usize, head_dim: usize, rows: &mut [f32], turned: &mut [f32]) {
    expand(dtype, stored, &mut rows[..count * head_dim]);
    rows[count * head_dim..].fill(0.0);
    for (d, out) in turned.as_chunks_mut::<CHUNK>().0.iter_mut().enumerate() {
        for (j, out) in out.iter_mut().enumerate() {
            *out = rows[j * head_dim + d];
        }
    }
}

/// Scores of four queries at sixteen positions.
#[inline(always)]
fn scores<const FUSED: bool>(queries: &[f32], turned: &[f32], head_dim: usize) -> [[f32; CHUNK]; LANES] {
    let mut sums = [[0.0; CHUNK]; LANES];
    let (q0, rest) = queries.split_at(head_dim);
    let (q1, rest) = rest.split_at(head_dim);
    let (q2, q3) = rest.split_at(head_dim);
    for (d, keys) in turned.as_chunks::<CHUNK>().0.iter().enumerate().take(head_dim) {
        let q = [q0[d], q1[d], q2[d], q3[d]];
        for (sums, q) in sums.iter_mut().zip(q) {
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum = fma::<FUSED>(q, *key, *sum);
            }
        }
    }
    sums
}

/// Takes a chunk's scores into the running softmax of one query.
#[inline(always)]
fn fold<const FUSED: bool>(
    mut scores: [f32; CHUNK],
    seen: (usize, usize),
    softcap: Option<f32>,
    running: &mut (f32, f32),
    output: &mut [f32],
    values: &[f32],
) {
    if let Some(cap) = softcap {
        for score in &mut scores {
            *score = cap * tanh::<FUSED>(*score / cap);
        }
    }
    if seen != (0, CHUNK) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = if j >= seen.0 && j < seen.1 { *score } else { f32::NEG_INFINITY };
        }
    }
    let top = largest(scores).max(running.0);
    let mut shares = [0.0; CHUNK];
    for (share, score) in shares.iter_mut().zip(scores) {
        *share = exp::<FUSED>(score - top);
    }
    if top > running.0 {
        let shrink = exp::<FUSED>(running.0 - top);
        running.1 *= shrink;
        output.iter_mut().for_each(|o| *o *= shrink);
    }
    *running = (top, running.1 + sum(shares));
    let head_dim = output.len();
    let (blocks, tail) = output.as_chunks_mut::<32>();
    for (b, output) in blocks.iter_mut().enumerate() {
        for (j, &share) in shares.iter().enumerate().take(seen.1).skip(seen.0) {
            let row = &values[j * head_dim + 32 * b..][..32];
            for (o, v) in output.iter_mut().zip(row) {
                *o = fma::<FUSED>(share, *v, *o);
            }
        }
    }
    let start = head_dim - tail.len();
    for (j, &share) in shares.iter().enumerate().take(seen.1).skip(seen.0) {
        for (o, v) in tail.iter_mut().zip(&values[j * head_dim + start..]) {
            *o = fma::<FUSED>(share, *v, *o);
        }
    }
}
