//! Buffer descriptors: what a DMA channel moves next, in words of 32 bits.
//!
//! Fields: AM025, `DMA_BD0_0` and the following words of the memory, memory tile and shim modules. Steps are stored
//! less one.

use crate::array::TileKind;

/// A transfer: where from or to, how it walks, which locks it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferDescriptor {
    /// Its number.
    pub index: u8,
    /// Whether a channel may use it.
    pub is_valid: bool,
    /// Where the buffer starts, in bytes: in the tile's data memory, or in host memory for a shim tile. A memory
    /// tile's column counts from [`BufferDescriptor::neighbour`].
    pub address: u64,
    /// The column of the buffer's memory tile, seen from its own: -1, 0 or 1; none of a number that means none.
    pub neighbour: Option<i8>,
    /// Bytes that it moves.
    pub length_bytes: u64,
    /// How addresses walk, the fastest dimension first. The last one has no count: it goes on to the length.
    pub dimensions: Vec<Dimension>,
    /// What each start adds to the address, and after how many it begins anew.
    pub iteration: Dimension,
    /// The id of its packets, if it sends packets.
    pub packet_id: Option<u8>,
    /// The lock that is waited for.
    pub acquire: Option<LockUse>,
    /// The lock that is released; one with value 0 is not.
    pub release: Option<LockUse>,
    /// The descriptor that follows.
    pub next: Option<u8>,
}

/// A dimension of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dimension {
    /// Words from one element to the next.
    pub step_words: u32,
    /// Elements; 0 for all that are left.
    pub n_elements: u32,
}

/// A lock of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockUse {
    /// A memory tile's 0..63 are those of the column before, 64..127 its own, 128..191 the next column's.
    pub lock: u8,
    /// To acquire: the value to see, negative for that or more. To release: what is added.
    pub value: i8,
}

/// The offset of a tile's first descriptor.
pub(super) fn offset(kind: TileKind) -> u32 {
    if kind == TileKind::Memory { 0xa_0000 } else { 0x1_d000 }
}

impl BufferDescriptor {
    /// Decodes the words of a tile kind; a core tile's has six.
    #[must_use]
    pub fn from_words(kind: TileKind, index: u8, words: &[u32; 8]) -> BufferDescriptor {
        match kind {
            TileKind::Core => of_core(index, words),
            TileKind::Memory => of_memory(index, words),
            TileKind::Shim => of_shim(index, words),
        }
    }

    /// The bytes from the address to the last one that the walk reaches.
    #[must_use]
    pub fn extent_bytes(&self) -> u64 {
        let mut n_left = self.length_bytes >> 2;
        let mut last: u64 = 0;
        for dimension in &self.dimensions {
            let n_elements = match u64::from(dimension.n_elements) {
                0 => n_left,
                count => count.min(n_left),
            };
            last = last.saturating_add(n_elements.saturating_sub(1).saturating_mul(dimension.step_words.into()));
            n_left = n_left.checked_div(n_elements).unwrap_or(0);
            if n_left <= 1 {
                break;
            }
        }
        if self.length_bytes == 0 { 0 } else { last.saturating_add(1).saturating_mul(4) }
    }
}

fn of_core(index: u8, words: &[u32; 8]) -> BufferDescriptor {
    let &[w0, w1, w2, w3, w4, w5, ..] = words;
    BufferDescriptor {
        index,
        is_valid: bits(w5, 25, 1) == 1,
        address: u64::from(bits(w0, 14, 14)) << 2,
        neighbour: Some(0),
        length_bytes: u64::from(bits(w0, 0, 14)) << 2,
        dimensions: vec![
            dimension(bits(w2, 0, 13), bits(w3, 13, 8)),
            dimension(bits(w2, 13, 13), bits(w3, 21, 8)),
            dimension(bits(w3, 0, 13), 0),
        ],
        iteration: iteration(bits(w4, 0, 13), bits(w4, 13, 6)),
        packet_id: (bits(w1, 30, 1) == 1).then_some(small(bits(w1, 19, 5))),
        acquire: (bits(w5, 12, 1) == 1).then_some(lock(bits(w5, 0, 4), bits(w5, 5, 7))),
        release: (bits(w5, 18, 7) != 0).then_some(lock(bits(w5, 13, 4), bits(w5, 18, 7))),
        next: (bits(w5, 26, 1) == 1).then_some(small(bits(w5, 27, 4))),
    }
}

