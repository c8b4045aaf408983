//! Measures what this device sustains, for plans that go by cost.
//!
//! Bandwidth and latency are measured through the same path that ops take: a compiled segment on the
//! device's own threads. What is measured is therefore what an op gets, not what the memory could give.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use biga_hal::{
    Accessors, BoundOp, BoundWeight, Bucket, Buffer, BufferDesc, DType, Device, Executable, Op, OpKind, Result, Rows,
    Segment, StepHeader, StepLayout, StepLimits, device::Measurement,
};

use crate::CpuDevice;

/// How long each measurement runs after its warm-up.
const DURATION: Duration = Duration::from_millis(300);

/// Measures one rate; `progress` is told the fraction done.
pub(crate) fn measure(device: &CpuDevice, what: Measurement, progress: &mut dyn FnMut(f64)) -> Result<f64> {
    match what {
        // One row through a matrix beyond the caches: the bytes of the weights are what takes the time.
        Measurement::ReadBandwidth => {
            let bench = Bench::product(device, DType::Q8_0, 4096, 65_536, 1)?;
            Ok(bench.weight_bytes / bench.median_s(progress)?)
        }
        Measurement::Arithmetic => {
            let bench = Bench::product(device, DType::Q8_0, 1024, 1024, 256)?;
            Ok(2.0 * 1024.0 * 1024.0 * 256.0 / bench.median_s(progress)?)
        }
        Measurement::Launch => {
            let many = Bench::launches(device, 129)?.median_s(&mut |done| progress(done / 2.0))?;
            let one = Bench::launches(device, 1)?.median_s(&mut |done| progress(0.5 + done / 2.0))?;
            Ok(((many - one) / 128.0).max(1e-9))
        }
        Measurement::Submit => Bench::launches(device, 0)?.median_s(progress),
    }
}

/// A segment to be timed.
struct Bench<'a> {
    device: &'a CpuDevice,
    executable: Arc<dyn Executable>,
    weight_bytes: f64,
}

impl<'a> Bench<'a> {
    fn product(device: &'a CpuDevice, dtype: DType, width: usize, rows: usize, tokens: usize) -> Result<Bench<'a>> {
        let row_bytes = dtype.row_bytes(width).unwrap_or(0);
        let weight = buffer(device, rows * row_bytes)?;
        // Pages that were never written all show the same page of zeroes, which stays in the cache.
        let ones = vec![1_u8; row_bytes];
        for row in 0..rows {
            device.write(&weight.slice((row * row_bytes) as u64, row_bytes as u64)?, &ones)?;
        }
        let op = OpKind::Down { ff: width, width: rows };
        let bound = BoundOp {
            op: Arc::new(Op { kind: op, layer: None }),
            rows: Rows::Tokens,
            inputs: vec![buffer(device, tokens * width * 4)?.whole()],
            output: Some(buffer(device, tokens * rows * 4)?.whole()),
            weights: vec![BoundWeight { slice: weight.whole(), dtype, rows, columns: width }],
            kv: None,
            internal: false,
        };
        Bench::new(device, vec![bound], tokens, (rows * row_bytes) as f64)
    }

    /// Small products in a row: ops that all workers share, each waiting for the one before it.
    fn launches(device: &'a CpuDevice, count: usize) -> Result<Bench<'a>> {
        const WIDTH: usize = 64;
        let (x, y) = (buffer(device, WIDTH * 4)?, buffer(device, WIDTH * 4)?);
        let weight = buffer(device, WIDTH * WIDTH * 4)?;
        let bound = |(from, to): (&Buffer, &Buffer)| BoundOp {
            op: Arc::new(Op { kind: OpKind::Down { ff: WIDTH, width: WIDTH }, layer: None }),
            rows: Rows::Tokens,
            inputs: vec![from.whole()],
            output: Some(to.whole()),
            weights: vec![BoundWeight { slice: weight.whole(), dtype: DType::F32, rows: WIDTH, columns: WIDTH }],
            kv: None,
            internal: false,
        };
        let ops = (0..count).map(|i| bound(if i % 2 == 0 { (&x, &y) } else { (&y, &x) })).collect();
        Bench::new(device, ops, 1, 0.0)
    }

    fn new(device: &'a CpuDevice, ops: Vec<BoundOp>, tokens: usize, weight_bytes: f64) -> Result<Bench<'a>> {
        let limits = StepLimits { max_tokens: tokens, max_outputs: 0, max_slots: 0, max_blocks: 0, n_tables: 0 };
        let step_layout = StepLayout::new(limits)?;
        let step = buffer(device, step_layout.size_bytes)?.whole();
        let n_tokens = u32::try_from(tokens).unwrap_or(0);
        let header = StepHeader { n_tokens, n_sequences: 1, n_outputs: 0, ..StepHeader::default() };
        device.write(&step.slice(0, StepHeader::SIZE_BYTES as u64)?, &header.to_bytes())?;
        let bucket = Bucket { tokens, sequences: 1, outputs: 0 };
        let segment = Segment { name: "measurement".into(), bucket, ops, step, step_layout };
        Ok(Bench { device, executable: device.compile(&segment)?, weight_bytes })
    }

    /// The median of repeated submissions, in seconds.
    fn median_s(&self, progress: &mut dyn FnMut(f64)) -> Result<f64> {
        self.device.submit(&*self.executable, &[])?;
        let start = Instant::now();
        let mut samples = Vec::new();
        while samples.len() < 3 || start.elapsed() < DURATION && samples.len() < 100_000 {
            let before = Instant::now();
            self.device.submit(&*self.executable, &[])?;
            samples.push(before.elapsed().as_secs_f64());
            if samples.len().is_power_of_two() {
                progress((start.elapsed().as_secs_f64() / DURATION.as_secs_f64()).min(1.0));
            }
        }
        progress(1.0);
        samples.sort_by(f64::total_cmp);
        Ok(samples[samples.len() / 2])
    }
}

fn buffer(device: &CpuDevice, size_bytes: usize) -> Result<Buffer> {
    let size_bytes = size_bytes as u64;
    device.allocate(&BufferDesc { name: "measurement".into(), size_bytes, accessors: Accessors::default() })
}
