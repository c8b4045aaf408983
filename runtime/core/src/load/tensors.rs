//! What a model file says of its tensors: names, formats, shapes and places, the same for both file formats.
//! It holds no bytes.

use std::{collections::HashMap, ops::Range};

use biga_hal::DType;

use super::error::LoadError;

/// How a tensor is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// In a format that kernels read.
    Known(DType),
    /// In another one, by the name that its file format gives it. Only a tensor that is needed makes it an error.
    Other(String),
}

/// One tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Unique in its model.
    pub name: String,
    /// Storage format.
    pub format: Format,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Index of the file, among those of the model.
    pub file: usize,
    /// Place in the file; lies inside it. Empty if the format's size is unknown.
    pub bytes: Range<usize>,
}

impl TensorInfo {
    /// The storage format, if it is one that kernels read.
    ///
    /// # Errors
    /// [`LoadError::UnsupportedFormat`] otherwise.
    pub fn dtype(&self) -> Result<DType, LoadError> {
        match &self.format {
            Format::Known(dtype) => Ok(*dtype),
            Format::Other(format) => Err(LoadError::UnsupportedFormat {
                name: self.name.clone(),
                format: format.clone(),
                supported: DType::ALL.map(DType::name).join(", "),
            }),
        }
    }
}

/// All tensors of a model, in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Tensors {
    list: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Tensors {
    /// Adds one. False, and nothing is added, if its name is taken.
    pub(crate) fn insert(&mut self, tensor: TensorInfo) -> bool {
        if self.by_name.contains_key(&tensor.name) {
            return false;
        }
        self.by_name.insert(tensor.name.clone(), self.list.len());
        self.list.push(tensor);
        true
    }

    /// The tensor with this name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|&index| self.list.get(index))
    }

    /// The tensor with this name, which the model cannot do without.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`].
    pub fn require(&self, name: &str) -> Result<&TensorInfo, LoadError> {
        self.get(name).ok_or_else(|| LoadError::MissingTensor { name: name.to_owned() })
    }

    /// Every tensor.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
