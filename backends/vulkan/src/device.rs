//! The device and the backend that opens it.

use std::{
    any::Any,
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ash::vk;
use biga_hal::{
    Backend, Buffer, BufferDesc, BufferSlice, Choices, Counters, DType, Device, DeviceId, DeviceInfo, Epoch, Error,
    Executable, FencePoint, Measurement, OpQuery, Result, Segment, Unavailable, Unsupported, WeightShape, check_load,
};

use crate::{
    buffer::{HostUse, Ledger, VulkanBuffer, memory_types},
    chain::{self, COUNTER_BYTES, Place},
    executable::{self, Pipelines, Target, VulkanExecutable},
    fence::VulkanTimeline,
    lower::{self, Launch},
    measure,
    options::VulkanOptions,
    probe,
    queue::Queue,
    staging::Staging,
    supports,
    sys::{
        device::{CallError, LogicalDevice},
        facts::Facts,
        instance::{Instance, PhysicalDevice},
        memory::Memory,
        submit::{Command, Recording},
        timing::TimedRecording,
    },
    tune,
    tuning::Tuning,
    weight,
};

mod elements;
mod prove;

/// Larger memory is zeroed by the device: its own stores are faster than the host's, and above all where the host
/// reaches it over a bus.
const HOST_ZEROED_BYTES: u64 = 256 << 10;

/// How long a set-up copy may take.
const COPY_TIMEOUT_NS: u64 = 120_000_000_000;

/// A table of constants with its device address.
type Placed = (Arc<[f32]>, u64);

/// Offers every Vulkan device of the machine.
#[derive(Debug, Default)]
pub struct VulkanBackend {
    options: VulkanOptions,
    /// Made at the first probe: some drivers take long to start.
    instance: Mutex<Option<Arc<Instance>>>,
    /// By device index: the epoch of the last opening, and whether that device was lost.
    opened: Mutex<BTreeMap<usize, (Epoch, Arc<AtomicBool>)>>,
}

/// A failed call as the error that the caller sees.
pub(crate) fn driver_error(id: DeviceId, error: CallError) -> Error {
    if error.result == vk::Result::ERROR_DEVICE_LOST {
        return Error::DeviceLost { device: id, cause: format!("{}: {}", error.call, error.result) };
    }
    Error::Driver { device: id, call: error.call, cause: error.result.to_string() }
}

impl VulkanBackend {
    /// A backend with the default options. Nothing is loaded before the first probe.
    pub fn new() -> VulkanBackend {
        VulkanBackend::default()
    }

    /// A backend that opens its devices with these options.
    pub fn with_options(options: VulkanOptions) -> VulkanBackend {
        VulkanBackend { options, ..VulkanBackend::default() }
    }

    fn devices(&self) -> std::result::Result<Vec<(PhysicalDevice, Facts)>, Unavailable> {
        let mut known = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = match &*known {
            Some(instance) => Arc::clone(instance),
            None => Arc::clone(known.insert(Instance::new()?)),
        };
        let devices = instance.physical_devices()?;
        Ok(devices.into_iter().map(|device| (device.clone(), device.facts())).collect())
    }

    /// A device that can run the kernels, with what lowering needs to know of it.
    pub(crate) fn find(&self, id: DeviceId) -> Result<(PhysicalDevice, Facts, Tuning)> {
        if id.backend != self.name() {
            return Err(Error::NoSuchDevice(id));
        }
        let refuse = |call, cause| Error::Driver { device: id, call, cause };
        let devices = self.devices().map_err(|error| refuse("vkCreateInstance", error.cause))?;
        let (physical, facts) = devices.into_iter().nth(id.index).ok_or(Error::NoSuchDevice(id))?;
        if !facts.missing.is_empty() {
            return Err(refuse("vkCreateDevice", format!("the driver lacks {}", facts.missing.join(", "))));
        }
        let tuning = Tuning::new(&facts, self.options);
        Ok((physical, facts, tuning))
    }

    /// The epoch of a device that is opened now: one more than before if it was lost in between.
    fn next_epoch(&self, index: usize) -> (Epoch, Arc<AtomicBool>) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = match opened.get(&index) {
            Some((epoch, lost)) if lost.load(Ordering::Relaxed) => Epoch(epoch.0 + 1),
            Some((epoch, lost)) => return (*epoch, Arc::clone(lost)),
            None => Epoch::default(),
        };
        let lost = Arc::new(AtomicBool::new(false));
        opened.insert(index, (epoch, Arc::clone(&lost)));
        (epoch, lost)
    }
}

