//! `biga run`: a prompt becomes a text, streamed.

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, IsTerminal},
    sync::atomic::{AtomicBool, Ordering},
};

use biga::{
    Engine,
    generate::{Finish, GenerateOptions, generate},
    load::{
        Model,
        chat::{Message, RenderOptions},
        error::LoadError,
        tokenizer::Tokenizer,
    },
    sample::SamplingParams,
};

use crate::{
    args::{RunArgs, SamplingArgs},
    exit::{Outcome, input, usage},
    interrupt,
    open::{self, Needs},
    output::{self, note},
    stats, text,
};

/// A longer prompt than any context holds.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let sampling = sampling(&args.sampling)?;
    // Before a prompt is waited for.
    let path = &args.model.model;
    path.metadata().map_err(|error| input(format!("cannot open {}: {error}", path.display())))?;
    let prompt = prompt(args)?;
    let needs = Needs { max_sequences: 1, all_logits: false, context: None };
    let opened = open::open(&args.model, needs)?;
    let model = opened.model.clone();
    let Some(tokenizer) = &model.tokenizer else {
        let path = args.model.model.display();
        return Err(input(format!("{path} has no tokenizer, so it takes no text; biga logits takes token ids")));
    };
    let ids = tokens(&model, tokenizer, &prompt, args.raw)?;
    let (n, context, most) = (ids.len(), opened.plan.limits.context, model.config.max_context);
    if n > context {
        return Err(usage(format!(
            "the prompt has {n} tokens, the context holds {context}; -c raises it, at most to {most}"
        )));
    }
    let stop = interrupt::watch()?;
    let mut engine = opened.allocate()?;
    if sampling.temperature > 0.0 {
        note(format_args!("seed {}", sampling.seed));
    }
    let options = GenerateOptions {
        max_tokens: args.n_predict,
        sampling,
        stop_strings: args.stop.clone(),
        end_tokens: tokenizer.eos_ids().to_vec(),
    };
    generate_to_stdout(&mut engine, tokenizer, &ids, &options, stop, args)
}

fn generate_to_stdout(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    ids: &[u32],
    options: &GenerateOptions,
    stop: &AtomicBool,
    args: &RunArgs,
) -> anyhow::Result<Outcome> {
    let before = engine.stats();
    let mut written = Ok(());
    let generated = generate(engine, tokenizer, ids, options, stop, &mut |text| {
        if written.is_ok() {
            written = output::print(text);
        }
        if written.is_err() {
            // Nobody reads any more: stop at the next token.
            stop.store(true, Ordering::Relaxed);
        }
    })?;
    written?;
    if !args.raw {
        output::print("\n")?;
    } else if io::stdout().is_terminal() {
        note("");
    }
    let interrupted = generated.finish == Finish::Interrupted;
    if args.stats || interrupted {
        note(stats::of_generation(engine, &before, &generated).trim_end());
    }
    Ok(if interrupted { Outcome::Interrupted } else { Outcome::Done })
}

fn sampling(args: &SamplingArgs) -> anyhow::Result<SamplingParams> {
    let params = SamplingParams {
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        // The standard library keys its hasher with the system's randomness.
        seed: args.seed.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()) >> 32),
        ..SamplingParams::GREEDY
    };
    params.check().map_err(biga::Error::from)?;
    Ok(params)
}

fn prompt(args: &RunArgs) -> anyhow::Result<String> {
    let prompt = match (&args.prompt, &args.file) {
        (Some(prompt), _) => prompt.clone(),
        (None, Some(path)) => text::of_file(path, MAX_PROMPT_BYTES)?,
        (None, None) if io::stdin().is_terminal() => {
            return Err(usage("no prompt: give -p TEXT, -f FILE, or a text on standard input"));
        }
        (None, None) => text::of_reader(io::stdin(), "standard input", MAX_PROMPT_BYTES)?,
    };
    if prompt.trim().is_empty() {
        return Err(usage("the prompt is empty; give -p TEXT, -f FILE, or a text on standard input"));
    }
    Ok(prompt)
}

/// The prompt's tokens: through the chat template if there is one and it is wanted.
fn tokens(model: &Model, tokenizer: &Tokenizer, prompt: &str, raw: bool) -> anyhow::Result<Vec<u32>> {
    let template = match &model.chat_template {
        _ if raw => None,
        Ok(Some(template)) => Some(template),
        Ok(None) => {
            let name = &model.config.name;
            note(format_args!("biga: {name} has no chat template: the prompt is continued as it stands"));
            None
        }
        Err(error) => return Err(input(format!("{error}; --raw needs no template"))),
    };
    let text = match template {
        None => prompt.to_owned(),
        Some(template) => {
            let name = |id: Option<u32>| id.map(|id| tokenizer.token_text(id).into_owned()).unwrap_or_default();
            let (bos, eos) = (name(tokenizer.bos()), name(tokenizer.eos_ids().first().copied()));
            let options = RenderOptions { add_generation_prompt: true, bos: &bos, eos: &eos };
            let rendered = template.render(&[Message::new("user", prompt)], options);
            rendered.map_err(|error| input(format!("{error}; --raw needs no template")))?
        }
    };
    Ok(tokenizer.encode(&text, true, true).map_err(|error| biga::Error::from(LoadError::from(error)))?)
}
