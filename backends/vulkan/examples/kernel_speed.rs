//! Times products and attention at given sizes, to choose tiles by.
//!
//! `cargo run --release -p biga-vulkan --example kernel_speed -- KEY=LIST...`, each list with commas:
//!
//! | key | what | default |
//! |---|---|---|
//! | device | part of a device's name | every GPU |
//! | tokens | rows of x | 512 |
//! | shapes | weights as rows x columns | 4096x4096 |
//! | formats | of the weights | q4_0 |
//! | tiles | `auto`, `never` (no matrix instructions), or tiles as in `MatrixTile` | auto |
//! | heads | attention as heads/KV heads/head size; none, no attention | |
//! | contexts | positions before the step, for attention | 0 |
//! | kv | formats of the cache | f16 |
//! | sequences | how many share the tokens of an attention step | 1 |
//! | mib | of distinct weights in a recording | 1024 |
//!
//! A line is one op, with what prepares its input. A recording runs it many times over distinct weights, so
//! that no cache holds them; the time is that of the fastest of several recordings, divided.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Instant};

use biga_hal::{
    Accessors, Backend, BoundKv, BoundOp, BoundWeight, Bucket, Buffer, BufferDesc, DType, Device, DeviceKind, Heads,
    Op, OpKind, Rows, Segment, StepHeader, StepLayout, StepLimits,
};
use biga_vulkan::{Kernels, Matrices, VulkanBackend, VulkanOptions};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BLOCK_LEN: usize = 32;

/// How many times the op stands in a recording, at least and at most.
const COPIES: [usize; 2] = [4, 64];

/// What was typed.
struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn new() -> Result<Arguments> {
        const KEYS: [&str; 10] =
            ["device", "tokens", "shapes", "formats", "tiles", "heads", "contexts", "kv", "sequences", "mib"];
        let pairs = std::env::args().skip(1).map(|text| {
            let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=LIST"))?;
            if !KEYS.contains(&key) {
                return Err(format!("no key `{key}`, but {}", KEYS.join(", ")));
            }
            Ok((key.to_owned(), value.to_owned()))
        });
        Ok(Arguments(pairs.collect::<std::result::Result<_, String>>()?))
    }

    fn text(&self, key: &str, default: &str) -> String {
        self.0.get(key).cloned().unwrap_or_else(|| default.to_owned())
    }

    fn list<T>(&self, key: &str, default: &str, read: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
        self.text(key, default).split(',').filter(|text| !text.is_empty()).map(read).collect()
    }

    fn numbers(&self, key: &str, default: &str) -> Result<Vec<usize>> {
        self.list(key, default, |text| Ok(text.parse()?))
    }

    fn formats(&self, key: &str, default: &str) -> Result<Vec<DType>> {
        self.list(key, default, |text| {
            let found = DType::ALL.into_iter().find(|dtype| dtype.name() == text);
            found.ok_or_else(|| format!("no format `{text}`").into())
        })
    }
}

/// Numbers between separators.
fn sizes<const N: usize>(text: &str, separator: char) -> Result<[usize; N]> {
    let numbers: Vec<usize> = text.split(separator).map(str::parse).collect::<std::result::Result<_, _>>()?;
    numbers.try_into().map_err(|_| format!("`{text}` is not {N} numbers with `{separator}` between").into())
}

fn matrices(text: &str) -> Result<Matrices> {
    Ok(match text {
        "auto" => Matrices::Auto,
        "never" => Matrices::Never,
        tile => Matrices::Tile(tile.parse()?),
    })
}

fn buffer(device: &dyn Device, size_bytes: usize) -> Result<Buffer> {
    Ok(device.allocate(&BufferDesc {
        name: "speed".into(),
        size_bytes: size_bytes as u64,
        accessors: Accessors::default(),
    })?)
}

/// Noise, so that the device's power is that of real weights. With bit 6 of each byte clear, whatever is a float
/// in it is finite and below 2.
fn noise(size_bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let words = size_bytes.div_ceil(8);
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state ^ (state >> 29)) & 0xBFBF_BFBF_BFBF_BFBF
    };
    let mut bytes: Vec<u8> = (0..words).map(next).flat_map(u64::to_le_bytes).collect();
    bytes.truncate(size_bytes);
    bytes
}

/// A step of `tokens` in `sequences` whose contexts have `context` positions before it.
struct Bench {
    device: Arc<dyn Device>,
    step: Buffer,
    layout: StepLayout,
    bucket: Bucket,
}

