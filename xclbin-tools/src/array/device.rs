//! The NPUs that packages are made for.

use super::TileKind;

/// A family of NPUs with one array.
///
/// Columns and how the driver places partitions: <https://github.com/amd/xdna-driver>
/// `src/driver/amdxdna/{npu1_regs.c,npu4_regs.c,aie2_ctx.c}` (`aie2_hwctx_col_list`).
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The name that compilers use: `npu1`, `npu4`.
    pub name: &'static str,
    /// The products.
    pub products: &'static str,
    /// PCI device and revision, as the firmware's folders name them.
    pub pci_ids: &'static [&'static str],
    /// The number of the array in the header of an instruction stream.
    pub generation: u8,
    /// Columns of the array.
    pub n_columns: u8,
    /// The first column that the driver gives away: npu1's column 0 has no way to host memory. A partition as wide
    /// as the array starts at 0 all the same.
    pub first_column: u8,
    /// Whether the driver starts a partition at multiples of its width alone.
    pub is_aligned: bool,
}

/// Phoenix and Hawk Point (XDNA).
static NPU1: Device = Device {
    name: "npu1",
    products: "Phoenix, Hawk Point",
    pci_ids: &["1502_00"],
    generation: 3,
    n_columns: 5,
    first_column: 1,
    is_aligned: false,
};

/// Strix and its relatives (XDNA 2).
static NPU4: Device = Device {
    name: "npu4",
    products: "Strix, Strix Halo, Krackan",
    pci_ids: &["17f0_10", "17f0_11", "17f0_20"],
    generation: 4,
    n_columns: 8,
    first_column: 0,
    is_aligned: true,
};

impl Device {
    /// Every device that is known.
    pub const ALL: [&'static Device; 2] = [&NPU1, &NPU4];
    /// Rows of an array, of every device.
    pub const N_ROWS: u8 = 6;
    /// Columns of the widest array.
    pub const N_COLUMNS_MAX: u8 = 8;

    /// The device of a name: `npu1`; `npu2` (the compilers' name), `npu4`, `npu5` and `npu6`; a PCI id.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Device> {
        match name {
            "npu1" => Some(&NPU1),
            "npu2" | "npu4" | "npu5" | "npu6" => Some(&NPU4),
            _ => Device::ALL.into_iter().find(|device| device.pci_ids.contains(&name)),
        }
    }

    /// The device whose generation an instruction stream names.
    #[must_use]
    pub fn by_generation(generation: u8) -> Option<&'static Device> {
        Device::ALL.into_iter().find(|device| device.generation == generation)
    }

    /// Columns that partitions can use beside each other.
    #[must_use]
    pub fn n_columns_usable(&self) -> u8 {
        self.n_columns.saturating_sub(self.first_column)
    }

    /// Whether columns from `start` on, `width` of them, are in the array. A package lists such starts; the
    /// driver chooses among its own ([`Device::driver_starts`]).
    #[must_use]
    pub fn holds(&self, start: u16, width: u16) -> bool {
        width > 0 && start.checked_add(width).is_some_and(|end| end <= u16::from(self.n_columns))
    }

    /// The columns at which the driver starts a partition of a width; none for a width that the array lacks.
    pub fn driver_starts(&self, width: u16) -> impl Iterator<Item = u16> + use<> {
        let n_columns = u16::from(self.n_columns);
        let first = if width == n_columns { 0 } else { u16::from(self.first_column) };
        let step = if self.is_aligned { usize::from(width.max(1)) } else { 1 };
        let end = if width == 0 { 0 } else { n_columns.saturating_add(1).saturating_sub(width) };
        (first..end).step_by(step)
    }

    /// The tile kind of a row.
    #[must_use]
    pub fn tile_kind(row: u8) -> Option<TileKind> {
        match row {
            0 => Some(TileKind::Shim),
            1 => Some(TileKind::Memory),
            2..=5 => Some(TileKind::Core),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_start_where_the_driver_starts_them() {
        let check = |name: &str, width: u16, expected: &[u16]| {
            let device = Device::by_name(name).unwrap();
            assert_eq!(device.driver_starts(width).collect::<Vec<_>>(), expected, "{name}, width {width}");
            assert!(expected.iter().all(|&start| device.holds(start, width)));
        };
        check("npu1", 1, &[1, 2, 3, 4]);
        check("npu1", 2, &[1, 2, 3]);
        check("npu1", 4, &[1]);
        check("npu1", 5, &[0]);
        check("npu1", 6, &[]);
        check("npu4", 1, &[0, 1, 2, 3, 4, 5, 6, 7]);
        check("npu4", 3, &[0, 3]);
        check("npu4", 4, &[0, 4]);
        check("17f0_11", 8, &[0]);
        check("npu4", 9, &[]);
        check("npu4", 0, &[]);
        check("npu1", u16::MAX, &[]);
    }

    #[test]
    fn devices_are_found_by_what_files_say() {
        assert_eq!(Device::by_generation(3).map(|device| device.name), Some("npu1"));
        assert_eq!(Device::by_generation(4).map(|device| device.name), Some("npu4"));
        assert_eq!(Device::by_generation(5), None);
        assert_eq!(Device::by_name("1502_00"), Device::by_generation(3));
        assert_eq!(Device::by_name("npu9"), None);
        assert_eq!(Device::by_name("npu1").map(Device::n_columns_usable), Some(4));
        let widest = Device::ALL.into_iter().map(|device| device.n_columns).max();
        assert_eq!(widest, Some(Device::N_COLUMNS_MAX));
    }

    #[test]
    fn a_partition_lies_inside_the_array() {
        let device = Device::by_name("npu1").unwrap();
        assert!(device.holds(0, 4) && device.holds(1, 4));
        assert!(!device.holds(2, 4) && !device.holds(0, 0) && !device.holds(u16::MAX, 1));
    }
}
