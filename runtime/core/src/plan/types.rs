//! The plan itself: an immutable value.

use biga_hal::{Bucket, DType, DeviceId, DeviceInfo};

use super::{inputs::Retained, request::Policy};
use crate::load::graph::{OpId, WeightId};

/// Which of the two shapes of work a step has; they are limited by different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Many positions of a sequence: limited by arithmetic.
    Prefill,
    /// One or a few new positions per sequence: limited by bandwidth.
    Decode,
}

/// Sizes that everything is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    /// Longest sequence in tokens.
    pub context: usize,
    /// Sequences at once.
    pub max_sequences: usize,
    /// Most tokens in one step.
    pub max_tokens: usize,
    /// Most rows of one step that want logits.
    pub max_outputs: usize,
    /// Positions in a KV block.
    pub kv_block_len: usize,
}

impl Limits {
    /// Positions that can be taken back although a window has passed them: a whole step, or every step in flight.
    pub fn rewind(&self) -> usize {
        self.max_tokens.max(MAX_IN_FLIGHT)
    }

    /// The bucket with no more output rows than tokens can be chosen for: one a sequence.
    pub(crate) fn sampled(&self, bucket: Bucket) -> Bucket {
        Bucket { outputs: bucket.outputs.min(self.max_sequences), ..bucket }
    }
}

/// The most steps that run ahead of the tokens that the host has seen: while it takes those of up to three steps
/// together, the device is busy with another. What runs beyond the end of a text is lost time.
pub(crate) const MAX_IN_FLIGHT: usize = 4;

/// A device that takes part. Elsewhere in the plan a device is its index in [`Plan::devices`].
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedDevice {
    /// What the probe said.
    pub info: DeviceInfo,
    /// Bytes that the plan may use.
    pub budget_bytes: u64,
}

impl PlannedDevice {
    /// Identity.
    pub fn id(&self) -> DeviceId {
        self.info.id
    }
}

/// Why an op runs where it runs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// Least predicted time.
    Cost,
    /// A rule of the user's.
    User {
        /// As typed.
        rule: String,
    },
    /// The policy's choice.
    Policy,
    /// No other device that takes part can run it.
    OnlyCapable,
    /// Not where it was wanted.
    Fallback {
        /// The device wanted.
        wanted: String,
        /// Why it cannot run there.
        cause: String,
    },
}

/// Where one op runs in one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Index in [`Plan::devices`].
    pub device: usize,
    /// Why.
    pub reason: Reason,
}

/// Consecutive ops on one device, submitted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPlan {
    /// Index in [`Plan::devices`].
    pub device: usize,
    /// In execution order.
    pub ops: Vec<OpId>,
}

/// How a value gets across.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CrossingMethod {
    /// Both sides use one allocation: only a fence is waited for.
    Shared,
    /// The host copies between two allocations.
    Copy,
}

/// A value made on one device and read on another. A KV append has no value; where its reader runs on
/// another device, its crossing orders the two and moves nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossing {
    /// The value.
    pub value: OpId,
    /// Producing device.
    pub from: usize,
    /// Reading device.
    pub to: usize,
    /// Index in [`PhasePlan::segments`] of the first segment that reads it there.
    pub before_segment: usize,
    /// How.
    pub method: CrossingMethod,
    /// Predicted seconds.
    pub predicted_s: f64,
}

/// One allocation that holds values whose lifetimes do not overlap, for one phase and bucket. Arenas
/// with the same `owner` and `accessors` of different phases share memory, since phases never overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// The device that allocates it.
    pub owner: usize,
    /// Other devices that reach it, sorted; the CPU among them means host-visible memory.
    pub accessors: Vec<usize>,
    /// True if the engine itself reads or writes it: logits that the host takes, and values that the host
    /// copies to or from another device.
    pub host_reads: bool,
    /// Size.
    pub size_bytes: u64,
}

/// A place in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Index in [`PhasePlan::arenas`].
    pub arena: usize,
    /// First byte; a multiple of [`Location::ALIGNMENT`].
    pub offset_bytes: u64,
    /// Length.
    pub size_bytes: u64,
}

impl Location {
    /// Every value starts at a multiple of this.
    pub const ALIGNMENT: u64 = 256;
}

