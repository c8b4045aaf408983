//! Any vocabulary and any text: loaded, encoded, decoded, streamed. Nothing may panic, ids stay in the
//! vocabulary, and a stream reads as the whole does.
//!
//! The input is one of three. A `tokenizer.json`, which begins with `{`; then a `tokenizer_config.json`, an
//! `eos_token_id` and texts, each after a byte 0xff. A GGUF file, which begins with `GGUF`; texts are those
//! below. Otherwise a vocabulary: `options`, `scheme`, then three lists parted by byte 0xfe, their entries by
//! 0xff: tokens (kind, score, text), merges, texts.

use biga::load::{
    gguf::Gguf,
    tokenizer::{GgufVocab, StopMatcher, TokenStream, Tokenizer},
};

/// Texts for inputs that bring none.
const TEXTS: [&str; 3] = ["", "Hello, world! 1 22\n\n  é日🙂 ab", "<s>[INST] ▁▁a</s><|im_end|>"];

const SCHEMES: [&str; 16] = [
    "default",
    "gpt-2",
    "smollm",
    "llama-bpe",
    "dbrx",
    "glm4",
    "qwen2",
    "qwen35",
    "laguna",
    "tekken",
    "gpt-4o",
    "deepseek-v3",
    "deepseek-llm",
    "falcon",
    "viking",
    "nobody-knows",
];

/// Builds a vocabulary of `data` and runs texts through it.
pub(crate) fn check(data: &[u8]) {
    match data {
        [b'{', ..] => check_json(data),
        [b'G', b'G', b'U', b'F', ..] => check_gguf(data),
        _ => check_entries(data),
    }
}

fn check_json(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == 0xff);
    let json = parts.next().unwrap_or(&[]);
    let (config, eos) = (parts.next().filter(|config| !config.is_empty()), parts.next().unwrap_or(b"{}"));
    let Ok(mut tokenizer) = Tokenizer::from_json_bytes(json, config) else { return };
    let _ = tokenizer.add_eos_ids_from(eos);
    assert!(tokenizer.eos_ids().iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "ids are in the vocabulary");
    let texts = parts.map(String::from_utf8_lossy);
    for text in TEXTS.map(Into::into).into_iter().chain(texts) {
        for (parse_special, add_bos) in [(false, false), (true, true)] {
            // A file may have no token for a text.
            if let Ok(ids) = tokenizer.encode(&text, parse_special, add_bos) {
                check_ids(&tokenizer, &ids);
            }
        }
    }
}

fn check_gguf(data: &[u8]) {
    let Ok(gguf) = Gguf::parse(data) else { return };
    let Ok(vocab) = GgufVocab::from_metadata(&gguf.metadata) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(vocab) else { return };
    for text in TEXTS {
        check_text(&tokenizer, text);
    }
}

fn check_entries(data: &[u8]) {
    let Some(([options, scheme], lists)) = data.split_first_chunk::<2>() else { return };
    let mut lists = lists.split(|&byte| byte == 0xfe);
    let mut list = || lists.next().unwrap_or(&[]).split(|&byte| byte == 0xff).collect::<Vec<_>>();
    let (entries, merges, texts) = (list(), list(), list());
    let bytes = if options & 1 == 0 { byte_level() } else { sentence_bytes() };
    let mut vocab = GgufVocab {
        model: if options & 1 == 0 { "gpt2" } else { "llama" },
        pre: (options & 2 == 0).then(|| SCHEMES[usize::from(scheme % 16)]),
        merges,
        bos: (options & 4 == 0).then_some(u32::from(*scheme)),
        add_bos: (options & 8 == 0).then_some(options & 16 == 0),
        add_eos: (options & 32 == 0).then_some(true),
        add_space_prefix: (options & 64 == 0).then_some(options & 16 == 0),
        ..GgufVocab::default()
    };
    if options & 128 == 0 {
        vocab.tokens.extend(bytes.iter().map(Vec::as_slice));
        vocab.token_types.resize(vocab.tokens.len(), if options & 1 == 0 { 1 } else { 6 });
        vocab.scores.resize(vocab.tokens.len(), 0.0);
    }
    for entry in entries {
        let (kind, score, text) = match entry {
            [kind, score, text @ ..] => (*kind, *score, text),
            short => (1, 0, short),
        };
        vocab.tokens.push(text);
        vocab.token_types.push(i32::from(kind % 8));
        vocab.scores.push(f32::from_bits(u32::from(score) << 24));
    }
    let Ok(tokenizer) = Tokenizer::from_gguf(vocab) else { return };
    for text in texts {
        check_text(&tokenizer, &String::from_utf8_lossy(text));
    }
}

fn check_text(tokenizer: &Tokenizer, text: &str) {
    for (parse_special, add_bos) in [(false, false), (true, true)] {
        let ids = tokenizer.encode(text, parse_special, add_bos).expect("own vocabularies encode every text");
        check_ids(tokenizer, &ids);
    }
}

fn check_ids(tokenizer: &Tokenizer, ids: &[u32]) {
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "ids are in the vocabulary");
    let mut stream = TokenStream::new(tokenizer);
    let mut stops = StopMatcher::new(vec!["stop".to_owned(), "\n\n".to_owned()]);
    let (mut streamed, mut released) = (String::new(), String::new());
    for &id in ids {
        let piece = stream.push(id);
        streamed.push_str(piece);
        released.push_str(stops.push(piece).text);
    }
    let piece = stream.finish();
    streamed.push_str(piece);
    released.push_str(stops.push(piece).text);
    released.push_str(stops.finish());
    assert_eq!(streamed, tokenizer.decode(ids), "a stream reads as the whole does");
    assert!(streamed.starts_with(&released), "what is released is the beginning of the text");
}

/// The 256 bytes as byte-level vocabularies write them.
fn byte_level() -> Vec<Vec<u8>> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut other = 0x100..;
    let character = |byte: u32| if printable(byte) { Some(byte) } else { other.next() };
    (0..256).filter_map(character).filter_map(char::from_u32).map(|c| c.to_string().into_bytes()).collect()
}

/// The 256 bytes as SentencePiece vocabularies write them.
fn sentence_bytes() -> Vec<Vec<u8>> {
    (0..256).map(|byte| format!("<0x{byte:02X}>").into_bytes()).collect()
}
