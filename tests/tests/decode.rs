//! Decoding without the host between the steps gives what step by step with the host's choice gives, and
//! leaves the sequences as it says.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use biga::{
    Engine, Error,
    execute::{DecodeItem, SampledOn, SequenceId, StepItem, Wanted},
    load::{LoadOptions, Model},
    plan::Policy,
    probe::Machine,
    sample::{SampleError, SamplingParams},
};
use biga_cpu::Kernels;
use biga_tests::{
    choice::{by_device, by_host, items, samplings},
    disguise::{Disguise, Disguises},
    fixture::{Checkpoint, folder},
    machine::Setup,
};

const FAMILIES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gemma3"];

/// Engines that choose tokens on their device.
fn setups() -> Vec<(&'static str, Setup)> {
    let mut setups = vec![("cpu", Setup::cpu(Kernels::Auto)), ("reference", Setup::cpu(Kernels::Reference))];
    setups.extend(Setup::vulkan().map(|vulkan| ("vulkan", vulkan)));
    setups
}

/// Prompts of different lengths, past a sliding window or not.
fn prompts(n: usize, vocab: usize) -> Vec<Vec<u32>> {
    let prompt = |i: usize| (0..3 + 7 * i).map(|at| ((at * 31 + i * 17 + 5) % vocab) as u32).collect();
    (0..n).map(prompt).collect()
}

#[test]
fn the_device_chooses_what_the_host_would() {
    for (name, setup) in setups() {
        for family in FAMILIES {
            let mut engine = setup.engine(&folder(family)).unwrap();
            let prompts = prompts(3, engine.model().config.vocab);
            for sampling in samplings() {
                let expected = by_host(&mut engine, &prompts, sampling, 24);
                let before = engine.stats();
                let seen = by_device(&mut engine, &prompts, sampling, 7, 24);
                assert_eq!(seen, expected, "{family} on {name}, {sampling:?}");
                let after = engine.stats();
                assert_eq!(after.n_prefill_steps - before.n_prefill_steps, 1, "{family} on {name}");
            }
        }
    }
}

#[test]
fn what_the_host_has_to_choose_says_why() {
    let drawn = SamplingParams { temperature: 0.8, ..SamplingParams::GREEDY };
    let check = |engine: &Engine, sampling: SamplingParams, expected: &str| {
        assert_eq!(engine.sampled_on(&sampling).to_string(), expected, "{sampling:?}");
    };
    let engine = Setup::cpu(Kernels::Auto).engine(&folder("llama")).unwrap();
    check(&engine, drawn, "on cpu");
    check(&engine, SamplingParams { top_p: 0.9, ..drawn }, "on the host: top-p without top-k");
    check(&engine, SamplingParams { top_k: 1000, ..drawn }, "on the host: top-k above 256");
    check(&engine, SamplingParams { repeat_penalty: 1.1, ..drawn }, "on the host: repetition penalty");
    let Some(vulkan) = Setup::vulkan() else { return };
    for rule in ["sample=cpu", "sample@decode=cpu", "ffn=cpu"] {
        let mixed = vulkan.clone().place(&[rule]).engine(&folder("llama")).unwrap();
        check(&mixed, drawn, "on the host: a step takes more than one device");
    }
}

#[test]
fn each_step_is_one_submission_of_the_smallest_bucket() {
    for (name, setup) in setups() {
        let mut engine = setup.engine(&folder("llama")).unwrap();
        let SampledOn::Device(id) = engine.sampled_on(&SamplingParams::GREEDY) else {
            panic!("{name} does not choose")
        };
        for n in 1..=4 {
            let sequences: Vec<SequenceId> = (0..n).map(|_| engine.open_sequence().unwrap()).collect();
            let before = engine.stats();
            let fed = vec![vec![3]; n];
            engine
                .decode(&items(&sequences, &fed, SamplingParams::GREEDY), 20, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            let after = engine.stats();
            assert_eq!(after.n_decode_steps - before.n_decode_steps, 20, "{name}: {n} sequences");
            for ((device, before), (_, after)) in before.devices.iter().zip(&after.devices) {
                let submissions = if *device == id.to_string() { 20 } else { 0 };
                assert_eq!(after.submissions - before.submissions, submissions, "{name}: {device}");
                assert_eq!(after.objects_created, before.objects_created, "{name}: {device}");
            }
            sequences.into_iter().for_each(|sequence| engine.close_sequence(sequence).unwrap());
        }
    }
}

#[test]
fn a_row_without_a_finite_logit_ends_it_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::read("llama").unwrap();
    // The last norm makes every logit NaN from the first step on.
    let (_, _, bytes) = checkpoint.tensors.get_mut("model.norm.weight").unwrap();
    bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|word| *word = f32::NAN.to_le_bytes());
    checkpoint.write(dir.path()).unwrap();
    for (name, setup) in setups() {
        let mut engine = setup.engine(dir.path()).unwrap();
        let sequence = engine.open_sequence().unwrap();
        engine.step(&[StepItem { sequence, tokens: &[1, 2], wanted: Wanted::None }]).unwrap();
        let item = DecodeItem { sequence, tokens: &[3, 4, 5], sampling: SamplingParams::GREEDY };
        let error = engine.decode(&[item], 9, &mut |tokens| panic!("{name}: {tokens:?}")).unwrap_err();
        assert!(matches!(error, Error::Sample(SampleError::NoFiniteLogit { position: 4, .. })), "{name}: {error}");
        assert_eq!(engine.sequence_len(sequence).unwrap(), 2, "{name}");
    }
}

