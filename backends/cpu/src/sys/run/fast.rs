//! Calls on the chosen kernel set: how products and attention are cut up.

use biga_hal::{DType, Heads};

use super::{Share, block_of, bytes, copied, floats_mut, pieces, row_of, row_of_mut, vector};
use crate::{
    executable::{Call, KvPlace, Part, Value},
    kernels::{
        attention::{MAX_QUERIES, Part as KvPart, Unit, scratch_len},
        layout::Layout,
    },
    reference::{self, AttentionShape},
    sys::set::{KernelSet, Rows, Sums, TILE},
};

/// Up to so many rows each worker quantises the activations for itself; more are shared out, at the price
/// of one more meeting.
const OWN_ROWS: usize = 4;
/// Weight rows unpacked at a time.
const PANEL: usize = 8;
/// Tokens that a panel meets before the next one is unpacked: their activations stay in the second-level cache.
const TOKEN_BLOCK: usize = 128;

/// f32 of one worker's scratch for a product of so many columns.
pub(crate) fn product_scratch_len(columns: usize) -> usize {
    let row_len = Layout::new(columns).row_len();
    OWN_ROWS * row_len + PANEL * row_len.max(columns.next_multiple_of(16))
}

/// f32 of the shared scratch for a product of so many columns and rows.
pub(crate) fn product_shared_len(columns: usize, rows: usize) -> usize {
    Layout::new(columns).row_len().saturating_mul(rows)
}

/// f32 of one worker's scratch for attention.
pub(crate) fn attention_scratch_len(head_dim: usize) -> usize {
    2 * MAX_QUERIES * head_dim.next_multiple_of(16) + scratch_len(head_dim)
}

/// A product as far as it is the same for all its pieces.
struct Product {
    set: &'static KernelSet,
    x: Value,
    y: Value,
    softcap: Option<f32>,
    layout: Layout,
    /// Quantised activations.
    activations: *const f32,
}

