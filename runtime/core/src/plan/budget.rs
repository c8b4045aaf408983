//! What memory is used for, and how much there is.

use biga_hal::{DType, StepLayout, StepLimits};
use biga_kv::CacheLimits;

use super::{
    cost::kv_position_bytes,
    decide::KvLayer,
    inputs::Inputs,
    types::{KvGroup, Limits, MemoryUse, PhasePlan, Plan, WeightHome},
};

/// Bytes that the plan may use of each device.
pub(super) fn budgets(inputs: &Inputs) -> Vec<u64> {
    let limit = inputs.memory_limit.unwrap_or(u64::MAX);
    inputs.topology.devices.iter().map(|info| info.memory_bytes.min(limit)).collect()
}

/// Blocks that layers with this window need so that every sequence can reach full length, while
/// [`Limits::rewind`] positions can still be taken back.
pub fn kv_blocks(limits: &Limits, window: Option<usize>) -> usize {
    let cache = CacheLimits {
        max_sequences: limits.max_sequences,
        context: limits.context,
        block_len: limits.kv_block_len,
        rewind: limits.rewind(),
    };
    cache.blocks_needed(window)
}

/// Bytes of one layer's KV for all sequences.
pub(super) fn kv_layer_bytes(inputs: &Inputs, layer: &KvLayer, dtype: DType) -> u64 {
    let positions = (kv_blocks(&inputs.limits, layer.window) as u64).saturating_mul(inputs.limits.kv_block_len as u64);
    positions.saturating_mul(kv_position_bytes(layer.heads, dtype))
}

/// The largest step buffer that a plan with `n_tables` block tables needs on a device.
///
/// # Errors
/// [`biga_hal::Error::TooLarge`] if it would pass the contract's bound.
pub(super) fn step_layout(limits: &Limits, n_tables: usize) -> biga_hal::Result<StepLayout> {
    StepLayout::new(StepLimits {
        max_tokens: limits.max_tokens,
        max_outputs: limits.max_outputs,
        max_slots: limits.max_sequences,
        max_blocks: limits.context.div_ceil(limits.kv_block_len.max(1)),
        n_tables,
    })
}

/// Bytes of one block of a group, all its layers together.
pub(super) fn block_bytes(group: &KvGroup, block_len: usize) -> u64 {
    let heads = biga_hal::Heads { n_heads: group.n_kv_heads, n_kv_heads: group.n_kv_heads, head_dim: group.head_dim };
    let positions = block_len as u64;
    let bytes =
        kv_position_bytes(heads, group.dtype).saturating_mul(positions).saturating_mul(group.layers.len() as u64);
    bytes.checked_next_multiple_of(KvGroup::BLOCK_ALIGNMENT).unwrap_or(u64::MAX)
}

/// Adds up a placement's memory by device. Arenas of one owner and the same accessors share memory between
/// phases, so the largest counts.
pub(super) fn memory(
    n_devices: usize,
    limits: &Limits,
    weights: &[WeightHome],
    kv: &[KvGroup],
    phases: &[PhasePlan],
    step_bytes: u64,
) -> Vec<MemoryUse> {
    let mut memory = vec![MemoryUse::default(); n_devices];
    let add = |sum: &mut u64, bytes: u64| *sum = sum.saturating_add(bytes);
    for home in weights {
        add(&mut memory[home.device].weights_bytes, home.resident_bytes);
        add(&mut memory[home.device].in_place_bytes, home.in_place_bytes);
    }
    for group in kv {
        let blocks = kv_blocks(limits, group.window) as u64;
        add(&mut memory[group.home].kv_bytes, blocks.saturating_mul(block_bytes(group, limits.kv_block_len)));
    }
    for (key, bytes) in shared_arenas(phases) {
        add(&mut memory[key.0].values_bytes, bytes);
    }
    for (device, used) in memory.iter_mut().enumerate() {
        if phases.iter().any(|phase| phase.segments.iter().any(|segment| segment.device == device)) {
            used.other_bytes = step_bytes;
        }
    }
    memory
}

type ArenaKey = (usize, Vec<usize>, bool);

/// Size of each arena that phases share.
fn shared_arenas(phases: &[PhasePlan]) -> std::collections::BTreeMap<ArenaKey, u64> {
    let mut sizes = std::collections::BTreeMap::new();
    for arena in phases.iter().flat_map(|phase| &phase.arenas) {
        let size = sizes.entry((arena.owner, arena.accessors.clone(), arena.host_reads)).or_insert(0u64);
        *size = (*size).max(arena.size_bytes);
    }
    sizes
}

impl Plan {
    /// The block table's group and the block count that [`Plan::memory`] counts for each.
    pub fn kv_blocks(&self) -> Vec<usize> {
        self.kv.iter().map(|group| kv_blocks(&self.limits, group.window)).collect()
    }

    /// Bytes of one block of each KV group.
    pub fn kv_block_bytes(&self) -> Vec<u64> {
        self.kv.iter().map(|group| block_bytes(group, self.limits.kv_block_len)).collect()
    }
}
