//! The ops on the KV cache: every cache format, block boundaries, windows, caps, head geometries.

use biga_hal::{DType, Heads, OpKind};

use crate::rig::{Case, KvCase, StepCase, Tolerance};

const HEADS: [Heads; 6] = [
    Heads { n_heads: 9, n_kv_heads: 3, head_dim: 64 },
    Heads { n_heads: 2, n_kv_heads: 2, head_dim: 32 },
    Heads { n_heads: 8, n_kv_heads: 1, head_dim: 128 },
    Heads { n_heads: 4, n_kv_heads: 1, head_dim: 256 },
    Heads { n_heads: 4, n_kv_heads: 2, head_dim: 96 },
    Heads { n_heads: 6, n_kv_heads: 2, head_dim: 20 },
];

/// Head geometries that a cache format can store.
fn heads_of(dtype: DType) -> impl Iterator<Item = Heads> {
    HEADS.into_iter().filter(move |heads| dtype.row_bytes(heads.head_dim).is_some())
}

fn attention(heads: Heads, kv: KvCase, step: StepCase, window: Option<usize>, softcap: Option<f32>) -> Case {
    // A scale that makes the softmax neither flat nor a single peak.
    let kind = OpKind::Attention { heads, scale: 2.0 / (heads.head_dim as f32).sqrt(), window, softcap };
    // A device may round q, and the shares of the positions, to f16 or to 8 bits as the cache is stored.
    let tolerance = match kv.dtype {
        DType::F32 => Tolerance { relative: 5e-5, of_rms: 1e-4 },
        DType::F16 | DType::BF16 => Tolerance { relative: 2e-3, of_rms: 8e-3 },
        _ => Tolerance { relative: 0.01, of_rms: 0.03 },
    };
    Case { kv: Some(kv), ..Case::new(kind, Vec::new(), step, tolerance) }
}

pub(crate) fn append() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DType::KV {
        for heads in heads_of(dtype) {
            for step in
                [StepCase::rows(1, 1), StepCase::of(&[(0, 14, 5)]), StepCase::of(&[(3, 31, 1), (0, 0, 17), (1, 15, 2)])]
            {
                let kv = KvCase { dtype, block_len: 16, max_blocks: 3 };
                let case = Case::new(OpKind::KvAppend { heads }, Vec::new(), step, Tolerance::F32);
                cases.push(Case { kv: Some(kv), ..case });
            }
        }
        // Beyond the largest half, and beyond what a block of 8-bit quants with a half as its scale can hold.
        for magnitude in [1e5, 1e7] {
            let kv = KvCase { dtype, block_len: 16, max_blocks: 3 };
            let kind = OpKind::KvAppend { heads: HEADS[1] };
            let case = Case::new(kind, Vec::new(), StepCase::of(&[(0, 14, 5)]), Tolerance::F32);
            cases.push(Case { kv: Some(kv), magnitude, ..case });
        }
    }
    cases
}

pub(crate) fn decode() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DType::KV {
        let kv = KvCase { dtype, block_len: 16, max_blocks: 20 };
        for heads in heads_of(dtype) {
            for start in [0, 1, 15, 16, 200, 319] {
                cases.push(attention(heads, kv, StepCase::of(&[(1, start, 1)]), None, None));
            }
            let ragged = StepCase::of(&[(2, 300, 1), (0, 0, 1), (4, 47, 1), (1, 16, 1)]);
            cases.push(attention(heads, kv, ragged.clone(), None, Some(5.0)));
            for window in [1, 16, 33, 1000] {
                cases.push(attention(heads, kv, ragged.clone(), Some(window), None));
            }
        }
        let odd = KvCase { dtype, block_len: 32, max_blocks: 9 };
        cases.push(attention(HEADS[0], odd, StepCase::of(&[(0, 250, 1), (1, 95, 1)]), None, None));
    }
    cases
}

pub(crate) fn prefill() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DType::KV {
        let kv = KvCase { dtype, block_len: 16, max_blocks: 8 };
        for heads in heads_of(dtype) {
            cases.push(attention(heads, kv, StepCase::rows(40, 3), None, None));
            cases.push(attention(heads, kv, StepCase::of(&[(0, 37, 30)]), None, Some(2.0)));
            // A mixed step: a long chunk, a decode, a chunk in the middle of a block.
            let mixed = StepCase::of(&[(1, 0, 21), (0, 90, 1), (3, 13, 9)]);
            cases.push(attention(heads, kv, mixed.clone(), None, None));
            for window in [1, 7, 16, 50] {
                cases.push(attention(heads, kv, mixed.clone(), Some(window), None));
            }
        }
    }
    cases
}
