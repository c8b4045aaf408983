//! The contract apart from arithmetic: memory, refusals, fences, ordering, hostile steps.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use biga_hal::{
    Allocation, BoundKv, BoundOp, BoundWeight, Bucket, Buffer, BufferDesc, BufferSlice, DType, Device, DeviceId, Epoch,
    Error, Executable, Heads, HostRange, Measurement, Op, OpKind, RopeStyle, Rows, Segment, StepLayout, StepLimits,
};

use crate::{
    Options, Report,
    data::{f32_bytes, f32_values},
    rig::{StepCase, WAIT, allocate, contents, filled, finish, step_bytes},
};

type Outcome = Result<(), String>;

/// Fails with a message unless a condition holds.
fn ensure(holds: bool, cause: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(cause.into()) }
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Allocation, copies and bounds.
pub(crate) fn memory(device: &dyn Device, report: &mut Report) {
    report.enter("memory is zeroed", zeroed(device));
    report.enter("freed memory is zeroed again", zeroed_again(device));
    report.enter("a buffer of no bytes is refused", refuses_size(device, 0));
    report.enter("a buffer beyond all memory is refused", refuses_size(device, 1 << 60));
    report.enter("slices stay inside", slices(device));
    report.enter("copies arrive, of the right size only", copies(device));
    report.enter("weights of a wrong size are refused", weight_sizes(device));
    report.enter("own buffers can be imported", import_own(device));
}

fn zeroed(device: &dyn Device) -> Outcome {
    for size_bytes in [4, 100, 4096, 1 << 20, (5 << 20) + 12] {
        let bytes = contents(device, &allocate(device, "zeroed", size_bytes).map_err(text)?.whole()).map_err(text)?;
        ensure(bytes.len() >= size_bytes && bytes.iter().all(|&byte| byte == 0), format!("{size_bytes} bytes"))?;
    }
    Ok(())
}

fn zeroed_again(device: &dyn Device) -> Outcome {
    for size_bytes in [256, 1 << 20] {
        drop(filled(device, "dirty", &vec![0xFF; size_bytes]).map_err(text)?);
        let bytes = contents(device, &allocate(device, "zeroed", size_bytes).map_err(text)?.whole()).map_err(text)?;
        ensure(bytes.iter().all(|&byte| byte == 0), format!("{size_bytes} bytes"))?;
    }
    Ok(())
}

fn refuses_size(device: &dyn Device, size_bytes: u64) -> Outcome {
    let desc = BufferDesc { name: "absurd".into(), size_bytes, accessors: biga_hal::Accessors::default() };
    ensure(device.allocate_unwritten(&desc).is_err(), "it was allocated without zeros")?;
    ensure(device.allocate(&desc).is_err(), "it was allocated")
}

fn slices(device: &dyn Device) -> Outcome {
    let buffer = allocate(device, "sliced", 256).map_err(text)?;
    let part = buffer.slice(64, 128).map_err(text)?;
    ensure(part.device_address() == buffer.whole().device_address() + 64, "address of a slice")?;
    ensure(part.slice(0, 129).is_err(), "a slice beyond its slice")?;
    ensure(part.slice(u64::MAX, 2).is_err(), "an overflowing slice")?;
    ensure(buffer.slice(0, buffer.size_bytes() + 1).is_err(), "a slice beyond its buffer")?;
    device.write(&part, &[7; 128]).map_err(text)?;
    let bytes = contents(device, &buffer.slice(0, 256).map_err(text)?).map_err(text)?;
    let expected = |i: usize| if (64..192).contains(&i) { 7 } else { 0 };
    ensure(bytes.iter().enumerate().all(|(i, &byte)| byte == expected(i)), "a write left its slice")
}

fn copies(device: &dyn Device) -> Outcome {
    let bytes: Vec<u8> = (0..1000_u32).map(|i| (i * 31) as u8).collect();
    let slice = filled(device, "copied", &bytes).map_err(text)?;
    ensure(contents(device, &slice).map_err(text)? == bytes, "other bytes came back")?;
    ensure(device.write(&slice, &bytes[..999]).is_err(), "a short write was taken")?;
    ensure(device.write(&slice, &[0; 1001]).is_err(), "a long write was taken")?;
    ensure(device.read(&slice, &mut [0; 999]).is_err(), "a short read was taken")
}

