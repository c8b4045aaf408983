//! Products with many rows of x by matrix instructions.
//!
//! The launch before the products of an op leaves x as halves in the device's scratch memory, with a power of two for
//! each row: a norm or an activation does so itself, behind others it is a launch of its own.

use biga_hal::{Activation, BoundOp, BoundWeight, ByteRange, DType, OpKind, Result, Rows, Segment};
use biga_shaders::Kernel;

use super::{
    Launch, Lowering,
    check::range,
    fuse::{self, COUNTERS},
    product::{MATVEC_TOKENS, columns},
    push::Push,
};
use crate::{
    elements::Elements,
    tile::{MatrixShape, MatrixTile, Share},
    tuning::Tuning,
    weight::{chunks, plane_offsets},
};

/// Columns of a slab of x as halves; a row has a multiple of four.
const SLAB: usize = 64;
const SCALE_BYTES: u64 = 4;

/// How the products of an op run.
struct Plan {
    shape: MatrixShape,
    /// Rows of x.
    rows: usize,
    /// One for each width.
    tiles: Vec<MatrixTile>,
    columns: usize,
    /// Rows of x that are stored: those that tiles read.
    stride: usize,
    /// Whether slabs have consecutive columns.
    natural: bool,
}

/// Where x lies as halves.
#[derive(Clone, Copy)]
pub(super) struct HalvedX {
    pub(super) halves: ByteRange,
    pub(super) scales: ByteRange,
    columns: usize,
    /// Rows that are stored.
    pub(super) stride: usize,
    /// Whether slabs have consecutive columns.
    pub(super) natural: bool,
}

/// The plan of an op with products, if matrix instructions are for it.
fn plan(segment: &Segment, bound: &BoundOp, tuning: &Tuning) -> Option<Plan> {
    let shape = tuning.matrix?;
    let widths = match bound.op.kind {
        OpKind::QkvProjection { .. } => 3,
        OpKind::GateUp { .. } => 2,
        OpKind::OutputProjection { .. } | OpKind::Down { .. } | OpKind::Head { .. } => 1,
        _ => return None,
    };
    let rows = match bound.rows {
        Rows::Tokens => segment.bucket.tokens,
        Rows::Outputs => segment.bucket.outputs,
    };
    let weights = bound.weights.get(..widths)?;
    // Halves would lose what f32 holds.
    let few = rows <= MATVEC_TOKENS || fuse::multiplies_few(segment, tuning, bound);
    if few || weights.iter().any(|weight| weight.dtype == DType::F32) {
        return None;
    }
    // The products of an op run side by side: together they fill the device.
    let all_rows = weights.iter().map(|weight| weight.rows).sum();
    let choose = |weight: &BoundWeight| {
        if tuning.elements.is_some_and(Elements::are_whole_lines) && rows <= direct_tokens(weight.dtype) {
            let tile = MatrixTile::direct(rows, all_rows, weight.columns, tuning.compute_units, shape);
            if tile.fault(shape, tuning.subgroup, tuning.max_lanes, tuning.max_shared_bytes).is_none() {
                return tile;
            }
        }
        let prefers = (tuning.prompt_tile, tuning.large_parts);
        MatrixTile::choose((rows, all_rows), tuning.compute_units, prefers, shape)
    };
    let tiles: Vec<MatrixTile> = weights.iter().map(|weight| tuning.tile.unwrap_or_else(|| choose(weight))).collect();
    let stride = tiles.iter().map(|tile| rows.next_multiple_of(tile.tokens as usize)).max()?;
    let natural = weights.iter().all(|weight| matches!(weight.dtype, DType::F16 | DType::BF16 | DType::Q8_0));
    Some(Plan { shape, rows, tiles, columns: weights.first()?.columns, stride, natural })
}

/// True if the products of an op run by matrix instructions.
pub(super) fn multiplies(segment: &Segment, tuning: &Tuning, index: usize) -> bool {
    segment.ops.get(index).is_some_and(|bound| plan(segment, bound, tuning).is_some())
}

/// Slabs of a row of x, padded with zeros.
const fn slabs(columns: usize) -> usize {
    columns.div_ceil(4 * SLAB) * 4
}

/// Bytes of x as halves for an op, and of its scales.
fn bytes_of_x(plan: &Plan) -> Option<(u64, u64)> {
    let stride = plan.stride as u64;
    let halves = stride.checked_mul(slabs(plan.columns) as u64)?.checked_mul(2 * SLAB as u64)?;
    Some((halves, stride.checked_mul(SCALE_BYTES)?))
}

