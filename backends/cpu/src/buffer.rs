//! Buffers in host memory, and the registry of what a step's block tables may point into.
//!
//! A buffer is either memory of our own or memory of another owner that the host sees (another device's
//! host-visible buffer, a mapped file). In both cases its device address is its host address.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use biga_hal::{Allocation, Buffer, BufferDesc, DeviceId, Epoch, Error, HostRange, Result};

use crate::{DEVICE, sys::memory::HostMemory};

/// Every range that kernels of one device may touch, and how much of it the device allocated.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Bytes that may be allocated in all.
    limit_bytes: u64,
    allocated_bytes: AtomicU64,
    ranges: RwLock<Ranges>,
}

/// The ranges themselves: how often each is registered, by start, end and whether it may be written.
#[derive(Debug, Default)]
pub(crate) struct Ranges(BTreeMap<(usize, usize, bool), usize>);

impl Ranges {
    /// True if all of `address..address + size_bytes` lies in one registered, writable range.
    pub(crate) fn contains_writable(&self, address: usize, size_bytes: usize) -> bool {
        let Some(end) = address.checked_add(size_bytes) else { return false };
        // Buffers do not overlap, so the last one that starts at or before the address is the one.
        self.0
            .range(..=(address, usize::MAX, true))
            .next_back()
            .is_some_and(|(&(_, range_end, writable), _)| writable && end <= range_end)
    }
}

impl Registry {
    /// A registry for a device that may allocate so much.
    pub(crate) fn new(limit_bytes: u64) -> Registry {
        Registry { limit_bytes, allocated_bytes: AtomicU64::new(0), ranges: RwLock::default() }
    }

    /// The ranges; none of them is freed while the guard lives.
    pub(crate) fn ranges(&self) -> RwLockReadGuard<'_, Ranges> {
        self.ranges.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, range: HostRange) {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        *ranges.0.entry(key(range)).or_insert(0) += 1;
    }

    fn remove(&self, range: HostRange) {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = ranges.0.get_mut(&key(range)) {
            *count -= 1;
            if *count == 0 {
                ranges.0.remove(&key(range));
            }
        }
    }

    /// Books bytes, or says how many are left.
    fn reserve(&self, size_bytes: u64) -> std::result::Result<(), u64> {
        let booked = |allocated: u64| allocated.checked_add(size_bytes).filter(|&all| all <= self.limit_bytes);
        match self.allocated_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, booked) {
            Ok(_) => Ok(()),
            Err(allocated) => Err(self.limit_bytes.saturating_sub(allocated)),
        }
    }
}

fn key(range: HostRange) -> (usize, usize, bool) {
    (range.address, range.address.saturating_add(range.size_bytes), range.writable)
}

/// What stands behind a buffer.
#[derive(Debug)]
enum Memory {
    Own(#[expect(dead_code, reason = "holds the memory")] HostMemory),
    Imported(Buffer),
}

/// A buffer of this device.
#[derive(Debug)]
pub(crate) struct CpuAllocation {
    name: String,
    range: HostRange,
    registry: Arc<Registry>,
    memory: Memory,
}

impl CpuAllocation {
    /// Allocates.
    pub(crate) fn allocate(registry: &Arc<Registry>, desc: &BufferDesc) -> Result<CpuAllocation> {
        if desc.size_bytes == 0 {
            let buffer = desc.name.clone();
            return Err(Error::OutOfRange { buffer, offset: 0, size_bytes: 0, available_bytes: 0 });
        }
        let refuse = |available_bytes| Error::OutOfMemory {
            device: DEVICE,
            name: desc.name.clone(),
            requested_bytes: desc.size_bytes,
            available_bytes,
        };
        registry.reserve(desc.size_bytes).map_err(refuse)?;
        let memory = usize::try_from(desc.size_bytes).ok().and_then(HostMemory::new).ok_or_else(|| {
            let allocated = registry.allocated_bytes.fetch_sub(desc.size_bytes, Ordering::Relaxed) - desc.size_bytes;
            refuse(registry.limit_bytes.saturating_sub(allocated))
        })?;
        let range = HostRange { address: memory.address(), size_bytes: memory.size_bytes(), writable: true };
        Ok(CpuAllocation::register(registry, desc.name.clone(), range, Memory::Own(memory)))
    }

