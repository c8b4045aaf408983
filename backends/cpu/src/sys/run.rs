//! Runs a program on the team: turns the addresses of each call into slices and shares the work out.
//!
//! Work is taken in small pieces from a counter, not dealt out in advance, because a core may be busy
//! with something else. See `sys.rs` for why this is sound.

use std::{
    ops::Range,
    sync::{
        PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use biga_hal::{Heads, Rows};

use crate::{
    dequantise::{dequantise_row, store_row},
    executable::{Call, KvPlace, Part, Program, Step, Value, Vector},
    frame::{Frame, StepSource},
    pool::{Job, Team},
    reference::{self, AttentionShape},
};

/// The step buffer of a program.
pub(crate) struct StepBuffer<'a>(pub(crate) &'a Program);

impl StepBuffer<'_> {
    fn bytes(&self, offset: usize, count: usize) -> &[u8] {
        assert!(offset.checked_add(count).is_some_and(|end| end <= self.0.needs.layout.size_bytes));
        // SAFETY: compilation checked that the step buffer holds the whole layout, the program holds the
        // buffer, and the host does not write it during a submission.
        unsafe { bytes(self.0.step_address + offset, count) }
    }
}

impl StepSource for StepBuffer<'_> {
    fn words(&self, offset: usize, words: &mut [u32]) {
        let stored = self.bytes(offset, words.len() * 4).as_chunks::<4>().0;
        for (word, bytes) in words.iter_mut().zip(stored) {
            *word = u32::from_le_bytes(*bytes);
        }
    }

    fn addresses(&self, offset: usize, addresses: &mut [usize]) {
        let stored = self.bytes(offset, addresses.len() * 8).as_chunks::<8>().0;
        for (address, bytes) in addresses.iter_mut().zip(stored) {
            *address = usize::try_from(u64::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
        }
    }
}

impl Job for Program {
    fn run(&self, worker: usize, team: &Team) {
        let frame = self.frame.read().unwrap_or_else(PoisonError::into_inner);
        let scratch_bytes = self.scratch.worker_bytes;
        let scratch = self.scratch.memory.address() + worker * scratch_bytes;
        for step in &self.steps {
            let rows = match step.rows {
                Rows::Tokens => frame.n_tokens,
                Rows::Outputs => frame.n_outputs,
            };
            // SAFETY: the scratch has one part for each worker, aligned for f32 and only ever seen as f32;
            // submissions to a device run one at a time.
            let scratch = unsafe { floats_mut(scratch, scratch_bytes / 4) };
            Share { frame: &frame, rows, next: &step.next, scratch }.run(step);
            if !team.meet() {
                return;
            }
        }
    }
}

/// One worker's part in one call.
struct Share<'a> {
    frame: &'a Frame,
    rows: usize,
    next: &'a AtomicUsize,
    scratch: &'a mut [f32],
}

/// Pieces of `total` units, `size` at a time, until no worker finds more.
fn pieces(next: &AtomicUsize, total: usize, size: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    std::iter::from_fn(move || {
        let start = next.fetch_add(size, Ordering::Relaxed);
        (start < total).then(|| start..(start + size).min(total))
    })
}

