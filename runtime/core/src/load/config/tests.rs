//! Published configs in short, and numbers that no model has.

use biga_hal::{Activation, Heads, RopeStyle};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{Config, Family, RopeScaling, inv_freqs};
use crate::load::{
    gguf::{Array, Gguf, Metadata, Value, writer::Writer},
    tensors::Tensors,
};

fn hf(json: &Json) -> Config {
    Config::from_hugging_face(json).unwrap()
}

fn windows(config: &Config) -> Vec<Option<usize>> {
    config.layers.iter().map(|layer| layer.window).collect()
}

fn merged(mut base: Json, changes: &Json) -> Json {
    for (key, value) in changes.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

fn check_error(json: &Json, expected: &str) {
    let message = Config::from_hugging_face(json).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}\ndoes not say: {expected}");
}

fn llama() -> Json {
    json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "rope_theta": 500000.0, "rope_scaling": null, "head_dim": null
    })
}

fn gemma() -> Json {
    json!({
        "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 262144, "sliding_window": 512,
        "query_pre_attn_scalar": 256, "head_dim": 256, "rope_theta": 1e6, "rope_local_base_freq": 1e4
    })
}

#[test]
fn llama_defaults_are_those_of_transformers() {
    let config = hf(&llama());
    assert_eq!(config.heads, Heads { n_heads: 4, n_kv_heads: 2, head_dim: 16 });
    assert_eq!((config.rope_style, config.activation), (RopeStyle::Halves, Activation::Silu));
    assert_eq!((config.attention_scale, config.embed_scale, config.norm_weight_offset), (0.25, 1.0, 0.0));
    assert_eq!((config.tied_embeddings, config.qkv_bias, config.output_bias), (false, false, false));
    assert_eq!(windows(&config), [None, None]);
    assert_eq!(config.layers[0].inv_freqs, inv_freqs(16, 5e5, &RopeScaling::None));
    let biased = hf(&merged(llama(), &json!({"attention_bias": true, "tie_word_embeddings": true})));
    assert_eq!((biased.qkv_bias, biased.output_bias, biased.tied_embeddings), (true, true, true));
}

#[test]
fn llama_3_scaling_is_read_from_either_place() {
    let parameters = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 };
    let expected = inv_freqs(16, 5e5, &scaling);
    let older = hf(&merged(llama(), &json!({"rope_scaling": parameters})));
    assert_eq!(older.layers[1].inv_freqs, expected);
    let mut newer = llama();
    newer.as_object_mut().unwrap().remove("rope_theta");
    newer["rope_parameters"] = merged(parameters, &json!({"rope_theta": 500000.0}));
    assert_eq!(hf(&newer).layers[1].inv_freqs, expected);
    let named_type = merged(llama(), &json!({"rope_scaling": {"type": "linear", "factor": 2}}));
    assert_eq!(hf(&named_type).layers[0].inv_freqs, inv_freqs(16, 5e5, &RopeScaling::Linear { factor: 2.0 }));
    let yarn = merged(llama(), &json!({"rope_scaling": {"rope_type": "yarn", "factor": 4}}));
    check_error(&yarn, "rope_scaling.rope_type yarn is not supported; supported: default, linear, llama3");
}