fn weight_sizes(device: &dyn Device) -> Outcome {
    let shape = OpKind::Down { ff: 64, width: 8 }.weights()[0];
    let size_bytes = device.weight_size_bytes(&shape, DType::Q8_0);
    let destination = allocate(device, "weight", size_bytes as usize).map_err(text)?;
    let whole = destination.slice(0, size_bytes).map_err(text)?;
    device.load_weight(&shape, DType::Q8_0, &[1; 8 * 68], &whole).map_err(text)?;
    ensure(device.load_weight(&shape, DType::Q8_0, &[1; 8 * 68 - 1], &whole).is_err(), "a short source was taken")?;
    let short = destination.slice(0, size_bytes - 1).map_err(text)?;
    ensure(device.load_weight(&shape, DType::Q8_0, &[1; 8 * 68], &short).is_err(), "a short destination was taken")
}

fn import_own(device: &dyn Device) -> Outcome {
    let buffer = allocate(device, "own", 64).map_err(text)?;
    let imported = device.import(&buffer).map_err(text)?;
    ensure(imported.whole().device_address() == buffer.whole().device_address(), "it moved")
}

/// Memory that no device made: what a stale or foreign handle looks like.
#[derive(Debug)]
struct Foreign {
    owner: Option<DeviceId>,
    epoch: Epoch,
}

