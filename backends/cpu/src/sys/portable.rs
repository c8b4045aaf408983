//! Tiles in plain Rust: for processors without the instructions of the other sets.

use biga_hal::DType;

use super::set::{Rows, Sums, TILE};
use crate::kernels::{
    layout::{Layout, STEP},
    unpack::groups_of_16,
};

kernel_set!([f32; 16], unpack_plain, false,);

/// # Safety
/// - `weights` has [`TILE`] rows and `tokens` as many as its count, each a whole row of the layout.
unsafe fn tile_i8(weights: Rows<f32>, tokens: Rows<f32>, layout: &Layout, dtype: DType, sums: &mut Sums) {
    let start = if groups_of_16(dtype) { layout.sums() + layout.sums_32_len() } else { layout.sums() };
    for (t, sums) in sums.iter_mut().enumerate().take(tokens.count) {
        // SAFETY: by this function's contract.
        let x = unsafe { std::slice::from_raw_parts(tokens.start.add(t * tokens.stride), layout.row_len()) };
        for (r, sum) in sums.iter_mut().enumerate().take(TILE) {
            // SAFETY: by this function's contract.
            let w = unsafe { std::slice::from_raw_parts(weights.start.add(r * weights.stride), layout.row_len()) };
            *sum = w[layout.sums()..].iter().zip(&x[start..]).map(|(m, s)| m * s).sum();
            let steps = w[..layout.sums()].as_chunks::<STEP>().0.iter().zip(x.as_chunks::<STEP>().0);
            for (w, x) in steps {
                *sum += step(w, x);
            }
        }
    }
}

/// The product of 64 columns.
fn step(w: &[f32; STEP], x: &[f32; STEP]) -> f32 {
    let ((w, w_scales), (x, x_scales)) = (w.split_at(16), x.split_at(16));
    let (w, x): (&[u8], &[i8]) = (bytemuck::cast_slice(w), bytemuck::cast_slice(x));
    let mut sum = 0.0;
    for group in 0..4 {
        let columns = 16 * group..16 * group + 16;
        let products = w[columns.clone()].iter().zip(&x[columns]).map(|(&w, &x)| i32::from(w) * i32::from(x));
        sum += products.sum::<i32>() as f32 * w_scales[4 * group] * x_scales[4 * group];
    }
    sum
}

/// # Safety
/// - Every row of `weights` and `tokens` has so many columns; addresses may be unaligned.
unsafe fn tile_f32(weights: Rows<f32>, tokens: Rows<f32>, columns: usize, sums: &mut Sums) {
    for (t, sums) in sums.iter_mut().enumerate().take(tokens.count) {
        // SAFETY: by this function's contract; values are aligned for f32.
        let x = unsafe { std::slice::from_raw_parts(tokens.start.add(t * tokens.stride), columns) };
        for (r, sum) in sums.iter_mut().enumerate().take(weights.count) {
            // SAFETY: by this function's contract; bytes have no alignment.
            let w =
                unsafe { std::slice::from_raw_parts(weights.start.add(r * weights.stride).cast::<u8>(), columns * 4) };
            let mut lanes = [0.0_f32; 16];
            let (w_chunks, w_tail) = w.as_chunks::<4>().0.as_chunks::<16>();
            let (x_chunks, x_tail) = x.as_chunks::<16>();
            for (w, x) in w_chunks.iter().zip(x_chunks) {
                for ((lane, w), x) in lanes.iter_mut().zip(w).zip(x) {
                    *lane += f32::from_le_bytes(*w) * x;
                }
            }
            let tail: f32 = w_tail.iter().zip(x_tail).map(|(w, x)| f32::from_le_bytes(*w) * x).sum();
            *sum = lanes.iter().sum::<f32>() + tail;
        }
    }
}
