//! Allocate: a plan becomes an [`Engine`]. Everything that a step needs is made here, once: resident
//! weights, arenas for values, KV slabs, step buffers, compiled segments. Nothing is made afterwards.

mod arena;
mod bind;
mod kv;
mod weights;

use std::{sync::Arc, time::Instant};

use biga_hal::{
    Access, Accessors, BoundWeight, Bucket, Buffer, BufferDesc, BufferSlice, Device, Executable, StepLayout, StepLimits,
};
use biga_kv::Cache;

use crate::{
    Error, Result,
    execute::StepState,
    load::{Model, Progress},
    plan::{Phase, Plan},
    probe::OpenDevices,
};

/// A model, placed and ready: steps run on it without setting anything up.
#[derive(Debug)]
pub struct Engine {
    pub(crate) plan: Plan,
    pub(crate) model: Arc<Model>,
    /// As in [`Plan::devices`].
    pub(crate) devices: Vec<Arc<dyn Device>>,
    /// As in [`Plan::phases`].
    pub(crate) phases: Vec<CompiledPhase>,
    pub(crate) kv: Cache,
    pub(crate) kv_memory: kv::KvMemory,
    pub(crate) step: StepState,
    /// Kept so that device addresses inside recorded segments stay valid.
    _weights: Vec<BoundWeight>,
    _arenas: arena::Arenas,
}

/// One phase and bucket, ready to run.
#[derive(Debug)]
pub(crate) struct CompiledPhase {
    pub(crate) phase: Phase,
    pub(crate) bucket: Bucket,
    pub(crate) segments: Vec<CompiledSegment>,
    /// The whole step with the choice of tokens, where one device runs all of it.
    pub(crate) sampled: Option<SampledStep>,
    /// Logits, `[bucket.outputs, vocab]`, where the host reads them.
    pub(crate) logits: BufferSlice,
    /// Index of the device that writes the logits.
    pub(crate) logits_device: usize,
}

/// A segment, and the copies that must be made before it.
#[derive(Debug)]
pub(crate) struct CompiledSegment {
    pub(crate) device: usize,
    pub(crate) executable: Arc<dyn Executable>,
    pub(crate) copies: Vec<HostCopy>,
}

/// A step that chooses the tokens that follow and becomes the step that decodes them.
#[derive(Debug)]
pub(crate) struct SampledStep {
    pub(crate) device: usize,
    pub(crate) executable: Arc<dyn Executable>,
}

/// A value that the host copies between two devices that share no memory.
#[derive(Debug)]
pub(crate) struct HostCopy {
    /// The device that computes the value, which need not be the one in whose memory it lies.
    pub(crate) maker: usize,
    /// The device in whose memory the value lies.
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) source: BufferSlice,
    pub(crate) destination: BufferSlice,
}

