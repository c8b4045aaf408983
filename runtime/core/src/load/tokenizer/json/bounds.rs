//! What a `tokenizer.json` has to keep before the `tokenizers` crate reads it. That crate trusts its files:
//! a few hundred bytes of them may ask for all memory or for more stack than there is, which no caller can
//! catch.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::malformed;
use crate::load::tokenizer::{TokenizerError, shortened};

/// How many times longer the steps before the model may make a text, in bytes. Those of the families that
/// are run here come to 16.
const GROWTH_MAX: usize = 256;
/// Lists and objects in one another within a part, and entries of one: a sequence is read recursively, and
/// a template repeats its marks.
const DEPTH_MAX: usize = 24;
const ENTRIES_MAX: usize = 512;
/// Longest piece of a Unigram vocabulary, in bytes: its trie is as deep as that, and is dropped recursively.
const PIECE_BYTES_MAX: usize = 512;

/// The parts that are looked at; all others are the crate's business.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    vocab: LongestPiece,
}

/// Refuses what the crate would read and should not.
pub(super) fn check(tokenizer: &[u8]) -> Result<(), TokenizerError> {
    let outline: Outline = serde_json::from_slice(tokenizer).map_err(|error| malformed("tokenizer.json", error))?;
    let Outline { normalizer, pre_tokenizer, post_processor, decoder, model } = &outline;
    for part in [normalizer, pre_tokenizer, post_processor, decoder] {
        check_shape(part, DEPTH_MAX)?;
    }
    let size = growth(normalizer)?.saturating_mul(growth(pre_tokenizer)?);
    check_most("growth of a text by normalizer and pre_tokenizer of tokenizer.json", size, GROWTH_MAX)?;
    check_most("longest piece of tokenizer.json in bytes", model.vocab.0, PIECE_BYTES_MAX)?;
    // They belong to no way of decoding that is known here.
    let affixes = [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ];
    for (name, affix) in affixes {
        if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
            return Err(unsupported(name, affix));
        }
    }
    Ok(())
}

fn check_most(what: &'static str, size: usize, most: usize) -> Result<(), TokenizerError> {
    if size > most { Err(TokenizerError::TooLarge { what, size, most }) } else { Ok(()) }
}

fn unsupported(what: &str, name: &str) -> TokenizerError {
    TokenizerError::Malformed(format!("tokenizer.json has the {what} {:?}, which is not supported", shortened(name)))
}

/// Depth and width of a part.
fn check_shape(value: &Value, depth_left: usize) -> Result<(), TokenizerError> {
    let (n_entries, mut entries): (usize, Box<dyn Iterator<Item = &Value>>) = match value {
        Value::Array(list) => (list.len(), Box::new(list.iter())),
        Value::Object(object) => (object.len(), Box::new(object.values())),
        _ => return Ok(()),
    };
    if depth_left == 0 {
        let cause = format!("a part of tokenizer.json nests deeper than {DEPTH_MAX} levels");
        return Err(TokenizerError::Malformed(cause));
    }
    check_most("entries of a list in tokenizer.json", n_entries, ENTRIES_MAX)?;
    entries.try_for_each(|entry| check_shape(entry, depth_left - 1))
}

/// How many times longer a normalizer or pre-tokenizer may make a text.
fn growth(part: &Value) -> Result<usize, TokenizerError> {
    if part.is_null() {
        return Ok(1);
    }
    let bytes = |key: &str| part.get(key).and_then(Value::as_str).map_or(0, str::len);
    Ok(match part.get("type").and_then(Value::as_str).unwrap_or("") {
        "Sequence" => {
            let lists = ["normalizers", "pretokenizers"].into_iter().filter_map(|key| part.get(key)?.as_array());
            lists.flatten().map(growth).try_fold(1_usize, |all, step| Ok(all.saturating_mul(step?)))?
        }
        // A pattern may match between any two bytes, unless it is a text itself.
        "Replace" => {
            let pattern = part.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
            1 + bytes("content") / pattern.map_or(1, |text| text.len().max(1))
        }
        // Once for each piece between special tokens.
        "Prepend" => 1 + bytes("prepend"),
        // The largest factors in UTF-8, by the Unicode standard's annex 15.
        "NFC" | "NFD" => 3,
        "NFKC" | "NFKD" => 11,
        "Lowercase" => 2,
        // Decomposed, lowered, with spaces around ideographs.
        "BertNormalizer" => 12,
        // A byte becomes a character of at most two, a word may get a space.
        "ByteLevel" => 3,
        // A space becomes a character of at most four bytes, a word may get one.
        "Metaspace" => 8,
        "Strip" | "StripAccents" | "Nmt" | "BertPreTokenizer" | "Delimiter" | "CharDelimiterSplit" | "Digits"
        | "FixedLength" | "Punctuation" | "Split" | "UnicodeScripts" | "Whitespace" | "WhitespaceSplit" => 1,
        // Among them "Precompiled", whose rules are a program in a binary format.
        other => return Err(unsupported("normalizer or pre_tokenizer", other)),
    })
}

/// The longest piece of a Unigram vocabulary, which is a list; 0 for those that are maps.
#[derive(Default)]
struct LongestPiece(usize);

impl<'de> Deserialize<'de> for LongestPiece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LongestPiece, D::Error> {
        struct Vocab;
        impl<'de> Visitor<'de> for Vocab {
            type Value = LongestPiece;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of ids or a list of pieces with scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LongestPiece, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(LongestPiece(0))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<LongestPiece, A::Error> {
                let mut longest = 0;
                while let Some((piece, _)) = list.next_element::<(String, f64)>()? {
                    longest = longest.max(piece.len());
                }
                Ok(LongestPiece(longest))
            }
        }
        deserializer.deserialize_any(Vocab)
    }
}
