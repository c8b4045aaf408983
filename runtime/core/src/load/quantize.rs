//! Quantising at load: plain matrices become GGUF's Q8_0 or Q4_0 quant blocks.
//!
//! Rounding is that of GGUF's reference quantisers, so that the result equals the bytes which
//! `llama-quantize` writes for the same source (without an importance matrix). Norms and biases stay plain.

use std::num::NonZero;

use biga_hal::DType;
use half::{bf16, f16};

/// Elements of a quant block, the same in both formats.
pub(super) const BLOCK_LEN: usize = 32;
/// Elements between two reports of progress: some ten milliseconds of work.
const PIECE_LEN: usize = 1 << 22;

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantize {
    /// Q8_0.
    Int8,
    /// Q4_0.
    Int4,
}

impl Quantize {
    /// The format of the result.
    pub const fn dtype(self) -> DType {
        match self {
            Quantize::Int8 => DType::Q8_0,
            Quantize::Int4 => DType::Q4_0,
        }
    }
}

/// The word used on the command line: `int8`, `int4`.
impl std::str::FromStr for Quantize {
    type Err = String;

    fn from_str(word: &str) -> Result<Quantize, String> {
        match word {
            "int8" => Ok(Quantize::Int8),
            "int4" => Ok(Quantize::Int4),
            other => Err(format!("unknown quantisation {other:?}; one of int8, int4")),
        }
    }
}

/// Quantises whole quant blocks of `source` into `out`, on all cores. `progress` is told the bytes of source
/// that each piece had.
///
/// # Panics
/// If `out` is not as large as the quant blocks of `source`, or `source` is quantised already: the caller's
/// own mistakes.
pub(super) fn quantise(
    source: &[u8],
    stored: DType,
    target: Quantize,
    out: &mut [u8],
    progress: &mut dyn FnMut(usize),
) {
    assert!(!stored.is_quantised(), "{stored} is quantised already");
    let (in_bytes, out_bytes) = (stored.block_bytes() * BLOCK_LEN, target.dtype().block_bytes());
    assert_eq!(source.len() / in_bytes, out.len() / out_bytes, "blocks in and out");
    let n_threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let piece_blocks = PIECE_LEN / BLOCK_LEN;
    for (source, out) in source.chunks(piece_blocks * in_bytes).zip(out.chunks_mut(piece_blocks * out_bytes)) {
        let share = (source.len() / in_bytes).div_ceil(n_threads);
        std::thread::scope(|scope| {
            for (source, out) in source.chunks(share * in_bytes).zip(out.chunks_mut(share * out_bytes)) {
                scope.spawn(move || {
                    for (source, out) in source.chunks_exact(in_bytes).zip(out.chunks_exact_mut(out_bytes)) {
                        let values = plain(source, stored);
                        match target {
                            Quantize::Int8 => q8_0(&values, out),
                            Quantize::Int4 => q4_0(&values, out),
                        }
                    }
                });
            }
        });
        progress(source.len());
    }
}

