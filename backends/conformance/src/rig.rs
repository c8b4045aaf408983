//! Runs one op on two devices and compares.

use std::{sync::Arc, time::Duration};

use biga_hal::{
    Access, Accessors, BoundKv, BoundOp, BoundWeight, Bucket, Buffer, BufferDesc, BufferSlice, DType, Device, Error,
    Executable, Op, OpKind, OpQuery, Rows, Segment, StepHeader, StepLayout, StepLimits, WeightRole,
};

use crate::{
    Options, Report,
    bench::{Bench, Image, Index},
    data::{Random, f32_bytes, f32_values, kv_values, matrix},
};

/// Ends a hang. A driver on the CPU compiles a kernel when it first runs, on a busy machine for minutes.
pub(crate) const WAIT: Duration = Duration::from_secs(1200);

/// What fills rows that no kernel may touch.
pub(crate) const UNTOUCHED: f32 = 1234.5;

/// How far two devices may differ: `relative · |expected| + of_rms · rms(expected)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Of each value.
    pub relative: f32,
    /// Of the root mean square of all expected values of the case.
    pub of_rms: f32,
}

impl Tolerance {
    /// Sums of f32 in another order.
    pub const F32: Tolerance = Tolerance { relative: 1e-5, of_rms: 2e-5 };
    /// Elementary functions of another library.
    pub const FUNCTION: Tolerance = Tolerance { relative: 2e-5, of_rms: 2e-5 };
    /// Products that may round the activations to f16 or bf16's inputs to f16.
    pub const F16: Tolerance = Tolerance { relative: 2e-3, of_rms: 4e-3 };
    /// Products that may round the activations to 8 bits by groups: a standard deviation of 0.4 % of the
    /// output's, and five of them over many outputs.
    pub const INT8: Tolerance = Tolerance { relative: 0.01, of_rms: 0.025 };

    /// Of a product with weights of a format.
    pub fn of_product(dtype: DType) -> Tolerance {
        match dtype {
            DType::F32 => Tolerance::F32,
            DType::F16 | DType::BF16 => Tolerance::F16,
            _ => Tolerance::INT8,
        }
    }

    /// Of a cache entry stored by another rounding: one step of the format.
    pub fn of_kv(dtype: DType) -> Tolerance {
        match dtype {
            DType::F32 => Tolerance { relative: 0.0, of_rms: 0.0 },
            DType::F16 => Tolerance { relative: 1e-3, of_rms: 0.0 },
            DType::BF16 => Tolerance { relative: 8e-3, of_rms: 0.0 },
            _ => Tolerance { relative: 1e-3, of_rms: 0.016 },
        }
    }
}

/// Compares two runs; the error names the worst place.
pub(crate) fn compare(expected: &[f32], seen: &[f32], tolerance: Tolerance, factor: f32) -> Result<(), String> {
    if expected.len() != seen.len() {
        return Err(format!("{} values, {} wanted", seen.len(), expected.len()));
    }
    let touched = || expected.iter().filter(|&&x| x != UNTOUCHED);
    let squares: f64 = touched().map(|&x| f64::from(x) * f64::from(x)).sum();
    let rms = (squares / touched().count().max(1) as f64).sqrt() as f32;
    let mut worst: Option<(f32, usize)> = None;
    for (i, (&e, &s)) in expected.iter().zip(seen).enumerate() {
        let bound = if e == UNTOUCHED { 0.0 } else { factor * (tolerance.relative * e.abs() + tolerance.of_rms * rms) };
        let excess = (e - s).abs() - bound;
        // Written so that a NaN on either side counts as a difference.
        let within = excess <= 0.0 || e == s;
        if !within && worst.is_none_or(|(worst, _)| excess > worst || excess.is_nan()) {
            worst = Some((excess, i));
        }
    }
    match worst {
        None => Ok(()),
        Some((_, i)) => {
            Err(format!("element {i}: {} where {} was expected (rms {rms}, {tolerance:?})", seen[i], expected[i]))
        }
    }
}

/// One sequence's part of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) slot: usize,
    pub(crate) start: usize,
    pub(crate) count: usize,
}

/// A step and the bucket that it runs in.
#[derive(Clone, Debug)]
pub(crate) struct StepCase {
    pub(crate) runs: Vec<Run>,
    /// Rows of the bucket beyond those of the step.
    pub(crate) spare: usize,
    pub(crate) outputs: Vec<u32>,
}

