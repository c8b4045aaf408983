//! The table through which a kernel set is called. It lies here because its functions may only be called
//! where the set's instructions exist.

use biga_hal::{Activation, DType, RopeStyle};

use crate::kernels::{attention::Unit, layout::Layout};

/// Weight rows, and tokens, of a tile.
pub(crate) const TILE: usize = 4;

/// Products of one tile: `[token][weight row]`.
pub(crate) type Sums = [[f32; TILE]; TILE];

/// Rows that lie at a fixed distance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<T> {
    /// The first row; need not be aligned.
    pub(crate) start: *const T,
    /// Elements from row to row.
    pub(crate) stride: usize,
    /// Rows, at least 1.
    pub(crate) count: usize,
}

/// One set of kernels. Each function is safe to call where its set runs ([`crate::Kernels::resolve`]).
#[derive(Debug)]
pub(crate) struct KernelSet {
    /// Quantises a row of activations.
    pub(crate) quantise: unsafe fn(&[f32], &Layout, &mut [f32]),
    /// Unpacks a quantised weight row.
    pub(crate) unpack: unsafe fn(DType, &[u8], &Layout, &mut [f32]),
    /// Expands a plain weight row to f32.
    pub(crate) expand: unsafe fn(DType, &[u8], &mut [f32]),
    /// Four unpacked rows of this format times up to four quantised tokens; whole rows of the layout lie at
    /// both.
    pub(crate) tile_i8: unsafe fn(Rows<f32>, Rows<f32>, &Layout, DType, &mut Sums),
    /// Up to four f32 rows times up to four tokens of so many columns.
    pub(crate) tile_f32: unsafe fn(Rows<f32>, Rows<f32>, usize, &mut Sums),
    /// RMS norm in place.
    pub(crate) rms_norm: unsafe fn(&mut [f32], &[[u8; 4]], f32, f32),
    /// Gated activation.
    pub(crate) activate: unsafe fn(Activation, &[f32], &[f32], &mut [f32]),
    /// Rotates every head of a row.
    pub(crate) rope: unsafe fn(&mut [f32], usize, RopeStyle, &[f32]),
    /// Attention of several queries on one kv head.
    pub(crate) attention: unsafe fn(&Unit<'_>, &mut [f32], &mut [f32]),
}
