//! Where sections stand in a file that is built: as ELFIO, which aiebu uses, lays them out.

use super::{Elf, HEADER_BYTES, SECTION_BYTES, SEGMENT_BYTES, Section, Segment, section_kind, write::narrow};
use crate::error::{Error, Result};

/// A section to be laid out.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    pub(super) name: String,
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) address: u32,
    pub(super) link: u32,
    pub(super) info: u32,
    pub(super) alignment: u32,
    pub(super) entry_bytes: u32,
    pub(super) data: Vec<u8>,
    /// Flags of the segment that loads it; 0 if none does.
    pub(super) segment: u32,
}

/// The alignment of what is loaded, and of the section headers.
pub(super) const ALIGNMENT: u32 = 16;

const LOADED: u32 = 1;
const PROGRAM_HEADERS: u32 = 6;
const READ: u32 = 4;

/// The file of these sections; the first two, the empty one and the names, are made here.
pub(super) fn lay_out(abi_version: u8, mut made: Vec<Made>) -> Result<Vec<u8>> {
    let names = name(&mut made)?;
    let loaded = made.iter().filter(|section| section.segment != 0).count();
    let segments_bytes = SEGMENT_BYTES.saturating_mul(narrow::<u32>("number of segments", loaded.saturating_add(1))?);
    let mut cursor = Cursor(HEADER_BYTES.saturating_add(segments_bytes));
    let mut offsets = vec![0; made.len()];
    // Segments first, then what no segment loads.
    for is_loaded in [true, false] {
        for (section, offset) in made.iter().zip(&mut offsets).skip(1) {
            if (section.segment != 0) == is_loaded {
                *offset = cursor.take(section.alignment, section.data.len())?;
            }
        }
    }
    let header = Segment {
        kind: PROGRAM_HEADERS,
        offset: HEADER_BYTES,
        address: 0,
        physical_address: 0,
        size_bytes: segments_bytes,
        memory_bytes: segments_bytes,
        flags: READ,
        alignment: 0,
    };
    let mut segments = vec![header];
    let mut sections = Vec::new();
    for ((made, offset), name_offset) in made.iter().zip(&offsets).zip(names) {
        sections.push(section(made, *offset, name_offset));
        if made.segment != 0 {
            segments.push(segment(made, *offset)?);
        }
    }
    // ELFIO moves on by a whole alignment where it stands on one already.
    let table_offset = (cursor.0 & !(ALIGNMENT.saturating_sub(1))).checked_add(ALIGNMENT).ok_or_else(too_large)?;
    let table_bytes = SECTION_BYTES.saturating_mul(narrow::<u32>("number of sections", sections.len())?);
    table_offset.checked_add(table_bytes).ok_or_else(too_large)?;
    Elf { abi_version, segments, sections, names: 1, table_offset }.to_bytes()
}

/// Fills the section of names, and says where each stands.
fn name(made: &mut [Made]) -> Result<Vec<u32>> {
    let mut names = vec![0];
    let mut offsets = vec![0];
    for section in made.iter().skip(1) {
        offsets.push(narrow("section names", names.len())?);
        names.extend_from_slice(section.name.as_bytes());
        names.push(0);
    }
    if let Some(section) = made.get_mut(1) {
        section.data = names;
    }
    Ok(offsets)
}

/// The two sections that every file starts with.
pub(super) fn first_sections() -> Vec<Made> {
    let name = ".shstrtab".to_owned();
    let names = Made { name, kind: section_kind::STRINGS, alignment: 1, ..Made::default() };
    vec![Made::default(), names]
}

fn section(made: &Made, offset: u32, name_offset: u32) -> Section<'_> {
    Section {
        name: &made.name,
        name_offset,
        kind: made.kind,
        flags: made.flags,
        address: made.address,
        offset,
        data: &made.data,
        link: made.link,
        info: made.info,
        alignment: made.alignment,
        entry_bytes: made.entry_bytes,
    }
}

fn segment(made: &Made, offset: u32) -> Result<Segment> {
    let size_bytes = narrow("segment", made.data.len())?;
    Ok(Segment {
        kind: LOADED,
        offset,
        address: made.address,
        physical_address: 0,
        size_bytes,
        memory_bytes: size_bytes,
        flags: made.segment,
        alignment: ALIGNMENT,
    })
}

/// The end of what is laid out so far.
struct Cursor(u32);

impl Cursor {
    /// Where the next part starts.
    fn take(&mut self, alignment: u32, size_bytes: usize) -> Result<u32> {
        let start = self.0.checked_next_multiple_of(alignment.max(1)).ok_or_else(too_large)?;
        let size_bytes: u32 = narrow("section", size_bytes)?;
        self.0 = start.checked_add(size_bytes).ok_or_else(too_large)?;
        Ok(start)
    }
}

fn too_large() -> Error {
    Error::refused("file", "4 GiB and more", "a 32-bit ELF file is smaller")
}
