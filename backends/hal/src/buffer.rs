//! Buffers: ranges of device-visible bytes with an owner.
//!
//! Who will touch a buffer is declared before it is allocated ([`BufferDesc::accessors`]), because on
//! unified memory that decides the memory type: a host reader needs cached memory, a second device an
//! exportable or importable allocation. A buffer is a handle: cloning it is cheap and keeps the memory.

use std::{any::Any, fmt, sync::Arc};

use crate::{DeviceId, Error, Result};

/// What one accessor does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads only.
    Read,
    /// Writes only.
    Write,
    /// Both.
    ReadWrite,
}

/// Everyone who will touch a buffer. The host is an accessor of its own: step inputs and logits cross it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accessors {
    /// Access by host code (the engine, or the CPU device).
    pub host: Option<Access>,
    /// Access by other devices than the owner.
    pub devices: Vec<(DeviceId, Access)>,
}

/// A request for memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferDesc {
    /// Shown in memory reports.
    pub name: String,
    /// Size; zero is refused.
    pub size_bytes: u64,
    /// Who touches it beside the owner.
    pub accessors: Accessors,
}

/// Counts how often a device was opened again after a loss. A handle of an older epoch is never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u32);

/// Host-visible bytes, as an address and a length.
///
/// It is a description, not a reference: the bytes may be written by a device at any time, so they are
/// never a `&[u8]`. Only a backend's `sys` module turns it into a pointer, and only while it holds the
/// [`Buffer`] that it came from, which keeps the memory mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRange {
    /// Address with exposed provenance.
    pub address: usize,
    /// Length.
    pub size_bytes: usize,
    /// False for memory mapped read-only: writing to it is refused.
    pub writable: bool,
}

/// Memory behind a buffer; implemented by backends and by the owner of mapped files.
///
/// Devices trust what an implementation says: its host range and its device address must stay readable
/// (writable, if it says so) for `size_bytes` as long as the value lives. Implement it for nothing else.
pub trait Allocation: Send + Sync + fmt::Debug + 'static {
    /// For memory reports.
    fn name(&self) -> &str;
    /// Size.
    fn size_bytes(&self) -> u64;
    /// The device that owns it; `None` for host memory that no device owns (a mapped file).
    fn owner(&self) -> Option<DeviceId>;
    /// The owner's epoch when it was made.
    fn epoch(&self) -> Epoch;
    /// Where the host sees it, if it does.
    fn host_range(&self) -> Option<HostRange>;
    /// The address by which kernels of the owner reach it.
    fn device_address(&self) -> u64;
    /// For the owner, which knows the concrete type.
    fn as_any(&self) -> &dyn Any;
}

/// A shared handle to an [`Allocation`].
#[derive(Clone, Debug)]
pub struct Buffer(Arc<dyn Allocation>);

impl Buffer {
    /// Wraps an allocation.
    pub fn new(allocation: impl Allocation) -> Buffer {
        Buffer(Arc::new(allocation))
    }

    /// The allocation.
    pub fn allocation(&self) -> &dyn Allocation {
        &*self.0
    }

    /// Size.
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    /// True if both handles are to the same memory.
    pub fn same_memory(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// All of it.
    pub fn whole(&self) -> BufferSlice {
        BufferSlice { buffer: self.clone(), offset: 0, size_bytes: self.size_bytes() }
    }

    /// `size_bytes` from `offset` on.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the range does not lie inside the buffer.
    pub fn slice(&self, offset: u64, size_bytes: u64) -> Result<BufferSlice> {
        self.whole().slice(offset, size_bytes)
    }
}

/// A range of a buffer. Its bounds were checked when it was made.
#[derive(Clone, Debug)]
pub struct BufferSlice {
    buffer: Buffer,
    offset: u64,
    size_bytes: u64,
}

impl BufferSlice {
    /// The buffer.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// First byte, from the buffer's start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Size.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// A part of this range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the part does not lie inside.
    pub fn slice(&self, offset: u64, size_bytes: u64) -> Result<BufferSlice> {
        match offset.checked_add(size_bytes) {
            Some(end) if end <= self.size_bytes => {
                Ok(BufferSlice { buffer: self.buffer.clone(), offset: self.offset + offset, size_bytes })
            }
            _ => Err(Error::OutOfRange {
                buffer: self.buffer.allocation().name().to_owned(),
                offset,
                size_bytes,
                available_bytes: self.size_bytes,
            }),
        }
    }

    /// The address by which kernels of the owner reach the first byte.
    pub fn device_address(&self) -> u64 {
        self.buffer.allocation().device_address() + self.offset
    }

    /// Where the host sees these bytes, if it does.
    pub fn host_range(&self) -> Option<HostRange> {
        let whole = self.buffer.allocation().host_range()?;
        Some(HostRange {
            address: whole.address + usize::try_from(self.offset).ok()?,
            size_bytes: usize::try_from(self.size_bytes).ok()?,
            writable: whole.writable,
        })
    }
}
