//! A stream, operation by operation.

use super::{
    Header, encode,
    op::{Op, Operation, Reserved},
    too_large,
};
use crate::{bytes::Writer, error::Result};

/// Makes the bytes of a stream.
#[derive(Clone, Debug)]
pub struct Builder {
    header: Header,
    n_operations: u32,
    writer: Writer,
}

impl Builder {
    /// An empty stream.
    #[must_use]
    pub fn new(header: Header) -> Builder {
        let mut writer = Writer::new();
        encode::header(&mut writer, &header);
        // The number of operations and the size, set at the end.
        writer.u64(0);
        Builder { header, n_operations: 0, writer }
    }

    /// What it was started with.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// Appends an operation with its padding.
    ///
    /// # Errors
    /// A value that is too large for its field in this version; padding or a tail that the kind does not have.
    /// The stream is then as it was.
    pub fn push(&mut self, operation: &Operation<'_>) -> Result<()> {
        let n_operations = self.n_operations.checked_add(1);
        let n_operations = n_operations.ok_or_else(|| too_large("number of operations", 1 << 32, u32::MAX.into()))?;
        let size = self.writer.bytes.len();
        match encode::operation(&mut self.writer, self.header.version, operation) {
            Ok(()) => self.n_operations = n_operations,
            Err(error) => {
                self.writer.bytes.truncate(size);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Appends an operation with the usual padding.
    ///
    /// # Errors
    /// A value that is too large for its field in this version.
    pub fn push_op(&mut self, op: Op<'_>) -> Result<()> {
        let reserved = Reserved::usual(self.header.version, &op);
        self.push(&Operation { op, reserved })
    }

    /// The stream.
    ///
    /// # Errors
    /// A stream of 4 GiB and more.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        let size_bytes = self.writer.len();
        let size = u32::try_from(size_bytes).map_err(|_| too_large("size", size_bytes, u32::MAX.into()))?;
        self.writer.set_u32(8, self.n_operations);
        self.writer.set_u32(12, size);
        Ok(self.writer.bytes)
    }
}
