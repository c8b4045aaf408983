//! Whole models: the fixtures, files written here, and each way in which they can be wrong.

use std::{
    fs,
    path::{Path, PathBuf},
};

use biga_hal::{DType, RopeStyle, WeightRole};
use proptest::prelude::*;

use super::{
    LoadOptions, Model, Progress,
    config::Family,
    error::LoadError,
    gguf::{Array, Value, writer::Writer},
    graph::{LayerWeight, WeightSlot},
    quantize::Quantize,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn load(path: &Path) -> Result<Model, LoadError> {
    Model::load(path, &LoadOptions::default(), &mut |_| ())
}

fn check(path: &Path, expected: &str) {
    let message = load(path).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}\ndoes not say: {expected}");
}

/// A copy of a fixture that may be changed.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn edit_config(folder: &Path, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let path = folder.join("config.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    edit(json.as_object_mut().unwrap());
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn every_fixture_loads_in_place() {
    for family in Family::ALL {
        let path = fixture(&format!("tiny-{family}"));
        let model = load(&path).unwrap();
        assert_eq!((model.config.family, model.config.layers.len()), (family, 2));
        assert_eq!(model.config.rope_style, RopeStyle::Halves);
        let file = fs::read(path.join("model.safetensors")).unwrap();
        let parsed = ::safetensors::SafeTensors::deserialize(&file).unwrap();
        for (index, spec) in model.graph.weights().iter().enumerate() {
            let id = super::graph::WeightId(index);
            let weight = model.weights.get(id);
            assert_eq!((weight.shape, weight.dtype), (spec.shape, DType::F32));
            assert_eq!(model.weights.bytes(id), parsed.tensor(&weight.name).unwrap().data());
            let host = weight.slice.host_range().unwrap();
            assert_eq!(host.address, model.weights.bytes(id).as_ptr().addr(), "{} is read in place", weight.name);
            assert!(!host.writable);
            let whole = 0..model.weights.bytes(id).len();
            model.weights.prefetch(id, &whole);
            model.weights.release(id, &whole);
            assert_eq!(model.weights.bytes(id), parsed.tensor(&weight.name).unwrap().data());
        }
        assert_eq!(model.weights.iter().len(), parsed.len(), "{family}: no tensor is left over");
        model.weights.check().unwrap();
    }
}

#[test]
fn matrices_are_quantised_and_vectors_are_not() {
    for (quantize, dtype) in [(Quantize::Int8, DType::Q8_0), (Quantize::Int4, DType::Q4_0)] {
        let mut last = Progress::default();
        let options = LoadOptions { quantize: Some(quantize) };
        let model = Model::load(fixture("tiny-qwen2"), &options, &mut |progress| {
            assert!(progress.done_bytes > last.done_bytes);
            last = progress;
        })
        .unwrap();
        assert!(last.total_bytes > 0 && last.done_bytes == last.total_bytes);
        for (index, weight) in model.weights.iter().enumerate() {
            let expected = if weight.shape.role == WeightRole::Vector { DType::F32 } else { dtype };
            assert_eq!(weight.dtype, expected, "{}", weight.name);
            let bytes = expected.row_bytes(weight.shape.columns).unwrap() * weight.shape.rows;
            assert_eq!(weight.slice.size_bytes(), bytes as u64);
            assert_eq!(model.weights.bytes(super::graph::WeightId(index)).len(), bytes);
        }
    }
}

#[test]
fn quantised_bytes_are_those_of_llama_quantize() {
    for (quantize, name) in [(Quantize::Int8, "q_proj.q8_0"), (Quantize::Int4, "q_proj.q4_0")] {
        let options = LoadOptions { quantize: Some(quantize) };
        let model = Model::load(fixture("tiny-llama"), &options, &mut |_| ()).unwrap();
        let slot = WeightSlot::Layer(0, LayerWeight::Q);
        let index = model.graph.weights().iter().position(|spec| spec.slot == slot).unwrap();
        let expected = fs::read(fixture("tiny-llama").join(name)).unwrap();
        assert!(model.weights.bytes(super::graph::WeightId(index)) == expected, "{name} differs");
    }
}