impl Backend for VulkanBackend {
    fn name(&self) -> &'static str {
        "vulkan"
    }

    fn probe(&self) -> std::result::Result<Vec<DeviceInfo>, Unavailable> {
        let devices = self.devices()?;
        Ok(devices.iter().enumerate().map(|(i, (_, facts))| probe::info(i, facts)).collect())
    }

    fn open(&self, id: DeviceId) -> Result<Arc<dyn Device>> {
        self.open_with(id, &Choices::new())
    }

    fn open_with(&self, id: DeviceId, choices: &Choices) -> Result<Arc<dyn Device>> {
        let (physical, facts, mut tuning) = self.find(id)?;
        tuning.adopt(id, choices);
        let info = probe::info(id.index, &facts);
        let logical = physical.open(facts, false).map_err(|error| driver_error(id, error))?;
        let (epoch, lost) = self.next_epoch(id.index);
        tracing::info!(device = %id, name = info.name, driver = info.driver, subgroup = tuning.subgroup, "opened");
        let mut device =
            VulkanDevice { copies: self.options.copies, ..VulkanDevice::new(info, tuning, logical, epoch, lost) };
        device.prove()?;
        device.tuning.elements = device.unless_lost("elements", device.elements())?.flatten();
        device.tuning.lanes = tuning.lanes && device.unless_lost("matrices of lanes", device.holds())?.unwrap_or(false);
        Ok(Arc::new(device))
    }
}

/// An open Vulkan device.
#[derive(Debug)]
pub(crate) struct VulkanDevice {
    info: DeviceInfo,
    tuning: Tuning,
    /// See [`VulkanOptions::copies`].
    copies: bool,
    epoch: Epoch,
    /// Shared with the backend, which gives the next opening a new epoch.
    lost: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
    queue: Queue,
    pipelines: Mutex<Pipelines>,
    staging: Staging,
    /// What the launches of every executable use in turn: each recording waits for what was submitted before.
    scratch: Mutex<Option<Arc<VulkanBuffer>>>,
    logical: Arc<LogicalDevice>,
}

impl VulkanDevice {
    fn new(
        info: DeviceInfo,
        tuning: Tuning,
        logical: Arc<LogicalDevice>,
        epoch: Epoch,
        lost: Arc<AtomicBool>,
    ) -> VulkanDevice {
        let queue = Queue::new(VulkanTimeline { id: info.id, logical: Arc::clone(&logical), lost: Arc::clone(&lost) });
        VulkanDevice {
            tuning,
            copies: false,
            epoch,
            lost,
            ledger: Arc::new(Ledger::new(info.memory_bytes)),
            queue,
            pipelines: Mutex::default(),
            staging: Staging::default(),
            scratch: Mutex::default(),
            logical,
            info,
        }
    }

