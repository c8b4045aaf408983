//! Plans of real graphs on made-up machines.

mod brute_force;
mod machine;
mod properties;

use biga_hal::DType;

use super::*;
use machine::Setup;

#[test]
fn auto_splits_by_cost_and_everything_is_consistent() {
    let setup = Setup::tiny();
    let plan = setup.plan(|_| {}).unwrap();
    plan.verify(&setup.graph).unwrap();
    assert!(plan.optimal);
    assert!(plan.fallbacks.is_empty());
    assert!(plan.phases[0].placements.iter().all(|p| matches!(p.reason, Reason::Cost | Reason::OnlyCapable)));
}

#[test]
fn a_large_graph_is_planned_exactly_or_nearly_so() {
    let setup = Setup::large();
    let plan = setup.plan(|_| {}).unwrap();
    assert!(setup.graph.len() > 900 && plan.optimal && plan.gap == Some(0.0));
    plan.verify(&setup.graph).unwrap();
    let weights: u64 = plan.weights.iter().map(|home| home.resident_bytes).sum();
    // The bound is weaker where several devices are short at once.
    for (share, most) in [(0.9, 0.02), (0.5, 0.02), (0.2, 0.12)] {
        let plan = setup.plan(|request| request.memory_limit = Some((weights as f64 * share) as u64)).unwrap();
        plan.verify(&setup.graph).unwrap();
        let gap = plan.gap.unwrap();
        assert!(gap < most, "{share} of the weights: {gap}");
    }
}

fn ops_on<'a>(plan: &'a Plan, phase: Phase, device: usize) -> impl Iterator<Item = &'static str> + 'a {
    let phase = plan.phases.iter().find(|plan| plan.phase == phase).unwrap();
    let placed = plan.graph().ops().zip(&phase.placements).filter(move |(_, placement)| placement.device == device);
    placed.map(|((_, node), _)| node.op.kind.name())
}

const ON_GPU: usize = 0;
const ON_NPU: usize = 1;
const ON_CPU: usize = 2;

#[test]
fn weights_read_in_place_are_shown_but_take_no_memory() {
    let setup = Setup::tiny();
    let plan = setup.plan(|request| request.policy = Policy::Cpu).unwrap();
    let weights: u64 = setup.weights.iter().map(|weight| weight.file_bytes).sum();
    let used = plan.memory[ON_CPU];
    assert_eq!((used.weights_bytes, used.in_place_bytes), (0, weights));
    assert_eq!(used.total_bytes(), used.kv_bytes + used.values_bytes + used.other_bytes);
    let shown = plan.explain().to_string();
    assert!(shown.contains(&format!("in place, {:.1} ", weights as f64 / (1 << 20) as f64)), "{shown}");
    let on_gpu = setup.plan(|request| request.policy = Policy::Gpu).unwrap();
    assert!(on_gpu.memory.iter().all(|used| used.in_place_bytes == 0));

    // Copies of the loader's own are memory that the plan takes, and that must fit.
    let copies: Vec<_> = setup.weights.iter().map(|weight| PlannedWeight { is_mapped: false, ..*weight }).collect();
    let copied = Setup { weights: copies, ..Setup::tiny() };
    let used = copied.plan(|request| request.policy = Policy::Cpu).unwrap().memory[ON_CPU];
    assert_eq!((used.weights_bytes, used.in_place_bytes), (weights, 0));
    let refused = copied.plan(|request| {
        request.policy = Policy::Cpu;
        request.memory_limit = Some(weights - 1);
    });
    assert!(matches!(refused, Err(PlanError::DoesNotFit { .. })), "{refused:?}");
}

#[test]
fn policy_gpu_leaves_only_sampling_to_the_host() {
    let setup = Setup::tiny();
    let plan = setup.plan(|request| (request.policy, request.strict) = (Policy::Gpu, true)).unwrap();
    plan.verify(&setup.graph).unwrap();
    for phase in Phase::ALL {
        assert_eq!(ops_on(&plan, phase, ON_CPU).collect::<Vec<_>>(), ["sample"]);
        assert_eq!(ops_on(&plan, phase, ON_NPU).count(), 0);
    }
    let placements = &plan.phases[0].placements;
    assert_eq!(placements.last().unwrap().reason, Reason::OnlyCapable);
    assert!(placements[..placements.len() - 1].iter().all(|placement| placement.reason == Reason::Policy));
    assert!(plan.fallbacks.is_empty());
    let logits = plan.phases[0].values[setup.graph.len() - 2].as_ref().unwrap();
    let arena = &plan.phases[0].arenas[logits.primary.arena];
    assert_eq!((arena.owner, &arena.accessors[..], arena.host_reads), (ON_GPU, &[ON_CPU][..], true));
}

