//! What can be wrong with a model on disk.

use std::path::PathBuf;

/// Why a model did not load.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be mapped, or changed afterwards.
    #[error(transparent)]
    Map(#[from] biga_map::MapError),
    /// A slice of a file's memory could not be made.
    #[error(transparent)]
    Memory(#[from] biga_hal::Error),
    /// The tokenizer that the model brings cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] super::tokenizer::TokenizerError),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The path is neither a `.gguf` file nor a folder with a checkpoint.
    #[error("{} is no model: {cause}", path.display())]
    NoModel {
        /// What was given.
        path: PathBuf,
        /// What was looked for.
        cause: String,
    },
    /// A GGUF file of a kind that is not read.
    #[error("gguf file of {found}; version 3, little-endian, is supported")]
    GgufVersion {
        /// Version or byte order.
        found: String,
    },
    /// Bytes that contradict the format.
    #[error("malformed {format}, {section}, byte {offset}: {what} is {value}, {bound}")]
    Malformed {
        /// `gguf` or `safetensors`.
        format: &'static str,
        /// Part of the file.
        section: String,
        /// From the start of the file.
        offset: u64,
        /// What was read there.
        what: &'static str,
        /// As read.
        value: String,
        /// What it must keep.
        bound: String,
    },
    /// A safetensors file that the format's own validation refuses.
    #[error("malformed safetensors file {}: {cause}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the validation says.
        cause: String,
    },
    /// A shard index that cannot be followed.
    #[error("shard index {}: {cause}", path.display())]
    ShardIndex {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A description of the model with a value of the wrong kind.
    #[error("{key} is {found}, expected {expected}")]
    WrongType {
        /// Metadata key or config field.
        key: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A value that the model cannot be built without.
    #[error("{key} is missing")]
    MissingKey {
        /// Metadata key or config field.
        key: String,
    },
    /// A value outside its bounds.
    #[error("{key} is {value}, {bound}")]
    OutOfBounds {
        /// Metadata key or config field.
        key: String,
        /// As read.
        value: String,
        /// What it must keep.
        bound: String,
    },
    /// `config.json` or an index that is not JSON.
    #[error("{} is not valid json: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's answer.
        source: serde_json::Error,
    },
    /// A model family that nobody has described here.
    #[error("unknown model family {found}; supported: {supported}")]
    UnknownFamily {
        /// As the file says.
        found: String,
        /// Names that are known.
        supported: String,
    },
    /// A known family with a feature that is not computed here.
    #[error("{what} {value} is not supported; supported: {supported}")]
    Unsupported {
        /// Config field or metadata key.
        what: String,
        /// Its value.
        value: String,
        /// What could stand there.
        supported: String,
    },
    /// A tensor that the model needs is not in the file.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// Its name in the file.
        name: String,
    },
    /// A tensor of another shape than the config implies.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    WrongShape {
        /// Its name in the file.
        name: String,
        /// Outermost dimension first.
        found: Vec<usize>,
        /// What the config implies.
        expected: Vec<usize>,
    },
    /// A tensor in a storage format that no kernel reads.
    #[error("tensor {name} is stored as {format}, which is not supported; supported: {supported}")]
    UnsupportedFormat {
        /// Its name in the file.
        name: String,
        /// The format's own name.
        format: String,
        /// Names of the formats that are read.
        supported: String,
    },
}
