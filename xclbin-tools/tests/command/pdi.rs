//! `xclbin pdi` and `xclbin cdo`.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;
use xclbin_tools::{
    axlf::{Axlf, Header, Kind, Section},
    cdo::{Builder, Cdo, Command, Form},
    pdi::{self, MAGIC, PartitionHeader},
    section::{AiePartition, Name, aie_partition},
};

use crate::{done, fails, run, run_with};

const TEXT: &str = include_str!("../fixtures/passthrough.cdo.txt");

/// A folder with a text, its CDO and its PDI.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.txt"), TEXT).expect("the folder can be written");
    done(folder.path(), &["cdo", "asm", "a.txt", "-o", "a.cdo"]);
    done(folder.path(), &["pdi", "pack", "a.cdo", "-o", "a.pdi"]);
    folder
}

fn file(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).expect("the file is there")
}

#[test]
fn text_becomes_a_pdi_and_returns() {
    let folder = folder();
    let folder = folder.path();
    assert_eq!(file(folder, "a.pdi"), pdi::build(&[&file(folder, "a.cdo")], &pdi::Options::default()).expect("a PDI"));
    done(folder, &["pdi", "unpack", "a.pdi", "-o", "b.cdo"]);
    done(folder, &["pdi", "unpack", "a.pdi", "-d", "parts/of"]);
    assert_eq!(file(folder, "b.cdo"), file(folder, "parts/of/partition-0.cdo"));
    // The PDI's has padding in front of blocks; packed again it stays as it is.
    done(folder, &["pdi", "pack", "b.cdo", "-o", "b.pdi"]);
    assert_eq!(file(folder, "b.pdi"), file(folder, "a.pdi"));
    let text = done(folder, &["cdo", "dump", "a.pdi"]);
    let from_cdo = done(folder, &["cdo", "dump", "b.cdo"]);
    assert!(text.starts_with(&from_cdo), "the PDI's CDO has its padding behind it");
    let again = run_with(folder, &["cdo", "asm", "-", "-o", "-"], &text);
    assert_eq!(again.out, file(folder, "a.pdi")[0x150..]);
}

#[test]
fn options_reach_the_headers() {
    let folder = folder();
    let folder = folder.path();
    let ids = ["--name", "other", "--image-id", "0x1c000001", "--id-code", "5", "--extended-id-code", "0x2", "--older"];
    done(folder, &[&["pdi", "pack", "a.cdo", "a.cdo", "-o", "o.pdi"][..], &ids].concat());
    let json: Value = serde_json::from_slice(&done(folder, &["pdi", "unpack", "o.pdi", "--json"])).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["image_header_table"]["id_code"], 5);
    assert_eq!(json["image_header_table"]["extended_id_code"], 2);
    assert_eq!(json["image_header_table"]["reserved"].as_array().map(Vec::len), Some(8));
    let image = &json["images"][0];
    assert_eq!(
        (&image["name"], &image["image_id"], &image["measurement"]),
        (&"other".into(), &0x1c00_0001.into(), &0.into())
    );
    assert_eq!(image["stored_checksum"], image["computed_checksum"]);
    assert_eq!(json["partitions"][0]["transformed"], false);
    let text = String::from_utf8(done(folder, &["pdi", "unpack", "o.pdi"])).expect("text");
    assert!(text.contains("image 0: other") && text.contains("0x1c000001") && !text.contains("wrong"), "{text}");
    fails(folder, &["pdi", "pack", "a.cdo", "-o", "x.pdi", "--name", "seventeen letters"], 2, "16 bytes");
}

#[test]
fn files_are_not_overwritten_unasked() {
    let folder = folder();
    let folder = folder.path();
    for args in [
        &["cdo", "asm", "a.txt", "-o", "a.cdo"][..],
        &["cdo", "dump", "a.cdo", "-o", "a.txt"],
        &["pdi", "pack", "a.cdo", "-o", "a.pdi"],
        &["pdi", "unpack", "a.pdi", "-o", "a.cdo"],
    ] {
        fails(folder, args, 1, "--force");
        done(folder, &[args, &["--force"]].concat());
    }
}

