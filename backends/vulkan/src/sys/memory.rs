//! Buffers: memory with a device address, and its bytes where the host sees them.

use std::{ffi::c_void, fmt, ptr::NonNull, sync::Arc};

use ash::vk;
use vk_mem::Alloc as _;

use super::{
    device::{CallError, CallResult, CounterCells, LogicalDevice, named},
    stream,
};

/// Every buffer starts at a multiple of this, so that offsets decide the alignment of what lies inside.
const ALIGNMENT_BYTES: u64 = 256;

/// Writes of at least this size bypass the cache: nobody reads them there, and in uncached memory each line
/// becomes one transaction.
const STREAMED_BYTES: usize = 16 << 10;

const USAGE: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::STORAGE_BUFFER.as_raw()
        | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS.as_raw()
        | vk::BufferUsageFlags::TRANSFER_SRC.as_raw()
        | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

enum Backing {
    Own(vk_mem::Allocation),
    /// Host memory of someone else; the owner of this buffer keeps it alive.
    Imported(vk::DeviceMemory),
}

/// A buffer of the device.
pub(crate) struct Memory {
    device: Arc<LogicalDevice>,
    pub(super) raw: vk::Buffer,
    backing: Backing,
    size_bytes: u64,
    address: u64,
    /// First byte, where the host sees it.
    mapped: Option<NonNull<u8>>,
    memory_type: usize,
}

// SAFETY: the pointer is to memory that the struct owns; all access through it is by the methods below,
// which copy bytes, and races between them are excluded by the contract of `Device::{read, write}`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("address", &self.address).field("size_bytes", &self.size_bytes).finish()
    }
}

impl Memory {
    /// Allocates from the memory type with this index; mapped if `map`. Contents are undefined.
    pub(crate) fn allocate(
        device: &Arc<LogicalDevice>,
        size_bytes: u64,
        memory_type: usize,
        map: bool,
    ) -> CallResult<Memory> {
        let info = vk::BufferCreateInfo::default().size(size_bytes).usage(USAGE);
        let mut request = vk_mem::AllocationCreateInfo { memory_type_bits: 1 << memory_type, ..Default::default() };
        if map {
            request.flags |= vk_mem::AllocationCreateFlags::MAPPED;
        }
        // SAFETY: the allocator belongs to the live device; `info` lives until the call returns.
        let (raw, allocation) = named("vmaCreateBuffer", unsafe {
            device.allocator.create_buffer_with_alignment(&info, &request, ALIGNMENT_BYTES)
        })?;
        let mapped = NonNull::new(device.allocator.get_allocation_info(&allocation).mapped_data.cast::<u8>());
        CounterCells::count(&device.counters.allocations);
        CounterCells::count(&device.counters.objects_created);
        if mapped.is_some() {
            CounterCells::count(&device.counters.mappings);
        }
        // SAFETY: the buffer is alive and was made with SHADER_DEVICE_ADDRESS.
        let address =
            unsafe { device.raw.get_buffer_device_address(&vk::BufferDeviceAddressInfo::default().buffer(raw)) };
        Ok(Memory {
            device: Arc::clone(device),
            raw,
            backing: Backing::Own(allocation),
            size_bytes,
            address,
            mapped,
            memory_type,
        })
    }

