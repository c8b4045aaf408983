//! The description part of a GGUF file: everything before the tensors' data.
//!
//! The format is drawn in <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; the reader is
//! `biga::load::gguf`, which the tests hold this against.

/// Bytes that every tensor's data start at a multiple of.
pub(crate) const ALIGNMENT: usize = 32;

/// A metadata value of the kinds that are written here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Integers(Vec<i32>),
    Reals(Vec<f32>),
    Texts(Vec<String>),
}

/// A tensor's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Innermost first: columns, then rows.
    pub(crate) dimensions: Vec<u64>,
    /// The number by which the format knows a storage format.
    pub(crate) type_id: u32,
    /// From the start of the data; a multiple of [`ALIGNMENT`].
    pub(crate) offset: u64,
}

/// The description, padded so that data follow it.
pub(crate) fn description(pairs: &[(String, Value)], tensors: &[Entry]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        text(&mut out, key);
        put(&mut out, value);
    }
    for tensor in tensors {
        text(&mut out, &tensor.name);
        out.extend((tensor.dimensions.len() as u32).to_le_bytes());
        tensor.dimensions.iter().for_each(|size| out.extend(size.to_le_bytes()));
        out.extend(tensor.type_id.to_le_bytes());
        out.extend(tensor.offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put(out: &mut Vec<u8>, value: &Value) {
    let head = |out: &mut Vec<u8>, type_id: u32| out.extend(type_id.to_le_bytes());
    let list = |out: &mut Vec<u8>, type_id: u32, len: usize| {
        head(out, 9);
        head(out, type_id);
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::U32(number) => {
            head(out, 4);
            out.extend(number.to_le_bytes());
        }
        Value::F32(number) => {
            head(out, 6);
            out.extend(number.to_le_bytes());
        }
        Value::Bool(truth) => {
            head(out, 7);
            out.push(u8::from(*truth));
        }
        Value::Text(words) => {
            head(out, 8);
            text(out, words);
        }
        Value::Integers(items) => {
            list(out, 5, items.len());
            items.iter().for_each(|item| out.extend(item.to_le_bytes()));
        }
        Value::Reals(items) => {
            list(out, 6, items.len());
            items.iter().for_each(|item| out.extend(item.to_le_bytes()));
        }
        Value::Texts(items) => {
            list(out, 8, items.len());
            items.iter().for_each(|item| text(out, item));
        }
    }
}