#[test]
fn sampling_asked_for_by_rule_is_a_fallback_where_it_cannot_be() {
    let setup = Setup::tiny();
    let rules = || vec!["sample=gpu".parse().unwrap()];
    let plan = setup.plan(|request| request.rules = rules()).unwrap();
    assert_eq!(plan.fallbacks.len(), 2, "one per phase");
    assert_eq!((plan.fallbacks[0].op.as_str(), plan.fallbacks[0].cause.as_str()), ("sample", "no kernel for sample"));
    let refused = setup.plan(|request| (request.rules, request.strict) = (rules(), true)).unwrap_err();
    let expected = PlanError::Strict {
        op: "sample".to_owned(),
        wanted: "gpu".to_owned(),
        cause: "no kernel for sample".to_owned(),
        also: String::new(),
    };
    assert_eq!(refused, expected);
}

#[test]
fn hybrid_puts_attention_on_the_npu() {
    let setup = Setup::tiny();
    let plan = setup.plan(|request| (request.policy, request.strict) = (Policy::Hybrid, false)).unwrap();
    plan.verify(&setup.graph).unwrap();
    let on_npu: Vec<_> = ops_on(&plan, Phase::Decode, ON_NPU).collect();
    assert_eq!(on_npu, ["kv_append", "attention", "kv_append", "attention"]);
    assert!(plan.fallbacks.is_empty(), "{:?}", plan.fallbacks);
    assert!(plan.kv.iter().all(|group| group.home == ON_NPU));
    assert!(
        plan.phases[0].crossings.iter().any(|c| c.from == ON_GPU && c.to == ON_NPU && c.method == CrossingMethod::Copy)
    );
}

#[test]
fn hybrid_without_an_npu_falls_back_with_the_cause_or_refuses() {
    let mut setup = Setup::tiny();
    setup.topology = machine::without_npu();
    let plan = setup.plan(|request| request.policy = Policy::Hybrid).unwrap();
    plan.verify(&setup.graph).unwrap();
    let ops: Vec<_> = plan.fallbacks.iter().map(|f| (f.op.as_str(), f.phase, f.count)).collect();
    let expected = [
        ("kv_append", Phase::Prefill, 2),
        ("attention", Phase::Prefill, 2),
        ("kv_append", Phase::Decode, 2),
        ("attention", Phase::Decode, 2),
    ];
    assert_eq!(ops, expected);
    assert!(plan.fallbacks.iter().all(|f| f.wanted == "npu" && f.cause == "no NPU: no amdxdna driver"));
    let refused = setup.plan(|request| (request.policy, request.strict) = (Policy::Hybrid, true)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "strict placement refused: kv_append of layer 0 wanted npu: no NPU: no amdxdna driver; \
         drop --strict to run it elsewhere, `biga probe` shows what each device lacks"
    );
    assert_eq!(refused.kind(), crate::ErrorKind::DeviceUnavailable);
}

#[test]
fn a_rule_edits_a_plan_and_later_rules_win() {
    let setup = Setup::tiny();
    let plan = setup.plan(|request| request.policy = Policy::Gpu).unwrap();
    let edited = plan.place("attention=cpu").unwrap();
    edited.verify(&setup.graph).unwrap();
    for ((_, node), placement) in setup.graph.ops().zip(&edited.phases[0].placements) {
        match node.class {
            biga_hal::OpClass::Attention => {
                assert_eq!(placement.device, ON_CPU);
                assert_eq!(placement.reason, Reason::User { rule: "attention=cpu".to_owned() });
            }
            biga_hal::OpClass::Sample => {}
            _ => assert_eq!((placement.device, &placement.reason), (ON_GPU, &Reason::Policy)),
        }
    }
    let again = edited.place("attention:1=gpu").unwrap();
    let on_cpu: Vec<_> = ops_on(&again, Phase::Decode, ON_CPU).collect();
    assert_eq!(on_cpu.iter().filter(|name| **name == "attention").count(), 1);
    assert_eq!(again.rules().len(), 2);
    assert!(matches!(plan.place("tail=cpu"), Err(PlanError::RuleMatchesNothing { .. })));
    for (rule, layer) in [("attention:9=cpu", 9), ("ffn:0-99=cpu", 99), ("ffn:1-2=cpu", 2)] {
        let expected = PlanError::NoSuchLayer { rule: rule.to_owned(), layer, n_layers: 2 };
        assert_eq!(plan.place(rule), Err(expected));
    }
    assert!(plan.place("ffn:0-1=cpu").is_ok());
    assert!(matches!(plan.place("attention"), Err(PlanError::BadRule { .. })));
}