impl Share<'_> {
    fn run(mut self, step: &Step) {
        match &step.call {
            Call::Product { x, parts, softcap, y } => {
                let total = parts.iter().map(|part| part.weight.rows).sum();
                for piece in pieces(self.next, total, 16) {
                    for part in parts {
                        let low = piece.start.max(part.column);
                        let high = piece.end.min(part.column + part.weight.rows);
                        (low..high).for_each(|column| self.product_column(*x, part, *softcap, *y, column));
                    }
                }
            }
            Call::KvAppend { x, heads, kv } => {
                // Shared by head: two rows of a step that name the same position stay with one worker.
                for head in pieces(self.next, heads.n_kv_heads, 1).flatten() {
                    (0..self.rows).for_each(|row| self.append(*x, row, head, *heads, kv));
                }
            }
            Call::Attention { x, shape, kv, y } => {
                let n_heads = shape.heads.n_heads;
                for unit in pieces(self.next, self.rows * n_heads, 1).flatten() {
                    self.attention(*x, shape, kv, *y, unit / n_heads, unit % n_heads);
                }
            }
            call => {
                for row in pieces(self.next, self.rows, 1).flatten() {
                    self.one_row(call, row);
                }
            }
        }
    }

    /// One output column of every row.
    fn product_column(&mut self, x: Value, part: &Part, softcap: Option<f32>, y: Value, column: usize) {
        let (weight, weight_row) = (part.weight, column - part.column);
        // SAFETY: the row lies inside the weight, which compilation checked against its buffer.
        let stored = unsafe { bytes(weight.address + weight_row * weight.row_bytes, weight.row_bytes) };
        let expanded = &mut self.scratch[..weight.columns];
        dequantise_row(weight.dtype, stored, expanded);
        // SAFETY: biases have as many elements as their weight has rows.
        let added = part.bias.map_or(0.0, |bias| reference::element(unsafe { vector(bias) }, weight_row));
        for row in 0..self.rows {
            // SAFETY: `row` is below the bucket's rows, for which the value was checked; no call writes its input.
            let sum = reference::dot(expanded, unsafe { row_of(x, row) });
            // SAFETY: this worker alone took this column.
            let y = unsafe { floats_mut(y.address + (row * y.width + column) * 4, 1) };
            y[0] = reference::soft_cap(sum + added, softcap);
        }
    }

    /// k and v of one head of one row into the cache.
    fn append(&self, x: Value, row: usize, head: usize, heads: Heads, kv: &KvPlace) {
        let (block, place) = block_of(self.frame, kv, row, self.frame.positions[row] as usize);
        // SAFETY: as in `product_column`.
        let x = unsafe { row_of(x, row) };
        let at = (head * kv.block_len + place) * kv.row_bytes;
        for (offset, start) in [(kv.k_offset, heads.q_width()), (kv.v_offset, heads.q_width() + heads.kv_width())] {
            let start = start + head * heads.head_dim;
            // SAFETY: the frame checked that the whole block lies in a live, writable buffer, and compilation
            // that keys and values lie inside the block; this worker alone took this head.
            let stored = unsafe { bytes_mut(block + offset + at, kv.row_bytes) };
            store_row(kv.dtype, &x[start..start + heads.head_dim], stored);
        }
    }

    /// One query head of one row.
    fn attention(&mut self, x: Value, shape: &AttentionShape, kv: &KvPlace, y: Value, row: usize, head: usize) {
        let Heads { n_heads, n_kv_heads, head_dim } = shape.heads;
        let kv_head = head / (n_heads / n_kv_heads);
        let last = self.frame.positions[row] as usize;
        let first = reference::first_seen(last, shape.window);
        let frame = self.frame;
        let stored = |offset: usize, position: usize| {
            let (block, place) = block_of(frame, kv, row, position);
            // SAFETY: the frame checked the blocks of every position from `first` to `last`; no worker writes
            // the cache during this call.
            unsafe { bytes(block + offset + (kv_head * kv.block_len + place) * kv.row_bytes, kv.row_bytes) }
        };
        // SAFETY: as in `product_column`.
        let q = &unsafe { row_of(x, row) }[head * head_dim..][..head_dim];
        // SAFETY: this worker alone took this row and head.
        let y = unsafe { floats_mut(y.address + (row * y.width + head * head_dim) * 4, head_dim) };
        let (scores, expanded) = self.scratch.split_at_mut(last - first + 1);
        let (key, value) = (|p| stored(kv.k_offset, p), |p| stored(kv.v_offset, p));
        reference::attention(shape, q, first..=last, key, value, scores, &mut expanded[..head_dim], y);
    }

    /// A row of one of the ops that work row by row.
    fn one_row(&self, call: &Call, row: usize) {
        // SAFETY (all of this function): this worker alone took this row, rows are below those for which the
        // values were checked, and an output shares memory with an input only if it is the very same value,
        // of which then one reference exists at a time.
        match call {
            Call::Embed { table, scale, y } => {
                let token = self.frame.tokens[row] as usize;
                // SAFETY: above; the frame checked the token id against the table's rows.
                let stored = unsafe { bytes(table.address + token * table.row_bytes, table.row_bytes) };
                // SAFETY: above.
                let y = unsafe { row_of_mut(*y, row) };
                dequantise_row(table.dtype, stored, y);
                y.iter_mut().for_each(|y| *y *= scale);
            }
            Call::RmsNorm { x, weight, eps, offset, y } => {
                // SAFETY: above.
                let (y, weight) = unsafe { (copied(*x, *y, row), vector(*weight)) };
                reference::rms_norm(y, weight, *eps, *offset);
            }
            Call::QkNorm { x, q, k, heads, eps, offset, y } => {
                // SAFETY: above.
                let (y, q, k) = unsafe { (copied(*x, *y, row), vector(*q), vector(*k)) };
                let (q_part, rest) = y.split_at_mut(heads.q_width());
                reference::head_norm(q_part, heads.head_dim, q, *eps, *offset);
                reference::head_norm(&mut rest[..heads.kv_width()], heads.head_dim, k, *eps, *offset);
            }
            Call::Rope { x, heads, style, inv_freqs, y } => {
                // SAFETY: above.
                let y = unsafe { copied(*x, *y, row) };
                for head in y[..heads.q_width() + heads.kv_width()].chunks_exact_mut(heads.head_dim) {
                    reference::rope(head, self.frame.positions[row], *style, inv_freqs);
                }
            }
            Call::Residual { a, b, y } => {
                // SAFETY: above; `b` never shares memory with the output.
                let (y, b) = unsafe { (copied(*a, *y, row), row_of(*b, row)) };
                y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
            }
            Call::Activate { x, ff, activation, y } => {
                // SAFETY: above.
                let (x, y) = unsafe { (row_of(*x, row), row_of_mut(*y, row)) };
                let (gate, up) = x.split_at(*ff);
                for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                    *y = reference::activate(*activation, *gate) * up;
                }
            }
            Call::Select { x, y } => {
                // SAFETY: above; the frame checked that the output row is one of the step's tokens.
                let (x, y) = unsafe { (row_of(*x, self.frame.outputs[row] as usize), row_of_mut(*y, row)) };
                y.copy_from_slice(x);
            }
            // These are shared otherwise, in `run`.
            Call::Product { .. } | Call::KvAppend { .. } | Call::Attention { .. } => {}
        }
    }
}

