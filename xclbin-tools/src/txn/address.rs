//! Addresses of registers and memories in the array.

use std::fmt;

/// An address as streams and CDOs write it: column in bits 25 up, row in bits 20 to 24, offset in the tile below
/// (`Xilinx/aie-rt:driver/src/global/xaiemlgbl_reginit.c`). Columns count from the partition's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

const COLUMN_SHIFT: u32 = 25;
const ROW_SHIFT: u32 = 20;
const COLUMN_MASK: u64 = 0x7f;
const ROW_MASK: u64 = 0x1f;
const OFFSET_MASK: u64 = 0xf_ffff;

impl Address {
    /// The address of a place in a tile; nothing if a part is too large for its bits.
    #[must_use]
    pub fn in_tile(column: u64, row: u64, offset: u64) -> Option<Address> {
        let fits = column <= COLUMN_MASK && row <= ROW_MASK && offset <= OFFSET_MASK;
        fits.then_some(Address((column << COLUMN_SHIFT) | (row << ROW_SHIFT) | offset))
    }

    /// The tile's column, from the partition's first.
    #[must_use]
    pub fn column(self) -> u8 {
        ((self.0 >> COLUMN_SHIFT) & COLUMN_MASK) as u8
    }

    /// The tile's row; row 0 is the shim's.
    #[must_use]
    pub fn row(self) -> u8 {
        ((self.0 >> ROW_SHIFT) & ROW_MASK) as u8
    }

    /// The byte in the tile.
    #[must_use]
    pub fn offset(self) -> u32 {
        (self.0 & OFFSET_MASK) as u32
    }

    /// The same place in another column; nothing if that column needs more than 7 bits.
    #[must_use]
    pub fn moved_by(self, columns: i64) -> Option<Address> {
        let column = i64::from(self.column()).checked_add(columns)?;
        let high = self.0 & !((COLUMN_MASK << COLUMN_SHIFT) | (ROW_MASK << ROW_SHIFT) | OFFSET_MASK);
        let low = Address::in_tile(u64::try_from(column).ok()?, u64::from(self.row()), u64::from(self.offset()))?;
        Some(Address(high | low.0))
    }
}

impl fmt::Display for Address {
    /// `tile(column,row)+0xOFFSET`, or the plain number where bits above the column are set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > u64::from(u32::MAX) {
            return write!(f, "{:#x}", self.0);
        }
        write!(f, "tile({},{})+{:#07x}", self.column(), self.row(), self.offset())
    }
}
