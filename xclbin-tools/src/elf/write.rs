//! From a view to bytes.

use super::{Elf, HEADER_BYTES, OS_ABI, SECTION_BYTES, SEGMENT_BYTES};
use crate::{
    bytes::Writer,
    error::{Error, Result},
};

impl Elf<'_> {
    /// The file: of one that was read, the same bytes.
    ///
    /// # Errors
    /// More sections or segments than 16 bits count, which a file that was read cannot have; parts that do not lie
    /// behind each other.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::new();
        self.write_header(&mut writer)?;
        for segment in &self.segments {
            for word in [
                segment.kind,
                segment.offset,
                segment.address,
                segment.physical_address,
                segment.size_bytes,
                segment.memory_bytes,
                segment.flags,
                segment.alignment,
            ] {
                writer.u32(word);
            }
        }
        let mut filled: Vec<_> = self.sections.iter().filter(|section| !section.data.is_empty()).collect();
        filled.sort_unstable_by_key(|section| section.offset);
        for section in filled {
            fill_to(&mut writer, section.offset, section.name)?;
            writer.put(section.data);
        }
        fill_to(&mut writer, self.table_offset, "section headers")?;
        for section in &self.sections {
            let size_bytes = narrow("section", section.data.len())?;
            for word in [
                section.name_offset,
                section.kind,
                section.flags,
                section.address,
                section.offset,
                size_bytes,
                section.link,
                section.info,
                section.alignment,
                section.entry_bytes,
            ] {
                writer.u32(word);
            }
        }
        Ok(writer.bytes)
    }

    fn write_header(&self, writer: &mut Writer) -> Result<()> {
        writer.put(b"\x7fELF");
        writer.put(&[1, 1, 1, OS_ABI, self.abi_version, 0, 0, 0, 0, 0, 0, 0]);
        writer.u16(2);
        writer.u16(1);
        for word in [1, 0, HEADER_BYTES, self.table_offset, 0] {
            writer.u32(word);
        }
        writer.u16(HEADER_BYTES as u16);
        writer.u16(SEGMENT_BYTES as u16);
        writer.u16(narrow("number of segments", self.segments.len())?);
        writer.u16(SECTION_BYTES as u16);
        writer.u16(narrow("number of sections", self.sections.len())?);
        writer.u16(self.names);
        Ok(())
    }
}

/// Zeros up to an offset.
fn fill_to(writer: &mut Writer, offset: u32, name: &str) -> Result<()> {
    let bound = || format!("what stands before {name} ends at {:#x}", writer.len());
    if u64::from(offset) < writer.len() {
        return Err(Error::refused("offset", format!("{offset:#x}"), bound()));
    }
    writer.bytes.resize(offset as usize, 0);
    Ok(())
}

/// A count or a size in its field.
pub(super) fn narrow<T: TryFrom<usize>>(what: &'static str, value: usize) -> Result<T> {
    T::try_from(value).map_err(|_| Error::refused(what, value, "too large for its field in an ELF file"))
}
