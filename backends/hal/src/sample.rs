//! How a token is chosen: what [`crate::OpKind::Sample`] computes on every device, bit for bit.
//!
//! The best token is the one with the largest finite logit; of equals, the lowest id. A row without a finite
//! logit has none.
//!
//! A drawn token comes from a set: of the `top_k` best tokens the smallest set of best ones whose probabilities
//! reach `top_p`, and of these the ones not too far below the best. Of the set the token wins whose logit (less
//! the best one, over the temperature) plus noise is largest; with Gumbel's noise every token wins with its
//! probability (Gumbel, 1954; Maddison, Tarlow, Minka: "A* sampling", 2014). The noise is a function of (seed,
//! position, token), so that nothing depends on who draws, in which order, and which tokens were left out.

mod number;

use number::{Noise, exp};

/// How the token that follows one output row is chosen, as it stands in the step buffer:
///
/// | word | type | content |
/// |---|---|---|
/// | 0 | u32 | 0: the best token; 1: a drawn one |
/// | 1 | f32 | one over the temperature |
/// | 2 | f32 | least logit that is kept, less the best one: up to 0 |
/// | 3 | u32 | `top_k`, at most [`SampleRow::MAX_TOP_K`]; 0 keeps all |
/// | 4 | f32 | `top_p`, with `top_k` only; 1 keeps all |
/// | 5 | u32 | reserved, 0 |
/// | 6, 7 | u32 | seed, low word first |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRow {
    /// Whether the token is drawn; else the rest means nothing.
    pub draws: bool,
    /// One over the temperature.
    pub inverse_temperature: f32,
    /// Least logit that is kept, less the best one.
    pub least: f32,
    /// So many of the best tokens are kept; 0 keeps all.
    pub top_k: u32,
    /// Sum of the probabilities that are kept.
    pub top_p: f32,
    /// Of the noise.
    pub seed: u64,
}

impl SampleRow {
    /// Size in the step buffer.
    pub const SIZE_BYTES: usize = 32;

    /// The most tokens that can be kept by count.
    pub const MAX_TOP_K: usize = 256;

    /// The best token.
    pub const BEST: SampleRow =
        SampleRow { draws: false, inverse_temperature: 0.0, least: 0.0, top_k: 0, top_p: 0.0, seed: 0 };

    fn words(self) -> [u32; 8] {
        let SampleRow { draws, inverse_temperature, least, top_k, top_p, seed } = self;
        let (inverse, least, top_p) = (inverse_temperature.to_bits(), least.to_bits(), top_p.to_bits());
        [u32::from(draws), inverse, least, top_k, top_p, 0, seed as u32, (seed >> 32) as u32]
    }

