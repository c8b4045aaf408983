//! Every op against the CPU's plain reference, over formats and sizes that stress the kernels' edges.
//!
//! Tighter than the conformance suite, which allows for coarser devices. See `pick` for what takes part.

mod pick;

use std::{sync::Arc, time::Duration};

use biga_cpu::{CpuBackend, CpuOptions};
use biga_hal::{
    Access, Accessors, Activation, BoundKv, BoundOp, BoundWeight, Bucket, Buffer, BufferDesc, DType, Device, Heads, Op,
    OpKind, OpQuery, RopeStyle, Rows, Segment, StepHeader, StepLayout, StepLimits, WeightRole, WeightShape,
};
use biga_vulkan::Kernels;
use pick::devices;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn float(&mut self) -> f32 {
        (self.next() % 20001) as f32 / 10000.0 - 1.0
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Values that 8 bits hold exactly: multiples of a group's own scale, one of them the largest.
    fn quantised(&mut self, count: usize) -> Vec<f32> {
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
    fn weight(&mut self, shape: &WeightShape, dtype: DType) -> Vec<u8> {
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
struct Case {
    kind: OpKind,
    rows: Rows,
    inputs: Vec<Vec<f32>>,
    weights: Vec<DType>,
    weight_bytes: Vec<Vec<u8>>,
    /// Format of the cache, and its contents as (slot, position, qkv row) to append first.
    kv: Option<DType>,
    before: Vec<Vec<(u32, u32)>>,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    outputs: Vec<u32>,
    bucket: Bucket,
    in_place: bool,
}

impl Case {
    fn new(random: &mut Random, kind: OpKind, dtype: DType, n_tokens: usize, bucket_tokens: usize) -> Case {
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
        }
    }
}

/// Ends a hang. A driver on the CPU compiles a kernel when it first runs, on a busy machine for minutes.
const WAIT: Duration = Duration::from_secs(1200);

const BLOCK_LEN: usize = 4;
const MAX_BLOCKS: usize = 40;
const SLOTS: usize = 3;

struct Rig {
    device: Arc<dyn Device>,
}

impl Rig {
    fn buffer(&self, name: &str, size_bytes: usize) -> Buffer {
        let accessors = Accessors { host: Some(Access::ReadWrite), devices: Vec::new() };
        self.device.allocate(&BufferDesc { name: name.into(), size_bytes: size_bytes as u64, accessors }).unwrap()
    }

    /// Device memory that only kernels use, to cover the staging path where a device has one.
    fn private_buffer(&self, name: &str, size_bytes: usize) -> Buffer {
        let accessors = Accessors::default();
        self.device.allocate(&BufferDesc { name: name.into(), size_bytes: size_bytes as u64, accessors }).unwrap()
    }

    fn fill(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) {
        self.device.write(&buffer.slice(offset as u64, bytes.len() as u64).unwrap(), bytes).unwrap();
    }

    fn floats(&self, values: &[f32]) -> Buffer {
        let buffer = self.buffer("value", 4 * values.len());
        self.fill(&buffer, 0, bytemuck::cast_slice(values));
        buffer
    }

    fn run(&self, segment: &Segment) {
        let executable = self.device.compile(segment).unwrap();
        let fence = self.device.submit(&*executable, &[]).unwrap();
        fence.wait(WAIT).unwrap();
    }

    /// Runs the case; the whole output value, or the whole cache for an op without output.
    fn result(&self, case: &Case) -> Vec<f32> {
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

fn check(device: &Arc<dyn Device>, case: &Case, tolerance: f32) {
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
    let largest = want.iter().fold(1.0f32, |a, b| a.max(b.abs()));
    for (i, (want, got)) in want.iter().zip(&got).enumerate() {
        let error = (want - got).abs() / largest;
        assert!(
            error <= tolerance,
            "{:?} {:?} kv {:?}, {} tokens: element {i} is {got}, the reference says {want}",
            case.kind,
            case.weights,
            case.kv,
            case.positions.len()
        );
    }
}

/// Tolerances are relative to the largest element: sums are taken in another order, in f32.
const SUM: f32 = 2e-6;

fn products(kernels: Kernels) {
    for device in devices(kernels) {
        let mut random = Random(1);
        for dtype in DType::ALL {
            let columns = if dtype.block_len() == 256 { 512 } else { 96 };
            for (n, bucket) in [(1, 1), (2, 3), (4, 4), (5, 40), (37, 40)] {
                let kind = OpKind::Down { ff: columns, width: 71 };
                check(&device, &Case::new(&mut random, kind, dtype, n, bucket), SUM);
            }
            let heads = Heads { n_heads: 3, n_kv_heads: 1, head_dim: 10 };
            for n in [1, 9] {
                let kind = OpKind::QkvProjection { width: columns, heads, bias: true };
                check(&device, &Case::new(&mut random, kind, dtype, n, n), SUM);
                let kind = OpKind::Head { width: columns, vocab: 130, softcap: Some(30.0) };
                // The cap hides how large the sum was that the error belongs to.
                check(&device, &Case::new(&mut random, kind, dtype, n, n), 5.0 * SUM);
                check(&device, &Case::new(&mut random, OpKind::GateUp { width: columns, ff: 33 }, dtype, n, n), SUM);
            }
            let kind = OpKind::Embed { vocab: 40, width: columns, scale: 2.5 };
            check(&device, &Case::new(&mut random, kind, dtype, 7, 9), 1e-6);
        }
        // Widths that are no whole number of chunks.
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for n in [1, 11] {
                let kind = OpKind::OutputProjection { input: 45, output: 19, bias: true };
                check(&device, &Case::new(&mut random, kind, dtype, n, 12), SUM);
            }
            let kind = OpKind::Embed { vocab: 40, width: 45, scale: 1.0 };
            check(&device, &Case::new(&mut random, kind, dtype, 3, 3), 1e-6);
        }
    }
}

#[test]
fn products_by_the_kernels_for_gpus() {
    products(Kernels::Gpu);
}

#[test]
fn products_by_the_kernels_for_drivers_on_the_cpu() {
    products(Kernels::Software);
}

#[test]
fn element_wise_ops() {
    for device in [Kernels::Gpu, Kernels::Software].into_iter().flat_map(devices) {
        let mut random = Random(2);
        let heads = Heads { n_heads: 6, n_kv_heads: 2, head_dim: 20 };
        let kinds = [
            OpKind::RmsNorm { width: 300, eps: 1e-5, weight_offset: 1.0 },
            OpKind::RmsNorm { width: 7, eps: 1e-6, weight_offset: 0.0 },
            OpKind::QkNorm { heads, eps: 1e-6, weight_offset: 0.0 },
            OpKind::Residual { width: 130 },
            OpKind::Activate { ff: 70, activation: Activation::Silu },
            OpKind::Activate { ff: 70, activation: Activation::GeluTanh },
            OpKind::SelectOutputs { width: 70 },
        ];
        for kind in kinds {
            for (n, bucket) in [(1, 1), (6, 9)] {
                let mut case = Case::new(&mut random, kind.clone(), DType::F32, n, bucket);
                check(&device, &case, SUM);
                if kind.in_place_input().is_some() {
                    case.in_place = true;
                    check(&device, &case, SUM);
                }
            }
        }
    }
}

#[test]
fn rope_turns_exactly_far_out() {
    for device in devices(Kernels::Auto) {
        let mut random = Random(3);
        for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
            for base in [10_000f32, 1_000_000.0] {
                let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 64 };
                let inv_freqs: Arc<[f32]> = (0..32).map(|i| base.powf(-(i as f32) / 32.0)).collect();
                let kind = OpKind::Rope { heads, style, inv_freqs };
                let mut case = Case::new(&mut random, kind, DType::F32, 8, 8);
                case.positions = vec![0, 1, 7, 1000, 32_767, 100_001, 131_071, 1_000_003];
                check(&device, &case, 1e-6);
                case.in_place = true;
                check(&device, &case, 1e-6);
            }
        }
    }
}

#[test]
fn the_cache_holds_what_the_reference_stores() {
    for device in devices(Kernels::Auto) {
        let mut random = Random(4);
        for dtype in DType::KV {
            let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 64 };
            let mut case = Case::new(&mut random, OpKind::KvAppend { heads }, DType::F32, 9, 11);
            case.kv = Some(dtype);
            case.positions = vec![0, 1, 2, 3, 4, 5, 17, 90, 159];
            case.slots = vec![0, 0, 0, 1, 1, 2, 2, 2, 0];
            // Bytes: a quant may round the other way where the quotient is a tie but for one bit.
            check(&device, &case, if dtype == DType::Q8_0 { 1.0 / 255.0 } else { 0.0 });
        }
    }
}

