//! Safetensors checkpoints: one `model.safetensors`, or shards listed by `model.safetensors.index.json`.
//!
//! The format's own crate validates each file on the mapped bytes (header, offsets, sizes, no gaps); this
//! module adds what spans files. A shard's name comes from the index and must stay inside the folder, every
//! tensor lies in the shard that the index names, and in no other.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

use ::safetensors::{Dtype, SafeTensorError, SafeTensors};
use biga_hal::DType;
use biga_map::MappedFile;

use super::{
    error::LoadError,
    tensors::{Format, TensorInfo, Tensors},
};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const MAX_JSON_BYTES: u64 = 64 << 20;
const MAX_SHARDS: usize = 1000;
const MAX_DIMENSIONS: usize = 8;

/// The weight files of a checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// Mapped files; [`TensorInfo::file`] is an index into them.
    pub files: Vec<MappedFile>,
    /// Tensors of all files.
    pub tensors: Tensors,
}

impl Checkpoint {
    /// Opens the weight files in a folder.
    ///
    /// # Errors
    /// [`LoadError::NoModel`] if there is none, [`LoadError::ShardIndex`] if the index and the files
    /// disagree, [`LoadError::Safetensors`] or [`LoadError::Map`] for a file that is no good.
    pub fn open(folder: &Path) -> Result<Checkpoint, LoadError> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.exists() {
            Checkpoint::open_file(&single)
        } else if index.exists() {
            open_shards(folder, &index)
        } else {
            let cause = format!("neither {SINGLE} nor {INDEX} in it");
            Err(LoadError::NoModel { path: folder.to_path_buf(), cause })
        }
    }

    /// Opens one file that holds every tensor.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_file(path: &Path) -> Result<Checkpoint, LoadError> {
        let file = MappedFile::open(path)?;
        let mut tensors = Tensors::default();
        for tensor in parse(file.bytes(), path, 0)? {
            tensors.insert(tensor);
        }
        Ok(Checkpoint { files: vec![file], tensors })
    }
}

/// The tensors of one file, given whole. `path` and `file` are noted in errors and in the result.
///
/// # Errors
/// [`LoadError::Safetensors`] if the format's validation refuses the bytes.
pub fn parse(bytes: &[u8], path: &Path, file: usize) -> Result<Vec<TensorInfo>, LoadError> {
    let refused = |cause: String| LoadError::Safetensors { path: path.to_path_buf(), cause };
    let (header_bytes, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| refused(cause(bytes, &error)))?;
    let data = header_bytes.checked_add(size_of::<u64>());
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        if info.shape.len() > MAX_DIMENSIONS {
            let found = info.shape.len();
            return Err(refused(format!("tensor {name} has {found} dimensions, at most {MAX_DIMENSIONS}")));
        }
        let (start, end) = info.data_offsets;
        let place = data.and_then(|data| Some(data.checked_add(start)?..data.checked_add(end)?));
        let Some(bytes) = place.filter(|place| place.start <= place.end && place.end <= bytes.len()) else {
            return Err(refused(format!("tensor {name} at {start}..{end} lies outside the file")));
        };
        tensors.push(TensorInfo { format: format_of(info.dtype), shape: info.shape.clone(), file, bytes, name });
    }
    Ok(tensors)
}

/// The format's error with the value and the bound.
fn cause(bytes: &[u8], error: &SafeTensorError) -> String {
    let stated = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let there = bytes.len().saturating_sub(size_of::<u64>());
    match error {
        SafeTensorError::HeaderTooSmall => {
            format!("{} bytes, a header takes at least 8; the file ends early; fetch it again", bytes.len())
        }
        SafeTensorError::HeaderTooLarge => format!("{error}: {stated} bytes, at most 100000000"),
        SafeTensorError::InvalidHeaderLength => {
            format!("a header of {stated} bytes, {there} follow; the file ends early; fetch it again")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let data = usize::try_from(stated).map_or(0, |header| there.saturating_sub(header));
            format!("{error}: {data} bytes of data are there; if the file ends early, fetch it again")
        }
        other => other.to_string(),
    }
}

fn format_of(dtype: Dtype) -> Format {
    match dtype {
        Dtype::F32 => Format::Known(DType::F32),
        Dtype::F16 => Format::Known(DType::F16),
        Dtype::BF16 => Format::Known(DType::BF16),
        other => Format::Other(format!("{other:?}")),
    }
}

fn open_shards(folder: &Path, index: &Path) -> Result<Checkpoint, LoadError> {
    let wrong = |cause: String| LoadError::ShardIndex { path: index.to_path_buf(), cause };
    let listed = read_index(index)?;
    let mut shards: Vec<&str> = listed.values().map(String::as_str).collect();
    shards.sort_unstable();
    shards.dedup();
    if shards.is_empty() || shards.len() > MAX_SHARDS {
        return Err(wrong(format!("{} shards, from 1 to {MAX_SHARDS} are read", shards.len())));
    }
    let mut checkpoint = Checkpoint { files: Vec::with_capacity(shards.len()), tensors: Tensors::default() };
    for (file, &shard) in shards.iter().enumerate() {
        if !is_plain_name(shard) {
            return Err(wrong(format!("shard name {shard:?} is no plain file name in the same folder")));
        }
        let path = folder.join(shard);
        if !path.exists() {
            return Err(wrong(format!("shard {shard} is missing")));
        }
        let mapped = MappedFile::open(&path)?;
        for tensor in parse(mapped.bytes(), &path, file)? {
            let name = tensor.name.clone();
            if let Some(other) = listed.get(&name).filter(|&other| other != shard) {
                return Err(wrong(format!("tensor {name} is in shard {shard}, listed in {other}")));
            }
            if !checkpoint.tensors.insert(tensor) {
                return Err(wrong(format!("tensor {name} is in shard {shard} and in another")));
            }
        }
        checkpoint.files.push(mapped);
    }
    match listed.iter().find(|(name, _)| checkpoint.tensors.get(name).is_none()) {
        Some((name, shard)) => Err(wrong(format!("tensor {name} is listed in shard {shard}, but not there"))),
        None => Ok(checkpoint),
    }
}

/// Tensor name to shard name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_text(path, MAX_JSON_BYTES)?;
    let index: Index =
        serde_json::from_str(&text).map_err(|source| LoadError::Json { path: path.to_path_buf(), source })?;
    Ok(index.weight_map)
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(part)) if part == OsStr::new(name)) && parts.next().is_none()
}

/// Reads a small text file whole.
pub(super) fn read_text(path: &Path, max_bytes: u64) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_path_buf(), source };
    // Opening a pipe would wait for a writer for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let too_large = |size: u64| LoadError::OutOfBounds {
        key: format!("size of {}", path.display()),
        value: format!("{size} bytes"),
        bound: format!("at most {max_bytes}"),
    };
    if size > max_bytes {
        return Err(too_large(size));
    }
    // What a file says of its size need not hold (/proc), so the reading itself is bounded too.
    let mut text = String::new();
    file.take(max_bytes.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > max_bytes {
        return Err(too_large(text.len() as u64));
    }
    Ok(text)
}

/// The folder that a path to a checkpoint means: itself, or where the named weight file lies.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_path_buf();
    }
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests;