    /// Notes a loss, so that the next opening is a new epoch.
    fn note<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(Error::DeviceLost { cause, .. }) = &result
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            tracing::error!(device = %self.info.id, cause, "device lost");
        }
        result
    }

    fn failed(&self, error: CallError) -> Error {
        driver_error(self.info.id, error)
    }

    fn out_of_memory(&self, name: &str, requested_bytes: u64, available_bytes: u64) -> Error {
        Error::OutOfMemory { device: self.info.id, name: name.to_owned(), requested_bytes, available_bytes }
    }

    /// The buffer as one of this very device, or why it is none.
    fn own<'a>(&self, buffer: &'a Buffer) -> Result<&'a VulkanBuffer> {
        let allocation = buffer.allocation();
        let own = allocation.as_any().downcast_ref::<VulkanBuffer>();
        match own {
            Some(own) if Arc::ptr_eq(own.memory.device(), &self.logical) => Ok(own),
            Some(own) if own.id == self.info.id && own.epoch != self.epoch => {
                Err(Error::StaleHandle { device: self.info.id, handle: own.epoch, current: self.epoch })
            }
            _ => Err(Error::NotImportable {
                device: self.info.id,
                buffer: allocation.name().to_owned(),
                cause: "the buffer is not one of this device".to_owned(),
            }),
        }
    }

    /// The executable as one of this very device, or why it is none.
    fn own_executable<'a>(&self, executable: &'a dyn Executable) -> Result<&'a VulkanExecutable> {
        let own = executable.as_any().downcast_ref::<VulkanExecutable>();
        match own {
            Some(own) if own.recording().belongs_to(&self.logical) => Ok(own),
            Some(own) if own.device() == self.info.id && own.epoch() != self.epoch => {
                Err(Error::StaleHandle { device: self.info.id, handle: own.epoch(), current: self.epoch })
            }
            _ => Err(Error::NoSuchDevice(executable.device())),
        }
    }

    /// Memory of the best type that has room.
    pub(crate) fn memory(&self, name: &str, size_bytes: u64, host: HostUse) -> Result<Memory> {
        let facts = self.logical.facts();
        let heaps: Vec<u64> = facts.heaps.iter().map(|heap| heap.size_bytes).collect();
        // Whole 16 bytes, so that a fill covers all of it.
        let padded = size_bytes.checked_next_multiple_of(16).unwrap_or(u64::MAX);
        let mut last = None;
        for memory_type in memory_types(&facts.memory_types, &heaps, host) {
            let visible = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
            let map =
                facts.memory_types[memory_type].flags.contains(visible) && !(self.copies && host == HostUse::None);
            match Memory::allocate(&self.logical, padded, memory_type, map) {
                Ok(memory) => return Ok(memory),
                Err(error) if is_out_of_memory(error.result) => last = Some(error),
                Err(error) => return Err(self.failed(error)),
            }
        }
        tracing::debug!(device = %self.info.id, buffer = name, bytes = size_bytes, ?last, "no memory type has room");
        Err(self.out_of_memory(name, size_bytes, self.ledger.left_bytes()))
    }

    /// Submits commands. They are kept until the device's timeline reaches the value.
    pub(crate) fn start(&self, commands: Vec<Command>) -> Result<(Recording, u64)> {
        let started = Recording::new(&self.logical, commands).and_then(|recording| {
            let value = recording.submit()?;
            Ok((recording, value))
        });
        started.map_err(|error| self.failed(error))
    }

    /// Submits commands and waits.
    pub(crate) fn run_now(&self, commands: Vec<Command>) -> Result<()> {
        let (_recording, value) = self.start(commands)?;
        self.wait_for(value)
    }

    /// Submits a recording and waits.
    pub(crate) fn run_recording(&self, recording: &Recording) -> Result<()> {
        self.wait_for(recording.submit().map_err(|error| self.failed(error))?)
    }

    /// Whether everything up to a submission is done.
    pub(crate) fn has_reached(&self, value: u64) -> Result<bool> {
        self.logical.reached().map(|reached| reached >= value).map_err(|error| self.failed(error))
    }

    /// Waits for a submission.
    pub(crate) fn wait_for(&self, value: u64) -> Result<()> {
        match self.logical.wait(value, COPY_TIMEOUT_NS).map_err(|error| self.failed(error))? {
            true => Ok(()),
            false => Err(Error::Timeout {
                device: self.info.id,
                expected: value,
                seen: self.logical.reached().map_err(|error| self.failed(error))?,
                timeout_ms: COPY_TIMEOUT_NS / 1_000_000,
            }),
        }
    }

    /// Reading uncached memory is slower than copying it to cached memory first.
    fn reads_fast(&self, memory: &Memory) -> bool {
        let types = &self.logical.facts().memory_types;
        types.get(memory.memory_type()).is_some_and(|t| t.flags.contains(vk::MemoryPropertyFlags::HOST_CACHED))
    }

    fn same_size(&self, slice: &BufferSlice, size_bytes: usize) -> Result<()> {
        if slice.size_bytes() == size_bytes as u64 {
            return Ok(());
        }
        Err(Error::OutOfRange {
            buffer: slice.buffer().allocation().name().to_owned(),
            offset: slice.offset(),
            size_bytes: size_bytes as u64,
            available_bytes: slice.size_bytes(),
        })
    }

    fn write_at(&self, own: &VulkanBuffer, offset: u64, bytes: &[u8]) -> Result<()> {
        if own.memory.write(offset, bytes) {
            return Ok(());
        }
        let mut upload = self.staging.upload(self, &own.memory);
        upload.put(offset, bytes)?;
        upload.finish()
    }

    /// A small buffer of constants for kernels, and the address of each table in it.
    fn constants(&self, tables: &[Arc<[f32]>]) -> Result<(Option<VulkanBuffer>, Vec<Placed>)> {
        if tables.is_empty() {
            return Ok((None, Vec::new()));
        }
        let mut bytes: Vec<u8> = Vec::new();
        let mut offsets = Vec::with_capacity(tables.len());
        for table in tables {
            offsets.push(bytes.len() as u64);
            bytes.extend(table.iter().flat_map(|value| value.to_le_bytes()));
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        let buffer = self.allocate_own("constants", bytes.len().max(16) as u64, HostUse::None)?;
        self.write_at(&buffer, 0, &bytes)?;
        let address = buffer.memory.address();
        let placed = tables.iter().cloned().zip(offsets.iter().map(|offset| address + offset)).collect();
        Ok((Some(buffer), placed))
    }

    /// A buffer of zeros.
    fn allocate_own(&self, name: &str, size_bytes: u64, host: HostUse) -> Result<VulkanBuffer> {
        let buffer = self.allocate_unwritten_own(name, size_bytes, host)?;
        if size_bytes > HOST_ZEROED_BYTES || !buffer.memory.zero() {
            self.run_now(vec![Command::Zero(Arc::clone(&buffer.memory))])?;
        }
        Ok(buffer)
    }

    fn allocate_unwritten_own(&self, name: &str, size_bytes: u64, host: HostUse) -> Result<VulkanBuffer> {
        if size_bytes == 0 {
            return Err(Error::OutOfRange { buffer: name.to_owned(), offset: 0, size_bytes: 0, available_bytes: 0 });
        }
        if size_bytes > self.info.max_allocation_bytes {
            return Err(Error::TooLarge { what: "buffer", max_bytes: self.info.max_allocation_bytes });
        }
        let booking = self.ledger.book(size_bytes).map_err(|left| self.out_of_memory(name, size_bytes, left))?;
        let memory = Arc::new(self.memory(name, size_bytes, host)?);
        Ok(VulkanBuffer {
            name: name.to_owned(),
            id: self.info.id,
            epoch: self.epoch,
            size_bytes,
            host_declared: !matches!(host, HostUse::None | HostUse::Copies),
            memory,
            _booking: Some(booking),
            _imported: None,
        })
    }

    /// Scratch of at least this size, shared with the executables that were compiled before if theirs suffices.
    fn scratch(&self, size_bytes: u64) -> Result<Option<Arc<VulkanBuffer>>> {
        if size_bytes == 0 {
            return Ok(None);
        }
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = scratch.as_ref().filter(|buffer| buffer.size_bytes >= size_bytes) {
            return Ok(Some(Arc::clone(buffer)));
        }
        let buffer = Arc::new(self.allocate_own("scratch", size_bytes, HostUse::None)?);
        Ok(Some(Arc::clone(scratch.insert(buffer))))
    }

    fn target(&self) -> Target<'_> {
        Target { id: self.info.id, logical: &self.logical, subgroup: self.tuning.subgroup }
    }

    pub(crate) fn compile_segment(&self, segment: &Segment) -> Result<VulkanExecutable> {
        self.compile_with(segment, &self.tuning)
    }

    pub(crate) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Compiles with other choices than the device was opened with.
    pub(crate) fn compile_with(&self, segment: &Segment, tuning: &Tuning) -> Result<VulkanExecutable> {
        for slice in executable::slices(segment) {
            self.own(slice.buffer())?;
        }
        for bound in &segment.ops {
            let dtypes: Vec<DType> = bound.weights.iter().map(|weight| weight.dtype).collect();
            let kv = bound.kv.as_ref().map(|kv| kv.dtype);
            self.supports(&OpQuery { kind: &bound.op.kind, weights: &dtypes, kv })?;
        }
        let (buffer, constants) = self.constants(&lower::constant_tables(segment))?;
        let scratch = self.scratch(lower::scratch_bytes(segment, tuning))?;
        let address = scratch.as_ref().map_or(0, |buffer| buffer.memory.address());
        let launches = lower::lower(segment, tuning, &constants, address)?;
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        pipelines.prepare(self.target(), &launches);
        let mut ready = Vec::with_capacity(launches.len());
        for launch in launches {
            let pipeline = pipelines.get(self.target(), launch.kernel, &launch.constants)?;
            ready.push((launch, pipeline));
        }
        drop(pipelines);
        let place = |launch: &Launch| launch.chained.then(|| launch.workgroups()).flatten();
        let (links, n_counters) =
            chain::links(ready.iter().map(|(launch, _)| Place { dispatch: &launch.dispatch, counts: place(launch) }));
        let chained = links.iter().any(|link| link.awaits.is_some()) || ready.iter().any(|(launch, _)| launch.chained);
        let size_bytes = u64::from(n_counters) * COUNTER_BYTES;
        let counters = chained.then(|| self.allocate_own("counters", size_bytes, HostUse::None)).transpose()?;
        let identity = (self.info.id, self.epoch);
        let own = (buffer, scratch, counters);
        let executable = VulkanExecutable::record(identity, &self.logical, segment, ready, links, own)?;
        tracing::debug!(
            device = %self.info.id,
            segment = segment.name,
            n_tokens = segment.bucket.tokens,
            dispatches = executable.dispatches().len(),
            "compiled"
        );
        Ok(executable)
    }

    /// Reads a buffer `passes` times with `groups` workgroups, each of which leaves four bytes in `to` in each
    /// pass; for measuring. Nothing waits between passes, so that the memory never idles.
    pub(crate) fn record_reading(&self, from: &Buffer, to: &Buffer, passes: usize, groups: u32) -> Result<Recording> {
        let (from, to) = (self.own(from)?, self.own(to)?);
        let (kernel, constants) = self.tuning.reading();
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let pipeline = pipelines.get(self.target(), kernel, &constants)?;
        let quads = u32::try_from(from.size_bytes / 16).unwrap_or(u32::MAX);
        let pass = |pass: usize| {
            let (x, y) = (from.memory.address(), to.memory.address() + (pass * groups as usize * 4) as u64);
            let push = vec![x as u32, (x >> 32) as u32, y as u32, (y >> 32) as u32, quads];
            Command::Launch { pipeline: Arc::clone(&pipeline), push, grid: [groups, 1, 1] }
        };
        let commands = (0..passes).map(pass).collect();
        Recording::new(&self.logical, commands).map_err(|error| self.failed(error))
    }
}

