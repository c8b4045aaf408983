//! `Plan::build`: decide, then derive everything else from the decision, then check that it fits.

use std::sync::Arc;

use biga_hal::{Bucket, DType, DeviceId, Unavailable};

use super::{
    budget,
    cost::{Work, buckets, entry_s, limit_s},
    decide::{Binding, Decision, instance},
    inputs::{Inputs, Retained, kv_heads},
    kv,
    lifetime::{Order, lay_out},
    placement::{Failure, Problem, Solution, Solver},
    reason::{Overflow, Verdict, fallbacks, refuse_impossible, refuse_overflow},
    request::{PlaceRule, PlanError, PlanRequest, Policy},
    segment::{crossings, segment_of, segments},
    types::{KvGroup, Phase, PhasePlan, Placement, Plan, PlannedDevice, Reason, WeightHome},
};
use crate::load::graph::{OpId, WeightId};

/// Attempts with more memory set aside for values, whose arenas depend on the placement.
const MAX_ATTEMPTS: usize = 6;

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// [`PlanError`]: a wish that cannot be met under `strict`, an op that no device can run, a model that
    /// does not fit, a rule that names nothing or a layer that is not there.
    pub fn build(request: &PlanRequest<'_>) -> Result<Plan, PlanError> {
        solve_inputs(&Arc::new(Inputs::of(request)?))
    }

    /// The plan with one more rule (or several, separated by commas), which go before all earlier ones:
    /// `plan.place("attention=cpu")`. Everything else is decided again under the same policy.
    ///
    /// # Errors
    /// As [`Plan::build`], and [`PlanError::BadRule`].
    pub fn place(&self, rules: &str) -> Result<Plan, PlanError> {
        let mut inputs = Inputs::clone(&self.inputs.0);
        inputs.rules.extend(PlaceRule::parse_list(rules)?);
        solve_inputs(&Arc::new(inputs))
    }

    /// The plan for the same machine without a device, as after its loss. `cause` says why it is gone.
    ///
    /// # Errors
    /// As [`Plan::build`].
    pub fn without(&self, device: DeviceId, cause: &str) -> Result<Plan, PlanError> {
        let mut inputs = Inputs::clone(&self.inputs.0);
        let Some(index) = inputs.topology.devices.iter().position(|info| info.id == device) else {
            return Ok(self.clone());
        };
        inputs.topology.devices.remove(index);
        inputs.topology.links.retain(|link| link.from != device && link.to != device);
        inputs.topology.unavailable.push((device.backend, Unavailable { cause: cause.to_owned(), remedy: None }));
        if inputs.topology.devices.is_empty() {
            return Err(PlanError::NoDevice);
        }
        for answers in &mut inputs.answers {
            answers.remove(index);
        }
        for bytes in &mut inputs.weight_bytes {
            bytes.remove(index);
        }
        solve_inputs(&Arc::new(inputs))
    }

    /// The rules that it was made under, later ones winning.
    pub fn rules(&self) -> &[PlaceRule] {
        &self.inputs.0.rules
    }

    /// True if it refuses fallbacks.
    pub fn is_strict(&self) -> bool {
        self.inputs.0.strict
    }
}

fn solve_inputs(inputs: &Arc<Inputs>) -> Result<Plan, PlanError> {
    let decision = Decision::of(inputs)?;
    if inputs.strict {
        refuse_impossible(&decision)?;
    }
    let budgets = budget::budgets(inputs);
    let mut reserves =
        Reserves { bytes: vec![step_bytes(inputs, 1)?; budgets.len()], too_small: vec![None; budgets.len()] };
    // Less memory never makes a better placement, so the first bound holds for all attempts.
    let mut bound = None;
    let mut musts = decision.problem(Binding::Wanted, 0);
    let mut solver = Solver::new(&musts);
    for _ in 0..MAX_ATTEMPTS {
        let decided = decide(&decision, &musts, &solver, &reserves)?;
        let mut plan = derive(&decision, &decided, inputs)?;
        let bound = *bound.get_or_insert(decided.solution.bound);
        let (cost, proven) = (decided.solution.cost, decided.overflow.is_none() && bound > 0);
        plan.optimal = proven && cost <= bound;
        plan.gap = proven.then(|| cost.saturating_sub(bound) as f64 / cost.max(1) as f64);
        let banned = reserves.banned();
        if reserves.learn(&plan) {
            return accept(plan, &decision);
        }
        if reserves.banned() != banned {
            musts = decision.problem(Binding::Wanted, reserves.banned());
            solver = Solver::new(&musts);
        }
    }
    Err(no_plan(&decision, &reserves, Failure::Memory))
}

