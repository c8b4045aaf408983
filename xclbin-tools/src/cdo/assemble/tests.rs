use crate::words::Words;
use proptest::prelude::*;

use super::assemble;
use crate::{
    Error,
    array::{Event, Place, Program},
    cdo::{Builder, Cdo, Command, Form, dump, tests::cdo_of},
};

fn check(text: &str, words: &[u32]) {
    assert_eq!(assemble(text).expect("a CDO"), cdo_of(words), "{text}");
}

fn check_error(text: &str, place: (usize, usize), words: &str) {
    match assemble(text) {
        Err(Error::Text { line, column, reason: expected, .. }) => {
            assert!(expected.contains(words), "{expected}");
            assert_eq!((line, column), place, "{expected}");
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

fn check_dump(words: &[u32], expected: &str) {
    let bytes = cdo_of(words);
    let text = dump(&Cdo::parse(&bytes).expect("a CDO"));
    assert_eq!(text.split_once('\n').expect("a comment first").1, expected);
    assert_eq!(assemble(&text).expect("a CDO"), bytes);
}

#[test]
fn lines_are_commands() {
    check("", &[]);
    check("; nothing\n\n   ; at all", &[]);
    check("nop", &[0x111]);
    check("nop 1 2 ; padding", &[0x0002_0111, 1, 2]);
    check("write 0x2001d000 value=0xffffffff", &[0x0002_0103, 0x2001_d000, u32::MAX]);
    check("write tile(1,2)+0x1d000 value=5\r\nnop\r\n", &[0x0002_0103, 0x0221_d000, 5, 0x111]);
    check("  write tile( 1 , 2 ) value=5 # a comment too", &[0x0002_0103, 0x0220_0000, 5]);
    check("write64 0x100000010 value=5", &[0x0003_0108, 1, 0x10, 5]);
    check("mask_write 16 mask=1 value=2", &[0x0003_0102, 16, 1, 2]);
    check("mask_poll tile(0,3)+4 mask=1 value=0 timeout_us=100", &[0x0004_0101, 0x0030_0004, 1, 0, 100]);
    check("dma_write tile(0,1)+0x10 1\n 2 3\n\n4", &[0x0006_0105, 0, 0x10_0010, 1, 2, 3, 4]);
    check("dma_xfer 0x100000001 2 words=3 flags=4", &[0x0006_0109, 1, 1, 0, 2, 3, 4]);
    check("log_string 0x41", &[0x0001_0117, 0x41]);
    check("command 0x103 1 2 3", &[0x0003_0103, 1, 2, 3]);
    check("command.long.reserved=0xff 0xf01", &[0xffff_0f01, 0]);
}

#[test]
fn what_is_unusual_has_directives() {
    let bytes = assemble(".version 0x132\n.checksum 7\nnop\n.padding 1\n2\n.bytes 3 4").expect("a CDO");
    let cdo = Cdo::parse(&bytes).expect("a CDO");
    assert_eq!((cdo.version, cdo.checksum.stored, cdo.length_words), (0x132, 7, 1));
    assert_eq!(cdo.trailing, [1, 0, 0, 0, 2, 0, 0, 0, 3, 4]);
    assert_eq!(assemble(&dump(&cdo)), Ok(bytes.clone()));
}

#[test]
fn errors_have_places() {
    check_error("nop\n  wrote 1 2", (2, 3), "no command has this name");
    check_error("write 1", (1, 1), "ADDRESS value=V");
    check_error("write 1 2", (1, 9), "ADDRESS value=V");
    check_error("mask_write 1 value=2 mask=3", (1, 14), "mask=M value=V");
    check_error("write 1 value=2 value=2", (1, 17), "ADDRESS value=V");
    check_error("nop value=2", (1, 5), "WORD...");
    check_error("wrote", (1, 1), "mask_poll, mask_write, write, delay");
    check_error(&"w".repeat(1_000_000), (1, 1), "no command has this name");
    check_error("write", (1, 6), "ADDRESS value=V");
    check_error("nop\nwrite 1 value=2\n 3", (2, 1), "ADDRESS value=V");
    check_error("write 1 value=0x", (1, 15), "32 bits");
    check_error("write 1 value=0x+1", (1, 15), "32 bits");
    check_error("write 1 value=4294967296", (1, 15), "32 bits");
    check_error("write 0x100000000 1", (1, 7), "an address");
    check_error("write tile(128,0)+0 1", (1, 12), "a column below 128");
    check_error("write tile(0,32) 1", (1, 14), "a row below 32");
    check_error("write tile(0,2)+0x100000 1", (1, 17), "an offset below");
    check_error("write tile(0)+1 1", (1, 7), "an address");
    check_error("write tile(0,1 1", (1, 7), "`)` is missing");
    check_error("1 2", (1, 1), "follows none");
    check_error("nop.wide", (1, 5), "`long`");
    check_error("nop.reserved=256", (1, 14), "below 0x100");
    check_error("command 0x10000", (1, 9), "below 0x10000");
    check_error(".version 0x300", (1, 10), "0x132 to 0x2ff");
    check_error(".checksum 1 2", (1, 13), "the line ends");
    check_error(".checksum", (1, 10), "the checksum");
    check_error(".colour", (1, 1), "are known");
    check_error(".padding 1\nnop", (2, 1), "stand before");
    check_error(".bytes 1\n.padding 1", (2, 1), "before `.bytes`");
    check_error(".bytes 256", (1, 8), "below 0x100");
}

#[test]
fn texts_are_readable() {
    check_dump(
        &[0x0002_0103, 0x0021_f000, 1],
        "write tile(0,2)+0x1f000 value=0x1                                ; lock 0\n",
    );
    check_dump(&[0x0003_0108, 1, 0x10, 5], "write64 0x100000010 value=0x5\n");
    check_dump(&[0x0001_0111, 0], "nop 0x00000000\n");
    check_dump(&[0x0003_0103, 1, 2, 3], "command 0x103 0x00000001 0x00000002 0x00000003\n");
    let data = "    0x00000001 0x00000001 0x00000001 0x00000001 0x00000001 0x00000001 0x00000001 0x00000001\n";
    let mut words = vec![0x0013_0105, 0, 0x10_0000];
    words.extend([1; 17]);
    let text = format!("{:64} ; data memory 0x0\n{data}{data}    0x00000001\n", "dma_write tile(0,1)+0x0");
    check_dump(&words, &text);
}

/// The flows and the number of buffers of a text of ours, all of whose words reach something.
fn check_program(text: &str, flows: &[&str], n_buffers: usize) {
    let bytes = assemble(text).expect("a CDO");
    let cdo = Cdo::parse(&bytes).expect("a CDO");
    let mut program = Program::new(1);
    program.extend(cdo.commands().filter_map(|entry| Event::of_command(&entry.command)));
    assert_eq!(program.n_outside(), 0);
    let found: Vec<String> = program
        .flows()
        .iter()
        .inspect(|flow| assert!(flow.is_whole(), "{flow:?}"))
        .map(|flow| flow.ends.iter().fold(flow.source.to_string(), |path, end| format!("{path} -> {end}")))
        .collect();
    assert_eq!(found, flows);
    let buffers = program.buffers(Place { column: 0, row: 1 });
    assert_eq!(buffers.len(), n_buffers);
    for buffer in buffers {
        assert_eq!((buffer.range.len(), buffer.users.len()), (4096, 2));
        assert!(buffer.users.iter().all(|user| user.channel.is_some()));
    }
}

#[test]
fn texts_of_ours_are_whole_programs() {
    let text = include_str!("../../../tests/fixtures/passthrough.cdo.txt");
    check_program(text, &["0,0 MM2S 0 -> 0,1 S2MM 0", "0,1 MM2S 0 -> 0,0 S2MM 0"], 2);
    let text = include_str!("../../../tests/fixtures/passthrough-npu4.cdo.txt");
    let flows = [
        "0,0 MM2S 0 -> 0,1 S2MM 0",
        "0,0 MM2S 1 -> 0,1 S2MM 1",
        "0,1 MM2S 0 -> 0,0 S2MM 0",
        "0,1 MM2S 1 -> 0,0 S2MM 1",
    ];
    check_program(text, &flows, 4);
}

prop_compose! {
    /// A command of any id, mostly a known one; few are long.
    fn any_command()(
        id in prop_oneof![4 => 0xff_u16..0x126, 1 => any::<u16>()],
        n_words in prop_oneof![20 => 0_usize..9, 1 => 250_usize..260],
        seed in prop::collection::vec(any::<u32>(), 9),
        long in prop::bool::weighted(0.1),
        reserved in prop_oneof![9 => Just(0), 1 => any::<u8>()],
    ) -> (u16, Form, Vec<u8>) {
        let payload = seed.iter().cycle().take(n_words).flat_map(|word| word.to_le_bytes()).collect();
        (id, Form { long: long && n_words < 255, reserved }, payload)
    }
}

proptest! {
    #[test]
    fn bytes_become_text_and_return(
        commands in prop::collection::vec(any_command(), 0..12),
        trailing in prop::collection::vec(any::<u8>(), 0..40),
        checksum in prop::option::weighted(0.1, any::<u32>()),
        version in prop_oneof![9 => Just(0x200_u32), 1 => 0x132_u32..0x300],
        flip in (any::<prop::sample::Index>(), any::<u8>()),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut builder = Builder::new();
        builder.set_version(version);
        for (id, form, payload) in &commands {
            builder.push_as(*form, &Command::Other { id: *id, payload: Words::new(payload) });
        }
        let mut bytes = builder.finish_with(checksum);
        bytes.extend(trailing);
        let cdo = Cdo::parse(&bytes).expect("what was built can be read");
        let entries = cdo.commands().map(|entry| (entry.command.id(), entry.form));
        prop_assert!(entries.eq(commands.iter().map(|(id, form, _)| (*id, *form))));
        let text = dump(&cdo);
        let again = assemble(&text).expect("what was dumped can be assembled");
        prop_assert_eq!(&again, &bytes);
        prop_assert_eq!(dump(&Cdo::parse(&again).expect("a CDO")), text);
        // What still is a CDO with a bit more or less returns too.
        let mut broken = bytes;
        let at = flip.0.index(broken.len());
        broken[at] ^= flip.1;
        if let Ok(cdo) = Cdo::parse(&broken) {
            prop_assert_eq!(assemble(&dump(&cdo)), Ok(broken.clone()));
        }
        broken.truncate(cut.index(broken.len()));
        let _ = Cdo::parse(&broken).map(|cdo| dump(&cdo));
    }

    #[test]
    fn no_text_makes_it_panic(text in "([a-z_.]{0,9}|nop|write|tile[(,)+0-9]{0,9}|[0-9x]{0,9}|;|\n|[ \t]|\\PC){0,40}") {
        let _ = assemble(&text);
    }
}