/// The most rows of x for which weights are decoded where they are multiplied, where that can be. Chosen on an H200:
/// wider weights and more sums take more registers than there are.
fn direct_tokens(dtype: DType) -> usize {
    match dtype {
        DType::F16 | DType::BF16 => 0,
        DType::Q8_0 => 16,
        _ => 64,
    }
}

/// Floats that workgroups of an op leave for each other.
pub(super) fn sums(segment: &Segment, bound: &BoundOp, tuning: &Tuning) -> usize {
    let Some(plan) = plan(segment, bound, tuning) else { return 0 };
    let of = |(tile, weight): (&MatrixTile, &BoundWeight)| tile.sums(plan.rows, weight.rows).1;
    plan.tiles.iter().zip(&bound.weights).map(of).sum()
}

/// The scratch that an op needs for products by matrix instructions; `None` if it has none.
pub(super) fn scratch_bytes(segment: &Segment, bound: &BoundOp, tuning: &Tuning) -> Option<u64> {
    let (halves, scales) = bytes_of_x(&plan(segment, bound, tuning)?)?;
    halves.checked_add(scales)
}

impl Lowering<'_> {
    /// One launch per weight, if the op's products run by matrix instructions; false if they do not.
    pub(super) fn matrix_products(
        &self,
        out: &mut Vec<Launch>,
        widths: &[usize],
        bias: bool,
        softcap: Option<f32>,
    ) -> Result<bool> {
        let Some(plan) = plan(self.segment, self.bound, self.tuning) else { return Ok(false) };
        let x = self.halved_x()?;
        if self.prepared.is_none() {
            out.push(self.halve(x, None)?);
        }
        let whole: usize = widths.iter().sum();
        let mut first = 0;
        // The products of an op run side by side, so each has its own sums.
        let (mut counters, mut sums) = (0, 0);
        for (i, (&width, &tile)) in widths.iter().zip(&plan.tiles).enumerate() {
            let bias = if bias { Some(widths.len() + i) } else { None };
            let mut launch = self.matrix_product(i, bias, (first, whole), softcap, x, (plan.shape, tile))?;
            let (tiles, floats) = tile.sums(plan.rows, self.bound.weights[i].rows);
            if floats > 0 {
                self.share_sums(&mut launch, (counters, tiles), (sums, floats))?;
                (counters, sums) = (counters + tiles, sums + floats);
            }
            out.push(launch);
            first += width;
        }
        Ok(true)
    }

    /// Where x of the op lies as halves, in scratch.
    pub(super) fn halved_x(&self) -> Result<HalvedX> {
        let plan = plan(self.segment, self.bound, self.tuning).ok_or_else(|| self.invalid("no x as halves"))?;
        let (halves, scales) =
            bytes_of_x(&plan).ok_or_else(|| self.invalid("its rows of x are more than addresses count"))?;
        // The kernels count 16-byte units.
        self.word("16-byte units of x", halves / 16)?;
        let halves = ByteRange { address: self.scratch.first, size_bytes: halves };
        let scales = ByteRange { address: self.scratch.first + halves.size_bytes, size_bytes: scales };
        Ok(HalvedX { halves, scales, columns: plan.columns, stride: plan.stride, natural: plan.natural })
    }

    /// Makes halves of the op's first input, `x`, or of what an activation makes of that.
    fn halve(&self, x: HalvedX, activation: Option<Activation>) -> Result<Launch> {
        let (rows, header_word) = self.rows();
        let slabs = self.word("columns", slabs(x.columns))?;
        let mut push = Push::default();
        push.address(self.input(0)).address(x.halves.address).address(x.scales.address).address(self.step());
        push.word(header_word as u32).word(self.word("rows", rows)?).word(self.word("columns", x.columns)?);
        push.word(slabs).word(self.word("rows", x.stride)?);
        let (lanes, held) = self.tuning.holding(slabs * (SLAB / 8) as u32);
        let ragged = u32::from(!x.columns.is_multiple_of(4));
        let gelu = u32::from(activation == Some(Activation::GeluTanh));
        let own = [ragged, u32::from(x.natural), held, u32::from(activation.is_some()), gelu];
        let grid = self.fits([self.word("rows", rows)?, 1, 1])?;
        let mut launch = self.launch(Kernel::XToF16, lanes, &own, push, grid);
        launch.dispatch.reads = self.input_ranges();
        launch.dispatch.reads.push(range(&self.segment.step));
        launch.dispatch.writes = vec![x.halves, x.scales];
        Ok(launch)
    }

    /// The launch of an activation whose result is x of the op after it.
    pub(super) fn activate_to_halves(&self, activate: usize) -> Result<Launch> {
        let OpKind::Activate { activation, .. } = self.bound.op.kind else {
            return Err(self.invalid("no activation"));
        };
        self.halve(self.of(activate + 1).halved_x()?, Some(activation))
    }

    /// Room for what workgroups of a launch leave for each other: a counter for each tile, and sums.
    fn share_sums(
        &self,
        launch: &mut Launch,
        (first_counter, counters): (usize, usize),
        (first, floats): (usize, usize),
    ) -> Result<()> {
        if first_counter + counters > COUNTERS {
            return Err(self.invalid(format!("its workgroups share {counters} tiles, at most {COUNTERS} are counted")));
        }
        let words = |address, (first, count): (usize, usize)| ByteRange {
            address: address + 4 * first as u64,
            size_bytes: 4 * count as u64,
        };
        let sums = words(self.scratch.parts, (first, floats));
        let counters = words(self.scratch.counters, (first_counter, counters));
        let mut push = Push::default();
        push.address(sums.address).address(counters.address);
        launch.push.extend(push.into_words());
        launch.dispatch.reads.extend([sums, counters]);
        launch.dispatch.writes.extend([sums, counters]);
        Ok(())
    }

    fn matrix_product(
        &self,
        index: usize,
        bias: Option<usize>,
        (first, whole): (usize, usize),
        softcap: Option<f32>,
        x: HalvedX,
        (shape, tile): (MatrixShape, MatrixTile),
    ) -> Result<Launch> {
        let tuning = self.tuning;
        if let Some(cause) = tile.fault(shape, tuning.subgroup, tuning.max_lanes, tuning.max_shared_bytes) {
            return Err(self.invalid(cause));
        }
        let weight = &self.bound.weights[index];
        let (rows, header_word) = self.rows();
        let y = self.output()?;
        let mut push = Push::default();
        for offset in plane_offsets(weight.rows, weight.columns, weight.dtype) {
            push.address(self.weight(index) + offset);
        }
        push.address(x.halves.address).address(x.scales.address).address(y);
        push.address(bias.map_or(0, |i| self.weight(i))).address(self.step());
        push.word(header_word as u32).word(self.word("rows", rows)?).word(self.word("weight rows", weight.rows)?);
        push.word(self.word("columns", chunks(weight.columns))?).word(self.word("rows", x.stride)?);
        push.word(self.word("width", whole)?).word(self.word("width", first)?).float(softcap.unwrap_or(0.0));

        let [m, n, k] = shape;
        let (kernel, share) = match tile.share {
            Share::Parts { rows, tokens, buffers } => (Kernel::MatMulMatrix(weight.dtype), vec![rows, tokens, buffers]),
            Share::Columns { subgroups, buffers } => (Kernel::MatMulSplit(weight.dtype), vec![subgroups, buffers]),
            Share::Direct { rows, stage, splits } => {
                let elements = tuning.elements.ok_or_else(|| self.invalid("how matrices lie is not known"))?;
                (Kernel::MatMulDirect(weight.dtype), [&[rows, stage, splits], &elements.words()[..]].concat())
            }
        };
        let own = [vec![m, n, k, tile.rows, tile.tokens, u32::from(x.natural)], share].concat();
        let across = self.word("grid width", rows.div_ceil(tile.tokens as usize))?;
        let down = self.word("grid height", weight.rows.div_ceil(tile.rows as usize))?;
        let splits = if let Share::Direct { splits, .. } = tile.share { splits } else { 1 };
        let grid = self.fits([across, down, splits])?;
        let mut launch = self.launch(kernel, tile.subgroups() * tuning.subgroup, &own, push, grid);
        // Only this weight and this part of the output: the products of one op run side by side.
        launch.dispatch.reads = vec![x.halves, x.scales, range(&weight.slice), range(&self.segment.step)];
        if let Some(i) = bias {
            launch.dispatch.reads.push(range(&self.bound.weights[i].slice));
        }
        launch.dispatch.writes = columns(y, rows, whole, first, weight.rows);
        Ok(launch)
    }
}