#[test]
fn a_file_that_shrinks_is_an_error() {
    let folder = copy_of("tiny-llama");
    let path = folder.path().join("model.safetensors");
    let model = load(folder.path()).unwrap();
    model.weights.check().unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    assert!(model.weights.check().unwrap_err().to_string().contains("changed while in use: size was 560488"));
    let sum: u64 = model.weights.bytes(super::graph::WeightId(0)).iter().map(|&byte| u64::from(byte)).sum();
    assert!(std::hint::black_box(sum) < u64::MAX);
    assert!(model.weights.lost());
    assert!(model.weights.check_lost().unwrap_err().to_string().contains("shrank or became unreadable"));
}

#[test]
fn a_wrong_shape_names_tensor_found_and_expected() {
    let folder = copy_of("tiny-llama");
    edit_config(folder.path(), |config| {
        config.insert("intermediate_size".into(), 256.into());
    });
    check(folder.path(), "tensor model.layers.0.mlp.gate_proj.weight has shape [128, 64], expected [256, 64]");
    let folder = copy_of("tiny-llama");
    edit_config(folder.path(), |config| {
        config.insert("num_hidden_layers".into(), 3.into());
    });
    check(folder.path(), "tensor model.layers.2.input_layernorm.weight is missing");
    let folder = copy_of("tiny-gemma3");
    edit_config(folder.path(), |config| {
        config.insert("tie_word_embeddings".into(), false.into());
    });
    check(folder.path(), "tensor lm_head.weight is missing");
}

#[test]
fn a_path_that_is_no_model_says_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    check(folder.path(), "no config.json in it");
    check(&folder.path().join("absent.gguf"), "cannot open");
    let path = folder.path().join("text");
    fs::write(&path, "hello").unwrap();
    check(&path, "neither a gguf file nor a folder with config.json and safetensors");
    fs::write(folder.path().join("config.json"), "{").unwrap();
    check(folder.path(), "config.json is not valid json");
    fs::write(folder.path().join("config.json"), r#"{"model_type": "mamba"}"#).unwrap();
    check(folder.path(), "unknown model family mamba; supported: llama, mistral, qwen2, qwen3, gemma3");
    fs::copy(fixture("tiny-llama").join("config.json"), folder.path().join("config.json")).unwrap();
    check(folder.path(), "neither model.safetensors nor model.safetensors.index.json in it");
}

#[test]
fn a_single_weight_file_may_be_named() {
    let model = load(&fixture("tiny-qwen3").join("model.safetensors")).unwrap();
    assert_eq!((model.config.family, model.config.name.as_str()), (Family::Qwen3, "tiny-qwen3"));
}

