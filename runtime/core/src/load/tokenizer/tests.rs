//! Tiny vocabularies built here, with answers worked out by hand.

use proptest::prelude::*;

use super::*;

mod hostile;

/// How a byte-level vocabulary writes a byte.
fn character_of(byte: u8) -> char {
    (0..0x200).filter_map(char::from_u32).find(|&c| bpe::byte_of_char(c) == Some(byte)).unwrap()
}

struct Entries {
    tokens: Vec<Vec<u8>>,
    types: Vec<i32>,
    scores: Vec<f32>,
    merges: Vec<Vec<u8>>,
}

impl Entries {
    fn vocab<'e>(&'e self, model: &'e str) -> GgufVocab<'e> {
        GgufVocab {
            model,
            pre: Some("gpt-2"),
            tokens: self.tokens.iter().map(Vec::as_slice).collect(),
            scores: self.scores.clone(),
            token_types: self.types.clone(),
            merges: self.merges.iter().map(Vec::as_slice).collect(),
            ..GgufVocab::default()
        }
    }
}

/// Ids 0 to 255 are the bytes; then merges in order; then `<|im_end|>`, `<pad>` and a user-defined `\n\n`.
fn byte_level(merges: &[(&str, &str)]) -> Entries {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| character_of(byte).to_string().into_bytes()).collect();
    tokens.extend(merges.iter().map(|(left, right)| format!("{left}{right}").into_bytes()));
    let mut types = vec![1; tokens.len()];
    tokens.extend([b"<|im_end|>".to_vec(), b"<pad>".to_vec(), b"\n\n".to_vec()]);
    types.extend([3, 3, 4]);
    let merges = merges.iter().map(|(left, right)| format!("{left} {right}").into_bytes()).collect();
    Entries { tokens, types, scores: Vec::new(), merges }
}

/// `<unk>`, `<s>`, `</s>`, the bytes at 3 to 258, then pieces whose score is minus their place.
fn sentence_pieces(pieces: &[&str]) -> Entries {
    let mut tokens = vec![b"<unk>".to_vec(), b"<s>".to_vec(), b"</s>".to_vec()];
    tokens.extend((0..=255).map(|byte: u8| format!("<0x{byte:02X}>").into_bytes()));
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    tokens.extend(pieces.iter().map(|piece| piece.as_bytes().to_vec()));
    types.resize(tokens.len(), 1);
    let scores = (0..tokens.len()).map(|index| if index < 259 { 0.0 } else { -(index as f32) }).collect();
    Entries { tokens, types, scores, merges: Vec::new() }
}

fn tokenizer(entries: &Entries, model: &str) -> Tokenizer {
    Tokenizer::from_gguf(entries.vocab(model)).unwrap()
}

#[test]
fn merges_apply_in_order_of_rank() {
    // "he" and "ll" come before "el", so "hello" never passes through "el".
    let entries = byte_level(&[("h", "e"), ("l", "l"), ("e", "l"), ("he", "ll"), ("Ġ", "he"), ("hell", "o")]);
    let tokenizer = tokenizer(&entries, "gpt2");
    assert_eq!(tokenizer.encode("hello", true, true).unwrap(), [261]);
    assert_eq!(tokenizer.encode("el", true, true).unwrap(), [258]);
    assert_eq!(tokenizer.encode("hell hell", true, true).unwrap(), [259, 32, 259]);
    assert_eq!(tokenizer.encode("é", true, true).unwrap(), [0xc3, 0xa9]);
    assert_eq!(tokenizer.encode("", true, true).unwrap(), [0_u32; 0]);
    assert_eq!(tokenizer.decode(&[261, 32, 0xc3, 0xa9]), "hello é");
}

#[test]
fn special_tokens_count_only_when_asked_for() {
    let entries = byte_level(&[("i", "m")]);
    let tokenizer = tokenizer(&entries, "gpt2");
    assert_eq!(tokenizer.encode("a<|im_end|>", true, false).unwrap(), [97, 257]);
    let plain = tokenizer.encode("a<|im_end|>", false, false).unwrap();
    assert_eq!(plain, [97, 60, 124, 256, 95, 101, 110, 100, 124, 62]);
    // User-defined text is taken out in both cases.
    assert_eq!(tokenizer.encode("a\n\nb", false, false).unwrap(), [97, 259, 98]);
    assert_eq!(tokenizer.eos_ids(), [257]);
    assert!(tokenizer.is_special(257) && tokenizer.is_special(258) && !tokenizer.is_special(259));
    assert_eq!(tokenizer.decode(&[97, 257, 258, 98]), "ab");
    let mut stream = TokenStream::new(&tokenizer).showing_control_tokens();
    assert_eq!(stream.push(257), "<|im_end|>");
}

