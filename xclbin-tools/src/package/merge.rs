//! Several packages in one, which a program loads once and whose kernels share one hardware context.
//!
//! Compilers give each design the same ids (mlir-aie: kernel 0x901, PDI 1). Two kernels with one id load and then
//! run as one of them, with wrong results and no error; so ids that are taken are given anew, or refused.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    few, free_id,
    kernel::KERNEL_ID_MAX,
    metadata::{kernel_id, set_kernel_id},
    parts::Parts,
};
use crate::{
    axlf::Axlf,
    error::{Error, Result},
    section::{
        AiePartition,
        aie_partition::{CdoGroup, Pdi},
        connectivity::Connection,
        mem_topology::Memory,
    },
};

/// How packages are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Ids that are taken are an error; otherwise the next free ones are given.
    pub keeps_ids: bool,
    /// An image that is there already is used for both; otherwise it is there twice.
    pub shares_images: bool,
}

/// An id that was given anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renumbered {
    /// The package's index among those that were merged.
    pub package: usize,
    /// `kernel` or `PDI`.
    pub what: &'static str,
    /// Before.
    pub from: u64,
    /// In the merged package.
    pub to: u64,
}

impl Merge {
    /// Merges packages, each with the name that errors have for it; header and other sections are those of the first.
    ///
    /// # Errors
    /// Fewer than two packages; columns or memories that differ; kernels' names that are taken; ids that are
    /// taken and to be kept, above 12 bits, or for which none is free; sections that cannot be read.
    pub fn run<'a>(self, packages: &[(&str, Axlf<'a>)]) -> Result<(Axlf<'a>, Vec<Renumbered>)> {
        let [first, second, rest @ ..] = packages else {
            return Err(Error::refused("packages", packages.len(), "two or more can be merged"));
        };
        let (name, first) = first;
        let mut merged = Parts::of(first).map_err(|error| error.within(*name))?;
        let mut renumbered = Vec::new();
        for ((name, package), index) in std::iter::once(second).chain(rest).zip(1..) {
            let mut added = Parts::of(package).map_err(|error| error.within(*name))?;
            self.add(&mut merged, &mut added, index, &mut renumbered).map_err(|error| error.within(*name))?;
        }
        let mut package = first.clone();
        merged.put(&mut package)?;
        Ok((package, renumbered))
    }

    fn add<'a>(
        self,
        merged: &mut Parts<'a>,
        added: &mut Parts<'a>,
        package: usize,
        renumbered: &mut Vec<Renumbered>,
    ) -> Result<()> {
        check_columns(&merged.partition, &added.partition)?;
        check_memories(merged, added)?;
        if let Some(id) = added.kernel_ids().into_iter().find(|id| *id > u64::from(KERNEL_ID_MAX)) {
            return Err(Error::refused("kernel id", format!("{id:#x}"), "IP_LAYOUT has 12 bits for it"));
        }
        let kernels = self.new_ids("kernel", &merged.kernel_ids(), &added.kernel_ids(), KERNEL_ID_MAX.into())?;
        renumber_kernels(added, &kernels);
        if self.shares_images {
            share_groups(merged, added);
        }
        // What is shared by now has no id of its own any more.
        let pdis = self.new_ids("PDI", &merged.pdi_ids(), &added.pdi_ids(), u64::MAX)?;
        for group in added.partition.pdis.iter_mut().flat_map(|pdi| &mut pdi.groups) {
            group.pdi_id = pdis.get(&group.pdi_id).copied().unwrap_or(group.pdi_id);
        }
        for (what, ids) in [("kernel", &kernels), ("PDI", &pdis)] {
            renumbered.extend(ids.iter().map(|(from, to)| Renumbered { package, what, from: *from, to: *to }));
        }
        self.join(merged, added)
    }

    /// Of the ids that are taken, the ones to give instead.
    fn new_ids(
        self,
        what: &'static str,
        taken: &BTreeSet<u64>,
        added: &BTreeSet<u64>,
        max: u64,
    ) -> Result<BTreeMap<u64, u64>> {
        let mut used: BTreeSet<u64> = taken.union(added).copied().collect();
        let mut new = BTreeMap::new();
        for id in taken.intersection(added) {
            let refused = |bound: &str| {
                Error::refused(if what == "PDI" { "PDI id" } else { "kernel id" }, format!("{id:#x}"), bound)
            };
            if self.keeps_ids {
                return Err(refused("a package before has it: let ids be given anew, or build with another"));
            }
            let free = free_id(&used, *id, max).ok_or_else(|| refused("no id above it is free"))?;
            used.insert(free);
            new.insert(*id, free);
        }
        Ok(new)
    }

    fn join<'a>(self, merged: &mut Parts<'a>, added: &mut Parts<'a>) -> Result<()> {
        for kernel in added.metadata.kernels() {
            merged.metadata.add(kernel.clone()).map_err(|error| match error {
                Error::Refused { what, value, .. } => {
                    Error::refused(what, value, "a package before has one of that name: rename one (`--rename`)")
                }
                error => error,
            })?;
        }
        let n_ips = i32::try_from(merged.wiring.ips.ips.len()).ok();
        merged.wiring.ips.ips.append(&mut added.wiring.ips.ips);
        for connection in &added.wiring.connectivity.connections {
            let ip = n_ips.and_then(|n_ips| connection.ip.checked_add(n_ips));
            let ip = ip.ok_or_else(|| Error::refused("unit index", connection.ip, "it has 31 bits"))?;
            merged.wiring.connectivity.connections.push(Connection { ip, ..*connection });
        }
        for (memory, added) in merged.wiring.memory.memories.iter_mut().zip(&added.wiring.memory.memories) {
            memory.used |= added.used;
        }
        for pdi in added.partition.pdis.drain(..) {
            match same_image(merged, &pdi).filter(|_| self.shares_images) {
                Some(same) => same.groups.extend(pdi.groups),
                None => merged.partition.pdis.push(pdi),
            }
        }
        Ok(())
    }
}

