//! Compiled segments: a flat list of kernel calls with every address resolved.
//!
//! Compilation (`executable/compile.rs`) checks everything that does not change from step to step, so
//! that the run checks nothing but the step itself. No call is made here; `sys/run.rs` does that.

use std::{
    any::Any,
    sync::{Arc, RwLock, atomic::AtomicUsize},
};

use biga_hal::{Activation, BufferSlice, DType, DeviceId, Dispatch, Executable, Heads, RopeStyle, Rows};

use crate::{
    DEVICE,
    buffer::Registry,
    frame::{Frame, StepNeeds},
    kernels::Kernels,
    sys::memory::HostMemory,
};

mod compile;

pub(crate) use compile::{Context, compile};

/// f32 rows of one value: `[bucket rows, width]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    /// Address of the first row.
    pub(crate) address: usize,
    /// Columns.
    pub(crate) width: usize,
}

/// A stored matrix or table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    /// Address of the first row.
    pub(crate) address: usize,
    /// Format.
    pub(crate) dtype: DType,
    /// Rows.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) columns: usize,
    /// Bytes from row to row.
    pub(crate) row_bytes: usize,
}

/// A vector of little-endian f32 at any address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vector {
    /// Address of the first element.
    pub(crate) address: usize,
    /// Elements.
    pub(crate) len: usize,
}

/// One weight of a product: `y[.., column..column + rows] = x · weightᵀ + bias`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The weight.
    pub(crate) weight: Matrix,
    /// Added to each output row.
    pub(crate) bias: Option<Vector>,
    /// First column in the output.
    pub(crate) column: usize,
}

/// Where a layer's keys and values lie within a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvPlace {
    /// Index into [`StepNeeds::tables`].
    pub(crate) table_use: usize,
    /// Positions in a block.
    pub(crate) block_len: usize,
    /// Start of the layer's keys.
    pub(crate) k_offset: usize,
    /// Start of the layer's values.
    pub(crate) v_offset: usize,
    /// Format.
    pub(crate) dtype: DType,
    /// Bytes of one head of one position.
    pub(crate) row_bytes: usize,
}

/// One kernel call.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// Rows of a table.
    Embed { table: Matrix, scale: f32, y: Value },
    /// RMS norm of rows.
    RmsNorm { x: Value, weight: Vector, eps: f32, offset: f32, y: Value },
    /// Matrix products that share their input.
    Product { x: Value, parts: Vec<Part>, softcap: Option<f32>, y: Value },
    /// RMS norm of q and k heads.
    QkNorm { x: Value, q: Vector, k: Vector, heads: Heads, eps: f32, offset: f32, y: Value },
    /// Rotary embedding of q and k heads.
    Rope { x: Value, heads: Heads, style: RopeStyle, inv_freqs: Arc<[f32]>, y: Value },
    /// k and v into the cache.
    KvAppend { x: Value, heads: Heads, kv: KvPlace },
    /// Attention over the cache.
    Attention { x: Value, shape: crate::reference::AttentionShape, kv: KvPlace, y: Value },
    /// Sum of two values.
    Residual { a: Value, b: Value, y: Value },
    /// Gated activation.
    Activate { x: Value, ff: usize, activation: Activation, y: Value },
    /// Rows that want logits.
    Select { x: Value, y: Value },
    /// Choice of the tokens that follow; the address is that of the results ring.
    Sample { x: Value, ring: usize },
}

/// A call and what the team needs to share it.
#[derive(Debug)]
pub(crate) struct Step {
    /// The call.
    pub(crate) call: Call,
    /// Rows of its output.
    pub(crate) rows: Rows,
    /// Next piece of work that no worker has taken; zeroed before each run.
    pub(crate) next: AtomicUsize,
    /// Next row of activations that no worker has prepared; zeroed before each run.
    pub(crate) prepared: AtomicUsize,
}

/// Memory that kernels use within a call: a part for each worker, then one that they share.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// The memory.
    pub(crate) memory: HostMemory,
    /// Bytes of one worker's part.
    pub(crate) worker_bytes: usize,
    /// Workers.
    pub(crate) workers: usize,
}

impl Scratch {
    /// Address of the shared part.
    pub(crate) fn shared_address(&self) -> usize {
        self.memory.address() + self.worker_bytes * self.workers
    }

    /// Bytes of the shared part.
    pub(crate) fn shared_bytes(&self) -> usize {
        self.memory.size_bytes() - self.worker_bytes * self.workers
    }
}

/// What a compiled segment runs.
#[derive(Debug)]
pub(crate) struct Program {
    /// The calls, in order.
    pub(crate) steps: Vec<Step>,
    /// What it needs of a step.
    pub(crate) needs: StepNeeds,
    /// Address of the step buffer.
    pub(crate) step_address: usize,
    /// The device's copy of the step.
    pub(crate) frame: Arc<RwLock<Frame>>,
    /// Kernel scratch.
    pub(crate) scratch: Arc<Scratch>,
    /// Which kernels.
    pub(crate) kernels: Kernels,
    /// Every buffer that an address above points into.
    #[expect(dead_code, reason = "holds the memory")]
    pub(crate) buffers: Vec<BufferSlice>,
}

/// A compiled segment.
#[derive(Debug)]
pub(crate) struct CpuExecutable {
    name: String,
    dispatches: Vec<Dispatch>,
    /// As a job of the pool.
    pub(crate) program: Arc<Program>,
    /// The device that made it.
    pub(crate) registry: Arc<Registry>,
}

impl Executable for CpuExecutable {
    fn device(&self) -> DeviceId {
        DEVICE
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
