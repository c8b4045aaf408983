//! `compare generate`: a GGUF file with a model's shape and weights of noise, for speed alone.
//!
//! The file depends on shape and format only: two machines write the same bytes. It appears under its
//! name when it is complete.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, bail};
use biga::hal::DType;

use crate::{
    gguf::{self, ALIGNMENT, Entry, Value},
    noise::{FORMATS, Noise},
    output::Bar,
    shape::{Architecture, Shape, Tensor},
};

/// Tokens that are no text: unknown, beginning, end, and one for each byte.
const SPECIAL_TOKENS: usize = 3 + 256;
/// Bytes that a thread fills at once.
const CHUNK_BYTES: usize = 4 << 20;

/// What a file will hold.
#[derive(Debug)]
struct Layout {
    description: Vec<u8>,
    /// By tensor: where its data start in the file, their size, their content.
    tensors: Vec<(u64, u64, Content)>,
    size_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Noise(Noise, DType),
    Ones,
}

/// Writes the file; returns its size in bytes.
///
/// # Errors
/// A format that is not offered, too little space, a folder that cannot be written to.
pub(crate) fn generate(shape: &Shape, dtype: DType, path: &Path, threads: usize) -> Result<u64> {
    let layout = Layout::of(shape, dtype)?;
    let part = partial(path);
    check_space(path, layout.size_bytes)?;
    let file = File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
    let written = write(&file, &layout, threads).with_context(|| format!("cannot write {}", part.display()));
    let renamed =
        written.and_then(|()| fs::rename(&part, path).with_context(|| format!("cannot make {}", path.display())));
    if let Err(error) = renamed {
        // What is left is only waste.
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    Ok(layout.size_bytes)
}

/// Bytes that a file of this shape has.
///
/// # Errors
/// As [`generate()`].
pub(crate) fn size_bytes(shape: &Shape, dtype: DType) -> Result<u64> {
    Ok(Layout::of(shape, dtype)?.size_bytes)
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn check_space(path: &Path, size_bytes: u64) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = free_bytes(folder)?;
    if free < size_bytes {
        bail!("{} has {free} bytes free, {size_bytes} are needed", folder.display());
    }
    Ok(())
}

/// Bytes that can be written below a folder.
///
/// # Errors
/// If it is not there.
pub(crate) fn free_bytes(folder: &Path) -> Result<u64> {
    let space = nix::sys::statvfs::statvfs(folder).with_context(|| format!("no folder {}", folder.display()))?;
    Ok(space.blocks_available() as u64 * space.fragment_size() as u64)
}

impl Layout {
    fn of(shape: &Shape, dtype: DType) -> Result<Layout> {
        let mut entries = Vec::new();
        let mut tensors = Vec::new();
        let mut offset = 0;
        for (index, tensor) in shape.tensors().into_iter().enumerate() {
            let (name, dimensions, size_bytes, type_id, content) = describe(tensor, dtype, index as u64)?;
            entries.push(Entry { name, dimensions, type_id, offset });
            tensors.push((offset, size_bytes, content));
            offset += size_bytes.next_multiple_of(ALIGNMENT as u64);
        }
        let description = gguf::description(&metadata(shape, dtype), &entries);
        let data = description.len() as u64;
        tensors.iter_mut().for_each(|(start, ..)| *start += data);
        Ok(Layout { description, tensors, size_bytes: data + offset })
    }
}

type Described = (String, Vec<u64>, u64, u32, Content);

fn describe(tensor: Tensor, dtype: DType, seed: u64) -> Result<Described> {
    match tensor {
        Tensor::Ones { name, len } => Ok((name, vec![len as u64], 4 * len as u64, 0, Content::Ones)),
        Tensor::Matrix { name, rows, columns, is_head } => {
            let zero_rows = if is_head { SPECIAL_TOKENS.min(rows) } else { 0 };
            let noise = Noise::new(dtype, seed << 40, columns, zero_rows)?;
            let row_bytes = dtype.row_bytes(columns).unwrap_or(0) as u64;
            let type_id = FORMATS.iter().find(|(format, _)| *format == dtype).map_or(0, |(_, id)| *id);
            let dimensions = vec![columns as u64, rows as u64];
            Ok((name, dimensions, row_bytes * rows as u64, type_id, Content::Noise(noise, dtype)))
        }
    }
}

fn metadata(shape: &Shape, dtype: DType) -> Vec<(String, Value)> {
    let gemma = shape.architecture == Architecture::Gemma3;
    let family = shape.architecture.name();
    let text = |text: &str| Value::Text(text.to_owned());
    let count = |n: usize| Value::U32(n as u32);
    let mut pairs = vec![
        ("general.architecture".to_owned(), text(family)),
        ("general.name".to_owned(), Value::Text(format!("{shape} {dtype}, synthetic weights"))),
        ("general.quantization_version".to_owned(), Value::U32(2)),
    ];
    let mut own = |key: &str, value| pairs.push((format!("{family}.{key}"), value));
    own("context_length", count(shape.context));
    own("embedding_length", count(shape.hidden));
    own("block_count", count(shape.layers));
    own("feed_forward_length", count(shape.ff));
    own("attention.head_count", count(shape.heads));
    own("attention.head_count_kv", count(shape.kv_heads));
    own("attention.key_length", count(shape.head_dim));
    own("attention.value_length", count(shape.head_dim));
    own("attention.layer_norm_rms_epsilon", Value::F32(1e-6));
    own("rope.freq_base", Value::F32(if gemma { 1e6 } else { 5e5 }));
    own("rope.dimension_count", count(shape.head_dim));
    own("vocab_size", count(shape.vocab));
    if let Some(window) = shape.window {
        own("attention.sliding_window", count(window));
    }
    pairs.extend(vocabulary(shape.vocab));
    pairs
}

/// Words that both engines can load and print: letters, and numbered words for the rest.
fn vocabulary(vocab: usize) -> Vec<(String, Value)> {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let letters = ('a'..='z').map(String::from);
    let words = (0..vocab).map(|n| format!("\u{2581}t{n}"));
    let tokens: Vec<String> =
        special.chain(bytes).chain(["\u{2581}".to_owned()]).chain(letters).chain(words).take(vocab).collect();
    let kinds = [2, 3, 3].into_iter().chain([6; 256]).chain(std::iter::repeat(1)).take(vocab).collect();
    let pair = |key: &str, value| (format!("tokenizer.ggml.{key}"), value);
    vec![
        pair("model", Value::Text("llama".to_owned())),
        pair("tokens", Value::Texts(tokens)),
        pair("scores", Value::Reals(vec![0.0; vocab])),
        pair("token_type", Value::Integers(kinds)),
        pair("bos_token_id", Value::U32(1)),
        pair("eos_token_id", Value::U32(2)),
        pair("unknown_token_id", Value::U32(0)),
        pair("add_bos_token", Value::Bool(true)),
    ]
}

/// A run of whole blocks of one tensor.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    tensor: usize,
    /// Bytes from the start of the tensor, and how many.
    start: u64,
    len: usize,
}

