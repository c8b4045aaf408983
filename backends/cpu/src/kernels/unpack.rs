//! Weight rows from their formats into the layout of `layout.rs`, or into f32.

use biga_hal::DType;

use super::{
    lanes::Lanes,
    layout::{Layout, STEP},
    math::half,
};
use crate::dequantise::scale_and_minimum;

/// True for the format whose groups have 16 columns.
pub(crate) const fn groups_of_16(dtype: DType) -> bool {
    matches!(dtype, DType::Q6_K)
}

/// An unpacked row as its parts.
struct Target<'a> {
    steps: &'a mut [f32],
    minima: &'a mut [f32],
}

impl Target<'_> {
    /// Quants and scales of group `index` of 32.
    #[inline(always)]
    fn parts(&mut self, index: usize) -> (&mut [u8; 32], &mut [f32]) {
        let step = &mut self.steps[STEP * (index / 2)..][..STEP];
        let (quants, scales) = step.split_at_mut(16);
        let quants: &mut [u8] = bytemuck::cast_slice_mut(quants);
        let at = index % 2;
        // PANIC: a step has 64 quants.
        let quants = quants.as_chunks_mut::<32>().0.get_mut(at).expect("two groups a step");
        (quants, &mut scales[8 * at..8 * at + 8])
    }

    /// Group `index` of 32 with one scale: its quants are written by `fill`.
    #[inline(always)]
    fn group(&mut self, index: usize, scale: f32, minimum: f32, fill: impl FnOnce(&mut [u8; 32])) {
        let (quants, scales) = self.parts(index);
        fill(quants);
        scales.fill(scale);
        self.minima[index] = minimum;
    }
}

/// Unpacks a quantised row.
#[inline(always)]
pub(crate) fn unpack(dtype: DType, bytes: &[u8], layout: &Layout, out: &mut [f32]) {
    let (steps, minima) = out[..layout.row_len()].split_at_mut(layout.sums());
    minima.fill(0.0);
    if !layout.columns.is_multiple_of(64) {
        // The row ends in the middle of a step: its other half must add nothing.
        steps[(layout.steps - 1) * STEP..].fill(0.0);
    }
    let mut target = Target { steps, minima };
    match dtype {
        DType::Q8_0 => {
            for (i, b) in bytes.as_chunks::<34>().0.iter().enumerate() {
                let scale = word(b, 0);
                target.group(i, scale, -128.0 * scale, |q| copy_with(q, &b[2..34], |b| b ^ 0x80));
            }
        }
        DType::Q4_0 => {
            for (i, b) in bytes.as_chunks::<18>().0.iter().enumerate() {
                let scale = word(b, 0);
                target.group(i, scale, -8.0 * scale, |q| nibbles(q, &b[2..18]));
            }
        }
        DType::Q4_1 => {
            for (i, b) in bytes.as_chunks::<20>().0.iter().enumerate() {
                target.group(i, word(b, 0), word(b, 2), |q| nibbles(q, &b[4..20]));
            }
        }
        DType::Q5_0 => {
            for (i, b) in bytes.as_chunks::<22>().0.iter().enumerate() {
                let scale = word(b, 0);
                target.group(i, scale, -16.0 * scale, |q| fives(q, &b[6..22], &b[2..6]));
            }
        }
        DType::Q5_1 => {
            for (i, b) in bytes.as_chunks::<24>().0.iter().enumerate() {
                target.group(i, word(b, 0), word(b, 2), |q| fives(q, &b[8..24], &b[4..8]));
            }
        }
        DType::Q4_K => {
            for (i, b) in bytes.as_chunks::<144>().0.iter().enumerate() {
                let (scale, minimum) = (word(b, 0), word(b, 2));
                for g in 0..8 {
                    let (s, m) = scale_and_minimum(&b[4..16], g);
                    let quants = &b[16 + 32 * (g / 2)..][..32];
                    let shift = 4 * (g % 2);
                    target.group(8 * i + g, scale * f32::from(s), -minimum * f32::from(m), |q| {
                        copy_with(q, quants, |b| (b >> shift) & 15);
                    });
                }
            }
        }
        DType::Q5_K => {
            for (i, b) in bytes.as_chunks::<176>().0.iter().enumerate() {
                let (scale, minimum) = (word(b, 0), word(b, 2));
                for g in 0..8 {
                    let (s, m) = scale_and_minimum(&b[4..16], g);
                    let (fifth, quants) = (&b[16..48], &b[48 + 32 * (g / 2)..][..32]);
                    let shift = 4 * (g % 2);
                    target.group(8 * i + g, scale * f32::from(s), -minimum * f32::from(m), |q| {
                        for ((q, b), high) in q.iter_mut().zip(quants).zip(fifth) {
                            *q = ((b >> shift) & 15) | (((high >> g) & 1) << 4);
                        }
                    });
                }
            }
        }
        DType::Q6_K => {
            for (i, b) in bytes.as_chunks::<210>().0.iter().enumerate() {
                q6_k(&mut target, i, b);
            }
        }
        // PANIC: products choose `expand` for the plain formats, and compilation refuses others.
        other => unreachable!("{other} is not a quantised format"),
    }
}