/// Where a value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueHome {
    /// Where its producer writes it and everyone who shares that memory reads it.
    pub primary: Location,
    /// Copies for devices that cannot reach the primary: device and place.
    pub copies: Vec<(usize, Location)>,
    /// Where it lies instead in steps whose tokens its device chooses itself, so that the host does not read it:
    /// logits in the device's own memory, a row for each sequence.
    pub sampled: Option<Location>,
}

/// One phase in one bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct PhasePlan {
    /// Phase: buckets of the same phase have the same placements.
    pub phase: Phase,
    /// The largest step.
    pub bucket: Bucket,
    /// By `OpId`.
    pub placements: Vec<Placement>,
    /// In execution order. An op is in exactly one.
    pub segments: Vec<SegmentPlan>,
    /// In execution order.
    pub crossings: Vec<Crossing>,
    /// By `OpId`; `None` for ops without a value.
    pub values: Vec<Option<ValueHome>>,
    /// Memory for values.
    pub arenas: Vec<Arena>,
    /// Predicted seconds of a full step in the middle of the context.
    pub predicted_s: f64,
    /// Seconds that the machine's own limit allows: the larger of bytes over the best bandwidth and
    /// arithmetic over the sum of the rates, without latencies.
    pub limit_s: f64,
}

/// Where a weight lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightHome {
    /// The weight.
    pub weight: WeightId,
    /// Index in [`Plan::devices`].
    pub device: usize,
    /// Bytes in that device's memory, the loader's own copy included; 0 where the mapped file is read in place.
    pub resident_bytes: u64,
    /// Bytes that the device reads in the mapped file; 0 where they are in its memory.
    pub in_place_bytes: u64,
}

/// Layers whose KV shares one block table: same home, format, window and geometry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvGroup {
    /// The device that allocates it.
    pub home: usize,
    /// Other devices that read or write it.
    pub accessors: Vec<usize>,
    /// Format of the entries.
    pub dtype: DType,
    /// Sliding window of its layers.
    pub window: Option<usize>,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// The layers, in order.
    pub layers: Vec<usize>,
}

impl KvGroup {
    /// Every block starts at a multiple of this.
    pub const BLOCK_ALIGNMENT: u64 = 256;
}

/// What a device's memory is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// Resident weights.
    pub weights_bytes: u64,
    /// Weights read in the mapped file. Not in the sum: the plan takes no memory for them.
    pub in_place_bytes: u64,
    /// KV blocks for all sequences at full length.
    pub kv_bytes: u64,
    /// Arenas.
    pub values_bytes: u64,
    /// Step inputs and other small things.
    pub other_bytes: u64,
}

impl MemoryUse {
    /// The sum of what the plan takes.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.kv_bytes + self.values_bytes + self.other_bytes
    }
}

/// Ops that do not run where they were wanted, for one cause.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fallback {
    /// Op name, such as `attention`.
    pub op: String,
    /// Phase.
    pub phase: Phase,
    /// Device wanted.
    pub wanted: String,
    /// Device that runs it.
    pub ran_on: String,
    /// Why.
    pub cause: String,
    /// Count of ops.
    pub count: usize,
}

/// Where everything runs and lies, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the model.
    pub model: String,
    /// The policy it was made under.
    pub policy: Policy,
    /// Sizes that everything is set up for.
    pub limits: Limits,
    /// Devices that take part.
    pub devices: Vec<PlannedDevice>,
    /// Prefill buckets and decode buckets, smallest first within a phase.
    pub phases: Vec<PhasePlan>,
    /// By `WeightId`.
    pub weights: Vec<WeightHome>,
    /// KV layer groups; the index is the block table's index in the step buffer.
    pub kv: Vec<KvGroup>,
    /// By device.
    pub memory: Vec<MemoryUse>,
    /// What does not run where it was wanted.
    pub fallbacks: Vec<Fallback>,
    /// False if the search had to be cut short, so that a better placement may exist.
    pub optimal: bool,
    /// Share by which the best placement could be faster at most: 0 if optimal, `None` where unknown.
    pub gap: Option<f64>,
    /// What it was made from, for [`Plan::place`].
    pub(super) inputs: Retained,
}
