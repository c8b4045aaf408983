//! Streams through the array: connections of each tile's switch, and from these whole flows, hop by hop.
//!
//! A circuit connects one slave port with any number of masters. Packets go by id: a slot of a slave port takes some
//! ids to an arbiter, and every master port that listens to that arbiter sends them on. Fields: AM025,
//! `Stream_Switch_Master_Config_*`, `Stream_Switch_Slave_*`, `Mux_Config`, `Demux_Config`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
};

use super::{Place, Program, descriptor::bits};
use crate::array::{Bundle, Device, Direction, Port, Register, TileKind};

/// A way through a stream switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where the stream enters.
    pub slave: Port,
    /// Where it leaves.
    pub master: Port,
    /// Which packets take it; none for a circuit.
    pub packets: Option<Packets>,
}

/// Ids of packets: those that equal `id` in the bits of `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packets {
    /// Five bits.
    pub id: u8,
    /// Five bits.
    pub mask: u8,
}

impl Packets {
    /// A bit for each id.
    #[must_use]
    pub fn ids(self) -> u32 {
        (0..32_u8).filter(|id| (id ^ self.id) & self.mask == 0).fold(0, |ids, id| ids | 1_u32.wrapping_shl(id.into()))
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.mask & 0x1f {
            0x1f => write!(f, "packets {}", self.id),
            0 => f.write_str("all packets"),
            mask => write!(f, "packets {}, mask {mask:#04x}", self.id),
        }
    }
}

/// A stream from its source to all its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where it begins.
    pub source: End,
    /// Which packets; none for a circuit.
    pub packets: Option<Packets>,
    /// Each behind one that leads to it.
    pub hops: Vec<Hop>,
    /// Where it goes, in the order of the hops.
    pub ends: Vec<End>,
}

impl Flow {
    /// Whether its source and all its ends are something.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.source.is_loose() && !self.ends.iter().any(|end| end.is_loose())
    }
}

/// A way through the switch of one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The tile.
    pub place: Place,
    /// Where the stream enters.
    pub slave: Port,
    /// Where it leaves.
    pub master: Port,
}

/// Where a flow begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// The tile.
    pub place: Place,
    /// The port of its switch.
    pub port: Port,
    /// What is there.
    pub kind: EndKind,
}

/// What a flow begins or ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndKind {
    /// A DMA channel.
    Dma(Direction, u8),
    /// The core's streams.
    Core,
    /// Control packets.
    Control,
    /// Trace packets.
    Trace,
    /// A shim tile's way out that is not its DMA.
    Interface,
    /// Nothing: the stream would stall. Says why.
    Loose(&'static str),
}

impl End {
    /// Whether nothing is there.
    #[must_use]
    pub fn is_loose(&self) -> bool {
        matches!(self.kind, EndKind::Loose(_))
    }
}

impl fmt::Display for End {
    /// As `0,2 S2MM 1`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} ", self.place)?;
        match self.kind {
            EndKind::Dma(direction, channel) => write!(f, "{direction} {channel}"),
            EndKind::Core => f.write_str("core stream"),
            EndKind::Control => f.write_str("control"),
            EndKind::Trace => write!(f, "{}", self.port),
            EndKind::Interface => write!(f, "interface {}", self.port.index),
            EndKind::Loose(why) => write!(f, "{} ({why})", self.port),
        }
    }
}

const HOPS_PER_REGISTER: usize = 16;

const NOT_TAKEN: &str = "nothing takes the stream";
const NOT_FED: &str = "nothing feeds the stream";
const OUTSIDE: &str = "leads out of the partition";
const CIRCLE: &str = "goes in a circle";
const TOO_MANY: &str = "too many ways to follow";

/// The registers of a switch's ports.
pub(super) fn offsets(kind: TileKind) -> RangeInclusive<u32> {
    let first = if kind == TileKind::Memory { 0xb_0000 } else { 0x3_f000 };
    first..=first | 0x3ff
}

