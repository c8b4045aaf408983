//! Replays the kept inputs of the fuzz targets, with no fuzzer needed.

use std::{fs, path::Path};

#[path = "../../../fuzz/checks/chat_template.rs"]
mod chat_template;
#[path = "../../../fuzz/checks/gguf.rs"]
mod gguf;
#[path = "../../../fuzz/checks/safetensors.rs"]
mod safetensors;
#[path = "../../../fuzz/checks/tokenizer.rs"]
mod tokenizer;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "{} holds no input", folder.display());
}

#[test]
fn gguf_inputs_are_harmless() {
    replay("gguf", gguf::check);
}

#[test]
fn safetensors_inputs_are_harmless() {
    replay("safetensors", safetensors::check);
}

#[test]
fn tokenizer_inputs_are_harmless() {
    replay("tokenizer", tokenizer::check);
}

#[test]
fn chat_template_inputs_are_harmless() {
    replay("chat_template", chat_template::check);
}
