//! Defects of instruction streams.

use xclbin_tools::{
    array::Device,
    txn,
    verify::{self, Findings},
};

use super::{
    Row,
    sample::{STREAM, Sample, argument},
};

const SYNC: &str = "sync tile(0,0) direction=s2mm channel=0 columns=1 rows=1\n";

/// The valid package, launched with the valid stream after a text in it was replaced.
fn replaced(from: &str, to: &str) -> Findings {
    assert!(STREAM.contains(from), "{from}");
    let mut sample = Sample::npu1();
    sample.streams = vec![STREAM.replacen(from, to, 1)];
    sample.check()
}

/// The valid stream with a line more in front of its writes.
fn line(line: &str) -> Findings {
    replaced("write tile(0,0)+0x1d204", &format!("{line}\nwrite tile(0,0)+0x1d204"))
}

/// Two kernels, of which the second has six buffers; the stream patches the sixth.
pub(crate) fn of_two(kernel: Option<&'static str>) -> Findings {
    let mut sample = Sample { kernel, ..Sample::two() };
    sample.kernels[1].arguments.push(argument("bo5", true, 8, 0x3c));
    sample.reconnect();
    sample.streams = vec![STREAM.replace("argument=1 offset=0x1000", "argument=5 offset=0x80001000")];
    sample.check()
}

/// The valid stream alone with some bytes changed.
fn bytes(change: fn(&mut Vec<u8>)) -> Findings {
    let mut bytes = txn::assemble(STREAM).unwrap();
    change(&mut bytes);
    verify::file(&bytes, None).expect("a stream by its first bytes")
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        ("stream-size", &[], || bytes(|it| it.extend([0; 4]))),
        ("stream-count", &[], || bytes(|it| it[8] += 1)),
        ("stream-count", &[], || bytes(|it| it[8] -= 1)),
        ("stream-malformed", &[], || bytes(|it| it[16] = 0x20)),
        ("stream-generation", &[], || bytes(|it| it[2] = 9)),
        ("stream-generation", &[], || verify::file(&txn::assemble(STREAM).unwrap(), Device::by_name("npu4")).unwrap()),
        ("stream-rows", &[], || replaced("rows=6", "rows=5")),
        ("stream-columns", &[], || replaced("columns=1 memory", "columns=2 memory")),
        ("stream-reach", &[], || {
            let text = STREAM.replacen("\nwrite", "\nwrite tile(1,0)+0x1d200 value=0\nwrite", 1);
            verify::file(&txn::assemble(&text).unwrap(), None).unwrap()
        }),
        ("stream-operation", &[], || line("custom code=140\n    0x0")),
        ("address-column", &[], || line("write tile(1,0)+0x1d000 value=0")),
        ("address-row", &[], || line("write tile(0,9)+0x0 value=0")),
        ("address-hole", &[], || line("write tile(0,0)+0x1e000 value=0")),
        ("descriptor-end", &[], || line("block_write tile(0,0)+0x1d048\n    0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8")),
        ("poll-never", &[], || line("mask_poll tile(0,0)+0x1d220 value=0x10 mask=0xf")),
        ("patch-argument", &["patch-aperture"], || replaced("argument=1 offset=0x1000", "argument=5 offset=0x1000")),
        ("patch-argument", &[], || replaced("argument=1 offset=0x1000", "argument=5 offset=0x80001000")),
        ("patch-register", &[], || replaced("patch tile(0,0)+0x1d024", "patch tile(0,0)+0x1d028")),
        ("patch-register", &["descriptor-unpatched"], || {
            replaced("patch tile(0,0)+0x1d024", "patch tile(0,1)+0xa0004")
        }),
        ("patch-alignment", &[], || replaced("offset=0x1000", "offset=0x1002")),
        ("patch-scalar", &[], || {
            let mut sample = Sample::npu1();
            let arguments = &mut sample.kernels[0].arguments;
            arguments[4] = argument("n", false, 4, 0x1c);
            arguments.push(argument("more", true, 8, 0x3c));
            sample.reconnect();
            sample.check()
        }),
        ("patch-kernel", &[], || of_two(None)),
        ("patch-argument", &[], || of_two(Some("PASS"))),
        ("stream-kernel", &[], || Sample { kernel: Some("GHOST"), ..Sample::npu1() }.check()),
        ("stream-package", &[], || {
            let mut sample = Sample::npu1();
            sample.partition.start_columns = vec![0, 1, 2, 3];
            sample.streams = vec![STREAM.replace("generation=3", "generation=4")];
            sample.check()
        }),
        ("stream-load-pdi", &[], || line("load_pdi id=9 size=0 address=0")),
        ("patch-aperture", &[], || replaced("argument=1 offset=0x1000", "argument=1 offset=0x80001000")),
        ("stream-sync", &[], || replaced("channel=0", "channel=2")),
        ("stream-sync", &[], || replaced("channel=0 columns=1", "channel=0 columns=2")),
        // The output is waited for by the input's channel, by another one, without a token, and twice.
        ("sync-without-token", &["stream-no-wait"], || replaced("direction=s2mm", "direction=mm2s")),
        ("sync-without-token", &["stream-no-wait"], || replaced("channel=0", "channel=1")),
        ("sync-without-token", &[], || replaced("value=0x80000001", "value=0x1")),
        ("sync-without-token", &[], || replaced(SYNC, &format!("{SYNC}{SYNC}"))),
        ("descriptor-unwritten", &[], || replaced("block_write tile(0,0)+0x1d020", "block_write tile(0,0)+0x1d040")),
        ("descriptor-unwritten", &[], || line("patch tile(0,0)+0x1d0a4 argument=1 offset=0x0")),
        ("descriptor-unwritten", &[], || line("write tile(0,0)+0x1d21c value=0x5")),
        ("descriptor-unpatched", &[], || replaced("patch tile(0,0)+0x1d024 argument=1 offset=0x1000\n", "")),
        // The descriptor that follows in a chain, and one that is written anew behind its patch.
        ("descriptor-unpatched", &[], || {
            let chain = "block_write tile(0,0)+0x1d040\n    0x400 0x0 0x0 0x0 0x0 0x0 0x0 0x2000000";
            line(&format!("{chain}\nwrite tile(0,0)+0x1d01c value=0x16000000"))
        }),
        ("descriptor-unpatched", &[], || line("write tile(0,0)+0x1d004 value=0x1000")),
        ("stream-no-wait", &[], || replaced(SYNC, "")),
    ]
}