fn chunks(layout: &Layout) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (tensor, (_, size_bytes, content)) in layout.tensors.iter().enumerate() {
        let block = match content {
            Content::Noise(_, dtype) => dtype.block_bytes(),
            Content::Ones => 4,
        };
        let step = CHUNK_BYTES / block * block;
        for start in (0..*size_bytes).step_by(step) {
            chunks.push(Chunk { tensor, start, len: step.min((size_bytes - start) as usize) });
        }
    }
    chunks
}

fn write(file: &File, layout: &Layout, threads: usize) -> Result<()> {
    file.set_len(layout.size_bytes)?;
    file.write_all_at(&layout.description, 0)?;
    let chunks = chunks(layout);
    let (next, bar) = (AtomicUsize::new(0), Bar::new("generating", layout.size_bytes));
    let fill = || -> std::io::Result<()> {
        let mut bytes = vec![0; CHUNK_BYTES];
        while let Some(&Chunk { tensor, start, len }) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (at, _, content) = layout.tensors[tensor];
            let part = &mut bytes[..len];
            match content {
                Content::Noise(noise, dtype) => noise.fill(start / dtype.block_bytes() as u64, part),
                Content::Ones => part.chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&1_f32.to_le_bytes())),
            }
            file.write_all_at(part, at + start)?;
            bar.add(len as u64);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(fill)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done.map_err(anyhow::Error::from),
            Err(_) => bail!("a thread that generates weights panicked"),
        })
    })
}

#[cfg(test)]
mod tests;
