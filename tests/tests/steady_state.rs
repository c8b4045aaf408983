//! Set up once: after warm-up, decoding allocates nothing, creates nothing and maps nothing, and an
//! all-Vulkan plan needs one submission per token.

use std::ops::ControlFlow;

use biga::{
    Engine,
    execute::{DecodeItem, StepItem, Wanted},
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

/// The same on the device: nothing at all between two tokens but the submission and the wait.
fn decode_on_device(engine: &mut Engine) -> Cost {
    let sequence = engine.open_sequence().unwrap();
    let item = DecodeItem { sequence, tokens: &[3], sampling: SamplingParams::GREEDY };
    let mut marks = [0; 2];
    let mut n = 0;
    // More than are counted, so that steps are in flight at both ends.
    let before = engine.stats();
    let n_steps = N_WARM_UP + N_TOKENS + N_WARM_UP;
    engine
        .decode(&[item], n_steps, &mut |_| {
            n += 1;
            if n == N_WARM_UP {
                marks[0] = n_allocations();
            } else if n == N_WARM_UP + N_TOKENS {
                marks[1] = n_allocations();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    engine.close_sequence(sequence).unwrap();
    let after = engine.stats();
    assert_eq!(after.n_decode_steps - before.n_decode_steps, n_steps as u64);
    let counters =
        before.devices.into_iter().zip(after.devices).map(|((name, before), (_, after))| (name, before, after));
    Cost { allocations: marks[1] - marks[0], counters: counters.collect() }
}

fn check_on_device(name: &str, setup: &Setup) {
    let mut engine = setup.engine(&folder("gemma3")).unwrap();
    let cost = decode_on_device(&mut engine);
    assert_eq!(cost.allocations, 0, "{name}: heap allocations, tokens chosen on the device");
    for (device, before, after) in cost.counters {
        let n_steps = (N_WARM_UP + N_TOKENS + N_WARM_UP) as u64;
        let submissions = if device.starts_with(name) { n_steps } else { 0 };
        let expected = Counters { submissions: before.submissions + submissions, ..before };
        assert_eq!(after, expected, "{name}: {device}");
    }
}

/// One test, because allocations are counted for the whole process.
#[test]
fn steady_state_sets_nothing_up() {
    let mut setups = vec![("cpu", Setup::cpu(Kernels::Auto))];
    if let Some(vulkan) = Setup::vulkan() {
        setups.push(("mixed", vulkan.clone().place(&["attention=cpu"])));
        setups.push(("vulkan", vulkan));
    }
    for (name, setup) in setups {
        if name != "mixed" {
            check_on_device(name, &setup);
        }
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