#[test]
fn marks_are_added_once() {
    let entries = byte_level(&[("i", "m")]);
    let mut vocab = entries.vocab("gpt2");
    (vocab.bos, vocab.eos, vocab.add_bos, vocab.add_eos) = (Some(258), Some(257), Some(true), Some(true));
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    assert_eq!(tokenizer.encode("a", true, true).unwrap(), [258, 97, 257]);
    assert_eq!(tokenizer.encode("<pad>a", true, true).unwrap(), [258, 97, 257]);
    assert_eq!(tokenizer.encode("a", true, false).unwrap(), [97]);
}

#[test]
fn sentence_pieces_join_by_score() {
    let entries = sentence_pieces(&["▁", "a", "b", "▁a", "ab", "▁ab", "日"]);
    let tokenizer = tokenizer(&entries, "llama");
    // "▁a" has a better score than "ab", and "▁ab" comes of it.
    assert_eq!(tokenizer.encode("ab", true, true).unwrap(), [1, 264]);
    assert_eq!(tokenizer.encode("aab", true, false).unwrap(), [262, 263]);
    assert_eq!(tokenizer.encode("日é", true, false).unwrap(), [259, 265, 0xc3 + 3, 0xa9 + 3]);
    assert_eq!(tokenizer.encode("", true, true).unwrap(), [1]);
    // Behind a special token the space comes again; control names in plain text stay text.
    assert_eq!(tokenizer.encode("a</s>a", true, false).unwrap(), [262, 2, 262]);
    assert!(!tokenizer.encode("</s>", false, false).unwrap().contains(&2));
    assert_eq!(tokenizer.decode(&[1, 264, 262, 2]), "ab a");
    let mut stream = TokenStream::continuing(&tokenizer);
    assert_eq!(stream.push(262), " a");
}

#[test]
fn a_vocabulary_may_want_no_leading_space() {
    let entries = sentence_pieces(&["▁", "a", "▁a"]);
    let mut vocab = entries.vocab("llama");
    vocab.add_space_prefix = Some(false);
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    assert_eq!(tokenizer.encode("a a", true, false).unwrap(), [260, 261]);
    assert_eq!(tokenizer.decode(&[261]), " a");
}

#[test]
fn characters_are_never_split() {
    let entries = byte_level(&[("i", "m")]);
    let tokenizer = tokenizer(&entries, "gpt2");
    let mut stream = TokenStream::new(&tokenizer);
    let texts: Vec<String> = "é🙂".bytes().map(|byte| stream.push(u32::from(byte)).to_owned()).collect();
    assert_eq!(texts, ["", "é", "", "", "", "🙂"]);
    assert_eq!(stream.push(0xf0), "");
    assert_eq!(stream.push(97), "\u{fffd}a");
    assert_eq!(stream.push(0xe6), "");
    assert_eq!(stream.push(u32::MAX), "");
    assert_eq!(stream.finish(), "\u{fffd}");
    assert_eq!(stream.finish(), "");
}

