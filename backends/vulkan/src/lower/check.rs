//! Whether a segment agrees with itself: counts, sizes, alignment. What passes here cannot make a kernel
//! leave its buffers.

use biga_hal::{
    BoundOp, BufferSlice, ByteRange, Error, OpKind, Result, Rows, Segment, StepLayout, WeightRole, WeightShape,
};

use crate::weight;

/// Kernels index values and weights with 31 bits.
const MAX_ELEMENTS: usize = (1 << 31) - 1;

pub(super) fn invalid(segment: &Segment, bound: &BoundOp, cause: impl Into<String>) -> Error {
    Error::InvalidSegment { segment: segment.name.clone(), op: bound.op.kind.name(), cause: cause.into() }
}

/// The step buffer and the bucket.
pub(super) fn segment(segment: &Segment) -> Result<()> {
    let fail = |cause: String| Err(Error::InvalidSegment { segment: segment.name.clone(), op: "segment", cause });
    let (layout, bucket) = (&segment.step_layout, segment.bucket);
    if StepLayout::new(layout.limits)? != *layout {
        return fail("the step layout is not that of its limits".into());
    }
    if segment.step.size_bytes() < layout.size_bytes as u64 {
        return fail(format!(
            "the step buffer has {} bytes, its layout {}",
            segment.step.size_bytes(),
            layout.size_bytes
        ));
    }
    if !segment.step.device_address().is_multiple_of(16) {
        return fail("the step buffer does not start at a multiple of 16 bytes".into());
    }
    if bucket.tokens == 0 || bucket.tokens > layout.limits.max_tokens || bucket.outputs > layout.limits.max_outputs {
        return fail(format!(
            "bucket of {} tokens and {} outputs, the step holds {} and {}",
            bucket.tokens, bucket.outputs, layout.limits.max_tokens, layout.limits.max_outputs
        ));
    }
    Ok(())
}

/// One op.
pub(super) fn op(segment: &Segment, bound: &BoundOp) -> Result<()> {
    let kind = &bound.op.kind;
    let fail = |cause: String| Err(invalid(segment, bound, cause));
    let rows_of = |rows| match rows {
        Rows::Tokens => segment.bucket.tokens,
        Rows::Outputs => segment.bucket.outputs,
    };
    // These kernels take their rows from one count of the step, whatever the op is bound to.
    let fixed = match kind {
        OpKind::Embed { .. }
        | OpKind::QkNorm { .. }
        | OpKind::Rope { .. }
        | OpKind::KvAppend { .. }
        | OpKind::Attention { .. } => Some(Rows::Tokens),
        OpKind::SelectOutputs { .. } | OpKind::Sample { .. } => Some(Rows::Outputs),
        _ => None,
    };
    if let Some(fixed) = fixed.filter(|&fixed| fixed != bound.rows) {
        return fail(format!("runs over {:?}, not {fixed:?}", bound.rows));
    }
    let rows = rows_of(bound.rows);
    let input_rows = if matches!(kind, OpKind::SelectOutputs { .. }) { segment.bucket.tokens } else { rows };
    let widths = kind.input_widths();
    if bound.inputs.len() != widths.len() {
        return fail(format!("{} inputs are bound, {} are wanted", bound.inputs.len(), widths.len()));
    }
    for (slice, width) in bound.inputs.iter().zip(widths) {
        value(segment, bound, slice, input_rows, width)?;
    }
    match (&bound.output, kind.output_width()) {
        (Some(slice), Some(width)) => value(segment, bound, slice, rows, width)?,
        (Some(slice), None) if matches!(kind, OpKind::Sample { .. }) => ring(segment, bound, slice)?,
        (None, None) => {}
        (Some(_), None) => return fail("an output is bound, none is left".into()),
        (None, Some(_)) => return fail("no output is bound".into()),
    }
    let shapes = kind.weights();
    if bound.weights.len() != shapes.len() {
        return fail(format!("{} weights are bound, {} are wanted", bound.weights.len(), shapes.len()));
    }
    for (weight, shape) in bound.weights.iter().zip(shapes) {
        if (weight.rows, weight.columns) != (shape.rows, shape.columns) {
            return fail(format!(
                "a weight of {}x{} is bound, {}x{} is wanted",
                weight.rows, weight.columns, shape.rows, shape.columns
            ));
        }
        check_weight(segment, bound, weight, &shape)?;
    }
    overlap(segment, bound, rows, input_rows)?;
    if bound.kv.is_some() && !kind.uses_kv() {
        return fail("a KV cache is bound, none is used".into());
    }
    heads(segment, bound)
}

