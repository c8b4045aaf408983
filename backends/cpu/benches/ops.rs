//! Times a model of SmolLM2-135M's shapes with random weights: whole steps, and each kind of op.
//!
//! `cargo bench -p biga-cpu [-- THREADS [KERNELS [decode|prefill]]]`. One line for each measurement: the fastest of repeated
//! submissions, which a busy machine disturbs least, and for whole steps the median. Weights are distinct for each layer, so that they come from memory as in a model.

use std::{sync::Arc, time::Instant};

use biga_cpu::{CpuBackend, CpuDevice, CpuOptions, Kernels};
use biga_hal::{
    Accessors, Activation, BoundKv, BoundOp, BoundWeight, Bucket, BufferDesc, BufferSlice, DType, Device, Heads, Op,
    OpKind, RopeStyle, Rows, Segment, StepHeader, StepLayout, StepLimits, WeightRole, device::Measurement,
};

const WIDTH: usize = 576;
const FF: usize = 1536;
const VOCAB: usize = 49_152;
const N_LAYERS: usize = 30;
const HEADS: Heads = Heads { n_heads: 9, n_kv_heads: 3, head_dim: 64 };
const BLOCK_LEN: usize = 16;
const MAX_BLOCKS: usize = 64;

fn buffer(device: &CpuDevice, size_bytes: usize) -> BufferSlice {
    let size_bytes = size_bytes as u64;
    let desc = BufferDesc { name: "bench".into(), size_bytes, accessors: Accessors::default() };
    device.allocate(&desc).expect("memory for the bench").whole()
}

/// Random quants with scales of about 0.01.
fn random_weight(device: &CpuDevice, rows: usize, columns: usize, dtype: DType, seed: &mut u64) -> BoundWeight {
    let mut bytes = vec![0_u8; dtype.row_bytes(columns).expect("whole blocks") * rows];
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for byte in block.iter_mut() {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (*seed >> 56) as u8;
        }
        match dtype {
            DType::F32 => block.copy_from_slice(&1.0_f32.to_le_bytes()),
            DType::Q4_1 => block[..4].copy_from_slice(&[0x1F, 0x21, 0x1F, 0xA9]),
            _ => block[..2].copy_from_slice(&[0x1F, 0x21]),
        }
    }
    let slice = buffer(device, bytes.len());
    device.write(&slice, &bytes).expect("a write of the right size");
    BoundWeight { slice, dtype, rows, columns }
}

struct Model<'a> {
    device: &'a CpuDevice,
    ops: Vec<BoundOp>,
    step: BufferSlice,
    layout: StepLayout,
    bucket: Bucket,
    pool: BufferSlice,
    block_bytes: usize,
}

