//! Why an op runs where it runs, and why not where it was wanted.

use super::{
    cost::reaches,
    decide::{Decision, instance, is_sampling},
    placement::{Problem, Solver},
    request::PlanError,
    rules::{Want, why_missing},
    types::{Fallback, Phase, PhasePlan, Reason},
};
use crate::{load::graph::OpId, size};

/// What happened when every possible wish was taken as a must.
#[derive(Clone, Debug)]
pub(super) struct Overflow {
    /// Device of each variable with unlimited memory; empty if even that was forbidden.
    devices: Vec<usize>,
    /// Bytes needed and available, by device that is short.
    short: Vec<Option<(u64, u64)>>,
}

impl Overflow {
    pub(super) fn of(
        problem: &Problem,
        solver: &Solver<'_>,
        budgets: &[u64],
        too_small: &[Option<(u64, u64)>],
    ) -> Overflow {
        let Some(solution) = solver.unlimited() else {
            return Overflow { devices: Vec::new(), short: too_small.to_vec() };
        };
        let used = problem.memory(&solution.choices);
        let over = |(&used, &budget): (&u64, &u64)| (used > budget).then_some((used, budget));
        let short = used.iter().zip(budgets).map(over).zip(too_small).map(|(over, small)| over.or(*small));
        Overflow { short: short.collect(), devices: problem.devices(&solution.choices) }
    }
}

impl Overflow {
    fn short(&self, device: usize) -> Option<(u64, u64)> {
        self.short.get(device).copied().flatten()
    }
}

/// The devices that were decided, and what the reasons depend on beside them.
pub(super) struct Verdict<'a> {
    pub(super) decision: &'a Decision<'a>,
    /// By variable.
    pub(super) devices: &'a [usize],
    pub(super) overflow: Option<&'a Overflow>,
}

impl Verdict<'_> {
    /// The reason for one op in one phase.
    pub(super) fn reason(&self, op: OpId, phase: Phase) -> Reason {
        let decision = self.decision;
        let variable = decision.variable_of[instance(op, phase)];
        let device = self.devices[variable];
        let here = |want: &Want| want.devices & (1 << device) != 0;
        let by_rule = |want: &Want| {
            let rule = want.rule.and_then(|index| decision.inputs.rules.get(index));
            rule.map(|rule| Reason::User { rule: rule.to_string() })
        };
        let free = || match decision.able[variable].count_ones() {
            1 => Reason::OnlyCapable,
            _ => Reason::Cost,
        };
        let own = decision.wants[instance(op, phase)].as_ref();
        let group = decision.variable_wants[variable].as_ref();
        match (own, group) {
            (Some(want), _) if here(want) => by_rule(want).unwrap_or(Reason::Policy),
            (own, Some(group)) if own.is_none_or(|want| want.rule.is_none()) && group.rule.is_some() && here(group) => {
                by_rule(group).unwrap_or(Reason::Policy)
            }
            (Some(want), _) if want.rule.is_none() && is_sampling(decision.inputs, op) => free(),
            (Some(want), _) => Reason::Fallback { wanted: want.word.clone(), cause: self.cause(op, phase, want) },
            (None, _) => free(),
        }
    }

    fn cause(&self, op: OpId, phase: Phase, want: &Want) -> String {
        if let Some(cause) = impossible(self.decision, op, phase, want) {
            return cause;
        }
        let (decision, inputs) = (self.decision, self.decision.inputs);
        let variable = decision.variable_of[instance(op, phase)];
        let device = self.devices[variable];
        let group = decision.variable_wants[variable].as_ref().filter(|group| *group != want);
        if let Some(rule) = group.filter(|group| group.devices & (1 << device) != 0).and_then(|group| group.rule) {
            return format!("its weight has one home, which rule {} decides", inputs.rules[rule]);
        }
        let wanted = wanted_devices(want);
        let short = self.overflow.and_then(|overflow| wanted.clone().find_map(|device| overflow.short(device)));
        if let Some((needed, available)) = short {
            return format!("does not fit: {}", size::shortage(needed, available));
        }
        let layer = decision.kv.iter().find(|layer| layer.ops.contains(&op));
        let home = layer.map(|layer| self.devices[layer.variable]);
        if let Some(home) = home.filter(|&home| !wanted.clone().any(|device| reaches(inputs, device, home))) {
            return format!("the KV of its layer is on {}, which it cannot reach", inputs.topology.devices[home].id);
        }
        let elsewhere = self.overflow.and_then(|overflow| {
            let device = overflow.short.iter().position(Option::is_some)?;
            Some((inputs.topology.devices[device].id, overflow.short[device]?))
        });
        match elsewhere {
            Some((id, (needed, available))) => {
                format!("another device does not fit: {} on {id}", size::shortage(needed, available))
            }
            None => "its layer's other ops cannot follow it there".to_owned(),
        }
    }
}

fn wanted_devices(want: &Want) -> impl Iterator<Item = usize> + Clone {
    let devices = want.devices;
    (0..16usize).filter(move |device| devices & (1 << device) != 0)
}