/// The results ring of a sampling, and the rows of the step that follows it.
fn ring(segment: &Segment, bound: &BoundOp, slice: &BufferSlice) -> Result<()> {
    let fail = |cause: String| Err(invalid(segment, bound, cause));
    let (layout, rows) = (&segment.step_layout, segment.bucket.outputs);
    if slice.size_bytes() < layout.ring_bytes() as u64 || !slice.device_address().is_multiple_of(4) {
        return fail(format!("a results ring of {} bytes, {} are wanted", slice.size_bytes(), layout.ring_bytes()));
    }
    if rows > layout.limits.max_tokens {
        return fail(format!("{rows} rows sampled, the next step holds {} tokens", layout.limits.max_tokens));
    }
    let (ring, step) = (range(slice), range(&segment.step));
    let clear = bound.inputs.iter().map(range).all(|x| !x.overlaps(&ring) && !x.overlaps(&step));
    if !clear || ring.overlaps(&step) {
        return fail("logits, step buffer and results ring overlap".into());
    }
    Ok(())
}

/// The output overlaps no weight and no input, except that an element-wise op may write in place.
fn overlap(segment: &Segment, bound: &BoundOp, rows: usize, input_rows: usize) -> Result<()> {
    let kind = &bound.op.kind;
    let (Some(output), Some(width)) = (&bound.output, kind.output_width()) else { return Ok(()) };
    let out = value_range(output, rows, width);
    for (i, (slice, width)) in bound.inputs.iter().zip(kind.input_widths()).enumerate() {
        let input = value_range(slice, input_rows, width);
        let in_place = kind.in_place_input() == Some(i) && input == out;
        if !in_place && input.overlaps(&out) {
            return Err(invalid(segment, bound, format!("the output overlaps input {i}")));
        }
    }
    if bound.weights.iter().any(|weight| range(&weight.slice).overlaps(&out)) {
        return Err(invalid(segment, bound, "the output overlaps a weight"));
    }
    if range(&segment.step).overlaps(&out) {
        return Err(invalid(segment, bound, "the output overlaps the step buffer"));
    }
    Ok(())
}

/// All of a slice.
pub(super) fn range(slice: &BufferSlice) -> ByteRange {
    ByteRange { address: slice.device_address(), size_bytes: slice.size_bytes() }
}

/// The part of a slice that a value takes.
pub(super) fn value_range(slice: &BufferSlice, rows: usize, width: usize) -> ByteRange {
    ByteRange { address: slice.device_address(), size_bytes: (4 * rows * width) as u64 }
}

fn value(segment: &Segment, bound: &BoundOp, slice: &BufferSlice, rows: usize, width: usize) -> Result<()> {
    let elements = rows.checked_mul(width).filter(|&n| n <= MAX_ELEMENTS);
    let Some(elements) = elements else {
        return Err(invalid(
            segment,
            bound,
            format!("a value of {rows}x{width} has more than {MAX_ELEMENTS} elements"),
        ));
    };
    if slice.size_bytes() < 4 * elements as u64 {
        let has = slice.size_bytes();
        return Err(invalid(segment, bound, format!("a value of {rows}x{width} f32 is bound to {has} bytes")));
    }
    if !slice.device_address().is_multiple_of(16) {
        return Err(invalid(segment, bound, "a value does not start at a multiple of 16 bytes"));
    }
    Ok(())
}

