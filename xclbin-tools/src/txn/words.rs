//! 32-bit words as they stand in a file: little-endian, at any alignment.

use std::fmt;

/// Words of a file, borrowed as bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// The words in `bytes`, if those are a multiple of 4.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Words<'a>> {
        bytes.len().is_multiple_of(4).then_some(Words(bytes))
    }

    /// How many words.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.len() / 4
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// A word by its place.
    #[must_use]
    pub fn get(self, index: usize) -> Option<u32> {
        let start = index.checked_mul(4)?;
        let bytes = self.0.get(start..start.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The words in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        let (words, _) = self.0.as_chunks::<4>();
        words.iter().map(|word| u32::from_le_bytes(*word))
    }

    /// The words as they stand in the file.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|word| format!("{word:#x}"))).finish()
    }
}
