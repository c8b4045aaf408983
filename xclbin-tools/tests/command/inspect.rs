//! `xclbin info`, `dump` and `extract`.

use std::{borrow::Cow, fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;
use xclbin_tools::{
    Error,
    axlf::{Axlf, Header, Kind, Section},
    section::{self, AiePartition, Name, json::Tree},
};

use crate::{done, fails, run};

const XML: &str = r#"<project><platform><device><core><kernel name="add" language="c" type="dpu">
<extended-data dpu_kernel_id="0x901" functional="0" subtype="1"/>
<arg name="instr" addressQualifier="1" id="1" size="0x8" offset="0x08" type="char *"/>
<instance name="first"/></kernel></core></device></platform></project>"#;

const PARTITION: &str = r#"{"aie_partition": {"operations_per_cycle": 2048,
    "partition": {"column_width": 4, "start_columns": [0]},
    "PDIs": [{"uuid": "0", "file_name": "a", "cdo_groups": [{"name": "DPU", "pdi_id": 1, "dpu_kernel_ids": ["0x900"]}]},
             {"uuid": "0", "file_name": "b", "cdo_groups": [{"name": "DPU", "pdi_id": 2, "dpu_kernel_ids": ["0x901"]}]}]}}"#;

const TABLES: [(Kind, &str); 3] = [
    (
        Kind::MEM_TOPOLOGY,
        r#"{"mem_topology": {"m_count": 1, "m_mem_data": [{"m_type": "MEM_DRAM", "m_used": 1, "m_sizeKB": 1024,
            "m_tag": "SRAM", "m_base_address": "0x4000000"}]}}"#,
    ),
    (
        Kind::IP_LAYOUT,
        r#"{"ip_layout": {"m_count": 1, "m_ip_data": [{"m_type": "IP_PS_KERNEL", "m_subtype": "DPU",
            "m_functional": "DPU", "m_kernel_id": "0x901", "m_base_address": "not_used", "m_name": "add:first"}]}}"#,
    ),
    (
        Kind::CONNECTIVITY,
        r#"{"connectivity": {"m_count": 1, "m_connection": [{"arg_index": 1, "m_ip_layout_index": 0, "mem_data_index": 0}]}}"#,
    ),
];

fn package() -> Vec<u8> {
    let part = |kind: Kind, bytes: Vec<u8>| Section { kind, name: Name::default(), bytes: Cow::Owned(bytes) };
    let partition = Tree::parse(PARTITION).unwrap();
    let image = |name: &str| Ok::<_, Error>(Cow::Owned(format!("image {name}").into_bytes()));
    let partition = AiePartition::from_json(&partition, "", image).unwrap().to_bytes().unwrap();
    let mut sections = vec![part(Kind::AIE_PARTITION, partition), part(Kind::EMBEDDED_METADATA, XML.into())];
    for (kind, json) in TABLES {
        sections.push(part(kind, section::from_json(kind, &Tree::parse(json).unwrap()).unwrap().unwrap()));
    }
    sections.push(part(Kind(18), vec![0xab; 100]));
    sections.push(part(Kind(18), vec![1]));
    Axlf::new(Header::default(), sections).to_bytes().unwrap()
}

/// A folder with the package.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.xclbin"), package()).expect("the folder can be written");
    folder
}

/// What a command prints as JSON, and its exit code.
fn json(folder: &Path, args: &[&str], code: i32) -> Value {
    let run = run(folder, args);
    assert_eq!(run.code, code, "{args:?}: {}", run.notes);
    let value: Value = serde_json::from_slice(&run.out).expect("JSON");
    assert_eq!(value["version"], 1);
    value
}

#[test]
fn info_follows_the_links_between_sections() {
    let folder = folder();
    let folder = folder.path();
    let text = String::from_utf8(done(folder, &["info", "a.xclbin"])).expect("text");
    let row = |cells: &[&str]| text.lines().any(|line| line.split_whitespace().eq(cells.iter().copied()));
    assert!(row(&["add", "first", "0x901", "1", "1"]), "{text}");
    assert!(row(&["1", "instr", "char", "*", "0x8", "8", "SRAM"]), "{text}");
    assert!(row(&["SRAM", "MEM_DRAM", "1024", "0x4000000", "yes"]), "{text}");
    let info = json(folder, &["info", "--json", "a.xclbin"], 0);
    assert_eq!(info["kernels"][0]["pdi"], 1);
    assert_eq!(info["kernels"][0]["arguments"][0]["memory"], "SRAM");
    assert_eq!(info["partition"]["pdis"][1]["cdo_groups"][0]["dpu_kernel_ids"][0], 0x901);
    assert_eq!(info["sections"].as_array().unwrap().len(), 7);
}

