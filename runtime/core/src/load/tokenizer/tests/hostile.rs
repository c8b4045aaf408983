//! `tokenizer.json` files that want a panic, all memory or all of the stack. Each must end in a typed error.

use serde_json::{Value, json};

use crate::load::tokenizer::{Tokenizer, TokenizerError};

/// A small file that loads, and the part that a test puts in.
fn file(key: &str, part: Value) -> String {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    });
    match key.split_once('.') {
        Some((outer, inner)) => file[outer][inner] = part,
        None => file[key] = part,
    }
    file.to_string()
}

fn load(file: &str) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_json_bytes(file.as_bytes(), None)
}

/// Refused when it is loaded, in words that contain these.
fn check_refused(key: &str, part: Value, words: &str) {
    let message = load(&file(key, part)).expect_err(key).to_string();
    assert!(message.contains(words), "{message:?} does not say {words:?}");
}

#[test]
fn the_small_file_loads() {
    assert_eq!(load(&file("normalizer", Value::Null)).unwrap().encode("abb", false, true).unwrap(), [2, 1]);
}

#[test]
fn affixes_of_words_are_refused() {
    check_refused("model.continuing_subword_prefix", json!("####"), "continuing_subword_prefix \"####\"");
    check_refused("model.end_of_word_suffix", json!("</w>"), "end_of_word_suffix \"</w>\"");
    assert!(load(&file("model.end_of_word_suffix", json!(""))).is_ok());
}

#[test]
fn a_precompiled_normalizer_is_refused() {
    let precompiled = json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="});
    check_refused("normalizer", precompiled.clone(), "\"Precompiled\"");
    check_refused("normalizer", json!({"type": "Sequence", "normalizers": [precompiled]}), "\"Precompiled\"");
}

#[test]
fn a_panic_while_loading_is_an_error() {
    // The second template is handed no text at all.
    let template = json!({"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}});
    let part = json!({"type": "Sequence", "processors": [template, template]});
    check_refused("post_processor", part, "not yet implemented");
}

#[test]
fn a_panic_while_encoding_is_an_error() {
    let tokenizer = load(&file("pre_tokenizer", json!({"type": "FixedLength", "length": 0}))).unwrap();
    for _ in 0..2 {
        let error = tokenizer.encode("ab", false, true).unwrap_err();
        assert!(matches!(error, TokenizerError::Encode(_)), "{error}");
        assert!(tokenizer.encode("ab", true, true).is_err());
    }
}

#[test]
fn texts_do_not_grow_without_bound() {
    let longer = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let words = "growth of a text";
    check_refused("normalizer", json!({"type": "Sequence", "normalizers": vec![&longer; 30]}), words);
    check_refused("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": vec![&bytes; 30]}), words);
    let hidden = json!({"type": "Sequence", "normalizers": [], "pretokenizers": vec![&bytes; 30]});
    check_refused("pre_tokenizer", hidden, words);
    check_refused(
        "normalizer",
        json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "a".repeat(300)}),
        words,
    );
    check_refused("normalizer", json!({"type": "Prepend", "prepend": "a".repeat(300)}), words);
}

#[test]
fn templates_repeat_nothing_without_bound() {
    let piece = json!({"Sequence": {"id": "A", "type_id": 0}});
    let template = |n: usize| {
        let pieces = vec![&piece; n];
        json!({"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": {}})
    };
    check_refused("post_processor", template(100_000), "entries of a list");
    // What a template does to the text is no business of prompts.
    let tokenizer = load(&file("post_processor", template(3))).unwrap();
    assert_eq!(tokenizer.encode("ab", false, true).unwrap(), [2]);
}

#[test]
fn marks_are_in_the_vocabulary() {
    let marks = |sep: u32, cls: u32| json!({"type": "BertProcessing", "sep": ["b", sep], "cls": ["a", cls]});
    check_refused("post_processor", marks(1, 3), "bos token id 3 is outside the vocabulary of 3 tokens");
    check_refused("post_processor", marks(u32::MAX, 0), "eos token id 4294967295");
    assert_eq!(load(&file("post_processor", marks(1, 0))).unwrap().encode("ab", false, true).unwrap(), [0, 2, 1]);
}

#[test]
fn nesting_is_bounded() {
    let nested = (0..30).fold(json!({"type": "NFC"}), |part, _| json!({"type": "Sequence", "normalizers": [part]}));
    check_refused("normalizer", nested, "nests deeper than 24");
    let lists = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = file("normalizer", Value::Null).replace("\"truncation\":null", &format!("\"truncation\":{lists}"));
    assert!(load(&deep).is_err());
}

#[test]
fn a_long_piece_takes_no_stack() {
    let model = |len: usize| json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["a".repeat(len), -2.0]]});
    check_refused("model", model(1_000_000), "longest piece");
    let tokenizer = load(&file("model", model(512))).unwrap();
    assert_eq!(tokenizer.encode(&"a".repeat(512), false, true).unwrap(), [2]);
}