#[test]
fn a_weight_has_one_home_whatever_rules_say_of_its_users() {
    let setup = Setup::tiny();
    let plan = setup.plan(|request| request.rules = PlaceRule::parse_list("embed=gpu,head=cpu").unwrap()).unwrap();
    plan.verify(&setup.graph).unwrap();
    let embed = &plan.phases[0].placements[0];
    assert_eq!(embed.device, ON_CPU);
    let Reason::Fallback { wanted, cause } = &embed.reason else { panic!("{:?}", embed.reason) };
    assert_eq!((wanted.as_str(), cause.as_str()), ("gpu", "its weight has one home, which rule head=cpu decides"));
    let alone =
        setup.plan(|request| (request.policy, request.rules) = (Policy::Gpu, vec!["head=cpu".parse().unwrap()]));
    let embed = alone.unwrap().phases[0].placements[0].clone();
    assert_eq!(embed.reason, Reason::User { rule: "head=cpu".to_owned() });
}

#[test]
fn phases_may_differ_where_no_weight_or_kv_binds_them() {
    let setup = Setup::tiny();
    let plan = setup.plan(|r| (r.policy, r.rules) = (Policy::Gpu, vec!["rope@decode=cpu".parse().unwrap()])).unwrap();
    plan.verify(&setup.graph).unwrap();
    assert!(ops_on(&plan, Phase::Decode, ON_CPU).any(|name| name == "rope"));
    assert!(!ops_on(&plan, Phase::Prefill, ON_CPU).any(|name| name == "rope"));
}

#[test]
fn policy_gpu_spills_whole_layers_that_do_not_fit() {
    let mut setup = Setup::of(&machine::config(6, 512, false, true));
    let whole = setup.plan(|request| request.policy = Policy::Gpu).unwrap();
    let needed = whole.memory[ON_GPU].total_bytes();
    setup.topology.devices[ON_GPU].memory_bytes = needed * 2 / 3;
    let plan = setup.plan(|request| request.policy = Policy::Gpu).unwrap();
    plan.verify(&setup.graph).unwrap();
    let mut device_of_layer = std::collections::BTreeMap::new();
    for ((_, node), placement) in setup.graph.ops().zip(&plan.phases[0].placements) {
        if let Some(layer) = node.op.layer {
            assert_eq!(*device_of_layer.entry(layer).or_insert(placement.device), placement.device, "layer {layer}");
            if placement.device != ON_GPU {
                let Reason::Fallback { wanted, cause } = &placement.reason else { panic!("{:?}", placement.reason) };
                assert_eq!(wanted, "gpu");
                assert!(cause.starts_with("does not fit: ") && cause.ends_with(" available"), "{cause}");
            }
        }
    }
    let moved = device_of_layer.values().filter(|&&device| device != ON_GPU).count();
    assert!((1..6).contains(&moved), "{moved} layers moved");
    let refused = setup.plan(|request| (request.policy, request.strict) = (Policy::Gpu, true)).unwrap_err();
    assert!(
        matches!(&refused, PlanError::Strict { wanted, cause, .. } if wanted == "gpu" && cause.starts_with("does not fit"))
    );
}

