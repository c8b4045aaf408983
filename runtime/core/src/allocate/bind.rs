//! Binding: the ops of a segment get their memory, and the device compiles them.

use std::sync::Arc;

use biga_hal::{BoundOp, BoundWeight, Bucket, BufferSlice, Device, OpKind, Segment, StepLayout};

use super::{CompiledPhase, CompiledSegment, HostCopy, SampledStep, arena::Arenas, kv::KvMemory};
use crate::{
    Error, Result,
    load::graph::{Graph, OpId},
    plan::{CrossingMethod, PhasePlan, Plan, SegmentPlan, ValueHome},
};

/// Everything that binding looks at.
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    pub(super) graph: &'a Graph,
    pub(super) devices: &'a [Arc<dyn Device>],
    pub(super) weights: &'a [BoundWeight],
    pub(super) arenas: &'a Arenas,
    pub(super) kv: &'a KvMemory,
    /// By device; `None` for one that runs nothing.
    pub(super) step_buffers: &'a [Option<BufferSlice>],
    /// By device; `None` for one that runs nothing.
    pub(super) rings: &'a [Option<BufferSlice>],
    pub(super) layout: StepLayout,
}

impl Context<'_> {
    /// Compiles every segment of one phase.
    pub(super) fn compile(&self, phase_index: usize) -> Result<CompiledPhase> {
        let phase = &self.plan.phases[phase_index];
        let mut segments = Vec::with_capacity(phase.segments.len());
        for index in 0..phase.segments.len() {
            if let Some(segment) = self.segment(phase_index, index)? {
                segments.push(segment);
            }
        }
        let logits = self.logits_op()?;
        let home = home(phase, logits)?;
        let logits_device = self.arenas.owner(phase_index, home.primary);
        Ok(CompiledPhase {
            phase: phase.phase,
            bucket: phase.bucket,
            segments,
            sampled: self.sampled(phase_index)?,
            logits: self.arenas.slice(phase_index, home.primary, logits_device)?,
            logits_device,
        })
    }

    fn logits_op(&self) -> Result<OpId> {
        let head = self.graph.ops().find(|(_, node)| matches!(node.op.kind, OpKind::Head { .. }));
        head.map(|(id, _)| id).ok_or_else(|| Error::Invalid("the graph has no head op".to_owned()))
    }

    /// `None` for a segment that only samples, which the host does.
    fn segment(&self, phase_index: usize, index: usize) -> Result<Option<CompiledSegment>> {
        let phase = &self.plan.phases[phase_index];
        let planned = &phase.segments[index];
        let device = planned.device;
        let runs = |id: &&OpId| !matches!(self.graph.op(**id).op.kind, OpKind::Sample { .. });
        let ops = planned.ops.iter().filter(runs).map(|&id| self.op(phase_index, id, planned, false));
        let ops = ops.collect::<Result<Vec<_>>>()?;
        if ops.is_empty() {
            return Ok(None);
        }
        let name = format!("{:?} {} #{index}", phase.phase, phase.bucket.tokens).to_lowercase();
        let segment = Segment { name, bucket: phase.bucket, ops, ..self.empty(device)? };
        let executable = self.devices[device].compile(&segment)?;
        Ok(Some(CompiledSegment { device, executable, copies: self.copies(phase_index, index)? }))
    }

    /// The whole phase with the choice of tokens; `None` if it takes more than one device.
    fn sampled(&self, phase_index: usize) -> Result<Option<SampledStep>> {
        let phase = &self.plan.phases[phase_index];
        let [planned] = phase.segments.as_slice() else { return Ok(None) };
        let device = planned.device;
        let ops = planned.ops.iter().map(|&id| self.op(phase_index, id, planned, true));
        let ops = ops.collect::<Result<Vec<_>>>()?;
        let name = format!("{:?} {} sampled", phase.phase, phase.bucket.tokens).to_lowercase();
        let bucket = self.plan.limits.sampled(phase.bucket);
        let executable = self.devices[device].compile(&Segment { name, bucket, ops, ..self.empty(device)? })?;
        Ok(Some(SampledStep { device, executable }))
    }

    /// A segment on the device's step buffer, to be filled.
    fn empty(&self, device: usize) -> Result<Segment> {
        let step = self.step_buffers.get(device).cloned().flatten();
        let step = step.ok_or_else(|| Error::Invalid(format!("plan: device {device} runs unasked")))?;
        let bucket = Bucket { tokens: 0, sequences: 0, outputs: 0 };
        Ok(Segment { name: String::new(), bucket, ops: Vec::new(), step, step_layout: self.layout })
    }

    /// An op of a step whose tokens its device chooses, or (not `sampled`) of one whose logits the host takes.
    fn op(&self, phase_index: usize, id: OpId, segment: &SegmentPlan, sampled: bool) -> Result<BoundOp> {
        let device = segment.device;
        let phase = &self.plan.phases[phase_index];
        let node = self.graph.op(id);
        let readers = self.graph.readers(id);
        // The host reads logits, whoever else does.
        let internal = !matches!(node.op.kind, OpKind::Head { .. })
            && readers.iter().all(|reader| segment.ops.binary_search(reader).is_ok());
        let inputs = node.inputs.iter().map(|&input| self.value(phase_index, input, device, sampled));
        let output = match (&node.op.kind, phase.values.get(id.0).and_then(Option::as_ref)) {
            (OpKind::Sample { .. }, _) => self.rings.get(device).cloned().flatten(),
            (_, Some(home)) => {
                let location = home.sampled.filter(|_| sampled).unwrap_or(home.primary);
                Some(self.arenas.slice(phase_index, location, device)?)
            }
            (_, None) => None,
        };
        let kv = match (node.op.kind.uses_kv(), node.op.layer) {
            (true, Some(layer)) => self.kv.bind(layer),
            _ => None,
        };
        Ok(BoundOp {
            op: node.op.clone(),
            rows: node.rows,
            inputs: inputs.collect::<Result<_>>()?,
            output,
            weights: node.weights.iter().map(|weight| self.weights[weight.0].clone()).collect(),
            kv,
            internal,
        })
    }

    /// A value where `device` reads it: its copy if it has one, else the primary.
    fn value(&self, phase_index: usize, id: OpId, device: usize, sampled: bool) -> Result<BufferSlice> {
        let home = home(&self.plan.phases[phase_index], id)?;
        if let Some(location) = home.sampled.filter(|_| sampled) {
            return self.arenas.slice(phase_index, location, device);
        }
        let copy = home.copies.iter().find(|(reader, _)| *reader == device);
        self.arenas.slice(phase_index, copy.map_or(home.primary, |(_, location)| *location), device)
    }

    fn copies(&self, phase_index: usize, segment: usize) -> Result<Vec<HostCopy>> {
        let phase = &self.plan.phases[phase_index];
        let due = phase
            .crossings
            .iter()
            .filter(|crossing| crossing.before_segment == segment && crossing.method == CrossingMethod::Copy);
        due.map(|crossing| {
            let from = self.arenas.owner(phase_index, home(phase, crossing.value)?.primary);
            Ok(HostCopy {
                maker: crossing.from,
                from,
                to: crossing.to,
                source: self.arenas.slice(phase_index, home(phase, crossing.value)?.primary, from)?,
                destination: self.value(phase_index, crossing.value, crossing.to, false)?,
            })
        })
        .collect()
    }
}

fn home(phase: &PhasePlan, value: OpId) -> Result<&ValueHome> {
    let home = phase.values.get(value.0).and_then(Option::as_ref);
    home.ok_or_else(|| Error::Invalid(format!("plan: value {} has no place", value.0)))
}
