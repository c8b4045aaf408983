use std::path::Path;

use biga::{
    hal::{DType, WeightRole},
    load::{LoadOptions, Model},
};

use super::{free_bytes, generate, size_bytes};
use crate::{
    noise::FORMATS,
    shape::{self, Architecture, Shape},
};

/// The shape with the same proportions of heads, ties and norms, small enough to be written in a test.
fn scaled_down(shape: &Shape) -> Shape {
    let group = shape.heads / shape.kv_heads;
    Shape {
        layers: if shape.architecture == Architecture::Gemma3 { 7 } else { 2 },
        hidden: 64 * shape.heads.min(5),
        ff: 192,
        heads: 2 * group,
        kv_heads: 2,
        head_dim: 32,
        vocab: 700,
        window: shape.window.map(|_| 48),
        ..*shape
    }
}

fn load(path: &Path) -> Model {
    Model::load(path, &LoadOptions::default(), &mut |_| {}).unwrap()
}

#[test]
fn every_shape_is_read_back_by_our_loader() {
    let folder = tempfile::tempdir().unwrap();
    for shape in shape::ALL.iter().map(scaled_down) {
        for (dtype, _) in FORMATS {
            let path = folder.path().join(format!("{shape}-{dtype}.gguf"));
            let size = generate(&shape, dtype, &path, 3).unwrap();
            assert_eq!(size, std::fs::metadata(&path).unwrap().len());
            assert_eq!(size, size_bytes(&shape, dtype).unwrap());
            let model = load(&path);
            let config = &model.config;
            assert_eq!(config.family.name(), shape.architecture.name(), "{shape}");
            assert_eq!((config.vocab, config.hidden, config.ff), (shape.vocab, shape.hidden, shape.ff), "{shape}");
            let heads = config.heads;
            assert_eq!((heads.n_heads, heads.n_kv_heads), (shape.heads, shape.kv_heads), "{shape}");
            assert_eq!((heads.head_dim, config.max_context), (shape.head_dim, shape.context), "{shape}");
            assert_eq!((config.layers.len(), config.tied_embeddings), (shape.layers, shape.tied), "{shape}");
            let windows = config.layers.iter().filter(|layer| layer.window == shape.window).count();
            let sliding = if shape.window.is_some() { shape.layers - shape.layers / 6 } else { shape.layers };
            assert_eq!(windows, sliding, "{shape}");
            for weight in model.weights.iter() {
                let expected = if weight.shape.role == WeightRole::Vector { DType::F32 } else { dtype };
                assert_eq!(weight.dtype, expected, "{shape} {}", weight.name);
            }
            assert_eq!(model.weights.iter().len(), shape.tensors().len(), "{shape}");
        }
    }
}

#[test]
fn its_vocabulary_says_every_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    generate(&shape::ALL[0], DType::Q4_0, &path, 1).unwrap();
    let model = load(&path);
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let ids = tokenizer.encode("hello 5", true, true).unwrap();
    assert_eq!(ids[0], 1, "the beginning mark");
    let known = ids[1..7].iter().all(|&id| id as usize >= super::SPECIAL_TOKENS);
    assert!(known, "a space and five letters: {ids:?}");
    assert_eq!(tokenizer.token_text(300), " t14");
}

#[test]
fn the_file_does_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let write = |threads| {
        let path = folder.path().join(format!("{threads}.gguf"));
        generate(&shape::ALL[1], DType::Q8_0, &path, threads).unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(write(1), write(4));
}

#[test]
fn nothing_is_left_of_a_file_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    assert!(generate(&shape::ALL[0], DType::Q4_1, &folder.path().join("x.gguf"), 1).is_err());
    let words = generate(&shape::ALL[0], DType::Q4_0, &folder.path().join("none/x.gguf"), 1).unwrap_err();
    assert!(format!("{words:#}").contains("none"), "{words:#}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(free_bytes(folder.path()).unwrap() > 0);
}
