//! Sequences and their block tables.

use crate::pool::{BlockId, Pool};

/// A group's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Blocks that exist.
    pub n_blocks: u32,
    /// Sliding window in positions; `None` keeps everything.
    pub window: Option<usize>,
}

/// Sizes of the whole cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Sequences at once.
    pub max_sequences: usize,
    /// Longest sequence.
    pub context: usize,
    /// Positions in a block.
    pub block_len: usize,
    /// Positions that [`Cache::truncate`] can take back although a window has passed them.
    pub rewind: usize,
}

impl CacheLimits {
    /// Blocks that a group needs so that every sequence can reach full length.
    ///
    /// A window keeps `window + rewind` positions behind the newest, which may touch one block more than
    /// they fill, while a step may append `rewind` positions at once.
    pub fn blocks_needed(&self, window: Option<usize>) -> usize {
        let whole = self.context.div_ceil(self.block_len);
        let each = match window {
            None => whole,
            Some(window) => {
                let kept = window.saturating_add(self.rewind.saturating_mul(2));
                whole.min(kept.div_ceil(self.block_len).saturating_add(2))
            }
        };
        each.saturating_mul(self.max_sequences)
    }
}

/// Names a sequence while it lives: its row in every block table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub usize);

/// One new entry of a block table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Group: which table.
    pub group: usize,
    /// Row.
    pub slot: SlotId,
    /// Column: `position / block_len`.
    pub column: usize,
    /// The block.
    pub block: BlockId,
}

/// What a cache can refuse. The first two are ordinary outcomes under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// Every slot is taken.
    #[error("all {max_sequences} sequences are in use")]
    NoSlot {
        /// The bound.
        max_sequences: usize,
    },
    /// A group has no free block left.
    #[error("kv cache full: group {group} has no free block")]
    NoBlock {
        /// The group.
        group: usize,
    },
    /// Longer than planned.
    #[error("sequence of {asked} tokens, the context holds {context}")]
    TooLong {
        /// Asked.
        asked: usize,
        /// The bound.
        context: usize,
    },
    /// Not a live sequence.
    #[error("sequence slot {slot} is not in use")]
    NotOpen {
        /// The slot.
        slot: usize,
    },
    /// Truncation to a length that the sequence does not have, or whose window is gone.
    #[error("cannot truncate to {asked} tokens: the sequence has {len}, and {oldest} is the oldest kept position")]
    CannotTruncate {
        /// Asked.
        asked: usize,
        /// Length now.
        len: usize,
        /// First position whose block is still held in every group.
        oldest: usize,
    },
}

#[derive(Clone, Debug)]
struct Sequence {
    open: bool,
    len: usize,
    /// By group.
    held: Vec<Held>,
}

/// The blocks of one sequence in one group: columns `first..first + blocks.len()`.
#[derive(Clone, Debug)]
struct Held {
    first: usize,
    blocks: std::collections::VecDeque<BlockId>,
}

/// Block tables of all sequences in all groups.
#[derive(Clone, Debug)]
pub struct Cache {
    limits: CacheLimits,
    groups: Vec<GroupSpec>,
    pools: Vec<Pool>,
    sequences: Vec<Sequence>,
}

impl Cache {
    /// An empty cache. All its memory is taken here.
    pub fn new(limits: CacheLimits, groups: Vec<GroupSpec>) -> Cache {
        let columns = limits.context.div_ceil(limits.block_len.max(1)) + 1;
        let held = |_: &GroupSpec| Held { first: 0, blocks: std::collections::VecDeque::with_capacity(columns) };
        let sequence = || Sequence { open: false, len: 0, held: groups.iter().map(held).collect() };
        Cache {
            limits,
            pools: groups.iter().map(|group| Pool::new(group.n_blocks)).collect(),
            sequences: (0..limits.max_sequences).map(|_| sequence()).collect(),
            groups,
        }
    }

    /// The sizes it was made for.
    pub fn limits(&self) -> CacheLimits {
        self.limits
    }

    /// Starts an empty sequence.
    ///
    /// # Errors
    /// [`KvError::NoSlot`].
    pub fn open(&mut self) -> Result<SlotId, KvError> {
        let free = self.sequences.iter().position(|sequence| !sequence.open);
        let slot = free.ok_or(KvError::NoSlot { max_sequences: self.limits.max_sequences })?;
        self.sequences[slot].open = true;
        Ok(SlotId(slot))
    }

