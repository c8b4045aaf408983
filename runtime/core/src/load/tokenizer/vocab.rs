//! A vocabulary as GGUF files hold it, and how it becomes a [`Tokenizer`].

use std::collections::HashMap;

use super::bpe::{Bpe, Merges, decode_entry, pair_key};
use super::merge::{Join, NO_TOKEN};
use super::pretokenize::PreTokenizer;
use super::special::SpecialSplitter;
use super::spm::{self, SPACE_MARK, Spm};
use super::table::{PieceIndex, Seed, TokenKind, TokenTable};
use super::{Engine, Tokenizer, TokenizerError, shortened};
use crate::load::error::LoadError;
use crate::load::gguf::Metadata;

/// The `tokenizer.ggml.*` values of a GGUF file. Strings are bytes: files do not promise UTF-8.
#[derive(Clone, Debug, Default)]
pub struct GgufVocab<'f> {
    /// `model`: `gpt2` (byte-level byte-pair encoding) or `llama` (SentencePiece).
    pub model: &'f str,
    /// `pre`: the name of the pre-tokenizer.
    pub pre: Option<&'f str>,
    /// `tokens`.
    pub tokens: Vec<&'f [u8]>,
    /// `scores`; needed by `llama`.
    pub scores: Vec<f32>,
    /// `token_type`; empty when the file has none.
    pub token_types: Vec<i32>,
    /// `merges`; needed by `gpt2`.
    pub merges: Vec<&'f [u8]>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `eot_token_id`.
    pub eot: Option<u32>,
    /// `eom_token_id`.
    pub eom: Option<u32>,
    /// `unknown_token_id`.
    pub unknown: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}

/// Names of tokens that end a turn or a text in the model families known. Files often name only one
/// of theirs as `eos_token_id`.
const END_NAMES: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

impl<'f> GgufVocab<'f> {
    /// Reads the `tokenizer.ggml.*` keys.
    ///
    /// # Errors
    /// A key that has to be there and is not, or whose value has another type or range.
    pub fn from_metadata(metadata: &'f Metadata) -> Result<GgufVocab<'f>, LoadError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let id = |name: &str| {
            let id = metadata.unsigned(&key(name))?;
            // An id beyond 32 bits is beyond every vocabulary, and is refused as such.
            Ok::<_, LoadError>(id.map(|id| u32::try_from(id).unwrap_or(u32::MAX)))
        };
        let strings = |name: &str| {
            let entries = metadata.strings(&key(name))?.unwrap_or(&[]);
            Ok::<_, LoadError>(entries.iter().map(String::as_bytes).collect())
        };
        let kinds = metadata.integers(&key("token_type"))?.unwrap_or_default();
        Ok(GgufVocab {
            model: metadata.string(&key("model"))?.unwrap_or(""),
            pre: metadata.string(&key("pre"))?,
            tokens: strings("tokens")?,
            scores: metadata.reals(&key("scores"))?.unwrap_or(&[]).to_vec(),
            // Numbers that are no kind count as ordinary text, however large.
            token_types: kinds.into_iter().map(|kind| i32::try_from(kind).unwrap_or(0)).collect(),
            merges: strings("merges")?,
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            eom: id("eom_token_id")?,
            unknown: id("unknown_token_id")?,
            add_bos: metadata.boolean(&key("add_bos_token"))?,
            add_eos: metadata.boolean(&key("add_eos_token"))?,
            add_space_prefix: metadata.boolean(&key("add_space_prefix"))?,
        })
    }

    /// The tokenizer of this vocabulary.
    ///
    /// # Errors
    /// A model or pre-tokenizer that is not known, lists of different lengths, an id outside the
    /// vocabulary, a score that is not a number.
    pub fn into_tokenizer(self) -> Result<Tokenizer, TokenizerError> {
        self.check()?;
        match self.model {
            "gpt2" => self.into_bpe(),
            "llama" => self.into_spm(),
            other => Err(TokenizerError::UnknownModel(shortened(other))),
        }
    }

