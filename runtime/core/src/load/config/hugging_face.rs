//! The config of a Hugging Face checkpoint: `config.json`, with the defaults of transformers where a field is
//! absent. Configs of multimodal checkpoints nest the text model's fields in `text_config`.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use biga_hal::{Activation, Heads, RopeStyle};
use serde_json::{Map, Value};

use super::{Config, Family, LayerConfig, LoadError, RopeScaling, check, inv_freqs};

/// The object that describes the text model, or one inside it.
#[derive(Clone)]
struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// For errors: `text_config.` or the like.
    prefix: String,
}

impl<'a> Fields<'a> {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Null means absent.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| LoadError::WrongType { key: self.key(name), found: brief(value), expected })
    }

    fn missing(&self, name: &str) -> LoadError {
        LoadError::MissingKey { key: self.key(name) }
    }

    fn count(&self, name: &str, max: u64) -> Result<Option<usize>, LoadError> {
        match self.typed(name, "an unsigned integer", Value::as_u64)? {
            Some(value) => check::count(&self.key(name), value, max).map(Some),
            None => Ok(None),
        }
    }

    /// A dimension: `default` where its family's class has one that published configs rely on.
    fn dimension(&self, name: &str, max: u64, default: Option<usize>) -> Result<usize, LoadError> {
        self.count(name, max)?.or(default).ok_or_else(|| self.missing(name))
    }

    fn positive(&self, name: &str) -> Result<Option<f32>, LoadError> {
        self.checked(name, check::positive)
    }

    fn rope_base(&self, name: &str) -> Result<Option<f32>, LoadError> {
        self.checked(name, check::rope_base)
    }

    fn checked(&self, name: &str, check: fn(&str, f64) -> Result<f32, LoadError>) -> Result<Option<f32>, LoadError> {
        match self.typed(name, "a number", Value::as_f64)? {
            Some(value) => check(&self.key(name), value).map(Some),
            None => Ok(None),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, LoadError> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, LoadError> {
        self.typed(name, "a string", Value::as_str)
    }

    fn object(&self, name: &str) -> Result<Option<Fields<'a>>, LoadError> {
        let object = self.typed(name, "an object", Value::as_object)?;
        Ok(object.map(|object| Fields { object, prefix: format!("{}{name}.", self.prefix) }))
    }

    /// Refuses a flag that would change the computation.
    fn must_be_off(&self, name: &str) -> Result<(), LoadError> {
        if self.flag(name, false)? {
            return Err(check::unsupported(&self.key(name), true, "false"));
        }
        Ok(())
    }
}

/// Enough of a value to recognise it, never all of a hostile one.
fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => format!("a string of {} bytes", text.len()),
        Value::Array(items) => format!("an array of {} elements", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
        other => other.to_string(),
    }
}

pub(super) fn parse(json: &Value) -> Result<Config, LoadError> {
    let object = json.as_object().ok_or_else(|| LoadError::WrongType {
        key: "config.json".to_owned(),
        found: brief(json),
        expected: "an object",
    })?;
    let top = Fields { object, prefix: String::new() };
    let text = top.object("text_config")?;
    let nested = text.is_some();
    let fields = text.unwrap_or_else(|| top.clone());
    let model_type = match fields.text("model_type")? {
        Some(model_type) => model_type,
        None => top.text("model_type")?.ok_or_else(|| top.missing("model_type"))?,
    };
    let family = match model_type {
        "llama" => Family::Llama,
        "mistral" => Family::Mistral,
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        "gemma3_text" => Family::Gemma3,
        "gemma3" if nested => Family::Gemma3,
        other => return Err(check::unknown_family(other)),
    };
    config(family, &fields, &top)
}

