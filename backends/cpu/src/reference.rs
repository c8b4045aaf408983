//! The plain f32 reference: each op as its formula reads. The oracle for every other kernel.
//!
//! Nothing here is written for speed. A weight row is expanded to f32 and multiplied; softmax is two
//! passes over all scores. Functions work on one row or one head, so that the team can share the rows.

use biga_hal::{Activation, DType, Heads, RopeStyle};

use crate::dequantise::dequantise_row;

/// Sum of products, in eight partial sums: closer to the exact value than one running sum.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// One little-endian f32 of a weight vector, which may lie at any address.
pub(crate) fn element(vector: &[[u8; 4]], i: usize) -> f32 {
    f32::from_le_bytes(vector[i])
}

/// `y = x / sqrt(mean(x²) + eps) * (w + offset)`.
pub(crate) fn rms_norm(x: &mut [f32], weight: &[[u8; 4]], eps: f32, offset: f32) {
    let mean = dot(x, x) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for (i, x) in x.iter_mut().enumerate() {
        *x = *x * scale * (element(weight, i) + offset);
    }
}

/// Norms each head in `row`, the q part or the k part of a qkv row.
pub(crate) fn head_norm(row: &mut [f32], head_dim: usize, weight: &[[u8; 4]], eps: f32, offset: f32) {
    for head in row.chunks_exact_mut(head_dim) {
        rms_norm(head, weight, eps, offset);
    }
}

/// Rotates one head. The angle is an f32 product, as in transformers.
pub(crate) fn rope(head: &mut [f32], position: u32, style: RopeStyle, inv_freqs: &[f32]) {
    let half = head.len() / 2;
    for (i, inv_freq) in inv_freqs.iter().enumerate() {
        let (sin, cos) = (position as f32 * inv_freq).sin_cos();
        let (a, b) = match style {
            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
            RopeStyle::Halves => (i, i + half),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = x * cos - y * sin;
        head[b] = x * sin + y * cos;
    }
}

/// The gate's activation.
pub(crate) fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

/// `cap * tanh(x / cap)` where a cap is set.
pub(crate) fn soft_cap(x: f32, cap: Option<f32>) -> f32 {
    cap.map_or(x, |cap| cap * (x / cap).tanh())
}

/// Parameters of attention that do not change from head to head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    /// Head geometry.
    pub(crate) heads: Heads,
    /// Multiplies q·k.
    pub(crate) scale: f32,
    /// Positions seen, the token's own among them.
    pub(crate) window: Option<usize>,
    /// Cap of the scores.
    pub(crate) softcap: Option<f32>,
    /// Format of the cache.
    pub(crate) dtype: DType,
}

/// First position that the token at `position` sees.
pub(crate) fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

/// Attention of one query head over `first..=last`. `key` and `value` give the stored row of a position;
/// `scores` has room for every position, `row` for one head.
#[expect(clippy::too_many_arguments, reason = "the formula's operands and its three work rows")]
pub(crate) fn attention<'a>(
    shape: &AttentionShape,
    q: &[f32],
    positions: std::ops::RangeInclusive<usize>,
    key: impl Fn(usize) -> &'a [u8],
    value: impl Fn(usize) -> &'a [u8],
    scores: &mut [f32],
    row: &mut [f32],
    y: &mut [f32],
) {
    let first = *positions.start();
    let scores = &mut scores[..positions.clone().count()];
    let mut largest = f32::NEG_INFINITY;
    for position in positions.clone() {
        dequantise_row(shape.dtype, key(position), row);
        let score = soft_cap(dot(q, row) * shape.scale, shape.softcap);
        scores[position - first] = score;
        largest = largest.max(score);
    }
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    y.fill(0.0);
    for position in positions {
        let share = scores[position - first] / sum;
        dequantise_row(shape.dtype, value(position), row);
        for (y, v) in y.iter_mut().zip(row.iter()) {
            *y += share * v;
        }
    }
}