fn of_memory(index: u8, words: &[u32; 8]) -> BufferDescriptor {
    let &[w0, w1, w2, w3, w4, w5, w6, w7] = words;
    // Addresses run through the memories of the column before, its own and the next one's.
    let (address, size) = (bits(w1, 0, 19) << 2, TileKind::Memory.data_bytes());
    let neighbour = match address.checked_div(size) {
        Some(0) => Some(-1),
        Some(1) => Some(0),
        Some(2) => Some(1),
        _ => None,
    };
    BufferDescriptor {
        index,
        is_valid: bits(w7, 31, 1) == 1,
        address: u64::from(address.checked_rem(size).unwrap_or(0)),
        neighbour,
        length_bytes: u64::from(bits(w0, 0, 17)) << 2,
        dimensions: vec![
            dimension(bits(w2, 0, 17), bits(w2, 17, 10)),
            dimension(bits(w3, 0, 17), bits(w3, 17, 10)),
            dimension(bits(w4, 0, 17), bits(w4, 17, 10)),
            dimension(bits(w5, 0, 17), 0),
        ],
        iteration: iteration(bits(w6, 0, 17), bits(w6, 17, 6)),
        packet_id: (bits(w0, 31, 1) == 1).then_some(small(bits(w0, 23, 5))),
        acquire: (bits(w7, 15, 1) == 1).then_some(lock(bits(w7, 0, 8), bits(w7, 8, 7))),
        release: (bits(w7, 24, 7) != 0).then_some(lock(bits(w7, 16, 8), bits(w7, 24, 7))),
        next: (bits(w1, 19, 1) == 1).then_some(small(bits(w1, 20, 6))),
    }
}

fn of_shim(index: u8, words: &[u32; 8]) -> BufferDescriptor {
    let &[w0, w1, w2, w3, w4, w5, w6, w7] = words;
    BufferDescriptor {
        index,
        is_valid: bits(w7, 25, 1) == 1,
        address: u64::from(bits(w2, 0, 16)) << 32 | u64::from(w1 & !3),
        neighbour: Some(0),
        length_bytes: u64::from(w0) << 2,
        dimensions: vec![
            dimension(bits(w3, 0, 20), bits(w3, 20, 10)),
            dimension(bits(w4, 0, 20), bits(w4, 20, 10)),
            dimension(bits(w5, 0, 20), 0),
        ],
        iteration: iteration(bits(w6, 0, 20), bits(w6, 20, 6)),
        packet_id: (bits(w2, 30, 1) == 1).then_some(small(bits(w2, 19, 5))),
        acquire: (bits(w7, 12, 1) == 1).then_some(lock(bits(w7, 0, 4), bits(w7, 5, 7))),
        release: (bits(w7, 18, 7) != 0).then_some(lock(bits(w7, 13, 4), bits(w7, 18, 7))),
        next: (bits(w7, 26, 1) == 1).then_some(small(bits(w7, 27, 4))),
    }
}

/// `n_bits` of a word from bit `first` on.
pub(super) fn bits(word: u32, first: u32, n_bits: u32) -> u32 {
    let mask = 1_u32.checked_shl(n_bits).map_or(u32::MAX, |end| end.wrapping_sub(1));
    word.checked_shr(first).unwrap_or(0) & mask
}

fn small(field: u32) -> u8 {
    u8::try_from(field).unwrap_or(u8::MAX)
}

fn dimension(step: u32, n_elements: u32) -> Dimension {
    Dimension { step_words: step.saturating_add(1), n_elements }
}

fn iteration(step: u32, count: u32) -> Dimension {
    Dimension { step_words: step.saturating_add(1), n_elements: count.saturating_add(1) }
}

