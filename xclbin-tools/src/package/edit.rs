//! The single steps of a change to a package, as `xclbinutil` takes them.
//!
//! Source of what each does: `Xilinx/XRT:src/runtime_src/tools/xclbinutil/{XclBinUtilMain,XclBinClass}.cxx`.

use std::{borrow::Cow, collections::BTreeSet};

use super::{few, group, kernel::Kernel, parts};
use crate::{
    axlf::{Axlf, Kind, Section},
    error::{Error, Result},
    section::{AiePartition, Connectivity, MemTopology, Name, shown},
};

/// The place of a section of a kind and, for AIE_PARTITION, of a name; other kinds have an empty one.
#[must_use]
pub fn position(package: &Axlf<'_>, kind: Kind, index: &str) -> Option<usize> {
    package.sections().iter().position(|section| section.kind == kind && index_name(section) == index)
}

fn index_name<'s>(section: &'s Section<'_>) -> Cow<'s, str> {
    if section.kind != Kind::AIE_PARTITION {
        return Cow::Borrowed("");
    }
    AiePartition::parse(&section.bytes).map_or(Cow::Borrowed(""), |partition| partition.name)
}

/// Adds a section behind the others; one without bytes is not added.
///
/// # Errors
/// If one of the kind (and index) is there.
pub fn add<'a>(package: &mut Axlf<'a>, section: Section<'a>) -> Result<()> {
    if position(package, section.kind, &index_name(&section)).is_some() {
        return Err(Error::refused("section", section.kind, "the package has one: replace it"));
    }
    if !section.bytes.is_empty() {
        update_header(package, &section)?;
        package.sections_mut().push(section);
    }
    Ok(())
}

/// Adds a section behind the others, in place of one of its kind (and index).
///
/// # Errors
/// As [`replace`], except that there need not be one.
pub fn add_or_replace<'a>(package: &mut Axlf<'a>, section: Section<'a>) -> Result<()> {
    if let Some(old) = position(package, section.kind, &index_name(&section)) {
        package.sections_mut().remove(old);
    }
    add(package, section)
}

/// Puts a section in the place of one of its kind (and index).
///
/// # Errors
/// If there is none; BUILD_METADATA that cannot be read.
pub fn replace<'a>(package: &mut Axlf<'a>, section: Section<'a>) -> Result<()> {
    let old = position(package, section.kind, &index_name(&section));
    update_header(package, &section)?;
    match old.and_then(|index| package.sections_mut().get_mut(index)) {
        Some(old) => {
            *old = section;
            Ok(())
        }
        None => Err(missing(section.kind)),
    }
}

/// Takes a section out.
///
/// # Errors
/// If there is none of the kind and index.
pub fn remove(package: &mut Axlf<'_>, kind: Kind, index: &str) -> Result<()> {
    let position = position(package, kind, index).ok_or_else(|| missing(kind))?;
    package.sections_mut().remove(position);
    Ok(())
}

/// The error for a section that is not there.
#[must_use]
pub fn missing(kind: Kind) -> Error {
    Error::refused("section", kind, "the package has none")
}

/// The header repeats what BUILD_METADATA says of the platform.
fn update_header(package: &mut Axlf<'_>, section: &Section<'_>) -> Result<()> {
    if section.kind == Kind::BUILD_METADATA {
        let metadata = crate::section::BuildMetadata::parse(&section.bytes)?;
        package.header_mut().set_platform(&metadata.feature_rom()?);
    }
    Ok(())
}

/// Replaces the bytes of the first section of a kind where it stands, or adds one; without bytes nothing is done.
pub fn put(package: &mut Axlf<'_>, kind: Kind, bytes: Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    match package.sections_mut().iter_mut().find(|section| section.kind == kind) {
        Some(section) => section.bytes = Cow::Owned(bytes),
        None => package.sections_mut().push(Section { kind, name: Name::default(), bytes: Cow::Owned(bytes) }),
    }
}

