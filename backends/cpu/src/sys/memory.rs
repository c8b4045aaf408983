//! Host memory: zeroed allocations, and copies between addresses and slices.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
};

use biga_hal::HostRange;

/// Alignment of every allocation: a cache line, and the widest vector.
pub(crate) const ALIGNMENT: usize = 64;

/// From this size on the pages come from the system directly: zeroed when first touched.
const MAP_FROM_BYTES: usize = 128 << 10;
/// From this size on large pages are worth asking for.
const HUGE_FROM_BYTES: usize = 4 << 20;

/// An owned, zeroed range of host memory.
#[derive(Debug)]
pub(crate) struct HostMemory {
    start: NonNull<u8>,
    size_bytes: usize,
}

// SAFETY: the memory is plain bytes with no thread affinity; who may touch which bytes when is decided
// by the callers of the access functions below.
unsafe impl Send for HostMemory {}
// SAFETY: as for `Send`; a shared reference gives the address only.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// `None` if the system has no more.
    pub(crate) fn new(size_bytes: usize) -> Option<HostMemory> {
        let start = if size_bytes >= MAP_FROM_BYTES { map(size_bytes)? } else { small(size_bytes)? };
        Some(HostMemory { start, size_bytes })
    }

    /// Address of the first byte, with exposed provenance.
    pub(crate) fn address(&self) -> usize {
        self.start.as_ptr().expose_provenance()
    }

    /// Size.
    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if self.size_bytes >= MAP_FROM_BYTES {
            // SAFETY: `map` returned this range with this size, and nothing refers to it any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.size_bytes) };
        } else if let Ok(layout) = Layout::from_size_align(self.size_bytes, ALIGNMENT) {
            // SAFETY: `small` allocated with this very layout.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

fn small(size_bytes: usize) -> Option<NonNull<u8>> {
    let layout = Layout::from_size_align(size_bytes, ALIGNMENT).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) })
}

fn map(size_bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: an anonymous private mapping at an address that the kernel picks touches nothing that exists.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    if size_bytes >= HUGE_FROM_BYTES {
        // Advice: a kernel without large pages refuses it, and nothing depends on it.
        // SAFETY: the range was just mapped.
        unsafe { libc::madvise(start, size_bytes, libc::MADV_HUGEPAGE) };
    }
    NonNull::new(start.cast())
}

/// Copies bytes into a host range. The sizes were compared by the caller; a shorter side wins.
pub(crate) fn write(range: HostRange, bytes: &[u8]) {
    let size_bytes = bytes.len().min(range.size_bytes);
    // SAFETY: a host range is mapped while its buffer is held, which the caller does; it is writable
    // (the caller checked) and belongs to no Rust object that `bytes` could be.
    unsafe { std::ptr::copy(bytes.as_ptr(), std::ptr::with_exposed_provenance_mut(range.address), size_bytes) };
}

/// Copies bytes out of a host range. The sizes were compared by the caller; a shorter side wins.
pub(crate) fn read(range: HostRange, bytes: &mut [u8]) {
    let size_bytes = bytes.len().min(range.size_bytes);
    // SAFETY: as in `write`, and `bytes` is exclusively borrowed.
    unsafe { std::ptr::copy(std::ptr::with_exposed_provenance(range.address), bytes.as_mut_ptr(), size_bytes) };
}
