//! The layout in which quantised products work, for weights and activations alike.
//!
//! ```text
//! f32 index        content
//! 32·i             64 quants of columns 64·i.. : u8 for weights, i8 for activations
//! 32·i + 16        16 scales, one for each four of these quants
//! sums             weights: what each group adds for each unit of activation (its minimum)
//!                  activations: sum of each group of 32, then of each group of 16, scaled
//! ```
//!
//! A weight is `scale · quant + minimum`, an activation `scale · quant`, so a product over a group is
//! `scale · scale · Σ quant · quant + minimum · Σ activation`. Columns beyond the row are zeroes.

/// Where things lie in a row of so many columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Columns.
    pub(crate) columns: usize,
    /// Steps of 64 columns, the last one perhaps in part.
    pub(crate) steps: usize,
}

/// f32 of one step: quants and scales.
pub(crate) const STEP: usize = 32;

impl Layout {
    /// The layout of rows of so many columns.
    pub(crate) const fn new(columns: usize) -> Layout {
        Layout { columns, steps: columns.div_ceil(64) }
    }

    /// Index of the weights' minima, and of the activations' sums over groups of 32.
    pub(crate) const fn sums(&self) -> usize {
        self.steps * STEP
    }

    /// f32 of the sums over groups of 32, in whole vectors.
    pub(crate) const fn sums_32_len(&self) -> usize {
        (self.steps * 2).next_multiple_of(16)
    }

    /// f32 of the sums over groups of 16, in whole vectors.
    pub(crate) const fn sums_16_len(&self) -> usize {
        (self.steps * 4).next_multiple_of(16)
    }

    /// f32 of a row.
    pub(crate) const fn row_len(&self) -> usize {
        self.sums() + self.sums_32_len() + self.sums_16_len()
    }
}
