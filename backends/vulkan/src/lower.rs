//! From a segment to kernel launches: pure, so that it is tested without a device.
//!
//! Each op becomes one launch, or one per weight, or one together with its neighbours (`fuse`). Grids are sized to the bucket; kernels leave early by
//! the counts in the step header. Push constants follow the `Push` block of each kernel word by word.
//!
//! The KV cache is reached through addresses that only a step knows. Its ranges are declared in a space
//! of their own, [`ByteRange::KV_SPACE`].

mod check;

mod flash;

mod fuse;

mod matrix;

mod joined;

mod product;

pub(crate) use product::scratch_bytes;

mod push;

mod sample;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use biga_hal::{
    Activation, BoundKv, BoundOp, ByteRange, DType, Dispatch, Error, Heads, OpKind, Result, RopeStyle, Rows, Segment,
};
use biga_shaders::Kernel;

use crate::{
    tuning::Tuning,
    weight::{CHUNK, chunks, plane_offsets},
};
use fuse::{Leaves, Unit};
use push::Push;

/// Words of the step header.
const N_TOKENS: usize = 0;
const N_OUTPUTS: usize = 2;

/// A kernel launch, ready but for its pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) kernel: Kernel,
    /// Specialisation constants from 0 on: lanes, subgroup size, then the kernel's own.
    pub(crate) constants: Vec<u32>,
    pub(crate) push: Vec<u32>,
    pub(crate) grid: [u32; 3],
    pub(crate) dispatch: Dispatch,
    /// True if the kernel counts its workgroups and waits for counts: the recording appends the `Chain` to the
    /// push constants.
    pub(crate) chained: bool,
}

/// Where kernels have the switch for that.
const CHAINED_ID: usize = 15;

impl Launch {
    /// The same in a chain, if the device is one for chains.
    fn in_chain(mut self, tuning: &Tuning) -> Launch {
        if tuning.chains {
            self.constants.resize(CHAINED_ID, 0);
            self.constants.push(1);
            self.chained = true;
        }
        self
    }

    /// Its workgroups.
    pub(crate) fn workgroups(&self) -> Option<u32> {
        self.grid.iter().try_fold(1u32, |product, &n| product.checked_mul(n))
    }
}

/// Tables of constants that a segment's kernels read, each once.
pub(crate) fn constant_tables(segment: &Segment) -> Vec<Arc<[f32]>> {
    let mut tables: Vec<Arc<[f32]>> = Vec::new();
    for bound in &segment.ops {
        if let OpKind::Rope { inv_freqs, .. } = &bound.op.kind
            && !tables.iter().any(|table| table == inv_freqs)
        {
            tables.push(Arc::clone(inv_freqs));
        }
    }
    tables
}

/// Lowers a segment. `constants` gives the address of each table of [`constant_tables`], `scratch` that of
/// [`scratch_bytes`] bytes, a multiple of 16, that no launch of another device touches.
///
/// # Errors
/// [`Error::InvalidSegment`] if the segment contradicts itself or passes a bound of the kernels.
pub(crate) fn lower(
    segment: &Segment,
    tuning: &Tuning,
    constants: &[(Arc<[f32]>, u64)],
    scratch: u64,
) -> Result<Vec<Launch>> {
    let mut launches = Vec::with_capacity(segment.ops.len() + segment.ops.len() / 2);
    check::segment(segment)?;
    segment.ops.iter().try_for_each(|bound| check::op(segment, bound))?;
    let scratch = product::Scratch::at(scratch, segment, tuning)
        .ok_or(Error::TooLarge { what: "scratch memory", max_bytes: u64::MAX })?;
    let (mut next, mut before) = (0, None);
    for unit in fuse::units(segment, tuning) {
        let Some(bound) = segment.ops.get(next) else { break };
        // Gate and up read the first place while they write the second.
        let prepared = match before.replace(unit) {
            Some(Unit::GateUp { .. }) => Some(scratch.second),
            Some(
                Unit::Norm { leaves: Leaves::Quants | Leaves::Halves, .. }
                | Unit::Attention { quantise: true, .. }
                | Unit::Activate(_),
            ) => Some(scratch.first),
            _ => None,
        };
        let lowering = Lowering { segment, bound, tuning, constants, scratch, prepared };
        // A bucket without outputs: nothing to compute.
        if lowering.rows().0 > 0 {
            match unit {
                Unit::Alone(_) => lowering.op(&mut launches)?,
                joined => {
                    let launch = lowering.joined(&mut launches, joined)?;
                    launches.push(launch);
                }
            }
        }
        next += unit.len();
    }
    Ok(launches)
}

