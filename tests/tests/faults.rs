//! What goes wrong while running: a model file that changes, steps beyond a bound, a full cache.

use std::{fs, sync::atomic::AtomicBool};

use biga::{
    Error, ErrorKind,
    execute::{StepItem, Wanted},
    generate::{GenerateOptions, generate_tokens},
    sample::SamplingParams,
};
use biga_cpu::Kernels;
use biga_tests::{
    fixture::{Checkpoint, folder},
    machine::Setup,
};

fn greedy(max_tokens: usize) -> GenerateOptions {
    let sampling = SamplingParams::GREEDY;
    GenerateOptions { max_tokens, sampling, stop_strings: Vec::new(), end_tokens: Vec::new() }
}

#[test]
fn a_model_file_that_shrinks_is_an_error_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::read("llama").unwrap().write(dir.path()).unwrap();
    let mut engine = Setup::cpu(Kernels::Auto).engine(dir.path()).unwrap();
    let interrupt = AtomicBool::new(false);
    generate_tokens(&mut engine, &[1, 2, 3], &greedy(4), &interrupt, &mut |_| None).unwrap();
    fs::OpenOptions::new().write(true).open(dir.path().join("model.safetensors")).unwrap().set_len(4096).unwrap();
    let error = generate_tokens(&mut engine, &[1, 2, 3], &greedy(4), &interrupt, &mut |_| None).unwrap_err();
    assert!(matches!(error, Error::Load(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Input);
}

#[test]
fn a_model_file_that_is_rewritten_in_place_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::read("llama").unwrap().write(dir.path()).unwrap();
    let mut engine = Setup::cpu(Kernels::Auto).engine(dir.path()).unwrap();
    let path = dir.path().join("model.safetensors");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let interrupt = AtomicBool::new(false);
    let error = generate_tokens(&mut engine, &[1, 2, 3], &greedy(4), &interrupt, &mut |_| None).unwrap_err();
    assert!(matches!(error, Error::Load(_)), "{error}");
}

#[test]
fn a_refused_step_leaves_every_sequence_as_it_was() {
    let mut setup = Setup::cpu(Kernels::Auto);
    (setup.context, setup.max_tokens, setup.max_sequences) = (16, 8, 2);
    let mut engine = setup.engine(&folder("gemma3")).unwrap();
    let (first, second) = (engine.open_sequence().unwrap(), engine.open_sequence().unwrap());
    assert!(engine.open_sequence().is_err(), "two slots");
    let item = |sequence, tokens| StepItem { sequence, tokens, wanted: Wanted::Last };
    engine.step(&[item(first, &[5; 8])]).unwrap();
    engine.step(&[item(first, &[6; 5])]).unwrap();
    let before = engine.step(&[item(second, &[7, 8])]).unwrap().row(0).to_vec();
    engine.truncate(second, 0).unwrap();
    // The second item would pass the context: neither may keep its tokens.
    let error = engine.step(&[item(second, &[7, 8]), item(first, &[9; 4])]).unwrap_err();
    assert!(matches!(error, Error::Kv(_)), "{error}");
    assert_eq!((engine.sequence_len(first).unwrap(), engine.sequence_len(second).unwrap()), (13, 0));
    for bad in [&[item(first, &[1; 9])][..], &[item(first, &[100_000])], &[item(first, &[])], &[]] {
        assert_eq!(engine.step(bad).unwrap_err().kind(), ErrorKind::Usage);
    }
    let after = engine.step(&[item(second, &[7, 8])]).unwrap().row(0).to_vec();
    assert_eq!(before, after, "the same step gives the same logits");
}

#[test]
fn prompts_that_cannot_run_are_refused_with_their_bound() {
    let mut engine = Setup::cpu(Kernels::Auto).engine(&folder("qwen3")).unwrap();
    let interrupt = AtomicBool::new(false);
    for prompt in [&[][..], &[1; 257], &[512]] {
        let error = generate_tokens(&mut engine, prompt, &greedy(1), &interrupt, &mut |_| None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    // A failed generation gives its sequence back.
    for _ in 0..8 {
        generate_tokens(&mut engine, &[1, 2], &greedy(2), &interrupt, &mut |_| None).unwrap();
    }
}

#[test]
fn an_interrupt_stops_between_tokens_and_a_full_context_ends_the_text() {
    let mut setup = Setup::cpu(Kernels::Auto);
    setup.context = 16;
    let mut engine = setup.engine(&folder("mistral")).unwrap();
    let interrupt = AtomicBool::new(false);
    let mut n = 0;
    let stopped = generate_tokens(&mut engine, &[1, 2], &greedy(10), &interrupt, &mut |_| {
        n += 1;
        interrupt.store(n == 3, std::sync::atomic::Ordering::Relaxed);
        None
    });
    let stopped = stopped.unwrap();
    assert_eq!((stopped.finish, stopped.token_ids.len()), (biga::generate::Finish::Interrupted, 3));
    interrupt.store(false, std::sync::atomic::Ordering::Relaxed);
    let full = generate_tokens(&mut engine, &[1, 2], &greedy(100), &interrupt, &mut |_| None).unwrap();
    assert_eq!((full.finish, full.token_ids.len()), (biga::generate::Finish::Context, 15));
}
