//! Rules for the container: header, table of sections, where they lie, and the mirror behind them.
//!
//! The table is read here as it stands, so that one section outside the file does not hide the others.

use std::collections::HashSet;

use super::{Findings, rule::rules};
use crate::{
    axlf::{Axlf, ENTRY_BYTES, HEADER_BYTES, Kind, Place, Section},
    bytes::Reader,
    error::Result,
    section::{
        self, Name,
        json::{Tree, parse_number},
    },
};

rules! {
    MALFORMED: Error "container-malformed" {
        asks: "a container has a whole header and a table that can be read",
        effect: "the runtime refuses the file",
        mend: "copy or build the package anew: the file was cut off",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    LENGTH: Error "file-length" {
        asks: "the length in the header is that of the file",
        effect: "the runtime refuses the file",
        mend: "copy the file anew if it was cut off; build it anew if something was put behind its end",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    COUNT: Error "section-count" {
        asks: "a container has a section at least, and as many as its table has room for, 10000 at most",
        effect: "the runtime refuses the file, or reads sections for table entries",
        mend: "build the package anew",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    MODE: Error "header-mode" {
        asks: "the mode in the header is one that the format has: 0 (flat) to 6 (hardware emulation, partial)",
        effect: "the runtime refuses the package when its target is asked for",
        mend: "set the mode to 0, as mlir-aie has it, or 4, as AMD's packages have it",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    SIGNATURE: Warning "signature-state" {
        asks: "a package is not signed (-1), or its signature lies behind all sections",
        effect: "tools take the last bytes for a signature, and refuse to change the file",
        mend: "take the signature off (`xclbinutil --remove-signature` of XRT), or set its length to -1",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinSignature.cxx",
    }
    UUID: Warning "package-uuid" {
        asks: "a package has a UUID other than zero",
        effect: "the runtime knows packages by it: a second one without is taken for the first",
        mend: "give it a UUID",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    OUTSIDE: Error "section-outside" {
        asks: "a section lies inside the file, behind the table",
        effect: "the runtime refuses the file, or reads the table for the section",
        mend: "copy or build the package anew",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    ALIGNMENT: Error "section-alignment" {
        asks: "a section starts at a multiple of 8",
        effect: "the runtime reads 64-bit fields in place: they are not where the processor expects them",
        mend: "build the package anew: packagers align sections",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinClass.cxx",
    }
    OVERLAP: Error "section-overlap" {
        asks: "no two sections share bytes",
        effect: "at least one of them holds the other's bytes: garbage is loaded",
        mend: "build the package anew",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinClass.cxx",
    }
    TWICE: Error "section-duplicate" {
        asks: "a kind of section that the NPU's runtime reads stands once",
        effect: "the runtime takes the first and passes over the other, its kernels with it",
        mend: "merge the contents into one section",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    MISSING: Error "section-missing" {
        asks: "AIE_PARTITION, EMBEDDED_METADATA, IP_LAYOUT, MEM_TOPOLOGY and CONNECTIVITY are there",
        effect: "the package is none for an NPU: creating a context or a buffer fails",
        mend: "build the package with partition, kernels and memories",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    SECTION: Error "section-malformed" {
        asks: "counts, offsets and names in a section stay inside of it",
        effect: "the runtime refuses the package, or reads behind the section",
        mend: "build the section anew from its JSON",
        source: "Xilinx/XRT:src/runtime_src/core/common/xclbin_parser.cpp",
    }
    TOO_LARGE: Warning "section-not-checked" {
        asks: "a section is no larger than this tool reads, so that it can be checked",
        effect: "none that is known: what is wrong in the section, or between it and others, was not looked for",
        mend: "split the package, or look at the section by other means",
        source: "https://docs.rs/roxmltree/latest/roxmltree/struct.ParsingOptions.html",
    }
    UNTERMINATED: Warning "text-unterminated" {
        asks: "a name in a field of fixed size ends with NUL inside of it",
        effect: "readers that look for the NUL run into the next field",
        mend: "shorten the name",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    MIRROR: Warning "mirror-contradiction" {
        asks: "the mirror behind the sections says the same of UUID, kinds, offsets and sizes as header and table",
        effect: "none: the runtime does not read it; xclbinutil --migrate-forward rebuilds the package from it",
        mend: "write the package anew; whoever changed it left the mirror as it was",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinClass.cxx",
    }
}

/// XRT's bound.
const N_SECTIONS_MAX: u32 = 10_000;

/// The longest mirror that is held against the sections; those of AMD's packages have 60 KB.
const MIRROR_BYTES_MAX: usize = 1 << 22;

/// Kinds that the NPU's runtime reads, of which it takes the first.
const READ: [Kind; 7] = [
    Kind::AIE_PARTITION,
    Kind::EMBEDDED_METADATA,
    Kind::IP_LAYOUT,
    Kind::MEM_TOPOLOGY,
    Kind::CONNECTIVITY,
    Kind::GROUP_TOPOLOGY,
    Kind::GROUP_CONNECTIVITY,
];

/// How many of [`READ`] it cannot do without.
const N_NEEDED: usize = 5;

/// An entry of the table and the bytes that it names.
pub(super) struct Entry<'a> {
    pub(super) kind: Kind,
    pub(super) bytes: &'a [u8],
    offset: u64,
}

/// Checks header, table and mirror; returns the sections that lie inside the file.
pub(super) fn check<'a>(bytes: &'a [u8], found: &mut Findings) -> Vec<Entry<'a>> {
    let mut reader = Reader::new(bytes, "axlf");
    let entries = check_header(bytes, &mut reader, found).map(|count| check_table(bytes, count, &mut reader, found));
    let entries = entries.unwrap_or_else(|error| {
        found.add_error(&MALFORMED, &"container", &error);
        Vec::new()
    });
    check_places(&entries, found);
    check_kinds(&entries, found);
    if let Ok(axlf) = Axlf::parse(bytes) {
        check_mirror(&axlf, found);
    }
    entries
}

/// Checks the header; returns how many entries of the table to read.
fn check_header(bytes: &[u8], reader: &mut Reader<'_>, found: &mut Findings) -> Result<u32> {
    let file_bytes = bytes.len() as u64;
    reader.seek(8, "signature length")?;
    let signature_bytes = reader.array("signature length").map(i32::from_le_bytes)?;
    reader.seek(304, "length")?;
    let length = reader.u64("length")?;
    reader.seek(332, "mode")?;
    let mode = reader.u16("mode")?;
    reader.seek(352, "platform")?;
    let platform: Name<64> = Name(reader.array("platform")?);
    let uuid: [u8; 16] = reader.array("UUID")?;
    reader.take(16, "debug file")?;
    let count = reader.u32("section count")?;
    reader.seek(HEADER_BYTES as u64, "table")?;

    let place = "header";
    if length != file_bytes {
        found.add(&LENGTH, place, format_args!("{length} bytes"), format_args!("the file has {file_bytes}"));
    }
    if mode > 6 {
        found.add(&MODE, place, format_args!("mode {mode}"), "0 to 6");
    }
    if !platform.is_terminated() {
        found.add(&UNTERMINATED, place, format_args!("platform {platform}"), "at most 63 bytes and NUL");
    }
    if uuid == [0; 16] {
        found.add(&UUID, place, "zero", "any other");
    }
    let room = (reader.remaining() / ENTRY_BYTES) as u64;
    if count == 0 || count > N_SECTIONS_MAX || u64::from(count) > room {
        let bound = format_args!("1 to {N_SECTIONS_MAX}; the file has room for {room}");
        found.add(&COUNT, place, format_args!("{count} sections"), bound);
    }
    let count = u32::try_from(room).unwrap_or(u32::MAX).min(count).min(N_SECTIONS_MAX);
    let table_end = u64::from(count).saturating_mul(ENTRY_BYTES as u64).saturating_add(HEADER_BYTES as u64);
    let is_inside =
        u64::try_from(signature_bytes).is_ok_and(|size| size > 0 && size <= file_bytes.saturating_sub(table_end));
    if signature_bytes != -1 && !is_inside {
        let value = format_args!("a signature of {signature_bytes} bytes");
        found.add(&SIGNATURE, place, value, "-1 (none), or less than is left behind the table");
    }
    Ok(count)
}

fn check_table<'a>(bytes: &'a [u8], count: u32, reader: &mut Reader<'a>, found: &mut Findings) -> Vec<Entry<'a>> {
    let table_end = u64::from(count).saturating_mul(ENTRY_BYTES as u64).saturating_add(HEADER_BYTES as u64);
    let mut entries = Vec::new();
    for index in 0..count {
        // `check_header` found room for all of them.
        let Ok((kind, name, offset, size)) = entry(reader) else { break };
        let place = format_args!("section {index} ({kind})");
        if !name.is_terminated() {
            found.add(&UNTERMINATED, place, format_args!("name {name}"), "at most 15 bytes and NUL");
        }
        if !offset.is_multiple_of(8) {
            found.add(&ALIGNMENT, place, format_args!("offset {offset:#x}"), "a multiple of 8");
        }
        let inside = Reader::new(bytes, "axlf").slice(0, offset, size, "section");
        match inside {
            Ok(bytes) if offset >= table_end || size == 0 => entries.push(Entry { kind, bytes, offset }),
            _ => {
                let bound = format_args!("the table ends at {table_end:#x}, the file at {:#x}", bytes.len());
                found.add(&OUTSIDE, place, format_args!("{size} bytes from {offset:#x}"), bound);
            }
        }
    }
    entries
}

fn entry(reader: &mut Reader<'_>) -> Result<(Kind, Name<16>, u64, u64)> {
    let (kind, name) = (Kind(reader.u32("kind")?), Name(reader.array("name")?));
    reader.take(4, "padding")?;
    Ok((kind, name, reader.u64("offset")?, reader.u64("size")?))
}

fn check_places(entries: &[Entry<'_>], found: &mut Findings) {
    let mut taken: Vec<&Entry<'_>> = entries.iter().filter(|entry| !entry.bytes.is_empty()).collect();
    taken.sort_by_key(|entry| entry.offset);
    let (mut end, mut last) = (0, None);
    for entry in taken {
        if let Some(last) = last.filter(|_| entry.offset < end) {
            let place = format_args!("section {}", entry.kind);
            found.add(
                &OVERLAP,
                place,
                format_args!("offset {:#x}", entry.offset),
                format_args!("{last} ends at {end:#x}"),
            );
        }
        let own_end = entry.offset.saturating_add(entry.bytes.len() as u64);
        if own_end > end {
            (end, last) = (own_end, Some(entry.kind));
        }
    }
}

fn check_kinds(entries: &[Entry<'_>], found: &mut Findings) {
    let mut kinds = HashSet::new();
    for entry in entries {
        if !kinds.insert(entry.kind) && READ.contains(&entry.kind) {
            found.add(&TWICE, format_args!("section {}", entry.kind), "a second one", "one");
        }
    }
    for needed in READ.iter().take(N_NEEDED).filter(|kind| !kinds.contains(kind)) {
        found.add(&MISSING, "container", format_args!("no {needed}"), "one");
    }
}

fn check_mirror(axlf: &Axlf<'_>, found: &mut Findings) {
    let (Some(text), Some(layout)) = (axlf.mirror(), axlf.layout()) else { return };
    if text.len() > MIRROR_BYTES_MAX {
        let bound = format_args!("at most {MIRROR_BYTES_MAX} are read");
        return found.add(&MIRROR, "mirror", format_args!("{} bytes", text.len()), bound);
    }
    let parsed = std::str::from_utf8(text).map_err(|error| error.to_string());
    let mirror = match parsed.and_then(|text| Tree::parse(text.trim_end()).map_err(|error| error.to_string())) {
        Ok(mirror) => mirror,
        Err(error) => return found.add(&MIRROR, "mirror", "no JSON", error),
    };
    let uuid = mirror.get("header").and_then(|header| header.get("XclBinUUID")).map_or("", |uuid| &uuid.text);
    let own: String = axlf.header().uuid.0.iter().map(|byte| format!("{byte:02x}")).collect();
    if uuid != own {
        found.add(&MIRROR, "mirror, header, XclBinUUID", uuid, format_args!("the header has {own}"));
    }
    let listed: Vec<&Tree> =
        mirror.children.iter().filter(|(key, _)| key == "section_header").map(|(_, section)| section).collect();
    if listed.len() != layout.places.len() {
        let bound = format_args!("the table has {}", layout.places.len());
        return found.add(&MIRROR, "mirror", format_args!("{} sections", listed.len()), bound);
    }
    for (index, ((section, place), listed)) in axlf.sections().iter().zip(&layout.places).zip(listed).enumerate() {
        check_mirrored(index, section, place, listed, found);
    }
}

/// What the mirror says of a section. Its contents are held against those sections that have JSON there.
fn check_mirrored(index: usize, section: &Section<'_>, place: &Place, listed: &Tree, found: &mut Findings) {
    let at = format_args!("mirror, section {index} ({})", section.kind);
    let number = |key: &str| listed.get(key).and_then(|tree| parse_number(&tree.text));
    let own = [("Kind", section.kind.0.into()), ("Offset", place.offset), ("Size", place.size)];
    for (key, own) in own.into_iter().filter(|(key, own)| number(key) != Some(*own)) {
        let value = number(key).map_or("none".to_owned(), |number| format!("{number:#x}"));
        found.add(&MIRROR, at, format_args!("{key} {value}"), format_args!("the table has {own:#x}"));
    }
    let payload = section::to_json(section.kind, &section.bytes).ok().flatten();
    if let (Some(own), Some(mirrored)) = (payload, listed.get("payload"))
        && own != *mirrored
    {
        found.add(&MIRROR, at, "other contents", "those of the section");
    }
}
