//! Tiles with AVX2 and FMA.

#![expect(clippy::needless_range_loop, reason = "an index names a row in memory and its sum at once")]

use std::arch::x86_64::{
    __m256, __m256i, _mm_add_ps, _mm_loadu_si128, _mm_storeu_ps, _mm256_add_epi32, _mm256_castps256_ps128,
    _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16, _mm256_cvtph_ps,
    _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_storeu_ps,
};

use biga_hal::DType;

use super::set::{Rows, Sums, TILE};
use crate::kernels::{
    lanes::Lanes,
    layout::{Layout, STEP},
    math::{exp, largest, sum},
    unpack::groups_of_16,
};

kernel_set!(Two, unpack_plain, true, #[target_feature(enable = "avx2,fma,f16c")]);

/// Sixteen f32 in two vectors.
#[derive(Clone, Copy)]
struct Two(__m256, __m256);

impl Two {
    #[inline(always)]
    fn array(self) -> [f32; 16] {
        let mut array = [0.0; 16];
        self.store(&mut array);
        array
    }
}

impl Lanes for Two {
    #[inline(always)]
    fn splat(x: f32) -> Two {
        // SAFETY: the type is used in kernels compiled for AVX2 only, here and below.
        unsafe { Two(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    fn load(x: &[f32; 16]) -> Two {
        // SAFETY: above; the array has two vectors.
        unsafe { Two(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn store(self, y: &mut [f32; 16]) {
        // SAFETY: above; the array has two vectors.
        unsafe {
            _mm256_storeu_ps(y.as_mut_ptr(), self.0);
            _mm256_storeu_ps(y.as_mut_ptr().add(8), self.1);
        }
    }

    #[inline(always)]
    fn fma(self, b: Two, c: Two) -> Two {
        // SAFETY: above.
        unsafe { Two(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn halves(bytes: &[u8; 32]) -> Two {
        // SAFETY: above; the array has two vectors of eight halves.
        unsafe {
            let (first, second) =
                (_mm_loadu_si128(bytes.as_ptr().cast()), _mm_loadu_si128(bytes[16..].as_ptr().cast()));
            Two(_mm256_cvtph_ps(first), _mm256_cvtph_ps(second))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        largest(self.array())
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        sum(self.array())
    }

    #[inline(always)]
    fn exp_minus(self, top: f32) -> Two {
        Two::load(&self.array().map(|x| exp::<true>(x - top)))
    }

    #[inline(always)]
    fn transpose(rows: [Two; 16]) -> [Two; 16] {
        let mut arrays = [[0.0; 16]; 16];
        for (array, row) in arrays.iter_mut().zip(rows) {
            row.store(array);
        }
        let mut turned = rows;
        for (j, row) in turned.iter_mut().enumerate() {
            *row = Two::load(&std::array::from_fn(|i| arrays[i][j]));
        }
        turned
    }
}

/// # Safety
/// - `weights` has [`TILE`] rows and `tokens` 1 to 4, each a whole row of the layout.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile_i8(weights: Rows<f32>, tokens: Rows<f32>, layout: &Layout, dtype: DType, sums: &mut Sums) {
    for t in 0..tokens.count {
        // SAFETY: by this function's contract.
        let token = unsafe { tokens.start.add(t * tokens.stride) };
        // Pairs of 8-bit quants times activations overflow 16 bits; those of 7 bits and less do not.
        // SAFETY: by this function's contract.
        unsafe {
            if dtype == DType::Q8_0 {
                i8_of::<true>(weights, token, layout, false, &mut sums[t]);
            } else {
                i8_of::<false>(weights, token, layout, groups_of_16(dtype), &mut sums[t]);
            }
        }
    }
}

/// # Safety
/// As [`tile_i8`], with one token.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn i8_of<const WIDE: bool>(
    weights: Rows<f32>,
    token: *const f32,
    layout: &Layout,
    sums_16: bool,
    sums: &mut [f32; TILE],
) {
    let n = layout.sums();
    let (skip, len) = if sums_16 { (layout.sums_32_len(), layout.sums_16_len()) } else { (0, layout.sums_32_len()) };
    let mut sum = [_mm256_setzero_ps(); TILE];
    for at in (0..n).step_by(STEP) {
        for half in [0, 8] {
            // SAFETY: `at + 32` is within the steps of the row.
            let (x, x_scale) = unsafe {
                let row = token.add(at + half);
                (_mm256_loadu_si256(row.cast()), _mm256_loadu_ps(row.add(16)))
            };
            for (r, sum) in sum.iter_mut().enumerate() {
                // SAFETY: as above.
                let (w, w_scale) = unsafe {
                    let row = weights.start.add(r * weights.stride + at + half);
                    (_mm256_loadu_si256(row.cast()), _mm256_loadu_ps(row.add(16)))
                };
                let product = if WIDE { wide(w, x) } else { narrow(w, x) };
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), _mm256_mul_ps(w_scale, x_scale), *sum);
            }
        }
    }
    for at in (0..len).step_by(8) {
        // SAFETY: the sums of the row are whole vectors.
        let x = unsafe { _mm256_loadu_ps(token.add(n + skip + at)) };
        for (r, sum) in sum.iter_mut().enumerate() {
            // SAFETY: as above.
            let w = unsafe { _mm256_loadu_ps(weights.start.add(r * weights.stride + n + at)) };
            *sum = _mm256_fmadd_ps(w, x, *sum);
        }
    }
    store(&sum, sums);
}

/// Sums of four neighbouring products, exact while the unsigned side has 7 bits.
#[target_feature(enable = "avx2,fma,f16c")]
fn narrow(w: __m256i, x: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1))
}

/// Sums of four products each, exact for all bytes. Which lane a product lands in does not matter: the
/// format that needs this has one scale for all 32 columns.
#[target_feature(enable = "avx2,fma,f16c")]
fn wide(w: __m256i, x: __m256i) -> __m256i {
    let low = _mm256_madd_epi16(
        _mm256_cvtepu8_epi16(_mm256_castsi256_si128(w)),
        _mm256_cvtepi8_epi16(_mm256_castsi256_si128(x)),
    );
    let high = _mm256_madd_epi16(
        _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(w)),
        _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(x)),
    );
    _mm256_add_epi32(low, high)
}

/// # Safety
/// - Every row of `weights` (1 to 4) and `tokens` (1 to 4) has so many columns; addresses may be unaligned.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile_f32(weights: Rows<f32>, tokens: Rows<f32>, columns: usize, sums: &mut Sums) {
    for t in 0..tokens.count {
        let mut sum = [_mm256_setzero_ps(); TILE];
        let whole = columns / 8 * 8;
        let x = tokens.start.wrapping_add(t * tokens.stride);
        for at in (0..whole).step_by(8) {
            // SAFETY: `at + 8` is within the row.
            let x = unsafe { _mm256_loadu_ps(x.add(at)) };
            for (r, sum) in sum.iter_mut().enumerate() {
                // A tile at the end has fewer rows: the last one stands in, and its products are not used.
                let row = r.min(weights.count - 1);
                // SAFETY: as above.
                let w = unsafe { _mm256_loadu_ps(weights.start.add(row * weights.stride + at)) };
                *sum = _mm256_fmadd_ps(w, x, *sum);
            }
        }
        store(&sum, &mut sums[t]);
        for at in whole..columns {
            for (r, sum) in sums[t].iter_mut().enumerate().take(weights.count) {
                // SAFETY: `at` is within the row.
                *sum += unsafe { weights.start.add(r * weights.stride + at).read_unaligned() * x.add(at).read() };
            }
        }
    }
}

/// Adds the lanes of four sums up.
#[target_feature(enable = "avx2,fma,f16c")]
fn store(sum: &[__m256; TILE], sums: &mut [f32; TILE]) {
    let pairs = (_mm256_hadd_ps(sum[0], sum[1]), _mm256_hadd_ps(sum[2], sum[3]));
    let fours = _mm256_hadd_ps(pairs.0, pairs.1);
    let all = _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps::<1>(fours));
    // SAFETY: a row of sums has four f32.
    unsafe { _mm_storeu_ps(sums.as_mut_ptr(), all) };
}
