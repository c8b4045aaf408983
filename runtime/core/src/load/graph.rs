//! The op graph: what one step computes, built from the config.
//!
//! A DAG with one node per op. Each op has at most one output value, so a value is named by the op
//! that makes it. Nodes are created in execution order, which is therefore a topological order.
//! Weights are named by what they are to the model ([`WeightSlot`]); the loader finds them in the file.

use std::sync::Arc;

use biga_hal::{Op, OpClass, OpKind, Rows, WeightShape};
use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};

use super::config::Config;

/// Names an op, and the value that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct OpId(pub usize);

/// Names a weight of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct WeightId(pub usize);

/// What a weight is to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum WeightSlot {
    Embedding,
    FinalNorm,
    Head,
    Layer(usize, LayerWeight),
}

/// What a weight is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum LayerWeight {
    AttentionNorm,
    Q,
    K,
    V,
    QBias,
    KBias,
    VBias,
    QNorm,
    KNorm,
    Output,
    OutputBias,
    PostAttentionNorm,
    FfnNorm,
    Gate,
    Up,
    Down,
    PostFfnNorm,
}

/// A weight that the graph needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// What it is.
    pub slot: WeightSlot,
    /// The shape that the ops expect.
    pub shape: WeightShape,
}

/// A node.
#[derive(Clone, Debug)]
pub struct OpNode {
    /// What it computes.
    pub op: Arc<Op>,
    /// Its class for placement rules.
    pub class: OpClass,
    /// Weights in the op's order.
    pub weights: Vec<WeightId>,
    /// Producers of its inputs, in the op's order.
    pub inputs: Vec<OpId>,
    /// Rows of its output.
    pub rows: Rows,
}

/// Why one op comes after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// Reads its output as input number `input`.
    Value {
        /// Index among the reader's inputs.
        input: usize,
    },
    /// Reads the KV entries that it appended.
    Kv,
}

/// The op graph of a model.
#[derive(Clone, Debug)]
pub struct Graph {
    dag: DiGraph<OpNode, Dependency>,
    weights: Vec<WeightSpec>,
}

impl Graph {
    /// An empty graph, for building by hand.
    pub fn new() -> Graph {
        Graph { dag: DiGraph::new(), weights: Vec::new() }
    }

    /// Declares a weight.
    pub fn add_weight(&mut self, slot: WeightSlot, shape: WeightShape) -> WeightId {
        self.weights.push(WeightSpec { slot, shape });
        WeightId(self.weights.len() - 1)
    }

    /// Appends an op that reads the outputs of `inputs`.
    ///
    /// # Panics
    /// If an input is no op of this graph: the builder's own mistake.
    pub fn add_op(
        &mut self,
        class: OpClass,
        layer: Option<usize>,
        kind: OpKind,
        inputs: &[OpId],
        weights: Vec<WeightId>,
    ) -> OpId {
        let selected = inputs.iter().any(|&input| self.op(input).rows == Rows::Outputs);
        let rows = if selected || matches!(kind, OpKind::SelectOutputs { .. }) { Rows::Outputs } else { Rows::Tokens };
        let node = OpNode { op: Arc::new(Op { kind, layer }), class, weights, inputs: inputs.to_vec(), rows };
        let index = self.dag.add_node(node);
        for (input, producer) in inputs.iter().enumerate() {
            self.dag.add_edge(NodeIndex::new(producer.0), index, Dependency::Value { input });
        }
        OpId(index.index())
    }

    /// Makes `reader` come after `writer` because of the KV cache.
    pub fn add_kv_dependency(&mut self, writer: OpId, reader: OpId) {
        self.dag.add_edge(NodeIndex::new(writer.0), NodeIndex::new(reader.0), Dependency::Kv);
    }

    /// Count of ops.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// True without ops.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All ops in execution order.
    pub fn ops(&self) -> impl DoubleEndedIterator<Item = (OpId, &OpNode)> {
        self.dag.node_indices().map(|index| (OpId(index.index()), &self.dag[index]))
    }

    /// One op.
    pub fn op(&self, id: OpId) -> &OpNode {
        &self.dag[NodeIndex::new(id.0)]
    }