/// A half at a byte offset of a block.
#[inline(always)]
fn word(block: &[u8], offset: usize) -> f32 {
    half(u16::from_le_bytes([block[offset], block[offset + 1]]))
}

#[inline(always)]
fn copy_with(q: &mut [u8; 32], bytes: &[u8], each: impl Fn(u8) -> u8) {
    for (q, &byte) in q.iter_mut().zip(bytes) {
        *q = each(byte);
    }
}

#[inline(always)]
fn nibbles(q: &mut [u8; 32], packed: &[u8]) {
    for i in 0..16 {
        q[i] = packed[i] & 15;
        q[i + 16] = packed[i] >> 4;
    }
}

#[inline(always)]
fn fives(q: &mut [u8; 32], packed: &[u8], fifth: &[u8]) {
    nibbles(q, packed);
    for (i, q) in q.iter_mut().enumerate() {
        *q |= ((fifth[i / 8] >> (i % 8)) & 1) << 4;
    }
}

#[inline(always)]
fn q6_k(target: &mut Target<'_>, block: usize, b: &[u8; 210]) {
    let scale = word(b, 208);
    for g in 0..8 {
        let (part, run) = (g / 4, g % 4);
        let low = &b[64 * part + 32 * (run % 2)..][..32];
        let high = &b[128 + 32 * part..][..32];
        let of = |i: usize| scale * f32::from(b[192 + 2 * g + i].cast_signed());
        let index = 8 * block + g;
        let (first, second) = (of(0), of(1));
        let (quants, scales) = target.parts(index);
        for ((q, low), high) in quants.iter_mut().zip(low).zip(high) {
            *q = ((low >> (4 * (run / 2))) & 15) | (((high >> (2 * run)) & 3) << 4);
        }
        scales[..4].fill(first);
        scales[4..].fill(second);
        target.minima[2 * index] = -32.0 * first;
        target.minima[2 * index + 1] = -32.0 * second;
    }
}

/// Expands a row of one of the plain formats; also the rows of a KV cache.
#[inline(always)]
pub(crate) fn expand<L: Lanes>(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => {
            for (y, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *y = f32::from_le_bytes(*b);
            }
        }
        DType::F16 => {
            let (chunks, tail) = out.as_chunks_mut::<16>();
            let (stored, rest) = bytes.as_chunks::<32>();
            for (y, b) in chunks.iter_mut().zip(stored) {
                L::halves(b).store(y);
            }
            for (y, b) in tail.iter_mut().zip(rest.as_chunks::<2>().0) {
                *y = half(u16::from_le_bytes(*b));
            }
        }
        DType::BF16 => {
            for (y, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *y = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        DType::Q8_0 => {
            for (y, b) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
                let scale = word(b, 0);
                for (y, q) in y.iter_mut().zip(&b[2..]) {
                    *y = scale * f32::from(q.cast_signed());
                }
            }
        }
        other => crate::dequantise::dequantise_row(other, bytes, out),
    }
}
