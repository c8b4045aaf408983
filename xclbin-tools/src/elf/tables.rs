//! Symbols, relocations and notes: what the tables of a file say.

use super::{Elf, Section, read::string, section_kind};
use crate::{
    bytes::Reader,
    error::{Error, Result},
};

/// A symbol: a kernel, an instance, or what is patched in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// An argument's number, `control-packet`, `.pdi.N`, `scratch-pad-ctrl`; of a kernel, its mangled signature.
    pub name: &'a str,
    /// Always 0.
    pub value: u32,
    /// Bytes of the buffer as the stream has them; of [`Schema::SCALAR_32`], the mask.
    pub size: u32,
    /// Binding in the upper, type in the lower four bits.
    pub info: u8,
    /// Always 0.
    pub other: u8,
    /// The section that is patched; of an instance, the symbol of its kernel.
    pub section: u16,
}

/// A place that is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// In the section that the symbol names.
    pub offset: u32,
    /// In the table of dynamic symbols.
    pub symbol: u32,
    /// How.
    pub schema: Schema,
    /// Added to the address.
    pub addend: u32,
}

/// How a place is patched, a byte in the file (`Xilinx/aiebu:src/cpp/aiebu/src/common/symbol.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema(pub u8);

impl Schema {
    /// A register of 32 bits under a mask.
    pub const SCALAR_32: Schema = Schema(3);
    /// The 48-bit address of a shim tile's buffer descriptor in a control packet, whose header starts 8 bytes before.
    pub const CONTROL_PACKET_48: Schema = Schema(4);
    /// The 48-bit address of a shim tile's buffer descriptor, whose first word is at the offset.
    pub const SHIM_DMA_48: Schema = Schema(5);
    /// An address of 64 bits.
    pub const ADDRESS_64: Schema = Schema(8);

    /// aiebu's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "uc_dma_remote_ptr_symbol",
            2 => "shim_dma_57",
            3 => "scalar_32",
            4 => "control_packet_48",
            5 => "shim_dma_48",
            6 => "shim_dma_57_aie4",
            7 => "control_packet_57",
            8 => "address_64",
            _ => "unknown",
        }
    }
}

/// A note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// 4 the file's UID, 6 the number of columns.
    pub kind: u32,
    /// `XRT`.
    pub name: &'a str,
    /// What it says.
    pub description: &'a [u8],
}

impl Note<'_> {
    /// The kind of a UID.
    pub const UID: u32 = 4;
    /// The kind of a number of columns.
    pub const COLUMNS: u32 = 6;
}

const SYMBOL_BYTES: usize = 16;
const RELOCATION_BYTES: usize = 12;

