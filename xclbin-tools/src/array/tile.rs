//! The kinds of tiles: their memories, counts, and the ports of their stream switches.

use std::fmt;

/// What a tile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Between the array and host memory.
    Shim,
    /// 512 KiB, shared by a column and its neighbours.
    Memory,
    /// A core with its own 64 KiB.
    Core,
}

impl TileKind {
    /// Bytes of data memory.
    #[must_use]
    pub fn data_bytes(self) -> u32 {
        match self {
            TileKind::Shim => 0,
            TileKind::Memory => 0x8_0000,
            TileKind::Core => 0x1_0000,
        }
    }

    /// Bytes of program memory.
    #[must_use]
    pub fn program_bytes(self) -> u32 {
        if self == TileKind::Core { 0x4000 } else { 0 }
    }

    /// Buffer descriptors of its DMA.
    #[must_use]
    pub fn n_buffer_descriptors(self) -> u8 {
        if self == TileKind::Memory { 48 } else { 16 }
    }

    /// Words of a buffer descriptor; each starts 32 bytes behind the one before.
    #[must_use]
    pub fn buffer_descriptor_words(self) -> u8 {
        if self == TileKind::Core { 6 } else { 8 }
    }

    /// Locks.
    #[must_use]
    pub fn n_locks(self) -> u8 {
        if self == TileKind::Memory { 64 } else { 16 }
    }

    /// DMA channels in each direction.
    #[must_use]
    pub fn n_channels(self) -> u8 {
        if self == TileKind::Memory { 6 } else { 2 }
    }

    /// The ports by which streams leave the switch, in the order of their registers.
    #[must_use]
    pub fn masters(self) -> &'static [(Bundle, u8)] {
        use Bundle::{Control, Core, Dma, East, Fifo, North, South, West};
        match self {
            TileKind::Shim => &[(Control, 1), (Fifo, 1), (South, 6), (West, 4), (North, 6), (East, 4)],
            TileKind::Memory => &[(Dma, 6), (Control, 1), (South, 4), (North, 6)],
            TileKind::Core => {
                &[(Core, 1), (Dma, 2), (Control, 1), (Fifo, 1), (South, 4), (West, 4), (North, 6), (East, 4)]
            }
        }
    }

    /// The ports by which streams enter the switch, in the order of their registers.
    #[must_use]
    pub fn slaves(self) -> &'static [(Bundle, u8)] {
        use Bundle::{Control, Core, Dma, East, Fifo, North, South, Trace, West};
        match self {
            TileKind::Shim => &[(Control, 1), (Fifo, 1), (South, 8), (West, 4), (North, 4), (East, 4), (Trace, 1)],
            TileKind::Memory => &[(Dma, 6), (Control, 1), (South, 6), (North, 4), (Trace, 1)],
            TileKind::Core => &[
                (Core, 1),
                (Dma, 2),
                (Control, 1),
                (Fifo, 1),
                (South, 6),
                (West, 4),
                (North, 4),
                (East, 4),
                (Trace, 2),
            ],
        }
    }

    /// The slave port of a number, as a master's register names it.
    #[must_use]
    pub fn slave(self, number: u32) -> Option<Port> {
        port(self.slaves(), number)
    }

    /// The master port of a number.
    #[must_use]
    pub fn master(self, number: u32) -> Option<Port> {
        port(self.masters(), number)
    }
}

impl fmt::Display for TileKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            TileKind::Shim => "shim tile",
            TileKind::Memory => "memory tile",
            TileKind::Core => "core tile",
        })
    }
}

fn port(ports: &[(Bundle, u8)], number: u32) -> Option<Port> {
    let mut left = u8::try_from(number).ok()?;
    for &(bundle, count) in ports {
        match left.checked_sub(count) {
            Some(rest) => left = rest,
            None => return Some(Port { bundle, index: left }),
        }
    }
    None
}

/// Where the ports of a stream switch lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bundle {
    /// The core's own streams.
    Core,
    /// The tile's DMA.
    Dma,
    /// Control packets, which read and write the tile's registers.
    Control,
    /// A buffer of the switch itself.
    Fifo,
    /// The tile below; of a shim tile, its DMA and the way out.
    South,
    /// The tile in the column before.
    West,
    /// The tile above.
    North,
    /// The tile in the next column.
    East,
    /// Trace packets; of a core tile, 0 is the core's and 1 the memory's.
    Trace,
}

/// A port of a stream switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Where it leads.
    pub bundle: Bundle,
    /// Which of its bundle.
    pub index: u8,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let bundle = match self.bundle {
            Bundle::Core => "core",
            Bundle::Dma => "DMA",
            Bundle::Control => "control",
            Bundle::Fifo => "FIFO",
            Bundle::South => "south",
            Bundle::West => "west",
            Bundle::North => "north",
            Bundle::East => "east",
            Bundle::Trace => "trace",
        };
        write!(f, "{bundle} {}", self.index)
    }
}

/// Which way a DMA channel moves data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From a stream into memory.
    S2mm,
    /// From memory into a stream.
    Mm2s,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if *self == Direction::S2mm { "S2MM" } else { "MM2S" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbered_as_their_registers() {
        let check = |port: Option<Port>, expected: Option<(Bundle, u8)>| {
            assert_eq!(port.map(|port| (port.bundle, port.index)), expected);
        };
        check(TileKind::Core.slave(5), Some((Bundle::South, 0)));
        check(TileKind::Core.slave(24), Some((Bundle::Trace, 1)));
        check(TileKind::Core.slave(25), None);
        check(TileKind::Core.master(13), Some((Bundle::North, 0)));
        check(TileKind::Core.master(22), Some((Bundle::East, 3)));
        check(TileKind::Memory.slave(17), Some((Bundle::Trace, 0)));
        check(TileKind::Memory.master(16), Some((Bundle::North, 5)));
        check(TileKind::Memory.master(17), None);
        check(TileKind::Shim.slave(5), Some((Bundle::South, 3)));
        check(TileKind::Shim.master(12), Some((Bundle::North, 0)));
        check(TileKind::Shim.master(u32::MAX), None);
    }
}
