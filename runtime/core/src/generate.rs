//! Generate: a prompt becomes a text, one sequence, token by token.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    Engine, Error, Result,
    execute::{DecodeItem, SampledOn, SequenceId, StepItem, Wanted},
    load::tokenizer::{StopMatcher, TokenStream, Tokenizer},
    sample::{Sampler, SamplingParams},
};

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Texts that end the generation and are not shown.
    pub stop_strings: Vec<String>,
    /// Tokens that end the generation and are not shown.
    pub end_tokens: Vec<u32>,
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model chose an end token.
    EndToken,
    /// This stop string came.
    StopString(String),
    /// As many tokens as asked.
    Length,
    /// The context is full.
    Context,
    /// The caller's flag.
    Interrupted,
}

/// What a generation did, and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Chosen tokens; an end token is not among them.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Until the first token was chosen; zero if the prompt was interrupted.
    pub prompt_time: Duration,
    /// From then on.
    pub decode_time: Duration,
    /// Decode steps whose tokens were taken.
    pub n_decode_steps: usize,
    /// Who chose the tokens.
    pub sampled_on: SampledOn,
}

impl Generated {
    /// Prompt tokens per second; `None` if the prompt was not run to its end.
    pub fn prompt_tokens_per_s(&self) -> Option<f64> {
        rate(self.n_prompt, self.prompt_time)
    }

    /// Decoded tokens per second; `None` if there was no decode step.
    pub fn decode_tokens_per_s(&self) -> Option<f64> {
        rate(self.n_decode_steps, self.decode_time)
    }
}

fn rate(n: usize, time: Duration) -> Option<f64> {
    (n > 0 && !time.is_zero()).then(|| n as f64 / time.as_secs_f64())
}

/// Generates from token ids to token ids, without a tokenizer. `on_token` sees each token and may end
/// the generation by naming a finish.
///
/// # Errors
/// An empty prompt, a prompt longer than the context, a model file that changed meanwhile, or the step's own.
pub fn generate_tokens(
    engine: &mut Engine,
    prompt: &[u32],
    options: &GenerateOptions,
    interrupt: &AtomicBool,
    on_token: &mut dyn FnMut(u32) -> Option<Finish>,
) -> Result<Generated> {
    let context = engine.plan().limits.context;
    if prompt.is_empty() {
        return Err(Error::Invalid("no tokens to go on from: prompt and chat template gave none".to_owned()));
    }
    if prompt.len() > context {
        return Err(Error::Limit { what: "prompt tokens", asked: prompt.len(), most: context });
    }
    options.sampling.check()?;
    let sequence = engine.open_sequence()?;
    let generated = Run { engine, sequence, options, interrupt, on_token }.run(prompt);
    let closed = engine.close_sequence(sequence);
    // A step that failed may have ended the sequence itself; why it failed is the better answer.
    let generated = generated?;
    closed?;
    // A step notices a file that shrank; one that was rewritten in place shows only in its metadata.
    engine.model().weights.check()?;
    Ok(generated)
}

/// Generates text. `on_text` sees it piece by piece, never a part of a character, never a stop string.
///
/// # Errors
/// As [`generate_tokens`].
pub fn generate(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    options: &GenerateOptions,
    interrupt: &AtomicBool,
    on_text: &mut dyn FnMut(&str),
) -> Result<Generated> {
    let mut stream = TokenStream::continuing(tokenizer);
    let mut stops = StopMatcher::new(options.stop_strings.clone());
    let generated = generate_tokens(engine, prompt, options, interrupt, &mut |token| {
        let released = stops.push(stream.push(token));
        if !released.text.is_empty() {
            on_text(released.text);
        }
        released.stop.map(|stop| Finish::StopString(options.stop_strings[stop].clone()))
    })?;
    // What was held back: an unfinished character, the beginning of a stop string that never came.
    for rest in [stops.push(stream.finish()).text.to_owned(), stops.finish().to_owned()] {
        if !rest.is_empty() {
            on_text(&rest);
        }
    }
    Ok(generated)
}

struct Run<'a> {
    engine: &'a mut Engine,
    sequence: SequenceId,
    options: &'a GenerateOptions,
    interrupt: &'a AtomicBool,
    on_token: &'a mut dyn FnMut(u32) -> Option<Finish>,
}

