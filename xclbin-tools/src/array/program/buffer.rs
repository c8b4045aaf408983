//! Buffers: the ranges of a tile's data memory that DMA channels read and write.

use std::{collections::BTreeMap, ops::Range};

use super::{BufferDescriptor, Place, Program, Tile};
use crate::array::Direction;

/// A range of a data memory that buffer descriptors reach; ranges that overlap are one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// In bytes from the start of the memory.
    pub range: Range<u32>,
    /// What reaches it.
    pub users: Vec<User>,
}

/// A buffer descriptor that reaches a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The descriptor's tile: the buffer's own, or a neighbour of its memory tile.
    pub place: Place,
    /// The descriptor.
    pub descriptor: u8,
    /// The channel that was started with it or with one before it; none if none was.
    pub channel: Option<(Direction, u8)>,
}

impl Tile {
    /// The channels that come to each descriptor: those started with it, and by way of others.
    #[must_use]
    pub fn channels_of_descriptors(&self) -> BTreeMap<u8, Vec<(Direction, u8)>> {
        let mut starts: Vec<_> =
            self.starts().iter().map(|start| (start.direction, start.channel, start.descriptor)).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut channels: BTreeMap<u8, Vec<(Direction, u8)>> = BTreeMap::new();
        for (direction, channel, first) in starts {
            let mut next = Some(first);
            while let Some(descriptor) = next.and_then(|index| self.descriptor(index)) {
                let seen = channels.entry(descriptor.index).or_default();
                if seen.contains(&(direction, channel)) {
                    break;
                }
                seen.push((direction, channel));
                next = descriptor.next;
            }
        }
        channels
    }
}

impl Program {
    /// The buffers in a tile's data memory, in the order of their addresses.
    #[must_use]
    pub fn buffers(&self, place: Place) -> Vec<Buffer> {
        let size_bytes = self.tile(place).map_or(0, |tile| tile.kind().data_bytes());
        let mut found: Vec<(Range<u32>, User)> = Vec::new();
        let columns = [place.column.checked_sub(1), Some(place.column), place.column.checked_add(1)];
        // From the column before, a buffer here is its next one's.
        for (column, neighbour) in columns.into_iter().zip([1, 0, -1]) {
            let Some(user) = column.map(|column| Place { column, row: place.row }) else { continue };
            let Some(tile) = self.tile(user) else { continue };
            let channels = tile.channels_of_descriptors();
            for descriptor in tile.descriptors().filter(|descriptor| descriptor.neighbour == Some(neighbour)) {
                let Some(range) = range(&descriptor, size_bytes) else { continue };
                let channels = channels.get(&descriptor.index).map_or(&[][..], Vec::as_slice);
                let user = User { place: user, descriptor: descriptor.index, channel: None };
                let users = channels.iter().map(|channel| User { channel: Some(*channel), ..user });
                let of_none = channels.is_empty().then_some(user);
                found.extend(users.chain(of_none).map(|user| (range.clone(), user)));
            }
        }
        found.sort_unstable_by_key(|(range, user)| (range.start, range.end, *user));
        let mut buffers: Vec<Buffer> = Vec::new();
        for (range, user) in found {
            match buffers.last_mut().filter(|last| range.start < last.range.end) {
                Some(last) => {
                    last.range.end = last.range.end.max(range.end);
                    last.users.push(user);
                }
                None => buffers.push(Buffer { range, users: vec![user] }),
            }
        }
        buffers
    }
}

/// What a descriptor reaches of a memory.
fn range(descriptor: &BufferDescriptor, size_bytes: u32) -> Option<Range<u32>> {
    let end = descriptor.address.saturating_add(descriptor.extent_bytes()).min(u64::from(size_bytes));
    let range = u32::try_from(descriptor.address).ok()?..u32::try_from(end).ok()?;
    (!range.is_empty()).then_some(range)
}