    /// As stored.
    pub fn to_bytes(self) -> [u8; SampleRow::SIZE_BYTES] {
        let mut bytes = [0; SampleRow::SIZE_BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(self.words()) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    /// From its words in the step buffer.
    pub fn from_words(words: [u32; 8]) -> SampleRow {
        let [draws, inverse, least, top_k, top_p, _, low, high] = words;
        SampleRow {
            draws: draws != 0,
            inverse_temperature: f32::from_bits(inverse),
            least: f32::from_bits(least),
            top_k,
            top_p: f32::from_bits(top_p),
            seed: u64::from(high) << 32 | u64::from(low),
        }
    }

    /// The token that follows a row of logits at `position`, if one logit is finite.
    pub fn choose(&self, logits: &[f32], position: u32) -> Option<u32> {
        if !self.draws {
            return Candidate::best_of(logits).map(Candidate::token);
        }
        if self.top_k == 0 {
            let best = Candidate::best_of(logits)?;
            let all = (0..).zip(logits).filter_map(|(token, &logit)| Candidate::new(logit, token));
            return Some(self.draw(best, all, position));
        }
        let mut kept = [Candidate::NONE; SampleRow::MAX_TOP_K];
        let most = SampleRow::MAX_TOP_K.min(self.top_k as usize);
        let n = best_first(logits, &mut kept[..most]);
        let best = *kept[..n].first()?;
        let n = self.keep_probable(&kept[..n]);
        Some(self.draw(best, kept[..n].iter().copied(), position))
    }

    /// How many of some candidates, best first, `top_p` keeps: at least one, if there is one.
    pub fn keep_probable(&self, candidates: &[Candidate]) -> usize {
        let Some(best) = candidates.first().filter(|_| self.top_p < 1.0) else { return candidates.len() };
        let weight = |candidate: &Candidate| exp(candidate.logit() - best.logit());
        let total = candidates.iter().fold(0.0, |sum, candidate| sum + weight(candidate));
        let wanted = self.top_p * total;
        let mut sum = 0.0;
        let reached = candidates.iter().position(|candidate| {
            sum += weight(candidate);
            sum >= wanted
        });
        reached.map_or(candidates.len(), |at| at + 1)
    }

    /// Draws from candidates, among which `best` is the best.
    pub fn draw(&self, best: Candidate, candidates: impl Iterator<Item = Candidate>, position: u32) -> u32 {
        let noise = Noise::new(self.seed, position);
        let top = best.logit();
        let mut winner: Option<Candidate> = None;
        for candidate in candidates {
            let below = candidate.logit() - top;
            let scaled = below * self.inverse_temperature;
            let hopeless = winner.is_some_and(|winner| scaled + Noise::MAX < winner.logit());
            if below >= self.least && !hopeless {
                winner = winner.max(Candidate::new(scaled + noise.of(candidate.token()), candidate.token()));
            }
        }
        winner.unwrap_or(best).token()
    }
}

/// A token with a finite logit. The larger one is the better: by the logit, then by the lower id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate(u64);

impl Candidate {
    /// Worse than any.
    const NONE: Candidate = Candidate(0);

    /// `None` if the logit is not finite. Both zeros are one number.
    pub fn new(logit: f32, token: u32) -> Option<Candidate> {
        let bits = (logit + 0.0).to_bits();
        let ordered = bits ^ if bits >> 31 == 1 { u32::MAX } else { 1 << 31 };
        logit.is_finite().then_some(Candidate(u64::from(ordered) << 32 | u64::from(!token)))
    }

    /// The best of a row.
    pub fn best_of(logits: &[f32]) -> Option<Candidate> {
        const LANES: usize = 16;
        let larger = |best: f32, x: f32| if x.is_finite() && x > best { x } else { best };
        // Side by side first, so that the compiler can use vectors.
        let (chunks, rest) = logits.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(best, &x)| *best = larger(*best, x));
        }
        let best = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger);
        let token = logits.iter().position(|&x| x == best)?;
        Candidate::new(best, u32::try_from(token).ok()?)
    }

    /// Its logit.
    pub fn logit(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(ordered ^ if ordered >> 31 == 1 { 1 << 31 } else { u32::MAX })
    }

    /// Its id.
    pub fn token(self) -> u32 {
        !(self.0 as u32)
    }
}

/// Fills `kept` with the best of a row, best first; how many there are.
fn best_first(logits: &[f32], kept: &mut [Candidate]) -> usize {
    let mut n = 0;
    for (token, &logit) in (0..).zip(logits) {
        let Some(candidate) = Candidate::new(logit, token) else { continue };
        // PANIC: `kept` is not empty: an empty set keeps all, which is another case.
        if n == kept.len() && candidate < kept[n - 1] {
            continue;
        }
        n = (n + 1).min(kept.len());
        let at = kept[..n - 1].partition_point(|&other| other > candidate);
        kept[at..n].rotate_right(1);
        kept[at] = candidate;
    }
    n
}

/// What a step left for one row in the results ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleResult {
    /// The token; [`SampleResult::NONE`] if no logit was finite. The step that follows is then fed token 0.
    pub token: u32,
    /// The number of the step.
    pub number: u32,
}

impl SampleResult {
    /// Size in the ring.
    pub const SIZE_BYTES: usize = 8;

    /// In place of a token: no logit was finite.
    pub const NONE: u32 = u32::MAX;

    /// From its bytes in the ring.
    pub fn from_bytes(bytes: [u8; SampleResult::SIZE_BYTES]) -> SampleResult {
        let [a, b, c, d, e, f, g, h] = bytes;
        SampleResult { token: u32::from_le_bytes([a, b, c, d]), number: u32::from_le_bytes([e, f, g, h]) }
    }