    /// Takes another owner's memory in.
    pub(crate) fn import(registry: &Arc<Registry>, buffer: &Buffer) -> Result<CpuAllocation> {
        let name = buffer.allocation().name().to_owned();
        let refuse = |cause: &str| Error::NotImportable { device: DEVICE, buffer: name.clone(), cause: cause.into() };
        let range = buffer.allocation().host_range().ok_or_else(|| refuse("the host does not see this memory"))?;
        if range.size_bytes as u64 != buffer.size_bytes() || range.address.checked_add(range.size_bytes).is_none() {
            return Err(refuse("its host range is not the whole buffer"));
        }
        Ok(CpuAllocation::register(registry, name, range, Memory::Imported(buffer.clone())))
    }

    fn register(registry: &Arc<Registry>, name: String, range: HostRange, memory: Memory) -> CpuAllocation {
        registry.add(range);
        CpuAllocation { name, range, registry: Arc::clone(registry), memory }
    }

    /// True if kernels of the device with this registry may use it.
    pub(crate) fn belongs_to(&self, registry: &Arc<Registry>) -> bool {
        Arc::ptr_eq(&self.registry, registry)
    }
}

impl Drop for CpuAllocation {
    fn drop(&mut self) {
        self.registry.remove(self.range);
        if let Memory::Own(_) = self.memory {
            self.registry.allocated_bytes.fetch_sub(self.range.size_bytes as u64, Ordering::Relaxed);
        }
    }
}

impl Allocation for CpuAllocation {
    fn name(&self) -> &str {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.range.size_bytes as u64
    }

    fn owner(&self) -> Option<DeviceId> {
        match &self.memory {
            Memory::Own(_) => Some(DEVICE),
            Memory::Imported(buffer) => buffer.allocation().owner(),
        }
    }

    fn epoch(&self) -> Epoch {
        match &self.memory {
            Memory::Own(_) => Epoch::default(),
            Memory::Imported(buffer) => buffer.allocation().epoch(),
        }
    }

    fn host_range(&self) -> Option<HostRange> {
        Some(self.range)
    }

    fn device_address(&self) -> u64 {
        self.range.address as u64
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use biga_hal::{Accessors, Allocation, BufferDesc, Error};

    use super::{CpuAllocation, Registry};

    fn desc(size_bytes: u64) -> BufferDesc {
        BufferDesc { name: "b".into(), size_bytes, accessors: Accessors::default() }
    }

    #[test]
    fn the_registry_knows_live_buffers_only() {
        let registry = Arc::new(Registry::new(1 << 20));
        let buffer = CpuAllocation::allocate(&registry, &desc(256)).unwrap();
        let address = usize::try_from(buffer.device_address()).unwrap();
        assert!(registry.ranges().contains_writable(address, 256));
        assert!(registry.ranges().contains_writable(address + 255, 1));
        assert!(!registry.ranges().contains_writable(address, 257));
        assert!(!registry.ranges().contains_writable(address - 1, 2));
        assert!(!registry.ranges().contains_writable(usize::MAX, 2));
        drop(buffer);
        assert!(!registry.ranges().contains_writable(address, 1));
    }

    #[test]
    fn the_limit_holds_and_freed_bytes_return() {
        let registry = Arc::new(Registry::new(1000));
        let first = CpuAllocation::allocate(&registry, &desc(600)).unwrap();
        match CpuAllocation::allocate(&registry, &desc(600)) {
            Err(Error::OutOfMemory { requested_bytes: 600, available_bytes: 400, .. }) => {}
            other => panic!("{other:?}"),
        }
        drop(first);
        CpuAllocation::allocate(&registry, &desc(600)).unwrap();
    }
}
