//! Tiny random models of all families against transformers' logits, on the CPU and on a Vulkan device.

use std::path::Path;

use biga::{
    Engine,
    execute::{StepItem, Wanted},
    hal::DType,
};
use biga_cpu::Kernels;
use biga_tests::{
    fixture::{Checkpoint, Expected, folder},
    machine::Setup,
};
use safetensors::Dtype;

const FAMILIES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gemma3"];

/// The largest absolute difference for f32 weights and f32 KV.
const F32_TOLERANCE: f32 = 1e-4;

/// Logits of all tokens, fed in steps of `chunk` tokens.
fn logits(engine: &mut Engine, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let sequence = engine.open_sequence().unwrap();
    let mut all = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let logits = engine.step(&[StepItem { sequence, tokens, wanted: Wanted::All }]).unwrap();
        logits.rows().for_each(|row| all.extend_from_slice(row));
    }
    engine.close_sequence(sequence).unwrap();
    all
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |max, d| if d.is_nan() { f32::NAN } else { max.max(d) })
}

/// Checks one engine in one go, token by token, and in uneven chunks past the sliding window's edge.
fn check(what: &str, mut engine: Engine, tokens: &[u32], expected: &[f32], tolerance: f32) {
    for chunk in [tokens.len(), 1, 5] {
        let difference = largest_difference(&logits(&mut engine, tokens, chunk), expected);
        println!("{what}, steps of {chunk}: largest difference {difference:.2e}, tolerance {tolerance:.0e}");
        assert!(difference <= tolerance, "{what}, steps of {chunk}: {difference} > {tolerance}");
    }
}

fn setups() -> Vec<(&'static str, Setup)> {
    let mut setups = vec![("cpu reference", Setup::cpu(Kernels::Reference)), ("cpu auto", Setup::cpu(Kernels::Auto))];
    if let Some(vulkan) = Setup::vulkan() {
        setups.push(("vulkan with attention on the cpu", vulkan.clone().place(&["attention=cpu"])));
        setups.push(("vulkan with ffn on the cpu", vulkan.clone().place(&["ffn=cpu"])));
        setups.push(("vulkan with layers alternating", vulkan.clone().place(&["all:1-1=cpu"])));
        setups.push((
            "vulkan with prefill on the cpu",
            vulkan.clone().place(&["rope@prefill=cpu", "activate@prefill=cpu"]),
        ));
        // Without shared memory: values cross both ways, and the logits lie beside values that were copied.
        let copied = Setup { copies: true, ..vulkan.clone() };
        setups.push(("vulkan with the head on the cpu, by copies", copied.clone().place(&["head=cpu"])));
        setups.push(("vulkan with layers alternating, by copies", copied.place(&["all:1-1=cpu"])));
        setups.push(("vulkan", vulkan));
    }
    for (_, setup) in &mut setups {
        setup.kv = Some(DType::F32);
    }
    setups
}

#[test]
fn tiny_f32_logits_are_those_of_transformers() {
    for (name, setup) in setups() {
        for family in FAMILIES {
            let expected = Expected::read(family).unwrap();
            let engine = setup.engine(&folder(family)).unwrap();
            check(&format!("{family} on {name}"), engine, &expected.input_ids, &expected.logits, F32_TOLERANCE);
        }
    }
}

/// A rounded checkpoint must give what the same rounded values give as F32, and stay near the original.
fn check_rounded(dtype: Dtype, tolerance: f32, near: f32) {
    for family in FAMILIES {
        let expected = Expected::read(family).unwrap();
        let rounded = Checkpoint::read(family).unwrap().rounded(dtype);
        let dir = tempfile::tempdir().unwrap();
        let (narrow, wide) = (dir.path().join("narrow"), dir.path().join("wide"));
        for (path, checkpoint) in [(&narrow, rounded.clone()), (&wide, rounded.widened())] {
            std::fs::create_dir(path).unwrap();
            checkpoint.write(path).unwrap();
        }
        let mut reference = Setup::cpu(Kernels::Reference).engine(&wide).unwrap();
        let wanted = logits(&mut reference, &expected.input_ids, expected.input_ids.len());
        let drift = largest_difference(&wanted, &expected.logits);
        assert!(drift > 0.0 && drift < near, "{family}: rounding moves the logits by {drift}, expected up to {near}");
        for (name, setup) in setups() {
            let engine = setup.engine(&narrow).unwrap();
            check(&format!("{family} {dtype:?} on {name}"), engine, &expected.input_ids, &wanted, tolerance);
        }
    }
}

