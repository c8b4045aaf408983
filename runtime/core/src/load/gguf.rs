//! GGUF version 3: metadata and tensor places, read from the mapped file's bytes.
//!
//! The format is that of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>: a header, key-value
//! metadata, tensor descriptions, padding, tensor data. Everything here is hostile until checked: counts are
//! held against the bytes that are left before anything is allocated, sums and products are checked, and an
//! error says section, byte, value and bound. What the metadata *mean* is for `config` and `tokenizer`.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

mod cursor;
mod metadata;
mod types;

pub use metadata::{Array, Metadata, Value};

use super::{
    error::LoadError,
    tensors::{TensorInfo, Tensors},
};
use cursor::Cursor;

const MAGIC: &[u8] = b"GGUF";
const VERSION: u32 = 3;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;
const MAX_NAME_BYTES: u64 = 1 << 16;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
/// What there is to do about a file that promises more bytes than it has: as a rule a download that stopped.
const ENDS_EARLY: &str = "the file ends early; fetch it again";
/// Name length, dimension count, type, offset: the least that describes a tensor.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

/// The description part of a GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// Key-value pairs.
    pub metadata: Metadata,
    /// Tensors with their places in the file.
    pub tensors: Tensors,
}

/// A description whose place is not known yet, because data start after the last description.
struct Described {
    tensor: TensorInfo,
    /// From the start of the data.
    offset: u64,
    /// Where the offset is written, for errors.
    offset_at: u64,
    size_bytes: Option<u64>,
}

impl Gguf {
    /// Reads the description part of a whole file.
    ///
    /// # Errors
    /// [`LoadError::GgufVersion`] for versions 1 and 2 and big-endian files, [`LoadError::Malformed`] for
    /// everything that contradicts the format.
    pub fn parse(bytes: &[u8]) -> Result<Gguf, LoadError> {
        let mut cursor = Cursor::new(bytes, "header");
        let magic = cursor.take(4, "magic")?;
        if magic != MAGIC {
            return Err(cursor.malformed(0, "magic", format!("{magic:02x?}"), "must be \"GGUF\""));
        }
        check_version(cursor.u32("version")?)?;
        let n_tensors = cursor.count("tensor count", MAX_TENSORS, MIN_TENSOR_BYTES)?;
        let metadata = Metadata::parse(&mut cursor)?;
        let alignment = alignment(&metadata)?;
        let mut described = Vec::with_capacity(n_tensors);
        for index in 0..n_tensors {
            cursor.section = format!("tensor {index}");
            described.push(describe(&mut cursor)?);
        }
        let data = cursor.offset().checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        let tensors = place(described, data, alignment, bytes.len() as u64)?;
        Ok(Gguf { metadata, tensors })
    }
}

fn check_version(version: u32) -> Result<(), LoadError> {
    let found = match version {
        VERSION => return Ok(()),
        // A small number in the other byte order has its low half empty.
        v if v & 0xffff == 0 && v != 0 => format!("version {}, big-endian", v.swap_bytes()),
        v => format!("version {v}"),
    };
    Err(LoadError::GgufVersion { found })
}

fn alignment(metadata: &Metadata) -> Result<u64, LoadError> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.unsigned(KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT {
        return Ok(alignment);
    }
    Err(LoadError::OutOfBounds {
        key: KEY.to_owned(),
        value: alignment.to_string(),
        bound: format!("must be a power of two up to {MAX_ALIGNMENT}"),
    })
}

