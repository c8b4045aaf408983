//! Addresses of the array: which tile, and where in it.

use std::fmt;

use super::{Device, Register, TileKind};

/// An address of a CDO or an instruction stream: bits 31..25 the column, counted from the partition's first,
/// 24..20 the row, 19..0 the offset in the tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Below 128.
    pub column: u8,
    /// Below 32.
    pub row: u8,
    /// In bytes, below 1 MiB.
    pub offset: u32,
}

impl Address {
    /// Bytes of a tile.
    pub const TILE_BYTES: u32 = 1 << 20;

    /// The kind of its tile; none above the array.
    #[must_use]
    pub fn tile_kind(self) -> Option<TileKind> {
        Device::tile_kind(self.row)
    }

    /// What stands there; none above the array and where a tile has nothing.
    #[must_use]
    pub fn register(self) -> Option<Register> {
        Register::at(self.tile_kind()?, self.offset)
    }
}

impl From<u32> for Address {
    fn from(address: u32) -> Address {
        let [column, row] = [address >> 25, address >> 20 & 0x1f].map(|field| u8::try_from(field).unwrap_or(u8::MAX));
        Address { column, row, offset: address & 0xf_ffff }
    }
}

impl From<Address> for u32 {
    /// Bits beyond a field's width are dropped.
    fn from(address: Address) -> u32 {
        let tile = u32::from(address.column & 0x7f) << 25 | u32::from(address.row & 0x1f) << 20;
        tile | address.offset & 0xf_ffff
    }
}

impl fmt::Display for Address {
    /// As `column, row + offset`: `1,2+0x1f000`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{},{}+{:#07x}", self.column, self.row, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_stand_where_the_hardware_has_them() {
        let check = |address: u32, column, row, offset, shown: &str| {
            assert_eq!(Address::from(address), Address { column, row, offset });
            assert_eq!(Address::from(address).to_string(), shown);
        };
        check(0, 0, 0, 0, "0,0+0x00000");
        check(0x0021_f000, 0, 2, 0x1f000, "0,2+0x1f000");
        check(0x021c_0010, 1, 1, 0xc0010, "1,1+0xc0010");
        check(u32::MAX, 127, 31, 0xf_ffff, "127,31+0xfffff");
    }

    #[test]
    fn rows_have_kinds() {
        let kind = |row| Address { column: 0, row, offset: 0 }.tile_kind();
        assert_eq!(kind(0), Some(TileKind::Shim));
        assert_eq!(kind(1), Some(TileKind::Memory));
        assert_eq!(kind(5), Some(TileKind::Core));
        assert_eq!(kind(6), None);
        assert_eq!(Address { column: 0, row: 6, offset: 0 }.register(), None);
    }

    proptest! {
        #[test]
        fn every_address_returns(address: u32) {
            prop_assert_eq!(u32::from(Address::from(address)), address);
        }
    }
}
