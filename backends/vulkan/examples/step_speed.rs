//! Times whole steps of a small model's shape (SmolLM2-135M, q4_1) with zero weights, and each kind of op alone.
//!
//! `cargo run -p biga-vulkan --example step_speed -- [device name part] [gpu|software]`

use std::{sync::Arc, time::Instant};

use biga_hal::{
    Accessors, Activation, Backend, BoundKv, BoundOp, BoundWeight, Bucket, Buffer, BufferDesc, DType, Device,
    FencePoint, Heads, Op, OpKind, Result, RopeStyle, Rows, Segment, StepHeader, StepLayout, StepLimits, WeightRole,
};
use biga_vulkan::{Kernels, VulkanBackend};

const WIDTH: usize = 576;
const FF: usize = 1536;
const VOCAB: usize = 49152;
const LAYERS: usize = 30;
const HEADS: Heads = Heads { n_heads: 9, n_kv_heads: 3, head_dim: 64 };
const BLOCK_LEN: usize = 32;
const MAX_BLOCKS: usize = 64;

/// What this process has used so far, where the system says it.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

struct Bench {
    device: Arc<dyn Device>,
    step: Buffer,
    layout: StepLayout,
    bucket: Bucket,
    slab: Buffer,
}

impl Bench {
    fn buffer(device: &dyn Device, size_bytes: u64) -> Result<Buffer> {
        device.allocate(&BufferDesc { name: "bench".into(), size_bytes, accessors: Accessors::default() })
    }

    fn new(device: Arc<dyn Device>, tokens: usize, position: usize, outputs: usize) -> Result<Bench> {
        let limits =
            StepLimits { max_tokens: tokens, max_outputs: outputs, max_slots: 1, max_blocks: MAX_BLOCKS, n_tables: 1 };
        let layout = StepLayout::new(limits)?;
        let step = Bench::buffer(&*device, layout.size_bytes as u64)?;
        let block_bytes = LAYERS * 2 * HEADS.kv_width() * BLOCK_LEN * 2;
        let slab = Bench::buffer(&*device, (block_bytes * MAX_BLOCKS) as u64)?;
        let write = |at: usize, bytes: &[u8]| device.write(&step.slice(at as u64, bytes.len() as u64)?, bytes);
        let header =
            StepHeader { n_tokens: tokens as u32, n_sequences: 1, n_outputs: outputs as u32, ..StepHeader::default() };
        write(0, &header.to_bytes())?;
        let positions: Vec<u8> = (0..tokens).flat_map(|t| ((position + t) as u32).to_le_bytes()).collect();
        write(layout.positions, &positions)?;
        let base = slab.allocation().device_address();
        let table: Vec<u8> = (0..MAX_BLOCKS).flat_map(|b| (base + (b * block_bytes) as u64).to_le_bytes()).collect();
        write(layout.table(0), &table)?;
        Ok(Bench { device, step, layout, bucket: Bucket { tokens, sequences: 1, outputs }, slab })
    }

    fn bind(&self, kind: OpKind, layer: usize, rows: Rows) -> Result<BoundOp> {
        let n = if rows == Rows::Tokens { self.bucket.tokens } else { self.bucket.outputs };
        let value = |rows: usize, width: usize| Ok(Bench::buffer(&*self.device, (4 * rows * width) as u64)?.whole());
        let mut weights = Vec::new();
        for shape in kind.weights() {
            let dtype = if shape.role == WeightRole::Vector { DType::F32 } else { DType::Q4_1 };
            let slice = Bench::buffer(&*self.device, self.device.weight_size_bytes(&shape, dtype))?.whole();
            weights.push(BoundWeight { slice, dtype, rows: shape.rows, columns: shape.columns });
        }
        let in_rows = if matches!(kind, OpKind::SelectOutputs { .. }) { self.bucket.tokens } else { n };
        let inputs = kind.input_widths().into_iter().map(|width| value(in_rows, width)).collect::<Result<_>>()?;
        let output = kind.output_width().map(|width| value(n, width)).transpose()?;
        let part = (HEADS.kv_width() * BLOCK_LEN * 2) as u64;
        let kv = kind.uses_kv().then(|| BoundKv {
            table: 0,
            block_len: BLOCK_LEN,
            k_offset_bytes: 2 * layer as u64 * part,
            v_offset_bytes: (2 * layer as u64 + 1) * part,
            block_bytes: self.slab.size_bytes() / MAX_BLOCKS as u64,
            dtype: DType::F16,
        });
        Ok(BoundOp {
            op: Arc::new(Op { kind, layer: Some(layer) }),
            rows,
            inputs,
            output,
            weights,
            kv,
            internal: false,
        })
    }

