//! The device's timeline: a timeline semaphore that counts finished submissions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use biga_hal::{DeviceId, Error, Result, Timeline};

use crate::{
    device::driver_error,
    sys::device::{CallError, LogicalDevice},
};

/// See [`Timeline`].
#[derive(Debug)]
pub(crate) struct VulkanTimeline {
    pub(crate) id: DeviceId,
    pub(crate) logical: Arc<LogicalDevice>,
    /// Set when the device is lost: a wait is where that usually shows first.
    pub(crate) lost: Arc<AtomicBool>,
}

impl VulkanTimeline {
    fn failed(&self, error: CallError) -> Error {
        let error = driver_error(self.id, error);
        if let Error::DeviceLost { cause, .. } = &error
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            tracing::error!(device = %self.id, cause, "device lost");
        }
        error
    }
}

impl Timeline for VulkanTimeline {
    fn device(&self) -> DeviceId {
        self.id
    }

    fn value(&self) -> Result<u64> {
        self.logical.reached().map_err(|error| self.failed(error))
    }

    fn wait(&self, value: u64, timeout: Duration) -> Result<()> {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        match self.logical.wait(value, timeout_ns) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Timeout {
                device: self.id,
                expected: value,
                seen: self.value()?,
                timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            }),
            Err(error) => Err(self.failed(error)),
        }
    }
}
