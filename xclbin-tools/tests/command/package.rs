//! `xclbin build`, `split`, `merge`, and the command line of xclbinutil.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;
use xclbin_tools::{
    axlf::{Axlf, Kind, Section},
    cdo::assemble,
    pdi,
    section::{AiePartition, EmbeddedMetadata},
};

use crate::{done, fails, run, run_with};

const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";
const FIXTURES: [(&str, &str); 5] = [
    ("kernels.json", include_str!("../fixtures/package/kernels.json")),
    ("mem_topology.json", include_str!("../fixtures/package/mem_topology.json")),
    ("partition.json", include_str!("../fixtures/package/partition_npu1.json")),
    ("manifest.json", include_str!("../fixtures/package/manifest.json")),
    ("wide.json", include_str!("../fixtures/package/kernels_16.json")),
];

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    for (name, text) in FIXTURES {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    let [a, b] = ["passthrough.cdo.txt", "passthrough-npu4.cdo.txt"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let cdo = assemble(&fs::read_to_string(path).expect("a fixture")).expect("a CDO");
        pdi::build(&[&cdo], &pdi::Options::default()).expect("a PDI")
    });
    fs::write(folder.path().join("a.pdi"), a).expect("a file");
    fs::write(folder.path().join("sub/b.pdi"), b).expect("a file");
    folder
}

fn file(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).expect(name)
}

/// The names of a package's kernels.
fn kernels(bytes: &[u8]) -> Vec<String> {
    let package = Axlf::parse(bytes).expect("a package");
    let metadata = package.section(Kind::EMBEDDED_METADATA).expect("metadata");
    let metadata = EmbeddedMetadata::parse(&metadata.bytes).expect("metadata");
    metadata.kernels.into_iter().map(|kernel| kernel.name).collect()
}

const BUILD: [&str; 7] =
    ["build", "--kernels", "kernels.json", "--mem-topology", "mem_topology.json", "--partition", "partition.json"];

#[test]
fn a_manifest_becomes_a_package_that_splits_and_merges() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &["build", "--manifest", "manifest.json", "-o", "m.xclbin", "--uuid", UUID]);
    let whole = file(folder, "m.xclbin");
    assert_eq!(Axlf::parse(&whole).expect("a package").header().uuid.to_string(), UUID);
    assert_eq!(kernels(&whole), ["passthrough", "again", "other"]);
    let paths = String::from_utf8(done(folder, &["split", "m.xclbin", "--output", "parts"])).expect("paths");
    assert_eq!(paths, "parts/m.0.xclbin\nparts/m.1.xclbin\n");
    assert_eq!(kernels(&file(folder, "parts/m.0.xclbin")), ["passthrough", "again"]);
    assert_eq!(kernels(&file(folder, "parts/m.1.xclbin")), ["other"]);
    fails(folder, &["split", "m.xclbin", "--output", "parts"], 1, "--force overwrites it");
    let merged = done(folder, &["merge", "parts/m.0.xclbin", "parts/m.1.xclbin", "-o", "-"]);
    assert_eq!(kernels(&merged), kernels(&whole));
    let json = done(folder, &["split", "m.xclbin", "--output", "parts", "--force", "--json", "--uuid", UUID]);
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["version"], json["files"].as_array().map(Vec::len)), (&1.into(), Some(2)));
    let second = file(folder, "parts/m.1.xclbin");
    assert!(Axlf::parse(&second).expect("a package").header().uuid.to_string().ends_with("ef00"));
}

#[test]
fn split_writes_all_parts_or_none() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &["build", "--manifest", "manifest.json", "-o", "m.xclbin"]);
    fs::create_dir(folder.join("parts")).expect("a folder");
    fs::write(folder.join("parts/m.1.xclbin"), "old").expect("a file");
    fails(folder, &["split", "m.xclbin", "-o", "parts"], 1, "m.1.xclbin exists: --force overwrites it");
    assert!(!folder.join("parts/m.0.xclbin").exists());
    let whole = file(folder, "m.xclbin");
    let from_stdin = run_with(folder, &["split", "-", "-o", "parts"], &whole);
    assert_eq!(String::from_utf8_lossy(&from_stdin.out), "parts/package.0.xclbin\nparts/package.1.xclbin\n");
    // A section as long as all else goes into every part.
    let mut package = Axlf::parse(&whole).expect("a package");
    let section = package.sections_mut().iter_mut().find(|section| section.kind == Kind::AIE_PARTITION);
    let section = section.expect("a partition");
    let bytes = section.bytes.clone();
    let mut partition = AiePartition::parse(&bytes).expect("a partition");
    partition.pdis = vec![partition.pdis[0].clone(); 40];
    partition.pdis.iter_mut().for_each(|pdi| pdi.image = Vec::new().into());
    section.bytes = partition.to_bytes().expect("a section").into();
    let (kind, name) = (Kind::from_name("USER_METADATA").expect("a kind"), section.name);
    package.sections_mut().push(Section { kind, name, bytes: vec![1; 100_000].into() });
    fs::write(folder.join("big.xclbin"), package.to_bytes().expect("a package")).expect("a file");
    fails(folder, &["split", "big.xclbin", "-o", "big"], 3, "big.xclbin: its parts have more than 16 times its");
    assert!(!folder.join("big").exists());
}

