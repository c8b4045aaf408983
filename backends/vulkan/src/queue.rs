//! Submission: waits for other devices on the host, then one call.

use std::sync::Arc;

use biga_hal::{DeviceId, FencePoint, Result, STEP_TIMEOUT, Timeline};

use crate::{device::driver_error, executable::VulkanExecutable, fence::VulkanTimeline};

/// The one queue of a device.
#[derive(Debug)]
pub(crate) struct Queue {
    id: DeviceId,
    timeline: Arc<dyn Timeline>,
}

impl Queue {
    /// Over the device's own timeline.
    pub(crate) fn new(timeline: VulkanTimeline) -> Queue {
        Queue { id: timeline.id, timeline: Arc::new(timeline) }
    }

    /// Submits after `waits`. Points of this device's own timeline need nothing: its submissions run in
    /// order, and each recording opens with a barrier over what came before.
    pub(crate) fn submit(&self, executable: &VulkanExecutable, waits: &[FencePoint]) -> Result<FencePoint> {
        self.await_others(waits)?;
        let value = executable.recording().submit().map_err(|error| driver_error(self.id, error))?;
        tracing::trace!(device = %self.id, segment = executable.segment_name(), fence_value = value, "submitted");
        Ok(FencePoint { timeline: Arc::clone(&self.timeline), value })
    }

    /// Waits on the host for the points of other devices.
    pub(crate) fn await_others(&self, waits: &[FencePoint]) -> Result<()> {
        let mut others = waits.iter().filter(|point| !Arc::ptr_eq(&point.timeline, &self.timeline));
        others.try_for_each(|point| point.wait(STEP_TIMEOUT))
    }
}