impl StepCase {
    /// `count` rows of one sequence from position 0.
    pub(crate) fn rows(count: usize, spare: usize) -> StepCase {
        StepCase { runs: vec![Run { slot: 0, start: 0, count }], spare, outputs: vec![(count - 1) as u32] }
    }

    pub(crate) fn of(runs: &[(usize, usize, usize)]) -> StepCase {
        let runs: Vec<Run> = runs.iter().map(|&(slot, start, count)| Run { slot, start, count }).collect();
        let mut end = 0;
        let last = |run: &Run| {
            end += run.count;
            (end - 1) as u32
        };
        let outputs = runs.iter().map(last).collect();
        StepCase { runs, spare: 0, outputs }
    }

    pub(crate) fn n_tokens(&self) -> usize {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Positions and slots of the rows.
    pub(crate) fn places(&self) -> Vec<(u32, u32)> {
        let of_run = |run: &Run| {
            let run = *run;
            (run.start..run.start + run.count).map(move |position| (position as u32, run.slot as u32))
        };
        self.runs.iter().flat_map(of_run).collect()
    }

    pub(crate) fn bucket(&self) -> Bucket {
        Bucket {
            tokens: self.n_tokens() + self.spare,
            sequences: self.runs.len() + self.spare.min(1),
            outputs: self.outputs.len() + self.spare,
        }
    }
}

/// The KV cache of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvCase {
    pub(crate) dtype: DType,
    pub(crate) block_len: usize,
    pub(crate) max_blocks: usize,
}

/// One op with its data described.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) kind: OpKind,
    pub(crate) weights: Vec<DType>,
    pub(crate) step: StepCase,
    pub(crate) rows: Rows,
    pub(crate) in_place: bool,
    pub(crate) kv: Option<KvCase>,
    /// Largest input.
    pub(crate) magnitude: f32,
    pub(crate) tolerance: Tolerance,
}

impl Case {
    /// An op over the tokens of a step, without a cache.
    pub(crate) fn new(kind: OpKind, weights: Vec<DType>, step: StepCase, tolerance: Tolerance) -> Case {
        Case { kind, weights, step, rows: Rows::Tokens, in_place: false, kv: None, magnitude: 1.0, tolerance }
    }

    pub(crate) fn name(&self) -> String {
        let weights: Vec<&str> = self.weights.iter().map(|dtype| dtype.name()).collect();
        let kind = format!("{:?}", self.kind);
        let kind = if kind.len() > 140 { format!("{}…", &kind[..140]) } else { kind };
        let kv = self.kv.map_or(String::new(), |kv| format!(" kv {} × {}", kv.dtype, kv.block_len));
        let runs: Vec<_> = self.step.runs.iter().map(|run| (run.slot, run.start, run.count)).collect();
        let in_place = if self.in_place { " in place" } else { "" };
        let inputs = if self.magnitude == 1.0 { String::new() } else { format!(" inputs to {:e}", self.magnitude) };
        format!("{kind} [{}]{kv} runs {runs:?} + {}{in_place}{inputs}", weights.join(" "), self.step.spare)
    }

    fn limits(&self) -> StepLimits {
        let bucket = self.step.bucket();
        StepLimits {
            max_tokens: bucket.tokens + 3,
            max_outputs: bucket.outputs + 1,
            max_slots: self.step.runs.iter().map(|run| run.slot).max().unwrap_or(0) + 2,
            max_blocks: self.kv.map_or(1, |kv| kv.max_blocks),
            n_tables: 2,
        }
    }

    fn output_rows(&self) -> usize {
        let bucket = self.step.bucket();
        if self.rows == Rows::Outputs { bucket.outputs } else { bucket.tokens }
    }

    fn input_rows(&self) -> usize {
        let bucket = self.step.bucket();
        let tokens = self.rows == Rows::Tokens || matches!(self.kind, OpKind::SelectOutputs { .. });
        if tokens { bucket.tokens } else { bucket.outputs }
    }
}

/// The bytes that a case runs on: the same for both devices.
struct Data {
    tokens: Vec<u32>,
    inputs: Vec<Vec<u8>>,
    weights: Vec<Vec<u8>>,
    pool: Vec<u8>,
    /// Block of the pool behind each `[slot, block]`.
    table: Vec<usize>,
}

