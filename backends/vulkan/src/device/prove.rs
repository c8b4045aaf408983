//! Whether a device does what is submitted to it.
//!
//! Mesa's shims stand in for absent hardware: a driver on them lists a GPU like any other, accepts every
//! submission, signals its fences, and computes nothing. Such a device is refused when it is opened, before
//! a program reads zeros for results. Copying 16 bytes tells, and costs one small submission.

use std::sync::{Arc, PoisonError};

use biga_shaders::Kernel;

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

    /// What a device showed of what it can do beside what it must. Where it failed at that, it goes without.
    ///
    /// # Errors
    /// A lost device.
    pub(super) fn unless_lost<T>(&self, what: &str, shown: Result<T>) -> Result<Option<T>> {
        match shown {
            Ok(shown) => Ok(Some(shown)),
            Err(error @ Error::DeviceLost { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(device = %self.info.id, what, %error, "the device does without");
                Ok(None)
            }
        }
    }

    /// Whether lanes hold the elements of matrices that `held.glsl` says, by a product of matrices that they make.
    ///
    /// # Errors
    /// What goes wrong on the way.
    pub(super) fn holds(&self) -> Result<bool> {
        let product = self.allocate_own("proof of matrices", 4 * (ROWS * TOKENS) as u64, HostUse::Reads)?;
        let constants = [self.tuning.subgroup; 2];
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let pipeline = Arc::clone(&pipelines.get(self.target(), Kernel::ProveHeld, &constants)?);
        drop(pipelines);
        let address = product.memory.address();
        let push = vec![address as u32, (address >> 32) as u32];
        self.run_now(vec![Command::Launch { pipeline, push, grid: [1, 1, 1] }])?;
        let mut seen = [0; 4 * ROWS * TOKENS];
        let read = product.memory.read(0, &mut seen);
        let seen = seen.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let held = read && seen.eq(expected());
        if !held {
            tracing::info!(device = %self.info.id, "lanes hold other elements of matrices than the kernels for few rows take");
        }
        Ok(held)
    }
}

/// The sides of the product that `prove_held.comp` computes.
const ROWS: usize = 16;
const TOKENS: usize = 8;
const COLUMNS: usize = 16;

/// That product, [row of x, row of the weight], of its numbers.
fn expected() -> impl Iterator<Item = f32> {
    let weight = |row: usize, column: usize| (7 * row + 5 * column + row * column + 3) % 17;
    let x = |row: usize, column: usize| (3 * row + 2 * column + row * column + 1) % 19;
    (0..ROWS * TOKENS).map(move |i| {
        let (token, row) = (i / ROWS, i % ROWS);
        (0..COLUMNS).map(|column| weight(row, column) * x(token, column)).sum::<usize>() as f32
    })
}
