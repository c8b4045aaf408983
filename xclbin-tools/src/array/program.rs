//! What a sequence of register writes makes of an array: a PDI's commands, an instruction stream's, or one after the
//! other. Only what a partition's tiles hold is kept, in proportion to the writes.

use std::{collections::BTreeMap, fmt};

use super::{Address, Device};

mod buffer;
mod descriptor;
mod event;
mod route;
mod span;
mod tile;

pub use buffer::{Buffer, User};
pub use descriptor::{BufferDescriptor, Dimension, LockUse};
pub use event::Event;
pub use route::{Connection, End, EndKind, Flow, Hop, Packets};
pub use span::Spans;
pub use tile::{Start, Tile};

/// A tile's place in the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Counted from the partition's first.
    pub column: u8,
    /// Counted from the shim tiles'.
    pub row: u8,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{},{}", self.column, self.row)
    }
}

/// The state that writes lead to.
#[derive(Clone, Debug, Default)]
pub struct Program {
    n_columns: u8,
    tiles: BTreeMap<Place, Tile>,
    n_outside: u64,
}

impl Program {
    /// Nothing written yet, to the columns of a partition; more than the widest array has are not kept.
    #[must_use]
    pub fn new(n_columns: u8) -> Program {
        Program { n_columns: n_columns.min(Device::N_COLUMNS_MAX), ..Program::default() }
    }

    /// The columns.
    #[must_use]
    pub fn n_columns(&self) -> u8 {
        self.n_columns
    }

    /// The tiles that were written to.
    pub fn tiles(&self) -> impl Iterator<Item = (Place, &Tile)> {
        self.tiles.iter().map(|(place, tile)| (*place, tile))
    }

    /// A tile, if it was written to.
    #[must_use]
    pub fn tile(&self, place: Place) -> Option<&Tile> {
        self.tiles.get(&place)
    }

    /// Words that were written where no tile of the partition has anything.
    #[must_use]
    pub fn n_outside(&self) -> u64 {
        self.n_outside
    }

    /// Does a command.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Write { address, mask, value } => {
                let written = self.tile_mut(address).is_some_and(|tile| tile.write(address.offset, mask, value));
                self.n_outside = self.n_outside.saturating_add(u64::from(!written));
            }
            Event::Block { address, words } => {
                let n_words = words.len().checked_div(4).unwrap_or(0) as u64;
                let n_written = self.tile_mut(address).map_or(0, |tile| tile.write_block(address.offset, words));
                self.n_outside = self.n_outside.saturating_add(n_words.saturating_sub(n_written));
            }
            Event::Argument { address, index } => {
                if let Some(tile) = self.tile_mut(address) {
                    tile.patch(address.offset, index);
                }
            }
        }
    }

    fn tile_mut(&mut self, address: Address) -> Option<&mut Tile> {
        let kind = address.tile_kind().filter(|_| address.column < self.n_columns)?;
        let place = Place { column: address.column, row: address.row };
        Some(self.tiles.entry(place).or_insert_with(|| Tile::new(kind)))
    }
}

impl<'a> Extend<Event<'a>> for Program {
    fn extend<T: IntoIterator<Item = Event<'a>>>(&mut self, events: T) {
        for event in events {
            self.apply(event);
        }
    }
}

#[cfg(test)]
mod tests;
