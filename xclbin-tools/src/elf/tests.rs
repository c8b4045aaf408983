use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::*;
use crate::txn::assemble;

/// A stream with patches of every kind that a partial file can have, of the arguments given.
fn stream(arguments: &[u64]) -> Vec<u8> {
    let mut text = "stream version=0.1 generation=4 rows=6 columns=4 memory_tile_rows=1\n\
        block_write tile(0,0)+0x1d000\n 0x400 0x12345671 0x00ab1234 0 0 0 0 0 0x800 0 0 0 0 0 0 0\n\
        block_write tile(1,1)+0xa0020\n 0x100 0 0 0 0 0 0 0\n"
        .to_owned();
    for (index, argument) in arguments.iter().enumerate() {
        let place = ["tile(0,0)+0x1d004", "tile(0,0)+0x1d024", "tile(0,0)+0x1d020", "tile(1,1)+0xa0024"][index % 4];
        text.push_str(&format!("patch {place} argument={argument} offset={index}\n"));
    }
    assemble(&text).unwrap()
}

fn build(arguments: &[u64]) -> Vec<u8> {
    partial(&Partial { stream: &stream(arguments), ..Partial::default() }).unwrap()
}

/// `config` with files of the tests: `*.bin` streams, `*.pdi` PDIs.
fn build_full(config: &str) -> Result<Vec<u8>> {
    full(&Config::parse(config)?, &mut |name| match name {
        "a.bin" => Ok(stream(&[0, 1])),
        "narrow.bin" => {
            Ok(assemble("stream version=0.1 generation=4 rows=6 columns=1 memory_tile_rows=1\nnoop").unwrap())
        }
        "load.bin" => Ok(assemble(
            "stream version=0.1 generation=4 rows=6 columns=4 memory_tile_rows=1\nload_pdi id=1 size=5 address=0",
        )
        .unwrap()),
        "x.pdi" => Ok(b"image".to_vec()),
        _ => Err(crate::Error::refused("file", name, "there is none")),
    })
}

const CONFIG: &str = r#"{ "xrt-kernels": [
    { "name": "main", "arguments": [ { "type": "char *" }, { "type": "void *" }, { "type": "int *" }, { "type": "scalar" } ],
      "PDIs": [ { "id": 1, "PDI_file": "x.pdi" } ],
      "instance": [ { "id": "second", "TXN_ctrl_code_file": "load.bin" }, { "id": "first", "TXN_ctrl_code_file": "a.bin" } ] } ] }"#;

#[test]
fn a_partial_file_has_its_parts() {
    let bytes = build(&[2, 4, 2, 0]);
    let elf = Elf::parse(&bytes).unwrap();
    assert!(!elf.is_full() && elf.abi_version == 2);
    let names: Vec<&str> = elf.sections.iter().map(|section| section.name).collect();
    let expected = ["", ".shstrtab", ".ctrltext", ".dynstr", ".dynsym", ".rela.dyn", ".dynamic", ".note.xrt.UID"];
    assert_eq!(names, expected);
    let patches: Vec<_> = elf.patches().unwrap();
    let shown: Vec<_> = patches
        .iter()
        .map(|(section, symbol, relocation)| {
            (section.name, relocation.offset, symbol.name, relocation.schema.name(), relocation.addend, symbol.size)
        })
        .collect();
    let expected = [
        (".ctrltext", 0x20, "5", "shim_dma_48", 0, 0x1000),
        (".ctrltext", 0x40, "7", "shim_dma_48", 1, 0x2000),
        (".ctrltext", 0x40, "5", "scalar_32", 2, 0xffff_ffff),
        (".ctrltext", 0x74, "3", "scalar_32", 3, 0x7_ffff),
    ];
    assert_eq!(shown, expected);
    // What is patched starts from zero; two bits of the first word, and half of the next, are no address.
    let (_, text) = elf.streams().next().unwrap();
    let text = text.unwrap().to_text();
    assert!(text.contains("0x00000400 0x00000001 0x00ab0000 "), "{text}");
}

#[test]
fn a_full_file_has_its_parts() {
    let bytes = build_full(CONFIG).unwrap();
    let elf = Elf::parse(&bytes).unwrap();
    assert!(elf.is_full() && elf.abi_version == 0x21);
    let names: Vec<&str> = elf.streams().map(|(name, _)| name).collect();
    assert_eq!(names, [".ctrltext.0", ".ctrltext.1"]);
    let symbols = elf.symbols(elf.section(".symtab").unwrap()).unwrap();
    let symbols: Vec<_> = symbols.iter().map(|symbol| (symbol.name, symbol.section)).collect();
    assert_eq!(symbols, [("", 0), ("_Z4mainPcPvPii", 0), ("first", 1), ("second", 1)]);
    let patched: Vec<_> = elf.patches().unwrap().iter().map(|(_, symbol, _)| symbol.name).collect();
    assert_eq!(patched, ["0", "1", ".pdi.1"]);
    let notes = elf.notes(elf.section(".note.xrt.configuration").unwrap()).unwrap();
    assert_eq!(notes, [Note { kind: Note::COLUMNS, name: "XRT", description: &[4, 0, 0, 0] }]);
    assert_eq!(elf.to_bytes().unwrap(), bytes);
}