#[test]
fn a_section_that_cannot_be_read_is_named_and_the_rest_is_shown() {
    let folder = folder();
    let folder = folder.path();
    let mut bytes = package();
    let at = usize::try_from(Axlf::parse(&bytes).unwrap().layout().unwrap().places[2].offset).unwrap();
    bytes[at] = 9;
    fs::write(folder.join("bad.xclbin"), bytes).unwrap();
    let info = json(folder, &["info", "--json", "bad.xclbin"], 1);
    assert_eq!(info["faults"][0]["section"], "MEM_TOPOLOGY");
    assert_eq!(info["partition"]["column_width"], 4);
    let dump = json(folder, &["dump", "bad.xclbin"], 1);
    assert!(dump["mem_topology"]["error"].as_str().unwrap().contains("m_count is 9"), "{dump}");
    assert_eq!(dump["ip_layout"]["m_count"], "1");
    fails(folder, &["extract", "--all", "-d", "out", "bad.xclbin"], 0, "MEM_TOPOLOGY.json is not written");
    assert!(folder.join("out/MEM_TOPOLOGY.bin").exists());
}

#[test]
fn a_dump_holds_every_section_or_those_named() {
    let folder = folder();
    let folder = folder.path();
    let dump = json(folder, &["dump", "a.xclbin"], 0);
    let names: Vec<_> = dump.as_object().unwrap().keys().map(String::as_str).collect();
    let parts = ["aie_partition", "embedded_metadata", "mem_topology", "ip_layout", "connectivity", "pdi", "pdi#2"];
    assert_eq!(names, [&["version"], &parts[..]].concat());
    assert_eq!(dump["pdi"]["first_bytes"].as_str().unwrap(), "ab".repeat(64));
    assert_eq!(dump["embedded_metadata"]["kernels"][0]["extended_data"]["dpu_kernel_id"], 0x901);
    let dump = json(folder, &["dump", "a.xclbin", "ip_layout"], 0);
    assert_eq!(dump.as_object().unwrap().len(), 2);
    fails(folder, &["dump", "a.xclbin", "BITSTREAM"], 2, "no section BITSTREAM: the file has AIE_PARTITION, ");
}

#[test]
fn extracted_files_are_the_parts_and_nothing_is_overwritten_unasked() {
    let folder = folder();
    let folder = folder.path();
    assert_eq!(done(folder, &["extract", "a.xclbin", "pdi:1", "-o", "-"]), b"image b");
    done(folder, &["extract", "a.xclbin", "EMBEDDED_METADATA", "-o", "k.xml"]);
    assert_eq!(fs::read_to_string(folder.join("k.xml")).unwrap(), XML);
    fails(folder, &["extract", "a.xclbin", "PDI", "-o", "k.xml"], 1, "--force overwrites it");
    done(folder, &["extract", "a.xclbin", "PDI", "-o", "k.xml", "--force"]);
    assert_eq!(fs::read(folder.join("k.xml")).unwrap(), [0xab; 100]);
    for (name, words) in [("pdi", "the file has 2 PDIs"), ("pdi:2", "no pdi:2"), ("pdi:x", "takes a number")] {
        fails(folder, &["extract", "a.xclbin", name, "-o", "x"], 2, words);
    }
    let list = json(folder, &["extract", "--all", "-d", "out", "--json", "a.xclbin"], 0);
    assert_eq!(list["files"].as_array().unwrap().len(), 13);
    let json = fs::read_to_string(folder.join("out/AIE_PARTITION.json")).unwrap();
    let image = |name: &str| Ok::<_, Error>(Cow::Owned(fs::read(folder.join("out").join(name)).unwrap()));
    let partition = AiePartition::from_json(&Tree::parse(&json).unwrap(), "", image).unwrap();
    assert_eq!(partition.to_bytes().unwrap(), fs::read(folder.join("out/AIE_PARTITION.bin")).unwrap());
    fails(folder, &["extract", "--all", "-d", "out", "a.xclbin"], 1, "--force overwrites it");
    done(folder, &["extract", "--all", "-d", "out", "a.xclbin", "--force"]);
}

#[test]
fn what_is_no_package_is_bad_input() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("x"), "nothing of the sort").unwrap();
    for command in [&["info", "x"][..], &["dump", "x"], &["extract", "x", "PDI", "-o", "y"]] {
        fails(folder, command, 3, "this is no XCLBIN");
    }
}

#[test]
fn help_says_what_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |args: &[&str], words: &[&str]| {
        let text = String::from_utf8(done(folder.path(), args)).expect("text");
        for word in words {
            assert!(text.contains(word), "{args:?}: {word}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{args:?}: {text}");
    };
    check(&["--help"], &["Exit codes: 0 done", "`-` in place of a file", "xclbin --input a.xclbin --info"]);
    check(
        &["cdo", "asm", "--help"],
        &["  write ADDRESS value=V\n", "  dma_write ADDRESS WORD...\n", "nop", ".padding"],
    );
    check(&["txn", "asm", "--help"], &["\n  sync tile(0,0) direction=s2mm", "merge_sync (tokens= columns=)"]);
    check(&["extract", "--help"], &["--all --directory <DIR>"]);
    check(&["--info", "--help"], &["--add-replace-section KIND:FORMAT:FILE"]);
}
