//! Made-up machines and models.

use std::collections::BTreeSet;

use biga_hal::{
    Activation, DType, DeviceId, DeviceInfo, DeviceKind, Heads, OpQuery, Rates, RopeStyle, Unavailable, Unsupported,
    WeightRole,
};

use crate::{
    load::{
        config::{Config, Family, LayerConfig, RopeScaling, inv_freqs},
        graph::Graph,
    },
    plan::{Capabilities, Limits, Plan, PlanError, PlanRequest, PlannedWeight, Policy},
    probe::Topology,
};

pub(super) const CPU: DeviceId = DeviceId { backend: "cpu", index: 0 };
pub(super) const GPU: DeviceId = DeviceId { backend: "vulkan", index: 0 };
pub(super) const NPU: DeviceId = DeviceId { backend: "npu", index: 0 };

/// What a made-up machine cannot do.
#[derive(Clone, Debug, Default)]
pub(super) struct Fake {
    /// Device and op name.
    pub(super) lacks: BTreeSet<(DeviceId, &'static str)>,
    /// Device and KV format.
    pub(super) lacks_kv: BTreeSet<(DeviceId, DType)>,
}

impl Capabilities for Fake {
    fn supports(&self, device: DeviceId, query: &OpQuery<'_>) -> Result<(), Unsupported> {
        let op = query.kind.name();
        let no = |cause: String| Err(Unsupported { op, device, cause });
        if self.lacks.contains(&(device, op)) {
            return no(format!("no kernel for {op}"));
        }
        match query.kv {
            Some(kv) if self.lacks_kv.contains(&(device, kv)) => no(format!("no kernel for {kv} kv")),
            _ => Ok(()),
        }
    }

    fn weight_size_bytes(&self, device: DeviceId, weight: &PlannedWeight) -> u64 {
        if device == CPU { 0 } else { weight.file_bytes.next_multiple_of(64) }
    }
}

/// A model on a machine.
pub(super) struct Setup {
    pub(super) graph: Graph,
    pub(super) weights: Vec<PlannedWeight>,
    pub(super) topology: Topology,
    pub(super) fake: Fake,
    pub(super) limits: Limits,
}

pub(super) fn device(id: DeviceId, kind: DeviceKind, name: &str, gbps: f64, gflops: f64, submit_us: f64) -> DeviceInfo {
    DeviceInfo {
        id,
        name: name.to_owned(),
        kind,
        driver: "made up".to_owned(),
        memory_bytes: 64 << 30,
        max_allocation_bytes: 8 << 30,
        host_visible: true,
        rates: Rates {
            read_bytes_per_s: gbps * 1e9,
            flops_per_s: gflops * 1e9,
            launch_s: 2e-6,
            submit_s: submit_us * 1e-6,
            measured: false,
        },
        identity: name.to_owned(),
        facts: Vec::new(),
        findings: Vec::new(),
    }
}

pub(super) fn three_devices() -> Topology {
    Topology {
        devices: vec![
            device(GPU, DeviceKind::IntegratedGpu, "Radeon of the mind", 90.0, 8000.0, 30.0),
            device(NPU, DeviceKind::Npu, "NPU of the mind", 60.0, 12000.0, 60.0),
            device(CPU, DeviceKind::Cpu, "Ryzen of the mind", 50.0, 600.0, 2.0),
        ],
        links: Vec::new(),
        unavailable: Vec::new(),
    }
}

pub(super) fn without_npu() -> Topology {
    let mut topology = three_devices();
    topology.devices.remove(1);
    topology.unavailable = vec![("npu", Unavailable { cause: "no amdxdna driver".to_owned(), remedy: None })];
    topology
}

/// Only attention runs on the NPU, and only the CPU samples.
pub(super) fn usual_limits_of_devices() -> Fake {
    let all = ["embed", "norm", "qkv", "qk_norm", "rope", "out_proj", "residual", "gate_up", "activate", "down"];
    let mut fake = Fake::default();
    fake.lacks.extend(all.into_iter().chain(["select", "head", "sample"]).map(|op| (NPU, op)));
    fake.lacks.insert((GPU, "sample"));
    fake
}

pub(super) fn config(layers: usize, hidden: usize, gemma: bool, tied: bool) -> Config {
    let layer = |index: usize| LayerConfig {
        window: (gemma && index % 6 != 5).then_some(1024),
        inv_freqs: inv_freqs(64, 1e4, &RopeScaling::None),
    };
    Config {
        family: if gemma { Family::Gemma3 } else { Family::Llama },
        name: "made up".into(),
        vocab: 512 * layers.max(2),
        hidden,
        ff: hidden * 4,
        heads: Heads { n_heads: hidden / 64, n_kv_heads: (hidden / 128).max(1), head_dim: 64 },
        max_context: 8192,
        norm_eps: 1e-5,
        norm_weight_offset: 0.0,
        embed_scale: 1.0,
        activation: Activation::Silu,
        qkv_bias: false,
        output_bias: false,
        qk_norm: gemma,
        post_norms: gemma,
        attention_scale: 0.125,
        attention_softcap: None,
        logit_softcap: None,
        tied_embeddings: tied,
        rope_style: RopeStyle::Halves,
        layers: (0..layers).map(layer).collect(),
    }
}

pub(super) fn weights_of(graph: &Graph, matrices: DType) -> Vec<PlannedWeight> {
    let weight = |spec: &crate::load::graph::WeightSpec| {
        let dtype = if spec.shape.role == WeightRole::Vector { DType::F32 } else { matrices };
        let row = dtype.row_bytes(spec.shape.columns).unwrap_or(spec.shape.columns * 4) as u64;
        PlannedWeight { shape: spec.shape, dtype, file_bytes: row * spec.shape.rows as u64, is_mapped: true }
    };
    graph.weights().iter().map(weight).collect()
}

impl Setup {
    pub(super) fn of(config: &Config) -> Setup {
        let graph = Graph::of(config);
        let weights = weights_of(&graph, DType::Q8_0);
        let limits = Limits { context: 4096, max_sequences: 4, max_tokens: 512, max_outputs: 64, kv_block_len: 32 };
        Setup { graph, weights, topology: three_devices(), fake: usual_limits_of_devices(), limits }
    }

    /// Two layers.
    pub(super) fn tiny() -> Setup {
        Setup::of(&config(2, 256, false, true))
    }

    /// 62 layers of 16 ops, as Gemma 3 27B has.
    pub(super) fn large() -> Setup {
        Setup::of(&config(62, 5376, true, true))
    }

    pub(super) fn plan(&self, change: impl FnOnce(&mut PlanRequest<'_>)) -> Result<Plan, PlanError> {
        let mut request = PlanRequest {
            model: "made up",
            graph: &self.graph,
            weights: &self.weights,
            topology: &self.topology,
            capabilities: &self.fake,
            policy: Policy::Auto,
            rules: Vec::new(),
            strict: false,
            limits: self.limits,
            kv_dtype: None,
            memory_limit: None,
        };
        change(&mut request);
        Plan::build(&request)
    }
}
