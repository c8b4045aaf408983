//! Storage formats of weights, activations and KV entries.
//!
//! The quantised formats are GGUF's: a row is a run of *quant blocks*, each holding a fixed count of
//! elements with its scales. Layouts are drawn in `docs/src/formats/quant-blocks.md`; their source is
//! the GGUF specification (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>) and `ggml-common.h`.

use std::fmt;

/// A storage format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[allow(non_camel_case_types, reason = "the names are those that model files and users use")]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an F32.
    BF16,
    /// 32 × i8, one f16 scale: 34 bytes.
    Q8_0,
    /// 32 × 4 bits, one f16 scale, values offset by 8: 18 bytes.
    Q4_0,
    /// 32 × 4 bits, f16 scale and f16 minimum: 20 bytes.
    Q4_1,
    /// 32 × 5 bits, one f16 scale, values offset by 16: 22 bytes.
    Q5_0,
    /// 32 × 5 bits, f16 scale and f16 minimum: 24 bytes.
    Q5_1,
    /// 256 × 4 bits, eight 6-bit scales and minima: 144 bytes.
    Q4_K,
    /// 256 × 5 bits, eight 6-bit scales and minima: 176 bytes.
    Q5_K,
    /// 256 × 6 bits, sixteen 8-bit scales: 210 bytes.
    Q6_K,
}

impl DType {
    /// Every format, in the order of precision within each family.
    pub const ALL: [DType; 11] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
    ];

    /// Formats in which a KV cache can be stored.
    pub const KV: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::Q8_0];

    /// Elements in one quant block; 1 for plain formats.
    pub const fn block_len(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 => 1,
            DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 => 32,
            DType::Q4_K | DType::Q5_K | DType::Q6_K => 256,
        }
    }

    /// Bytes of one quant block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q8_0 => 34,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q4_K => 144,
            DType::Q5_K => 176,
            DType::Q6_K => 210,
        }
    }

    /// Bytes of a row of `columns` elements, or `None` if the row is no whole number of quant blocks
    /// or its size overflows.
    pub const fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_len()) {
            return None;
        }
        (columns / self.block_len()).checked_mul(self.block_bytes())
    }

    /// True for formats with more than one element a block.
    pub const fn is_quantised(self) -> bool {
        self.block_len() > 1
    }

    /// The name that model files and the command line use, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::Q8_0 => "q8_0",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q4_K => "q4_k",
            DType::Q5_K => "q5_k",
            DType::Q6_K => "q6_k",
        }
    }

    /// The format with this name, in any case.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::DType;

    #[test]
    fn a_row_is_a_whole_number_of_blocks() {
        assert_eq!(DType::Q4_1.row_bytes(576), Some(360));
        assert_eq!(DType::Q6_K.row_bytes(576), None);
        assert_eq!(DType::F32.row_bytes(usize::MAX), None);
    }

    #[test]
    fn names_round_trip() {
        for dtype in DType::ALL {
            assert_eq!(DType::from_name(&dtype.name().to_uppercase()), Some(dtype));
        }
        assert_eq!(DType::from_name("q3_k"), None);
    }
}
