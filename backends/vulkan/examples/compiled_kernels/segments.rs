//! Segments of the models that people run, over buffers that are only addresses: what the backend would be
//! asked to compile for them, in every format and at the sizes of step that choose between kernels.

use std::{any::Any, sync::Arc};

use biga_hal::{
    Activation, Allocation, BoundKv, BoundOp, BoundWeight, Bucket, Buffer, BufferSlice, DType, DeviceId, Epoch, Heads,
    HostRange, Op, OpKind, Result, RopeStyle, Rows, Segment, StepLayout, StepLimits, WeightRole,
};

/// Tokens of a step: each count that a kernel for few tokens is made for, and sizes of prompts.
const TOKENS: [usize; 9] = [1, 2, 3, 4, 8, 16, 32, 64, 512];

const BLOCK_LEN: usize = 32;

/// The shape of a decoder layer and what surrounds it.
struct Model {
    width: usize,
    ff: usize,
    vocab: usize,
    heads: Heads,
    bias: bool,
    qk_norm: bool,
    /// Norms of the branches before they are added.
    post_norm: bool,
    activation: Activation,
    softcap: Option<f32>,
}

const LLAMA: Model = Model {
    width: 4096,
    ff: 14336,
    vocab: 128_256,
    heads: Heads { n_heads: 32, n_kv_heads: 8, head_dim: 128 },
    bias: false,
    qk_norm: false,
    post_norm: false,
    activation: Activation::Silu,
    softcap: None,
};

const GEMMA: Model = Model {
    width: 640,
    ff: 2048,
    vocab: 262_144,
    heads: Heads { n_heads: 4, n_kv_heads: 1, head_dim: 256 },
    bias: false,
    qk_norm: true,
    post_norm: true,
    activation: Activation::GeluTanh,
    softcap: None,
};

/// Small and large models of each head size, and one whose width is no whole number of chunks.
const MODELS: [Model; 8] = [
    LLAMA,
    // Llama 13B: every query head has a key head.
    Model {
        width: 5120,
        ff: 13824,
        vocab: 32_000,
        heads: Heads { n_heads: 40, n_kv_heads: 40, head_dim: 128 },
        ..LLAMA
    },
    // SmolLM2 135M.
    Model { width: 576, ff: 1536, vocab: 49_152, heads: Heads { n_heads: 9, n_kv_heads: 3, head_dim: 64 }, ..LLAMA },
    // Qwen2 0.5B.
    Model {
        width: 896,
        ff: 4864,
        vocab: 151_936,
        heads: Heads { n_heads: 14, n_kv_heads: 2, head_dim: 64 },
        bias: true,
        ..LLAMA
    },
    // Qwen3 0.6B: small weights in every format.
    Model {
        width: 1024,
        ff: 3072,
        vocab: 151_936,
        heads: Heads { n_heads: 16, n_kv_heads: 8, head_dim: 128 },
        qk_norm: true,
        ..LLAMA
    },
    // Gemma 3 270M, and 27B with the soft cap of Gemma 2.
    GEMMA,
    Model {
        width: 5376,
        ff: 21504,
        vocab: 262_208,
        heads: Heads { n_heads: 32, n_kv_heads: 16, head_dim: 128 },
        softcap: Some(30.0),
        ..GEMMA
    },
    Model { width: 72, ff: 200, vocab: 1000, heads: Heads { n_heads: 2, n_kv_heads: 1, head_dim: 64 }, ..LLAMA },
];

/// Two segments a model, format and size of step.
pub(crate) fn all() -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for model in &MODELS {
        for dtype in DType::ALL {
            if !model.has(dtype) {
                continue;
            }
            // The format of the cache and that of the weights choose different kernels.
            let caches: &[DType] = if dtype == DType::F16 { &DType::KV } else { &[DType::F16] };
            for &kv in caches {
                for tokens in TOKENS {
                    // Ops by themselves, as where others read their values, and those that join.
                    for internal in [false, true] {
                        segments.push(Builder::new(model, dtype, kv, tokens, internal)?.segment());
                    }
                }
            }
        }
    }
    Ok(segments)
}

impl Model {
    /// True if every matrix can be stored in the format.
    fn has(&self, dtype: DType) -> bool {
        [self.width, self.ff, self.heads.q_width()].iter().all(|&columns| dtype.row_bytes(columns).is_some())
    }
}

/// Memory that is only an address.
#[derive(Debug)]
struct Address {
    address: u64,
    size_bytes: u64,
}

impl Allocation for Address {
    fn name(&self) -> &str {
        "address"
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn owner(&self) -> Option<DeviceId> {
        None
    }

    fn epoch(&self) -> Epoch {
        Epoch::default()
    }

    fn host_range(&self) -> Option<HostRange> {
        None
    }

    fn device_address(&self) -> u64 {
        self.address
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A segment under construction.
struct Builder<'a> {
    model: &'a Model,
    weights: DType,
    kv: DType,
    layout: StepLayout,
    bucket: Bucket,
    /// True if nobody outside the segment reads values other than the logits.
    internal: bool,
    free_address: u64,
    ops: Vec<BoundOp>,
}

impl Builder<'_> {
    fn new(model: &Model, weights: DType, kv: DType, tokens: usize, internal: bool) -> Result<Builder<'_>> {
        let limits =
            StepLimits { max_tokens: tokens, max_outputs: tokens, max_slots: tokens, max_blocks: 256, n_tables: 1 };
        let layout = StepLayout::new(limits)?;
        // Many tokens are a prompt's.
        let sequences = if tokens < 64 { tokens } else { 8 };
        let bucket = Bucket { tokens, sequences, outputs: tokens };
        Ok(Builder { model, weights, kv, layout, bucket, internal, free_address: 1 << 20, ops: Vec::new() })
    }

