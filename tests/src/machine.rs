//! Engines by name: which devices, which policy, which rules.

use std::{env, path::Path, sync::Arc};

use anyhow::{Context, Result};
use biga::{
    Engine,
    hal::DType,
    load::{LoadOptions, Model},
    plan::{Limits, PlaceRule, Plan, PlanRequest, PlannedWeight, Policy},
    probe::{Link, Machine, OpenDevices, Topology},
};
use biga_cpu::{CpuBackend, CpuOptions, Kernels};
use biga_vulkan::VulkanBackend;

/// Everything that decides what an engine looks like.
#[derive(Clone, Debug)]
pub struct Setup {
    /// CPU kernels.
    pub kernels: Kernels,
    /// Vulkan kernels.
    pub vulkan_kernels: biga_vulkan::Kernels,
    /// CPU threads; `None` for all cores.
    pub threads: Option<usize>,
    /// Devices beside the CPU, as on the command line.
    pub devices: Vec<String>,
    /// Policy.
    pub policy: Policy,
    /// Rules, as on the command line.
    pub rules: Vec<String>,
    /// KV format.
    pub kv: Option<DType>,
    /// Text length.
    pub context: usize,
    /// Tokens in one step.
    pub max_tokens: usize,
    /// Rows with logits in one step.
    pub max_outputs: usize,
    /// Sequences at once.
    pub max_sequences: usize,
    /// Plan as if devices shared no memory, so that the host copies every value that crosses.
    pub copies: bool,
}

impl Setup {
    /// Everything on the CPU.
    pub fn cpu(kernels: Kernels) -> Setup {
        Setup {
            kernels,
            vulkan_kernels: biga_vulkan::Kernels::Auto,
            threads: None,
            devices: vec!["cpu".to_owned()],
            policy: Policy::Cpu,
            rules: Vec::new(),
            kv: None,
            context: 256,
            max_tokens: 64,
            max_outputs: 64,
            max_sequences: 4,
            copies: false,
        }
    }

    /// Everything on the Vulkan device named by `BIGA_TEST_VULKAN`; `None`, with the reason printed,
    /// if it is not set.
    pub fn vulkan() -> Option<Setup> {
        match env::var("BIGA_TEST_VULKAN") {
            Ok(name) if !name.is_empty() => {
                Some(Setup { devices: vec![name], policy: Policy::Gpu, ..Setup::cpu(Kernels::Auto) })
            }
            _ => {
                println!("skipped: BIGA_TEST_VULKAN names no Vulkan device");
                None
            }
        }
    }

    /// The same with placement rules.
    #[must_use]
    pub fn place(mut self, rules: &[&str]) -> Setup {
        self.rules.extend(rules.iter().map(|&rule| rule.to_owned()));
        self
    }

    /// Opens the devices.
    ///
    /// # Errors
    /// If a named device does not exist.
    pub fn open(&self) -> Result<OpenDevices> {
        let mut machine = Machine::new();
        machine.register(Arc::new(CpuBackend::new(CpuOptions { threads: self.threads, kernels: self.kernels })));
        if self.devices.iter().any(|name| name != "cpu") {
            let options = self.vulkan_kernels.into();
            machine.register(Arc::new(VulkanBackend::with_options(options)));
        }
        let selection = machine.probe().select(&self.devices);
        anyhow::ensure!(selection.missing.is_empty(), "missing devices: {:?}", selection.missing);
        Ok(machine.open(&selection.topology)?)
    }

    /// Loads the model at `path` and makes an engine for it.
    ///
    /// # Errors
    /// The load's, the plan's or the allocation's own.
    pub fn engine(&self, path: &Path) -> Result<Engine> {
        let model = Model::load(path, &LoadOptions::default(), &mut |_| {})
            .with_context(|| format!("cannot load {}", path.display()))?;
        self.engine_of(Arc::new(model))
    }

    /// Makes an engine for a loaded model.
    ///
    /// # Errors
    /// The plan's or the allocation's own.
    pub fn engine_of(&self, model: Arc<Model>) -> Result<Engine> {
        let open = self.open()?;
        let plan = self.plan(&model, &open)?;
        Ok(Engine::allocate(&open, model, plan, &mut |_| {})?)
    }

    /// Plans for a loaded model, strictly: a test never falls back unseen.
    ///
    /// # Errors
    /// The plan's own.
    pub fn plan(&self, model: &Model, open: &OpenDevices) -> Result<Plan> {
        let weights: Vec<PlannedWeight> = model.planned_weights();
        let rules = self.rules.iter().map(|rule| rule.parse()).collect::<Result<Vec<PlaceRule>, _>>()?;
        let topology = if self.copies { unshared(open.topology()) } else { open.topology().clone() };
        let request = PlanRequest {
            model: &model.config.name,
            graph: &model.graph,
            weights: &weights,
            topology: &topology,
            capabilities: open,
            policy: self.policy,
            rules,
            strict: true,
            limits: Limits {
                context: self.context,
                max_sequences: self.max_sequences,
                max_tokens: self.max_tokens,
                max_outputs: self.max_outputs,
                kv_block_len: 16,
            },
            kv_dtype: self.kv,
            memory_limit: None,
        };
        Ok(Plan::build(&request)?)
    }
}

/// The same machine as a discrete GPU makes it: no device reaches another's memory.
fn unshared(topology: &Topology) -> Topology {
    let mut topology = topology.clone();
    let ids: Vec<_> = topology.devices.iter().map(|info| info.id).collect();
    let pairs = ids.iter().flat_map(|&from| ids.iter().map(move |&to| (from, to)));
    topology.links = pairs
        .filter(|(from, to)| from != to)
        .map(|(from, to)| Link { from, to, latency_s: 1e-5, bytes_per_s: 1e10, shared: false, measured: false })
        .collect();
    topology
}
