//! Tiles with AVX-512: 64 8-bit products in one instruction.

#![expect(clippy::needless_range_loop, reason = "an index names a row in memory and its sum at once")]

use std::arch::x86_64::{
    __m128, __m512, __m512i, _MM_HINT_T0, _mm_add_ps, _mm_castps_si128, _mm_cvtph_ps, _mm_cvtsi64_si128,
    _mm_loadu_si128, _mm_movehl_ps, _mm_mul_ps, _mm_prefetch, _mm_set1_ps, _mm_shuffle_ps, _mm_srli_epi16,
    _mm_storel_epi64, _mm_storeu_ps, _mm256_add_ps, _mm256_castps256_ps128, _mm256_castsi128_si256,
    _mm256_extractf128_ps, _mm256_hadd_ps, _mm256_inserti128_si256, _mm256_loadu_si256, _mm512_and_si512,
    _mm512_castps128_ps512, _mm512_castps512_ps256, _mm512_castsi256_si512, _mm512_cvtepi32_ps, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_inserti64x4,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_permutexvar_ps,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi8,
    _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4,
    _mm512_shuffle_ps, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_ps, _mm512_unpacklo_ps,
    _mm512_xor_si512,
};

use biga_hal::DType;

use super::set::{Rows, Sums, TILE};
use crate::kernels::{
    lanes::Lanes,
    layout::{Layout, STEP},
    unpack::groups_of_16,
};

kernel_set!(One, unpack, true, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]);

/// How far ahead of the block in hand memory is asked for: a few rows, since decode is bound by memory.
const PREFETCH_BYTES: usize = 2048;

/// Unpacks a quantised row; the formats of 32 columns that models use most two blocks at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn unpack(dtype: DType, bytes: &[u8], layout: &Layout, out: &mut [f32]) {
    if !layout.columns.is_multiple_of(64) {
        return unpack_plain(dtype, bytes, layout, out);
    }
    let (steps, sums) = out[..layout.row_len()].split_at_mut(layout.sums());
    sums[2 * layout.steps..layout.sums_32_len()].fill(0.0);
    let (steps, minima) = (steps.as_chunks_mut::<STEP>().0.iter_mut(), sums.as_chunks_mut::<2>().0.iter_mut());
    let targets = steps.zip(minima);
    for line in (0..bytes.len()).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(PREFETCH_BYTES + line).cast());
    }
    match dtype {
        DType::Q4_1 => {
            for ((step, minima), pair) in targets.zip(bytes.as_chunks::<40>().0) {
                let words = halves([word(pair, 0), word(pair, 2), word(pair, 20), word(pair, 22)]);
                let scales = _mm_shuffle_ps::<0b11_01_10_00>(words, words);
                put(step, minima, nibbles(&pair[4..], &pair[24..]), scales, _mm_movehl_ps(scales, scales));
            }
        }
        DType::Q4_0 => {
            for ((step, minima), pair) in targets.zip(bytes.as_chunks::<36>().0) {
                let scales = halves([word(pair, 0), word(pair, 18), 0, 0]);
                let minimum = _mm_mul_ps(scales, _mm_set1_ps(-8.0));
                put(step, minima, nibbles(&pair[2..], &pair[20..]), scales, minimum);
            }
        }
        DType::Q8_0 => {
            for ((step, minima), pair) in targets.zip(bytes.as_chunks::<68>().0) {
                let scales = halves([word(pair, 0), word(pair, 34), 0, 0]);
                let minimum = _mm_mul_ps(scales, _mm_set1_ps(-128.0));
                // SAFETY: a block has 32 quants behind its scale.
                let (first, second) = unsafe {
                    (_mm256_loadu_si256(pair[2..34].as_ptr().cast()), _mm256_loadu_si256(pair[36..68].as_ptr().cast()))
                };
                let quants = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
                put(step, minima, _mm512_xor_si512(quants, _mm512_set1_epi8(i8::MIN)), scales, minimum);
            }
        }
        _ => unpack_plain(dtype, bytes, layout, out),
    }
}

/// The bits of a half at a byte offset.
#[inline(always)]
fn word(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// Four halves as f32.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn halves(bits: [u16; 4]) -> __m128 {
    let bits = bits.map(u64::from);
    let packed = bits[0] | bits[1] << 16 | bits[2] << 32 | bits[3] << 48;
    _mm_cvtph_ps(_mm_cvtsi64_si128(packed.cast_signed()))
}

/// The nibbles of two blocks of 32: low ones first in each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn nibbles(first: &[u8], second: &[u8]) -> __m512i {
    // SAFETY: both slices have 16 bytes, or the slicing panics.
    let (first, second) =
        unsafe { (_mm_loadu_si128(first[..16].as_ptr().cast()), _mm_loadu_si128(second[..16].as_ptr().cast())) };
    let first = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(first), _mm_srli_epi16::<4>(first));
    let second = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(second), _mm_srli_epi16::<4>(second));
    let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
    _mm512_and_si512(both, _mm512_set1_epi8(15))
}

