use proptest::prelude::*;

use super::merge;
use crate::cdo::{Cdo, Command, tests::cdo_of};

fn merged(parts: &[&[u32]]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = parts.iter().map(|words| cdo_of(words)).collect();
    let cdos: Vec<Cdo<'_>> = parts.iter().map(|bytes| Cdo::parse(bytes).expect("a CDO")).collect();
    merge(&cdos).expect("can be merged")
}

fn check(parts: &[&[u32]], expected: &[u32]) {
    assert_eq!(merged(parts), cdo_of(expected));
}

#[test]
fn commands_have_one_form() {
    check(&[&[0x0003_0105, 0, 16, 7]], &[0x0002_0103, 16, 7]);
    check(&[&[0x0003_0105, 1, 16, 7]], &[0x0003_0108, 1, 16, 7]);
    check(&[&[0x0003_0108, 0, 16, 7]], &[0x0002_0103, 16, 7]);
    check(&[&[0x0004_0107, 0, 16, 7, 1]], &[0x0003_0102, 16, 7, 1]);
    check(&[&[0x0007_0106, 0, 16, 1, 2, 3, 0, 0]], &[0x0004_0101, 16, 1, 2, 3]);
    check(&[&[0x0006_0101, 16, 1, 2, 3, 0, 9]], &[0x0006_0101, 16, 1, 2, 3, 0, 9]);
    check(&[&[0x12ff_0103, 2, 16, 7]], &[0x0002_0103, 16, 7]);
}

#[test]
fn an_end_mark_ends_its_cdo() {
    check(&[&[0x111, 0x100, 0x0001_0111, 7], &[0x0001_0111, 8]], &[0x111, 0x0001_0111, 8]);
}

#[test]
fn each_cdo_counts_from_its_own_start() {
    // Data start at word 8 of each, behind the header of five words and three of their own command.
    let block = [0x0004_0105, 0, 0x20_0000, 5, 6];
    let both = [block, block].concat();
    check(&[&block, &block], &both);
    // In one CDO the second block needs padding: its data would start at word 13.
    let expected = [&block[..], &[0x0002_0111, 0, 0], &block].concat();
    check(&[&both], &expected);
}

#[test]
fn what_would_become_wrong_is_refused() {
    for id in [0x11a, 0x11b, 0x11f] {
        let bytes = cdo_of(&[0x0001_0000 | id, 0]);
        let error = merge(&[Cdo::parse(&bytes).expect("a CDO")]).expect_err("refused").to_string();
        assert!(error.starts_with("CDO 0: command"), "{error}");
    }
    let mut bytes = cdo_of(&[]);
    bytes.extend([3_u32, 1, 16, 7].iter().flat_map(|word| word.to_le_bytes()));
    let cdo = Cdo::parse_transformed(&bytes, 16).expect("a transformed CDO");
    assert!(merge(&[cdo]).is_err());
    assert_eq!(crate::cdo::plain(&cdo), cdo_of(&[0x0002_0103, 16, 7]));
}

proptest! {
    #[test]
    fn data_lie_as_their_destinations(blocks in prop::collection::vec((any::<u32>(), 2_u32..300, 0_u32..3), 1..8)) {
        let mut words = Vec::new();
        for (address, n_data, n_nops) in &blocks {
            words.extend(std::iter::repeat_n(0x111, *n_nops as usize));
            match 2 + n_data {
                length @ ..255 => words.push(length << 16 | 0x105),
                length => words.extend([0x00ff_0105, length]),
            }
            words.extend([0, address & !3]);
            words.extend(0..*n_data);
        }
        let bytes = merged(&[&words]);
        let cdo = Cdo::parse(&bytes).expect("a CDO");
        let mut n_blocks = 0;
        for entry in cdo.commands() {
            if let Command::DmaWrite { address, data } = entry.command {
                let at = data.as_bytes().as_ptr() as usize - bytes.as_ptr() as usize;
                prop_assert_eq!(at as u64 / 4 % 4, address / 4 % 4);
                n_blocks += 1;
            }
        }
        prop_assert_eq!(n_blocks, blocks.len());
        // What lies right stays.
        prop_assert_eq!(merge(&[cdo]).expect("can be merged"), bytes);
    }
}
