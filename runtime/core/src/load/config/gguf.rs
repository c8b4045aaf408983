//! The config of a GGUF file: metadata under the architecture's prefix, and what only the tensors tell.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use biga_hal::{Activation, DType, RopeStyle};

use super::{Config, Family, LayerConfig, LoadError, RopeScaling, check, inv_freqs};
use crate::load::{
    gguf::{Array, Metadata, Value},
    tensors::Tensors,
};

const DEFAULT_ROPE_BASE: f64 = 10_000.0;
const GEMMA_LOCAL_ROPE_BASE: f64 = 10_000.0;
/// Every n-th layer of Gemma 3 sees everything, where the file does not say otherwise.
const GEMMA_WINDOW_PATTERN: u64 = 6;
/// The Gemma 3 model whose attention scale follows from width and heads; files do not state the scale.
const GEMMA_27B_LAYERS: usize = 62;

/// Metadata under `prefix.`
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn count(&self, name: &str, max: u64) -> Result<Option<usize>, LoadError> {
        let key = self.key(name);
        match self.metadata.unsigned(&key)? {
            Some(value) => check::count(&key, value, max).map(Some),
            None => Ok(None),
        }
    }

    fn require(&self, name: &str, max: u64) -> Result<usize, LoadError> {
        self.count(name, max)?.ok_or_else(|| LoadError::MissingKey { key: self.key(name) })
    }

    /// A count that newer writers give per layer; the layers must agree.
    fn uniform(&self, name: &str, max: u64) -> Result<Option<usize>, LoadError> {
        let key = self.key(name);
        let Some(Value::Array(array)) = self.metadata.get(&key) else { return self.count(name, max) };
        let values = array.integers().unwrap_or_default();
        match values.first() {
            Some(first) if values.iter().all(|value| value == first) => match u64::try_from(*first) {
                Ok(value) => check::count(&key, value, max).map(Some),
                Err(_) => Err(check::out_of_bounds(&key, first, format!("must be from 1 to {max}"))),
            },
            _ => Err(check::unsupported(&key, describe(array), "one value for all layers")),
        }
    }

    fn real(&self, name: &str) -> Result<Option<f64>, LoadError> {
        self.metadata.real(&self.key(name))
    }

    fn rope_base(&self, name: &str, default: f64) -> Result<f32, LoadError> {
        check::rope_base(&self.key(name), self.real(name)?.unwrap_or(default))
    }

    fn softcap(&self, name: &str) -> Result<Option<f32>, LoadError> {
        match self.real(name)? {
            Some(value) if value != 0.0 => check::positive(&self.key(name), value).map(Some),
            _ => Ok(None),
        }
    }
}

fn describe(array: &Array) -> String {
    format!("with {} values that differ", array.len())
}

