//! Every vocabulary of a folder against the test vectors beside it.
//!
//! The folder is that of llama.cpp's `models`: `NAME.gguf`, `NAME.gguf.inp` with texts between marker
//! lines, `NAME.gguf.out` with the ids of each. They are not ours to ship, so their place comes from
//! `BIGA_VOCAB_VECTORS`; without it the test says so and passes.

use std::path::Path;

use biga::load::gguf::Gguf;
use biga::load::tokenizer::{GgufVocab, Tokenizer, TokenizerError};

/// Vocabularies of families that the runtime does not have.
const OTHER_FAMILIES: &[&str] = &["bert-bge", "nomic-bert-moe", "gemma-4"];

fn tokenizer_of(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let mut bytes = std::fs::read(path).unwrap();
    // Some of these files say version 2, whose layout is that of version 3.
    if bytes[4] == 2 {
        bytes[4] = 3;
    }
    let gguf = Gguf::parse(&bytes).unwrap();
    Tokenizer::from_gguf(GgufVocab::from_metadata(&gguf.metadata).unwrap())
}

fn check(path: &Path) -> usize {
    let tokenizer = tokenizer_of(path).unwrap();
    let texts = std::fs::read_to_string(path.with_extension("gguf.inp")).unwrap();
    let ids = std::fs::read_to_string(path.with_extension("gguf.out")).unwrap();
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    let mut n_checked = 0;
    for (text, line) in texts.iter().zip(ids.lines()) {
        let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let seen = tokenizer.encode(text, false, false).unwrap();
        assert_eq!(seen, expected, "{}: {text:?}", path.display());
        assert_eq!(&tokenizer.decode(&seen), text, "{}", path.display());
        n_checked += 1;
    }
    assert!(n_checked > 0, "{}: no vectors", path.display());
    n_checked
}

#[test]
fn vocabularies_match_their_vectors() {
    let Ok(folder) = std::env::var("BIGA_VOCAB_VECTORS") else {
        println!("skipped: BIGA_VOCAB_VECTORS does not name a folder with vocabularies and vectors");
        return;
    };
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap().trim_start_matches("ggml-vocab-").to_owned();
        if OTHER_FAMILIES.contains(&name.as_str()) {
            let error = tokenizer_of(&path).unwrap_err();
            println!("{name}: refused: {error}");
        } else if path.with_extension("gguf.out").exists() {
            println!("{name}: {} texts", check(&path));
        } else {
            println!("{name}: loads, {} tokens, no vectors", tokenizer_of(&path).unwrap().vocab_size());
        }
    }
}
