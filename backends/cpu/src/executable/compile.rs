//! From a segment to a program: every check that does not depend on the step.

use std::sync::{Arc, PoisonError, RwLock};

use biga_hal::{
    BoundKv, BoundOp, BoundWeight, BufferSlice, ByteRange, DType, Dispatch, Error, Heads, OpKind, OpQuery, Result,
    Rows, Segment, StepLayout, WeightShape,
};

use super::{Call, CpuExecutable, KvPlace, Matrix, Part, Program, Scratch, Step, Value, Vector};
use crate::{
    buffer::{CpuAllocation, Registry},
    device::supports,
    frame::{Frame, StepNeeds, TableUse},
    kernels::Kernels,
    queue::Queue,
    reference::AttentionShape,
    sys::{memory::HostMemory, run},
};

/// What a device lends to compilation.
pub(crate) struct Context<'a> {
    /// Its buffers.
    pub(crate) registry: &'a Arc<Registry>,
    /// Its copy of the step.
    pub(crate) frame: &'a Arc<RwLock<Frame>>,
    /// The scratch of the programs compiled so far, if there is any.
    pub(crate) scratch: Option<Arc<Scratch>>,
    /// Its workers.
    pub(crate) queue: &'a Queue,
    /// Which kernels.
    pub(crate) kernels: Kernels,
}

/// Compiles a segment.
///
/// # Errors
/// [`Error::Unsupported`], [`Error::InvalidSegment`] with the op and what is wrong with it,
/// [`Error::StaleHandle`], or [`Error::OutOfMemory`] for scratch.
pub(crate) fn compile(context: &Context<'_>, segment: &Segment) -> Result<CpuExecutable> {
    let mut compiler = Compiler {
        context,
        segment,
        buffers: Vec::new(),
        tables: Vec::new(),
        op: "segment",
        scratch_bytes: 0,
        shared_bytes: 0,
    };
    compiler.check_step()?;
    let mut steps = Vec::with_capacity(segment.ops.len());
    let mut dispatches = Vec::with_capacity(segment.ops.len());
    for op in &segment.ops {
        compiler.op = op.op.kind.name();
        let (call, dispatch) = compiler.op(op)?;
        steps.push(Step { call, rows: op.rows, next: 0.into(), prepared: 0.into() });
        dispatches.push(dispatch);
    }
    let needs = compiler.needs();
    context.queue.between_runs(|| context.frame.write().unwrap_or_else(PoisonError::into_inner).grow(&needs));
    let program = Program {
        steps,
        step_address: compiler.address(&segment.step)?,
        needs,
        frame: Arc::clone(context.frame),
        scratch: compiler.scratch()?,
        kernels: context.kernels,
        buffers: compiler.buffers,
    };
    let registry = Arc::clone(context.registry);
    Ok(CpuExecutable { name: segment.name.clone(), dispatches, program: Arc::new(program), registry })
}

struct Compiler<'a> {
    context: &'a Context<'a>,
    segment: &'a Segment,
    buffers: Vec<BufferSlice>,
    tables: Vec<TableUse>,
    /// Name of the op in hand, for errors.
    op: &'static str,
    scratch_bytes: usize,
    shared_bytes: usize,
}

