//! How launches wait for each other: by pipeline barriers, or by counters (`chain.glsl`).
//!
//! A pipeline barrier drains the device: the next launch starts, and sends its first loads, only when the last
//! workgroup before it is done. Kernels that know how count their workgroups instead, and wait for a count in
//! the shader. Launches between two such waits are a *group*; all of a group wait for the group before it.

use biga_hal::Dispatch;

use crate::hazard::Hazards;

/// Bytes of a counter: a cache line of its own.
pub(crate) const COUNTER_BYTES: u64 = 128;

/// The most counters of a recording: their indices have 16 bits.
const MAX_COUNTERS: u32 = 1 << 16;

/// What stands before a launch, and what it counts in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// A pipeline barrier.
    pub(crate) barrier: bool,
    /// The counter to wait for, and the count.
    pub(crate) awaits: Option<(u32, u32)>,
    /// The counter of its group.
    pub(crate) counter: u32,
}

impl Link {
    /// The words after the counters' address in the `Chain` of a kernel's push constants.
    pub(crate) fn words(&self) -> [u32; 2] {
        let (index, target) = self.awaits.unwrap_or((0, 0));
        [index | self.counter << 16, target]
    }
}

/// A launch as far as its order is concerned.
pub(crate) struct Place<'a> {
    pub(crate) dispatch: &'a Dispatch,
    /// Its workgroups, if its kernel counts them.
    pub(crate) counts: Option<u32>,
}

/// The links of launches in order, and how many counters they need. The first launch has a barrier before it
/// from the recording.
pub(crate) fn links<'a>(launches: impl Iterator<Item = Place<'a>>) -> (Vec<Link>, u32) {
    let mut hazards = Hazards::default();
    let mut links = Vec::new();
    // Of the current group: its counter, its workgroups if all of it count, and what it waits for.
    let mut counter = 0;
    let mut counted = Some(0u32);
    let mut awaits = None;
    for place in launches {
        let due = hazards.admit(place.dispatch);
        let sum = counted.zip(place.counts).and_then(|(sum, own)| sum.checked_add(own));
        // Who cannot wait by a counter must not stand in a group that does.
        let barrier = match (due, place.counts) {
            (true, Some(own)) if counted.is_some_and(|n| n > 0) && counter + 1 < MAX_COUNTERS => {
                awaits = counted.map(|target| (counter, target));
                counter += 1;
                counted = Some(own);
                false
            }
            (true, _) => true,
            (false, None) => awaits.is_some(),
            (false, Some(_)) => {
                counted = sum;
                false
            }
        };
        if barrier {
            awaits = None;
            counter = (counter + 1).min(MAX_COUNTERS - 1);
            counted = place.counts;
        } else if place.counts.is_none() {
            counted = None;
        }
        links.push(Link { barrier, awaits, counter });
    }
    (links, counter + 1)
}

#[cfg(test)]
mod tests {
    use biga_hal::{ByteRange, Dispatch};

    use super::{Link, Place, links};

    /// Reads the value before it, or nothing, and writes its own.
    fn dispatch(reads: Option<u64>, writes: u64) -> Dispatch {
        let range = |value: u64| ByteRange { address: 256 * (value + 1), size_bytes: 16 };
        let reads = reads.map(range).into_iter().collect();
        Dispatch { name: String::new(), reads, writes: vec![range(writes)], barrier_before: false }
    }

    fn check(launches: &[(Option<u64>, u64, Option<u32>)], expected: &[(bool, Option<(u32, u32)>)]) {
        let dispatches: Vec<Dispatch> = launches.iter().map(|&(reads, writes, _)| dispatch(reads, writes)).collect();
        let places = dispatches.iter().zip(launches).map(|(dispatch, &(_, _, counts))| Place { dispatch, counts });
        let (found, counters) = links(places);
        let seen: Vec<_> = found.iter().map(|link| (link.barrier, link.awaits)).collect();
        assert_eq!(seen, expected);
        assert!(found.iter().all(|link: &Link| link.counter < counters));
    }

    #[test]
    fn launches_that_count_wait_for_the_group_before() {
        // Two side by side, one that reads the first, one that reads that.
        check(
            &[(None, 0, Some(7)), (None, 1, Some(5)), (Some(0), 2, Some(3)), (Some(2), 3, Some(1))],
            &[(false, None), (false, None), (false, Some((0, 12))), (false, Some((1, 3)))],
        );
    }

    #[test]
    fn a_launch_that_does_not_count_stands_between_barriers() {
        check(
            &[(None, 0, Some(2)), (Some(0), 1, None), (Some(1), 2, Some(4)), (Some(2), 3, Some(4))],
            &[(false, None), (true, None), (true, None), (false, Some((2, 4)))],
        );
    }

    #[test]
    fn a_launch_that_cannot_wait_joins_no_group_that_does() {
        check(
            &[(None, 0, Some(2)), (Some(0), 1, Some(2)), (None, 9, None), (None, 8, Some(3)), (Some(8), 7, Some(1))],
            // The third shares nothing with the second, but may with what the second waits for.
            &[(false, None), (false, Some((0, 2))), (true, None), (false, None), (true, None)],
        );
    }
}
