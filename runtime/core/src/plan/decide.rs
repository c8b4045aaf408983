//! From a request to a placement problem, and from its solution to a device and a reason per op.
//!
//! One variable decides every op instance (op and phase) that shares a weight, directly or through another
//! op: a weight has one home. An instance without weights has a variable of its own. One further variable
//! per layer decides the home and format of its KV.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use biga_hal::{Bucket, DType, OpClass};

use super::{
    budget,
    cost::{Work, crossing_s, entry_s, reaches, value_bytes},
    inputs::{Inputs, kv_heads},
    placement::{Choice, FORBIDDEN, MAX_DEVICES, Pair, Problem, Transfer, Variable},
    request::PlanError,
    rules::{DeviceSet, Want, devices_named, policy_want},
    types::Phase,
};
use crate::load::graph::{Dependency, OpId};

/// One layer's KV.
#[derive(Clone, Debug)]
pub(super) struct KvLayer {
    pub(super) layer: usize,
    pub(super) heads: biga_hal::Heads,
    pub(super) window: Option<usize>,
    pub(super) ops: Vec<OpId>,
    pub(super) variable: usize,
    /// Home and index of the format, by choice.
    pub(super) options: Vec<(usize, usize)>,
}

/// Everything about the decision that does not depend on memory.
#[derive(Debug)]
pub(super) struct Decision<'a> {
    pub(super) inputs: &'a Inputs,
    /// Variable of each instance, `[op * 2 + phase]`.
    pub(super) variable_of: Vec<usize>,
    /// Instances of each variable; empty for KV homes.
    pub(super) members: Vec<Vec<(OpId, Phase)>>,
    /// Devices that can run all members.
    pub(super) able: Vec<DeviceSet>,
    /// Where each instance is wanted, by itself.
    pub(super) wants: Vec<Option<Want>>,
    /// Where each variable is wanted.
    pub(super) variable_wants: Vec<Option<Want>>,
    pub(super) kv: Vec<KvLayer>,
}

/// How far wishes bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// A possible wish is a must.
    Wanted,
    /// Whole layers may leave the wanted device, as few as possible.
    Layers,
    /// Anything may leave the wanted device, as little as possible.
    Free,
}

pub(super) fn instance(op: OpId, phase: Phase) -> usize {
    op.0 * 2 + phase.index()
}