/// One quant block's worth of a plain format.
fn plain(source: &[u8], stored: DType) -> [f32; BLOCK_LEN] {
    let mut values = [0.0; BLOCK_LEN];
    match stored {
        DType::F32 => {
            for (value, bytes) in values.iter_mut().zip(source.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        DType::F16 => {
            for (value, bytes) in values.iter_mut().zip(source.chunks_exact(2)) {
                *value = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        _ => {
            for (value, bytes) in values.iter_mut().zip(source.chunks_exact(2)) {
                *value = bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
    }
    values
}

/// Scale `max|x| / 127`, then 32 signed bytes, rounded half away from zero.
fn q8_0(values: &[f32; BLOCK_LEN], out: &mut [u8]) {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let (head, quants) = out.split_at_mut(2);
    head.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (quant, value) in quants.iter_mut().zip(values) {
        *quant = ((value * inverse).round() as i8).cast_unsigned();
    }
}

/// Scale so that the value of largest magnitude, sign included, becomes -8; then 32 nibbles offset by 8. Byte
/// `i` holds element `i` low and element `i + 16` high.
fn q4_0(values: &[f32; BLOCK_LEN], out: &mut [u8]) {
    let largest = values.iter().fold(0.0_f32, |largest, &v| if v.abs() > largest.abs() { v } else { largest });
    let scale = largest / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let (head, quants) = out.split_at_mut(2);
    head.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    let nibble = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    let (low, high) = values.split_at(BLOCK_LEN / 2);
    for ((quant, &low), &high) in quants.iter_mut().zip(low).zip(high) {
        *quant = nibble(low) | nibble(high) << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_LEN, Quantize, quantise};
    use biga_hal::DType;
    use half::{bf16, f16};

    fn bytes_of(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn quantised(values: &[f32], target: Quantize) -> Vec<u8> {
        let mut out = vec![0; values.len() / BLOCK_LEN * target.dtype().block_bytes()];
        quantise(&bytes_of(values), DType::F32, target, &mut out, &mut |_| ());
        out
    }

    #[test]
    fn int8_rounds_half_away_from_zero() {
        // The largest magnitude is 127, so the scale is 1 and rounding is seen directly.
        let mut values = [0.0; BLOCK_LEN];
        values[..6].copy_from_slice(&[-127.0, 0.5, -0.5, 2.49, 2.5, -3.5]);
        let block = quantised(&values, Quantize::Int8);
        assert_eq!(block[..2], f16::ONE.to_le_bytes());
        let quants: Vec<i8> = block[2..8].iter().map(|&q| q.cast_signed()).collect();
        assert_eq!(quants, [-127, 1, -1, 2, 3, -4]);
    }

    #[test]
    fn int4_maps_the_largest_value_to_minus_eight() {
        let mut values = [0.0; BLOCK_LEN];
        values[..4].copy_from_slice(&[8.0, -7.0, 0.5, -8.0]);
        values[16] = -1.0;
        let block = quantised(&values, Quantize::Int4);
        // The first of equal magnitudes wins: 8 becomes -8, so the scale is -1.
        assert_eq!(block[..2], f16::NEG_ONE.to_le_bytes());
        // 8 -> 0; -7 -> 15; 0.5 -> 8 (8.0 after the offset); -8 -> 16, cut to 15; -1 -> 9 in the high nibble.
        assert_eq!(block[2..7], [0x90, 0x8f, 0x88, 0x8f, 0x88]);
    }

    #[test]
    fn zeros_stay_zeros_and_no_value_panics() {
        assert_eq!(quantised(&[0.0; BLOCK_LEN], Quantize::Int8), [0; 34]);
        for bad in [f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 4.0, f32::MAX] {
            quantised(&[bad; BLOCK_LEN], Quantize::Int8);
            quantised(&[bad; BLOCK_LEN], Quantize::Int4);
        }
    }

    #[test]
    fn many_pieces_are_as_one_block_each() {
        let n = super::PIECE_LEN + 7 * BLOCK_LEN;
        let values: Vec<f32> = (0..n).map(|i| ((i * 7919) % 1009) as f32 / 100.0 - 5.0).collect();
        let mut out = vec![0; n / BLOCK_LEN * 18];
        let mut told = 0;
        quantise(&bytes_of(&values), DType::F32, Quantize::Int4, &mut out, &mut |bytes| told += bytes);
        assert_eq!(told, n * 4);
        for (values, block) in values.chunks(BLOCK_LEN).zip(out.chunks(18)).step_by(997) {
            assert_eq!(quantised(values, Quantize::Int4), block);
        }
    }

    #[test]
    fn half_formats_are_read() {
        let values: Vec<f32> = (0..BLOCK_LEN).map(|i| i as f32 - 16.0).collect();
        let f16s: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let bf16s: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        let expected = quantised(&values, Quantize::Int8);
        for (bytes, dtype) in [(f16s, DType::F16), (bf16s, DType::BF16)] {
            let mut out = vec![0; 34];
            quantise(&bytes, dtype, Quantize::Int8, &mut out, &mut |_| ());
            assert_eq!(out, expected);
        }
    }
}
