//! A package taken apart into what `split` and `merge` move: the partition with its PDIs, the kernels' metadata,
//! and what is wired to which memory; and put together again.

use std::collections::BTreeSet;

use super::{connect::Wiring, edit::put, group, metadata::Metadata};
use crate::{
    axlf::{Axlf, Kind},
    error::{Error, Result},
    section::{AiePartition, Connectivity, IpLayout, MemTopology},
};

/// The parts that depend on kernels and PDIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) partition: AiePartition<'a>,
    pub(crate) metadata: Metadata,
    pub(crate) wiring: Wiring,
}

impl<'a> Parts<'a> {
    /// Takes a package apart.
    ///
    /// # Errors
    /// A package with no partition or several; sections that cannot be read.
    pub(crate) fn of(axlf: &'a Axlf<'_>) -> Result<Parts<'a>> {
        let mut partitions = axlf.sections().iter().filter(|section| section.kind == Kind::AIE_PARTITION);
        let bytes = match (partitions.next(), partitions.next()) {
            (Some(only), None) => &only.bytes,
            (None, _) => return Err(Error::refused("section", "AIE_PARTITION", "the package has none")),
            _ => return Err(Error::refused("section", "AIE_PARTITION", "the package has several")),
        };
        let partition = AiePartition::parse(bytes).map_err(|error| error.within("AIE_PARTITION"))?;
        Ok(Parts { partition, metadata: metadata(axlf)?, wiring: wiring(axlf)? })
    }

    /// Puts the parts into a package in place of its own, the grouped memories made anew.
    ///
    /// # Errors
    /// What does not fit the format.
    pub(crate) fn put(&self, axlf: &mut Axlf<'_>) -> Result<()> {
        let (topology, connectivity) = group::group(&self.wiring.memory, &self.wiring.connectivity)?;
        for (kind, bytes) in [
            (Kind::AIE_PARTITION, self.partition.to_bytes()?),
            (Kind::EMBEDDED_METADATA, self.metadata.to_bytes()),
            (Kind::IP_LAYOUT, self.wiring.ips.to_bytes()?),
            (Kind::CONNECTIVITY, self.wiring.connectivity.to_bytes()?),
            (Kind::MEM_TOPOLOGY, self.wiring.memory.to_bytes()?),
            (Kind::GROUP_CONNECTIVITY, connectivity.to_bytes()?),
            (Kind::GROUP_TOPOLOGY, topology.to_bytes()?),
        ] {
            // A package without kernels has no section that lists them.
            if bytes.is_empty() {
                axlf.sections_mut().retain(|section| section.kind != kind);
            }
            put(axlf, kind, bytes);
        }
        Ok(())
    }

    /// Every kernel id that stands anywhere in the package.
    pub(crate) fn kernel_ids(&self) -> BTreeSet<u64> {
        let listed = self.partition.kernel_ids().map(|(_, id)| id);
        let named = self.metadata.kernels().filter_map(super::metadata::kernel_id);
        let units = self.wiring.ips.ips.iter().filter_map(|ip| ip.kernel_id().map(u64::from));
        listed.chain(named).chain(units).collect()
    }

    /// The ids of all PDIs' groups.
    pub(crate) fn pdi_ids(&self) -> BTreeSet<u64> {
        self.partition.pdis.iter().flat_map(|pdi| pdi.groups.iter().map(|group| group.pdi_id)).collect()
    }
}

/// The kernels' metadata of a package.
pub(crate) fn metadata(axlf: &Axlf<'_>) -> Result<Metadata> {
    let bytes = bytes(axlf, Kind::EMBEDDED_METADATA);
    Metadata::parse(bytes).map_err(|error| error.within("EMBEDDED_METADATA"))
}

/// What is wired to which memory in a package; a section that is not there is empty.
pub(crate) fn wiring(axlf: &Axlf<'_>) -> Result<Wiring> {
    let mut wiring = Wiring::default();
    let within = |kind: &str| {
        let kind = kind.to_owned();
        move |error: Error| error.within(kind)
    };
    let [memory, ips, connectivity] =
        [Kind::MEM_TOPOLOGY, Kind::IP_LAYOUT, Kind::CONNECTIVITY].map(|kind| bytes(axlf, kind));
    if !memory.is_empty() {
        wiring.memory = MemTopology::parse(memory).map_err(within("MEM_TOPOLOGY"))?;
    }
    if !ips.is_empty() {
        wiring.ips = IpLayout::parse(ips).map_err(within("IP_LAYOUT"))?;
    }
    if !connectivity.is_empty() {
        wiring.connectivity = Connectivity::parse(connectivity).map_err(within("CONNECTIVITY"))?;
    }
    Ok(wiring)
}

/// Writes the wiring back, in the order in which `xclbinutil` adds what is missing.
pub(crate) fn put_wiring(axlf: &mut Axlf<'_>, wiring: &Wiring) -> Result<()> {
    put(axlf, Kind::IP_LAYOUT, wiring.ips.to_bytes()?);
    put(axlf, Kind::CONNECTIVITY, wiring.connectivity.to_bytes()?);
    put(axlf, Kind::MEM_TOPOLOGY, wiring.memory.to_bytes()?);
    Ok(())
}

/// The bytes of the first section of a kind; none where there is none.
fn bytes<'a>(axlf: &'a Axlf<'_>, kind: Kind) -> &'a [u8] {
    axlf.section(kind).map_or(&[], |section| &section.bytes)
}