#[test]
fn what_is_wrong_is_said() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("bad.txt"), "nop\nwrote 1").expect("the folder can be written");
    fails(folder, &["cdo", "asm", "bad.txt", "-o", "-"], 3, "line 2, column 1");
    fails(folder, &["cdo", "dump", "a.txt"], 3, "CDO, byte");
    fails(folder, &["cdo", "dump", "a.pdi", "--partition", "1"], 2, "no partition 1: the PDI has 1");
    fails(folder, &["cdo", "dump", "a.pdi", "--pdi", "0"], 2, "--pdi is for an XCLBIN");
    fails(folder, &["pdi", "unpack", "a.cdo"], 3, "a.cdo is a CDO, not a PDI: see `xclbin cdo dump`");
    fails(folder, &["pdi", "pack", "-o", "x.pdi"], 2, "CDO");
    fails(folder, &["pdi", "pack", "a.cdo", "-o", "x.pdi", "--image-id", "-1"], 2, "32 bits");
    fails(folder, &["cdo", "dump", "a.pdi", "--pdi", "x"], 2, "a number is expected");
    fails(folder, &["diff", "-", "-"], 2, "standard input is named twice");
    fs::write(folder.join("long.txt"), "w".repeat(1_000_000)).expect("the folder can be written");
    for args in [["cdo", "asm", "long.txt", "-o", "-"], ["txn", "asm", "long.txt", "-o", "-"]] {
        let long = run(folder, &args);
        assert!(long.code == 3 && long.notes.len() < 1000, "{}: {} bytes", long.code, long.notes.len());
    }
    fails(folder, &["pdi", "unpack", "absent.pdi"], 3, "cannot read");
    let mut wrong = file(folder, "a.pdi");
    wrong[0x10 + 4 * 31] ^= 1;
    fs::write(folder.join("wrong.pdi"), &wrong).expect("the folder can be written");
    let text = String::from_utf8(done(folder, &["pdi", "unpack", "wrong.pdi"])).expect("text");
    assert!(text.contains("wrong: 0x"), "{text}");
}

/// A PDI as aie-pdi-transform writes it: one group of two writes.
fn transformed() -> Vec<u8> {
    let mut builder = Builder::new();
    builder.push_as(Form::default(), &Command::Write { address: 16, value: 7, wide: false });
    let mut bytes = pdi::build(&[&builder.finish()], &pdi::Options::default()).expect("a PDI");
    bytes.truncate(0x150 + 20);
    bytes.extend([3_u32, 2, 16, 7, 20, 8].iter().flat_map(|word| word.to_le_bytes()));
    for (word, value) in [(28, 1), (29, 24), (30, 0x8866_u32 | 1 << 8 | 24 << 16)] {
        let at = 0xd0 + 4 * word;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    assert!(PartitionHeader::FIELDS.contains(&("transform_kind", 28)));
    assert!(bytes.starts_with(&MAGIC));
    bytes
}

#[test]
fn transformed_pdis_become_plain_cdos() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("t.pdi"), transformed()).expect("the folder can be written");
    let run = run(folder, &["pdi", "unpack", "t.pdi", "-o", "t.cdo"]);
    assert_eq!(run.code, 0, "{}", run.notes);
    assert!(run.notes.contains("transformed"), "{}", run.notes);
    let cdo = file(folder, "t.cdo");
    assert_eq!(Cdo::parse(&cdo).expect("a CDO").commands().count(), 2);
    let text = String::from_utf8(done(folder, &["cdo", "dump", "t.pdi"])).expect("text");
    assert!(text.contains("transformed") && text.contains("write tile(0,0)+0x14 value=0x8"), "{text}");
    let headers = String::from_utf8(done(folder, &["pdi", "unpack", "t.pdi"])).expect("text");
    assert!(headers.contains("aie-pdi-transform"), "{headers}");
}

#[test]
fn pdis_of_a_package_are_chosen() {
    let folder = folder();
    let folder = folder.path();
    let image = file(folder, "a.pdi");
    let package = |n_pdis: usize| {
        let pdi = aie_partition::Pdi { image: image.clone().into(), ..Default::default() };
        let partition = AiePartition { column_width: 1, pdis: vec![pdi; n_pdis], ..Default::default() };
        let bytes = partition.to_bytes().expect("a section").into();
        let section = Section { kind: Kind::AIE_PARTITION, name: Name::default(), bytes };
        Axlf::new(Header::default(), vec![section]).to_bytes().expect("a package")
    };
    fs::write(folder.join("one.xclbin"), package(1)).expect("the folder can be written");
    fs::write(folder.join("two.xclbin"), package(2)).expect("the folder can be written");
    let text = done(folder, &["cdo", "dump", "a.pdi"]);
    assert_eq!(done(folder, &["cdo", "dump", "one.xclbin"]), text);
    assert_eq!(done(folder, &["cdo", "dump", "two.xclbin", "--pdi", "1"]), text);
    fails(folder, &["cdo", "dump", "two.xclbin"], 2, "2 PDIs");
    fails(folder, &["cdo", "dump", "two.xclbin", "--pdi", "2"], 2, "no PDI 2");
}
