//! The fixed part in front: 456 bytes, of which section count and file length follow from the rest. Drawn in
//! `docs/src/formats/xclbin.md`
//! (`Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h`, `struct axlf`).

use super::Uuid;
use crate::{
    bytes::{Reader, Writer},
    error::Result,
    section::{Name, build_metadata::FeatureRom},
};

/// Its size, in bytes.
pub const HEADER_BYTES: usize = 456;
const MAGIC: [u8; 8] = *b"xclbin2\0";

/// Which release of XRT packaged the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major number.
    pub major: u8,
    /// Minor number.
    pub minor: u8,
    /// Patch number.
    pub patch: u16,
}

/// What the header says about the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the signature at the file's end; -1 where it is not signed.
    pub signature_length: i32,
    /// All bits set.
    pub reserved: [u8; 28],
    /// All bits set.
    pub key_block: [u8; 256],
    /// The time of creation, too.
    pub unique_id: u64,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Seconds since 1970; 0 for packages without BUILD_METADATA.
    pub feature_rom_timestamp: u64,
    /// Of the packager.
    pub version: Version,
    /// 0 of mlir-aie's packages, 4 (hardware emulation) of AMD's.
    pub mode: u16,
    /// Bit 0: load the AI engines; bit 1: load the PDI.
    pub action_mask: u16,
    /// Of the platform that this fits on; zero for NPUs.
    pub interface_uuid: Uuid,
    /// Vendor, board, name, version of the platform.
    pub platform_vbnv: Name<64>,
    /// Of this container: random, so that drivers know which they have loaded.
    pub uuid: Uuid,
    /// Of a file with debug information.
    pub debug_bin: Name<16>,
    /// Zero.
    pub padding: [u8; 4],
}

impl Default for Header {
    /// As `xclbinutil` 2.25 begins, at second 0 and without uuid.
    fn default() -> Header {
        Header {
            signature_length: -1,
            reserved: [0xff; 28],
            key_block: [0xff; 256],
            unique_id: 0,
            timestamp: 0,
            feature_rom_timestamp: 0,
            version: Version { major: 2, minor: 25, patch: 0 },
            mode: 0,
            action_mask: 0,
            interface_uuid: Uuid::default(),
            platform_vbnv: Name::default(),
            uuid: Uuid::default(),
            debug_bin: Name::default(),
            padding: [0; 4],
        }
    }
}

impl Header {
    /// Sets the time of creation in both places, in seconds since 1970.
    pub fn set_time(&mut self, seconds: u64) {
        self.unique_id = seconds;
        self.timestamp = seconds;
    }

    /// Repeats the platform that BUILD_METADATA names, as `xclbinutil` does when it adds that section.
    pub fn set_platform(&mut self, rom: &FeatureRom) {
        self.feature_rom_timestamp = rom.timestamp;
        self.platform_vbnv = Name::cut(rom.vbnv.as_bytes());
    }

    /// Names of the bits set in the action mask.
    pub fn actions(&self) -> Vec<&'static str> {
        let bits = [(1, "LOAD_AIE"), (2, "LOAD_PDI")];
        bits.iter().filter(|(bit, _)| self.action_mask & bit != 0).map(|(_, name)| *name).collect()
    }

    /// The header, the length that it gives, and the count of sections.
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<(Header, u64, u32)> {
        let magic: [u8; 8] = reader.array("magic")?;
        if magic != MAGIC {
            let value = String::from_utf8_lossy(&magic).escape_debug().to_string();
            return Err(reader.malformed(0, "magic", value, "\"xclbin2\" is expected: this is no XCLBIN"));
        }
        let signature_length = reader.array("m_signature_length").map(i32::from_le_bytes)?;
        let reserved = reader.array("reserved")?;
        let key_block = reader.array("m_keyBlock")?;
        let unique_id = reader.u64("m_uniqueId")?;
        let length = reader.u64("m_length")?;
        let header = Header {
            signature_length,
            reserved,
            key_block,
            unique_id,
            timestamp: reader.u64("m_timeStamp")?,
            feature_rom_timestamp: reader.u64("m_featureRomTimeStamp")?,
            version: {
                let patch = reader.u16("m_versionPatch")?;
                Version { major: reader.u8("m_versionMajor")?, minor: reader.u8("m_versionMinor")?, patch }
            },
            mode: reader.u16("m_mode")?,
            action_mask: reader.u16("m_actionMask")?,
            interface_uuid: Uuid(reader.array("m_interface_uuid")?),
            platform_vbnv: Name(reader.array("m_platformVBNV")?),
            uuid: Uuid(reader.array("uuid")?),
            debug_bin: Name(reader.array("m_debug_bin")?),
            padding: [0; 4],
        };
        let n_sections = reader.u32("m_numSections")?;
        let padding = reader.array("padding")?;
        Ok((Header { padding, ..header }, length, n_sections))
    }

    pub(super) fn write(&self, out: &mut Writer, length: u64, n_sections: u32) {
        out.put(&MAGIC);
        out.put(&self.signature_length.to_le_bytes());
        out.put(&self.reserved);
        out.put(&self.key_block);
        out.u64(self.unique_id);
        out.u64(length);
        out.u64(self.timestamp);
        out.u64(self.feature_rom_timestamp);
        out.u16(self.version.patch);
        out.u8(self.version.major);
        out.u8(self.version.minor);
        out.u16(self.mode);
        out.u16(self.action_mask);
        out.put(&self.interface_uuid.0);
        out.put(&self.platform_vbnv.0);
        out.put(&self.uuid.0);
        out.put(&self.debug_bin.0);
        out.u32(n_sections);
        out.put(&self.padding);
    }
}