#[test]
fn the_uid_is_the_md5_of_what_is_loaded() {
    use md5::{Digest, Md5};
    let bytes = build(&[]);
    let uid = Elf::parse(&bytes).unwrap().uid().unwrap().to_vec();
    assert_eq!(uid, Md5::digest(stream(&[])).to_vec());
}

#[test]
fn control_packets_are_patched_too() {
    let packets = [0x55; 64];
    let json = r#"{ "external_buffers": {
        "weights": { "xrt_id": 1, "size_in_bytes": 4096, "coalesed_buffers": [
            { "offset_in_bytes": 16, "control_packet_patch_locations": [ { "offset": 12 }, { "offset": 44 } ] } ] },
        "packets": { "xrt_id": 2, "ctrl_pkt_buffer": 1 } } }"#;
    let from = Partial { stream: &stream(&[2, 1]), control_packets: Some(&packets), patch_info: Some(json) };
    let bytes = partial(&from).unwrap();
    let elf = Elf::parse(&bytes).unwrap();
    let shown: Vec<_> = elf
        .patches()
        .unwrap()
        .iter()
        .map(|(section, symbol, relocation)| (section.name, relocation.offset, symbol.name, relocation.addend))
        .collect();
    let expected = [
        (".ctrldata", 4, "4", 16),
        (".ctrldata", 36, "4", 16),
        (".ctrltext", 0x20, "control-packet", 0),
        (".ctrltext", 0x40, "4", 1),
    ];
    assert_eq!(shown, expected);
    let check = |json: &str, expected: &str| {
        let error = partial(&Partial { patch_info: Some(json), ..from }).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let buffer = |rest: &str| format!(r#"{{ "external_buffers": {{ "b": {{ {rest} }} }} }}"#);
    check(&buffer(r#""xrt_id": 33"#), "/external_buffers/0/xrt_id: 33: an argument, at most 32");
    check(&buffer(r#""a": 1"#), "no \"xrt_id\"");
    let location = |offset| format!(r#""xrt_id": 1, "control_packet_patch_locations": [ {{ "offset": {offset} }} ]"#);
    check(&buffer(&location("7")), "offset: 7: 6 bytes behind 8 of a header, in the 64 bytes of control packets");
    check(&buffer(&location("59")), "offset: 59: 6 bytes");
    check(&buffer(&location("4294967295")), "offset: 4294967295: 6 bytes");
    let part = r#""xrt_id": 1, "size_in_bytes": 4, "coalesed_buffers": [ { "offset_in_bytes": 5 } ]"#;
    check(&buffer(part), "offset_in_bytes: 5: the buffer has 4 bytes");
}

#[test]
fn what_cannot_be_patched_is_refused() {
    let check = |body: &str, expected: &str| {
        let text = format!("stream version=0.1 generation=4 rows=6 columns=4 memory_tile_rows=1\n{body}");
        let error = partial(&Partial { stream: &assemble(&text).unwrap(), ..Partial::default() }).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("patch tile(0,0)+0x1d004 argument=0 offset=0", "operation 0: address 0,0+0x1d004: no block write before it");
    let block = "block_write tile(0,0)+0x1d000\n 1 2\n";
    check(
        &format!("{block}patch tile(0,0)+0x1d004 argument=0 offset=0"),
        "has 2 words of this descriptor, 3 are patched",
    );
    check(&format!("{block}patch tile(0,0)+0x1d008 argument=0 offset=0"), "nothing else");
    check(&format!("{block}patch tile(0,0)+0x1d004 argument=0 offset=0x100000000"), "32 bits");
    check("block_write tile(0,2)+0x1d000\n 1 2 3 4\npatch tile(0,2)+0x1d004 argument=0 offset=0", "nothing else");
    check("preempt level=1", "operation preempt: aiebu adds code of its own");
    check("load_pdi id=3 size=0 address=0", "PDI 3: the file has none of this id");
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(CONFIG.contains(from), "{from}");
        let error = build_full(&CONFIG.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("xrt-kernels", "kernels", "no \"xrt-kernels\"");
    check("scalar", "half", "type \"half\": argument 3 of main");
    check("\"first\"", "\"second\"", "main: instance second: there are two");
    check("a.bin", "narrow.bin", "second: number of columns 4: the streams of a file are for one number");
    check("x.pdi", "y.pdi", "file y.pdi: there is none");
    check("\"id\": 1,", "\"id\": 2,", "second: operation 0: PDI 1: the file has none of this id to load");
    check("\"id\": 1,", "\"id\": 65536,", "/xrt-kernels/0/PDIs/0/id");
    check("\"id\": 1,", "\"type\": \"ctrlpkt\", \"id\": 1,", "not built here");
    let none = r#"{ "xrt-kernels": [] }"#;
    assert!(build_full(none).unwrap_err().to_string().contains("at least one"));
}

#[test]
fn other_files_are_refused_as_what_they_are() {
    let check = |at: usize, value: u8, expected: &str| {
        let mut bytes = build(&[0]);
        bytes[at] = value;
        let error = Elf::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(0, 0, "magic");
    check(4, 2, "class 2");
    check(7, 0x40, "this is a Versal AI Engine's (aie2ps)");
    check(7, 0, "this is an ordinary program");
    check(9, 1, "padding is 1: aiebu writes 0");
    check(18, 62, "machine is 62: aiebu writes 1");
    check(0x74, 1, "gap is not zero before .ctrltext");
    check(48, 4, "rest is 160 bytes long");
    check(48, 9, "section header");
    check(50, 9, "section of names is 9: there are 8 sections");
}

#[test]
fn parts_may_not_overlap() {
    let bytes = build(&[0]);
    let table = u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
    let mut overlapping = bytes.clone();
    // The note's section, moved onto the section before it.
    overlapping[table + 7 * 40 + 16] -= 4;
    let error = Elf::parse(&overlapping).unwrap_err().to_string();
    assert!(error.contains("part is .note.xrt.UID: what stands before"), "{error}");
}

#[test]
fn broken_tables_are_errors() {
    let bytes = build(&[0, 1]);
    let elf = Elf::parse(&bytes).unwrap();
    let with = |edit: fn(&mut Elf<'_>)| {
        let mut elf = elf.clone();
        edit(&mut elf);
        elf.patches().unwrap_err().to_string()
    };
    assert!(with(|elf| elf.sections[5].link = 99).contains("section of symbols 99"));
    assert!(with(|elf| elf.sections[5].link = 2).contains("is not a table of symbols"));
    assert!(with(|elf| elf.sections[4].link = 99).contains("section of strings 99"));
    assert!(with(|elf| elf.sections[4].link = 0).contains("name is no string"));
    assert!(with(|elf| elf.sections[4].data = &elf.sections[4].data[..17]).contains("an entry of .dynsym has 16"));
    assert!(with(|elf| elf.sections[4].data = &elf.sections[4].data[..16]).contains("symbol 1: there are 1"));
}

proptest! {
    #[test]
    fn what_is_built_reads_back(arguments in vec(0_u64..40, 0..24), full in any::<bool>(), ids in subsequence(vec![1, 2, 10], 1..3)) {
        let bytes = if full {
            let pdis: Vec<_> = ids.iter().map(|id| format!(r#"{{ "id": {id}, "PDI_file": "x.pdi" }}"#)).collect();
            build_full(&CONFIG.replace(r#"{ "id": 1, "PDI_file": "x.pdi" }"#, &pdis.join(", ")).replace("load.bin", "a.bin")).unwrap()
        } else {
            build(&arguments)
        };
        let elf = Elf::parse(&bytes).unwrap();
        prop_assert_eq!(elf.to_bytes().unwrap(), &*bytes);
        let n_patches = elf.patches().unwrap().len();
        prop_assert_eq!(n_patches, if full { 4 } else { arguments.len() });
    }

    #[test]
    fn damage_is_an_error_or_another_file(arguments in vec(0_u64..9, 0..6), full in any::<bool>(), at in any::<usize>(), bit in 0..8, cut in any::<usize>()) {
        let mut bytes = if full { build_full(CONFIG).unwrap() } else { build(&arguments) };
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        if let Ok(elf) = Elf::parse(&bytes) {
            prop_assert_eq!(&elf.to_bytes().unwrap(), &bytes);
            // None of them panics.
            let _ = elf.patches();
            let _ = elf.uid();
            elf.streams().for_each(drop);
            for section in &elf.sections {
                let _ = elf.notes(section);
                let _ = elf.symbols(section);
            }
        }
        bytes.truncate(cut % bytes.len());
        prop_assert!(Elf::parse(&bytes).is_err());
    }
}