/// The connections that a switch's registers make.
pub(super) fn connections(kind: TileKind, registers: &BTreeMap<u32, u32>) -> Vec<Connection> {
    let (mut masters, mut slaves, mut slots) = (Vec::new(), BTreeMap::new(), Vec::new());
    for (&offset, &value) in registers.range(offsets(kind)) {
        match Register::at(kind, offset) {
            Some(Register::Master(port)) => masters.push((port, Switching::of(value), value)),
            Some(Register::Slave(port)) => drop(slaves.insert(port, Switching::of(value))),
            Some(Register::Slot(port, _)) if bits(value, 8, 1) == 1 => slots.push((port, value)),
            _ => {}
        }
    }
    let mut connections = Vec::new();
    for (master, switching, value) in masters {
        match switching {
            Switching::Off => {}
            Switching::Circuit => {
                let slave = kind.slave(bits(value, 0, 5));
                let slave = slave.filter(|slave| slaves.get(slave) == Some(&Switching::Circuit));
                connections.extend(slave.map(|slave| Connection { slave, master, packets: None }));
            }
            Switching::Packets => {
                let (arbiter, listens) = (bits(value, 0, 3), bits(value, 3, 4));
                for &(slave, slot) in &slots {
                    let is_heard = bits(slot, 0, 3) == arbiter && bits(listens, bits(slot, 4, 2), 1) == 1;
                    if is_heard && slaves.get(&slave) == Some(&Switching::Packets) {
                        let [id, mask] = [bits(slot, 24, 5), bits(slot, 16, 5)].map(|field| field.to_le_bytes()[0]);
                        connections.push(Connection { slave, master, packets: Some(Packets { id, mask }) });
                    }
                }
            }
        }
    }
    connections.sort_by_key(|connection| (connection.slave, connection.packets, connection.master));
    connections
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Switching {
    Off,
    Circuit,
    Packets,
}

impl Switching {
    fn of(value: u32) -> Switching {
        match bits(value, 30, 2) {
            0b10 => Switching::Circuit,
            0b11 => Switching::Packets,
            _ => Switching::Off,
        }
    }
}

impl Program {
    /// The flows through the partition, by source; those that nothing feeds come last.
    ///
    /// Packets of every source may pass every switch: following stops where all flows together have sixteen times as
    /// many hops as switches have registers that were written.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        let connections: BTreeMap<Place, Vec<Connection>> =
            self.tiles().map(|(place, tile)| (place, tile.connections())).collect();
        let n_registers = self.tiles().map(|(_, tile)| tile.n_switch_registers()).sum::<usize>();
        let mut tracer = Tracer {
            program: self,
            connections,
            visited: BTreeSet::new(),
            n_left: n_registers.saturating_mul(HOPS_PER_REGISTER),
        };
        let mut flows = Vec::new();
        for (place, slave, packets) in tracer.entries() {
            if let Some(kind) = self.origin(place, slave) {
                flows.push(tracer.follow(End { place, port: slave, kind }, packets));
            }
        }
        // What no source reaches: first where nothing leads to, then circles.
        for is_circle in [false, true] {
            for (place, slave, packets) in tracer.entries() {
                let is_new = !tracer.visited.contains(&(place, slave, packets));
                if is_new && self.origin(place, slave).is_none() && (is_circle || !tracer.is_fed(place, slave)) {
                    flows.push(tracer.follow(End { place, port: slave, kind: EndKind::Loose(NOT_FED) }, packets));
                }
            }
        }
        flows
    }

    /// What a slave port is fed by, unless by another switch.
    pub(crate) fn origin(&self, place: Place, slave: Port) -> Option<EndKind> {
        match slave.bundle {
            Bundle::Dma => Some(EndKind::Dma(Direction::Mm2s, slave.index)),
            Bundle::Core => Some(EndKind::Core),
            Bundle::Control => Some(EndKind::Control),
            Bundle::Trace => Some(EndKind::Trace),
            Bundle::South if place.row == 0 => {
                let mux = self.tile(place).map_or(0, |tile| tile.register(0x1_f000));
                Some(match slave.index {
                    3 if bits(mux, 10, 2) == DMA => EndKind::Dma(Direction::Mm2s, 0),
                    7 if bits(mux, 14, 2) == DMA => EndKind::Dma(Direction::Mm2s, 1),
                    _ => EndKind::Interface,
                })
            }
            _ => None,
        }
    }

    /// The slave port behind a master port, or what ends there.
    pub(crate) fn leads_to(&self, place: Place, master: Port) -> Result<(Place, Port), EndKind> {
        let Place { column, row } = place;
        let (column, row, bundle) = match master.bundle {
            Bundle::Dma => return Err(EndKind::Dma(Direction::S2mm, master.index)),
            Bundle::Core => return Err(EndKind::Core),
            Bundle::Control => return Err(EndKind::Control),
            Bundle::Trace => return Err(EndKind::Trace),
            Bundle::South if row == 0 => {
                let demux = self.tile(place).map_or(0, |tile| tile.register(0x1_f004));
                return Err(match master.index {
                    2 if bits(demux, 4, 2) == DMA => EndKind::Dma(Direction::S2mm, 0),
                    3 if bits(demux, 6, 2) == DMA => EndKind::Dma(Direction::S2mm, 1),
                    _ => EndKind::Interface,
                });
            }
            Bundle::Fifo => (Some(column), Some(row), Bundle::Fifo),
            Bundle::North => (Some(column), row.checked_add(1), Bundle::South),
            Bundle::South => (Some(column), row.checked_sub(1), Bundle::North),
            Bundle::East => (column.checked_add(1), Some(row), Bundle::West),
            Bundle::West => (column.checked_sub(1), Some(row), Bundle::East),
        };
        let (Some(column), Some(row)) = (column, row) else { return Err(EndKind::Loose(OUTSIDE)) };
        if column >= self.n_columns() || row >= Device::N_ROWS {
            return Err(EndKind::Loose(OUTSIDE));
        }
        Ok((Place { column, row }, Port { bundle, index: master.index }))
    }
}

