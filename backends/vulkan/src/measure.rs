//! Measures a device: how fast it reads, computes, launches and answers.
//!
//! Each figure is the best of several runs: what the device can sustain, not what else the machine did. Reads
//! and products are repeated within a submission until it takes [`RUN_S`], beside which its own cost is nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use biga_hal::{
    Accessors, BoundOp, BoundWeight, Bucket, Buffer, BufferDesc, DType, Device, DeviceKind, Measurement, Op, OpKind,
    Result, Rows, Segment, StepHeader, StepLayout, StepLimits, WeightRole, WeightShape,
};

use crate::{device::VulkanDevice, executable::VulkanExecutable, tuning::Tuning};

/// Bytes that a GPU reads in a pass: so many times its largest cache that what is left in there from the pass
/// before does not count.
const READ_BYTES: u64 = 2 << 30;
/// The same where the CPU does the reading.
const SOFTWARE_READ_BYTES: u64 = 256 << 20;
/// Seconds that a submission of repetitions takes at least, unless [`MAX_REPEATS`] are over before.
const RUN_S: f64 = 0.02;
/// Most repetitions in a submission.
const MAX_REPEATS: usize = 1024;
/// How long one thing is run over and over.
const BUDGET: Duration = Duration::from_millis(400);
/// Runs that are made even if they take longer than that.
const MIN_RUNS: usize = 2;
/// Launches in one submission.
const LAUNCHES: usize = 256;

/// One figure, in the unit of [`biga_hal::Rates`].
pub(crate) fn measure(device: &VulkanDevice, what: Measurement, progress: &mut dyn FnMut(f64)) -> Result<f64> {
    match what {
        Measurement::ReadBandwidth => read_bandwidth(device, progress),
        Measurement::Arithmetic => arithmetic(device, progress),
        Measurement::Launch => launch(device, progress),
        Measurement::Submit => submit(device, progress),
    }
}

pub(crate) fn buffer(device: &VulkanDevice, name: &str, size_bytes: u64) -> Result<Buffer> {
    device.allocate(&BufferDesc { name: format!("measure {name}"), size_bytes, accessors: Accessors::default() })
}

