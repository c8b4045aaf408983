//! Any bytes as a GGUF file: described, configured, laid out as a graph. Nothing may panic, and what is
//! accepted keeps its promises.

use biga::load::{config::Config, gguf::Gguf, graph::Graph};

/// Reads `data` as far as a loader would without running anything.
pub(crate) fn check(data: &[u8]) {
    let Ok(gguf) = Gguf::parse(data) else { return };
    for tensor in gguf.tensors.iter() {
        assert!(data.get(tensor.bytes.clone()).is_some(), "{} lies in the file", tensor.name);
        assert_eq!(gguf.tensors.get(&tensor.name), Some(tensor));
    }
    for (key, value) in gguf.metadata.iter() {
        assert!(gguf.metadata.get(key).is_some());
        let _ = (value.as_f64(), value.as_u64(), gguf.metadata.integers(key));
    }
    if let Ok(config) = Config::from_gguf(&gguf.metadata, &gguf.tensors, data) {
        let finite = |freqs: &[f32]| freqs.iter().all(|freq| freq.is_finite());
        assert!(config.layers.iter().all(|layer| finite(&layer.inv_freqs)), "frequencies are finite");
        assert!(!Graph::of(&config).is_empty());
    }
}
