//! Loading weights into a device: several threads at once, and what ends them.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use biga::{
    Engine, Error, ErrorKind,
    generate::{GenerateOptions, generate_tokens},
    hal::{self, DeviceId},
    load::{LoadOptions, Model, Progress},
    plan::Policy,
    probe::Machine,
    sample::SamplingParams,
};
use biga_cpu::Kernels;
use biga_tests::{
    disguise::{BeforeLoad, Disguise, Disguises},
    fixture::{Checkpoint, folder},
    machine::Setup,
};

/// What came of an allocation.
struct Ran {
    engine: biga::Result<Engine>,
    progress: Vec<Progress>,
    n_loads: usize,
    n_weights: usize,
}

/// Makes an engine on a device with memory of its own. `before` gets how many parts were asked for before.
fn allocate(path: &Path, compiles: bool, before: impl Fn(usize) -> hal::Result<()> + Send + Sync + 'static) -> Ran {
    let n_loads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_loads);
    let before_load = Some(BeforeLoad(Arc::new(move || before(counted.fetch_add(1, Ordering::Relaxed)))));
    let mut machine = Machine::new();
    machine.register(Arc::new(Disguises(vec![Disguise { before_load, compiles, ..Disguise::default() }])));
    let open = machine.open(&machine.probe()).unwrap();
    let model = Arc::new(Model::load(path, &LoadOptions::default(), &mut |_| {}).unwrap());
    let plan = Setup { policy: Policy::Gpu, ..Setup::cpu(Kernels::Auto) }.plan(&model, &open).unwrap();
    let n_weights = model.weights.iter().len();
    let mut progress = Vec::new();
    let engine = Engine::allocate(&open, model, plan, &mut |step| progress.push(step));
    Ran { engine, progress, n_loads: n_loads.load(Ordering::Relaxed), n_weights }
}

fn text(engine: &mut Engine) -> Vec<u32> {
    let sampling = SamplingParams::GREEDY;
    let options = GenerateOptions { max_tokens: 8, sampling, stop_strings: Vec::new(), end_tokens: Vec::new() };
    generate_tokens(engine, &[1, 2, 3], &options, &AtomicBool::new(false), &mut |_| None).unwrap().token_ids
}

#[test]
fn loaded_weights_compute_what_mapped_ones_do_and_progress_grows_to_its_end() {
    let path = folder("gemma3");
    let ran = allocate(&path, true, |_| Ok(()));
    let mut engine = ran.engine.unwrap();
    assert_eq!(text(&mut engine), text(&mut Setup::cpu(Kernels::Auto).engine(&path).unwrap()));
    assert!(ran.n_loads >= ran.n_weights, "{} loads of {} weights", ran.n_loads, ran.n_weights);
    let done: Vec<u64> = ran.progress.iter().map(|step| step.done_bytes).collect();
    assert!(done.is_sorted() && done.len() > 2, "{done:?}");
    assert_eq!(done.last().copied(), ran.progress.last().map(|step| step.total_bytes));
    assert!(ran.progress.iter().all(|step| step.total_bytes == ran.progress[0].total_bytes));
}

#[test]
fn a_device_that_is_lost_ends_all_threads_with_its_error() {
    const FATAL: usize = 3;
    let ran = allocate(&folder("llama"), true, |n| {
        if n > FATAL {
            // Long enough to hear of the error before the next part.
            thread::sleep(Duration::from_millis(50));
        }
        let device = DeviceId { backend: "vulkan", index: 0 };
        if n == FATAL { Err(hal::Error::DeviceLost { device, cause: "while loading".to_owned() }) } else { Ok(()) }
    });
    let error = ran.engine.unwrap_err();
    assert!(error.to_string().contains("while loading"), "{error}");
    // Every other thread may be within a part.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    assert!(ran.n_loads <= FATAL + cores, "{} loads of {} weights", ran.n_loads, ran.n_weights);
    let last = ran.progress.last().unwrap();
    assert!(last.done_bytes < last.total_bytes, "what was not loaded was counted");
}

#[test]
fn a_file_that_shrinks_while_it_is_loaded_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::read("llama").unwrap().write(dir.path()).unwrap();
    let path = dir.path().join("model.safetensors");
    let ran = allocate(dir.path(), true, move |n| {
        if n == 2 {
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
        }
        Ok(())
    });
    let error = ran.engine.unwrap_err();
    assert!(matches!(error, Error::Load(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Input);
}

#[test]
fn a_segment_that_does_not_compile_is_the_error() {
    let ran = allocate(&folder("llama"), false, |_| Ok(()));
    assert!(matches!(ran.engine.unwrap_err(), Error::Device(hal::Error::DeviceLost { .. })));
}
