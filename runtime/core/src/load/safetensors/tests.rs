//! Checkpoints are written with the format's own crate, then broken.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use std::{fs, path::Path};

use ::safetensors::{
    Dtype,
    tensor::{TensorView, serialize},
};
use biga_hal::DType;
use proptest::prelude::*;

use super::{Checkpoint, parse};
use crate::load::tensors::Format;

fn file_with(tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(name, dtype, shape)| vec![name.len() as u8; shape.iter().product::<usize>() * dtype.bitsize() / 8])
        .collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|(&(name, dtype, shape), data)| (name, TensorView::new(dtype, shape.to_vec(), data).unwrap()));
    serialize(views, None).unwrap()
}

fn small() -> Vec<u8> {
    file_with(&[("a", Dtype::F32, &[2, 3]), ("bb", Dtype::BF16, &[5]), ("ccc", Dtype::I64, &[1])])
}

fn sharded(index: &str, shards: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    for (name, bytes) in shards {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn check(index: &str, shards: &[(&str, Vec<u8>)], expected: &str) {
    let folder = sharded(index, shards);
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}\ndoes not say: {expected}");
}

#[test]
fn a_single_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), small()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let b = checkpoint.tensors.require("bb").unwrap();
    assert_eq!((b.dtype().unwrap(), b.shape.as_slice()), (DType::BF16, [5].as_slice()));
    assert_eq!(&checkpoint.files[b.file].bytes()[b.bytes.clone()], [2; 10]);
    assert_eq!(checkpoint.tensors.require("ccc").unwrap().format, Format::Other("I64".into()));
    assert_eq!(checkpoint.tensors.require("d").unwrap_err().to_string(), "tensor d is missing");
}

#[test]
fn shards_are_read() {
    let index = r#"{"metadata": {}, "weight_map": {"a": "1.safetensors", "bb": "2.safetensors"}}"#;
    let (one, two) = (file_with(&[("a", Dtype::F16, &[4])]), file_with(&[("bb", Dtype::F32, &[1])]));
    let folder = sharded(index, &[("1.safetensors", one), ("2.safetensors", two)]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let b = checkpoint.tensors.require("bb").unwrap();
    assert_eq!(checkpoint.files[b.file].bytes()[b.bytes.clone()], [2; 4]);
}

#[test]
fn an_index_that_lies_is_refused() {
    let a = file_with(&[("a", Dtype::F32, &[1])]);
    let index = |entries: &str| format!(r#"{{"weight_map": {{{entries}}}}}"#);
    check(&index(r#""a": "../1""#), &[("1", a.clone())], "\"../1\" is no plain file name");
    check(&index(r#""a": "/etc/passwd""#), &[], "\"/etc/passwd\" is no plain file name");
    check(&index(r#""a": "..""#), &[], "\"..\" is no plain file name");
    check(&index(r#""a": "x/1""#), &[], "is no plain file name");
    check(&index(r#""a": """#), &[], "is no plain file name");
    check(&index(r#""a": "1""#), &[], "shard 1 is missing");
    check(&index(r#""a": "1", "b": "1""#), &[("1", a.clone())], "tensor b is listed in shard 1, but not there");
    let ab = file_with(&[("a", Dtype::F32, &[1]), ("b", Dtype::F32, &[1])]);
    let both = [("1", a.clone()), ("2", ab)];
    check(&index(r#""a": "1", "b": "2""#), &both, "tensor a is in shard 2, listed in 1");
    let hidden = file_with(&[("a", Dtype::F32, &[1]), ("x", Dtype::F32, &[1])]);
    let other = file_with(&[("b", Dtype::F32, &[1]), ("x", Dtype::F32, &[1])]);
    check(&index(r#""a": "1", "b": "2""#), &[("1", hidden), ("2", other)], "tensor x is in shard 2 and in another");
    check(&index(""), &[], "0 shards");
    check("[", &[], "is not valid json");
    check("{}", &[], "missing field `weight_map`");
    let empty = tempfile::tempdir().unwrap();
    let message = Checkpoint::open(empty.path()).unwrap_err().to_string();
    assert!(message.contains("neither model.safetensors nor model.safetensors.index.json"), "{message}");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small();
    for len in 0..bytes.len() {
        let message = parse(&bytes[..len], Path::new("f"), 0).unwrap_err().to_string();
        assert!(message.contains("ends early") && message.contains("fetch it again"), "{len} bytes: {message}");
    }
}

#[test]
fn a_header_longer_than_the_file_is_refused() {
    for len in [u64::MAX, 1 << 40, 99_000_000] {
        let mut bytes = small();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        assert!(parse(&bytes, Path::new("f"), 0).unwrap_err().to_string().starts_with("malformed safetensors file f:"));
    }
}

proptest! {
    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6)) {
        let mut bytes = small();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        for tensor in parse(&bytes, Path::new("f"), 0).unwrap_or_default() {
            prop_assert!(tensor.bytes.end <= bytes.len());
        }
    }
}