impl Engine {
    /// Makes everything that the plan asks for on the open devices.
    ///
    /// # Errors
    /// A device's own, most likely [`biga_hal::Error::OutOfMemory`]; a device of the plan that is not open;
    /// [`Error::Invalid`] for a plan that was made for another model.
    pub fn allocate(
        open: &OpenDevices,
        model: Arc<Model>,
        plan: Plan,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Engine> {
        let n_ops = model.graph.len();
        let same = plan.weights.len() == model.weights.iter().len()
            && plan.phases.iter().all(|phase| phase.placements.len() == n_ops && phase.values.len() == n_ops);
        if !same {
            let (plan, model) = (&plan.model, &model.config.name);
            return Err(Error::Invalid(format!("a plan for {plan} does not fit model {model}")));
        }
        let devices = plan
            .devices
            .iter()
            .map(|planned| open.get(planned.id()).cloned().ok_or(biga_hal::Error::NoSuchDevice(planned.id())))
            .collect::<biga_hal::Result<Vec<_>>>()?;
        let (weights, made) =
            weights::load(&devices, &model, &plan, progress, |weights| Made::of(&devices, &model, &plan, weights))?;
        let Made { arenas, kv, kv_memory, phases, step } = made;
        Ok(Engine { plan, model, devices, phases, kv, kv_memory, step, _weights: weights, _arenas: arenas })
    }

    /// The plan that it follows.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its compiled segments: phase by phase as in the plan, each phase in the order of submission, and behind
    /// them the phase's step that chooses tokens, if one device runs all of it.
    pub fn executables(&self) -> impl Iterator<Item = &dyn Executable> {
        self.phases.iter().flat_map(|phase| {
            let sampled = phase.sampled.iter().map(|step| &*step.executable);
            phase.segments.iter().map(|segment| &*segment.executable).chain(sampled)
        })
    }

    /// The model that it runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

/// Everything that no weight has to be loaded for.
struct Made {
    arenas: arena::Arenas,
    kv: Cache,
    kv_memory: kv::KvMemory,
    phases: Vec<CompiledPhase>,
    step: StepState,
}

impl Made {
    /// Takes memory and compiles segments; of the weights it uses where they will lie.
    fn of(devices: &[Arc<dyn Device>], model: &Model, plan: &Plan, weights: &[BoundWeight]) -> Result<Made> {
        let start = Instant::now();
        let arenas = arena::allocate(devices, plan)?;
        let (kv, kv_memory) = kv::allocate(devices, plan)?;
        let layout = step_layout(plan)?;
        // A device that runs nothing is left alone, as the plan's memory says.
        let runs = |device: usize| plan.phases.iter().flat_map(|phase| &phase.segments).any(|s| s.device == device);
        let step_buffers = devices
            .iter()
            .enumerate()
            .map(|(index, device)| runs(index).then(|| step_buffer(&**device, &layout)).transpose())
            .collect::<Result<Vec<_>>>()?;
        let rings = devices
            .iter()
            .enumerate()
            .map(|(index, device)| runs(index).then(|| ring_buffer(&**device, &layout)).transpose())
            .collect::<Result<Vec<_>>>()?;
        let allocation_s = start.elapsed().as_secs_f64();
        let context = bind::Context {
            plan,
            graph: &model.graph,
            devices,
            weights,
            arenas: &arenas,
            kv: &kv_memory,
            step_buffers: &step_buffers,
            rings: &rings,
            layout,
        };
        let phases = (0..plan.phases.len()).map(|phase| context.compile(phase)).collect::<Result<Vec<_>>>()?;
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!(phases = phases.len(), seconds, allocation_s, "segments compiled");
        let (n_phases, vocab, copies) = (phases.len(), model.config.vocab, copy_bytes(&phases));
        let step = StepState::new(layout, (step_buffers, rings), devices.len(), n_phases, vocab, copies)?;
        Ok(Made { arenas, kv, kv_memory, phases, step })
    }
}

fn copy_bytes(phases: &[CompiledPhase]) -> usize {
    let copies = phases.iter().flat_map(|phase| &phase.segments).flat_map(|segment| &segment.copies);
    copies.map(|copy| copy.source.size_bytes() as usize).max().unwrap_or(0)
}

fn step_layout(plan: &Plan) -> Result<StepLayout> {
    let limits = plan.limits;
    Ok(StepLayout::new(StepLimits {
        max_tokens: limits.max_tokens,
        max_outputs: limits.max_outputs,
        max_slots: limits.max_sequences,
        max_blocks: limits.context.div_ceil(limits.kv_block_len),
        n_tables: plan.kv.len(),
    })?)
}

fn step_buffer(device: &dyn Device, layout: &StepLayout) -> Result<BufferSlice> {
    let accessors = Accessors { host: Some(Access::Write), devices: Vec::new() };
    let size_bytes = layout.size_bytes as u64;
    Ok(device.allocate(&BufferDesc { name: "step".to_owned(), size_bytes, accessors })?.whole())
}

/// Read in place after every step, so not merely `Read`, which a device may answer by a copy.
fn ring_buffer(device: &dyn Device, layout: &StepLayout) -> Result<BufferSlice> {
    let accessors = Accessors { host: Some(Access::ReadWrite), devices: Vec::new() };
    let size_bytes = layout.ring_bytes() as u64;
    Ok(device.allocate(&BufferDesc { name: "results".to_owned(), size_bytes, accessors })?.whole())
}

/// The buffer as `device` reaches it: its own, or imported.
fn reach(device: &dyn Device, buffer: &Buffer) -> Result<Buffer> {
    if buffer.allocation().owner() == Some(device.info().id) {
        return Ok(buffer.clone());
    }
    device.import(buffer).map_err(Error::from)
}
