//! The ops of a decoder-only transformer, typed, with their dimensions.
//!
//! An op says *what* is computed; how is the backend's business, and where is the plan's. Values
//! between ops are f32 matrices of `[n_tokens, width]` (or `[n_outputs, width]` after
//! [`OpKind::SelectOutputs`]); weights are `[out, in]`, one row per output element, as model files
//! store them. All formulas are those of the model families' reference code in transformers.

use std::sync::Arc;

use crate::DType;

/// One op: the unit of placement.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// What it computes.
    pub kind: OpKind,
    /// The transformer layer it belongs to; `None` before the first and after the last.
    pub layer: Option<usize>,
}

/// The head geometry of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
}

impl Heads {
    /// Width of the query part: `n_heads * head_dim`.
    pub const fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of the key part, and of the value part: `n_kv_heads * head_dim`.
    pub const fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Width of a qkv row: `q_width + 2 * kv_width`, in the order q, k, v.
    pub const fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }
}

/// Which elements of a head a rotary embedding pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// Neighbours `(2i, 2i+1)`: GGUF files of the Llama family, whose weights are permuted for it.
    Interleaved,
    /// Halves `(i, i + head_dim/2)`: everything in Hugging Face layout, and the other GGUF families.
    Halves,
}

/// The gate's activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by the tanh approximation (`gelu_pytorch_tanh`).
    GeluTanh,
}

/// Whether a value has one row per token of the step or one per row that wants logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// `n_tokens` rows.
    Tokens,
    /// `n_outputs` rows.
    Outputs,
}

/// The largest dimension that an op may have: products of two stay far below 64 bits.
const MAX_DIMENSION: usize = 1 << 28;

/// What an op computes. Inputs and weights are listed in the order in which they are bound.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OpKind {
    /// `y = table[token] * scale`. Input: the step's token ids. Weight: table `[vocab, width]`.
    Embed {
        /// Rows of the table.
        vocab: usize,
        /// Columns of the table.
        width: usize,
        /// Gemma multiplies by `sqrt(width)`; others by 1.
        scale: f32,
    },
    /// `y = x / sqrt(mean(x²) + eps) * (w + weight_offset)`, by row. Weight: `[width]`, f32.
    RmsNorm {
        /// Columns.
        width: usize,
        /// Added to the mean square.
        eps: f32,
        /// 1 for Gemma checkpoints in Hugging Face layout, else 0.
        weight_offset: f32,
    },
    /// `[q | k | v] = x Wᵀ (+ b)`. Weights: q, k, v; then, if `bias`, their biases (f32).
    QkvProjection {
        /// Columns of x.
        width: usize,
        /// Head geometry; the output is `qkv_width` wide.
        heads: Heads,
        /// Whether three biases follow the weights.
        bias: bool,
    },
    /// RMS norm of every q head and every k head of a qkv row; v passes. Weights: q_norm, k_norm `[head_dim]`, f32.
    QkNorm {
        /// Head geometry.
        heads: Heads,
        /// Added to the mean square.
        eps: f32,
        /// As in [`OpKind::RmsNorm`].
        weight_offset: f32,
    },
    /// Rotates q and k of a qkv row by `position * inv_freqs[i]`; v passes.
    Rope {
        /// Head geometry.
        heads: Heads,
        /// Pairing.
        style: RopeStyle,
        /// `head_dim / 2` angular frequencies in radians per position, scaling already applied.
        inv_freqs: Arc<[f32]>,
    },
    /// Writes k and v of a qkv row into the KV cache at the token's position. No output value.
    KvAppend {
        /// Head geometry.
        heads: Heads,
    },
    /// Softmax attention of q (from a qkv row) over the cached positions `0..=position` of the token's sequence.
    /// Output: `q_width` wide.
    Attention {
        /// Head geometry.
        heads: Heads,
        /// Multiplies q·k.
        scale: f32,
        /// Only the last `window` positions (the token's own among them) are seen.
        window: Option<usize>,
        /// `cap * tanh(score / cap)` before the softmax, where set.
        softcap: Option<f32>,
    },
    /// `y = x Wᵀ (+ b)`, back to the hidden width. Weights: w, then the bias if `bias`.
    OutputProjection {
        /// Columns of x.
        input: usize,
        /// Columns of y.
        output: usize,
        /// Whether a bias follows.
        bias: bool,
    },
    /// `y = a + b`. Inputs: the residual stream, the branch.
    Residual {
        /// Columns.
        width: usize,
    },
    /// `[gate | up] = x Wᵀ`. Weights: gate, up, each `[ff, width]`.
    GateUp {
        /// Columns of x.
        width: usize,
        /// Rows of each weight; the output is `2 * ff` wide.
        ff: usize,
    },
    /// `y = activation(gate) * up`. Input `2 * ff` wide, output `ff` wide.
    Activate {
        /// Columns of the output.
        ff: usize,
        /// The gate's function.
        activation: Activation,
    },
    /// `y = x Wᵀ`. Weight `[width, ff]`.
    Down {
        /// Columns of x.
        ff: usize,
        /// Columns of y.
        width: usize,
    },
    /// Picks the rows that want logits. Input: `[n_tokens, width]`; output: `[n_outputs, width]`.
    SelectOutputs {
        /// Columns.
        width: usize,
    },
    /// `logits = x Wᵀ`, soft-capped where set. Weight `[vocab, width]`.
    Head {
        /// Columns of x.
        width: usize,
        /// Columns of y.
        vocab: usize,
        /// `cap * tanh(logit / cap)`, where set.
        softcap: Option<f32>,
    },
    /// Chooses the token that follows each output row and makes the step buffer the step that decodes it, as
    /// [`crate::step`] says. Leaves no value: its output is the results ring.
    Sample {
        /// Columns of the logits.
        vocab: usize,
    },
}

