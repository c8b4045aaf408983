//! A compiled segment: pipelines, barriers, one recording.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use biga_hal::{BufferSlice, DeviceId, Dispatch, Epoch, Error, Executable, Result, Segment};
use biga_shaders::Kernel;

use crate::{
    buffer::VulkanBuffer,
    chain::Link,
    device::driver_error,
    lower::Launch,
    sys::{
        device::LogicalDevice,
        pipeline::Pipeline,
        submit::{Command, Recording},
    },
};

/// Pipelines by kernel and specialisation constants.
#[derive(Debug, Default)]
pub(crate) struct Pipelines(HashMap<Key, Arc<Pipeline>>);

type Key = (Kernel, Vec<u32>);

/// What pipelines are made for.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) id: DeviceId,
    pub(crate) logical: &'a Arc<LogicalDevice>,
    pub(crate) subgroup: u32,
}

impl Target<'_> {
    fn pipeline(&self, (kernel, constants): &Key) -> Result<Arc<Pipeline>> {
        let spirv = kernel.spirv().ok_or_else(|| Error::Driver {
            device: self.id,
            call: "vkCreateShaderModule",
            cause: format!("{kernel:?} is not compiled for this format"),
        })?;
        let pipeline = Pipeline::new(self.logical, spirv, constants, self.subgroup);
        pipeline.map(Arc::new).map_err(|error| driver_error(self.id, error))
    }
}

impl Pipelines {
    /// The pipeline of a launch, made at its first use.
    pub(crate) fn get(&mut self, target: Target<'_>, kernel: Kernel, constants: &[u32]) -> Result<Arc<Pipeline>> {
        let key = (kernel, constants.to_vec());
        if let Some(pipeline) = self.0.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = target.pipeline(&key)?;
        self.0.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// Makes the pipelines of launches that are not there yet, on every core: drivers compile on the thread that
    /// asks.
    pub(crate) fn prepare(&mut self, target: Target<'_>, launches: &[Launch]) {
        let wanted: HashSet<Key> = launches.iter().map(|launch| (launch.kernel, launch.constants.clone())).collect();
        let missing: Vec<Key> = wanted.into_iter().filter(|key| !self.0.contains_key(key)).collect();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let make = || -> Vec<(Key, Arc<Pipeline>)> {
            let mut made = Vec::new();
            while let Some(key) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                // What fails here is made once more when it is needed, alone: validation layers that rewrite
                // kernels fail now and then when several are made at once.
                made.extend(target.pipeline(key).ok().map(|pipeline| (key.clone(), pipeline)));
            }
            made
        };
        let made: Vec<Vec<_>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..cores.min(missing.len())).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        self.0.extend(made.into_iter().flatten());
    }
}

/// Constants, scratch that is shared with other executables, and counters.
type OwnMemory = (Option<VulkanBuffer>, Option<Arc<VulkanBuffer>>, Option<VulkanBuffer>);

/// See [`Executable`].
#[derive(Debug)]
pub(crate) struct VulkanExecutable {
    id: DeviceId,
    epoch: Epoch,
    name: String,
    dispatches: Vec<Dispatch>,
    // Before `_buffers`: the recording waits for its last submission, then the memory may go.
    recording: Recording,
    _buffers: Vec<BufferSlice>,
    _own: OwnMemory,
}

impl VulkanExecutable {
    /// Records the launches with the barriers that their ranges ask for.
    pub(crate) fn record(
        (id, epoch): (DeviceId, Epoch),
        logical: &Arc<LogicalDevice>,
        segment: &Segment,
        launches: Vec<(Launch, Arc<Pipeline>)>,
        links: Vec<Link>,
        own: OwnMemory,
    ) -> Result<VulkanExecutable> {
        let mut commands = Vec::with_capacity(launches.len() * 2 + 2);
        let counters = own.2.as_ref().map_or(0, |counters| counters.memory.address());
        if let Some(counters) = &own.2 {
            commands.extend([Command::Zero(Arc::clone(&counters.memory)), Command::Barrier]);
        }
        let mut dispatches = Vec::with_capacity(launches.len());
        for (i, ((mut launch, pipeline), link)) in launches.into_iter().zip(links).enumerate() {
            if link.barrier {
                commands.push(Command::Barrier);
            }
            if launch.chained {
                launch.push.extend([counters as u32, (counters >> 32) as u32]);
                launch.push.extend(link.words());
            }
            // A recording opens with a barrier, which the first launch stands behind.
            launch.dispatch.barrier_before = link.barrier || link.awaits.is_some() || i == 0;
            dispatches.push(launch.dispatch);
            commands.push(Command::Launch { pipeline, push: launch.push, grid: launch.grid });
        }
        let recording = Recording::new(logical, commands).map_err(|error| driver_error(id, error))?;
        let buffers = slices(segment).cloned().collect();
        let name = segment.name.clone();
        Ok(VulkanExecutable { id, epoch, name, dispatches, recording, _buffers: buffers, _own: own })
    }

    pub(crate) fn recording(&self) -> &Recording {
        &self.recording
    }

    pub(crate) fn segment_name(&self) -> &str {
        &self.name
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Every range that a segment binds.
pub(crate) fn slices(segment: &Segment) -> impl Iterator<Item = &BufferSlice> {
    let of_ops = segment.ops.iter().flat_map(|bound| {
        bound.inputs.iter().chain(&bound.output).chain(bound.weights.iter().map(|weight| &weight.slice))
    });
    std::iter::once(&segment.step).chain(of_ops)
}

impl Executable for VulkanExecutable {
    fn device(&self) -> DeviceId {
        self.id
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
