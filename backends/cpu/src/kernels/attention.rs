//! Attention of several queries on one kv head, in one pass over the cache.
//!
//! The queries are the heads of a group and a few neighbouring tokens, so that each cached row is read and
//! converted once for all of them. Sixteen positions make a chunk: their keys are turned so that the scores
//! of a query are sums of whole vectors, and the softmax is kept running (largest score, sum, output).

use super::{
    lanes::Lanes,
    math::{exp, tanh},
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
    3 * CHUNK * head_dim.next_multiple_of(CHUNK)
}

/// `queries` is `[n_queries, head_dim]` and becomes the output; `scratch` holds as much for the
/// running output, its rows in whole vectors, and then [`scratch_len`].
#[inline(always)]
pub(crate) fn attention<L: Lanes, const FUSED: bool>(unit: &Unit<'_>, queries: &mut [f32], scratch: &mut [f32]) {
    let head_dim = unit.shape.heads.head_dim;
    let padded = head_dim.next_multiple_of(CHUNK);
    let n_queries = unit.bounds.len();
    let (outputs, scratch) = scratch.split_at_mut(n_queries * padded);
    let (turned, scratch) = scratch.split_at_mut(CHUNK * padded);
    let (rows, packed) = scratch.split_at_mut(CHUNK * padded);
    outputs.fill(0.0);
    // Columns beyond the head stay zeroes, in the keys and in the values.
    rows.fill(0.0);
    for q in queries.iter_mut() {
        *q *= unit.shape.scale;
    }
    // Largest score and sum of each query; the caller bounds the queries.
    let mut running = [(f32::NEG_INFINITY, 0.0_f32); MAX_QUERIES];
    let (mut low, mut high) = (usize::MAX, 0);
    for &(first, last) in unit.bounds {
        if first <= last {
            (low, high) = (low.min(first), high.max(last));
        }
    }
    let mut position = low;
    while position <= high {
        let count = CHUNK.min(unit.block_len - position % unit.block_len).min(high + 1 - position);
        load::<L>(unit, (unit.stored)(Part::Keys, position, count), rows, packed);
        turn::<L>(rows, padded, turned);
        load::<L>(unit, (unit.stored)(Part::Values, position, count), rows, packed);
        let (turned, rows) = (turned.as_chunks::<CHUNK>().0, rows.as_chunks::<CHUNK>().0);
        for first in (0..n_queries).step_by(LANES) {
            let scores = scores::<L>(&queries[first * head_dim..][..LANES * head_dim], turned, head_dim);
            for (i, scores) in scores.into_iter().enumerate() {
                let query = first + i;
                let (from, to) = unit.bounds[query];
                if position > to || position + count <= from || from > to {
                    continue;
                }
                let seen = (from.saturating_sub(position), (to + 1 - position).min(count));
                let output = outputs[query * padded..][..padded].as_chunks_mut::<CHUNK>().0;
                fold::<L, FUSED>(scores, seen, unit.shape.softcap, &mut running[query], output, rows);
            }
        }
        position += count;
    }
    for (query, (_, sum)) in running.iter().enumerate().take(n_queries) {
        let share = if *sum > 0.0 { 1.0 / sum } else { 0.0 };
        let output = &outputs[query * padded..][..head_dim];
        for (y, o) in queries[query * head_dim..][..head_dim].iter_mut().zip(output) {
            *y = o * share;
        }
    }
}

/// Expands stored rows, each to whole vectors. No closure: those are not compiled for the kernel's set.
#[inline(always)]
fn load<L: Lanes>(unit: &Unit<'_>, stored: &[u8], rows: &mut [f32], packed: &mut [f32]) {
    let (dtype, head_dim) = (unit.shape.dtype, unit.shape.heads.head_dim);
    let padded = head_dim.next_multiple_of(CHUNK);
    let count = stored.len() / dtype.row_bytes(head_dim).unwrap_or(1).max(1);
    if padded == head_dim {
        expand::<L>(dtype, stored, &mut rows[..count * head_dim]);
        return;
    }
    expand::<L>(dtype, stored, &mut packed[..count * head_dim]);
    for j in 0..count {
        rows[j * padded..][..head_dim].copy_from_slice(&packed[j * head_dim..][..head_dim]);
    }
}

