//! The choice of tokens, in two launches: the best logit of each part of each row; then the best of those, or a
//! draw from the parts that hold what may be drawn. It goes to the results ring and into the step buffer.
//!
//! The second launch overwrites what rows of the step may still need, so the first keeps it in the record.

use biga_hal::{ByteRange, OpKind, Result, Segment, StepHeader, StepLayout};
use biga_shaders::Kernel;

use super::{
    Launch, Lowering,
    check::{range, value_range},
    push::Push,
};

/// The most parts of a row: `MOST` of `sample.comp`. All workgroups together fill a GPU.
const MAX_PARTS: usize = 256;

/// Logits of a part where the row has no more than the most parts hold.
const MIN_PART_LEN: usize = 64;

/// Words of a row's record before the keys of its parts: `RECORD_PARTS` of `sample.glsl`.
const RECORD_PARTS: usize = 4;

/// Logits of a part, a power of two, and parts of a row.
fn parts(vocab: usize) -> (usize, usize) {
    let len = vocab.div_ceil(MAX_PARTS).next_power_of_two().max(MIN_PART_LEN);
    (len, vocab.div_ceil(len))
}

fn record_words(vocab: usize) -> usize {
    RECORD_PARTS + 2 * parts(vocab).1
}

/// The scratch for the records of a segment's sampling, if it samples.
pub(super) fn scratch_bytes(segment: &Segment) -> u64 {
    let bytes = segment.ops.iter().map(|bound| match bound.op.kind {
        OpKind::Sample { vocab } => 4 * record_words(vocab) as u64 * segment.bucket.outputs as u64,
        _ => 0,
    });
    bytes.max().unwrap_or(0)
}

impl Lowering<'_> {
    pub(super) fn sample(&self, out: &mut Vec<Launch>, vocab: usize) -> Result<()> {
        let layout = &self.segment.step_layout;
        let rows = self.segment.bucket.outputs;
        let (part_len, n_parts) = parts(vocab);
        let records = ByteRange { address: self.scratch.first, size_bytes: 4 * (record_words(vocab) * rows) as u64 };
        let ring = self.bound.output.as_ref().ok_or_else(|| self.invalid("no results ring is bound"))?;
        let step = range(&self.segment.step);
        let lanes = self.tuning.reduction_lanes();

        let mut push = Push::default();
        push.address(self.input(0)).address(records.address).address(self.step());
        push.word(self.word("outputs", rows)?).word(self.word("tokens", self.segment.bucket.tokens)?);
        push.word(self.word("vocabulary", vocab)?).word(part_len.ilog2());
        push.word(self.word("record", record_words(vocab))?);
        push.word(self.word("position offset", layout.positions / 4)?);
        push.word(self.word("slot offset", layout.slots / 4)?);
        push.word(self.word("output offset", layout.outputs / 4)?);
        let grid = self.fits([self.word("parts", n_parts)?, self.word("outputs", rows)?, 1])?;
        let mut parts = self.launch(Kernel::SampleParts, lanes, &[], push, grid);
        parts.dispatch.reads = vec![value_range(&self.bound.inputs[0], rows, vocab), step];
        parts.dispatch.writes = vec![records];
        out.push(parts);

        let mut push = Push::default();
        push.address(self.input(0)).address(records.address).address(ring.device_address()).address(self.step());
        push.word(self.word("outputs", rows)?).word(self.word("vocabulary", vocab)?);
        push.word(self.word("parts", n_parts)?).word(part_len.ilog2());
        push.word(self.word("record", record_words(vocab))?);
        push.word(self.word("outputs", layout.limits.max_outputs)?).word(self.word("steps", StepLayout::RING)?);
        push.word(self.word("token offset", layout.tokens / 4)?);
        push.word(self.word("position offset", layout.positions / 4)?);
        push.word(self.word("slot offset", layout.slots / 4)?);
        push.word(self.word("output offset", layout.outputs / 4)?);
        push.word(self.word("sampling offset", layout.sampling / 4)?);
        let grid = self.fits([self.word("outputs", rows)?, 1, 1])?;
        let mut choice = self.launch(Kernel::Sample, lanes, &[], push, grid);
        choice.dispatch.reads = vec![value_range(&self.bound.inputs[0], rows, vocab), records, step];
        let section = |offset: usize, size_bytes: usize| ByteRange {
            address: step.address + offset as u64,
            size_bytes: size_bytes as u64,
        };
        choice.dispatch.writes = vec![section(0, StepHeader::SIZE_BYTES)];
        choice.dispatch.writes.extend(
            [layout.tokens, layout.positions, layout.slots, layout.outputs].map(|offset| section(offset, 4 * rows)),
        );
        choice.dispatch.writes.push(ByteRange { size_bytes: layout.ring_bytes() as u64, ..range(ring) });
        out.push(choice);
        Ok(())
    }
}
