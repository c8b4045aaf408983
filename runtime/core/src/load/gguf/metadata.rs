//! Key-value metadata: typed values in the order of the file.
//!
//! Strings and arrays take memory in proportion to their bytes in the file; nothing is interpreted here.

use std::collections::HashMap;

use super::cursor::Cursor;
use crate::load::error::LoadError;

const MAX_PAIRS: u64 = 1 << 16;
const MAX_KEY_BYTES: u64 = 1 << 16;
const MAX_STRING_BYTES: u64 = 1 << 24;
const MAX_ARRAY_LEN: u64 = 1 << 28;
const MAX_ARRAY_DEPTH: usize = 4;
/// Key length, type, one byte of value.
const MIN_PAIR_BYTES: u64 = 8 + 4 + 1;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is the type that it holds")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// An array of values of one type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is the element type that it holds")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
}

impl Array {
    /// Element count.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(items) => items.len(),
            Array::I8(items) => items.len(),
            Array::U16(items) => items.len(),
            Array::I16(items) => items.len(),
            Array::U32(items) => items.len(),
            Array::I32(items) => items.len(),
            Array::U64(items) => items.len(),
            Array::I64(items) => items.len(),
            Array::F32(items) => items.len(),
            Array::F64(items) => items.len(),
            Array::Bool(items) => items.len(),
            Array::String(items) => items.len(),
            Array::Array(items) => items.len(),
        }
    }

    /// True if there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as integers, if they are integers that fit.
    pub fn integers(&self) -> Option<Vec<i64>> {
        Some(match self {
            Array::U8(items) => items.iter().map(|&v| v.into()).collect(),
            Array::I8(items) => items.iter().map(|&v| v.into()).collect(),
            Array::U16(items) => items.iter().map(|&v| v.into()).collect(),
            Array::I16(items) => items.iter().map(|&v| v.into()).collect(),
            Array::U32(items) => items.iter().map(|&v| v.into()).collect(),
            Array::I32(items) => items.iter().map(|&v| v.into()).collect(),
            Array::U64(items) => items.iter().map(|&v| i64::try_from(v).ok()).collect::<Option<_>>()?,
            Array::I64(items) => items.clone(),
            _ => return None,
        })
    }
}

impl Value {
    /// As an integer, from any integer type.
    pub fn as_i64(&self) -> Option<i64> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::I64(v) => v,
            Value::U64(v) => i64::try_from(v).ok()?,
            _ => return None,
        })
    }

    /// As an unsigned integer, from any integer type.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U64(v) => Some(v),
            _ => self.as_i64().and_then(|v| u64::try_from(v).ok()),
        }
    }

    /// As a real number, from any number type.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => self.as_i64().map(|v| v as f64),
        }
    }

    /// For errors: type, and the value where it is short.
    fn describe(&self) -> String {
        match self {
            Value::String(text) => format!("a string of {} bytes", text.len()),
            Value::Array(array) => format!("an array of {} elements", array.len()),
            other => format!("{other:?}"),
        }
    }
}

/// The key-value pairs of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
    by_key: HashMap<String, usize>,
}

impl Metadata {
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Metadata, LoadError> {
        let count = cursor.count("metadata count", MAX_PAIRS, MIN_PAIR_BYTES)?;
        let mut metadata = Metadata { pairs: Vec::with_capacity(count), by_key: HashMap::with_capacity(count) };
        for index in 0..count {
            cursor.section = format!("metadata pair {index}");
            let at = cursor.offset();
            let key = cursor.string("key", MAX_KEY_BYTES)?;
            if metadata.by_key.contains_key(&key) {
                return Err(cursor.malformed(at, "key", key, "used by another pair before"));
            }
            cursor.section = format!("metadata {key}");
            let type_id = cursor.u32("type")?;
            let value = parse_value(cursor, type_id)?;
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    /// Adds a pair or replaces its value: for callers that describe a model without a file.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        match self.by_key.get(&key).and_then(|&index| self.pairs.get_mut(index)) {
            Some(pair) => pair.1 = value,
            None => {
                self.by_key.insert(key.clone(), self.pairs.len());
                self.pairs.push((key, value));
            }
        }
    }

    /// Drops the arrays of keys that start with `prefix`, once they have been made into something else.
    pub(crate) fn drop_arrays(&mut self, prefix: &str) {
        self.pairs.retain(|(key, value)| !(key.starts_with(prefix) && matches!(value, Value::Array(_))));
        self.by_key = self.pairs.iter().enumerate().map(|(index, (key, _))| (key.clone(), index)).collect();
    }

    /// Every pair.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).and_then(|&index| self.pairs.get(index)).map(|(_, value)| value)
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// [`LoadError::WrongType`] if its value is something else; the same holds for the other typed getters.
    pub fn string(&self, key: &str) -> Result<Option<&str>, LoadError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An unsigned integer of any width.
    ///
    /// # Errors
    /// As [`Metadata::string`].
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, LoadError> {
        self.typed(key, "an unsigned integer", Value::as_u64)
    }

