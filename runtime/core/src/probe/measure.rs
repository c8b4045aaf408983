//! Measuring the machine: every device's rates and what it costs to cross from one device to another.
//!
//! Rates are the devices' own business ([`biga_hal::Device::measure`]). A crossing is measured as plans
//! use it: two segments of one tiny op play ping-pong over a value that both reach, and the time of a
//! round is two crossings. What could not be measured is reported and keeps its default.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use biga_hal::{
    Access, Accessors, BoundOp, Bucket, Buffer, BufferDesc, BufferSlice, Choices, Device, DeviceKind, Executable,
    FencePoint, Measurement, Op, OpKind, Rates, Rows, Segment, StepHeader, StepLayout, StepLimits,
};

use super::{Link, OpenDevices};

/// How far measuring has come.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureProgress {
    /// What is being measured now.
    pub what: String,
    /// Of everything, 0 to 1.
    pub fraction: f64,
}

/// What was measured, ready to be stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// By the device's identity.
    pub rates: Vec<(biga_hal::DeviceId, Rates)>,
    /// Which way of doing the same is the fastest, by device, where there are several.
    pub choices: Vec<(biga_hal::DeviceId, Choices)>,
    /// Crossings, both ways.
    pub links: Vec<Link>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

/// Columns of the value that crosses.
const WIDTH: usize = 64;
/// Bytes of the buffer that is copied where memory is not shared.
const COPY_BYTES: usize = 8 << 20;
/// Longest wait for one fence.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Rounds that are not counted.
const WARM_UP_ROUNDS: usize = 20;
/// Time after which a link's rounds end.
const LINK_TIME: Duration = Duration::from_millis(300);
/// Most rounds of one link.
const MAX_ROUNDS: usize = 2000;

/// Measures every open device and every pair of them; `None` once the caller's flag is set, which is looked at
/// between two measurements.
pub fn measure(
    devices: &OpenDevices,
    interrupt: &AtomicBool,
    progress: &mut dyn FnMut(&MeasureProgress),
) -> Option<Measured> {
    let interrupted = || interrupt.load(Ordering::Relaxed);
    let all: Vec<&Arc<dyn Device>> = devices.iter().map(|(_, device)| device).collect();
    let pairs: Vec<(usize, usize)> = (0..all.len()).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
    let n_steps = (all.len() * (Measurement::ALL.len() + 1) + pairs.len()) as f64;
    let mut done = 0.0;
    let mut measured = Measured::default();
    for device in &all {
        let info = device.info();
        let mut step = |what: Measurement| {
            let words = format!("{}: {}", info.id, words(what));
            if interrupted() {
                return Err(format!("{words}: interrupted"));
            }
            let value = device.measure(what, &mut |part| {
                progress(&MeasureProgress { what: words.clone(), fraction: (done + part.clamp(0.0, 1.0)) / n_steps });
            });
            done += 1.0;
            match value {
                Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
                Ok(value) => Err(format!("{words}: {value} is no rate")),
                Err(error) => Err(format!("{words}: {error}")),
            }
        };
        match Measurement::ALL.map(&mut step) {
            [Ok(read_bytes_per_s), Ok(flops_per_s), Ok(launch_s), Ok(submit_s)] => {
                let rates = Rates { read_bytes_per_s, flops_per_s, launch_s, submit_s, measured: true };
                measured.rates.push((info.id, rates));
            }
            values => measured.failures.extend(values.into_iter().filter_map(Result::err)),
        }
        if interrupted() {
            break;
        }
        let words = format!("{}: the fastest kernels", info.id);
        let chosen = device.tune(&mut |part| {
            progress(&MeasureProgress { what: words.clone(), fraction: (done + part.clamp(0.0, 1.0)) / n_steps });
        });
        done += 1.0;
        match chosen {
            Ok(choices) => measured.choices.push((info.id, choices)),
            Err(error) => measured.failures.push(format!("{words}: {error}")),
        }
    }
    for (from, to) in pairs {
        if interrupted() {
            break;
        }
        let what = format!("{} to {}", all[from].info().id, all[to].info().id);
        progress(&MeasureProgress { what: what.clone(), fraction: done / n_steps });
        match measure_link(all[from], all[to]) {
            Ok(links) => measured.links.extend(links),
            Err(error) => measured.failures.push(format!("{what}: {error}")),
        }
        done += 1.0;
    }
    if interrupted() {
        return None;
    }
    progress(&MeasureProgress { what: "done".to_owned(), fraction: 1.0 });
    Some(measured)
}

