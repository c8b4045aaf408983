//! ELF files as aiebu writes them: an instruction stream, and PDIs, with places that the runtime patches. A partial file
//! has the stream of one kernel and goes with an XCLBIN, a full one has everything. Drawn in
//! `docs/src/formats/aiebu-elf.md`.
//!
//! Sources: `Xilinx/aiebu:src/cpp/aiebu/src/elf/{elfwriter.cpp,aie2/aie2_blob_elfwriter.h}` and
//! `src/common/symbol.h`; the layout of the file itself is ELFIO's (<https://github.com/serge1/ELFIO>).

mod build;
mod config;
mod control;
mod layout;
mod read;
mod relocate;
mod tables;
mod write;

pub use build::{Partial, full, partial};
pub use config::{Config, Instance, Kernel, PdiFile};
pub use tables::{Note, Relocation, Schema, Symbol};

use crate::{error::Result, txn::Stream};

/// The operating system ABI of AMD's client NPUs.
pub const OS_ABI: u8 = 0x45;

/// Bytes of the file's header.
const HEADER_BYTES: u32 = 52;
/// Bytes of a program header.
const SEGMENT_BYTES: u32 = 32;
/// Bytes of a section header.
const SECTION_BYTES: u32 = 40;

/// What kinds of sections there are (`sh_type`).
pub mod section_kind {
    /// Code and data.
    pub const DATA: u32 = 1;
    /// Symbols of kernels and instances.
    pub const SYMBOLS: u32 = 2;
    /// Strings.
    pub const STRINGS: u32 = 3;
    /// Relocations with addends.
    pub const RELOCATIONS: u32 = 4;
    /// What the dynamic sections are.
    pub const DYNAMIC: u32 = 6;
    /// Notes.
    pub const NOTE: u32 = 7;
    /// Symbols of what is patched in.
    pub const DYNAMIC_SYMBOLS: u32 = 11;
    /// Sections that belong to an instance.
    pub const GROUP: u32 = 17;
}

/// A view of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf<'a> {
    /// Says partial or full, and how the full one groups.
    pub abi_version: u8,
    /// Parts that a loader loads.
    pub segments: Vec<Segment>,
    /// In the order of their headers; the first is empty.
    pub sections: Vec<Section<'a>>,
    /// The section with the names of sections.
    names: u16,
    /// Where section headers stand.
    table_offset: u32,
}

/// A part that a loader loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// 1 loaded, 2 dynamic, 6 the program headers themselves.
    pub kind: u32,
    /// In the file.
    pub offset: u32,
    /// Where it is loaded to.
    pub address: u32,
    /// Always 0.
    pub physical_address: u32,
    /// In the file.
    pub size_bytes: u32,
    /// When loaded.
    pub memory_bytes: u32,
    /// 1 executed, 2 written, 4 read.
    pub flags: u32,
    /// Of its offset and address.
    pub alignment: u32,
}

/// A section: its header and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where the name stands among the names.
    name_offset: u32,
    /// One of [`section_kind`].
    pub kind: u32,
    /// 1 written, 2 loaded, 4 executed.
    pub flags: u32,
    /// Where it is loaded to.
    pub address: u32,
    /// In the file.
    pub offset: u32,
    /// What it holds.
    pub data: &'a [u8],
    /// Another section: strings of symbols, symbols of relocations.
    pub link: u32,
    /// Of a group, its symbol.
    pub info: u32,
    /// Of the offset.
    pub alignment: u32,
    /// Of an entry, in a table.
    pub entry_bytes: u32,
}

impl<'a> Elf<'a> {
    /// The first section of a name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Whether it stands by itself, with PDIs, rather than beside an XCLBIN.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.section(".note.xrt.configuration").is_some()
    }

    /// The sections with instruction streams: name and stream. `.ctrltext`, in a full file `.ctrltext.I`; saving and
    /// restoring for preemption is such code as well.
    ///
    /// # Errors
    /// In place of a stream that is none.
    pub fn streams(&self) -> impl Iterator<Item = (&'a str, Result<Stream<'a>>)> {
        let is_code = |name: &str| name.starts_with(".ctrltext") || name.starts_with(".preempt_");
        let code = self.sections.iter().filter(move |section| is_code(section.name));
        code.map(|section| (section.name, Stream::parse(section.data).map_err(|error| error.within(section.name))))
    }
}

#[cfg(test)]
mod tests;
