//! Any bytes as a safetensors file, and as the `config.json` beside it.

use std::path::Path;

use biga::load::{config::Config, graph::Graph, safetensors};

/// Reads `data` as far as a loader would without running anything.
pub(crate) fn check(data: &[u8]) {
    for tensor in safetensors::parse(data, Path::new("fuzzed"), 0).unwrap_or_default() {
        assert!(data.get(tensor.bytes.clone()).is_some(), "{} lies in the file", tensor.name);
    }
    if let Ok(json) = serde_json::from_slice(data)
        && let Ok(config) = Config::from_hugging_face(&json)
    {
        let finite = |freqs: &[f32]| freqs.iter().all(|freq| freq.is_finite());
        assert!(config.layers.iter().all(|layer| finite(&layer.inv_freqs)), "frequencies are finite");
        assert!(!Graph::of(&config).is_empty());
    }
}
