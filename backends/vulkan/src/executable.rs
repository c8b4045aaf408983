//! A compiled segment: pipelines, barriers, one recording.

use std::{any::Any, collections::HashMap, sync::Arc};

use biga_hal::{BufferSlice, DeviceId, Dispatch, Epoch, Error, Executable, Result, Segment};
use biga_shaders::Kernel;

use crate::{
    buffer::VulkanBuffer,
    device::driver_error,
    hazard::Hazards,
    lower::Launch,
    sys::{
        device::LogicalDevice,
        pipeline::Pipeline,
        submit::{Command, Recording},
    },
};

/// Pipelines by kernel and specialisation constants.
#[derive(Debug, Default)]
pub(crate) struct Pipelines(HashMap<(Kernel, Vec<u32>), Arc<Pipeline>>);

impl Pipelines {
    /// The pipeline of a launch, made at its first use.
    pub(crate) fn get(
        &mut self,
        id: DeviceId,
        logical: &Arc<LogicalDevice>,
        subgroup: u32,
        kernel: Kernel,
        constants: &[u32],
    ) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.0.get(&(kernel, constants.to_vec())) {
            return Ok(Arc::clone(pipeline));
        }
        let spirv = kernel.spirv().ok_or_else(|| Error::Driver {
            device: id,
            call: "vkCreateShaderModule",
            cause: format!("{kernel:?} is not compiled for this format"),
        })?;
        let pipeline = Pipeline::new(logical, spirv, constants, subgroup).map_err(|error| driver_error(id, error))?;
        let pipeline = Arc::new(pipeline);
        self.0.insert((kernel, constants.to_vec()), Arc::clone(&pipeline));
        Ok(pipeline)
    }
}

/// Constants, and scratch that is shared with other executables.
type OwnMemory = (Option<VulkanBuffer>, Option<Arc<VulkanBuffer>>);

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
        own: OwnMemory,
    ) -> Result<VulkanExecutable> {
        let mut hazards = Hazards::default();
        let mut commands = Vec::with_capacity(launches.len() * 2);
        let mut dispatches = Vec::with_capacity(launches.len());
        for (i, (mut launch, pipeline)) in launches.into_iter().enumerate() {
            let due = hazards.admit(&launch.dispatch);
            if due {
                commands.push(Command::Barrier);
            }
            // A recording opens with a barrier, which the first launch stands behind.
            launch.dispatch.barrier_before = due || i == 0;
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