/// The most queries of one call.
pub(crate) const MAX_QUERIES: usize = 32;

/// Keys of a chunk from `[16, padded]` to `[padded][16]`. Rows beyond the chunk's count hold what an earlier
/// chunk left; their scores are masked.
#[inline(always)]
fn turn<L: Lanes>(rows: &[f32], padded: usize, turned: &mut [f32]) {
    let rows = rows.as_chunks::<CHUNK>().0;
    let turned = turned.as_chunks_mut::<CHUNK>().0;
    let per_row = padded / CHUNK;
    for b in 0..per_row {
        let mut block = [L::splat(0.0); CHUNK];
        for (j, row) in block.iter_mut().enumerate() {
            *row = L::load(&rows[j * per_row + b]);
        }
        let block = L::transpose(block);
        for (d, row) in block.into_iter().enumerate() {
            row.store(&mut turned[b * CHUNK + d]);
        }
    }
}

/// Scores of four queries at sixteen positions.
#[inline(always)]
fn scores<L: Lanes>(queries: &[f32], turned: &[[f32; CHUNK]], head_dim: usize) -> [[f32; CHUNK]; LANES] {
    let turned = &turned[..head_dim];
    let (q0, rest) = queries.split_at(head_dim);
    let (q1, rest) = rest.split_at(head_dim);
    let (q2, q3) = rest.split_at(head_dim);
    let q3 = &q3[..head_dim];
    let (mut s0, mut s1, mut s2, mut s3) = (L::splat(0.0), L::splat(0.0), L::splat(0.0), L::splat(0.0));
    for d in 0..head_dim {
        let keys = L::load(&turned[d]);
        s0 = L::splat(q0[d]).fma(keys, s0);
        s1 = L::splat(q1[d]).fma(keys, s1);
        s2 = L::splat(q2[d]).fma(keys, s2);
        s3 = L::splat(q3[d]).fma(keys, s3);
    }
    let mut sums = [[0.0; CHUNK]; LANES];
    s0.store(&mut sums[0]);
    s1.store(&mut sums[1]);
    s2.store(&mut sums[2]);
    s3.store(&mut sums[3]);
    sums
}

/// Takes a chunk's scores into the running softmax of one query.
#[inline(always)]
fn fold<L: Lanes, const FUSED: bool>(
    mut scores: [f32; CHUNK],
    seen: (usize, usize),
    softcap: Option<f32>,
    running: &mut (f32, f32),
    output: &mut [[f32; CHUNK]],
    values: &[[f32; CHUNK]],
) {
    if let Some(cap) = softcap {
        for score in &mut scores {
            *score = cap * tanh::<FUSED>(*score / cap);
        }
    }
    for (j, score) in scores.iter_mut().enumerate() {
        *score = if j >= seen.0 && j < seen.1 { *score } else { f32::NEG_INFINITY };
    }
    let scores = L::load(&scores);
    let top = scores.largest().max(running.0);
    let shares_lanes = scores.exp_minus(top);
    let mut shares = [0.0; CHUNK];
    shares_lanes.store(&mut shares);
    let shrink = if top > running.0 { exp::<FUSED>(running.0 - top) } else { 1.0 };
    *running = (top, running.1 * shrink + shares_lanes.sum());
    let shrink = L::splat(shrink);
    let per_row = output.len();
    let zero = L::splat(0.0);
    let mut at = 0;
    // Four vectors of the output at a time, so that additions do not wait for each other.
    while at + 4 <= per_row {
        let mut o = [zero; 4];
        for (i, o) in o.iter_mut().enumerate() {
            *o = L::load(&output[at + i]).fma(shrink, zero);
        }
        for j in seen.0..seen.1 {
            let share = L::splat(shares[j]);
            let row = &values[j * per_row + at..][..4];
            for (i, o) in o.iter_mut().enumerate() {
                *o = share.fma(L::load(&row[i]), *o);
            }
        }
        for (i, o) in o.into_iter().enumerate() {
            o.store(&mut output[at + i]);
        }
        at += 4;
    }
    while at < per_row {
        let mut o = L::load(&output[at]).fma(shrink, zero);
        for j in seen.0..seen.1 {
            o = L::splat(shares[j]).fma(L::load(&values[j * per_row + at]), o);
        }
        o.store(&mut output[at]);
        at += 1;
    }
}