/// Why a wish cannot be met whatever else is decided: no such device, or it cannot run the op or another
/// op of the same weights.
pub(super) fn impossible(decision: &Decision<'_>, op: OpId, phase: Phase, want: &Want) -> Option<String> {
    let inputs = decision.inputs;
    let variable = decision.variable_of[instance(op, phase)];
    if want.devices & decision.able[variable] != 0 {
        return None;
    }
    let Some(device) = wanted_devices(want).next() else { return Some(why_missing(&inputs.topology, &want.word)) };
    if let Err(cause) = inputs.best_answer(op, device) {
        return Some(cause.to_owned());
    }
    let id = inputs.topology.devices[device].id;
    decision.members[variable].iter().find_map(|&(other, _)| {
        let cause = inputs.best_answer(other, device).err()?;
        Some(format!("shares its weight with {}, which {id} cannot run: {cause}", inputs.op_label(other)))
    })
}

/// Under `strict`: the first wish that is impossible by itself, and the first for each other device.
///
/// # Errors
/// [`PlanError::Strict`].
pub(super) fn refuse_impossible(decision: &Decision<'_>) -> Result<(), PlanError> {
    let mut refused: Vec<(OpId, &Want, String)> = Vec::new();
    for (op, _) in decision.inputs.graph.ops() {
        for phase in Phase::ALL {
            let Some(want) = &decision.wants[instance(op, phase)] else { continue };
            if want.rule.is_none() && is_sampling(decision.inputs, op) {
                continue;
            }
            let variable = decision.variable_of[instance(op, phase)];
            let group = decision.variable_wants[variable].as_ref();
            let led_by_rule = |group: &Want| group.rule.is_some() && group.devices & decision.able[variable] != 0;
            if want.rule.is_none() && group.is_some_and(led_by_rule) {
                continue;
            }
            if refused.iter().any(|(_, known, _)| known.word == want.word) {
                continue;
            }
            if let Some(cause) = impossible(decision, op, phase, want) {
                refused.push((op, want, cause));
            }
        }
    }
    let label = |op| decision.inputs.op_label(op);
    let mut refused = refused.into_iter();
    let Some((op, want, cause)) = refused.next() else { return Ok(()) };
    let also = refused.map(|(op, want, cause)| format!("; {} wanted {}: {cause}", label(op), want.word)).collect();
    Err(PlanError::Strict { op: label(op), wanted: want.word.clone(), cause, also })
}

fn strict(decision: &Decision<'_>, op: OpId, want: &Want, cause: String) -> PlanError {
    PlanError::Strict { op: decision.inputs.op_label(op), wanted: want.word.clone(), cause, also: String::new() }
}

/// Under `strict`: the first op on a device that is short of memory, or else the first KV op with a wish.
pub(super) fn refuse_overflow(decision: &Decision<'_>, overflow: &Overflow) -> Option<PlanError> {
    for (op, _) in decision.inputs.graph.ops() {
        for phase in Phase::ALL {
            let Some(want) = &decision.wants[instance(op, phase)] else { continue };
            let variable = decision.variable_of[instance(op, phase)];
            let device = overflow.devices.get(variable).copied();
            let device = device.or_else(|| wanted_devices(want).find(|&device| overflow.short(device).is_some()));
            if let Some((needed, available)) = device.and_then(|device| overflow.short(device)) {
                let cause = format!("does not fit: {}", size::shortage(needed, available));
                return Some(strict(decision, op, want, cause));
            }
        }
    }
    if overflow.devices.is_empty() {
        let layer = decision.kv.first()?;
        let want =
            Phase::ALL.iter().find_map(|&phase| decision.wants[instance(*layer.ops.first()?, phase)].as_ref())?;
        let cause = "the devices wanted for a layer cannot reach one KV cache".to_owned();
        return Some(strict(decision, *layer.ops.first()?, want, cause));
    }
    None
}

/// Ops that do not run where they were wanted, by op name, phase, device and cause.
pub(super) fn fallbacks(decision: &Decision<'_>, phases: &[PhasePlan]) -> Vec<Fallback> {
    let mut fallbacks: Vec<Fallback> = Vec::new();
    for phase in Phase::ALL {
        let Some(plan) = phases.iter().find(|plan| plan.phase == phase) else { continue };
        for ((_, node), placement) in decision.inputs.graph.ops().zip(&plan.placements) {
            let Reason::Fallback { wanted, cause } = &placement.reason else { continue };
            let fallback = Fallback {
                op: node.op.kind.name().to_owned(),
                phase,
                wanted: wanted.clone(),
                ran_on: decision.inputs.topology.devices[placement.device].id.to_string(),
                cause: cause.clone(),
                count: 1,
            };
            let same = |known: &&mut Fallback| Fallback { count: 1, ..(**known).clone() } == fallback;
            match fallbacks.iter_mut().find(same) {
                Some(known) => known.count += 1,
                None => fallbacks.push(fallback),
            }
        }
    }
    fallbacks
}