    /// Ends a sequence and frees its blocks.
    ///
    /// # Errors
    /// [`KvError::NotOpen`].
    pub fn close(&mut self, slot: SlotId) -> Result<(), KvError> {
        self.len(slot)?;
        let sequence = &mut self.sequences[slot.0];
        for (held, pool) in sequence.held.iter_mut().zip(&mut self.pools) {
            held.blocks.drain(..).for_each(|block| pool.give(block));
            held.first = 0;
        }
        sequence.open = false;
        sequence.len = 0;
        Ok(())
    }

    /// Positions of a sequence.
    ///
    /// # Errors
    /// [`KvError::NotOpen`].
    pub fn len(&self, slot: SlotId) -> Result<usize, KvError> {
        match self.sequences.get(slot.0) {
            Some(sequence) if sequence.open => Ok(sequence.len),
            _ => Err(KvError::NotOpen { slot: slot.0 }),
        }
    }

    /// Makes room for `n` more positions, frees blocks that no window reaches any more, and reports every
    /// new table entry. On an error the sequence has the length and the new entries of before; what no
    /// window reaches may be free already.
    ///
    /// # Errors
    /// [`KvError::TooLong`], [`KvError::NoBlock`], [`KvError::NotOpen`].
    pub fn append(&mut self, slot: SlotId, n: usize, mut entry: impl FnMut(TableEntry)) -> Result<(), KvError> {
        let before = self.len(slot)?;
        let CacheLimits { context, block_len, .. } = self.limits;
        let after = before.checked_add(n).filter(|&after| after <= context);
        let after = after.ok_or(KvError::TooLong { asked: before.saturating_add(n), context })?;
        self.evict(slot, before);
        let columns = after.div_ceil(block_len);
        let sequence = &self.sequences[slot.0];
        for (group, (held, pool)) in sequence.held.iter().zip(&self.pools).enumerate() {
            if columns.saturating_sub(held.first + held.blocks.len()) > pool.n_free() {
                return Err(KvError::NoBlock { group });
            }
        }
        let sequence = &mut self.sequences[slot.0];
        for (group, (held, pool)) in sequence.held.iter_mut().zip(&mut self.pools).enumerate() {
            while held.first + held.blocks.len() < columns {
                let Some(block) = pool.take() else { return Err(KvError::NoBlock { group }) };
                let column = held.first + held.blocks.len();
                held.blocks.push_back(block);
                entry(TableEntry { group, slot, column, block });
            }
        }
        sequence.len = after;
        Ok(())
    }

    /// Shortens a sequence: rejected drafts, stops found late, retries. Table entries beyond the new
    /// length stay as they are and are not read.
    ///
    /// # Errors
    /// [`KvError::CannotTruncate`] if it is shorter already or a window would look at freed blocks.
    pub fn truncate(&mut self, slot: SlotId, len: usize) -> Result<(), KvError> {
        let before = self.len(slot)?;
        let block_len = self.limits.block_len;
        let sequence = &mut self.sequences[slot.0];
        let reaches = |group: &GroupSpec, held: &Held| {
            let oldest_seen = group.window.map_or(0, |window| len.saturating_sub(window.saturating_sub(1)));
            held.first * block_len <= oldest_seen
        };
        let kept = self.groups.iter().zip(&sequence.held).all(|(group, held)| reaches(group, held));
        if len > before || !kept {
            let oldest = sequence.held.iter().map(|held| held.first * block_len).max().unwrap_or(0);
            return Err(KvError::CannotTruncate { asked: len, len: before, oldest });
        }
        let columns = len.div_ceil(block_len);
        for (held, pool) in sequence.held.iter_mut().zip(&mut self.pools) {
            while held.first + held.blocks.len() > columns {
                match held.blocks.pop_back() {
                    Some(block) => pool.give(block),
                    None => break,
                }
            }
            held.first = held.first.min(columns);
        }
        sequence.len = len;
        Ok(())
    }

    /// Free blocks of a group.
    pub fn n_free(&self, group: usize) -> usize {
        self.pools.get(group).map_or(0, Pool::n_free)
    }

    /// The blocks that a sequence holds in a group, with their columns.
    pub fn blocks(&self, slot: SlotId, group: usize) -> impl Iterator<Item = (usize, BlockId)> {
        let held = self.sequences.get(slot.0).and_then(|sequence| sequence.held.get(group));
        held.into_iter().flat_map(|held| held.blocks.iter().enumerate().map(|(i, &block)| (held.first + i, block)))
    }