/// The classes by which `--place` names ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpClass {
    /// Token embedding.
    Embed,
    /// Norm, projections, rope, KV append and attention of a layer, up to its residual.
    Attention,
    /// Norm, gate-up, activation, down of a layer, up to its residual.
    Ffn,
    /// Output selection, last norm, logits.
    Head,
    /// Choice of a token.
    Sample,
}

impl OpClass {
    /// Every class in the order of a step.
    pub const ALL: [OpClass; 5] = [OpClass::Embed, OpClass::Attention, OpClass::Ffn, OpClass::Head, OpClass::Sample];

    /// The word used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            OpClass::Embed => "embed",
            OpClass::Attention => "attention",
            OpClass::Ffn => "ffn",
            OpClass::Head => "head",
            OpClass::Sample => "sample",
        }
    }
}

/// What a weight is to its op; a backend may lay it out accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightRole {
    /// A table read by row index, never multiplied.
    Table,
    /// The `[out, in]` matrix of a product.
    Matrix,
    /// A vector of f32: norm weight or bias.
    Vector,
}

/// The shape in which an op expects a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightShape {
    /// Use.
    pub role: WeightRole,
    /// Rows; 1 for vectors.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

const fn matrix(rows: usize, columns: usize) -> WeightShape {
    WeightShape { role: WeightRole::Matrix, rows, columns }
}

const fn vector(columns: usize) -> WeightShape {
    WeightShape { role: WeightRole::Vector, rows: 1, columns }
}

