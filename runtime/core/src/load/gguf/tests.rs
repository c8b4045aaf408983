//! Files are written by a small writer of our own, then broken in every way that matters.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use biga_hal::DType;
use proptest::prelude::*;

use super::{Array, Gguf, Value, writer::Writer};
use crate::load::tensors::Format;

fn small() -> Writer {
    Writer::default()
        .pair("general.architecture", Value::String("llama".into()))
        .pair("llama.block_count", Value::U32(2))
        .pair("tokenizer.ggml.tokens", Value::Array(Array::String(vec!["a".into(), "ü".into()])))
        .pair("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.5, -1.0])))
        .pair("nested", Value::Array(Array::Array(vec![Array::Bool(vec![true]), Array::I8(vec![-1, 2])])))
        .tensor("norm", &[3], 0, vec![1; 12])
        .tensor("matrix", &[32, 2], 8, vec![2; 68])
        .tensor("odd", &[256], 16, vec![3; 66])
}

fn error_of(bytes: &[u8]) -> String {
    Gguf::parse(bytes).unwrap_err().to_string()
}

fn check(writer: Writer, expected: &str) {
    let message = error_of(&writer.bytes());
    assert!(message.contains(expected), "{message}\ndoes not say: {expected}");
}

#[test]
fn a_small_file_is_read() {
    let writer = small();
    let bytes = writer.bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.metadata.iter().map(|(k, v)| (k.to_owned(), v.clone())).collect::<Vec<_>>(), writer.pairs);
    assert_eq!(gguf.metadata.unsigned("llama.block_count").unwrap(), Some(2));
    assert_eq!(gguf.metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap()[1], "ü");
    let matrix = gguf.tensors.require("matrix").unwrap();
    assert_eq!((matrix.dtype().unwrap(), matrix.shape.as_slice()), (DType::Q8_0, [2, 32].as_slice()));
    for (name, _, _, data) in &writer.tensors {
        assert_eq!(&bytes[gguf.tensors.require(name).unwrap().bytes.clone()], data);
    }
}

#[test]
fn a_format_without_kernels_is_refused_by_name_when_needed() {
    let gguf = Gguf::parse(&small().bytes()).unwrap();
    let odd = gguf.tensors.require("odd").unwrap();
    assert_eq!(odd.format, Format::Other("IQ2_XXS".into()));
    let message = odd.dtype().unwrap_err().to_string();
    assert!(message.contains("tensor odd is stored as IQ2_XXS, which is not supported"), "{message}");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small().bytes();
    for len in 0..bytes.len() {
        let message = error_of(&bytes[..len]);
        assert!(
            message.ends_with(": the file ends early; fetch it again"),
            "{len} of {} bytes: {message}",
            bytes.len()
        );
    }
}

#[test]
fn other_versions_and_byte_orders_are_refused() {
    let mut bytes = small().bytes();
    for (version, expected) in [
        (1_u32, "gguf file of version 1;"),
        (2, "gguf file of version 2;"),
        (3 << 24, "gguf file of version 3, big-endian;"),
        (4, "gguf file of version 4;"),
    ] {
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        assert!(error_of(&bytes).contains(expected), "{}", error_of(&bytes));
    }
    bytes[0] = b'X';
    assert!(error_of(&bytes).contains("magic is [58, 47, 55, 46], must be \"GGUF\""), "{}", error_of(&bytes));
}

