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
    dequantise::store_row,
    executable::{Call, KvPlace, Program, Step, Value, Vector},
    frame::{Frame, StepSource},
    pool::{Job, Team},
    sys::kernel_set,
};

mod fast;
mod plain;
mod sample;

pub(crate) use fast::{attention_scratch_len, product_scratch_len, product_shared_len};

/// Up to so many rows a row-wise call is one worker's: sharing it would cost more than it saves.
const SOLO_ROWS: usize = 2;

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
        let kernels = kernel_set(self.kernels);
        let address = self.scratch.memory.address() + worker * self.scratch.worker_bytes;
        let mut before: Option<bool> = None;
        for step in &self.steps {
            let rows = match step.rows {
                Rows::Tokens => frame.n_tokens,
                Rows::Outputs => frame.n_outputs,
            };
            // Calls in a row that worker 0 does alone need no meeting between them.
            let solo = rows <= SOLO_ROWS && step.call.is_row_wise();
            if before.is_some_and(|before| !(before && solo)) && !team.meet() {
                return;
            }
            before = Some(solo);
            if solo && worker != 0 {
                continue;
            }
            // SAFETY: the scratch has one part for each worker, aligned for f32 and only ever seen as f32;
            // submissions to a device run one at a time.
            let scratch = unsafe { floats_mut(address, self.scratch.worker_bytes / 4) };
            let mut share = Share { program: self, frame: &frame, rows, step, scratch, team };
            let go_on = match kernels {
                Some(kernels) => share.run_fast(kernels),
                None => share.run_plain(),
            };
            if !go_on {
                return;
            }
        }
    }
}

impl Call {
    /// True for calls in which each row is computed from the same row of the inputs, and for the append.
    fn is_row_wise(&self) -> bool {
        !matches!(self, Call::Product { .. } | Call::Attention { .. })
    }
}

/// One worker's part in one call.
struct Share<'a> {
    program: &'a Program,
    frame: &'a Frame,
    rows: usize,
    step: &'a Step,
    scratch: &'a mut [f32],
    team: &'a Team,
}

/// Pieces of `total` units, `size` at a time, until no worker finds more.
fn pieces(next: &AtomicUsize, total: usize, size: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    std::iter::from_fn(move || {
        let start = next.fetch_add(size, Ordering::Relaxed);
        (start < total).then(|| start..(start + size).min(total))
    })
}

impl Share<'_> {
    /// k and v of every row into the cache.
    fn append_all(&self, x: Value, heads: Heads, kv: &KvPlace) {
        // Shared by head: two rows of a step that name the same position stay with one worker.
        for head in pieces(&self.step.next, heads.n_kv_heads, 1).flatten() {
            (0..self.rows).for_each(|row| self.append(x, row, head, heads, kv));
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