/// A GGUF file of the Llama family with one layer: hidden 32, two heads, no head of its own.
fn tiny_gguf() -> Writer {
    let f32s = |n: usize| (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect::<Vec<u8>>();
    let matrix = |writer: Writer, name: &str, columns: u64, rows: u64| {
        writer.tensor(name, &[columns, rows], 8, vec![1; (columns / 32 * rows * 34) as usize])
    };
    let mut writer = Writer::default()
        .pair("general.architecture", Value::String("llama".into()))
        .pair("llama.block_count", Value::U32(1))
        .pair("llama.context_length", Value::U32(64))
        .pair("llama.embedding_length", Value::U32(32))
        .pair("llama.feed_forward_length", Value::U32(64))
        .pair("llama.attention.head_count", Value::U32(2))
        .pair("llama.attention.head_count_kv", Value::U32(1))
        .pair("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    writer = matrix(writer, "token_embd.weight", 32, 8).tensor("output_norm.weight", &[32], 0, f32s(32));
    for (name, columns, rows) in [
        ("attn_q", 32, 32),
        ("attn_k", 32, 16),
        ("attn_v", 32, 16),
        ("attn_output", 32, 32),
        ("ffn_gate", 32, 64),
        ("ffn_up", 32, 64),
        ("ffn_down", 64, 32),
    ] {
        writer = matrix(writer, &format!("blk.0.{name}.weight"), columns, rows);
    }
    for name in ["attn_norm", "ffn_norm"] {
        // In half precision: ops read vectors as f32, so these are converted.
        let ones = [0x3c00_u16.to_le_bytes(); 32].concat();
        writer = writer.tensor(&format!("blk.0.{name}.weight"), &[32], 1, ones);
    }
    writer
}

fn write(folder: &tempfile::TempDir, writer: &Writer) -> PathBuf {
    let path = folder.path().join("model.gguf");
    fs::write(&path, writer.bytes()).unwrap();
    path
}

#[test]
fn a_gguf_file_loads() {
    let folder = tempfile::tempdir().unwrap();
    let model = load(&write(&folder, &tiny_gguf())).unwrap();
    assert_eq!((model.config.vocab, model.config.tied_embeddings), (8, true));
    assert_eq!(model.config.rope_style, RopeStyle::Interleaved);
    for (index, weight) in model.weights.iter().enumerate() {
        let id = super::graph::WeightId(index);
        match weight.shape.role {
            WeightRole::Vector => assert_eq!(weight.dtype, DType::F32),
            _ => assert_eq!((weight.dtype, model.weights.bytes(id)[0]), (DType::Q8_0, 1)),
        }
        if model.graph.weights()[index].slot == WeightSlot::Layer(0, LayerWeight::FfnNorm) {
            assert_eq!(model.weights.bytes(id), 1_f32.to_le_bytes().repeat(32));
        }
    }
    assert_eq!(model.metadata.unwrap().unsigned("llama.block_count").unwrap(), Some(1));
}

#[test]
fn data_at_odd_addresses_are_copied() {
    let folder = tempfile::tempdir().unwrap();
    // With alignment 1 the data begin right behind the descriptions; one byte of metadata decides where.
    for len in 0..4 {
        let mut writer = Writer { alignment: Some(1), ..tiny_gguf() };
        writer.pairs.push(("general.name".into(), Value::String("x".repeat(len))));
        let model = load(&write(&folder, &writer)).unwrap();
        for weight in model.weights.iter() {
            let alignment = if weight.dtype == DType::F32 { 4 } else { 2 };
            assert!(weight.slice.host_range().unwrap().address.is_multiple_of(alignment), "{}", weight.name);
        }
    }
}

#[test]
fn a_format_without_kernels_is_an_error_only_where_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let unused = tiny_gguf().tensor("v.patch_embd.weight", &[256], 16, vec![0; 66]);
    load(&write(&folder, &unused)).unwrap();
    let mut needed = tiny_gguf();
    for tensor in needed.tensors.iter_mut().filter(|tensor| tensor.0 == "blk.0.ffn_up.weight") {
        (tensor.2, tensor.3) = (20, vec![0; 64 * 18]);
    }
    check(&write(&folder, &needed), "tensor blk.0.ffn_up.weight is stored as IQ4_NL, which is not supported");
}

#[test]
fn split_files_and_experts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    check(&write(&folder, &tiny_gguf().pair("split.count", Value::U16(3))), "split.count 3 is not supported");
    let experts = tiny_gguf().pair("llama.expert_count", Value::U32(8));
    check(&write(&folder, &experts), "llama.expert_count 8 is not supported");
}

