//! Which ops the kernels can run. Pure: planning asks for every op.

use biga_hal::{DType, OpKind, OpQuery, WeightRole};

use crate::weight;

/// Whether the kernels can run an op; the cause if not.
pub(crate) fn supported(query: &OpQuery<'_>) -> std::result::Result<(), String> {
    if let Some(cause) = query.kind.bad_dimension() {
        return Err(cause);
    }
    let shapes = query.kind.weights();
    if shapes.len() != query.weights.len() {
        return Err(format!("{} weights are given, {} are wanted", query.weights.len(), shapes.len()));
    }
    for (shape, dtype) in shapes.iter().zip(query.weights) {
        if shape.role == WeightRole::Vector && *dtype != DType::F32 {
            return Err(format!("no kernel reads a vector in {dtype}"));
        }
        if weight::size_bytes(shape, *dtype).is_none() {
            return Err(format!("{} columns are no whole number of {dtype} quant blocks", shape.columns));
        }
    }
    if query.kind.uses_kv() {
        let dtype = query.kv.ok_or("no format of the KV cache is given")?;
        if !DType::KV.contains(&dtype) {
            return Err(format!("no kernel for a KV cache in {dtype}"));
        }
        if let OpKind::KvAppend { heads } | OpKind::Attention { heads, .. } = query.kind
            && dtype.row_bytes(heads.head_dim).is_none()
        {
            return Err(format!("heads of {} are no whole number of {dtype} quant blocks", heads.head_dim));
        }
    }
    match query.kind {
        OpKind::Attention { heads, .. } if heads.head_dim > MAX_HEAD_DIM => {
            Err(format!("heads of {} elements, at most {MAX_HEAD_DIM} fit a workgroup", heads.head_dim))
        }
        OpKind::Embed { .. }
        | OpKind::RmsNorm { .. }
        | OpKind::QkvProjection { .. }
        | OpKind::QkNorm { .. }
        | OpKind::Rope { .. }
        | OpKind::KvAppend { .. }
        | OpKind::Attention { .. }
        | OpKind::OutputProjection { .. }
        | OpKind::Residual { .. }
        | OpKind::GateUp { .. }
        | OpKind::Activate { .. }
        | OpKind::Down { .. }
        | OpKind::SelectOutputs { .. }
        | OpKind::Head { .. }
        | OpKind::Sample { .. } => Ok(()),
        _ => Err("no kernel for this op".to_owned()),
    }
}

/// The largest head whose partial results fit the shared memory that Vulkan guarantees.
const MAX_HEAD_DIM: usize = 1024;

#[cfg(test)]
mod tests {
    use biga_hal::{DType, Heads, OpKind, OpQuery};

    use super::supported;

    #[test]
    fn what_cannot_run_says_why() {
        let cause =
            |kind: &OpKind, weights: &[DType], kv| supported(&OpQuery { kind, weights, kv }).err().unwrap_or_default();
        assert_eq!(cause(&OpKind::Sample { vocab: 5 }, &[], None), "");
        assert!(cause(&OpKind::Sample { vocab: 0 }, &[], None).contains("dimension 0"));
        let down = OpKind::Down { ff: 64, width: 8 };
        assert_eq!(cause(&down, &[DType::Q4_0], None), "");
        assert_eq!(cause(&down, &[DType::Q4_K], None), "64 columns are no whole number of q4_k quant blocks");
        let heads = Heads { n_heads: 2, n_kv_heads: 1, head_dim: 48 };
        let append = OpKind::KvAppend { heads };
        assert_eq!(cause(&append, &[], Some(DType::F16)), "");
        assert!(cause(&append, &[], Some(DType::Q8_0)).contains("heads of 48"));
        assert!(cause(&append, &[], Some(DType::Q4_0)).contains("q4_0"));
    }
}
