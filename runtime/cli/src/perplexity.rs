//! `biga perplexity`: how well a model predicts a text, by llama-perplexity's method.
//!
//! The text is tokenised once and cut into windows of `-c` tokens. The first token of each window gives
//! way to the beginning mark where the model wants one. Predictions of the second half count, so that
//! each has at least half a window of text before it. The result is the exponential of the mean negative
//! log-likelihood; its error is that of the mean, carried through the exponential.

mod state;

use std::path::Path;

use biga::{
    Engine,
    execute::{StepItem, Wanted},
    load::error::LoadError,
};
use serde_json::json;

use crate::{
    args::PerplexityArgs,
    exit::{Outcome, input, usage},
    interrupt,
    logits::check_finite,
    open::{self, Needs},
    output::{self, JSON_VERSION, note},
    placements,
    progress::Bar,
    text,
};
use state::State;

/// The texts that perplexity is measured on have some MiB.
const MAX_TEXT_BYTES: u64 = 512 << 20;
/// The window if none is typed, as in llama-perplexity.
const DEFAULT_WINDOW: usize = 512;

/// Sums over the scored tokens of finished windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Score {
    /// Negative log-likelihoods, natural.
    nll: f64,
    /// Their squares.
    nll_squares: f64,
    /// Tokens scored.
    n: u64,
}

impl Score {
    fn add(&mut self, nll: f64) {
        self.nll += nll;
        self.nll_squares += nll * nll;
        self.n += 1;
    }

    fn plus(self, other: Score) -> Score {
        Score { nll: self.nll + other.nll, nll_squares: self.nll_squares + other.nll_squares, n: self.n + other.n }
    }

    /// Perplexity and its standard error.
    fn estimate(self) -> (f64, f64) {
        let n = self.n as f64;
        let mean = self.nll / n;
        let variance = self.nll_squares / n - mean * mean;
        let perplexity = mean.exp();
        let error = if variance > 0.0 && self.n > 1 { (variance / (n - 1.0)).sqrt() * perplexity } else { 0.0 };
        (perplexity, error)
    }
}

/// Runs the command.
pub(crate) fn run(args: &PerplexityArgs) -> anyhow::Result<Outcome> {
    let text = text(&args.file)?;
    let window = args.model.placement.context.unwrap_or(DEFAULT_WINDOW);
    if window < 4 {
        return Err(usage(format!("a window of {window} tokens has too little to score, 4 is the least")));
    }
    let opened = open::open(&args.model, Needs { max_sequences: 1, all_logits: true, context: Some(window) })?;
    let model = opened.model.clone();
    let Some(tokenizer) = &model.tokenizer else {
        return Err(input(format!("{} has no tokenizer, so it takes no text", args.model.model.display())));
    };
    let tokens = tokenizer.encode(&text, false, true).map_err(|error| biga::Error::from(LoadError::from(error)))?;
    if tokens.len() < 2 * window {
        let (path, n, least) = (args.file.display(), tokens.len(), 2 * window);
        return Err(input(format!("{path} has {n} tokens; two windows of {window}, so {least}, are needed")));
    }
    let n_windows = args.chunks.unwrap_or(usize::MAX).min(tokens.len() / window);
    let windows = Windows { tokens: &tokens, window, bos: tokenizer.bos().filter(|_| tokenizer.adds_bos()) };
    let mut state = State::open(args.state.as_deref(), &model, &opened.plan, &windows, args)?;
    let stop = interrupt::watch()?;
    let mut engine = opened.allocate()?;
    let bar = Bar::new("perplexity");
    let mut total = state.finished(n_windows).iter().copied().fold(Score::default(), Score::plus);
    let mut scored = state.finished(n_windows).len();
    while scored < n_windows {
        bar.set(scored as f64 / n_windows as f64, &running(total, scored, n_windows));
        match windows.score(&mut engine, scored, || interrupt::requested(stop))? {
            Some(score) => {
                total = total.plus(score);
                state.push(score)?;
                scored += 1;
                if !bar.is_drawn() {
                    note(running(total, scored, n_windows));
                }
            }
            None => {
                drop(bar);
                note(format_args!("interrupted; {}", running(total, scored, n_windows)));
                return Ok(Outcome::Interrupted);
            }
        }
    }
    drop(bar);
    report(args, &engine, total, n_windows, window)?;
    Ok(Outcome::Done)
}

