//! Sets of bytes as ranges.

use std::{collections::BTreeMap, ops::Range};

/// Ranges of a memory that neither touch nor overlap, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// From start to end.
    ranges: BTreeMap<u32, u32>,
}

impl Spans {
    /// Adds a range.
    pub fn add(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // What touches it from the left, then all that begins inside.
        if let Some((&left, &left_end)) = self.ranges.range(..start).next_back()
            && left_end >= start
        {
            start = left;
            end = end.max(left_end);
        }
        while let Some((&inner, &inner_end)) = self.ranges.range(start..=end).next() {
            end = end.max(inner_end);
            self.ranges.remove(&inner);
        }
        self.ranges.insert(start, end);
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = Range<u32>> {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Bytes in all of them.
    #[must_use]
    pub fn n_bytes(&self) -> u32 {
        self.iter().fold(0, |sum: u32, range| sum.saturating_add(range.end.saturating_sub(range.start)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let check = |added: &[Range<u32>], expected: &[Range<u32>]| {
            let mut spans = Spans::default();
            added.iter().for_each(|range| spans.add(range.clone()));
            assert_eq!(spans.iter().collect::<Vec<_>>(), expected);
        };
        check(&[4..8, 0..4], std::slice::from_ref(&(0..8)));
        check(&[0..4, 8..12], &[0..4, 8..12]);
        check(&[0..4, 8..12, 2..9], std::slice::from_ref(&(0..12)));
        check(&[0..100, 8..12], std::slice::from_ref(&(0..100)));
        check(std::slice::from_ref(&(5..5)), &[]);
        check(&[0..u32::MAX, 7..u32::MAX], std::slice::from_ref(&(0..u32::MAX)));
    }

    proptest! {
        #[test]
        fn the_same_bytes_as_a_set(added in prop::collection::vec((0_u32..64, 0_u32..16), 0..20)) {
            let mut spans = Spans::default();
            let mut bytes = std::collections::BTreeSet::new();
            for (start, size) in added {
                spans.add(start..start + size);
                bytes.extend(start..start + size);
            }
            prop_assert_eq!(spans.iter().flatten().collect::<Vec<_>>(), bytes.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(spans.n_bytes() as usize, bytes.len());
        }
    }
}
