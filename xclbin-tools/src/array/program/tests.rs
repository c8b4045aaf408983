//! Programs by hand, and any bytes.

use proptest::prelude::*;

use super::*;
use crate::array::{Direction, TileKind};

fn write(column: u8, row: u8, offset: u32, value: u32) -> Event<'static> {
    Event::Write { address: Address { column, row, offset }, mask: u32::MAX, value }
}

fn program(events: impl IntoIterator<Item = Event<'static>>) -> Program {
    let mut program = Program::new(4);
    program.extend(events);
    program
}

/// A master port, a slave port and the circuit between them, by the numbers of their registers.
fn circuit(column: u8, row: u8, slave: u32, master: u32) -> [Event<'static>; 2] {
    let switch = if row == 1 { 0xb_0000 } else { 0x3_f000 };
    [write(column, row, switch + 4 * master, 1 << 31 | slave), write(column, row, switch + 0x100 + 4 * slave, 1 << 31)]
}

fn shown(program: &Program) -> Vec<String> {
    let flows = program.flows();
    let shown = flows.iter().map(|flow| {
        let ends: Vec<String> = flow.ends.iter().map(ToString::to_string).collect();
        let packets = flow.packets.map_or(String::new(), |packets| format!(", {packets}"));
        format!("{} -> {}: {} hops{packets}", flow.source, ends.join(" + "), flow.hops.len())
    });
    shown.collect()
}

#[test]
fn a_circuit_is_followed_across_tiles() {
    // Host memory to a core by the memory tile's switch, and on to the core above as well.
    let events = [
        circuit(0, 0, 5, 12).to_vec(), // south 3 -> north 0
        vec![write(0, 0, 0x1_f000, 1 << 10)],
        circuit(0, 1, 7, 11).to_vec(), // south 0 -> north 0
        circuit(0, 2, 5, 1).to_vec(),  // south 0 -> DMA 0
        circuit(0, 2, 5, 13).to_vec(), // south 0 -> north 0
        circuit(0, 3, 5, 2).to_vec(),  // south 0 -> DMA 1
    ];
    let program = program(events.concat());
    assert_eq!(shown(&program), ["0,0 MM2S 0 -> 0,2 S2MM 0 + 0,3 S2MM 1: 5 hops"]);
    assert!(program.flows().iter().all(Flow::is_whole));
}

#[test]
fn loose_ends_are_named() {
    let check = |events: Vec<Event<'static>>, expected: &[&str]| assert_eq!(shown(&program(events)), expected);
    // DMA 0 -> south 0, and below nothing.
    check(circuit(0, 2, 1, 5).to_vec(), &["0,2 MM2S 0 -> 0,1 north 0 (nothing takes the stream): 1 hops"]);
    // DMA 0 -> west 0 in the first column.
    check(circuit(0, 2, 1, 9).to_vec(), &["0,2 MM2S 0 -> 0,2 west 0 (leads out of the partition): 1 hops"]);
    // North 0 -> DMA 0, and above nothing.
    check(circuit(0, 2, 15, 1).to_vec(), &["0,2 north 0 (nothing feeds the stream) -> 0,2 S2MM 0: 1 hops"]);
    // East 0 -> west 0 and back: a circle.
    let circle = [circuit(0, 2, 19, 19), circuit(1, 2, 11, 9)].concat();
    check(circle, &["0,2 east 0 (nothing feeds the stream) -> 0,2 east 0 (goes in a circle): 2 hops"]);
    // A slave that is off.
    check(vec![write(0, 2, 0x3_f004, 1 << 31 | 5)], &[]);
    // A way out of the shim tile that is not its DMA.
    check(circuit(0, 0, 5, 12).to_vec(), &["0,0 interface 3 -> 0,1 south 0 (nothing takes the stream): 1 hops"]);
}