fn check_weight(
    segment: &Segment,
    bound: &BoundOp,
    bound_weight: &biga_hal::BoundWeight,
    shape: &WeightShape,
) -> Result<()> {
    let (rows, columns, dtype) = (shape.rows, shape.columns, bound_weight.dtype);
    if shape.role == WeightRole::Vector && dtype != biga_hal::DType::F32 {
        return Err(invalid(segment, bound, format!("a vector in {dtype}, only f32 is read")));
    }
    let small_enough = rows.checked_mul(weight::chunks(columns) * weight::CHUNK).is_some_and(|n| n / 4 <= MAX_ELEMENTS);
    let size_bytes = weight::size_bytes(shape, dtype).filter(|_| small_enough);
    let Some(size_bytes) = size_bytes else {
        return Err(invalid(segment, bound, format!("a weight of {rows}x{columns} {dtype} has no layout here")));
    };
    if bound_weight.slice.size_bytes() < size_bytes as u64 {
        let has = bound_weight.slice.size_bytes();
        let cause = format!("a weight of {rows}x{columns} {dtype} takes {size_bytes} bytes, {has} are bound");
        return Err(invalid(segment, bound, cause));
    }
    if !bound_weight.slice.device_address().is_multiple_of(16) {
        return Err(invalid(segment, bound, "a weight does not start at a multiple of 16 bytes"));
    }
    Ok(())
}

/// Head geometry, the cache and the table of frequencies.
fn heads(segment: &Segment, bound: &BoundOp) -> Result<()> {
    let fail = |cause: String| Err(invalid(segment, bound, cause));
    let heads = match &bound.op.kind {
        OpKind::Rope { heads, inv_freqs, .. } => {
            if heads.head_dim != 2 * inv_freqs.len() {
                return fail(format!("{} frequencies for heads of {}", inv_freqs.len(), heads.head_dim));
            }
            heads
        }
        OpKind::KvAppend { heads } | OpKind::Attention { heads, .. } => heads,
        _ => return Ok(()),
    };
    if heads.n_kv_heads == 0 || !heads.n_heads.is_multiple_of(heads.n_kv_heads) {
        return fail(format!("{} heads over {} KV heads", heads.n_heads, heads.n_kv_heads));
    }
    if !bound.op.kind.uses_kv() {
        return Ok(());
    }
    let Some(kv) = &bound.kv else { return fail("no KV cache is bound".into()) };
    let Some(row_bytes) = kv.dtype.row_bytes(heads.head_dim).filter(|_| biga_hal::DType::KV.contains(&kv.dtype)) else {
        return fail(format!("a KV cache in {} with heads of {}", kv.dtype, heads.head_dim));
    };
    if kv.table >= segment.step_layout.limits.n_tables || kv.block_len == 0 {
        return fail(format!("table {} with blocks of {} positions", kv.table, kv.block_len));
    }
    let positions = segment.step_layout.limits.max_blocks.checked_mul(kv.block_len);
    if positions.is_none_or(|n| n == 0 || n > MAX_ELEMENTS) || kv.block_bytes > u64::from(u32::MAX) {
        let (max_blocks, len, bytes) = (segment.step_layout.limits.max_blocks, kv.block_len, kv.block_bytes);
        return fail(format!("{max_blocks} blocks of {len} positions and {bytes} bytes, more than kernels count"));
    }
    let part = row_bytes.checked_mul(heads.n_kv_heads).and_then(|n| n.checked_mul(kv.block_len));
    let inside =
        |offset: u64| part.is_some_and(|part| offset.checked_add(part as u64).is_some_and(|end| end <= kv.block_bytes));
    if !inside(kv.k_offset_bytes) || !inside(kv.v_offset_bytes) {
        return fail(format!("keys or values end outside a block of {} bytes", kv.block_bytes));
    }
    let alignment = if kv.dtype == biga_hal::DType::F32 { 4 } else { 2 };
    if kv.k_offset_bytes % alignment != 0 || kv.v_offset_bytes % alignment != 0 {
        return fail(format!("keys or values do not start at multiples of {alignment} bytes"));
    }
    Ok(())
}