#[test]
fn contradictions_are_refused() {
    let check = |change: fn(&mut GgufVocab<'_>), expected: &str| {
        let mut entries = byte_level(&[("i", "m")]);
        entries.scores = vec![0.0; entries.tokens.len()];
        let mut vocab = entries.vocab("gpt2");
        change(&mut vocab);
        let error = Tokenizer::from_gguf(vocab).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(|vocab| vocab.model = "t5", "\"t5\" is not supported");
    check(|vocab| vocab.pre = Some("later"), "\"later\" is not supported");
    check(|vocab| vocab.tokens.clear(), "no tokens");
    check(|vocab| vocab.merges.clear(), "without merges");
    check(|vocab| vocab.token_types.truncate(3), "3 token types for 260 tokens");
    check(|vocab| vocab.eos = Some(260), "eos token id 260 is outside the vocabulary of 260 tokens");
    check(|vocab| (vocab.model, vocab.scores) = ("llama", vec![0.0; 2]), "2 scores for 260 tokens");
    check(|vocab| (vocab.model, vocab.scores[7]) = ("llama", f32::NAN), "score of token 7 is not a number");
}

/// A `tokenizer.json` of the same vocabulary as [`byte_level`].
fn json_of(entries: &Entries) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let n_plain = entries.tokens.len() - 3;
    let vocab: serde_json::Map<String, serde_json::Value> =
        (0..n_plain).map(|id| (text(&entries.tokens[id]), id.into())).collect();
    let added: Vec<serde_json::Value> = (n_plain..entries.tokens.len())
        .map(|id| {
            serde_json::json!({
                "id": id, "content": text(&entries.tokens[id]), "special": entries.types[id] == 3,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let merges: Vec<String> = entries.merges.iter().map(|merge| text(merge)).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
    .to_string()
}

#[test]
fn a_tokenizer_json_brings_its_configuration() {
    let entries = byte_level(&[("h", "e"), ("l", "l"), ("he", "ll")]);
    let config = br#"{"bos_token": {"content": "<pad>"}, "eos_token": "<|im_end|>", "add_bos_token": true}"#;
    let mut tokenizer = Tokenizer::from_json_bytes(json_of(&entries).as_bytes(), Some(config)).unwrap();
    assert_eq!(tokenizer.vocab_size(), entries.tokens.len());
    assert_eq!((tokenizer.bos(), tokenizer.eos_ids()), (Some(260), &[259][..]));
    assert_eq!(tokenizer.encode("hell<|im_end|>", true, true).unwrap(), [260, 258, 259]);
    assert_eq!(tokenizer.encode("<|im", false, false).unwrap(), [60, 124, 105, 109]);
    assert!(!tokenizer.encode("<|im_end|>", false, false).unwrap().contains(&259));
    assert_eq!(tokenizer.decode(&[260, 258, 0xc3, 0xa9]), "hellé");
    tokenizer.add_eos_ids_from(br#"{"eos_token_id": [259, 7]}"#).unwrap();
    assert_eq!(tokenizer.eos_ids(), [259, 7]);
    tokenizer.add_eos_ids_from(br#"{"eos_token_id": 9}"#).unwrap();
    assert!(tokenizer.is_eos(9));
    assert!(tokenizer.add_eos_ids_from(br#"{"eos_token_id": 262}"#).is_err());
    assert!(Tokenizer::from_json_bytes(b"{}", None).is_err());
    let far = json_of(&entries).replace("\"!\":33", "\"!\":4000000000");
    assert!(Tokenizer::from_json_bytes(far.as_bytes(), None).is_err());
}

#[test]
fn marks_in_added_tokens_of_a_tokenizer_json_are_spaces() {
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null, "post_processor": null,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "added_tokens": [{
            "id": 3, "content": "▁▁", "special": false,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
        }],
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
        "model": {"type": "BPE", "vocab": {"a": 0, "▁": 1, "<0x41>": 2}, "merges": [], "byte_fallback": true},
    });
    let tokenizer = Tokenizer::from_json_bytes(json.to_string().as_bytes(), None).unwrap();
    let ids = tokenizer.encode("a  a a", false, true).unwrap();
    assert_eq!(ids, [0, 3, 0, 1, 0]);
    assert_eq!(tokenizer.decode(&ids), "a  a a");
    assert_eq!(tokenizer.decode(&[2, 3]), "A  ");
}

proptest! {
    #[test]
    fn text_comes_back(text in "\\PC{0,40}|[ a-z\n日é🙂]{0,60}") {
        let entries = byte_level(&[("h", "e"), ("Ġ", "t"), ("e", "Ġ"), ("æ", "Ĺ"), ("a", "a"), ("aa", "aa")]);
        let tokenizer = tokenizer(&entries, "gpt2");
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text, false, true).unwrap()), text.clone());
        let entries = sentence_pieces(&["▁", "a", "b", "▁a", "ab", "日", "aa", "aaaa"]);
        let tokenizer = super::tests::tokenizer(&entries, "llama");
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text, false, true).unwrap()), text.replace('▁', " "));
    }

    #[test]
    fn both_ways_to_read_a_vocabulary_agree(text in "[hela \n'🙂1]{0,60}|(hell|he|ll| ){0,40}") {
        let entries = byte_level(&[("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "he"), ("l", "a"), ("ll", "ll")]);
        let own = tokenizer(&entries, "gpt2");
        let other = Tokenizer::from_json_bytes(json_of(&entries).as_bytes(), None).unwrap();
        let ids = own.encode(&text, false, false).unwrap();
        prop_assert_eq!(&ids, &other.encode(&text, false, false).unwrap());
        prop_assert_eq!(own.decode(&ids), other.decode(&ids));
    }

    #[test]
    fn a_stream_reads_as_its_bytes_do(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let entries = byte_level(&[("i", "m")]);
        let tokenizer = tokenizer(&entries, "gpt2");
        let ids: Vec<u32> = bytes.iter().map(|&byte| byte.into()).collect();
        prop_assert_eq!(tokenizer.decode(&ids), String::from_utf8_lossy(&bytes));
    }
}
