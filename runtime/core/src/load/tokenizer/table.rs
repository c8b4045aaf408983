//! What each token id stands for: its bytes as text shows them, and its kind.
//!
//! One flat blob with end offsets: a vocabulary of 262 144 tokens is three allocations, not 262 144.
//! The index goes the other way, from bytes to id; it hashes with a random seed, so that a crafted
//! vocabulary cannot make loading quadratic.

use std::hash::{BuildHasher, RandomState};

use super::TokenizerError;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Ordinary text.
    Normal,
    /// Stands for text that the vocabulary cannot say.
    Unknown,
    /// Never text: beginning, end, turn marks.
    Control,
    /// Text that is taken out before anything else looks at it.
    UserDefined,
    /// Reserved by the model's makers.
    Unused,
    /// One raw byte.
    Byte,
}

impl TokenKind {
    /// From the numbers that GGUF files use; a number of no meaning is ordinary text.
    pub(super) fn from_gguf(number: i32) -> TokenKind {
        match number {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }
}

/// Bytes and kind of each token.
#[derive(Debug, Default)]
pub(super) struct TokenTable {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
}

impl TokenTable {
    pub(super) fn with_capacity(n_tokens: usize, size_bytes: usize) -> TokenTable {
        TokenTable {
            bytes: Vec::with_capacity(size_bytes),
            ends: Vec::with_capacity(n_tokens),
            kinds: Vec::with_capacity(n_tokens),
        }
    }

    /// Adds the next token; `write` appends its bytes.
    pub(super) fn push_with(
        &mut self,
        kind: TokenKind,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TokenizerError> {
        write(&mut self.bytes);
        let end = u32::try_from(self.bytes.len()).map_err(|_| TokenizerError::TooLarge {
            what: "the text of all tokens in bytes",
            size: self.bytes.len(),
            most: u32::MAX as usize,
        })?;
        self.ends.push(end);
        self.kinds.push(kind);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token; empty for an id outside the vocabulary.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.ends.get(index) else {
            return &[];
        };
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or(0),
            None => 0,
        };
        self.bytes.get(start as usize..end as usize).unwrap_or(&[])
    }

    pub(super) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: TokenKind) {
        if let Some(old) = self.kinds.get_mut(id as usize) {
            *old = kind;
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        // Ends are 32 bits wide and so is the number of tokens: it was checked when they were added.
        0..u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }
}

/// From the bytes of a token to its id: open addressing over ids, the keys stay in the table.
#[derive(Debug)]
pub(super) struct PieceIndex {
    slots: Vec<u32>,
    seed: Seed,
    longest: usize,
}

const EMPTY: u32 = u32::MAX;

impl PieceIndex {
    /// Indexes the given ids. Of two tokens with the same bytes the first one counts.
    pub(super) fn new(table: &TokenTable, ids: impl Iterator<Item = u32>) -> PieceIndex {
        let n_slots = table.len().saturating_mul(2).next_power_of_two().max(16);
        let mut index = PieceIndex { slots: vec![EMPTY; n_slots], seed: Seed::random(), longest: 0 };
        for id in ids {
            let piece = table.bytes(id);
            if piece.is_empty() {
                continue;
            }
            if let Err(free) = index.find(table, piece)
                && let Some(slot) = index.slots.get_mut(free)
            {
                *slot = id;
                index.longest = index.longest.max(piece.len());
            }
        }
        index
    }

    /// The id of a token with exactly these bytes.
    pub(super) fn get(&self, table: &TokenTable, piece: &[u8]) -> Option<u32> {
        if piece.is_empty() || piece.len() > self.longest {
            return None;
        }
        self.find(table, piece).ok()
    }

    /// The id, or the free slot where it would be. At most half of the slots are taken, so this ends.
    fn find(&self, table: &TokenTable, piece: &[u8]) -> Result<u32, usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = self.seed.hash(piece) as usize & mask;
        loop {
            match self.slots.get(at).copied() {
                None | Some(EMPTY) => return Err(at),
                Some(id) if table.bytes(id) == piece => return Ok(id),
                Some(_) => at = at.wrapping_add(1) & mask,
            }
        }
    }
}

/// A random seed of a fast hash by folded multiplication; also the hasher of the merge table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    start: u64,
    factor: u64,
}

impl Seed {
    pub(super) fn random() -> Seed {
        let random = RandomState::new();
        Seed { start: random.hash_one(1_u8), factor: random.hash_one(2_u8) | 1 }
    }

    fn fold(self, state: u64, word: u64) -> u64 {
        let product = u128::from(state ^ word).wrapping_mul(u128::from(self.factor));
        (product as u64) ^ ((product >> 64) as u64)
    }

    fn hash(self, bytes: &[u8]) -> u64 {
        let mut state = self.start ^ (bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0_u8; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            state = self.fold(state, u64::from_le_bytes(word));
        }
        self.fold(state, self.start)
    }
}

/// Hasher for keys that write one `u64`.
#[derive(Debug)]
pub(super) struct WordHasher {
    seed: Seed,
    state: u64,
}

impl std::hash::Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        self.state = self.seed.fold(self.state, self.seed.hash(bytes));
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = self.seed.fold(self.state, word);
        self.state = self.seed.fold(mixed, self.seed.start);
    }
}

impl BuildHasher for Seed {
    type Hasher = WordHasher;

    fn build_hasher(&self) -> WordHasher {
        WordHasher { seed: *self, state: self.start }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_finds_each_piece_and_nothing_else() {
        let mut table = TokenTable::default();
        for number in 0..5000 {
            table.push_with(TokenKind::Normal, |to| to.extend(format!("t{number}").bytes())).unwrap();
        }
        table.push_with(TokenKind::Normal, |to| to.extend(b"t7")).unwrap();
        let index = PieceIndex::new(&table, table.ids());
        for number in 0..5000_u32 {
            assert_eq!(index.get(&table, format!("t{number}").as_bytes()), Some(number));
        }
        assert_eq!(index.get(&table, b"t5000"), None);
        assert_eq!(index.get(&table, b""), None);
        assert_eq!(table.bytes(9999), b"");
    }
}