fn config(family: Family, fields: &Fields<'_>, top: &Fields<'_>) -> Result<Config, LoadError> {
    let gemma = family == Family::Gemma3;
    let default = |value: usize| gemma.then_some(value);
    let hidden = fields.dimension("hidden_size", check::MAX_WIDTH, default(2304))?;
    let n_layers = fields.dimension("num_hidden_layers", check::MAX_LAYERS, default(26))?;
    let heads = heads(family, fields, hidden)?;
    let context = match family {
        Family::Llama => 2048,
        Family::Mistral | Family::Gemma3 => 131_072,
        Family::Qwen2 | Family::Qwen3 => 32_768,
    };
    fields.must_be_off("mlp_bias")?;
    fields.must_be_off("use_bidirectional_attention")?;
    let attention_bias = fields.flag("attention_bias", false)?;
    let scaled_by = match fields.positive("query_pre_attn_scalar")? {
        Some(scalar) if gemma => scalar,
        _ if gemma => 256.0,
        _ => heads.head_dim as f32,
    };
    let tied = match fields.typed("tie_word_embeddings", "true or false", Value::as_bool)? {
        Some(tied) => tied,
        None => top.flag("tie_word_embeddings", gemma)?,
    };
    Ok(Config {
        family,
        name: family.name().to_owned(),
        vocab: fields.dimension("vocab_size", check::MAX_VOCAB, default(262_208))?,
        hidden,
        ff: fields.dimension("intermediate_size", check::MAX_WIDTH, default(9216))?,
        heads,
        max_context: fields.count("max_position_embeddings", check::MAX_CONTEXT)?.unwrap_or(context),
        norm_eps: fields.positive("rms_norm_eps")?.unwrap_or(1e-6),
        norm_weight_offset: if gemma { 1.0 } else { 0.0 },
        embed_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
        activation: activation(family, fields)?,
        qkv_bias: family == Family::Qwen2 || attention_bias,
        output_bias: family != Family::Qwen2 && attention_bias,
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        post_norms: gemma,
        attention_scale: 1.0 / scaled_by.sqrt(),
        attention_softcap: if gemma { fields.positive("attn_logit_softcapping")? } else { None },
        logit_softcap: if gemma { fields.positive("final_logit_softcapping")? } else { None },
        tied_embeddings: tied,
        rope_style: RopeStyle::Halves,
        layers: layers(family, fields, n_layers, heads.head_dim)?,
    })
}

fn heads(family: Family, fields: &Fields<'_>, hidden: usize) -> Result<Heads, LoadError> {
    let (q, kv, dim) = ("num_attention_heads", "num_key_value_heads", "head_dim");
    let gemma = family == Family::Gemma3;
    let n_heads = fields.dimension(q, check::MAX_HEADS, gemma.then_some(8))?;
    let n_kv_heads = fields.count(kv, check::MAX_HEADS)?.unwrap_or(match family {
        Family::Gemma3 => 4,
        Family::Mistral => 8,
        _ => n_heads,
    });
    let head_dim = match (fields.count(dim, check::MAX_HEAD_DIM)?, family) {
        (Some(head_dim), _) => head_dim,
        (None, Family::Gemma3) => 256,
        (None, Family::Qwen3) => 128,
        (None, _) => check::implied_head_dim((&fields.key("hidden_size"), hidden), (&fields.key(q), n_heads))?,
    };
    check::count(&fields.key(dim), head_dim as u64, check::MAX_HEAD_DIM)?;
    check::heads((&fields.key(q), n_heads), (&fields.key(kv), n_kv_heads), (&fields.key(dim), head_dim))
}

fn activation(family: Family, fields: &Fields<'_>) -> Result<Activation, LoadError> {
    let gemma = family == Family::Gemma3;
    let name = if gemma { "hidden_activation" } else { "hidden_act" };
    match fields.text(name)? {
        Some("silu") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        None if gemma => Ok(Activation::GeluTanh),
        None => Ok(Activation::Silu),
        Some(other) => Err(check::unsupported(&fields.key(name), other, "silu, gelu_pytorch_tanh")),
    }
}

/// The two kinds of layers.
#[derive(Clone, Copy, PartialEq)]
enum LayerKind {
    Full,
    Sliding,
}

fn layers(
    family: Family,
    fields: &Fields<'_>,
    n_layers: usize,
    head_dim: usize,
) -> Result<Vec<LayerConfig>, LoadError> {
    let window = window(family, fields)?;
    let kinds = kinds(family, fields, n_layers, window.is_some())?;
    let freqs = |kind| -> Result<Arc<[f32]>, LoadError> {
        let (base, scaling) = rope(family, fields, kind)?;
        Ok(inv_freqs(head_dim, base, &scaling))
    };
    let (full, sliding) = (freqs(LayerKind::Full)?, freqs(LayerKind::Sliding)?);
    let layer = |kind| match kind {
        LayerKind::Full => LayerConfig { window: None, inv_freqs: Arc::clone(&full) },
        LayerKind::Sliding => LayerConfig { window, inv_freqs: Arc::clone(&sliding) },
    };
    Ok(kinds.into_iter().map(layer).collect())
}

fn window(family: Family, fields: &Fields<'_>) -> Result<Option<usize>, LoadError> {
    const NAME: &str = "sliding_window";
    let stated = fields.count(NAME, u64::MAX)?;
    // An explicit null switches the window off; an absent field means the class default.
    let or_default = |default| if fields.object.contains_key(NAME) { stated } else { Some(default) };
    Ok(match family {
        Family::Llama => None,
        Family::Mistral | Family::Gemma3 => or_default(4096),
        Family::Qwen2 | Family::Qwen3 => {
            if fields.flag("use_sliding_window", false)? {
                or_default(4096)
            } else {
                None
            }
        }
    })
}

