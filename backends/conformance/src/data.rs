//! Seeded random data, and the formats in which it is stored.
//!
//! Quantised rows are made directly: every bit pattern of the quants, scales in a range that keeps the
//! values near one. So all bits are exercised, not only those that a quantiser happens to produce.

use biga_hal::DType;
use half::{bf16, f16};

/// SplitMix64: tiny, and good enough for test data.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Between `low` and `high`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.unit() * 0.5 + 0.5)
    }

    pub(crate) fn units(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    fn bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    fn half(&mut self, low: f32, high: f32) -> [u8; 2] {
        f16::from_f32(self.between(low, high)).to_le_bytes()
    }
}

/// As little-endian bytes.
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// From little-endian bytes.
pub(crate) fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A stored matrix whose values lie between about -1 and 1.
pub(crate) fn matrix(random: &mut Random, dtype: DType, rows: usize, columns: usize) -> Vec<u8> {
    let n_blocks = rows * columns / dtype.block_len();
    let mut bytes = vec![0; n_blocks * dtype.block_bytes()];
    bytes.chunks_exact_mut(dtype.block_bytes()).for_each(|block| fill_block(random, dtype, block));
    bytes
}

fn fill_block(random: &mut Random, dtype: DType, block: &mut [u8]) {
    match dtype {
        DType::F32 => return block.copy_from_slice(&random.unit().to_le_bytes()),
        DType::F16 => return block.copy_from_slice(&f16::from_f32(random.unit()).to_le_bytes()),
        DType::BF16 => return block.copy_from_slice(&bf16::from_f32(random.unit()).to_le_bytes()),
        _ => random.bytes(block),
    }
    match dtype {
        DType::Q8_0 => block[..2].copy_from_slice(&random.half(-0.008, 0.008)),
        DType::Q4_0 => block[..2].copy_from_slice(&random.half(-0.12, 0.12)),
        DType::Q5_0 => block[..2].copy_from_slice(&random.half(-0.06, 0.06)),
        DType::Q4_1 => {
            block[..2].copy_from_slice(&random.half(0.03, 0.12));
            block[2..4].copy_from_slice(&random.half(-1.0, 0.2));
        }
        DType::Q5_1 => {
            block[..2].copy_from_slice(&random.half(0.015, 0.06));
            block[2..4].copy_from_slice(&random.half(-1.0, 0.2));
        }
        // Scales are 6-bit numbers of up to 63.
        DType::Q4_K => {
            block[..2].copy_from_slice(&random.half(0.0005, 0.002));
            block[2..4].copy_from_slice(&random.half(0.004, 0.016));
        }
        DType::Q5_K => {
            block[..2].copy_from_slice(&random.half(0.0002, 0.001));
            block[2..4].copy_from_slice(&random.half(0.004, 0.016));
        }
        // Scales are 8-bit numbers of up to 127, quants lie between -32 and 31.
        DType::Q6_K => block[208..210].copy_from_slice(&random.half(-0.0004, 0.0004)),
        _ => {}
    }
}

/// One stored element of a KV row, as f32: the definition of the four formats.
pub(crate) fn kv_values(dtype: DType, row: &[u8]) -> Vec<f32> {
    let mut values = Vec::new();
    for block in row.chunks_exact(dtype.block_bytes()) {
        match dtype {
            DType::F32 => values.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
            DType::F16 => values.push(f16::from_le_bytes([block[0], block[1]]).to_f32()),
            DType::BF16 => values.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
            _ => {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                values.extend(block[2..].iter().map(|&q| scale * f32::from(q.cast_signed())));
            }
        }
    }
    values
}
