//! Whether the barriers of recorded launches suffice for what the launches declare.
//!
//! Two launches need a barrier between them if they touch the same bytes and one of them writes. No
//! validation layer sees this where kernels reach memory by address. The check knows nothing of how a
//! backend places its barriers: it sorts the declared ranges of the launches between two barriers by
//! address and sweeps over them once. For n ranges and k shared ones that takes O((n + k) log n).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt,
};

use biga_hal::{ByteRange, Dispatch};

/// Two launches that touch the same bytes, one of them writing, with no barrier between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Index of the earlier launch, and its name.
    pub first: (usize, String),
    /// Index of the later launch, and its name.
    pub second: (usize, String),
    /// The first bytes that they share.
    pub shared: ByteRange,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((i, first), (j, second)) = (&self.first, &self.second);
        let ByteRange { address, size_bytes } = self.shared;
        write!(f, "launch {i} ({first}) and launch {j} ({second}) share {size_bytes} bytes at {address:#x}, no barrier")
    }
}

/// A declared range.
#[derive(Clone, Copy, Debug)]
struct Touch {
    range: ByteRange,
    launch: usize,
    writes: bool,
}

/// Ranges that reach to the sweep's address, by their ends.
#[derive(Default)]
struct Open(BinaryHeap<Reverse<(u64, usize)>>);

impl Open {
    /// Forgets what ends at or before an address.
    fn close(&mut self, address: u64) {
        while self.0.peek().is_some_and(|Reverse((end, _))| *end <= address) {
            self.0.pop();
        }
    }

    fn touches(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|Reverse((_, touch))| *touch)
    }
}

/// Every pair of launches that lacks a barrier, in launch order. For executables that are submitted one
/// after another, chain their launches.
pub fn conflicts<'a>(launches: impl IntoIterator<Item = &'a Dispatch>) -> Vec<Conflict> {
    let launches: Vec<&Dispatch> = launches.into_iter().collect();
    let mut pairs = BTreeMap::new();
    let mut start = 0;
    for end in 1..=launches.len() {
        if launches.get(end).is_none_or(|launch| launch.barrier_before) {
            sweep(&launches, start..end, &mut pairs);
            start = end;
        }
    }
    let named = |index: usize| (index, launches[index].name.clone());
    pairs.into_iter().map(|((i, j), shared)| Conflict { first: named(i), second: named(j), shared }).collect()
}

/// Enters the conflicts among launches with no barrier between them.
fn sweep(launches: &[&Dispatch], between: std::ops::Range<usize>, pairs: &mut BTreeMap<(usize, usize), ByteRange>) {
    let mut touches = Vec::new();
    for launch in between {
        let touch = |range: &ByteRange, writes| Touch { range: *range, launch, writes };
        touches.extend(launches[launch].reads.iter().map(|range| touch(range, false)));
        touches.extend(launches[launch].writes.iter().map(|range| touch(range, true)));
    }
    touches.retain(|touch| touch.range.size_bytes > 0);
    touches.sort_by_key(|touch| touch.range.address);
    let (mut readers, mut writers) = (Open::default(), Open::default());
    for (index, touch) in touches.iter().enumerate() {
        let address = touch.range.address;
        readers.close(address);
        writers.close(address);
        let mut meet = |other: usize| {
            let other = touches[other];
            if other.launch != touch.launch {
                let pair = (other.launch.min(touch.launch), other.launch.max(touch.launch));
                let size_bytes = other.range.end().min(touch.range.end()) - address;
                pairs.entry(pair).or_insert(ByteRange { address, size_bytes });
            }
        };
        writers.touches().for_each(&mut meet);
        if touch.writes {
            readers.touches().for_each(&mut meet);
        }
        let open = if touch.writes { &mut writers } else { &mut readers };
        open.0.push(Reverse((touch.range.end(), index)));
    }
}

#[cfg(test)]
mod tests {
    use biga_hal::{ByteRange, Dispatch};
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::conflicts;

    const SPACE: u64 = 24;

    fn ranges() -> impl Strategy<Value = Vec<ByteRange>> {
        let range = (0..SPACE, 0_u64..5).prop_map(|(address, size_bytes)| ByteRange { address, size_bytes });
        proptest::collection::vec(range, 0..4)
    }

    fn launches() -> impl Strategy<Value = Vec<Dispatch>> {
        let launch = (ranges(), ranges(), any::<bool>()).prop_map(|(reads, writes, barrier_before)| Dispatch {
            name: String::new(),
            reads,
            writes,
            barrier_before,
        });
        proptest::collection::vec(launch, 0..9)
    }

    /// By definition: each pair, each byte.
    fn by_bytes(launches: &[Dispatch]) -> Vec<(usize, usize)> {
        let touches = |ranges: &[ByteRange], byte| {
            ranges.iter().any(|range| range.address <= byte && byte < range.address + range.size_bytes)
        };
        let mut pairs = Vec::new();
        for (i, first) in launches.iter().enumerate() {
            for (j, second) in launches.iter().enumerate().skip(i + 1) {
                if second.barrier_before {
                    break;
                }
                let shares = |byte| {
                    let (r1, w1) = (touches(&first.reads, byte), touches(&first.writes, byte));
                    let (r2, w2) = (touches(&second.reads, byte), touches(&second.writes, byte));
                    (w1 && (r2 || w2)) || (r1 && w2)
                };
                if (0..2 * SPACE).any(shares) {
                    pairs.push((i, j));
                }
            }
        }
        pairs
    }

    proptest! {
        #[test]
        fn the_sweep_finds_what_a_look_at_each_byte_finds(launches in launches()) {
            let found: Vec<_> = conflicts(&launches).iter().map(|c| (c.first.0, c.second.0)).collect();
            prop_assert_eq!(found, by_bytes(&launches));
        }
    }

    #[test]
    fn a_conflict_names_its_launches_and_bytes() {
        let range = |address, size_bytes| ByteRange { address, size_bytes };
        let launch = |name: &str, reads, writes| Dispatch { name: name.into(), reads, writes, barrier_before: false };
        let mut launches = [
            launch("norm", vec![range(0, 64)], vec![range(256, 64)]),
            launch("other", vec![range(0, 64)], vec![range(512, 64)]),
            launch("product", vec![range(300, 400)], vec![]),
        ];
        let text: Vec<String> = conflicts(&launches).iter().map(ToString::to_string).collect();
        let expected = [
            "launch 0 (norm) and launch 2 (product) share 20 bytes at 0x12c, no barrier",
            "launch 1 (other) and launch 2 (product) share 64 bytes at 0x200, no barrier",
        ];
        assert_eq!(text, expected);
        launches[2].barrier_before = true;
        assert!(conflicts(&launches).is_empty());
    }
}
