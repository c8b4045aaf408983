//! The device and the backend that opens it.

use std::{
    any::Any,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use biga_hal::{
    Backend, Buffer, BufferDesc, BufferSlice, Counters, DType, Device, DeviceId, DeviceInfo, Epoch, Error, Executable,
    FencePoint, HostRange, OpQuery, Result, Segment, Unavailable, Unsupported, WeightRole, WeightShape,
    device::Measurement,
};

use crate::{
    DEVICE,
    buffer::{CpuAllocation, Registry},
    executable::{self, CpuExecutable, Scratch},
    frame::Frame,
    kernels::Kernels,
    probe,
    queue::Queue,
    sys::memory,
};

/// How to open the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Worker threads; `None` for one on each core that this process may use.
    pub threads: Option<usize>,
    /// Kernels.
    pub kernels: Kernels,
}

/// Offers the one CPU device.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuBackend {
    options: CpuOptions,
}

impl CpuBackend {
    /// A backend that opens its device with these options.
    pub fn new(options: CpuOptions) -> CpuBackend {
        CpuBackend { options }
    }

    /// Opens the device as its own type.
    ///
    /// # Errors
    /// [`Error::Driver`] if this processor lacks the instructions of the kernels that were asked for.
    pub fn open_device(&self) -> Result<CpuDevice> {
        let cause = || format!("this processor does not run the {} kernels", self.options.kernels.name());
        let refuse = || Error::Driver { device: DEVICE, call: "open", cause: cause() };
        let kernels = self.options.kernels.resolve().ok_or_else(refuse)?;
        Ok(CpuDevice::new(CpuOptions { kernels, ..self.options }))
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        DEVICE.backend
    }

    fn probe(&self) -> std::result::Result<Vec<DeviceInfo>, Unavailable> {
        Ok(vec![probe::info(self.options)])
    }

    fn open(&self, id: DeviceId) -> Result<Arc<dyn Device>> {
        if id != DEVICE {
            return Err(Error::NoSuchDevice(id));
        }
        Ok(Arc::new(self.open_device()?))
    }
}

/// The open CPU device.
#[derive(Debug)]
pub struct CpuDevice {
    info: DeviceInfo,
    kernels: Kernels,
    registry: Arc<Registry>,
    frame: Arc<RwLock<Frame>>,
    scratch: Mutex<Option<Arc<Scratch>>>,
    queue: Queue,
    submissions: AtomicU64,
    objects_created: AtomicU64,
    allocations: AtomicU64,
}

impl CpuDevice {
    fn new(options: CpuOptions) -> CpuDevice {
        let info = probe::info(options);
        let registry = Arc::new(Registry::new(info.memory_bytes));
        CpuDevice {
            kernels: options.kernels,
            queue: Queue::new(probe::threads(options)),
            info,
            registry,
            frame: Arc::default(),
            scratch: Mutex::default(),
            submissions: AtomicU64::new(0),
            objects_created: AtomicU64::new(0),
            allocations: AtomicU64::new(0),
        }
    }

    fn host_range(slice: &BufferSlice, size_bytes: usize) -> Result<HostRange> {
        let name = || slice.buffer().allocation().name().to_owned();
        if slice.size_bytes() != size_bytes as u64 {
            let (size_bytes, available_bytes) = (size_bytes as u64, slice.size_bytes());
            return Err(Error::OutOfRange { buffer: name(), offset: slice.offset(), size_bytes, available_bytes });
        }
        slice.host_range().ok_or_else(|| Error::NotImportable {
            device: DEVICE,
            buffer: name(),
            cause: "the host does not see this memory".into(),
        })
    }
}

