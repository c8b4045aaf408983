//! The planner against trying everything: small random graphs on random machines, both phases together.
//!
//! Weights and KV come in units that dwarf values and step buffers, and budgets are whole units and a bit
//! more, so that a placement fits by its weights and KV alone.

use std::collections::{BTreeMap, BTreeSet};

use biga_hal::{
    DType, DeviceId, DeviceKind, Heads, OpClass, OpKind, OpQuery, RopeStyle, Unsupported, WeightRole, WeightShape,
};
use proptest::prelude::*;

use super::machine::{CPU, GPU, NPU, device};
use crate::{
    load::graph::{Dependency, Graph, LayerWeight, OpId, WeightId, WeightSlot},
    plan::{
        Capabilities, Limits, Phase, Plan, PlanError, PlanRequest, PlannedWeight, Policy, Reason,
        cost::{Work, crossing_s, entry_s, reaches, value_bytes},
        inputs::Inputs,
        types::KvGroup,
    },
    probe::{Link, Topology},
};

const UNIT: u64 = 8 << 20;
const DEVICES: [DeviceId; 3] = [CPU, GPU, NPU];
const HEADS: Heads = Heads { n_heads: 1, n_kv_heads: 1, head_dim: 1 << 10 };
/// Positions: a layer's KV is one unit with 16 bits an element, two with 32.
const CONTEXT: usize = 2 << 10;
/// KV formats that a case may have, two of these, in the order of preference.
const FORMATS: [[DType; 2]; 3] = [[DType::F16, DType::BF16], [DType::F16, DType::F32], [DType::BF16, DType::F32]];

/// One op of a random graph.
#[derive(Clone, Debug)]
enum Shape {
    /// A weight of so many units, or the weight of an earlier op.
    Weighted { units: u64, share: Option<usize> },
    /// No weight.
    Free,
    /// Two inputs.
    Join { other: usize },
    /// An append and the attention that reads it.
    Kv,
}

#[derive(Clone, Debug)]
struct Case {
    shapes: Vec<Shape>,
    widths: Vec<usize>,
    /// By op number and device.
    supported: Vec<[bool; 3]>,
    /// KV formats, the preferred one first, and which of them a device has.
    formats: [DType; 2],
    has_format: [[bool; 2]; 3],
    /// GB/s, Gflop/s, launch and submission in µs.
    rates: [(f64, f64, f64, f64); 3],
    /// Latency in µs, GB/s, shared; by pair of devices.
    links: Vec<(f64, f64, bool)>,
    /// In units; more than everything where absent.
    budgets: [Option<u64>; 3],
}

/// Which op of the case an op kind is, hidden in a number that planning does not look at.
fn number_of(kind: &OpKind) -> usize {
    match kind {
        OpKind::Embed { scale, .. } => *scale as usize,
        OpKind::RmsNorm { eps, .. } => *eps as usize,
        OpKind::Rope { inv_freqs, .. } => inv_freqs[0] as usize,
        OpKind::Attention { scale, .. } => *scale as usize,
        _ => usize::MAX,
    }
}

impl Capabilities for Case {
    fn supports(&self, device: DeviceId, query: &OpQuery<'_>) -> Result<(), Unsupported> {
        let index = DEVICES.iter().position(|known| *known == device).unwrap();
        let runs = self.supported.get(number_of(query.kind)).is_none_or(|row| row[index]);
        if runs && query.kv.is_none_or(|kv| self.stores(index, kv)) {
            return Ok(());
        }
        Err(Unsupported { op: query.kind.name(), device, cause: "made up".to_owned() })
    }

    fn weight_size_bytes(&self, _: DeviceId, weight: &PlannedWeight) -> u64 {
        weight.file_bytes
    }
}

impl Case {
    fn stores(&self, device: usize, kv: DType) -> bool {
        self.formats.iter().zip(self.has_format[device]).any(|(&format, has)| has && format == kv)
    }

    /// The format by which a device's ops on KV are priced: the best that it has.
    fn priced(&self, device: usize) -> DType {
        self.formats.into_iter().find(|&kv| self.stores(device, kv)).unwrap_or(DType::F16)
    }