impl Bench {
    fn new(device: &Arc<dyn Device>, tokens: usize, sequences: usize, context: usize) -> Result<Bench> {
        let each = tokens.div_ceil(sequences);
        let max_blocks = (context + each).div_ceil(BLOCK_LEN);
        let limits = StepLimits { max_tokens: tokens, max_outputs: 1, max_slots: sequences, max_blocks, n_tables: 1 };
        let layout = StepLayout::new(limits)?;
        let step = buffer(&**device, layout.size_bytes)?;
        let bench =
            Bench { device: Arc::clone(device), step, layout, bucket: Bucket { tokens, sequences, outputs: 1 } };
        let header = StepHeader {
            n_tokens: tokens as u32,
            n_sequences: sequences as u32,
            n_outputs: 1,
            ..StepHeader::default()
        };
        bench.write(0, &header.to_bytes())?;
        let words = |of: &dyn Fn(usize) -> usize| -> Vec<u8> {
            (0..tokens).flat_map(|token| (of(token) as u32).to_le_bytes()).collect()
        };
        bench.write(layout.positions, &words(&|token| context + token % each))?;
        bench.write(layout.slots, &words(&|token| token / each))?;
        Ok(bench)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        Ok(self.device.write(&self.step.slice(at as u64, bytes.len() as u64)?, bytes)?)
    }

    /// Seconds of one of the ops.
    fn time(&self, ops: Vec<BoundOp>) -> Result<f64> {
        let count = ops.len();
        let (step, step_layout) = (self.step.whole(), self.layout);
        let segment = Segment { name: "speed".into(), bucket: self.bucket, ops, step, step_layout };
        let executable = self.device.compile(&segment)?;
        let mut best = f64::INFINITY;
        let began = Instant::now();
        let mut runs = 0;
        while runs < 3 || began.elapsed().as_secs_f64() < 0.3 {
            let start = Instant::now();
            self.device.submit(&*executable, &[])?.wait(std::time::Duration::from_secs(600))?;
            best = best.min(start.elapsed().as_secs_f64());
            runs += 1;
        }
        Ok(best / count as f64)
    }

    fn floats(&self, rows: usize, width: usize) -> Result<Buffer> {
        let made = buffer(&*self.device, 4 * rows * width)?;
        self.device.write(&made.whole(), &noise(4 * rows * width))?;
        Ok(made)
    }

    fn product(&self, [rows, columns]: [usize; 2], dtype: DType, mib: usize) -> Result<()> {
        let tokens = self.bucket.tokens;
        let kind = OpKind::Down { ff: columns, width: rows };
        let [shape] = &kind.weights()[..] else { return Err("a product has one weight".into()) };
        let size_bytes = self.device.weight_size_bytes(shape, dtype) as usize;
        let copies = ((mib << 20) / size_bytes.max(1)).clamp(COPIES[0], COPIES[1]);
        let bytes = noise(size_bytes);
        let (x, y) = (self.floats(tokens, columns)?, buffer(&*self.device, 4 * tokens * rows)?);
        let op = Arc::new(Op { kind: kind.clone(), layer: None });
        let mut ops = Vec::new();
        for _ in 0..copies {
            let weight = buffer(&*self.device, size_bytes)?;
            self.device.write(&weight.whole(), &bytes)?;
            ops.push(BoundOp {
                op: Arc::clone(&op),
                rows: Rows::Tokens,
                inputs: vec![x.whole()],
                output: Some(y.whole()),
                weights: vec![BoundWeight { slice: weight.whole(), dtype, rows, columns }],
                kv: None,
                internal: false,
            });
        }
        let seconds = self.time(ops)?;
        let flops = 2.0 * (tokens * rows * columns) as f64;
        println!(
            "{:9.1} us {:8.1} GB/s {:7.1} TFLOP/s",
            seconds * 1e6,
            size_bytes as f64 / seconds / 1e9,
            flops / seconds / 1e12
        );
        Ok(())
    }

