//! What holds for every plan, and that the check of it can fail.

use std::collections::BTreeSet;

use biga_hal::DType;
use proptest::prelude::*;

use super::machine::{self, CPU, GPU, NPU, Setup};
use crate::{
    load::graph::OpId,
    plan::{CrossingMethod, Phase, Plan, PlanError, Policy, Reason, rules},
    probe::Link,
};

const OPS: [&str; 8] = ["norm", "qkv", "rope", "kv_append", "attention", "residual", "gate_up", "head"];
const RULES: [&str; 12] = [
    "attention=cpu",
    "ffn=gpu",
    "head=cpu",
    "embed=gpu",
    "op.attention=npu",
    "attention:0=npu",
    "rope@decode=cpu",
    "attention@prefill=gpu",
    "op.attention@decode=npu",
    "kv_append=cpu",
    "sample=cpu",
    "all=gpu",
];

#[derive(Clone, Debug)]
struct Wishes {
    layers: usize,
    gemma: bool,
    tied: bool,
    policy: Policy,
    rules: Vec<usize>,
    lacks: Vec<(usize, usize)>,
    lacks_kv: Vec<(usize, usize)>,
    /// Shared or not, by pair of devices.
    links: Vec<Option<bool>>,
    memory_mib: Option<u64>,
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let policy = prop_oneof![Just(Policy::Auto), Just(Policy::Gpu), Just(Policy::Cpu), Just(Policy::Hybrid)];
    (
        (1usize..4, any::<bool>(), any::<bool>()),
        policy,
        prop::collection::vec(0..RULES.len(), 0..3),
        prop::collection::vec((0usize..3, 0..OPS.len()), 0..3),
        prop::collection::vec((0usize..3, 0usize..4), 0..3),
        prop::collection::vec(prop::option::of(any::<bool>()), 6),
        prop_oneof![1 => Just(None), 2 => (1u64..40).prop_map(Some)],
    )
        .prop_map(|((layers, gemma, tied), policy, rules, lacks, lacks_kv, links, memory_mib)| Wishes {
            layers,
            gemma,
            tied,
            policy,
            rules,
            lacks,
            lacks_kv,
            links,
            memory_mib,
        })
}

fn setup(wishes: &Wishes) -> Setup {
    let mut setup = Setup::of(&machine::config(wishes.layers, 256, wishes.gemma, wishes.tied));
    setup.limits.context = 512;
    let ids = [GPU, NPU, CPU];
    setup.fake.lacks.extend(wishes.lacks.iter().map(|&(device, op)| (ids[device], OPS[op])));
    setup.fake.lacks_kv.extend(wishes.lacks_kv.iter().map(|&(device, kv)| (ids[device], DType::KV[kv])));
    let pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    for (&(from, to), shared) in pairs.iter().zip(&wishes.links) {
        let Some(shared) = *shared else { continue };
        let bytes_per_s = if shared { f64::INFINITY } else { 5e9 };
        let (from, to) = (ids[from], ids[to]);
        setup.topology.links.push(Link { from, to, latency_s: 2e-5, bytes_per_s, shared, measured: true });
    }
    setup
}

fn build(setup: &Setup, wishes: &Wishes, strict: bool) -> Result<Plan, PlanError> {
    setup.plan(|request| {
        request.policy = wishes.policy;
        request.rules = wishes.rules.iter().map(|&rule| RULES[rule].parse().unwrap()).collect();
        request.strict = strict;
        request.memory_limit = wishes.memory_mib.map(|mib| mib << 20);
    })
}

