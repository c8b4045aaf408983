//! From storage formats to f32, and back for the KV cache: the formats' definitions as plain code.
//!
//! Layouts are those drawn in `docs/src/formats/quant-blocks.md`. Every function works on one row, on
//! bytes of any alignment. Kernels that multiply quantised rows directly are checked against these.

use biga_hal::DType;
use half::{bf16, f16};

/// Reads an f16 at a byte offset.
fn half_at(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}

/// Writes the elements of a stored row to `out`. `bytes` holds exactly the row.
pub(crate) fn dequantise_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(dtype.block_len()));
    match dtype {
        DType::F32 => blocks.for_each(|(b, y)| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::F16 => blocks.for_each(|(b, y)| y[0] = half_at(b, 0)),
        DType::BF16 => blocks.for_each(|(b, y)| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
        DType::Q8_0 => blocks.for_each(|(b, y)| q8_0(b, y)),
        DType::Q4_0 => blocks.for_each(|(b, y)| {
            let scale = half_at(b, 0);
            nibbles(&b[2..18], |i, q| y[i] = scale * (f32::from(q) - 8.0));
        }),
        DType::Q4_1 => blocks.for_each(|(b, y)| {
            let (scale, minimum) = (half_at(b, 0), half_at(b, 2));
            nibbles(&b[4..20], |i, q| y[i] = scale * f32::from(q) + minimum);
        }),
        DType::Q5_0 => blocks.for_each(|(b, y)| {
            let (scale, fifth) = (half_at(b, 0), fifth_bits(&b[2..6]));
            nibbles(&b[6..22], |i, q| y[i] = scale * (f32::from(q | fifth(i)) - 16.0));
        }),
        DType::Q5_1 => blocks.for_each(|(b, y)| {
            let (scale, minimum, fifth) = (half_at(b, 0), half_at(b, 2), fifth_bits(&b[4..8]));
            nibbles(&b[8..24], |i, q| y[i] = scale * f32::from(q | fifth(i)) + minimum);
        }),
        DType::Q4_K => blocks.for_each(|(b, y)| q4_k(b, y)),
        DType::Q5_K => blocks.for_each(|(b, y)| q5_k(b, y)),
        DType::Q6_K => blocks.for_each(|(b, y)| q6_k(b, y)),
        // PANIC: `supports` and the checks at compilation let no other format through.
        other => unreachable!("format {other} was not refused at compilation"),
    }
}

fn q8_0(block: &[u8], y: &mut [f32]) {
    let scale = half_at(block, 0);
    for (y, &q) in y.iter_mut().zip(&block[2..34]) {
        *y = scale * f32::from(q.cast_signed());
    }
}

/// Calls `each` with the element index and value of 32 packed 4-bit numbers: low nibbles first.
fn nibbles(packed: &[u8], mut each: impl FnMut(usize, u8)) {
    for (i, &byte) in packed.iter().enumerate() {
        each(i, byte & 15);
        each(i + 16, byte >> 4);
    }
}

/// The fifth bit of element `i`, already in place.
fn fifth_bits(bytes: &[u8]) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    move |i| (((bits >> i) & 1) as u8) << 4
}

/// Scale and minimum of group `j` of 8, from the 12 bytes that hold sixteen 6-bit numbers.
pub(crate) fn scale_and_minimum(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4), (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4))
    }
}

fn q4_k(block: &[u8], y: &mut [f32]) {
    let (scale, minimum, packed, quants) = (half_at(block, 0), half_at(block, 2), &block[4..16], &block[16..144]);
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_minimum(packed, group);
        let (s, m) = (scale * f32::from(s), minimum * f32::from(m));
        let shift = 4 * (group % 2);
        for (y, &byte) in y.iter_mut().zip(&quants[32 * (group / 2)..]) {
            *y = s * f32::from((byte >> shift) & 15) - m;
        }
    }
}

fn q5_k(block: &[u8], y: &mut [f32]) {
    let (scale, minimum, packed) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    let (fifth, quants) = (&block[16..48], &block[48..176]);
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_minimum(packed, group);
        let (s, m) = (scale * f32::from(s), minimum * f32::from(m));
        let shift = 4 * (group % 2);
        for ((y, &byte), &high) in y.iter_mut().zip(&quants[32 * (group / 2)..]).zip(fifth) {
            let q = ((byte >> shift) & 15) | (((high >> group) & 1) << 4);
            *y = s * f32::from(q) - m;
        }
    }
}

