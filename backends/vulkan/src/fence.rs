//! The device's timeline: a timeline semaphore that counts finished submissions.

use std::{sync::Arc, time::Duration};

use biga_hal::{DeviceId, Error, Result, Timeline};

use crate::{device::driver_error, sys::device::LogicalDevice};

/// See [`Timeline`].
#[derive(Debug)]
pub(crate) struct VulkanTimeline {
    pub(crate) id: DeviceId,
    pub(crate) logical: Arc<LogicalDevice>,
}

impl Timeline for VulkanTimeline {
    fn device(&self) -> DeviceId {
        self.id
    }

    fn value(&self) -> Result<u64> {
        self.logical.reached().map_err(|error| driver_error(self.id, error))
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
            Err(error) => Err(driver_error(self.id, error)),
        }
    }
}
