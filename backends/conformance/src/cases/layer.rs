//! A whole small model in one segment, memory shared between values as a plan would share it.
//!
//! The same prompt is run in one step, in ragged chunks and one token at a time; every way must give the
//! reference's logits. This is where wrong ordering between ops shows. Then the segment is compiled op by
//! op longer, and what its launches declare is put to the proof each time: so each launch comes last once,
//! also one that does the work of several ops.

use std::sync::Arc;

use biga_hal::{
    Activation, BoundKv, BoundOp, Bucket, BufferSlice, DType, Device, Heads, Op, OpKind, OpQuery, Result, RopeStyle,
    Rows, Segment, StepLayout, StepLimits,
};

use crate::{
    Report,
    bench::Bench,
    data::{Random, f32_values, matrix},
    rig::{Pair, StepCase, Tolerance, compare, contents, finish, step_bytes, weight_dtypes},
};

const WIDTH: usize = 256;
const FF: usize = 512;
const VOCAB: usize = 300;
const HEADS: Heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 64 };
const N_LAYERS: usize = 2;
const BLOCK_LEN: usize = 16;
const MAX_BLOCKS: usize = 4;
const N_SLOTS: usize = 2;
const PROMPT: usize = 37;
const BUCKET: Bucket = Bucket { tokens: 40, sequences: 2, outputs: 40 };

/// Which values an op reads and writes: index of the memory that it lives in.
struct Node {
    kind: OpKind,
    inputs: &'static [usize],
    output: Option<usize>,
    rows: Rows,
}

/// Memories: 0 the residual stream, 1 a wide scratch, 2 another, 3 the selected rows, 4 the logits.
const MEMORIES: [usize; 5] = [WIDTH, 2 * FF, 2 * FF, WIDTH, VOCAB];

fn nodes() -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut add = |kind: OpKind, inputs: &'static [usize], output: Option<usize>, rows: Rows| {
        nodes.push(Node { kind, inputs, output, rows });
    };
    let norm = || OpKind::RmsNorm { width: WIDTH, eps: 1e-5, weight_offset: 0.5 };
    let inv_freqs: Arc<[f32]> = (0..HEADS.head_dim / 2).map(|i| 100.0_f32.powf(-(i as f32) / 32.0)).collect();
    add(OpKind::Embed { vocab: VOCAB, width: WIDTH, scale: 1.0 }, &[], Some(0), Rows::Tokens);
    for layer in 0..N_LAYERS {
        let window = (layer == 1).then_some(20);
        add(norm(), &[0], Some(1), Rows::Tokens);
        add(OpKind::QkvProjection { width: WIDTH, heads: HEADS, bias: true }, &[1], Some(2), Rows::Tokens);
        add(OpKind::QkNorm { heads: HEADS, eps: 1e-6, weight_offset: 1.0 }, &[2], Some(2), Rows::Tokens);
        let rope = OpKind::Rope { heads: HEADS, style: RopeStyle::Halves, inv_freqs: Arc::clone(&inv_freqs) };
        add(rope, &[2], Some(2), Rows::Tokens);
        add(OpKind::KvAppend { heads: HEADS }, &[2], None, Rows::Tokens);
        let attention = OpKind::Attention { heads: HEADS, scale: 0.125, window, softcap: None };
        add(attention, &[2], Some(1), Rows::Tokens);
        add(OpKind::OutputProjection { input: 256, output: WIDTH, bias: false }, &[1], Some(2), Rows::Tokens);
        add(OpKind::Residual { width: WIDTH }, &[0, 2], Some(0), Rows::Tokens);
        add(norm(), &[0], Some(1), Rows::Tokens);
        add(OpKind::GateUp { width: WIDTH, ff: FF }, &[1], Some(2), Rows::Tokens);
        add(OpKind::Activate { ff: FF, activation: Activation::Silu }, &[2], Some(1), Rows::Tokens);
        add(OpKind::Down { ff: FF, width: WIDTH }, &[1], Some(2), Rows::Tokens);
        add(OpKind::Residual { width: WIDTH }, &[0, 2], Some(0), Rows::Tokens);
    }
    add(OpKind::SelectOutputs { width: WIDTH }, &[0], Some(3), Rows::Outputs);
    add(norm(), &[3], Some(3), Rows::Outputs);
    add(OpKind::Head { width: WIDTH, vocab: VOCAB, softcap: None }, &[3], Some(4), Rows::Outputs);
    nodes
}

/// The model on one device.
struct Model<'a> {
    bench: Bench<'a>,
    segment: Segment,
    pool: BufferSlice,
    logits: BufferSlice,
    block_bytes: u64,
    seed: u64,
}