    /// A real number, from any number type.
    ///
    /// # Errors
    /// As [`Metadata::string`].
    pub fn real(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A truth value.
    ///
    /// # Errors
    /// As [`Metadata::string`].
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// An array of strings.
    ///
    /// # Errors
    /// As [`Metadata::string`].
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, LoadError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of f32.
    ///
    /// # Errors
    /// As [`Metadata::string`].
    pub fn reals(&self, key: &str) -> Result<Option<&[f32]>, LoadError> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of integers of any width.
    ///
    /// # Errors
    /// As [`Metadata::string`].
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, LoadError> {
        self.typed(key, "an array of integers", |value| match value {
            Value::Array(array) => array.integers(),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(typed) => Ok(Some(typed)),
            None => Err(LoadError::WrongType { key: key.to_owned(), found: value.describe(), expected }),
        }
    }
}

fn parse_value(cursor: &mut Cursor<'_>, type_id: u32) -> Result<Value, LoadError> {
    const WHAT: &str = "value";
    Ok(match type_id {
        0 => Value::U8(u8::from_le_bytes(cursor.array(WHAT)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.array(WHAT)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.array(WHAT)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.array(WHAT)?)),
        4 => Value::U32(u32::from_le_bytes(cursor.array(WHAT)?)),
        5 => Value::I32(i32::from_le_bytes(cursor.array(WHAT)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.array(WHAT)?)),
        7 => Value::Bool(parse_bool(cursor)?),
        8 => Value::String(cursor.string(WHAT, MAX_STRING_BYTES)?),
        9 => Value::Array(parse_array(cursor, 1)?),
        10 => Value::U64(u64::from_le_bytes(cursor.array(WHAT)?)),
        11 => Value::I64(i64::from_le_bytes(cursor.array(WHAT)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array(WHAT)?)),
        other => return Err(unknown_type(cursor, other)),
    })
}

fn parse_array(cursor: &mut Cursor<'_>, depth: usize) -> Result<Array, LoadError> {
    let at = cursor.offset();
    if depth > MAX_ARRAY_DEPTH {
        return Err(cursor.malformed(at, "array nesting", depth, format!("at most {MAX_ARRAY_DEPTH}")));
    }
    let type_id = cursor.u32("element type")?;
    Ok(match type_id {
        0 => Array::U8(numbers(cursor, u8::from_le_bytes)?),
        1 => Array::I8(numbers(cursor, i8::from_le_bytes)?),
        2 => Array::U16(numbers(cursor, u16::from_le_bytes)?),
        3 => Array::I16(numbers(cursor, i16::from_le_bytes)?),
        4 => Array::U32(numbers(cursor, u32::from_le_bytes)?),
        5 => Array::I32(numbers(cursor, i32::from_le_bytes)?),
        6 => Array::F32(numbers(cursor, f32::from_le_bytes)?),
        7 => Array::Bool(items(cursor, 1, parse_bool)?),
        8 => Array::String(items(cursor, 8, |cursor| cursor.string("element", MAX_STRING_BYTES))?),
        // Deeper arrays take more memory than bytes in the file (each is a vector of its own), by a factor
        // that the least size of an element bounds.
        9 => Array::Array(items(cursor, 12, |cursor| parse_array(cursor, depth.saturating_add(1)))?),
        10 => Array::U64(numbers(cursor, u64::from_le_bytes)?),
        11 => Array::I64(numbers(cursor, i64::from_le_bytes)?),
        12 => Array::F64(numbers(cursor, f64::from_le_bytes)?),
        other => return Err(unknown_type(cursor, other)),
    })
}

fn numbers<T, const N: usize>(cursor: &mut Cursor<'_>, from_bytes: fn([u8; N]) -> T) -> Result<Vec<T>, LoadError> {
    items(cursor, N as u64, |cursor| cursor.array("element").map(from_bytes))
}

fn items<T>(
    cursor: &mut Cursor<'_>,
    min_bytes: u64,
    mut item: impl FnMut(&mut Cursor<'_>) -> Result<T, LoadError>,
) -> Result<Vec<T>, LoadError> {
    let count = cursor.count("array length", MAX_ARRAY_LEN, min_bytes)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(item(cursor)?);
    }
    Ok(items)
}

fn parse_bool(cursor: &mut Cursor<'_>) -> Result<bool, LoadError> {
    let at = cursor.offset();
    match cursor.array("value")? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(cursor.malformed(at, "truth value", other, "must be 0 or 1")),
    }
}

fn unknown_type(cursor: &Cursor<'_>, type_id: u32) -> LoadError {
    cursor.malformed(cursor.offset().saturating_sub(4), "value type", type_id, "at most 12")
}