#[test]
fn packets_go_by_their_ids() {
    let slot =
        |id: u32, mask: u32, arbiter: u32, listener: u32| id << 24 | mask << 16 | 1 << 8 | listener << 4 | arbiter;
    let events = [
        write(0, 2, 0x3_f104, 3 << 30),
        // Id 1 to listener 0, id 2 to listener 1 of arbiter 3.
        write(0, 2, 0x3_f210, slot(1, 0x1f, 3, 0)),
        write(0, 2, 0x3_f214, slot(2, 0x1f, 3, 1)),
        write(0, 2, 0x3_f000, 3 << 30 | 0b0001 << 3 | 3),
        write(0, 2, 0x3_f00c, 3 << 30 | 0b0011 << 3 | 3),
        write(0, 2, 0x3_f008, 3 << 30 | 0b1111 << 3 | 4),
    ];
    let expected = [
        "0,2 MM2S 0 -> 0,2 control + 0,2 core stream: 2 hops, packets 1",
        "0,2 MM2S 0 -> 0,2 control: 1 hops, packets 2",
    ];
    assert_eq!(shown(&program(events)), expected);
}

#[test]
fn tiles_hold_what_was_written() {
    let words: Vec<u8> = (0..32).collect();
    let mut program = program([write(1, 3, 0x3_2000, 2)]);
    program.extend([
        Event::Write { address: Address { column: 1, row: 3, offset: 0x3_2000 }, mask: 3, value: 1 },
        Event::Block { address: Address { column: 1, row: 3, offset: 0x400 }, words: &words },
        Event::Block { address: Address { column: 1, row: 3, offset: 0x2_0010 }, words: &words },
        Event::Block { address: Address { column: 1, row: 3, offset: 0xfff8 }, words: &words },
        write(1, 3, 0x1_f020, 2),
        write(1, 3, 0x1_f030, 0x45),
    ]);
    let tile = program.tile(Place { column: 1, row: 3 }).unwrap();
    assert_eq!(tile.kind(), TileKind::Core);
    assert!(tile.is_core_enabled());
    assert_eq!(tile.data().iter().collect::<Vec<_>>(), [0x400..0x420, 0xfff8..0x1_0000]);
    assert_eq!(tile.program().iter().collect::<Vec<_>>(), std::slice::from_ref(&(0x10..0x30)));
    assert_eq!(tile.locks().collect::<Vec<_>>(), [(2, 2), (3, 5)]);
    assert_eq!(program.n_outside(), 6);
}

#[test]
fn a_start_names_the_argument_of_its_buffer() {
    let program = program([
        write(0, 0, 0x1_d020, 256),
        Event::Argument { address: 0x1_d024.into(), index: 2 },
        write(0, 0, 0x1_d214, 1 << 31 | 3 << 16 | 1),
        write(0, 0, 0x1_d024, 0),
        write(0, 0, 0x1_d204, 1),
    ]);
    let starts = program.tile(Place { column: 0, row: 0 }).unwrap().starts();
    let start = Start {
        direction: Direction::Mm2s,
        channel: 0,
        descriptor: 1,
        n_times: 4,
        has_token: true,
        length_bytes: 1024,
        argument: Some(2),
    };
    let again = Start { direction: Direction::S2mm, n_times: 1, has_token: false, argument: None, ..start };
    assert_eq!(starts, [start, again]);
}

#[test]
fn buffers_are_what_descriptors_reach() {
    let at = |bytes: u32| bytes >> 2;
    let program = program([
        // Memory tile 1: descriptor 0, 256 words at 0x100 of its own, then descriptor 1, which overlaps.
        write(1, 1, 0xa_0000, 256),
        write(1, 1, 0xa_0004, at(0x8_0100) | 1 << 19 | 1 << 20),
        write(1, 1, 0xa_0020, 256),
        write(1, 1, 0xa_0024, at(0x8_0200)),
        write(1, 1, 0xa_0604, 0),
        // Memory tile 0: into the next column's.
        write(0, 1, 0xa_0000, 4),
        write(0, 1, 0xa_0004, at(0x10_0800)),
        // A shim tile's are in host memory.
        write(1, 0, 0x1_d000, 4),
    ]);
    let own = |descriptor| User { place: Place { column: 1, row: 1 }, descriptor, channel: Some((Direction::S2mm, 0)) };
    let other = User { place: Place { column: 0, row: 1 }, descriptor: 0, channel: None };
    let expected = [
        Buffer { range: 0x100..0x600, users: vec![own(0), own(1)] },
        Buffer { range: 0x800..0x810, users: vec![other] },
    ];
    assert_eq!(program.buffers(Place { column: 1, row: 1 }), expected);
    assert_eq!(program.buffers(Place { column: 0, row: 1 }), []);
    assert_eq!(program.buffers(Place { column: 1, row: 0 }), []);
}

