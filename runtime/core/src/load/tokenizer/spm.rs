//! SentencePiece byte-pair encoding: spaces become `▁`, the text starts as characters, and the pair
//! whose joined token has the best score joins first. What no token says is written as bytes.

use std::borrow::Cow;

use super::merge::{Join, Merger, NO_TOKEN, Symbol};
use super::table::{PieceIndex, TokenTable};

/// Stands for a space inside the vocabulary.
pub(super) const SPACE_MARK: &str = "\u{2581}";

#[derive(Debug)]
pub(super) struct Spm {
    /// Over ordinary, user-defined and unused tokens, with [`SPACE_MARK`] already turned into a space.
    pub(super) index: PieceIndex,
    /// Rank of each token: best score, lowest rank.
    pub(super) ranks: Vec<u32>,
    pub(super) byte_ids: Box<[u32; 256]>,
    pub(super) unknown: Option<u32>,
    pub(super) add_space_prefix: bool,
}

/// An order of ranks that is the reverse of the order of scores. Zeros of either sign are equal.
pub(super) fn rank_of_score(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | (1 << 31) };
    !ascending
}

impl Spm {
    /// Appends the tokens of a piece of text; `after_special` is true at the beginning and behind a
    /// special token, where a space is put in front if the vocabulary wants it.
    pub(super) fn encode(
        &self,
        table: &TokenTable,
        text: &str,
        after_special: bool,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) {
        let mut text = Cow::Borrowed(text);
        // A space mark in the text itself is read as the space it stands for.
        if text.contains(SPACE_MARK) {
            text = Cow::Owned(text.replace(SPACE_MARK, " "));
        }
        if self.add_space_prefix && after_special {
            text = Cow::Owned(format!(" {text}"));
        }
        let bytes = text.as_bytes();
        let piece = |start: u32, end: u32| bytes.get(start as usize..end as usize).unwrap_or(&[]);
        merger.symbols.clear();
        merger.symbols.extend(text.char_indices().map(|(start, character)| {
            // The caller bounds the text to less than 2^32 bytes.
            let start = start as u32;
            let end = start.wrapping_add(character.len_utf8() as u32);
            Symbol { id: self.index.get(table, piece(start, end)).unwrap_or(NO_TOKEN), start, end }
        }));
        merger.run(|left, right| {
            let id = self.index.get(table, piece(left.start, right.end))?;
            Some(Join { rank: self.ranks.get(id as usize).copied()?, id })
        });
        for symbol in &merger.symbols {
            if symbol.id == NO_TOKEN {
                self.push_bytes(piece(symbol.start, symbol.end), out);
            } else {
                out.push(symbol.id);
            }
        }
    }

    fn push_bytes(&self, bytes: &[u8], out: &mut Vec<u32>) {
        let ids = bytes.iter().map(|&byte| self.byte_ids.get(usize::from(byte)).copied().unwrap_or(NO_TOKEN));
        if ids.clone().all(|id| id != NO_TOKEN) {
            out.extend(ids);
        } else {
            out.extend(self.unknown);
        }
    }
}

/// The byte of a token written `<0x0A>`.
pub(super) fn byte_of_entry(entry: &[u8]) -> Option<u8> {
    let digits = entry.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_scores_have_lower_ranks() {
        let scores = [f32::INFINITY, 3.5, 0.0, -1.0, -2.5, -1e9, f32::NEG_INFINITY];
        for pair in scores.windows(2) {
            assert!(rank_of_score(pair[0]) < rank_of_score(pair[1]), "{pair:?}");
        }
        assert_eq!(rank_of_score(0.0), rank_of_score(-0.0));
    }

    #[test]
    fn byte_entries_are_two_hexadecimal_digits() {
        assert_eq!(byte_of_entry(b"<0x0A>"), Some(10));
        assert_eq!(byte_of_entry(b"<0xFF>"), Some(255));
        assert_eq!(byte_of_entry(b"<0x+A>"), None);
        assert_eq!(byte_of_entry(b"<0x0>"), None);
        assert_eq!(byte_of_entry(b"<0x00A>"), None);
    }
}