fn is_out_of_memory(result: vk::Result) -> bool {
    matches!(
        result,
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
            | vk::Result::ERROR_OUT_OF_HOST_MEMORY
            | vk::Result::ERROR_FEATURE_NOT_PRESENT
            | vk::Result::ERROR_TOO_MANY_OBJECTS
    )
}

impl Device for VulkanDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn supports(&self, query: &OpQuery<'_>) -> std::result::Result<(), Unsupported> {
        supports::supported(query).map_err(|cause| Unsupported { op: query.kind.name(), device: self.info.id, cause })
    }

    fn allocate(&self, desc: &BufferDesc) -> Result<Buffer> {
        self.note(self.allocate_own(&desc.name, desc.size_bytes, HostUse::of(desc))).map(Buffer::new)
    }

    fn allocate_unwritten(&self, desc: &BufferDesc) -> Result<Buffer> {
        self.note(self.allocate_unwritten_own(&desc.name, desc.size_bytes, HostUse::of(desc))).map(Buffer::new)
    }

    fn import(&self, buffer: &Buffer) -> Result<Buffer> {
        let allocation = buffer.allocation();
        if allocation.as_any().is::<VulkanBuffer>() && allocation.owner() == Some(self.info.id) {
            return self.own(buffer).map(|_| buffer.clone());
        }
        let refuse =
            |cause: String| Error::NotImportable { device: self.info.id, buffer: allocation.name().to_owned(), cause };
        let alignment = self.logical.facts().host_pointer_alignment;
        let alignment = alignment.ok_or_else(|| refuse("the driver imports no host memory".to_owned()))?;
        let range = allocation.host_range().ok_or_else(|| refuse("the host does not see it".to_owned()))?;
        if !(range.address as u64).is_multiple_of(alignment) || !(range.size_bytes as u64).is_multiple_of(alignment) {
            return Err(refuse(format!("address and size must be multiples of {alignment}")));
        }
        if !range.writable {
            return Err(refuse("it is mapped read-only".to_owned()));
        }
        let memory = Memory::import(&self.logical, range.address, range.size_bytes as u64)
            .map_err(|error| refuse(format!("{}: {}", error.call, error.result)))?;
        Ok(Buffer::new(VulkanBuffer {
            name: allocation.name().to_owned(),
            id: self.info.id,
            epoch: self.epoch,
            size_bytes: range.size_bytes as u64,
            host_declared: true,
            memory: Arc::new(memory),
            _booking: None,
            _imported: Some(buffer.clone()),
        }))
    }

    fn weight_size_bytes(&self, shape: &WeightShape, dtype: DType) -> u64 {
        // A shape without a layout is refused by `supports`; its size is that of nothing.
        weight::size_bytes(shape, dtype).unwrap_or(0) as u64
    }

    fn load_rows(
        &self,
        shape: &WeightShape,
        dtype: DType,
        rows: Range<usize>,
        source: &[u8],
        destination: &BufferSlice,
    ) -> Result<()> {
        let own = self.own(destination.buffer())?;
        check_load(shape, dtype, &rows, source.len())?;
        if weight::size_bytes(shape, dtype).map(|size| size as u64) != Some(destination.size_bytes()) {
            return Err(Error::OutOfRange {
                buffer: own.name.clone(),
                offset: destination.offset(),
                size_bytes: weight::size_bytes(shape, dtype).unwrap_or(0) as u64,
                available_bytes: destination.size_bytes(),
            });
        }
        let start = destination.offset();
        if own.memory.is_mapped() {
            return weight::repack(shape, dtype, rows, source, |offset, bytes| {
                own.memory.write(start + offset, bytes);
                Ok(())
            });
        }
        let mut upload = self.staging.upload(self, &own.memory);
        let stored = weight::repack(shape, dtype, rows, source, |offset, bytes| upload.put(start + offset, bytes));
        self.note(stored.and_then(|()| upload.finish()))
    }

    fn write(&self, destination: &BufferSlice, bytes: &[u8]) -> Result<()> {
        let own = self.own(destination.buffer())?;
        self.same_size(destination, bytes.len())?;
        self.note(self.write_at(own, destination.offset(), bytes))
    }

    fn read(&self, source: &BufferSlice, bytes: &mut [u8]) -> Result<()> {
        let own = self.own(source.buffer())?;
        self.same_size(source, bytes.len())?;
        // In place for host buffers whatever the memory; else only where that is not ruinous.
        if (own.host_declared || self.reads_fast(&own.memory)) && own.memory.read(source.offset(), bytes) {
            return Ok(());
        }
        self.note(self.staging.download(self, &own.memory, source.offset(), bytes))
    }

    fn compile(&self, segment: &Segment) -> Result<Arc<dyn Executable>> {
        let executable = self.note(self.compile_segment(segment))?;
        Ok(Arc::new(executable))
    }

    fn submit(&self, executable: &dyn Executable, waits: &[FencePoint]) -> Result<FencePoint> {
        self.note(self.queue.submit(self.own_executable(executable)?, waits))
    }

    fn time_launches(&self, executable: &dyn Executable, waits: &[FencePoint]) -> Result<Option<Vec<f64>>> {
        let own = self.own_executable(executable)?;
        let timed = TimedRecording::of(own.recording()).map_err(|error| self.failed(error))?;
        let Some(timed) = timed else { return Ok(None) };
        self.queue.await_others(waits)?;
        self.note(self.run_recording(timed.recording()))?;
        timed.seconds().map(Some).map_err(|error| self.failed(error))
    }

    fn measure(&self, what: Measurement, progress: &mut dyn FnMut(f64)) -> Result<f64> {
        self.note(measure::measure(self, what, progress))
    }

    fn tune(&self, progress: &mut dyn FnMut(f64)) -> Result<Choices> {
        self.note(tune::tune(self, progress))
    }

    fn counters(&self) -> Counters {
        self.logical.counters()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