#[test]
fn dumps_are_all_written_or_none() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &["build", "--manifest", "manifest.json", "-o", "m.xclbin"]);
    fs::create_dir(folder.join("dump")).expect("a folder");
    let image = "dump/00000000-0000-0000-0000-000000000002.pdi";
    fs::write(folder.join(image), "old").expect("a file");
    let options = ["-i", "m.xclbin", "--dump-section", "IP_LAYOUT:JSON:dump/i.json", "AIE_PARTITION:JSON:dump/p.json"];
    fails(folder, &options, 1, "exists: --force overwrites it");
    assert_eq!(fs::read_dir(folder.join("dump")).expect("a folder").count(), 1);
    done(folder, &[&options[..], &["--force"]].concat());
    assert_eq!(fs::read_dir(folder.join("dump")).expect("a folder").count(), 4);
    assert_eq!(file(folder, image), file(folder, "sub/b.pdi"));
    fails(folder, &["-i", "m.xclbin", "--dump-section", "AIE_PARTITION:JSON:-"], 2, "name a file");
}

#[test]
fn taken_ids_are_given_anew_and_said() {
    let folder = folder();
    let folder = folder.path();
    done(folder, &[&BUILD[..], &["-o", "a.xclbin"]].concat());
    let manifest = r#"{"version": 1, "device": "npu1", "columns": 1, "start_columns": [0, 1, 2, 3],
        "pdis": [{"file": "a.pdi", "kernels": [{"name": "b"}]}]}"#;
    fs::write(folder.join("b.json"), manifest).expect("a file");
    done(folder, &["build", "--manifest", "b.json", "-o", "b.xclbin"]);
    let merge = run(folder, &["merge", "a.xclbin", "b.xclbin", "-o", "c.xclbin"]);
    assert_eq!(merge.code, 0, "{}", merge.notes);
    assert!(merge.notes.contains("b.xclbin: kernel id 0x901 is taken: it becomes 0x902"), "{}", merge.notes);
    let json = done(folder, &["merge", "a.xclbin", "b.xclbin", "-o", "c.xclbin", "--force", "--json"]);
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["renumbered"][1], serde_json::json!({"file": "b.xclbin", "what": "PDI", "from": 1, "to": 2}));
    let keep = ["merge", "a.xclbin", "b.xclbin", "-o", "d.xclbin", "--keep-ids"];
    fails(folder, &keep, 3, "b.xclbin: kernel id 0x901: a package before has it");
    let twice = ["merge", "a.xclbin", "a.xclbin", "-o", "d.xclbin"];
    fails(
        folder,
        &twice,
        3,
        "a.xclbin: kernel \"MLIR_AIE\": a package before has one of that name: rename one (`--rename`)",
    );
    let rename = |value: &'static str| [&twice[..], &["--rename", value]].concat();
    fails(folder, &rename("MLIR_AIE=x"), 2, "N:OLD=NEW is expected");
    fails(folder, &rename("3:MLIR_AIE=x"), 2, "--rename 3: the packages are 1 to 2");
    fails(folder, &rename("2:OTHER=x"), 3, "a.xclbin: kernel \"OTHER\": the package has \"MLIR_AIE\"");
    done(folder, &rename("2:MLIR_AIE=scale"));
    assert_eq!(kernels(&file(folder, "d.xclbin")), ["MLIR_AIE", "scale"]);
    fs::remove_file(folder.join("d.xclbin")).expect("a file");
    fails(folder, &["merge", "a.xclbin", "b.xclbin", "-o", "-", "--json"], 2, "both want standard output");
    let input = ["build", "--manifest", "b.json", "--input", "a.xclbin", "-o", "e.xclbin"];
    fails(folder, &input, 3, "kernel id 0x901: MLIR_AIE:MLIRAIE has it");
    fs::write(folder.join("b.json"), manifest.replace("\"b\"", "\"b\", \"id\": \"0x7\"")).expect("a file");
    let build = run(folder, &input);
    assert!(build.notes.contains("PDI id 0x1 is taken: it becomes 0x2"), "{}", build.notes);
    assert_eq!(kernels(&file(folder, "e.xclbin")), ["MLIR_AIE", "b"]);
}

