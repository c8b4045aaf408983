//! One step as the kernels see it: copied out of the step buffer and checked before anything runs.
//!
//! The step buffer is written by the engine, but kernels index memory with what stands there, so nothing
//! is taken on trust: a token id beyond the vocabulary, a position beyond the block table or a block
//! address outside every buffer is a typed error, and no kernel has started when it is found.

use biga_hal::{Bucket, Error, Result, SampleRow, StepHeader, StepLayout};

use crate::{DEVICE, buffer::Ranges};

const SAMPLE_WORDS: usize = SampleRow::SIZE_BYTES / 4;

/// How a program uses one block table: what has to be valid in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableUse {
    /// Index of the table in the step buffer.
    pub(crate) table: usize,
    /// Positions in a block.
    pub(crate) block_len: usize,
    /// Bytes of a block.
    pub(crate) block_bytes: usize,
    /// Positions that are read, the token's own among them; `None` for all.
    pub(crate) window: Option<usize>,
}

/// What a program needs of a step.
#[derive(Clone, Debug)]
pub(crate) struct StepNeeds {
    /// The largest step.
    pub(crate) bucket: Bucket,
    /// Layout of the step buffer.
    pub(crate) layout: StepLayout,
    /// Rows of the smallest embedding table, if the program embeds.
    pub(crate) vocab: Option<usize>,
    /// Whether output rows are read.
    pub(crate) outputs: bool,
    /// Whether tokens are chosen.
    pub(crate) samples: bool,
    /// Block tables in use.
    pub(crate) tables: Vec<TableUse>,
}

/// The copied and checked step. One per device, large enough for every compiled program.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// Token rows.
    pub(crate) n_tokens: usize,
    /// Rows that want logits.
    pub(crate) n_outputs: usize,
    /// Distinct sequences.
    pub(crate) n_sequences: u32,
    /// The step's number.
    pub(crate) number: u32,
    /// `[n_tokens]`
    pub(crate) tokens: Vec<u32>,
    /// `[n_tokens]`
    pub(crate) positions: Vec<u32>,
    /// `[n_tokens]`
    pub(crate) slots: Vec<u32>,
    /// `[n_outputs]`
    pub(crate) outputs: Vec<u32>,
    /// `[n_outputs, 8]`, if the program samples.
    sampling: Vec<u32>,
    /// Block addresses, `[table use, slot, block]`; only entries that this step reads are current.
    pub(crate) blocks: Vec<usize>,
    /// First and last block that this step reads of each slot.
    spans: Vec<Option<(usize, usize)>>,
    /// `max_slots`, `max_blocks` of the program in hand.
    table_shape: (usize, usize),
}

/// Reads a range of the step buffer: offset and destination.
pub(crate) trait StepSource {
    /// Fills `words` from the little-endian u32 at byte `offset`.
    fn words(&self, offset: usize, words: &mut [u32]);
    /// Fills `addresses` from the little-endian u64 at byte `offset`; an address that is no `usize`
    /// reads as `usize::MAX`.
    fn addresses(&self, offset: usize, addresses: &mut [usize]);
}

impl Frame {
    /// Makes room for a program's steps. Set-up only.
    pub(crate) fn grow(&mut self, needs: &StepNeeds) {
        let limits = needs.layout.limits;
        let grow = |words: &mut Vec<u32>, len: usize| words.resize(words.len().max(len), 0);
        grow(&mut self.tokens, needs.bucket.tokens);
        grow(&mut self.positions, needs.bucket.tokens);
        grow(&mut self.slots, needs.bucket.tokens);
        grow(&mut self.outputs, needs.bucket.outputs);
        grow(&mut self.sampling, if needs.samples { SAMPLE_WORDS * needs.bucket.outputs } else { 0 });
        if !needs.tables.is_empty() {
            let entries = needs.tables.len() * limits.max_slots * limits.max_blocks;
            if self.blocks.len() < entries {
                // A fresh zeroed vector costs no pages until it is used; growing the old one would.
                self.blocks = vec![0; entries];
            }
            self.spans.resize(self.spans.len().max(limits.max_slots), None);
        }
    }

