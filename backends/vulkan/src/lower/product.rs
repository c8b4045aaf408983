//! Products of the step's rows with weights: which kernel, and its tiles. Those by matrix instructions are
//! next door.
//!
//! On a GPU, quantised weights take x as quants of 8 bits. A launch before the products of an op writes
//! them to the device's scratch memory, which every op and every segment uses in turn.

use biga_hal::{BoundOp, BoundWeight, ByteRange, OpKind, Result, Segment};
use biga_shaders::Kernel;

use super::{Launch, Lowering, check::range, fuse, matrix, push::Push, sample};
use crate::tuning::{LanesCut, Tuning};
use crate::weight::{CHUNK, chunks, plane_offsets};

/// The most rows of x that the kernels for few take where lanes do not make matrices; beyond, decoding a weight once for
/// many rows wins.
pub(super) const MATVEC_TOKENS: usize = 4;

/// Bytes of weights up to which one row of x is multiplied in a chain. On an H200 65 MB gain by it; the head, at 296
/// MB and more, is 10 % slower.
const MOST_CHAINED: u64 = 80 << 20;

/// The same without chains, where nothing is loaded before the launch before has ended.
const MOST_ALONE: u64 = 8 << 20;

/// The most rows of x in one tile of the kernel for drivers on the CPU.
const ROWS_TOKENS: usize = 8;

/// A kernel with its tiles.
struct Choice {
    kernel: fn(biga_hal::DType) -> Kernel,
    lanes: u32,
    /// True if one workgroup takes every row of x.
    few: bool,
    /// Rows of x in a tile.
    tokens: u32,
    /// Rows of the weight that one workgroup computes.
    rows: u32,
}

/// Where launches keep what passes between them, from the scratch memory's first byte: counters, x of
/// a product as quants or halves, x of the product after it, partial results of attention and of products.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scratch {
    pub(super) counters: u64,
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) parts: u64,
    end: u64,
}

impl Scratch {
    /// For a segment whose scratch memory starts at `address`, a multiple of 16; `None` if it passes 64 bits.
    pub(super) fn at(address: u64, segment: &Segment, tuning: &Tuning) -> Option<Scratch> {
        let mut quants = 0;
        let mut parts = 0;
        for (index, bound) in segment.ops.iter().enumerate().filter(|_| !tuning.software) {
            let kind = &bound.op.kind;
            if let (OpKind::Attention { heads, .. }, Some(shape)) =
                (kind, fuse::AttentionShape::of(segment, tuning, index))
            {
                parts = parts.max(shape.parts(segment.bucket.tokens, heads.n_heads, heads.head_dim)? as u64);
            }
            parts = parts.max(matrix::sums(segment, bound, tuning) as u64);
            if let Some(bytes) = matrix::scratch_bytes(segment, bound, tuning) {
                quants = bytes.checked_next_multiple_of(16)?.max(quants);
            } else if !matches!(kind, OpKind::Embed { .. })
                && let Some(chunks) = fuse::x_chunks(segment, bound)
            {
                quants = chunks.checked_mul(QUANTS_BYTES + SCALES_BYTES)?.checked_next_multiple_of(16)?.max(quants);
            }
        }
        let any = if quants + parts > 0 { 4 * fuse::COUNTERS as u64 } else { 0 };
        let first = address.checked_add(any)?;
        let second = first.checked_add(quants)?;
        let parts_at = second.checked_add(quants)?;
        let end = parts_at.checked_add(parts.checked_mul(4)?.checked_next_multiple_of(16)?)?;
        // The choice of tokens comes when nothing else is kept.
        let end = first.checked_add(sample::scratch_bytes(segment))?.max(end);
        Some(Scratch { counters: address, first, second, parts: parts_at, end })
    }
}

/// The scratch that a segment needs; 0 if none. Its first bytes, the counters, are zero between launches.
pub(crate) fn scratch_bytes(segment: &Segment, tuning: &Tuning) -> u64 {
    Scratch::at(0, segment, tuning).map_or(u64::MAX, |scratch| scratch.end)
}

/// Bytes of a chunk's quants, and of its scale and sum.
const QUANTS_BYTES: u64 = CHUNK as u64;
const SCALES_BYTES: u64 = 8;

/// The columns of x, if a weight of the op is a quantised matrix.
fn quantised_columns(bound: &BoundOp) -> Option<usize> {
    let multiplied = !matches!(bound.op.kind, OpKind::Embed { .. });
    let weight = bound.weights.iter().find(|weight| multiplied && weight.dtype.is_quantised())?;
    Some(weight.columns)
}

