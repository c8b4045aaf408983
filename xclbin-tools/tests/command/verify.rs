//! `xclbin verify`: reports, JSON, rules, exit codes.

use std::{fs, path::Path};

use serde_json::Value;

use super::{done, fails, run};

const CDO: &str = include_str!("../fixtures/passthrough.cdo.txt");

/// Writes a CDO as `NAME.bin`: the fixture with a line more.
fn cdo(folder: &Path, name: &str, line: &str) {
    fs::write(folder.join("text"), format!("{CDO}\n{line}\n")).unwrap();
    done(folder, &["cdo", "asm", "text", "-o", name]);
}

#[test]
fn a_valid_file_ends_with_nothing_found() {
    let folder = tempfile::tempdir().unwrap();
    cdo(folder.path(), "good.bin", "");
    assert_eq!(done(folder.path(), &["verify", "good.bin"]), b"good.bin: nothing found (for any device)\n");
}

#[test]
fn findings_say_rule_place_effect_and_mend() {
    let folder = tempfile::tempdir().unwrap();
    cdo(folder.path(), "bad.bin", "write tile(9,0)+0x1d000 value=0");
    let run = run(folder.path(), &["verify", "bad.bin"]);
    assert_eq!(run.code, 1);
    let text = String::from_utf8(run.out).unwrap();
    assert!(text.starts_with("bad.bin: error: address-column\n  CDO, command "), "{text}");
    assert!(text.contains("column 9, row 0, offset 0x1d000"), "{text}");
    assert!(text.contains("\n    effect: ") && text.contains("\n    mend: "), "{text}");
    assert!(text.ends_with("bad.bin: 1 error, 0 warnings (for any device)\n"), "{text}");
}

#[test]
fn warnings_are_denied_where_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    cdo(folder.path(), "odd.bin", "delay delay_us=1");
    let text = String::from_utf8(done(folder.path(), &["verify", "odd.bin"])).unwrap();
    assert!(text.ends_with("odd.bin: 0 errors, 1 warning (for any device)\n"), "{text}");
    assert_eq!(run(folder.path(), &["verify", "--deny-warnings", "odd.bin"]).code, 1);
}

#[test]
fn several_files_are_named_and_summed() {
    let folder = tempfile::tempdir().unwrap();
    cdo(folder.path(), "good.bin", "");
    cdo(folder.path(), "bad.bin", "write tile(0,0)+0x1d002 value=0");
    fs::write(folder.path().join("none"), "a text").unwrap();
    let both = run(folder.path(), &["verify", "good.bin", "bad.bin"]);
    assert_eq!(both.code, 1);
    let text = String::from_utf8(both.out).unwrap();
    assert!(
        text.starts_with("good.bin: nothing found (for any device)\nbad.bin: error: address-alignment\n"),
        "{text}"
    );
    assert!(text.ends_with("2 files: 1 error, 0 warnings\n"), "{text}");
    // What is of no kind hides nothing of the others.
    let all = run(folder.path(), &["verify", "none", "bad.bin"]);
    assert_eq!(all.code, 3);
    assert!(String::from_utf8(all.out).unwrap().contains("address-alignment"));
    fails(folder.path(), &["verify", "none"], 3, "starts like no package");
    fails(folder.path(), &["verify", "missing"], 3, "cannot read missing");
}

#[test]
fn json_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    cdo(folder.path(), "bad.bin", "write tile(0,0)+0x1d002 value=0");
    let run = run(folder.path(), &["verify", "--json", "bad.bin"]);
    assert_eq!(run.code, 1);
    let json: Value = serde_json::from_slice(&run.out).unwrap();
    assert_eq!((&json["version"], &json["n_errors"], &json["n_warnings"]), (&1.into(), &1.into(), &0.into()));
    let file = &json["files"][0];
    assert_eq!((&file["file"], &file["kind"]), (&"bad.bin".into(), &"cdo".into()));
    assert_eq!((&file["device"], &file["device_from"]), (&Value::Null, &Value::Null));
    let finding = &file["findings"][0];
    assert_eq!((&finding["rule"], &finding["severity"]), (&"address-alignment".into(), &"error".into()));
    assert!(["place", "value", "bound", "effect", "mend"].iter().all(|key| finding[*key].is_string()));
}

