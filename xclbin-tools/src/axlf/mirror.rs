//! The mirror behind the sections: the header and every section that has a JSON form, as one line of JSON between
//! two marks. Only `xclbinutil --migrate-forward` reads it
//! (`Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinClass.cxx`, `writeXclBinBinary`).

use super::{Header, Place, Section};
use crate::{bytes::Writer, error::Result, section, section::json::Tree};

const START: &[u8] = b"XCLBIN_MIRROR_DATA_START";
const END: &[u8] = b"XCLBIN_MIRROR_DATA_END";

/// What stands between the marks.
pub(super) fn find(tail: &[u8]) -> Option<&[u8]> {
    let after = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).position(|window| window == mark);
    let start = after(tail, START)?.checked_add(START.len())?;
    let json = tail.get(start..)?;
    json.get(..after(json, END)?)
}

/// Adds the mirror. DEBUG_IP_LAYOUT, CLOCK_FREQ_TOPOLOGY, PARTITION_METADATA and SMARTNIC, which are of other devices
/// than NPUs, have no payload in it.
pub(super) fn write<'s>(
    header: &Header,
    sections: impl Iterator<Item = (&'s Section<'s>, &'s Place)>,
    out: &mut Writer,
) -> Result<()> {
    let schema = Tree::default().with("major", "1").with("minor", "0").with("patch", "0");
    let mut mirror = Tree::default().with("schema_version", schema).with("header", header_json(header));
    for (section, place) in sections {
        mirror.push("section_header", section_json(section, place)?);
    }
    out.put(START);
    out.put(mirror.to_line().as_bytes());
    out.put(END);
    Ok(())
}

fn header_json(header: &Header) -> Tree {
    let version = header.version;
    // Two numbers of eight bits come out as characters, because `xclbinutil` formats them as such.
    let text = format!("{}.{}.{}", char::from(version.major), char::from(version.minor), version.patch);
    let version = text.split('\0').next().unwrap_or_default();
    Tree::default()
        .with("Magic", "xclbin2")
        .with("SignatureLength", hex(&header.signature_length.to_le_bytes()))
        .with("KeyBlock", hex(&header.key_block))
        .with("UniqueID", hex(&header.unique_id.to_le_bytes()))
        .with("TimeStamp", header.timestamp.to_string())
        .with("FeatureRomTimeStamp", header.feature_rom_timestamp.to_string())
        .with("Version", version)
        .with("Mode", header.mode.to_string())
        .with("InterfaceUUID", hex(&header.interface_uuid.0))
        .with("PlatformVBNV", header.platform_vbnv.text().as_ref())
        .with("XclBinUUID", hex(&header.uuid.0))
        .with("DebugBin", header.debug_bin.text().as_ref())
}

fn section_json(section: &Section<'_>, place: &Place) -> Result<Tree> {
    let json = Tree::default()
        .with("Kind", section.kind.0.to_string())
        .with("Name", section.name.text().as_ref())
        .with("Offset", format!("{:#x}", place.offset))
        .with("Size", format!("{:#x}", place.size));
    let payload = section::to_json(section.kind, &section.bytes);
    Ok(match payload.map_err(|error| error.within(section.kind.to_string()))? {
        Some(payload) => json.with("payload", payload),
        None => json,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
