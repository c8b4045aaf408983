//! What was typed becomes what is resolved: devices, model, limits, plan, engine.

use std::{sync::Arc, thread};

use biga::{
    Engine,
    load::{LoadOptions, Model, Progress},
    plan::{Fallback, Limits, Plan, PlanRequest},
    probe::{OpenDevices, Topology},
};

use crate::{
    args::{MachineArgs, ModelArgs},
    devices,
    exit::{CliError, usage},
    output::note,
    progress::Bar,
};

/// The context if the user names none and the model has more.
const DEFAULT_CONTEXT: usize = 4096;
/// Tokens of a prompt that one step takes.
const CHUNK: usize = 512;
/// Positions in a KV block: small enough to waste little, large enough that tables stay small.
const KV_BLOCK_LEN: usize = 32;
/// Bytes that the logits of one step may take where every row is wanted.
const LOGITS_BYTES: usize = 64 << 20;

/// What a command needs of the engine beyond what was typed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Sequences at once.
    pub(crate) max_sequences: usize,
    /// Whether every row of a step may want logits, not one of each sequence.
    pub(crate) all_logits: bool,
    /// Tokens that must fit, if the command knows; it becomes the context where none is typed.
    pub(crate) context: Option<usize>,
}

/// A model on open devices, planned.
pub(crate) struct Opened {
    pub(crate) model: Arc<Model>,
    pub(crate) devices: OpenDevices,
    pub(crate) plan: Plan,
}

impl Opened {
    /// Places the model: everything up to here touched no device memory.
    ///
    /// # Errors
    /// The engine's own.
    pub(crate) fn allocate(self) -> biga::Result<Engine> {
        warn_of_fallbacks(&self.plan);
        let bar = Bar::new("placing");
        Engine::allocate(&self.devices, self.model, self.plan, &mut |progress| show(&bar, progress))
    }
}

/// Opens devices, loads the model and plans it.
///
/// # Errors
/// A named device that is missing under `--strict`, a model that does not load, limits out of range, no plan.
pub(crate) fn open(args: &ModelArgs, needs: Needs) -> anyhow::Result<Opened> {
    let (devices, model) = devices_and_model(args)?;
    if let Some(quantize) = args.placement.quantize
        && model.weights.iter().all(|weight| weight.is_mapped() || weight.dtype != quantize.dtype())
    {
        let path = args.model.display();
        note(format_args!(
            "biga: warning: --quantize changes nothing: no weight of {path} is plain in rows of whole blocks"
        ));
    }
    let limits = limits(args, &model, needs)?;
    let weights = model.planned_weights();
    let request = PlanRequest {
        model: &model.config.name,
        graph: &model.graph,
        weights: &weights,
        topology: devices.topology(),
        capabilities: &devices,
        policy: args.placement.policy,
        rules: args.placement.place.clone(),
        strict: args.placement.strict,
        limits,
        kv_dtype: args.placement.kv_type,
        memory_limit: args.placement.memory_limit,
    };
    let plan = Plan::build(&request).map_err(biga::Error::from)?;
    Ok(Opened { model: Arc::new(model), devices, plan })
}

/// Devices and model know nothing of each other, so they are made ready at the same time; but quantising takes so
/// long that a missing device is to be told before.
fn devices_and_model(args: &ModelArgs) -> anyhow::Result<(OpenDevices, Model)> {
    let devices = || open_devices(&args.machine, args.placement.strict);
    if args.placement.quantize.is_some() {
        return Ok((devices()?, load(args)?));
    }
    thread::scope(|scope| {
        let devices = scope.spawn(devices);
        let model = load(args);
        let devices = devices.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((devices, model?))
    })
}

/// One line for each device that was asked for in vain, with the first cause.
fn warn_of_fallbacks(plan: &Plan) {
    let mut told: Vec<&str> = Vec::new();
    for Fallback { wanted, ran_on, cause, .. } in &plan.fallbacks {
        if !told.contains(&wanted.as_str()) {
            told.push(wanted);
            note(format_args!(
                "biga: warning: ops wanted on {wanted} run on {ran_on}: {cause} (--strict refuses that)"
            ));
        }
    }
}

fn open_devices(args: &MachineArgs, strict: bool) -> anyhow::Result<OpenDevices> {
    let (machine, _) = devices::machine(args, false)?;
    let selection = machine.probe().select(&args.devices);
    for (name, cause) in &selection.missing {
        missing(name, cause, strict)?;
    }
    let opened = machine.open(&selection.topology)?;
    for info in &selection.topology.devices {
        let named = !args.devices.is_empty() && opened.topology().device(info.id).is_none();
        if named {
            missing(&info.id.to_string(), &cause(opened.topology(), info.id.backend), strict)?;
        }
    }
    Ok(opened)
}

fn missing(name: &str, cause: &str, strict: bool) -> anyhow::Result<()> {
    if strict {
        return Err(CliError::DeviceUnavailable(format!(
            "device {name} is not available: {cause}; drop --strict to go on without it, `biga probe` lists devices"
        ))
        .into());
    }
    note(format_args!("biga: warning: device {name} is not available: {cause}"));
    Ok(())
}

/// Why the last device of a backend was left out.
fn cause(topology: &Topology, backend: &str) -> String {
    let last = topology.unavailable.iter().rev().find(|(known, _)| *known == backend);
    last.map_or_else(|| "it does not open".to_owned(), |(_, unavailable)| unavailable.cause.clone())
}

fn load(args: &ModelArgs) -> anyhow::Result<Model> {
    let bar = Bar::new("loading");
    let options = LoadOptions { quantize: args.placement.quantize };
    Model::load(&args.model, &options, &mut |progress| show(&bar, progress)).map_err(|error| {
        let path = args.model.display().to_string();
        let named = error.to_string().contains(&path);
        let error = anyhow::Error::from(biga::Error::from(error));
        if named { error } else { error.context(path) }
    })
}

fn show(bar: &Bar, Progress { done_bytes, total_bytes }: Progress) {
    if total_bytes > 0 {
        bar.set(done_bytes as f64 / total_bytes as f64, "");
    }
}

fn limits(args: &ModelArgs, model: &Model, needs: Needs) -> anyhow::Result<Limits> {
    let most = model.config.max_context;
    let asked = args.placement.context.or(needs.context);
    let context = asked.unwrap_or(DEFAULT_CONTEXT.min(most));
    if context > most {
        return Err(usage(format!(
            "{context} tokens of context are needed, {} was made for {most}; {}",
            model.config.name,
            if args.placement.context.is_some() { "lower -c" } else { "give -c, or fewer tokens" }
        )));
    }
    if let Some(needed) = needs.context.filter(|&needed| needed > context) {
        return Err(usage(format!("{needed} tokens must fit, the context is {context}; raise -c")));
    }
    let max_tokens = CHUNK.max(needs.max_sequences).min(context.max(needs.max_sequences));
    let max_outputs = if needs.all_logits {
        (LOGITS_BYTES / (4 * model.config.vocab.max(1))).clamp(1, max_tokens)
    } else {
        needs.max_sequences
    };
    Ok(Limits { context, max_sequences: needs.max_sequences, max_tokens, max_outputs, kv_block_len: KV_BLOCK_LEN })
}