fn words(what: Measurement) -> &'static str {
    match what {
        Measurement::ReadBandwidth => "read bandwidth",
        Measurement::Arithmetic => "arithmetic rate",
        Measurement::Launch => "launch time",
        Measurement::Submit => "submission time",
    }
}

/// Both directions between two devices. The halves of a round are not told apart: each direction gets
/// the mean.
fn measure_link(a: &Arc<dyn Device>, b: &Arc<dyn Device>) -> biga_hal::Result<[Link; 2]> {
    let shared = SharedPair::new(a, b)?;
    let (latency_s, bytes_per_s, shared) = match shared {
        Some(pair) => (pair.half_round_s()?, f64::INFINITY, true),
        None => {
            let pair = CopyPair::new(a, b)?;
            (pair.half_round_s()?, pair.copy_bytes_per_s()?, false)
        }
    };
    let link = |from: &Arc<dyn Device>, to: &Arc<dyn Device>| Link {
        from: from.info().id,
        to: to.info().id,
        latency_s,
        bytes_per_s,
        shared,
        measured: true,
    };
    Ok([link(a, b), link(b, a)])
}

/// Two segments that read each other's value in memory that both devices reach.
struct SharedPair {
    a: Player,
    b: Player,
}

impl SharedPair {
    /// `None` unless each device can reach the memory that the other one would own in a plan: its own, but
    /// never the CPU's. With the CPU the other device owns what crosses in either direction, because its
    /// driver knows which memory both can use.
    fn new(a: &Arc<dyn Device>, b: &Arc<dyn Device>) -> biga_hal::Result<Option<SharedPair>> {
        let is_cpu = |device: &Arc<dyn Device>| device.info().kind == DeviceKind::Cpu;
        // A buffer as `a` and as `b` reach it.
        let make = |name: &str, a_owns: bool| -> biga_hal::Result<Option<(Buffer, Buffer)>> {
            let (owner, guest) = if a_owns { (a, b) } else { (b, a) };
            let own = owner.allocate(&value(name, WIDTH * 4, Some(guest)))?;
            match guest.import(&own) {
                Ok(imported) => Ok(Some(if a_owns { (own, imported) } else { (imported, own) })),
                Err(biga_hal::Error::NotImportable { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let (there, back) = (make("crossing there", !is_cpu(a))?, make("crossing back", is_cpu(b))?);
        let (Some(there), Some(back)) = (there, back) else { return Ok(None) };
        let a_plays = Player::new(a, back.0.whole(), there.0.whole())?;
        let b_plays = Player::new(b, there.1.whole(), back.1.whole())?;
        Ok(Some(SharedPair { a: a_plays, b: b_plays }))
    }

    fn half_round_s(&self) -> biga_hal::Result<f64> {
        half_round_s(|last| {
            let there = self.a.play(last)?;
            self.b.play(Some(&there))
        })
    }
}

/// Two segments whose values the host carries across.
struct CopyPair {
    a: Player,
    b: Player,
}

impl CopyPair {
    fn new(a: &Arc<dyn Device>, b: &Arc<dyn Device>) -> biga_hal::Result<CopyPair> {
        let player = |device: &Arc<dyn Device>| -> biga_hal::Result<Player> {
            let input = device.allocate(&value("crossing input", WIDTH * 4, None))?;
            let output = device.allocate(&value("crossing output", WIDTH * 4, None))?;
            Player::new(device, input.whole(), output.whole())
        };
        Ok(CopyPair { a: player(a)?, b: player(b)? })
    }

    fn half_round_s(&self) -> biga_hal::Result<f64> {
        let mut bytes = [0; WIDTH * 4];
        half_round_s(|_| {
            let mut last = None;
            for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
                let fence = from.play(None)?;
                fence.wait(TIMEOUT)?;
                from.device.read(&from.output, &mut bytes)?;
                to.device.write(&to.input, &bytes)?;
                last = Some(fence);
            }
            last.ok_or(biga_hal::Error::NoSuchDevice(self.a.device.info().id))
        })
    }

    fn copy_bytes_per_s(&self) -> biga_hal::Result<f64> {
        let from = self.a.device.allocate(&value("crossing source", COPY_BYTES, None))?.whole();
        let to = self.b.device.allocate(&value("crossing destination", COPY_BYTES, None))?.whole();
        let mut bytes = vec![0; COPY_BYTES];
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            self.a.device.read(&from, &mut bytes)?;
            self.b.device.write(&to, &bytes)?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(COPY_BYTES as f64 / best.max(1e-9))
    }
}

/// Half of the mean time of a round, which ends with the fence that the next one waits for.
fn half_round_s(mut round: impl FnMut(Option<&FencePoint>) -> biga_hal::Result<FencePoint>) -> biga_hal::Result<f64> {
    let mut last = None;
    for _ in 0..WARM_UP_ROUNDS {
        last = Some(round(last.as_ref())?);
    }
    if let Some(fence) = &last {
        fence.wait(TIMEOUT)?;
    }
    let start = Instant::now();
    let mut n_rounds = 0_u32;
    while n_rounds == 0 || (start.elapsed() < LINK_TIME && (n_rounds as usize) < MAX_ROUNDS) {
        last = Some(round(last.as_ref())?);
        n_rounds += 1;
    }
    if let Some(fence) = &last {
        fence.wait(TIMEOUT)?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(n_rounds) / 2.0)
}

/// One device with a segment of one op: `output = input + input`.
struct Player {
    device: Arc<dyn Device>,
    executable: Arc<dyn Executable>,
    input: BufferSlice,
    output: BufferSlice,
}

impl Player {
    fn new(device: &Arc<dyn Device>, input: BufferSlice, output: BufferSlice) -> biga_hal::Result<Player> {
        let limits = StepLimits { max_tokens: 1, max_outputs: 1, max_slots: 1, max_blocks: 1, n_tables: 1 };
        let step_layout = StepLayout::new(limits)?;
        let step = device.allocate(&value("crossing step", step_layout.size_bytes, None))?;
        let header = StepHeader { n_tokens: 1, n_sequences: 1, n_outputs: 1, ..StepHeader::default() };
        device.write(&step.slice(0, StepHeader::SIZE_BYTES as u64)?, &header.to_bytes())?;
        let op = BoundOp {
            op: Arc::new(Op { kind: OpKind::Residual { width: WIDTH }, layer: None }),
            rows: Rows::Tokens,
            inputs: vec![input.clone(), input.clone()],
            output: Some(output.clone()),
            weights: Vec::new(),
            kv: None,
            internal: false,
        };
        let segment = Segment {
            name: "crossing".to_owned(),
            bucket: Bucket { tokens: 1, sequences: 1, outputs: 1 },
            ops: vec![op],
            step: step.whole(),
            step_layout,
        };
        Ok(Player { device: device.clone(), executable: device.compile(&segment)?, input, output })
    }

    fn play(&self, after: Option<&FencePoint>) -> biga_hal::Result<FencePoint> {
        self.device.submit(&*self.executable, after.map_or(&[], std::slice::from_ref))
    }
}

/// Memory that the host writes, and `guest` too if there is one.
fn value(name: &str, size_bytes: usize, guest: Option<&Arc<dyn Device>>) -> BufferDesc {
    let devices = guest.map(|guest| (guest.info().id, Access::ReadWrite)).into_iter().collect();
    let accessors = Accessors { host: Some(Access::ReadWrite), devices };
    BufferDesc { name: name.to_owned(), size_bytes: size_bytes as u64, accessors }
}
