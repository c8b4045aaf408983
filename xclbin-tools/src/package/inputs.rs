//! What goes into a package, and the package made of it.

use std::{borrow::Cow, collections::BTreeSet};

use super::{
    edit, free_id,
    kernel::Kernel,
    merge::{Renumbered, check_columns},
};
use crate::{
    axlf::{Axlf, Header, Kind, Section, Uuid},
    error::{Error, Result},
    section::{AiePartition, MemTopology, Name},
};

/// What makes a package one of its kind: nothing else in it depends on when and where it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Drivers take packages with the same uuid for the same.
    pub uuid: Uuid,
    /// Seconds since 1970.
    pub time: u64,
}

/// Memories, partition and kernels, and further sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// MEM_TOPOLOGY; without it arguments cannot lie in memories, unless a package that is added to has it.
    pub memory: Option<MemTopology>,
    /// The name of that section: `xclbinutil` takes the JSON file's.
    pub memory_name: Name<16>,
    /// AIE_PARTITION.
    pub partition: Option<AiePartition<'a>>,
    /// The name of that section.
    pub partition_name: Name<16>,
    /// Kernels in order.
    pub kernels: Vec<Kernel>,
    /// Sections of other kinds.
    pub sections: Vec<Section<'a>>,
}

impl<'a> Inputs<'a> {
    /// A new package.
    ///
    /// # Errors
    /// As [`Inputs::add_to`].
    pub fn build(self, stamp: Stamp) -> Result<Axlf<'a>> {
        let mut header = Header { uuid: stamp.uuid, ..Header::default() };
        header.set_time(stamp.time);
        let mut package = Axlf::new(header, Vec::new());
        self.add_to(&mut package)?;
        Ok(package)
    }

    /// Adds to a package: PDIs behind its own, whose ids are given anew where they are taken, and kernels behind
    /// its own. The caller gives the package a new uuid.
    ///
    /// # Errors
    /// A kernel's name or id, a PDI's id within the inputs, or a section that is there twice; memories or columns
    /// that differ from the package's; a kernel whose id no PDI lists; a memory that is not there; sections of the
    /// package that cannot be read.
    pub fn add_to(self, package: &mut Axlf<'a>) -> Result<Vec<Renumbered>> {
        let mut renumbered = Vec::new();
        if let Some(memory) = self.memory {
            add_memory(package, memory, self.memory_name)?;
        }
        if let Some(partition) = self.partition {
            add_partition(package, partition, self.partition_name, &mut renumbered)?;
        }
        for section in self.sections {
            edit::add(package, section)?;
        }
        edit::add_kernels(package, &self.kernels)?;
        edit::check_kernel_ids(package)?;
        edit::remove_groups(package);
        edit::add_groups(package)?;
        Ok(renumbered)
    }
}

fn add_memory(package: &mut Axlf<'_>, memory: MemTopology, name: Name<16>) -> Result<()> {
    if let Some(section) = package.section(Kind::MEM_TOPOLOGY) {
        let known = MemTopology::parse(&section.bytes)?;
        let all_used = |topology: &MemTopology| {
            let mut topology = topology.clone();
            topology.memories.iter_mut().for_each(|memory| memory.used = 1);
            topology
        };
        if all_used(&known) == all_used(&memory) {
            return Ok(());
        }
        let bound = "the package has other memories, to which its kernels are connected: leave it out";
        return Err(Error::refused("section", "MEM_TOPOLOGY", bound));
    }
    edit::add(package, Section { kind: Kind::MEM_TOPOLOGY, name, bytes: Cow::Owned(memory.to_bytes()?) })
}

fn add_partition<'a>(
    package: &mut Axlf<'a>,
    mut partition: AiePartition<'a>,
    name: Name<16>,
    renumbered: &mut Vec<Renumbered>,
) -> Result<()> {
    let mut ids = BTreeSet::new();
    for group in partition.pdis.iter().flat_map(|pdi| &pdi.groups) {
        if !ids.insert(group.pdi_id) {
            return Err(Error::refused("PDI id", format!("{:#x}", group.pdi_id), "two groups have it"));
        }
    }
    let old = package.section(Kind::AIE_PARTITION).map(|section| section.bytes.clone());
    let bytes = match &old {
        None => partition.to_bytes()?,
        Some(old) => {
            let mut whole = AiePartition::parse(old).map_err(|error| error.within("AIE_PARTITION"))?;
            check_columns(&whole, &partition)?;
            let taken: BTreeSet<u64> =
                whole.pdis.iter().flat_map(|pdi| &pdi.groups).map(|group| group.pdi_id).collect();
            ids.extend(&taken);
            for group in partition.pdis.iter_mut().flat_map(|pdi| &mut pdi.groups) {
                if taken.contains(&group.pdi_id) {
                    let (from, bound) = (group.pdi_id, "the package has it, and none above is free");
                    group.pdi_id = free_id(&ids, from, u64::MAX)
                        .ok_or_else(|| Error::refused("PDI id", format!("{from:#x}"), bound))?;
                    ids.insert(group.pdi_id);
                    renumbered.push(Renumbered { package: 1, what: "PDI", from, to: group.pdi_id });
                }
            }
            whole.pdis.extend(partition.pdis);
            whole.to_bytes()?
        }
    };
    package.sections_mut().retain(|section| section.kind != Kind::AIE_PARTITION);
    edit::add(package, Section { kind: Kind::AIE_PARTITION, name, bytes: Cow::Owned(bytes) })
}
