//! From bytes to a view.

use super::{Elf, HEADER_BYTES, OS_ABI, SECTION_BYTES, SEGMENT_BYTES, Section, Segment};
use crate::{
    bytes::Reader,
    error::{Error, Result},
};

const PART: &str = "ELF";

/// Longer names are none of aiebu's; the bound keeps many headers that share one long name cheap.
const NAME_BYTES_MAX: usize = 256;

/// What the header says beyond constants.
struct Header {
    abi_version: u8,
    segments_offset: u32,
    sections_offset: u32,
    n_segments: u16,
    n_sections: u16,
    names: u16,
}

impl<'a> Elf<'a> {
    /// Reads a file.
    ///
    /// # Errors
    /// A file of another kind (said which); parts outside the file, or that overlap; bytes that belong to no part.
    pub fn parse(bytes: &'a [u8]) -> Result<Elf<'a>> {
        let mut reader = Reader::new(bytes, PART);
        let header = header(&mut reader)?;
        reader.seek(header.segments_offset.into(), "program headers")?;
        let segments = (0..header.n_segments).map(|_| segment(&mut reader)).collect::<Result<Vec<Segment>>>()?;
        reader.seek(header.sections_offset.into(), "section headers")?;
        let mut sections =
            (0..header.n_sections).map(|_| section(&mut reader)).collect::<Result<Vec<Section<'_>>>>()?;
        if reader.remaining() > 0 {
            let value = format!("{} bytes long", reader.remaining());
            return Err(reader.malformed(reader.offset(), "rest", value, "a file ends with its section headers"));
        }
        name_sections(&reader, header.names, &mut sections)?;
        let elf = Elf {
            abi_version: header.abi_version,
            segments,
            sections,
            names: header.names,
            table_offset: header.sections_offset,
        };
        elf.check_parts(&reader, bytes)?;
        Ok(elf)
    }

    /// Checks that parts lie behind each other with nothing but zeros between.
    fn check_parts(&self, reader: &Reader<'_>, bytes: &[u8]) -> Result<()> {
        let n_segments = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        let start = HEADER_BYTES.saturating_add(SEGMENT_BYTES.saturating_mul(n_segments));
        let filled = self.sections.iter().filter(|section| !section.data.is_empty());
        let part = |section: &Section<'a>| (section.offset as usize, section.data.len(), section.name);
        let mut parts: Vec<(usize, usize, &str)> = filled.map(part).collect();
        parts.push((self.table_offset as usize, 0, "section headers"));
        parts.sort_unstable();
        let mut end = start as usize;
        for (offset, size_bytes, name) in parts {
            let Some(gap) = bytes.get(end..offset) else {
                let bound = format!("what stands before {name} ends at {end:#x}");
                return Err(reader.malformed(offset as u64, "part", name, bound));
            };
            if gap.iter().any(|byte| *byte != 0) {
                let value = format!("not zero before {name}");
                return Err(reader.malformed(end as u64, "gap", value, "bytes that no part has are zero"));
            }
            end = offset.saturating_add(size_bytes);
        }
        Ok(())
    }
}

fn header(reader: &mut Reader<'_>) -> Result<Header> {
    let magic = reader.take(4, "magic")?;
    if magic != b"\x7fELF" {
        return Err(reader.malformed(0, "magic", format!("{magic:02x?}"), "an ELF file starts with 7f 45 4c 46"));
    }
    let [class, order, version, os_abi] = reader.array("identification")?;
    if (class, order, version) != (1, 1, 1) {
        let value = format!("class {class}, byte order {order}, version {version}");
        return Err(reader.malformed(4, "identification", value, "32 bits, little-endian, version 1 are 1, 1, 1"));
    }
    if os_abi != OS_ABI {
        let bound = format!("{OS_ABI:#x} is the NPUs' of Ryzen AI{}", other_abi(os_abi));
        return Err(reader.malformed(7, "operating system ABI", format!("{os_abi:#x}"), bound));
    }
    let abi_version = reader.u8("ABI version")?;
    let constant = |what: &'static str, value: u32, expected: u32, offset: u64| {
        let bound = format!("aiebu writes {expected}");
        if value == expected {
            Ok(())
        } else {
            Err(Error::Malformed { part: PART, offset, what, value: value.to_string(), bound })
        }
    };
    let padding = reader.take(7, "padding")?;
    constant("padding", padding.iter().map(|byte| u32::from(*byte)).sum(), 0, 9)?;
    constant("type", reader.u16("type")?.into(), 2, 16)?;
    constant("machine", reader.u16("machine")?.into(), 1, 18)?;
    constant("version", reader.u32("version")?, 1, 20)?;
    constant("entry", reader.u32("entry")?, 0, 24)?;
    let (segments_offset, sections_offset) = (reader.u32("program headers")?, reader.u32("section headers")?);
    constant("program headers", segments_offset, HEADER_BYTES, 28)?;
    constant("flags", reader.u32("flags")?, 0, 36)?;
    constant("header size", reader.u16("header size")?.into(), HEADER_BYTES, 40)?;
    constant("program header size", reader.u16("program header size")?.into(), SEGMENT_BYTES, 42)?;
    let n_segments = reader.u16("number of program headers")?;
    constant("section header size", reader.u16("section header size")?.into(), SECTION_BYTES, 46)?;
    let (n_sections, names) = (reader.u16("number of section headers")?, reader.u16("section of names")?);
    Ok(Header { abi_version, segments_offset, sections_offset, n_segments, n_sections, names })
}

