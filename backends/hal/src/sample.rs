//! How a token is chosen: what [`crate::OpKind::Sample`] computes on every device.
//!
//! The best token is the one with the largest finite logit; of equals, the lowest id. A row without a finite
//! logit has none.

/// How the token that follows one output row is chosen, as it stands in the step buffer: 8 words, of which
/// the first says how.
///
/// | word | content |
/// |---|---|
/// | 0 | 0: the best token |
/// | 1..8 | reserved, 0 |
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleRow {}

impl SampleRow {
    /// Size in the step buffer.
    pub const SIZE_BYTES: usize = 32;

    /// The best token.
    pub const BEST: SampleRow = SampleRow {};

    /// As stored.
    pub fn to_bytes(self) -> [u8; SampleRow::SIZE_BYTES] {
        [0; SampleRow::SIZE_BYTES]
    }
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

/// The best token of a row of logits, if one is finite.
pub fn best(logits: &[f32]) -> Option<u32> {
    const LANES: usize = 16;
    let larger = |best: f32, x: f32| if x.is_finite() && x > best { x } else { best };
    // Side by side first, so that the compiler can use vectors.
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(best, &x)| *best = larger(*best, x));
    }
    let best = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger);
    // Without a finite logit this finds no equal but an infinity.
    if !best.is_finite() {
        return None;
    }
    logits.iter().position(|&x| x == best).and_then(|at| u32::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::{SampleResult, best};

    #[test]
    fn the_best_is_the_first_of_the_largest_finite() {
        let check = |logits: &[f32], expected| assert_eq!(best(logits), expected, "{logits:?}");
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
    fn results_come_back_as_they_were_stored() {
        let result = SampleResult { token: 0x0102_0304, number: 9 };
        assert_eq!(result.to_bytes(), [4, 3, 2, 1, 9, 0, 0, 0]);
        assert_eq!(SampleResult::from_bytes(result.to_bytes()), result);
    }
}