#[test]
fn a_vocabulary_is_kept_once() {
    let tokens = ["<s>", "a", "b", "c", "d", "e", "f", "g"].map(str::to_owned).to_vec();
    let writer = tiny_gguf()
        .pair("tokenizer.ggml.model", Value::String("llama".into()))
        .pair("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 8])))
        .pair("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    let folder = tempfile::tempdir().unwrap();
    let model = load(&write(&folder, &writer)).unwrap();
    assert!(model.tokenizer.is_some());
    let metadata = model.metadata.unwrap();
    assert_eq!(metadata.get("tokenizer.ggml.tokens"), None);
    assert_eq!(metadata.string("tokenizer.ggml.model").unwrap(), Some("llama"));
    assert_eq!(metadata.unsigned("llama.block_count").unwrap(), Some(1));
}

proptest! {
    #[test]
    fn a_damaged_gguf_file_never_panics(flips in prop::collection::vec((0_usize..2048, 0_u8..8), 1..4)) {
        let mut bytes = tiny_gguf().bytes();
        flips.into_iter().for_each(|(at, bit)| bytes[at] ^= 1 << bit);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        if let Ok(model) = load(&path) {
            let ids = (0..model.weights.iter().len()).map(super::graph::WeightId);
            prop_assert!(ids.map(|id| model.weights.bytes(id).len()).sum::<usize>() > 0);
        }
    }

    #[test]
    fn a_damaged_checkpoint_never_panics(flips in prop::collection::vec((0_usize..2048, 0_u8..8), 1..4)) {
        let folder = copy_of("tiny-llama");
        let path = folder.path().join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        flips.into_iter().for_each(|(at, bit)| bytes[at] ^= 1 << bit);
        fs::write(&path, bytes).unwrap();
        let _ = load(folder.path());
    }
}

/// Writes a fixture's tensors anew: renamed, with more, over several files.
fn rewrite(folder: &Path, rename: impl Fn(&str) -> String, more: &[&str], n_shards: usize) {
    use ::safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let zeros = [0; 24];
    let mut tensors: Vec<(String, TensorView<'_>)> = parsed.iter().map(|(name, view)| (rename(name), view)).collect();
    for name in more {
        tensors.push((name.to_string(), TensorView::new(Dtype::F32, vec![2, 3], &zeros).unwrap()));
    }
    if n_shards == 1 {
        return serialize_to_file(tensors, None, &path).unwrap();
    }
    let mut map = serde_json::Map::new();
    for shard in 0..n_shards {
        let name = format!("model-{shard}.safetensors");
        let part: Vec<_> = tensors.iter().skip(shard).step_by(n_shards).cloned().collect();
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), name.clone().into())));
        serialize_to_file(part, None, &folder.join(name)).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn same_weights(a: &Model, b: &Model) {
    assert_eq!(a.weights.iter().len(), b.weights.iter().len());
    for id in (0..a.weights.iter().len()).map(super::graph::WeightId) {
        assert_eq!(a.weights.bytes(id), b.weights.bytes(id), "{}", a.weights.get(id).name);
    }
}

#[test]
fn shards_give_the_same_weights() {
    let folder = copy_of("tiny-mistral");
    rewrite(folder.path(), str::to_owned, &[], 3);
    same_weights(&load(folder.path()).unwrap(), &load(&fixture("tiny-mistral")).unwrap());
}

#[test]
fn a_vision_tower_is_skipped_with_one_line() {
    let towers = ["vision_tower.a", "vision_tower.b", "multi_modal_projector.c"];
    for prefix in ["model.language_model.", "language_model.model."] {
        let folder = copy_of("tiny-gemma3");
        rewrite(folder.path(), |name| name.replacen("model.", prefix, 1), &towers, 1);
        edit_config(folder.path(), |config| {
            let text = std::mem::take(config);
            config.insert("model_type".into(), "gemma3".into());
            config.insert("text_config".into(), text.into());
        });
        let lines = Lines::default();
        let model = tracing::subscriber::with_default(lines.clone(), || load(folder.path())).unwrap();
        same_weights(&model, &load(&fixture("tiny-gemma3")).unwrap());
        let lines = lines.0.lock().unwrap().clone();
        let skipped: Vec<&String> = lines.iter().filter(|line| line.contains("skipped")).collect();
        assert_eq!(skipped.len(), 1, "{lines:?}");
        assert!(skipped[0].contains("n_tensors=3") && skipped[0].contains("bytes=72"), "{skipped:?}");
    }
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
