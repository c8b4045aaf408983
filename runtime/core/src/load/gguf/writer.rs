//! Writes small GGUF files for tests.

use super::{Array, Value};

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) pairs: Vec<(String, Value)>,
    /// Name, dimensions innermost first, type number, data.
    pub(crate) tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
    pub(crate) alignment: Option<u32>,
}

impl Writer {
    pub(crate) fn pair(mut self, key: &str, value: Value) -> Writer {
        self.pairs.push((key.to_owned(), value));
        self
    }

    pub(crate) fn tensor(mut self, name: &str, dimensions: &[u64], type_id: u32, data: Vec<u8>) -> Writer {
        self.tensors.push((name.to_owned(), dimensions.to_vec(), type_id, data));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let alignment = self.alignment.unwrap_or(32) as usize;
        let mut pairs = self.pairs.clone();
        if let Some(alignment) = self.alignment {
            pairs.push(("general.alignment".to_owned(), Value::U32(alignment)));
        }
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((pairs.len() as u64).to_le_bytes());
        for (key, value) in &pairs {
            write_string(&mut out, key);
            write_value(&mut out, value);
        }
        let mut data: Vec<u8> = Vec::new();
        for (name, dimensions, type_id, bytes) in &self.tensors {
            write_string(&mut out, name);
            out.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(type_id.to_le_bytes());
            data.resize(data.len().next_multiple_of(alignment), 0);
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(alignment), 0);
        out.extend(data);
        out
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    macro_rules! number {
        ($id:expr, $v:expr) => {{
            out.extend(u32::to_le_bytes($id));
            out.extend($v.to_le_bytes());
        }};
    }
    match value {
        Value::U8(v) => number!(0, v),
        Value::I8(v) => number!(1, v),
        Value::U16(v) => number!(2, v),
        Value::I16(v) => number!(3, v),
        Value::U32(v) => number!(4, v),
        Value::I32(v) => number!(5, v),
        Value::F32(v) => number!(6, v),
        Value::Bool(v) => number!(7, u8::from(*v)),
        Value::String(text) => {
            out.extend(8_u32.to_le_bytes());
            write_string(out, text);
        }
        Value::Array(array) => {
            out.extend(9_u32.to_le_bytes());
            write_array(out, array);
        }
        Value::U64(v) => number!(10, v),
        Value::I64(v) => number!(11, v),
        Value::F64(v) => number!(12, v),
    }
}

fn write_array(out: &mut Vec<u8>, array: &Array) {
    macro_rules! numbers {
        ($id:expr, $items:expr) => {{
            out.extend(u32::to_le_bytes($id));
            out.extend(($items.len() as u64).to_le_bytes());
            $items.iter().for_each(|v| out.extend(v.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(items) => numbers!(0, items),
        Array::I8(items) => numbers!(1, items),
        Array::U16(items) => numbers!(2, items),
        Array::I16(items) => numbers!(3, items),
        Array::U32(items) => numbers!(4, items),
        Array::I32(items) => numbers!(5, items),
        Array::F32(items) => numbers!(6, items),
        Array::Bool(items) => numbers!(7, items.iter().map(|&v| u8::from(v)).collect::<Vec<u8>>()),
        Array::String(items) => {
            out.extend(8_u32.to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|text| write_string(out, text));
        }
        Array::Array(items) => {
            out.extend(9_u32.to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|inner| write_array(out, inner));
        }
        Array::U64(items) => numbers!(10, items),
        Array::I64(items) => numbers!(11, items),
        Array::F64(items) => numbers!(12, items),
    }
}
