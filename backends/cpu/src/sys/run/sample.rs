//! The choice of a token, and the step that it leads to.
//!
//! Rows are read from the frame, the device's copy of the step, so that none sees what another has written.

use biga_hal::{SampleResult, StepHeader};

use super::{Share, bytes_mut, row_of};
use crate::executable::Value;

impl Share<'_> {
    /// Chooses the token that follows output row `row`.
    pub(super) fn sample(&self, x: Value, ring: usize, row: usize) {
        let (frame, layout, step) = (self.frame, self.program.needs.layout, self.program.step_address);
        // SAFETY: `row` is below the bucket's outputs, for which the value was checked; no call writes its input.
        let logits = unsafe { row_of(x, row) };
        let from = frame.outputs[row] as usize;
        let chosen = frame.sample_row(row).choose(logits, frame.positions[from]);
        let result = SampleResult { token: chosen.unwrap_or(SampleResult::NONE), number: frame.number };
        let put = |address: usize, bytes: &[u8]| {
            // SAFETY: compilation checked that step buffer and ring hold the whole layout, and rows are below its
            // limits; this worker alone took this row, and nobody reads the step buffer during a run.
            unsafe { bytes_mut(address, bytes.len()) }.copy_from_slice(bytes);
        };
        put(ring + layout.results(frame.number) + row * SampleResult::SIZE_BYTES, &result.to_bytes());
        let next = [
            (layout.tokens, chosen.unwrap_or(0)),
            (layout.positions, frame.positions[from].wrapping_add(1)),
            (layout.slots, frame.slots[from]),
            (layout.outputs, row as u32),
        ];
        for (section, word) in next {
            put(step + section + row * 4, &word.to_le_bytes());
        }
        if row == 0 {
            let n_outputs = frame.n_outputs as u32;
            let number = frame.number.wrapping_add(1);
            let header = StepHeader { n_tokens: n_outputs, n_sequences: frame.n_sequences, n_outputs, number };
            put(step, &header.to_bytes());
        }
    }
}
