//! Fences: points on a device's timeline.
//!
//! A timeline counts up, one value per submission. Waiting for a value means that it was reached or
//! passed. Another device waits through the host unless both sides share a primitive.

use std::{fmt, sync::Arc, time::Duration};

use crate::{DeviceId, Result};

/// The longest that a step may take before its device counts as hung. A software GPU needs most of a
/// minute for a large prefill of a large model; a real device needs milliseconds.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(300);

/// A device's monotonic counter of finished submissions.
pub trait Timeline: Send + Sync + fmt::Debug {
    /// Whose it is.
    fn device(&self) -> DeviceId;
    /// The last value reached.
    ///
    /// # Errors
    /// If the device is lost.
    fn value(&self) -> Result<u64>;
    /// Blocks until `value` is reached.
    ///
    /// # Errors
    /// [`crate::Error::Timeout`] with the expected and the seen value, or the device's loss.
    fn wait(&self, value: u64, timeout: Duration) -> Result<()>;
}

/// A point on a timeline.
#[derive(Clone, Debug)]
pub struct FencePoint {
    /// The timeline.
    pub timeline: Arc<dyn Timeline>,
    /// The value to reach.
    pub value: u64,
}

impl FencePoint {
    /// Blocks until the point is reached.
    ///
    /// # Errors
    /// As [`Timeline::wait`].
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        self.timeline.wait(self.value, timeout)
    }
}
