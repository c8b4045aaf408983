//! Sixteen f32 at a time: what attention needs of an instruction set.
//!
//! Implemented in `sys` by types that are private there, so that no code outside a kernel compiled for the
//! instruction set can name them.

use super::math::{exp, half, largest, sum};

/// Sixteen f32.
pub(crate) trait Lanes: Copy {
    /// All alike.
    fn splat(x: f32) -> Self;
    /// From memory.
    fn load(x: &[f32; 16]) -> Self;
    /// To memory.
    fn store(self, y: &mut [f32; 16]);
    /// `self * b + c`.
    fn fma(self, b: Self, c: Self) -> Self;
    /// Sixteen little-endian halves.
    fn halves(bytes: &[u8; 32]) -> Self;
    /// Largest lane.
    fn largest(self) -> f32;
    /// Sum of the lanes.
    fn sum(self) -> f32;
    /// `e^(self - top)`; what would be below the smallest normal number may be that number.
    fn exp_minus(self, top: f32) -> Self;
    /// Lane `j` of row `i` becomes lane `i` of row `j`.
    fn transpose(rows: [Self; 16]) -> [Self; 16];
}

/// Sixteen f32 in an array, for any processor.
impl Lanes for [f32; 16] {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 16]
    }

    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        *x
    }

    #[inline(always)]
    fn store(self, y: &mut [f32; 16]) {
        *y = self;
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| self[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn halves(bytes: &[u8; 32]) -> Self {
        std::array::from_fn(|i| half(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        largest(self)
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        sum(self)
    }

    #[inline(always)]
    fn exp_minus(self, top: f32) -> Self {
        self.map(|x| exp::<false>(x - top))
    }

    #[inline(always)]
    fn transpose(rows: [Self; 16]) -> [Self; 16] {
        std::array::from_fn(|j| std::array::from_fn(|i| rows[i][j]))
    }
}
