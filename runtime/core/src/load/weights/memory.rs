//! Host memory that no device owns, as devices see it: mapped files, and bytes computed at load.

use std::{any::Any, sync::Arc};

use biga_hal::{Allocation, DeviceId, Epoch, HostRange};
use biga_map::MappedFile;

/// A mapped file.
#[derive(Debug)]
pub(super) struct FileMemory {
    pub(super) file: Arc<MappedFile>,
    pub(super) name: String,
}

impl Allocation for FileMemory {
    fn name(&self) -> &str {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.file.bytes().len() as u64
    }

    fn owner(&self) -> Option<DeviceId> {
        None
    }

    fn epoch(&self) -> Epoch {
        Epoch::default()
    }

    fn host_range(&self) -> Option<HostRange> {
        Some(range_of(self.file.bytes()))
    }

    fn device_address(&self) -> u64 {
        range_of(self.file.bytes()).address as u64
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Bytes in ordinary memory, aligned for every format.
#[derive(Debug)]
pub(super) struct OwnedMemory {
    name: String,
    words: Vec<u64>,
    size_bytes: usize,
}

impl OwnedMemory {
    /// Zeros, to be written before the memory is shared.
    pub(super) fn zeroed(name: String, size_bytes: usize) -> OwnedMemory {
        OwnedMemory { name, words: vec![0; size_bytes.div_ceil(size_of::<u64>())], size_bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words).get(..self.size_bytes).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words).get_mut(..self.size_bytes).unwrap_or_default()
    }
}

/// Written memory, held both as a weight's bytes and as its buffer.
#[derive(Clone, Debug)]
pub(super) struct SharedMemory(pub(super) Arc<OwnedMemory>);

impl Allocation for SharedMemory {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes as u64
    }

    fn owner(&self) -> Option<DeviceId> {
        None
    }

    fn epoch(&self) -> Epoch {
        Epoch::default()
    }

    fn host_range(&self) -> Option<HostRange> {
        Some(range_of(self.0.bytes()))
    }

    fn device_address(&self) -> u64 {
        range_of(self.0.bytes()).address as u64
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The provenance is exposed so that a backend may turn the address into a pointer again.
fn range_of(bytes: &[u8]) -> HostRange {
    HostRange { address: bytes.as_ptr().expose_provenance(), size_bytes: bytes.len(), writable: false }
}