#[test]
fn both_ways_of_writing_a_gemma_config_agree() {
    let mut newer = gemma();
    let object = newer.as_object_mut().unwrap();
    object.remove("rope_theta");
    object.remove("rope_local_base_freq");
    let kinds: Vec<&str> =
        (1..=8).map(|layer| if layer % 6 == 0 { "full_attention" } else { "sliding_attention" }).collect();
    newer["layer_types"] = json!(kinds);
    newer["rope_parameters"] = json!({
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}
    });
    let scaled = json!({"rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let older = merged(gemma(), &merged(scaled.clone(), &json!({"sliding_window_pattern": 6})));
    let private = merged(gemma(), &merged(scaled.clone(), &json!({"_sliding_window_pattern": 6})));
    let config = hf(&newer);
    assert_eq!(config, hf(&older));
    assert_eq!(config, hf(&private));
    assert_eq!(config, hf(&merged(gemma(), &scaled)), "6 is the default");
    let (s, f) = (Some(512), None);
    assert_eq!(windows(&config), [s, s, s, s, s, f, s, s]);
    assert_eq!(config.layers[5].inv_freqs, inv_freqs(256, 1e6, &RopeScaling::Linear { factor: 8.0 }));
    assert_eq!(config.layers[0].inv_freqs, inv_freqs(256, 1e4, &RopeScaling::None));
    assert_eq!((config.norm_weight_offset, config.norm_eps, config.tied_embeddings), (1.0, 1e-6, true));
    assert_eq!((config.embed_scale, config.attention_scale), (1152_f32.sqrt(), 1.0 / 16.0));
    assert!(config.qk_norm && config.post_norms && config.activation == Activation::GeluTanh);
}

#[test]
fn a_multimodal_gemma_nests_its_text_and_leaves_defaults_out() {
    let config = hf(&json!({
        "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "model_type": "siglip_vision_model"}
    }));
    assert_eq!(config.heads, Heads { n_heads: 8, n_kv_heads: 4, head_dim: 256 });
    assert_eq!((config.vocab, config.max_context, config.family), (262_208, 131_072, Family::Gemma3));
    assert_eq!(windows(&config).iter().filter(|window| window.is_none()).count(), 5);
}

#[test]
fn the_27b_shape_has_its_own_scale() {
    let config = hf(&json!({"model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504,
        "num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
        "query_pre_attn_scalar": 168, "sliding_window": 1024}));
    assert_eq!(config.heads, Heads { n_heads: 32, n_kv_heads: 16, head_dim: 128 });
    assert_eq!(config.attention_scale, 1.0 / 168_f32.sqrt());
    let gguf = gguf_of(&[
        ("block_count", 62),
        ("embedding_length", 5376),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 16),
        ("attention.key_length", 128),
    ]);
    assert_eq!(gguf.attention_scale, 1.0 / 168_f32.sqrt(), "5376 / 32 = 168");
}

#[test]
fn windows_follow_each_family() {
    let mistral = merged(llama(), &json!({"model_type": "mistral", "sliding_window": 4}));
    assert_eq!(windows(&hf(&mistral)), [Some(4), Some(4)]);
    assert_eq!(windows(&hf(&merged(mistral.clone(), &json!({"sliding_window": null})))), [None, None]);
    assert_eq!(windows(&hf(&merged(llama(), &json!({"model_type": "mistral"})))), [Some(4096), Some(4096)]);
    let qwen = json!({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 1});
    let qwen = merged(llama(), &qwen);
    assert_eq!(windows(&hf(&qwen)), [None, None]);
    assert_eq!(windows(&hf(&merged(qwen, &json!({"use_sliding_window": true})))), [None, Some(8)]);
}

#[test]
fn qwen_families_differ_in_bias_and_norms() {
    let two = hf(&merged(llama(), &json!({"model_type": "qwen2"})));
    assert_eq!((two.qkv_bias, two.output_bias, two.qk_norm), (true, false, false));
    let three = hf(&merged(llama(), &json!({"model_type": "qwen3"})));
    assert_eq!((three.qkv_bias, three.output_bias, three.qk_norm), (false, false, true));
    assert_eq!(three.heads.head_dim, 128, "qwen3's class default");
}