    fn graph(&self) -> (Graph, Vec<PlannedWeight>) {
        let mut graph = Graph::new();
        let mut weights = Vec::new();
        let mut weight = |graph: &mut Graph, units: u64| {
            let shape = WeightShape { role: WeightRole::Vector, rows: 1, columns: 64 };
            weights.push(PlannedWeight { shape, dtype: DType::F32, file_bytes: units * UNIT, is_mapped: true });
            graph.add_weight(WeightSlot::Layer(0, LayerWeight::FfnNorm), shape)
        };
        let table = weight(&mut graph, 1);
        let embed = OpKind::Embed { vocab: 1 << 12, width: self.widths[0], scale: 0.0 };
        let mut values = vec![graph.add_op(OpClass::Embed, None, embed, &[], vec![table])];
        let mut weight_of: Vec<Option<WeightId>> = vec![Some(table)];
        for (index, shape) in self.shapes.iter().enumerate() {
            let number = index + 1;
            let width = self.widths[number];
            let last = *values.last().unwrap();
            let mut own = None;
            let value = match shape {
                Shape::Weighted { units, share } => {
                    let shared = share.and_then(|share| weight_of[share % weight_of.len()]);
                    let id = shared.unwrap_or_else(|| weight(&mut graph, *units));
                    own = Some(id);
                    let kind = OpKind::RmsNorm { width, eps: number as f32, weight_offset: 0.0 };
                    graph.add_op(OpClass::Ffn, Some(0), kind, &[last], vec![id])
                }
                Shape::Free => {
                    let heads = Heads { n_heads: 1, n_kv_heads: 1, head_dim: width };
                    let kind = OpKind::Rope { heads, style: RopeStyle::Halves, inv_freqs: vec![number as f32].into() };
                    graph.add_op(OpClass::Ffn, Some(0), kind, &[last], Vec::new())
                }
                Shape::Join { other } => {
                    let other = values[other % values.len()];
                    graph.add_op(OpClass::Ffn, Some(0), OpKind::Residual { width }, &[other, last], Vec::new())
                }
                Shape::Kv => {
                    let append = OpKind::KvAppend { heads: HEADS };
                    let append = graph.add_op(OpClass::Attention, Some(number), append, &[last], Vec::new());
                    let kind = OpKind::Attention { heads: HEADS, scale: number as f32, window: None, softcap: None };
                    let attention = graph.add_op(OpClass::Attention, Some(number), kind, &[last], Vec::new());
                    graph.add_kv_dependency(append, attention);
                    attention
                }
            };
            values.push(value);
            weight_of.push(own);
        }
        (graph, weights)
    }

    fn topology(&self) -> Topology {
        let kinds = [DeviceKind::Cpu, DeviceKind::IntegratedGpu, DeviceKind::Npu];
        let devices = (0..3).map(|index| {
            let (gbps, gflops, launch_us, submit_us) = self.rates[index];
            let mut info = device(DEVICES[index], kinds[index], "made up", gbps, gflops, submit_us);
            info.rates.launch_s = launch_us * 1e-6;
            info.memory_bytes = self.budgets[index].map_or(1 << 40, |units| units * UNIT + UNIT / 2);
            info
        });
        let pairs = (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let links = pairs.zip(&self.links).map(|((from, to), &(latency_us, gbps, shared))| Link {
            from: DEVICES[from],
            to: DEVICES[to],
            latency_s: latency_us * 1e-6,
            bytes_per_s: if shared { f64::INFINITY } else { gbps * 1e9 },
            shared,
            measured: false,
        });
        Topology { devices: devices.collect(), links: links.collect(), unavailable: Vec::new() }
    }
}

/// Everything tried: the devices of each op by phase, and the home and format of each layer's KV.
struct Trial<'a> {
    case: &'a Case,
    inputs: &'a Inputs,
    budgets: Vec<u64>,
    best: Option<f64>,
}

type Devices = Vec<[usize; 2]>;
/// Home and format by layer.
type Kv = BTreeMap<usize, (usize, DType)>;

