//! `xclbin diff`.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::{done, fails, run};

const TEXT: &str = include_str!("../fixtures/passthrough.cdo.txt");

/// A folder with two PDIs, the second with one value changed, and the stream of each.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let changed = TEXT.replacen("+0xc0000 value=0x2", "+0xc0000 value=0x3", 1);
    assert_ne!(TEXT, changed);
    for (name, text) in [("a", TEXT), ("b", &changed)] {
        fs::write(folder.path().join(format!("{name}.txt")), text).expect("the folder can be written");
        done(folder.path(), &["cdo", "asm", &format!("{name}.txt"), "-o", &format!("{name}.cdo")]);
        done(folder.path(), &["pdi", "pack", &format!("{name}.cdo"), "-o", &format!("{name}.pdi")]);
    }
    folder
}

fn differences(folder: &Path, args: &[&str]) -> (i32, Value) {
    let run = run(folder, &[&["diff", "--json"], args].concat());
    (run.code, serde_json::from_slice(&run.out).expect("JSON"))
}

#[test]
fn a_file_does_not_differ_from_itself() {
    let folder = folder();
    let out = done(folder.path(), &["diff", "a.pdi", "a.pdi"]);
    assert!(String::from_utf8_lossy(&out).ends_with("no difference\n"));
    let (code, json) = differences(folder.path(), &["a.cdo", "a.cdo"]);
    assert_eq!((code, &json["parts"], &json["bytes"]), (0, &serde_json::json!([]), &Value::Null));
}

#[test]
fn one_changed_value_is_one_command() {
    let folder = folder();
    let (code, json) = differences(folder.path(), &["a.cdo", "b.cdo"]);
    assert_eq!((code, &json["parts"][0]["bytes"]["count"]), (1, &Value::from(1)));
    assert_eq!(json["parts"][0]["differences"].as_array().map(Vec::len), Some(1), "{json}");
    let (code, json) = differences(folder.path(), &["--meaning", "a.pdi", "b.pdi"]);
    assert_eq!((code, &json["bytes"]), (1, &Value::Null));
    let commands = json["parts"].as_array().expect("a list").iter().find(|part| part["part"] == "commands 0");
    assert_eq!(commands.expect("they differ")["differences"].as_array().map(Vec::len), Some(1), "{json}");
}

#[test]
fn what_cannot_be_read_is_bad_input_and_elf_files_are_compared_by_meaning() {
    let folder = folder();
    let folder = folder.path();
    let stream = include_str!("../fixtures/passthrough.txn.txt");
    for (name, text) in
        [("a", stream.to_owned()), ("b", stream.replacen("argument=1 offset=0x0", "argument=1 offset=0x40", 1))]
    {
        fs::write(folder.join("launch.txt"), text).expect("the folder can be written");
        done(folder, &["txn", "asm", "launch.txt", "-o", &format!("{name}.bin")]);
        done(folder, &["elf", "build", "--stream", &format!("{name}.bin"), "-o", &format!("{name}.elf")]);
    }
    let (code, json) = differences(folder, &["a.elf", "b.elf"]);
    let part = json["parts"].as_array().expect("a list").iter().find(|part| part["part"] == ".ctrltext");
    let differences = &part.expect("they differ")["differences"];
    assert_eq!((code, differences.as_array().map(Vec::len)), (1, Some(1)), "{json}");
    assert!(differences[0]["second"].as_str().expect("a text").contains("offset=0x40"), "{json}");
    done(folder, &["diff", "a.elf", "a.elf"]);
    for name in ["a.elf", "a.pdi", "a.cdo", "a.bin"] {
        let bytes = fs::read(folder.join(name)).expect("a file");
        fs::write(folder.join("cut"), &bytes[..bytes.len() / 2]).expect("the folder can be written");
        fails(folder, &["diff", "cut", "cut"], 3, "cut: ");
        fails(folder, &["diff", name, "cut"], 3, "cut: ");
    }
}

#[test]
fn files_of_two_kinds_are_refused() {
    let folder = folder();
    fails(folder.path(), &["diff", "a.cdo", "a.pdi"], 2, "name two of a kind");
    fails(folder.path(), &["diff", "a.cdo", "a.txt"], 3, "starts like no package");
    fails(folder.path(), &["diff", "a.cdo", "none"], 3, "cannot read none");
}
