//! Rules for every address that a CDO or an instruction stream names: inside the partition, and something is there.

use std::fmt;

use super::{Findings, rule::rules};
use crate::array::{Address, Device, Register, TileKind, contiguous_bytes};

rules! {
    COLUMN: Error "address-column" {
        asks: "an address lies in the partition's columns",
        effect: "the write leaves the partition: it is dropped, or it changes what another context runs on",
        mend: "compile for as many columns as the partition has, or widen the partition (column_width)",
        source: "Xilinx/aie-rt:driver/src/global/xaiemlgbl_reginit.c",
    }
    ROW: Error "address-row" {
        asks: "an address lies in one of the array's six rows",
        effect: "no tile answers: the array reports an error and the launch times out",
        mend: "compile for this device: row 0 is the shim tile, 1 the memory tile, 2 to 5 are core tiles",
        source: "https://docs.amd.com/r/en-US/am025-versal-aie-ml-register-reference",
    }
    HOLE: Error "address-hole" {
        asks: "at an address is memory or a register",
        effect: "the write is lost or the array reports an error: what it should configure stays as it was",
        mend: "check the offset against the tile's kind: shim, memory and core tiles have different registers",
        source: "https://docs.amd.com/r/en-US/am025-versal-aie-ml-register-reference",
    }
    ALIGNMENT: Error "address-alignment" {
        asks: "an address is a multiple of 4",
        effect: "the bus takes words alone: the write reaches another word or none",
        mend: "write whole words",
        source: "https://docs.amd.com/r/en-US/am025-versal-aie-ml-register-reference",
    }
    MEMORY_END: Error "memory-end" {
        asks: "data end where the tile's data memory does: 64 KiB of a core tile, 512 KiB of a memory tile",
        effect: "the rest is lost or reaches registers behind the memory: buffers hold garbage",
        mend: "place less in this tile, or check the addresses of its buffers",
        source: "https://docs.amd.com/r/en-US/am020-versal-aie-ml/Memory-Tile-Overview",
    }
    PROGRAM_END: Error "program-end" {
        asks: "a program ends where the core's 16 KiB of program memory do",
        effect: "the core runs into whatever stands behind, and the kernel hangs",
        mend: "make the core's program smaller: optimise for size, or split it over cores",
        source: "https://docs.amd.com/r/en-US/am020-versal-aie-ml/AIE-ML-Tile-Architecture",
    }
    DESCRIPTOR_END: Error "descriptor-end" {
        asks: "a block that starts in a buffer descriptor ends with it, or with one of those that follow",
        effect: "the next descriptor is changed in part: its transfer moves other bytes than meant",
        mend: "write as many words as a descriptor has: 6 in a core tile, 8 in shim and memory tiles",
        source: "Xilinx/aie-rt:driver/src/dma/xaie_dma_aieml.c",
    }
    POLL: Error "poll-never" {
        asks: "a poll waits for bits of its mask alone",
        effect: "the wait never ends: the launch is killed after a timeout, for every context of the device",
        mend: "clear the bits of the value that the mask lacks",
        source: "Xilinx/aie-rt:driver/src/io_backend/ext/xaie_cdo.c",
    }
}

/// The columns that may be reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    /// How many, from 0.
    count: u16,
    /// Who says so.
    by: &'static str,
}

impl Columns {
    /// What a partition of this width has.
    pub(super) fn of_partition(width: u16) -> Columns {
        Columns { count: width, by: "the partition" }
    }

    /// What a device has; the widest one if it is not known.
    pub(super) fn of_device(device: Option<&'static Device>) -> Columns {
        match device {
            Some(device) => Columns { count: device.n_columns.into(), by: device.name },
            None => Columns { count: Device::N_COLUMNS_MAX.into(), by: "the widest device" },
        }
    }

    /// How many.
    pub(super) fn count(self) -> u16 {
        self.count
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has {} columns, from 0", self.by, self.count)
    }
}

/// An access of words from an address on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// Its first byte.
    pub(super) address: u64,
    /// A word, or a block.
    pub(super) size_bytes: u64,
}

/// Checks an access; returns what it reaches if nothing was found.
pub(super) fn check(
    access: Access,
    columns: Columns,
    place: &dyn fmt::Display,
    found: &mut Findings,
) -> Option<(Address, Register)> {
    let Ok(narrow) = u32::try_from(access.address) else {
        found.add(&COLUMN, place, format_args!("address {:#x}", access.address), columns);
        return None;
    };
    let address = Address::from(narrow);
    if !narrow.is_multiple_of(4) {
        found.add(&ALIGNMENT, place, Shown(address), "a multiple of 4");
        return None;
    }
    if u16::from(address.column) >= columns.count {
        found.add(&COLUMN, place, Shown(address), columns);
        return None;
    }
    let Some(kind) = address.tile_kind() else {
        found.add(&ROW, place, Shown(address), "rows 0 to 5");
        return None;
    };
    let Some(register) = address.register() else {
        found.add(&HOLE, place, Shown(address), format_args!("a {kind} has nothing there"));
        return None;
    };
    check_end(access, (address, register), kind, place, found).then_some((address, register))
}

