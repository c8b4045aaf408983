//! Devices and the backends that find them.

use std::{any::Any, collections::BTreeMap, fmt, ops::Range, sync::Arc};

use crate::{
    Buffer, BufferDesc, BufferSlice, DType, Epoch, Error, Executable, FencePoint, Result, Segment, Unsupported,
    WeightShape, op::OpQuery,
};

/// Names a device within one process: its backend and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// `cpu`, `vulkan`, `npu`.
    pub backend: &'static str,
    /// In the backend's own order.
    pub index: usize,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.backend == "vulkan" { f.pad(&format!("{}:{}", self.backend, self.index)) } else { f.pad(self.backend) }
    }
}

/// What kind of processor a device is, as far as policies care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// The host's own cores.
    Cpu,
    /// A GPU that shares the host's memory.
    IntegratedGpu,
    /// A GPU with memory of its own.
    DiscreteGpu,
    /// A GPU driver that runs on the CPU: for tests, takes part only when named.
    SoftwareGpu,
    /// A neural processing unit.
    Npu,
}

/// What a device can sustain. Either measured on this machine or assumed, and it says which.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rates {
    /// Bytes per second when reading weights.
    pub read_bytes_per_s: f64,
    /// f32-equivalent operations per second in matrix products of many rows.
    pub flops_per_s: f64,
    /// Seconds that one op costs beside its bytes and arithmetic.
    pub launch_s: f64,
    /// Seconds from a submission to its fence, for an empty segment.
    pub submit_s: f64,
    /// False for defaults by device kind; true for values from [`Device::measure`].
    pub measured: bool,
}

/// What is known of a device before it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// Identity.
    pub id: DeviceId,
    /// Marketing or driver name.
    pub name: String,
    /// Kind.
    pub kind: DeviceKind,
    /// Driver and version, or the instruction sets in use.
    pub driver: String,
    /// Bytes that one engine may take.
    pub memory_bytes: u64,
    /// Largest single allocation.
    pub max_allocation_bytes: u64,
    /// True if the host reads and writes its buffers in place.
    pub host_visible: bool,
    /// Defaults or measured values.
    pub rates: Rates,
    /// Changes when anything changes that would make stored measurements stale: hardware, driver, version.
    pub identity: String,
    /// Further facts, in display order.
    pub facts: Vec<(String, String)>,
    /// What limits the user, each with the next command to run.
    pub findings: Vec<Finding>,
}

/// What measuring chose among ways of doing the same on a device: a name and a value, in words of its backend.
pub type Choices = BTreeMap<String, String>;

/// Something that limits the user.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was seen.
    pub problem: String,
    /// The next command to run, or the next thing to do.
    pub remedy: String,
}

/// Why a backend offers no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Unavailable {
    /// What was seen.
    pub cause: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Things counted from a device's opening on: the proof that steady state sets nothing up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Submissions.
    pub submissions: u64,
    /// Driver objects created: pipelines, buffers, command buffers, semaphores, contexts.
    pub objects_created: u64,
    /// Memory allocations made.
    pub allocations: u64,
    /// Host mappings made.
    pub mappings: u64,
}

/// What [`Device::measure`] can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measurement {
    /// [`Rates::read_bytes_per_s`].
    ReadBandwidth,
    /// [`Rates::flops_per_s`].
    Arithmetic,
    /// [`Rates::launch_s`].
    Launch,
    /// [`Rates::submit_s`].
    Submit,
}

impl Measurement {
    /// Every measurement.
    pub const ALL: [Measurement; 4] =
        [Measurement::ReadBandwidth, Measurement::Arithmetic, Measurement::Launch, Measurement::Submit];
}

/// Rows of a weight are loaded in multiples of so many, so that a device's layout may interleave them.
pub const LOADED_ROWS: usize = 64;

/// Whether `rows` may be loaded as a part of a weight, from a source of so many bytes.
///
/// # Errors
/// [`crate::Error::OutOfRange`] with what was given and what must be.
pub fn check_load(shape: &WeightShape, dtype: DType, rows: &Range<usize>, source_bytes: usize) -> Result<()> {
    let begins = rows.start.is_multiple_of(LOADED_ROWS) && rows.start <= rows.end;
    let ends = rows.end == shape.rows || (rows.end < shape.rows && rows.end.is_multiple_of(LOADED_ROWS));
    let in_file = dtype.row_bytes(shape.columns).and_then(|row| row.checked_mul(rows.len()));
    if begins && ends && in_file == Some(source_bytes) {
        return Ok(());
    }
    Err(Error::OutOfRange {
        buffer: format!("rows {} to {} of a weight of {}", rows.start, rows.end, shape.rows),
        offset: 0,
        size_bytes: source_bytes as u64,
        available_bytes: in_file.filter(|_| begins && ends).unwrap_or(0) as u64,
    })
}

/// An open device.
///
/// Ordering: submissions to one device run in the order submitted, and each sees the writes of those
/// before it. Across devices the caller passes fence points. All methods may be called from any thread.
pub trait Device: Send + Sync + fmt::Debug {
    /// What it is.
    fn info(&self) -> &DeviceInfo;

    /// How often it was opened again after a loss.
    fn epoch(&self) -> Epoch;

