//! What one step has to read from memory: the least that any engine can do.

use anyhow::{Context, Result};
use biga::{
    hal::{DType, OpKind},
    load::Model,
};
use serde::{Deserialize, Serialize};

use crate::test::Test;

/// Bytes of a model that a step reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Every weight that a step reads whole: all but an embedding table that is not also the head.
    pub(crate) weight_bytes: u64,
    /// One row of the embedding table.
    pub(crate) embedding_row_bytes: u64,
    /// Layers that keep alike.
    pub(crate) kv: Vec<KvLayers>,
}

/// Layers with the same KV cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KvLayers {
    pub(crate) layers: usize,
    /// Elements of the keys of one position, and of its values.
    pub(crate) columns: usize,
    /// Positions that a token sees at most.
    pub(crate) window: Option<usize>,
}

impl Cost {
    /// Of a loaded model.
    pub(crate) fn of(model: &Model) -> Cost {
        let mut read = Vec::new();
        let mut embedding_row_bytes = 0;
        let mut kv: Vec<KvLayers> = Vec::new();
        for (_, node) in model.graph.ops() {
            match node.op.kind {
                OpKind::Embed { vocab, .. } => {
                    let table: u64 = node.weights.iter().map(|&id| model.weights.get(id).slice.size_bytes()).sum();
                    embedding_row_bytes = table / vocab.max(1) as u64;
                    continue;
                }
                OpKind::Attention { heads, window, .. } => {
                    let columns = heads.n_kv_heads * heads.head_dim;
                    match kv.iter_mut().find(|known| (known.columns, known.window) == (columns, window)) {
                        Some(known) => known.layers += 1,
                        None => kv.push(KvLayers { layers: 1, columns, window }),
                    }
                }
                _ => {}
            }
            read.extend(node.weights.iter().filter(|id| !read.contains(*id)).copied().collect::<Vec<_>>());
        }
        let weight_bytes = read.iter().map(|&id| model.weights.get(id).slice.size_bytes()).sum();
        Cost { weight_bytes, embedding_row_bytes, kv }
    }

    /// Bytes that one decoding step of a test reads, all streams together, as a mean over its steps; `None`
    /// for tests that do not decode.
    ///
    /// # Errors
    /// A KV format that rows of this model cannot be stored in.
    pub(crate) fn step_bytes(&self, test: Test, kv: DType) -> Result<Option<f64>> {
        let (n, batch, depth) = match test {
            Test::Decode { n, batch, depth } => (n, batch, depth),
            Test::Host { n } => (n, 1, 0),
            Test::Prompt { .. } | Test::Start => return Ok(None),
        };
        let mut cached = 0.0;
        for layers in &self.kv {
            let row = kv.row_bytes(layers.columns);
            let row = row.with_context(|| format!("{} columns cannot be stored as {kv}", layers.columns))?;
            // Step i sees the positions before it and its own.
            let seen = |i: usize| (depth + i + 1).min(layers.window.unwrap_or(usize::MAX)) as f64;
            let mean = (0..n).map(seen).sum::<f64>() / n as f64;
            cached += 2.0 * (layers.layers * row) as f64 * mean;
        }
        let each = cached + self.embedding_row_bytes as f64;
        Ok(Some(self.weight_bytes as f64 + batch as f64 * each))
    }
}

#[cfg(test)]
mod tests {
    use super::{Cost, KvLayers};
    use crate::{generate::generate, shape, test::Test};
    use biga::{
        hal::DType,
        load::{LoadOptions, Model},
    };

    fn cost(shape: &shape::Shape) -> Cost {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        generate(shape, DType::Q4_0, &path, 1).unwrap();
        Cost::of(&Model::load(&path, &LoadOptions::default(), &mut |_| {}).unwrap())
    }

    #[test]
    fn a_table_that_is_no_head_is_read_by_the_row() {
        let shape = &shape::ALL[0];
        // Per layer: q, k, v, output, gate, up, down; at the end the head. 18 bytes for 32 weights.
        let layer = 256 * 256 + 2 * 128 * 256 + 256 * 256 + 3 * 512 * 256;
        let matrices = (2 * layer + 512 * 256) / 32 * 18;
        let norms = 4 * 256 * (2 * 2 + 1);
        let cost = cost(shape);
        assert_eq!(cost.weight_bytes, (matrices + norms) as u64);
        assert_eq!(cost.embedding_row_bytes, 256 / 32 * 18);
        assert_eq!(cost.kv, [KvLayers { layers: 2, columns: 128, window: None }]);
    }

    #[test]
    fn a_tied_table_is_read_once_and_windows_bound_the_cache() {
        let shape = &shape::ALL[1];
        let cost = cost(shape);
        let layer = 256 * 256 + 2 * 128 * 256 + 256 * 256 + 3 * 512 * 256;
        let matrices = (7 * layer + 512 * 256) / 32 * 18;
        let norms = 4 * (7 * (4 * 256 + 2 * 64) + 256);
        assert_eq!(cost.weight_bytes, (matrices + norms) as u64);
        let kv = |layers, window| KvLayers { layers, columns: 128, window };
        assert_eq!(cost.kv, [kv(6, Some(64)), kv(1, None)]);
        let bytes = |test: &str| cost.step_bytes(test.parse().unwrap(), DType::F16).unwrap();
        let base = (cost.weight_bytes + cost.embedding_row_bytes) as f64;
        // One token after 99: six layers see 64 positions, one sees 100; keys and values of 256 bytes.
        assert_eq!(bytes("tg1@d99"), Some(base + 512.0 * (6.0 * 64.0 + 100.0)));
        // Two tokens from nothing: 1.5 positions on average, in seven layers; four streams of that.
        let each = cost.embedding_row_bytes as f64 + 512.0 * 7.0 * 1.5;
        assert_eq!(bytes("tg2x4"), Some(cost.weight_bytes as f64 + 4.0 * each));
        assert_eq!(bytes("host2"), bytes("tg2"));
        assert_eq!(bytes("pp512"), None);
        let quantised = cost.step_bytes(Test::Host { n: 1 }, DType::Q8_0).unwrap().unwrap();
        assert_eq!(quantised, base + 2.0 * 136.0 * 7.0);
        assert!(cost.step_bytes(Test::Host { n: 1 }, DType::Q4_K).is_err());
    }
}