impl Trial<'_> {
    fn try_all(&mut self, devices: &mut Devices) {
        let op = devices.len();
        if op == self.inputs.graph.len() {
            self.try_homes(devices);
            return;
        }
        for prefill in 0..3 {
            for decode in 0..3 {
                devices.push([prefill, decode]);
                if self.is_possible(devices) {
                    self.try_all(devices);
                }
                devices.pop();
            }
        }
    }

    /// Supported, with KV in some format, and where the op's weights already are.
    fn is_possible(&self, devices: &Devices) -> bool {
        let op = devices.len() - 1;
        let node = self.inputs.graph.op(OpId(op));
        let weights_agree = node.weights.is_empty()
            || (devices[op][0] == devices[op][1]
                && (0..op).all(|other| {
                    let shared = self.inputs.graph.op(OpId(other)).weights.iter().any(|w| node.weights.contains(w));
                    !shared || devices[other][0] == devices[op][0]
                }));
        weights_agree && devices[op].iter().all(|&device| self.inputs.best_answer(OpId(op), device).is_ok())
    }

    fn try_homes(&mut self, devices: &Devices) {
        let cost = self.cost(devices);
        if self.best.is_some_and(|best| best <= cost) {
            return;
        }
        let ops = self.inputs.graph.ops().filter(|(_, node)| node.op.kind.uses_kv());
        let layers: Vec<usize> = ops.filter_map(|(_, n)| n.op.layer).collect::<BTreeSet<_>>().into_iter().collect();
        for code in 0..6usize.pow(layers.len() as u32) {
            let choice = |at: usize| code / 6usize.pow(at as u32) % 6;
            let kv = layers.iter().enumerate().map(|(at, &layer)| {
                let choice = choice(at);
                (layer, (choice % 3, self.case.formats[choice / 3]))
            });
            if self.is_feasible(devices, &kv.collect()) {
                self.best = Some(cost);
                return;
            }
        }
    }

    /// Every layer's KV is reached, in its one format, by all that use it, its home runs some op on KV, and
    /// memory suffices.
    fn is_feasible(&self, devices: &Devices, kv: &Kv) -> bool {
        let graph = &self.inputs.graph;
        let mut used = [0u64; 3];
        let mut counted = BTreeSet::new();
        for (op, node) in graph.ops() {
            for &weight in &node.weights {
                if counted.insert(weight) {
                    used[devices[op.0][0]] += self.inputs.weights[weight.0].file_bytes;
                }
            }
            let of_layer = node.op.layer.filter(|_| node.op.kind.uses_kv()).and_then(|layer| kv.get(&layer));
            if let Some(&(home, format)) = of_layer {
                let usable = |&device: &usize| reaches(self.inputs, device, home) && self.case.stores(device, format);
                if !devices[op.0].iter().all(usable) {
                    return false;
                }
            }
        }
        for &(home, format) in kv.values() {
            // Appends run wherever there is a format.
            if !self.case.has_format[home].contains(&true) {
                return false;
            }
            let element_bytes = if format == DType::F32 { 4 } else { 2 };
            used[home] += (CONTEXT * 2 * element_bytes * HEADS.head_dim) as u64;
        }
        used.iter().zip(&self.budgets).all(|(used, budget)| used <= budget)
    }

    /// Seconds. Formats do not enter but by what each device has: they differ in precision first.
    fn cost(&self, devices: &Devices) -> f64 {
        Phase::ALL.into_iter().map(|phase| phase.weight() * self.step_s(devices, phase)).sum()
    }

    fn step_s(&self, devices: &Devices, phase: Phase) -> f64 {
        let bucket = phase.typical_step(&self.inputs.limits);
        let at = |op: OpId| devices[op.0][phase.index()];
        let mut sum = 0.0;
        for (op, node) in self.inputs.graph.ops() {
            let rates = &self.inputs.topology.devices[at(op)].rates;
            sum += Work::of(self.inputs, op, bucket, self.case.priced(at(op))).seconds(rates) + entry_s(node, rates);
            for value in [true, false] {
                let to: BTreeSet<usize> = self
                    .inputs
                    .graph
                    .dag()
                    .raw_edges()
                    .iter()
                    .filter(|edge| edge.source().index() == op.0 && (edge.weight != Dependency::Kv) == value)
                    .map(|edge| at(OpId(edge.target().index())))
                    .collect();
                let bytes = if value { value_bytes(node, bucket) } else { 0 };
                sum += to.into_iter().map(|to| crossing_s(self.inputs, at(op), to, bytes)).sum::<f64>();
            }
        }
        sum
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let (graph, weights) = case.graph();
    let topology = case.topology();
    let request = PlanRequest {
        model: "random",
        graph: &graph,
        weights: &weights,
        topology: &topology,
        capabilities: case,
        policy: Policy::Auto,
        rules: Vec::new(),
        strict: false,
        limits: Limits { context: CONTEXT, max_sequences: 1, max_tokens: 4, max_outputs: 1, kv_block_len: 16 },
        kv_dtype: None,
        memory_limit: None,
    };
    let inputs = Inputs::of(&request).unwrap();
    let budgets = topology.devices.iter().map(|info| info.memory_bytes).collect();
    let mut trial = Trial { case, inputs: &inputs, budgets, best: None };
    trial.try_all(&mut Vec::new());
    match (Plan::build(&request), trial.best) {
        (Ok(plan), Some(best)) => {
            plan.verify(&graph).unwrap();
            prop_assert!(plan.optimal);
            let by_phase: Vec<_> =
                Phase::ALL.iter().map(|&phase| plan.phases.iter().find(|p| p.phase == phase).unwrap()).collect();
            let devices: Devices = (0..graph.len())
                .map(|op| [by_phase[0].placements[op].device, by_phase[1].placements[op].device])
                .collect();
            let of_group = |group: &KvGroup| (group.home, group.dtype);
            let kv: Kv = plan.kv.iter().flat_map(|g| g.layers.iter().map(move |&layer| (layer, of_group(g)))).collect();
            prop_assert!(trial.is_feasible(&devices, &kv), "{kv:?} on {devices:?}");
            let cost = trial.cost(&devices);
            // Planning counts whole picoseconds; a plan has fewer than a hundred terms.
            prop_assert!((cost - best).abs() < 1e-10 + best * 1e-12, "{cost:?} against {best}");
            for (&layer, &(home, format)) in kv.iter().filter(|(_, (_, format))| *format == case.formats[1]) {
                let mut better = kv.clone();
                better.insert(layer, (home, case.formats[0]));
                prop_assert!(!trial.is_feasible(&devices, &better), "layer {layer} has {format} needlessly");
            }
            for placement in plan.phases.iter().flat_map(|phase| &phase.placements) {
                prop_assert!(matches!(placement.reason, Reason::Cost | Reason::OnlyCapable));
            }
        }
        (Err(PlanError::DoesNotFit { .. } | PlanError::Unplaceable { .. }), None) => {}
        (plan, best) => prop_assert!(false, "{plan:?} against {best:?}"),
    }
    Ok(())
}

