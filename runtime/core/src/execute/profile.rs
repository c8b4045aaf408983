//! Where the time of a step goes, launch by launch.

use super::{StepItem, batch};
use crate::{Engine, Result};

/// One launch of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchTime {
    /// Index in [`Engine::devices`].
    pub device: usize,
    /// Op, layer and kernel, as the device names them.
    pub name: String,
    /// By the device's own clock.
    pub seconds: f64,
    /// Bytes that it declares to read and to write; of a KV cache, one block of each sequence.
    pub bytes: u64,
}

impl Engine {
    /// Runs a step, then its launches once more, one after another, and times each. Empty where no device has
    /// a clock. Together they take longer than the step, whose launches overlap.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn profile(&mut self, items: &[StepItem<'_>]) -> Result<Vec<LaunchTime>> {
        let size = batch::check(items, &self.plan.limits, self.step.vocab)?;
        let phase = self.choose_phase(size)?;
        self.step(items)?;
        let mut times = Vec::new();
        for segment in &self.phases[phase].segments {
            let Some(seconds) = self.devices[segment.device].time_launches(&*segment.executable, &[])? else {
                continue;
            };
            times.extend(segment.executable.dispatches().iter().zip(seconds).map(|(dispatch, seconds)| LaunchTime {
                device: segment.device,
                name: dispatch.name.clone(),
                seconds,
                bytes: dispatch.reads.iter().chain(&dispatch.writes).map(|range| range.size_bytes).sum(),
            }));
        }
        Ok(times)
    }
}