/// Stores 64 quants with the scales and minima of their two groups (the low lanes).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn put(step: &mut [f32; STEP], minima: &mut [f32; 2], quants: __m512i, scales: __m128, minimum: __m128) {
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let scales = _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(scales));
    // SAFETY: a step is two vectors, the minima are two f32.
    unsafe {
        _mm512_storeu_si512(step.as_mut_ptr().cast(), quants);
        _mm512_storeu_ps(step.as_mut_ptr().add(16), scales);
        _mm_storel_epi64(minima.as_mut_ptr().cast(), _mm_castps_si128(minimum));
    }
}

/// Sixteen f32 in one vector.
#[derive(Clone, Copy)]
struct One(__m512);

impl Lanes for One {
    #[inline(always)]
    fn splat(x: f32) -> One {
        // SAFETY: the type is used in kernels compiled for AVX-512 only, here and below.
        unsafe { One(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    fn load(x: &[f32; 16]) -> One {
        // SAFETY: above; the array is one vector.
        unsafe { One(_mm512_loadu_ps(x.as_ptr())) }
    }

    #[inline(always)]
    fn store(self, y: &mut [f32; 16]) {
        // SAFETY: above; the array is one vector.
        unsafe { _mm512_storeu_ps(y.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn fma(self, b: One, c: One) -> One {
        // SAFETY: above.
        unsafe { One(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }

    #[inline(always)]
    fn halves(bytes: &[u8; 32]) -> One {
        // SAFETY: above; the array is one vector of halves.
        unsafe { One(_mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: above.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: above.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    fn exp_minus(self, top: f32) -> One {
        // SAFETY: above.
        unsafe {
            let x = _mm512_max_ps(_mm512_sub_ps(self.0, _mm512_set1_ps(top)), _mm512_set1_ps(-87.0));
            let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
            // In two parts, so that the difference keeps its digits.
            let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_145_75), x);
            let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.428_606_8e-6), r);
            let mut p = _mm512_set1_ps(1.0 / 5040.0);
            for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
                p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
            }
            One(_mm512_scalef_ps(p, n))
        }
    }

    #[inline(always)]
    fn transpose(rows: [One; 16]) -> [One; 16] {
        // Four by four within quarters of the vectors, then the quarters among each other.
        let mut quarters = rows;
        for i in (0..16).step_by(4) {
            let [a, b, c, d] = [rows[i].0, rows[i + 1].0, rows[i + 2].0, rows[i + 3].0];
            // SAFETY: above.
            unsafe {
                let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (low_2, high_2) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                quarters[i] = One(_mm512_shuffle_ps::<0b01_00_01_00>(low, low_2));
                quarters[i + 1] = One(_mm512_shuffle_ps::<0b11_10_11_10>(low, low_2));
                quarters[i + 2] = One(_mm512_shuffle_ps::<0b01_00_01_00>(high, high_2));
                quarters[i + 3] = One(_mm512_shuffle_ps::<0b11_10_11_10>(high, high_2));
            }
        }
        // Quarter `k` of `quarters[4 * i + j]` holds column `4 * k + j` of rows `4 * i ..`.
        let mut turned = quarters;
        for j in 0..4 {
            let [a, b, c, d] = [quarters[j].0, quarters[4 + j].0, quarters[8 + j].0, quarters[12 + j].0];
            // SAFETY: above.
            unsafe {
                let (ab_low, ab_high) =
                    (_mm512_shuffle_f32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b));
                let (cd_low, cd_high) =
                    (_mm512_shuffle_f32x4::<0b01_00_01_00>(c, d), _mm512_shuffle_f32x4::<0b11_10_11_10>(c, d));
                turned[j] = One(_mm512_shuffle_f32x4::<0b10_00_10_00>(ab_low, cd_low));
                turned[4 + j] = One(_mm512_shuffle_f32x4::<0b11_01_11_01>(ab_low, cd_low));
                turned[8 + j] = One(_mm512_shuffle_f32x4::<0b10_00_10_00>(ab_high, cd_high));
                turned[12 + j] = One(_mm512_shuffle_f32x4::<0b11_01_11_01>(ab_high, cd_high));
            }
        }
        turned
    }
}

/// # Safety
/// - `weights` has [`TILE`] rows and `tokens` 1 to 4, each a whole row of the layout.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn tile_i8(weights: Rows<f32>, tokens: Rows<f32>, layout: &Layout, dtype: DType, sums: &mut Sums) {
    let n = layout.sums();
    let sums_16 = groups_of_16(dtype);
    let (skip, len) = if sums_16 { (layout.sums_32_len(), layout.sums_16_len()) } else { (0, layout.sums_32_len()) };
    // SAFETY: by this function's contract; the sums follow the steps in the same rows.
    unsafe {
        match tokens.count {
            1 => i8_of::<1>(weights, tokens, n, skip, len, sums),
            2 => i8_of::<2>(weights, tokens, n, skip, len, sums),
            3 => i8_of::<3>(weights, tokens, n, skip, len, sums),
            _ => i8_of::<4>(weights, tokens, n, skip, len, sums),
        }
    }
}

/// # Safety
/// As [`tile_i8`] with `T` tokens; `n` f32 of steps are followed by `len` minima in the weights and, after
/// `skip` more, `len` sums in the tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn i8_of<const T: usize>(
    weights: Rows<f32>,
    tokens: Rows<f32>,
    n: usize,
    skip: usize,
    len: usize,
    sums: &mut Sums,
) {
    let mut sum = [[_mm512_setzero_ps(); TILE]; T];
    for at in (0..n).step_by(STEP) {
        let mut x: [(__m512i, __m512); T] = [(_mm512_setzero_si512(), _mm512_setzero_ps()); T];
        for (t, x) in x.iter_mut().enumerate() {
            // SAFETY: `at + 32` is within the steps of the row.
            unsafe {
                let row = tokens.start.add(t * tokens.stride + at);
                *x = (_mm512_loadu_si512(row.cast()), _mm512_loadu_ps(row.add(16)));
            }
        }
        for r in 0..TILE {
            // SAFETY: as above.
            let (w, w_scale) = unsafe {
                let row = weights.start.add(r * weights.stride + at);
                (_mm512_loadu_si512(row.cast()), _mm512_loadu_ps(row.add(16)))
            };
            for (t, (x, x_scale)) in x.iter().enumerate() {
                let product = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), w, *x));
                sum[t][r] = _mm512_fmadd_ps(product, _mm512_mul_ps(w_scale, *x_scale), sum[t][r]);
            }
        }
    }
    for at in (0..len).step_by(16) {
        for t in 0..T {
            // SAFETY: the sums of the row are whole vectors.
            let x = unsafe { _mm512_loadu_ps(tokens.start.add(t * tokens.stride + n + skip + at)) };
            for r in 0..TILE {
                // SAFETY: as above.
                let w = unsafe { _mm512_loadu_ps(weights.start.add(r * weights.stride + n + at)) };
                sum[t][r] = _mm512_fmadd_ps(w, x, sum[t][r]);
            }
        }
    }
    store(&sum, sums);
}

