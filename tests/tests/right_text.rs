//! Text of real models: the same as llama.cpp's on the CPU, and right on every device and mix.
//!
//! The models are named by `BIGA_SMOLLM2` and `BIGA_GEMMA3`. `golden/*.json` holds what llama.cpp said
//! (its build is in the file) to twelve prompts: greedy, 32 tokens. With `BIGA_FULL` set every prompt
//! runs on a software GPU too, with the kernels for GPUs as well, else the first three.
//!
//! Where activations are rounded to 8 bits, all prompts together must be right; a single one has too few
//! tokens to tell 95 % from 94 %. On a software GPU, which keeps f32, each one must be.

use std::{
    env,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use biga::{
    Engine,
    execute::{DecodeItem, StepItem, Wanted},
    generate::{GenerateOptions, Generated, generate},
    load::{LoadOptions, Model},
    sample::SamplingParams,
};
use biga_cpu::Kernels;
use biga_tests::{
    choice::{by_device, by_host, samplings},
    machine::Setup,
    right::{Verdict, judge},
};

const N_TOKENS: usize = 32;

#[derive(serde::Deserialize)]
struct Golden {
    prompt: String,
    text: String,
}

fn golden(name: &str) -> Vec<Golden> {
    let path = biga_tests::folder().join("golden").join(name);
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    serde_json::from_value(file["texts"].clone()).unwrap()
}

/// The model that an environment variable names; `None`, with the reason printed, if it is not set.
fn model(variable: &str) -> Option<Arc<Model>> {
    let Some(path) = env::var_os(variable).map(PathBuf::from) else {
        println!("skipped: {variable} names no model file");
        return None;
    };
    Some(Arc::new(Model::load(&path, &LoadOptions::default(), &mut |_| {}).unwrap()))
}

fn continue_prompt(engine: &mut Engine, prompt: &str) -> (Vec<u32>, Generated, String) {
    let model = Arc::clone(engine.model());
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let ids = tokenizer.encode(prompt, true, tokenizer.adds_bos()).unwrap();
    let options = GenerateOptions {
        max_tokens: N_TOKENS,
        sampling: SamplingParams::GREEDY,
        stop_strings: Vec::new(),
        end_tokens: tokenizer.eos_ids().to_vec(),
    };
    let mut text = String::new();
    let interrupt = AtomicBool::new(false);
    let generated = generate(engine, tokenizer, &ids, &options, &interrupt, &mut |piece| text.push_str(piece)).unwrap();
    (ids, generated, text)
}

fn check_same_text(variable: &str, golden_file: &str) {
    let Some(model) = model(variable) else { return };
    let golden = golden(golden_file);
    let mut engine = Setup::cpu(Kernels::Auto).engine_of(model).unwrap();
    let mut n_same = 0;
    for Golden { prompt, text } in &golden {
        let (_, _, ours) = continue_prompt(&mut engine, prompt);
        let same = ours.trim() == text.trim();
        n_same += usize::from(same);
        println!("{} {prompt:?}", if same { "same     " } else { "different" });
        if !same {
            println!("  ours   {ours:?}\n  theirs {text:?}");
        }
    }
    assert!(n_same >= 9, "{n_same} of {} texts are llama.cpp's, at least 9 wanted", golden.len());
}

#[test]
fn same_text_smollm2_on_the_cpu_says_what_llama_cpp_says() {
    check_same_text("BIGA_SMOLLM2", "smollm2.json");
}

#[test]
fn same_text_gemma3_on_the_cpu_says_what_llama_cpp_says() {
    check_same_text("BIGA_GEMMA3", "gemma3-270m.json");
}

/// Judges the texts of one setup by the plain f32 reference.
fn check_right(model: &Arc<Model>, golden_file: &str, name: &str, setup: &Setup, n_prompts: usize, each: bool) {
    let mut reference = Setup::cpu(Kernels::Reference).engine_of(model.clone()).unwrap();
    let mut engine = setup.engine_of(model.clone()).unwrap();
    let mut all = Verdict::default();
    for Golden { prompt, .. } in golden(golden_file).iter().take(n_prompts) {
        let (ids, generated, text) = continue_prompt(&mut engine, prompt);
        let verdict = judge(&mut reference, &ids, &generated.token_ids).unwrap();
        println!("{name}: {} of {} best, {} near: {prompt:?} -> {text:?}", verdict.n_best, verdict.n, verdict.n_near);
        assert!(verdict.is_right() || !each, "{name}: {prompt:?}: {verdict:?}");
        all.add(verdict);
    }
    assert!(all.is_right(), "{name}: {all:?}");
}

/// What the streams say that decode together, one a prompt, each up to its end.
fn continue_together(engine: &mut Engine, prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let model = Arc::clone(engine.model());
    let ends = model.tokenizer.as_ref().unwrap().eos_ids().to_vec();
    let sequences: Vec<_> = prompts.iter().map(|_| engine.open_sequence().unwrap()).collect();
    let items = sequences.iter().zip(prompts).map(|(&sequence, prompt)| {
        let (last, before) = prompt.split_last().unwrap();
        engine.step(&[StepItem { sequence, tokens: before, wanted: Wanted::None }]).unwrap();
        DecodeItem { sequence, tokens: std::slice::from_ref(last), sampling: SamplingParams::GREEDY }
    });
    let items: Vec<_> = items.collect();
    let mut texts = vec![Vec::new(); prompts.len()];
    let mut on_tokens = |tokens: &[u32]| {
        texts.iter_mut().zip(tokens).for_each(|(text, &token)| text.push(token));
        ControlFlow::Continue(())
    };
    engine.decode(&items, N_TOKENS, &mut on_tokens).unwrap();
    for text in &mut texts {
        text.truncate(text.iter().position(|token| ends.contains(token)).unwrap_or(text.len()));
    }
    sequences.into_iter().for_each(|sequence| engine.close_sequence(sequence).unwrap());
    texts
}

/// Streams that decode together say what is right, and the same when they do it again.
fn check_streams(model: &Arc<Model>, golden_file: &str, setup: &Setup, n_streams: usize) {
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let golden = golden(golden_file);
    let prompts = golden.iter().cycle().take(n_streams);
    let prompts: Vec<_> =
        prompts.map(|one| tokenizer.encode(&one.prompt, true, tokenizer.adds_bos()).unwrap()).collect();
    let mut engine = Setup { max_sequences: n_streams, ..setup.clone() }.engine_of(model.clone()).unwrap();
    let texts = continue_together(&mut engine, &prompts);
    assert_eq!(continue_together(&mut engine, &prompts), texts, "{n_streams} streams, once more");
    let mut reference = Setup::cpu(Kernels::Reference).engine_of(model.clone()).unwrap();
    let mut all = Verdict::default();
    for (index, (prompt, text)) in prompts.iter().zip(&texts).enumerate() {
        if let Some(same) = texts[..index].get(index.wrapping_sub(golden.len())) {
            // Streams of one prompt differ in nothing but their place.
            assert_eq!(text, same, "stream {index} of {n_streams}");
        } else {
            all.add(judge(&mut reference, prompt, text).unwrap());
        }
    }
    println!("{n_streams} streams: {} of {} best, {} near", all.n_best, all.n, all.n_near);
    assert!(all.is_right(), "{n_streams} streams: {all:?}");
}

fn mixes(vulkan: &Setup) -> [(&'static str, Setup); 2] {
    let vulkan = Setup { vulkan_kernels: biga_vulkan::Kernels::Software, ..vulkan.clone() };
    let mixed = vulkan.clone().place(&["attention=cpu", "ffn=gpu"]);
    [("gpu", vulkan), ("attention=cpu,ffn=gpu", mixed)]
}

fn check_right_everywhere(variable: &str, golden_file: &str) {
    let Some(model) = model(variable) else { return };
    check_right(&model, golden_file, "cpu", &Setup::cpu(Kernels::Auto), 12, false);
    let Some(vulkan) = Setup::vulkan() else { return };
    let full = env::var_os("BIGA_FULL").is_some();
    let n_prompts = if full { 12 } else { 3 };
    for (name, setup) in mixes(&vulkan) {
        check_right(&model, golden_file, name, &setup, n_prompts, true);
    }
    if full {
        let gpu = Setup { vulkan_kernels: biga_vulkan::Kernels::Gpu, ..vulkan };
        check_right(&model, golden_file, "kernels for GPUs", &gpu, 12, false);
    }
}

fn check_streams_on_a_gpu(variable: &str, golden_file: &str) {
    let (Some(model), Some(vulkan)) = (model(variable), Setup::vulkan()) else { return };
    let gpu = Setup { vulkan_kernels: biga_vulkan::Kernels::Gpu, ..vulkan };
    // Each has product kernels of its own.
    let streams: &[usize] = if env::var_os("BIGA_FULL").is_some() { &[2, 4, 8, 16, 32] } else { &[3] };
    for &n_streams in streams {
        check_streams(&model, golden_file, &gpu, n_streams);
    }
}

#[test]
fn streams_of_smollm2_are_right_and_the_same_again() {
    check_streams_on_a_gpu("BIGA_SMOLLM2", "smollm2.json");
}

#[test]
fn streams_of_gemma3_are_right_and_the_same_again() {
    check_streams_on_a_gpu("BIGA_GEMMA3", "gemma3-270m.json");
}

#[test]
fn right_text_smollm2_is_right_on_every_device() {
    check_right_everywhere("BIGA_SMOLLM2", "smollm2.json");
}

#[test]
fn right_text_gemma3_is_right_on_every_device() {
    check_right_everywhere("BIGA_GEMMA3", "gemma3-270m.json");
}

#[test]
fn the_same_text_comes_whoever_chooses() {
    let Some(model) = model("BIGA_SMOLLM2") else { return };
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let texts = ["The capital of France is", "def fibonacci(n):", "Once upon a time there was a"];
    let prompts: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text, true, true).unwrap()).collect();
    let mut setups = vec![("cpu", Setup::cpu(Kernels::Auto))];
    if let Some(vulkan) = Setup::vulkan() {
        setups.push(("kernels for GPUs", Setup { vulkan_kernels: biga_vulkan::Kernels::Gpu, ..vulkan.clone() }));
        setups.push(("vulkan", vulkan));
    }
    for (name, setup) in setups {
        let mut engine = setup.engine_of(Arc::clone(&model)).unwrap();
        for (prompt, sampling) in prompts.chunks(1).zip([samplings()[0], samplings()[3], samplings()[1]]) {
            let expected = by_host(&mut engine, prompt, sampling, 16);
            assert_eq!(by_device(&mut engine, prompt, sampling, 5, 16), expected, "{name}, {sampling:?}");
        }
    }
}