#[test]
fn tiny_bf16_weights_give_what_their_values_give() {
    check_rounded(Dtype::BF16, 2e-4, 0.3);
}

#[test]
fn tiny_f16_weights_give_what_their_values_give() {
    check_rounded(Dtype::F16, 2e-4, 0.05);
}

#[test]
fn tiny_sharded_and_multimodal_checkpoints_load() {
    let check_folder = |family: &str, path: &Path| {
        let expected = Expected::read(family).unwrap();
        for (name, setup) in setups() {
            let engine = setup.engine(path).unwrap();
            check(&format!("{family} on {name}"), engine, &expected.input_ids, &expected.logits, F32_TOLERANCE);
        }
    };
    for family in FAMILIES {
        let dir = tempfile::tempdir().unwrap();
        Checkpoint::read(family).unwrap().write_sharded(dir.path(), 3).unwrap();
        check_folder(family, dir.path());
    }
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::read("gemma3").unwrap().with_vision_tower().write(dir.path()).unwrap();
    check_folder("gemma3", dir.path());
}

#[test]
fn tiny_greedy_continuations_are_those_of_transformers() {
    for (name, setup) in setups() {
        for family in FAMILIES {
            let expected = Expected::read(family).unwrap();
            let mut engine = setup.engine(&folder(family)).unwrap();
            let n_new = expected.greedy_ids.len() - expected.input_ids.len();
            let options = biga::generate::GenerateOptions {
                max_tokens: n_new,
                sampling: biga::sample::SamplingParams::GREEDY,
                stop_strings: Vec::new(),
                end_tokens: Vec::new(),
            };
            let interrupt = std::sync::atomic::AtomicBool::new(false);
            let prompt = &expected.input_ids;
            let generated =
                biga::generate::generate_tokens(&mut engine, prompt, &options, &interrupt, &mut |_| None).unwrap();
            assert_eq!(generated.token_ids, expected.greedy_ids[prompt.len()..], "{family} on {name}");
        }
    }
}

#[test]
fn tiny_sequences_in_one_step_do_not_see_each_other() {
    for (name, setup) in setups() {
        for family in FAMILIES {
            let expected = Expected::read(family).unwrap();
            let mut engine = setup.engine(&folder(family)).unwrap();
            let tokens = &expected.input_ids;
            let row = |at: usize| &expected.logits[at * expected.vocab..][..expected.vocab];
            let (first, second) = (engine.open_sequence().unwrap(), engine.open_sequence().unwrap());
            let item = |sequence, tokens, wanted| StepItem { sequence, tokens, wanted };
            // Prefill of one, then a mixed step: the first decodes while the second is prefilled.
            engine.step(&[item(first, &tokens[..7], Wanted::None)]).unwrap();
            let items = [item(second, &tokens[..9], Wanted::Last), item(first, &tokens[7..8], Wanted::Last)];
            let logits = engine.step(&items).unwrap();
            for (seen, wanted) in [(logits.row(0), row(8)), (logits.row(1), row(7))] {
                let difference = largest_difference(seen, wanted);
                assert!(difference <= F32_TOLERANCE, "{family} on {name}: {difference}");
            }
            // A rejected draft: wrong tokens, taken back, then the right one.
            engine.step(&[item(first, &[3, 4, 5], Wanted::None)]).unwrap();
            engine.truncate(first, 8).unwrap();
            let items = [item(first, &tokens[8..9], Wanted::Last), item(second, &tokens[9..10], Wanted::Last)];
            let logits = engine.step(&items).unwrap();
            for (seen, wanted) in [(logits.row(0), row(8)), (logits.row(1), row(9))] {
                let difference = largest_difference(seen, wanted);
                assert!(difference <= F32_TOLERANCE, "{family} on {name} after truncation: {difference}");
            }
        }
    }
}