fn kinds(family: Family, fields: &Fields<'_>, n_layers: usize, windowed: bool) -> Result<Vec<LayerKind>, LoadError> {
    if let Some(types) = fields.typed("layer_types", "an array", Value::as_array)? {
        return listed_kinds(fields, types, n_layers);
    }
    let kind = |sliding: bool| if sliding && windowed { LayerKind::Sliding } else { LayerKind::Full };
    Ok(match family {
        Family::Llama => vec![LayerKind::Full; n_layers],
        Family::Mistral => vec![kind(true); n_layers],
        Family::Qwen2 | Family::Qwen3 => {
            let first = fields.typed("max_window_layers", "an unsigned integer", Value::as_u64)?.unwrap_or(28);
            (0..n_layers as u64).map(|layer| kind(layer >= first)).collect()
        }
        Family::Gemma3 => {
            let name = if fields.get("sliding_window_pattern").is_some() {
                "sliding_window_pattern"
            } else {
                "_sliding_window_pattern"
            };
            let pattern = fields.count(name, u64::MAX)?.unwrap_or(6);
            (1..=n_layers).map(|layer| kind(!layer.is_multiple_of(pattern))).collect()
        }
    })
}

fn listed_kinds(fields: &Fields<'_>, types: &[Value], n_layers: usize) -> Result<Vec<LayerKind>, LoadError> {
    let key = fields.key("layer_types");
    if types.len() != n_layers {
        let bound = format!("must have as many as num_hidden_layers, which is {n_layers}");
        return Err(check::out_of_bounds(&key, format!("a list of {}", types.len()), bound));
    }
    let kind = |value: &Value| match value.as_str() {
        Some("full_attention") => Ok(LayerKind::Full),
        Some("sliding_attention") => Ok(LayerKind::Sliding),
        _ => Err(check::unsupported(&key, brief(value), "full_attention, sliding_attention")),
    };
    types.iter().map(kind).collect()
}

/// Base and scaling for one kind of layer, from either way of writing them.
fn rope(family: Family, fields: &Fields<'_>, kind: LayerKind) -> Result<(f32, RopeScaling), LoadError> {
    let gemma = family == Family::Gemma3;
    let default_base = if gemma && kind == LayerKind::Full { 1e6 } else { 1e4 };
    let base_name = if gemma && kind == LayerKind::Sliding { "rope_local_base_freq" } else { "rope_theta" };
    let base = fields.rope_base(base_name)?.unwrap_or(default_base);
    if let Some(parameters) = fields.object("rope_parameters")? {
        let by_kind = match kind {
            LayerKind::Full => parameters.object("full_attention")?,
            LayerKind::Sliding => parameters.object("sliding_attention")?,
        };
        let parameters = by_kind.unwrap_or(parameters);
        let base = parameters.rope_base("rope_theta")?.unwrap_or(base);
        return Ok((base, scaling(&parameters)?));
    }
    match fields.object("rope_scaling")? {
        // Gemma's windows are far shorter than its first context, so only global layers are stretched.
        Some(parameters) if !(gemma && kind == LayerKind::Sliding) => Ok((base, scaling(&parameters)?)),
        _ => Ok((base, RopeScaling::None)),
    }
}

fn scaling(fields: &Fields<'_>) -> Result<RopeScaling, LoadError> {
    let name = if fields.get("rope_type").is_some() { "rope_type" } else { "type" };
    let require = |name| fields.checked(name, check::rope_factor)?.ok_or_else(|| fields.missing(name));
    if let Some(part) = fields.positive("partial_rotary_factor")?.filter(|&part| part != 1.0) {
        return Err(check::unsupported(&fields.key("partial_rotary_factor"), part, "1"));
    }
    match fields.text(name)? {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: require("factor")? }),
        Some("llama3") => {
            let original = "original_max_position_embeddings";
            let (low_freq_factor, high_freq_factor) = (require("low_freq_factor")?, require("high_freq_factor")?);
            if high_freq_factor <= low_freq_factor {
                let bound = format!("must be above low_freq_factor, which is {low_freq_factor}");
                return Err(check::out_of_bounds(&fields.key("high_freq_factor"), high_freq_factor, bound));
            }
            Ok(RopeScaling::Llama3 {
                factor: require("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_context: fields
                    .count(original, check::MAX_CONTEXT)?
                    .ok_or_else(|| fields.missing(original))?,
            })
        }
        Some(other) => Err(check::unsupported(&fields.key(name), other, "default, linear, llama3")),
    }
}