/// Values have seven bits, the first the sign.
fn lock(lock: u32, value: u32) -> LockUse {
    let value = i8::try_from(value & 0x3f).unwrap_or(0).saturating_sub(if value & 0x40 == 0 { 0 } else { 64 });
    LockUse { lock: small(lock), value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_core_tile_acquires_walks_and_releases() {
        // 1024 words from byte 0x400; 8 rows of 4 words, 16 apart; lock 1 at 1 or more, then lock 2 by 1; then 3.
        let steps = 15 << 13;
        let counts = 8 << 21 | 4 << 13;
        let locks = 1 | (0x7f << 5) | 1 << 12 | 2 << 13 | 1 << 18 | 1 << 25 | 1 << 26 | 3 << 27;
        let words = [0x100 << 14 | 1024, 1 << 30 | 5 << 19, steps, counts, 0, locks, 0, 0];
        let descriptor = BufferDescriptor::from_words(TileKind::Core, 2, &words);
        assert_eq!((descriptor.address, descriptor.length_bytes), (0x400, 4096));
        assert_eq!(descriptor.dimensions.first(), Some(&Dimension { step_words: 1, n_elements: 4 }));
        assert_eq!(descriptor.dimensions.get(1), Some(&Dimension { step_words: 16, n_elements: 8 }));
        assert_eq!(descriptor.acquire, Some(LockUse { lock: 1, value: -1 }));
        assert_eq!(descriptor.release, Some(LockUse { lock: 2, value: 1 }));
        assert_eq!((descriptor.next, descriptor.packet_id), (Some(3), Some(5)));
        assert!(descriptor.is_valid);
    }

    #[test]
    fn a_memory_tile_reaches_its_neighbours() {
        let check = |address: u32, expected: (Option<i8>, u64)| {
            let words = [16, address >> 2 | 1 << 19 | 40 << 20, 0, 0, 0, 0, 0, 1 << 31];
            let descriptor = BufferDescriptor::from_words(TileKind::Memory, 0, &words);
            assert_eq!((descriptor.neighbour, descriptor.address), expected);
            assert_eq!((descriptor.next, descriptor.is_valid), (Some(40), true));
        };
        check(0x100, (Some(-1), 0x100));
        check(0x8_0200, (Some(0), 0x200));
        check(0x10_0000, (Some(1), 0));
        check(0x18_0000, (None, 0));
    }

    #[test]
    fn a_shim_tile_reaches_host_memory() {
        let words = [256, 0x8000_1000, 1 << 30 | 7 << 19 | 0x12, 0, 0, 0, 0, 1 << 25];
        let descriptor = BufferDescriptor::from_words(TileKind::Shim, 1, &words);
        assert_eq!((descriptor.address, descriptor.length_bytes), (0x12_8000_1000, 1024));
        assert_eq!((descriptor.packet_id, descriptor.release), (Some(7), None));
    }

    #[test]
    fn a_walk_reaches_as_far_as_its_steps() {
        let check = |length_words: u64, dimensions: &[(u32, u32)], expected| {
            let mut descriptor = BufferDescriptor::from_words(TileKind::Memory, 0, &[0; 8]);
            descriptor.length_bytes = length_words * 4;
            let dimensions = dimensions.iter();
            descriptor.dimensions =
                dimensions.map(|&(step_words, n_elements)| Dimension { step_words, n_elements }).collect();
            assert_eq!(descriptor.extent_bytes(), expected);
        };
        check(64, &[(1, 0), (1, 0), (1, 0), (1, 0)], 256);
        check(64, &[(1, 8), (16, 8), (1, 0), (1, 0)], (7 + 7 * 16 + 1) * 4);
        check(64, &[(1, 8), (8, 4), (32, 0)], 256);
        check(64, &[(8, 8), (1, 8), (64, 0)], 256);
        check(1, &[(1, 0)], 4);
        check(0, &[(1, 0)], 0);
    }

    proptest! {
        #[test]
        fn any_words_are_a_descriptor(row in 0_u8..3, index: u8, words: [u32; 8]) {
            let kind = crate::array::Device::tile_kind(row).unwrap();
            let descriptor = BufferDescriptor::from_words(kind, index, &words);
            prop_assert!(descriptor.extent_bytes() >= descriptor.length_bytes.min(4));
        }
    }
}
