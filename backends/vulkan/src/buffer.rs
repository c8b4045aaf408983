//! Buffers, and the choice of their memory type.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ash::vk;
use biga_hal::{Access, Allocation, Buffer, BufferDesc, DeviceId, Epoch, HostRange};

use crate::sys::{facts::MemoryType, memory::Memory};

/// Bytes allocated and bytes that may be.
#[derive(Debug)]
pub(crate) struct Ledger {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl Ledger {
    pub(crate) fn new(limit_bytes: u64) -> Ledger {
        Ledger { limit_bytes, used_bytes: AtomicU64::new(0) }
    }

    /// Books bytes, or says how many are left.
    pub(crate) fn book(self: &Arc<Ledger>, size_bytes: u64) -> Result<Booking, u64> {
        let booked = |used: u64| used.checked_add(size_bytes).filter(|&all| all <= self.limit_bytes);
        match self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, booked) {
            Ok(_) => Ok(Booking { ledger: Arc::clone(self), size_bytes }),
            Err(used) => Err(self.limit_bytes.saturating_sub(used)),
        }
    }

    /// Bytes left.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes.load(Ordering::Relaxed))
    }
}

/// Booked bytes, given back when dropped.
#[derive(Debug)]
pub(crate) struct Booking {
    ledger: Arc<Ledger>,
    size_bytes: u64,
}

impl Drop for Booking {
    fn drop(&mut self) {
        self.ledger.used_bytes.fetch_sub(self.size_bytes, Ordering::Relaxed);
    }
}

/// Who uses a buffer beside the device's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostUse {
    /// Nobody.
    None,
    /// The host writes it, never reads it: uncached memory is fine.
    Writes,
    /// The host reads it now and then, by [`biga_hal::Device::read`], which may copy: not worth writes over the
    /// bus by the device's kernels.
    Copies,
    /// The host reads it in place: uncached memory would be ruinous.
    Reads,
}

impl HostUse {
    /// By the declared accessors. Another device reaches the memory through the host.
    pub(crate) fn of(desc: &BufferDesc) -> HostUse {
        let others = desc.accessors.devices.iter().map(|(_, access)| access);
        let in_place = others.chain(desc.accessors.host.iter().filter(|&&access| access != Access::Read));
        let rarely = if desc.accessors.host == Some(Access::Read) { HostUse::Copies } else { HostUse::None };
        in_place.fold(rarely, |so_far, access| match (so_far, access) {
            (HostUse::Reads, _) | (_, Access::Read | Access::ReadWrite) | (HostUse::Copies, Access::Write) => {
                HostUse::Reads
            }
            (_, Access::Write) => HostUse::Writes,
        })
    }
}

/// Memory types that suit, best first. Types of special rules (protected, lazily allocated, AMD's
/// uncached device types) never do.
pub(crate) fn memory_types(types: &[MemoryType], heap_bytes: &[u64], host: HostUse) -> Vec<usize> {
    type Flags = vk::MemoryPropertyFlags;
    let special = Flags::PROTECTED
        | Flags::LAZILY_ALLOCATED
        | Flags::DEVICE_COHERENT_AMD
        | Flags::DEVICE_UNCACHED_AMD
        | Flags::RDMA_CAPABLE_NV;
    let host_sees = Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
    let anywhere = matches!(host, HostUse::None | HostUse::Copies);
    let suits = |t: &MemoryType| !t.flags.intersects(special) && (anywhere || t.flags.contains(host_sees));
    let has = |i: usize, flag| u64::from(types[i].flags.contains(flag));
    let size = |i: usize| heap_bytes.get(types[i].heap).copied().unwrap_or(0);
    let mut order: Vec<usize> = (0..types.len()).filter(|&i| suits(&types[i])).collect();
    order.sort_by_key(|&i| {
        std::cmp::Reverse(match host {
            // The larger heap first: a small window of a discrete card's memory is not for weights.
            HostUse::None => [has(i, Flags::DEVICE_LOCAL), size(i), has(i, Flags::HOST_VISIBLE)],
            HostUse::Writes => [has(i, Flags::DEVICE_LOCAL), 1 - has(i, Flags::HOST_CACHED), size(i)],
            HostUse::Copies => [has(i, Flags::DEVICE_LOCAL), has(i, Flags::HOST_CACHED), size(i)],
            HostUse::Reads => [has(i, Flags::HOST_CACHED), has(i, Flags::DEVICE_LOCAL), size(i)],
        })
    });
    order
}

/// A buffer of this device: its own memory, or imported host memory.
#[derive(Debug)]
pub(crate) struct VulkanBuffer {
    pub(crate) name: String,
    pub(crate) id: DeviceId,
    pub(crate) epoch: Epoch,
    /// What was asked for; the memory may be a little larger.
    pub(crate) size_bytes: u64,
    /// Whether the host was declared an accessor. Only then is the mapping shown, so that a missing
    /// declaration shows on every driver and not only where memory happens to be mappable.
    pub(crate) host_declared: bool,
    pub(crate) memory: Arc<Memory>,
    /// Its bytes in the device's ledger.
    pub(crate) _booking: Option<Booking>,
    /// The owner of imported memory. Dropped after `memory`.
    pub(crate) _imported: Option<Buffer>,
}

impl Allocation for VulkanBuffer {
    fn name(&self) -> &str {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn owner(&self) -> Option<DeviceId> {
        Some(self.id)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn host_range(&self) -> Option<HostRange> {
        let address = self.memory.host_address().filter(|_| self.host_declared)?;
        Some(HostRange { address, size_bytes: usize::try_from(self.size_bytes).ok()?, writable: true })
    }

    fn device_address(&self) -> u64 {
        self.memory.address()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use biga_hal::{Access, Accessors, BufferDesc};

    use super::{HostUse, memory_types};
    use crate::probe::example_facts;

    fn best(host: HostUse) -> usize {
        let facts = example_facts();
        let heaps: Vec<u64> = facts.heaps.iter().map(|heap| heap.size_bytes).collect();
        memory_types(&facts.memory_types, &heaps, host)[0]
    }

    #[test]
    fn a_host_reader_gets_cached_memory_and_a_writer_device_local() {
        assert_eq!(best(HostUse::Reads), 2);
        assert_eq!(best(HostUse::Writes), 1);
        // Visible memory of the same heap saves the staging copy.
        assert_eq!(best(HostUse::None), 1);
    }

    #[test]
    fn any_reader_decides() {
        let accessors = Accessors { host: Some(Access::Write), devices: vec![(crate::probe::id(1), Access::Read)] };
        let desc = BufferDesc { name: "x".into(), size_bytes: 1, accessors };
        assert_eq!(HostUse::of(&desc), HostUse::Reads);
        let only_host =
            |host| HostUse::of(&BufferDesc { accessors: Accessors { host, devices: vec![] }, ..desc.clone() });
        assert_eq!(only_host(Some(Access::Read)), HostUse::Copies);
        assert_eq!(only_host(Some(Access::ReadWrite)), HostUse::Reads);
        assert_eq!(only_host(Some(Access::Write)), HostUse::Writes);
    }
}