    fn layer() -> Vec<OpKind> {
        let inv_freqs: Arc<[f32]> = (0..32).map(|i| 1e4f32.powf(-(i as f32) / 32.0)).collect();
        let norm = OpKind::RmsNorm { width: WIDTH, eps: 1e-5, weight_offset: 0.0 };
        vec![
            norm.clone(),
            OpKind::QkvProjection { width: WIDTH, heads: HEADS, bias: false },
            OpKind::Rope { heads: HEADS, style: RopeStyle::Interleaved, inv_freqs },
            OpKind::KvAppend { heads: HEADS },
            OpKind::Attention { heads: HEADS, scale: 0.125, window: None, softcap: None },
            OpKind::OutputProjection { input: WIDTH, output: WIDTH, bias: false },
            OpKind::Residual { width: WIDTH },
            norm,
            OpKind::GateUp { width: WIDTH, ff: FF },
            OpKind::Activate { ff: FF, activation: Activation::Silu },
            OpKind::Down { ff: FF, width: WIDTH },
            OpKind::Residual { width: WIDTH },
        ]
    }

    /// Seconds of one run, the best of several, and seconds of processor time of the mean run: on a busy
    /// machine only the second says what a driver on the CPU needs.
    fn time(&self, name: &str, ops: Vec<BoundOp>) -> Result<(f64, f64)> {
        let segment =
            Segment { name: name.into(), bucket: self.bucket, ops, step: self.step.whole(), step_layout: self.layout };
        let executable = self.device.compile(&segment)?;
        let run = || -> Result<()> {
            let point: FencePoint = self.device.submit(&*executable, &[])?;
            point.wait(std::time::Duration::from_secs(600))
        };
        run()?;
        let mut best = f64::INFINITY;
        let (began, before) = (Instant::now(), processor_seconds());
        let mut count = 0.0;
        while count < 3.0 || began.elapsed().as_secs_f64() < 0.2 {
            let start = Instant::now();
            run()?;
            best = best.min(start.elapsed().as_secs_f64());
            count += 1.0;
        }
        Ok((best, (processor_seconds() - before) / count))
    }

    fn report(&self) -> Result<()> {
        let tokens = self.bucket.tokens;
        let mut ops = Vec::new();
        for layer in 0..LAYERS {
            for kind in Bench::layer() {
                ops.push(self.bind(kind, layer, Rows::Tokens)?);
            }
        }
        let tail = [
            OpKind::SelectOutputs { width: WIDTH },
            OpKind::RmsNorm { width: WIDTH, eps: 1e-5, weight_offset: 0.0 },
            OpKind::Head { width: WIDTH, vocab: VOCAB, softcap: None },
        ];
        for kind in tail.clone() {
            ops.push(self.bind(kind, 0, Rows::Outputs)?);
        }
        let (whole, processor) = self.time("step", ops)?;
        println!(
            "{tokens} tokens: {:.2} ms a step, {:.1} tok/s, {:.2} ms of processor time",
            whole * 1e3,
            tokens as f64 / whole,
            processor * 1e3
        );
        for kind in Bench::layer().into_iter().chain(tail) {
            let rows = if matches!(kind, OpKind::SelectOutputs { .. } | OpKind::Head { .. }) {
                Rows::Outputs
            } else {
                Rows::Tokens
            };
            let name = kind.name();
            let repeat: usize = if matches!(kind, OpKind::Head { .. }) { 1 } else { 10 };
            let bound = self.bind(kind, 0, rows)?;
            let (seconds, processor) = self.time(name, vec![bound; repeat])?;
            let each = 1e6 / repeat as f64;
            println!("  {name:12} {:9.1} us {:9.1} us of processor time", seconds * each, processor * each);
        }
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.next().unwrap_or_default().to_lowercase();
    let kernels = match arguments.next().as_deref() {
        Some("gpu") => Kernels::Gpu,
        Some("software") => Kernels::Software,
        _ => Kernels::Auto,
    };
    let backend = VulkanBackend::with_options(kernels.into());
    for info in backend.probe()? {
        if !info.name.to_lowercase().contains(&wanted) {
            continue;
        }
        println!("{} ({})", info.name, info.driver);
        let device = backend.open(info.id)?;
        Bench::new(Arc::clone(&device), 1, 256, 1)?.report()?;
        Bench::new(Arc::clone(&device), 512, 0, 256)?.report()?;
    }
    Ok(())
}
