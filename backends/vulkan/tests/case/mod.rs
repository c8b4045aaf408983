//! One op with its data, run on a device and on the CPU's plain reference.

use std::{sync::Arc, time::Duration};

use biga_cpu::{CpuBackend, CpuOptions};
use biga_hal::{
    Access, Accessors, BoundKv, BoundOp, BoundWeight, Bucket, Buffer, BufferDesc, DType, Device, Op, OpKind, OpQuery,
    Rows, Segment, StepHeader, StepLayout, StepLimits, WeightRole, WeightShape,
};

/// A generator of test data.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    pub(crate) fn float(&mut self) -> f32 {
        (self.next() % 20001) as f32 / 10000.0 - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Values that 8 bits hold exactly: multiples of a group's own scale, one of them the largest.
    pub(crate) fn quantised(&mut self, count: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 32);
        while values.len() < count {
            let scale = 1.0 / (64 << (self.next() % 3)) as f32;
            let quants = (0..32).map(|i| if i == 7 { -127.0 } else { (self.next() % 255) as f32 - 127.0 });
            values.extend(quants.map(|quant| quant * scale));
        }
        values.truncate(count);
        values
    }

    /// Any quants, with small finite scales.
    pub(crate) fn weight(&mut self, shape: &WeightShape, dtype: DType) -> Vec<u8> {
        let elements = shape.rows * shape.columns;
        let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
        match dtype {
            DType::F32 => self.floats(elements).iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::F16 => self.floats(elements).iter().flat_map(|x| half(*x)).collect(),
            DType::BF16 => self.floats(elements).iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
            _ => {
                let scales: &[usize] = match dtype {
                    DType::Q8_0 | DType::Q4_0 | DType::Q5_0 => &[0],
                    DType::Q6_K => &[208],
                    _ => &[0, 2],
                };
                let mut bytes = Vec::new();
                for _ in 0..elements / dtype.block_len() {
                    let mut block: Vec<u8> = (0..dtype.block_bytes()).map(|_| self.next() as u8).collect();
                    for &at in scales {
                        block[at..at + 2].copy_from_slice(&half(self.float() * 0.02));
                    }
                    bytes.extend(block);
                }
                bytes
            }
        }
    }
}

/// An op with its data.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) kind: OpKind,
    pub(crate) rows: Rows,
    pub(crate) inputs: Vec<Vec<f32>>,
    pub(crate) weights: Vec<DType>,
    pub(crate) weight_bytes: Vec<Vec<u8>>,
    /// Format of the cache, and its contents as (slot, position, qkv row) to append first.
    pub(crate) kv: Option<DType>,
    pub(crate) before: Vec<Vec<(u32, u32)>>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) slots: Vec<u32>,
    pub(crate) outputs: Vec<u32>,
    pub(crate) bucket: Bucket,
    pub(crate) in_place: bool,
    /// Whether errors are told by each row's largest element, however small.
    pub(crate) by_row: bool,
}

impl Case {
    pub(crate) fn new(random: &mut Random, kind: OpKind, dtype: DType, n_tokens: usize, bucket_tokens: usize) -> Case {
        let weights: Vec<DType> =
            kind.weights().iter().map(|w| if w.role == WeightRole::Vector { DType::F32 } else { dtype }).collect();
        let weight_bytes = kind.weights().iter().zip(&weights).map(|(w, d)| random.weight(w, *d)).collect();
        // What the kernels round to 8 bits is given in 8 bits, so that the bound stays that of sums in f32.
        let inputs = kind.input_widths().into_iter().map(|width| match weights.iter().any(|d| d.is_quantised()) {
            true => random.quantised(width * bucket_tokens),
            false => random.floats(width * bucket_tokens),
        });
        let inputs = inputs.collect();
        Case {
            rows: if matches!(kind, OpKind::Head { .. } | OpKind::SelectOutputs { .. }) {
                Rows::Outputs
            } else {
                Rows::Tokens
            },
            kind,
            inputs,
            weights,
            weight_bytes,
            kv: None,
            before: Vec::new(),
            tokens: (0..n_tokens).map(|_| random.next() as u32 % 40).collect(),
            positions: (0..n_tokens as u32).collect(),
            slots: vec![0; n_tokens],
            outputs: (0..n_tokens as u32).rev().collect(),
            bucket: Bucket { tokens: bucket_tokens, sequences: 2, outputs: bucket_tokens },
            in_place: false,
            by_row: false,
        }
    }
}

/// Ends a hang. A driver on the CPU compiles a kernel when it first runs, on a busy machine for minutes.
const WAIT: Duration = Duration::from_secs(1200);

