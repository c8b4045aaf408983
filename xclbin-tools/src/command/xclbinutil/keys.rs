//! `--key-value` and `--remove-key`: fields of the header, and the keys of KEYVALUE_METADATA.

use xclbin_tools::{
    axlf::{Axlf, Kind, Uuid},
    package::edit,
    section::{self, Name, json::Tree},
};

use crate::command::exit::usage;

/// The values of `SYS:mode`, by number (`xrt/detail/xclbin.h`, `XCLBIN_MODE`).
const MODES: [&str; 7] = ["flat", "hw_pr", "tandem", "tandem_pr", "hw_emu", "sw_emu", "hw_emu_pr"];

fn parts(text: &str) -> anyhow::Result<(String, &str, &str)> {
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(domain), Some(key), Some(value)) => Ok((domain.to_ascii_uppercase(), key, value)),
        _ => Err(usage(format!("--key-value {text:?}: SYS:KEY:VALUE or USER:KEY:VALUE is expected"))),
    }
}

/// Whether a key and value set the package's uuid.
pub(super) fn is_uuid(text: &str) -> bool {
    parts(text).is_ok_and(|(domain, key, value)| domain == "SYS" && key == "XclbinUUID" && !value.is_empty())
}

/// Sets what `DOMAIN:KEY:VALUE` says.
pub(super) fn set(package: &mut Axlf<'_>, text: &str) -> anyhow::Result<()> {
    let (domain, key, value) = parts(text)?;
    match domain.as_str() {
        "SYS" => set_header(package, key, value),
        "USER" => {
            let mut pairs = pairs(package)?;
            match pairs.iter_mut().find(|(known, _)| known == key) {
                Some((_, old)) => value.clone_into(old),
                None => pairs.push((key.to_owned(), value.to_owned())),
            }
            store(package, &pairs)
        }
        _ => Err(usage(format!("--key-value {text:?}: the domain is neither SYS nor USER"))),
    }
}

fn set_header(package: &mut Axlf<'_>, key: &str, value: &str) -> anyhow::Result<()> {
    let wrong = |expected: &str| usage(format!("--key-value SYS:{key}:{value}: {expected} is expected"));
    // xclbinutil takes uuids of 32 digits alone.
    let digits = value.bytes().filter(|byte| *byte != b'-').count();
    let uuid = || Uuid::parse(value).filter(|_| digits == 32).ok_or_else(|| wrong("a uuid of 32 hexadecimal digits"));
    let header = package.header_mut();
    match key {
        "mode" => {
            let mode = MODES.iter().zip(0..).find(|(name, _)| **name == value);
            header.mode = mode.ok_or_else(|| wrong(&MODES.join(", ")))?.1;
        }
        "action_mask" => {
            header.action_mask |= match value {
                "LOAD_AIE" => 1,
                "LOAD_PDI" => 2,
                _ => return Err(wrong("LOAD_AIE or LOAD_PDI")),
            }
        }
        "FeatureRomTimestamp" => {
            header.feature_rom_timestamp = value.parse().map_err(|_| wrong("a number of seconds"))?;
        }
        "InterfaceUUID" => header.interface_uuid = uuid()?,
        "PlatformVBNV" => header.platform_vbnv = Name::cut(value.as_bytes()),
        "XclbinUUID" => header.uuid = uuid()?,
        _ => {
            let known = "mode, action_mask, FeatureRomTimestamp, InterfaceUUID, PlatformVBNV or XclbinUUID";
            return Err(usage(format!("--key-value SYS:{key}: the key {known} is expected")));
        }
    }
    Ok(())
}

/// Takes a key out.
pub(super) fn remove(package: &mut Axlf<'_>, key: &str) -> anyhow::Result<()> {
    let mut pairs = pairs(package)?;
    let index = pairs.iter().position(|(known, _)| known == key);
    pairs.remove(index.ok_or_else(|| usage(format!("--remove-key {key}: the package has no such key")))?);
    store(package, &pairs)
}

/// The keys and values of the section, which may be absent.
fn pairs(package: &Axlf<'_>) -> anyhow::Result<Vec<(String, String)>> {
    let Some(section) = package.section(Kind::KEYVALUE_METADATA) else { return Ok(Vec::new()) };
    let json = section::to_json(section.kind, &section.bytes)?.unwrap_or_default();
    let member = |item: &Tree, key| item.get(key).map(|tree| tree.text.clone()).unwrap_or_default();
    let list = json.get("keyvalue_metadata").and_then(|table| table.get("key_values"));
    let list = list.map(Tree::items).into_iter().flatten();
    Ok(list.map(|item| (member(item, "key"), member(item, "value"))).collect())
}

fn store(package: &mut Axlf<'_>, pairs: &[(String, String)]) -> anyhow::Result<()> {
    let item =
        |(key, value): &(String, String)| Tree::default().with("key", key.as_str()).with("value", value.as_str());
    let table = Tree::default().with("key_values", Tree::array(pairs.iter().map(item)));
    let kind = Kind::KEYVALUE_METADATA;
    let bytes = section::from_json(kind, &Tree::default().with("keyvalue_metadata", table))?.unwrap_or_default();
    edit::put(package, kind, bytes);
    Ok(())
}
