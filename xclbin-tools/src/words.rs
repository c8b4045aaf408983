//! 32-bit words as they stand in a file: little-endian, at any alignment.

use std::fmt;

/// Words of a file, borrowed as bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Words<'a> {
    // A multiple of four.
    bytes: &'a [u8],
}

impl<'a> Words<'a> {
    /// The words in `bytes`; what is left of a last word is dropped.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Words<'a> {
        let whole = bytes.len() & !3;
        Words { bytes: bytes.get(..whole).unwrap_or(bytes) }
    }

    /// How many words.
    #[must_use]
    pub fn len(self) -> usize {
        self.bytes.len() / 4
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// A word by its place.
    #[must_use]
    pub fn get(self, index: usize) -> Option<u32> {
        self.bytes.as_chunks::<4>().0.get(index).map(|word| u32::from_le_bytes(*word))
    }

    /// The words in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
    }

    /// The words as they stand in the file.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The first `N` words and the rest.
    pub(crate) fn split<const N: usize>(self) -> Option<([u32; N], Words<'a>)> {
        let (head, rest) = self.bytes.split_at_checked(N.checked_mul(4)?)?;
        let mut words = [0; N];
        for (word, value) in words.iter_mut().zip(Words::new(head).iter()) {
            *word = value;
        }
        Some((words, Words::new(rest)))
    }

    /// All words, if there are `N`.
    pub(crate) fn exactly<const N: usize>(self) -> Option<[u32; N]> {
        self.split::<N>().filter(|(_, rest)| rest.is_empty()).map(|(words, _)| words)
    }
}

impl fmt::Debug for Words<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} words", self.len())
    }
}
