//! Streams as text, and back.

use super::*;
use crate::words::Words;

/// Text to bytes to text: the text is as our own dump writes it.
#[test]
fn a_text_of_every_kind_comes_back() {
    for version in [Version::V0_1, Version::V1_0] {
        let bytes = build(header(version), &every_op());
        let text = Stream::parse(&bytes).unwrap().to_text();
        assert_eq!(assemble(&text).unwrap(), bytes, "{text}");
        assert_eq!(Stream::parse(&assemble(&text).unwrap()).unwrap().to_text(), text);
        // Nothing of it is padding, and so nothing of it is said.
        assert!(!text.contains("reserved") && !text.contains("tail"), "{text}");
    }
}

#[test]
fn a_stream_reads_as_its_text() {
    let check = |text: &str| {
        let bytes = assemble(text).unwrap();
        assert_eq!(Stream::parse(&bytes).unwrap().to_text(), text);
    };
    check(
        "; For npu1: 4 operations, 160 bytes.\n\
         stream version=0.1 generation=3 rows=6 columns=4 memory_tile_rows=1\n\
         block_write tile(0,0)+0x1d000                                    ; buffer descriptor 0, word 0\n\
         \x20   0x00000400 0x00000000 0x00000000 0x00000000 0x80000000 0x00000000 0x00000000 0x02000000\n\
         \x20   0x00000001\n\
         patch tile(0,0)+0x1d004 argument=1 offset=0x0                    ; bo1 to buffer descriptor 0, word 1\n\
         write tile(0,0)+0x1d214 value=0x80000000 reserved(0x0, 0x1) tail(0x2) ; MM2S 0 queue\n\
         sync tile(1,0) direction=s2mm channel=0 columns=1 rows=1\n",
    );
    check("; For npu4: 0 operations, 16 bytes.\nstream version=1.0 generation=4 rows=6 columns=8 memory_tile_rows=1\n");
    check(
        "; For an unknown device: 1 operation, 20 bytes.\n\
         stream version=1.0 generation=9 rows=1 columns=2 memory_tile_rows=3 reserved=0x4\n\
         noop reserved(0x5)\n",
    );
}

#[test]
fn comments_spaces_and_the_order_of_fields_are_free() {
    let bytes = assemble(
        "stream memory_tile_rows=1 columns=0x4 rows=6 generation=3 version=0.1 ; first\n\n\
         \t mask_write mask=3 value = 0x2 tile( 0 , 1 ) + 16\n; a line\n  block_write tile(0,2)+0\n1\n 2 3 ; more\n",
    );
    let bytes = bytes.unwrap();
    let ops: Vec<Op<'_>> = Stream::parse(&bytes).unwrap().operations().map(|placed| placed.operation.op).collect();
    let data = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
    let mask_write = Op::MaskWrite { address: Address { column: 0, row: 1, offset: 16 }, value: 2, mask: 3 };
    let address = Address { column: 0, row: 2, offset: 0 };
    assert_eq!(ops, [mask_write, Op::BlockWrite { address, data: Words::new(&data) }]);
}

