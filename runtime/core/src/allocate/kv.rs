//! KV slabs: the memory behind the block tables.

use std::{collections::BTreeMap, sync::Arc};

use biga_hal::{Access, Accessors, BoundKv, Buffer, BufferDesc, Device, DeviceKind};
use biga_kv::{Cache, CacheLimits, GroupSpec, Slabs};

use super::reach;
use crate::{
    Error, Result,
    plan::{KvGroup, Plan},
};

/// The slabs of every group, as every device that uses them reaches them.
#[derive(Debug)]
pub(crate) struct KvMemory {
    groups: Vec<GroupMemory>,
    block_len: usize,
}

#[derive(Debug)]
struct GroupMemory {
    slabs: Slabs,
    layers: Vec<usize>,
    dtype: biga_hal::DType,
    /// Bytes of the keys of one layer in a block, which is also that of the values.
    half_bytes: u64,
    /// By device, by slab.
    buffers: BTreeMap<usize, Vec<Buffer>>,
}

impl KvMemory {
    /// What the ops of a layer bind.
    pub(super) fn bind(&self, layer: usize) -> Option<BoundKv> {
        let table = self.groups.iter().position(|group| group.layers.contains(&layer))?;
        let group = &self.groups[table];
        let index = group.layers.iter().position(|&l| l == layer)? as u64;
        Some(BoundKv {
            table,
            block_len: self.block_len,
            k_offset_bytes: index * 2 * group.half_bytes,
            v_offset_bytes: (index * 2 + 1) * group.half_bytes,
            block_bytes: group.slabs.block_bytes,
            dtype: group.dtype,
        })
    }

    /// The address by which `device` reaches a block; `None` if it never does.
    pub(crate) fn address(&self, device: usize, group: usize, block: biga_kv::BlockId) -> Option<u64> {
        let group = self.groups.get(group)?;
        let (slab, offset) = group.slabs.locate(block);
        let buffer = group.buffers.get(&device)?.get(slab)?;
        Some(buffer.allocation().device_address() + offset)
    }
}

pub(super) fn allocate(devices: &[Arc<dyn Device>], plan: &Plan) -> Result<(Cache, KvMemory)> {
    let limits = CacheLimits {
        max_sequences: plan.limits.max_sequences,
        context: plan.limits.context,
        block_len: plan.limits.kv_block_len,
        rewind: plan.limits.rewind(),
    };
    let mut groups = Vec::with_capacity(plan.kv.len());
    let mut specs = Vec::with_capacity(plan.kv.len());
    for group in &plan.kv {
        let memory = allocate_group(devices, group, &limits)?;
        specs.push(GroupSpec { n_blocks: memory.slabs.n_blocks, window: group.window });
        groups.push(memory);
    }
    Ok((Cache::new(limits, specs), KvMemory { groups, block_len: limits.block_len }))
}

fn allocate_group(devices: &[Arc<dyn Device>], group: &KvGroup, limits: &CacheLimits) -> Result<GroupMemory> {
    let home = &*devices[group.home];
    let row_bytes = group.dtype.row_bytes(group.head_dim).ok_or_else(|| {
        Error::Invalid(format!("head_dim {} is no whole number of {} blocks", group.head_dim, group.dtype))
    })?;
    let half_bytes = (row_bytes * group.n_kv_heads * limits.block_len) as u64;
    let block_bytes = (half_bytes * 2 * group.layers.len() as u64).next_multiple_of(KvGroup::BLOCK_ALIGNMENT);
    let n_blocks = limits.blocks_needed(group.window);
    let slabs =
        Slabs::new(block_bytes, n_blocks, home.info().max_allocation_bytes).ok_or(biga_hal::Error::OutOfMemory {
            device: home.info().id,
            name: "kv".to_owned(),
            requested_bytes: block_bytes,
            available_bytes: home.info().max_allocation_bytes,
        })?;
    let with_cpu = group.accessors.iter().any(|&device| devices[device].info().kind == DeviceKind::Cpu);
    let others = group.accessors.iter().map(|&device| (devices[device].info().id, Access::ReadWrite));
    let accessors = Accessors { host: with_cpu.then_some(Access::ReadWrite), devices: others.collect() };
    let mut own = Vec::with_capacity(slabs.count());
    for slab in 0..slabs.count() {
        let name = format!("kv slab {slab}");
        own.push(home.allocate(&BufferDesc {
            name,
            size_bytes: slabs.slab_bytes(slab),
            accessors: accessors.clone(),
        })?);
    }
    let mut buffers = BTreeMap::new();
    for &device in &group.accessors {
        let reached = own.iter().map(|slab| reach(&*devices[device], slab)).collect::<Result<Vec<_>>>()?;
        buffers.insert(device, reached);
    }
    buffers.insert(group.home, own);
    Ok(GroupMemory { slabs, layers: group.layers.clone(), dtype: group.dtype, half_bytes, buffers })
}
