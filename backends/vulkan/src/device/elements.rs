//! Asks a device which elements of a matrix an invocation holds.

use std::sync::{Arc, PoisonError};

use biga_shaders::Kernel;

use super::{Command, HostUse, Result, VulkanDevice};
use crate::elements::{Elements, MOST};

impl VulkanDevice {
    /// How matrices lie, if the device has matrices and they follow a pattern that kernels know.
    ///
    /// # Errors
    /// What went wrong on the way.
    pub(super) fn elements(&self) -> Result<Option<Elements>> {
        let (Some(shape), Some(constants)) = (self.tuning.matrix, self.tuning.asking()) else { return Ok(None) };
        let subgroup = self.tuning.subgroup;
        let mut bytes = vec![0; 2 * subgroup as usize * MOST * size_of::<u32>()];
        let found = self.allocate_own("elements", bytes.len() as u64, HostUse::Reads)?;
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let pipeline = pipelines.get(self.target(), Kernel::MatrixLayout, &constants)?;
        drop(pipelines);
        let address = found.memory.address();
        let push = vec![address as u32, (address >> 32) as u32];
        self.run_now(vec![Command::Launch { pipeline: Arc::clone(&pipeline), push, grid: [1; 3] }])?;
        if !found.memory.read(0, &mut bytes) {
            return Ok(None);
        }
        let words =
            bytes.chunks_exact(4).map(|word| word.iter().rev().fold(0, |all, byte| (all << 8) | u32::from(*byte)));
        let words: Vec<u32> = words.collect();
        Ok(Elements::of(&words, subgroup, shape))
    }
}