impl<'a> Model<'a> {
    fn new(device: &'a CpuDevice, n_tokens: usize) -> Model<'a> {
        let limits =
            StepLimits { max_tokens: n_tokens, max_outputs: 1, max_slots: 1, max_blocks: MAX_BLOCKS, n_tables: 1 };
        let layout = StepLayout::new(limits).expect("a small step");
        let part = HEADS.kv_width() * BLOCK_LEN * 2;
        let block_bytes = part * 2 * N_LAYERS;
        let mut model = Model {
            device,
            ops: Vec::new(),
            step: buffer(device, layout.size_bytes),
            layout,
            bucket: Bucket { tokens: n_tokens, sequences: 1, outputs: 1 },
            pool: buffer(device, block_bytes * MAX_BLOCKS),
            block_bytes,
        };
        let mut seed = 1;
        let value = |width: usize| buffer(device, n_tokens * width * 4);
        let (hidden, normed, wide, branch) = (value(WIDTH), value(WIDTH), value(2 * FF), value(FF));
        let (qkv, attended) = (value(HEADS.qkv_width()), value(WIDTH));
        let (selected, logits) = (value(WIDTH), buffer(device, VOCAB * 4));
        let inv_freqs: Arc<[f32]> = (0..32).map(|i| 10_000.0_f32.powf(-(i as f32) / 32.0)).collect();
        let mut add = |kind: OpKind, inputs: &[&BufferSlice], output: Option<&BufferSlice>, dtype, layer: usize| {
            let mut weights = Vec::new();
            for shape in kind.weights() {
                let dtype = if shape.role == WeightRole::Vector { DType::F32 } else { dtype };
                weights.push(random_weight(device, shape.rows, shape.columns, dtype, &mut seed));
            }
            let late =
                output.is_some_and(|o| o.buffer().same_memory(selected.buffer()) || o.size_bytes() == VOCAB as u64 * 4);
            let kv = kind.uses_kv().then(|| BoundKv {
                table: 0,
                block_len: BLOCK_LEN,
                k_offset_bytes: (2 * layer * part) as u64,
                v_offset_bytes: ((2 * layer + 1) * part) as u64,
                block_bytes: block_bytes as u64,
                dtype: DType::F16,
            });
            model.ops.push(BoundOp {
                op: Arc::new(Op { kind, layer: Some(layer) }),
                rows: if late { Rows::Outputs } else { Rows::Tokens },
                inputs: inputs.iter().map(|&slice| slice.clone()).collect(),
                output: output.cloned(),
                weights,
                kv,
                internal: false,
            });
        };
        let norm = OpKind::RmsNorm { width: WIDTH, eps: 1e-5, weight_offset: 0.0 };
        let q = DType::Q4_1;
        add(OpKind::Embed { vocab: VOCAB, width: WIDTH, scale: 1.0 }, &[], Some(&hidden), DType::Q8_0, 0);
        for layer in 0..N_LAYERS {
            let rope = OpKind::Rope { heads: HEADS, style: RopeStyle::Interleaved, inv_freqs: Arc::clone(&inv_freqs) };
            let attention = OpKind::Attention { heads: HEADS, scale: 0.125, window: None, softcap: None };
            add(norm.clone(), &[&hidden], Some(&normed), q, layer);
            add(OpKind::QkvProjection { width: WIDTH, heads: HEADS, bias: false }, &[&normed], Some(&qkv), q, layer);
            add(rope, &[&qkv], Some(&qkv), q, layer);
            add(OpKind::KvAppend { heads: HEADS }, &[&qkv], None, q, layer);
            add(attention, &[&qkv], Some(&attended), q, layer);
            let out = OpKind::OutputProjection { input: WIDTH, output: WIDTH, bias: false };
            add(out, &[&attended], Some(&normed), q, layer);
            add(OpKind::Residual { width: WIDTH }, &[&hidden, &normed], Some(&hidden), q, layer);
            add(norm.clone(), &[&hidden], Some(&normed), q, layer);
            add(OpKind::GateUp { width: WIDTH, ff: FF }, &[&normed], Some(&wide), q, layer);
            add(OpKind::Activate { ff: FF, activation: Activation::Silu }, &[&wide], Some(&branch), q, layer);
            add(OpKind::Down { ff: FF, width: WIDTH }, &[&branch], Some(&normed), q, layer);
            add(OpKind::Residual { width: WIDTH }, &[&hidden, &normed], Some(&hidden), q, layer);
        }
        add(OpKind::SelectOutputs { width: WIDTH }, &[&hidden], Some(&selected), q, 0);
        add(norm, &[&selected], Some(&selected), q, 0);
        add(OpKind::Head { width: WIDTH, vocab: VOCAB, softcap: None }, &[&selected], Some(&logits), DType::Q8_0, 0);
        model
    }

    /// Sets the step to `bucket.tokens` tokens from a position on.
    fn set_step(&self, start: usize) {
        let n = self.bucket.tokens as u32;
        let mut bytes = vec![0; self.layout.size_bytes];
        let header = StepHeader { n_tokens: n, n_sequences: 1, n_outputs: 1, ..StepHeader::default() };
        bytes[..16].copy_from_slice(&header.to_bytes());
        for i in 0..n {
            let at = |offset: usize| offset + 4 * i as usize;
            bytes[at(self.layout.tokens)..][..4].copy_from_slice(&(i * 7919 % VOCAB as u32).to_le_bytes());
            bytes[at(self.layout.positions)..][..4].copy_from_slice(&(start as u32 + i).to_le_bytes());
        }
        bytes[self.layout.outputs..][..4].copy_from_slice(&(n - 1).to_le_bytes());
        for block in 0..MAX_BLOCKS {
            let address = self.pool.device_address() + (block * self.block_bytes) as u64;
            bytes[self.layout.table(0) + 8 * block..][..8].copy_from_slice(&address.to_le_bytes());
        }
        self.device.write(&self.step, &bytes).expect("a write of the right size");
    }

    /// Fastest and median seconds of the ops that `keep` names, and their count.
    fn time(&self, keep: impl Fn(&OpKind) -> bool) -> (f64, f64, usize) {
        let ops: Vec<BoundOp> = self.ops.iter().filter(|op| keep(&op.op.kind)).cloned().collect();
        let count = ops.len();
        let (step, step_layout, bucket) = (self.step.clone(), self.layout, self.bucket);
        let segment = Segment { name: "bench".into(), bucket, ops, step, step_layout };
        let executable = self.device.compile(&segment).expect("a segment that compiles");
        let run = || self.device.submit(&*executable, &[]).expect("a submission").value;
        run();
        let (start, mut samples) = (Instant::now(), Vec::new());
        while samples.len() < 5 || start.elapsed().as_millis() < 400 {
            let before = Instant::now();
            run();
            samples.push(before.elapsed().as_secs_f64());
        }
        samples.sort_by(f64::total_cmp);
        (samples[0], samples[samples.len() / 2], count)
    }
}

fn report(device: &CpuDevice, title: &str, n_tokens: usize, start: usize) {
    let model = Model::new(device, n_tokens);
    model.set_step(start);
    let (seconds, median, _) = model.time(|_| true);
    let rate = |seconds: f64| n_tokens as f64 / seconds;
    println!("{title:24} {:12.1} us {:10.1} tokens/s, median {:.1}", seconds * 1e6, rate(seconds), rate(median));
    let mut seen = Vec::new();
    for op in &model.ops {
        let name = op.op.kind.name();
        if !seen.contains(&name) {
            seen.push(name);
            let (seconds, _, count) = model.time(|kind| kind.name() == name);
            println!(
                "  {name:22} {:12.1} us in {count:3} ops, {:9.0} ns each",
                seconds * 1e6,
                seconds * 1e9 / count as f64
            );
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let threads = args.first().and_then(|arg| arg.parse().ok());
    let wanted = |name: &String| Kernels::available().into_iter().find(|set| set.name() == name);
    let kernels = args.get(1).and_then(wanted).unwrap_or_default();
    let options = CpuOptions { threads, kernels };
    let device = CpuBackend::new(options).open_device().expect("the device opens");
    println!("{} ({:?})", device.info().identity, device.info().facts);
    let only = args.get(2).map(String::as_str);
    for (title, n_tokens, start) in [("decode at 128", 1, 128), ("decode at 900", 1, 900), ("prefill of 512", 512, 0)] {
        if only.is_none_or(|only| title.starts_with(only)) {
            report(&device, title, n_tokens, start);
        }
    }
    if only.is_some() {
        return;
    }
    for what in Measurement::ALL {
        let value = device.measure(what, &mut |_| {}).expect("a measurement");
        println!("{what:?}: {value:.4e}");
    }
}
