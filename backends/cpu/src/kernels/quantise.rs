//! Activations to 8 bits: one scale for each group of 32.

use super::{
    layout::{Layout, STEP},
    math::ROUND,
};

/// Quantises a row into the layout of `layout.rs`.
#[inline(always)]
pub(crate) fn quantise(x: &[f32], layout: &Layout, out: &mut [f32]) {
    let (steps, sums) = out[..layout.row_len()].split_at_mut(layout.sums());
    let (sums_32, sums_16) = sums.split_at_mut(layout.sums_32_len());
    sums_32.fill(0.0);
    sums_16.fill(0.0);
    for (step, out) in steps.chunks_exact_mut(STEP).enumerate() {
        let (quants, scales) = out.split_at_mut(16);
        let quants: &mut [i8] = bytemuck::cast_slice_mut(quants);
        for half in 0..2 {
            let mut group = [0.0; 32];
            let start = (64 * step + 32 * half).min(x.len());
            let end = (start + 32).min(x.len());
            if end - start == 32 {
                group.copy_from_slice(&x[start..end]);
            } else {
                group[..end - start].copy_from_slice(&x[start..end]);
            }
            let (scale, first, second) = quantise_group(&group, &mut quants[32 * half..32 * half + 32]);
            scales[8 * half..8 * half + 8].fill(scale);
            sums_32[2 * step + half] = scale * (first + second) as f32;
            sums_16[4 * step + 2 * half] = scale * first as f32;
            sums_16[4 * step + 2 * half + 1] = scale * second as f32;
        }
    }
}

/// Scale, and the sums of the quants of both halves.
#[inline(always)]
fn quantise_group(group: &[f32; 32], quants: &mut [i8]) -> (f32, i32, i32) {
    // As integers magnitudes compare alike, and the compiler may reorder them.
    let largest = group.iter().fold(0, |largest, x| (x.to_bits() & 0x7FFF_FFFF).max(largest));
    let scale = f32::from_bits(largest) / 127.0;
    let inverse = if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    let (mut first, mut second) = (0, 0);
    for (i, (q, x)) in quants.iter_mut().zip(group).enumerate() {
        *q = (x * inverse + ROUND).to_bits() as i8;
        if i < 16 { first += i32::from(*q) } else { second += i32::from(*q) }
    }
    (scale, first, second)
}
