//! The shape of a model, whatever its file format: what the graph is built from.

mod check;
mod gguf;
mod hugging_face;

use std::{fmt, sync::Arc};

use biga_hal::{Activation, Heads, RopeStyle};

use super::{error::LoadError, gguf::Metadata, tensors::Tensors};

/// The model families that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Family {
    /// Llama 2 and 3, SmolLM2, TinyLlama.
    Llama,
    /// Mistral 7B and its relatives.
    Mistral,
    /// Qwen 2 and 2.5: biases on q, k, v.
    Qwen2,
    /// Qwen 3: norms on q and k.
    Qwen3,
    /// Gemma 3, text part: norms on q and k and after each branch, two kinds of layers.
    Gemma3,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 5] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3, Family::Gemma3];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma3 => "gemma3",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A decoder-only transformer's dimensions and constants, checked when they were read.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Family.
    pub family: Family,
    /// Name from the file, for display.
    pub name: String,
    /// Token ids.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward network.
    pub ff: usize,
    /// Attention geometry, the same in every layer.
    pub heads: Heads,
    /// The longest text the model was made for, in tokens.
    pub max_context: usize,
    /// Added to the mean square by every norm.
    pub norm_eps: f32,
    /// Added to every norm weight: 1 for Gemma in Hugging Face layout, else 0.
    pub norm_weight_offset: f32,
    /// Multiplies the embedding: `sqrt(hidden)` for Gemma, else 1.
    pub embed_scale: f32,
    /// The gate's function.
    pub activation: Activation,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// A bias on the output projection.
    pub output_bias: bool,
    /// Norms on each head of q and k.
    pub qk_norm: bool,
    /// Norms on each branch before it joins the residual stream.
    pub post_norms: bool,
    /// Multiplies q·k.
    pub attention_scale: f32,
    /// Soft cap of attention scores.
    pub attention_softcap: Option<f32>,
    /// Soft cap of logits.
    pub logit_softcap: Option<f32>,
    /// The head multiplies by the embedding table.
    pub tied_embeddings: bool,
    /// Pairing of rotated elements, which depends on the file format's weight order.
    pub rope_style: RopeStyle,
    /// By layer.
    pub layers: Vec<LayerConfig>,
}

impl Config {
    /// Reads the config of a GGUF file. `bytes` is the whole file: Llama 3's rope scaling is a tensor.
    ///
    /// # Errors
    /// [`LoadError`]: an unknown family, a feature that is not computed here, a value missing or out of bounds.
    pub fn from_gguf(metadata: &Metadata, tensors: &Tensors, bytes: &[u8]) -> Result<Config, LoadError> {
        gguf::parse(metadata, tensors, bytes)
    }

    /// Reads a checkpoint's `config.json`.
    ///
    /// # Errors
    /// As [`Config::from_gguf`].
    pub fn from_hugging_face(json: &serde_json::Value) -> Result<Config, LoadError> {
        hugging_face::parse(json)
    }
}

/// What differs between layers.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerConfig {
    /// Sliding window in tokens, the token's own position among them; `None` sees everything.
    pub window: Option<usize>,
    /// `head_dim / 2` angular frequencies, scaling applied. Layers of one kind share the allocation.
    pub inv_freqs: Arc<[f32]>,
}

/// How rotary frequencies are stretched for longer texts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by the factor.
    Linear {
        /// Divisor.
        factor: f32,
    },
    /// Llama 3's: low frequencies divided, high ones kept, a smooth ramp between.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f32,
        /// Bound of the low part, in wavelengths per original context.
        low_freq_factor: f32,
        /// Bound of the high part.
        high_freq_factor: f32,
        /// Context of the first training.
        original_context: usize,
    },
    /// One divisor per frequency, from the file (GGUF's `rope_freqs.weight`).
    Divisors(Vec<f32>),
}

/// The angular frequencies `base^(-2i/head_dim)`, scaled.
///
/// The Llama 3 formula is that of transformers' `modeling_rope_utils`.
pub fn inv_freqs(head_dim: usize, base: f32, scaling: &RopeScaling) -> Arc<[f32]> {
    (0..head_dim / 2)
        .map(|i| {
            let freq = 1.0 / base.powf(2.0 * i as f32 / head_dim as f32);
            match scaling {
                RopeScaling::None => freq,
                RopeScaling::Linear { factor } => freq / factor,
                RopeScaling::Divisors(divisors) => freq / divisors.get(i).copied().unwrap_or(1.0),
                RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                    let wavelength = 2.0 * std::f32::consts::PI / freq;
                    let original = *original_context as f32;
                    if wavelength > original / low_freq_factor {
                        freq / factor
                    } else if wavelength < original / high_freq_factor {
                        freq
                    } else {
                        let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * freq / factor + smooth * freq
                    }
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
