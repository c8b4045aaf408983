//! Tiles with AVX-512: 64 8-bit products in one instruction.

use std::arch::x86_64::{
    __m128, __m512, __m512i, _mm_add_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps,
    _mm256_hadd_ps, _mm512_castps512_ps256, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_extractf32x8_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_setzero_ps,
    _mm512_setzero_si512,
};

use biga_hal::DType;

use crate::kernels::{
    Rows, Sums, TILE,
    layout::{Layout, STEP},
    unpack::groups_of_16,
};

kernel_set!(true, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]);

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
