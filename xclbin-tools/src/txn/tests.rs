use crate::words::Words;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::array::Address;

/// One of every kind, with their numbers counted up so that no field can stand in for another.
fn every_op() -> Vec<Op<'static>> {
    const WORDS: &[u8] = &[1, 0, 0, 0, 2, 0, 0, 0x80, 3, 0, 0, 0];
    let address = |offset| Address { column: 1, row: 0, offset };
    let data = Words::new(WORDS);
    vec![
        Op::Write { address: address(0x1d204), value: 0x8000_0001 },
        Op::BlockWrite { address: address(0x1d000), data },
        Op::BlockWrite { address: address(0x1d020), data: Words::default() },
        Op::MaskWrite { address: address(0x1d008), value: 0x10, mask: 0x30 },
        Op::MaskPoll { address: address(0x1d228), value: 0x40, mask: 0x50 },
        Op::MaskPollBusy { address: address(0x1d22c), value: 0x60, mask: 0x70 },
        Op::Noop,
        Op::Preempt { level: 2 },
        Op::LoadPdi { id: 0x102, size_bytes: 0x304, address: 0x5_0000_0006 },
        Op::LoadPm { id: 7, n_operations: 0x10203 },
        Op::CreateScratchpad { usage: 1, size_bytes: 8, offset: 0x9_0000_000a },
        Op::UpdateState { index: 1, function: 2, argument: 3 },
        Op::UpdateRegister { address: address(0x1d004), index: 4, function: 5, argument: 6 },
        Op::UpdateScratch,
        Op::Sync(Sync { column: 1, row: 2, direction: 1, channel: 3, n_columns: 4, n_rows: 5 }),
        Op::Patch { address: address(0x1d004), argument: 6, offset_bytes: 0x8000_0040 },
        Op::Timer { id: 11 },
        Op::MergeSync { n_tokens: 12, n_columns: 13 },
        Op::Custom { code: 0x86, payload: data },
    ]
}

fn build(header: Header, ops: &[Op<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(header);
    for op in ops {
        builder.push_op(*op).unwrap();
    }
    builder.finish().unwrap()
}

fn header(version: Version) -> Header {
    Header { version, ..Header::npu2(8) }
}

#[test]
fn every_kind_comes_back_in_both_versions() {
    for version in [Version::V0_1, Version::V1_0] {
        let bytes = build(header(version), &every_op());
        let stream = Stream::parse(&bytes).unwrap();
        let read: Vec<Op<'_>> = stream.operations().map(|placed| placed.operation.op).collect();
        assert_eq!(read, every_op(), "{version:?}");
        assert_eq!(stream.header(), header(version));
        assert_eq!(stream.rewrite().unwrap(), bytes, "{version:?}");
        let mut end = HEADER_BYTES;
        for (index, placed) in stream.operations().enumerate() {
            assert_eq!((placed.index as usize, placed.offset), (index, end));
            end += placed.bytes.len() as u64;
        }
        assert_eq!(end, bytes.len() as u64);
    }
}

/// The words of one operation as `Xilinx/mlir-aie:include/aie/Runtime/TxnEncoding.h` and `xaie_txn.h` lay them out.
#[test]
fn operations_have_their_words() {
    let check = |version, op: Op<'_>, expected: &[u32]| {
        let bytes = build(header(version), &[op]);
        let words: Vec<u32> = Words::new(&bytes[16..]).iter().collect();
        assert_eq!(words, expected, "{version:?} {op:?}");
    };
    let address = Address { column: 1, row: 0, offset: 0x1d204 };
    check(Version::V0_1, Op::Write { address, value: 5 }, &[0, 0, 0x201_d204, 0, 5, 24]);
    check(Version::V1_0, Op::Write { address, value: 5 }, &[0, 0x201_d204, 5]);
    check(Version::V0_1, Op::MaskWrite { address, value: 5, mask: 6 }, &[3, 0, 0x201_d204, 0, 5, 6, 28]);
    check(Version::V1_0, Op::MaskWrite { address, value: 5, mask: 6 }, &[3, 0x201_d204, 5, 6]);
    let data = [7, 0, 0, 0];
    let block = Op::BlockWrite { address, data: Words::new(&data) };
    check(Version::V0_1, block, &[1, 0, 0x201_d204, 20, 7]);
    check(Version::V1_0, block, &[1, 0x201_d204, 16, 7]);
    let sync = Sync { column: 1, row: 2, direction: 1, channel: 3, n_columns: 4, n_rows: 5 };
    check(Version::V0_1, Op::Sync(sync), &[0x80, 16, 0x0001_0201, 0x0304_0500]);
    let patch = Op::Patch { address, argument: 6, offset_bytes: 0x40 };
    check(Version::V0_1, patch, &[0x81, 48, 0, 0, 0, 0, 0x201_d204, 0, 6, 0, 0x40, 0]);
    check(Version::V1_0, patch, &[0x81, 24, 0x201_d204, 6, 0x40, 0]);
    check(Version::V0_1, Op::Preempt { level: 2 }, &[0x206]);
    check(Version::V0_1, Op::LoadPdi { id: 3, size_bytes: 4, address: 5 }, &[0x3_0008, 4, 5, 0]);
    check(Version::V0_1, Op::LoadPm { id: 3, n_operations: 4 }, &[0x409, 3]);
}