#[test]
fn rules_are_listed_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let rules = String::from_utf8(done(folder.path(), &["verify", "--rules"])).unwrap();
    let json: Value = serde_json::from_slice(&done(folder.path(), &["verify", "--rules", "--json"])).unwrap();
    let listed = json["rules"].as_array().unwrap();
    assert_eq!(rules.lines().count(), listed.len() + 1);
    for rule in listed {
        let name = rule["name"].as_str().unwrap();
        assert!(rules.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
        let text = String::from_utf8(done(folder.path(), &["verify", "--explain", name])).unwrap();
        assert!(text.ends_with(&format!("source: {}\n", rule["source"].as_str().unwrap())), "{text}");
    }
    fails(folder.path(), &["verify", "--explain", "no-such-rule"], 2, "--rules lists them");
    fails(folder.path(), &["verify"], 2, "FILE");
}

#[test]
fn streams_are_held_against_a_package_alone() {
    let folder = tempfile::tempdir().unwrap();
    cdo(folder.path(), "good.bin", "");
    fs::write(folder.path().join("empty"), "").unwrap();
    fails(
        folder.path(),
        &["verify", "good.bin", "--insts", "good.bin"],
        3,
        "instruction stream (insts.bin), and the file is a CDO",
    );
    fails(folder.path(), &["verify", "good.bin", "--insts", "empty"], 3, "the file is empty");
    fails(folder.path(), &["verify", "empty"], 3, "empty is empty");
    fs::write(folder.path().join("txn.txt"), include_str!("../fixtures/passthrough.txn.txt")).unwrap();
    done(folder.path(), &["txn", "asm", "txn.txt", "-o", "insts.bin"]);
    fails(folder.path(), &["verify", "good.bin", "--insts", "insts.bin"], 2, "is no package");
    fails(folder.path(), &["verify", "good.bin", "--insts", "=insts.bin"], 2, "a kernel's name is expected");
    fails(folder.path(), &["verify", "good.bin", "--device", "npu9"], 2, "known are npu1, npu4");
}

#[test]
fn what_xclbin_makes_gives_no_finding() {
    let fixtures = [
        ("npu1", CDO, include_str!("../fixtures/passthrough.txn.txt")),
        (
            "npu4",
            include_str!("../fixtures/passthrough-npu4.cdo.txt"),
            include_str!("../fixtures/passthrough-npu4.txn.txt"),
        ),
    ];
    for (device, cdo, stream) in fixtures {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let manifest = format!(
            r#"{{"version": 1, "device": "{device}", "columns": 1,
                "pdis": [{{"file": "main.pdi", "kernels": [{{"name": "pass", "arguments": ["in", "out"]}}]}}]}}"#
        );
        for (name, text) in [("cdo.txt", cdo), ("txn.txt", stream), ("manifest.json", &*manifest)] {
            fs::write(folder.join(name), text).unwrap();
        }
        done(folder, &["cdo", "asm", "cdo.txt", "-o", "main.cdo"]);
        done(folder, &["pdi", "pack", "main.cdo", "-o", "main.pdi"]);
        done(folder, &["txn", "asm", "txn.txt", "-o", "insts.bin"]);
        done(folder, &["build", "--manifest", "manifest.json", "-o", "main.xclbin"]);
        done(folder, &["elf", "build", "--stream", "insts.bin", "-o", "insts.elf"]);
        let verify = ["verify", "--deny-warnings", "--device", device];
        let package = done(folder, &[&verify[..], &["main.xclbin", "--insts", "insts.bin"]].concat());
        assert_eq!(String::from_utf8(package.clone()).unwrap(), format!("main.xclbin: nothing found (for {device})\n"));
        let named = done(folder, &[&verify[..], &["main.xclbin", "--insts", "pass=insts.bin"]].concat());
        assert_eq!(named, package);
        fails(folder, &["verify", "main.xclbin", "--insts", "fail=insts.bin"], 1, "");
        let parts = done(folder, &[&verify[..], &["main.cdo", "main.pdi", "insts.bin", "insts.elf"]].concat());
        assert!(String::from_utf8(parts).unwrap().ends_with("4 files: nothing found\n"));
        // For the other device the stream is of another array.
        let other = if device == "npu1" { "npu4" } else { "npu1" };
        let run = run(folder, &["verify", "--device", other, "insts.bin"]);
        assert_eq!(run.code, 1);
        assert!(String::from_utf8(run.out).unwrap().contains("stream-generation"));
    }
}
