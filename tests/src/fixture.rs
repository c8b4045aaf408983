//! The tiny random models, their expected logits, and variants derived from them.
//!
//! `tests/fixtures/gen_tiny.py` made them with transformers; it documents the content.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// The folder of a family's fixture.
pub fn folder(family: &str) -> PathBuf {
    crate::folder().join("fixtures").join(format!("tiny-{family}"))
}

/// What transformers computed.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The prompt.
    pub input_ids: Vec<u32>,
    /// `[n_tokens, vocab]`
    pub logits: Vec<f32>,
    /// Columns of the logits.
    pub vocab: usize,
    /// The prompt and its greedy continuation.
    pub greedy_ids: Vec<u32>,
}

impl Expected {
    /// Reads a family's expectations.
    ///
    /// # Errors
    /// If the fixture is not there or lacks a tensor.
    pub fn read(family: &str) -> Result<Expected> {
        let bytes = fs::read(folder(family).join("expected.safetensors"))?;
        let file = SafeTensors::deserialize(&bytes)?;
        let ids = |name: &str| -> Result<Vec<u32>> {
            let words = file.tensor(name)?.data().chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap()));
            Ok(words.map(|id| id as u32).collect())
        };
        let logits = file.tensor("logits")?;
        let vocab = *logits.shape().last().context("logits without a shape")?;
        Ok(Expected {
            input_ids: ids("input_ids")?,
            logits: floats(logits.data()),
            vocab,
            greedy_ids: ids("greedy_ids")?,
        })
    }
}

/// A checkpoint in memory, to be changed and written elsewhere.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// `config.json`.
    pub config: serde_json::Value,
    /// By name: format, shape, bytes.
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Checkpoint {
    /// Reads a family's fixture.
    ///
    /// # Errors
    /// If it is not there.
    pub fn read(family: &str) -> Result<Checkpoint> {
        let folder = folder(family);
        let bytes = fs::read(folder.join("model.safetensors"))?;
        let file = SafeTensors::deserialize(&bytes)?;
        let tensors = file
            .iter()
            .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
        let config = serde_json::from_str(&fs::read_to_string(folder.join("config.json"))?)?;
        Ok(Checkpoint { tensors: tensors.collect(), config })
    }

    /// Rounds every tensor to BF16 or F16.
    #[must_use]
    pub fn rounded(mut self, dtype: Dtype) -> Checkpoint {
        for (from, _, bytes) in self.tensors.values_mut() {
            let values = floats(bytes);
            *bytes = match dtype {
                Dtype::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            };
            *from = dtype;
        }
        self
    }

    /// Widens every tensor to F32, so that a rounded model can be checked exactly.
    #[must_use]
    pub fn widened(mut self) -> Checkpoint {
        for (dtype, _, bytes) in self.tensors.values_mut() {
            let pairs = bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
            *bytes = match *dtype {
                Dtype::BF16 => pairs.flat_map(|p| half::bf16::from_le_bytes(p).to_f32().to_le_bytes()).collect(),
                Dtype::F16 => pairs.flat_map(|p| half::f16::from_le_bytes(p).to_f32().to_le_bytes()).collect(),
                _ => continue,
            };
            *dtype = Dtype::F32;
        }
        self
    }

    /// Turns a text model into the language part of a multimodal checkpoint with a vision tower.
    #[must_use]
    pub fn with_vision_tower(self) -> Checkpoint {
        let mut tensors: BTreeMap<_, _> =
            self.tensors.into_iter().map(|(name, tensor)| (format!("language_model.{name}"), tensor)).collect();
        let tower = (Dtype::F32, vec![4, 4], vec![0; 64]);
        tensors.insert("vision_tower.vision_model.embeddings.patch_embedding.weight".to_owned(), tower.clone());
        tensors.insert("multi_modal_projector.mm_input_projection_weight".to_owned(), tower);
        let config = serde_json::json!({
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": self.config,
            "vision_config": { "model_type": "siglip_vision_model", "hidden_size": 4 },
        });
        Checkpoint { config, tensors }
    }

    /// Writes a folder with one weight file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&self.config)?)?;
        let names: Vec<&String> = self.tensors.keys().collect();
        self.write_file(&folder.join("model.safetensors"), &names)
    }

    /// Writes a folder with `n` weight files and an index.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_sharded(&self, folder: &Path, n: usize) -> Result<()> {
        fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&self.config)?)?;
        let names: Vec<&String> = self.tensors.keys().collect();
        let mut map = serde_json::Map::new();
        for (index, names) in names.chunks(names.len().div_ceil(n)).enumerate() {
            let file = format!("model-{:05}-of-{n:05}.safetensors", index + 1);
            self.write_file(&folder.join(&file), names)?;
            map.extend(names.iter().map(|name| ((*name).clone(), file.clone().into())));
        }
        let index = serde_json::json!({ "metadata": {}, "weight_map": map });
        Ok(fs::write(folder.join("model.safetensors.index.json"), serde_json::to_vec(&index)?)?)
    }

    fn write_file(&self, path: &Path, names: &[&String]) -> Result<()> {
        let views = names.iter().map(|name| {
            let (dtype, shape, bytes) = &self.tensors[*name];
            Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        Ok(fs::write(path, safetensors::serialize(views, None)?)?)
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}
