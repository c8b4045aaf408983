//! Barriers from declared ranges.
//!
//! A launch waits for everything before it only if it reads or writes bytes that were written since the
//! last barrier, or writes bytes that were read since. Launches that share nothing run side by side.

use biga_hal::{ByteRange, Dispatch};

/// The ranges touched since the last barrier.
#[derive(Debug, Default)]
pub(crate) struct Hazards {
    reads: Vec<ByteRange>,
    writes: Vec<ByteRange>,
}

fn touch(a: &[ByteRange], b: &[ByteRange]) -> bool {
    a.iter().any(|x| b.iter().any(|y| x.overlaps(y)))
}

impl Hazards {
    /// Whether a barrier is due before this launch; takes the launch into account either way.
    pub(crate) fn admit(&mut self, launch: &Dispatch) -> bool {
        let due = touch(&launch.reads, &self.writes)
            || touch(&launch.writes, &self.writes)
            || touch(&launch.writes, &self.reads);
        if due {
            self.reads.clear();
            self.writes.clear();
        }
        self.reads.extend_from_slice(&launch.reads);
        self.writes.extend_from_slice(&launch.writes);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteRange, Dispatch, Hazards};

    fn launch(reads: &[(u64, u64)], writes: &[(u64, u64)]) -> Dispatch {
        let ranges =
            |list: &[(u64, u64)]| list.iter().map(|&(address, size_bytes)| ByteRange { address, size_bytes }).collect();
        Dispatch { name: String::new(), reads: ranges(reads), writes: ranges(writes), barrier_before: false }
    }

    #[test]
    fn a_barrier_stands_where_bytes_are_shared_and_nowhere_else() {
        let mut hazards = Hazards::default();
        assert!(!hazards.admit(&launch(&[(0, 10)], &[(100, 10)])));
        assert!(!hazards.admit(&launch(&[(0, 10)], &[(110, 10)])), "two readers of the same bytes");
        assert!(hazards.admit(&launch(&[(105, 1)], &[(200, 4)])), "read after write");
        assert!(!hazards.admit(&launch(&[(0, 10)], &[(300, 4)])), "the barrier covers what came before");
        assert!(hazards.admit(&launch(&[], &[(302, 1)])), "write after write");
        assert!(!hazards.admit(&launch(&[(50, 2)], &[])));
        assert!(hazards.admit(&launch(&[], &[(51, 1)])), "write after read");
    }
}