/// One op on its way.
#[derive(Clone, Copy)]
struct Lowering<'a> {
    segment: &'a Segment,
    bound: &'a BoundOp,
    tuning: &'a Tuning,
    constants: &'a [(Arc<[f32]>, u64)],
    scratch: product::Scratch,
    /// Where x of a product lies as quants or halves, if the launch before left it so.
    prepared: Option<u64>,
}

impl Lowering<'_> {
    fn invalid(&self, cause: impl Into<String>) -> Error {
        check::invalid(self.segment, self.bound, cause)
    }

    fn word(&self, what: &str, value: impl TryInto<u32>) -> Result<u32> {
        value.try_into().map_err(|_| self.invalid(format!("{what} does not fit 32 bits")))
    }

    /// Rows of the bucket that the op runs over, and the header word that says how many a step has.
    fn rows(&self) -> (usize, usize) {
        match self.bound.rows {
            Rows::Tokens => (self.segment.bucket.tokens, N_TOKENS),
            Rows::Outputs => (self.segment.bucket.outputs, N_OUTPUTS),
        }
    }

    fn step(&self) -> u64 {
        self.segment.step.device_address()
    }

    fn input(&self, i: usize) -> u64 {
        self.bound.inputs[i].device_address()
    }

    fn weight(&self, i: usize) -> u64 {
        self.bound.weights[i].slice.device_address()
    }

    fn output(&self) -> Result<u64> {
        self.bound.output.as_ref().map(|slice| slice.device_address()).ok_or_else(|| self.invalid("no output is bound"))
    }

    /// A launch over `columns` by `rows`, element by element.
    fn grid(&self, columns: usize, lanes: u32, rows: usize) -> Result<[u32; 3]> {
        let x = self.word("grid width", columns.div_ceil(lanes as usize))?;
        let y = self.word("grid height", rows)?;
        self.fits([x, y, 1])
    }

    fn fits(&self, grid: [u32; 3]) -> Result<[u32; 3]> {
        if grid.iter().zip(self.tuning.max_grid).any(|(&n, max)| n > max) {
            return Err(self.invalid(format!("grid {grid:?} passes the device's {:?}", self.tuning.max_grid)));
        }
        Ok(grid)
    }

    fn input_ranges(&self) -> Vec<ByteRange> {
        let kind = &self.bound.op.kind;
        let selects = matches!(kind, OpKind::SelectOutputs { .. });
        let rows = if selects { self.segment.bucket.tokens } else { self.rows().0 };
        let inputs = self.bound.inputs.iter().zip(kind.input_widths());
        inputs.map(|(slice, width)| check::value_range(slice, rows, width)).collect()
    }

    /// Reads and writes of the op as a whole: its inputs, weights and step, and its output.
    fn dispatch(&self, kernel: Kernel) -> Dispatch {
        let kind = &self.bound.op.kind;
        let mut reads = self.input_ranges();
        reads.extend(self.bound.weights.iter().map(|weight| check::range(&weight.slice)));
        reads.push(check::range(&self.segment.step));
        let output = self.bound.output.iter().zip(kind.output_width());
        let writes = output.map(|(slice, width)| check::value_range(slice, self.rows().0, width)).collect();
        let layer = self.bound.op.layer.map_or(String::new(), |layer| format!(" {layer}"));
        let (source, format) = kernel.source();
        let format = format.map_or(String::new(), |format| format!(" {format}"));
        let name = format!("{}{layer}: {source}{format}", kind.name());
        Dispatch { name, reads, writes, barrier_before: false }
    }

    fn launch(&self, kernel: Kernel, lanes: u32, own: &[u32], push: Push, grid: [u32; 3]) -> Launch {
        let mut constants = vec![lanes, self.tuning.subgroup];
        constants.extend_from_slice(own);
        let dispatch = self.dispatch(kernel);
        Launch { kernel, constants, push: push.into_words(), grid, dispatch, chained: false }
    }

    fn op(&self, out: &mut Vec<Launch>) -> Result<()> {
        match self.bound.op.kind {
            OpKind::Embed { vocab, width, scale } => out.push(self.embed(vocab, width, scale)?),
            OpKind::RmsNorm { width, eps, weight_offset } => out.push(self.rms_norm(width, eps, weight_offset)?),
            OpKind::QkvProjection { heads, bias, .. } => {
                let widths = [heads.q_width(), heads.kv_width(), heads.kv_width()];
                self.products(out, &widths, bias, None)?;
            }
            OpKind::QkNorm { heads, eps, weight_offset } => out.push(self.qk_norm(heads, eps, weight_offset)?),
            OpKind::Rope { heads, style, ref inv_freqs } => out.push(self.rope(heads, style, inv_freqs)?),
            OpKind::KvAppend { heads } => out.push(self.kv_append(heads)?),
            OpKind::Attention { heads, scale, window, softcap } => {
                out.push(self.attention(heads, scale, window, softcap)?);
            }
            OpKind::OutputProjection { output, bias, .. } => self.products(out, &[output], bias, None)?,
            OpKind::Residual { width } => out.push(self.residual(width)?),
            OpKind::GateUp { ff, .. } => self.products(out, &[ff, ff], false, None)?,
            OpKind::Activate { ff, activation } => out.push(self.activate(ff, activation)?),
            OpKind::Down { width, .. } => self.products(out, &[width], false, None)?,
            OpKind::SelectOutputs { width } => out.push(self.select(width)?),
            OpKind::Head { vocab, softcap, .. } => self.products(out, &[vocab], false, softcap)?,
            OpKind::Sample { vocab } => self.sample(out, vocab)?,
            _ => return Err(self.invalid("no kernel for this op")),
        }
        Ok(())
    }

    fn embed(&self, vocab: usize, width: usize, scale: f32) -> Result<Launch> {
        let weight = &self.bound.weights[0];
        let layout = &self.segment.step_layout;
        let mut push = Push::default();
        for offset in plane_offsets(vocab, width, weight.dtype) {
            push.address(self.weight(0) + offset);
        }
        push.address(self.output()?).address(self.step());
        push.word(self.word("tokens", self.segment.bucket.tokens)?);
        push.word(self.word("token offset", layout.tokens / 4)?);
        push.word(self.word("vocabulary", vocab)?).word(self.word("width", width)?);
        push.word(self.word("width", chunks(width))?).float(scale);
        let lanes = self.tuning.lanes();
        let grid = self.grid(chunks(width), lanes, self.segment.bucket.tokens)?;
        Ok(self.launch(Kernel::Embed(weight.dtype), lanes, &[], push, grid))
    }

    fn rms_norm(&self, width: usize, eps: f32, offset: f32) -> Result<Launch> {
        let (rows, header_word) = self.rows();
        let mut push = Push::default();
        push.address(self.input(0)).address(self.output()?).address(self.weight(0)).address(self.step());
        push.word(header_word as u32).word(self.word("rows", rows)?);
        push.word(self.word("width", width)?).float(eps).float(offset);
        let grid = self.fits([self.word("rows", rows)?, 1, 1])?;
        Ok(self.launch(Kernel::RmsNorm, self.tuning.reduction_lanes(), &[], push, grid))
    }

    fn qk_norm(&self, heads: Heads, eps: f32, offset: f32) -> Result<Launch> {
        let tokens = self.segment.bucket.tokens;
        let (x, y) = (self.input(0), self.output()?);
        let mut push = Push::default();
        push.address(x).address(y).address(self.weight(0)).address(self.weight(1)).address(self.step());
        push.word(self.word("tokens", tokens)?);
        self.push_heads(&mut push, heads)?;
        push.float(eps).float(offset);
        // In place, v needs no copy.
        let copied = if x == y { 0 } else { heads.n_kv_heads };
        let grid = self.grid(heads.n_heads + heads.n_kv_heads + copied, 1, tokens)?;
        Ok(self.launch(Kernel::QkNorm, self.tuning.subgroup, &[], push, grid))
    }

    fn push_heads(&self, push: &mut Push, heads: Heads) -> Result<()> {
        push.word(self.word("heads", heads.n_heads)?);
        push.word(self.word("heads", heads.n_kv_heads)?);
        push.word(self.word("head size", heads.head_dim)?);
        Ok(())
    }

    fn rope(&self, heads: Heads, style: RopeStyle, inv_freqs: &Arc<[f32]>) -> Result<Launch> {
        let tokens = self.segment.bucket.tokens;
        let table = self.frequencies(inv_freqs)?;
        let (x, y) = (self.input(0), self.output()?);
        let mut push = Push::default();
        push.address(x).address(y).address(table).address(self.step());
        push.word(self.word("tokens", tokens)?);
        push.word(self.word("position offset", self.segment.step_layout.positions / 4)?);
        self.push_heads(&mut push, heads)?;
        push.word(u32::from(style == RopeStyle::Interleaved));
        let turned = heads.n_heads + heads.n_kv_heads;
        let all = if x == y { turned } else { turned + heads.n_kv_heads };
        let lanes = self.tuning.lanes();
        let grid = self.grid(all * (heads.head_dim / 2), lanes, tokens)?;
        let mut launch = self.launch(Kernel::Rope, lanes, &[], push, grid);
        launch.dispatch.reads.push(joined::table_range(table, inv_freqs.len()));
        Ok(launch)
    }

    fn frequencies(&self, inv_freqs: &Arc<[f32]>) -> Result<u64> {
        let table = self.constants.iter().find(|(table, _)| table == inv_freqs).map(|(_, address)| *address);
        table.ok_or_else(|| self.invalid("the table of frequencies is not loaded"))
    }

    fn kv(&self) -> Result<&BoundKv> {
        self.bound.kv.as_ref().ok_or_else(|| self.invalid("no KV cache is bound"))
    }

    /// The `KvStep` block of the kernels that touch the cache.
    fn push_kv(&self, push: &mut Push, kv: &BoundKv, heads: Heads) -> Result<()> {
        let layout = &self.segment.step_layout;
        push.address(self.step()).word(self.word("tokens", self.segment.bucket.tokens)?);
        push.word(self.word("position offset", layout.positions / 4)?);
        push.word(self.word("slot offset", layout.slots / 4)?);
        push.word(self.word("table offset", layout.table(kv.table))?);
        push.word(self.word("slots", layout.limits.max_slots)?);
        push.word(self.word("blocks", layout.limits.max_blocks)?);
        push.word(self.word("block length", kv.block_len)?);
        push.word(self.word("key offset", kv.k_offset_bytes)?);
        push.word(self.word("value offset", kv.v_offset_bytes)?);
        self.push_heads(push, heads)
    }

    fn kv_ranges(&self, kv: &BoundKv, heads: Heads) -> Result<[ByteRange; 2]> {
        kv.ranges(heads).ok_or_else(|| self.invalid("the layer's part of the cache has no size"))
    }

    fn kv_append(&self, heads: Heads) -> Result<Launch> {
        let kv = self.kv()?;
        let mut push = Push::default();
        self.push_kv(&mut push, kv, heads)?;
        push.address(self.input(0));
        let item = if kv.dtype == DType::Q8_0 { CHUNK } else { 1 };
        let lanes = self.tuning.lanes();
        let grid = self.grid(2 * heads.kv_width() / item, lanes, self.segment.bucket.tokens)?;
        let mut launch = self.launch(Kernel::KvAppend(kv.dtype), lanes, &[], push, grid);
        launch.dispatch.writes.extend(self.kv_ranges(kv, heads)?);
        Ok(launch)
    }

    fn attention(&self, heads: Heads, scale: f32, window: Option<usize>, softcap: Option<f32>) -> Result<Launch> {
        let kv = self.kv()?;
        let mut push = Push::default();
        self.push_kv(&mut push, kv, heads)?;
        push.address(self.input(0)).address(self.output()?).float(scale).float(softcap.unwrap_or(0.0));
        // A window longer than any position is none.
        push.word(window.map_or(0, |window| u32::try_from(window).unwrap_or(0)));
        let head_dim = self.word("head size", heads.head_dim)?;
        if let Some(tile) = flash::tile(self.segment, self.bound, self.tuning) {
            let mut launch = self.flash_attention(tile, heads, push)?;
            launch.dispatch.reads.extend(self.kv_ranges(kv, heads)?);
            return Ok(launch);
        }
        let lanes = self.tuning.attention_lanes(head_dim);
        let tokens = self.segment.bucket.tokens;
        let (kernel, grid) = if self.tuning.software {
            let queries = tokens * (heads.n_heads / heads.n_kv_heads);
            (Kernel::AttentionRows(kv.dtype), self.grid(queries, lanes, heads.n_kv_heads)?)
        } else {
            (Kernel::Attention(kv.dtype), self.grid(heads.n_heads, 1, tokens)?)
        };
        let mut launch = self.launch(kernel, lanes, &[head_dim], push, grid);
        launch.dispatch.reads.extend(self.kv_ranges(kv, heads)?);
        Ok(launch)
    }

    fn residual(&self, width: usize) -> Result<Launch> {
        let (rows, header_word) = self.rows();
        let mut push = Push::default();
        push.address(self.input(0)).address(self.input(1)).address(self.output()?).address(self.step());
        push.word(header_word as u32).word(self.word("rows", rows)?).word(self.word("width", width)?);
        let lanes = self.tuning.lanes();
        let grid = self.grid(width, lanes, rows)?;
        Ok(self.launch(Kernel::Residual, lanes, &[], push, grid))
    }

    fn activate(&self, ff: usize, activation: Activation) -> Result<Launch> {
        let (rows, header_word) = self.rows();
        let mut push = Push::default();
        push.address(self.input(0)).address(self.output()?).address(self.step());
        push.word(header_word as u32).word(self.word("rows", rows)?).word(self.word("width", ff)?);
        let gelu = u32::from(activation == Activation::GeluTanh);
        let lanes = self.tuning.lanes();
        let grid = self.grid(ff, lanes, rows)?;
        Ok(self.launch(Kernel::Activate, lanes, &[gelu], push, grid))
    }

    fn select(&self, width: usize) -> Result<Launch> {
        let bucket = self.segment.bucket;
        let mut push = Push::default();
        push.address(self.input(0)).address(self.output()?).address(self.step());
        push.word(self.word("outputs", bucket.outputs)?).word(self.word("tokens", bucket.tokens)?);
        push.word(self.word("output offset", self.segment.step_layout.outputs / 4)?);
        push.word(self.word("width", width)?);
        let lanes = self.tuning.lanes();
        let grid = self.grid(width, lanes, bucket.outputs)?;
        Ok(self.launch(Kernel::SelectOutputs, lanes, &[], push, grid))
    }
}