#[test]
fn what_fits_nowhere_is_refused_with_numbers() {
    let mut setup = Setup::tiny();
    for info in &mut setup.topology.devices {
        info.memory_bytes = 1 << 20;
    }
    let PlanError::DoesNotFit { needed_bytes, available_bytes, remedy, .. } = setup.plan(|_| {}).unwrap_err() else {
        panic!("it cannot fit")
    };
    assert!(needed_bytes > available_bytes && available_bytes <= 1 << 20);
    assert!(remedy.contains("--kv-type q8_0") && !remedy.contains("--memory-limit"), "{remedy}");
}

#[test]
fn a_limit_that_is_too_small_is_what_to_raise() {
    let refused = Setup::tiny().plan(|request| request.memory_limit = Some(1 << 20)).unwrap_err().to_string();
    for words in ["does not fit: ", " MiB more than the 1.0 MiB available on ", "; raise --memory-limit, or take "] {
        assert!(refused.contains(words), "{words:?} is not in {refused}");
    }
}

#[test]
fn kv_takes_the_best_format_that_all_its_users_have() {
    let check = |matrices: DType, lacking: &[(biga_hal::DeviceId, DType)], rule: &str, expected: DType| {
        let mut setup = Setup::tiny();
        setup.weights = machine::weights_of(&setup.graph, matrices);
        setup.fake.lacks_kv.extend(lacking.iter().copied());
        let plan = setup.plan(|request| request.rules = vec![rule.parse().unwrap()]).unwrap();
        plan.verify(&setup.graph).unwrap();
        assert!(plan.kv.iter().all(|group| group.dtype == expected), "{:?}", plan.kv);
    };
    check(DType::F32, &[], "attention=gpu", DType::F32);
    check(DType::F16, &[], "attention=gpu", DType::F16);
    check(DType::F16, &[(machine::NPU, DType::F16)], "op.attention=npu", DType::BF16);
    check(DType::F16, &[(machine::NPU, DType::F16)], "attention=gpu", DType::F16);
    check(DType::Q8_0, &[(machine::GPU, DType::F16), (machine::GPU, DType::BF16)], "attention=gpu", DType::Q8_0);
}

#[test]
fn windows_have_kv_groups_of_their_own() {
    let setup = Setup::of(&machine::config(12, 256, true, true));
    let plan = setup.plan(|request| request.policy = Policy::Gpu).unwrap();
    plan.verify(&setup.graph).unwrap();
    let groups: Vec<_> = plan.kv.iter().map(|group| (group.window, group.layers.len())).collect();
    assert_eq!(groups, [(Some(1024), 10), (None, 2)]);
    assert!(plan.kv_blocks()[0] < plan.kv_blocks()[1]);
}

#[test]
fn a_lost_device_is_planned_around() {
    let setup = Setup::tiny();
    let plan = setup.plan(|request| request.policy = Policy::Gpu).unwrap();
    let without = plan.without(machine::GPU, "device lost").unwrap();
    without.verify(&setup.graph).unwrap();
    assert_eq!(without.devices.len(), 2);
    assert!(without.fallbacks.iter().all(|fallback| fallback.cause == "no GPU: device lost"));
    assert!(!without.fallbacks.is_empty());
}

#[test]
fn limits_out_of_range_are_refused() {
    let setup = Setup::tiny();
    let zero = setup.plan(|request| request.limits.context = 0).unwrap_err();
    assert_eq!(zero, PlanError::Zero { what: "context" });
    assert!(matches!(setup.plan(|r| r.limits.context = 1 << 40), Err(PlanError::Limit { .. })));
    let huge = setup.plan(|r| (r.limits.context, r.limits.max_sequences) = (1 << 30, 1 << 30));
    assert!(matches!(huge, Err(PlanError::Limit { .. })), "{huge:?}");
}

#[test]
fn snapshots_for_people_and_programs() {
    let setup = Setup::tiny();
    let plan = setup.plan(|request| request.policy = Policy::Hybrid).unwrap();
    insta::assert_snapshot!("explain_hybrid", plan.explain().to_string());
    insta::assert_snapshot!("dot_hybrid", plan.to_dot());
    let json = serde_json::to_string_pretty(&plan.to_json()).unwrap();
    insta::assert_snapshot!("json_hybrid", json);
    let mut alone = Setup::tiny();
    alone.topology = machine::without_npu();
    let plan = alone.plan(|request| request.policy = Policy::Hybrid).unwrap();
    insta::assert_snapshot!("explain_without_npu", plan.explain().to_string());
}
