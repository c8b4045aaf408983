//! Instruction streams (`insts.bin`): the operations that the NPU's firmware carries out for one launch. Drawn in
//! `docs/src/formats/instruction-stream.md`.
//!
//! Two layouts of operations exist: version 0.1 (mlir-aie, and aie-rt's plain export) and version 1.0 (aie-rt's
//! "optimized" export, without sizes where the kind fixes them). Sources: `Xilinx/mlir-aie:include/aie/Runtime/
//! TxnEncoding.h` (0.1), `Xilinx/aie-rt:driver/src/common/xaie_txn.h` (both; all kinds).
//!
//! Writers leave what they like in padding: aie-rt parts of the address and whatever was in memory, mlir-aie zeros.
//! [`Reserved`] keeps it, so that a stream is written back byte for byte.
//!
//! A [`Op::Patch`] counts buffers from 0: `bo0` is argument 0 of the stream and argument 3 of the
//! kernel, after opcode, instruction buffer and its size (`Xilinx/aiebu:src/cpp/aiebu/src/preprocessor/aie2/
//! aie2_blob_preprocessor_input.h`, `ARG_OFFSET`). [`KERNEL_ARGUMENTS_BEFORE`] is that 3.

mod build;
mod decode;
mod encode;
mod json;
mod op;
mod parse;
mod patch;
mod print;

pub use build::Builder;
pub use op::{MAX_PADDING, Op, Operation, Reserved, Sync};
pub use parse::assemble;
pub use patch::{Edit, Place};

use crate::{
    bytes::Reader,
    error::{Error, Result},
};

/// Arguments of a kernel before its first buffer: opcode, instruction buffer, size of the latter.
pub const KERNEL_ARGUMENTS_BEFORE: u64 = 3;

/// Arguments whose address the firmware translates to the device's view when it runs an instruction buffer; to those
/// from here on the compiler adds [`DDR_APERTURE`] itself, in the patch's offset. Of streams in an ELF no offset has it:
/// there the runtime gives every argument an address in the device's view
/// (`Xilinx/mlir-aie:lib/Targets/AIETargetNPU.cpp`, `kNumFirmwareTranslatedArgs`).
pub const TRANSLATED_ARGUMENTS: u64 = 5;

/// Where host memory starts in the device's view (`Xilinx/mlir-aie:lib/Targets/AIETargetNPU.cpp`,
/// `kDDRAIEAddrOffset`).
pub const DDR_APERTURE: u64 = 0x8000_0000;

/// Bytes of a header.
pub const HEADER_BYTES: u64 = 16;

const PART: &str = "instruction stream";

/// The layout of a stream's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 0.1: mlir-aie, and aie-rt's `XAie_ExportSerializedTransaction`.
    V0_1,
    /// 1.0: aie-rt's `XAie_ExportSerializedTransaction_opt`.
    V1_0,
}

impl Version {
    /// Major and minor.
    #[must_use]
    pub fn numbers(self) -> (u8, u8) {
        match self {
            Version::V0_1 => (0, 1),
            Version::V1_0 => (1, 0),
        }
    }

    /// The version of these numbers, if there is one.
    #[must_use]
    pub fn of(major: u8, minor: u8) -> Option<Version> {
        [Version::V0_1, Version::V1_0].into_iter().find(|version| version.numbers() == (major, minor))
    }
}

/// What a stream says of the device it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The layout of the operations.
    pub version: Version,
    /// The generation of the array as aie-rt counts it: 3 for `npu1` (Phoenix, Hawk Point), 4 for `npu2`
    /// (Strix, Krackan) and its successors of the same array.
    pub generation: u8,
    /// Rows of the array.
    pub rows: u8,
    /// Columns that the stream was made for.
    pub columns: u8,
    /// Rows of memory tiles.
    pub memory_tile_rows: u8,
    /// The two bytes after `memory_tile_rows`; zero as a rule.
    pub reserved: u16,
}