impl Share<'_> {
    /// Runs the call. False if another worker failed.
    pub(super) fn run_fast(&mut self, set: &'static KernelSet) -> bool {
        match &self.step.call {
            Call::Product { x, parts, softcap, y } => return self.product_fast(set, *x, parts, *softcap, *y),
            Call::KvAppend { x, heads, kv } => self.append_all(*x, *heads, kv),
            Call::Attention { x, shape, kv, y } => self.attention_fast(set, *x, shape, kv, *y),
            call => {
                for row in pieces(&self.step.next, self.rows, 4).flatten() {
                    self.one_row_fast(set, call, row);
                }
            }
        }
        true
    }

    fn product_fast(
        &mut self,
        set: &'static KernelSet,
        x: Value,
        parts: &[Part],
        softcap: Option<f32>,
        y: Value,
    ) -> bool {
        let layout = Layout::new(x.width);
        let mut product = Product { set, x, y, softcap, layout, activations: std::ptr::null() };
        let (own, panel) = std::mem::take(&mut self.scratch).split_at_mut(OWN_ROWS * layout.row_len());
        if parts.iter().any(|part| part.weight.dtype.is_quantised()) {
            if self.rows <= OWN_ROWS {
                for (row, out) in own.chunks_exact_mut(layout.row_len()).enumerate().take(self.rows) {
                    // SAFETY: `row` is one of the value's rows, which nothing writes; the set runs here.
                    unsafe { (set.quantise)(row_of(x, row), &layout, out) };
                }
                product.activations = own.as_ptr();
            } else {
                product.activations = self.quantise_together(&product);
                if !self.team.meet() {
                    return false;
                }
            }
        }
        let total = parts.iter().map(|part| part.weight.rows).sum::<usize>();
        let share = total / (self.team.size * if self.rows <= OWN_ROWS { 4 } else { 12 });
        let size = share.next_multiple_of(PANEL).clamp(PANEL, 512);
        for piece in pieces(&self.step.next, total, size) {
            for part in parts {
                let low = piece.start.max(part.column);
                let high = piece.end.min(part.column + part.weight.rows);
                for first in (0..self.rows).step_by(TOKEN_BLOCK) {
                    let tokens = (first, TOKEN_BLOCK.min(self.rows - first));
                    for column in (low..high).step_by(PANEL) {
                        let columns = (column, PANEL.min(high - column));
                        // SAFETY: columns and tokens are inside the product, and this worker took them.
                        unsafe { product.panel(part, columns, tokens, panel) };
                    }
                }
            }
        }
        true
    }

    /// Quantises all rows into the shared scratch, together with the other workers.
    fn quantise_together(&self, product: &Product) -> *const f32 {
        let row_len = product.layout.row_len();
        let shared = self.program.scratch.shared_address();
        for row in pieces(&self.step.prepared, self.rows, 4).flatten() {
            // SAFETY: compilation made the shared scratch large enough for the bucket's rows, and this worker
            // alone took this row; the input is as in `product_fast`.
            unsafe {
                let out = floats_mut(shared + row * row_len * 4, row_len);
                (product.set.quantise)(row_of(product.x, row), &product.layout, out);
            }
        }
        std::ptr::with_exposed_provenance(shared)
    }

    fn attention_fast(&mut self, set: &'static KernelSet, x: Value, shape: &AttentionShape, kv: &KvPlace, y: Value) {
        let group = shape.heads.n_heads / shape.heads.n_kv_heads;
        let (heads_at_once, rows_at_once) = (group.min(MAX_QUERIES), (MAX_QUERIES / group).clamp(1, 8));
        let n_tiles = self.rows.div_ceil(rows_at_once);
        for unit in pieces(&self.step.next, n_tiles * shape.heads.n_kv_heads, 1).flatten() {
            let (tile, kv_head) = (unit / shape.heads.n_kv_heads, unit % shape.heads.n_kv_heads);
            let mut row = tile * rows_at_once;
            let end = (row + rows_at_once).min(self.rows);
            while row < end {
                // Rows of one sequence in a row share a pass over its cache.
                let slot = self.frame.slots[row];
                let count = self.frame.slots[row..end].iter().take_while(|&&other| other == slot).count();
                for head in (0..group).step_by(heads_at_once) {
                    let heads = (kv_head * group + head, heads_at_once.min(group - head));
                    self.attend(set, x, shape, kv, y, (row, count), heads);
                }
                row += count;
            }
        }
    }

    /// Attention of some rows of one sequence, for some heads of one group.
    #[expect(clippy::too_many_arguments, reason = "the op's operands and the two ranges of the unit")]
    fn attend(
        &mut self,
        set: &'static KernelSet,
        x: Value,
        shape: &AttentionShape,
        kv: &KvPlace,
        y: Value,
        rows: (usize, usize),
        heads: (usize, usize),
    ) {
        let Heads { n_heads, n_kv_heads, head_dim } = shape.heads;
        let kv_head = heads.0 / (n_heads / n_kv_heads);
        let n_queries = (rows.1 * heads.1).next_multiple_of(4);
        let (queries, scratch) = self.scratch.split_at_mut(n_queries * head_dim);
        let mut bounds = [(1, 0); MAX_QUERIES];
        queries.fill(0.0);
        for i in 0..rows.1 {
            // SAFETY: the row is one of the value's rows, which nothing writes.
            let q = unsafe { row_of(x, rows.0 + i) };
            let at = heads.1 * head_dim;
            queries[i * at..(i + 1) * at].copy_from_slice(&q[heads.0 * head_dim..][..at]);
            let last = self.frame.positions[rows.0 + i] as usize;
            bounds[i * heads.1..(i + 1) * heads.1].fill((reference::first_seen(last, shape.window), last));
        }
        let frame = self.frame;
        let stored = |part: KvPart, position: usize, count: usize| {
            let (block, place) = block_of(frame, kv, rows.0, position);
            let offset = match part {
                KvPart::Keys => kv.k_offset,
                KvPart::Values => kv.v_offset,
            };
            let at = block + offset + (kv_head * kv.block_len + place) * kv.row_bytes;
            // SAFETY: the frame checked the blocks of every position that a query sees; `count` positions lie in
            // this block; no worker writes the cache during this call.
            unsafe { bytes(at, count * kv.row_bytes) }
        };
        let unit = Unit { shape, bounds: &bounds[..n_queries], block_len: kv.block_len, stored: &stored };
        // SAFETY: the set runs here.
        unsafe { (set.attention)(&unit, queries, scratch) };
        for i in 0..rows.1 {
            let at = heads.1 * head_dim;
            let address = y.address + ((rows.0 + i) * y.width + heads.0 * head_dim) * 4;
            // SAFETY: this worker alone took these rows and heads.
            unsafe { floats_mut(address, at) }.copy_from_slice(&queries[i * at..(i + 1) * at]);
        }
    }

    /// A row of one of the ops that work row by row.
    fn one_row_fast(&mut self, set: &'static KernelSet, call: &Call, row: usize) {
        // SAFETY (all of this function): as in `one_row`; the set runs here.
        match call {
            Call::RmsNorm { x, weight, eps, offset, y } => {
                // SAFETY: above.
                unsafe { (set.rms_norm)(copied(*x, *y, row), vector(*weight), *eps, *offset) };
            }
            Call::QkNorm { x, q, k, heads, eps, offset, y } => {
                // SAFETY: above.
                let (y, q, k) = unsafe { (copied(*x, *y, row), vector(*q), vector(*k)) };
                for (i, head) in y.chunks_exact_mut(heads.head_dim).enumerate().take(heads.n_heads + heads.n_kv_heads) {
                    let weight = if i < heads.n_heads { q } else { k };
                    // SAFETY: above.
                    unsafe { (set.rms_norm)(head, weight, *eps, *offset) };
                }
            }
            Call::Rope { x, heads, style, inv_freqs, y } => {
                // SAFETY: above.
                let y = unsafe { copied(*x, *y, row) };
                let angles = &mut self.scratch[..2 * inv_freqs.len()];
                let (cos, sin) = angles.split_at_mut(inv_freqs.len());
                let position = self.frame.positions[row] as f32;
                for ((cos, sin), inv_freq) in cos.iter_mut().zip(sin).zip(inv_freqs.iter()) {
                    (*sin, *cos) = (position * inv_freq).sin_cos();
                }
                let rotated = &mut y[..heads.q_width() + heads.kv_width()];
                // SAFETY: above.
                unsafe { (set.rope)(rotated, heads.head_dim, *style, angles) };
            }
            Call::Activate { x, ff, activation, y } => {
                // SAFETY: above.
                let (x, y) = unsafe { (row_of(*x, row), row_of_mut(*y, row)) };
                let (gate, up) = x.split_at(*ff);
                // SAFETY: above.
                unsafe { (set.activate)(*activation, gate, up, y) };
            }
            // Copies, sums and table rows: the memory is what takes the time.
            _ => self.one_row(call, row),
        }
    }
}