impl<'a> Decision<'a> {
    pub(super) fn of(inputs: &'a Inputs) -> Result<Decision<'a>, PlanError> {
        let wants = wants(inputs)?;
        let mut decision = Decision {
            inputs,
            variable_of: Vec::new(),
            members: Vec::new(),
            able: Vec::new(),
            wants,
            variable_wants: Vec::new(),
            kv: Vec::new(),
        };
        let layers = kv_layers(inputs)?;
        decision.number_variables(layers);
        decision.find_able()?;
        decision.variable_wants = decision.members.iter().map(|members| decision.want_of(members)).collect();
        Ok(decision)
    }

    /// Numbers variables in the order in which a step meets them; the home of a layer's KV comes right
    /// before the first op that uses it.
    fn number_variables(&mut self, mut layers: BTreeMap<usize, KvLayer>) {
        let groups = self.groups();
        let mut variable_of_group: Vec<Option<usize>> = vec![None; groups.len()];
        for (op, node) in self.inputs.graph.ops() {
            if let Some(mut layer) =
                node.op.kind.uses_kv().then(|| layers.remove(&node.op.layer.unwrap_or(0))).flatten()
            {
                layer.variable = self.members.len();
                self.members.push(Vec::new());
                self.kv.push(layer);
            }
            for phase in Phase::ALL {
                let group = groups[instance(op, phase)];
                let variable = *variable_of_group[group].get_or_insert_with(|| {
                    self.members.push(Vec::new());
                    self.members.len() - 1
                });
                self.members[variable].push((op, phase));
                self.variable_of.push(variable);
            }
        }
    }

    /// Group of each instance: those that share a weight are one, and so are those that need not be told apart.
    fn groups(&self) -> Vec<usize> {
        let mut parent: Vec<usize> = (0..self.inputs.graph.len() * 2).collect();
        let mut first_user: Vec<Option<usize>> = vec![None; self.inputs.weights.len()];
        for (op, node) in self.inputs.graph.ops() {
            for phase in Phase::ALL {
                let own = instance(op, phase);
                for weight in &node.weights {
                    unite(&mut parent, *first_user[weight.0].get_or_insert(own), own);
                }
                for reader in kv_readers(self.inputs, op) {
                    if node.weights.is_empty() && self.go_together(op, reader, phase) {
                        unite(&mut parent, own, instance(reader, phase));
                    }
                }
            }
        }
        (0..parent.len()).map(|at| root(&mut parent, at)).collect()
    }

    /// True if appending KV on another device than its only reader's can never be better. Both read the same
    /// value, so that bringing the append to the reader costs no crossing and saves one; it is enough that
    /// no device appends so much faster that the saved crossing does not make up for it.
    fn go_together(&self, append: OpId, reader: OpId, phase: Phase) -> bool {
        let inputs = self.inputs;
        let n = inputs.topology.devices.len();
        let (a, b) = (inputs.graph.op(append), inputs.graph.op(reader));
        let alike = a.inputs == b.inputs
            && b.weights.is_empty()
            && kv_readers(inputs, append) == [reader]
            && self.wants[instance(append, phase)] == self.wants[instance(reader, phase)]
            && (0..n).all(|device| {
                (0..inputs.kv_dtypes.len())
                    .all(|kv| inputs.answer(append, device, kv).is_ok() == inputs.answer(reader, device, kv).is_ok())
            });
        let able = |device: &usize| inputs.best_answer(reader, *device).is_ok();
        alike
            && (0..n).filter(able).all(|to| {
                (0..n).filter(able).filter(|&from| from != to).all(|from| {
                    let saved_s = phase.weight() * crossing_s(inputs, from, to, 0);
                    // A thousandth of slack covers rounding to ticks.
                    self.seconds(append, phase, to) <= 0.999 * (self.seconds(append, phase, from) + saved_s)
                })
            })
    }

    fn find_able(&mut self) -> Result<(), PlanError> {
        let n_devices = self.inputs.topology.devices.len();
        self.able = vec![0; self.members.len()];
        for (variable, members) in self.members.iter().enumerate() {
            let able = |device: usize| members.iter().all(|&(op, _)| self.inputs.best_answer(op, device).is_ok());
            self.able[variable] =
                (0..n_devices).filter(|&device| able(device)).fold(0, |set, device| set | 1 << device);
            if let (0, Some(&(op, _))) = (self.able[variable], members.first()) {
                let culprit = members
                    .iter()
                    .map(|&(op, _)| op)
                    .find(|&op| (0..n_devices).all(|device| self.inputs.best_answer(op, device).is_err()));
                return Err(self.unplaceable(members, culprit.unwrap_or(op)));
            }
        }
        for layer in 0..self.kv.len() {
            self.kv[layer].options = self.kv_options(&self.kv[layer]);
        }
        Ok(())
    }

    fn unplaceable(&self, members: &[(OpId, Phase)], op: OpId) -> PlanError {
        let causes: Vec<String> = self
            .inputs
            .topology
            .devices
            .iter()
            .enumerate()
            .filter_map(|(device, info)| {
                let asked = members.iter().map(|&(member, _)| member).filter(|&member| member != op);
                let mut asked = std::iter::once(op).chain(asked);
                asked
                    .find_map(|member| self.inputs.best_answer(member, device).err())
                    .map(|cause| format!("{}: {cause}", info.id))
            })
            .collect();
        PlanError::Unplaceable { op: self.inputs.op_label(op), causes: causes.join("; ") }
    }

    /// Homes and formats worth trying: any device that can run one of the layer's KV ops, with the best
    /// common format of any set of devices.
    fn kv_options(&self, layer: &KvLayer) -> Vec<(usize, usize)> {
        let inputs = self.inputs;
        let n_devices = inputs.topology.devices.len();
        let capable: Vec<usize> = (0..n_devices)
            .filter(|&device| layer.ops.iter().any(|&op| inputs.best_answer(op, device).is_ok()))
            .collect();
        let runs = |device: usize, kv: usize| layer.ops.iter().any(|&op| inputs.answer(op, device, kv).is_ok());
        let formats: Vec<usize> = (0..inputs.kv_dtypes.len())
            .filter(|&kv| {
                // A format is worth trying if some device that has it lacks a better one which others have.
                let having: Vec<usize> = capable.iter().copied().filter(|&device| runs(device, kv)).collect();
                !having.is_empty() && (0..kv).all(|better| having.iter().any(|&device| !runs(device, better)))
            })
            .collect();
        capable.iter().flat_map(|&home| formats.iter().map(move |&kv| (home, kv))).collect()
    }

    fn want_of(&self, members: &[(OpId, Phase)]) -> Option<Want> {
        let wants = || members.iter().filter_map(|&(op, phase)| self.wants[instance(op, phase)].as_ref());
        if let Some(want) = wants().filter(|want| want.rule.is_some()).max_by_key(|want| want.rule) {
            return Some(want.clone());
        }
        let mut policy = wants();
        let first = policy.next()?.clone();
        let common = policy.fold(first.devices, |set, want| set & want.devices);
        Some(Want { devices: if common == 0 { first.devices } else { common }, ..first })
    }

    /// Devices open to a variable.
    fn open_to(&self, variable: usize, binding: Binding) -> DeviceSet {
        let able = self.able[variable];
        match (&self.variable_wants[variable], binding) {
            (Some(want), Binding::Wanted) if able & want.devices != 0 => able & want.devices,
            _ => able,
        }
    }

    /// The problem to solve, with whole budgets, without the devices in `banned`.
    pub(super) fn problem(&self, binding: Binding, banned: DeviceSet) -> Problem {
        let mut problem = Problem { budgets: budget::budgets(self.inputs), ..Problem::default() };
        let ticks = Ticks::of(self);
        let mut weight_home: Vec<Option<usize>> = vec![None; self.inputs.weights.len()];
        for (variable, members) in self.members.iter().enumerate() {
            let mut weights = Vec::new();
            for &(op, _) in members {
                for weight in &self.inputs.graph.op(op).weights {
                    if weight_home[weight.0].replace(variable).is_none() {
                        weights.push(weight.0);
                    }
                }
            }
            let open = self.open_to(variable, binding);
            let choices = (0..MAX_DEVICES).filter(|device| open & (1 << device) != 0).map(|device| {
                let own: f64 = members.iter().map(|&(op, phase)| self.seconds(op, phase, device)).sum();
                let wanted =
                    self.variable_wants[variable].as_ref().is_none_or(|want| want.devices & (1 << device) != 0);
                let penalty = if wanted || binding == Binding::Wanted { 0 } else { ticks.penalty };
                let memory = weights.iter().map(|&weight| self.inputs.weight_bytes[weight][device]);
                Choice {
                    device,
                    cost: if banned & (1 << device) == 0 {
                        ticks.count(own).saturating_add(penalty)
                    } else {
                        FORBIDDEN
                    },
                    memory_bytes: memory.fold(0, u64::saturating_add),
                }
            });
            problem.variables.push(Variable { choices: choices.collect() });
        }
        self.add_kv(&mut problem, banned);
        self.add_transfers(&mut problem, &ticks);
        if binding == Binding::Layers {
            self.tie_layers(&mut problem);
        }
        problem
    }

    /// Seconds of an instance, weighed by its phase.
    fn seconds(&self, op: OpId, phase: Phase, device: usize) -> f64 {
        let rates = &self.inputs.topology.devices[device].rates;
        let bucket = phase.typical_step(&self.inputs.limits);
        let kv = self.inputs.best_answer(op, device).unwrap_or(0);
        let work = Work::of(self.inputs, op, bucket, self.kv_dtype(kv));
        phase.weight() * (work.seconds(rates) + entry_s(self.inputs.graph.op(op), rates))
    }

    pub(super) fn kv_dtype(&self, index: usize) -> DType {
        self.inputs.kv_dtypes.get(index).or(self.inputs.kv_dtypes.first()).copied().unwrap_or(DType::F32)
    }

    fn add_kv(&self, problem: &mut Problem, banned: DeviceSet) {
        for layer in &self.kv {
            // Formats of equal cost go by preference.
            let choices = layer.options.iter().map(|&(device, kv)| Choice {
                device,
                cost: if banned & (1 << device) == 0 { kv as u64 } else { FORBIDDEN },
                memory_bytes: budget::kv_layer_bytes(self.inputs, layer, self.kv_dtype(kv)),
            });
            problem.variables[layer.variable].choices = choices.collect();
            let mut users: Vec<usize> = layer
                .ops
                .iter()
                .flat_map(|&op| Phase::ALL.map(|phase| self.variable_of[instance(op, phase)]))
                .collect();
            users.sort_unstable();
            users.dedup();
            for user in users {
                let devices: Vec<usize> = problem.variables[user].choices.iter().map(|choice| choice.device).collect();
                let table = layer.options.iter().flat_map(|&(home, kv)| {
                    let cost = move |&device: &usize| self.kv_access_cost(layer, user, device, home, kv);
                    devices.iter().map(cost)
                });
                problem.pairs.push(Pair { a: layer.variable, b: user, cost: table.collect() });
            }
        }
    }

    /// A KV cache is used from its home, and from elsewhere only where the home's memory can be reached. That
    /// costs one tick, so that the home follows its users where nothing else decides.
    fn kv_access_cost(&self, layer: &KvLayer, user: usize, device: usize, home: usize, kv: usize) -> u64 {
        let members = self.members[user].iter().map(|(op, _)| *op);
        let runs = members.filter(|op| layer.ops.contains(op)).all(|op| self.inputs.answer(op, device, kv).is_ok());
        match runs && reaches(self.inputs, device, home) {
            false => FORBIDDEN,
            true => u64::from(home != device),
        }
    }

    fn add_transfers(&self, problem: &mut Problem, ticks: &Ticks) {
        for (op, node) in self.inputs.graph.ops() {
            let mut after: Vec<(Vec<OpId>, bool)> = vec![(self.inputs.graph.readers(op), true)];
            after.push((kv_readers(self.inputs, op), false));
            for (readers, value) in after.into_iter().filter(|(readers, _)| !readers.is_empty()) {
                for phase in Phase::ALL {
                    let from = self.variable_of[instance(op, phase)];
                    let mut to: Vec<usize> =
                        readers.iter().map(|&reader| self.variable_of[instance(reader, phase)]).collect();
                    to.sort_unstable();
                    to.dedup();
                    if to != [from] {
                        let bytes = if value { value_bytes(node, phase.typical_step(&self.inputs.limits)) } else { 0 };
                        problem.transfers.push(Transfer { from, readers: to, cost: self.links(phase, bytes, ticks) });
                    }
                }
            }
        }
    }

    fn links(&self, phase: Phase, bytes: u64, ticks: &Ticks) -> Vec<u64> {
        let n = self.inputs.topology.devices.len();
        let cost = |from, to| ticks.count(phase.weight() * crossing_s(self.inputs, from, to, bytes));
        (0..n).flat_map(|from| (0..n).map(move |to| cost(from, to))).collect()
    }

    /// Makes every variable of a layer follow the layer's first one to whichever device both can use.
    fn tie_layers(&self, problem: &mut Problem) {
        let mut leaders: BTreeMap<usize, usize> = BTreeMap::new();
        let mut tied: BTreeSet<(usize, usize)> = BTreeSet::new();
        for (op, node) in self.inputs.graph.ops() {
            let Some(layer) = node.op.layer else { continue };
            for phase in Phase::ALL {
                let variable = self.variable_of[instance(op, phase)];
                let leader = *leaders.entry(layer).or_insert(variable);
                if leader == variable || !tied.insert((leader, variable)) {
                    continue;
                }
                let common = self.able[leader] & self.able[variable];
                let devices = |v: usize| problem.variables[v].choices.iter().map(|choice| choice.device);
                let apart = |a: usize, b: usize| a != b && common & (1 << a) != 0;
                let table = devices(leader)
                    .flat_map(|a| devices(variable).map(move |b| if apart(a, b) { FORBIDDEN } else { 0 }));
                let cost: Vec<u64> = table.collect();
                problem.pairs.push(Pair { a: leader, b: variable, cost });
            }
        }
    }
}

/// Readers of the KV that an op appends.
pub(super) fn kv_readers(inputs: &Inputs, op: OpId) -> Vec<OpId> {
    use petgraph::visit::EdgeRef;
    let edges = inputs.graph.dag().edges(petgraph::graph::NodeIndex::new(op.0));
    let mut readers: Vec<OpId> =
        edges.filter(|edge| *edge.weight() == Dependency::Kv).map(|edge| OpId(edge.target().index())).collect();
    readers.sort_unstable();
    readers.dedup();
    readers
}

/// Seconds become whole ticks: picoseconds, or coarser where the sums would not fit.
struct Ticks {
    per_s: f64,
    /// More than any placement costs, so that fewest ops leave their wanted device.
    penalty: u64,
}

impl Ticks {
    fn of(decision: &Decision<'_>) -> Ticks {
        let n_devices = decision.inputs.topology.devices.len();
        let mut most_s = 1e-9;
        for (op, node) in decision.inputs.graph.ops() {
            for phase in Phase::ALL {
                let step: Bucket = phase.typical_step(&decision.inputs.limits);
                let own = (0..n_devices).map(|device| decision.seconds(op, phase, device)).fold(0.0, f64::max);
                let pairs = (0..n_devices).flat_map(|a| (0..n_devices).map(move |b| (a, b)));
                let crossing: f64 = pairs
                    .map(|(a, b)| crossing_s(decision.inputs, a, b, value_bytes(node, step)) * phase.weight())
                    .sum();
                most_s += 2.0 * crossing + own;
            }
        }
        let n = decision.members.len() as f64 + 2.0;
        let per_s = (4e18 / (most_s * n)).min(1e12);
        Ticks { per_s, penalty: ((most_s * per_s) as u64).saturating_add(64).saturating_add(n as u64 * 16) }
    }

