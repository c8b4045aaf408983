//! What a plan was made from, owned, so that it can be solved again with another rule.
//!
//! Devices are asked once, here, for every op and weight; nothing later touches a device.

use std::{fmt, sync::Arc};

use biga_hal::{DType, OpKind, OpQuery, WeightRole};

use super::{
    placement::MAX_DEVICES,
    request::{PlaceRule, PlanError, PlanRequest, PlannedWeight, Policy},
    types::Limits,
};
use crate::{
    load::graph::{Dependency, Graph, OpId},
    probe::Topology,
    size,
};

/// Largest op dimension and count that is believed; products of three stay far inside 64 bits.
const MAX_DIMENSION: usize = 1 << 20;
/// Largest count of ops.
const MAX_OPS: usize = 1 << 14;

/// Whether a device runs an op, or why not.
pub(super) type Answer = Result<(), String>;

/// A request with every device's answers.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) model: String,
    pub(super) graph: Graph,
    pub(super) weights: Vec<PlannedWeight>,
    pub(super) topology: Topology,
    pub(super) policy: Policy,
    pub(super) rules: Vec<PlaceRule>,
    pub(super) strict: bool,
    pub(super) limits: Limits,
    pub(super) memory_limit: Option<u64>,
    /// KV formats, best first; one alone if the user named it.
    pub(super) kv_dtypes: Vec<DType>,
    /// `[op][device][KV format]`; ops without KV have one entry.
    pub(super) answers: Vec<Vec<Vec<Answer>>>,
    /// `[weight][device]`.
    pub(super) weight_bytes: Vec<Vec<u64>>,
}

impl Inputs {
    pub(super) fn of(request: &PlanRequest<'_>) -> Result<Inputs, PlanError> {
        check_sizes(request)?;
        let kv_dtypes = match request.kv_dtype {
            Some(dtype) => vec![dtype],
            None => kv_preference(request.weights),
        };
        let devices = &request.topology.devices;
        let weight_bytes: Vec<Vec<u64>> = request
            .weights
            .iter()
            .map(|weight| {
                let own = |info: &biga_hal::DeviceInfo| request.capabilities.weight_size_bytes(info.id, weight);
                devices
                    .iter()
                    .map(|info| match own(info) {
                        0 if !weight.is_mapped => weight.file_bytes,
                        bytes => bytes,
                    })
                    .collect()
            })
            .collect();
        let mut inputs = Inputs {
            model: request.model.to_owned(),
            graph: request.graph.clone(),
            weights: request.weights.to_vec(),
            topology: request.topology.clone(),
            policy: request.policy,
            rules: request.rules.clone(),
            strict: request.strict,
            limits: request.limits,
            memory_limit: request.memory_limit,
            kv_dtypes,
            answers: Vec::new(),
            weight_bytes,
        };
        inputs.answers = request
            .graph
            .ops()
            .map(|(id, _)| (0..devices.len()).map(|device| inputs.ask(request, id, device)).collect())
            .collect();
        Ok(inputs)
    }

    fn ask(&self, request: &PlanRequest<'_>, op: OpId, device: usize) -> Vec<Answer> {
        let node = self.graph.op(op);
        let info = &self.topology.devices[device];
        let dtypes: Vec<DType> = node.weights.iter().map(|weight| self.weights[weight.0].dtype).collect();
        let too_large = node.weights.iter().map(|weight| self.weight_bytes[weight.0][device]).max().unwrap_or(0);
        let query = |kv| {
            if too_large > info.max_allocation_bytes {
                let (weight, most) = (size::bytes(too_large), size::bytes(info.max_allocation_bytes));
                return Err(format!("a weight of {weight} is larger than its largest allocation, {most}"));
            }
            let query = OpQuery { kind: &node.op.kind, weights: &dtypes, kv };
            request.capabilities.supports(info.id, &query).map_err(|unsupported| unsupported.cause)
        };
        match kv_heads(&node.op.kind) {
            None => vec![query(None)],
            Some(heads) => {
                let fits = |dtype: DType| dtype.row_bytes(heads.head_dim).is_some();
                let by_dtype = self.kv_dtypes.iter().map(|&dtype| {
                    if fits(dtype) {
                        query(Some(dtype))
                    } else {
                        Err(format!("head_dim {} holds no whole {dtype} quant block", heads.head_dim))
                    }
                });
                by_dtype.collect()
            }
        }
    }

    /// Whether a device runs an op, with the KV format given by index (ignored by ops without KV).
    pub(super) fn answer(&self, op: OpId, device: usize, kv: usize) -> &Answer {
        let answers = &self.answers[op.0][device];
        &answers[kv.min(answers.len() - 1)]
    }

    /// The first KV format (by index) with which a device runs an op, or the cause for the best format.
    pub(super) fn best_answer(&self, op: OpId, device: usize) -> Result<usize, &str> {
        let answers = &self.answers[op.0][device];
        match answers.iter().position(Result::is_ok) {
            Some(index) => Ok(index),
            None => Err(answers.first().and_then(|answer| answer.as_ref().err()).map_or("", String::as_str)),
        }
    }