fn case(shapes: impl Strategy<Value = Vec<Shape>>) -> impl Strategy<Value = Case> {
    let device_rates = || (1.0f64..100.0, 1.0f64..1000.0, 0.0f64..20.0, 0.0f64..50.0);
    let link = (0.0f64..100.0, 0.5f64..20.0, any::<bool>());
    let budget = || prop_oneof![1 => Just(None), 2 => (0u64..8).prop_map(Some)];
    (
        shapes,
        prop::collection::vec((1usize..256).prop_map(|n| n * 16), 9),
        prop::collection::vec(prop::array::uniform3(prop::bool::weighted(0.8)), 9),
        (0..FORMATS.len(), prop::array::uniform3(prop::array::uniform2(prop::bool::weighted(0.7)))),
        (device_rates(), device_rates(), device_rates()),
        prop::collection::vec(link, 6),
        (budget(), budget(), budget()),
    )
        .prop_map(|(shapes, widths, supported, (formats, has_format), rates, links, budgets)| Case {
            shapes,
            widths,
            supported,
            formats: FORMATS[formats],
            has_format,
            rates: [rates.0, rates.1, rates.2],
            links,
            budgets: [budgets.0, budgets.1, budgets.2],
        })
}

fn weighted() -> impl Strategy<Value = Shape> {
    (1u64..3, prop::option::weighted(0.15, 0usize..8)).prop_map(|(units, share)| Shape::Weighted { units, share })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The embedding and seven more ops, each with a weight of its own or an earlier one's.
    #[test]
    fn chains_of_eight_ops_equal_brute_force(case in case(prop::collection::vec(weighted(), 0..=7))) {
        check(&case)?;
    }

    /// Up to five ops with residual edges, ops without weights, and KV that both phases share.
    #[test]
    fn graphs_of_five_ops_equal_brute_force(
        case in case(prop::collection::vec(
            prop_oneof![
                3 => weighted(),
                2 => Just(Shape::Free),
                2 => (0usize..8).prop_map(|other| Shape::Join { other }),
                2 => Just(Shape::Kv),
            ],
            0..=3,
        ))
    ) {
        check(&case)?;
    }
}