const BLOCK_LEN: usize = 4;
const MAX_BLOCKS: usize = 40;
const SLOTS: usize = 3;

pub(crate) struct Rig {
    pub(crate) device: Arc<dyn Device>,
}

impl Rig {
    pub(crate) fn buffer(&self, name: &str, size_bytes: usize) -> Buffer {
        let accessors = Accessors { host: Some(Access::ReadWrite), devices: Vec::new() };
        self.device.allocate(&BufferDesc { name: name.into(), size_bytes: size_bytes as u64, accessors }).unwrap()
    }

    /// Device memory that only kernels use, to cover the staging path where a device has one.
    pub(crate) fn private_buffer(&self, name: &str, size_bytes: usize) -> Buffer {
        let accessors = Accessors::default();
        self.device.allocate(&BufferDesc { name: name.into(), size_bytes: size_bytes as u64, accessors }).unwrap()
    }

    pub(crate) fn fill(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) {
        self.device.write(&buffer.slice(offset as u64, bytes.len() as u64).unwrap(), bytes).unwrap();
    }

    pub(crate) fn floats(&self, values: &[f32]) -> Buffer {
        let buffer = self.buffer("value", 4 * values.len());
        self.fill(&buffer, 0, bytemuck::cast_slice(values));
        buffer
    }

    pub(crate) fn run(&self, segment: &Segment) {
        let executable = self.device.compile(segment).unwrap();
        let fence = self.device.submit(&*executable, &[]).unwrap();
        fence.wait(WAIT).unwrap();
    }

    /// Runs the case; the whole output value, or the whole cache for an op without output.
    pub(crate) fn result(&self, case: &Case) -> Vec<f32> {
        let limits = StepLimits {
            max_tokens: case.bucket.tokens.max(1),
            max_outputs: case.bucket.outputs,
            max_slots: SLOTS,
            max_blocks: MAX_BLOCKS,
            n_tables: 2,
        };
        let layout = StepLayout::new(limits).unwrap();
        let step = self.buffer("step", layout.size_bytes);
        let mut kv = None;
        let mut slab = None;
        if let Some(dtype) = case.kv {
            let heads = match case.kind {
                OpKind::KvAppend { heads } | OpKind::Attention { heads, .. } => heads,
                _ => unreachable!("only these use the cache"),
            };
            let part = dtype.row_bytes(heads.head_dim).unwrap() * heads.n_kv_heads * BLOCK_LEN;
            // An odd start, as other layers' parts before this one give.
            let block_bytes = 64 + 2 * part;
            let blocks = self.private_buffer("kv", block_bytes * SLOTS * MAX_BLOCKS);
            for slot in 0..SLOTS {
                for block in 0..MAX_BLOCKS {
                    // Scattered: neighbours in the table are not neighbours in memory.
                    let place = (block * 7 + slot * 11) % MAX_BLOCKS * SLOTS + slot;
                    let address = blocks.allocation().device_address() + (place * block_bytes) as u64;
                    self.fill(&step, layout.table_row(1, slot) + 8 * block, &address.to_le_bytes());
                }
            }
            kv = Some(BoundKv {
                table: 1,
                block_len: BLOCK_LEN,
                k_offset_bytes: 64,
                v_offset_bytes: 64 + part as u64,
                block_bytes: block_bytes as u64,
                dtype,
            });
            slab = Some(blocks);
        }
        let segment = |op: BoundOp| Segment {
            name: "case".into(),
            bucket: case.bucket,
            ops: vec![op],
            step: step.whole(),
            step_layout: layout,
        };
        let set_step = |tokens: &[u32], positions: &[u32], slots: &[u32], outputs: &[u32]| {
            let header = StepHeader {
                n_tokens: positions.len() as u32,
                n_sequences: 1,
                n_outputs: outputs.len() as u32,
                ..StepHeader::default()
            };
            self.fill(&step, 0, &header.to_bytes());
            for (at, words) in [
                (layout.tokens, tokens),
                (layout.positions, positions),
                (layout.slots, slots),
                (layout.outputs, outputs),
            ] {
                if !words.is_empty() {
                    self.fill(&step, at, bytemuck::cast_slice(words));
                }
            }
        };
        if let (Some(kv), OpKind::Attention { heads, .. }) = (&kv, &case.kind) {
            // Fill the cache by the op that is meant for it.
            let mut random = Random(99);
            for chunk in &case.before {
                let rows = self.floats(&random.floats(heads.qkv_width() * case.bucket.tokens));
                let positions: Vec<u32> = chunk.iter().map(|(_, position)| *position).collect();
                let slots: Vec<u32> = chunk.iter().map(|(slot, _)| *slot).collect();
                set_step(&[], &positions, &slots, &[]);
                self.run(&segment(BoundOp {
                    op: Arc::new(Op { kind: OpKind::KvAppend { heads: *heads }, layer: Some(0) }),
                    rows: Rows::Tokens,
                    inputs: vec![rows.whole()],
                    output: None,
                    weights: Vec::new(),
                    kv: Some(kv.clone()),
                    internal: false,
                }));
            }
        }
        set_step(&case.tokens, &case.positions, &case.slots, &case.outputs);
        let bind = case.kind.weights().into_iter().zip(&case.weights).zip(&case.weight_bytes).map(
            |((shape, dtype), bytes)| {
                let size_bytes = self.device.weight_size_bytes(&shape, *dtype);
                if self.device.reads_weights_in_place() {
                    let buffer = self.buffer("weight", bytes.len());
                    self.fill(&buffer, 0, bytes);
                    return BoundWeight {
                        slice: buffer.whole(),
                        dtype: *dtype,
                        rows: shape.rows,
                        columns: shape.columns,
                    };
                }
                // Behind something else, as in a pool.
                let buffer = self.private_buffer("weight", 256 + size_bytes as usize);
                let slice = buffer.slice(256, size_bytes).unwrap();
                self.device.load_weight(&shape, *dtype, bytes, &slice).unwrap();
                BoundWeight { slice, dtype: *dtype, rows: shape.rows, columns: shape.columns }
            },
        );
        let weights = bind.collect();
        let inputs: Vec<_> = case.inputs.iter().map(|values| self.floats(values).whole()).collect();
        let rows = if case.rows == Rows::Outputs { case.bucket.outputs } else { case.bucket.tokens };
        let output = case.kind.output_width().map(|width| match case.in_place {
            true => inputs[0].clone(),
            false => self.buffer("output", 4 * rows * width).whole(),
        });
        self.run(&segment(BoundOp {
            op: Arc::new(Op { kind: case.kind.clone(), layer: Some(0) }),
            rows: case.rows,
            inputs,
            output: output.clone(),
            weights,
            kv,
            internal: false,
        }));
        let n_rows = if case.rows == Rows::Outputs { case.outputs.len() } else { case.positions.len() };
        match (output, slab) {
            (Some(output), _) => {
                let mut values = vec![0f32; rows * case.kind.output_width().unwrap()];
                self.device.read(&output, bytemuck::cast_slice_mut(&mut values)).unwrap();
                values.truncate(n_rows * case.kind.output_width().unwrap());
                values
            }
            (None, Some(slab)) => {
                let mut bytes = vec![0u8; slab.size_bytes() as usize];
                self.device.read(&slab.whole(), &mut bytes).unwrap();
                bytes.iter().map(|&b| f32::from(b)).collect()
            }
            (None, None) => Vec::new(),
        }
    }
}

