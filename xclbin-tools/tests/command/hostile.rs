//! The command on files that were made to harm it, its user's memory or terminal.

use std::{borrow::Cow, fs, io::pipe, path::Path, process::Command};

use tempfile::TempDir;
use xclbin_tools::{
    axlf::{Axlf, Header, Kind, Section},
    section::{self, AiePartition, Name, aie_partition, json::Tree},
};

use crate::{Run, done, fails, run};

const TXN: &str = include_str!("../fixtures/passthrough.txn.txt");
const CDO: &str = include_str!("../fixtures/passthrough.cdo.txt");

fn section(kind: Kind, bytes: Vec<u8>) -> Section<'static> {
    Section { kind, name: Name::default(), bytes: Cow::Owned(bytes) }
}

/// A package of these kernels, with columns to start at.
fn package(xml: &str, start_columns: Vec<u16>, image: &[u8]) -> Vec<u8> {
    let pdi = aie_partition::Pdi { image: image.into(), ..Default::default() };
    let partition = AiePartition { column_width: 1, start_columns, pdis: vec![pdi], ..Default::default() };
    let json = r#"{"mem_topology": {"m_count": 1, "m_mem_data": [{"m_type": "MEM_DRAM", "m_used": 1, "m_sizeKB": 1024,
        "m_tag": "SRAM", "m_base_address": "0x4000000"}]}}"#;
    let memories = section::from_json(Kind::MEM_TOPOLOGY, &Tree::parse(json).expect("JSON"));
    let mut memories = memories.expect("memories").expect("a section");
    let tag = memories.windows(4).position(|bytes| bytes == b"SRAM").expect("its tag");
    memories[tag..tag + 4].copy_from_slice(b"\x1b[2J");
    let sections = vec![
        section(Kind::AIE_PARTITION, partition.to_bytes().expect("a section")),
        section(Kind::EMBEDDED_METADATA, xml.into()),
        section(Kind::MEM_TOPOLOGY, memories),
    ];
    Axlf::new(Header::default(), sections).to_bytes().expect("a package")
}

fn kernels(name: &str, n: usize) -> String {
    let kernel = |index| format!("<kernel name=\"{name}{index}\" language=\"c\" type=\"dpu\"/>");
    let all: String = (0..n).map(kernel).collect();
    format!("<project><platform><device><core>{all}</core></device></platform></project>")
}

/// A folder with a file of each kind.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    fs::write(at.join("a.cdo.txt"), CDO).expect("the folder can be written");
    fs::write(at.join("a.txn.txt"), TXN).expect("the folder can be written");
    done(at, &["cdo", "asm", "a.cdo.txt", "-o", "a.cdo"]);
    done(at, &["txn", "asm", "a.txn.txt", "-o", "a.bin"]);
    done(at, &["pdi", "pack", "a.cdo", "--name", "\x1b[2J", "-o", "a.pdi"]);
    done(at, &["elf", "build", "--stream", "a.bin", "-o", "a.elf"]);
    let image = fs::read(at.join("a.pdi")).expect("a PDI");
    fs::write(at.join("a.xclbin"), package(&kernels("add", 1), vec![0], &image)).expect("the folder can be written");
    folder
}

/// Every way to read a file.
fn readers(folder: &Path, file: &str) -> Vec<Run> {
    let commands: [&[&str]; 15] = [
        &["info", file],
        &["info", "--json", file],
        &["dump", file],
        &["extract", file, "pdi", "-o", "-"],
        &["--info", "--input", file],
        &["pdi", "unpack", file],
        &["pdi", "unpack", "--json", file],
        &["cdo", "dump", file],
        &["txn", "dump", file],
        &["txn", "dump", "--json", file],
        &["elf", "dump", file],
        &["elf", "dump", "--json", file],
        &["draw", file, "-o", "-"],
        &["verify", file],
        &["diff", file, file],
    ];
    commands.into_iter().map(|args| run(folder, args)).collect()
}

#[test]
fn wide_and_long_files_make_no_endless_tables() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let files = [
        package(&kernels(&"w".repeat(70_000), 1), vec![0], &[]),
        package(&kernels("k", 5000), vec![0], &[]),
        package(&kernels("k", 1), vec![1; 30_000], &[]),
    ];
    for bytes in files {
        fs::write(folder.join("x"), &bytes).expect("the folder can be written");
        for args in [&["info", "x"][..], &["--info", "--input", "x"], &["verify", "x"]] {
            let run = run(folder, args);
            assert!(run.code <= 1, "{args:?}: {}: {}", run.code, run.notes);
            assert!(run.out.len() < bytes.len(), "{args:?}: {} bytes", run.out.len());
        }
    }
}

