//! Segments: consecutive ops on one device, compiled once and submitted together.

use std::{any::Any, fmt, sync::Arc};

use crate::{BufferSlice, DType, DeviceId, Op, Rows, StepLayout};

/// The largest step that one compiled segment serves. A smaller step fits: kernels read the real
/// counts from the step header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Bucket {
    /// Token rows.
    pub tokens: usize,
    /// Distinct sequences.
    pub sequences: usize,
    /// Rows that want logits.
    pub outputs: usize,
}

impl Bucket {
    /// True if a step of this size can run in the bucket.
    pub fn holds(&self, tokens: usize, sequences: usize, outputs: usize) -> bool {
        tokens <= self.tokens && sequences <= self.sequences && outputs <= self.outputs
    }
}

/// A weight in the place where the device reads it.
#[derive(Clone, Debug)]
pub struct BoundWeight {
    /// Its bytes, in the layout that [`crate::Device::load_weight`] gave them.
    pub slice: BufferSlice,
    /// Format.
    pub dtype: DType,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

/// Where an op finds its layer's keys and values.
///
/// A block holds `block_len` positions of every layer of a group. From the block's address, a layer's
/// keys start at `k_offset_bytes` and its values at `v_offset_bytes`, each laid out
/// `[n_kv_heads, block_len, head_dim]` in `dtype`. Block `position / block_len` of sequence slot `s`
/// is entry `[s, position / block_len]` of table `table` in the step buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundKv {
    /// Index of the block table in the step buffer.
    pub table: usize,
    /// Positions in a block.
    pub block_len: usize,
    /// Start of the layer's keys in a block.
    pub k_offset_bytes: u64,
    /// Start of the layer's values in a block.
    pub v_offset_bytes: u64,
    /// Bytes of a whole block, all layers of the group together.
    pub block_bytes: u64,
    /// Format of the entries.
    pub dtype: DType,
}

/// An op with everything it touches.
#[derive(Clone, Debug)]
pub struct BoundOp {
    /// What to compute.
    pub op: Arc<Op>,
    /// Rows of its output: those of the step's tokens, or those that want logits (from
    /// [`crate::OpKind::SelectOutputs`] on). Its inputs have as many, except in `SelectOutputs` itself,
    /// which reads token rows.
    pub rows: Rows,
    /// Input values, `[bucket rows, width]` f32 each.
    pub inputs: Vec<BufferSlice>,
    /// Output value; may be the same memory as the input named by [`crate::OpKind::in_place_input`].
    pub output: Option<BufferSlice>,
    /// Weights in the op's order.
    pub weights: Vec<BoundWeight>,
    /// KV cache, for the ops that use it.
    pub kv: Option<BoundKv>,
}

/// What a backend compiles.
#[derive(Clone, Debug)]
pub struct Segment {
    /// For logs and reports.
    pub name: String,
    /// The largest step.
    pub bucket: Bucket,
    /// In execution order.
    pub ops: Vec<BoundOp>,
    /// The step buffer of this device: what changes from step to step.
    pub step: BufferSlice,
    /// How the step buffer is laid out.
    pub step_layout: StepLayout,
}

/// A range of bytes that a dispatch reads or writes. The address is the owner's device address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub address: u64,
    /// Length.
    pub size_bytes: u64,
}

impl ByteRange {
    /// True if the two share a byte.
    pub fn overlaps(&self, other: &ByteRange) -> bool {
        self.address < other.address.saturating_add(other.size_bytes)
            && other.address < self.address.saturating_add(self.size_bytes)
    }
}

/// One kernel launch inside an executable, as far as ordering is concerned. From these declarations a
/// backend derives its barriers and a checker verifies them.
#[derive(Clone, Debug, Default)]
pub struct Dispatch {
    /// Kernel and op, for reports.
    pub name: String,
    /// Ranges read.
    pub reads: Vec<ByteRange>,
    /// Ranges written.
    pub writes: Vec<ByteRange>,
    /// True if everything recorded before is finished and visible when this one starts.
    pub barrier_before: bool,
}

/// A compiled segment.
pub trait Executable: Send + Sync + fmt::Debug {
    /// The device that compiled it.
    fn device(&self) -> DeviceId;
    /// The name of its segment.
    fn name(&self) -> &str;
    /// Its launches, in order.
    fn dispatches(&self) -> &[Dispatch];
    /// For the device, which knows the concrete type.
    fn as_any(&self) -> &dyn Any;
}
