//! Instruction streams and ELF files beside aiebu 1.0.0.
//!
//! `aiebu-dump` says what we say of every kind of operation that it knows; the state table and the scratchpad stop it.
//! ELF files are the same byte for byte.

use std::{fs, path::Path};

use xclbin_tools::{
    elf::{self, Config, Elf, Partial},
    txn::{Op, Sync, assemble},
};

use crate::tools::Tools;

/// Every kind that `aiebu-dump` prints, in both versions.
const EVERY_KIND: &str = "\
write tile(1,2)+0x32000 value=0x80000001
block_write tile(1,0)+0x1d000
    0x400 0x12345671 0x00ab1234 0 0 0 0 0x2000000
    0x800 0 0 0 0 0 0 0x2000000
block_write tile(0,1)+0xa0000
    0x100 0 0 0 0 0 0 0
patch tile(1,0)+0x1d004 argument=0 offset=0x10
patch tile(1,0)+0x1d024 argument=6 offset=0x80000020
patch tile(1,0)+0x1d020 argument=3 offset=0x20
patch tile(0,1)+0xa0000 argument=4 offset=0x20
patch tile(0,1)+0xa0004 argument=4 offset=0x24
mask_write tile(0,0)+0x1d200 value=0xf00 mask=0x1f00
mask_poll tile(0,0)+0x1d220 value=0x0 mask=0x3
mask_poll_busy tile(0,0)+0x1d228 value=0x1 mask=0x7
noop
load_pm id=3 operations=1
noop
sync tile(1,2) direction=mm2s channel=1 columns=2 rows=3
timer id=4
merge_sync tokens=3 columns=2
";

fn header(version: &str, generation: u8, columns: u8) -> String {
    format!("stream version={version} generation={generation} rows=6 columns={columns} memory_tile_rows=1\n")
}

fn stream(text: &str) -> Vec<u8> {
    assemble(text).expect("a stream")
}

/// What `aiebu-dump` prints for an operation, its lines joined and its spaces single.
fn as_aiebu_prints(op: &Op<'_>) -> Vec<String> {
    let line = |text: String| vec![text];
    match *op {
        Op::Write { address, value } => line(format!("XAIE_IO_WRITE @{:#x}, {value:#x}", u32::from(address))),
        Op::BlockWrite { address, data } => {
            let mut lines = line(format!("XAIE_IO_BLOCKWRITE @{:#x}, [{}]", u32::from(address), data.len()));
            lines.extend(data.iter().enumerate().map(|(index, word)| format!("XAIE_IO_BLOCKWRITE.{index} {word:#x}")));
            lines
        }
        Op::MaskWrite { address, value, mask } => {
            line(format!("XAIE_IO_MASKWRITE @{:#x}, {mask:#x}(), {value:#x}", u32::from(address)))
        }
        Op::MaskPoll { address, value, mask } => {
            line(format!("XAIE_IO_MASKPOLL @{:#x}, {mask:#x}()=={value:#x}", u32::from(address)))
        }
        Op::MaskPollBusy { address, value, mask } => {
            line(format!("XAIE_IO_MASKPOLL_BUSY @{:#x}, {mask:#x}()=={value:#x}", u32::from(address)))
        }
        Op::Noop => line("XAIE_IO_NOOP".to_owned()),
        Op::Preempt { level } => {
            let level = ["NOOP", "MEM_TILE", "AIE_TILE", "AIE_REGISTERS"][usize::from(level)];
            line(format!("XAIE_IO_PREEMPT #{level}"))
        }
        Op::LoadPm { id, n_operations } => line(format!("XAIE_IO_LOAD_PM_START {n_operations:#x}, #{id}")),
        Op::Sync(Sync { column, row, direction, channel, n_columns, n_rows }) => {
            let direction = ["DMA_S2MM", "DMA_MM2S"][usize::from(direction)];
            line(format!("XAIE_IO_CUSTOM_OP_TCT R[{row}]+{n_rows}, C[{column}]+{n_columns}, #{direction}, {channel}"))
        }
        Op::Patch { address, argument, offset_bytes } => {
            line(format!("XAIE_IO_CUSTOM_OP_DDR_PATCH @{:#x}, #{argument}, +{offset_bytes:#x}", u32::from(address)))
        }
        Op::Timer { id } => line(format!("XAIE_IO_CUSTOM_OP_RECORD_TIMER #{id}")),
        Op::MergeSync { n_tokens, n_columns } => {
            line(format!("XAIE_IO_CUSTOM_OP_MERGE_SYNC C[{n_columns}]=={n_tokens}"))
        }
        // A file with PDIs stops `aiebu-dump -d`, and one without may not load any.
        Op::LoadPdi { .. }
        | Op::Custom { .. }
        | Op::CreateScratchpad { .. }
        | Op::UpdateState { .. }
        | Op::UpdateRegister { .. }
        | Op::UpdateScratch => panic!("aiebu-dump does not know {op:?}"),
    }
}

