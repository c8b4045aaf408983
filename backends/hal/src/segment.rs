//! Segments: consecutive ops on one device, compiled once and submitted together.

use std::{any::Any, fmt, sync::Arc};

use crate::{BufferSlice, DType, DeviceId, Heads, Op, Rows, StepLayout};

/// The largest step that one compiled segment serves. A smaller step fits: kernels read the real
/// counts from the step header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Bucket {
    /// Token rows; at least one.
    pub tokens: usize,
    /// Distinct sequences.
    pub sequences: usize,
    /// Rows that want logits; may be none.
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
/// A block holds `block_len` positions of every layer of a group and starts at a multiple of 16 bytes. From the block's address, a layer's
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

impl BoundKv {
    /// What a launch declares that touches the layer's keys and its values, see [`ByteRange::KV_SPACE`].
    /// `None` if a part has no size: the format does not divide the heads, or no address counts it.
    pub fn ranges(&self, heads: Heads) -> Option<[ByteRange; 2]> {
        let head_bytes = self.dtype.row_bytes(heads.head_dim)?.checked_mul(self.block_len)?;
        let size_bytes = head_bytes.checked_mul(heads.n_kv_heads)? as u64;
        let table = u64::try_from(self.table).ok()?.checked_mul(ByteRange::KV_TABLE_BYTES)?;
        let at = |offset: u64| {
            let address = ByteRange::KV_SPACE.checked_add(table)?.checked_add(offset)?;
            Some(ByteRange { address, size_bytes })
        };
        Some([at(self.k_offset_bytes)?, at(self.v_offset_bytes)?])
    }
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
    /// Output value; may be the same memory as the input named by [`crate::OpKind::in_place_input`]. For
    /// [`crate::OpKind::Sample`] the results ring, [`StepLayout::ring_bytes`] long.
    pub output: Option<BufferSlice>,
    /// Weights in the op's order.
    pub weights: Vec<BoundWeight>,
    /// KV cache, for the ops that use it.
    pub kv: Option<BoundKv>,
    /// True if nobody but later ops of this segment reads the output. A device that computes several ops in
    /// one launch may then leave it unwritten.
    pub internal: bool,
}

/// What a backend compiles.
#[derive(Clone, Debug)]
pub struct Segment {
    /// For logs and reports.
    pub name: String,
    /// The largest step. With no outputs, the ops over output rows compute nothing.
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
    /// Where declared parts of KV caches lie, above every device address: only a step knows where a block
    /// is, so a range here stands for the same bytes of each block of a table. Table `t` has the
    /// [`ByteRange::KV_TABLE_BYTES`] from `KV_SPACE + t * KV_TABLE_BYTES` on, a block's first byte being
    /// the first of them. Blocks of two tables share no bytes.
    pub const KV_SPACE: u64 = 1 << 62;

    /// What one block table has of [`ByteRange::KV_SPACE`].
    pub const KV_TABLE_BYTES: u64 = 1 << 40;

    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.size_bytes)
    }

    /// True if the two share a byte.
    pub fn overlaps(&self, other: &ByteRange) -> bool {
        self.address.max(other.address) < self.end().min(other.end())
    }
}

/// One kernel launch inside an executable, as far as ordering is concerned. From these declarations a
/// backend derives its barriers; the conformance suite checks that the barriers suffice for them, and that
/// no launch touches what it does not declare.
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

#[cfg(test)]
mod tests {
    use super::{BoundKv, ByteRange};
    use crate::{DType, Heads};

    fn check(a: (u64, u64), b: (u64, u64), expected: bool) {
        let range = |(address, size_bytes)| ByteRange { address, size_bytes };
        assert_eq!(range(a).overlaps(&range(b)), expected, "{a:?} {b:?}");
        assert_eq!(range(b).overlaps(&range(a)), expected, "{b:?} {a:?}");
    }

    #[test]
    fn ranges_overlap_where_they_share_a_byte() {
        check((0, 10), (9, 1), true);
        check((0, 10), (10, 1), false);
        check((4, 2), (0, 100), true);
        check((5, 0), (0, 10), false);
        check((u64::MAX - 1, 9), (u64::MAX - 1, 1), true);
    }

    #[test]
    fn layers_and_tables_have_their_own_parts_of_the_kv_space() {
        let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 32 };
        let kv = |table, k_offset_bytes| {
            let v_offset_bytes = k_offset_bytes + 2 * 4 * 64;
            BoundKv { table, block_len: 4, k_offset_bytes, v_offset_bytes, block_bytes: 4096, dtype: DType::F16 }
        };
        let parts = [kv(0, 0), kv(0, 1024), kv(1, 0)].map(|kv| kv.ranges(heads).unwrap());
        let parts: Vec<ByteRange> = parts.into_iter().flatten().collect();
        assert!(parts.iter().all(|part| part.size_bytes == 512));
        for (i, a) in parts.iter().enumerate() {
            assert!(parts[i + 1..].iter().all(|b| !a.overlaps(b)));
        }
        assert!(kv(usize::MAX, 0).ranges(heads).is_none());
    }
}