#[test]
fn builds_say_what_is_missing() {
    let folder = folder();
    let folder = folder.path();
    fails(folder, &["build", "-o", "a.xclbin"], 2, "--manifest <JSON>");
    fails(folder, &["build", "--manifest", "no.json", "-o", "a.xclbin"], 3, "cannot read no.json");
    fs::write(folder.join("text"), "image").expect("a file");
    fails(folder, &["build", "--manifest", "text", "-o", "a.xclbin"], 3, "text: line 1, column 1");
    fails(folder, &[&BUILD[..], &["-o", "a.xclbin", "--uuid", "x"]].concat(), 2, "32 hexadecimal digits");
    let other = [&BUILD[..], &["-o", "a.xclbin", "--kernels", "wide.json"]].concat();
    fails(folder, &other, 3, "kernel id 0x90a: WIDE:WIDE_0 has it, but AIE_PARTITION lists 0x901 alone");
    fails(
        folder,
        &[BUILD[0], BUILD[5], BUILD[6], "-o", "a.xclbin", BUILD[1], BUILD[2]],
        3,
        "xclbin build --mem-topology",
    );
    fails(folder, &["build", BUILD[1], BUILD[2], "-o", "a.xclbin"], 3, "xclbin build --mem-topology");
    let alone = run(folder, &[&BUILD[..5], &["-o", "b.xclbin"]].concat());
    assert_eq!(alone.code, 0, "{}", alone.notes);
    assert!(alone.notes.contains("no AIE_PARTITION: nothing can run from it"), "{}", alone.notes);
    for bytes in ["", "{}"] {
        fs::write(folder.join("a.pdi"), bytes).expect("a file");
        fails(folder, &[&BUILD[..], &["-o", "a.xclbin"]].concat(), 3, "partition.json: \"a.pdi\" is no PDI");
        fails(
            folder,
            &["build", "--manifest", "manifest.json", "-o", "a.xclbin"],
            3,
            "manifest.json: \"a.pdi\" is no PDI",
        );
    }
    fs::remove_file(folder.join("a.pdi")).expect("the file was there");
    fails(folder, &[&BUILD[..], &["-o", "a.xclbin"]].concat(), 3, "cannot read a.pdi");
    assert!(!folder.join("a.xclbin").exists());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = folder();
    let folder = folder.path();
    let build = |output: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xclbin"));
        command.args(BUILD).args(["--section", "USER_METADATA:RAW:manifest.json", "--uuid", UUID, "-o", output]);
        let done = command.current_dir(folder).env("SOURCE_DATE_EPOCH", "1700000000").status().expect("xclbin starts");
        assert!(done.success());
        file(folder, output)
    };
    let bytes = build("a.xclbin");
    assert_eq!(build("b.xclbin"), bytes);
    assert_eq!(Axlf::parse(&bytes).expect("a package").header().timestamp, 1_700_000_000);
}

#[test]
fn stands_in_for_xclbinutil() {
    let folder = folder();
    let folder = folder.path();
    let line = "--add-replace-section MEM_TOPOLOGY:JSON:mem_topology.json --add-kernel kernels.json \
                --add-replace-section AIE_PARTITION:JSON:partition.json --force --output a.xclbin";
    done(folder, &line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(kernels(&file(folder, "a.xclbin")), ["MLIR_AIE"]);
    let info = String::from_utf8(done(folder, &["--info", "--input", "a.xclbin"])).expect("text");
    assert!(info.contains("MLIR_AIE"), "{info}");
    done(folder, &["--info", "a.txt", "-i", "a.xclbin"]);
    assert_eq!(String::from_utf8(file(folder, "a.txt")).expect("text"), info);
    fails(folder, &["--info", "--private-key", "x"], 2, "--private-key is not supported");
    fails(folder, &["-i", "kernels.json", "--info"], 3, "kernels.json: axlf, byte 0x0: magic");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xclbin"));
        let output = command
            .args(["--info", "--input"])
            .arg(std::ffi::OsStr::from_bytes(b"f\xff.xclbin"))
            .output()
            .expect("xclbin starts");
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("options of xclbinutil are in UTF-8"));
    }
    let kinds = String::from_utf8(done(folder, &["--list-sections"])).expect("text");
    assert!(kinds.lines().any(|kind| kind == "AIE_PARTITION"), "{kinds}");
    #[cfg(unix)]
    {
        let link = folder.join("xclbinutil");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_xclbin"), &link).expect("a link");
        let help = std::process::Command::new(&link).arg("--help").output().expect("xclbin starts");
        assert!(String::from_utf8_lossy(&help.stdout).contains("--add-replace-section"));
    }
}