/// Holds what `aiebu-dump` says of the streams in an ELF file against what we do.
fn check_dump(tools: &Tools, folder: &Path, elf: &[u8]) {
    fs::write(folder.join("dump.elf"), elf).expect("the folder can be written");
    let said = tools.run("aiebu-dump", folder, &["-d", "dump.elf"]);
    let theirs: Vec<String> = said
        .lines()
        .filter(|line| line.starts_with("XAIE_"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let read = Elf::parse(elf).expect("an ELF file");
    let mut ours = Vec::new();
    for (_, stream) in read.streams() {
        let stream = stream.expect("a stream");
        ours.extend(stream.operations().flat_map(|placed| as_aiebu_prints(&placed.operation.op)));
    }
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

/// `aiebu-asm -t aie2txn` of files in a folder.
fn their_partial(tools: &Tools, folder: &Path, more: &[&str]) -> Vec<u8> {
    let mut args = vec!["-t", "aie2txn", "-c", "insts.bin", "-o", "theirs.elf"];
    args.extend(more);
    tools.run("aiebu-asm", folder, &args);
    fs::read(folder.join("theirs.elf")).expect("aiebu-asm wrote it")
}

fn check_partial(tools: &Tools, stream: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("insts.bin"), stream).expect("the folder can be written");
    let theirs = their_partial(tools, folder.path(), &[]);
    let ours = elf::partial(&Partial { stream, ..Partial::default() }).expect("an ELF file");
    assert_same(&ours, &theirs);
    check_dump(tools, folder.path(), &ours);
}

fn assert_same(ours: &[u8], theirs: &[u8]) {
    let differing: Vec<usize> =
        (0..ours.len().max(theirs.len())).filter(|at| ours.get(*at) != theirs.get(*at)).collect();
    let shown = &differing[..differing.len().min(9)];
    assert!(differing.is_empty(), "bytes {shown:#x?} of {} and {}", ours.len(), theirs.len());
    let read = Elf::parse(theirs).expect("aiebu's can be read");
    assert_eq!(read.to_bytes().expect("and written"), theirs);
}

/// Patches of as many arguments, each with a descriptor of its own.
fn patched(n_arguments: u32) -> Vec<u8> {
    let mut text = header("0.1", 4, 4);
    for argument in 0..n_arguments {
        let descriptor = 0x1d000 + argument * 0x20;
        text.push_str(&format!(
            "block_write tile(2,0)+{descriptor:#x}\n{} 4 0xffff 0 0 0 0 0x2000000\n",
            64 << argument
        ));
        text.push_str(&format!("patch tile(2,0)+{:#x} argument={argument} offset={argument}\n", descriptor + 4));
    }
    text.push_str("noop\n");
    stream(&text)
}

#[test]
fn every_kind_is_read_alike() {
    let Some(tools) = Tools::find() else { return };
    for version in ["0.1", "1.0"] {
        check_partial(&tools, &stream(&format!("{}{EVERY_KIND}", header(version, 4, 3))));
    }
}

#[test]
fn partial_files_are_the_same() {
    let Some(tools) = Tools::find() else { return };
    for n_arguments in [0, 1, 5, 16] {
        let stream = patched(n_arguments);
        check_partial(&tools, &stream);
        let folder = tempfile::tempdir().expect("a folder");
        let packets: Vec<u8> = (0..200).collect();
        let externals = r#"{ "external_buffers": {
            "z": { "xrt_id": 2, "size_in_bytes": 40000, "coalesed_buffers": [
                { "offset_in_bytes": 0, "control_packet_patch_locations": [ { "offset": 12 }, { "offset": 76 } ] },
                { "offset_in_bytes": 37888, "control_packet_patch_locations": [ { "offset": 100 } ] } ] },
            "a": { "xrt_id": 1, "offset_in_bytes": 8, "control_packet_patch_locations": [ { "offset": 12 } ] },
            "control": { "xrt_id": 0, "ctrl_pkt_buffer": 1 } } }"#;
        let dma = r#"{ "ctrl_pkt_xrt_arg_idx": 3, "ctrl_pkt_patch_info": [
            { "offset": 12, "xrt_arg_idx": 2, "bo_offset": 16 }, { "offset": 44, "xrt_arg_idx": 9, "bo_offset": 32 } ] }"#;
        fs::write(folder.path().join("insts.bin"), &stream).expect("the folder can be written");
        fs::write(folder.path().join("control.bin"), &packets).expect("the folder can be written");
        for json in [externals, dma, r#"{ "ctrl_pkt_patch_info": [] }"#, "{}"] {
            fs::write(folder.path().join("patch.json"), json).expect("the folder can be written");
            let theirs = their_partial(&tools, folder.path(), &["-p", "control.bin", "-j", "patch.json"]);
            let from = Partial { stream: &stream, control_packets: Some(&packets), patch_info: Some(json) };
            assert_same(&elf::partial(&from).expect("an ELF file"), &theirs);
        }
    }
}