impl Allocation for Foreign {
    fn name(&self) -> &str {
        "foreign"
    }
    fn size_bytes(&self) -> u64 {
        1 << 20
    }
    fn owner(&self) -> Option<DeviceId> {
        self.owner
    }
    fn epoch(&self) -> Epoch {
        self.epoch
    }
    fn host_range(&self) -> Option<HostRange> {
        None
    }
    fn device_address(&self) -> u64 {
        4096
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A segment that can be spoiled: `y = x Wᵀ` of 64 columns to 8.
fn good_segment(device: &dyn Device) -> biga_hal::Result<Segment> {
    let limits = StepLimits { max_tokens: 4, max_outputs: 4, max_slots: 2, max_blocks: 2, n_tables: 1 };
    let step_layout = StepLayout::new(limits)?;
    let kind = OpKind::Down { ff: 64, width: 8 };
    let shape = kind.weights()[0];
    let weight = crate::rig::weight(device, &shape, DType::F32, &f32_bytes(&[0.5; 512]))?;
    let op = BoundOp {
        op: Arc::new(Op { kind, layer: None }),
        rows: Rows::Tokens,
        inputs: vec![filled(device, "x", &f32_bytes(&[1.0; 256]))?],
        output: Some(filled(device, "y", &f32_bytes(&[0.0; 32]))?),
        weights: vec![weight],
        kv: None,
        internal: false,
    };
    Ok(Segment {
        name: "spoiled".into(),
        bucket: Bucket { tokens: 4, sequences: 2, outputs: 4 },
        ops: vec![op],
        step: allocate(device, "step", step_layout.size_bytes)?.slice(0, step_layout.size_bytes as u64)?,
        step_layout,
    })
}

/// Segments that contradict themselves.
pub(crate) fn refusals(device: &dyn Device, report: &mut Report) {
    report.enter(
        "a good segment compiles",
        good_segment(device).and_then(|s| device.compile(&s)).map(drop).map_err(text),
    );
    let mut spoil = |name: &str, change: &dyn Fn(&mut Segment)| {
        let outcome = good_segment(device).map_err(text).and_then(|mut segment| {
            change(&mut segment);
            ensure(device.compile(&segment).is_err(), "it compiled")
        });
        report.enter(name, outcome);
    };
    spoil("no input", &|s| s.ops[0].inputs.clear());
    spoil("an input too many", &|s| {
        let input = s.ops[0].inputs[0].clone();
        s.ops[0].inputs.push(input);
    });
    spoil("an input too small", &|s| s.ops[0].inputs[0] = shorter(&s.ops[0].inputs[0]));
    spoil("no output", &|s| s.ops[0].output = None);
    spoil("an output too small", &|s| s.ops[0].output = s.ops[0].output.as_ref().map(shorter));
    spoil("an output over its input", &|s| {
        let input = s.ops[0].inputs[0].slice(0, 128).ok();
        s.ops[0].output = input;
    });
    spoil("no weight", &|s| s.ops[0].weights.clear());
    spoil("a weight of another shape", &|s| s.ops[0].weights[0].rows = 9);
    spoil("a weight too small", &|s| s.ops[0].weights[0].slice = shorter(&s.ops[0].weights[0].slice));
    spoil("a format that the columns do not fit", &|s| s.ops[0].weights[0].dtype = DType::Q4_K);
    spoil("a cache where none belongs", &|s| {
        let (k_offset_bytes, v_offset_bytes, block_bytes) = (0, 1024, 2048);
        s.ops[0].kv =
            Some(BoundKv { table: 0, block_len: 4, k_offset_bytes, v_offset_bytes, block_bytes, dtype: DType::F32 });
    });
    spoil("a bucket beyond the step buffer", &|s| s.bucket.tokens = 5);
    spoil("a bucket of no tokens", &|s| s.bucket.tokens = 0);
    spoil("a step buffer too small", &|s| s.step = shorter(&s.step));
    spoil("attention without a cache", &|s| s.ops[0] = attention_like(&s.ops[0], None));
    let kv = |table, block_bytes| BoundKv {
        table,
        block_len: 4,
        k_offset_bytes: 0,
        v_offset_bytes: 128,
        block_bytes,
        dtype: DType::F32,
    };
    spoil("a block table that is not there", &|s| s.ops[0] = attention_like(&s.ops[0], Some(kv(1, 256))));
    spoil("keys and values beyond their block", &|s| s.ops[0] = attention_like(&s.ops[0], Some(kv(0, 255))));
    let id = device.info().id;
    let stale = Foreign { owner: Some(id), epoch: Epoch(device.epoch().0.wrapping_add(7)) };
    let stale = Buffer::new(stale);
    spoil("a buffer of another epoch", &|s| {
        s.ops[0].inputs[0] = stale.whole();
    });
    let foreign = Buffer::new(Foreign { owner: None, epoch: Epoch::default() });
    spoil("a buffer that was never imported", &|s| s.ops[0].inputs[0] = foreign.whole());
    report.enter(
        "memory that nobody reaches cannot be imported",
        ensure(device.import(&foreign).is_err(), "it was imported"),
    );
}

/// The segment's op as an attention with 1 head of 8 over a qkv row of 24, or an append without a table.
fn attention_like(op: &BoundOp, kv: Option<BoundKv>) -> BoundOp {
    let heads = Heads { n_heads: 1, n_kv_heads: 1, head_dim: 8 };
    let kind = OpKind::Attention { heads, scale: 1.0, window: None, softcap: None };
    BoundOp { op: Arc::new(Op { kind, layer: None }), weights: Vec::new(), kv, ..op.clone() }
}

/// All but the last four bytes.
fn shorter(slice: &BufferSlice) -> BufferSlice {
    slice.slice(0, slice.size_bytes() - 4).unwrap_or_else(|_| slice.clone())
}

/// Fences, ordering and counters.
pub(crate) fn submission(reference: &dyn Device, device: &dyn Device, report: &mut Report) {
    report.enter("fence values grow and are reached", fences(device));
    report.enter("a wait for what never comes ends with both values", timeouts(device));
    report.enter("submissions run in order", order(device));
    report.enter("fence points of another device are waited for", other_device(reference, device));
    report.enter("running again sets nothing up", counters(device));
    report.enter("executables of another device are refused", foreign_executable(reference, device));
    report.enter("an empty segment and an empty step run", empty(device));
    report.enter("a bucket without outputs computes none", no_outputs(device));
    report.enter("segments compile while another thread submits", compile_while_submitting(device));
    report.enter("every rate is a positive number, and its progress ends at one", rates(device));
}

/// `a += b` over four rows of eight.
fn adder(device: &dyn Device, a: &BufferSlice, b: &BufferSlice, n: usize) -> biga_hal::Result<Arc<dyn Executable>> {
    let mut segment = good_segment(device)?;
    let op = BoundOp {
        op: Arc::new(Op { kind: OpKind::Residual { width: 8 }, layer: None }),
        rows: Rows::Tokens,
        inputs: vec![a.clone(), b.clone()],
        output: Some(a.clone()),
        weights: Vec::new(),
        kv: None,
        internal: false,
    };
    segment.ops = vec![op; n];
    device.write(&segment.step, &step_bytes(&segment.step_layout, &StepCase::rows(4, 0), &[0; 4], |_, _, _| 0))?;
    device.compile(&segment)
}

fn sums(device: &dyn Device, slice: &BufferSlice, expected: f32) -> Outcome {
    let values = f32_values(&contents(device, slice).map_err(text)?);
    ensure(values.iter().all(|&value| value == expected), format!("{:?} where {expected} was expected", &values[..4]))
}

fn fences(device: &dyn Device) -> Outcome {
    let (a, b) = (filled(device, "a", &[0; 128]), filled(device, "b", &[0; 128]));
    let executable = adder(device, &a.map_err(text)?, &b.map_err(text)?, 1).map_err(text)?;
    let mut last = 0;
    for _ in 0..5 {
        let point = device.submit(&*executable, &[]).map_err(text)?;
        ensure(point.timeline.device() == device.info().id, "a fence of another device")?;
        ensure(point.value > last, format!("value {} after {last}", point.value))?;
        last = point.value;
        point.wait(WAIT).map_err(text)?;
        ensure(point.timeline.value().map_err(text)? >= last, "a wait ended early")?;
        point.wait(Duration::ZERO).map_err(|error| format!("a point that was reached: {error}"))?;
    }
    Ok(())
}

fn timeouts(device: &dyn Device) -> Outcome {
    let (a, b) = (filled(device, "a", &[0; 128]), filled(device, "b", &[0; 128]));
    let executable = adder(device, &a.map_err(text)?, &b.map_err(text)?, 1).map_err(text)?;
    let point = device.submit(&*executable, &[]).map_err(text)?;
    point.wait(WAIT).map_err(text)?;
    match point.timeline.wait(point.value + 1000, Duration::from_millis(20)) {
        Err(Error::Timeout { expected, seen, .. }) if expected == point.value + 1000 && seen == point.value => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn order(device: &dyn Device) -> Outcome {
    // a += b, b += a, over and over: any overlap gives other numbers than 34 and 55.
    let a = filled(device, "a", &f32_bytes(&[1.0; 32])).map_err(text)?;
    let b = filled(device, "b", &f32_bytes(&[1.0; 32])).map_err(text)?;
    let (first, second) = (adder(device, &a, &b, 1).map_err(text)?, adder(device, &b, &a, 1).map_err(text)?);
    let mut last = None;
    for _ in 0..4 {
        device.submit(&*first, &[]).map_err(text)?;
        last = Some(device.submit(&*second, &[]).map_err(text)?);
    }
    last.map_or(Ok(()), |point| point.wait(WAIT)).map_err(text)?;
    sums(device, &a, 34.0)?;
    sums(device, &b, 55.0)?;
    // And within one segment.
    let long = adder(device, &a, &b, 20).map_err(text)?;
    finish(device, &*long).map_err(text)?;
    sums(device, &a, 34.0 + 20.0 * 55.0)
}

fn other_device(reference: &dyn Device, device: &dyn Device) -> Outcome {
    let zeroes = |device| filled(device, "a", &f32_bytes(&[1.0; 32])).map_err(text);
    let (theirs, a) = (zeroes(reference)?, zeroes(device)?);
    let (other, b) = (zeroes(reference)?, zeroes(device)?);
    let first = adder(reference, &theirs, &other, 3).map_err(text)?;
    let second = adder(device, &a, &b, 3).map_err(text)?;
    let point = reference.submit(&*first, &[]).map_err(text)?;
    let mine = device.submit(&*second, &[point]).map_err(text)?;
    let again = reference.submit(&*first, std::slice::from_ref(&mine)).map_err(text)?;
    again.wait(WAIT).map_err(text)?;
    ensure(mine.timeline.value().map_err(text)? >= mine.value, "the other device did not wait")?;
    sums(device, &a, 4.0)?;
    sums(reference, &theirs, 7.0)
}

fn counters(device: &dyn Device) -> Outcome {
    let (a, b) = (filled(device, "a", &[0; 128]), filled(device, "b", &[0; 128]));
    let executable = adder(device, &a.map_err(text)?, &b.map_err(text)?, 5).map_err(text)?;
    finish(device, &*executable).map_err(text)?;
    let before = device.counters();
    for _ in 0..10 {
        finish(device, &*executable).map_err(text)?;
    }
    let after = device.counters();
    ensure(after.submissions == before.submissions + 10, "submissions are not counted")?;
    let mut expected = before;
    expected.submissions = after.submissions;
    ensure(after == expected, format!("{before:?} became {after:?}"))
}

fn foreign_executable(reference: &dyn Device, device: &dyn Device) -> Outcome {
    let (a, b) = (filled(reference, "a", &[0; 128]), filled(reference, "b", &[0; 128]));
    let executable = adder(reference, &a.map_err(text)?, &b.map_err(text)?, 1).map_err(text)?;
    ensure(device.submit(&*executable, &[]).is_err(), "it was run")
}

fn empty(device: &dyn Device) -> Outcome {
    let mut segment = good_segment(device).map_err(text)?;
    let output = segment.ops[0].output.clone().ok_or("no output")?;
    let executable = device.compile(&segment).map_err(text)?;
    let mut bytes = step_bytes(&segment.step_layout, &StepCase::rows(1, 0), &[0], |_, _, _| 0);
    bytes[..12].fill(0);
    device.write(&segment.step, &bytes).map_err(text)?;
    finish(device, &*executable).map_err(text)?;
    sums(device, &output, 0.0)?;
    segment.ops.clear();
    finish(device, &*device.compile(&segment).map_err(text)?).map_err(text)
}

fn no_outputs(device: &dyn Device) -> Outcome {
    let ones = || filled(device, "ones", &f32_bytes(&[1.0; 32])).map_err(text);
    let (x, y, row, logits) = (ones()?, ones()?, ones()?, ones()?);
    let mut segment = good_segment(device).map_err(text)?;
    let head = OpKind::Head { width: 8, vocab: 8, softcap: None };
    let weight = crate::rig::weight(device, &head.weights()[0], DType::F32, &f32_bytes(&[0.5; 64])).map_err(text)?;
    let op = |kind: OpKind, rows, inputs: &[&BufferSlice], output: &BufferSlice| BoundOp {
        op: Arc::new(Op { kind, layer: None }),
        rows,
        inputs: inputs.iter().map(|&slice| slice.clone()).collect(),
        output: Some(output.clone()),
        weights: Vec::new(),
        kv: None,
        internal: false,
    };
    let nothing = |slice: &BufferSlice| slice.slice(0, 0).map_err(text);
    segment.bucket.outputs = 0;
    segment.ops = vec![
        op(OpKind::Residual { width: 8 }, Rows::Tokens, &[&x, &y], &x),
        op(OpKind::SelectOutputs { width: 8 }, Rows::Outputs, &[&x], &nothing(&row)?),
        op(head, Rows::Outputs, &[&nothing(&row)?], &nothing(&logits)?),
    ];
    segment.ops[2].weights.push(weight);
    let mut step = StepCase::rows(4, 0);
    step.outputs.clear();
    device.write(&segment.step, &step_bytes(&segment.step_layout, &step, &[0; 4], |_, _, _| 0)).map_err(text)?;
    finish(device, &*device.compile(&segment).map_err(text)?).map_err(text)?;
    sums(device, &x, 2.0)?;
    sums(device, &row, 1.0)?;
    sums(device, &logits, 1.0)
}

fn compile_while_submitting(device: &dyn Device) -> Outcome {
    const N_COMPILED: usize = 6;
    let (a, b) = (filled(device, "a", &f32_bytes(&[0.0; 32])), filled(device, "b", &f32_bytes(&[1.0; 32])));
    let (a, b) = (a.map_err(text)?, b.map_err(text)?);
    let executable = adder(device, &a, &b, 1).map_err(text)?;
    let done = AtomicBool::new(false);
    let (submitted, first_submission) = mpsc::channel();
    let (compiled, n_submitted) = thread::scope(|scope| {
        let submitter = scope.spawn(|| {
            let submitted = submitted;
            let mut n = 0_u16;
            while !done.load(Ordering::Relaxed) {
                finish(device, &*executable).map_err(text)?;
                n = n.wrapping_add(1);
                let _ = submitted.send(());
            }
            Ok::<u16, String>(n)
        });
        // It has run once, and goes on until everything is compiled. An error there is seen below.
        let _ = first_submission.recv();
        let compiled: Vec<_> = (0..N_COMPILED).map(|_| Victim::new(device)).collect();
        done.store(true, Ordering::Relaxed);
        (compiled, submitter.join())
    });
    let n_submitted = n_submitted.map_err(|_| "the submitting thread panicked")??;
    for victim in compiled {
        let victim = victim.map_err(text)?;
        victim.survives(device, &victim.good_step())?;
    }
    let sum = f32_values(&contents(device, &a).map_err(text)?);
    let right = |&value: &f32| value % 65536.0 == f32::from(n_submitted);
    ensure(sum.iter().all(right), format!("{n_submitted} submissions of + 1 gave {:?}", &sum[..4]))
}

fn rates(device: &dyn Device) -> Outcome {
    for what in Measurement::ALL {
        let mut last = 0.0;
        let rate = device.measure(what, &mut |done| last = done).map_err(text)?;
        ensure(rate.is_finite() && rate > 0.0, format!("{what:?}: {rate}"))?;
        ensure((last - 1.0_f64).abs() < 1e-9, format!("{what:?} stopped at {last}"))?;
    }
    Ok(())
}

/// Steps that no engine would write: each may be refused or clamped, but the device must live on and must
/// not write beyond its buffers.
pub(crate) fn hostile_steps(device: &dyn Device, options: &Options, report: &mut Report) {
    let changes: [(&str, usize, u32, bool); 9] = [
        ("a token id beyond the vocabulary", 0, 1_000_000, false),
        ("the largest token id", 0, u32::MAX, false),
        ("an output row beyond the step", 3, 3, false),
        ("the largest output row", 3, u32::MAX, false),
        ("more tokens than the bucket", 4, 1000, false),
        ("more outputs than the bucket", 5, 1000, false),
        ("a position beyond the block table", 1, 1 << 20, true),
        ("the largest position", 1, u32::MAX, true),
        ("a slot beyond the block table", 2, u32::MAX, true),
    ];
    for (name, field, value, needs_addresses) in changes {
        // A wrong position or slot leads to whatever address stands beyond the table.
        if !needs_addresses || options.hostile_addresses {
            report.enter(name, hostile_step(device, field, value));
        }
    }
    if options.hostile_addresses {
        for (name, address) in [("a block at no address", 0), ("a block at the last address", u64::MAX - 3)] {
            report.enter(name, hostile_block(device, address));
        }
    }
}

/// Embed, rope, append, attention and selection over one sequence, with guard bytes behind the output.
struct Victim {
    executable: Arc<dyn Executable>,
    step: BufferSlice,
    layout: StepLayout,
    pool: BufferSlice,
    guard: BufferSlice,
    selected: BufferSlice,
}

const VICTIM: StepCaseShape = StepCaseShape { tokens: 3, outputs: 2 };

struct StepCaseShape {
    tokens: usize,
    outputs: usize,
}

impl Victim {
    fn new(device: &dyn Device) -> biga_hal::Result<Victim> {
        let heads = Heads { n_heads: 1, n_kv_heads: 1, head_dim: 32 };
        let limits = StepLimits { max_tokens: 3, max_outputs: 2, max_slots: 1, max_blocks: 2, n_tables: 1 };
        let layout = StepLayout::new(limits)?;
        let step = allocate(device, "step", layout.size_bytes)?.slice(0, layout.size_bytes as u64)?;
        let pool = allocate(device, "kv pool", 2 * 4096)?.whole();
        let x = allocate(device, "x", VICTIM.tokens * 96 * 4)?.whole();
        let y = allocate(device, "y", VICTIM.tokens * 32 * 4)?.whole();
        let selected = allocate(device, "selected", 4096)?;
        device.write(&selected.slice(0, 4096)?, &[0x5A; 4096])?;
        let output_bytes = (VICTIM.outputs * 32 * 4) as u64;
        let guard = selected.slice(output_bytes, 4096 - output_bytes)?;
        let selected = selected.slice(0, output_bytes)?;
        let kv = BoundKv {
            table: 0,
            block_len: 16,
            k_offset_bytes: 0,
            v_offset_bytes: 2048,
            block_bytes: 4096,
            dtype: DType::F32,
        };
        let embed = OpKind::Embed { vocab: 5, width: 96, scale: 1.0 };
        let table = crate::rig::weight(device, &embed.weights()[0], DType::F32, &f32_bytes(&[0.25; 480]))?;
        let bind = |kind: OpKind, rows: Rows, inputs: &[&BufferSlice], output: Option<&BufferSlice>| BoundOp {
            kv: kind.uses_kv().then(|| kv.clone()),
            op: Arc::new(Op { kind, layer: None }),
            rows,
            inputs: inputs.iter().map(|&slice| slice.clone()).collect(),
            output: output.cloned(),
            weights: Vec::<BoundWeight>::new(),
            internal: false,
        };
        let inv_freqs: Arc<[f32]> = (0..16).map(|i| 1.0 / (1.0 + i as f32)).collect();
        let rope = OpKind::Rope { heads, style: RopeStyle::Halves, inv_freqs };
        let mut ops = vec![
            bind(embed, Rows::Tokens, &[], Some(&x)),
            bind(rope, Rows::Tokens, &[&x], Some(&x)),
            bind(OpKind::KvAppend { heads }, Rows::Tokens, &[&x], None),
            bind(OpKind::Attention { heads, scale: 1.0, window: None, softcap: None }, Rows::Tokens, &[&x], Some(&y)),
            bind(OpKind::SelectOutputs { width: 32 }, Rows::Outputs, &[&y], Some(&selected)),
        ];
        ops[0].weights.push(table);
        let bucket = Bucket { tokens: VICTIM.tokens, sequences: 1, outputs: VICTIM.outputs };
        let segment = Segment { name: "victim".into(), bucket, ops, step: step.clone(), step_layout: layout };
        Ok(Victim { executable: device.compile(&segment)?, step, layout, pool, guard, selected })
    }

    fn good_step(&self) -> Vec<u8> {
        let mut step = StepCase::of(&[(0, 5, VICTIM.tokens)]);
        step.outputs = vec![0, 2];
        step_bytes(&self.layout, &step, &[0, 4, 1], |_, _, index| self.pool.device_address() + 4096 * index as u64)
    }

    /// Submits bytes; whatever comes of it, a good step must work afterwards and the guard must stand.
    fn survives(&self, device: &dyn Device, bytes: &[u8]) -> Outcome {
        device.write(&self.step, bytes).map_err(text)?;
        let refused = finish(device, &*self.executable).is_err();
        device.write(&self.step, &self.good_step()).map_err(text)?;
        finish(device, &*self.executable)
            .map_err(|error| format!("the next good step failed (the bad one was refused: {refused}): {error}"))?;
        let guard = contents(device, &self.guard).map_err(text)?;
        ensure(guard.iter().all(|&byte| byte == 0x5A), "bytes behind the output were written")?;
        let values = f32_values(&contents(device, &self.selected).map_err(text)?);
        // All values of the table are 0.25, and so is every average of them.
        let right = |value: &f32| value.is_finite() && (value - 0.25).abs() < 0.26;
        ensure(values.iter().all(right), format!("the next good step gave {:?}", &values[..4]))
    }
}

fn hostile_step(device: &dyn Device, field: usize, value: u32) -> Outcome {
    let victim = Victim::new(device).map_err(text)?;
    let layout = victim.layout;
    let offset = [layout.tokens + 4, layout.positions + 8, layout.slots, layout.outputs, 0, 8][field];
    let mut bytes = victim.good_step();
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    victim.survives(device, &bytes)
}

fn hostile_block(device: &dyn Device, address: u64) -> Outcome {
    let victim = Victim::new(device).map_err(text)?;
    let mut bytes = victim.good_step();
    let at = victim.layout.table(0);
    bytes[at..at + 8].copy_from_slice(&address.to_le_bytes());
    victim.survives(device, &bytes)
}