/// Memory that is set aside for values and step buffers, learnt from placements that did not fit.
struct Reserves {
    bytes: Vec<u64>,
    /// Bytes needed and available, for devices that cannot even hold the values of what they would run.
    too_small: Vec<Option<(u64, u64)>>,
}

impl Reserves {
    /// Budgets for weights and KV.
    fn left(&self, inputs: &Inputs) -> Vec<u64> {
        budget::budgets(inputs).iter().zip(&self.bytes).map(|(all, taken)| all.saturating_sub(*taken)).collect()
    }

    fn banned(&self) -> u16 {
        let small = self.too_small.iter().enumerate().filter(|(_, short)| short.is_some());
        small.fold(0, |set, (device, _)| set | 1 << device)
    }

    /// True if the plan fits; else sets more aside.
    fn learn(&mut self, plan: &Plan) -> bool {
        let mut fits = true;
        for (index, (device, used)) in plan.devices.iter().zip(&plan.memory).enumerate() {
            if used.total_bytes() <= device.budget_bytes {
                continue;
            }
            fits = false;
            let small = used.values_bytes.saturating_add(used.other_bytes);
            if small > device.budget_bytes {
                self.too_small[index] = Some((small, device.budget_bytes));
            }
            self.bytes[index] = small.max(self.bytes[index].saturating_add(self.bytes[index] / 8 + 1));
        }
        fits
    }
}

/// Under `strict`, refuses what is left of fallbacks.
fn accept(plan: Plan, decision: &Decision<'_>) -> Result<Plan, PlanError> {
    if decision.inputs.strict {
        for phase in &plan.phases {
            for (op, placement) in phase.placements.iter().enumerate() {
                if let Reason::Fallback { wanted, cause } = &placement.reason {
                    let op = decision.inputs.op_label(OpId(op));
                    return Err(PlanError::Strict {
                        op,
                        wanted: wanted.clone(),
                        cause: cause.clone(),
                        also: String::new(),
                    });
                }
            }
        }
    }
    Ok(plan)
}

/// A solved placement problem.
struct Decided {
    solution: Solution,
    /// By variable.
    devices: Vec<usize>,
    /// Set if not every possible wish could be met.
    overflow: Option<Overflow>,
}

/// Solves with wishes as musts; if that is impossible, with wishes as strong preferences.
fn decide(
    decision: &Decision<'_>,
    musts: &Problem,
    solver: &Solver<'_>,
    reserves: &Reserves,
) -> Result<Decided, PlanError> {
    let budgets = reserves.left(decision.inputs);
    let decided = |problem: &Problem, solution: Solution, overflow| {
        let devices = problem.devices(&solution.choices);
        Decided { solution, devices, overflow }
    };
    let mut failure = match solver.within(&budgets) {
        Ok(solution) => return Ok(decided(musts, solution, None)),
        Err(failure) => failure,
    };
    if decision.variable_wants.iter().all(Option::is_none) {
        return Err(no_plan(decision, reserves, failure));
    }
    let overflow = Overflow::of(musts, solver, &budgets, &reserves.too_small);
    if let (true, Some(refusal)) = (decision.inputs.strict, refuse_overflow(decision, &overflow)) {
        return Err(refusal);
    }
    let bindings: &[Binding] = match decision.inputs.policy {
        Policy::Gpu | Policy::Cpu => &[Binding::Layers, Binding::Free],
        Policy::Auto | Policy::Hybrid => &[Binding::Free],
    };
    for &binding in bindings {
        let problem = decision.problem(binding, reserves.banned());
        match Solver::new(&problem).within(&budgets) {
            Ok(solution) => return Ok(decided(&problem, solution, Some(overflow))),
            Err(other) => failure = other,
        }
    }
    Err(no_plan(decision, reserves, failure))
}

