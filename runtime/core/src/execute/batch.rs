//! A step's items become the contents of the step buffer.

use biga_hal::{Bucket, StepHeader, StepLayout};
use biga_kv::KvError;

use super::{SequenceId, StepItem, Wanted};
use crate::{
    Error, Result,
    plan::{Limits, Phase},
};

/// How large a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) tokens: usize,
    pub(super) sequences: usize,
    pub(super) outputs: usize,
}

impl Size {
    /// Index of the smallest bucket that holds the step; of equals, decode.
    pub(super) fn smallest_of(self, buckets: impl Iterator<Item = (Phase, Bucket)>) -> Option<usize> {
        let holds = |bucket: &Bucket| bucket.holds(self.tokens, self.sequences, self.outputs);
        let fitting = buckets.enumerate().filter(|(_, (_, bucket))| holds(bucket));
        fitting.min_by_key(|(_, (phase, bucket))| (bucket.tokens, *phase != Phase::Decode)).map(|(index, _)| index)
    }
}

/// Checks a step against the plan's bounds and the vocabulary.
pub(super) fn check(items: &[StepItem<'_>], limits: &Limits, vocab: usize) -> Result<Size> {
    let mut size = Size { tokens: 0, sequences: items.len(), outputs: 0 };
    for item in items {
        size.tokens += item.tokens.len();
        size.outputs += match item.wanted {
            Wanted::None => 0,
            Wanted::Last => 1,
            Wanted::All => item.tokens.len(),
        };
        if item.tokens.is_empty() {
            return Err(Error::Invalid("a step item without tokens".to_owned()));
        }
        if let Some(&token) = item.tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(Error::Limit { what: "token id", asked: token as usize, most: vocab - 1 });
        }
    }
    let bound = |what, asked, most| if asked <= most { Ok(()) } else { Err(Error::Limit { what, asked, most }) };
    bound("tokens in one step", size.tokens, limits.max_tokens)?;
    bound("sequences in one step", size.sequences, limits.max_sequences)?;
    bound("rows with logits in one step", size.outputs, limits.max_outputs)?;
    if items.is_empty() {
        return Err(Error::Invalid("a step without items".to_owned()));
    }
    Ok(size)
}

/// Writes everything but sampling parameters and block tables. `len` is each sequence's length with the step's
/// tokens.
pub(super) fn write_image(
    image: &mut [u8],
    layout: &StepLayout,
    number: u32,
    items: &[StepItem<'_>],
    len: impl Fn(SequenceId) -> std::result::Result<usize, KvError>,
) {
    let mut row = 0;
    let mut output = 0;
    for (index, item) in items.iter().enumerate() {
        let later = items[index + 1..].iter().filter(|other| other.sequence == item.sequence);
        let later: usize = later.map(|other| other.tokens.len()).sum();
        let start = len(item.sequence).unwrap_or(0).saturating_sub(later + item.tokens.len());
        for (at, &token) in item.tokens.iter().enumerate() {
            put(image, layout.tokens, row, token);
            put(image, layout.positions, row, (start + at) as u32);
            put(image, layout.slots, row, item.sequence.0 as u32);
            let last = at + 1 == item.tokens.len();
            if item.wanted == Wanted::All || (item.wanted == Wanted::Last && last) {
                put(image, layout.outputs, output, row as u32);
                output += 1;
            }
            row += 1;
        }
    }
    let header = StepHeader { n_tokens: row as u32, n_sequences: items.len() as u32, n_outputs: output as u32, number };
    image[..StepHeader::SIZE_BYTES].copy_from_slice(&header.to_bytes());
}

fn put(image: &mut [u8], section: usize, index: usize, value: u32) {
    image[section + index * 4..][..4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::{SequenceId, Size, StepItem, Wanted, check, write_image};
    use crate::plan::{Limits, Phase, buckets};
    use biga_hal::{StepLayout, StepLimits};

    const LIMITS: Limits = Limits { context: 64, max_sequences: 3, max_tokens: 6, max_outputs: 4, kv_block_len: 16 };

    fn words(image: &[u8], section: usize, n: usize) -> Vec<u32> {
        let bytes = image[section..][..n * 4].chunks_exact(4);
        bytes.map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn a_ragged_step_is_laid_out_by_item() {
        let items = [
            StepItem { sequence: SequenceId(2), tokens: &[7, 8, 9], wanted: Wanted::Last },
            StepItem { sequence: SequenceId(0), tokens: &[5, 6], wanted: Wanted::All },
        ];
        assert_eq!(check(&items, &LIMITS, 10).unwrap(), Size { tokens: 5, sequences: 2, outputs: 3 });
        let limits = StepLimits { max_tokens: 6, max_outputs: 4, max_slots: 3, max_blocks: 4, n_tables: 1 };
        let layout = StepLayout::new(limits).unwrap();
        let mut image = vec![0; layout.tables];
        write_image(&mut image, &layout, 7, &items, |sequence| Ok(if sequence.0 == 2 { 13 } else { 2 }));
        assert_eq!(words(&image, 0, 4), [5, 2, 3, 7]);
        assert_eq!(words(&image, layout.tokens, 5), [7, 8, 9, 5, 6]);
        assert_eq!(words(&image, layout.positions, 5), [10, 11, 12, 0, 1]);
        assert_eq!(words(&image, layout.slots, 5), [2, 2, 2, 0, 0]);
        assert_eq!(words(&image, layout.outputs, 3), [2, 3, 4]);
    }

    #[test]
    fn a_decode_step_runs_in_the_next_power_of_two() {
        let limits = Limits { context: 64, max_sequences: 64, max_tokens: 512, max_outputs: 64, kv_block_len: 16 };
        let buckets = buckets(&limits);
        let check = |tokens, rows, expected| {
            let size = Size { tokens, sequences: rows, outputs: rows };
            let (phase, bucket) = buckets[size.smallest_of(buckets.iter().copied()).unwrap()];
            assert_eq!((phase, bucket.tokens), expected, "{size:?}");
        };
        for (rows, tokens) in [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (16, 16), (33, 64), (64, 64)] {
            check(rows, rows, (Phase::Decode, tokens));
        }
        check(100, 1, (Phase::Prefill, 256));
        check(512, 64, (Phase::Prefill, 512));
        assert_eq!(Size { tokens: 513, sequences: 1, outputs: 1 }.smallest_of(buckets.iter().copied()), None);
    }

    #[test]
    fn steps_beyond_a_bound_are_refused() {
        let item = |tokens, wanted| StepItem { sequence: SequenceId(0), tokens, wanted };
        let one = item(&[1], Wanted::None);
        assert!(check(&[one; 4], &LIMITS, 10).is_err(), "sequences");
        assert!(check(&[item(&[1; 7], Wanted::None)], &LIMITS, 10).is_err(), "tokens");
        assert!(check(&[item(&[1; 5], Wanted::All)], &LIMITS, 10).is_err(), "outputs");
        assert!(check(&[item(&[10], Wanted::None)], &LIMITS, 10).is_err(), "vocabulary");
        assert!(check(&[item(&[], Wanted::None)], &LIMITS, 10).is_err(), "no tokens");
        assert!(check(&[], &LIMITS, 10).is_err(), "no items");
    }
}
