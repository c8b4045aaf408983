//! The text side of a model: its tokenizer and chat template, from wherever the format keeps them.
//!
//! A model without a tokenizer loads: it can be run on token ids. A tokenizer that is there and broken
//! is an error of the load. A broken chat template is kept as its error, since raw prompts need none.

use std::path::Path;

use super::{
    chat::{ChatError, ChatTemplate},
    error::LoadError,
    gguf::Metadata,
    safetensors,
    tokenizer::{GgufVocab, Tokenizer},
};

/// The largest known `tokenizer.json` has 33 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Tokenizer and chat template, as far as there are any.
#[derive(Debug)]
pub struct Text {
    /// `None` if the model has none.
    pub tokenizer: Option<Tokenizer>,
    /// `None` if the model has none.
    pub chat_template: Result<Option<ChatTemplate>, ChatError>,
}

impl Text {
    /// From a GGUF file's metadata.
    ///
    /// # Errors
    /// A vocabulary that is there and cannot be used.
    pub(super) fn of_gguf(metadata: &Metadata) -> Result<Text, LoadError> {
        let has_vocabulary = metadata.get("tokenizer.ggml.model").is_some();
        let tokenizer = match has_vocabulary {
            true => Some(GgufVocab::from_metadata(metadata)?.into_tokenizer()?),
            false => None,
        };
        let source = metadata.string("tokenizer.chat_template")?;
        Ok(Text { tokenizer, chat_template: source.map(ChatTemplate::new).transpose() })
    }

    /// From the files beside a checkpoint: `tokenizer.json`, `tokenizer_config.json`,
    /// `generation_config.json`, `chat_template.jinja`.
    ///
    /// # Errors
    /// A file that is there and cannot be read or used.
    pub(super) fn of_folder(folder: &Path) -> Result<Text, LoadError> {
        let read = |name: &str| {
            let path = folder.join(name);
            path.exists().then(|| safetensors::read_text(&path, MAX_FILE_BYTES)).transpose()
        };
        let config = read("tokenizer_config.json")?;
        let config = config.as_deref().map(str::as_bytes);
        let tokenizer = match read("tokenizer.json")? {
            Some(json) => {
                let mut tokenizer = Tokenizer::from_json_bytes(json.as_bytes(), config)?;
                for name in ["generation_config.json", "config.json"] {
                    if let Some(ids) = read(name)? {
                        tokenizer.add_eos_ids_from(ids.as_bytes())?;
                    }
                }
                Some(tokenizer)
            }
            None => None,
        };
        let chat_template = match (read("chat_template.jinja")?, config) {
            (Some(source), _) => ChatTemplate::new(&source).map(Some),
            (None, Some(config)) => ChatTemplate::from_tokenizer_config(config),
            (None, None) => Ok(None),
        };
        Ok(Text { tokenizer, chat_template })
    }
}
