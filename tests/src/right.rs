//! The judge of texts: is an emitted text what the plain f32 reference would say?

use anyhow::Result;
use biga::{
    Engine,
    execute::{StepItem, Wanted},
};

/// How a text fares against the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Emitted tokens.
    pub n: usize,
    /// Of them, those that are the reference's maximum.
    pub n_best: usize,
    /// Of them, those within 0.5 logit of the maximum.
    pub n_near: usize,
}

impl Verdict {
    /// Sums up.
    pub fn add(&mut self, other: Verdict) {
        self.n += other.n;
        self.n_best += other.n_best;
        self.n_near += other.n_near;
    }

    /// At least 95 % the maximum, at least 99 % within 0.5 logit of it.
    pub fn is_right(&self) -> bool {
        self.n > 0 && self.n_best * 100 >= self.n * 95 && self.n_near * 100 >= self.n * 99
    }
}

/// Forces `prompt` and `emitted` through the reference engine.
///
/// # Errors
/// The engine's own.
pub fn judge(reference: &mut Engine, prompt: &[u32], emitted: &[u32]) -> Result<Verdict> {
    let text: Vec<u32> = prompt.iter().chain(emitted).copied().collect();
    let sequence = reference.open_sequence()?;
    let chunk = reference.plan().limits.max_outputs.min(reference.plan().limits.max_tokens);
    let mut verdict = Verdict { n: emitted.len(), ..Verdict::default() };
    let mut at = 0;
    for tokens in text[..text.len() - 1].chunks(chunk) {
        let logits = reference.step(&[StepItem { sequence, tokens, wanted: Wanted::All }])?;
        for row in logits.rows() {
            at += 1;
            if at >= prompt.len() {
                let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let chosen = row[text[at] as usize];
                verdict.n_best += usize::from(chosen == best);
                verdict.n_near += usize::from(chosen >= best - 0.5);
            }
        }
    }
    reference.close_sequence(sequence)?;
    Ok(verdict)
}