/// Holds a device's result against the reference's.
///
/// # Panics
/// If they differ by more than `tolerance` of the largest element, of all or of each row (`by_row`).
pub(crate) fn check(device: &Arc<dyn Device>, case: &Case, tolerance: f32) {
    let reference = Rig {
        device: Arc::new(
            CpuBackend::new(CpuOptions { threads: Some(1), kernels: biga_cpu::Kernels::Reference })
                .open_device()
                .unwrap(),
        ),
    };
    let query = OpQuery { kind: &case.kind, weights: &case.weights, kv: case.kv };
    device.supports(&query).unwrap();
    let want = reference.result(case);
    let got = Rig { device: Arc::clone(device) }.result(case);
    assert_eq!(want.len(), got.len());
    let (row, least) = match case.kind.output_width() {
        Some(width) if case.by_row => (width, f32::MIN_POSITIVE),
        _ => (want.len().max(1), 1.0),
    };
    for (r, (want, got)) in want.chunks(row).zip(got.chunks(row)).enumerate() {
        let largest = want.iter().fold(least, |a, b| a.max(b.abs()));
        for (i, (want, got)) in want.iter().zip(got).enumerate() {
            let error = (want - got).abs() / largest;
            assert!(
                error <= tolerance,
                "{:?} {:?} kv {:?}, {} tokens: row {r} element {i} is {got}, the reference says {want}",
                case.kind,
                case.weights,
                case.kv,
                case.positions.len()
            );
        }
    }
}

/// Tolerances are relative to the largest element: sums are taken in another order, in f32.
pub(crate) const SUM: f32 = 2e-6;
