//! The container (XCLBIN, `axlf`): header, table of sections, their bytes, and the JSON mirror behind them. Drawn in
//! `docs/src/formats/xclbin.md`.
//!
//! A container that was read and not touched is written as it was, byte by byte, whatever order, gaps and
//! trailing bytes it has. Any change lays it out anew as `xclbinutil` 2.25 does: the mirror is made again, and a
//! signature, which would no longer hold, is dropped. Reading refuses only what cannot be read; what is odd
//! (overlaps, alignment, a wrong length) stays visible in [`Layout`].

mod header;
mod kind;
mod layout;
mod mirror;
mod uuid;

use std::borrow::Cow;

pub use header::{HEADER_BYTES, Header, Version};
pub use kind::{Format, Kind};
pub use layout::{ENTRY_BYTES, Gap, Layout, Place};
pub use uuid::Uuid;

use crate::{
    bytes::Writer,
    error::{Error, Result},
    section::Name,
};

/// A part of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Mostly the name of the file it came from, without extension and cut to 15 bytes.
    pub name: Name<16>,
    /// What [`crate::section`] reads.
    pub bytes: Cow<'a, [u8]>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Axlf<'a> {
    header: Header,
    sections: Vec<Section<'a>>,
    layout: Option<Layout<'a>>,
}

impl<'a> Axlf<'a> {
    /// A container of these parts.
    pub fn new(header: Header, sections: Vec<Section<'a>>) -> Axlf<'a> {
        Axlf { header, sections, layout: None }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is no XCLBIN or was cut off, sections outside the file, sections that name the same bytes over and over.
    pub fn parse(bytes: &'a [u8]) -> Result<Axlf<'a>> {
        layout::parse(bytes)
    }

    /// What the container says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The same, to change: the container will be laid out anew.
    pub fn header_mut(&mut self) -> &mut Header {
        self.layout = None;
        &mut self.header
    }

    /// The sections, in the table's order.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The same, to change: the container will be laid out anew.
    pub fn sections_mut(&mut self) -> &mut Vec<Section<'a>> {
        self.layout = None;
        &mut self.sections
    }

    /// The first section of a kind; drivers look at no other.
    pub fn section(&self, kind: Kind) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// Where everything stood in the file; none once something was changed.
    pub fn layout(&self) -> Option<&Layout<'a>> {
        self.layout.as_ref()
    }

    /// The mirror's JSON in the file that was read, with the line end that some writers leave behind it.
    pub fn mirror(&self) -> Option<&'a [u8]> {
        self.layout.as_ref().and_then(|layout| mirror::find(layout.tail()))
    }

    /// The signature of the file that was read, the last of the bytes that the header counts: PKCS #7 over what
    /// stands before it.
    pub fn signature(&self) -> Option<&'a [u8]> {
        let size = usize::try_from(self.header.signature_length).ok().filter(|size| *size > 0)?;
        let layout = self.layout.as_ref()?;
        let tail = layout.tail();
        let trailing = usize::try_from(layout.file_bytes.checked_sub(layout.length)?).ok()?;
        let end = tail.len().checked_sub(trailing)?;
        tail.get(end.checked_sub(size)?..end)
    }

    /// The file: as it was read, or laid out anew after a change.
    ///
    /// # Errors
    /// After a change: a section whose bytes contradict its kind, because the mirror repeats them as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        match &self.layout {
            Some(layout) => layout::rebuild(self, layout),
            None => self.lay_out(),
        }
    }

    fn lay_out(&self) -> Result<Vec<u8>> {
        let header = Header { signature_length: -1, ..self.header };
        let places = self.places()?;
        let n_sections = layout::count(self.sections.len())?;
        let mut out = Writer::new();
        header.write(&mut out, 0, n_sections);
        for (section, place) in self.sections.iter().zip(&places) {
            layout::write_entry(section, place, &mut out);
        }
        for section in &self.sections {
            out.pad_to(8);
            out.put(&section.bytes);
        }
        mirror::write(&header, self.sections.iter().zip(&places), &mut out)?;
        // The length is known only now; writing the header once more sets it.
        let mut head = Writer::new();
        header.write(&mut head, out.len(), n_sections);
        out.bytes.iter_mut().zip(head.bytes).for_each(|(byte, from)| *byte = from);
        Ok(out.bytes)
    }

    /// Where the sections go: one after the other, each from a multiple of eight.
    fn places(&self) -> Result<Vec<Place>> {
        let too_large = || Error::refused("container", "of 2^64 bytes or more", "offsets have 64 bits");
        let table = (self.sections.len() as u64).checked_mul(ENTRY_BYTES as u64);
        let mut end = table.and_then(|table| table.checked_add(HEADER_BYTES as u64)).ok_or_else(too_large)?;
        let mut place = |section: &Section<'_>| {
            let offset = end.checked_next_multiple_of(8)?;
            let size = section.bytes.len() as u64;
            end = offset.checked_add(size)?;
            Some(Place { offset, size, padding: [0; 4] })
        };
        self.sections.iter().map(|section| place(section).ok_or_else(too_large)).collect()
    }
}

#[cfg(test)]
mod tests;