fn q6_k(block: &[u8], y: &mut [f32]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (i, y) in y.iter_mut().enumerate() {
        // Two halves of 128; in each, four runs of 32 share 32 bytes of high bits, and runs 0 and 2,
        // 1 and 3 share 32 bytes of low nibbles.
        let (part, run, lane) = (i / 128, i % 128 / 32, i % 32);
        let nibble = (low[64 * part + 32 * (run % 2) + lane] >> (4 * (run / 2))) & 15;
        let top = (high[32 * part + lane] >> (2 * run)) & 3;
        let q = f32::from(nibble | (top << 4)) - 32.0;
        *y = scale * f32::from(scales[i / 16].cast_signed()) * q;
    }
}

/// The nearest finite half: an infinity would poison the softmax that reads it.
fn finite_half(x: f32) -> f16 {
    f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// Stores a row of f32 in one of the formats of the KV cache.
pub(crate) fn store_row(dtype: DType, x: &[f32], bytes: &mut [u8]) {
    let blocks = bytes.chunks_exact_mut(dtype.block_bytes()).zip(x.chunks_exact(dtype.block_len()));
    match dtype {
        DType::F32 => blocks.for_each(|(b, x)| b.copy_from_slice(&x[0].to_le_bytes())),
        DType::F16 => blocks.for_each(|(b, x)| b.copy_from_slice(&finite_half(x[0]).to_le_bytes())),
        DType::BF16 => blocks.for_each(|(b, x)| b.copy_from_slice(&bf16::from_f32(x[0]).to_le_bytes())),
        DType::Q8_0 => blocks.for_each(|(b, x)| {
            let largest = x.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            let scale = (largest / 127.0).min(f16::MAX.to_f32());
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            b[..2].copy_from_slice(&finite_half(scale).to_le_bytes());
            for (q, x) in b[2..].iter_mut().zip(x) {
                *q = ((x * inverse).round().clamp(-127.0, 127.0) as i8).cast_unsigned();
            }
        }),
        // PANIC: `supports` and the checks at compilation let no other format through.
        other => unreachable!("format {other} was not refused at compilation"),
    }
}

#[cfg(test)]
mod tests {
    use super::{dequantise_row, store_row};
    use biga_hal::DType;

    #[test]
    fn kv_formats_round_trip() {
        let x: Vec<f32> = (0..64).map(|i| (i as f32 * 0.37).sin()).collect();
        for (dtype, tolerance) in
            [(DType::F32, 0.0), (DType::F16, 5e-4), (DType::BF16, 4e-3), (DType::Q8_0, 1.0 / 127.0)]
        {
            let mut bytes = vec![0; dtype.row_bytes(64).unwrap()];
            let mut back = vec![0.0; 64];
            store_row(dtype, &x, &mut bytes);
            dequantise_row(dtype, &bytes, &mut back);
            for (x, y) in x.iter().zip(&back) {
                assert!((x - y).abs() <= tolerance, "{dtype}: {x} became {y}");
            }
        }
    }

    #[test]
    fn what_is_stored_is_finite() {
        let mut x = vec![1.0; 32];
        x[..3].copy_from_slice(&[1e5, -1e5, 3e38]);
        let stored = |dtype: DType| {
            let mut bytes = vec![0; dtype.row_bytes(32).unwrap()];
            let mut back = vec![0.0; 32];
            store_row(dtype, &x, &mut bytes);
            dequantise_row(dtype, &bytes, &mut back);
            back
        };
        assert_eq!(stored(DType::F16)[..4], [65504.0, -65504.0, 65504.0, 1.0]);
        assert_eq!(stored(DType::Q8_0)[..4], [2.0 * 65504.0, -2.0 * 65504.0, 127.0 * 65504.0, 0.0]);
    }

    /// Vectors made with another implementation (the Python package `gguf`).
    #[test]
    fn values_are_those_of_the_formats_definition() {
        let nibble = |c: u8| (c as char).to_digit(16).unwrap() as u8;
        let mut seen = 0;
        let golden = include_str!("../tests/golden/dequantise.txt");
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split(' ').collect();
            let dtype = DType::from_name(fields[0]).unwrap();
            let bytes = |hex: &str| -> Vec<u8> {
                hex.as_bytes().chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
            };
            let stored = bytes(fields[1]);
            let wanted: Vec<f32> =
                bytes(fields[2]).as_chunks::<4>().0.iter().map(|b| f32::from_bits(u32::from_be_bytes(*b))).collect();
            let mut values = vec![0.0; wanted.len()];
            assert_eq!(dtype.row_bytes(values.len()), Some(stored.len()));
            dequantise_row(dtype, &stored, &mut values);
            for (i, (value, wanted)) in values.iter().zip(&wanted).enumerate() {
                // The order of two multiplications may differ.
                assert!((value - wanted).abs() <= 1e-6 * wanted.abs() + 1e-7, "{dtype} {i}: {value}, not {wanted}");
            }
            seen += 1;
        }
        assert_eq!(seen, DType::ALL.len());
    }
}
