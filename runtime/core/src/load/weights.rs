//! The weights of a graph: each found in the file, checked against the shape that the graph expects, and
//! left where it lies.
//!
//! Copies are exceptions, each with its reason: vectors that are not f32 (ops read them as f32), data that
//! the file placed at an address which its format cannot be read from, and matrices that the user wants
//! quantised. Everything else is a slice of the mapped file.

mod memory;

use std::{ops::Range, sync::Arc};

use biga_hal::{Buffer, BufferSlice, DType, WeightRole, WeightShape};
use biga_map::MappedFile;
use half::{bf16, f16};

use super::{
    Progress,
    error::LoadError,
    graph::{Graph, WeightId, WeightSpec},
    names::Naming,
    quantize::{self, Quantize},
    tensors::{TensorInfo, Tensors},
};
use memory::{FileMemory, OwnedMemory, SharedMemory};

/// One weight.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its name in the file.
    pub name: String,
    /// Format of the bytes in [`Weight::slice`].
    pub dtype: DType,
    /// As the graph expects it.
    pub shape: WeightShape,
    /// Its bytes, in host memory that no device owns.
    pub slice: BufferSlice,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    File { index: usize, bytes: Range<usize> },
    Memory(SharedMemory),
}

impl Weight {
    /// Whether its bytes lie in the mapped file, not in a copy of the loader's own.
    pub fn is_mapped(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }
}

/// Every weight of a graph, by id.
#[derive(Debug)]
pub struct Weights {
    weights: Vec<Weight>,
    files: Vec<Arc<MappedFile>>,
}

impl Weights {
    /// Finds the weights of `graph` among the tensors of `files`.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`], [`LoadError::WrongShape`] or [`LoadError::UnsupportedFormat`] for a tensor
    /// that the graph needs; [`LoadError::Map`] if a file shrank meanwhile.
    pub(super) fn find(
        graph: &Graph,
        naming: &Naming,
        files: Vec<MappedFile>,
        tensors: &Tensors,
        quantize: Option<Quantize>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Weights, LoadError> {
        let files: Vec<Arc<MappedFile>> = files.into_iter().map(Arc::new).collect();
        let buffers: Vec<Buffer> = files.iter().map(buffer_of).collect();
        let found = graph
            .weights()
            .iter()
            .map(|spec| {
                let tensor = tensors.require(&naming.name(spec.slot))?;
                check_shape(tensor, &spec.shape)?;
                Ok((tensor, spec))
            })
            .collect::<Result<Vec<_>, LoadError>>()?;
        log_unused(tensors, &found);
        let mut finder = Finder { files: &files, buffers: &buffers, quantize, progress, done: Progress::default() };
        finder.done.total_bytes = found.iter().map(|(tensor, spec)| finder.bytes_to_quantise(tensor, spec)).sum();
        let weights = found.iter().map(|(tensor, spec)| finder.weight(tensor, spec)).collect::<Result<_, _>>()?;
        let weights = Weights { weights, files };
        weights.check_lost()?;
        Ok(weights)
    }

    /// One weight.
    ///
    /// # Panics
    /// If the id is not of the graph that these weights were found for: the caller's own mistake.
    pub fn get(&self, id: WeightId) -> &Weight {
        &self.weights[id.0]
    }

    /// The bytes of a weight in its format. Zeros where the file shrank: see [`Weights::lost`].
    ///
    /// # Panics
    /// As [`Weights::get`].
    pub fn bytes(&self, id: WeightId) -> &[u8] {
        match &self.weights[id.0].place {
            Place::File { index, bytes } => &self.files[*index].bytes()[bytes.clone()],
            Place::Memory(memory) => memory.0.bytes(),
        }
    }

    /// Every weight, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Weight> {
        self.weights.iter()
    }

    /// Bytes of all weights together, in the formats in which they are used.
    pub fn size_bytes(&self) -> u64 {
        self.weights.iter().map(|weight| weight.slice.size_bytes()).sum()
    }

    /// True once a read of mapped weights met bytes that were no longer there: whatever was computed since is
    /// worthless. One load a file, cheap enough for every step.
    pub fn lost(&self) -> bool {
        self.files.iter().any(|file| file.lost())
    }