impl Run<'_> {
    fn run(self, prompt: &[u32]) -> Result<Generated> {
        let sampled_on = self.engine.sampled_on(&self.options.sampling);
        tracing::debug!(%sampled_on, "tokens are chosen");
        let mut generated = Generated {
            token_ids: Vec::with_capacity(self.options.max_tokens.min(self.engine.plan().limits.context)),
            finish: Finish::Interrupted,
            n_prompt: prompt.len(),
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
            n_decode_steps: 0,
            sampled_on,
        };
        let start = Instant::now();
        // The last chunk, of at least one token, is the first step of which a token is chosen.
        let chunk = self.engine.plan().limits.max_tokens;
        let (silent, last) = prompt.split_at((prompt.len() - 1) / chunk * chunk);
        for tokens in silent.chunks(chunk) {
            if self.interrupted() {
                return Ok(generated);
            }
            self.engine.step(&[StepItem { sequence: self.sequence, tokens, wanted: Wanted::None }])?;
        }
        // A rate of the whole prompt over the time of a part of it would be false.
        if !self.interrupted() {
            match sampled_on {
                SampledOn::Device(_) => self.on_device(last, start, &mut generated)?,
                SampledOn::Host(_) => self.on_host(prompt, last, start, &mut generated)?,
            }
        }
        Ok(generated)
    }

    /// Runs ahead of the tokens, which the device chooses.
    fn on_device(self, last: &[u32], start: Instant, generated: &mut Generated) -> Result<()> {
        let Run { engine, sequence, options, interrupt, on_token } = self;
        let room = engine.plan().limits.context - generated.n_prompt;
        let n_steps = options.max_tokens.clamp(1, room + 1);
        let item = DecodeItem { sequence, tokens: last, sampling: options.sampling };
        let mut decoding = None;
        generated.finish = Finish::Context;
        let n_seen = engine.decode(&[item], n_steps, &mut |tokens| {
            if decoding.is_none() {
                generated.prompt_time = start.elapsed();
                decoding = Some(Instant::now());
            }
            match tokens.iter().find_map(|&token| generated.take(token, options, interrupt, on_token)) {
                Some(finish) => {
                    generated.finish = finish;
                    ControlFlow::Break(())
                }
                None => ControlFlow::Continue(()),
            }
        })?;
        generated.n_decode_steps = n_seen.saturating_sub(1);
        generated.decode_time = decoding.map_or(Duration::ZERO, |decoding| decoding.elapsed());
        Ok(())
    }

    /// Copies each step's logits and chooses from them.
    fn on_host(self, prompt: &[u32], last: &[u32], start: Instant, generated: &mut Generated) -> Result<()> {
        let Run { engine, sequence, options, interrupt, on_token } = self;
        let mut sampler = Sampler::new(options.sampling, engine.model().config.vocab)?;
        prompt.iter().for_each(|&token| sampler.accept(token));
        let logits = engine.step(&[StepItem { sequence, tokens: last, wanted: Wanted::Last }])?;
        let mut token = sampler.sample(logits.row(0), prompt.len() - 1, None)?;
        generated.prompt_time = start.elapsed();
        let decoding = Instant::now();
        generated.finish = loop {
            sampler.accept(token);
            if let Some(finish) = generated.take(token, options, interrupt, on_token) {
                break finish;
            }
            let position = engine.sequence_len(sequence)?;
            if position >= engine.plan().limits.context {
                break Finish::Context;
            }
            let item = StepItem { sequence, tokens: &[token], wanted: Wanted::Last };
            token = sampler.sample(engine.step(&[item])?.row(0), position, None)?;
            generated.n_decode_steps += 1;
        };
        generated.decode_time = decoding.elapsed();
        Ok(())
    }

    fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

impl Generated {
    /// Takes a chosen token, and says whether the text ends with it.
    fn take(
        &mut self,
        token: u32,
        options: &GenerateOptions,
        interrupt: &AtomicBool,
        on_token: &mut dyn FnMut(u32) -> Option<Finish>,
    ) -> Option<Finish> {
        if options.max_tokens == 0 {
            return Some(Finish::Length);
        }
        if options.end_tokens.contains(&token) {
            return Some(Finish::EndToken);
        }
        self.token_ids.push(token);
        if let Some(finish) = on_token(token) {
            return Some(finish);
        }
        if self.token_ids.len() >= options.max_tokens {
            return Some(Finish::Length);
        }
        interrupt.load(Ordering::Relaxed).then_some(Finish::Interrupted)
    }
}