#[test]
fn what_is_outside_is_counted() {
    let check = |event: Event, expected| {
        let mut program = Program::new(1);
        program.apply(event);
        assert_eq!((program.n_outside(), program.tiles().count()), expected);
    };
    check(write(1, 2, 0, 0), (1, 0));
    check(write(0, 6, 0, 0), (1, 0));
    check(write(0, 2, 2, 0), (1, 1));
    check(Event::Block { address: Address { column: 0, row: 1, offset: 0x7_fffc }, words: &[0; 11] }, (1, 1));
    check(Event::Block { address: u32::MAX.into(), words: &[0; 8] }, (2, 0));
}

/// Addresses that mean something more often than any would.
fn any_address() -> impl Strategy<Value = Address> {
    let offsets = prop_oneof![
        any::<u32>(),
        (0_u32..0x40).prop_map(|word| 0x3_f000 + word * 4),
        (0_u32..0x100).prop_map(|word| 0x3_f100 + word * 4),
        (0_u32..0x100).prop_map(|word| 0xb_0000 + word * 4),
        (0_u32..0x80).prop_map(|word| 0x1_d000 + word * 4),
    ];
    (0_u8..3, 0_u8..7, offsets).prop_map(|(column, row, offset)| Address { column, row, offset })
}

proptest! {
    #[test]
    fn any_writes_make_a_program(
        writes in prop::collection::vec((any_address(), any::<u32>()), 0..400),
        blocks in prop::collection::vec((any_address(), prop::collection::vec(any::<u8>(), 0..300)), 0..4),
    ) {
        let mut program = Program::new(2);
        program.extend(writes.iter().map(|&(address, value)| Event::Write { address, mask: u32::MAX, value }));
        program.extend(blocks.iter().map(|(address, words)| Event::Block { address: *address, words }));
        let n_registers: usize = program.tiles().map(|(_, tile)| tile.n_switch_registers()).sum();
        let flows = program.flows();
        prop_assert!(flows.iter().map(|flow| flow.hops.len()).sum::<usize>() <= n_registers * 16);
        for (place, tile) in program.tiles() {
            prop_assert!(place.column < 2 && place.row < 6);
            prop_assert!(tile.data().n_bytes() <= tile.kind().data_bytes());
            prop_assert!(tile.descriptors().count() <= usize::from(tile.kind().n_buffer_descriptors()));
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn every_switch_register_counts(seed in prop::collection::vec(any::<u32>(), 150)) {
        // All ports of every tile at once, so that packets go everywhere: hops stay within their bound.
        let mut program = Program::new(2);
        for (column, row) in (0..2).flat_map(|column| (0..6).map(move |row| (column, row))) {
            let switch = if row == 1 { 0xb_0000 } else { 0x3_f000 };
            for (word, &value) in (0_u32..).zip(&seed) {
                let (at, value) = match word {
                    0..25 => (word * 4, value | 3 << 30 | 0x78),
                    25..50 => (0x100 + (word - 25) * 4, 3 << 30),
                    _ => (0x200 + (word - 50) * 4, 1 << 8 | value & 7),
                };
                program.apply(write(column, row, switch + at, value));
            }
        }
        let n_registers: usize = program.tiles().map(|(_, tile)| tile.n_switch_registers()).sum();
        let flows = program.flows();
        let n_hops: usize = flows.iter().map(|flow| flow.hops.len()).sum();
        let n_ends: usize = flows.iter().map(|flow| flow.ends.len()).sum();
        prop_assert!(n_ends <= n_hops + 2 * flows.len());
        prop_assert!(flows.len() <= n_registers);
        prop_assert!(n_hops <= n_registers * 16);
    }
}