    fn check(&self) -> Result<(), TokenizerError> {
        let n_tokens = self.tokens.len();
        if n_tokens == 0 {
            return Err(TokenizerError::Malformed("the vocabulary has no tokens".to_owned()));
        }
        let most = (i32::MAX / 2) as usize;
        for (what, size) in [("tokens", n_tokens), ("merges", self.merges.len())] {
            if size > most {
                return Err(TokenizerError::TooLarge { what, size, most });
            }
        }
        if !self.token_types.is_empty() && self.token_types.len() != n_tokens {
            let count = self.token_types.len();
            return Err(TokenizerError::Malformed(format!("{count} token types for {n_tokens} tokens")));
        }
        let named =
            [("bos", self.bos), ("eos", self.eos), ("eot", self.eot), ("eom", self.eom), ("unknown", self.unknown)];
        for (what, id) in named {
            if let Some(id) = id
                && id as usize >= n_tokens
            {
                return Err(TokenizerError::IdOutOfRange { what, id, n_tokens });
            }
        }
        Ok(())
    }

    fn kind(&self, index: usize) -> TokenKind {
        self.token_types.get(index).map_or(TokenKind::Normal, |&number| TokenKind::from_gguf(number))
    }

    fn into_bpe(self) -> Result<Tokenizer, TokenizerError> {
        let pre = match self.pre {
            Some(name) => PreTokenizer::named(name)?,
            None => {
                tracing::warn!("the file names no pre-tokenizer: the default one is used, text may be cut wrongly");
                PreTokenizer::named("default")?
            }
        };
        if self.merges.is_empty() {
            return Err(TokenizerError::Malformed("a gpt2 vocabulary without merges".to_owned()));
        }
        let mut table = TokenTable::with_capacity(self.tokens.len(), total_len(&self.tokens));
        // Entries that no byte sequence spells are text of their own, and never the result of a merge.
        let mut spelled = vec![false; self.tokens.len()];
        for (index, (entry, spelled)) in self.tokens.iter().zip(&mut spelled).enumerate() {
            let kind = self.kind(index);
            table.push_with(kind, |to| {
                let is_text = !matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined);
                *spelled = is_text && std::str::from_utf8(entry).is_ok_and(|entry| decode_entry(entry, to));
                match (*spelled, spm::byte_of_entry(entry)) {
                    (true, _) => {}
                    (false, Some(byte)) if kind == TokenKind::Byte => to.push(byte),
                    (false, _) => to.extend_from_slice(entry),
                }
            })?;
        }
        let is_spelled = |id: &u32| spelled.get(*id as usize).copied().unwrap_or(false);
        let index = PieceIndex::new(&table, table.ids().filter(is_spelled));
        let merges = self.merge_table(&table, &index);
        let adds_bos = self.add_bos.unwrap_or(pre.adds_bos);
        let engine = Engine::Bpe(Bpe::new(pre, &table, index, merges));
        self.finish(table, engine, self.bos, self.eos, adds_bos)
    }

    /// Merges by pair of ids; a merge whose parts or result are no tokens can never happen.
    fn merge_table(&self, table: &TokenTable, index: &PieceIndex) -> Merges {
        let mut merges: Merges = HashMap::with_capacity_and_hasher(self.merges.len(), Seed::random());
        let mut piece = Vec::new();
        let mut n_skipped = 0_usize;
        for (rank, entry) in (0_u32..).zip(&self.merges) {
            let mut id_of = |parts: [&str; 2]| {
                piece.clear();
                parts.iter().all(|part| decode_entry(part, &mut piece)).then(|| index.get(table, &piece)).flatten()
            };
            let found = split_merge(entry).and_then(|(left, right)| {
                let key = pair_key(id_of([left, ""])?, id_of([right, ""])?);
                Some((key, id_of([left, right])?))
            });
            match found {
                Some((key, id)) => {
                    merges.entry(key).or_insert(Join { rank, id });
                }
                None => n_skipped += 1,
            }
        }
        if n_skipped > 0 {
            tracing::debug!(n_skipped, "merges of what is no token");
        }
        merges
    }

    fn into_spm(self) -> Result<Tokenizer, TokenizerError> {
        if self.scores.len() != self.tokens.len() {
            let (n_scores, n_tokens) = (self.scores.len(), self.tokens.len());
            return Err(TokenizerError::Malformed(format!("{n_scores} scores for {n_tokens} tokens")));
        }
        if let Some(index) = self.scores.iter().position(|score| score.is_nan()) {
            return Err(TokenizerError::Malformed(format!("the score of token {index} is not a number")));
        }
        let mut table = TokenTable::with_capacity(self.tokens.len(), total_len(&self.tokens));
        let mut byte_ids = Box::new([NO_TOKEN; 256]);
        for (id, entry) in (0_u32..).zip(&self.tokens) {
            let kind = self.kind(id as usize);
            let byte = (kind == TokenKind::Byte).then(|| spm::byte_of_entry(entry)).flatten();
            if let Some(byte) = byte
                && let Some(slot) = byte_ids.get_mut(usize::from(byte))
            {
                *slot = id;
            }
            table.push_with(kind, |to| match (kind, byte) {
                (_, Some(byte)) => to.push(byte),
                (TokenKind::Normal | TokenKind::Unused, _) => push_unmarked(entry, to),
                _ => to.extend_from_slice(entry),
            })?;
        }
        let of_kind = |wanted: fn(TokenKind) -> bool| {
            let table = &table;
            table.ids().filter(move |&id| table.kind(id).is_some_and(wanted))
        };
        let text = of_kind(|kind| matches!(kind, TokenKind::Normal | TokenKind::Unused));
        // User-defined tokens are found in the text as it stands, before its spaces become marks: what they
        // have of spaces never meets a mark.
        let own = of_kind(|kind| kind == TokenKind::UserDefined).filter(|&id| !table.bytes(id).contains(&b' '));
        let index = PieceIndex::new(&table, text.chain(own));
        let in_range = |id: u32| Some(id).filter(|&id| (id as usize) < self.tokens.len());
        let engine = Engine::Spm(Spm {
            index,
            ranks: self.scores.iter().map(|&score| spm::rank_of_score(score)).collect(),
            byte_ids,
            unknown: self.unknown.or(in_range(0)),
            add_space_prefix: self.add_space_prefix.unwrap_or(true),
        });
        let (bos, eos) = (self.bos.or(in_range(1)), self.eos.or(in_range(2)));
        let adds_bos = self.add_bos.unwrap_or(true);
        self.finish(table, engine, bos, eos, adds_bos)
    }

    fn finish(
        &self,
        mut table: TokenTable,
        engine: Engine,
        bos: Option<u32>,
        eos: Option<u32>,
        adds_bos: bool,
    ) -> Result<Tokenizer, TokenizerError> {
        let mut eos_ids = Vec::new();
        for id in [eos, self.eot, self.eom].into_iter().flatten().chain(end_names(&table)) {
            if !eos_ids.contains(&id) {
                eos_ids.push(id);
                table.set_kind(id, TokenKind::Control);
            }
        }
        Ok(Tokenizer {
            always_special: SpecialSplitter::new(&table, |kind| kind == TokenKind::UserDefined)?,
            all_special: SpecialSplitter::new(&table, |kind| {
                matches!(kind, TokenKind::UserDefined | TokenKind::Control | TokenKind::Unknown)
            })?,
            strips_leading_space: matches!(&engine, Engine::Spm(spm) if spm.add_space_prefix),
            table,
            engine,
            bos,
            add_bos: adds_bos.then_some(bos).flatten(),
            add_eos: self.add_eos.unwrap_or(false).then_some(eos).flatten(),
            eos_ids,
        })
    }
}

