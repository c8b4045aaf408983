//! Set up once: after warm-up, decoding allocates nothing, creates nothing and maps nothing, and an
//! all-Vulkan plan needs one submission per token.

use biga::{
    Engine,
    execute::{StepItem, Wanted},
    hal::Counters,
    sample::{Sampler, SamplingParams},
};
use biga_cpu::Kernels;
use biga_tests::{
    counting::{Counting, n_allocations},
    fixture::folder,
    machine::Setup,
};

#[global_allocator]
static COUNTING: Counting = Counting;

const N_WARM_UP: usize = 4;
const N_TOKENS: usize = 64;

/// What `N_TOKENS` decode steps cost, from submission to sampled id.
struct Cost {
    allocations: u64,
    counters: Vec<(String, Counters, Counters)>,
}

fn decode(engine: &mut Engine) -> Cost {
    let sampling = SamplingParams { temperature: 0.7, top_k: 40, top_p: 0.9, seed: 1, ..SamplingParams::GREEDY };
    let mut sampler = Sampler::new(sampling, engine.model().config.vocab).unwrap();
    let sequence = engine.open_sequence().unwrap();
    let mut token = 3;
    let mut step = |engine: &mut Engine, position: usize| {
        let item = StepItem { sequence, tokens: &[token], wanted: Wanted::Last };
        token = sampler.sample(engine.step(&[item]).unwrap().row(0), position, None).unwrap();
    };
    (0..N_WARM_UP).for_each(|position| step(engine, position));
    let before = engine.stats();
    let allocations = n_allocations();
    (N_WARM_UP..N_WARM_UP + N_TOKENS).for_each(|position| step(engine, position));
    let allocations = n_allocations() - allocations;
    let after = engine.stats();
    let counters =
        before.devices.into_iter().zip(after.devices).map(|((name, before), (_, after))| (name, before, after));
    Cost { allocations, counters: counters.collect() }
}

#[test]
fn steady_state_sets_nothing_up() {
    let mut setups = vec![("cpu", Setup::cpu(Kernels::Auto))];
    if let Some(vulkan) = Setup::vulkan() {
        setups.push(("mixed", vulkan.clone().place(&["attention=cpu"])));
        setups.push(("vulkan", vulkan));
    }
    for (name, setup) in setups {
        let mut engine = setup.engine(&folder("gemma3")).unwrap();
        let cost = decode(&mut engine);
        println!("{name}: {} heap allocations in {N_TOKENS} tokens", cost.allocations);
        assert_eq!(cost.allocations, 0, "{name}: heap allocations");
        for (device, before, after) in cost.counters {
            let submissions = after.submissions - before.submissions;
            println!(
                "{name}: {device}: {} objects, {} allocations, {} mappings, {submissions} submissions",
                after.objects_created - before.objects_created,
                after.allocations - before.allocations,
                after.mappings - before.mappings,
            );
            assert_eq!(after.objects_created, before.objects_created, "{name}: objects on {device}");
            assert_eq!(after.allocations, before.allocations, "{name}: allocations on {device}");
            assert_eq!(after.mappings, before.mappings, "{name}: mappings on {device}");
            if name != "mixed" {
                let wanted = if device.starts_with(name) { N_TOKENS as u64 } else { 0 };
                assert_eq!(submissions, wanted, "{name}: submissions on {device}");
            }
        }
    }
}