    /// Name of an op for messages.
    pub(super) fn op_label(&self, op: OpId) -> String {
        let node = self.graph.op(op);
        match node.op.layer {
            Some(layer) => format!("{} of layer {layer}", node.op.kind.name()),
            None => node.op.kind.name().to_owned(),
        }
    }
}

/// The geometry of the KV cache that an op uses.
pub(super) fn kv_heads(kind: &OpKind) -> Option<biga_hal::Heads> {
    match kind {
        OpKind::KvAppend { heads } | OpKind::Attention { heads, .. } => Some(*heads),
        _ => None,
    }
}

fn kv_preference(weights: &[PlannedWeight]) -> Vec<DType> {
    let mut matrices = weights.iter().filter(|weight| weight.shape.role == WeightRole::Matrix).peekable();
    let plain = matrices.peek().is_some() && matrices.all(|weight| weight.dtype == DType::F32);
    if plain {
        vec![DType::F32, DType::F16, DType::BF16, DType::Q8_0]
    } else {
        vec![DType::F16, DType::BF16, DType::Q8_0, DType::F32]
    }
}

fn at_most(what: &'static str, asked: usize, most: usize) -> Result<(), PlanError> {
    if asked > most { Err(PlanError::Limit { what, asked, most }) } else { Ok(()) }
}

fn check_sizes(request: &PlanRequest<'_>) -> Result<(), PlanError> {
    let Limits { context, max_sequences, max_tokens, max_outputs, kv_block_len } = request.limits;
    let limits = [
        ("context", context),
        ("sequences", max_sequences),
        ("tokens in a step", max_tokens),
        ("outputs of a step", max_outputs),
        ("positions in a KV block", kv_block_len),
    ];
    for (what, asked) in limits {
        if asked == 0 {
            return Err(PlanError::Zero { what });
        }
        at_most(what, asked, 1 << 30)?;
    }
    if request.topology.devices.is_empty() {
        return Err(PlanError::NoDevice);
    }
    at_most("devices", request.topology.devices.len(), MAX_DEVICES)?;
    at_most("ops", request.graph.len(), MAX_OPS)?;
    if let Some(dtype) = request.kv_dtype.filter(|dtype| !DType::KV.contains(dtype)) {
        return Err(PlanError::Graph { cause: format!("{dtype} is no format for KV entries") });
    }
    check_graph(request.graph, request.weights.len())
}

fn check_graph(graph: &Graph, n_weights: usize) -> Result<(), PlanError> {
    let broken = |cause: String| Err(PlanError::Graph { cause });
    for (id, node) in graph.ops() {
        for dimension in dimensions(&node.op.kind) {
            at_most("op dimension", dimension, MAX_DIMENSION)?;
        }
        let name = node.op.kind.name();
        if node.inputs.iter().any(|&input| input >= id || graph.op(input).op.kind.output_width().is_none()) {
            return broken(format!("op {} ({name}) reads no earlier value", id.0));
        }
        if node.inputs.len() != node.op.kind.input_widths().len() {
            return broken(format!("op {} ({name}) has {} inputs", id.0, node.inputs.len()));
        }
        if node.weights.iter().any(|weight| weight.0 >= n_weights) || node.weights.len() != node.op.kind.weights().len()
        {
            return broken(format!("op {} ({name}) has no such weights", id.0));
        }
        if node.op.kind.uses_kv() && node.op.layer.is_none() {
            return broken(format!("op {} ({name}) uses KV outside every layer", id.0));
        }
    }
    for edge in graph.dag().raw_edges() {
        if edge.weight == Dependency::Kv && edge.source() >= edge.target() {
            return broken(format!("op {} reads KV that a later op appends", edge.target().index()));
        }
    }
    Ok(())
}

/// The sizes of an op from which its widths are computed.
fn dimensions(kind: &OpKind) -> Vec<usize> {
    let of_heads = |heads: &biga_hal::Heads| vec![heads.n_heads, heads.n_kv_heads, heads.head_dim];
    match kind {
        OpKind::QkvProjection { width, heads, .. } => [vec![*width], of_heads(heads)].concat(),
        OpKind::QkNorm { heads, .. }
        | OpKind::Rope { heads, .. }
        | OpKind::KvAppend { heads }
        | OpKind::Attention { heads, .. } => of_heads(heads),
        OpKind::Embed { vocab, width, .. } | OpKind::Head { width, vocab, .. } => vec![*vocab, *width],
        OpKind::RmsNorm { width, .. } | OpKind::Residual { width } | OpKind::SelectOutputs { width } => vec![*width],
        OpKind::OutputProjection { input, output, .. } => vec![*input, *output],
        OpKind::GateUp { width, ff } | OpKind::Down { ff, width } => vec![*width, *ff],
        OpKind::Activate { ff, .. } => vec![*ff],
        OpKind::Sample { vocab } => vec![*vocab],
        _ => Vec::new(),
    }
}

/// The inputs kept inside a plan. Two plans are compared by what they say, not by how they came about.
#[derive(Clone)]
pub(super) struct Retained(pub(super) Arc<Inputs>);

impl PartialEq for Retained {
    fn eq(&self, _: &Retained) -> bool {
        true
    }
}

impl fmt::Debug for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Retained")
    }
}
