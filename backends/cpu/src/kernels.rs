//! Which kernels run, and the table through which they are called.
//!
//! All sets share one design. Quantised products multiply 8-bit activations with 8-bit weights: a weight
//! row in any format is unpacked into the one layout of `layout.rs` in first-level cache, once for many
//! tokens, and a tile kernel multiplies four unpacked rows with up to four tokens. So there is one inner
//! loop for eight formats; an inner loop for each format was rejected because unpacking is a small part
//! of the time even for one token. The code in `kernels/` is plain Rust that is compiled once for each
//! instruction set (`sys/{portable,avx2,avx512}.rs`); only the tile kernels use vector instructions by name.

use biga_hal::{Activation, DType, RopeStyle};

pub(crate) mod attention;
pub(crate) mod lanes;
pub(crate) mod layout;
pub(crate) mod math;
pub(crate) mod quantise;
pub(crate) mod rows;
pub(crate) mod unpack;

use attention::Unit;
use layout::Layout;

/// Which kernels to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kernels {
    /// The fastest set that this processor runs.
    #[default]
    Auto,
    /// The plain f32 reference.
    Reference,
    /// Kernels without instructions of a particular processor.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 with byte, word and neural-network instructions.
    Avx512,
}

impl Kernels {
    /// The sets that this processor runs, slowest first.
    pub fn available() -> Vec<Kernels> {
        let mut sets = vec![Kernels::Reference, Kernels::Portable];
        sets.extend([Kernels::Avx2, Kernels::Avx512].into_iter().filter(|set| set.runs_here()));
        sets
    }

    /// The set itself, or for [`Kernels::Auto`] the fastest; `None` if this processor lacks its instructions.
    pub(crate) fn resolve(self) -> Option<Kernels> {
        match self {
            Kernels::Auto => Kernels::available().pop(),
            set => set.runs_here().then_some(set),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn runs_here(self) -> bool {
        use std::is_x86_feature_detected as has;
        let avx2 = || has!("avx2") && has!("fma") && has!("f16c");
        match self {
            Kernels::Auto | Kernels::Reference | Kernels::Portable => true,
            Kernels::Avx2 => avx2(),
            Kernels::Avx512 => {
                avx2()
                    && has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512vl")
                    && has!("avx512dq")
                    && has!("avx512vnni")
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn runs_here(self) -> bool {
        matches!(self, Kernels::Auto | Kernels::Reference | Kernels::Portable)
    }

    /// The word used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Kernels::Auto => "auto",
            Kernels::Reference => "reference",
            Kernels::Portable => "portable",
            Kernels::Avx2 => "avx2",
            Kernels::Avx512 => "avx512",
        }
    }
}

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

/// One set of kernels. Each function is safe to call where its set runs ([`Kernels::resolve`]).
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