impl<'a> Elf<'a> {
    /// The entries of a table of symbols.
    ///
    /// # Errors
    /// If it is no such table; names that are none.
    pub fn symbols(&self, table: &Section<'a>) -> Result<Vec<Symbol<'a>>> {
        expect_kind(table, &[section_kind::SYMBOLS, section_kind::DYNAMIC_SYMBOLS], "a table of symbols")?;
        let strings = self.sections.get(table.link as usize).map(|section| section.data).ok_or_else(|| {
            Error::refused("section of strings", table.link, format!("there are {} sections", self.sections.len()))
        })?;
        entries(table, SYMBOL_BYTES, |reader| {
            let name = reader.u32("name")?;
            Ok(Symbol {
                name: string(strings, name, "symbol names")?,
                value: reader.u32("value")?,
                size: reader.u32("size")?,
                info: reader.u8("info")?,
                other: reader.u8("other")?,
                section: reader.u16("section")?,
            })
        })
    }

    /// The entries of a table of relocations.
    ///
    /// # Errors
    /// If it is no such table.
    pub fn relocations(&self, table: &Section<'a>) -> Result<Vec<Relocation>> {
        expect_kind(table, &[section_kind::RELOCATIONS], "a table of relocations")?;
        entries(table, RELOCATION_BYTES, |reader| {
            let (offset, info) = (reader.u32("offset")?, reader.u32("info")?);
            let schema = Schema(info.to_le_bytes()[0]);
            Ok(Relocation { offset, symbol: info >> 8, schema, addend: reader.u32("addend")? })
        })
    }

    /// The notes of a section.
    ///
    /// # Errors
    /// If it has none, or some that end behind its end.
    pub fn notes(&self, section: &Section<'a>) -> Result<Vec<Note<'a>>> {
        expect_kind(section, &[section_kind::NOTE], "a section of notes")?;
        let mut reader = Reader::new(section.data, "notes");
        let mut notes = Vec::new();
        while reader.remaining() > 0 {
            let (name_bytes, description_bytes) = (reader.u32("name")?, reader.u32("description")?);
            let kind = reader.u32("kind")?;
            let name = string(padded(&mut reader, name_bytes)?, 0, "note names")?;
            notes.push(Note { kind, name, description: padded(&mut reader, description_bytes)? });
        }
        Ok(notes)
    }

    /// Every patch: the section that it is in, what is patched in, and where and how.
    ///
    /// # Errors
    /// Tables that are none, or name symbols and sections that do not exist.
    pub fn patches(&self) -> Result<Vec<(Section<'a>, Symbol<'a>, Relocation)>> {
        let tables = |kind| self.sections.iter().find(move |section| section.kind == kind);
        let Some(relocations) = tables(section_kind::RELOCATIONS) else { return Ok(Vec::new()) };
        let symbols = match self.sections.get(relocations.link as usize) {
            Some(table) => self.symbols(table)?,
            None => {
                let bound = format!("there are {} sections", self.sections.len());
                return Err(Error::refused("section of symbols", relocations.link, bound));
            }
        };
        let patch = |relocation: Relocation| {
            let symbol = symbols
                .get(relocation.symbol as usize)
                .copied()
                .ok_or_else(|| Error::refused("symbol", relocation.symbol, format!("there are {}", symbols.len())))?;
            let section = self.sections.get(usize::from(symbol.section)).copied().ok_or_else(|| {
                Error::refused("section", symbol.section, format!("there are {}", self.sections.len()))
            })?;
            Ok((section, symbol, relocation))
        };
        self.relocations(relocations)?.into_iter().map(patch).collect()
    }

    /// The file's UID.
    #[must_use]
    pub fn uid(&self) -> Option<&'a [u8]> {
        let notes = self.notes(self.section(".note.xrt.UID")?).ok()?;
        notes.first().map(|note| note.description)
    }
}

fn expect_kind(section: &Section<'_>, kinds: &[u32], what: &str) -> Result<()> {
    if kinds.contains(&section.kind) {
        return Ok(());
    }
    Err(Error::refused("section", section.name, format!("its kind is {:#x}, which is not {what}", section.kind)))
}

fn entries<'a, T>(
    table: &Section<'a>,
    entry_bytes: usize,
    mut entry: impl FnMut(&mut Reader<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    if !table.data.len().is_multiple_of(entry_bytes) {
        let value = format!("{} bytes long", table.data.len());
        return Err(Error::refused("table", value, format!("an entry of {} has {entry_bytes}", table.name)));
    }
    let mut reader = Reader::new(table.data, "table");
    let mut entries = Vec::new();
    while reader.remaining() > 0 {
        entries.push(entry(&mut reader).map_err(|error| error.within(table.name))?);
    }
    Ok(entries)
}

/// Bytes, and zeros up to a multiple of 4.
fn padded<'a>(reader: &mut Reader<'a>, size_bytes: u32) -> Result<&'a [u8]> {
    let bytes = reader.take(size_bytes as usize, "note")?;
    let padding = bytes.len().wrapping_neg() & 3;
    reader.take(padding, "padding")?;
    Ok(bytes)
}