    /// Compares the files with what was mapped.
    ///
    /// # Errors
    /// [`LoadError::Map`] for the first that changed, shrank or vanished.
    pub fn check(&self) -> Result<(), LoadError> {
        self.files.iter().try_for_each(|file| Ok(file.check()?))
    }

    /// The part of [`Weights::check`] that asks nothing of the file system.
    ///
    /// # Errors
    /// [`LoadError::Map`] after a loss.
    pub fn check_lost(&self) -> Result<(), LoadError> {
        match self.files.iter().find(|file| file.lost()) {
            Some(file) => Err(biga_map::MapError::Lost { path: file.path().to_path_buf() }.into()),
            None => Ok(()),
        }
    }

    /// Asks the kernel to read bytes of a weight ahead.
    ///
    /// # Panics
    /// As [`Weights::get`].
    pub fn prefetch(&self, id: WeightId, bytes: &Range<usize>) {
        if let Place::File { index, bytes: all } = &self.weights[id.0].place {
            self.files[*index].prefetch(all.start + bytes.start, bytes.len());
        }
    }

    /// Tells the kernel that bytes of a weight are needed no longer. They can be read again.
    ///
    /// # Panics
    /// As [`Weights::get`].
    pub fn release(&self, id: WeightId, bytes: &Range<usize>) {
        if let Place::File { index, bytes: all } = &self.weights[id.0].place {
            self.files[*index].release(all.start + bytes.start, bytes.len());
        }
    }
}

fn buffer_of(file: &Arc<MappedFile>) -> Buffer {
    let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    Buffer::new(FileMemory { file: Arc::clone(file), name })
}

fn check_shape(tensor: &TensorInfo, shape: &WeightShape) -> Result<(), LoadError> {
    let expected = match shape.role {
        WeightRole::Vector => vec![shape.columns],
        WeightRole::Matrix | WeightRole::Table => vec![shape.rows, shape.columns],
    };
    if tensor.shape != expected {
        let (name, found) = (tensor.name.clone(), tensor.shape.clone());
        return Err(LoadError::WrongShape { name, found, expected });
    }
    Ok(())
}

/// One line for everything that text does not need: vision towers, stored frequencies, a tied head.
fn log_unused(tensors: &Tensors, used: &[(&TensorInfo, &WeightSpec)]) {
    let used: std::collections::HashSet<&str> = used.iter().map(|(tensor, _)| tensor.name.as_str()).collect();
    let unused = || tensors.iter().filter(|tensor| !used.contains(tensor.name.as_str()));
    if let Some(first) = unused().next() {
        let bytes: usize = unused().map(|tensor| tensor.bytes.len()).sum();
        let n_tensors = unused().count();
        tracing::info!(n_tensors, bytes, first = %first.name, "skipped tensors that text does not need");
    }
}

struct Finder<'a> {
    files: &'a [Arc<MappedFile>],
    buffers: &'a [Buffer],
    quantize: Option<Quantize>,
    progress: &'a mut dyn FnMut(Progress),
    done: Progress,
}

impl<'a> Finder<'a> {
    fn weight(&mut self, tensor: &TensorInfo, spec: &WeightSpec) -> Result<Weight, LoadError> {
        let stored = tensor.dtype()?;
        let bytes = self.bytes(tensor, stored, &spec.shape)?;
        let owned = match spec.shape.role {
            WeightRole::Vector => vector(tensor, stored, bytes)?,
            WeightRole::Matrix | WeightRole::Table => self.quantised(tensor, stored, spec, bytes)?,
        };
        let (dtype, place, slice) = match owned.or_else(|| aligned(tensor, stored, bytes)) {
            Some((dtype, memory)) => {
                let memory = SharedMemory(Arc::new(memory));
                let slice = Buffer::new(memory.clone()).whole();
                (dtype, Place::Memory(memory), slice)
            }
            None => {
                let slice = self.slice(tensor)?;
                (stored, Place::File { index: tensor.file, bytes: tensor.bytes.clone() }, slice)
            }
        };
        Ok(Weight { name: tensor.name.clone(), dtype, shape: spec.shape, slice, place })
    }