/// Checks where a block ends; says whether it may end there.
fn check_end(
    access: Access,
    (address, register): (Address, Register),
    kind: TileKind,
    place: &dyn fmt::Display,
    found: &mut Findings,
) -> bool {
    if access.size_bytes <= 4 {
        return true;
    }
    let value = format_args!("{} bytes from {}", access.size_bytes, Shown(address));
    let (rule, left_bytes) = match register {
        Register::Data(offset) => (&MEMORY_END, kind.data_bytes().saturating_sub(offset)),
        Register::Program(offset) => (&PROGRAM_END, kind.program_bytes().saturating_sub(offset)),
        Register::BufferDescriptor { index, word } => {
            let fits = ends_with_descriptor(access.size_bytes / 4, kind, index, word);
            if !fits {
                let words = kind.buffer_descriptor_words();
                found.add(&DESCRIPTOR_END, place, value, format_args!("a {kind}'s descriptor has {words} words"));
            }
            return fits;
        }
        _ => return check_last(access, address, kind, place, found),
    };
    let fits = access.size_bytes <= u64::from(left_bytes);
    if !fits {
        found.add(rule, place, value, format_args!("{left_bytes} bytes are left there"));
    }
    fits
}

/// A block over registers ends at one.
fn check_last(
    access: Access,
    address: Address,
    kind: TileKind,
    place: &dyn fmt::Display,
    found: &mut Findings,
) -> bool {
    let last = u64::from(address.offset).saturating_add(access.size_bytes).saturating_sub(4);
    let fits = u32::try_from(last).is_ok_and(|last| contiguous_bytes(kind, last & !3) > 0);
    if !fits {
        let value = format_args!("{} bytes from {}", access.size_bytes, Shown(address));
        found.add(&HOLE, place, value, format_args!("a {kind} has nothing at {last:#x}"));
    }
    fits
}

/// Whether words from one of a descriptor on end with a descriptor of the tile. They start every 8 words; a core
/// tile's have 6.
fn ends_with_descriptor(n_words: u64, kind: TileKind, index: u8, word: u8) -> bool {
    let end = u64::from(word).saturating_add(n_words);
    let rest = end & 7;
    let whole = if rest == 0 { end / 8 } else { (end / 8).saturating_add(1) };
    let last = u64::from(index).saturating_add(whole);
    let is_inside = end <= u64::from(kind.buffer_descriptor_words());
    let ends = rest == 0 || rest == u64::from(kind.buffer_descriptor_words());
    last <= u64::from(kind.n_buffer_descriptors()) && (is_inside || ends)
}

/// Checks a wait for `register & mask == value`.
pub(super) fn check_poll(mask: u32, value: u32, place: &dyn fmt::Display, found: &mut Findings) {
    if value & !mask != 0 {
        found.add(&POLL, place, format_args!("value {value:#x}"), format_args!("the mask is {mask:#x}"));
    }
}

/// An address as findings write it.
struct Shown(Address);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { column, row, offset } = self.0;
        write!(f, "address {:#010x} (column {column}, row {row}, offset {offset:#x})", u32::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_access(address: u32, size_bytes: u64, expected: &[&str]) {
        let mut found = Findings::default();
        let access = Access { address: address.into(), size_bytes };
        check(access, Columns::of_partition(4), &"here", &mut found);
        let names: Vec<_> = found.listed().iter().map(|finding| finding.rule.name).collect();
        assert_eq!(names, expected, "{address:#x}, {size_bytes} bytes: {found:?}");
    }

    fn at(column: u32, row: u32, offset: u32) -> u32 {
        column << 25 | row << 20 | offset
    }

    #[test]
    fn an_access_stays_where_something_is() {
        check_access(at(0, 2, 0), 0x1_0000, &[]);
        check_access(at(0, 2, 4), 0x1_0000, &["memory-end"]);
        check_access(at(3, 1, 0x7_fff0), 16, &[]);
        check_access(at(3, 1, 0x7_fff0), 20, &["memory-end"]);
        check_access(at(0, 5, 0x2_0000), 0x4000, &[]);
        check_access(at(0, 5, 0x2_0010), 0x4000, &["program-end"]);
        check_access(at(4, 2, 0), 4, &["address-column"]);
        check_access(at(0, 6, 0), 4, &["address-row"]);
        check_access(at(0, 2, 0x1_0000), 4, &["address-hole"]);
        check_access(at(0, 0, 0x1_d002), 4, &["address-alignment"]);
        check_access(u32::MAX, u64::MAX, &["address-alignment"]);
    }

    #[test]
    fn a_block_ends_with_a_buffer_descriptor() {
        check_access(at(0, 0, 0x1_d000), 32, &[]);
        check_access(at(0, 0, 0x1_d004), 4, &[]);
        check_access(at(0, 0, 0x1_d004), 8, &[]);
        check_access(at(0, 0, 0x1_d004), 32, &["descriptor-end"]);
        check_access(at(0, 0, 0x1_d000), 64, &[]);
        check_access(at(0, 0, 0x1_d1e0), 64, &["descriptor-end"]);
        check_access(at(0, 2, 0x1_d000), 24, &[]);
        check_access(at(0, 2, 0x1_d000), 28, &["descriptor-end"]);
        check_access(at(0, 2, 0x1_d000), 56, &[]);
    }

    #[test]
    fn a_poll_can_hold() {
        let check = |mask, value, expected: usize| {
            let mut found = Findings::default();
            check_poll(mask, value, &"here", &mut found);
            assert_eq!(found.count("poll-never"), expected, "{mask:#x}, {value:#x}");
        };
        check(0xff, 0x7f, 0);
        check(0, 0, 0);
        check(0xf0, 0x1f, 1);
    }
}