#[test]
fn older_streams_of_version_1_0_have_long_patches() {
    let op = Op::Patch { address: Address { column: 1, row: 0, offset: 0x1d204 }, argument: 6, offset_bytes: 0x40 };
    let mut builder = Builder::new(header(Version::V1_0));
    builder.push(&Operation { op, reserved: Reserved { old_layout: true, ..Reserved::default() } }).unwrap();
    let bytes = builder.finish().unwrap();
    let words: Vec<u32> = Words::new(&bytes[16..]).iter().collect();
    assert_eq!(words, [0x81, 48, 0, 0, 0, 0, 0x201_d204, 0, 6, 0, 0x40, 0]);
    let stream = Stream::parse(&bytes).unwrap();
    assert_eq!(stream.operations().next().map(|placed| placed.operation.op), Some(op));
    assert_eq!(stream.rewrite().unwrap(), bytes);
    let text = stream.to_text();
    assert!(text.contains("patch tile(1,0)+0x1d204 argument=6 offset=0x40 layout=0.1 "), "{text}");
    assert_eq!(assemble(&text).unwrap(), bytes);
}

#[test]
fn a_header_has_its_bytes() {
    let bytes = build(Header::npu1(4), &[Op::Noop]);
    assert_eq!(bytes[..16], [0, 1, 3, 6, 4, 1, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0]);
}

#[test]
fn contradictions_are_refused() {
    let check = |edit: fn(&mut Vec<u8>), what: &str| {
        let mut bytes = build(header(Version::V0_1), &every_op()[..2]);
        edit(&mut bytes);
        let error = Stream::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    check(|bytes| bytes[0] = 2, "version is 2.1");
    check(|bytes| bytes[12] += 4, "size is");
    check(|bytes| bytes.truncate(10), "2 are left of 10");
    check(|bytes| bytes[8] = 1, "counts 1 operations");
    check(|bytes| bytes[8] = 3, "only 0 are left");
    check(|bytes| bytes[16] = 2, "kind of operation is 0x2");
    check(|bytes| bytes[36] = 20, "size of an operation is 20 bytes");
    check(|bytes| bytes[36] = 26, "size of an operation is 26 bytes");
    check(|bytes| bytes[52] = 0xfc, "236 bytes long");
}

#[test]
fn what_does_not_fit_a_field_is_refused_and_leaves_the_stream_alone() {
    let check = |version, operation: Operation<'_>| {
        let mut builder = Builder::new(header(version));
        builder.push(&operation).unwrap_err();
        assert_eq!(builder.finish().unwrap(), build(header(version), &[]), "{operation:?}");
    };
    let plain = |op| Operation { op, reserved: Reserved::default() };
    check(Version::V1_0, plain(Op::Patch { address: Address::from(0), argument: 256, offset_bytes: 0 }));
    check(Version::V0_1, plain(Op::LoadPm { id: 0, n_operations: 1 << 24 }));
    check(Version::V0_1, plain(Op::Custom { code: 0x7f, payload: Words::default() }));
    let tail = Words::new(&[0; 4]);
    check(Version::V1_0, Operation { op: Op::Noop, reserved: Reserved { tail, ..Reserved::default() } });
    let reserved = |padding| Reserved { padding, ..Reserved::default() };
    check(Version::V0_1, Operation { op: Op::Noop, reserved: reserved([1 << 24, 0, 0, 0, 0, 0]) });
    check(Version::V0_1, Operation { op: Op::Noop, reserved: reserved([0, 1, 0, 0, 0, 0]) });
}

/// Streams that parse: operations of every kind with arbitrary fields and padding.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let operation = (0..every_op().len(), vec(any::<u8>(), 64), any::<bool>());
    (any::<bool>(), vec(operation, 0..12)).prop_map(|(old, choices)| {
        let version = if old { Version::V0_1 } else { Version::V1_0 };
        let mut bytes = build(header(version), &[]);
        let mut n_operations = 0_u32;
        for (kind, noise, keep) in choices {
            let made = build(header(version), &[every_op()[kind]]);
            let mut noisy = made.clone();
            for (byte, noise) in noisy[20..].iter_mut().zip(&noise) {
                *byte = if keep { *byte } else { *noise };
            }
            noisy[17..20].copy_from_slice(&noise[..3]);
            // Noise may fall on a size.
            let chosen = if Stream::parse(&noisy).is_ok() { noisy } else { made };
            bytes.extend_from_slice(&chosen[16..]);
            n_operations += 1;
        }
        let size = u32::try_from(bytes.len()).unwrap();
        bytes[8..12].copy_from_slice(&n_operations.to_le_bytes());
        bytes[12..16].copy_from_slice(&size.to_le_bytes());
        bytes
    })
}

proptest! {
    #[test]
    fn bytes_come_back(bytes in any_stream()) {
        let stream = Stream::parse(&bytes).unwrap();
        prop_assert_eq!(stream.rewrite().unwrap(), bytes);
    }

    #[test]
    fn damage_is_an_error_or_another_stream(mut bytes in any_stream(), at in any::<usize>(), bit in 0..8, cut in any::<usize>()) {
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        if let Ok(stream) = Stream::parse(&bytes) {
            prop_assert_eq!(stream.rewrite().unwrap(), bytes.clone());
        }
        bytes.truncate(cut % bytes.len());
        prop_assert!(Stream::parse(&bytes).is_err());
    }
}

mod text;

mod edits;