#[test]
fn what_cannot_run_is_refused_and_changes_nothing() {
    let mut setup = Setup::cpu(Kernels::Auto);
    (setup.context, setup.max_tokens, setup.max_sequences) = (16, 8, 2);
    let mut engine = setup.engine(&folder("gemma3")).unwrap();
    let (first, second) = (engine.open_sequence().unwrap(), engine.open_sequence().unwrap());
    let item = |sequence, tokens| DecodeItem { sequence, tokens, sampling: SamplingParams::GREEDY };
    let mut go = |items: &[DecodeItem<'_>], n| engine.decode(items, n, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(go(&[item(first, &[1, 2])], 16), Err(Error::Limit { asked: 17, most: 16, .. })));
    assert!(go(&[item(first, &[1]), item(first, &[1])], 1).is_err(), "one sequence twice");
    for tokens in [&[][..], &[1; 9], &[100_000]] {
        assert!(go(&[item(first, tokens)], 1).is_err(), "{tokens:?}");
    }
    assert!(go(&[], 1).is_err(), "no items");
    for sampling in [
        SamplingParams { temperature: f32::NAN, ..SamplingParams::GREEDY },
        SamplingParams { repeat_penalty: 1.1, ..SamplingParams::GREEDY },
    ] {
        assert!(go(&[DecodeItem { sampling, ..item(first, &[1]) }], 1).is_err(), "{sampling:?}");
    }
    assert_eq!(go(&[item(second, &[5])], 0).unwrap(), 0);
    assert_eq!(go(&[item(first, &[1, 2]), item(second, &[5])], 15).unwrap(), 15);
    assert_eq!((engine.sequence_len(first).unwrap(), engine.sequence_len(second).unwrap()), (16, 15));
}

/// An engine on one disguised device.
fn disguised(disguise: Disguise, path: &Path) -> Engine {
    let mut machine = Machine::new();
    machine.register(Arc::new(Disguises(vec![disguise])));
    let open = machine.open(&machine.probe()).unwrap();
    let setup = Setup { policy: Policy::Gpu, ..Setup::cpu(Kernels::Auto) };
    let model = Arc::new(Model::load(path, &LoadOptions::default(), &mut |_| {}).unwrap());
    let plan = setup.plan(&model, &open).unwrap();
    Engine::allocate(&open, model, plan, &mut |_| {}).unwrap()
}

#[test]
fn steps_beyond_the_end_are_taken_back() {
    // Windows of sixteen positions: what runs ahead must not free what it may have to go back to.
    for family in ["gemma3", "mistral"] {
        let mut engine = disguised(Disguise { slow: true, ..Disguise::default() }, &folder(family));
        let prompts = prompts(2, engine.model().config.vocab);
        let expected = by_host(&mut engine, &prompts, SamplingParams::GREEDY, 60);
        for first in [1, 2, 3, 31] {
            let before = engine.stats().devices[0].1.submissions;
            assert_eq!(by_device(&mut engine, &prompts, SamplingParams::GREEDY, first, 60), expected, "{family}");
            let n = engine.stats().devices[0].1.submissions - before;
            assert!(n == 63, "{family}: {n} submissions for 60 steps and three beyond the first end");
        }
    }
}

#[test]
fn a_device_lost_in_between_is_an_error_and_the_sequences_hold_what_was_seen() {
    for slow in [false, true] {
        let mut engine = disguised(Disguise { slow, lost_at: Some(10), ..Disguise::default() }, &folder("llama"));
        let sequence = engine.open_sequence().unwrap();
        let item = DecodeItem { sequence, tokens: &[1, 2, 3], sampling: SamplingParams::GREEDY };
        let mut n = 0;
        let error = engine.decode(&[item], 50, &mut |_| {
            n += 1;
            ControlFlow::Continue(())
        });
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Device(biga::hal::Error::DeviceLost { .. })), "{error}");
        // Of what was in flight nobody has seen the tokens.
        assert_eq!(n, 7);
        assert_eq!(engine.sequence_len(sequence).unwrap(), 3 + n - 1);
    }
    let mut engine = disguised(Disguise { lost_at: Some(0), ..Disguise::default() }, &folder("llama"));
    let sequence = engine.open_sequence().unwrap();
    let item = DecodeItem { sequence, tokens: &[1, 2, 3], sampling: SamplingParams::GREEDY };
    assert!(engine.decode(&[item], 5, &mut |_| panic!("a token of a lost device")).is_err());
    assert_eq!(engine.sequence_len(sequence).unwrap(), 0);
}