#[test]
fn full_files_are_the_same() {
    let Some(tools) = Tools::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("the folder can be written");
    let npu4 = header("0.1", 4, 4);
    write(
        "load.bin",
        &stream(&format!("{npu4}load_pdi id=12 size=0x15 address=0\nnoop\nload_pdi id=2 size=0x15 address=0\n")),
    );
    write("scratch.bin", &stream(&format!("{npu4}create_scratchpad usage=0 size=0x40 offset=8\nupdate_scratch\n")));
    write("control.bin", &[7; 60]);
    write(
        "patch.json",
        br#"{ "external_buffers": { "a": { "xrt_id": 1, "ctrl_pkt_buffer": 1 },
        "b": { "xrt_id": 0, "control_packet_patch_locations": [ { "offset": 12 } ] } } }"#,
    );
    write("x.pdi", &[1; 333]);
    write("y.pdi", &[2; 21]);
    for n_arguments in [0, 1, 5, 16] {
        write("patched.bin", &patched(n_arguments));
        let pdis = r#"[ { "id": 12, "PDI_file": "x.pdi" }, { "id": 2, "PDI_file": "y.pdi" } ]"#;
        let one = format!(
            r#"{{ "name": "main", "arguments": [ {{ "name": "a", "type": "char *", "offset": "0x0" }} ], "PDIs": {pdis},
                "instance": [ {{ "id": "only", "TXN_ctrl_code_file": "patched.bin" }} ] }}"#
        );
        let other = format!(
            r#"{{ "name": "again", "PDIs": {pdis}, "arguments": [
                    {{ "name": "a", "type": "void *", "offset": "0x0" }}, {{ "name": "b", "type": "int *", "offset": "0x8" }},
                    {{ "name": "c", "type": "scalar", "offset": "0x10" }} ],
                "instance": [ {{ "id": "z", "TXN_ctrl_code_file": "load.bin" }}, {{ "id": "s", "TXN_ctrl_code_file": "scratch.bin" }},
                    {{ "id": "a", "TXN_ctrl_code_file": "patched.bin", "ctrl_packet_file": "control.bin",
                       "patch_info_file": "patch.json" }} ] }}"#
        );
        for kernels in [one.clone(), format!("{one}, {other}")] {
            let config = format!(r#"{{ "xrt-kernels": [ {kernels} ] }}"#);
            write("config.json", config.as_bytes());
            tools.run("aiebu-asm", folder.path(), &["-t", "aie2_config", "-j", "config.json", "-o", "theirs.elf"]);
            let theirs = fs::read(folder.path().join("theirs.elf")).expect("aiebu-asm wrote it");
            let config = Config::parse(&config).expect("a configuration");
            let ours = elf::full(&config, &mut |name| Ok(fs::read(folder.path().join(name)).expect("a file")));
            assert_same(&ours.expect("an ELF file"), &theirs);
        }
        tools.run("aiebu-dump", folder.path(), &["-t", "theirs.elf"]);
    }
}

#[test]
fn the_passthroughs_are_read_alike() {
    let Some(tools) = Tools::find() else { return };
    for text in [include_str!("../fixtures/passthrough.txn.txt"), include_str!("../fixtures/passthrough-npu4.txn.txt")]
    {
        check_partial(&tools, &stream(text));
    }
}

/// aiebu adds code that saves and restores the array where a stream has a preemption point; we read it as it does.
#[test]
fn code_for_preemption_is_read_alike() {
    let Some(tools) = Tools::find() else { return };
    for columns in [1, 2, 4] {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!("{}preempt level=1\npreempt level=2\n", header("0.1", 4, columns));
        fs::write(folder.path().join("insts.bin"), stream(&text)).expect("the folder can be written");
        let theirs = their_partial(&tools, folder.path(), &[]);
        let read = Elf::parse(&theirs).expect("aiebu's can be read");
        assert_eq!(read.to_bytes().expect("and written"), theirs);
        for (name, stream) in read.streams() {
            let stream = stream.expect("a stream");
            assert_eq!(stream.rewrite().expect("and written"), stream.bytes(), "{name}");
            assert_eq!(assemble(&stream.to_text()).expect("and as text"), stream.bytes(), "{name}");
        }
        check_dump(&tools, folder.path(), &theirs);
    }
}

/// A patch needs a place in the stream that can be patched.
#[test]
fn streams_without_a_block_write_are_refused_by_both() {
    let Some(tools) = Tools::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = stream(&format!("{}patch tile(0,0)+0x1d004 argument=0 offset=0\n", header("0.1", 4, 1)));
    fs::write(folder.path().join("insts.bin"), &bytes).expect("the folder can be written");
    let output = tools.try_run("aiebu-asm", folder.path(), &["-t", "aie2txn", "-c", "insts.bin", "-o", "theirs.elf"]);
    assert!(!output.status.success() || !folder.path().join("theirs.elf").exists());
    assert!(elf::partial(&Partial { stream: &bytes, ..Partial::default() }).is_err());
}