impl Header {
    /// A header of version 0.1 for `npu1` (Phoenix, Hawk Point) with this many columns.
    #[must_use]
    pub fn npu1(columns: u8) -> Header {
        Header { version: Version::V0_1, generation: 3, rows: 6, columns, memory_tile_rows: 1, reserved: 0 }
    }

    /// A header of version 0.1 for `npu2` (Strix, Krackan) with this many columns.
    #[must_use]
    pub fn npu2(columns: u8) -> Header {
        Header { generation: 4, ..Header::npu1(columns) }
    }
}

/// A stream of which every operation was found well formed; borrows its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    header: Header,
    n_operations: u32,
    bytes: &'a [u8],
}

/// An operation and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<'a> {
    /// Counted from 0.
    pub index: u32,
    /// Of its first byte, from the start of the stream.
    pub offset: u64,
    /// All its bytes.
    pub bytes: &'a [u8],
    /// What it says.
    pub operation: Operation<'a>,
}

impl<'a> Stream<'a> {
    /// Reads a stream and checks the form of each operation.
    ///
    /// # Errors
    /// A version other than 0.1 and 1.0; a kind of operation without a known size; sizes and counts that
    /// contradict each other or the length of `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Stream<'a>> {
        let mut reader = Reader::new(bytes, PART);
        let header = decode::header(&mut reader)?;
        let n_operations = reader.u32("number of operations")?;
        let size_bytes = reader.u32("size")?;
        if u64::from(size_bytes) != bytes.len() as u64 {
            let bound = format!("there are {} bytes", bytes.len());
            return Err(reader.malformed(12, "size", format!("{size_bytes} bytes"), bound));
        }
        for _ in 0..n_operations {
            decode::operation(&mut reader, header.version)?;
        }
        if reader.remaining() > 0 {
            let value = format!("{} bytes long", reader.remaining());
            let bound = format!("the header counts {n_operations} operations, which end here");
            return Err(reader.malformed(reader.offset(), "rest", value, bound));
        }
        Ok(Stream { header, n_operations, bytes })
    }

    /// The header, counts and sizes aside.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// How many operations.
    #[must_use]
    pub fn n_operations(&self) -> u32 {
        self.n_operations
    }

    /// The whole stream.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The operations in order.
    #[must_use]
    pub fn operations(&self) -> Operations<'a> {
        let mut reader = Reader::new(self.bytes, PART);
        // `parse` found that many bytes.
        let _ = reader.seek(HEADER_BYTES, "operations");
        Operations { reader, version: self.header.version, index: 0, n_operations: self.n_operations }
    }

    /// The stream built anew from what was read: the same bytes.
    ///
    /// # Errors
    /// None for a stream that was parsed.
    pub fn rewrite(&self) -> Result<Vec<u8>> {
        let mut builder = Builder::new(self.header);
        for placed in self.operations() {
            builder.push(&placed.operation)?;
        }
        builder.finish()
    }
}

/// The operations of a stream in order.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    reader: Reader<'a>,
    version: Version,
    index: u32,
    n_operations: u32,
}

impl<'a> Iterator for Operations<'a> {
    type Item = Placed<'a>;

    fn next(&mut self) -> Option<Placed<'a>> {
        if self.index >= self.n_operations {
            return None;
        }
        let index = self.index;
        self.index = index.checked_add(1)?;
        let (start, offset) = (self.reader, self.reader.offset());
        // `Stream::parse` has decoded all of them already.
        let operation = decode::operation(&mut self.reader, self.version).ok()?;
        let size_bytes = self.reader.offset().checked_sub(offset)?;
        let bytes = start.slice(offset, offset, size_bytes, "operation").ok()?;
        Some(Placed { index, offset, bytes, operation })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.n_operations.saturating_sub(self.index) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Operations<'_> {}

/// A field that is too small for a value.
fn too_large(what: &'static str, value: u64, most: u64) -> Error {
    Error::refused(what, format!("{value:#x}"), format!("at most {most:#x} fits the field of this version"))
}

#[cfg(test)]
mod tests;