/// Where x lies as quants.
#[derive(Clone, Copy)]
pub(super) struct QuantisedX {
    pub(super) quants: ByteRange,
    pub(super) scales: ByteRange,
}

impl QuantisedX {
    /// So many chunks, from an address on.
    pub(super) fn at(address: u64, chunks: u64) -> QuantisedX {
        let quants = ByteRange { address, size_bytes: chunks * QUANTS_BYTES };
        let scales = ByteRange { address: address + quants.size_bytes, size_bytes: chunks * SCALES_BYTES };
        QuantisedX { quants, scales }
    }
}

impl Lowering<'_> {
    /// One launch per weight; their outputs lie side by side in each row.
    pub(super) fn products(
        &self,
        out: &mut Vec<Launch>,
        widths: &[usize],
        bias: bool,
        softcap: Option<f32>,
    ) -> Result<()> {
        if self.matrix_products(out, widths, bias, softcap)? {
            return Ok(());
        }
        let whole: usize = widths.iter().sum();
        let columns = quantised_columns(self.bound).filter(|_| !self.tuning.software);
        let quantised = columns.map(|columns| self.quantised_x(out, columns)).transpose()?;
        if let Some(x) = quantised.filter(|_| fuse::multiplies_few(self.segment, self.tuning, self.bound)) {
            return self.few(out, widths.len(), bias, softcap, x);
        }
        let mut first = 0;
        for (i, &width) in widths.iter().enumerate() {
            let bias = if bias { Some(widths.len() + i) } else { None };
            out.push(self.product(i, bias, (first, whole), softcap, quantised)?);
            first += width;
        }
        Ok(())
    }

    /// Products of few rows with quantised weights: one launch for neighbours of one format.
    fn few(
        &self,
        out: &mut Vec<Launch>,
        n_weights: usize,
        bias: bool,
        softcap: Option<f32>,
        x: QuantisedX,
    ) -> Result<()> {
        let weights = &self.bound.weights[..n_weights];
        let whole: usize = weights.iter().map(|weight| weight.rows).sum();
        let most = if self.tuning.chains { MOST_CHAINED } else { MOST_ALONE };
        let one = self.is_small(weights, most);
        let mut first = 0;
        while first < n_weights {
            let dtype = weights[first].dtype;
            let (rows, n_chunks) = (weights[first].rows, chunks(weights[first].columns));
            let takes = self.tuning.lanes_take(self.rows().0, dtype);
            let cut = takes.then(|| self.tuning.lanes_cut(self.rows().0, rows));
            let (lanes, rows) = match cut {
                Some(cut) => (cut.subgroups * self.tuning.subgroup, cut.rows()),
                None => self.tuning.matvec(self.rows().0, rows, n_chunks),
            };
            let mut count = 1;
            while first + count < n_weights.min(first + 3)
                && weights[first + count].dtype == dtype
                && (one || weights[first + count - 1].rows.is_multiple_of(rows as usize))
            {
                count += 1;
            }
            let of = (first, count, whole);
            out.push(match one {
                true => self.one_of(of, (bias, softcap), x)?,
                false => self.few_of(of, (lanes, rows, cut), (bias, softcap), x)?,
            });
            first += count;
        }
        Ok(())
    }

    /// Addresses of up to three weights, then of their biases.
    fn push_weights(&self, push: &mut Push, first: usize, count: usize, bias: bool) -> Vec<ByteRange> {
        let all = &self.bound.weights;
        let weights = &all[first..first + count];
        let biases = if bias { &all[all.len() / 2 + first..all.len() / 2 + first + count] } else { &[] };
        for list in [weights, biases] {
            (0..3).for_each(|i| {
                push.address(list.get(i).map_or(0, |weight| weight.slice.device_address()));
            });
        }
        weights.iter().chain(biases).map(|weight| range(&weight.slice)).collect()
    }

    fn push_weight_rows(&self, push: &mut Push, first: usize, count: usize) -> Result<()> {
        for i in 0..3 {
            let rows = if i < count { self.bound.weights[first + i].rows } else { 0 };
            push.word(self.word("weight rows", rows)?);
        }
        Ok(())
    }

    /// True for one row of x, which a workgroup can hold, and weights of no more than `most` bytes.
    pub(super) fn is_small(&self, weights: &[BoundWeight], most: u64) -> bool {
        let rows: usize = weights.iter().map(|weight| weight.rows).sum();
        let held = weights.iter().map(|weight| chunks(weight.columns) as u64 * (QUANTS_BYTES + SCALES_BYTES)).max();
        self.rows().0 == 1
            && weights.iter().map(|weight| weight.slice.size_bytes()).sum::<u64>() <= most
            && rows <= self.tuning.max_grid[0] as usize
            && held.is_some_and(|bytes| bytes + 1024 <= u64::from(self.tuning.max_shared_bytes))
    }

    /// One row of x.
    fn one_of(
        &self,
        (first, count, whole): (usize, usize, usize),
        (bias, softcap): (bool, Option<f32>),
        x: QuantisedX,
    ) -> Result<Launch> {
        let weights = &self.bound.weights[first..first + count];
        let offset: usize = self.bound.weights[..first].iter().map(|weight| weight.rows).sum();
        let width: usize = weights.iter().map(|weight| weight.rows).sum();
        let y = self.output()? + 4 * offset as u64;
        let mut push = Push::default();
        let bound = self.push_weights(&mut push, first, count, bias);
        push.address(x.quants.address).address(x.scales.address).address(y).address(self.step());
        self.push_weight_rows(&mut push, first, count)?;
        let n_chunks = self.word("columns", chunks(weights[0].columns))?;
        push.word(self.rows().1 as u32).word(n_chunks).float(softcap.unwrap_or(0.0));
        let (subgroups, at_once) = self.tuning.one_row(whole, n_chunks);
        let groups = self.word("grid width", width.div_ceil(subgroups as usize))?;
        let own = [n_chunks, at_once, self.word("weights", count)?, u32::from(bias)];
        let grid = self.fits([groups, 1, 1])?;
        let mut launch =
            self.launch(Kernel::MatVecOne(weights[0].dtype), self.tuning.subgroup * subgroups, &own, push, grid);
        launch.dispatch.reads = vec![x.quants, x.scales, range(&self.segment.step)];
        launch.dispatch.reads.extend(bound);
        launch.dispatch.writes = columns(self.output()?, 1, whole, offset, width);
        Ok(launch.in_chain(self.tuning))
    }

    fn few_of(
        &self,
        (first, count, whole): (usize, usize, usize),
        (lanes, rows, cut): (u32, u32, Option<LanesCut>),
        (bias, softcap): (bool, Option<f32>),
        x: QuantisedX,
    ) -> Result<Launch> {
        let weights = &self.bound.weights[first..first + count];
        let (n_rows, header_word) = self.rows();
        let mut push = Push::default();
        let bound = self.push_weights(&mut push, first, count, bias);
        let y = self.output()?;
        push.address(x.quants.address).address(x.scales.address).address(y).address(self.step());
        self.push_weight_rows(&mut push, first, count)?;
        let offset: usize = self.bound.weights[..first].iter().map(|weight| weight.rows).sum();
        push.word(header_word as u32).word(self.word("rows", n_rows)?);
        push.word(self.word("columns", chunks(weights[0].columns))?);
        push.word(self.word("width", whole)?).word(self.word("width", offset)?).float(softcap.unwrap_or(0.0));
        let groups: usize = weights.iter().map(|weight| weight.rows.div_ceil(rows as usize)).sum();
        let (kernel, cut) = match cut {
            Some(cut) => (Kernel::MatVecLanes(weights[0].dtype), vec![cut.tiles, cut.sharers]),
            None => (Kernel::MatVec(weights[0].dtype), vec![rows]),
        };
        let of = [self.word("weights", count)?, u32::from(bias)];
        let own = [&[self.word("rows", n_rows)?], &cut[..], &of].concat();
        let grid = self.fits([self.word("grid width", groups)?, 1, 1])?;
        let mut launch = self.launch(kernel, lanes, &own, push, grid);
        launch.dispatch.reads = vec![x.quants, x.scales, range(&self.segment.step)];
        launch.dispatch.reads.extend(bound);
        let width: usize = weights.iter().map(|weight| weight.rows).sum();
        launch.dispatch.writes = columns(y, n_rows, whole, offset, width);
        Ok(launch)
    }

    /// x as quants, where the unit before left it or by a launch.
    pub(super) fn quantised_x(&self, out: &mut Vec<Launch>, columns: usize) -> Result<QuantisedX> {
        match self.prepared {
            Some(address) => Ok(QuantisedX::at(address, (self.rows().0 * chunks(columns)) as u64)),
            None => self.quantise(out, columns),
        }
    }

    /// x as quants, in scratch.
    fn quantise(&self, out: &mut Vec<Launch>, columns: usize) -> Result<QuantisedX> {
        let (rows, header_word) = self.rows();
        let x = QuantisedX::at(self.scratch.first, (rows * chunks(columns)) as u64);
        let mut push = Push::default();
        push.address(self.input(0)).address(x.quants.address).address(x.scales.address).address(self.step());
        push.word(header_word as u32).word(self.word("rows", rows)?).word(self.word("columns", chunks(columns))?);
        let lanes = self.tuning.lanes();
        let mut launch = self.launch(Kernel::Quantise, lanes, &[], push, self.grid(chunks(columns), lanes, rows)?);
        launch.dispatch.reads = self.input_ranges();
        launch.dispatch.reads.push(range(&self.segment.step));
        launch.dispatch.writes = vec![x.quants, x.scales];
        out.push(launch);
        Ok(x)
    }

    fn choose(&self, n_rows: usize, weight_rows: usize) -> Choice {
        if self.tuning.software {
            let tokens = n_rows.next_power_of_two().min(ROWS_TOKENS) as u32;
            let lanes = self.tuning.lanes();
            return Choice { kernel: Kernel::MatMulRows, lanes, few: false, tokens, rows: lanes };
        }
        if n_rows > MATVEC_TOKENS {
            return Choice { kernel: Kernel::MatMulTile, lanes: 128, few: false, tokens: 32, rows: 64 };
        }
        let lanes = self.tuning.subgroup;
        let rows = self.tuning.enough_rows(4, weight_rows);
        Choice { kernel: Kernel::MatVec, lanes, few: true, tokens: n_rows.max(1) as u32, rows }
    }

    fn product(
        &self,
        index: usize,
        bias: Option<usize>,
        (first, whole): (usize, usize),
        softcap: Option<f32>,
        quantised: Option<QuantisedX>,
    ) -> Result<Launch> {
        let weight = &self.bound.weights[index];
        let quantised = quantised.filter(|_| weight.dtype.is_quantised());
        let (rows, header_word) = self.rows();
        let choice = self.choose(rows, weight.rows);
        let y = self.output()?;
        let mut push = Push::default();
        for offset in plane_offsets(weight.rows, weight.columns, weight.dtype) {
            push.address(self.weight(index) + offset);
        }
        push.address(quantised.map_or(self.input(0), |x| x.quants.address));
        push.address(quantised.map_or(0, |x| x.scales.address));
        push.address(y).address(bias.map_or(0, |i| self.weight(i))).address(self.step());
        push.word(header_word as u32).word(self.word("rows", rows)?);
        push.word(self.word("weight rows", weight.rows)?).word(self.word("columns", weight.columns)?);
        push.word(self.word("columns", chunks(weight.columns))?);
        push.word(self.word("width", whole)?).word(self.word("width", first)?).float(softcap.unwrap_or(0.0));

        let across = self.word("grid width", weight.rows.div_ceil(choice.rows as usize))?;
        let down = if choice.few { 1 } else { self.word("grid height", rows.div_ceil(choice.tokens as usize))? };
        let ragged = u32::from(!weight.columns.is_multiple_of(CHUNK));
        let grid = self.fits([across, down, 1])?;
        let kernel = (choice.kernel)(weight.dtype);
        let mut launch = self.launch(kernel, choice.lanes, &[ragged, choice.tokens, choice.rows], push, grid);
        // Only this weight and this part of the output: the products of one op run side by side.
        launch.dispatch.reads = quantised.map_or_else(|| self.input_ranges(), |x| vec![x.quants, x.scales]);
        launch.dispatch.reads.extend([range(&weight.slice), range(&self.segment.step)]);
        if let Some(i) = bias {
            launch.dispatch.reads.push(range(&self.bound.weights[i].slice));
        }
        launch.dispatch.writes = columns(y, rows, whole, first, weight.rows);
        Ok(launch)
    }
}

/// A band of columns of a row-major f32 value, as one range a row.
pub(super) fn columns(address: u64, rows: usize, stride: usize, first: usize, width: usize) -> Vec<ByteRange> {
    if width == stride {
        return vec![ByteRange { address, size_bytes: (4 * rows * width) as u64 }];
    }
    (0..rows)
        .map(|row| ByteRange { address: address + 4 * (row * stride + first) as u64, size_bytes: 4 * width as u64 })
        .collect()
}
