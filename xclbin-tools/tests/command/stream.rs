//! `xclbin txn` and `xclbin elf`.

use std::fs;

use super::{done, run};

const TEXT: &str = include_str!("../fixtures/passthrough.txn.txt");

#[test]
fn a_stream_becomes_text_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("launch.txt"), TEXT).unwrap();
    done(folder.path(), &["txn", "asm", "launch.txt", "-o", "insts.bin"]);
    let text = String::from_utf8(done(folder.path(), &["txn", "dump", "insts.bin"])).unwrap();
    assert!(text.starts_with("; For npu1: 8 operations, 300 bytes.\nstream version=0.1 generation=3"), "{text}");
    fs::write(folder.path().join("again.txt"), &text).unwrap();
    let bytes = done(folder.path(), &["txn", "asm", "again.txt", "-o", "-"]);
    assert_eq!(bytes, fs::read(folder.path().join("insts.bin")).unwrap());
    let json = done(folder.path(), &["txn", "dump", "insts.bin", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["version"], &json["stream"]["operations"][1]["argument"]), (&1.into(), &1.into()));
}

#[test]
fn a_stream_changes_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("launch.txt"), TEXT).unwrap();
    done(folder.path(), &["txn", "asm", "launch.txt", "-o", "insts.bin"]);
    let asked = [
        ["--argument", "1=5"],
        ["--argument", "0=1"],
        ["--offset", "1=0x20"],
        ["--add-offset", "1=-0x10"],
        ["--add-patch", "tile(0,0)+0x1d000=7"],
        ["--word", "0x1d214=2"],
        ["--mask", "2:tile(0,0)+0x1d200=0x1f01"],
        ["--columns", "4"],
        ["--shift-columns", "3"],
        ["--device", "npu4"],
    ];
    let mut args = vec!["txn", "patch", "insts.bin", "-o", "changed.bin", "--fold"];
    args.extend(asked.as_flattened());
    done(folder.path(), &args);
    let text = String::from_utf8(done(folder.path(), &["txn", "dump", "changed.bin"])).unwrap();
    for expected in [
        "generation=4 rows=6 columns=4",
        "patch tile(3,0)+0x1d024 argument=5 offset=0x80000000",
        "patch tile(3,0)+0x1d004 argument=1 offset=0x10",
        "patch tile(3,0)+0x1d000 argument=7 offset=0x80000000",
        "mask_write tile(3,0)+0x1d200 value=0xf00 mask=0x1f01",
        "write tile(3,0)+0x1d214 value=0x2",
        "sync tile(3,0) direction=s2mm channel=0 columns=1 rows=1",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn what_does_not_occur_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("launch.txt"), TEXT).unwrap();
    done(folder.path(), &["txn", "asm", "launch.txt", "-o", "insts.bin"]);
    let check = |more: &[&str], code, expected: &str| {
        let mut args = vec!["txn", "patch", "insts.bin", "-o", "changed.bin"];
        args.extend(more);
        let run = run(folder.path(), &args);
        assert_eq!(run.code, code, "{}", run.notes);
        assert!(run.notes.contains(expected), "{}", run.notes);
        assert!(!folder.path().join("changed.bin").exists());
    };
    check(&["--argument", "9=1"], 3, "argument 9: the patches are of arguments 0, 1");
    check(&["--word", "0x1d208=1"], 3, "no operation writes or polls it");
    check(&["--shift-columns", "1"], 3, "a column below the 1 of the header");
    check(&[], 2, "no change is asked for");
    check(&["--word", "4"], 2, "a place and a number with `=` between them");
    check(&["--offset", "1=x"], 2, "\"x\" is no number");
    check(&["--offset", "1=99999999999999999999"], 2, "at most 64 bits");
    check(&["--argument", "0=1", "--argument", "0=2"], 2, "given twice");
    check(&["--device", "npu9"], 2, "npu1, npu2, npu4, or the number of a generation");
    let run = run(folder.path(), &["txn", "asm", "launch.txt", "-o", "insts.bin"]);
    assert_eq!(run.code, 1, "{}", run.notes);
    assert!(run.notes.contains("--force overwrites it"), "{}", run.notes);
}

#[test]
fn an_elf_file_is_built_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("launch.txt"), TEXT).unwrap();
    done(folder.path(), &["txn", "asm", "launch.txt", "-o", "insts.bin"]);
    done(folder.path(), &["elf", "build", "--stream", "insts.bin", "-o", "launch.elf"]);
    let text = String::from_utf8(done(folder.path(), &["elf", "dump", "launch.elf"])).unwrap();
    for expected in
        ["partial file, ABI version 0x2", "XRT  UID ", ".ctrltext  0x20    4           shim_dma_48", "sync tile(0,0)"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let config = r#"{ "xrt-kernels": [ { "name": "main", "arguments": [], "PDIs": [ { "id": 1, "PDI_file": "a.pdi" } ],
        "instance": [ { "id": "launch", "TXN_ctrl_code_file": "insts.bin" } ] } ] }"#;
    fs::create_dir(folder.path().join("build")).unwrap();
    fs::write(folder.path().join("build/config.json"), config).unwrap();
    let args = ["elf", "build", "--config", "build/config.json", "-o", "full.elf"];
    let missing = run(folder.path(), &args);
    assert_eq!(missing.code, 3);
    assert!(missing.notes.contains("a.pdi"), "{}", missing.notes);
    fs::write(folder.path().join("build/a.pdi"), "image").unwrap();
    fs::copy(folder.path().join("insts.bin"), folder.path().join("build/insts.bin")).unwrap();
    done(folder.path(), &args);
    let json = done(folder.path(), &["elf", "dump", "full.elf", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["kind"], &json["patches"][1]["name"]), (&"full".into(), &"0".into()));
    assert_eq!(json["streams"][".ctrltext.0"]["operations"].as_array().unwrap().len(), 8);
    let not_a_stream = run(folder.path(), &["txn", "dump", "full.elf"]);
    assert_eq!(not_a_stream.code, 3);
    assert!(not_a_stream.notes.contains("`xclbin elf dump`"), "{}", not_a_stream.notes);
}
