//! `tokenizer.json` through the `tokenizers` crate, with what the files around it add.

mod bounds;

use std::sync::OnceLock;

use serde::Deserialize;
use tokenizers::{ModelWrapper, PostProcessorWrapper, Tokenizer as HfTokenizer};

use super::bpe::decode_entry;
use super::special::SpecialSplitter;
use super::spm::byte_of_entry;
use super::table::{TokenKind, TokenTable};
use super::vocab::{end_names, push_unmarked};
use super::{Engine, Tokenizer, TokenizerError};
use crate::load::guard::contained;

/// Encodes by the `tokenizers` crate.
pub(super) struct JsonEngine {
    tokenizer: HfTokenizer,
    /// The same with special tokens read as plain text: the crate keeps that switch in the tokenizer.
    plain: OnceLock<HfTokenizer>,
}

impl std::fmt::Debug for JsonEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonEngine").field("n_tokens", &self.tokenizer.get_vocab_size(true)).finish_non_exhaustive()
    }
}

impl JsonEngine {
    pub(super) fn encode(&self, text: &str, parse_special: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let as_plain_text = || {
            let mut plain = self.tokenizer.clone();
            plain.set_encode_special_tokens(true);
            plain
        };
        // A panic leaves the tokenizer as it was: only finished words go into its cache.
        let encoded = contained(|| {
            let tokenizer = if parse_special { &self.tokenizer } else { self.plain.get_or_init(as_plain_text) };
            tokenizer.encode_fast(text, false).map_err(|error| error.to_string())
        });
        let encoding = encoded.and_then(|encoded| encoded).map_err(TokenizerError::Encode)?;
        out.extend_from_slice(encoding.get_ids());
        Ok(())
    }
}

/// The parts of `tokenizer_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    bos_token: Option<TokenName>,
    #[serde(default)]
    eos_token: Option<TokenName>,
    #[serde(default)]
    add_bos_token: Option<bool>,
    #[serde(default)]
    add_eos_token: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenName {
    Plain(String),
    Full { content: String },
}

impl TokenName {
    fn as_str(&self) -> &str {
        match self {
            TokenName::Plain(name) | TokenName::Full { content: name } => name,
        }
    }
}

/// How entries of the vocabulary become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each character is a byte.
    ByteLevel,
    /// `▁` is a space; `<0x0A>` is a byte.
    Marked { strips_leading_space: bool },
}

fn malformed(what: &str, error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Malformed(format!("{what}: {error}"))
}