pub(super) fn parse(metadata: &Metadata, tensors: &Tensors, bytes: &[u8]) -> Result<Config, LoadError> {
    let architecture = metadata
        .string("general.architecture")?
        .ok_or_else(|| LoadError::MissingKey { key: "general.architecture".to_owned() })?;
    let family = match architecture {
        // Files of the Mistral family call themselves llama, and are computed alike.
        "llama" => Family::Llama,
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        "gemma3" => Family::Gemma3,
        other => return Err(check::unknown_family(other)),
    };
    let keys = Keys { metadata, prefix: architecture };
    refuse_experts(&keys)?;
    let hidden = keys.require("embedding_length", check::MAX_WIDTH)?;
    let n_layers = keys.require("block_count", check::MAX_LAYERS)?;
    let heads = heads(&keys, hidden)?;
    let gemma = family == Family::Gemma3;
    let has = |name: &str| tensors.get(name).is_some();
    let ff = keys
        .uniform("feed_forward_length", check::MAX_WIDTH)?
        .ok_or_else(|| LoadError::MissingKey { key: keys.key("feed_forward_length") })?;
    let eps_name = "attention.layer_norm_rms_epsilon";
    let eps = keys.real(eps_name)?.ok_or_else(|| LoadError::MissingKey { key: keys.key(eps_name) })?;
    let scaled_by = if gemma && n_layers == GEMMA_27B_LAYERS {
        hidden.checked_div(heads.n_heads).unwrap_or(1)
    } else {
        heads.head_dim
    };
    Ok(Config {
        family,
        name: metadata.string("general.name")?.unwrap_or(architecture).to_owned(),
        vocab: vocab(tensors)?,
        hidden,
        ff,
        heads,
        max_context: keys.require("context_length", check::MAX_CONTEXT)?,
        norm_eps: check::positive(&keys.key(eps_name), eps)?,
        // Writers of Gemma files have added the 1 already.
        norm_weight_offset: 0.0,
        embed_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        qkv_bias: family == Family::Qwen2 || has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        post_norms: gemma,
        attention_scale: 1.0 / (scaled_by as f32).sqrt(),
        attention_softcap: keys.softcap("attn_logit_softcapping")?,
        logit_softcap: keys.softcap("final_logit_softcapping")?,
        tied_embeddings: !has("output.weight"),
        rope_style: if family == Family::Llama { RopeStyle::Interleaved } else { RopeStyle::Halves },
        layers: layers(&keys, family, n_layers, heads.head_dim, tensors, bytes)?,
    })
}

fn refuse_experts(keys: &Keys<'_>) -> Result<(), LoadError> {
    let key = keys.key("expert_count");
    match keys.metadata.unsigned(&key)? {
        Some(count) if count > 0 => Err(check::unsupported(&key, count, "0, models without experts")),
        _ => Ok(()),
    }
}

fn heads(keys: &Keys<'_>, hidden: usize) -> Result<biga_hal::Heads, LoadError> {
    let (q, kv, k, v) =
        ("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length");
    let missing = || LoadError::MissingKey { key: keys.key(q) };
    let n_heads = keys.uniform(q, check::MAX_HEADS)?.ok_or_else(missing)?;
    let n_kv_heads = keys.uniform(kv, check::MAX_HEADS)?.unwrap_or(n_heads);
    let (q_key, kv_key, k_key, v_key) = (keys.key(q), keys.key(kv), keys.key(k), keys.key(v));
    let head_dim = match keys.count(k, check::MAX_HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None => check::implied_head_dim((&keys.key("embedding_length"), hidden), (&q_key, n_heads))?,
    };
    // The bound that a stated size keeps holds for an implied one as well.
    check::count(&k_key, head_dim as u64, check::MAX_HEAD_DIM)?;
    for (key, size) in [
        (v_key, keys.count(v, check::MAX_HEAD_DIM)?),
        (keys.key("rope.dimension_count"), keys.count("rope.dimension_count", check::MAX_HEAD_DIM)?),
    ] {
        if let Some(size) = size.filter(|&size| size != head_dim) {
            return Err(check::unsupported(&key, size, &format!("{head_dim}, the size of a key head")));
        }
    }
    check::heads((&q_key, n_heads), (&kv_key, n_kv_heads), (&k_key, head_dim))
}

/// Files may pad the table beyond the vocabulary that they state, so the table decides.
fn vocab(tensors: &Tensors) -> Result<usize, LoadError> {
    let table = tensors.require("token_embd.weight")?;
    let rows = table.shape.first().copied().unwrap_or(0) as u64;
    check::count("rows of token_embd.weight", rows, check::MAX_VOCAB)
}

