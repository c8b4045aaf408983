//! A device whose launches do not tell the truth: the suite finds each kind of lie.

use std::{any::Any, ops::Range, sync::Arc};

use biga_conformance::{Group, Options, run_group};
use biga_cpu::{CpuBackend, CpuDevice, CpuOptions, Kernels};
use biga_hal::{
    Buffer, BufferDesc, BufferSlice, ByteRange, Counters, DType, Device, DeviceId, DeviceInfo, Dispatch, Epoch,
    Executable, FencePoint, Measurement, OpQuery, Result, Segment, Unsupported, WeightShape,
};

/// Changes what a launch declares.
type Lie = fn(&mut Dispatch);

/// A device that runs as it should and declares what it should not.
#[derive(Debug)]
struct Liar {
    device: CpuDevice,
    lie: Lie,
}

#[derive(Debug)]
struct Lying {
    executable: Arc<dyn Executable>,
    dispatches: Vec<Dispatch>,
}

impl Executable for Lying {
    fn device(&self) -> DeviceId {
        self.executable.device()
    }
    fn name(&self) -> &str {
        self.executable.name()
    }
    fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }
    fn as_any(&self) -> &dyn Any {
        self.executable.as_any()
    }
}

impl Device for Liar {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }
    fn epoch(&self) -> Epoch {
        self.device.epoch()
    }
    fn supports(&self, query: &OpQuery<'_>) -> std::result::Result<(), Unsupported> {
        self.device.supports(query)
    }
    fn allocate(&self, desc: &BufferDesc) -> Result<Buffer> {
        self.device.allocate(desc)
    }
    fn import(&self, buffer: &Buffer) -> Result<Buffer> {
        self.device.import(buffer)
    }
    fn weight_size_bytes(&self, shape: &WeightShape, dtype: DType) -> u64 {
        self.device.weight_size_bytes(shape, dtype)
    }
    fn load_rows(
        &self,
        shape: &WeightShape,
        dtype: DType,
        rows: Range<usize>,
        source: &[u8],
        destination: &BufferSlice,
    ) -> Result<()> {
        self.device.load_rows(shape, dtype, rows, source, destination)
    }
    fn write(&self, destination: &BufferSlice, bytes: &[u8]) -> Result<()> {
        self.device.write(destination, bytes)
    }
    fn read(&self, source: &BufferSlice, bytes: &mut [u8]) -> Result<()> {
        self.device.read(source, bytes)
    }
    fn compile(&self, segment: &Segment) -> Result<Arc<dyn Executable>> {
        let executable = self.device.compile(segment)?;
        let mut dispatches = executable.dispatches().to_vec();
        dispatches.iter_mut().for_each(self.lie);
        Ok(Arc::new(Lying { executable, dispatches }))
    }
    fn submit(&self, executable: &dyn Executable, waits: &[FencePoint]) -> Result<FencePoint> {
        self.device.submit(executable, waits)
    }
    fn measure(&self, what: Measurement, progress: &mut dyn FnMut(f64)) -> Result<f64> {
        self.device.measure(what, progress)
    }
    fn counters(&self) -> Counters {
        self.device.counters()
    }
    fn as_any(&self) -> &dyn Any {
        self.device.as_any()
    }
}

/// How many cases of a group a lie makes fail, and what the first says.
fn found(group: Group, lie: Lie) -> (usize, String) {
    let open = || CpuBackend::new(CpuOptions { threads: Some(1), kernels: Kernels::Reference }).open_device().unwrap();
    let report = run_group(group, &open(), &Liar { device: open(), lie }, &Options::default());
    assert!(!report.passed.is_empty() || !report.failed.is_empty(), "{group:?} ran nothing");
    (report.failed.len(), report.failed.first().map_or(String::new(), |failure| failure.cause.clone()))
}

fn check(group: Group, lie: Lie, expected: &str) {
    let (n, cause) = found(group, lie);
    assert!(n > 0, "{group:?}: no case fails, where one should say: {expected}");
    assert!(cause.contains(expected), "{group:?}: {cause}\nwhere it should say: {expected}");
}

const UNDECLARED_WRITE: &str = "was written, and no launch declares it";
const UNDECLARED_READ: &str = "declare as read";

fn shorten(range: Option<&mut ByteRange>) {
    if let Some(range) = range {
        range.size_bytes -= 4;
    }
}

fn is_in_cache(range: &ByteRange) -> bool {
    range.address >= ByteRange::KV_SPACE
}

#[test]
fn the_truth_passes() {
    for group in [Group::Elementwise, Group::KvAppend] {
        assert_eq!(found(group, |_| {}), (0, String::new()));
    }
}

#[test]
fn writes_that_are_not_declared_are_found() {
    check(Group::Elementwise, |launch| launch.writes.clear(), UNDECLARED_WRITE);
    check(Group::Elementwise, |launch| shorten(launch.writes.first_mut()), UNDECLARED_WRITE);
    check(Group::KvAppend, |launch| launch.writes.retain(|range| !is_in_cache(range)), UNDECLARED_WRITE);
    // The ring, but not the step.
    check(Group::Sample, |launch| launch.writes.truncate(1), UNDECLARED_WRITE);
    // Values, but not keys; and the keys of another table.
    check(Group::KvAppend, |launch| launch.writes[0].size_bytes = 0, UNDECLARED_WRITE);
    check(Group::KvAppend, |launch| launch.writes[0].address += ByteRange::KV_TABLE_BYTES, UNDECLARED_WRITE);
}

#[test]
fn reads_that_are_not_declared_are_found() {
    // The first read of the CPU's launches is the input, the last the step.
    check(Group::Elementwise, |launch| launch.reads.truncate(launch.reads.len() - 1), UNDECLARED_READ);
    check(Group::Elementwise, |launch| launch.reads[0].size_bytes = 0, UNDECLARED_READ);
    check(Group::Elementwise, |launch| shorten(launch.reads.first_mut()), UNDECLARED_READ);
    check(Group::ProductsOneRow, |launch| shorten(launch.reads.get_mut(1)), UNDECLARED_READ);
    check(Group::AttentionDecode, |launch| launch.reads.retain(|range| !is_in_cache(range)), UNDECLARED_READ);
    check(Group::Layer, |launch| launch.reads[0].size_bytes = 0, UNDECLARED_READ);
    check(Group::Sample, |launch| shorten(launch.reads.first_mut()), UNDECLARED_READ);
}

#[test]
fn writes_that_never_happen_are_found() {
    let lie: Lie = |launch| {
        let input = launch.reads[0];
        launch.writes.push(input);
    };
    check(Group::Embed, lie, "leaves it alone");
}

#[test]
fn launches_without_their_barriers_are_found() {
    check(Group::Layer, |launch| launch.barrier_before = false, "no barrier");
}