fn describe(cursor: &mut Cursor<'_>) -> Result<Described, LoadError> {
    let name = cursor.string("name", MAX_NAME_BYTES)?;
    cursor.section = format!("tensor {name}");
    let at = cursor.offset();
    let n_dimensions = cursor.u32("dimension count")?;
    if n_dimensions > MAX_DIMENSIONS {
        return Err(cursor.malformed(at, "dimension count", n_dimensions, format!("at most {MAX_DIMENSIONS}")));
    }
    let dimensions_at = cursor.offset();
    let mut shape = Vec::with_capacity(MAX_DIMENSIONS as usize);
    let mut n_elements = 1_u64;
    for _ in 0..n_dimensions {
        let at = cursor.offset();
        let size = cursor.u64("dimension")?;
        let product = n_elements.checked_mul(size).filter(|&n| n > 0 && n <= i64::MAX as u64);
        let (Some(product), Ok(size)) = (product, usize::try_from(size)) else {
            let bound = format!("must be above 0 and keep the element count up to {}", i64::MAX);
            return Err(cursor.malformed(at, "dimension", size, bound));
        };
        n_elements = product;
        shape.push(size);
    }
    let columns = shape.first().copied().unwrap_or(1) as u64;
    // Stored innermost first.
    shape.reverse();
    let type_id = cursor.u32("type")?;
    let (format, layout) = types::format_of(type_id);
    let size_bytes = match layout {
        Some((block_len, block_bytes)) => {
            let whole = columns.checked_rem(block_len) == Some(0);
            let size = n_elements.checked_div(block_len).and_then(|blocks| blocks.checked_mul(block_bytes));
            let Some(size) = size.filter(|_| whole) else {
                let bound = format!("must be a multiple of {block_len}, as a row is whole quant blocks");
                return Err(cursor.malformed(dimensions_at, "first dimension", columns, bound));
            };
            Some(size)
        }
        None => None,
    };
    let offset_at = cursor.offset();
    let offset = cursor.u64("data offset")?;
    let tensor = TensorInfo { name, format, shape, file: 0, bytes: 0..0 };
    Ok(Described { tensor, offset, offset_at, size_bytes })
}

/// Turns offsets from the start of the data into places in the file, and holds them against it and each other.
fn place(described: Vec<Described>, data: u64, alignment: u64, file_bytes: u64) -> Result<Tensors, LoadError> {
    let mut tensors = Tensors::default();
    let mut places = Vec::with_capacity(described.len());
    for Described { mut tensor, offset, offset_at, size_bytes } in described {
        let malformed = |what, value: u64, bound: String| LoadError::Malformed {
            format: "gguf",
            section: format!("tensor {}", tensor.name),
            offset: offset_at,
            what,
            value: value.to_string(),
            bound,
        };
        if !offset.is_multiple_of(alignment) {
            return Err(malformed("data offset", offset, format!("must be a multiple of {alignment}")));
        }
        let size = size_bytes.unwrap_or(0);
        let range = data.checked_add(offset).and_then(|start| Some((start, start.checked_add(size)?)));
        let Some((start, end)) = range.filter(|&(_, end)| end <= file_bytes) else {
            let available = file_bytes.saturating_sub(data);
            let bound = format!("must leave room for {size} bytes in {available} bytes of data: {ENDS_EARLY}");
            return Err(malformed("data offset", offset, bound));
        };
        if let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) {
            tensor.bytes = start..end;
        }
        let twice = malformed("name", offset, "used by another tensor before".to_owned());
        places.push((start, end, tensor.name.clone(), offset_at));
        if !tensors.insert(tensor) {
            return Err(twice);
        }
    }
    check_overlap(places)?;
    Ok(tensors)
}

fn check_overlap(mut places: Vec<(u64, u64, String, u64)>) -> Result<(), LoadError> {
    places.retain(|(start, end, ..)| start < end);
    places.sort();
    for (before, after) in places.iter().zip(places.iter().skip(1)) {
        let ((_, end, other, _), (start, _, name, offset_at)) = (before, after);
        if start < end {
            return Err(LoadError::Malformed {
                format: "gguf",
                section: format!("tensor {name}"),
                offset: *offset_at,
                what: "first byte",
                value: start.to_string(),
                bound: format!("inside tensor {other}, which ends at {end}"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod writer;
