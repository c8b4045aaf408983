//! Text to tokens and back: one face over the vocabularies of GGUF files and `tokenizer.json`.
//!
//! GGUF vocabularies are read by our own code ([`GgufVocab`]): byte-level byte-pair encoding and
//! SentencePiece. `tokenizer.json` goes through the `tokenizers` crate, which defines that format.
//! Both give the same table of token bytes, so decoding, streaming ([`TokenStream`]) and stop strings
//! ([`StopMatcher`]) are the same for all.
//!
//! What this is not: no chat templates (those are `chat`), no sampling, no files.

mod bpe;
mod json;
mod merge;
mod pretokenize;
mod special;
mod spm;
mod stream;
mod table;
mod vocab;

use std::borrow::Cow;

pub use stream::{Released, StopMatcher, TokenStream};
pub use table::TokenKind;
pub use vocab::GgufVocab;

use merge::Merger;
use special::{Part, SpecialSplitter};
use table::TokenTable;

/// Why a vocabulary cannot be used, or a text not be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// `tokenizer.ggml.model` names nothing known.
    #[error("tokenizer model \"{0}\" is not supported (known: gpt2, llama)")]
    UnknownModel(String),
    /// `tokenizer.ggml.pre` names nothing known.
    #[error("pre-tokenizer \"{0}\" is not supported: its rules for cutting text into words are not known")]
    UnknownPreTokenizer(String),
    /// A special token's id is not in the vocabulary.
    #[error("{what} token id {id} is outside the vocabulary of {n_tokens} tokens")]
    IdOutOfRange {
        /// Which special token.
        what: &'static str,
        /// Its id.
        id: u32,
        /// Size of the vocabulary.
        n_tokens: usize,
    },
    /// Something is larger than the formats allow for.
    #[error("{what}: {size}, at most {most}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large.
        size: usize,
        /// The bound.
        most: usize,
    },
    /// The vocabulary contradicts itself.
    #[error("malformed tokenizer: {0}")]
    Malformed(String),
    /// The `tokenizers` crate could not encode the text.
    #[error("cannot tokenise the text: {0}")]
    Encode(String),
}

#[derive(Debug)]
enum Engine {
    Bpe(bpe::Bpe),
    Spm(spm::Spm),
    Json(Box<json::JsonEngine>),
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    table: TokenTable,
    engine: Engine,
    /// Taken out of every text.
    always_special: SpecialSplitter,
    /// Taken out of texts whose special tokens count.
    all_special: SpecialSplitter,
    bos: Option<u32>,
    add_bos: Option<u32>,
    add_eos: Option<u32>,
    eos_ids: Vec<u32>,
    strips_leading_space: bool,
}

/// Longest text that one call takes: positions inside it are 32 bits wide.
const TEXT_BYTES_MAX: usize = (u32::MAX - 64) as usize;

impl Tokenizer {
    /// From the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// See [`GgufVocab::into_tokenizer`].
    pub fn from_gguf(vocab: GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
        vocab.into_tokenizer()
    }

    /// From the bytes of `tokenizer.json` and, if there is one, `tokenizer_config.json`.
    ///
    /// # Errors
    /// JSON that is none, a tokenizer that the `tokenizers` crate refuses, or whose way of decoding is
    /// neither byte-level nor SentencePiece's.
    pub fn from_json_bytes(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, TokenizerError> {
        json::load(tokenizer, config)
    }

    /// Adds the `eos_token_id` (one or several) of a `generation_config.json` or `config.json`.
    ///
    /// # Errors
    /// JSON that is none, or an id outside the vocabulary.
    pub fn add_eos_ids_from(&mut self, config: &[u8]) -> Result<(), TokenizerError> {
        for id in json::eos_ids(config)? {
            if id as usize >= self.table.len() {
                return Err(TokenizerError::IdOutOfRange { what: "eos", id, n_tokens: self.table.len() });
            }
            if !self.eos_ids.contains(&id) {
                self.eos_ids.push(id);
            }
        }
        Ok(())
    }

    /// The tokens of a text.
    ///
    /// With `parse_special`, the names of control tokens in the text become those tokens: for prompts
    /// that a chat template wrote. Without it they are plain text: for what a user wrote. With
    /// `add_bos`, the beginning and end marks that the vocabulary asks for are added; a beginning mark
    /// that the text already has is not doubled.
    ///
    /// # Errors
    /// A text beyond 4 GiB, or one that the `tokenizers` crate cannot encode.
    pub fn encode(&self, text: &str, parse_special: bool, add_bos: bool) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > TEXT_BYTES_MAX {
            let what = "text in bytes";
            return Err(TokenizerError::TooLarge { what, size: text.len(), most: TEXT_BYTES_MAX });
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        ids.extend(self.add_bos.filter(|_| add_bos));
        let n_marks = ids.len();
        self.encode_parts(text, parse_special, &mut ids)?;
        if n_marks == 1 && ids.get(1) == ids.first() {
            ids.remove(0);
        }
        ids.extend(self.add_eos.filter(|_| add_bos));
        Ok(ids)
    }

    fn encode_parts(&self, text: &str, parse_special: bool, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let splitter = if parse_special { &self.all_special } else { &self.always_special };
        let mut merger = Merger::default();
        match &self.engine {
            Engine::Json(engine) => engine.encode(text, parse_special, ids)?,
            Engine::Bpe(bpe) => splitter.split(text, |part| match part {
                Part::Special(id) => ids.push(id),
                Part::Text(text) => bpe.encode(&self.table, text, &mut merger, ids),
            }),
            Engine::Spm(spm) => {
                let mut after_special = true;
                splitter.split(text, |part| match part {
                    Part::Special(id) => {
                        ids.push(id);
                        after_special = true;
                    }
                    Part::Text(text) => {
                        spm.encode(&self.table, text, after_special, &mut merger, ids);
                        after_special = false;
                    }
                });
            }
        }
        Ok(())
    }

    /// The text of tokens, control tokens left out; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = TokenStream::new(self);
        let mut text = String::new();
        for &id in ids {
            text.push_str(stream.push(id));
        }
        text.push_str(stream.finish());
        text
    }

    /// The bytes that a token adds to the text, or a control token's name; empty outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.table.bytes(id)
    }

    /// A token for people to read.
    pub fn token_text(&self, id: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.token_bytes(id))
    }

    /// What a token is for; none outside the vocabulary.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.table.kind(id)
    }

    /// Whether a token is never text: control tokens and the unknown token.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.table.kind(id), Some(TokenKind::Control | TokenKind::Unknown))
    }

    /// How many tokens there are. A model may have more rows than that, for padding.
    pub fn vocab_size(&self) -> usize {
        self.table.len()
    }

    /// The beginning mark.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether [`Tokenizer::encode`] puts a beginning mark in front when asked to.
    pub fn adds_bos(&self) -> bool {
        self.add_bos.is_some()
    }

    /// The tokens that end a text or a turn; the file's own end mark first.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Whether a token ends a text or a turn.
    pub fn is_eos(&self, id: u32) -> bool {
        self.eos_ids.contains(&id)
    }

    fn strips_leading_space(&self) -> bool {
        self.strips_leading_space
    }
}

/// The beginning of a name from a file, for an error.
fn shortened(name: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    match name.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", name.get(..end).unwrap_or("")),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