/// The shortest run that there is time for after one that warms up.
fn best_of(progress: &mut dyn FnMut(f64), budget: Duration, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let (start, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < MIN_RUNS || start.elapsed() < budget {
        let before = Instant::now();
        run()?;
        best = best.min(before.elapsed().as_secs_f64());
        runs += 1;
        if runs.is_power_of_two() {
            progress((start.elapsed().as_secs_f64() / budget.as_secs_f64()).min(1.0));
        }
    }
    progress(1.0);
    Ok(best.max(1e-9))
}

/// Seconds of one repetition; `submit` returns a submission of so many.
pub(crate) fn repeated<R: FnMut() -> Result<()>>(
    progress: &mut dyn FnMut(f64),
    submit: impl Fn(usize) -> Result<R>,
) -> Result<f64> {
    let once_s = best_of(&mut |_| (), BUDGET / 8, submit(1)?)?;
    let repeats = ((RUN_S / once_s).ceil() as usize).clamp(1, MAX_REPEATS);
    Ok(best_of(progress, BUDGET, submit(repeats)?)? / repeats as f64)
}

fn read_bandwidth(device: &VulkanDevice, progress: &mut dyn FnMut(f64)) -> Result<f64> {
    let info = device.info();
    let (wanted_bytes, groups) = match info.kind {
        DeviceKind::SoftwareGpu => (SOFTWARE_READ_BYTES, 64),
        _ => (READ_BYTES, 4096),
    };
    let size_bytes = wanted_bytes.min(info.memory_bytes / 8).min(info.max_allocation_bytes) / 16 * 16;
    let from = buffer(device, "read", size_bytes)?;
    let seconds = repeated(progress, |passes| {
        let to = buffer(device, "sums", (passes * groups * 4) as u64)?;
        let recording = device.record_reading(&from, &to, passes, groups as u32)?;
        Ok(move || {
            // The recording knows addresses alone.
            let _held = &to;
            device.run_recording(&recording)
        })
    })?;
    Ok(size_bytes as f64 / seconds)
}

/// A step buffer that says: so many tokens.
fn step(device: &VulkanDevice, tokens: usize) -> Result<(Buffer, StepLayout)> {
    let limits = StepLimits { max_tokens: tokens, max_outputs: 1, max_slots: 1, max_blocks: 1, n_tables: 1 };
    let layout = StepLayout::new(limits)?;
    let step = buffer(device, "step", layout.size_bytes as u64)?;
    let header = StepHeader {
        n_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        n_sequences: 1,
        n_outputs: 0,
        ..StepHeader::default()
    };
    device.write(&step.slice(0, StepHeader::SIZE_BYTES as u64)?, &header.to_bytes())?;
    Ok((step, layout))
}

pub(crate) fn compile(
    device: &VulkanDevice,
    tuning: &Tuning,
    tokens: usize,
    ops: Vec<BoundOp>,
) -> Result<VulkanExecutable> {
    let (step, step_layout) = step(device, tokens)?;
    let bucket = Bucket { tokens, sequences: 1, outputs: 1 };
    let segment = Segment { name: "measure".to_owned(), bucket, ops, step: step.whole(), step_layout };
    device.compile_with(&segment, tuning)
}

pub(crate) fn run(device: &VulkanDevice, executable: &VulkanExecutable) -> Result<()> {
    device.run_recording(executable.recording())
}

/// A product of the shape that prompts bring.
fn arithmetic(device: &VulkanDevice, progress: &mut dyn FnMut(f64)) -> Result<f64> {
    let (size, tokens) = match device.info().kind {
        DeviceKind::SoftwareGpu => (1024, 64),
        _ => (4096, 512),
    };
    let bound = product(device, tokens, [size, size], DType::Q8_0)?;
    let seconds = repeated(progress, |products| {
        let executable = compile(device, device.tuning(), tokens, vec![bound.clone(); products])?;
        Ok(move || run(device, &executable))
    })?;
    Ok(2.0 * (size * size * tokens) as f64 / seconds)
}

/// A product of x with a weight of so many rows and columns.
pub(crate) fn product(
    device: &VulkanDevice,
    tokens: usize,
    [rows, columns]: [usize; 2],
    dtype: DType,
) -> Result<BoundOp> {
    let kind = OpKind::Down { ff: columns, width: rows };
    let shape = WeightShape { role: WeightRole::Matrix, rows, columns };
    let weight = buffer(device, "weight", device.weight_size_bytes(&shape, dtype))?;
    let x = buffer(device, "x", (4 * tokens * columns) as u64)?;
    let y = buffer(device, "y", (4 * tokens * rows) as u64)?;
    Ok(BoundOp {
        op: Arc::new(Op { kind, layer: None }),
        rows: Rows::Tokens,
        inputs: vec![x.whole()],
        output: Some(y.whole()),
        weights: vec![BoundWeight { slice: weight.whole(), dtype, rows, columns }],
        kv: None,
        internal: false,
    })
}

fn residuals(device: &VulkanDevice, count: usize) -> Result<VulkanExecutable> {
    let value = buffer(device, "value", 256)?;
    let branch = buffer(device, "branch", 256)?;
    let op = Arc::new(Op { kind: OpKind::Residual { width: 64 }, layer: None });
    // Each adds to the value in place, so each waits for the one before.
    let bound = BoundOp {
        op,
        rows: Rows::Tokens,
        inputs: vec![value.whole(), branch.whole()],
        output: Some(value.whole()),
        weights: Vec::new(),
        kv: None,
        internal: false,
    };
    compile(device, device.tuning(), 1, vec![bound; count])
}

/// What each further launch with its barrier costs.
fn launch(device: &VulkanDevice, progress: &mut dyn FnMut(f64)) -> Result<f64> {
    let many = residuals(device, LAUNCHES)?;
    let one = residuals(device, 1)?;
    let long = best_of(&mut |part| progress(part * 0.5), BUDGET, || run(device, &many))?;
    let short = best_of(&mut |part| progress(0.5 + part * 0.5), BUDGET, || run(device, &one))?;
    Ok(((long - short) / (LAUNCHES - 1) as f64).max(1e-9))
}

/// From a submission of nothing to its fence.
fn submit(device: &VulkanDevice, progress: &mut dyn FnMut(f64)) -> Result<f64> {
    let empty = compile(device, device.tuning(), 1, Vec::new())?;
    best_of(progress, BUDGET, || run(device, &empty))
}