    fn slice(&mut self, size_bytes: usize) -> BufferSlice {
        let (address, size_bytes) = (self.free_address, size_bytes as u64);
        self.free_address += size_bytes.next_multiple_of(256);
        Buffer::new(Address { address, size_bytes }).whole()
    }

    /// Appends an op; its output, if it has one.
    fn op(&mut self, kind: OpKind, rows: Rows, inputs: Vec<BufferSlice>) -> Option<BufferSlice> {
        let mut weights = Vec::new();
        for shape in kind.weights() {
            let is_vector = shape.role == WeightRole::Vector;
            let dtype = if is_vector { DType::F32 } else { self.weights };
            // Plain rows are padded to chunks of 32.
            let columns = if is_vector { shape.columns } else { shape.columns.next_multiple_of(32) };
            let slice = self.slice(shape.rows * dtype.row_bytes(columns).unwrap_or(0));
            weights.push(BoundWeight { slice, dtype, rows: shape.rows, columns: shape.columns });
        }
        let count = if rows == Rows::Tokens { self.bucket.tokens } else { self.bucket.outputs };
        let output_bytes = match kind {
            OpKind::Sample { .. } => Some(self.layout.ring_bytes()),
            _ => kind.output_width().map(|width| 4 * count * width),
        };
        let output = output_bytes.map(|size_bytes| self.slice(size_bytes));
        let part = (self.model.heads.n_kv_heads * BLOCK_LEN * self.model.heads.head_dim * 4) as u64;
        let kv = kind.uses_kv().then(|| BoundKv {
            table: 0,
            block_len: BLOCK_LEN,
            k_offset_bytes: 0,
            v_offset_bytes: part,
            block_bytes: 2 * part,
            dtype: self.kv,
        });
        let internal = self.internal && !matches!(kind, OpKind::Head { .. });
        let op = Arc::new(Op { kind, layer: Some(0) });
        self.ops.push(BoundOp { op, rows, inputs, output: output.clone(), weights, kv, internal });
        output
    }

    /// An op of one input that leaves a value.
    fn value(&mut self, kind: OpKind, x: &BufferSlice) -> BufferSlice {
        self.op(kind, Rows::Tokens, vec![x.clone()]).unwrap_or_else(|| x.clone())
    }

    fn norm(&mut self, x: &BufferSlice) -> BufferSlice {
        self.value(OpKind::RmsNorm { width: self.model.width, eps: 1e-6, weight_offset: 0.0 }, x)
    }

    fn add(&mut self, x: &BufferSlice, branch: BufferSlice) -> BufferSlice {
        let branch = if self.model.post_norm { self.norm(&branch) } else { branch };
        let inputs = vec![x.clone(), branch];
        self.op(OpKind::Residual { width: self.model.width }, Rows::Tokens, inputs).unwrap_or_else(|| x.clone())
    }

    fn attention(&mut self, x: &BufferSlice) -> BufferSlice {
        let Model { width, heads, bias, qk_norm, softcap, .. } = *self.model;
        let x = self.norm(x);
        let mut qkv = self.value(OpKind::QkvProjection { width, heads, bias }, &x);
        if qk_norm {
            qkv = self.value(OpKind::QkNorm { heads, eps: 1e-6, weight_offset: 0.0 }, &qkv);
        }
        let inv_freqs: Arc<[f32]> = (0..heads.head_dim / 2).map(|i| 1e4f32.powf(-(i as f32) / 32.0)).collect();
        let qkv = self.value(OpKind::Rope { heads, style: RopeStyle::Halves, inv_freqs }, &qkv);
        self.value(OpKind::KvAppend { heads }, &qkv);
        let attended = self.value(OpKind::Attention { heads, scale: 0.125, window: None, softcap }, &qkv);
        self.value(OpKind::OutputProjection { input: heads.q_width(), output: width, bias: false }, &attended)
    }

    fn feed_forward(&mut self, x: &BufferSlice) -> BufferSlice {
        let Model { width, ff, activation, .. } = *self.model;
        let x = self.norm(x);
        let gate_up = self.value(OpKind::GateUp { width, ff }, &x);
        let hidden = self.value(OpKind::Activate { ff, activation }, &gate_up);
        self.value(OpKind::Down { ff, width }, &hidden)
    }

    /// The embedding, a layer, the head and the choice of tokens.
    fn segment(mut self) -> Segment {
        let Model { width, vocab, softcap, .. } = *self.model;
        let step = self.slice(self.layout.size_bytes);
        let embedded = self.op(OpKind::Embed { vocab, width, scale: 1.0 }, Rows::Tokens, Vec::new());
        let x = embedded.unwrap_or_else(|| step.clone());
        let branch = self.attention(&x);
        let x = self.add(&x, branch);
        let branch = self.feed_forward(&x);
        let x = self.add(&x, branch);
        let selected = self.op(OpKind::SelectOutputs { width }, Rows::Outputs, vec![x.clone()]).unwrap_or(x);
        let norm = OpKind::RmsNorm { width, eps: 1e-6, weight_offset: 0.0 };
        let last = self.op(norm, Rows::Outputs, vec![selected.clone()]).unwrap_or(selected);
        let head = OpKind::Head { width, vocab, softcap };
        let logits = self.op(head, Rows::Outputs, vec![last.clone()]).unwrap_or(last);
        self.op(OpKind::Sample { vocab }, Rows::Outputs, vec![logits]);
        let name = format!("{width} wide, {}, {} tokens", self.weights, self.bucket.tokens);
        Segment { name, bucket: self.bucket, ops: self.ops, step, step_layout: self.layout }
    }
}
