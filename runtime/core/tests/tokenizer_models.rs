//! Tokenizers of real models against ids that llama.cpp's `llama-tokenize` gave for the same texts.
//!
//! The models are too large to ship: `BIGA_SMOLLM2` and `BIGA_GEMMA3` name the GGUF files. Without them
//! the tests say so and pass. How the ids were made: `llama-tokenize -m MODEL -f TEXT --ids --no-escape`,
//! with `--no-parse-special` where `parse_special` is false.

use biga::load::gguf::Gguf;
use biga::load::tokenizer::{GgufVocab, Tokenizer};

#[derive(serde::Deserialize)]
struct Vector {
    text: String,
    parse_special: bool,
    ids: Vec<u32>,
}

fn check(variable: &str, vectors: &str, end_name: &str) {
    let Ok(path) = std::env::var(variable) else {
        println!("skipped: {variable} does not name a model file");
        return;
    };
    let bytes = std::fs::read(path).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    let tokenizer = Tokenizer::from_gguf(GgufVocab::from_metadata(&gguf.metadata).unwrap()).unwrap();
    let vectors: Vec<Vector> = serde_json::from_str(vectors).unwrap();
    assert!(vectors.len() > 20);
    for Vector { text, parse_special, ids } in &vectors {
        assert_eq!(&tokenizer.encode(text, *parse_special, true).unwrap(), ids, "{text:?}");
        if !parse_special && !text.contains('▁') {
            assert_eq!(&tokenizer.decode(ids), text);
        }
    }
    assert!(tokenizer.eos_ids().iter().any(|&id| tokenizer.token_text(id) == end_name));
}

#[test]
fn smollm2_reads_as_llama_cpp_reads_it() {
    check("BIGA_SMOLLM2", include_str!("data/tokenizer-smollm2.json"), "<|im_end|>");
}

#[test]
fn gemma3_reads_as_llama_cpp_reads_it() {
    check("BIGA_GEMMA3", include_str!("data/tokenizer-gemma3.json"), "<end_of_turn>");
}