/// Moves the kernels of groups into groups of the same image that differ in nothing but PDI id and kernels.
fn share_groups<'a>(merged: &mut Parts<'a>, added: &mut Parts<'a>) {
    for pdi in &mut added.partition.pdis {
        let Some(same) = same_image(merged, pdi) else { continue };
        pdi.groups.retain_mut(|group| {
            let known = same.groups.iter_mut().find(|known| is_alike(known, group));
            known.map(|known| known.kernel_ids.append(&mut group.kernel_ids)).is_none()
        });
    }
}

fn is_alike(a: &CdoGroup<'_>, b: &CdoGroup<'_>) -> bool {
    (&a.name, a.kind, &a.pre_cdo_groups) == (&b.name, b.kind, &b.pre_cdo_groups)
}

/// The first PDI with the image of another.
fn same_image<'m, 'a>(merged: &'m mut Parts<'a>, pdi: &Pdi<'a>) -> Option<&'m mut Pdi<'a>> {
    merged.partition.pdis.iter_mut().find(|known| known.image == pdi.image)
}

/// A partition has one width and one list of columns to start at.
pub(super) fn check_columns(first: &AiePartition<'_>, added: &AiePartition<'_>) -> Result<()> {
    let [a, b] = [first, added].map(|partition| (partition.column_width, &partition.start_columns));
    if a == b {
        return Ok(());
    }
    let shown = |(width, starts): (u16, &Vec<u16>)| format!("{width} from {}", few(starts.iter().map(u16::to_string)));
    let bound = format!("the package before has {}, and a context has one partition", shown(a));
    Err(Error::refused("columns", shown(b), bound))
}

fn check_memories(merged: &Parts<'_>, added: &Parts<'_>) -> Result<()> {
    let list = |parts: &Parts<'_>| -> Vec<Memory> {
        parts.wiring.memory.memories.iter().map(|memory| Memory { used: 0, ..*memory }).collect()
    };
    let (a, b) = (list(merged), list(added));
    if a == b {
        return Ok(());
    }
    let shown = |list: &[Memory]| {
        let one = |memory: &Memory| format!("{} {} KiB at {:#x}", memory.tag, memory.size_kib, memory.base_address);
        if list.is_empty() { "none".to_owned() } else { few(list.iter().map(one)) }
    };
    Err(Error::refused("memories", shown(&b), format!("the first package has {}", shown(&a))))
}

fn renumber_kernels(parts: &mut Parts<'_>, kernels: &BTreeMap<u64, u64>) {
    for kernel in parts.metadata.kernels_mut() {
        if let Some(new) = kernel_id(kernel).and_then(|id| kernels.get(&id)) {
            set_kernel_id(kernel, *new);
        }
    }
    for ip in &mut parts.wiring.ips.ips {
        let new = ip.kernel_id().and_then(|id| kernels.get(&id.into())).and_then(|id| u32::try_from(*id).ok());
        if let Some(new) = new {
            ip.properties = ip.properties & !(u32::from(KERNEL_ID_MAX) << 16) | new << 16;
        }
    }
    for group in parts.partition.pdis.iter_mut().flat_map(|pdi| &mut pdi.groups) {
        for id in &mut group.kernel_ids {
            *id = kernels.get(id).copied().unwrap_or(*id);
        }
    }
}