/// The block of `position` of the sequence of `row`, and the place of the position in it.
fn block_of(frame: &Frame, kv: &KvPlace, row: usize, position: usize) -> (usize, usize) {
    let slot = frame.slots[row] as usize;
    (frame.block(kv.table_use, slot, position / kv.block_len), position % kv.block_len)
}

/// # Safety
/// The range must be live, and not written while the slice is.
unsafe fn bytes<'a>(address: usize, count: usize) -> &'a [u8] {
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address), count) }
}

/// # Safety
/// The range must be live and writable, and not touched otherwise while the slice lives.
unsafe fn bytes_mut<'a>(address: usize, count: usize) -> &'a mut [u8] {
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(address), count) }
}

/// # Safety
/// As [`bytes_mut`], and the address must be a multiple of 4.
unsafe fn floats_mut<'a>(address: usize, count: usize) -> &'a mut [f32] {
    // SAFETY: by this function's contract; every bit pattern is an f32.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(address), count) }
}

/// # Safety
/// `row` must be one of the value's rows, and not written while the slice lives.
unsafe fn row_of<'a>(value: Value, row: usize) -> &'a [f32] {
    let address = value.address + row * value.width * 4;
    // SAFETY: by this function's contract; values are aligned for f32.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address), value.width) }
}

/// # Safety
/// `row` must be one of the value's rows, and not touched otherwise while the slice lives.
unsafe fn row_of_mut<'a>(value: Value, row: usize) -> &'a mut [f32] {
    // SAFETY: by this function's contract.
    unsafe { floats_mut(value.address + row * value.width * 4, value.width) }
}

/// Row `row` of `y` with the content of that of `x`, which may be the same memory.
///
/// # Safety
/// As [`row_of`] for `x`, [`row_of_mut`] for `y`; the two have the same width and overlap fully or not at all.
unsafe fn copied<'a>(x: Value, y: Value, row: usize) -> &'a mut [f32] {
    if x.address != y.address {
        // SAFETY: by this function's contract.
        unsafe { row_of_mut(y, row) }.copy_from_slice(unsafe { row_of(x, row) });
    }
    // SAFETY: by this function's contract.
    unsafe { row_of_mut(y, row) }
}

/// # Safety
/// The vector must be live, and not written while the slice is.
unsafe fn vector<'a>(vector: Vector) -> &'a [[u8; 4]] {
    // SAFETY: by this function's contract; bytes have no alignment.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(vector.address), vector.len) }
}
