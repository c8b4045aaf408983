//! The project's compute shaders as SPIR-V, one variant per storage format.
//!
//! The sources are in `glsl/`, compiled when this crate is built. This crate knows no device: sizes of
//! workgroups and tiles are specialisation constants that the caller fills in, and the layout of each
//! kernel's push constants is the `Push` block of its source.
#![forbid(unsafe_code)]

use biga_hal::DType;

include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// A kernel in one of its variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Rows of a table, by token id.
    Embed(DType),
    /// Product for few tokens: the lanes share a row.
    MatVec(DType),
    /// Product for one token with quantised weights, in a chain.
    MatVecOne(DType),
    /// Product for a few tokens with quantised weights, by matrix instructions whose factors lanes make.
    MatVecLanes(DType),
    /// Product for drivers on the CPU: a lane owns a row.
    MatMulRows(DType),
    /// Product for many tokens: tiles in shared memory.
    MatMulTile(DType),
    /// Product for many tokens by matrix instructions: tiles in shared memory.
    MatMulMatrix(DType),
    /// Product for some tokens by matrix instructions: the subgroups share the columns.
    MatMulSplit(DType),
    /// Product by matrix instructions without shared memory, where it is known how their elements lie.
    MatMulDirect(DType),
    /// How the elements of matrices lie.
    MatrixLayout,
    /// Activations to halves, for products by matrix instructions.
    XToF16,
    /// Gate and up with the activation, for few tokens.
    GateUp(DType),
    /// The same for one token, in a chain.
    GateUpOne(DType),
    /// The same for a few tokens, by matrix instructions whose factors lanes make.
    GateUpLanes(DType),
    /// A product of matrices that lanes make, to see whether a device lets them.
    ProveHeld,
    /// Activations to 8 bits, for products with quantised weights.
    Quantise,
    /// A branch joins the residual stream, which is normed for the next product.
    RowNorm,
    /// RMS norm of rows.
    RmsNorm,
    /// RMS norm of the q and k heads of qkv rows.
    QkNorm,
    /// Rotary embedding.
    Rope,
    /// Stores k and v in a cache of this format.
    KvAppend(DType),
    /// Norm and rotary embedding of q and k, with the store in a cache of this format.
    RopeAppend(DType),
    /// Attention over a cache of this format.
    Attention(DType),
    /// The same for few tokens: the positions are split among workgroups.
    AttentionSplit(DType),
    /// The same for drivers on the CPU: a lane owns a query.
    AttentionRows(DType),
    /// The same for many tokens, by matrix instructions.
    AttentionMatrix(DType),
    /// Sum of two values.
    Residual,
    /// Gated activation.
    Activate,
    /// Rows that want logits.
    SelectOutputs,
    /// The best logit of each part of a row.
    SampleParts,
    /// The choice of a token, which begins the next step.
    Sample,
    /// Reads a buffer, for measuring.
    ReadBandwidth,
}

