//! The merge loop that both vocabularies share: neighbours become one token, best pair first.
//!
//! A rule says whether two neighbours may join, into which token, and at which rank (lower first; of
//! equal ranks the leftmost). Short words are scanned, which is fastest; long ones go through a heap,
//! so that a hostile word of a million letters costs `n log n` and not `n²`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Stands for "no token".
pub(super) const NO_TOKEN: u32 = u32::MAX;

/// A run of text and the token that says it (or [`NO_TOKEN`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) id: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// What two neighbours become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Join {
    pub(super) rank: u32,
    pub(super) id: u32,
}

const NO_JOIN: Join = Join { rank: u32::MAX, id: NO_TOKEN };

/// Words of up to this many symbols are scanned.
const SCAN_SYMBOLS_MAX: usize = 24;

/// Memory of the loop, kept between words.
#[derive(Debug, Default)]
pub(super) struct Merger {
    pub(super) symbols: Vec<Symbol>,
    joins: Vec<Join>,
    links: Vec<Link>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

/// Ordered by rank, then by place; the two ends say whether the pair is still what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    middle: u32,
    end: u32,
    id: u32,
}

impl Merger {
    /// Joins `symbols` until nothing joins any more.
    pub(super) fn run(&mut self, rule: impl Fn(&Symbol, &Symbol) -> Option<Join>) {
        if self.symbols.len() <= SCAN_SYMBOLS_MAX {
            self.scan(rule);
        } else {
            self.run_heap(rule);
        }
    }

    fn scan(&mut self, rule: impl Fn(&Symbol, &Symbol) -> Option<Join>) {
        let Merger { symbols, joins, .. } = self;
        let join_at = |symbols: &[Symbol], at: usize| match (symbols.get(at), symbols.get(at.wrapping_add(1))) {
            (Some(left), Some(right)) => rule(left, right).unwrap_or(NO_JOIN),
            _ => NO_JOIN,
        };
        joins.clear();
        joins.extend((0..symbols.len().saturating_sub(1)).map(|at| join_at(symbols, at)));
        loop {
            // `min_by_key` keeps the first of equal keys, which is the leftmost.
            let Some((at, best)) = joins.iter().copied().enumerate().min_by_key(|(_, join)| join.rank) else {
                return;
            };
            if best.id == NO_TOKEN {
                return;
            }
            // PANIC: a join at `at` exists only while `at + 1` is a symbol.
            let right = symbols.remove(at + 1);
            joins.remove(at);
            if let Some(left) = symbols.get_mut(at) {
                left.id = best.id;
                left.end = right.end;
            }
            if let Some(join) = joins.get_mut(at) {
                *join = join_at(symbols, at);
            }
            if let Some(before) = at.checked_sub(1)
                && let Some(join) = joins.get_mut(before)
            {
                *join = join_at(symbols, before);
            }
        }
    }

    fn run_heap(&mut self, rule: impl Fn(&Symbol, &Symbol) -> Option<Join>) {
        let Merger { symbols, links, heap, .. } = self;
        // The caller bounds a text to less than 2^32 bytes, and no symbol is empty.
        let n_symbols = symbols.len() as u32;
        links.clear();
        links.extend((0..n_symbols).map(|at| Link { before: at.wrapping_sub(1), after: at.wrapping_add(1) }));
        heap.clear();
        let candidate = |symbols: &[Symbol], left: u32, right: u32| {
            let (a, b) = (symbols.get(left as usize)?, symbols.get(right as usize)?);
            let join = rule(a, b)?;
            Some(Reverse(Candidate { rank: join.rank, left, middle: b.start, end: b.end, id: join.id }))
        };
        heap.extend((1..n_symbols).filter_map(|right| candidate(symbols, right - 1, right)));
        while let Some(Reverse(best)) = heap.pop() {
            let Some(link) = links.get(best.left as usize).copied() else { continue };
            let (Some(left), Some(right)) =
                (symbols.get(best.left as usize).copied(), symbols.get(link.after as usize).copied())
            else {
                continue;
            };
            // A symbol that was joined away is empty, one that grew has another end.
            if left.start == left.end || left.end != best.middle || right.end != best.end {
                continue;
            }
            if let Some(left) = symbols.get_mut(best.left as usize) {
                left.end = best.end;
                left.id = best.id;
            }
            if let Some(right) = symbols.get_mut(link.after as usize) {
                right.end = right.start;
            }
            let after = links.get(link.after as usize).map_or(n_symbols, |link| link.after);
            if let Some(link) = links.get_mut(best.left as usize) {
                link.after = after;
            }
            if let Some(next) = links.get_mut(after as usize) {
                next.before = best.left;
            }
            heap.extend(candidate(symbols, link.before, best.left));
            heap.extend(candidate(symbols, best.left, after));
        }
        symbols.retain(|symbol| symbol.start != symbol.end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made-up merges over byte values: enough of them to cascade, some with equal ranks.
    fn rule(left: &Symbol, right: &Symbol) -> Option<Join> {
        let mixed = left.id.wrapping_mul(31).wrapping_add(right.id.wrapping_mul(17)) % 11;
        (mixed < 6).then_some(Join { rank: mixed / 2, id: left.id.wrapping_mul(5).wrapping_add(right.id) % 7 })
    }

    proptest! {
        #[test]
        fn scan_and_heap_agree(ids in proptest::collection::vec(0_u32..7, 0..80)) {
            let symbols: Vec<Symbol> = (0..).zip(&ids).map(|(at, &id)| Symbol { id, start: at, end: at + 1 }).collect();
            let mut scanned = Merger { symbols: symbols.clone(), ..Merger::default() };
            scanned.scan(rule);
            let mut heaped = Merger { symbols, ..Merger::default() };
            heaped.run_heap(rule);
            prop_assert_eq!(scanned.symbols, heaped.symbols);
        }
    }
}