#[test]
fn attention_over_blocks_windows_and_sequences() {
    for device in [Kernels::Gpu, Kernels::Software].into_iter().flat_map(devices) {
        let mut random = Random(5);
        for dtype in DType::KV {
            for (head_dim, n_heads, n_kv_heads) in [(64, 6, 2), (32, 2, 2), (128, 4, 1), (256, 2, 1)] {
                let heads = Heads { n_heads, n_kv_heads, head_dim };
                for (window, softcap) in [(None, None), (Some(5), None), (None, Some(2.0)), (Some(64), Some(30.0))] {
                    let scale = 1.0 / (head_dim as f32).sqrt();
                    let kind = OpKind::Attention { heads, scale, window, softcap };
                    let mut case = Case::new(&mut random, kind, DType::F32, 12, 12);
                    case.kv = Some(dtype);
                    // Sequence 0 to position 131, sequence 1 to 9, sequence 2 to 0.
                    case.before = (0..11).map(|c| (0..12).map(|i| (0, 12 * c + i)).collect()).collect();
                    case.before.push((0..10).map(|i| (1, i)).collect());
                    case.before.push(vec![(2, 0)]);
                    case.positions = vec![0, 1, 3, 4, 63, 64, 130, 131, 0, 5, 9, 0];
                    case.slots = vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2];
                    // A GPU's reciprocal is not exact, so a quant may round the other way.
                    check(&device, &case, if dtype == DType::Q8_0 { 2e-3 } else { 3e-6 });
                }
            }
        }
    }
}