    /// The ops that read the value of `id`, in execution order.
    pub fn readers(&self, id: OpId) -> Vec<OpId> {
        let mut readers: Vec<OpId> = self
            .dag
            .edges_directed(NodeIndex::new(id.0), Direction::Outgoing)
            .filter(|edge| matches!(edge.weight(), Dependency::Value { .. }))
            .map(|edge| OpId(edge.target().index()))
            .collect();
        readers.sort_unstable();
        readers.dedup();
        readers
    }

    /// Every weight, by id.
    pub fn weights(&self) -> &[WeightSpec] {
        &self.weights
    }

    /// The petgraph graph, for algorithms over it.
    pub fn dag(&self) -> &DiGraph<OpNode, Dependency> {
        &self.dag
    }

    /// Builds the graph of a model.
    pub fn of(config: &Config) -> Graph {
        Builder { graph: Graph::new(), config }.build()
    }
}

impl Default for Graph {
    fn default() -> Graph {
        Graph::new()
    }
}

struct Builder<'a> {
    graph: Graph,
    config: &'a Config,
}

impl Builder<'_> {
    fn build(mut self) -> Graph {
        let &Config { vocab, hidden, embed_scale, logit_softcap, tied_embeddings, .. } = self.config;
        let embed = OpKind::Embed { vocab, width: hidden, scale: embed_scale };
        let table = self.weights(&embed, &[WeightSlot::Embedding]);
        let mut stream = self.graph.add_op(OpClass::Embed, None, embed, &[], table.clone());
        for layer in 0..self.config.layers.len() {
            stream = self.attention(layer, stream);
            stream = self.ffn(layer, stream);
        }
        let selected =
            self.graph.add_op(OpClass::Head, None, OpKind::SelectOutputs { width: hidden }, &[stream], Vec::new());
        let normed = self.norm(OpClass::Head, None, selected, WeightSlot::FinalNorm);
        let head = OpKind::Head { width: hidden, vocab, softcap: logit_softcap };
        let weights = if tied_embeddings { table } else { self.weights(&head, &[WeightSlot::Head]) };
        let logits = self.graph.add_op(OpClass::Head, None, head, &[normed], weights);
        self.graph.add_op(OpClass::Sample, None, OpKind::Sample { vocab }, &[logits], Vec::new());
        self.graph
    }

    fn weights(&mut self, kind: &OpKind, slots: &[WeightSlot]) -> Vec<WeightId> {
        let shapes = kind.weights();
        assert_eq!(shapes.len(), slots.len(), "{} binds {} weights", kind.name(), shapes.len());
        slots.iter().zip(shapes).map(|(&slot, shape)| self.graph.add_weight(slot, shape)).collect()
    }

    fn layer_op(
        &mut self,
        class: OpClass,
        layer: usize,
        kind: OpKind,
        inputs: &[OpId],
        weights: &[LayerWeight],
    ) -> OpId {
        let slots: Vec<WeightSlot> = weights.iter().map(|&weight| WeightSlot::Layer(layer, weight)).collect();
        let weights = self.weights(&kind, &slots);
        self.graph.add_op(class, Some(layer), kind, inputs, weights)
    }

    fn norm(&mut self, class: OpClass, layer: Option<usize>, input: OpId, slot: WeightSlot) -> OpId {
        let kind = OpKind::RmsNorm {
            width: self.config.hidden,
            eps: self.config.norm_eps,
            weight_offset: self.config.norm_weight_offset,
        };
        let weights = self.weights(&kind, &[slot]);
        self.graph.add_op(class, layer, kind, &[input], weights)
    }

    fn attention(&mut self, layer: usize, stream: OpId) -> OpId {
        use LayerWeight as W;
        let class = OpClass::Attention;
        let config = self.config;
        let &Config { hidden: width, heads, norm_eps: eps, norm_weight_offset: weight_offset, .. } = config;
        let kind = &config.layers[layer];

        let normed = self.norm(class, Some(layer), stream, WeightSlot::Layer(layer, W::AttentionNorm));
        let bias = config.qkv_bias;
        let slots: &[W] = if bias { &[W::Q, W::K, W::V, W::QBias, W::KBias, W::VBias] } else { &[W::Q, W::K, W::V] };
        let mut qkv = self.layer_op(class, layer, OpKind::QkvProjection { width, heads, bias }, &[normed], slots);
        if config.qk_norm {
            let norm = OpKind::QkNorm { heads, eps, weight_offset };
            qkv = self.layer_op(class, layer, norm, &[qkv], &[W::QNorm, W::KNorm]);
        }
        let rope = OpKind::Rope { heads, style: config.rope_style, inv_freqs: kind.inv_freqs.clone() };
        let qkv = self.layer_op(class, layer, rope, &[qkv], &[]);
        let append = self.layer_op(class, layer, OpKind::KvAppend { heads }, &[qkv], &[]);
        let attention = OpKind::Attention {
            heads,
            scale: config.attention_scale,
            window: kind.window,
            softcap: config.attention_softcap,
        };
        let attended = self.layer_op(class, layer, attention, &[qkv], &[]);
        self.graph.add_kv_dependency(append, attended);
        let bias = config.output_bias;
        let slots: &[W] = if bias { &[W::Output, W::OutputBias] } else { &[W::Output] };
        let projection = OpKind::OutputProjection { input: heads.q_width(), output: width, bias };
        let mut branch = self.layer_op(class, layer, projection, &[attended], slots);
        if config.post_norms {
            branch = self.norm(class, Some(layer), branch, WeightSlot::Layer(layer, W::PostAttentionNorm));
        }
        self.layer_op(class, layer, OpKind::Residual { width }, &[stream, branch], &[])
    }

    fn ffn(&mut self, layer: usize, stream: OpId) -> OpId {
        use LayerWeight as W;
        let class = OpClass::Ffn;
        let &Config { hidden: width, ff, activation, post_norms, .. } = self.config;
        let normed = self.norm(class, Some(layer), stream, WeightSlot::Layer(layer, W::FfnNorm));
        let gate_up = self.layer_op(class, layer, OpKind::GateUp { width, ff }, &[normed], &[W::Gate, W::Up]);
        let active = self.layer_op(class, layer, OpKind::Activate { ff, activation }, &[gate_up], &[]);
        let mut branch = self.layer_op(class, layer, OpKind::Down { ff, width }, &[active], &[W::Down]);
        if post_norms {
            branch = self.norm(class, Some(layer), branch, WeightSlot::Layer(layer, W::PostFfnNorm));
        }
        self.layer_op(class, layer, OpKind::Residual { width }, &[stream, branch], &[])
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::config::{Config, Family, LayerConfig, RopeScaling, inv_freqs},
        Graph,
    };
    use biga_hal::{Activation, Heads, RopeStyle};

    fn config(post_norms: bool, qk_norm: bool, tied_embeddings: bool) -> Config {
        let layer = LayerConfig { window: None, inv_freqs: inv_freqs(8, 1e4, &RopeScaling::None) };
        Config {
            family: Family::Llama,
            name: "t".into(),
            vocab: 32,
            hidden: 16,
            ff: 24,
            heads: Heads { n_heads: 2, n_kv_heads: 1, head_dim: 8 },
            max_context: 64,
            norm_eps: 1e-5,
            norm_weight_offset: 0.0,
            embed_scale: 1.0,
            activation: Activation::Silu,
            qkv_bias: false,
            output_bias: false,
            qk_norm,
            post_norms,
            attention_scale: 0.3,
            attention_softcap: None,
            logit_softcap: None,
            tied_embeddings,
            rope_style: RopeStyle::Halves,
            layers: vec![layer; 3],
        }
    }

    #[test]
    fn widths_agree_along_every_edge() {
        for (post, qk, tied) in [(false, false, false), (true, true, true)] {
            let graph = Graph::of(&config(post, qk, tied));
            for (id, node) in graph.ops() {
                let widths = node.op.kind.input_widths();
                assert_eq!(widths.len(), node.inputs.len(), "{}", node.op.kind.name());
                for (&input, width) in node.inputs.iter().zip(widths) {
                    assert!(input < id, "execution order is topological");
                    assert_eq!(graph.op(input).op.kind.output_width(), Some(width), "{}", node.op.kind.name());
                }
                let shapes: Vec<_> = node.weights.iter().map(|w| graph.weights()[w.0].shape.columns).collect();
                let wanted: Vec<_> = node.op.kind.weights().iter().map(|w| w.columns).collect();
                assert_eq!(shapes, wanted);
            }
        }
    }

    #[test]
    fn tied_embeddings_are_one_weight() {
        let tied = Graph::of(&config(false, false, true));
        let untied = Graph::of(&config(false, false, false));
        assert_eq!(tied.weights().len() + 1, untied.weights().len());
        assert_eq!(tied.len(), untied.len());
    }
}