    fn count(&self, seconds: f64) -> u64 {
        // A float too large for the type becomes its largest value, which means forbidden: stay below.
        ((seconds * self.per_s) as u64).min(FORBIDDEN / 2)
    }
}

/// Refuses rules for layers beyond the last: whoever writes `ffn:0-99=cpu` has another model in mind.
fn check_layers(inputs: &Inputs) -> Result<(), PlanError> {
    let n_layers = inputs.graph.ops().filter_map(|(_, node)| node.op.layer).max().map_or(0, |last| last + 1);
    for rule in &inputs.rules {
        if let Some(&layer) = rule.layers.as_ref().map(RangeInclusive::end).filter(|&&last| last >= n_layers) {
            return Err(PlanError::NoSuchLayer { rule: rule.to_string(), layer, n_layers });
        }
    }
    Ok(())
}

fn wants(inputs: &Inputs) -> Result<Vec<Option<Want>>, PlanError> {
    check_layers(inputs)?;
    let mut wants = Vec::with_capacity(inputs.graph.len() * 2);
    let mut used = vec![false; inputs.rules.len()];
    for (_, node) in inputs.graph.ops() {
        for phase in Phase::ALL {
            let matching = inputs.rules.iter().enumerate().filter(|(_, rule)| rule.matches(node, phase));
            let rule = matching.inspect(|&(index, _)| used[index] = true).last();
            wants.push(match rule {
                Some((index, rule)) => Some(Want {
                    devices: devices_named(&inputs.topology, &rule.device),
                    word: rule.device.clone(),
                    rule: Some(index),
                }),
                None => policy_want(&inputs.topology, inputs.policy, node),
            });
        }
    }
    match used.iter().position(|used| !used) {
        Some(index) => Err(PlanError::RuleMatchesNothing { rule: inputs.rules[index].to_string() }),
        None => Ok(wants),
    }
}

fn kv_layers(inputs: &Inputs) -> Result<BTreeMap<usize, KvLayer>, PlanError> {
    let mut layers: BTreeMap<usize, KvLayer> = BTreeMap::new();
    for (op, node) in inputs.graph.ops() {
        let (Some(heads), Some(layer)) = (kv_heads(&node.op.kind), node.op.layer) else { continue };
        let fresh = KvLayer { layer, heads, window: None, ops: Vec::new(), variable: 0, options: Vec::new() };
        let entry = layers.entry(layer).or_insert(fresh);
        if entry.heads != heads {
            return Err(PlanError::Graph { cause: format!("layer {layer} has KV of two geometries") });
        }
        if let biga_hal::OpKind::Attention { window, .. } = node.op.kind {
            entry.window = window;
        }
        entry.ops.push(op);
    }
    Ok(layers)
}

fn root(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

fn unite(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parent, a), root(parent, b));
    parent[a.max(b)] = a.min(b);
}

/// True for the class that follows the host where no other device can do it.
pub(super) fn is_sampling(inputs: &Inputs, op: OpId) -> bool {
    inputs.graph.op(op).class == OpClass::Sample
}
