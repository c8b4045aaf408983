//! What is asked of the planner.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use biga_hal::{DType, DeviceId, DeviceKind, OpClass, OpQuery, Unsupported, WeightShape};

use super::types::{Limits, Phase};
use crate::{ErrorKind, load::graph::Graph, probe::Topology, size};

/// How devices are chosen where no rule says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Least predicted time.
    #[default]
    Auto,
    /// Attention on the NPU, feed-forward network and head on the GPU.
    Hybrid,
    /// Everything on the GPU.
    Gpu,
    /// Everything on the CPU.
    Cpu,
}

impl FromStr for Policy {
    type Err = PlanError;

    fn from_str(word: &str) -> Result<Policy, PlanError> {
        match word {
            "auto" => Ok(Policy::Auto),
            "hybrid" => Ok(Policy::Hybrid),
            "gpu" => Ok(Policy::Gpu),
            "cpu" => Ok(Policy::Cpu),
            _ => Err(PlanError::UnknownPolicy { word: word.to_owned() }),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Policy::Auto => "auto",
            Policy::Hybrid => "hybrid",
            Policy::Gpu => "gpu",
            Policy::Cpu => "cpu",
        })
    }
}

/// One user rule: `CLASS|OP[:LAYERS][@PHASE]=DEVICE`, for example `attention=cpu`, `ffn:0-10=gpu`,
/// `attention@decode=npu`, `rope=cpu`. Later rules win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceRule {
    /// What the rule names.
    pub target: PlaceTarget,
    /// Layers; ops outside layers match only without a range.
    pub layers: Option<RangeInclusive<usize>>,
    /// Phase; both where absent.
    pub phase: Option<Phase>,
    /// `cpu`, `gpu`, `npu`, or a device name such as `vulkan:1`.
    pub device: String,
}

/// The left side of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceTarget {
    /// Every op.
    All,
    /// Ops of a class.
    Class(OpClass),
    /// Ops of one kind by its name.
    Op(String),
}

/// A weight as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedWeight {
    /// Shape.
    pub shape: WeightShape,
    /// Format.
    pub dtype: DType,
    /// Bytes as loaded.
    pub file_bytes: u64,
    /// Whether they lie in the mapped file. Else the loader holds a copy (quantised, widened, or moved to an
    /// aligned place), which takes memory where it is read in place.
    pub is_mapped: bool,
}

/// What devices can do, asked without touching them.
pub trait Capabilities {
    /// Whether a device can run an op.
    ///
    /// # Errors
    /// The cause, in words that the user reads.
    fn supports(&self, device: DeviceId, query: &OpQuery<'_>) -> Result<(), Unsupported>;

    /// Bytes that a weight takes in the device's memory; 0 where it is read in place.
    fn weight_size_bytes(&self, device: DeviceId, weight: &PlannedWeight) -> u64;
}

/// Everything that a plan depends on.
#[derive(Clone)]
pub struct PlanRequest<'a> {
    /// Name of the model, for display.
    pub model: &'a str,
    /// The ops.
    pub graph: &'a Graph,
    /// By `WeightId`.
    pub weights: &'a [PlannedWeight],
    /// The machine.
    pub topology: &'a Topology,
    /// What its devices can do.
    pub capabilities: &'a dyn Capabilities,
    /// How to choose.
    pub policy: Policy,
    /// Wishes that go before the policy.
    pub rules: Vec<PlaceRule>,
    /// Refuse any fallback.
    pub strict: bool,
    /// Text length, sequences, chunk size.
    pub limits: Limits,
    /// Format of KV entries; `None` lets the plan choose.
    pub kv_dtype: Option<DType>,
    /// Bytes that may be taken of each device, where less than it has.
    pub memory_limit: Option<u64>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not a policy.
    #[error("unknown policy {word:?}; one of auto, hybrid, gpu, cpu")]
    UnknownPolicy {
        /// As typed.
        word: String,
    },
    /// A rule that cannot be read.
    #[error("placement rule {rule:?}: {cause}")]
    BadRule {
        /// As typed.
        rule: String,
        /// What is wrong.
        cause: String,
    },
    /// A rule that names no op of this model.
    #[error(
        "placement rule {rule:?} matches no op of this model; classes are all, embed, attention, ffn, head, sample; \
         layers count from 0; `biga plan MODEL` lists both, and the ops"
    )]
    RuleMatchesNothing {
        /// As typed.
        rule: String,
    },
    /// A rule for layers that this model does not have.
    #[error("placement rule {rule:?} names layer {layer}, this model has {n_layers} layers, counted from 0")]
    NoSuchLayer {
        /// As typed.
        rule: String,
        /// The last layer that it names.
        layer: usize,
        /// Layers of the model.
        n_layers: usize,
    },
    /// A limit of the request that must be at least one.
    #[error("{what}: 0 asked, at least 1")]
    Zero {
        /// What.
        what: &'static str,
    },
    /// A graph or request that contradicts itself.
    #[error("no plan for this graph: {cause}")]
    Graph {
        /// What is wrong.
        cause: String,
    },
    /// A placement that breaks one of a plan's own rules.
    #[error("broken plan: {cause}")]
    Broken {
        /// What is wrong.
        cause: String,
    },
    /// No device takes part.
    #[error("no device takes part")]
    NoDevice,
    /// `--strict`, and something would not run where it was asked to.
    #[error(
        "strict placement refused: {op} wanted {wanted}: {cause}{also}; drop --strict to run it elsewhere, \
         `biga probe` shows what each device lacks"
    )]
    Strict {
        /// First op that would fall back.
        op: String,
        /// Device wanted.
        wanted: String,
        /// Why it cannot.
        cause: String,
        /// The same for other devices that were wanted: `; OP wanted DEVICE: CAUSE`, empty if there is none.
        also: String,
    },
    /// No device can run an op.
    #[error("no device can run {op}: {causes}")]
    Unplaceable {
        /// The op.
        op: String,
        /// Each device's answer.
        causes: String,
    },
    /// It does not fit anywhere.
    #[error("the model does not fit: {} on {device}; {remedy}", size::shortage(*needed_bytes, *available_bytes))]
    DoesNotFit {
        /// The device that comes nearest.
        device: String,
        /// Needed there.
        needed_bytes: u64,
        /// Available there.
        available_bytes: u64,
        /// What to change.
        remedy: String,
    },
    /// A limit of the request out of the model's or the machine's range.
    #[error("{what}: {asked} asked, at most {most}")]
    Limit {
        /// What.
        what: &'static str,
        /// Asked.
        asked: usize,
        /// The bound.
        most: usize,
    },
}

impl PlanError {
    /// How a caller should treat it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PlanError::UnknownPolicy { .. }
            | PlanError::BadRule { .. }
            | PlanError::RuleMatchesNothing { .. }
            | PlanError::NoSuchLayer { .. }
            | PlanError::Zero { .. }
            | PlanError::Limit { .. } => ErrorKind::Usage,
            PlanError::Strict { .. } | PlanError::NoDevice => ErrorKind::DeviceUnavailable,
            PlanError::Unplaceable { .. }
            | PlanError::DoesNotFit { .. }
            | PlanError::Graph { .. }
            | PlanError::Broken { .. } => ErrorKind::Failed,
        }
    }
}

/// The word by which rules and policies name a kind of device.
pub const fn kind_word(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Cpu => "cpu",
        DeviceKind::IntegratedGpu | DeviceKind::DiscreteGpu | DeviceKind::SoftwareGpu => "gpu",
        DeviceKind::Npu => "npu",
    }
}