/// Page-aligned memory of the host's own, as another owner's buffer.
#[derive(Debug)]
struct HostPages {
    memory: Vec<u8>,
    first: usize,
    size_bytes: usize,
}

impl HostPages {
    const ALIGNMENT: usize = 65536;

    fn new(values: &[f32]) -> HostPages {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let size_bytes = bytes.len().next_multiple_of(HostPages::ALIGNMENT);
        let mut memory = vec![0u8; size_bytes + HostPages::ALIGNMENT];
        let first = memory.as_ptr().align_offset(HostPages::ALIGNMENT);
        memory[first..first + bytes.len()].copy_from_slice(bytes);
        HostPages { memory, first, size_bytes }
    }
}

impl biga_hal::Allocation for HostPages {
    fn name(&self) -> &str {
        "host pages"
    }
    fn size_bytes(&self) -> u64 {
        self.size_bytes as u64
    }
    fn owner(&self) -> Option<biga_hal::DeviceId> {
        None
    }
    fn epoch(&self) -> biga_hal::Epoch {
        biga_hal::Epoch::default()
    }
    fn host_range(&self) -> Option<biga_hal::HostRange> {
        let address = self.memory[self.first..].as_ptr().expose_provenance();
        Some(biga_hal::HostRange { address, size_bytes: self.size_bytes, writable: true })
    }
    fn device_address(&self) -> u64 {
        0
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[test]
fn host_memory_is_read_where_it_lies() {
    for device in devices(Kernels::Auto) {
        let rig = Rig { device: Arc::clone(&device) };
        let values: Vec<f32> = (0..128).map(|i| i as f32).collect();
        let imported = match device.import(&Buffer::new(HostPages::new(&values))) {
            Ok(imported) => imported,
            Err(biga_hal::Error::NotImportable { cause, .. }) => {
                println!("skipped: {cause}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let limits = StepLimits { max_tokens: 2, max_outputs: 1, max_slots: 1, max_blocks: 1, n_tables: 1 };
        let step_layout = StepLayout::new(limits).unwrap();
        let step = rig.buffer("step", step_layout.size_bytes);
        rig.fill(
            &step,
            0,
            &StepHeader { n_tokens: 2, n_sequences: 1, n_outputs: 0, ..StepHeader::default() }.to_bytes(),
        );
        let ones = rig.floats(&[1.0; 128]);
        let output = rig.buffer("output", 512);
        let op = BoundOp {
            op: Arc::new(Op { kind: OpKind::Residual { width: 64 }, layer: None }),
            rows: Rows::Tokens,
            inputs: vec![imported.slice(0, 512).unwrap(), ones.whole()],
            output: Some(output.whole()),
            weights: Vec::new(),
            kv: None,
        };
        let bucket = Bucket { tokens: 2, sequences: 1, outputs: 1 };
        rig.run(&Segment { name: "import".into(), bucket, ops: vec![op], step: step.whole(), step_layout });
        let mut seen = [0f32; 128];
        device.read(&output.whole(), bytemuck::cast_slice_mut(&mut seen)).unwrap();
        assert!(seen.iter().zip(&values).all(|(seen, value)| *seen == value + 1.0), "{seen:?}");
    }
}

#[test]
fn an_unaligned_import_is_refused() {
    for device in devices(Kernels::Auto) {
        let mut pages = HostPages::new(&[1.0; 64]);
        pages.first += 64;
        pages.size_bytes = 4096;
        let refused = device.import(&Buffer::new(pages));
        assert!(matches!(refused, Err(biga_hal::Error::NotImportable { .. })), "{refused:?}");
    }
}