/// What else AMD's numbers mean (`Xilinx/aiebu:src/cpp/aiebu/src/elf`).
fn other_abi(os_abi: u8) -> &'static str {
    match os_abi {
        0x40 => "; this is a Versal AI Engine's (aie2ps)",
        0x46 => "; this is a Versal AI Engine's with a configuration (aie2ps_config)",
        0 | 3 => "; this is an ordinary program",
        _ => "",
    }
}

fn segment(reader: &mut Reader<'_>) -> Result<Segment> {
    let mut word = || reader.u32("program header");
    Ok(Segment {
        kind: word()?,
        offset: word()?,
        address: word()?,
        physical_address: word()?,
        size_bytes: word()?,
        memory_bytes: word()?,
        flags: word()?,
        alignment: word()?,
    })
}

fn section<'a>(reader: &mut Reader<'a>) -> Result<Section<'a>> {
    let start = reader.offset();
    let mut word = || reader.u32("section header");
    let (name_offset, kind, flags, address) = (word()?, word()?, word()?, word()?);
    let (offset, size_bytes) = (word()?, word()?);
    let (link, info, alignment, entry_bytes) = (word()?, word()?, word()?, word()?);
    let data = reader.slice(start.saturating_add(16), offset.into(), size_bytes.into(), "section")?;
    Ok(Section { name: "", name_offset, kind, flags, address, offset, data, link, info, alignment, entry_bytes })
}

fn name_sections<'a>(reader: &Reader<'_>, names: u16, sections: &mut [Section<'a>]) -> Result<()> {
    let Some(strings) = sections.get(usize::from(names)).map(|section| section.data) else {
        let bound = format!("there are {} sections", sections.len());
        return Err(reader.malformed(50, "section of names", names, bound));
    };
    for section in sections {
        section.name = string(strings, section.name_offset, "section names")?;
    }
    Ok(())
}

/// A string that ends with a zero.
pub(super) fn string<'a>(strings: &'a [u8], offset: u32, part: &'static str) -> Result<&'a str> {
    let rest = strings.get(offset as usize..).unwrap_or_default();
    let end = rest.iter().take(NAME_BYTES_MAX).position(|byte| *byte == 0);
    let text = end.and_then(|end| rest.get(..end)).and_then(|text| std::str::from_utf8(text).ok());
    text.ok_or_else(|| Error::Malformed {
        part,
        offset: offset.into(),
        what: "name",
        value: "no string".to_owned(),
        bound: format!(
            "UTF-8 that ends with a zero within {NAME_BYTES_MAX} bytes and within the table's {}",
            strings.len()
        ),
    })
}
