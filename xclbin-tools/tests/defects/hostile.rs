//! Files broken at random: `verify` answers with findings, whatever it is given.

use proptest::prelude::*;
use xclbin_tools::{
    cdo, txn,
    verify::{self, Findings},
};

use super::elves;
use super::sample::{CDO_NPU1, STREAM, Sample, image};

/// Valid files of each kind.
fn valid() -> Vec<Vec<u8>> {
    vec![
        Sample::two().container().to_bytes().unwrap(),
        image(CDO_NPU1),
        cdo::assemble(CDO_NPU1).unwrap(),
        txn::assemble(STREAM).unwrap(),
        elves::partial(),
        elves::full(2),
    ]
}

/// A file is of no kind, or its findings are bounded.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Some(found) = verify::file(bytes, None) {
        let n_rules = verify::rules().count();
        prop_assert!(found.listed().len() <= n_rules * Findings::MOST_PER_RULE);
    }
    Ok(())
}

proptest! {
    #[test]
    fn changed_bytes_make_no_panic(
        file in 0_usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = valid().swap_remove(file);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(&bytes)?;
    }

    #[test]
    fn cut_files_make_no_panic(file in 0_usize..6, at: prop::sample::Index) {
        let mut bytes = valid().swap_remove(file);
        bytes.truncate(at.index(bytes.len()));
        check(&bytes)?;
    }

    #[test]
    fn bytes_behind_a_start_make_no_panic(file in 0_usize..6, rest in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut bytes = valid().swap_remove(file);
        bytes.truncate(16);
        bytes.extend(rest);
        check(&bytes)?;
    }
}
