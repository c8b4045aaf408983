//! Generate: a prompt becomes a text, one sequence, token by token.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    Engine, Error, Result,
    execute::{SequenceId, StepItem, Wanted},
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
    /// Decode steps run.
    pub n_decode_steps: usize,
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
    let mut sampler = Sampler::new(options.sampling, engine.model().config.vocab)?;
    prompt.iter().for_each(|&token| sampler.accept(token));
    let sequence = engine.open_sequence()?;
    let generated = Run { engine, sequence, sampler, options, interrupt }.run(prompt, on_token);
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
    sampler: Sampler,
    options: &'a GenerateOptions,
    interrupt: &'a AtomicBool,
}

impl Run<'_> {
    fn run(mut self, prompt: &[u32], on_token: &mut dyn FnMut(u32) -> Option<Finish>) -> Result<Generated> {
        let start = Instant::now();
        let mut generated = Generated {
            token_ids: Vec::with_capacity(self.options.max_tokens.min(self.engine.plan().limits.context)),
            finish: Finish::Length,
            n_prompt: prompt.len(),
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
            n_decode_steps: 0,
        };
        let first = self.prefill(prompt)?;
        let Some(first) = first else {
            // A rate of the whole prompt over the time of a part of it would be false.
            generated.finish = Finish::Interrupted;
            return Ok(generated);
        };
        generated.prompt_time = start.elapsed();
        let decoding = Instant::now();
        generated.finish = self.decode(first, &mut generated, on_token)?;
        generated.decode_time = decoding.elapsed();
        Ok(generated)
    }

    /// Runs the prompt in chunks and chooses the first token; `None` if interrupted.
    fn prefill(&mut self, prompt: &[u32]) -> Result<Option<u32>> {
        let chunk = self.engine.plan().limits.max_tokens;
        let n_chunks = prompt.len().div_ceil(chunk);
        for (index, tokens) in prompt.chunks(chunk).enumerate() {
            if self.interrupted() {
                return Ok(None);
            }
            let wanted = if index + 1 == n_chunks { Wanted::Last } else { Wanted::None };
            let logits = self.engine.step(&[StepItem { sequence: self.sequence, tokens, wanted }])?;
            if wanted == Wanted::Last {
                return Ok(Some(self.sampler.sample(logits.row(0), prompt.len() - 1, None)?));
            }
        }
        Ok(None)
    }

    fn decode(
        &mut self,
        first: u32,
        generated: &mut Generated,
        on_token: &mut dyn FnMut(u32) -> Option<Finish>,
    ) -> Result<Finish> {
        let mut token = first;
        loop {
            if self.options.max_tokens == 0 {
                return Ok(Finish::Length);
            }
            if self.options.end_tokens.contains(&token) {
                return Ok(Finish::EndToken);
            }
            generated.token_ids.push(token);
            self.sampler.accept(token);
            if let Some(finish) = on_token(token) {
                return Ok(finish);
            }
            if generated.token_ids.len() >= self.options.max_tokens {
                return Ok(Finish::Length);
            }
            if self.interrupted() {
                return Ok(Finish::Interrupted);
            }
            let position = self.engine.sequence_len(self.sequence)?;
            if position >= self.engine.plan().limits.context {
                return Ok(Finish::Context);
            }
            let item = StepItem { sequence: self.sequence, tokens: &[token], wanted: Wanted::Last };
            token = self.sampler.sample(self.engine.step(&[item])?.row(0), position, None)?;
            generated.n_decode_steps += 1;
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}