    /// The tensor's bytes, exactly as many as its shape and format take.
    fn bytes(&self, tensor: &TensorInfo, dtype: DType, shape: &WeightShape) -> Result<&'a [u8], LoadError> {
        let expected = dtype.row_bytes(shape.columns).and_then(|row| row.checked_mul(shape.rows));
        let bytes = self.files.get(tensor.file).and_then(|file| file.bytes().get(tensor.bytes.clone()));
        bytes.filter(|bytes| Some(bytes.len()) == expected).ok_or_else(|| LoadError::OutOfBounds {
            key: format!("size of tensor {}", tensor.name),
            value: format!("{} bytes", tensor.bytes.len()),
            bound: format!("must be what {} × {} elements in {dtype} take", shape.rows, shape.columns),
        })
    }

    fn slice(&self, tensor: &TensorInfo) -> Result<BufferSlice, LoadError> {
        let buffer = self.buffers.get(tensor.file);
        let buffer = buffer.ok_or_else(|| LoadError::MissingTensor { name: tensor.name.clone() })?;
        Ok(buffer.slice(tensor.bytes.start as u64, tensor.bytes.len() as u64)?)
    }

    /// How many bytes of the file have to be quantised for this weight.
    fn bytes_to_quantise(&self, tensor: &TensorInfo, spec: &WeightSpec) -> u64 {
        let quantised = self.quantize.is_some() && wants_quantising(tensor, &spec.shape);
        if quantised { tensor.bytes.len() as u64 } else { 0 }
    }

    fn quantised(
        &mut self,
        tensor: &TensorInfo,
        stored: DType,
        spec: &WeightSpec,
        source: &[u8],
    ) -> Result<Option<(DType, OwnedMemory)>, LoadError> {
        let Some(quantize) = self.quantize.filter(|_| !stored.is_quantised()) else { return Ok(None) };
        let target = quantize.dtype();
        let size = target.row_bytes(spec.shape.columns).and_then(|row| row.checked_mul(spec.shape.rows));
        let Some(size) = size else {
            let (columns, block_len) = (spec.shape.columns, target.block_len());
            tracing::info!(name = %tensor.name, columns, block_len, "left as stored: rows are no whole quant blocks");
            return Ok(None);
        };
        let mut memory = OwnedMemory::zeroed(tensor.name.clone(), size);
        let (progress, done) = (&mut *self.progress, &mut self.done);
        quantize::quantise(source, stored, quantize, memory.bytes_mut(), &mut |bytes| {
            done.done_bytes += bytes as u64;
            progress(*done);
        });
        Ok(Some((target, memory)))
    }
}

fn wants_quantising(tensor: &TensorInfo, shape: &WeightShape) -> bool {
    let plain = tensor.dtype().is_ok_and(|dtype| !dtype.is_quantised());
    plain && shape.role != WeightRole::Vector && shape.columns.is_multiple_of(quantize::BLOCK_LEN)
}

/// Norm weights and biases are read as f32, so other formats become that.
fn vector(tensor: &TensorInfo, stored: DType, bytes: &[u8]) -> Result<Option<(DType, OwnedMemory)>, LoadError> {
    let two = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    let values: Vec<f32> = match stored {
        DType::F32 => return Ok(None),
        DType::F16 => two().map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
        DType::BF16 => two().map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
        other => {
            return Err(LoadError::UnsupportedFormat {
                name: tensor.name.clone(),
                format: other.to_string(),
                supported: "f32, f16, bf16 for vectors".to_owned(),
            });
        }
    };
    let mut memory = OwnedMemory::zeroed(tensor.name.clone(), size_of_val(values.as_slice()));
    memory.bytes_mut().copy_from_slice(bytemuck::cast_slice(&values));
    Ok(Some((DType::F32, memory)))
}

/// A copy, if the file put the tensor where its format cannot be read in place.
fn aligned(tensor: &TensorInfo, stored: DType, bytes: &[u8]) -> Option<(DType, OwnedMemory)> {
    let alignment = if stored == DType::F32 { align_of::<f32>() } else { align_of::<f16>() };
    if bytes.as_ptr().addr().is_multiple_of(alignment) {
        return None;
    }
    tracing::info!(name = %tensor.name, bytes = bytes.len(), "copied: the file does not align it");
    let mut memory = OwnedMemory::zeroed(tensor.name.clone(), bytes.len());
    memory.bytes_mut().copy_from_slice(bytes);
    Some((stored, memory))
}
