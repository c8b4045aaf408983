//! How long each launch of a recording takes, by the device's own clock.

use std::sync::Arc;

use ash::vk;

use super::{
    device::{CallError, CallResult, LogicalDevice, named},
    submit::{Command, Recording},
};

/// A recording whose launches are timed. Each waits for the one before, so that their times add up.
pub(crate) struct TimedRecording {
    // Before the pool: the recording waits for its last submission.
    recording: Recording,
    _queries: Queries,
    launches: usize,
}

/// A pool of time stamps.
pub(super) struct Queries {
    device: Arc<LogicalDevice>,
    pub(super) raw: vk::QueryPool,
}

impl Drop for Queries {
    fn drop(&mut self) {
        // SAFETY: the recording that writes to the pool has gone before, after its last submission.
        unsafe { self.device.raw.destroy_query_pool(self.raw, None) };
    }
}

impl TimedRecording {
    /// Of the same commands as another recording; `None` if the device has no clock.
    pub(crate) fn of(recording: &Recording) -> CallResult<Option<TimedRecording>> {
        let device = recording.device();
        if device.facts.timestamp_bits == 0 || device.facts.timestamp_period_ns <= 0.0 {
            return Ok(None);
        }
        let launches = recording.commands().iter().filter(|command| matches!(command, Command::Launch { .. })).count();
        let too_many = CallError { call: "vkCreateQueryPool", result: vk::Result::ERROR_OUT_OF_DEVICE_MEMORY };
        let count = u32::try_from(launches + 1).map_err(|_| too_many)?;
        let info = vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(count);
        // SAFETY: the device is alive and its queue family writes time stamps.
        let raw = named("vkCreateQueryPool", unsafe { device.raw.create_query_pool(&info, None) })?;
        let queries = Queries { device: Arc::clone(device), raw };
        let recording = Recording::timed(device, recording.commands().to_vec(), &queries, count)?;
        Ok(Some(TimedRecording { recording, _queries: queries, launches }))
    }

    /// To be run before [`TimedRecording::seconds`].
    pub(crate) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Of each launch, in order. The recording has been run and waited for.
    pub(crate) fn seconds(&self) -> CallResult<Vec<f64>> {
        let device = &self._queries.device;
        let mut stamps = vec![0u64; self.launches + 1];
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        // SAFETY: the pool has as many queries as `stamps` has items.
        let got = unsafe { device.raw.get_query_pool_results(self._queries.raw, 0, &mut stamps, flags) };
        named("vkGetQueryPoolResults", got)?;
        let mask = u64::MAX >> (64 - device.facts.timestamp_bits.clamp(1, 64));
        let period_s = f64::from(device.facts.timestamp_period_ns) * 1e-9;
        Ok(stamps.windows(2).map(|pair| (pair[1].wrapping_sub(pair[0]) & mask) as f64 * period_s).collect())
    }
}