/// Adds kernels: to EMBEDDED_METADATA, IP_LAYOUT, CONNECTIVITY, and what memories they use to MEM_TOPOLOGY.
///
/// # Errors
/// A name or id that is taken, a memory that is not there, sections that cannot be read.
pub fn add_kernels(package: &mut Axlf<'_>, kernels: &[Kernel]) -> Result<()> {
    if kernels.is_empty() {
        return Ok(());
    }
    let (mut metadata, mut wiring) = (parts::metadata(package)?, parts::wiring(package)?);
    let mut units = wiring.ips.ips.iter().map(|ip| ip.name.to_string()).collect();
    for kernel in kernels {
        let within = |error: Error| error.within(format!("kernel {}", shown(&kernel.name)));
        metadata.add(kernel.to_xml().map_err(within)?)?;
        wiring.add(kernel, &mut units).map_err(within)?;
    }
    put(package, Kind::EMBEDDED_METADATA, metadata.to_bytes());
    parts::put_wiring(package, &wiring)
}

/// Gives a kernel another name, in EMBEDDED_METADATA and in the names of its units in IP_LAYOUT.
///
/// # Errors
/// No kernel of that name; a name that is taken, too long for IP_LAYOUT, or none that a program could open; sections
/// that cannot be read.
pub fn rename_kernel(package: &mut Axlf<'_>, old: &str, new: &str) -> Result<()> {
    let (mut metadata, mut wiring) = (parts::metadata(package)?, parts::wiring(package)?);
    if let Some(fault) = super::kernel::fault_of_name(new) {
        return Err(Error::refused("kernel name", shown(new), fault));
    }
    let units = metadata.rename(old, new)?;
    for ip in &mut wiring.ips.ips {
        if let Some(new) = units.get(ip.name.text().as_ref()) {
            ip.name = super::kernel::unit_name(new)?;
        }
    }
    put(package, Kind::EMBEDDED_METADATA, metadata.to_bytes());
    put(package, Kind::IP_LAYOUT, wiring.ips.to_bytes()?);
    Ok(())
}

/// Each kernel of the NPU in IP_LAYOUT is listed by a PDI. A package without IP_LAYOUT or AIE_PARTITION has nothing
/// to compare.
///
/// # Errors
/// If one is not; sections that cannot be read.
pub fn check_kernel_ids(package: &Axlf<'_>) -> Result<()> {
    let partitions = package.sections().iter().filter(|section| section.kind == Kind::AIE_PARTITION);
    let mut listed: Option<BTreeSet<u64>> = None;
    for section in partitions {
        let partition = AiePartition::parse(&section.bytes).map_err(|error| error.within("AIE_PARTITION"))?;
        // IP_LAYOUT keeps 12 bits of an id.
        listed.get_or_insert_default().extend(partition.kernel_ids().map(|(_, id)| id & 0xfff));
    }
    let Some(listed) = listed else { return Ok(()) };
    for ip in parts::wiring(package)?.ips.ips {
        if let Some(id) = ip.kernel_id().filter(|id| !listed.contains(&u64::from(*id))) {
            let ids = few(listed.iter().map(|id| format!("{id:#x}")));
            let ids = if ids.is_empty() { "none".to_owned() } else { format!("{ids} alone") };
            let bound = format!("{} has it, but AIE_PARTITION lists {ids}", ip.name);
            return Err(Error::refused("kernel id", format!("{id:#x}"), bound));
        }
    }
    Ok(())
}

/// Takes the grouped memories out.
pub fn remove_groups(package: &mut Axlf<'_>) {
    for kind in [Kind::GROUP_TOPOLOGY, Kind::GROUP_CONNECTIVITY] {
        // A second one of the kind stays, as everywhere.
        let _ = remove(package, kind, "");
    }
}

/// Makes the grouped memories, unless they are there or there is no memory.
///
/// # Errors
/// Connections to memories that are not there; sections that cannot be read.
pub fn add_groups(package: &mut Axlf<'_>) -> Result<()> {
    let has = |kind| package.section(kind).is_some();
    if has(Kind::GROUP_TOPOLOGY) || has(Kind::GROUP_CONNECTIVITY) || !has(Kind::MEM_TOPOLOGY) {
        return Ok(());
    }
    let wiring = parts::wiring(package)?;
    if wiring.memory.memories.is_empty() {
        return Ok(());
    }
    let (topology, connectivity): (MemTopology, Connectivity) = group::group(&wiring.memory, &wiring.connectivity)?;
    put(package, Kind::GROUP_CONNECTIVITY, connectivity.to_bytes()?);
    put(package, Kind::GROUP_TOPOLOGY, topology.to_bytes()?);
    Ok(())
}
