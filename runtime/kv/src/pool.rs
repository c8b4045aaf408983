//! A fixed set of blocks, spread over slabs.

/// Names a block of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// How a group's blocks are spread over slabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slabs {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks in every slab but the last.
    pub blocks_per_slab: u32,
    /// Blocks in all.
    pub n_blocks: u32,
}

impl Slabs {
    /// The largest slab.
    pub const MAX_BYTES: u64 = 1 << 30;

    /// Spreads `n_blocks` over as few slabs as `max_slab_bytes` (and [`Slabs::MAX_BYTES`]) allow; `None`
    /// if not even one block fits into a slab, or there is none.
    pub fn new(block_bytes: u64, n_blocks: usize, max_slab_bytes: u64) -> Option<Slabs> {
        let n_blocks = u32::try_from(n_blocks).ok().filter(|&n| n > 0)?;
        let per_slab = max_slab_bytes.min(Slabs::MAX_BYTES).checked_div(block_bytes)?;
        let blocks_per_slab = u32::try_from(per_slab).unwrap_or(u32::MAX).min(n_blocks);
        (blocks_per_slab > 0).then_some(Slabs { block_bytes, blocks_per_slab, n_blocks })
    }

    /// Count of slabs.
    pub fn count(&self) -> usize {
        self.n_blocks.div_ceil(self.blocks_per_slab) as usize
    }

    /// Bytes of slab `index`.
    pub fn slab_bytes(&self, index: usize) -> u64 {
        let before = index as u64 * u64::from(self.blocks_per_slab);
        let blocks = u64::from(self.n_blocks).saturating_sub(before).min(u64::from(self.blocks_per_slab));
        blocks * self.block_bytes
    }

    /// The slab of a block, and its byte offset there.
    pub fn locate(&self, block: BlockId) -> (usize, u64) {
        let slab = block.0 / self.blocks_per_slab;
        (slab as usize, u64::from(block.0 % self.blocks_per_slab) * self.block_bytes)
    }
}

/// The free blocks of one group. Last freed, first taken: the block most likely still in a cache.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    free: Vec<BlockId>,
}

impl Pool {
    pub(crate) fn new(n_blocks: u32) -> Pool {
        Pool { free: (0..n_blocks).rev().map(BlockId).collect() }
    }

    pub(crate) fn take(&mut self) -> Option<BlockId> {
        self.free.pop()
    }

    pub(crate) fn give(&mut self, block: BlockId) {
        debug_assert!(!self.free.contains(&block), "{block:?} freed twice");
        self.free.push(block);
    }

    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{BlockId, Slabs};

    #[test]
    fn blocks_fill_slabs_in_order() {
        let slabs = Slabs::new(100, 25, 1000).unwrap();
        assert_eq!((slabs.count(), slabs.slab_bytes(0), slabs.slab_bytes(2)), (3, 1000, 500));
        assert_eq!(slabs.locate(BlockId(23)), (2, 300));
    }

    #[test]
    fn a_block_larger_than_a_slab_is_refused() {
        assert_eq!(Slabs::new(1001, 1, 1000), None);
        assert_eq!(Slabs::new(0, 1, 1000), None);
        assert_eq!(Slabs::new(8, 0, 1000), None);
    }
}