impl Kernel {
    /// The name of its source, and its storage format, if it has one.
    pub const fn source(self) -> (&'static str, Option<DType>) {
        match self {
            Kernel::Embed(format) => ("embed", Some(format)),
            Kernel::MatVec(format) if format.is_quantised() => ("matvec_i8", Some(format)),
            Kernel::MatVec(format) => ("matvec", Some(format)),
            Kernel::MatVecOne(format) => ("matvec_one", Some(format)),
            Kernel::MatVecLanes(format) => ("matvec_lanes", Some(format)),
            Kernel::MatMulRows(format) => ("matmul_rows", Some(format)),
            Kernel::MatMulTile(format) if format.is_quantised() => ("matmul_tile_i8", Some(format)),
            Kernel::MatMulTile(format) => ("matmul_tile", Some(format)),
            Kernel::MatMulMatrix(format) => ("matmul_matrix", Some(format)),
            Kernel::MatMulSplit(format) => ("matmul_split", Some(format)),
            Kernel::MatMulDirect(format) => ("matmul_direct", Some(format)),
            Kernel::MatrixLayout => ("matrix_layout", None),
            Kernel::XToF16 => ("x_to_f16", None),
            Kernel::GateUp(format) => ("gate_up", Some(format)),
            Kernel::GateUpOne(format) => ("gate_up_one", Some(format)),
            Kernel::GateUpLanes(format) => ("gate_up_lanes", Some(format)),
            Kernel::ProveHeld => ("prove_held", None),
            Kernel::Quantise => ("quantise", None),
            Kernel::RowNorm => ("row_norm", None),
            Kernel::RmsNorm => ("rms_norm", None),
            Kernel::QkNorm => ("qk_norm", None),
            Kernel::Rope => ("rope", None),
            Kernel::KvAppend(format) => ("kv_append", Some(format)),
            Kernel::RopeAppend(format) => ("rope_append", Some(format)),
            Kernel::Attention(format) => ("attention", Some(format)),
            Kernel::AttentionSplit(format) => ("attention_split", Some(format)),
            Kernel::AttentionRows(format) => ("attention_rows", Some(format)),
            Kernel::AttentionMatrix(format) => ("attention_matrix", Some(format)),
            Kernel::Residual => ("residual", None),
            Kernel::Activate => ("activate", None),
            Kernel::SelectOutputs => ("select_outputs", None),
            Kernel::SampleParts => ("sample_parts", None),
            Kernel::Sample => ("sample", None),
            Kernel::ReadBandwidth => ("read_bandwidth", None),
        }
    }

    /// Its SPIR-V, or `None` if it is not compiled for that format.
    pub fn spirv(self) -> Option<&'static [u32]> {
        let (name, format) = self.source();
        let format = format.map_or("", DType::name);
        SPIRV.iter().find(|(n, f, _)| *n == name && *f == format).map(|(_, _, words)| *words)
    }
}

/// Every compiled variant: source name, and name of the storage format, empty where the kernel has none.
pub fn variants() -> impl Iterator<Item = (&'static str, &'static str)> {
    SPIRV.iter().map(|(name, format, _)| (*name, *format))
}

#[cfg(test)]
mod tests {
    use super::{DType, Kernel};

    #[test]
    fn every_variant_is_compiled() {
        const MAGIC: u32 = 0x0723_0203;
        let mut kernels = vec![
            Kernel::MatrixLayout,
            Kernel::XToF16,
            Kernel::Quantise,
            Kernel::RowNorm,
            Kernel::RmsNorm,
            Kernel::QkNorm,
            Kernel::Rope,
            Kernel::Residual,
            Kernel::Activate,
            Kernel::SelectOutputs,
            Kernel::SampleParts,
            Kernel::Sample,
            Kernel::ReadBandwidth,
            Kernel::ProveHeld,
            Kernel::MatVecLanes(DType::Q4_0),
            Kernel::GateUpLanes(DType::Q4_0),
            Kernel::MatVecLanes(DType::Q8_0),
            Kernel::GateUpLanes(DType::Q8_0),
        ];
        for format in DType::ALL {
            kernels.extend([
                Kernel::Embed(format),
                Kernel::MatVec(format),
                Kernel::MatMulRows(format),
                Kernel::MatMulTile(format),
            ]);
        }
        for format in DType::ALL.into_iter().filter(|format| *format != DType::F32) {
            kernels.extend([Kernel::MatMulMatrix(format), Kernel::MatMulSplit(format), Kernel::MatMulDirect(format)]);
        }
        for format in DType::KV {
            kernels.extend([Kernel::KvAppend(format), Kernel::Attention(format), Kernel::AttentionRows(format)]);
            kernels.extend([Kernel::RopeAppend(format), Kernel::AttentionSplit(format)]);
        }
        kernels.extend([DType::F16, DType::Q8_0].map(Kernel::AttentionMatrix));
        for format in DType::ALL.into_iter().filter(|format| format.is_quantised()) {
            kernels.extend([Kernel::GateUp(format), Kernel::GateUpOne(format), Kernel::MatVecOne(format)]);
        }
        for kernel in kernels {
            assert_eq!(kernel.spirv().map(|words| words[0]), Some(MAGIC), "{kernel:?}");
        }
    }

    #[test]
    fn a_cache_has_fewer_formats_than_weights() {
        assert_eq!(Kernel::Attention(DType::Q4_K).spirv(), None);
    }
}
