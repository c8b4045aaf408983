//! Pictures, by their structure.

use proptest::prelude::*;
use roxmltree::Document;

use super::*;
use crate::array::{Address, Event};

/// A column that adds in its core: host memory to core 0,2 and back, with a buffer each way.
fn adder() -> Program {
    let mut program = Program::new(1);
    let mut write = |row, offset, value| {
        program.apply(Event::Write { address: Address { column: 0, row, offset }, mask: u32::MAX, value });
    };
    let mut circuit = |row, slave: u32, master: u32| {
        let switch = if row == 1 { 0xb_0000 } else { 0x3_f000 };
        write(row, switch + 4 * master, 1 << 31 | slave);
        write(row, switch + 0x100 + 4 * slave, 1 << 31);
    };
    // Up: south 3 -> north 0, south 0 -> north 0, south 0 -> DMA 0.
    circuit(0, 5, 12);
    circuit(1, 7, 11);
    circuit(2, 5, 1);
    // Down: DMA 0 -> south 0, north 0 -> south 0, north 0 -> south 2.
    circuit(2, 1, 5);
    circuit(1, 13, 7);
    circuit(0, 14, 4);
    write(0, 0x1_f000, 1 << 10);
    write(0, 0x1_f004, 1 << 4);
    for (descriptor, at) in [(0, 0x400_u32), (1, 0x2000)] {
        write(2, 0x1_d000 + 0x20 * descriptor, (at >> 2) << 14 | 256);
        write(2, 0x1_d014 + 0x20 * descriptor, 1 << 25);
        write(2, 0x1_de04 + 0x10 * descriptor, descriptor);
    }
    write(2, 0x3_2000, 1);
    write(2, 0x2_0000, 7);
    program
}

fn classes<'a>(document: &'a Document, class: &str) -> Vec<roxmltree::Node<'a, 'a>> {
    let has = |node: &roxmltree::Node| {
        node.attribute("class").is_some_and(|classes| classes.split(' ').any(|other| other == class))
    };
    document.descendants().filter(has).collect()
}

#[test]
fn a_picture_has_all_there_is() {
    let program = adder();
    let svg = Picture { title: "adder.xclbin", program: &program, tile: None }.svg();
    let document = Document::parse(&svg).unwrap();
    let check = |class: &str, expected: usize| assert_eq!(classes(&document, class).len(), expected, "{class}");
    check("tile", 6);
    check("core", 4);
    check("memory", 1);
    check("shim", 1);
    check("idle", 3);
    check("buffer", 2);
    check("flow", 2);
    check("flow-entry", 2);
    check("channel", 4 + 12 + 4);
    check("shared", 0);
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for expected in [
        "adder.xclbin",
        "1 column · 1 core running · 2 flows",
        "0,0 MM2S 0 → 0,2 S2MM 0",
        "0,2 MM2S 0 → 0,0 S2MM 0",
        "buffer at 0x400, 1 KiB\nS2MM 0 of 0,2, descriptor 0",
        "buffer at 0x2000, 1 KiB\nMM2S 0 of 0,2, descriptor 1",
        "program 4 B · runs",
    ] {
        assert!(texts.contains(&expected), "{expected:?} not in {texts:?}");
    }
}

#[test]
fn buffers_are_to_scale() {
    let program = adder();
    let svg = Picture { title: "", program: &program, tile: None }.svg();
    let document = Document::parse(&svg).unwrap();
    let number = |node: &roxmltree::Node, name| node.attribute(name).unwrap().parse::<f64>().unwrap();
    let bank = classes(&document, "bank").into_iter().map(|bank| number(&bank, "width")).fold(0.0, f64::max);
    let frames: Vec<f64> = classes(&document, "frame").iter().map(|frame| number(frame, "width")).collect();
    // 1 KiB of a row of 16, and the legend's own.
    let width = (bank / 16.0 * 10.0).round() / 10.0;
    assert_eq!(frames, [width, width, 22.0]);
}

#[test]
fn one_tile_is_listed() {
    let program = adder();
    let tile = Some(Place { column: 0, row: 2 });
    let svg = Picture { title: "", program: &program, tile }.svg();
    let document = Document::parse(&svg).unwrap();
    assert_eq!(classes(&document, "tile").len(), 1);
    let lines: Vec<&str> = classes(&document, "mono").iter().filter_map(|node| node.text()).collect();
    let expected = [
        "descriptor  0  S2MM 0  0x00400 1 KiB",
        "descriptor  1  MM2S 0  0x02000 1 KiB",
        "stream  DMA 0 -> south 0",
        "stream  south 0 -> DMA 0",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn sizes_have_units() {
    let check = |n_bytes, expected: &str| assert_eq!(size(n_bytes), expected);
    check(0, "0 B");
    check(1023, "1023 B");
    check(1024, "1 KiB");
    check(1536, "1.5 KiB");
    check(5 << 29, "2.5 GiB");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_program_is_a_picture(
        title: String,
        writes in prop::collection::vec((0_u8..2, 0_u8..6, any::<bool>(), 0_u32..0x100, any::<u32>()), 0..500),
    ) {
        let mut program = Program::new(2);
        for (column, row, is_switch, word, value) in writes {
            let base = match (is_switch, row) {
                (true, 1) => 0xb_0000,
                (true, _) => 0x3_f000,
                (false, 1) => 0xa_0000,
                (false, _) => 0x1_d000,
            };
            let address = Address { column, row, offset: base + word * 4 };
            program.apply(Event::Write { address, mask: u32::MAX, value });
        }
        let picture = Picture { title: &title, program: &program, tile: None };
        let svg = picture.svg();
        let document = Document::parse(&svg).unwrap();
        prop_assert_eq!(classes(&document, "tile").len(), 12);
        prop_assert_eq!(classes(&document, "flow").len(), program.flows().len());
        prop_assert_eq!(svg, picture.svg());
        let tile = Picture { tile: Some(Place { column: 1, row: 1 }), ..picture }.svg();
        prop_assert!(Document::parse(&tile).is_ok());
    }
}