/// Bytes of one layer's keys in a block, and of a block of two layers with some padding.
fn kv_sizes(kind: &OpKind, kv: &KvCase) -> (usize, usize) {
    let (OpKind::KvAppend { heads } | OpKind::Attention { heads, .. }) = kind else { return (0, 0) };
    let row_bytes = kv.dtype.row_bytes(heads.head_dim).unwrap_or(0);
    let keys = (heads.n_kv_heads * kv.block_len * row_bytes).next_multiple_of(16);
    (keys, 4 * keys + 64)
}

impl Data {
    fn new(case: &Case, seed: u64) -> Data {
        let mut random = Random::new(seed);
        let vocab = if let OpKind::Embed { vocab, .. } = case.kind { vocab } else { 100 };
        let tokens = (0..case.step.n_tokens()).map(|_| random.below(vocab) as u32).collect();
        let rows = case.input_rows();
        let mut values = |n: usize| random.units(n).iter().map(|unit| unit * case.magnitude).collect::<Vec<f32>>();
        let inputs = case.kind.input_widths().iter().map(|width| f32_bytes(&values(rows * width))).collect();
        let weights = case
            .kind
            .weights()
            .iter()
            .zip(&case.weights)
            .map(|(shape, &dtype)| matrix(&mut random, dtype, shape.rows, shape.columns))
            .collect();
        let (mut pool, mut table) = (Vec::new(), Vec::new());
        if let Some(kv) = &case.kv {
            let limits = case.limits();
            let n_blocks = limits.max_slots * limits.max_blocks;
            let (keys, block_bytes) = kv_sizes(&case.kind, kv);
            let elements = keys / kv.dtype.block_bytes() * kv.dtype.block_len();
            for _ in 0..n_blocks {
                let end = pool.len() + block_bytes;
                // Keys and values of two layers, each padded to its size, then the block's own padding.
                for part in 1..=4 {
                    pool.extend(matrix(&mut random, kv.dtype, 1, elements));
                    pool.resize(end - block_bytes + part * keys, 0xA5);
                }
                pool.resize(end, 0xA5);
            }
            table = (0..n_blocks).collect();
            for i in (1..n_blocks).rev() {
                table.swap(i, random.below(i + 1));
            }
        }
        Data { tokens, inputs, weights, pool, table }
    }
}

/// Memory that the host fills and reads.
pub(crate) fn allocate(device: &dyn Device, name: &str, size_bytes: usize) -> biga_hal::Result<Buffer> {
    let accessors = Accessors { host: Some(Access::ReadWrite), devices: Vec::new() };
    device.allocate(&BufferDesc { name: name.into(), size_bytes: size_bytes.max(4) as u64, accessors })
}

/// A buffer with content.
pub(crate) fn filled(device: &dyn Device, name: &str, bytes: &[u8]) -> biga_hal::Result<BufferSlice> {
    let slice = allocate(device, name, bytes.len())?.slice(0, bytes.len() as u64)?;
    device.write(&slice, bytes)?;
    Ok(slice)
}

/// A weight in the device's layout.
pub(crate) fn weight(
    device: &dyn Device,
    shape: &biga_hal::WeightShape,
    dtype: DType,
    bytes: &[u8],
) -> biga_hal::Result<BoundWeight> {
    let size_bytes = device.weight_size_bytes(shape, dtype);
    let desc = BufferDesc { name: "weight".into(), size_bytes, accessors: Accessors::default() };
    let slice = device.allocate(&desc)?.whole();
    device.load_weight(shape, dtype, bytes, &slice)?;
    Ok(BoundWeight { slice, dtype, rows: shape.rows, columns: shape.columns })
}