impl<'a> Model<'a> {
    fn new(device: &'a dyn Device, dtype: DType, kv: DType, bucket: Bucket, seed: u64) -> Result<Model<'a>> {
        let limits = StepLimits {
            max_tokens: bucket.tokens,
            max_outputs: bucket.outputs,
            max_slots: N_SLOTS,
            max_blocks: MAX_BLOCKS,
            n_tables: 1,
        };
        let layout = StepLayout::new(limits)?;
        let mut bench = Bench::new(device);
        let step = bench.step(&vec![0; layout.size_bytes])?;
        let mut memories = Vec::new();
        for width in MEMORIES {
            memories.push(bench.value("value", &vec![0; bucket.tokens * width * 4])?);
        }
        let row_bytes = kv.row_bytes(HEADS.head_dim).unwrap_or(0);
        let part_bytes = (HEADS.n_kv_heads * BLOCK_LEN * row_bytes) as u64;
        let block_bytes = part_bytes * 2 * N_LAYERS as u64;
        let blocks = vec![0; N_SLOTS * MAX_BLOCKS * block_bytes as usize];
        let pool = bench.pool(&blocks, 0, block_bytes as usize)?;
        let mut random = Random::new(seed);
        let (mut ops, mut appended) = (Vec::new(), 0);
        for node in nodes() {
            let slice = |index: usize, width: usize| memories[index].slice(0, (bucket.tokens * width * 4) as u64);
            let inputs = node.inputs.iter().zip(node.kind.input_widths());
            let inputs = inputs.map(|(&index, width)| slice(index, width)).collect::<Result<_>>()?;
            let output =
                node.output.zip(node.kind.output_width()).map(|(index, width)| slice(index, width)).transpose()?;
            let mut weights = Vec::new();
            for (shape, dtype) in node.kind.weights().iter().zip(weight_dtypes(&node.kind, dtype)) {
                let bytes = matrix(&mut random, dtype, shape.rows, shape.columns);
                weights.push(bench.weight(shape, dtype, &bytes)?);
            }
            let kv = node.kind.uses_kv().then(|| BoundKv {
                table: 0,
                block_len: BLOCK_LEN,
                k_offset_bytes: appended * 2 * part_bytes,
                v_offset_bytes: (appended * 2 + 1) * part_bytes,
                block_bytes,
                dtype: kv,
            });
            if let OpKind::Attention { .. } = node.kind {
                appended += 1;
            }
            let op = Arc::new(Op { kind: node.kind, layer: None });
            // Only the logits are looked at.
            let internal = !matches!(op.kind, OpKind::Head { .. });
            ops.push(BoundOp { op, rows: node.rows, inputs, output, weights, kv, internal });
        }
        let segment = Segment { name: "model".into(), bucket, ops, step, step_layout: layout };
        let logits = memories[4].clone();
        Ok(Model { bench, segment, pool, logits, block_bytes, seed })
    }

    fn write_step(&self, step: &StepCase) -> Result<()> {
        let token = |&(position, slot): &(u32, u32)| {
            Random::new(self.seed ^ u64::from(position * 7 + slot)).below(VOCAB) as u32
        };
        let tokens: Vec<u32> = step.places().iter().map(token).collect();
        let block = |_: usize, slot: usize, index: usize| {
            self.pool.device_address() + (index * N_SLOTS + (N_SLOTS - 1 - slot)) as u64 * self.block_bytes
        };
        self.bench.device.write(&self.segment.step, &step_bytes(&self.segment.step_layout, step, &tokens, block))
    }

    /// The logits of every position of sequence 0, in steps of these sizes; sequence 1 runs along.
    fn prompt(&self, sizes: &[usize]) -> Result<Vec<f32>> {
        let (device, bucket) = (self.bench.device, self.segment.bucket);
        let executable = device.compile(&self.segment)?;
        let (mut logits, mut start) = (Vec::new(), 0);
        for (index, &count) in sizes.iter().enumerate() {
            // The other sequence takes one token of its own in every step that has room for it.
            let mut runs = vec![(0, start, count)];
            if start + count + index < bucket.tokens && count < bucket.tokens {
                runs.insert(0, (1, index, 1));
            }
            let mut step = StepCase::of(&runs);
            let first = (runs.len() - 1) as u32;
            step.outputs = (first..first + count as u32).collect();
            self.write_step(&step)?;
            finish(device, &*executable)?;
            let bytes = (step.outputs.len() * VOCAB * 4) as u64;
            logits.extend(f32_values(&contents(device, &self.logits.slice(0, bytes)?)?));
            start += count;
        }
        Ok(logits)
    }

    /// Puts the declarations of the first ops to the proof, of one op and of ever more.
    fn prove(&self, step: &StepCase) -> std::result::Result<(), String> {
        let text = |error: biga_hal::Error| error.to_string();
        self.write_step(step).map_err(text)?;
        let before = self.bench.image().map_err(text)?;
        for n_ops in 1..=self.segment.ops.len() {
            let segment = Segment { ops: self.segment.ops[..n_ops].to_vec(), ..self.segment.clone() };
            let executable = self.bench.device.compile(&segment).map_err(text)?;
            let after = self.bench.run(&*executable, &before).map_err(text)?;
            self.bench
                .prove(&*executable, &before, &after)
                .map_err(|cause| format!("the first {n_ops} ops: {cause}"))?;
        }
        Ok(())
    }
}

/// Runs the model on both devices.
pub(crate) fn run(pair: &Pair<'_>, report: &mut Report) {
    let formats = [
        (DType::F32, DType::F32),
        (DType::F16, DType::F16),
        (DType::BF16, DType::BF16),
        (DType::Q8_0, DType::Q8_0),
        (DType::Q4_0, DType::F16),
        (DType::Q4_1, DType::F16),
        (DType::Q6_K, DType::F32),
    ];
    for (dtype, kv) in formats {
        enter(pair, report, format!("model {dtype}, kv {kv}"), (dtype, kv), || check(pair, dtype, kv));
    }
    for (dtype, kv) in [(DType::F32, DType::F32), (DType::Q4_1, DType::Q8_0)] {
        for (what, tokens) in [("decode", 1), ("prefill", 16)] {
            let name = format!("declarations of a {what} segment, model {dtype}, kv {kv}");
            enter(pair, report, name, (dtype, kv), || declarations(pair, dtype, kv, tokens));
        }
    }
}

fn enter(
    pair: &Pair<'_>,
    report: &mut Report,
    name: String,
    (dtype, kv): (DType, DType),
    case: impl FnOnce() -> std::result::Result<(), String>,
) {
    let refusal = nodes().iter().find_map(|node| {
        let weights = weight_dtypes(&node.kind, dtype);
        let kv = node.kind.uses_kv().then_some(kv);
        pair.device.supports(&OpQuery { kind: &node.kind, weights: &weights, kv }).err()
    });
    match refusal {
        Some(refusal) => report.unsupported.push((name, refusal.to_string())),
        None => report.enter(name, case()),
    }
}

fn declarations(pair: &Pair<'_>, dtype: DType, kv: DType, tokens: usize) -> std::result::Result<(), String> {
    let text = |error: biga_hal::Error| error.to_string();
    let bucket = Bucket { tokens, sequences: N_SLOTS, outputs: 1 };
    let model = Model::new(pair.device, dtype, kv, bucket, pair.options.seed).map_err(text)?;
    // Something in the cache, and a position in the middle of a block.
    model.prompt(&[1, 1, 1]).map_err(text)?;
    model.prove(&StepCase::of(&[(0, 3, tokens)]))
}

fn check(pair: &Pair<'_>, dtype: DType, kv: DType) -> std::result::Result<(), String> {
    // Errors of single products pass through two layers of random weights, and add up.
    let tolerance = match (dtype, kv) {
        (DType::F32, DType::F32) => Tolerance { relative: 1e-4, of_rms: 5e-4 },
        (DType::F16, _) => Tolerance { relative: 0.01, of_rms: 0.03 },
        (DType::BF16, _) => Tolerance { relative: 0.02, of_rms: 0.1 },
        _ => Tolerance { relative: 0.02, of_rms: 0.25 },
    };
    let on = |device, tokens: usize, sizes: &[usize]| {
        let bucket = Bucket { tokens, outputs: tokens, ..BUCKET };
        Model::new(device, dtype, kv, bucket, pair.options.seed)?.prompt(sizes)
    };
    let expected = on(pair.reference, BUCKET.tokens, &[PROMPT]).map_err(|error| format!("reference: {error}"))?;
    let most = BUCKET.tokens;
    let mut pairs = vec![2; PROMPT / 2];
    pairs.push(PROMPT % 2);
    pairs.retain(|&size| size > 0);
    // Devices have kernels of their own for one, for few and for some tokens.
    for (tokens, sizes) in [
        (most, &[PROMPT][..]),
        (most, &[16, 1, 13, 7]),
        (most, &[1; PROMPT]),
        (1, &[1; PROMPT]),
        (3, &pairs),
        (12, &[12, 12, 12, 1]),
    ] {
        let seen = on(pair.device, tokens, sizes).map_err(|error| error.to_string())?;
        compare(&expected, &seen, tolerance, pair.options.tolerance_factor)
            .map_err(|cause| format!("in steps of {sizes:?}, bucket of {tokens}: {cause}"))?;
    }
    Ok(())
}