    /// As stored.
    pub fn to_bytes(self) -> [u8; SampleResult::SIZE_BYTES] {
        let ([a, b, c, d], [e, f, g, h]) = (self.token.to_le_bytes(), self.number.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, SampleResult, SampleRow, best_first};

    const DRAW: SampleRow =
        SampleRow { draws: true, inverse_temperature: 1.0, least: f32::MIN, top_k: 0, top_p: 1.0, seed: 5 };

    #[test]
    fn the_best_is_the_first_of_the_largest_finite() {
        let check = |logits: &[f32], expected| assert_eq!(SampleRow::BEST.choose(logits, 0), expected, "{logits:?}");
        check(&[1.0, 3.0, 2.0, f32::NAN, 3.0], Some(1));
        check(&[f32::INFINITY, -2.0, f32::NEG_INFINITY], Some(1));
        check(&[-0.0, 0.0], Some(0));
        check(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY], None);
        check(&[], None);
        let mut long = vec![f32::MIN; 100];
        check(&long, Some(0));
        long[70] = -1.0;
        check(&long, Some(70));
        (long[99], long[33]) = (7.0, 7.0);
        check(&long, Some(33));
    }

    #[test]
    fn candidates_give_back_what_they_are_and_sort_by_it() {
        let logits = [f32::MIN, -1.5, -1e-30, 0.0, 1e-30, 2.0, f32::MAX];
        let candidates: Vec<Candidate> = (0..).zip(logits).map(|(i, x)| Candidate::new(x, i).unwrap()).collect();
        assert!(candidates.is_sorted());
        assert!((0..).zip(logits).zip(&candidates).all(|((i, x), c)| (c.logit(), c.token()) == (x, i)));
        assert!(Candidate::new(1.0, 3) > Candidate::new(1.0, 4));
        assert!(Candidate::new(f32::NAN, 0).is_none());
    }

    #[test]
    fn the_best_few_come_in_order() {
        let logits: Vec<f32> = (0..500_u32).map(|i| (i * 7919 % 101) as f32).collect();
        for k in [1, 2, 40, 256] {
            let mut kept = [Candidate::NONE; 256];
            assert_eq!(best_first(&logits, &mut kept[..k]), k);
            let mut all: Vec<Candidate> =
                (0..).zip(&logits).filter_map(|(token, &logit)| Candidate::new(logit, token)).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(kept[..k], all[..k]);
        }
    }

    #[test]
    fn draws_follow_the_probabilities_at_every_temperature() {
        let logits = [1.0, 3.0, 2.0, f32::NAN, 3.0];
        for temperature in [0.5_f32, 1.0, 2.0] {
            let row = SampleRow { inverse_temperature: 1.0 / temperature, ..DRAW };
            let total: f32 = logits.iter().filter(|x| x.is_finite()).map(|x| (x / temperature).exp()).sum();
            let mut counts = [0; 5];
            (0..20_000).for_each(|position| counts[row.choose(&logits, position).unwrap() as usize] += 1);
            for (count, logit) in counts.iter().zip(logits).filter(|(_, logit)| logit.is_finite()) {
                let (seen, expected) = (*count as f32 / 20_000.0, (logit / temperature).exp() / total);
                assert!((seen - expected).abs() < 0.012, "{temperature}: {seen} where {expected} was expected");
            }
            assert_eq!(counts[3], 0, "NaN is never drawn");
        }
    }

    #[test]
    fn a_token_left_out_changes_no_other_draw() {
        let logits = [1.0, 1.2, 0.9, 1.1];
        for position in 0..500 {
            let all = DRAW.choose(&logits, position).unwrap();
            let mut fewer = logits;
            fewer[2] = f32::NAN;
            assert!(all == 2 || DRAW.choose(&fewer, position) == Some(all));
        }
    }

    #[test]
    fn rows_and_results_come_back_as_they_were_stored() {
        let row = SampleRow { top_k: 40, top_p: 0.95, least: -3.0, seed: 1 << 40 | 9, ..DRAW };
        let words = row.to_bytes();
        let words: Vec<u32> = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        assert_eq!(SampleRow::from_words(words.try_into().unwrap()), row);
        let result = SampleResult { token: 0x0102_0304, number: 9 };
        assert_eq!(result.to_bytes(), [4, 3, 2, 1, 9, 0, 0, 0]);
        assert_eq!(SampleResult::from_bytes(result.to_bytes()), result);
    }

    #[test]
    fn parameters_that_no_host_writes_choose_something() {
        let logits = [1.0, f32::MAX, f32::MIN, 0.0];
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -1.0] {
            for top_k in [0, 1, 3, u32::MAX] {
                let row = SampleRow { inverse_temperature: x, least: x, top_k, top_p: x, ..DRAW };
                assert!(row.choose(&logits, u32::MAX).is_some_and(|token| token < 4), "{row:?}");
            }
        }
    }
}
