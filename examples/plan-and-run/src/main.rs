//! Build, print, edit and run a placement plan: `cargo run -- MODEL [PROMPT]`.
//!
//! `MODEL` is a `.gguf` file or a folder with `config.json` and safetensors. A model without a tokenizer
//! is run on token ids, and token ids are printed.

use std::{env, error::Error, sync::Arc, sync::atomic::AtomicBool};

use biga::{
    Engine,
    generate::{GenerateOptions, generate, generate_tokens},
    load::{LoadOptions, Model},
    plan::{Limits, Plan, PlanRequest, Policy},
    probe::Machine,
    sample::SamplingParams,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().ok_or("usage: plan-and-run MODEL [PROMPT]")?;
    let prompt = arguments.next().unwrap_or_else(|| "The capital of France is".to_owned());

    // The application chooses the backends; the library names none.
    let mut machine = Machine::new();
    machine.register(Arc::new(biga_cpu::CpuBackend::default()));
    machine.register(Arc::new(biga_vulkan::VulkanBackend::new()));
    let devices = machine.open(&machine.probe().select(&[]).topology)?;

    let model = Arc::new(Model::load(&path, &LoadOptions::default(), &mut |_| {})?);
    let weights = model.planned_weights();
    let context = model.config.max_context.min(512);
    let plan = Plan::build(&PlanRequest {
        model: &model.config.name,
        graph: &model.graph,
        weights: &weights,
        topology: devices.topology(),
        capabilities: &devices,
        policy: Policy::Auto,
        rules: Vec::new(),
        strict: false,
        limits: Limits { context, max_sequences: 1, max_tokens: context, max_outputs: 1, kv_block_len: 32 },
        kv_dtype: None,
        memory_limit: None,
    })?;
    println!("as planned:\n{}", plan.explain());

    // A plan is a value: an edit gives a new one, decided again around the wish.
    let plan = plan.place("attention=cpu")?;
    println!("with attention on the CPU:\n{}", plan.explain());

    let mut engine = Engine::allocate(&devices, model.clone(), plan, &mut |_| {})?;
    let mut options = GenerateOptions {
        max_tokens: 16,
        sampling: SamplingParams::GREEDY,
        stop_strings: Vec::new(),
        end_tokens: Vec::new(),
    };
    let never = AtomicBool::new(false);
    if let Some(tokenizer) = &model.tokenizer {
        options.end_tokens = tokenizer.eos_ids().to_vec();
        let ids = tokenizer.encode(&prompt, false, true)?;
        print!("{prompt}");
        generate(&mut engine, tokenizer, &ids, &options, &never, &mut |text| print!("{text}"))?;
        println!();
    } else {
        let generated = generate_tokens(&mut engine, &[2, 17, 301, 45], &options, &never, &mut |_| None)?;
        println!("{:?}", generated.token_ids);
    }
    Ok(())
}