/// # Safety
/// - Every row of `weights` (1 to 4) and `tokens` (1 to 4) has so many columns; addresses may be unaligned.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn tile_f32(weights: Rows<f32>, tokens: Rows<f32>, columns: usize, sums: &mut Sums) {
    // SAFETY: by this function's contract.
    unsafe {
        match tokens.count {
            1 => f32_of::<1>(weights, tokens, columns, sums),
            2 => f32_of::<2>(weights, tokens, columns, sums),
            3 => f32_of::<3>(weights, tokens, columns, sums),
            _ => f32_of::<4>(weights, tokens, columns, sums),
        }
    }
}

/// # Safety
/// As [`tile_f32`] with `T` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn f32_of<const T: usize>(weights: Rows<f32>, tokens: Rows<f32>, columns: usize, sums: &mut Sums) {
    let mut sum = [[_mm512_setzero_ps(); TILE]; T];
    for at in (0..columns).step_by(16) {
        let left = columns - at;
        let mask = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
        let mut x = [_mm512_setzero_ps(); T];
        for (t, x) in x.iter_mut().enumerate() {
            // SAFETY: the mask keeps the load inside the row.
            *x = unsafe { _mm512_maskz_loadu_ps(mask, tokens.start.wrapping_add(t * tokens.stride + at)) };
        }
        for r in 0..TILE {
            // A tile at the end has fewer rows: the last one stands in, and its products are not used.
            let row = r.min(weights.count - 1);
            // SAFETY: as above.
            let w = unsafe { _mm512_maskz_loadu_ps(mask, weights.start.wrapping_add(row * weights.stride + at)) };
            for (t, x) in x.iter().enumerate() {
                sum[t][r] = _mm512_fmadd_ps(w, *x, sum[t][r]);
            }
        }
    }
    store(&sum, sums);
}

/// Adds the lanes of every sum up.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn store<const T: usize>(sum: &[[__m512; TILE]; T], sums: &mut Sums) {
    for (sum, sums) in sum.iter().zip(sums) {
        // SAFETY: a row of sums has four f32.
        unsafe { _mm_storeu_ps(sums.as_mut_ptr(), across(sum)) };
    }
}

/// The lane sums of four vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn across(x: &[__m512; TILE]) -> __m128 {
    let halves = x.map(|x| _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)));
    let pairs = (_mm256_hadd_ps(halves[0], halves[1]), _mm256_hadd_ps(halves[2], halves[3]));
    let fours = _mm256_hadd_ps(pairs.0, pairs.1);
    _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps::<1>(fours))
}
