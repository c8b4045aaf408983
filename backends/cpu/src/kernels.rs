//! Which kernels run. They are called through the table of `sys/set.rs`.
//!
//! All sets share one design. Quantised products multiply 8-bit activations with 8-bit weights: a weight
//! row in any format is unpacked into the one layout of `layout.rs` in first-level cache, once for many
//! tokens, and a tile kernel multiplies four unpacked rows with up to four tokens. So there is one inner
//! loop for eight formats; an inner loop for each format was rejected because unpacking is a small part
//! of the time even for one token. The code in `kernels/` is plain Rust that is compiled once for each
//! instruction set (`sys/{portable,avx2,avx512}.rs`); only the tile kernels use vector instructions by name.

pub(crate) mod attention;
pub(crate) mod lanes;
pub(crate) mod layout;
pub(crate) mod math;
pub(crate) mod quantise;
pub(crate) mod rows;
pub(crate) mod unpack;

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
