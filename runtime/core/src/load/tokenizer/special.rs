//! Tokens that are taken out of the text before it is tokenised: turn marks, added tokens.
//!
//! Of overlapping marks the leftmost counts, of those the longest, as Hugging Face's tokenizers do.

use aho_corasick::{AhoCorasick, MatchKind};

use super::TokenizerError;
use super::table::{TokenKind, TokenTable};

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Special(u32),
}

/// Finds special tokens in a text.
#[derive(Debug, Default)]
pub(super) struct SpecialSplitter {
    /// None when there is nothing to look for.
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl SpecialSplitter {
    /// Looks for the tokens whose kind passes `wanted`.
    pub(super) fn new(
        table: &TokenTable,
        wanted: impl Fn(TokenKind) -> bool,
    ) -> Result<SpecialSplitter, TokenizerError> {
        // Only whole characters: then a match cannot begin or end inside one.
        let ids: Vec<u32> = table
            .ids()
            .filter(|&id| table.kind(id).is_some_and(&wanted))
            .filter(|&id| !table.bytes(id).is_empty() && std::str::from_utf8(table.bytes(id)).is_ok())
            .collect();
        if ids.is_empty() {
            return Ok(SpecialSplitter::default());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(ids.iter().map(|&id| table.bytes(id)))
            .map_err(|error| TokenizerError::Malformed(format!("special tokens: {error}")))?;
        Ok(SpecialSplitter { automaton: Some(automaton), ids })
    }

    /// Gives the parts of the text in order; no text part is empty.
    pub(super) fn split<'t>(&self, text: &'t str, mut each: impl FnMut(Part<'t>)) {
        let mut rest_start = 0;
        let matches = self.automaton.iter().flat_map(|automaton| automaton.find_iter(text));
        for found in matches {
            let Some(&id) = self.ids.get(found.pattern().as_usize()) else { continue };
            if let Some(before) = text.get(rest_start..found.start())
                && !before.is_empty()
            {
                each(Part::Text(before));
            }
            each(Part::Special(id));
            rest_start = found.end();
        }
        if let Some(rest) = text.get(rest_start..)
            && !rest.is_empty()
        {
            each(Part::Text(rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftmost_then_longest() {
        let mut table = TokenTable::default();
        for entry in ["<s>", "<s>>", "é", ""] {
            table.push_with(TokenKind::Control, |to| to.extend(entry.bytes())).unwrap();
        }
        let splitter = SpecialSplitter::new(&table, |kind| kind == TokenKind::Control).unwrap();
        let mut parts = Vec::new();
        splitter.split("a<s>>bé<s>", |part| parts.push(part));
        use Part::{Special, Text};
        assert_eq!(parts, [Text("a"), Special(1), Text("b"), Special(2), Special(0)]);
    }
}