#[test]
fn lying_counts_are_refused_before_anything_is_allocated() {
    let bytes = small().bytes();
    for at in [8, 16] {
        for count in [u64::MAX, 1 << 40, bytes.len() as u64] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let message = error_of(&bytes);
            assert!(message.contains(&format!("count is {count}, at most")), "{message}");
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let tensor = |dimensions: &[u64], type_id, data| Writer::default().tensor("t", dimensions, type_id, data);
    check(tensor(&[1, 1, 1, 1, 1], 0, vec![0; 4]), "tensor t, byte 33: dimension count is 5, at most 4");
    check(tensor(&[0], 0, vec![]), "dimension is 0, must be above 0");
    check(tensor(&[1 << 40, 1 << 40], 0, vec![]), "dimension is 1099511627776, must be above 0 and keep");
    check(tensor(&[1 << 62], 0, vec![]), "first dimension is 4611686018427387904");
    check(tensor(&[31], 8, vec![0; 34]), "first dimension is 31, must be a multiple of 32");
    check(tensor(&[8], 0, vec![0; 4]), "data offset is 0, must leave room for 32 bytes in 4 bytes of data");
    check(small().pair("nested", Value::U8(0)), "key is nested, used by another pair before");
    check(small().tensor("norm", &[1], 0, vec![0; 4]), "used by another tensor before");
    check(Writer { alignment: Some(48), ..small() }, "general.alignment is 48, must be a power of two");
    check(Writer::default().pair("general.alignment", Value::U32(0)), "general.alignment is 0, must be");
    let deep = (0..9).fold(Array::U8(vec![1]), |inner, _| Array::Array(vec![inner]));
    check(Writer::default().pair("deep", Value::Array(deep)), "array nesting is 5, at most 4");
}

#[test]
fn overlapping_tensors_are_refused() {
    let writer = Writer::default().tensor("a", &[16], 0, vec![0; 64]).tensor("b", &[8], 0, vec![0; 32]);
    let mut bytes = writer.bytes();
    let at = bytes.windows(8).rposition(|window| window == 64_u64.to_le_bytes()).unwrap();
    bytes[at..at + 8].copy_from_slice(&32_u64.to_le_bytes());
    let message = error_of(&bytes);
    assert!(message.contains("inside tensor a, which ends at"), "{message}");
    bytes[at..at + 8].copy_from_slice(&33_u64.to_le_bytes());
    assert!(error_of(&bytes).contains("data offset is 33, must be a multiple of 32"));
}

#[test]
fn a_getter_of_the_wrong_type_says_so() {
    let gguf = Gguf::parse(&small().bytes()).unwrap();
    let message = gguf.metadata.unsigned("general.architecture").unwrap_err().to_string();
    assert_eq!(message, "general.architecture is a string of 5 bytes, expected an unsigned integer");
    assert_eq!(gguf.metadata.string("absent").unwrap(), None);
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = ".{0,12}";
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e30_f32..1e30).prop_map(Value::F32),
        (-1e300_f64..1e300).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        text.prop_map(Value::String),
        prop::collection::vec(text, 0..5).prop_map(|items| Value::Array(Array::String(items))),
        prop::collection::vec(any::<i32>(), 0..5).prop_map(|items| Value::Array(Array::I32(items))),
        prop::collection::vec(any::<u64>(), 0..5).prop_map(|items| Value::Array(Array::U64(items))),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        pairs in prop::collection::btree_map("[a-z.]{1,12}", any_value(), 0..8),
        rows in prop::collection::vec((1_u64..4, 1_u64..4), 0..6),
        alignment in 3_u32..10,
    ) {
        let mut writer = Writer { alignment: Some(1 << alignment), ..Writer::default() };
        writer.pairs = pairs.into_iter().collect();
        for (index, &(rows, blocks)) in rows.iter().enumerate() {
            let data = (0..rows * blocks * 18).map(|byte| byte as u8).collect();
            writer = writer.tensor(&format!("t{index}"), &[blocks * 32, rows], 2, data);
        }
        let bytes = writer.bytes();
        let gguf = Gguf::parse(&bytes).unwrap();
        for (key, value) in &writer.pairs {
            prop_assert_eq!(gguf.metadata.get(key), Some(value));
        }
        prop_assert_eq!(gguf.tensors.len(), rows.len());
        for (name, dimensions, _, data) in &writer.tensors {
            let tensor = gguf.tensors.require(name).unwrap();
            prop_assert_eq!(&bytes[tensor.bytes.clone()], data.as_slice());
            let reversed: Vec<u64> = tensor.shape.iter().rev().map(|&size| size as u64).collect();
            prop_assert_eq!(&reversed, dimensions);
        }
    }

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6)) {
        let mut bytes = small().bytes();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Ok(gguf) = Gguf::parse(&bytes) {
            for tensor in gguf.tensors.iter() {
                prop_assert!(tensor.bytes.end <= bytes.len());
            }
        }
    }

    #[test]
    fn noise_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let header = [b"GGUF".as_slice(), &3_u32.to_le_bytes()].concat();
        bytes.splice(0..0, header);
        let _ = Gguf::parse(&bytes);
    }
}