    /// Address of block `block` of the sequence in `slot`, for table use `table_use`.
    pub(crate) fn block(&self, table_use: usize, slot: usize, block: usize) -> usize {
        let (max_slots, max_blocks) = self.table_shape;
        self.blocks[(table_use * max_slots + slot) * max_blocks + block]
    }

    /// How the token of an output row is chosen; only in a program that samples.
    pub(crate) fn sample_row(&self, row: usize) -> SampleRow {
        let words = self.sampling.as_chunks::<SAMPLE_WORDS>().0.get(row);
        words.map_or(SampleRow::BEST, |words| SampleRow::from_words(*words))
    }

    /// Copies and checks a step.
    ///
    /// # Errors
    /// [`Error::InvalidStep`] with the value and the bound.
    pub(crate) fn load(&mut self, source: &impl StepSource, needs: &StepNeeds, ranges: &Ranges) -> Result<()> {
        let mut header = [0; StepHeader::SIZE_BYTES / 4];
        source.words(0, &mut header);
        let count = |what, value: u32, max: usize| check(what, 0, value as usize, max.saturating_add(1));
        self.n_tokens = count("token count", header[0], needs.bucket.tokens)?;
        count("sequence count", header[1], needs.bucket.sequences)?;
        self.n_outputs = count("output count", header[2], needs.bucket.outputs)?;
        (self.n_sequences, self.number) = (header[1], header[3]);
        source.words(needs.layout.tokens, &mut self.tokens[..self.n_tokens]);
        source.words(needs.layout.positions, &mut self.positions[..self.n_tokens]);
        source.words(needs.layout.slots, &mut self.slots[..self.n_tokens]);
        source.words(needs.layout.outputs, &mut self.outputs[..self.n_outputs]);
        if needs.samples {
            source.words(needs.layout.sampling, &mut self.sampling[..SAMPLE_WORDS * self.n_outputs]);
        }
        if let Some(vocab) = needs.vocab {
            check_all("token id", &self.tokens[..self.n_tokens], vocab)?;
        }
        if needs.outputs {
            check_all("output row", &self.outputs[..self.n_outputs], self.n_tokens)?;
        }
        if needs.tables.is_empty() {
            return Ok(());
        }
        let limits = needs.layout.limits;
        self.table_shape = (limits.max_slots, limits.max_blocks);
        check_all("slot", &self.slots[..self.n_tokens], limits.max_slots)?;
        for (index, table) in needs.tables.iter().enumerate() {
            self.load_table(index, table, source, needs, ranges)?;
        }
        Ok(())
    }

    fn load_table(
        &mut self,
        index: usize,
        table: &TableUse,
        source: &impl StepSource,
        needs: &StepNeeds,
        ranges: &Ranges,
    ) -> Result<()> {
        let (max_slots, max_blocks) = self.table_shape;
        self.spans[..max_slots].fill(None);
        for row in 0..self.n_tokens {
            let position = self.positions[row] as usize;
            let last = check("position", row, position, max_blocks.saturating_mul(table.block_len))? / table.block_len;
            let first = crate::reference::first_seen(position, table.window) / table.block_len;
            let span = &mut self.spans[self.slots[row] as usize];
            *span = Some(span.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
        }
        for slot in 0..max_slots {
            let Some((first, last)) = self.spans[slot] else { continue };
            let start = (index * max_slots + slot) * max_blocks;
            let entries = &mut self.blocks[start + first..=start + last];
            source.addresses(needs.layout.table_row(table.table, slot) + first * 8, entries);
            if let Some(at) = entries.iter().position(|&a| !ranges.contains_writable(a, table.block_bytes)) {
                let (value, bound) = (entries[at] as u64, table.block_bytes as u64);
                return Err(Error::InvalidStep {
                    device: DEVICE,
                    what: "block address",
                    row: first + at,
                    value,
                    bound,
                });
            }
        }
        Ok(())
    }
}

/// Checks one value of the step.
fn check(what: &'static str, row: usize, value: usize, bound: usize) -> Result<usize> {
    if value < bound {
        Ok(value)
    } else {
        Err(Error::InvalidStep { device: DEVICE, what, row, value: value as u64, bound: bound as u64 })
    }
}

fn check_all(what: &'static str, values: &[u32], bound: usize) -> Result<()> {
    values.iter().enumerate().try_for_each(|(row, &value)| check(what, row, value as usize, bound).map(drop))
}
