//! What the first section of each kind holds, all typed; what cannot be read is a fault beside the rest.

use super::{AiePartition, BuildMetadata, Connectivity, EmbeddedMetadata, IpLayout, MemTopology};
use crate::{
    axlf::{Axlf, Kind},
    error::{Error, Result},
};

/// The typed sections of a container, as far as they are there and can be read.
#[derive(Clone, Debug, Default)]
pub struct Contents<'a> {
    /// AIE_PARTITION.
    pub partition: Option<AiePartition<'a>>,
    /// EMBEDDED_METADATA.
    pub metadata: Option<EmbeddedMetadata>,
    /// IP_LAYOUT.
    pub ip_layout: Option<IpLayout>,
    /// MEM_TOPOLOGY.
    pub mem_topology: Option<MemTopology>,
    /// CONNECTIVITY.
    pub connectivity: Option<Connectivity>,
    /// GROUP_TOPOLOGY.
    pub group_topology: Option<MemTopology>,
    /// GROUP_CONNECTIVITY.
    pub group_connectivity: Option<Connectivity>,
    /// BUILD_METADATA.
    pub build_metadata: Option<BuildMetadata>,
    /// Why a section that is there is not above.
    pub faults: Vec<(Kind, Error)>,
}

impl<'a> Contents<'a> {
    /// Reads the sections.
    pub fn of(axlf: &'a Axlf<'_>) -> Contents<'a> {
        let mut contents = Contents::default();
        contents.partition = contents.read(axlf, Kind::AIE_PARTITION, AiePartition::parse);
        contents.metadata = contents.read(axlf, Kind::EMBEDDED_METADATA, EmbeddedMetadata::parse);
        contents.ip_layout = contents.read(axlf, Kind::IP_LAYOUT, IpLayout::parse);
        contents.mem_topology = contents.read(axlf, Kind::MEM_TOPOLOGY, MemTopology::parse);
        contents.connectivity = contents.read(axlf, Kind::CONNECTIVITY, Connectivity::parse);
        contents.group_topology = contents.read(axlf, Kind::GROUP_TOPOLOGY, MemTopology::parse);
        contents.group_connectivity = contents.read(axlf, Kind::GROUP_CONNECTIVITY, Connectivity::parse);
        contents.build_metadata = contents.read(axlf, Kind::BUILD_METADATA, BuildMetadata::parse);
        contents
    }

    fn read<T>(&mut self, axlf: &'a Axlf<'_>, kind: Kind, parse: impl FnOnce(&'a [u8]) -> Result<T>) -> Option<T> {
        match parse(&axlf.section(kind)?.bytes) {
            Ok(section) => Some(section),
            Err(error) => {
                self.faults.push((kind, error));
                None
            }
        }
    }
}
