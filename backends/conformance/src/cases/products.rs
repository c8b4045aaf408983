//! Matrix products: every op that has one, every format, tails, one row and many.

use biga_hal::{DType, Heads, OpKind, Rows};

use crate::rig::{Case, StepCase, Tolerance, weight_dtypes};

fn case(kind: OpKind, dtype: DType, step: StepCase) -> Case {
    let weights = weight_dtypes(&kind, dtype);
    let rows = if matches!(kind, OpKind::Head { .. }) { Rows::Outputs } else { Rows::Tokens };
    Case { rows, ..Case::new(kind, weights, step, Tolerance::of_product(dtype)) }
}

/// The ops with a product, with an input width that the format can have.
fn ops(dtype: DType) -> Vec<OpKind> {
    let unit = dtype.block_len();
    // Plain formats: widths that are no multiple of any vector.
    let (narrow, wide) = if unit == 1 { (70, 333) } else { (unit, unit * 3) };
    let heads = |n_heads, n_kv_heads, head_dim| Heads { n_heads, n_kv_heads, head_dim };
    vec![
        OpKind::QkvProjection { width: narrow, heads: heads(3, 1, 32), bias: false },
        OpKind::QkvProjection { width: wide, heads: heads(8, 2, 20), bias: true },
        OpKind::OutputProjection { input: wide, output: 97, bias: false },
        OpKind::OutputProjection { input: narrow, output: 130, bias: true },
        OpKind::GateUp { width: wide, ff: 75 },
        OpKind::Down { ff: wide * 2, width: 65 },
        OpKind::Head { width: wide, vocab: 259, softcap: None },
        OpKind::Head { width: narrow, vocab: 33, softcap: Some(3.0) },
        // One column: with quantised weights too few values for a tolerance by their mean square.
        OpKind::Down { ff: wide, width: if unit == 1 { 1 } else { 9 } },
    ]
}

pub(crate) fn one_row() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        cases.extend(ops(dtype).into_iter().map(|kind| case(kind, dtype, StepCase::rows(1, 0))));
        // The real shapes of a small model.
        if 576 % dtype.block_len() == 0 {
            cases.push(case(OpKind::GateUp { width: 576, ff: 96 }, dtype, StepCase::rows(1, 2)));
        }
        cases.push(case(OpKind::Down { ff: 1536, width: 64 }, dtype, StepCase::rows(1, 0)));
    }
    cases.push(mixed_formats(StepCase::rows(1, 0)));
    cases
}

pub(crate) fn many_rows() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        for kind in ops(dtype) {
            let mut step = StepCase::rows(7, 2);
            step.outputs = vec![0, 2, 3, 5, 6];
            cases.push(case(kind, dtype, step));
        }
        let wide = 256 * 2;
        for n in [2, 3, 4, 5, 8, 16, 17, 33, 64] {
            cases.push(case(
                OpKind::OutputProjection { input: wide, output: 48, bias: true },
                dtype,
                StepCase::rows(n, 1),
            ));
        }
    }
    // So many rows that a workgroup may take several, with as many of x as it may take at once.
    for n in [2, 4] {
        let head = OpKind::Head { width: 64, vocab: 13_000, softcap: None };
        cases.push(case(head, DType::Q4_1, StepCase { outputs: (0..n).collect(), ..StepCase::rows(n as usize, 0) }));
    }
    cases.push(mixed_formats(StepCase::rows(9, 1)));
    cases
}

/// Files mix formats within one op: v is often stored finer than q and k.
fn mixed_formats(step: StepCase) -> Case {
    let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 32 };
    let kind = OpKind::QkvProjection { width: 512, heads, bias: true };
    let weights = vec![DType::Q4_K, DType::Q8_0, DType::Q6_K, DType::F32, DType::F32, DType::F32];
    Case::new(kind, weights, step, Tolerance::INT8)
}
