//! Ops that work row by row: embedding, norms, rope, residual, activation, selection.

use std::sync::Arc;

use biga_hal::{Activation, DType, Heads, OpKind, RopeStyle, Rows};

use crate::rig::{Case, StepCase, Tolerance, weight_dtypes};

const WIDTHS: [usize; 5] = [1, 32, 70, 576, 2049];

/// One sequence of one row, one of many, and several in the bucket with rows to spare.
fn steps() -> Vec<StepCase> {
    vec![StepCase::rows(1, 0), StepCase::rows(5, 3), StepCase::of(&[(2, 40, 1), (0, 7, 6), (1, 1000, 2)])]
}

fn f32_case(kind: OpKind, step: StepCase, tolerance: Tolerance) -> Case {
    let weights = weight_dtypes(&kind, DType::F32);
    Case::new(kind, weights, step, tolerance)
}

fn both_places(case: Case) -> [Case; 2] {
    [Case { in_place: true, ..case.clone() }, case]
}

pub(crate) fn embed() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        for (step, scale) in steps().into_iter().zip([1.0, 24.0, 0.5]) {
            let width = if dtype.block_len() == 1 { 70 } else { 768 };
            let kind = OpKind::Embed { vocab: 37, width, scale };
            cases.push(Case::new(kind, vec![dtype], step, Tolerance::F32));
        }
    }
    cases
}

pub(crate) fn norms() -> Vec<Case> {
    let mut cases = Vec::new();
    for step in steps() {
        for width in WIDTHS {
            for (eps, weight_offset) in [(1e-5, 0.0), (1e-6, 1.0)] {
                let case = f32_case(OpKind::RmsNorm { width, eps, weight_offset }, step.clone(), Tolerance::F32);
                cases.extend(both_places(case));
            }
        }
        for (n_heads, n_kv_heads, head_dim) in [(3, 1, 64), (4, 4, 20), (16, 2, 128), (4, 1, 256)] {
            let heads = Heads { n_heads, n_kv_heads, head_dim };
            let kind = OpKind::QkNorm { heads, eps: 1e-6, weight_offset: 1.0 };
            cases.extend(both_places(f32_case(kind, step.clone(), Tolerance::F32)));
        }
        // The last norm runs over the rows that want logits.
        let kind = OpKind::RmsNorm { width: 96, eps: 1e-5, weight_offset: 0.0 };
        cases.push(Case { rows: Rows::Outputs, ..f32_case(kind, step, Tolerance::F32) });
    }
    cases
}

pub(crate) fn rope() -> Vec<Case> {
    let mut cases = Vec::new();
    for step in steps() {
        for (n_heads, n_kv_heads, head_dim) in [(9, 3, 64), (2, 2, 32), (4, 1, 256), (3, 1, 10)] {
            for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
                let heads = Heads { n_heads, n_kv_heads, head_dim };
                let inv_freq = |i: usize| 10_000.0_f32.powf(-2.0 * i as f32 / head_dim as f32);
                let inv_freqs: Arc<[f32]> = (0..head_dim / 2).map(inv_freq).collect();
                // Angles of a thousand radians lose digits to the reduction of the argument.
                let tolerance = Tolerance { relative: 1e-4, of_rms: 2e-4 };
                cases.extend(both_places(f32_case(OpKind::Rope { heads, style, inv_freqs }, step.clone(), tolerance)));
            }
        }
    }
    cases
}

pub(crate) fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for step in steps() {
        for width in WIDTHS {
            cases.extend(both_places(f32_case(OpKind::Residual { width }, step.clone(), Tolerance::F32)));
            for activation in [Activation::Silu, Activation::GeluTanh] {
                let kind = OpKind::Activate { ff: width, activation };
                cases.push(f32_case(kind, step.clone(), Tolerance::FUNCTION));
            }
            let kind = OpKind::SelectOutputs { width };
            cases.push(Case { rows: Rows::Outputs, ..f32_case(kind, step.clone(), Tolerance::F32) });
        }
    }
    cases
}
