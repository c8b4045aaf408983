//! Little-endian values in a byte slice, and how a failure says where; and the same values written.

use crate::error::{Error, Result};

/// A position in a part of a file. Offsets count from the start of the part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    part: &'static str,
}

impl<'a> Reader<'a> {
    /// At the start of `bytes`, which errors call `part`.
    pub(crate) fn new(bytes: &'a [u8], part: &'static str) -> Reader<'a> {
        Reader { bytes, position: 0, part }
    }

    /// From the start of the part.
    pub(crate) fn offset(&self) -> u64 {
        self.position as u64
    }

    /// Bytes from here to the end of the part.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// An error at an offset of this part.
    pub(crate) fn malformed(
        &self,
        offset: u64,
        what: &'static str,
        value: impl ToString,
        bound: impl Into<String>,
    ) -> Error {
        Error::Malformed { part: self.part, offset, what, value: value.to_string(), bound: bound.into() }
    }

    /// The next bytes.
    pub(crate) fn take(&mut self, size_bytes: usize, what: &'static str) -> Result<&'a [u8]> {
        let end = self.position.checked_add(size_bytes);
        let Some((end, taken)) = end.and_then(|end| Some((end, self.bytes.get(self.position..end)?))) else {
            let bound = format!("only {} are left of {}", self.remaining(), self.bytes.len());
            return Err(self.malformed(self.offset(), what, format!("{size_bytes} bytes long"), bound));
        };
        self.position = end;
        Ok(taken)
    }

    /// The next bytes, by value.
    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N, what)?);
        Ok(value)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Goes to an offset of the part, its end included.
    pub(crate) fn seek(&mut self, offset: u64, what: &'static str) -> Result<()> {
        match usize::try_from(offset) {
            Ok(position) if position <= self.bytes.len() => {
                self.position = position;
                Ok(())
            }
            _ => {
                let bound = format!("the part has {} bytes", self.bytes.len());
                Err(self.malformed(self.offset(), what, format!("{offset:#x}"), bound))
            }
        }
    }

    /// Bytes elsewhere in the part; the position stays. `at` is where the offset was read.
    pub(crate) fn slice(&self, at: u64, offset: u64, size_bytes: u64, what: &'static str) -> Result<&'a [u8]> {
        let range = usize::try_from(offset).ok().zip(usize::try_from(size_bytes).ok());
        let range = range.and_then(|(start, size)| Some(start..start.checked_add(size)?));
        range.and_then(|range| self.bytes.get(range)).ok_or_else(|| {
            let value = format!("{size_bytes} bytes from {offset:#x}");
            self.malformed(at, what, value, format!("the part has {} bytes", self.bytes.len()))
        })
    }
}

/// Bytes that grow at their end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    /// What was written.
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer::default()
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// Zeros up to a multiple of `alignment`, which is not zero.
    pub(crate) fn pad_to(&mut self, alignment: usize) {
        let size = self.bytes.len().checked_next_multiple_of(alignment).unwrap_or(self.bytes.len());
        self.bytes.resize(size, 0);
    }

    /// Replaces four bytes that were written before; nothing where there are none.
    pub(crate) fn set_u32(&mut self, offset: u64, value: u32) {
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(4)?));
        if let Some(place) = range.and_then(|range| self.bytes.get_mut(range)) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}
