//! Products of the step's rows with weights: which of the three kernels, and its tiles.

use biga_hal::{ByteRange, Result};
use biga_shaders::Kernel;

use super::{Launch, Lowering, check::range, push::Push};
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

impl Lowering<'_> {
    /// One launch per weight; their outputs lie side by side in each row.
    pub(super) fn products(
        &self,
        out: &mut Vec<Launch>,
        widths: &[usize],
        bias: bool,
        softcap: Option<f32>,
    ) -> Result<()> {
        let whole: usize = widths.iter().sum();
        let mut first = 0;
        for (i, &width) in widths.iter().enumerate() {
            let bias = if bias { Some(widths.len() + i) } else { None };
            out.push(self.product(i, bias, first, whole, softcap)?);
            first += width;
        }
        Ok(())
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
        first: usize,
        whole: usize,
        softcap: Option<f32>,
    ) -> Result<Launch> {
        let weight = &self.bound.weights[index];
        let (rows, header_word) = self.rows();
        let choice = self.choose(rows, weight.rows);
        let y = self.output()?;
        let mut push = Push::default();
        for offset in plane_offsets(weight.rows, weight.columns, weight.dtype) {
            push.address(self.weight(index) + offset);
        }
        push.address(self.input(0)).address(y).address(bias.map_or(0, |i| self.weight(i))).address(self.step());
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
        launch.dispatch.reads = self.input_ranges();
        launch.dispatch.reads.extend([range(&weight.slice), range(&self.segment.step)]);
        if let Some(i) = bias {
            launch.dispatch.reads.push(range(&self.bound.weights[i].slice));
        }
        launch.dispatch.writes = columns(y, rows, whole, first, weight.rows);
        Ok(launch)
    }
}

/// A band of columns of a row-major f32 value, as one range a row.
fn columns(address: u64, rows: usize, stride: usize, first: usize, width: usize) -> Vec<ByteRange> {
    if width == stride {
        return vec![ByteRange { address, size_bytes: (4 * rows * width) as u64 }];
    }
    (0..rows)
        .map(|row| ByteRange { address: address + 4 * (row * stride + first) as u64, size_bytes: 4 * width as u64 })
        .collect()
}