#[test]
fn control_characters_of_files_do_not_reach_the_terminal() {
    let folder = folder();
    let folder = folder.path();
    let mut elf = fs::read(folder.join("a.elf")).expect("an ELF file");
    let name = elf.windows(9).position(|bytes| bytes == b".ctrltext").expect("its name");
    elf[name..name + 9].copy_from_slice(b"\xc2\x9b2J\x1b[2J\n");
    fs::write(folder.join("a.elf"), elf).expect("the folder can be written");
    let mut n_shown = 0;
    for file in ["a.xclbin", "a.pdi", "a.elf"] {
        for run in readers(folder, file) {
            let out = String::from_utf8_lossy(&run.out);
            // A PDI as it is may go into a file.
            if !out.starts_with("\u{fffd}") && !run.out.contains(&0) {
                assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{out:?}");
                n_shown += usize::from(out.contains("\\u{1b}[2J") || out.contains("\\u001b[2J"));
            }
        }
    }
    assert!(n_shown >= 5, "{n_shown}");
    let lone = run(folder, &["info", "\x1b[2J"]);
    assert!(lone.notes.contains("\\u{1b}[2J") && !lone.notes.contains('\x1b'), "{:?}", lone.notes);
}

#[test]
fn a_broken_file_is_no_broken_command() {
    let folder = folder();
    let folder = folder.path();
    for name in ["a.xclbin", "a.pdi", "a.cdo", "a.bin", "a.elf"] {
        let bytes = fs::read(folder.join(name)).expect("a file");
        for step in 0..12 {
            let mut broken = bytes.clone();
            let at = step * (bytes.len() - 1) / 11;
            match step % 3 {
                0 => broken.truncate(at),
                1 => broken[at] ^= 0x81,
                _ => broken[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
            }
            fs::write(folder.join("x"), broken).expect("the folder can be written");
            for run in readers(folder, "x") {
                assert!((0..=3).contains(&run.code), "{name}, {step}: {}: {}", run.code, run.notes);
                assert!(!run.notes.contains("panicked"), "{}", run.notes);
            }
        }
    }
}

#[test]
fn a_verdict_outlives_its_reader() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("bad.bin"), &fs::read(folder.join("a.bin")).expect("a stream")[..100]).expect("written");
    fs::write(folder.join("b.cdo.txt"), format!("{CDO}\nnop\n")).expect("written");
    done(folder, &["cdo", "asm", "b.cdo.txt", "-o", "b.cdo"]);
    let check = |args: &[&str], code| {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_xclbin"));
        let status = command.args(args).current_dir(folder).stdout(writer).status().expect("xclbin ends");
        assert_eq!(status.code(), Some(code), "{args:?}");
    };
    check(&["verify", "bad.bin"], 1);
    check(&["diff", "a.cdo", "b.cdo"], 1);
    check(&["diff", "--json", "a.cdo", "b.cdo"], 1);
    check(&["cdo", "dump", "a.cdo"], 0);
}

#[test]
fn files_of_another_kind_are_named() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("empty"), "").expect("the folder can be written");
    fails(folder, &["info", "a.pdi"], 3, "a.pdi is a PDI, not a package: see `xclbin pdi unpack`");
    fails(folder, &["dump", "a.bin"], 3, "a.bin is an instruction stream, not a package: see `xclbin txn dump`");
    fails(folder, &["pdi", "unpack", "a.xclbin"], 3, "a.xclbin is a package, not a PDI: see `xclbin info`");
    fails(folder, &["pdi", "pack", "a.elf", "-o", "x"], 3, "a.elf is an ELF file, not a CDO: see `xclbin elf dump`");
    fails(folder, &["elf", "dump", "a.cdo"], 3, "a.cdo is a CDO, not an ELF file: see `xclbin cdo dump`");
    fails(folder, &["draw", "a.pdi", "--insts", "a.pdi", "-o", "x"], 3, "a.pdi is a PDI, not an instruction stream");
    fails(folder, &["draw", "a.bin", "--insts", "a.bin", "-o", "x"], 2, "is an instruction stream itself");
    fails(folder, &["elf", "build", "--stream", "a.cdo.txt", "-o", "x"], 3, "a.cdo.txt: ");
    let packets = ["elf", "build", "--stream", "a.bin", "--control-packets", "a.xclbin", "-o", "x"];
    fails(folder, &packets, 3, "a.xclbin is a package, not control packets");
    for args in
        [&["info", "empty"][..], &["txn", "dump", "empty"], &["cdo", "dump", "empty"], &["diff", "empty", "empty"]]
    {
        fails(folder, args, 3, "empty is empty");
    }
}

/// As values a stream of no-operations takes hundreds of times its bytes.
#[cfg(target_os = "linux")]
#[test]
fn a_stream_becomes_json_in_little_memory() {
    let folder = folder();
    let folder = folder.path();
    let text =
        format!("stream version=1.0 generation=3 rows=6 columns=4 memory_tile_rows=1\n{}", "noop\n".repeat(500_000));
    fs::write(folder.join("noops.txt"), text).expect("the folder can be written");
    done(folder, &["txn", "asm", "noops.txt", "-o", "noops.bin"]);
    done(folder, &["elf", "build", "--stream", "noops.bin", "-o", "noops.elf"]);
    for args in ["txn dump --json noops.bin", "elf dump --json noops.elf"] {
        let command = format!("ulimit -v 131072; '{}' {args} | tail -c 20", env!("CARGO_BIN_EXE_xclbin"));
        let output = Command::new("sh").args(["-c", &command]).current_dir(folder).output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert!(output.stdout.ends_with(b"}\n"), "{args}");
    }
}