    /// Frees the blocks that no future position looks at, keeping `rewind` positions for truncation.
    fn evict(&mut self, slot: SlotId, len: usize) {
        let CacheLimits { block_len, rewind, .. } = self.limits;
        let sequence = &mut self.sequences[slot.0];
        for ((held, pool), group) in sequence.held.iter_mut().zip(&mut self.pools).zip(&self.groups) {
            let Some(window) = group.window else { continue };
            let oldest_kept = len.saturating_sub(window.saturating_add(rewind));
            while (held.first + 1) * block_len <= oldest_kept {
                let Some(block) = held.blocks.pop_front() else { break };
                pool.give(block);
                held.first += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cache, CacheLimits, GroupSpec, KvError, SlotId};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn limits() -> CacheLimits {
        CacheLimits { max_sequences: 3, context: 40, block_len: 4, rewind: 5 }
    }

    fn cache() -> Cache {
        let group = |window| GroupSpec { n_blocks: limits().blocks_needed(window) as u32, window };
        Cache::new(limits(), vec![group(None), group(Some(6))])
    }

    #[test]
    fn a_full_context_fits_for_every_sequence() {
        let mut cache = cache();
        for _ in 0..3 {
            let slot = cache.open().unwrap();
            for _ in 0..40 {
                cache.append(slot, 1, |_| {}).unwrap();
            }
            assert_eq!(cache.append(slot, 1, |_| {}), Err(KvError::TooLong { asked: 41, context: 40 }));
        }
        assert_eq!(cache.open(), Err(KvError::NoSlot { max_sequences: 3 }));
    }

    #[test]
    fn a_window_frees_what_it_passed() {
        let mut cache = cache();
        let slot = cache.open().unwrap();
        (0..40).for_each(|_| cache.append(slot, 1, |_| {}).unwrap());
        assert_eq!(cache.blocks(slot, 0).count(), 10);
        let first = cache.blocks(slot, 1).next().unwrap().0;
        assert_eq!(first, (39 - 6 - 5) / 4);
        assert!(cache.truncate(slot, 35).is_ok());
        assert!(matches!(cache.truncate(slot, 10), Err(KvError::CannotTruncate { len: 35, .. })));
    }

    #[derive(Clone, Debug)]
    enum Call {
        Open,
        Close(usize),
        Append(usize, usize),
        Truncate(usize, usize),
    }

    fn calls() -> impl Strategy<Value = Vec<Call>> {
        let call = prop_oneof![
            Just(Call::Open),
            (0..4usize).prop_map(Call::Close),
            (0..4usize, 0..9usize).prop_map(|(slot, n)| Call::Append(slot, n)),
            (0..4usize, 0..41usize).prop_map(|(slot, len)| Call::Truncate(slot, len)),
        ];
        proptest::collection::vec(call, 1..80)
    }

    proptest! {
        #[test]
        fn blocks_are_owned_once_and_windows_are_covered(calls in calls(), n_blocks in 1..40u32) {
            let groups = vec![GroupSpec { n_blocks, window: None }, GroupSpec { n_blocks, window: Some(6) }];
            let mut cache = Cache::new(limits(), groups);
            let mut model: [Option<usize>; 4] = [None; 4];
            for call in calls {
                match call {
                    Call::Open => if let Ok(slot) = cache.open() {
                        prop_assert_eq!(model[slot.0], None);
                        model[slot.0] = Some(0);
                    },
                    Call::Close(slot) => prop_assert_eq!(cache.close(SlotId(slot)).is_ok(), model[slot].take().is_some()),
                    Call::Append(slot, n) => if cache.append(SlotId(slot), n, |_| {}).is_ok() {
                        model[slot] = model[slot].map(|len| len + n);
                    },
                    Call::Truncate(slot, len) => if cache.truncate(SlotId(slot), len).is_ok() {
                        prop_assert!(len <= model[slot].unwrap());
                        model[slot] = Some(len);
                    },
                }
                for group in 0..2 {
                    let mut owned = HashSet::new();
                    for (slot, len) in model.iter().enumerate().filter_map(|(slot, len)| len.map(|len| (slot, len))) {
                        prop_assert_eq!(cache.len(SlotId(slot)), Ok(len));
                        let columns: Vec<usize> = cache.blocks(SlotId(slot), group).map(|(column, _)| column).collect();
                        let oldest = if group == 0 { 0 } else { len.saturating_sub(5) };
                        for position in oldest..len {
                            prop_assert!(columns.contains(&(position / 4)), "position {} of {}", position, len);
                        }
                        prop_assert!(cache.blocks(SlotId(slot), group).all(|(_, block)| owned.insert(block)));
                    }
                    prop_assert_eq!(owned.len() + cache.n_free(group), n_blocks as usize);
                }
            }
        }
    }
}
