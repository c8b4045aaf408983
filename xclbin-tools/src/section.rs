//! What stands in the sections of a container: typed models, read from bytes and from the JSON that
//! `xclbinutil` takes and gives, and written as it writes them.
//!
//! | section | model |
//! |---|---|
//! | AIE_PARTITION | [`AiePartition`] |
//! | EMBEDDED_METADATA | [`EmbeddedMetadata`], read only |
//! | MEM_TOPOLOGY, GROUP_TOPOLOGY | [`MemTopology`] |
//! | IP_LAYOUT | [`IpLayout`] |
//! | CONNECTIVITY, GROUP_CONNECTIVITY | [`Connectivity`] |
//! | BUILD_METADATA | [`BuildMetadata`] |
//! | KEYVALUE_METADATA, AIE_METADATA | [`json::Tree`] |
//!
//! Fields keep what the format holds, types without a name included, so that a section read and written is the
//! same; only reserved bytes of AIE_PARTITION, which are zero in every file seen, and its order of lists are not
//! kept. Other kinds are bytes. [`Contents`] holds what a container has of all of them.

pub mod aie_partition;
pub mod build_metadata;
pub mod connectivity;
pub mod contents;
pub mod embedded_metadata;
pub mod ip_layout;
pub mod json;
pub mod mem_topology;

mod name;
pub(crate) mod table;

pub use aie_partition::AiePartition;
pub use build_metadata::BuildMetadata;
pub use connectivity::Connectivity;
pub use contents::Contents;
pub use embedded_metadata::EmbeddedMetadata;
pub use ip_layout::IpLayout;
pub use mem_topology::MemTopology;
pub use name::Name;
pub(crate) use name::shown;

use json::{At, Tree};

use crate::{axlf::Kind, error::Result};

/// The JSON that `xclbinutil` has for the bytes of a section, with the outermost member; none for kinds that
/// have no JSON, and for AIE_PARTITION, whose JSON names files.
///
/// # Errors
/// Bytes that contradict the section's format.
pub fn to_json(kind: Kind, bytes: &[u8]) -> Result<Option<Tree>> {
    let table = match kind {
        Kind::MEM_TOPOLOGY | Kind::GROUP_TOPOLOGY => MemTopology::parse(bytes)?.to_json(),
        Kind::CONNECTIVITY | Kind::GROUP_CONNECTIVITY => Connectivity::parse(bytes)?.to_json(),
        Kind::IP_LAYOUT => IpLayout::parse(bytes)?.to_json(),
        Kind::BUILD_METADATA => BuildMetadata::parse(bytes)?.to_json(),
        Kind::KEYVALUE_METADATA => build_metadata::text(bytes, "KEYVALUE_METADATA")?,
        Kind::AIE_METADATA => return aie_metadata(bytes, "aie_metadata").map(Some),
        Kind::AIE_TRACE_METADATA => return aie_metadata(bytes, "aie_trace_metadata").map(Some),
        _ => return Ok(None),
    };
    Ok(Some(Tree::default().with(kind.node().unwrap_or_default(), table)))
}

/// The bytes of a section from the JSON that `xclbinutil` takes for it; none for kinds that take no JSON, and
/// for AIE_PARTITION, whose JSON names files ([`AiePartition::from_json`]).
///
/// # Errors
/// JSON that contradicts the section's format.
pub fn from_json(kind: Kind, json: &Tree) -> Result<Option<Vec<u8>>> {
    Ok(Some(match kind {
        Kind::MEM_TOPOLOGY | Kind::GROUP_TOPOLOGY => MemTopology::from_json(json, kind)?.to_bytes()?,
        Kind::CONNECTIVITY | Kind::GROUP_CONNECTIVITY => Connectivity::from_json(json, kind)?.to_bytes()?,
        Kind::IP_LAYOUT => IpLayout::from_json(json)?.to_bytes()?,
        Kind::BUILD_METADATA => {
            let mut metadata = BuildMetadata::from_json(json.clone())?;
            metadata.set_packaged_by_xclbinutil();
            metadata.to_bytes()
        }
        Kind::KEYVALUE_METADATA => key_values(json)?.to_line().into_bytes(),
        Kind::AIE_METADATA | Kind::AIE_TRACE_METADATA => json.to_line().into_bytes(),
        _ => return Ok(None),
    }))
}

/// Keys and values, and nothing else that stands in the JSON.
fn key_values(json: &Tree) -> Result<Tree> {
    let root = At::root(json);
    let table = root.get("keyvalue_metadata")?;
    let list = table.get("key_values")?;
    let pair = |item: At<'_>| {
        Ok(Tree::default().with("key", item.get("key")?.text()?).with("value", item.get("value")?.text()?))
    };
    let pairs: Vec<Tree> = list.items().map(pair).collect::<Result<_>>()?;
    Ok(Tree::default().with("key_values", Tree::array(pairs)))
}

/// Sections that hold the text of a JSON file with the member `aie_metadata`, under its name in answers.
fn aie_metadata(bytes: &[u8], name: &str) -> Result<Tree> {
    let json = build_metadata::text(bytes, "AIE_METADATA")?;
    let metadata = At::root(&json).get("aie_metadata")?.tree.clone();
    Ok(Tree::default().with(name, metadata))
}

/// The name of a number in an enumeration, as `xclbinutil` prints it.
fn name_of(names: &[&str], number: u32) -> String {
    let name = usize::try_from(number).ok().and_then(|index| names.get(index));
    name.map_or_else(|| format!("UNKNOWN ({number})"), |name| (*name).to_owned())
}

/// A text of JSON that goes into a field.
fn name_from<const N: usize>(json: &At<'_>, key: &str) -> Result<Name<N>> {
    let at = json.get(key)?;
    let text = at.text()?;
    Name::new(text).map_err(|error| at.error(shown(text), error.to_string()))
}

#[cfg(test)]
mod tests;
