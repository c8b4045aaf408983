//! The step buffer: the one small buffer that changes from step to step.
//!
//! A step is a ragged list of (sequence, n tokens, positions that want logits). Prefill, decode, mixed
//! batches and verification of drafts are values of it, not modes. Recorded segments read everything
//! that varies from here, so that a recording serves every step of its bucket.
//!
//! ```text
//! offset                  type               content
//! 0                       u32 × 4            n_tokens, n_sequences, n_outputs, number
//! tokens                  u32 [max_tokens]   token ids
//! positions               u32 [max_tokens]   position of each token in its sequence
//! slots                   u32 [max_tokens]   sequence slot of each token: the row in the block tables
//! outputs                 u32 [max_outputs]  token rows that want logits
//! sampling                u32 [max_outputs, 8]   how the token that follows each output row is chosen
//! tables                  u64 [n_tables, max_slots, max_blocks]   device addresses of KV blocks
//! ```
//!
//! Sections start at multiples of 16 bytes. Little-endian.
//!
//! # Steps that feed the next one
//!
//! [`crate::OpKind::Sample`] chooses the token that follows each output row, and writes it to two places.
//! One is the results ring, memory of its own that the host reads; an entry's number tells which step
//! wrote it:
//!
//! ```text
//! offset                  type               content
//! 0                       u32 [RING, max_outputs, 2]   by `number % RING` and row: token, number
//! ```
//!
//! The other is the step buffer itself, which becomes the step that decodes these tokens: `tokens[i]` is
//! row i's token, `positions[i]` one more than its row's, `slots[i]` its row's, `outputs[i]` is i, and of the
//! header `n_tokens` becomes `n_outputs` and `number` one more. So the same recording can be submitted again
//! with nothing written in between, but for the block tables where a sequence enters a new block.

use crate::{Error, Result, SampleResult, SampleRow};

/// The most that any step of an engine holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Token rows.
    pub max_tokens: usize,
    /// Rows that want logits.
    pub max_outputs: usize,
    /// Sequences that exist at once (slots).
    pub max_slots: usize,
    /// Blocks of one sequence in one table.
    pub max_blocks: usize,
    /// Block tables, one per KV layer group.
    pub n_tables: usize,
}

/// The first bytes of the step buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepHeader {
    /// Token rows in this step.
    pub n_tokens: u32,
    /// Distinct sequences in this step.
    pub n_sequences: u32,
    /// Rows that want logits.
    pub n_outputs: u32,
    /// Tells the step's results from those of other steps; nothing to steps that sample nothing.
    pub number: u32,
}

impl StepHeader {
    /// Size in the buffer.
    pub const SIZE_BYTES: usize = 16;

    /// As stored.
    pub fn to_bytes(self) -> [u8; StepHeader::SIZE_BYTES] {
        let mut bytes = [0; StepHeader::SIZE_BYTES];
        bytes[0..4].copy_from_slice(&self.n_tokens.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.n_sequences.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.n_outputs.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }
}

/// Byte offsets of the sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLayout {
    /// What it was made for.
    pub limits: StepLimits,
    /// Of the token ids.
    pub tokens: usize,
    /// Of the positions.
    pub positions: usize,
    /// Of the sequence slots.
    pub slots: usize,
    /// Of the output rows.
    pub outputs: usize,
    /// Of the sampling parameters, [`crate::SampleRow::SIZE_BYTES`] each.
    pub sampling: usize,
    /// Of the first block table.
    pub tables: usize,
    /// Of the whole buffer.
    pub size_bytes: usize,
}

impl StepLayout {
    /// Lays the sections out.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the buffer would pass 1 GiB.
    pub fn new(limits: StepLimits) -> Result<StepLayout> {
        const MAX_BYTES: usize = 1 << 30;
        let mut end = StepHeader::SIZE_BYTES;
        let mut section = |items: Option<usize>, item_bytes: usize| {
            let start = end;
            end = items
                .and_then(|n| n.checked_mul(item_bytes))
                .and_then(|bytes| bytes.checked_next_multiple_of(16))
                .and_then(|bytes| start.checked_add(bytes))
                .filter(|&end| end <= MAX_BYTES)
                .ok_or(Error::TooLarge { what: "step buffer", max_bytes: MAX_BYTES as u64 })?;
            Ok::<usize, Error>(start)
        };
        let tokens = section(Some(limits.max_tokens), 4)?;
        let positions = section(Some(limits.max_tokens), 4)?;
        let slots = section(Some(limits.max_tokens), 4)?;
        let outputs = section(Some(limits.max_outputs), 4)?;
        let sampling = section(Some(limits.max_outputs), SampleRow::SIZE_BYTES)?;
        let entries = limits.n_tables.checked_mul(limits.max_slots).and_then(|n| n.checked_mul(limits.max_blocks));
        let tables = section(entries, 8)?;
        Ok(StepLayout { limits, tokens, positions, slots, outputs, sampling, tables, size_bytes: end })
    }

    /// Steps whose results the ring holds: more than may be in flight at once.
    pub const RING: usize = 8;

    /// Bytes of one step's results.
    pub fn result_bytes(&self) -> usize {
        self.limits.max_outputs * SampleResult::SIZE_BYTES
    }

    /// Bytes of the results ring.
    pub fn ring_bytes(&self) -> usize {
        StepLayout::RING * self.result_bytes()
    }

    /// Byte offset of the results of the step with this number in the ring.
    pub fn results(&self, number: u32) -> usize {
        number as usize % StepLayout::RING * self.result_bytes()
    }

    /// Byte offset of the row of `slot` in block table `table`.
    pub fn table_row(&self, table: usize, slot: usize) -> usize {
        self.tables + (table * self.limits.max_slots + slot) * self.limits.max_blocks * 8
    }

    /// Byte offset of the first row of block table `table`.
    pub fn table(&self, table: usize) -> usize {
        self.table_row(table, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{StepLayout, StepLimits};

    #[test]
    fn sections_do_not_overlap() {
        let limits = StepLimits { max_tokens: 5, max_outputs: 3, max_slots: 2, max_blocks: 7, n_tables: 2 };
        let layout = StepLayout::new(limits).unwrap();
        assert_eq!((layout.tokens, layout.positions, layout.slots), (16, 48, 80));
        assert_eq!((layout.outputs, layout.sampling, layout.tables), (112, 128, 224));
        assert_eq!(layout.table_row(1, 1), 224 + 3 * 56);
        assert_eq!(layout.size_bytes, 224 + 224);
        assert_eq!((layout.results(9), layout.ring_bytes()), (24, 8 * 24));
    }

    #[test]
    fn absurd_limits_are_refused() {
        let limits = StepLimits { max_tokens: 1, max_outputs: 1, max_slots: usize::MAX, max_blocks: 9, n_tables: 1 };
        assert!(StepLayout::new(limits).is_err());
    }
}
