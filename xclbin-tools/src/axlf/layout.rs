//! Where everything stands in a file, and the file made from it again.

use std::borrow::Cow;

use super::{Axlf, Header, Kind, Section};
use crate::{
    bytes::{Reader, Writer},
    error::{Error, Result},
    section::Name,
};

/// An entry of the table of sections, in bytes.
pub const ENTRY_BYTES: usize = 40;

/// What of a section its table entry says besides kind and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the start of the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Between name and offset; zero.
    pub padding: [u8; 4],
}

/// Bytes that belong to neither header, table nor section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// From the start of the file.
    pub offset: u64,
    /// What stands there.
    pub bytes: &'a [u8],
}

/// Where everything stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout<'a> {
    /// The length that the header gives.
    pub length: u64,
    /// The length that the file has.
    pub file_bytes: u64,
    /// Of each section, in the table's order.
    pub places: Vec<Place>,
    /// In ascending order. The last one, behind all sections, holds mirror and signature.
    pub gaps: Vec<Gap<'a>>,
}

impl<'a> Layout<'a> {
    /// What stands behind the last section: mirror, signature and whatever else.
    pub fn tail(&self) -> &'a [u8] {
        let last =
            self.gaps.last().filter(|gap| gap.offset.checked_add(gap.bytes.len() as u64) == Some(self.file_bytes));
        last.map_or(&[], |gap| gap.bytes)
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Axlf<'_>> {
    let mut reader = Reader::new(bytes, "axlf");
    let (header, length, n_sections) = Header::parse(&mut reader)?;
    let file_bytes = bytes.len() as u64;
    if length > file_bytes {
        let bound = format!("the file has {file_bytes} bytes: it was cut off");
        return Err(reader.malformed(304, "m_length", length, bound));
    }
    let mut sections = Vec::new();
    let mut places = Vec::new();
    for index in 0..n_sections {
        let (section, place) = entry(&mut reader).map_err(|error| error.within(format!("section {index}")))?;
        sections.push(section);
        places.push(place);
    }
    // Sections may share bytes, which is a fault to report; many that share many would multiply the file.
    let total = places.iter().fold(0_u64, |total, place| total.saturating_add(place.size));
    if total > file_bytes.saturating_mul(2) {
        let bound = format!("at most twice the {file_bytes} bytes of the file are read");
        return Err(reader.malformed(448, "size of all sections", total, bound));
    }
    let gaps = gaps(bytes, reader.offset(), &places);
    Ok(Axlf { header, sections, layout: Some(Layout { length, file_bytes, places, gaps }) })
}

fn entry<'a>(reader: &mut Reader<'a>) -> Result<(Section<'a>, Place)> {
    let kind = Kind(reader.u32("m_sectionKind")?);
    let name = Name(reader.array("m_sectionName")?);
    let padding = reader.array("padding")?;
    let at = reader.offset();
    let (offset, size) = (reader.u64("m_sectionOffset")?, reader.u64("m_sectionSize")?);
    let bytes = reader.slice(at, offset, size, "section").map_err(|error| error.within(kind.to_string()))?;
    Ok((Section { kind, name, bytes: Cow::Borrowed(bytes) }, Place { offset, size, padding }))
}

/// What is left of the file between the end of the table, the sections and the end.
fn gaps<'a>(bytes: &'a [u8], table_end: u64, places: &[Place]) -> Vec<Gap<'a>> {
    let mut taken: Vec<(u64, u64)> = places.iter().map(|p| (p.offset, p.offset.saturating_add(p.size))).collect();
    taken.sort_unstable();
    taken.push((bytes.len() as u64, bytes.len() as u64));
    let mut end = table_end;
    let mut gaps = Vec::new();
    for (start, next) in taken {
        let range = usize::try_from(end).ok().zip(usize::try_from(start).ok());
        if let Some(bytes) = range.and_then(|(end, start)| bytes.get(end..start)).filter(|bytes| !bytes.is_empty()) {
            gaps.push(Gap { offset: end, bytes });
        }
        end = end.max(next);
    }
    gaps
}

/// The file again.
pub(super) fn rebuild(axlf: &Axlf<'_>, layout: &Layout<'_>) -> Result<Vec<u8>> {
    let mut out = Writer::new();
    axlf.header.write(&mut out, layout.length, count(axlf.sections.len())?);
    for (section, place) in axlf.sections.iter().zip(&layout.places) {
        write_entry(section, place, &mut out);
    }
    let size = usize::try_from(layout.file_bytes).unwrap_or_default();
    out.bytes.resize(size.max(out.bytes.len()), 0);
    let sections = axlf.sections.iter().zip(&layout.places).map(|(section, place)| (place.offset, &*section.bytes));
    let gaps = layout.gaps.iter().map(|gap| (gap.offset, gap.bytes));
    for (offset, bytes) in sections.chain(gaps) {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(bytes.len())?));
        if let Some(place) = range.and_then(|range| out.bytes.get_mut(range)) {
            place.copy_from_slice(bytes);
        }
    }
    Ok(out.bytes)
}

pub(super) fn write_entry(section: &Section<'_>, place: &Place, out: &mut Writer) {
    out.u32(section.kind.0);
    out.put(&section.name.0);
    out.put(&place.padding);
    out.u64(place.offset);
    out.u64(place.size);
}

/// The count of sections as the header holds it.
pub(super) fn count(n_sections: usize) -> Result<u32> {
    u32::try_from(n_sections).map_err(|_| Error::refused("count of sections", n_sections, "32 bits hold it"))
}
