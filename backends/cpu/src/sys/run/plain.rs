//! Calls on the plain reference.

use biga_hal::Heads;

use super::{Share, block_of, bytes, copied, floats_mut, pieces, row_of, row_of_mut, vector};
use crate::{
    dequantise::dequantise_row,
    executable::{Call, KvPlace, Part, Value},
    reference::{self, AttentionShape},
};

impl Share<'_> {
    /// Runs the call on the reference. Always goes on.
    pub(super) fn run_plain(&mut self) -> bool {
        match &self.step.call {
            Call::Product { x, parts, softcap, y } => {
                let total = parts.iter().map(|part| part.weight.rows).sum();
                for piece in pieces(&self.step.next, total, 16) {
                    for part in parts {
                        let low = piece.start.max(part.column);
                        let high = piece.end.min(part.column + part.weight.rows);
                        (low..high).for_each(|column| self.product_column(*x, part, *softcap, *y, column));
                    }
                }
            }
            Call::KvAppend { x, heads, kv } => self.append_all(*x, *heads, kv),
            Call::Attention { x, shape, kv, y } => {
                let n_heads = shape.heads.n_heads;
                for unit in pieces(&self.step.next, self.rows * n_heads, 1).flatten() {
                    self.attention(*x, shape, kv, *y, unit / n_heads, unit % n_heads);
                }
            }
            call => {
                for row in pieces(&self.step.next, self.rows, 1).flatten() {
                    self.one_row(call, row);
                }
            }
        }
        true
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
    pub(super) fn one_row(&self, call: &Call, row: usize) {
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
            Call::Sample { x, ring } => self.sample(*x, *ring, row),
            // These are shared otherwise, in `run`.
            Call::Product { .. } | Call::KvAppend { .. } | Call::Attention { .. } => {}
        }
    }
}
