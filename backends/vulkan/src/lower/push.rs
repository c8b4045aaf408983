//! Push constants, word by word.

/// Under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Push(Vec<u32>);

impl Push {
    /// Appends a device address, low word first.
    pub(super) fn address(&mut self, address: u64) -> &mut Push {
        self.0.extend([address as u32, (address >> 32) as u32]);
        self
    }

    /// Appends a word.
    pub(super) fn word(&mut self, word: u32) -> &mut Push {
        self.0.push(word);
        self
    }

    /// Appends a float.
    pub(super) fn float(&mut self, value: f32) -> &mut Push {
        self.word(value.to_bits())
    }

    /// What was appended.
    pub(super) fn into_words(self) -> Vec<u32> {
        self.0
    }
}
