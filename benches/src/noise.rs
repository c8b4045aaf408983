//! Weights that are noise: every bit pattern is as likely as in real quant blocks, and a unit input gives
//! outputs of about unit size, so that activations stay finite through any count of layers.
//!
//! A word of noise is a function of (seed, index), so that threads can fill any part of a tensor.

use anyhow::{Result, bail};
use biga::hal::DType;
use half::f16;

/// Formats that can be generated, with the numbers that GGUF gives them.
pub(crate) const FORMATS: [(DType, u32); 3] = [(DType::F16, 1), (DType::Q4_0, 2), (DType::Q8_0, 8)];

/// A matrix of noise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    dtype: DType,
    seed: u64,
    /// Of a block, or of an element in half precision.
    scale: f32,
    /// Quant blocks at the beginning that are zero.
    zero_blocks: u64,
}

impl Noise {
    /// Noise for rows of `columns`; the first `zero_rows` are zero.
    ///
    /// # Errors
    /// A format that is not in [`FORMATS`], or rows that are no whole number of its blocks.
    pub(crate) fn new(dtype: DType, seed: u64, columns: usize, zero_rows: usize) -> Result<Noise> {
        // Standard deviation of the integers that a block holds, if every bit is random.
        let deviation = match dtype {
            DType::F16 => 1.0,
            DType::Q4_0 => (255.0_f64 / 12.0).sqrt(),
            DType::Q8_0 => (65535.0_f64 / 12.0).sqrt(),
            other => bail!("weights cannot be generated in {other}; there are {}", format_names()),
        };
        if dtype.row_bytes(columns).is_none() {
            bail!("rows of {columns} are no whole number of {} blocks of {}", dtype, dtype.block_len());
        }
        let scale = (1.0 / (deviation * (columns as f64).sqrt())) as f32;
        let zero_blocks = (zero_rows * (columns / dtype.block_len())) as u64;
        Ok(Noise { dtype, seed, scale, zero_blocks })
    }

    /// Fills `out`, whole blocks of which the first is block `first` of the matrix.
    pub(crate) fn fill(&self, first: u64, out: &mut [u8]) {
        for (index, block) in out.chunks_exact_mut(self.dtype.block_bytes()).enumerate() {
            let index = first + index as u64;
            let zero = index < self.zero_blocks;
            match self.dtype {
                DType::F16 => block.copy_from_slice(&self.half(index, zero)),
                _ => self.block(index, zero, block),
            }
        }
    }

    /// One element: uniform between plus and minus the square root of three times its scale.
    fn half(&self, index: u64, zero: bool) -> [u8; 2] {
        let unit = (self.word(index) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let value = if zero { 0.0 } else { unit * 3.0_f32.sqrt() * self.scale };
        f16::from_f32(value).to_le_bytes()
    }

    /// A scale, then random bits. The scale's sign is random too: integers are not symmetric around zero,
    /// and a common sign would add up to a bias over a whole row.
    fn block(&self, index: u64, zero: bool, block: &mut [u8]) {
        let (head, quants) = block.split_at_mut(2);
        let n_words = quants.len().div_ceil(8) as u64;
        let mut parity = 0;
        for (at, bytes) in quants.chunks_mut(8).enumerate() {
            let word = self.word(index * n_words + at as u64);
            parity ^= word;
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
        let scale = if parity >> 63 == 0 { self.scale } else { -self.scale };
        let scale = if zero { 0.0 } else { scale };
        head.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    }

    /// SplitMix64 at a position of its sequence.
    fn word(&self, index: u64) -> u64 {
        let mut x = self.seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// For messages.
pub(crate) fn format_names() -> String {
    FORMATS.map(|(dtype, _)| dtype.name()).join(", ")
}

#[cfg(test)]
mod tests {
    use super::{FORMATS, Noise};
    use biga::hal::DType;
    use half::f16;

    /// A row of a matrix, as numbers.
    fn values(dtype: DType, bytes: &[u8]) -> Vec<f32> {
        let float = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        match dtype {
            DType::F16 => bytes.chunks_exact(2).map(float).collect(),
            DType::Q8_0 => bytes
                .chunks_exact(34)
                .flat_map(|block| block[2..].iter().map(|&q| float(block) * f32::from(q as i8)).collect::<Vec<_>>())
                .collect(),
            _ => bytes
                .chunks_exact(18)
                .flat_map(|block| {
                    let nibbles = block[2..].iter().flat_map(|&q| [q & 15, q >> 4]);
                    nibbles.map(|q| float(block) * (f32::from(q) - 8.0)).collect::<Vec<_>>()
                })
                .collect(),
        }
    }

    #[test]
    fn a_row_has_unit_length_and_no_bias() {
        for (dtype, _) in FORMATS {
            let columns = 4096;
            let noise = Noise::new(dtype, 7, columns, 0).unwrap();
            let mut bytes = vec![0; dtype.row_bytes(columns).unwrap()];
            noise.fill(0, &mut bytes);
            let row = values(dtype, &bytes);
            assert_eq!(row.len(), columns);
            let squares: f32 = row.iter().map(|value| value * value).sum();
            assert!((0.9..1.1).contains(&squares), "{dtype}: {squares}");
            let sum: f32 = row.iter().sum();
            assert!(sum.abs() < 4.0, "{dtype}: a sum of {columns} such numbers is about 1, not {sum}");
        }
    }

    #[test]
    fn parts_are_what_the_whole_is() {
        for (dtype, _) in FORMATS {
            let noise = Noise::new(dtype, 3, 64, 0).unwrap();
            let mut whole = vec![0; 12 * dtype.block_bytes()];
            noise.fill(5, &mut whole);
            let (left, right) = whole.split_at(7 * dtype.block_bytes());
            let (mut a, mut b) = (left.to_vec(), right.to_vec());
            a.fill(1);
            b.fill(1);
            noise.fill(5, &mut a);
            noise.fill(12, &mut b);
            assert_eq!((a.as_slice(), b.as_slice()), (left, right), "{dtype}");
            let other = Noise::new(dtype, 4, 64, 0).unwrap();
            other.fill(5, &mut a);
            assert_ne!(a, left, "{dtype}");
        }
    }

    #[test]
    fn the_first_rows_can_be_zero() {
        let noise = Noise::new(DType::Q4_0, 3, 64, 2).unwrap();
        let mut bytes = vec![0; 6 * 18];
        noise.fill(0, &mut bytes);
        let row = values(DType::Q4_0, &bytes);
        assert!(row[..128].iter().all(|&value| value == 0.0));
        assert!(row[128..].iter().any(|&value| value != 0.0));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let words = |dtype, columns| Noise::new(dtype, 0, columns, 0).unwrap_err().to_string();
        assert!(words(DType::Q6_K, 256).contains("q6_k"), "{}", words(DType::Q6_K, 256));
        assert!(words(DType::Q4_0, 40).contains("40"), "{}", words(DType::Q4_0, 40));
    }
}
