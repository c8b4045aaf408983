//! BUILD_METADATA: JSON about who built the container and from what. NPU packages need none; AMD's have one.

use std::str;

use super::json::{At, Tree};
use crate::error::{Error, Result};

/// The JSON, which has a member `build_metadata`; others beside it are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildMetadata(Tree);

/// The platform as the container's header repeats it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureRom {
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Vendor, board, name, version.
    pub vbnv: String,
}

impl BuildMetadata {
    /// Reads a section.
    ///
    /// # Errors
    /// What is no JSON, or has no member `build_metadata`.
    pub fn parse(bytes: &[u8]) -> Result<BuildMetadata> {
        BuildMetadata::from_json(text(bytes, "BUILD_METADATA")?)
    }

    /// Reads JSON with the member `build_metadata`.
    ///
    /// # Errors
    /// If the member is missing.
    pub fn from_json(json: Tree) -> Result<BuildMetadata> {
        At::root(&json).get("build_metadata")?;
        Ok(BuildMetadata(json))
    }

    /// What stands below `build_metadata`.
    pub fn to_json(&self) -> Tree {
        self.0.get("build_metadata").cloned().unwrap_or_default()
    }

    /// Says who packaged: what `xclbinutil` 2.25 of Debian says of itself, so that its sections are the same.
    pub fn set_packaged_by_xclbinutil(&mut self) {
        for (key, value) in [("name", "xclbinutil"), ("version", "2.25.00"), ("hash", ""), ("time_stamp", "")] {
            self.0.set(&["build_metadata", "xclbin", "packaged_by", key], Tree::from(value));
        }
    }

    /// The section's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_line().into_bytes()
    }

    /// The first feature ROM under its newer or older names.
    ///
    /// # Errors
    /// If the member `dsa` is missing or the time is no number.
    pub fn feature_rom(&self) -> Result<FeatureRom> {
        let root = At::root(&self.0);
        let metadata = root.get("build_metadata")?;
        let dsa = metadata.get("dsa")?;
        let Some(roms) = dsa.find("feature_roms") else {
            return Ok(FeatureRom::default());
        };
        let Some(rom) = roms.items().next() else {
            return Ok(FeatureRom::default());
        };
        let time = |key| rom.find(key).map_or(Ok(0), |at| at.number());
        let name = |key| rom.tree.get(key).map_or("", |tree| tree.text.as_str());
        let newer = (time("timeSinceEpoch")?, name("vbnvName"));
        Ok(FeatureRom {
            timestamp: if newer.0 == 0 { time("time_epoch")? } else { newer.0 },
            vbnv: if newer.1.is_empty() { name("vbnv_name") } else { newer.1 }.to_owned(),
        })
    }
}

/// The largest of 110 foreign files has 23 KB. In memory JSON takes up to fifty times its bytes.
const MAX_BYTES: usize = 1 << 20;

/// The JSON of a section that holds its text; what follows a NUL is no part of it.
pub(super) fn text(bytes: &[u8], part: &'static str) -> Result<Tree> {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    if bytes.len() > MAX_BYTES {
        let bound = format!("at most {MAX_BYTES} bytes of JSON are read");
        return Err(Error::refused("text", format!("of {} bytes", bytes.len()), bound));
    }
    let text = str::from_utf8(bytes).map_err(|error| Error::Malformed {
        part,
        offset: error.valid_up_to() as u64,
        what: "text",
        value: "no UTF-8".to_owned(),
        bound: "JSON in UTF-8 is expected".to_owned(),
    })?;
    Tree::parse(text)
}