    fn attention(&self, heads: Heads, dtype: DType, context: usize, mib: usize) -> Result<()> {
        let (tokens, limits) = (self.bucket.tokens, self.layout.limits);
        let row_bytes = dtype.row_bytes(heads.head_dim).ok_or("heads are no whole number of quant blocks")?;
        let part = row_bytes * heads.n_kv_heads * BLOCK_LEN;
        let blocks = limits.max_blocks * limits.max_slots;
        let layers = ((mib << 20) / (2 * part * blocks)).clamp(COPIES[0], COPIES[1]);
        let block_bytes = 2 * part * layers;
        let slab = buffer(&*self.device, block_bytes * blocks)?;
        let bytes = noise(2 * part);
        for block in 0..blocks * layers {
            self.device.write(&slab.slice((block * bytes.len()) as u64, bytes.len() as u64)?, &bytes)?;
        }
        let base = slab.allocation().device_address();
        for slot in 0..limits.max_slots {
            let addresses = (0..limits.max_blocks)
                .flat_map(|block| (base + ((slot * limits.max_blocks + block) * block_bytes) as u64).to_le_bytes());
            self.write(self.layout.table_row(0, slot), &addresses.collect::<Vec<u8>>())?;
        }
        let scale = 1.0 / (heads.head_dim as f32).sqrt();
        let kind = OpKind::Attention { heads, scale, window: None, softcap: None };
        let op = Arc::new(Op { kind, layer: None });
        let x = self.floats(tokens, heads.qkv_width())?;
        let y = buffer(&*self.device, 4 * tokens * heads.q_width())?;
        let ops = (0..layers).map(|layer| BoundOp {
            op: Arc::clone(&op),
            rows: Rows::Tokens,
            inputs: vec![x.whole()],
            output: Some(y.whole()),
            weights: Vec::new(),
            kv: Some(BoundKv {
                table: 0,
                block_len: BLOCK_LEN,
                k_offset_bytes: (2 * layer * part) as u64,
                v_offset_bytes: ((2 * layer + 1) * part) as u64,
                block_bytes: block_bytes as u64,
                dtype,
            }),
            internal: false,
        });
        let seconds = self.time(ops.collect())?;
        let each = tokens.div_ceil(limits.max_slots) as f64;
        let seen = tokens as f64 * (context as f64 + (each + 1.0) / 2.0);
        let flops = 4.0 * seen * heads.q_width() as f64;
        let read = limits.max_slots as f64 * (context as f64 + each) * (2 * row_bytes * heads.n_kv_heads) as f64;
        println!("{:9.1} us {:8.1} GB/s {:7.1} TFLOP/s", seconds * 1e6, read / seconds / 1e9, flops / seconds / 1e12);
        Ok(())
    }
}

/// Prints what is about to be timed, then a result or why there is none.
fn line(what: &str, run: impl FnOnce() -> Result<()>) {
    print!("{what:58} ");
    if let Err(error) = run() {
        println!("{error}");
    }
}

fn measure(device: &Arc<dyn Device>, tile: &str, arguments: &Arguments) -> Result<()> {
    let mib: usize = arguments.text("mib", "1024").parse()?;
    let shapes = arguments.list("shapes", "4096x4096", |text| sizes::<2>(text, 'x'))?;
    for &tokens in &arguments.numbers("tokens", "512")? {
        for dtype in arguments.formats("formats", "q4_0")? {
            for &[rows, columns] in &shapes {
                line(&format!("{rows}x{columns} {dtype}, {tokens} tokens, {tile}"), || {
                    Bench::new(device, tokens, 1, 0)?.product([rows, columns], dtype, mib)
                });
            }
        }
        for [n_heads, n_kv_heads, head_dim] in arguments.list("heads", "", |text| sizes::<3>(text, '/'))? {
            let heads = Heads { n_heads, n_kv_heads, head_dim };
            for dtype in arguments.formats("kv", "f16")? {
                for &sequences in &arguments.numbers("sequences", "1")? {
                    for &context in &arguments.numbers("contexts", "0")? {
                        let of = format!("{n_heads}/{n_kv_heads}/{head_dim} {dtype}, {tokens} tokens");
                        line(&format!("attention {of} of {sequences} after {context}, {tile}"), || {
                            let sequences = sequences.min(tokens);
                            Bench::new(device, tokens, sequences, context)?.attention(heads, dtype, context, mib)
                        });
                    }
                }
            }
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments = Arguments::new()?;
    let wanted = arguments.text("device", "").to_lowercase();
    let infos = VulkanBackend::new().probe().map_err(|error| error.to_string())?;
    let takes =
        |name: &str, kind| if wanted.is_empty() { kind != DeviceKind::SoftwareGpu } else { name.contains(&wanted) };
    for info in infos.into_iter().filter(|info| takes(&info.name.to_lowercase(), info.kind)) {
        println!("{} ({})", info.name, info.driver);
        for tile in arguments.list("tiles", "auto", |text| Ok(text.to_owned()))? {
            let options =
                VulkanOptions { kernels: Kernels::Gpu, matrices: matrices(&tile)?, ..VulkanOptions::default() };
            let device = VulkanBackend::with_options(options).open(info.id)?;
            measure(&device, &tile, &arguments)?;
        }
    }
    Ok(())
}
