//! One package per PDI, with the kernels that run on it.

use std::collections::BTreeSet;

use super::{
    metadata::{Metadata, kernel_id},
    parts::Parts,
};
use crate::{
    axlf::Axlf,
    error::{Error, Result},
    section::{AiePartition, Connectivity, IpLayout, aie_partition::Pdi, connectivity::Connection},
};

/// A package about to be split. Its parts are made one at a time: all together may be far larger than the whole.
#[derive(Clone, Debug)]
pub struct Split<'w, 'a> {
    whole: &'w Axlf<'a>,
    parts: Parts<'w>,
}

impl<'w, 'a> Split<'w, 'a> {
    /// Reads what is to be split.
    ///
    /// # Errors
    /// As for reading the package's sections; no PDI in it.
    pub fn of(whole: &'w Axlf<'a>) -> Result<Split<'w, 'a>> {
        let parts = Parts::of(whole)?;
        if parts.partition.pdis.is_empty() {
            return Err(Error::refused("package", "without PDIs", "nothing is there to split"));
        }
        Ok(Split { whole, parts })
    }

    /// One package per PDI, in their order; header and all other sections are those of the whole. An item is an
    /// error where a connection names a memory that is not there.
    pub fn packages(&self) -> impl Iterator<Item = Result<Axlf<'a>>> {
        self.parts.partition.pdis.iter().map(|pdi| {
            let mut package = self.whole.clone();
            part(&self.parts, pdi).put(&mut package)?;
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

/// What belongs to one PDI.
fn part<'a>(whole: &Parts<'a>, pdi: &Pdi<'a>) -> Parts<'a> {
    let ids: BTreeSet<u64> = pdi.groups.iter().flat_map(|group| group.kernel_ids.iter().copied()).collect();
    // IP_LAYOUT keeps 12 bits of an id.
    let short_ids: BTreeSet<u64> = ids.iter().map(|id| id & 0xfff).collect();
    let mut part = Parts {
        partition: AiePartition { pdis: vec![pdi.clone()], ..head(&whole.partition) },
        metadata: Metadata::clone(&whole.metadata),
        wiring: super::connect::Wiring { memory: whole.wiring.memory.clone(), ..Default::default() },
    };
    part.metadata.retain(|kernel| kernel_id(kernel).is_some_and(|id| ids.contains(&id)));
    let mut new_index = vec![None; whole.wiring.ips.ips.len()];
    let mut ips = Vec::new();
    for (ip, new_index) in whole.wiring.ips.ips.iter().zip(&mut new_index) {
        if ip.kernel_id().is_some_and(|id| short_ids.contains(&id.into())) {
            *new_index = i32::try_from(ips.len()).ok();
            ips.push(*ip);
        }
    }
    let kept = whole.wiring.connectivity.connections.iter().filter_map(|connection| {
        let old = usize::try_from(connection.ip).ok()?;
        Some(Connection { ip: new_index.get(old).copied().flatten()?, ..*connection })
    });
    part.wiring.connectivity = Connectivity { connections: kept.collect() };
    part.wiring.ips = IpLayout { ips };
    part
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