#[test]
fn numbers_that_no_model_has_are_refused() {
    let check = |changes: Json, expected| check_error(&merged(llama(), &changes), expected);
    check(json!({"num_hidden_layers": 2_147_483_648_u64}), "num_hidden_layers is 2147483648, must be from 1 to 1024");
    check(json!({"num_hidden_layers": -1}), "num_hidden_layers is -1, expected an unsigned integer");
    check(json!({"num_hidden_layers": "many"}), "num_hidden_layers is a string of 4 bytes, expected an unsigned");
    check(json!({"num_hidden_layers": null}), "num_hidden_layers is missing");
    check(json!({"head_dim": 0}), "head_dim is 0, must be from 1 to 1024");
    check(json!({"head_dim": 3}), "head_dim is 3, must be even");
    check(json!({"num_key_value_heads": 3}), "num_key_value_heads is 3, must divide num_attention_heads, which is 4");
    check(json!({"num_attention_heads": 6, "num_key_value_heads": 2}), "must divide hidden_size, which is 64");
    check(json!({"vocab_size": 1_u64 << 40}), "vocab_size is 1099511627776");
    check(json!({"rms_norm_eps": 0}), "rms_norm_eps is 0.0, must be from 1");
    check(json!({"rope_theta": 1e300}), "rope_theta is 1e300, must be from 1.0 to 1");
    check(json!({"rope_theta": 1e-9}), "rope_theta is 1e-9, must be from 1.0");
    check(json!({"rope_scaling": {"type": "linear", "factor": 1e-30}}), "rope_scaling.factor is 1e-30, must be from");
    check(json!({"hidden_act": "relu"}), "hidden_act relu is not supported");
    check(json!({"mlp_bias": true}), "mlp_bias true is not supported");
    check(json!({"model_type": "mamba"}), "unknown model family mamba");
    check(json!({"layer_types": ["full_attention"]}), "layer_types is a list of 1, must have as many");
    check(json!({"layer_types": ["full_attention", "chunked"]}), "layer_types a string of 7 bytes is not supported");
    check(json!({"rope_scaling": {"rope_type": "llama3"}}), "rope_scaling.low_freq_factor is missing");
    check_error(&json!([]), "config.json is an array of 0 elements, expected an object");
}

/// The metadata of a Gemma 3 file, with changes.
fn gguf_pairs(changes: &[(&str, u32)]) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.insert("general.architecture", Value::String("gemma3".into()));
    metadata.insert("gemma3.attention.layer_norm_rms_epsilon", Value::F32(1e-6));
    metadata.insert("gemma3.rope.freq_base", Value::F32(1e6));
    metadata.insert("gemma3.attention.sliding_window", Value::U32(512));
    let usual = [
        ("block_count", 7),
        ("context_length", 32768),
        ("embedding_length", 640),
        ("feed_forward_length", 2048),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 256),
    ];
    for (key, value) in usual.iter().chain(changes) {
        metadata.insert(format!("gemma3.{key}"), Value::U32(*value));
    }
    metadata
}

fn tensors() -> Tensors {
    let bytes = Writer::default().tensor("token_embd.weight", &[1, 9], 0, vec![0; 36]).bytes();
    Gguf::parse(&bytes).unwrap().tensors
}

fn gguf_of(changes: &[(&str, u32)]) -> Config {
    Config::from_gguf(&gguf_pairs(changes), &tensors(), &[]).unwrap()
}

#[test]
fn a_gemma_gguf_has_its_offsets_added_and_its_pattern_implied() {
    let config = gguf_of(&[]);
    assert_eq!((config.norm_weight_offset, config.vocab, config.rope_style), (0.0, 9, RopeStyle::Halves));
    let (s, f) = (Some(512), None);
    assert_eq!(windows(&config), [s, s, s, s, s, f, s]);
    assert_eq!(config.layers[0].inv_freqs, inv_freqs(256, 1e4, &RopeScaling::None));
    assert_eq!(config.layers[5].inv_freqs, inv_freqs(256, 1e6, &RopeScaling::None));
    let mut scaled = gguf_pairs(&[]);
    scaled.insert("gemma3.rope.scaling.type", Value::String("linear".into()));
    scaled.insert("gemma3.rope.scaling.factor", Value::F32(8.0));
    let scaled = Config::from_gguf(&scaled, &tensors(), &[]).unwrap();
    assert_eq!(scaled.layers[5].inv_freqs, inv_freqs(256, 1e6, &RopeScaling::Linear { factor: 8.0 }));
    assert_eq!(scaled.layers[0].inv_freqs, config.layers[0].inv_freqs);
    assert_eq!(windows(&gguf_of(&[("attention.sliding_window", 0)])), [None; 7]);
}

