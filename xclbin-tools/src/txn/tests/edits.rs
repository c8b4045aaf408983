//! Streams changed: what each edit does, and what it refuses.

use super::*;

const BEFORE: &str = "\
stream version=0.1 generation=3 rows=6 columns=4 memory_tile_rows=1
block_write tile(0,0)+0x1d000 reserved(0x100)
    0x00000400 0x00000000 0x00000000
patch tile(0,0)+0x1d004 argument=1 offset=0x10
patch tile(0,0)+0x1d004 argument=5 offset=0x20
write tile(0,0)+0x1d204 value=0x1
write tile(0,0)+0x1d204 value=0x2
mask_write tile(1,2)+0x32000 value=0x1 mask=0x1 reserved(0x201)
mask_poll tile(1,2)+0x32004 value=0x1 mask=0x1
sync tile(1,0) direction=s2mm channel=0 columns=1 rows=1
";

/// Edits a stream; `changes` are pairs of what stands there and what stands there then.
fn check(edit: Edit, changes: &[(&str, &str)]) {
    let bytes = assemble(BEFORE).unwrap();
    let edited = Stream::parse(&bytes).unwrap().edited(&edit).unwrap();
    let mut expected = BEFORE.to_owned();
    for (from, to) in changes {
        assert!(expected.contains(from), "{from}");
        expected = expected.replace(from, to);
    }
    assert_eq!(edited, assemble(&expected).unwrap(), "{edit:?}: {}", Stream::parse(&edited).unwrap().to_text());
}

fn refused(edit: Edit, expected: &str) {
    let bytes = assemble(BEFORE).unwrap();
    let error = Stream::parse(&bytes).unwrap().edited(&edit).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

fn place(text: &str) -> Place {
    text.parse().unwrap()
}

#[test]
fn arguments_change() {
    check(Edit::Renumber(vec![(1, 5), (5, 1)]), &[("=1 off", "=x off"), ("=5 off", "=1 off"), ("=x off", "=5 off")]);
    check(Edit::SetOffset { argument: 1, offset_bytes: 0x30 }, &[("offset=0x10", "offset=0x30")]);
    check(Edit::AddOffset { argument: 5, by_bytes: -0x20 }, &[("offset=0x20", "offset=0x0")]);
    check(Edit::Fold, &[("offset=0x20", "offset=0x80000020")]);
    let behind = "0x00000000\npatch";
    let more = "0x00000000\npatch tile(0,0)+0x1d008 argument=2 offset=0x4\npatch";
    let add = Edit::AddPatch { place: place("tile(0,0)+0x1d008"), argument: 2, offset_bytes: 4 };
    check(add, &[(behind, more)]);
    refused(Edit::Renumber(vec![(1, 2), (3, 4)]), "argument 3: the patches are of arguments 1, 5");
    refused(Edit::SetOffset { argument: 0, offset_bytes: 0 }, "argument 0: the patches are of arguments 1, 5");
    refused(Edit::AddOffset { argument: 1, by_bytes: -17 }, "offset -17: the offset is 0x10, and stays within 64 bits");
    refused(Edit::Unfold, "offset 0x20: argument 5 is not folded: the offset is below 0x80000000");
    let add = Edit::AddPatch { place: place("0x1d00c"), argument: 2, offset_bytes: 4 };
    refused(add, "address 0,0+0x1d00c: no operation writes it");
}

#[test]
fn what_was_folded_unfolds() {
    let bytes = assemble(BEFORE).unwrap();
    let folded = Stream::parse(&bytes).unwrap().edited(&Edit::Fold).unwrap();
    let folded = Stream::parse(&folded).unwrap();
    assert_eq!(folded.edited(&Edit::Unfold).unwrap(), bytes);
    assert!(folded.edited(&Edit::Fold).unwrap_err().to_string().contains("argument 5 is folded already"));
    let four = folded.edited(&Edit::Renumber(vec![(5, 4)])).unwrap();
    assert_eq!(Stream::parse(&four).unwrap().edited(&Edit::Fold).unwrap(), four, "none is from 5 on");
}

#[test]
fn registers_change() {
    let word = |text: &str, value| Edit::SetWord { place: place(text), value };
    check(word("tile(0,0)+0x1d004", 7), &[("0x00000400 0x00000000", "0x00000400 0x00000007")]);
    check(word("4:0x1d204", 7), &[("value=0x2", "value=0x7")]);
    check(word("tile(1,2)+0x32004", 7), &[("0x32004 value=0x1", "0x32004 value=0x7")]);
    check(word("tile(1,2)+0x32000", 7), &[("0x32000 value=0x1", "0x32000 value=0x7")]);
    let mask = |text: &str, mask| Edit::SetMask { place: place(text), mask };
    check(mask("tile(1,2)+0x32000", 3), &[("mask=0x1 res", "mask=0x3 res")]);
    check(mask("6:tile(1,2)+0x32004", 3), &[("mask=0x1\nsync", "mask=0x3\nsync")]);
    refused(
        word("0x1d204", 7),
        "address 0,0+0x1d204: operation 3 writes or polls it, and 1 more: say which, as \
        INDEX:ADDRESS",
    );
    refused(word("0:0x1d204", 7), "address 0,0+0x1d204: operation 0 is not one that writes or polls it");
    refused(mask("0x1d204", 7), "address 0,0+0x1d204: no operation has a mask for it");
}

#[test]
fn the_device_changes() {
    check(Edit::SetGeneration(4), &[("generation=3", "generation=4")]);
    check(Edit::SetColumns(8), &[("columns=4", "columns=8")]);
    let shifted = [("tile(1", "tile(x"), ("tile(0", "tile(2"), ("tile(x", "tile(3")];
    check(Edit::ShiftColumns(2), &shifted);
    refused(Edit::ShiftColumns(3), "column 4: a column below the 4 of the header: set those first");
    refused(Edit::ShiftColumns(-1), "column -1: a column below the 4 of the header: set those first");
}

#[test]
fn places_are_read() {
    let check = |text: &str, expected: Option<(u32, Option<u32>)>| {
        let place = text.parse::<Place>().ok().map(|place| (place.address.into(), place.index));
        assert_eq!(place, expected, "{text}");
    };
    check("tile(1,2)+0x10", Some((0x0220_0010, None)));
    check("7:0x2200010", Some((0x0220_0010, Some(7))));
    for wrong in ["", "tile(1,2)", "x", "7:", ":4", "4 5", "0x100000000", "tile(1,2)+0x10+1"] {
        check(wrong, None);
    }
}