/// The ids of tokens whose names say that they end something.
pub(super) fn end_names(table: &TokenTable) -> Vec<u32> {
    let is_end = |id: &u32| {
        let bytes = table.bytes(*id);
        matches!(bytes.first(), Some(b'<' | b'[' | b'_')) && END_NAMES.iter().any(|name| name.as_bytes() == bytes)
    };
    table.ids().filter(is_end).collect()
}

fn total_len(entries: &[&[u8]]) -> usize {
    entries.iter().map(|entry| entry.len()).sum()
}

/// The two parts of a merge. The space between them is the first one behind the first character.
fn split_merge(entry: &[u8]) -> Option<(&str, &str)> {
    let entry = std::str::from_utf8(entry).ok()?;
    let first_len = entry.chars().next()?.len_utf8();
    let at = entry.get(first_len..)?.find(' ')?.checked_add(first_len)?;
    Some((entry.get(..at)?, entry.get(at.checked_add(1)?..)?))
}

/// Appends an entry with each space mark as a space.
pub(super) fn push_unmarked(entry: &[u8], to: &mut Vec<u8>) {
    let mark = SPACE_MARK.as_bytes();
    let mut rest = entry;
    while let Some((&first, behind)) = rest.split_first() {
        if let Some(behind_mark) = rest.strip_prefix(mark) {
            to.push(b' ');
            rest = behind_mark;
        } else {
            to.push(first);
            rest = behind;
        }
    }
}