    /// Whether it can run an op. Pure: planning calls it for every op.
    ///
    /// # Errors
    /// The cause, in words that the user reads.
    fn supports(&self, query: &OpQuery<'_>) -> std::result::Result<(), Unsupported>;

    /// Allocates a buffer, zeroed.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] with what was asked and what is left.
    fn allocate(&self, desc: &BufferDesc) -> Result<Buffer>;

    /// Allocates a buffer that will be written before it is read: its contents are undefined, where zeroing costs
    /// anything.
    ///
    /// # Errors
    /// As [`Device::allocate`].
    fn allocate_unwritten(&self, desc: &BufferDesc) -> Result<Buffer> {
        self.allocate(desc)
    }

    /// Makes a buffer of another owner (another device's host-visible buffer, a mapped file) bindable here.
    ///
    /// # Errors
    /// [`crate::Error::NotImportable`] if this device cannot reach that memory; the caller then copies.
    fn import(&self, buffer: &Buffer) -> Result<Buffer>;

    /// Bytes that a weight takes in this device's layout.
    fn weight_size_bytes(&self, shape: &WeightShape, dtype: DType) -> u64;

    /// True if the device reads a weight where it lies in host memory, so that nothing is loaded.
    fn reads_weights_in_place(&self) -> bool {
        false
    }

    /// Stores `rows` of a weight, given in its file's layout, into `destination`, the place of the whole weight,
    /// in this device's layout. Set-up only.
    ///
    /// Several threads may store rows at the same time, of one weight too; in any order, and each row once.
    /// `rows` begins at a multiple of [`LOADED_ROWS`] and ends at one or with the weight. The source is not used
    /// after the return; the bytes are there for what is submitted or read after it.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`] if rows or sizes disagree, or the device's own, which may be that of an
    /// earlier call.
    fn load_rows(
        &self,
        shape: &WeightShape,
        dtype: DType,
        rows: Range<usize>,
        source: &[u8],
        destination: &BufferSlice,
    ) -> Result<()>;

    /// Stores a whole weight: see [`Device::load_rows`].
    ///
    /// # Errors
    /// As that.
    fn load_weight(&self, shape: &WeightShape, dtype: DType, source: &[u8], destination: &BufferSlice) -> Result<()> {
        self.load_rows(shape, dtype, 0..shape.rows, source, destination)
    }

    /// Copies host bytes into a buffer. In place for host-visible buffers; set-up only for others.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`] if the sizes differ, or the device's own.
    fn write(&self, destination: &BufferSlice, bytes: &[u8]) -> Result<()>;

    /// Copies a buffer's bytes to the host. In place for host-visible buffers; set-up only for others.
    /// The caller has waited for whatever writes them.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`] if the sizes differ, or the device's own.
    fn read(&self, source: &BufferSlice, bytes: &mut [u8]) -> Result<()>;

    /// Compiles a segment. Everything that a submission needs is made here.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for an op it cannot run, or the device's own.
    fn compile(&self, segment: &Segment) -> Result<Arc<dyn Executable>>;

    /// Runs a compiled segment after `waits`. Allocates nothing, creates nothing.
    ///
    /// # Errors
    /// [`crate::Error::DeviceLost`], [`crate::Error::Timeout`] of a wait, or a stale executable.
    fn submit(&self, executable: &dyn Executable, waits: &[FencePoint]) -> Result<FencePoint>;

    /// Runs a compiled segment like [`Device::submit`], waits, and says how many seconds each of its launches
    /// took, in the order of [`Executable::dispatches`]. The launches run one after another, so that their
    /// times add up to more than a submission takes. Allocates and creates: not for steady state. `None` where
    /// the device does not say.
    ///
    /// # Errors
    /// As [`Device::submit`], and the driver's own.
    fn time_launches(&self, executable: &dyn Executable, waits: &[FencePoint]) -> Result<Option<Vec<f64>>> {
        let _ = (executable, waits);
        Ok(None)
    }

    /// Measures one rate; `progress` is told the fraction done.
    ///
    /// # Errors
    /// The device's own.
    fn measure(&self, what: Measurement, progress: &mut dyn FnMut(f64)) -> Result<f64>;

    /// Measures which of several ways of doing the same is the fastest, for [`Backend::open_with`]; nothing where
    /// there is one way. `progress` is told the fraction done. The open device stays as it is.
    ///
    /// # Errors
    /// The device's own.
    fn tune(&self, progress: &mut dyn FnMut(f64)) -> Result<Choices> {
        let _ = progress;
        Ok(Choices::new())
    }

    /// Counts since opening.
    fn counters(&self) -> Counters;

    /// For callers that know the backend.
    fn as_any(&self) -> &dyn Any;
}

/// Finds and opens the devices of one kind of driver.
pub trait Backend: Send + Sync + fmt::Debug {
    /// The word used in device names: `cpu`, `vulkan`, `npu`.
    fn name(&self) -> &'static str;

    /// Lists its devices without opening them.
    ///
    /// # Errors
    /// Why there is none.
    fn probe(&self) -> std::result::Result<Vec<DeviceInfo>, Unavailable>;

    /// Opens a device that [`Backend::probe`] listed.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchDevice`], or the driver's own.
    fn open(&self, id: DeviceId) -> Result<Arc<dyn Device>>;

    /// Opens a device with what [`Device::tune`] chose on it before. A choice that means nothing to this version is
    /// ignored with a warning.
    ///
    /// # Errors
    /// As [`Backend::open`].
    fn open_with(&self, id: DeviceId, choices: &Choices) -> Result<Arc<dyn Device>> {
        let _ = choices;
        self.open(id)
    }
}
