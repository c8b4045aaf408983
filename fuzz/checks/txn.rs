//! Any bytes as an instruction stream, and as the text of one.

use xclbin_tools::{
    array::{Event, Program},
    txn::{self, Stream},
    verify,
};

/// Reads `data`, writes it back and as text, and reads that.
pub(crate) fn check(data: &[u8]) {
    if let Ok(stream) = Stream::parse(data) {
        assert_eq!(stream.rewrite().as_deref(), Ok(data), "what was read is written back");
        round_trip(&stream);
        let mut program = Program::new(8);
        for event in stream.operations().filter_map(|placed| Event::of_operation(&placed.operation.op)) {
            program.apply(event);
        }
        let _ = (program.flows(), serde_json::to_string(&stream), verify::file(data, None));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(bytes) = txn::assemble(text)
    {
        round_trip(&Stream::parse(&bytes).expect("what was assembled can be read"));
    }
}

fn round_trip(stream: &Stream<'_>) {
    let text = stream.to_text();
    assert_eq!(txn::assemble(&text).as_deref(), Ok(stream.bytes()), "{text}");
}