    /// Makes host memory reachable by the device. The caller keeps it mapped for as long as the result
    /// lives, and has checked that address and size are multiples of the device's alignment.
    pub(crate) fn import(device: &Arc<LogicalDevice>, address: usize, size_bytes: u64) -> CallResult<Memory> {
        const KIND: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let refused = |call, result| CallError { call, result };
        let calls = device
            .memory_host
            .as_ref()
            .ok_or(refused("vkGetMemoryHostPointerPropertiesEXT", vk::Result::ERROR_EXTENSION_NOT_PRESENT))?;
        let pointer: *mut c_void = std::ptr::with_exposed_provenance_mut(address);
        let mut offered = vk::MemoryHostPointerPropertiesEXT::default();
        // SAFETY: the extension is enabled; the call reads the mapping of `pointer`, not its bytes.
        named("vkGetMemoryHostPointerPropertiesEXT", unsafe {
            let call = calls.fp().get_memory_host_pointer_properties_ext;
            call(device.raw.handle(), KIND, pointer, &mut offered).result()
        })?;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(KIND);
        let info = vk::BufferCreateInfo::default().size(size_bytes).usage(USAGE).push_next(&mut external);
        // SAFETY: the device is alive; `info` lives until the call returns.
        let raw = named("vkCreateBuffer", unsafe { device.raw.create_buffer(&info, None) })?;
        // SAFETY: `raw` was just made from this device.
        let needs = unsafe { device.raw.get_buffer_memory_requirements(raw) };
        let types = offered.memory_type_bits & needs.memory_type_bits;
        let bound = if types == 0 || needs.size > size_bytes {
            Err(refused("vkGetBufferMemoryRequirements", vk::Result::ERROR_INVALID_EXTERNAL_HANDLE))
        } else {
            let mut host = vk::ImportMemoryHostPointerInfoEXT::default().handle_type(KIND).host_pointer(pointer);
            let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(size_bytes)
                .memory_type_index(types.trailing_zeros())
                .push_next(&mut host)
                .push_next(&mut flags);
            // SAFETY: the caller vouches for the range and its alignment; type and size fit the buffer.
            named("vkAllocateMemory", unsafe { device.raw.allocate_memory(&info, None) }).and_then(|memory| {
                // SAFETY: both were just made; the memory is as large as the buffer asks for.
                let bound = unsafe { device.raw.bind_buffer_memory(raw, memory, 0) };
                named("vkBindBufferMemory", bound).map(|()| memory).inspect_err(|_| {
                    // SAFETY: made above, bound to nothing.
                    unsafe { device.raw.free_memory(memory, None) }
                })
            })
        };
        let memory = bound.inspect_err(|_| {
            // SAFETY: made above, used by nothing.
            unsafe { device.raw.destroy_buffer(raw, None) }
        })?;
        CounterCells::count(&device.counters.allocations);
        CounterCells::count(&device.counters.objects_created);
        // SAFETY: the buffer is bound and was made with SHADER_DEVICE_ADDRESS.
        let device_address =
            unsafe { device.raw.get_buffer_device_address(&vk::BufferDeviceAddressInfo::default().buffer(raw)) };
        Ok(Memory {
            device: Arc::clone(device),
            raw,
            backing: Backing::Imported(memory),
            size_bytes,
            address: device_address,
            mapped: NonNull::new(pointer.cast()),
            memory_type: types.trailing_zeros() as usize,
        })
    }

    pub(crate) fn device(&self) -> &Arc<LogicalDevice> {
        &self.device
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn memory_type(&self) -> usize {
        self.memory_type
    }

    /// The host's address of the first byte, with exposed provenance.
    pub(crate) fn host_address(&self) -> Option<usize> {
        self.mapped.map(|pointer| pointer.as_ptr().expose_provenance())
    }

    fn pointer_at(&self, offset: u64, count: usize) -> Option<*mut u8> {
        let end = offset.checked_add(count as u64)?;
        let start = usize::try_from(offset).ok()?;
        // SAFETY: the range ends inside the mapped buffer, so the sum stays inside the allocation.
        (end <= self.size_bytes).then_some(unsafe { self.mapped?.as_ptr().add(start) })
    }

    /// Copies bytes in; false if the host does not see the range.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(pointer) = self.pointer_at(offset, bytes.len()) else { return false };
        // SAFETY: the destination lies inside the mapping, which nobody holds a reference to; `bytes` is
        // host memory of the caller and cannot overlap it.
        unsafe {
            if bytes.len() < STREAMED_BYTES {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer, bytes.len());
            } else {
                stream::copy(bytes, pointer);
            }
        }
        true
    }

    /// Copies bytes out; false if the host does not see the range.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let Some(pointer) = self.pointer_at(offset, bytes.len()) else { return false };
        // SAFETY: the source lies inside the mapping; `bytes` is exclusive host memory of the caller.
        unsafe { std::ptr::copy_nonoverlapping(pointer, bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// Whether the host sees it.
    pub(crate) fn is_mapped(&self) -> bool {
        self.mapped.is_some()
    }

    /// Sets every byte to zero; false if the host does not see them.
    pub(crate) fn zero(&self) -> bool {
        let Ok(count) = usize::try_from(self.size_bytes) else { return false };
        let Some(pointer) = self.pointer_at(0, count) else { return false };
        // SAFETY: the range is the whole mapping, which nobody holds a reference to.
        unsafe { std::ptr::write_bytes(pointer, 0, count) };
        true
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.settle();
        match &mut self.backing {
            // SAFETY: made by this allocator, destroyed once, and nothing submitted still uses it.
            Backing::Own(allocation) => unsafe { self.device.allocator.destroy_buffer(self.raw, allocation) },
            // SAFETY: made from this device, destroyed once, and nothing submitted still uses it.
            Backing::Imported(memory) => unsafe {
                self.device.raw.destroy_buffer(self.raw, None);
                self.device.raw.free_memory(*memory, None);
            },
        }
    }
}
