//! Devices that compute as the CPU does and claim to be something else, or fail.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use biga::hal::{
    Backend, Buffer, BufferDesc, BufferSlice, Counters, DType, Device, DeviceId, DeviceInfo, DeviceKind, Epoch, Error,
    Executable, FencePoint, Measurement, OpQuery, Result, Segment, Timeline, Unavailable, Unsupported, WeightShape,
};
use biga_cpu::{CpuBackend, CpuOptions};

/// What a device does before it loads a part of a weight; an error is its answer.
#[derive(Clone)]
pub struct BeforeLoad(pub Arc<dyn Fn() -> Result<()> + Send + Sync>);

impl fmt::Debug for BeforeLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeforeLoad").finish_non_exhaustive()
    }
}

/// How a device is unlike the CPU.
#[derive(Clone, Debug)]
pub struct Disguise {
    /// What it claims to be.
    pub kind: DeviceKind,
    /// Whether it reaches others' memory.
    pub imports: bool,
    /// It is lost from this submission on.
    pub lost_at: Option<u64>,
    /// A submission shows as finished only once someone waits for it.
    pub slow: bool,
    /// Runs on the thread that loads.
    pub before_load: Option<BeforeLoad>,
    /// Whether it compiles segments; else it is lost when it should.
    pub compiles: bool,
}

impl Default for Disguise {
    fn default() -> Disguise {
        Disguise {
            kind: DeviceKind::IntegratedGpu,
            imports: true,
            lost_at: None,
            slow: false,
            before_load: None,
            compiles: true,
        }
    }
}

/// A backend with these devices.
#[derive(Debug)]
pub struct Disguises(pub Vec<Disguise>);

#[derive(Debug)]
struct Disguised {
    info: DeviceInfo,
    inner: Arc<dyn Device>,
    disguise: Disguise,
    n_submitted: AtomicU64,
    waited: Arc<AtomicU64>,
}

/// A timeline that stands where someone has waited for it.
#[derive(Debug)]
struct Slow {
    inner: Arc<dyn Timeline>,
    waited: Arc<AtomicU64>,
}

impl Timeline for Slow {
    fn device(&self) -> DeviceId {
        self.inner.device()
    }
    fn value(&self) -> Result<u64> {
        Ok(self.waited.load(Ordering::Relaxed))
    }
    fn wait(&self, value: u64, timeout: Duration) -> Result<()> {
        self.inner.wait(value, timeout)?;
        self.waited.fetch_max(value, Ordering::Relaxed);
        Ok(())
    }
}

impl Disguised {
    fn lost(&self) -> Error {
        Error::DeviceLost { device: self.info.id, cause: "made up".to_owned() }
    }

    fn submitted(&self, executable: &dyn Executable, waits: &[FencePoint]) -> Result<FencePoint> {
        if self.disguise.lost_at.is_some_and(|lost_at| self.n_submitted.fetch_add(1, Ordering::Relaxed) >= lost_at) {
            return Err(self.lost());
        }
        let point = self.inner.submit(executable, waits)?;
        if !self.disguise.slow {
            return Ok(point);
        }
        let timeline = Arc::new(Slow { inner: point.timeline, waited: Arc::clone(&self.waited) });
        Ok(FencePoint { timeline, value: point.value })
    }
}

impl Device for Disguised {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }
    fn supports(&self, query: &OpQuery<'_>) -> std::result::Result<(), Unsupported> {
        self.inner.supports(query)
    }
    fn allocate(&self, desc: &BufferDesc) -> Result<Buffer> {
        self.inner.allocate(desc)
    }
    fn import(&self, buffer: &Buffer) -> Result<Buffer> {
        if self.disguise.imports {
            return self.inner.import(buffer);
        }
        let name = buffer.allocation().name().to_owned();
        Err(Error::NotImportable { device: self.info.id, buffer: name, cause: "made up".to_owned() })
    }
    fn weight_size_bytes(&self, shape: &WeightShape, dtype: DType) -> u64 {
        self.inner.weight_size_bytes(shape, dtype)
    }
    fn load_rows(
        &self,
        shape: &WeightShape,
        dtype: DType,
        rows: Range<usize>,
        from: &[u8],
        to: &BufferSlice,
    ) -> Result<()> {
        self.disguise.before_load.as_ref().map_or(Ok(()), |before| before.0())?;
        self.inner.load_rows(shape, dtype, rows, from, to)
    }
    fn write(&self, destination: &BufferSlice, bytes: &[u8]) -> Result<()> {
        self.inner.write(destination, bytes)
    }
    fn read(&self, source: &BufferSlice, bytes: &mut [u8]) -> Result<()> {
        self.inner.read(source, bytes)
    }
    fn compile(&self, segment: &Segment) -> Result<Arc<dyn Executable>> {
        if self.disguise.compiles { self.inner.compile(segment) } else { Err(self.lost()) }
    }
    fn submit(&self, executable: &dyn Executable, waits: &[FencePoint]) -> Result<FencePoint> {
        self.submitted(executable, waits)
    }
    fn measure(&self, _: Measurement, _: &mut dyn FnMut(f64)) -> Result<f64> {
        Ok(1.0)
    }
    fn counters(&self) -> Counters {
        self.inner.counters()
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Backend for Disguises {
    fn name(&self) -> &'static str {
        "vulkan"
    }

    fn probe(&self) -> std::result::Result<Vec<DeviceInfo>, Unavailable> {
        let cpu = CpuBackend::default().probe()?.remove(0);
        let info = |(index, disguise): (usize, &Disguise)| DeviceInfo {
            id: DeviceId { backend: "vulkan", index },
            kind: disguise.kind,
            identity: format!("disguised {index}"),
            ..cpu.clone()
        };
        Ok(self.0.iter().enumerate().map(info).collect())
    }

    fn open(&self, id: DeviceId) -> Result<Arc<dyn Device>> {
        let cpu = CpuBackend::new(CpuOptions { threads: Some(1), ..CpuOptions::default() });
        let listed = self.probe().map_err(|_| Error::NoSuchDevice(id))?;
        let info = listed.into_iter().find(|info| info.id == id).ok_or(Error::NoSuchDevice(id))?;
        let inner = cpu.open(DeviceId { backend: "cpu", index: 0 })?;
        let disguise = self.0.get(id.index).cloned().ok_or(Error::NoSuchDevice(id))?;
        Ok(Arc::new(Disguised { info, inner, disguise, n_submitted: AtomicU64::new(0), waited: Arc::default() }))
    }
}