/// The bytes of a step buffer; `block` gives the address behind `[table, slot, block]`.
pub(crate) fn step_bytes(
    layout: &StepLayout,
    step: &StepCase,
    tokens: &[u32],
    block: impl Fn(usize, usize, usize) -> u64,
) -> Vec<u8> {
    let mut bytes = vec![0; layout.size_bytes];
    let header = StepHeader {
        n_tokens: step.n_tokens() as u32,
        n_sequences: step.runs.len() as u32,
        n_outputs: step.outputs.len() as u32,
        ..StepHeader::default()
    };
    bytes[..StepHeader::SIZE_BYTES].copy_from_slice(&header.to_bytes());
    let mut put = |offset: usize, words: &mut dyn Iterator<Item = u32>| {
        for (i, word) in words.enumerate() {
            bytes[offset + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
    };
    put(layout.tokens, &mut tokens.iter().copied());
    put(layout.positions, &mut step.places().iter().map(|place| place.0));
    put(layout.slots, &mut step.places().iter().map(|place| place.1));
    put(layout.outputs, &mut step.outputs.iter().copied());
    for table in 0..layout.limits.n_tables {
        for slot in 0..layout.limits.max_slots {
            for index in 0..layout.limits.max_blocks {
                let at = layout.table_row(table, slot) + 8 * index;
                bytes[at..at + 8].copy_from_slice(&block(table, slot, index).to_le_bytes());
            }
        }
    }
    bytes
}

/// Submits and waits.
pub(crate) fn finish(device: &dyn Device, executable: &dyn biga_hal::Executable) -> biga_hal::Result<()> {
    device.submit(executable, &[])?.wait(WAIT)
}

/// All bytes of a slice.
pub(crate) fn contents(device: &dyn Device, slice: &BufferSlice) -> biga_hal::Result<Vec<u8>> {
    let mut bytes = vec![0; slice.size_bytes() as usize];
    device.read(slice, &mut bytes)?;
    Ok(bytes)
}

/// A case on one device, after its first run.
struct Trial<'a> {
    bench: Bench<'a>,
    executable: Arc<dyn Executable>,
    before: Image,
    after: Image,
    /// Where the output and the cache are.
    output: Option<Index>,
    pool: Option<Index>,
}

impl<'a> Trial<'a> {
    fn new(device: &'a dyn Device, case: &Case, data: &Data) -> biga_hal::Result<Trial<'a>> {
        let layout = StepLayout::new(case.limits())?;
        let mut bench = Bench::new(device);
        let (mut inputs, mut places) = (Vec::new(), Vec::new());
        for bytes in &data.inputs {
            inputs.push(bench.value("input", bytes)?);
            places.push(bench.last());
        }
        let mut weights = Vec::new();
        for ((shape, &dtype), bytes) in case.kind.weights().iter().zip(&case.weights).zip(&data.weights) {
            weights.push(bench.weight(shape, dtype, bytes)?);
        }
        let (output, output_place) = match case.kind.output_width() {
            Some(_) if case.in_place => {
                let index = case.kind.in_place_input();
                (index.and_then(|i| inputs.get(i).cloned()), index.and_then(|i| places.get(i).copied()))
            }
            Some(width) => {
                let bytes = f32_bytes(&vec![UNTOUCHED; case.output_rows() * width]);
                (Some(bench.value("output", &bytes)?), Some(bench.last()))
            }
            None => (None, None),
        };
        let kv = case.kv.map(|kv| {
            let (keys, block_bytes) = kv_sizes(&case.kind, &kv);
            // The second of two layers, in the second of two tables.
            BoundKv {
                table: 1,
                block_len: kv.block_len,
                k_offset_bytes: 2 * keys as u64,
                v_offset_bytes: 3 * keys as u64,
                block_bytes: block_bytes as u64,
                dtype: kv.dtype,
            }
        });
        let pool = kv.as_ref().map(|kv| bench.pool(&data.pool, kv.table, kv.block_bytes as usize)).transpose()?;
        let pool_place = pool.is_some().then(|| bench.last());
        let max_blocks = layout.limits.max_blocks;
        let block = |table: usize, slot: usize, index: usize| match (&pool, &kv) {
            (Some(pool), Some(kv)) if table == kv.table => {
                pool.device_address() + data.table[slot * max_blocks + index] as u64 * kv.block_bytes
            }
            _ => 0,
        };
        let step = bench.step(&step_bytes(&layout, &case.step, &data.tokens, block))?;
        let op = Arc::new(Op { kind: case.kind.clone(), layer: Some(0) });
        let bound = BoundOp { op, rows: case.rows, inputs, output, weights, kv, internal: false };
        let bucket = case.step.bucket();
        let segment = Segment { name: case.kind.name().into(), bucket, ops: vec![bound], step, step_layout: layout };
        let executable = device.compile(&segment)?;
        let before = bench.image()?;
        let after = bench.run(&*executable, &before)?;
        Ok(Trial { bench, executable, before, after, output: output_place, pool: pool_place })
    }

    fn output(&self) -> Vec<f32> {
        self.output.map_or(Vec::new(), |place| f32_values(self.bench.bytes(&self.after, place)))
    }

    fn pool(&self) -> &[u8] {
        self.pool.map_or(&[], |place| self.bench.bytes(&self.after, place))
    }
}

/// The two devices.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) reference: &'a dyn Device,
    pub(crate) device: &'a dyn Device,
    pub(crate) options: &'a Options,
}

impl Pair<'_> {
    pub(crate) fn run_all(&self, cases: Vec<Case>, report: &mut Report) {
        for (index, case) in cases.iter().enumerate() {
            let query = OpQuery { kind: &case.kind, weights: &case.weights, kv: case.kv.map(|kv| kv.dtype) };
            if let Err(unsupported) = self.device.supports(&query) {
                report.unsupported.push((case.name(), unsupported.cause));
                continue;
            }
            report.enter(case.name(), self.run_case(case, index));
        }
    }

    fn run_case(&self, case: &Case, index: usize) -> Result<(), String> {
        let data = Data::new(case, self.options.seed.wrapping_mul(1_000_003).wrapping_add(index as u64));
        let expected = Trial::new(self.reference, case, &data).map_err(|error| format!("reference: {error}"))?;
        let seen = Trial::new(self.device, case, &data).map_err(|error: Error| error.to_string())?;
        compare(&expected.output(), &seen.output(), case.tolerance, self.options.tolerance_factor)?;
        if let Some(kv) = &case.kv {
            compare_pools(case, kv, &data.pool, expected.pool(), seen.pool(), self.options.tolerance_factor)?;
        }
        let Trial { bench, executable, before, after, .. } = &seen;
        bench.prove(&**executable, before, after)?;
        // In place, what stays the same may have been written; in a larger bucket, rows are left alone.
        if !case.in_place && case.step.spare == 0 {
            bench.all_written(&**executable, before, after)?;
        }
        Ok(())
    }
}

