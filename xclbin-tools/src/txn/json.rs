//! A stream as JSON.

use crate::words::Words;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use super::{
    Placed, Stream,
    op::{Op, Sync},
};
use crate::array::Address;

/// Its header, and for each operation its index, its offset, its kind by the name that the text form gives it, and its
/// fields. Addresses are `{column, row, offset}`; padding is left out.
impl Serialize for Stream<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let header = self.header();
        let (major, minor) = header.version.numbers();
        let header = json!({
            "version": format!("{major}.{minor}"),
            "generation": header.generation,
            "rows": header.rows,
            "columns": header.columns,
            "memory_tile_rows": header.memory_tile_rows,
        });
        let mut members = serializer.serialize_map(Some(3))?;
        members.serialize_entry("header", &header)?;
        members.serialize_entry("size_bytes", &self.bytes().len())?;
        members.serialize_entry("operations", &Operations(self))?;
        members.end()
    }
}

/// One after another: as values all at once they take hundreds of times the stream's bytes.
struct Operations<'s, 'a>(&'s Stream<'a>);

impl Serialize for Operations<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.operations().map(|placed| operation(&placed)))
    }
}

fn operation(placed: &Placed<'_>) -> Value {
    let (kind, fields) = fields(&placed.operation.op);
    let mut value = json!({ "index": placed.index, "offset": placed.offset, "kind": kind });
    if let (Value::Object(value), Value::Object(fields)) = (&mut value, fields) {
        value.extend(fields);
    }
    value
}

fn fields(op: &Op<'_>) -> (&'static str, Value) {
    match *op {
        Op::Write { address, value } => ("write", json!({ "address": place(address), "value": value })),
        Op::BlockWrite { address, data } => ("block_write", json!({ "address": place(address), "words": words(data) })),
        Op::MaskWrite { address, value, mask } => ("mask_write", masked(address, value, mask)),
        Op::MaskPoll { address, value, mask } => ("mask_poll", masked(address, value, mask)),
        Op::MaskPollBusy { address, value, mask } => ("mask_poll_busy", masked(address, value, mask)),
        Op::Noop => ("noop", json!({})),
        Op::Preempt { level } => ("preempt", json!({ "level": level })),
        Op::LoadPdi { id, size_bytes, address } => {
            ("load_pdi", json!({ "id": id, "size_bytes": size_bytes, "address": address }))
        }
        Op::LoadPm { id, n_operations } => ("load_pm", json!({ "id": id, "operations": n_operations })),
        Op::CreateScratchpad { usage, size_bytes, offset } => {
            ("create_scratchpad", json!({ "usage": usage, "size_bytes": size_bytes, "scratchpad_offset": offset }))
        }
        Op::UpdateState { index, function, argument } => {
            ("update_state", json!({ "entry": index, "function": function, "argument": argument }))
        }
        Op::UpdateRegister { address, index, function, argument } => (
            "update_register",
            json!({ "address": place(address), "entry": index, "function": function, "argument": argument }),
        ),
        Op::UpdateScratch => ("update_scratch", json!({})),
        Op::Sync(Sync { column, row, direction, channel, n_columns, n_rows }) => (
            "sync",
            json!({
                "column": column,
                "row": row,
                "direction": direction,
                "channel": channel,
                "columns": n_columns,
                "rows": n_rows,
            }),
        ),
        Op::Patch { address, argument, offset_bytes } => {
            ("patch", json!({ "address": place(address), "argument": argument, "offset_bytes": offset_bytes }))
        }
        Op::Timer { id } => ("timer", json!({ "id": id })),
        Op::MergeSync { n_tokens, n_columns } => ("merge_sync", json!({ "tokens": n_tokens, "columns": n_columns })),
        Op::Custom { code, payload } => ("custom", json!({ "code": code, "words": words(payload) })),
    }
}

fn masked(address: Address, value: u32, mask: u32) -> Value {
    json!({ "address": place(address), "value": value, "mask": mask })
}

fn place(address: Address) -> Value {
    json!({ "column": address.column, "row": address.row, "offset": address.offset })
}

fn words(words: Words<'_>) -> Vec<u32> {
    words.iter().collect()
}
