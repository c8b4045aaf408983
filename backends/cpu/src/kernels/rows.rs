//! Ops that work row by row, in plain code that the compiler turns into vectors.

use biga_hal::{Activation, RopeStyle};

use super::math::{exp, fma, tanh};

/// RMS norm in place.
#[inline(always)]
pub(crate) fn rms_norm<const FUSED: bool>(x: &mut [f32], weight: &[[u8; 4]], eps: f32, offset: f32) {
    let mut sums = [0.0_f32; 32];
    let (chunks, tail) = x.as_chunks::<32>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum = fma::<FUSED>(*x, *x, *sum);
        }
    }
    let square = sums.iter().sum::<f32>() + tail.iter().map(|x| x * x).sum::<f32>();
    let scale = 1.0 / (square / x.len() as f32 + eps).sqrt();
    for (x, w) in x.iter_mut().zip(weight) {
        *x = *x * scale * (f32::from_le_bytes(*w) + offset);
    }
}

/// `y = activation(gate) * up`.
#[inline(always)]
pub(crate) fn activate<const FUSED: bool>(activation: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    match activation {
        Activation::Silu => {
            for ((y, &x), up) in y.iter_mut().zip(gate).zip(up) {
                *y = x / (1.0 + exp::<FUSED>(-x)) * up;
            }
        }
        Activation::GeluTanh => {
            const FACTOR: f32 = 0.797_884_6;
            for ((y, &x), up) in y.iter_mut().zip(gate).zip(up) {
                let inner = FACTOR * (x + 0.044_715 * x * x * x);
                *y = 0.5 * x * (1.0 + tanh::<FUSED>(inner)) * up;
            }
        }
    }
}

/// Rotates every head of `row`; `angles` holds the cosines of a head, then its sines.
#[inline(always)]
pub(crate) fn rope(row: &mut [f32], head_dim: usize, style: RopeStyle, angles: &[f32]) {
    let half = head_dim / 2;
    let (cos, sin) = angles.split_at(half);
    for head in row.chunks_exact_mut(head_dim) {
        match style {
            RopeStyle::Halves => {
                let (first, second) = head.split_at_mut(half);
                for (((x, y), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
                }
            }
            RopeStyle::Interleaved => {
                for (([x, y], cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
                }
            }
        }
    }
}
