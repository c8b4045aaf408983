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

/// What a package was split into.
#[derive(Clone, Debug)]
pub struct Split<'a> {
    /// One per PDI, in their order.
    pub packages: Vec<Axlf<'a>>,
    /// Names of kernels of the whole that no PDI lists: they are in no part.
    pub left_out: Vec<String>,
}

/// Splits a package; all other sections and the header stay as they are in each part.
///
/// # Errors
/// As for reading the package's sections; no PDI in it.
pub fn split<'a>(whole: &Axlf<'a>) -> Result<Split<'a>> {
    let parts = Parts::of(whole)?;
    if parts.partition.pdis.is_empty() {
        return Err(Error::refused("package", "without PDIs", "nothing is there to split"));
    }
    let packages = parts.partition.pdis.iter().map(|pdi| {
        let mut package = whole.clone();
        part(&parts, pdi)?.put(&mut package)?;
        Ok(package)
    });
    let packages = packages.collect::<Result<_>>()?;
    let listed: BTreeSet<u64> = parts.partition.kernel_ids().map(|(_, id)| id).collect();
    let is_listed = |id: Option<u64>| id.is_some_and(|id| listed.contains(&id));
    let left_out = parts.metadata.kernels().filter(|kernel| !is_listed(kernel_id(kernel)));
    let left_out = left_out.map(|kernel| kernel.attribute("name").unwrap_or_default().to_owned()).collect();
    Ok(Split { packages, left_out })
}

/// What belongs to one PDI.
fn part<'a>(whole: &Parts<'a>, pdi: &Pdi<'a>) -> Result<Parts<'a>> {
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
    Ok(part)
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