/// Everything that follows from the decision.
fn derive(decision: &Decision<'_>, decided: &Decided, inputs: &Arc<Inputs>) -> Result<Plan, PlanError> {
    let budgets = budget::budgets(inputs);
    let planned =
        |(info, &budget_bytes): (&biga_hal::DeviceInfo, &u64)| PlannedDevice { info: info.clone(), budget_bytes };
    let weights = weight_homes(decision, &decided.devices);
    let kv = kv::groups(decision, &decided.devices, &decided.solution.choices);
    let verdict = Verdict { decision, devices: &decided.devices, overflow: decided.overflow.as_ref() };
    let by_phase: Vec<PhaseShape> = Phase::ALL.iter().map(|&phase| PhaseShape::of(&verdict, phase)).collect();
    let kv_dtypes = kv_dtypes(inputs, &kv);
    let phases: Vec<PhasePlan> = buckets(&inputs.limits)
        .into_iter()
        .map(|(phase, bucket)| by_phase[phase.index()].plan(inputs, phase, bucket, &kv_dtypes))
        .collect();
    let step_bytes = step_bytes(inputs, kv.len())?;
    let memory = budget::memory(budgets.len(), &inputs.limits, &weights, &kv, &phases, step_bytes);
    Ok(Plan {
        model: inputs.model.clone(),
        policy: inputs.policy,
        limits: inputs.limits,
        devices: inputs.topology.devices.iter().zip(&budgets).map(planned).collect(),
        fallbacks: fallbacks(decision, &phases),
        phases,
        weights,
        kv,
        memory,
        optimal: false,
        gap: None,
        inputs: Retained(inputs.clone()),
    })
}

/// What all buckets of a phase have in common.
struct PhaseShape {
    devices: Vec<usize>,
    placements: Vec<Placement>,
    segments: Vec<super::types::SegmentPlan>,
    segment_of: Vec<usize>,
}

impl PhaseShape {
    fn of(verdict: &Verdict<'_>, phase: Phase) -> PhaseShape {
        let decision = verdict.decision;
        let placements: Vec<Placement> = decision
            .inputs
            .graph
            .ops()
            .map(|(op, _)| Placement {
                device: verdict.devices[decision.variable_of[instance(op, phase)]],
                reason: verdict.reason(op, phase),
            })
            .collect();
        let devices: Vec<usize> = placements.iter().map(|placement| placement.device).collect();
        let segments = segments(&devices);
        let segment_of = segment_of(&segments, devices.len());
        PhaseShape { devices, placements, segments, segment_of }
    }

    fn plan(&self, inputs: &Inputs, phase: Phase, bucket: Bucket, kv_dtypes: &[DType]) -> PhasePlan {
        let crossings = crossings(inputs, &self.devices, &self.segment_of, bucket);
        let order = Order::of(&self.segments, &self.segment_of, &crossings);
        let (values, arenas) = lay_out(inputs, &self.devices, &order, bucket);
        let own_s: f64 = inputs
            .graph
            .ops()
            .map(|(op, node)| {
                let rates = &inputs.topology.devices[self.devices[op.0]].rates;
                Work::of(inputs, op, bucket, kv_dtypes[op.0]).seconds(rates) + entry_s(node, rates)
            })
            .sum();
        let crossing_s: f64 = crossings.iter().map(|crossing| crossing.predicted_s).sum();
        PhasePlan {
            phase,
            bucket,
            placements: self.placements.clone(),
            segments: self.segments.clone(),
            crossings,
            values,
            arenas,
            predicted_s: own_s + crossing_s,
            limit_s: limit_s(inputs, bucket, |op| kv_dtypes[op.0]),
        }
    }
}