impl OpKind {
    /// A short name, used by plans, logs and `--place`.
    pub const fn name(&self) -> &'static str {
        match self {
            OpKind::Embed { .. } => "embed",
            OpKind::RmsNorm { .. } => "norm",
            OpKind::QkvProjection { .. } => "qkv",
            OpKind::QkNorm { .. } => "qk_norm",
            OpKind::Rope { .. } => "rope",
            OpKind::KvAppend { .. } => "kv_append",
            OpKind::Attention { .. } => "attention",
            OpKind::OutputProjection { .. } => "out_proj",
            OpKind::Residual { .. } => "residual",
            OpKind::GateUp { .. } => "gate_up",
            OpKind::Activate { .. } => "activate",
            OpKind::Down { .. } => "down",
            OpKind::SelectOutputs { .. } => "select",
            OpKind::Head { .. } => "head",
            OpKind::Sample { .. } => "sample",
        }
    }

    /// The weights that the op binds, in order.
    pub fn weights(&self) -> Vec<WeightShape> {
        match *self {
            OpKind::Embed { vocab, width, .. } => {
                vec![WeightShape { role: WeightRole::Table, rows: vocab, columns: width }]
            }
            OpKind::RmsNorm { width, .. } => vec![vector(width)],
            OpKind::QkvProjection { width, heads, bias } => {
                let mut shapes = vec![
                    matrix(heads.q_width(), width),
                    matrix(heads.kv_width(), width),
                    matrix(heads.kv_width(), width),
                ];
                if bias {
                    shapes.extend([vector(heads.q_width()), vector(heads.kv_width()), vector(heads.kv_width())]);
                }
                shapes
            }
            OpKind::QkNorm { heads, .. } => vec![vector(heads.head_dim), vector(heads.head_dim)],
            OpKind::OutputProjection { input, output, bias } => {
                let mut shapes = vec![matrix(output, input)];
                if bias {
                    shapes.push(vector(output));
                }
                shapes
            }
            OpKind::GateUp { width, ff } => vec![matrix(ff, width), matrix(ff, width)],
            OpKind::Down { ff, width } => vec![matrix(width, ff)],
            OpKind::Head { width, vocab, .. } => vec![matrix(vocab, width)],
            OpKind::Rope { .. }
            | OpKind::KvAppend { .. }
            | OpKind::Attention { .. }
            | OpKind::Residual { .. }
            | OpKind::Activate { .. }
            | OpKind::SelectOutputs { .. }
            | OpKind::Sample { .. } => Vec::new(),
        }
    }

    /// Columns of each input value, in order; empty for [`OpKind::Embed`], which reads the step's token ids.
    pub fn input_widths(&self) -> Vec<usize> {
        match *self {
            OpKind::Embed { .. } => Vec::new(),
            OpKind::RmsNorm { width, .. }
            | OpKind::QkvProjection { width, .. }
            | OpKind::GateUp { width, .. }
            | OpKind::SelectOutputs { width }
            | OpKind::Head { width, .. } => vec![width],
            OpKind::QkNorm { heads, .. }
            | OpKind::Rope { heads, .. }
            | OpKind::KvAppend { heads }
            | OpKind::Attention { heads, .. } => vec![heads.qkv_width()],
            OpKind::OutputProjection { input, .. } => vec![input],
            OpKind::Residual { width } => vec![width, width],
            OpKind::Activate { ff, .. } => vec![2 * ff],
            OpKind::Down { ff, .. } => vec![ff],
            OpKind::Sample { vocab } => vec![vocab],
        }
    }

    /// Columns of the output value, or `None` where the op leaves none ([`OpKind::KvAppend`], [`OpKind::Sample`]).
    pub fn output_width(&self) -> Option<usize> {
        match *self {
            OpKind::Embed { width, .. }
            | OpKind::RmsNorm { width, .. }
            | OpKind::Residual { width }
            | OpKind::Down { width, .. }
            | OpKind::SelectOutputs { width } => Some(width),
            OpKind::QkvProjection { heads, .. } | OpKind::QkNorm { heads, .. } | OpKind::Rope { heads, .. } => {
                Some(heads.qkv_width())
            }
            OpKind::Attention { heads, .. } => Some(heads.q_width()),
            OpKind::OutputProjection { output, .. } => Some(output),
            OpKind::GateUp { ff, .. } => Some(2 * ff),
            OpKind::Activate { ff, .. } => Some(ff),
            OpKind::Head { vocab, .. } => Some(vocab),
            OpKind::KvAppend { .. } | OpKind::Sample { .. } => None,
        }
    }

    /// The input whose memory the output may share when that input dies here: element-wise ops.
    pub const fn in_place_input(&self) -> Option<usize> {
        match self {
            OpKind::RmsNorm { .. } | OpKind::QkNorm { .. } | OpKind::Rope { .. } | OpKind::Residual { .. } => Some(0),
            _ => None,
        }
    }

    /// True for the two ops that touch the KV cache.
    pub const fn uses_kv(&self) -> bool {
        matches!(self, OpKind::KvAppend { .. } | OpKind::Attention { .. })
    }

    /// What is wrong with the op's dimensions, if anything is. The bound keeps every size below 64 bits.
    pub fn bad_dimension(&self) -> Option<String> {
        let heads = match *self {
            OpKind::QkvProjection { heads, .. }
            | OpKind::QkNorm { heads, .. }
            | OpKind::Rope { heads, .. }
            | OpKind::KvAppend { heads }
            | OpKind::Attention { heads, .. } => Some(heads),
            _ => None,
        };
        if let Some(heads) = heads {
            let product = heads.n_heads.saturating_mul(heads.head_dim);
            if heads.n_kv_heads == 0 || !heads.n_heads.is_multiple_of(heads.n_kv_heads) || heads.n_heads == 0 {
                return Some(format!("{} heads over {} kv heads", heads.n_heads, heads.n_kv_heads));
            }
            if product == 0 || product > MAX_DIMENSION / 4 {
                return Some(format!("{} heads of {}", heads.n_heads, heads.head_dim));
            }
        }
        if let OpKind::Rope { heads, inv_freqs, .. } = self
            && inv_freqs.len() * 2 != heads.head_dim
        {
            return Some(format!("{} rope frequencies for head_dim {}", inv_freqs.len(), heads.head_dim));
        }
        if let OpKind::Attention { window: Some(0), .. } = self {
            return Some("an attention window of 0".into());
        }
        let own: &[usize] = match self {
            OpKind::Embed { vocab, width, .. } | OpKind::Head { vocab, width, .. } => &[*vocab, *width],
            OpKind::OutputProjection { input, output, .. } => &[*input, *output],
            OpKind::GateUp { width, ff } | OpKind::Down { ff, width } => &[*width, *ff],
            OpKind::RmsNorm { width, .. }
            | OpKind::QkvProjection { width, .. }
            | OpKind::Residual { width }
            | OpKind::SelectOutputs { width } => &[*width],
            OpKind::Activate { ff, .. } => &[*ff],
            OpKind::Sample { vocab } => &[*vocab],
            _ => &[],
        };
        own.iter().find(|&&n| n == 0 || n > MAX_DIMENSION).map(|n| format!("dimension {n}, at most {MAX_DIMENSION}"))
    }

    /// Multiply-adds count two. `context` is the mean number of cached positions that a token sees.
    pub fn flops(&self, n_tokens: usize, context: usize) -> f64 {
        let n = n_tokens as f64;
        let product: f64 = self
            .weights()
            .iter()
            .filter(|w| w.role == WeightRole::Matrix)
            .map(|w| 2.0 * w.rows as f64 * w.columns as f64)
            .sum();
        let own = match *self {
            OpKind::Attention { heads, window, .. } => {
                let seen = window.map_or(context, |w| w.min(context)).max(1);
                4.0 * heads.q_width() as f64 * seen as f64
            }
            _ => 4.0 * self.output_width().unwrap_or(0) as f64,
        };
        n * (product + own)
    }
}

/// What a device is asked about when it says whether it can run an op.
#[derive(Clone, Debug)]
pub struct OpQuery<'a> {
    /// The op.
    pub kind: &'a OpKind,
    /// Formats of its weights, in order.
    pub weights: &'a [DType],
    /// Format of its KV cache, for the ops that use it.
    pub kv: Option<DType>,
}
