//! Copies between the host and memory that it does not see, through a ring of host buffers.
//!
//! A buffer that was filled is copied by the device while the next one is filled: who stores bytes waits only if
//! every buffer is filled and none is copied yet. Copies run in the order of submission like all work of the
//! device, so that what is submitted later sees the bytes. An error of a copy is that of a later call.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use biga_hal::Result;

use crate::{
    buffer::HostUse,
    device::VulkanDevice,
    sys::{
        memory::Memory,
        submit::{Command, Recording},
    },
};

/// Size of a buffer.
const SLOT_BYTES: u64 = 4 << 20;
/// Most buffers: two for each of 16 threads.
const MAX_SLOTS: usize = 32;
/// Buffers that are kept when nobody uses any.
const KEPT_SLOTS: usize = 2;

/// A host buffer, and the last copy out of it.
#[derive(Debug)]
struct Slot {
    memory: Arc<Memory>,
    /// With the value that the timeline reaches when it is done.
    copy: Option<(Recording, u64)>,
}

#[derive(Debug, Default)]
struct Slots {
    /// Those that nobody fills, the one that was filled first in front.
    idle: VecDeque<Slot>,
    /// Idle ones and others.
    made: usize,
}

/// The ring of a device. Its buffers are made when they are needed.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    slots: Mutex<Slots>,
    given_back: Condvar,
}

impl Staging {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer that no copy reads any more.
    fn take(&self, device: &VulkanDevice) -> Result<Slot> {
        let mut slots = self.lock();
        loop {
            let oldest = slots.idle.front().map(|slot| slot.copy.as_ref().map_or(0, |(_, value)| *value));
            match oldest {
                Some(value) if slots.made == MAX_SLOTS || device.has_reached(value)? => {}
                _ if slots.made < MAX_SLOTS => {
                    slots.made += 1;
                    break;
                }
                _ => {
                    slots = self.given_back.wait(slots).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            }
            if let Some(slot) = slots.idle.pop_front() {
                drop(slots);
                let waited = slot.copy.as_ref().map_or(Ok(()), |(_, value)| device.wait_for(*value));
                let slot = Slot { memory: slot.memory, copy: slot.copy.filter(|_| waited.is_err()) };
                return match waited {
                    Ok(()) => Ok(slot),
                    Err(error) => {
                        self.give_back(device, slot);
                        Err(error)
                    }
                };
            }
        }
        drop(slots);
        match device.memory("staging", SLOT_BYTES, HostUse::Reads) {
            Ok(memory) => Ok(Slot { memory: Arc::new(memory), copy: None }),
            Err(error) => {
                self.lock().made -= 1;
                self.given_back.notify_one();
                Err(error)
            }
        }
    }

    /// Puts a buffer back. The last to do so leaves few behind.
    fn give_back(&self, device: &VulkanDevice, slot: Slot) {
        let mut spare = Vec::new();
        let mut slots = self.lock();
        slots.idle.push_back(slot);
        while slots.idle.len() == slots.made && slots.made > KEPT_SLOTS {
            let done =
                |slot: &Slot| slot.copy.as_ref().is_none_or(|(_, value)| device.has_reached(*value).unwrap_or(true));
            let Some(slot) = slots.idle.pop_front_if(|slot| done(slot)) else { break };
            slots.made -= 1;
            spare.push(slot);
        }
        drop(slots);
        self.given_back.notify_one();
        // Freeing memory may wait for the device.
        drop(spare);
    }

    /// Begins to store bytes in `to`.
    pub(crate) fn upload<'a>(&'a self, device: &'a VulkanDevice, to: &'a Arc<Memory>) -> Upload<'a> {
        Upload { staging: self, device, to, slot: None, used_bytes: 0, copies: Vec::new() }
    }

    /// Copies bytes out of `from`, and waits for them.
    pub(crate) fn download(
        &self,
        device: &VulkanDevice,
        from: &Arc<Memory>,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<()> {
        let slot = self.take(device)?;
        let mut done = 0;
        let copied = bytes.chunks_mut(SLOT_BYTES as usize).try_for_each(|part| {
            device.run_now(vec![Command::Copy {
                from: Arc::clone(from),
                from_offset: offset + done,
                to: Arc::clone(&slot.memory),
                to_offset: 0,
                size_bytes: part.len() as u64,
            }])?;
            slot.memory.read(0, part);
            done += part.len() as u64;
            Ok(())
        });
        self.give_back(device, slot);
        copied
    }
}

/// Bytes on their way to one memory.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    staging: &'a Staging,
    device: &'a VulkanDevice,
    to: &'a Arc<Memory>,
    /// What is being filled.
    slot: Option<Slot>,
    used_bytes: u64,
    /// Out of it.
    copies: Vec<Command>,
}

impl Upload<'_> {
    /// Stores bytes at an offset of the memory. They are on their way at the latest after [`Upload::finish`].
    ///
    /// # Errors
    /// The device's own, also of an earlier copy.
    pub(crate) fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let slot = match self.slot.take() {
                Some(slot) => slot,
                None => self.staging.take(self.device)?,
            };
            let part = (bytes.len() - done).min((SLOT_BYTES - self.used_bytes) as usize);
            slot.memory.write(self.used_bytes, &bytes[done..done + part]);
            self.copies.push(Command::Copy {
                from: Arc::clone(&slot.memory),
                from_offset: self.used_bytes,
                to: Arc::clone(self.to),
                to_offset: offset + done as u64,
                size_bytes: part as u64,
            });
            self.slot = Some(slot);
            self.used_bytes += part as u64;
            done += part;
            if self.used_bytes == SLOT_BYTES {
                self.submit()?;
            }
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        let Some(mut slot) = self.slot.take() else { return Ok(()) };
        self.used_bytes = 0;
        let submitted = self.device.start(std::mem::take(&mut self.copies));
        let result = submitted.map(|copy| slot.copy = Some(copy));
        self.staging.give_back(self.device, slot);
        result
    }

    /// Sends what was not sent yet. Does not wait for it.
    ///
    /// # Errors
    /// As [`Upload::put`].
    pub(crate) fn finish(mut self) -> Result<()> {
        self.submit()
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.staging.give_back(self.device, slot);
        }
    }
}
