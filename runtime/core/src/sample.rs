//! Sample: a row of logits becomes a token id.
//!
//! Order of the filters: repetition penalty, top-k, top-p, min-p, temperature, draw. The draw is a pure
//! function of (seed, position) and of what is drawn from, so that a retried or a speculated position draws the
//! same, and so does a device that chooses by itself ([`biga_hal::sample`] has the definition that both follow).
//! Nothing is allocated after [`Sampler::new`].

use biga_hal::{Candidate, SampleRow};

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct SamplingParams {
    /// Divides the logits before the draw; 0 takes the best token.
    pub temperature: f32,
    /// Keeps the best `top_k` tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of best tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less probable than this fraction of the best one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 changes nothing.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty looks at.
    pub repeat_last_n: usize,
    /// Same seed, same text.
    pub seed: u64,
}

impl SamplingParams {
    /// Always the best token.
    pub const GREEDY: SamplingParams = SamplingParams {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        repeat_last_n: 64,
        seed: 0,
    };

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`] naming the parameter, its value and its range.
    pub fn check(&self) -> Result<(), SampleError> {
        let range = |name, value: f32, low: f32, high: f32| {
            if value >= low && value <= high { Ok(()) } else { Err(SampleError::OutOfRange { name, value, low, high }) }
        };
        range("temperature", self.temperature, 0.0, 100.0)?;
        range("top-p", self.top_p, 0.0, 1.0)?;
        range("min-p", self.min_p, 0.0, 1.0)?;
        range("repeat-penalty", self.repeat_penalty, 0.01, 100.0)
    }

    /// As a device's step buffer holds them, or what of them only the host can do.
    ///
    /// # Errors
    /// The parameter.
    pub(crate) fn as_row(&self) -> Result<SampleRow, &'static str> {
        let few = (1..=SampleRow::MAX_TOP_K).contains(&self.top_k);
        match self {
            _ if self.repeat_penalty != 1.0 => Err("repetition penalty"),
            _ if self.temperature == 0.0 => Ok(SampleRow::BEST),
            _ if self.top_k > 0 && !few => Err("top-k above 256"),
            _ if self.top_p < 1.0 && !few => Err("top-p without top-k"),
            _ => Ok(self.row()),
        }
    }

    fn row(&self) -> SampleRow {
        SampleRow {
            draws: self.temperature > 0.0,
            // No finite difference times this is no number.
            inverse_temperature: (1.0 / self.temperature).min(1e30),
            least: self.min_p.ln().max(f32::MIN),
            top_k: u32::try_from(self.top_k).unwrap_or(u32::MAX),
            top_p: self.top_p,
            seed: self.seed,
        }
    }
}

/// What sampling can refuse.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A parameter out of its range.
    #[error("{name} is {value}, it must lie in {low}..={high}")]
    OutOfRange {
        /// Which.
        name: &'static str,
        /// Given.
        value: f32,
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// Every logit is masked, infinite or NaN: the weights or a kernel are broken.
    #[error("no finite logit among {n_logits} at position {position}")]
    NoFiniteLogit {
        /// Row length.
        n_logits: usize,
        /// Where.
        position: usize,
    },
}

/// The tokens that may follow, as a bit set; for constrained output. A step whose sequence has a mask
/// cannot be followed by the next one before its token is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u64>,
}

impl TokenMask {
    /// Allows nothing of a vocabulary of `vocab` tokens.
    pub fn none(vocab: usize) -> TokenMask {
        TokenMask { words: vec![0; vocab.div_ceil(64)] }
    }

    /// Allows a token; ids beyond the vocabulary are ignored.
    pub fn allow(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 64) {
            *word |= 1 << (token % 64);
        }
    }

    /// Whether a token is allowed.
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 64).is_some_and(|word| word >> (token % 64) & 1 == 1)
    }
}

/// Chooses the tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    candidates: Vec<Candidate>,
    /// Ring of the last `repeat_last_n` tokens.
    recent: Vec<u32>,
    /// Of them, those whose logits are lowered already; empty between calls.
    penalised: TokenMask,
    n_accepted: usize,
}

impl Sampler {
    /// A sampler for rows of `vocab` logits.
    ///
    /// # Errors
    /// As [`SamplingParams::check`].
    pub fn new(params: SamplingParams, vocab: usize) -> Result<Sampler, SampleError> {
        params.check()?;
        let remembered = if params.repeat_penalty == 1.0 { 0 } else { params.repeat_last_n };
        Ok(Sampler {
            params,
            candidates: Vec::with_capacity(vocab),
            recent: vec![u32::MAX; remembered.min(1 << 20)],
            penalised: TokenMask::none(if remembered > 0 { vocab } else { 0 }),
            n_accepted: 0,
        })
    }

    /// Remembers a token of the text, prompt tokens included, for the repetition penalty.
    pub fn accept(&mut self, token: u32) {
        let len = self.recent.len();
        if len > 0 {
            self.recent[self.n_accepted % len] = token;
            self.n_accepted += 1;
        }
    }

    /// Chooses the token that follows `position`.
    ///
    /// # Errors
    /// [`SampleError::NoFiniteLogit`].
    pub fn sample(&mut self, logits: &[f32], position: usize, mask: Option<&TokenMask>) -> Result<u32, SampleError> {
        let allowed = |token: u32| mask.is_none_or(|mask| mask.allows(token));
        let candidates = (0..).zip(logits).filter_map(|(token, &logit)| Candidate::new(logit, token));
        self.candidates.clear();
        self.candidates.extend(candidates.filter(|candidate| allowed(candidate.token())));
        self.penalise();
        let none = SampleError::NoFiniteLogit { n_logits: logits.len(), position };
        let best = *self.candidates.iter().max().ok_or(none)?;
        if self.params.temperature == 0.0 {
            return Ok(best.token());
        }
        let row = self.params.row();
        self.keep_top_k();
        if row.top_p < 1.0 {
            self.candidates.sort_unstable_by(|a, b| b.cmp(a));
            self.candidates.truncate(row.keep_probable(&self.candidates));
        }
        Ok(row.draw(best, self.candidates.iter().copied(), position as u32))
    }

    fn penalise(&mut self) {
        let penalty = self.params.repeat_penalty;
        for &token in &self.recent {
            if self.penalised.allows(token) {
                continue;
            }
            self.penalised.allow(token);
            if let Ok(at) = self.candidates.binary_search_by_key(&token, |candidate| candidate.token()) {
                let logit = self.candidates[at].logit();
                let lowered = if logit > 0.0 { logit / penalty } else { logit * penalty };
                let lowered = lowered.clamp(f32::MIN, f32::MAX);
                self.candidates[at] = Candidate::new(lowered, token).unwrap_or(self.candidates[at]);
            }
        }
        self.penalised.words.fill(0);
    }

    fn keep_top_k(&mut self) {
        let k = self.params.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
            self.candidates.truncate(k);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SampleError, Sampler, SamplingParams, TokenMask};

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, f32::NAN, 3.0];

    fn choices(params: SamplingParams, n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(params, LOGITS.len()).unwrap();
        (0..n).map(|position| sampler.sample(&LOGITS, position, None).unwrap()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        assert_eq!(choices(SamplingParams::GREEDY, 2), [1, 1]);
    }

    #[test]
    fn same_seed_and_position_same_token() {
        let params = SamplingParams { temperature: 1.0, seed: 7, ..SamplingParams::GREEDY };
        assert_eq!(choices(params, 50), choices(params, 50));
        assert_ne!(choices(params, 50), choices(SamplingParams { seed: 8, ..params }, 50));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let params = SamplingParams { temperature: 1.0, ..SamplingParams::GREEDY };
        let drawn = choices(params, 20_000);
        let total: f32 = [1.0f32, 3.0, 2.0, 3.0].iter().map(|logit| logit.exp()).sum();
        for (token, logit) in [(0, 1.0f32), (1, 3.0), (2, 2.0), (4, 3.0)] {
            let seen = drawn.iter().filter(|&&t| t == token).count() as f32 / drawn.len() as f32;
            assert!((seen - logit.exp() / total).abs() < 0.015, "token {token}: {seen}");
        }
        assert!(!drawn.contains(&3), "NaN is never drawn");
    }

    #[test]
    fn filters_keep_what_they_say() {
        let base = SamplingParams { temperature: 1.0, ..SamplingParams::GREEDY };
        let kinds = |params| {
            let mut drawn = choices(params, 500);
            drawn.sort_unstable();
            drawn.dedup();
            drawn
        };
        assert_eq!(kinds(SamplingParams { top_k: 1, ..base }), [1]);
        assert_eq!(kinds(SamplingParams { top_k: 3, ..base }), [1, 2, 4]);
        assert_eq!(kinds(SamplingParams { top_p: 0.5, ..base }), [1, 4]);
        assert_eq!(kinds(SamplingParams { min_p: 0.5, ..base }), [1, 4]);
        assert_eq!(kinds(SamplingParams { top_p: 0.0, ..base }), [1]);
    }

    #[test]
    fn what_a_device_can_do_it_does_alike() {
        let logits: Vec<f32> = (0..2000_u32).map(|i| ((i * 7919 % 1013) as f32 / 70.0).sin() * 9.0).collect();
        let base = SamplingParams { temperature: 0.8, seed: 11, ..SamplingParams::GREEDY };
        for params in [
            SamplingParams::GREEDY,
            base,
            SamplingParams { temperature: 1e-30, ..base },
            SamplingParams { min_p: 0.05, ..base },
            SamplingParams { min_p: 1.0, ..base },
            SamplingParams { top_k: 40, top_p: 0.95, min_p: 0.05, ..base },
            SamplingParams { top_k: 256, top_p: 0.5, temperature: 100.0, ..base },
            SamplingParams { top_k: 3, top_p: 0.0, ..base },
        ] {
            let row = params.as_row().unwrap();
            let mut sampler = Sampler::new(params, logits.len()).unwrap();
            for position in 0..200 {
                let host = sampler.sample(&logits, position, None).unwrap();
                assert_eq!(row.choose(&logits, position as u32), Some(host), "{params:?} at {position}");
            }
        }
        let refused = |params: SamplingParams| params.as_row().unwrap_err();
        assert_eq!(refused(SamplingParams { repeat_penalty: 1.1, ..SamplingParams::GREEDY }), "repetition penalty");
        assert_eq!(refused(SamplingParams { top_k: 257, ..base }), "top-k above 256");
        assert_eq!(refused(SamplingParams { top_p: 0.9, ..base }), "top-p without top-k");
    }

    #[test]
    fn recent_tokens_are_penalised_once() {
        let params = SamplingParams { repeat_penalty: 2.0, ..SamplingParams::GREEDY };
        let mut sampler = Sampler::new(params, LOGITS.len()).unwrap();
        for token in [1, 1, 4] {
            sampler.accept(token);
        }
        assert_eq!(sampler.sample(&LOGITS, 0, None), Ok(2));
    }

    #[test]
    fn a_mask_leaves_what_it_allows() {
        let mut sampler = Sampler::new(SamplingParams::GREEDY, LOGITS.len()).unwrap();
        let mut mask = TokenMask::none(LOGITS.len());
        mask.allow(0);
        assert_eq!(sampler.sample(&LOGITS, 0, Some(&mask)), Ok(0));
        let nothing = TokenMask::none(LOGITS.len());
        let error = SampleError::NoFiniteLogit { n_logits: 5, position: 9 };
        assert_eq!(sampler.sample(&LOGITS, 9, Some(&nothing)), Err(error));
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for params in [
            SamplingParams { temperature: f32::NAN, ..SamplingParams::GREEDY },
            SamplingParams { temperature: -1.0, ..SamplingParams::GREEDY },
            SamplingParams { top_p: 1.5, ..SamplingParams::GREEDY },
            SamplingParams { min_p: -0.1, ..SamplingParams::GREEDY },
            SamplingParams { repeat_penalty: 0.0, ..SamplingParams::GREEDY },
        ] {
            assert!(Sampler::new(params, 5).is_err(), "{params:?}");
        }
    }
}
