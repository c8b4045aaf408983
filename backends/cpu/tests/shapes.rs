//! Random shapes: every kernel set against the reference, where the suite's fixed shapes leave gaps.
//!
//! Tolerances are those of the suite: sums of f32 in another order, or activations of 8 bits.

use std::sync::Arc;

use biga_cpu::{CpuBackend, CpuDevice, CpuOptions, Kernels};
use biga_hal::{
    Accessors, BoundOp, BoundWeight, Bucket, BufferDesc, BufferSlice, DType, Device, Op, OpKind, Rows, Segment,
    StepHeader, StepLayout, StepLimits,
};
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

fn open(kernels: Kernels) -> CpuDevice {
    CpuBackend::new(CpuOptions { threads: Some(2), kernels }).open_device().expect("an available set")
}

fn filled(device: &CpuDevice, bytes: &[u8]) -> BufferSlice {
    let size_bytes = bytes.len() as u64;
    let desc = BufferDesc { name: "test".into(), size_bytes, accessors: Accessors::default() };
    let slice = device.allocate(&desc).expect("memory").whole();
    device.write(&slice, bytes).expect("a write of the right size");
    slice
}

/// `y = x Wᵀ` on a device.
fn product(device: &CpuDevice, dtype: DType, weight: &[u8], rows: usize, x: &[f32], n_tokens: usize) -> Vec<f32> {
    let columns = x.len() / n_tokens;
    let limits = StepLimits { max_tokens: n_tokens, max_outputs: 0, max_slots: 0, max_blocks: 0, n_tables: 0 };
    let step_layout = StepLayout::new(limits).expect("a small step");
    let mut step = vec![0; step_layout.size_bytes];
    let header = StepHeader { n_tokens: n_tokens as u32, n_sequences: 1, n_outputs: 0, ..StepHeader::default() };
    step[..StepHeader::SIZE_BYTES].copy_from_slice(&header.to_bytes());
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let output = filled(device, &vec![0; rows * n_tokens * 4]);
    let op = BoundOp {
        op: Arc::new(Op { kind: OpKind::Down { ff: columns, width: rows }, layer: None }),
        rows: Rows::Tokens,
        inputs: vec![filled(device, &bytes)],
        output: Some(output.clone()),
        weights: vec![BoundWeight { slice: filled(device, weight), dtype, rows, columns }],
        kv: None,
        internal: false,
    };
    let bucket = Bucket { tokens: n_tokens, sequences: 1, outputs: 0 };
    let step = filled(device, &step);
    let segment = Segment { name: "product".into(), bucket, ops: vec![op], step, step_layout };
    device.submit(&*device.compile(&segment).expect("a good segment"), &[]).expect("a good step");
    let mut bytes = vec![0; rows * n_tokens * 4];
    device.read(&output, &mut bytes).expect("a read of the right size");
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Deterministic noise between -1 and 1.
fn noise(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// A stored matrix: any bits as quants, scales of about 0.01.
fn weight(dtype: DType, rows: usize, columns: usize, seed: &mut u64) -> Vec<u8> {
    let mut bytes = vec![0; dtype.row_bytes(columns).expect("whole blocks") * rows];
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        match dtype {
            DType::F32 => block.copy_from_slice(&noise(seed).to_le_bytes()),
            DType::F16 | DType::BF16 => {
                // 0.5 to 1 in either format, of either sign.
                let exponent: u16 = if dtype == DType::F16 { 0x3800 } else { 0x3F00 };
                let mantissa: u16 = if dtype == DType::F16 { 0x03FF } else { 0x007F };
                let bits = (noise(seed) * 30_000.0) as i16 as u16;
                block.copy_from_slice(&(exponent | (bits & mantissa) | (bits & 0x8000)).to_le_bytes());
            }
            _ => {
                block.iter_mut().for_each(|byte| *byte = (noise(seed) * 127.0) as i8 as u8);
                let at = if dtype == DType::Q6_K { 208 } else { 0 };
                block[at..at + 2].copy_from_slice(&[0x1F, 0x11]);
                if matches!(dtype, DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K) {
                    block[2..4].copy_from_slice(&[0x1F, 0x13]);
                }
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn products_of_any_shape_agree(
        format in 0..DType::ALL.len(),
        units in 1_usize..9,
        rows in 1_usize..70,
        n_tokens in 1_usize..40,
        mut seed in any::<u64>(),
    ) {
        let dtype = DType::ALL[format];
        let columns = if dtype.is_quantised() { dtype.block_len() * units } else { units * 37 };
        let weight = weight(dtype, rows, columns, &mut seed);
        let x: Vec<f32> = (0..n_tokens * columns).map(|_| noise(&mut seed)).collect();
        let expected = product(&open(Kernels::Reference), dtype, &weight, rows, &x, n_tokens);
        // The bound of 8-bit activations grows with the weights' size, which the plain formats share.
        let ones: Vec<f32> = expected.iter().map(|y| y * y).collect();
        let rms = (ones.iter().sum::<f32>() / ones.len() as f32).sqrt();
        let floor = if dtype.is_quantised() { 0.06 * rms + 1e-3 * (columns as f32).sqrt() } else { 3e-5 * rms + 1e-4 };
        for set in Kernels::available() {
            let seen = product(&open(set), dtype, &weight, rows, &x, n_tokens);
            for (i, (e, s)) in expected.iter().zip(&seen).enumerate() {
                prop_assert!((e - s).abs() <= floor, "{} {dtype} element {i}: {s}, not {e} (rms {rms})", set.name());
            }
        }
    }
}