/// Entries that the reference wrote are finite and agree within the format's step; all other bytes are as
/// they were.
fn compare_pools(
    case: &Case,
    kv: &KvCase,
    before: &[u8],
    expected: &[u8],
    seen: &[u8],
    factor: f32,
) -> Result<(), String> {
    let (keys, block_bytes) = kv_sizes(&case.kind, kv);
    let unit = kv.dtype.block_bytes();
    for (block, ((before, expected), seen)) in
        before.chunks(block_bytes).zip(expected.chunks(block_bytes)).zip(seen.chunks(block_bytes)).enumerate()
    {
        let (layer, rest) = (2 * keys, 4 * keys);
        if before[..layer] != seen[..layer] || before[rest..] != seen[rest..] {
            return Err(format!("block {block}: bytes of another layer were written"));
        }
        for part in [layer..layer + keys, layer + keys..rest] {
            let rows = before[part.clone()].chunks(unit).zip(expected[part.clone()].chunks(unit));
            for (i, ((before, expected), seen)) in rows.zip(seen[part].chunks(unit)).enumerate() {
                if before == expected && before != seen {
                    return Err(format!("block {block}, entry {i}: written though no token stands there"));
                }
                if before != expected || before != seen {
                    let (expected, seen) = (kv_values(kv.dtype, expected), kv_values(kv.dtype, seen));
                    // An infinity would agree with an infinity, and make every sum that reads it no number.
                    if !expected.iter().chain(&seen).all(|value| value.is_finite()) {
                        return Err(format!("block {block}, entry {i}: {seen:?} where {expected:?} was expected"));
                    }
                    compare(&expected, &seen, Tolerance::of_kv(kv.dtype), factor)
                        .map_err(|cause| format!("block {block}, entry {i}: {cause}"))?;
                }
            }
        }
    }
    Ok(())
}

/// The format of every weight of an op, vectors staying f32.
pub(crate) fn weight_dtypes(kind: &OpKind, dtype: DType) -> Vec<DType> {
    kind.weights().iter().map(|shape| if shape.role == WeightRole::Vector { DType::F32 } else { dtype }).collect()
}
