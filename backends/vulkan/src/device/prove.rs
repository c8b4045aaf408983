//! Whether a device does what is submitted to it.
//!
//! Mesa's shims stand in for absent hardware: a driver on them lists a GPU like any other, accepts every
//! submission, signals its fences, and computes nothing. Such a device is refused when it is opened, before
//! a program reads zeros for results. Copying 16 bytes tells, and costs one small submission.

use super::{Command, Error, HostUse, Result, VulkanDevice};

/// Unlike anything that fresh memory holds.
const PATTERN: [u8; 16] = *b"biga asks: work?";

impl VulkanDevice {
    /// Runs a copy and looks at its result.
    ///
    /// # Errors
    /// [`Error::Driver`] if the copy had no effect, or what went wrong on the way.
    pub(super) fn prove(&self) -> Result<()> {
        let from = self.allocate_own("proof source", PATTERN.len() as u64, HostUse::Reads)?;
        let to = self.allocate_own("proof result", PATTERN.len() as u64, HostUse::Reads)?;
        let mut seen = [0; PATTERN.len()];
        let written = from.memory.write(0, &PATTERN);
        self.run_now(vec![Command::Copy {
            from: from.memory.clone(),
            from_offset: 0,
            to: to.memory.clone(),
            to_offset: 0,
            size_bytes: PATTERN.len() as u64,
        }])?;
        if written && to.memory.read(0, &mut seen) && seen == PATTERN {
            return Ok(());
        }
        Err(Error::Driver {
            device: self.info.id,
            call: "vkQueueSubmit2",
            cause: "a copy was accepted and had no effect, so this driver computes nothing; \
                if a shim stands in for the hardware, take it out of LD_PRELOAD"
                .to_owned(),
        })
    }
}
