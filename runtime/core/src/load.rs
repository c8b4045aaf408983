//! Load: a weight file becomes a typed model. Nothing here knows of devices.
//!
//! Two formats, one result: a `.gguf` file, or a folder with `config.json` and `*.safetensors`. The files are
//! mapped, not read; weights stay where they lie (`weights` lists the exceptions). Which weights exist
//! follows from the config through the `graph`, never from the file: what the file has beyond them is skipped.

pub mod error;

pub mod tensors;

pub mod gguf;

pub mod safetensors;

pub mod config;

pub mod graph;

pub mod text;

pub mod names;

pub mod quantize;

pub mod weights;

pub mod tokenizer;

pub mod chat;

mod guard;

use std::path::{Path, PathBuf};

use biga_map::MappedFile;

use chat::{ChatError, ChatTemplate};
use config::Config;
use error::LoadError;
use gguf::{Gguf, Metadata};
use graph::Graph;
use names::Naming;
use quantize::Quantize;
use safetensors::Checkpoint;
use text::Text;
use tokenizer::Tokenizer;
use weights::Weights;

const CONFIG: &str = "config.json";
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Quantise plain matrices.
    pub quantize: Option<Quantize>,
}

/// How far the part of loading that takes time has come: quantising, in bytes of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Done.
    pub done_bytes: u64,
    /// To be done; 0 where nothing is quantised.
    pub total_bytes: u64,
}

/// A model, ready to be planned.
#[derive(Debug)]
pub struct Model {
    /// What the user named.
    pub path: PathBuf,
    /// Dimensions and constants.
    pub config: Config,
    /// What a step computes.
    pub graph: Graph,
    /// By the graph's weight ids.
    pub weights: Weights,
    /// A GGUF file's metadata, without the vocabulary: that is in the tokenizer.
    pub metadata: Option<Metadata>,
    /// `None` if the model has none: it can be run on token ids.
    pub tokenizer: Option<Tokenizer>,
    /// `None` if the model has none. An error if it has one that cannot be used; raw prompts need none.
    pub chat_template: Result<Option<ChatTemplate>, ChatError>,
}

impl Model {
    /// Loads a `.gguf` file, or a folder with `config.json` and safetensors.
    ///
    /// # Errors
    /// [`LoadError`]: the path is no model, a file is malformed, the model is not supported.
    pub fn load(
        path: impl AsRef<Path>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Model, LoadError> {
        let path = path.as_ref();
        let _span = tracing::info_span!("load", path = %path.display()).entered();
        let source = if path.is_dir() || path.extension().is_some_and(|extension| extension == "safetensors") {
            Source::checkpoint(path)?
        } else {
            Source::gguf(path)?
        };
        let Source { config, naming, files, tensors, metadata, text } = source;
        let Text { tokenizer, chat_template } = text;
        let graph = Graph::of(&config);
        let weights = Weights::find(&graph, &naming, files, &tensors, options.quantize, progress)?;
        let (family, layers, bytes) = (config.family.name(), config.layers.len(), weights.size_bytes());
        tracing::info!(name = %config.name, family, layers, bytes, "model loaded");
        Ok(Model { path: path.to_path_buf(), config, graph, weights, metadata, tokenizer, chat_template })
    }
}

impl Model {
    /// The weights as the planner sees them.
    pub fn planned_weights(&self) -> Vec<crate::plan::PlannedWeight> {
        let planned = |weight: &weights::Weight| crate::plan::PlannedWeight {
            shape: weight.shape,
            dtype: weight.dtype,
            file_bytes: weight.slice.size_bytes(),
            is_mapped: weight.is_mapped(),
        };
        self.weights.iter().map(planned).collect()
    }
}

/// What the two formats have in common.
struct Source {
    config: Config,
    naming: Naming,
    files: Vec<MappedFile>,
    tensors: tensors::Tensors,
    metadata: Option<Metadata>,
    text: Text,
}

impl Source {
    fn gguf(path: &Path) -> Result<Source, LoadError> {
        let file = MappedFile::open(path)?;
        if !file.bytes().starts_with(b"GGUF") {
            let cause = "neither a gguf file nor a folder with config.json and safetensors".to_owned();
            return Err(LoadError::NoModel { path: path.to_path_buf(), cause });
        }
        let Gguf { mut metadata, tensors } = Gguf::parse(file.bytes()).map_err(|error| error_of(&file, error))?;
        if let Some(parts) = metadata.unsigned("split.count")?.filter(|&parts| parts > 1) {
            let (what, value) = ("split.count".to_owned(), parts.to_string());
            return Err(LoadError::Unsupported { what, value, supported: "1, files that hold all tensors".to_owned() });
        }
        let config = Config::from_gguf(&metadata, &tensors, file.bytes())?;
        let text = Text::of_gguf(&metadata)?;
        metadata.drop_arrays("tokenizer.ggml.");
        Ok(Source { config, naming: Naming::Gguf, files: vec![file], tensors, metadata: Some(metadata), text })
    }

    fn checkpoint(path: &Path) -> Result<Source, LoadError> {
        let folder = safetensors::folder_of(path);
        let config_path = folder.join(CONFIG);
        if !config_path.exists() {
            return Err(LoadError::NoModel { path: folder, cause: format!("no {CONFIG} in it") });
        }
        let text = safetensors::read_text(&config_path, MAX_CONFIG_BYTES)?;
        let json = serde_json::from_str(&text).map_err(|source| LoadError::Json { path: config_path, source })?;
        let mut config = Config::from_hugging_face(&json)?;
        if let Some(name) = folder.canonicalize().ok().as_deref().and_then(Path::file_name) {
            config.name = name.to_string_lossy().into_owned();
        }
        let checkpoint = if path.is_dir() { Checkpoint::open(&folder)? } else { Checkpoint::open_file(path)? };
        let Checkpoint { files, tensors } = checkpoint;
        let naming = Naming::of_checkpoint(&config, &tensors);
        let text = Text::of_folder(&folder)?;
        Ok(Source { config, naming, files, tensors, metadata: None, text })
    }
}

/// A file that shrank while it was read looks malformed; that it shrank is the better answer.
fn error_of(file: &MappedFile, error: LoadError) -> LoadError {
    if file.lost() { biga_map::MapError::Lost { path: file.path().to_path_buf() }.into() } else { error }
}

#[cfg(test)]
mod tests;