#[test]
fn hostile_gguf_metadata_are_refused() {
    let check = |changes: &[(&str, u32)], expected: &str| {
        let message = Config::from_gguf(&gguf_pairs(changes), &tensors(), &[]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\ndoes not say: {expected}");
    };
    check(&[("block_count", 1 << 31)], "gemma3.block_count is 2147483648, must be from 1 to 1024");
    check(&[("attention.key_length", 0)], "gemma3.attention.key_length is 0");
    check(&[("attention.value_length", 128)], "gemma3.attention.value_length 128 is not supported; supported: 256");
    check(&[("rope.dimension_count", 64)], "gemma3.rope.dimension_count 64 is not supported");
    check(&[("attention.head_count_kv", 3)], "must divide gemma3.attention.head_count, which is 4");
    let mut uneven = gguf_pairs(&[]);
    uneven.insert("gemma3.attention.head_count_kv", Value::Array(Array::I32(vec![1, 2])));
    let message = Config::from_gguf(&uneven, &tensors(), &[]).unwrap_err().to_string();
    assert!(message.contains("with 2 values that differ is not supported"), "{message}");
    let mut other = gguf_pairs(&[]);
    other.insert("general.architecture", Value::String("mamba".into()));
    let message = Config::from_gguf(&other, &tensors(), &[]).unwrap_err().to_string();
    assert!(message.contains("unknown model family mamba; supported: llama, mistral, qwen2"), "{message}");
    let message = Config::from_gguf(&gguf_pairs(&[]), &Tensors::default(), &[]).unwrap_err().to_string();
    assert_eq!(message, "tensor token_embd.weight is missing");
}

#[test]
fn llama_3_divisors_come_from_a_tensor() {
    let parse = |divisors: &[f32]| {
        let data: Vec<u8> = divisors.iter().flat_map(|divisor| divisor.to_le_bytes()).collect();
        let bytes = Writer::default()
            .tensor("token_embd.weight", &[1, 9], 0, vec![0; 36])
            .tensor("rope_freqs.weight", &[divisors.len() as u64], 0, data)
            .bytes();
        let gguf = Gguf::parse(&bytes).unwrap();
        Config::from_gguf(&gguf_pairs(&[("attention.key_length", 4)]), &gguf.tensors, &bytes)
    };
    let config = parse(&[1.0, 32.0]).unwrap();
    assert_eq!(config.layers[5].inv_freqs, inv_freqs(4, 1e6, &RopeScaling::Divisors(vec![1.0, 32.0])));
    let error = |divisors: &[f32]| parse(divisors).unwrap_err().to_string();
    assert_eq!(error(&[1.0]), "tensor rope_freqs.weight has shape [1], expected [2]");
    assert_eq!(error(&[1.0, 0.0]), "rope_freqs.weight is 0.0, must be from 0.001 to 1000000.0");
    assert_eq!(error(&[f32::NAN, 1.0]), "rope_freqs.weight is NaN, must be from 0.001 to 1000000.0");
}

fn any_json() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (0_u64..300).prop_map(Json::from),
        any::<f64>().prop_map(|value| json!(value)),
        "[a-z]{0,5}".prop_map(Json::from),
        Just(json!([])),
        Just(json!({"rope_type": "llama3"})),
        Just(json!({"full_attention": {"factor": 0}})),
    ]
}

proptest! {
    #[test]
    fn no_config_panics(
        base in prop::sample::select(vec![llama(), gemma()]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
        family in prop::sample::select(vec!["llama", "mistral", "qwen2", "qwen3", "gemma3_text"]),
    ) {
        const NAMES: [&str; 18] = [
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "vocab_size", "rms_norm_eps", "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters",
            "head_dim", "sliding_window", "layer_types", "query_pre_attn_scalar", "sliding_window_pattern",
            "use_sliding_window", "text_config",
        ];
        let mut json = merged(base, &json!({"model_type": family}));
        for (index, value) in changes {
            json[NAMES[index.index(NAMES.len())]] = value;
        }
        if let Ok(config) = Config::from_hugging_face(&json) {
            prop_assert!(config.layers.len() <= 1024 && config.heads.head_dim <= 1024);
            let finite = config.layers.iter().all(|layer| layer.inv_freqs.iter().all(|freq| freq.is_finite()));
            prop_assert!(finite && config.attention_scale.is_finite());
        }
    }
}
