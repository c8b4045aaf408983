//! Shapes of published models: enough to write a file that costs what the real one costs.

use std::{fmt, str::FromStr};

use anyhow::bail;

/// A family as GGUF files call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Llama,
    Gemma3,
}

impl Architecture {
    /// The prefix of its metadata keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Gemma3 => "gemma3",
        }
    }
}

/// The dimensions of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) architecture: Architecture,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) ff: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocab: usize,
    pub(crate) context: usize,
    /// Sliding window of the layers that have one.
    pub(crate) window: Option<usize>,
    /// The embedding table is the output matrix as well.
    pub(crate) tied: bool,
}

/// Every shape that can be named, smallest first. The first two are of no published model.
pub(crate) const ALL: [Shape; 7] = [
    Shape {
        name: "tiny",
        architecture: Architecture::Llama,
        layers: 2,
        hidden: 256,
        ff: 512,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 512,
        context: 16384,
        window: None,
        tied: false,
    },
    Shape {
        name: "tiny-gemma3",
        architecture: Architecture::Gemma3,
        layers: 7,
        hidden: 256,
        ff: 512,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 512,
        context: 16384,
        window: Some(64),
        tied: true,
    },
    Shape {
        name: "smollm2-135m",
        architecture: Architecture::Llama,
        layers: 30,
        hidden: 576,
        ff: 1536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocab: 49152,
        context: 8192,
        window: None,
        tied: true,
    },
    Shape {
        name: "llama-1b",
        architecture: Architecture::Llama,
        layers: 16,
        hidden: 2048,
        ff: 8192,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        vocab: 128_256,
        context: 131_072,
        window: None,
        tied: true,
    },
    Shape {
        name: "llama-8b",
        architecture: Architecture::Llama,
        layers: 32,
        hidden: 4096,
        ff: 14336,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab: 128_256,
        context: 131_072,
        window: None,
        tied: false,
    },
    // As many KV heads as heads: the widest cache.
    Shape {
        name: "llama-13b",
        architecture: Architecture::Llama,
        layers: 40,
        hidden: 5120,
        ff: 13824,
        heads: 40,
        kv_heads: 40,
        head_dim: 128,
        vocab: 32000,
        context: 4096,
        window: None,
        tied: false,
    },
    Shape {
        name: "gemma3-27b",
        architecture: Architecture::Gemma3,
        layers: 62,
        hidden: 5376,
        ff: 21504,
        heads: 32,
        kv_heads: 16,
        head_dim: 128,
        vocab: 262_144,
        context: 131_072,
        window: Some(1024),
        tied: true,
    },
];

/// A tensor of a model: a matrix `[rows, columns]` in the model's format, or a vector of ones in f32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tensor {
    Matrix {
        name: String,
        rows: usize,
        columns: usize,
        /// Rows are what tokens are scored by: those of special tokens are zero.
        is_head: bool,
    },
    Ones {
        name: String,
        len: usize,
    },
}

impl Shape {
    /// Every tensor, in the order of the file.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let &Shape { hidden, vocab, tied, .. } = self;
        let mut tensors = vec![matrix("token_embd.weight", vocab, hidden, tied), ones("output_norm.weight", hidden)];
        if !tied {
            tensors.push(matrix("output.weight", vocab, hidden, true));
        }
        for layer in 0..self.layers {
            tensors.extend(self.layer(&format!("blk.{layer}.")));
        }
        tensors
    }

    fn layer(&self, prefix: &str) -> Vec<Tensor> {
        let &Shape { hidden, ff, heads, kv_heads, head_dim, .. } = self;
        let matrix = |name: &str, rows, columns| matrix(&format!("{prefix}{name}.weight"), rows, columns, false);
        let ones = |name: &str, len| ones(&format!("{prefix}{name}.weight"), len);
        let mut tensors = vec![
            ones("attn_norm", hidden),
            matrix("attn_q", heads * head_dim, hidden),
            matrix("attn_k", kv_heads * head_dim, hidden),
            matrix("attn_v", kv_heads * head_dim, hidden),
            matrix("attn_output", hidden, heads * head_dim),
            ones("ffn_norm", hidden),
            matrix("ffn_gate", ff, hidden),
            matrix("ffn_up", ff, hidden),
            matrix("ffn_down", hidden, ff),
        ];
        if self.architecture == Architecture::Gemma3 {
            tensors.extend([
                ones("attn_q_norm", head_dim),
                ones("attn_k_norm", head_dim),
                ones("post_attention_norm", hidden),
                ones("post_ffw_norm", hidden),
            ]);
        }
        tensors
    }
}

fn matrix(name: &str, rows: usize, columns: usize, is_head: bool) -> Tensor {
    Tensor::Matrix { name: name.to_owned(), rows, columns, is_head }
}

fn ones(name: &str, len: usize) -> Tensor {
    Tensor::Ones { name: name.to_owned(), len }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Shape> {
        match ALL.into_iter().find(|shape| shape.name == word) {
            Some(shape) => Ok(shape),
            None => bail!("no shape {word}; there are {}", ALL.map(|shape| shape.name).join(", ")),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}
