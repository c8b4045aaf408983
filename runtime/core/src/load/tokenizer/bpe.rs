//! Byte-level byte-pair encoding: text is cut into words by patterns, each word starts as bytes, and
//! pairs of tokens join in the order of the merge list.
//!
//! Vocabularies of this kind write bytes as printable characters (byte 0x20 is `Ġ`); that mapping is
//! undone once at load, and everything here works on plain bytes.

use std::collections::HashMap;

use super::merge::{Join, Merger, NO_TOKEN, Symbol};
use super::pretokenize::PreTokenizer;
use super::table::{PieceIndex, Seed, TokenTable};

/// The merges by pair of ids.
pub(super) type Merges = HashMap<u64, Join, Seed>;

#[derive(Debug)]
pub(super) struct Bpe {
    pub(super) pre: PreTokenizer,
    pub(super) index: PieceIndex,
    pub(super) merges: Merges,
    pub(super) byte_ids: Box<[u32; 256]>,
}

/// The key of a pair in [`Merges`].
pub(super) fn pair_key(left: u32, right: u32) -> u64 {
    (u64::from(left) << 32) | u64::from(right)
}

impl Bpe {
    pub(super) fn new(pre: PreTokenizer, table: &TokenTable, index: PieceIndex, merges: Merges) -> Bpe {
        let byte_ids = std::array::from_fn(|byte| {
            // PANIC: the index of an array of 256 fits a byte.
            index.get(table, &[byte as u8]).unwrap_or(NO_TOKEN)
        });
        Bpe { pre, index, merges, byte_ids: Box::new(byte_ids) }
    }

    /// Appends the tokens of a piece of text that holds no special token.
    pub(super) fn encode(&self, table: &TokenTable, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        self.pre.split(text, &mut |word| self.encode_word(table, word, merger, out));
    }

    fn encode_word(&self, table: &TokenTable, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let bytes = word.as_bytes();
        if (self.pre.whole_words_first || bytes.len() == 1)
            && let Some(id) = self.index.get(table, bytes)
        {
            out.push(id);
            return;
        }
        merger.symbols.clear();
        merger.symbols.extend((0..).zip(bytes).map(|(at, &byte)| Symbol {
            id: self.byte_ids.get(usize::from(byte)).copied().unwrap_or(NO_TOKEN),
            start: at,
            end: at.wrapping_add(1),
        }));
        merger.run(|left, right| self.merges.get(&pair_key(left.id, right.id)).copied());
        // A byte that the vocabulary lacks has no token: it is left out, as the reference engines do.
        out.extend(merger.symbols.iter().map(|symbol| symbol.id).filter(|&id| id != NO_TOKEN));
    }
}

/// The byte that a character of a byte-level vocabulary stands for.
///
/// Printable Latin-1 characters stand for themselves; the other 68 bytes follow from U+0100 on, in order.
pub(super) fn byte_of_char(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Appends the bytes that a vocabulary entry stands for; false (and nothing appended) when a
/// character of it stands for no byte.
pub(super) fn decode_entry(entry: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for character in entry.chars() {
        match byte_of_char(character) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_exactly_one_character() {
        let mut seen = [0; 256];
        for character in (0..0x200).filter_map(char::from_u32) {
            if let Some(byte) = byte_of_char(character) {
                seen[usize::from(byte)] += 1;
            }
        }
        assert_eq!(seen, [1; 256]);
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
        assert_eq!(byte_of_char('ł'), Some(0xa0));
        assert_eq!(byte_of_char('日'), None);
    }
}