pub(super) fn load(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, TokenizerError> {
    let config: Config = match config {
        Some(config) => serde_json::from_slice(config).map_err(|error| malformed("tokenizer_config.json", error))?,
        None => Config::default(),
    };
    bounds::check(tokenizer)?;
    contained(|| load_checked(tokenizer, &config)).map_err(|panic| malformed("tokenizer.json", panic))?
}

fn load_checked(tokenizer: &[u8], config: &Config) -> Result<Tokenizer, TokenizerError> {
    let mut inner = HfTokenizer::from_bytes(tokenizer).map_err(|error| malformed("tokenizer.json", error))?;
    // A prompt is never cut or filled up here, whatever the file was saved with.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|error| malformed("tokenizer.json", error))?;
    let spelling = spelling(&inner)?;
    let mut table = token_table(&inner, spelling)?;

    let id_of = |name: &Option<TokenName>| name.as_ref().and_then(|name| inner.token_to_id(name.as_str()));
    let (head, tail) = marks(&inner)?;
    let bos = id_of(&config.bos_token).or(head);
    let eos = id_of(&config.eos_token).or(tail);
    for (what, id) in [("bos", bos), ("eos", eos)] {
        if let Some(id) = id.filter(|&id| id as usize >= table.len()) {
            return Err(TokenizerError::IdOutOfRange { what, id, n_tokens: table.len() });
        }
    }
    let adds_bos = config.add_bos_token.unwrap_or(head.is_some());
    let adds_eos = config.add_eos_token.unwrap_or(tail.is_some());
    // Its marks are known now, and what else it may do (repeat the text) no prompt needs.
    inner.with_post_processor(None::<PostProcessorWrapper>);
    let mut eos_ids: Vec<u32> = Vec::new();
    for id in eos.into_iter().chain(end_names(&table)) {
        if !eos_ids.contains(&id) {
            eos_ids.push(id);
            table.set_kind(id, TokenKind::Control);
        }
    }
    Ok(Tokenizer {
        table,
        engine: Engine::Json(Box::new(JsonEngine { tokenizer: inner, plain: OnceLock::new() })),
        always_special: SpecialSplitter::default(),
        all_special: SpecialSplitter::default(),
        bos,
        add_bos: adds_bos.then_some(bos).flatten(),
        add_eos: adds_eos.then_some(eos).flatten(),
        eos_ids,
        strips_leading_space: spelling == Spelling::Marked { strips_leading_space: true },
    })
}

/// The marks that the file's post-processor puts around an empty text.
fn marks(inner: &HfTokenizer) -> Result<(Option<u32>, Option<u32>), TokenizerError> {
    let encoding = inner.encode_fast("", true).map_err(|error| malformed("tokenizer.json", error))?;
    Ok(match encoding.get_ids() {
        [] => (None, None),
        [only] => (Some(*only), None),
        [first, .., last] => (Some(*first), Some(*last)),
    })
}

/// Reads the file's decoder, which says how entries are written.
fn spelling(inner: &HfTokenizer) -> Result<Spelling, TokenizerError> {
    let decoder = serde_json::to_value(inner.get_decoder()).map_err(|error| malformed("decoder", error))?;
    let steps: Vec<&serde_json::Value> = match decoder.get("decoders").and_then(|steps| steps.as_array()) {
        Some(steps) => steps.iter().collect(),
        None => vec![&decoder],
    };
    let is = |step: &serde_json::Value, name: &str| step.get("type").and_then(|kind| kind.as_str()) == Some(name);
    let find = |name: &str| steps.iter().find(|step| is(step, name));
    if find("ByteLevel").is_some() {
        return Ok(Spelling::ByteLevel);
    }
    let strips = find("Strip").is_some_and(|step| step.get("start").and_then(|n| n.as_u64()) > Some(0));
    if let Some(metaspace) = find("Metaspace") {
        let scheme = metaspace.get("prepend_scheme").and_then(|scheme| scheme.as_str());
        return Ok(Spelling::Marked { strips_leading_space: strips || scheme != Some("never") });
    }
    if find("Replace").is_some() || find("ByteFallback").is_some() {
        return Ok(Spelling::Marked { strips_leading_space: strips });
    }
    let name = decoder.get("type").and_then(|kind| kind.as_str()).unwrap_or("none");
    Err(TokenizerError::Malformed(format!("tokenizer.json has the decoder \"{name}\", which is not supported")))
}

fn token_table(inner: &HfTokenizer, spelling: Spelling) -> Result<TokenTable, TokenizerError> {
    let vocab = inner.get_vocab(true);
    let n_tokens = vocab.values().max().map_or(0, |&most| most as usize).saturating_add(1);
    // Ids may have gaps, but a file of a few entries must not ask for gigabytes.
    let most = vocab.len().saturating_mul(8).saturating_add(65_536);
    if n_tokens > most {
        return Err(TokenizerError::TooLarge { what: "highest token id", size: n_tokens, most });
    }
    let added = inner.get_added_tokens_decoder();
    let unknown = match inner.get_model() {
        ModelWrapper::BPE(bpe) => bpe.unk_token.clone(),
        _ => None,
    };
    let mut entries: Vec<Option<&str>> = vec![None; n_tokens];
    let mut size_bytes = 0_usize;
    for (entry, &id) in &vocab {
        size_bytes = size_bytes.saturating_add(entry.len());
        if let Some(slot) = entries.get_mut(id as usize) {
            *slot = Some(entry);
        }
    }
    let mut table = TokenTable::with_capacity(n_tokens, size_bytes);
    for (id, entry) in (0_u32..).zip(entries) {
        let entry = entry.unwrap_or("");
        let kind = match added.get(&id) {
            Some(_) if unknown.as_deref() == Some(entry) => TokenKind::Unknown,
            Some(token) if token.special => TokenKind::Control,
            Some(_) => TokenKind::UserDefined,
            None => TokenKind::Normal,
        };
        // SentencePiece's decoder turns marks into spaces in added tokens, too (Gemma has runs of them).
        let is_marked = spelling != Spelling::ByteLevel && kind == TokenKind::UserDefined;
        let is_text = kind == TokenKind::Normal || is_marked;
        table.push_with(kind, |to| match (spelling, byte_of_entry(entry.as_bytes())) {
            (Spelling::ByteLevel, _) if is_text && decode_entry(entry, to) => {}
            (Spelling::Marked { .. }, Some(byte)) if is_text => to.push(byte),
            (Spelling::Marked { .. }, None) if is_text => push_unmarked(entry.as_bytes(), to),
            _ => to.extend_from_slice(entry.as_bytes()),
        })?;
    }
    Ok(table)
}

/// The `eos_token_id` of a configuration: none, one or several.
pub(super) fn eos_ids(config: &[u8]) -> Result<Vec<u32>, TokenizerError> {
    #[derive(Deserialize)]
    struct Ids {
        #[serde(default)]
        eos_token_id: Option<OneOrMany>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(u32),
        Many(Vec<u32>),
    }
    let ids: Ids = serde_json::from_slice(config).map_err(|error| malformed("eos_token_id", error))?;
    Ok(match ids.eos_token_id {
        None => Vec::new(),
        Some(OneOrMany::One(id)) => vec![id],
        Some(OneOrMany::Many(ids)) => ids,
    })
}