/// Each reason agrees with the device, and every fallback is counted.
fn check_reasons(plan: &Plan, setup: &Setup) -> Result<(), TestCaseError> {
    let mut counted = 0;
    for phase in Phase::ALL {
        let phase_plan = plan.phases.iter().find(|other| other.phase == phase).unwrap();
        for ((_, node), placement) in setup.graph.ops().zip(&phase_plan.placements) {
            let answers = |word: &str| rules::devices_named(&setup.topology, word) & (1 << placement.device) != 0;
            match &placement.reason {
                Reason::User { rule } => {
                    prop_assert!(
                        answers(rule.rsplit('=').next().unwrap()),
                        "{rule} put {:?} there",
                        node.op.kind.name()
                    );
                }
                Reason::Policy => {
                    let want = rules::policy_want(&setup.topology, plan.policy, node);
                    prop_assert!(want.is_some_and(|want| want.devices & (1 << placement.device) != 0));
                }
                Reason::Fallback { wanted, cause } => {
                    counted += 1;
                    prop_assert!(!cause.is_empty());
                    prop_assert!(wanted == "npu or gpu" || !answers(wanted), "{wanted} is where it runs: {cause}");
                }
                Reason::Cost | Reason::OnlyCapable => {}
            }
        }
        for other in plan.phases.iter().filter(|other| other.phase == phase) {
            prop_assert_eq!(&other.placements, &phase_plan.placements);
            prop_assert!(other.predicted_s >= other.limit_s * 0.999, "faster than the machine");
        }
    }
    prop_assert_eq!(plan.fallbacks.iter().map(|fallback| fallback.count).sum::<usize>(), counted);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_keeps_its_promises(wishes in wishes()) {
        let setup = setup(&wishes);
        match build(&setup, &wishes, false) {
            Ok(plan) => {
                plan.verify(&setup.graph).unwrap();
                check_reasons(&plan, &setup)?;
                match build(&setup, &wishes, true) {
                    Ok(strict) => prop_assert!(plan.fallbacks.is_empty() && strict.phases == plan.phases),
                    Err(PlanError::Strict { cause, .. }) => {
                        prop_assert!(!plan.fallbacks.is_empty(), "refused without a fallback: {}", cause);
                    }
                    Err(other) => prop_assert!(false, "{}", other),
                }
                prop_assert!(!plan.explain().to_string().is_empty());
                prop_assert_eq!(&plan.to_json()["version"], 1);
            }
            Err(PlanError::DoesNotFit { needed_bytes, available_bytes, .. }) => {
                prop_assert!(wishes.memory_mib.is_some());
                prop_assert!(needed_bytes > available_bytes, "{needed_bytes} in {available_bytes}");
            }
            Err(PlanError::Unplaceable { causes, .. }) => prop_assert!(!causes.is_empty()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

/// A plan with crossings of both methods.
fn mixed() -> (Setup, Plan) {
    let setup = Setup::tiny();
    let plan = setup.plan(|request| request.policy = Policy::Hybrid).unwrap();
    plan.verify(&setup.graph).unwrap();
    let methods: BTreeSet<bool> =
        plan.phases[0].crossings.iter().map(|crossing| crossing.method == CrossingMethod::Copy).collect();
    assert_eq!(methods.len(), 2);
    (setup, plan)
}

fn check_broken(change: impl FnOnce(&mut Plan), expected: &str) {
    let (setup, mut plan) = mixed();
    change(&mut plan);
    let error = plan.verify(&setup.graph).unwrap_err().to_string();
    assert!(error.contains(expected), "{error:?} does not say {expected:?}");
}

#[test]
fn broken_plans_are_found() {
    check_broken(|plan| plan.phases[0].crossings.truncate(1), "by no crossing");
    check_broken(|plan| plan.phases[0].segments.truncate(1), "segments are not all ops");
    check_broken(|plan| plan.phases[0].segments[0].ops.swap(0, 1), "segments are not all ops");
    check_broken(|plan| plan.phases[0].placements[0].device = 2, "another device");
    check_broken(|plan| plan.phases[0].arenas[0].size_bytes = 1, "outside arena");
    check_broken(|plan| plan.phases[0].crossings[0].before_segment += 2, "too late");
    check_broken(|plan| plan.weights[0].device = 2, "its weight lives on 2");
    check_broken(|plan| plan.kv[0].layers.truncate(1), "no KV group");
    check_broken(|plan| plan.kv[0].home = 0, "does not reach the KV");
    check_broken(|plan| plan.memory[0].weights_bytes = u64::MAX / 2, "bytes planned on");
    check_broken(|plan| plan.memory[0].values_bytes = 0, "arenas of");
    check_broken(
        |plan| {
            let again = plan.phases[0].arenas[0].clone();
            plan.phases[0].arenas.push(again);
        },
        "two arenas of one kind",
    );
    check_broken(
        |plan| {
            // The stream lives across the whole layer; its first norm must not lie on it.
            let stream = plan.phases[0].values[0].as_ref().unwrap().primary;
            plan.phases[0].values[OpId(1).0].as_mut().unwrap().primary.offset_bytes = stream.offset_bytes;
        },
        "share memory while both live",
    );
}