/// Format of the KV that each op uses; meaningless for the others.
fn kv_dtypes(inputs: &Inputs, groups: &[KvGroup]) -> Vec<DType> {
    let of_layer = |layer: Option<usize>| groups.iter().find(|group| layer.is_some_and(|l| group.layers.contains(&l)));
    let dtype = |(_, node): (OpId, &crate::load::graph::OpNode)| {
        let group = kv_heads(&node.op.kind).and_then(|_| of_layer(node.op.layer));
        group.map_or(DType::F32, |group| group.dtype)
    };
    inputs.graph.ops().map(dtype).collect()
}

fn weight_homes(decision: &Decision<'_>, devices: &[usize]) -> Vec<WeightHome> {
    let inputs = decision.inputs;
    let mut home: Vec<Option<usize>> = vec![None; inputs.weights.len()];
    for (op, node) in inputs.graph.ops() {
        for weight in &node.weights {
            home[weight.0] = Some(devices[decision.variable_of[instance(op, Phase::Prefill)]]);
        }
    }
    let of = |(weight, home): (usize, &Option<usize>)| {
        // A weight that no op uses is loaded nowhere.
        let resident_bytes = home.map_or(0, |device| inputs.weight_bytes[weight][device]);
        let in_place = home.is_some() && resident_bytes == 0;
        let in_place_bytes = if in_place { inputs.weights[weight].file_bytes } else { 0 };
        WeightHome { weight: WeightId(weight), device: home.unwrap_or(0), resident_bytes, in_place_bytes }
    };
    home.iter().enumerate().map(of).collect()
}

fn step_bytes(inputs: &Inputs, n_tables: usize) -> Result<u64, PlanError> {
    let layout = budget::step_layout(&inputs.limits, n_tables);
    layout.map(|layout| (layout.size_bytes + layout.ring_bytes()) as u64).map_err(|_| PlanError::Limit {
        what: "context of all sequences together",
        asked: inputs.limits.context.saturating_mul(inputs.limits.max_sequences),
        most: inputs.limits.kv_block_len.saturating_mul((1 << 27) / n_tables.max(1)),
    })
}

/// Why there is none: where everything would come nearest to fitting.
fn no_plan(decision: &Decision<'_>, reserves: &Reserves, failure: Failure) -> PlanError {
    let inputs = decision.inputs;
    if failure == Failure::Forbidden && reserves.banned() == 0 {
        let op = decision.kv.first().and_then(|layer| layer.ops.first()).copied().unwrap_or(OpId(0));
        return PlanError::Unplaceable {
            op: inputs.op_label(op),
            causes: "no device can hold KV that all devices able to run its layer reach".to_owned(),
        };
    }
    let budgets = budget::budgets(inputs);
    let kv = decision.kv.iter().map(|layer| budget::kv_layer_bytes(inputs, layer, decision.kv_dtype(0)));
    let kv = kv.fold(0, u64::saturating_add);
    let needed = |device: usize| {
        let weights = inputs.weight_bytes.iter().map(|bytes| bytes[device]);
        weights.fold(kv, u64::saturating_add).saturating_add(reserves.bytes[device])
    };
    // A device on which everything would fit is not what is short: some op cannot run there.
    let short = |device: &usize| needed(*device) > budgets[*device];
    let nearest = (0..budgets.len()).filter(short).min_by_key(|&device| needed(device) - budgets[device]);
    let nearest = nearest.unwrap_or(0);
    let remedy = if reserves.bytes[nearest] > needed(nearest) / 2 {
        "take fewer tokens or outputs in a step, or a smaller context (-c)"
    } else if kv > needed(nearest) / 2 {
        "take a smaller context (-c), fewer sequences or --kv-type q8_0"
    } else {
        "take a smaller quantisation of the model, or a smaller context (-c)"
    };
    let info = &inputs.topology.devices[nearest];
    let limited = budgets[nearest] < info.memory_bytes;
    let remedy = if limited { format!("raise --memory-limit, or {remedy}") } else { remedy.to_owned() };
    PlanError::DoesNotFit {
        device: info.id.to_string(),
        needed_bytes: needed(nearest),
        available_bytes: budgets[nearest],
        remedy,
    }
}