fn layers(
    keys: &Keys<'_>,
    family: Family,
    n_layers: usize,
    head_dim: usize,
    tensors: &Tensors,
    bytes: &[u8],
) -> Result<Vec<LayerConfig>, LoadError> {
    let base = keys.rope_base("rope.freq_base", DEFAULT_ROPE_BASE)?;
    let scaling = scaling(keys, head_dim, tensors, bytes)?;
    let global = inv_freqs(head_dim, base, &scaling);
    let window = match keys.metadata.unsigned(&keys.key("attention.sliding_window"))? {
        Some(0) | None => None,
        Some(window) => Some(check::count(&keys.key("attention.sliding_window"), window, u64::MAX)?),
    };
    let Some(window) = window else {
        return Ok(vec![LayerConfig { window: None, inv_freqs: global }; n_layers]);
    };
    if family != Family::Gemma3 {
        return Ok(vec![LayerConfig { window: Some(window), inv_freqs: global }; n_layers]);
    }
    let local_base = keys.rope_base("rope.freq_base_swa", GEMMA_LOCAL_ROPE_BASE)?;
    let local = inv_freqs(head_dim, local_base, &RopeScaling::None);
    let pattern_key = keys.key("attention.sliding_window_pattern");
    let slides: Vec<bool> = match keys.metadata.get(&pattern_key) {
        Some(Value::Array(Array::Bool(slides))) if slides.len() == n_layers => slides.clone(),
        Some(Value::Array(array)) => {
            let bound = format!("must hold {n_layers} truth values, one a layer");
            return Err(check::out_of_bounds(&pattern_key, describe(array), bound));
        }
        _ => {
            let pattern = keys.metadata.unsigned(&pattern_key)?.unwrap_or(GEMMA_WINDOW_PATTERN);
            let pattern = check::count(&pattern_key, pattern, u64::MAX)?;
            (1..=n_layers).map(|layer| !layer.is_multiple_of(pattern)).collect()
        }
    };
    let layer = |slides: bool| {
        let (window, inv_freqs) = if slides { (Some(window), &local) } else { (None, &global) };
        LayerConfig { window, inv_freqs: Arc::clone(inv_freqs) }
    };
    Ok(slides.into_iter().map(layer).collect())
}

fn scaling(keys: &Keys<'_>, head_dim: usize, tensors: &Tensors, bytes: &[u8]) -> Result<RopeScaling, LoadError> {
    let kind = keys.metadata.string(&keys.key("rope.scaling.type"))?;
    let factor_name =
        if keys.real("rope.scaling.factor")?.is_some() { "rope.scaling.factor" } else { "rope.scale_linear" };
    let factor = match kind {
        Some("none") => 1.0,
        // A factor without a type is the older way to say linear.
        Some("linear") | None => match keys.real(factor_name)? {
            // Writers put 0 where nothing is to be scaled.
            Some(factor) if factor != 0.0 => check::rope_factor(&keys.key(factor_name), factor)?,
            _ => 1.0,
        },
        Some(other) => return Err(check::unsupported(&keys.key("rope.scaling.type"), other, "none, linear")),
    };
    match divisors(head_dim, tensors, bytes)? {
        Some(divisors) => Ok(RopeScaling::Divisors(divisors.into_iter().map(|divisor| divisor * factor).collect())),
        None if factor == 1.0 => Ok(RopeScaling::None),
        None => Ok(RopeScaling::Linear { factor }),
    }
}

/// Llama 3's scaling as GGUF stores it: one divisor a frequency.
fn divisors(head_dim: usize, tensors: &Tensors, bytes: &[u8]) -> Result<Option<Vec<f32>>, LoadError> {
    const NAME: &str = "rope_freqs.weight";
    let Some(tensor) = tensors.get(NAME) else { return Ok(None) };
    let expected = head_dim.checked_div(2).unwrap_or(0);
    if tensor.shape != [expected] {
        let (found, expected) = (tensor.shape.clone(), vec![expected]);
        return Err(LoadError::WrongShape { name: NAME.to_owned(), found, expected });
    }
    if tensor.dtype()? != DType::F32 {
        return Err(check::unsupported(&format!("format of tensor {NAME}"), tensor.dtype()?, "f32"));
    }
    let data = bytes.get(tensor.bytes.clone()).unwrap_or_default();
    let values = data.chunks_exact(4).filter_map(|four| four.try_into().ok()).map(f32::from_le_bytes);
    values.map(|value| check::rope_factor(NAME, value.into())).collect::<Result<_, _>>().map(Some)
}
