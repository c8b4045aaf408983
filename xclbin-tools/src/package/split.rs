//! One package per PDI, with the kernels that run on it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    connect::Wiring,
    kernel::KERNEL_ID_MAX,
    metadata::{Metadata, kernel_id, unit_names},
    parts::Parts,
};
use crate::{
    axlf::Axlf,
    error::{Error, Result},
    section::{
        AiePartition, Connectivity, IpLayout,
        aie_partition::{CdoType, Pdi},
        connectivity::Connection,
    },
};

/// Real packages have some dozens.
const PDIS_MAX: usize = 1024;

/// A package about to be split. Its parts are made one at a time: all together may be far larger than the whole.
#[derive(Clone, Debug)]
pub struct Split<'w, 'a> {
    whole: &'w Axlf<'a>,
    parts: Parts<'w>,
    /// The kernel id of each unit in IP_LAYOUT, by its name; none where the kernels' metadata have no such unit.
    unit_ids: Vec<Option<u64>>,
}

impl<'w, 'a> Split<'w, 'a> {
    /// Reads what is to be split.
    ///
    /// # Errors
    /// As for reading the package's sections; no PDI in it, or more than 1024.
    pub fn of(whole: &'w Axlf<'a>) -> Result<Split<'w, 'a>> {
        let parts = Parts::of(whole)?;
        if parts.partition.pdis.is_empty() {
            return Err(Error::refused("package", "without PDIs", "nothing is there to split"));
        }
        let n_pdis = parts.partition.pdis.len();
        if n_pdis > PDIS_MAX {
            let bound = format!("at most {PDIS_MAX} are split: each part is made from the whole");
            return Err(Error::refused("count of PDIs", n_pdis, bound));
        }
        let unit_ids = unit_ids(&parts);
        Ok(Split { whole, parts, unit_ids })
    }

    /// One package per PDI, in their order; header and all other sections are those of the whole. A LITE image
    /// changes the configuration of a PRIMARY one: the PRIMARY ones stand beside it. An item is an error where a
    /// connection names a memory that is not there.
    pub fn packages(&self) -> impl Iterator<Item = Result<Axlf<'a>>> {
        self.parts.partition.pdis.iter().map(|pdi| {
            let mut package = self.whole.clone();
            self.part(pdi).put(&mut package)?;
            Ok(package)
        })
    }

    /// Names of kernels of the whole that no PDI lists: they are in no part.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let listed: BTreeSet<u64> = self.parts.partition.kernel_ids().map(|(_, id)| id).collect();
        let is_listed = |id: Option<u64>| id.is_some_and(|id| listed.contains(&id));
        let left_out = self.parts.metadata.kernels().filter(|kernel| !is_listed(kernel_id(kernel)));
        left_out.map(|kernel| kernel.attribute("name").unwrap_or_default().to_owned()).collect()
    }
}

impl<'w> Split<'w, '_> {
    /// What belongs to one PDI.
    fn part(&self, pdi: &Pdi<'w>) -> Parts<'w> {
        let whole = &self.parts;
        let is_needed =
            |other: &&Pdi<'w>| std::ptr::eq(*other, pdi) || is_lite(pdi) && has_type(other, CdoType::PRIMARY);
        let pdis: Vec<Pdi<'w>> = whole.partition.pdis.iter().filter(is_needed).cloned().collect();
        let groups = pdis.iter().flat_map(|pdi| &pdi.groups);
        let ids: BTreeSet<u64> = groups.flat_map(|group| group.kernel_ids.iter().copied()).collect();
        let mut part = Parts {
            partition: AiePartition { pdis, ..head(&whole.partition) },
            metadata: Metadata::clone(&whole.metadata),
            wiring: Wiring { memory: whole.wiring.memory.clone(), ..Default::default() },
        };
        part.metadata.retain(|kernel| kernel_id(kernel).is_some_and(|id| ids.contains(&id)));
        let new_index = self.move_units(&ids, &mut part.wiring.ips);
        let kept = whole.wiring.connectivity.connections.iter().filter_map(|connection| {
            let old = usize::try_from(connection.ip).ok()?;
            Some(Connection { ip: new_index.get(old).copied().flatten()?, ..*connection })
        });
        part.wiring.connectivity = Connectivity { connections: kept.collect() };
        part
    }

    /// Copies the units of some kernels; the answer is the new index of each unit of the whole.
    fn move_units(&self, ids: &BTreeSet<u64>, to: &mut IpLayout) -> Vec<Option<i32>> {
        // IP_LAYOUT keeps 12 bits of an id, which kernels of different PDIs may share.
        let short_ids: BTreeSet<u64> = ids.iter().map(|id| id & u64::from(KERNEL_ID_MAX)).collect();
        let units = self.parts.wiring.ips.ips.iter().zip(&self.unit_ids);
        let new_index = units.map(|(ip, by_name)| {
            let is_kept = match by_name {
                Some(id) => ids.contains(id),
                None => ip.kernel_id().is_some_and(|id| short_ids.contains(&id.into())),
            };
            let index = i32::try_from(to.ips.len()).ok().filter(|_| is_kept)?;
            to.ips.push(*ip);
            Some(index)
        });
        new_index.collect()
    }
}

fn unit_ids(parts: &Parts<'_>) -> Vec<Option<u64>> {
    let kernels = parts.metadata.kernels().filter_map(|kernel| kernel_id(kernel).map(|id| (kernel, id)));
    let named: BTreeMap<String, u64> =
        kernels.flat_map(|(kernel, id)| unit_names(kernel).map(move |name| (name, id))).collect();
    parts.wiring.ips.ips.iter().map(|ip| named.get(ip.name.text().as_ref()).copied()).collect()
}

fn is_lite(pdi: &Pdi<'_>) -> bool {
    has_type(pdi, CdoType::LITE) && !has_type(pdi, CdoType::PRIMARY) && !has_type(pdi, CdoType::PRE_POST)
}

fn has_type(pdi: &Pdi<'_>, kind: CdoType) -> bool {
    pdi.groups.iter().any(|group| group.kind == kind)
}

/// A partition without its PDIs.
fn head<'a>(partition: &AiePartition<'a>) -> AiePartition<'a> {
    AiePartition {
        schema_version: partition.schema_version,
        name: partition.name.clone(),
        operations_per_cycle: partition.operations_per_cycle,
        inference_fingerprint: partition.inference_fingerprint,
        pre_post_fingerprint: partition.pre_post_fingerprint,
        kernel_commit_id: partition.kernel_commit_id.clone(),
        column_width: partition.column_width,
        start_columns: partition.start_columns.clone(),
        pdis: Vec::new(),
    }
}