/// A slave port, or those of its slots that take the same packets.
type Entry = (Place, Port, Option<Packets>);

struct Tracer<'a> {
    program: &'a Program,
    connections: BTreeMap<Place, Vec<Connection>>,
    /// What flows have passed.
    visited: BTreeSet<Entry>,
    /// Hops that may still be followed.
    n_left: usize,
}

impl Tracer<'_> {
    fn entries(&self) -> Vec<Entry> {
        let entries = self.connections.iter().flat_map(|(place, connections)| {
            connections.iter().map(|connection| (*place, connection.slave, connection.packets))
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.dedup();
        entries
    }

    fn at(&self, place: Place, slave: Port) -> impl Iterator<Item = Connection> + use<'_> {
        let connections = self.connections.get(&place).map_or(&[][..], Vec::as_slice);
        connections.iter().copied().filter(move |connection| connection.slave == slave)
    }

    fn follow(&mut self, source: End, packets: Option<Packets>) -> Flow {
        let mut flow = Flow { source, packets, hops: Vec::new(), ends: Vec::new() };
        let mut passed = BTreeSet::new();
        let mut open = vec![(source.place, source.port, packets.map_or(u32::MAX, Packets::ids))];
        while let Some((place, slave, ids)) = open.pop() {
            let is_first = flow.hops.is_empty();
            let mut taken: Vec<(Connection, u32)> = self
                .at(place, slave)
                .filter(|connection| !is_first || connection.packets == packets)
                .map(|connection| (connection, connection.packets.map_or(u32::MAX, Packets::ids) & ids))
                .filter(|(_, ids)| *ids != 0)
                .collect();
            if taken.is_empty() {
                flow.ends.push(End { place, port: slave, kind: EndKind::Loose(NOT_TAKEN) });
            }
            // The stack gives back the last one first.
            taken.reverse();
            for (connection, ids) in taken {
                let master = connection.master;
                self.visited.insert((place, slave, connection.packets));
                if !passed.insert((place, slave, connection.packets, master)) {
                    continue;
                }
                let Some(n_left) = self.n_left.checked_sub(1) else {
                    flow.ends.push(End { place, port: slave, kind: EndKind::Loose(TOO_MANY) });
                    return flow;
                };
                self.n_left = n_left;
                flow.hops.push(Hop { place, slave, master });
                match self.program.leads_to(place, master) {
                    Ok((next, port)) => open.push((next, port, ids)),
                    Err(kind) => flow.ends.push(End { place, port: master, kind }),
                }
            }
        }
        if flow.ends.is_empty() {
            flow.ends.push(End { kind: EndKind::Loose(CIRCLE), ..source });
        }
        flow
    }

    /// Whether a switch sends anything to a slave port.
    fn is_fed(&self, place: Place, slave: Port) -> bool {
        let Place { column, row } = place;
        let (column, row, bundle) = match slave.bundle {
            Bundle::Fifo => (Some(column), Some(row), Bundle::Fifo),
            Bundle::North => (Some(column), row.checked_add(1), Bundle::South),
            Bundle::South => (Some(column), row.checked_sub(1), Bundle::North),
            Bundle::East => (column.checked_add(1), Some(row), Bundle::West),
            Bundle::West => (column.checked_sub(1), Some(row), Bundle::East),
            _ => return false,
        };
        let (Some(column), Some(row)) = (column, row) else { return false };
        let master = Port { bundle, index: slave.index };
        let connections = self.connections.get(&Place { column, row });
        connections.is_some_and(|connections| connections.iter().any(|connection| connection.master == master))
    }
}

/// The value of a field of the shim tile's multiplexers that selects its DMA; 0 is programmable logic, 2 the way to
/// the network on the chip.
const DMA: u32 = 1;