fn report(args: &PerplexityArgs, engine: &Engine, total: Score, n_windows: usize, window: usize) -> anyhow::Result<()> {
    let (perplexity, error) = total.estimate();
    if !perplexity.is_finite() {
        anyhow::bail!("the mean negative log-likelihood is {}: the weights or a kernel are broken", total.nll);
    }
    if !args.json {
        return output::print(&format!("PPL = {perplexity:.4} +/- {error:.5}\n"));
    }
    let model = engine.model();
    output::print_json(&json!({
        "version": JSON_VERSION,
        "model": model.config.name,
        "perplexity": perplexity,
        "stderr": error,
        "n_windows": n_windows,
        "window": window,
        "n_scored": total.n,
        "placements": placements::rows(engine.plan(), &model.graph),
        "fallbacks": engine.stats().fallbacks,
    }))
}

fn running(total: Score, scored: usize, n_windows: usize) -> String {
    if scored == 0 {
        return format!("window 0 of {n_windows}");
    }
    let (perplexity, error) = total.estimate();
    format!("window {scored} of {n_windows}, PPL {perplexity:.4} +/- {error:.4}")
}

/// The text without its last line end, as llama.cpp reads files.
fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = text::of_file(path, MAX_TEXT_BYTES)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// A text cut into windows.
pub(crate) struct Windows<'a> {
    tokens: &'a [u32],
    window: usize,
    bos: Option<u32>,
}

impl Windows<'_> {
    /// Scores one window; `None` if stopped.
    fn score(&self, engine: &mut Engine, index: usize, stopped: impl Fn() -> bool) -> anyhow::Result<Option<Score>> {
        let mut tokens = self.tokens[index * self.window..][..self.window].to_vec();
        if let Some(bos) = self.bos {
            tokens[0] = bos;
        }
        let first = self.window / 2;
        let limits = engine.plan().limits;
        let sequence = engine.open_sequence()?;
        let mut score = Score::default();
        let silent = tokens[..first].chunks(limits.max_tokens).map(|chunk| (chunk, Wanted::None));
        let chunk_len = limits.max_outputs.min(limits.max_tokens);
        // The last token predicts one outside the window.
        let scored = tokens[first..self.window - 1].chunks(chunk_len).map(|chunk| (chunk, Wanted::All));
        let mut position = 0;
        for (chunk, wanted) in silent.chain(scored) {
            if stopped() {
                engine.close_sequence(sequence)?;
                return Ok(None);
            }
            let logits = engine.step(&[StepItem { sequence, tokens: chunk, wanted }])?;
            for (row, logits) in logits.rows().enumerate() {
                check_finite(logits, index * self.window + position + row)?;
                score.add(negative_log_likelihood(logits, tokens[position + row + 1]));
            }
            position += chunk.len();
        }
        engine.close_sequence(sequence)?;
        Ok(Some(score))
    }
}

/// `ln(sum(exp(logits))) - logits[token]`.
fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - max).exp())).sum();
    let chosen = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() - f64::from(chosen - max)
}

#[cfg(test)]
mod tests {
    use super::{Score, negative_log_likelihood};

    #[test]
    fn a_flat_row_has_the_perplexity_of_its_length() {
        let mut score = Score::default();
        (0..10).for_each(|token| score.add(negative_log_likelihood(&[3.0; 50], token)));
        let (perplexity, error) = score.estimate();
        assert!((perplexity - 50.0).abs() < 1e-4, "{perplexity}");
        assert!(error < 1e-3, "{error}");
    }

    #[test]
    fn the_error_is_that_of_the_mean() {
        let mut score = Score::default();
        [1.0, 2.0, 3.0, 4.0].into_iter().for_each(|nll| score.add(nll));
        let (perplexity, error) = score.estimate();
        // Mean 2.5, variance 1.25, error of the mean sqrt(1.25 / 3).
        assert!((perplexity - 2.5_f64.exp()).abs() < 1e-9);
        assert!((error - (1.25_f64 / 3.0).sqrt() * perplexity).abs() < 1e-9);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let nll = negative_log_likelihood(&[1e30, 0.0], 0);
        assert!(nll.abs() < 1e-6, "{nll}");
        assert!(negative_log_likelihood(&[f32::NAN, 0.0], 1).is_nan());
    }
}