impl Compiler<'_> {
    fn invalid(&self, cause: impl Into<String>) -> Error {
        Error::InvalidSegment { segment: self.segment.name.clone(), op: self.op, cause: cause.into() }
    }

    fn require(&self, holds: bool, cause: impl FnOnce() -> String) -> Result<()> {
        if holds { Ok(()) } else { Err(self.invalid(cause())) }
    }

    fn check_step(&mut self) -> Result<()> {
        let (layout, bucket) = (self.segment.step_layout, self.segment.bucket);
        let expected = StepLayout::new(layout.limits)?;
        self.require(expected == layout, || "the step layout is not that of its limits".into())?;
        self.require(self.segment.step.size_bytes() >= layout.size_bytes as u64, || {
            format!("step buffer of {} bytes, {} wanted", self.segment.step.size_bytes(), layout.size_bytes)
        })?;
        self.require(bucket.tokens > 0, || "bucket of no tokens".into())?;
        self.require(bucket.tokens <= layout.limits.max_tokens && bucket.outputs <= layout.limits.max_outputs, || {
            format!(
                "bucket of {} tokens and {} outputs, the step buffer holds {} and {}",
                bucket.tokens, bucket.outputs, layout.limits.max_tokens, layout.limits.max_outputs
            )
        })?;
        let address = self.bind(&self.segment.step)?;
        self.require(address.is_multiple_of(8), || "step buffer not aligned to 8 bytes".into())
    }

    fn needs(&self) -> StepNeeds {
        let vocab = |op: &BoundOp| match op.op.kind {
            OpKind::Embed { vocab, .. } => Some(vocab),
            _ => None,
        };
        let any = |is: fn(&OpKind) -> bool| self.segment.ops.iter().any(|op| is(&op.op.kind));
        StepNeeds {
            bucket: self.segment.bucket,
            layout: self.segment.step_layout,
            vocab: self.segment.ops.iter().filter_map(vocab).min(),
            outputs: any(|kind| matches!(kind, OpKind::SelectOutputs { .. } | OpKind::Sample { .. })),
            samples: any(|kind| matches!(kind, OpKind::Sample { .. })),
            tables: self.tables.clone(),
        }
    }

    /// The scratch so far if it is large enough, or a larger one.
    fn scratch(&self) -> Result<Arc<Scratch>> {
        let workers = self.context.queue.workers;
        let (mut worker_bytes, mut shared_bytes) = (self.scratch_bytes.next_multiple_of(4096), self.shared_bytes);
        if let Some(scratch) = &self.context.scratch {
            if scratch.worker_bytes >= worker_bytes && scratch.shared_bytes() >= shared_bytes {
                return Ok(Arc::clone(scratch));
            }
            worker_bytes = worker_bytes.max(scratch.worker_bytes);
            shared_bytes = shared_bytes.max(scratch.shared_bytes());
        }
        let worker_bytes = worker_bytes.max(4096);
        let size_bytes = worker_bytes.checked_mul(workers).and_then(|n| n.checked_add(shared_bytes));
        let memory = size_bytes.and_then(HostMemory::new).ok_or_else(|| Error::OutOfMemory {
            device: crate::DEVICE,
            name: "kernel scratch".into(),
            requested_bytes: size_bytes.unwrap_or(usize::MAX) as u64,
            available_bytes: 0,
        })?;
        Ok(Arc::new(Scratch { memory, worker_bytes, workers }))
    }

    /// The address of a slice, which must be of this device; the buffer is kept.
    fn bind(&mut self, slice: &BufferSlice) -> Result<usize> {
        let address = self.address(slice)?;
        self.buffers.push(slice.clone());
        Ok(address)
    }

    fn address(&self, slice: &BufferSlice) -> Result<usize> {
        let allocation = slice.buffer().allocation();
        let ours =
            allocation.as_any().downcast_ref::<CpuAllocation>().is_some_and(|a| a.belongs_to(self.context.registry));
        if !ours {
            let (device, current) = (crate::DEVICE, biga_hal::Epoch::default());
            if allocation.owner() == Some(device) && allocation.epoch() != current {
                return Err(Error::StaleHandle { device, handle: allocation.epoch(), current });
            }
            return Err(self.invalid(format!("buffer {} was not allocated or imported here", allocation.name())));
        }
        usize::try_from(slice.device_address()).map_err(|_| self.invalid("address beyond this machine's"))
    }

    fn rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.segment.bucket.tokens,
            Rows::Outputs => self.segment.bucket.outputs,
        }
    }

    fn value(&mut self, what: &str, slice: &BufferSlice, rows: usize, width: usize, write: bool) -> Result<Value> {
        let wanted = rows.checked_mul(width).and_then(|n| n.checked_mul(4));
        let size_bytes = slice.size_bytes();
        self.require(wanted.is_some_and(|wanted| wanted as u64 <= size_bytes), || {
            format!("{what} of {size_bytes} bytes for {rows} rows of {width} f32")
        })?;
        let writable = slice.host_range().is_some_and(|range| range.writable);
        self.require(writable || !write, || format!("{what} in read-only memory"))?;
        let address = self.bind(slice)?;
        self.require(address.is_multiple_of(4), || format!("{what} not aligned to 4 bytes"))?;
        Ok(Value { address, width })
    }

    fn weight(&mut self, index: usize, bound: &BoundWeight, shape: WeightShape) -> Result<Matrix> {
        self.require((bound.rows, bound.columns) == (shape.rows, shape.columns), || {
            format!("weight {index} is {} × {}, not {} × {}", bound.rows, bound.columns, shape.rows, shape.columns)
        })?;
        let row_bytes = bound.dtype.row_bytes(shape.columns).ok_or_else(|| {
            self.invalid(format!("weight {index}: {} columns are no whole blocks of {}", shape.columns, bound.dtype))
        })?;
        let size_bytes = bound.slice.size_bytes();
        self.require(row_bytes.checked_mul(shape.rows).is_some_and(|wanted| wanted as u64 == size_bytes), || {
            format!("weight {index} of {size_bytes} bytes for {} rows of {row_bytes}", shape.rows)
        })?;
        let address = self.bind(&bound.slice)?;
        Ok(Matrix { address, dtype: bound.dtype, rows: shape.rows, columns: shape.columns, row_bytes })
    }

    fn kv(&mut self, kv: &BoundKv, heads: Heads, window: Option<usize>) -> Result<KvPlace> {
        let limits = self.segment.step_layout.limits;
        self.require(kv.table < limits.n_tables, || format!("block table {} of {}", kv.table, limits.n_tables))?;
        self.require(kv.block_len > 0 && limits.max_slots > 0 && limits.max_blocks > 0, || {
            "a block, the slots and the block table must not be empty".into()
        })?;
        let row_bytes = kv.dtype.row_bytes(heads.head_dim).ok_or_else(|| {
            self.invalid(format!("head_dim {} is no whole number of {} blocks", heads.head_dim, kv.dtype))
        })?;
        let part = row_bytes.checked_mul(kv.block_len).and_then(|n| n.checked_mul(heads.n_kv_heads));
        let fits = |offset: u64| {
            part.and_then(|part| offset.checked_add(part as u64)).is_some_and(|end| end <= kv.block_bytes)
        };
        self.require(fits(kv.k_offset_bytes) && fits(kv.v_offset_bytes), || {
            format!("keys or values outside their block of {} bytes", kv.block_bytes)
        })?;
        let block_bytes =
            usize::try_from(kv.block_bytes).map_err(|_| self.invalid("block larger than the address space"))?;
        let table_use = self.table_use(kv, block_bytes, window)?;
        Ok(KvPlace {
            table_use,
            block_len: kv.block_len,
            k_offset: kv.k_offset_bytes as usize,
            v_offset: kv.v_offset_bytes as usize,
            dtype: kv.dtype,
            row_bytes,
        })
    }

    /// Enters a use of a block table; uses of one table must agree on its blocks and need the longest window.
    fn table_use(&mut self, kv: &BoundKv, block_bytes: usize, window: Option<usize>) -> Result<usize> {
        let new = TableUse { table: kv.table, block_len: kv.block_len, block_bytes, window };
        let Some(index) = self.tables.iter().position(|table| table.table == kv.table) else {
            self.tables.push(new);
            return Ok(self.tables.len() - 1);
        };
        let old = &mut self.tables[index];
        if (old.block_len, old.block_bytes) != (new.block_len, new.block_bytes) {
            let cause = format!("block table {} with two sizes of block", kv.table);
            return Err(self.invalid(cause));
        }
        old.window = old.window.zip(window).map(|(a, b)| a.max(b));
        Ok(index)
    }

    fn op(&mut self, bound: &BoundOp) -> Result<(Call, Dispatch)> {
        let kind = &bound.op.kind;
        // First of all, because it bounds the dimensions with which everything below computes.
        let dtypes: Vec<DType> = bound.weights.iter().map(|weight| weight.dtype).collect();
        supports(&OpQuery { kind, weights: &dtypes, kv: bound.kv.as_ref().map(|kv| kv.dtype) })?;
        let shapes = kind.weights();
        self.require(bound.weights.len() == shapes.len(), || {
            format!("{} weights, {} wanted", bound.weights.len(), shapes.len())
        })?;
        let widths = kind.input_widths();
        self.require(bound.inputs.len() == widths.len(), || {
            format!("{} inputs, {} wanted", bound.inputs.len(), widths.len())
        })?;
        let samples = matches!(kind, OpKind::Sample { .. });
        self.require(bound.output.is_some() == (samples || kind.output_width().is_some()), || {
            "output missing or too many".into()
        })?;
        self.require(bound.kv.is_some() == kind.uses_kv(), || "kv cache missing or too many".into())?;

        let input_rows = match kind {
            OpKind::SelectOutputs { .. } => Rows::Tokens,
            _ => bound.rows,
        };
        self.check_rows(kind, bound.rows)?;
        let mut inputs = Vec::with_capacity(widths.len());
        for (slice, &width) in bound.inputs.iter().zip(&widths) {
            inputs.push(self.value("input", slice, self.rows(input_rows), width, false)?);
        }
        let output = match (&bound.output, kind.output_width()) {
            (Some(slice), Some(width)) => {
                let value = self.value("output", slice, self.rows(bound.rows), width, true)?;
                self.check_overlap(bound, slice, &inputs, value)?;
                Some(value)
            }
            _ => None,
        };
        let mut weights = Vec::with_capacity(shapes.len());
        for (index, (weight, shape)) in bound.weights.iter().zip(&shapes).enumerate() {
            weights.push(self.weight(index, weight, *shape)?);
        }
        let dispatch = dispatch(self.segment, bound);
        Ok((self.call(bound, &inputs, output, &weights)?, dispatch))
    }

    /// Ops that read positions or slots run over tokens, the selection and the choice over outputs.
    fn check_rows(&self, kind: &OpKind, rows: Rows) -> Result<()> {
        let wanted = match kind {
            OpKind::Embed { .. } | OpKind::Rope { .. } | OpKind::KvAppend { .. } | OpKind::Attention { .. } => {
                Rows::Tokens
            }
            OpKind::SelectOutputs { .. } | OpKind::Sample { .. } => Rows::Outputs,
            _ => return Ok(()),
        };
        self.require(rows == wanted, || format!("runs over {rows:?}, not {wanted:?}"))
    }

    /// The output overlaps no input and no weight, except that an element-wise op may write in place.
    fn check_overlap(&self, bound: &BoundOp, slice: &BufferSlice, inputs: &[Value], output: Value) -> Result<()> {
        let out = range(slice);
        for (index, input) in bound.inputs.iter().enumerate() {
            let in_place = bound.op.kind.in_place_input() == Some(index) && inputs[index].address == output.address;
            self.require(in_place || !range(input).overlaps(&out), || format!("output overlaps input {index}"))?;
        }
        let clear = bound.weights.iter().all(|weight| !range(&weight.slice).overlaps(&out));
        self.require(clear, || "output overlaps a weight".into())
    }

    fn call(&mut self, bound: &BoundOp, inputs: &[Value], output: Option<Value>, weights: &[Matrix]) -> Result<Call> {
        // PANIC: the counts of inputs, outputs and weights were compared with the op's by the caller.
        let y = output.unwrap_or(Value { address: 0, width: 0 });
        let x = inputs.first().copied().unwrap_or(y);
        let vector = |index: usize| Vector { address: weights[index].address, len: weights[index].columns };
        Ok(match &bound.op.kind {
            OpKind::Embed { scale, .. } => Call::Embed { table: weights[0], scale: *scale, y },
            &OpKind::RmsNorm { eps, weight_offset, .. } => {
                Call::RmsNorm { x, weight: vector(0), eps, offset: weight_offset, y }
            }
            OpKind::QkvProjection { bias, .. } => {
                self.product(x, &weights[..3], bias.then(|| [vector(3), vector(4), vector(5)]).as_ref(), None, y)
            }
            OpKind::OutputProjection { bias, .. } => {
                self.product(x, &weights[..1], bias.then(|| [vector(1)]).as_ref(), None, y)
            }
            OpKind::GateUp { .. } | OpKind::Down { .. } => self.product::<0>(x, weights, None, None, y),
            OpKind::Head { softcap, .. } => self.product::<0>(x, weights, None, *softcap, y),
            &OpKind::QkNorm { heads, eps, weight_offset } => {
                Call::QkNorm { x, q: vector(0), k: vector(1), heads, eps, offset: weight_offset, y }
            }
            OpKind::Rope { heads, style, inv_freqs } => {
                self.need_scratch(Some(4 * heads.head_dim))?;
                Call::Rope { x, heads: *heads, style: *style, inv_freqs: Arc::clone(inv_freqs), y }
            }
            &OpKind::KvAppend { heads } => {
                // The append itself needs the block of the token's own position only.
                let kv = self.bound_kv(bound, heads, Some(1))?;
                Call::KvAppend { x, heads, kv }
            }
            &OpKind::Attention { heads, scale, window, softcap } => {
                let kv = self.bound_kv(bound, heads, window)?;
                let shape = AttentionShape { heads, scale, window, softcap, dtype: kv.dtype };
                let longest = self.segment.step_layout.limits.max_blocks.saturating_mul(kv.block_len);
                let seen = window.map_or(longest, |window| window.min(longest));
                let plain = seen.saturating_add(heads.head_dim);
                let len = plain.max(run::attention_scratch_len(heads.head_dim));
                self.need_scratch(len.checked_mul(4))?;
                Call::Attention { x, shape, kv, y }
            }
            OpKind::Residual { .. } => Call::Residual { a: inputs[0], b: inputs[1], y },
            &OpKind::Activate { ff, activation } => Call::Activate { x, ff, activation, y },
            OpKind::SelectOutputs { .. } => Call::Select { x, y },
            OpKind::Sample { .. } => Call::Sample { x, ring: self.ring(bound)? },
            other => return Err(self.invalid(format!("{} has no kernel", other.name()))),
        })
    }

    /// The address of the results ring. The step buffer is written too.
    fn ring(&mut self, bound: &BoundOp) -> Result<usize> {
        let Some(ring) = &bound.output else { return Err(self.invalid("no results ring is bound")) };
        let (rows, most) = (self.segment.bucket.outputs, self.segment.step_layout.limits.max_tokens);
        self.require(rows <= most, || format!("{rows} rows sampled, the next step holds {most} tokens"))?;
        let (has, wanted) = (ring.size_bytes(), self.segment.step_layout.ring_bytes());
        self.require(has >= wanted as u64, || format!("a results ring of {has} bytes, {wanted} wanted"))?;
        let (ring_range, step_range) = (range(ring), range(&self.segment.step));
        for slice in [ring, &self.segment.step] {
            let writable = slice.host_range().is_some_and(|range| range.writable);
            self.require(writable, || "step buffer or results ring in read-only memory".into())?;
        }
        let clear = bound.inputs.iter().map(range).all(|x| !x.overlaps(&ring_range) && !x.overlaps(&step_range));
        self.require(clear && !ring_range.overlaps(&step_range), || "results ring, step and logits overlap".into())?;
        self.bind(ring)
    }

    fn bound_kv(&mut self, bound: &BoundOp, heads: Heads, window: Option<usize>) -> Result<KvPlace> {
        match &bound.kv {
            Some(kv) => self.kv(kv, heads, window),
            None => Err(self.invalid("kv cache missing")),
        }
    }

    fn product<const N: usize>(
        &mut self,
        x: Value,
        weights: &[Matrix],
        biases: Option<&[Vector; N]>,
        softcap: Option<f32>,
        y: Value,
    ) -> Call {
        let mut column = 0;
        let mut parts = Vec::with_capacity(weights.len());
        for (index, &weight) in weights.iter().enumerate() {
            parts.push(Part { weight, bias: biases.and_then(|biases| biases.get(index).copied()), column });
            column += weight.rows;
        }
        self.scratch_bytes = self.scratch_bytes.max(run::product_scratch_len(x.width) * 4);
        let shared = run::product_shared_len(x.width, self.segment.bucket.tokens.max(self.segment.bucket.outputs));
        self.shared_bytes = self.shared_bytes.max(shared.saturating_mul(4));
        Call::Product { x, parts, softcap, y }
    }

    fn need_scratch(&mut self, size_bytes: Option<usize>) -> Result<()> {
        let size_bytes = size_bytes.ok_or_else(|| self.invalid("context too long"))?;
        self.scratch_bytes = self.scratch_bytes.max(size_bytes);
        Ok(())
    }
}

fn range(slice: &BufferSlice) -> ByteRange {
    ByteRange { address: slice.device_address(), size_bytes: slice.size_bytes() }
}

/// What the call reads and writes.
fn dispatch(segment: &Segment, bound: &BoundOp) -> Dispatch {
    let mut reads: Vec<ByteRange> = bound.inputs.iter().map(range).collect();
    reads.extend(bound.weights.iter().map(|weight| range(&weight.slice)));
    reads.push(range(&segment.step));
    let mut writes: Vec<ByteRange> = bound.output.iter().map(range).collect();
    if matches!(bound.op.kind, OpKind::Sample { .. }) {
        writes.push(range(&segment.step));
    }
    match (&bound.op.kind, &bound.kv) {
        (&OpKind::KvAppend { heads }, Some(kv)) => writes.extend(kv.ranges(heads).into_iter().flatten()),
        (&OpKind::Attention { heads, .. }, Some(kv)) => reads.extend(kv.ranges(heads).into_iter().flatten()),
        _ => {}
    }
    Dispatch { name: bound.op.kind.name().into(), reads, writes, barrier_before: true }
}
