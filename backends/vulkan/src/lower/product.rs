//! Products of the step's rows with weights: which kernel, and its tiles. Those by matrix instructions are
//! next door.
//!
//! On a GPU, quantised weights take x as quants of 8 bits. A launch before the products of an op writes
//! them to the device's scratch memory, which every op and every segment uses in turn.

use biga_hal::{BoundOp, ByteRange, Result, Rows, Segment};
use biga_shaders::Kernel;

use super::{Launch, Lowering, check::range, matrix, push::Push};
use crate::tuning::Tuning;
use crate::weight::{CHUNK, chunks, plane_offsets};

/// The most rows of x that the few-token kernel takes; beyond, decoding a weight once for many rows wins.
const MATVEC_TOKENS: usize = 4;

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

/// The scratch that the products of a segment need, if they need any.
pub(crate) fn scratch_bytes(segment: &Segment, tuning: &Tuning) -> u64 {
    if tuning.software {
        return 0;
    }
    let bytes = |bound: &BoundOp| {
        if let Some(bytes) = matrix::scratch_bytes(segment, bound, tuning) {
            return Some(bytes);
        }
        let columns = quantised_columns(bound)? as u64;
        let rows = match bound.rows {
            Rows::Tokens => segment.bucket.tokens,
            Rows::Outputs => segment.bucket.outputs,
        } as u64;
        let blocks = rows.checked_mul(columns / CHUNK as u64)?;
        blocks.checked_mul(QUANTS_BYTES + SCALES_BYTES)
    };
    segment.ops.iter().filter_map(bytes).max().unwrap_or(0)
}

/// Bytes of a chunk's quants, and of its scale and sum.
const QUANTS_BYTES: u64 = CHUNK as u64;
const SCALES_BYTES: u64 = 8;

/// The columns of x, if a weight of the op is a quantised matrix.
fn quantised_columns(bound: &BoundOp) -> Option<usize> {
    let multiplied = !matches!(bound.op.kind, biga_hal::OpKind::Embed { .. });
    let weight = bound.weights.iter().find(|weight| multiplied && weight.dtype.is_quantised())?;
    Some(weight.columns)
}

/// Where x lies as quants.
#[derive(Clone, Copy)]
struct QuantisedX {
    quants: ByteRange,
    scales: ByteRange,
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
        let quantised = columns.map(|columns| self.quantise(out, columns)).transpose()?;
        let mut first = 0;
        for (i, &width) in widths.iter().enumerate() {
            let bias = if bias { Some(widths.len() + i) } else { None };
            out.push(self.product(i, bias, (first, whole), softcap, quantised)?);
            first += width;
        }
        Ok(())
    }

    /// x as quants, in scratch.
    fn quantise(&self, out: &mut Vec<Launch>, columns: usize) -> Result<QuantisedX> {
        let (rows, header_word) = self.rows();
        let blocks = (rows * chunks(columns)) as u64;
        let quants = ByteRange { address: self.scratch, size_bytes: blocks * QUANTS_BYTES };
        let scales = ByteRange { address: self.scratch + quants.size_bytes, size_bytes: blocks * SCALES_BYTES };
        let mut push = Push::default();
        push.address(self.input(0)).address(quants.address).address(scales.address).address(self.step());
        push.word(header_word as u32).word(self.word("rows", rows)?).word(self.word("columns", chunks(columns))?);
        let lanes = self.tuning.lanes();
        let mut launch = self.launch(Kernel::Quantise, lanes, &[], push, self.grid(chunks(columns), lanes, rows)?);
        launch.dispatch.reads = self.input_ranges();
        launch.dispatch.reads.push(range(&self.segment.step));
        launch.dispatch.writes = vec![quants, scales];
        out.push(launch);
        Ok(QuantisedX { quants, scales })
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
        // More rows a workgroup where the grid would not hold them.
        let mut rows = 4;
        while weight_rows.div_ceil(rows as usize) > self.tuning.max_grid[0] as usize && rows < 16 {
            rows *= 2;
        }
        Choice { kernel: Kernel::MatVec, lanes: self.tuning.subgroup, few: true, tokens: n_rows.max(1) as u32, rows }
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