impl Device for CpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn epoch(&self) -> Epoch {
        Epoch::default()
    }

    fn supports(&self, query: &OpQuery<'_>) -> std::result::Result<(), Unsupported> {
        supports(query)
    }

    fn allocate(&self, desc: &BufferDesc) -> Result<Buffer> {
        let allocation = CpuAllocation::allocate(&self.registry, desc)?;
        self.allocations.fetch_add(1, Ordering::Relaxed);
        Ok(Buffer::new(allocation))
    }

    fn import(&self, buffer: &Buffer) -> Result<Buffer> {
        let allocation = buffer.allocation().as_any().downcast_ref::<CpuAllocation>();
        if allocation.is_some_and(|allocation| allocation.belongs_to(&self.registry)) {
            return Ok(buffer.clone());
        }
        Ok(Buffer::new(CpuAllocation::import(&self.registry, buffer)?))
    }

    fn weight_size_bytes(&self, shape: &WeightShape, dtype: DType) -> u64 {
        let row_bytes = dtype.row_bytes(shape.columns).unwrap_or(usize::MAX);
        row_bytes.saturating_mul(shape.rows) as u64
    }

    fn reads_weights_in_place(&self) -> bool {
        true
    }

    fn load_rows(
        &self,
        shape: &WeightShape,
        dtype: DType,
        rows: Range<usize>,
        source: &[u8],
        destination: &BufferSlice,
    ) -> Result<()> {
        biga_hal::check_load(shape, dtype, &rows, source.len())?;
        let wanted = self.weight_size_bytes(shape, dtype);
        if wanted != destination.size_bytes() {
            let buffer = destination.buffer().allocation().name().to_owned();
            let (offset, available_bytes) = (destination.offset(), destination.size_bytes());
            return Err(Error::OutOfRange { buffer, offset, size_bytes: wanted, available_bytes });
        }
        let before = wanted / shape.rows.max(1) as u64 * rows.start as u64;
        self.write(&destination.slice(before, source.len() as u64)?, source)
    }

    fn write(&self, destination: &BufferSlice, bytes: &[u8]) -> Result<()> {
        let range = CpuDevice::host_range(destination, bytes.len())?;
        if !range.writable {
            let cause = format!("buffer {} is read-only", destination.buffer().allocation().name());
            return Err(Error::Driver { device: DEVICE, call: "write", cause });
        }
        memory::write(range, bytes);
        Ok(())
    }

    fn read(&self, source: &BufferSlice, bytes: &mut [u8]) -> Result<()> {
        memory::read(CpuDevice::host_range(source, bytes.len())?, bytes);
        Ok(())
    }

    fn compile(&self, segment: &Segment) -> Result<Arc<dyn Executable>> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let executable = executable::compile(
            &executable::Context {
                registry: &self.registry,
                frame: &self.frame,
                scratch: scratch.clone(),
                queue: &self.queue,
                kernels: self.kernels,
            },
            segment,
        )?;
        *scratch = Some(Arc::clone(&executable.program.scratch));
        self.objects_created.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(executable))
    }

    fn submit(&self, executable: &dyn Executable, waits: &[FencePoint]) -> Result<FencePoint> {
        let ours = executable.as_any().downcast_ref::<CpuExecutable>();
        let Some(ours) = ours.filter(|executable| Arc::ptr_eq(&executable.registry, &self.registry)) else {
            let cause = format!("executable {} was compiled elsewhere", executable.name());
            return Err(Error::Driver { device: DEVICE, call: "submit", cause });
        };
        let point = self.queue.submit(ours, &self.registry, waits)?;
        self.submissions.fetch_add(1, Ordering::Relaxed);
        Ok(point)
    }

    fn measure(&self, what: Measurement, progress: &mut dyn FnMut(f64)) -> Result<f64> {
        crate::measure::measure(self, what, progress)
    }

    fn counters(&self) -> Counters {
        Counters {
            submissions: self.submissions.load(Ordering::Relaxed),
            objects_created: self.objects_created.load(Ordering::Relaxed),
            allocations: self.allocations.load(Ordering::Relaxed),
            mappings: 0,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Whether there is a kernel for an op. Also bounds its dimensions, so that sizes can be computed.
pub(crate) fn supports(query: &OpQuery<'_>) -> std::result::Result<(), Unsupported> {
    let refuse = |cause: String| Err(Unsupported { op: query.kind.name(), device: DEVICE, cause });
    if let Some(cause) = query.kind.bad_dimension() {
        return refuse(cause);
    }
    let shapes = query.kind.weights();
    if shapes.len() != query.weights.len() {
        return refuse(format!("{} weights, {} wanted", query.weights.len(), shapes.len()));
    }
    for (shape, &dtype) in shapes.iter().zip(query.weights) {
        if !DType::ALL.contains(&dtype) {
            return refuse(format!("no kernel for {dtype} weights"));
        }
        if shape.role == WeightRole::Vector && dtype != DType::F32 {
            return refuse(format!("a norm weight or bias in {dtype}, not f32"));
        }
        if dtype.row_bytes(shape.columns).is_none() {
            return refuse(format!("{} columns are no whole blocks of {dtype}", shape.columns));
        }
    }
    match query.kv {
        Some(dtype) if query.kind.uses_kv() && !DType::KV.contains(&dtype) => {
            refuse(format!("no kernel for a {dtype} kv cache"))
        }
        _ => Ok(()),
    }
}