impl Product {
    /// Columns `columns.0 ..` of the output (`columns.1` of them, of one part) for some tokens.
    ///
    /// # Safety
    /// - The columns lie in the part, the tokens in the value, and no other worker writes them now.
    unsafe fn panel(&self, part: &Part, columns: (usize, usize), tokens: (usize, usize), panel: &mut [f32]) {
        let weight = &part.weight;
        let first_row = columns.0 - part.column;
        let quantised = weight.dtype.is_quantised();
        let stride = if quantised { self.layout.row_len() } else { weight.columns.next_multiple_of(16) };
        let mut rows = Rows { start: panel.as_ptr(), stride, count: columns.1 };
        if weight.dtype == DType::F32 {
            // Read where it lies.
            rows.start = std::ptr::with_exposed_provenance(weight.address + first_row * weight.row_bytes);
            rows.stride = weight.columns;
        } else {
            for (i, out) in panel.chunks_exact_mut(stride).enumerate().take(columns.1) {
                // SAFETY: the row lies inside the weight, which compilation checked against its buffer; the set
                // runs here.
                unsafe {
                    let stored = bytes(weight.address + (first_row + i) * weight.row_bytes, weight.row_bytes);
                    if quantised {
                        (self.set.unpack)(weight.dtype, stored, &self.layout, out);
                    } else {
                        (self.set.expand)(weight.dtype, stored, &mut out[..weight.columns]);
                    }
                }
            }
        }
        for token in (tokens.0..tokens.0 + tokens.1).step_by(TILE) {
            let n_tokens = TILE.min(tokens.0 + tokens.1 - token);
            for row in (0..columns.1).step_by(TILE) {
                let weights = Rows {
                    start: rows.start.wrapping_add(row * rows.stride),
                    count: TILE.min(columns.1 - row),
                    ..rows
                };
                // SAFETY: a panel has a multiple of four rows of scratch; rows beyond the part hold what an
                // earlier panel left, and their products are not stored.
                unsafe { self.tile(part, weights, (columns.0 + row, first_row + row), (token, n_tokens)) };
            }
        }
    }

    /// One tile: `at` is its first output column and weight row.
    ///
    /// # Safety
    /// - As [`Product::panel`]; `weights` are the unpacked or expanded rows.
    unsafe fn tile(&self, part: &Part, weights: Rows<f32>, at: (usize, usize), tokens: (usize, usize)) {
        let mut sums: Sums = [[0.0; TILE]; TILE];
        let dtype = part.weight.dtype;
        let stride = if dtype.is_quantised() { self.layout.row_len() } else { self.x.width };
        let start =
            if dtype.is_quantised() { self.activations } else { std::ptr::with_exposed_provenance(self.x.address) };
        let rows = Rows { start: start.wrapping_add(tokens.0 * stride), stride, count: tokens.1 };
        // SAFETY: by this function's contract; the set runs here.
        unsafe {
            if dtype.is_quantised() {
                (self.set.tile_i8)(weights, rows, &self.layout, dtype, &mut sums);
            } else {
                (self.set.tile_f32)(weights, rows, part.weight.columns, &mut sums);
            }
        }
        if let Some(bias) = part.bias {
            // SAFETY: biases have as many elements as their weight has rows.
            let bias = &unsafe { vector(bias) }[at.1..at.1 + weights.count];
            for sums in &mut sums[..tokens.1] {
                sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += f32::from_le_bytes(*bias));
            }
        }
        for (i, sums) in sums.iter().enumerate().take(tokens.1) {
            let address = self.y.address + ((tokens.0 + i) * self.y.width + at.0) * 4;
            // SAFETY: by this function's contract.
            let y = unsafe { floats_mut(address, weights.count) };
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = reference::soft_cap(*sum, self.softcap);
            }
        }
    }
}