#[test]
fn what_contradicts_the_grammar_is_said_with_its_place() {
    let check = |body: &str, expected: &str| {
        let text = format!("stream version=0.1 generation=3 rows=6 columns=4 memory_tile_rows=1\n{body}");
        assert_eq!(assemble(&text).unwrap_err().to_string(), expected, "{body}");
    };
    check(
        "ünknown a=1",
        "line 2, column 1: \"ünknown\": expected an operation: write, block_write, mask_write, mask_poll, \
        mask_poll_busy, noop, preempt, load_pdi, load_pm, create_scratchpad, update_state, update_register, \
        update_scratch, sync, patch, timer, merge_sync or custom",
    );
    check("noop é=1", "line 2, column 6: \"é\": expected nothing of that name: `noop` has no such part");
    check(
        "timer id=4294967296",
        "line 2, column 10: \"4294967296\": expected a number of at most 32 bits, decimal or 0x...",
    );
    check("timer id=0xg", "line 2, column 10: \"0xg\": expected a number of at most 32 bits, decimal or 0x...");
    check("timer id=-1", "line 2, column 10: \"-1\": expected a number, decimal or 0x...");
    check("timer", "line 2, column 1: \"timer\": expected `id=...` in its line");
    check("timer id", "line 2, column 9: \"\": expected `=`");
    check("timer id=1 id=1", "line 2, column 12: \"id\": expected nothing of that name: `timer` has no such part");
    check("noop\n 0x1", "line 3, column 2: \"0x1\": expected the next operation: `noop` has no words");
    check("write tile(0,0) value=1", "line 2, column 1: \"write\": expected `tile(COLUMN,ROW)+OFFSET` in its line");
    check("write tile(128,0)+4 value=1", "line 2, column 12: \"128\": expected a column, 0 to 127");
    check("write tile(0,32)+4 value=1", "line 2, column 14: \"32\": expected a row, 0 to 31");
    check("write tile(0)+4 value=1", "line 2, column 7: \"tile\": expected tile(COLUMN,ROW)");
    check(
        "write tile(0,0)+0x100000 value=1",
        "line 2, column 17: \"0x100000\": expected an offset in the tile, below 0x100000",
    );
    check(
        "sync tile(0,0)+4 direction=0 channel=0 columns=1 rows=1",
        "line 2, column 16: \"4\": expected a tile without offset",
    );
    check(
        "noop tail(1)",
        "line 2, column 1: \"noop\": tail 1 words long: an operation of this kind and version ends \
        with its last field",
    );
    check(
        "noop reserved(0, 1)",
        "line 2, column 1: \"noop\": reserved 0x1: an operation of this kind and version has \
        1 paddings",
    );
    check("noop reserved(0, 0, 0, 0, 0, 0, 1)", "line 2, column 33: \"1\": expected at most 6 paddings");
    check("noop reserved(0", "line 2, column 16: \"\": expected `,` or `)`");
    check("stream version=0.1", "line 2, column 1: \"stream\": expected an operation: there is one `stream` line");
    let check = |text: &str, expected: &str| assert_eq!(assemble(text).unwrap_err().to_string(), expected);
    check("", "line 1, column 1: \"\": expected a first line `stream version=... generation=...`");
    check("\n1", "line 2, column 1: \"1\": expected an operation, to which words belong");
    check("noop", "line 1, column 1: \"noop\": expected `stream`, the first line, which says version and device");
    check("stream version=0.2", "line 1, column 16: \"0.2\": expected 0.1 or 1.0");
    check(
        "stream version=0.1 generation=3 rows=6 columns=4 memory_tile_rows=1 tail(1)",
        "line 1, column 1: \"stream\": expected no tail: the header has none",
    );
}

#[test]
fn json_has_the_fields() {
    let bytes = build(header(Version::V0_1), &every_op());
    let json = serde_json::to_value(Stream::parse(&bytes).unwrap()).unwrap();
    assert_eq!(json["header"]["generation"], 4);
    let operations = json["operations"].as_array().unwrap();
    assert_eq!(operations.len(), every_op().len());
    let address = serde_json::json!({ "column": 1, "row": 0, "offset": 0x1d004 });
    let patch = serde_json::json!({
        "index": 15, "offset": 264, "kind": "patch", "address": address, "argument": 6, "offset_bytes": 0x8000_0040_u32,
    });
    assert_eq!(operations[15], patch);
    assert_eq!(operations[1]["words"], serde_json::json!([1, 0x8000_0002_u32, 3]));
}

proptest! {
    #[test]
    fn bytes_to_text_to_bytes(bytes in any_stream()) {
        let text = Stream::parse(&bytes).unwrap().to_text();
        prop_assert_eq!(assemble(&text).unwrap(), bytes, "{}", text);
    }

    #[test]
    fn any_text_is_an_error_or_a_stream(lines in vec("(stream|write|sync|block_write|tile|0x1| |\\(|\\)|=|,|\\+|;|é|version|0.1|reserved|tail){0,12}", 0..6)) {
        if let Ok(bytes) = assemble(&lines.join("\n")) {
            prop_assert!(Stream::parse(&bytes).is_ok());
        }
    }

    #[test]
    fn a_damaged_text_is_an_error_or_a_stream(bytes in any_stream(), at in any::<usize>(), with in any::<char>()) {
        let text = Stream::parse(&bytes).unwrap().to_text();
        let mut text: Vec<char> = text.chars().collect();
        let at = at % text.len();
        text[at] = with;
        if let Ok(bytes) = assemble(&text.into_iter().collect::<String>()) {
            prop_assert!(Stream::parse(&bytes).is_ok());
        }
    }
}
