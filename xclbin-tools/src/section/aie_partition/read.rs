//! Bytes of AIE_PARTITION to its model.
//!
//! Nothing in the format keeps lists from sharing bytes, so that a small file could name far more than it holds:
//! n PDIs of m groups of k ids. Here all lists together may be twice as long as the section, which leaves room for
//! some sharing (two PDIs with one image); memory and time stay in proportion to the file.

use std::borrow::Cow;

use super::{AiePartition, CdoGroup, CdoType, Pdi, Span};
use crate::{
    axlf::Uuid,
    bytes::Reader,
    error::{Error, Result},
};

const PART: &str = "AIE_PARTITION";
const PDI_BYTES: u64 = 96;
const GROUP_BYTES: u64 = 96;

impl<'a> AiePartition<'a> {
    /// Reads a section.
    ///
    /// # Errors
    /// Lists or names outside the section, names that are no UTF-8, lists that together exceed twice the section.
    pub fn parse(bytes: &'a [u8]) -> Result<AiePartition<'a>> {
        Walk::new(bytes).partition()
    }

    /// What the lists and names of a section take of it, in the order of reading.
    ///
    /// # Errors
    /// As [`AiePartition::parse`].
    pub fn spans(bytes: &'a [u8]) -> Result<Vec<Span>> {
        let mut walk = Walk::new(bytes);
        walk.partition()?;
        Ok(walk.spans)
    }
}

/// The section, what of it was named so far, and how many more bytes may be named.
struct Walk<'a> {
    section: Reader<'a>,
    bytes: &'a [u8],
    spans: Vec<Span>,
    left: u64,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Walk<'a> {
        Walk {
            section: Reader::new(bytes, PART),
            bytes,
            spans: Vec::new(),
            left: (bytes.len() as u64).saturating_mul(2),
        }
    }

    fn partition(&mut self) -> Result<AiePartition<'a>> {
        let mut head = self.section;
        let schema_version = head.u8("schema_version")?;
        head.take(3, "padding")?;
        let name = self.name(&mut head, "name")?;
        let operations_per_cycle = head.u32("operations_per_cycle")?;
        head.take(4, "padding")?;
        let inference_fingerprint = head.u64("inference_fingerprint")?;
        let pre_post_fingerprint = head.u64("pre_post_fingerprint")?;
        let column_width = head.u16("column_width")?;
        head.take(6, "padding")?;
        let start_columns = self.numbers(&mut head, "start_columns", u16::from_le_bytes)?;
        head.take(72, "reserved")?;
        let pdis = self.list(&mut head, "aie_pdi", PDI_BYTES)?;
        let mut commit = head;
        let kernel_commit_id = match head.u32("kernel_commit_id")? {
            0 => None,
            _ => Some(self.name(&mut commit, "kernel_commit_id")?),
        };
        head.take(52, "reserved")?;
        let pdis = pdis.each(|pdi| self.pdi(pdi))?;
        Ok(AiePartition {
            schema_version,
            name,
            operations_per_cycle,
            inference_fingerprint,
            pre_post_fingerprint,
            kernel_commit_id,
            column_width,
            start_columns,
            pdis,
        })
    }

    fn pdi(&mut self, reader: &mut Reader<'a>) -> Result<Pdi<'a>> {
        let uuid = Uuid(reader.array("uuid")?);
        let image = Cow::Borrowed(self.list(reader, "pdi_image", 1)?.bytes);
        let groups = self.list(reader, "cdo_groups", GROUP_BYTES)?;
        reader.take(64, "reserved")?;
        Ok(Pdi { uuid, image, groups: groups.each(|group| self.group(group))? })
    }

    fn group(&mut self, reader: &mut Reader<'a>) -> Result<CdoGroup<'a>> {
        let name = self.name(reader, "group name")?;
        let kind = CdoType(reader.u8("cdo_type")?);
        reader.take(3, "padding")?;
        let pdi_id = reader.u64("pdi_id")?;
        let kernel_ids = self.numbers(reader, "dpu_kernel_ids", u64::from_le_bytes)?;
        let pre_cdo_groups = self.numbers(reader, "pre_cdo_groups", u64::from_le_bytes)?;
        reader.take(64, "reserved")?;
        Ok(CdoGroup { name, kind, pdi_id, kernel_ids, pre_cdo_groups })
    }
}

/// A list whose entries all lie in the section.
struct List<'a> {
    bytes: &'a [u8],
    count: u32,
    /// At the first entry.
    reader: Reader<'a>,
}

impl<'a> List<'a> {
    fn each<T>(mut self, mut entry: impl FnMut(&mut Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
        (0..self.count).map(|_| entry(&mut self.reader)).collect()
    }
}

impl<'a> Walk<'a> {
    /// A list by its count and offset.
    fn list(&mut self, from: &mut Reader<'a>, what: &'static str, entry_bytes: u64) -> Result<List<'a>> {
        let at = from.offset();
        let count = from.u32(what)?;
        let offset = u64::from(from.u32(what)?);
        let size = u64::from(count).saturating_mul(entry_bytes);
        let mut reader = self.section;
        // Nothing follows the offset of an empty list.
        if size == 0 {
            return Ok(List { bytes: &[], count, reader });
        }
        let bytes = self.section.slice(at, offset, size, what)?;
        reader.seek(offset, what)?;
        self.claim(Span { what, at, offset, size })?;
        Ok(List { bytes, count, reader })
    }

    /// A list of little-endian numbers.
    fn numbers<T, const N: usize>(
        &mut self,
        from: &mut Reader<'a>,
        what: &'static str,
        number: fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let list = self.list(from, what, N as u64)?;
        list.each(|reader| reader.array(what).map(number))
    }

    /// A text by its offset.
    fn name(&mut self, from: &mut Reader<'a>, what: &'static str) -> Result<Cow<'a, str>> {
        let at = from.offset();
        let offset = u64::from(from.u32(what)?);
        let section = self.section;
        let malformed = |bound: &str| section.malformed(at, what, format!("{offset:#x}"), bound);
        let start = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..));
        let end = start.and_then(|start| start.iter().position(|byte| *byte == 0));
        let text = start.zip(end).and_then(|(start, end)| start.get(..end));
        let text = text.ok_or_else(|| malformed("a text that a NUL ends inside the section is expected there"))?;
        self.claim(Span { what, at, offset, size: (text.len() as u64).saturating_add(1) })?;
        std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| malformed("a text in UTF-8 is expected there"))
    }

    /// Counts what a list or name takes.
    fn claim(&mut self, span: Span) -> Result<()> {
        let left = self.left.checked_sub(span.size).ok_or_else(|| Error::TooLarge {
            what: PART,
            value: format!("lists that share bytes, of which {} at {:#x} has {} bytes", span.what, span.at, span.size),
            bound: format!("twice the section's {} are read in all", self.bytes.len()),
        })?;
        self.left = left;
        self.spans.push(span);
        Ok(())
    }
}
