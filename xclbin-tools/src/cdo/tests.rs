use proptest::prelude::*;

use super::{Cdo, Checksum, Command, Entry, Form, name_of, stream::put_command};
use crate::bytes::Writer;
use crate::words::Words;

/// A CDO around words of commands.
pub(crate) fn cdo_of(commands: &[u32]) -> Vec<u8> {
    let mut words = vec![4, 0x004f_4443, 0x200, commands.len() as u32];
    words.push(Checksum::of(&words));
    words.extend(commands);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn check(words: &[u32], expected: Command<'_>) {
    let bytes = cdo_of(words);
    let cdo = Cdo::parse(&bytes).expect("a CDO");
    let entries: Vec<Entry<'_>> = cdo.commands().collect();
    assert_eq!(entries, [Entry { offset: 20, form: Form::default(), command: expected }]);
    let mut writer = Writer::new();
    put_command(&mut writer, Form::default(), &expected);
    assert_eq!(writer.bytes, bytes[20..]);
}

fn check_refused(bytes: &[u8], words: &str) {
    let error = Cdo::parse(bytes).expect_err("refused").to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn commands_have_their_operands() {
    check(&[0x0002_0103, 0x021d_0000, 7], Command::Write { address: 0x021d_0000, value: 7, wide: false });
    check(&[0x0003_0108, 1, 0x10, 7], Command::Write { address: 0x1_0000_0010, value: 7, wide: true });
    check(&[0x0003_0102, 0x10, 3, 1], Command::MaskWrite { address: 0x10, mask: 3, value: 1, wide: false });
    check(&[0x0004_0107, 0, 0x10, 3, 1], Command::MaskWrite { address: 0x10, mask: 3, value: 1, wide: true });
    let data: Vec<u8> = [5_u32, 6].iter().flat_map(|word| word.to_le_bytes()).collect();
    let data = Words::new(&data);
    check(&[0x0004_0105, 0, 0x10, 5, 6], Command::DmaWrite { address: 0x10, data });
    check(&[0x0005_010d, 0, 0x10, 64, 5, 6], Command::DmaWriteKeyhole { address: 0x10, size_bytes: 64, data });
    check(&[0x0002_0111, 5, 6], Command::Nop { padding: data });
    check(&[0x0003_0119, 9, 5, 6], Command::Marker { value: 9, text: data });
    check(&[0x0001_0104, 9], Command::Delay { delay_us: 9 });
    check(&[0x0004_010c, 0, 0x10, 3, 1], Command::Set { address: 0x10, length_words: 3, value: 1 });
    let copy = Command::DmaTransfer { source: 1, destination: 2, length_words: 3, flags: 4 };
    check(&[0x0006_0109, 0, 1, 0, 2, 3, 4], copy);
    let poll = |flags, error_code, wide| Command::MaskPoll {
        address: 0x10,
        mask: 1,
        value: 0,
        timeout_us: 100,
        flags,
        error_code,
        wide,
    };
    check(&[0x0004_0101, 0x10, 1, 0, 100], poll(None, None, false));
    check(&[0x0005_0101, 0x10, 1, 0, 100, 2], poll(Some(2), None, false));
    check(&[0x0007_0106, 0, 0x10, 1, 0, 100, 2, 3], poll(Some(2), Some(3), true));
}

#[test]
fn what_fits_no_type_stays_as_it_is() {
    let data: Vec<u8> = [5_u32, 6, 7].iter().flat_map(|word| word.to_le_bytes()).collect();
    let payload = Words::new(&data);
    check(&[0x0003_0103, 5, 6, 7], Command::Other { id: 0x103, payload });
    check(&[0x0003_0fff, 5, 6, 7], Command::Other { id: 0xfff, payload });
    check(&[0x0000_0105], Command::Other { id: 0x105, payload: Words::new(&[]) });
}

#[test]
fn lengths_beyond_254_have_a_word() {
    let mut words = vec![0x00ff_0105, 300];
    words.extend(0..300);
    let data: Vec<u8> = (2_u32..300).flat_map(u32::to_le_bytes).collect();
    check(&words, Command::DmaWrite { address: 1, data: Words::new(&data) });
}

#[test]
fn names_start_at_their_ids() {
    for (id, name) in [(0x100, "end_mark"), (0x105, "dma_write"), (0x111, "nop"), (0x119, "marker")] {
        assert_eq!(name_of(id), Some(name));
    }
    assert_eq!((name_of(0xff), name_of(0x123), name_of(0x124)), (None, Some("tamper_trigger"), None));
}

#[test]
fn a_wrong_checksum_is_shown() {
    let mut bytes = cdo_of(&[0x111]);
    bytes[16] ^= 1;
    let cdo = Cdo::parse(&bytes).expect("readable");
    assert!(!cdo.checksum.is_right());
    assert_eq!(cdo.checksum.stored ^ cdo.checksum.computed, 1);
}

#[test]
fn what_cannot_be_read_is_refused() {
    check_refused(&[4, 0, 0], "header length");
    check_refused(&cdo_of(&[0x0002_0103, 1]), "2 words");
    check_refused(&cdo_of(&[0x00ff_0105]), "command length");
    check_refused(&cdo_of(&[0x00ff_0105, u32::MAX]), "4294967295 words");
    let mut bytes = cdo_of(&[0x111]);
    bytes[12] = 9;
    check_refused(&bytes, "length");
    let mut bytes = cdo_of(&[]);
    bytes[0] = 5;
    check_refused(&bytes, "header length is 5");
    bytes[0] = 4;
    bytes[5] = 0;
    check_refused(&bytes, "identification");
    bytes[5] = b'D';
    bytes[9] = 3;
    check_refused(&bytes, "version");
}

/// A transformed CDO: two groups, and two blocks of data of which the last lacks `n_missing` bytes.
fn transformed(n_missing: usize) -> (Vec<u8>, u32) {
    let zone = [3, 2, 0x10, 1, 0x14, 2, 5, 2, 0, 0x100, 0, 2, 0, 0x200, 8, 0x1_0006];
    let mut bytes = cdo_of(&[]);
    bytes.extend(zone.iter().chain(&[1, 2, 3, 4, 5, 6, 7, 8]).flat_map(|word: &u32| word.to_le_bytes()));
    bytes.truncate(bytes.len() - n_missing);
    (bytes, 64)
}

#[test]
fn a_transformed_cdo_has_the_same_commands() {
    for n_missing in [0, 20] {
        let (bytes, zone_bytes) = transformed(n_missing);
        let cdo = Cdo::parse_transformed(&bytes, zone_bytes).expect("a transformed CDO");
        let written: Vec<_> = cdo.commands().map(|entry| entry.command.written().expect("all write")).collect();
        let n_last = 6 - n_missing as u64 / 4;
        assert_eq!(written, [(0x10, 1), (0x14, 1), (0x100, 2), (0x200, n_last)]);
        assert_eq!((cdo.is_transformed(), cdo.missing_bytes()), (true, n_missing as u64));
    }
}

#[test]
fn a_transformed_cdo_keeps_its_bounds() {
    let check = |bytes: &[u8], zone_bytes, words: &str| {
        let error = Cdo::parse_transformed(bytes, zone_bytes).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    };
    let (bytes, _) = transformed(24);
    check(&bytes, 64, "dma_write's data");
    let (mut bytes, _) = transformed(0);
    check(&bytes, 1000, "command zone");
    check(&bytes, 60, "data length");
    // Both blocks at offset 0, eight words each.
    bytes[20 + 4 * 11] = 8;
    bytes[20 + 4 * 14] = 0;
    bytes[20 + 4 * 15] = 8;
    check(&bytes, 64, "overlap");
    bytes[20] = 4;
    check(&bytes, 64, "group id");
}

proptest! {
    #[test]
    fn any_commands_are_written_as_they_were_read(words in prop::collection::vec(any::<u32>(), 0..64)) {
        let bytes = cdo_of(&words);
        if let Ok(cdo) = Cdo::parse(&bytes) {
            let mut writer = Writer::new();
            for entry in cdo.commands() {
                prop_assert_eq!(entry.offset, writer.len() + 20);
                put_command(&mut writer, entry.form, &entry.command);
            }
            prop_assert_eq!(&writer.bytes, &bytes[20..]);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), zone in 0..200_u32) {
        let _ = Cdo::parse(&bytes).map(|cdo| cdo.commands().count());
        let mut framed = cdo_of(&[]);
        framed.extend(&bytes);
        let _ = Cdo::parse_transformed(&framed, zone).map(|cdo| cdo.commands().count());
    }
}
