use crate::words::Words;
use proptest::prelude::*;

use super::{Options, Release, build};
use crate::{
    cdo::{Builder, Cdo, Command},
    pdi::Pdi,
};

fn one_write() -> Vec<u8> {
    let mut builder = Builder::new();
    builder.push(&Command::Write { address: 16, value: 7, wide: false });
    builder.finish()
}

#[test]
fn what_was_built_is_right() {
    let cdo = one_write();
    for release in [Release::Current, Release::Older] {
        let options = Options { release, ..Options::default() };
        let bytes = build(&[&cdo, &cdo], &options).expect("a PDI");
        let pdi = Pdi::parse(&bytes).expect("readable");
        assert!(pdi.checksums().iter().all(|named| named.checksum.is_right()));
        assert_eq!((pdi.images[0].name().as_str(), pdi.images[0].image_id()), ("aie_image", 0x1c00_0000));
        assert_eq!(pdi.images[0].measurement(), if release == Release::Current { u32::MAX } else { 0 });
        let header = &pdi.partitions[0].header;
        // Five words of header and six of commands, padded to sixteen bytes.
        assert_eq!((header.unencrypted_words(), header.total_words()), (11, 12));
        assert_eq!(bytes.len(), 0x150 + 48);
        assert_eq!(pdi.cdo(0).expect("a CDO").commands().count(), 2);
        assert_eq!(pdi.cdo(0).expect("a CDO").trailing, [0; 4]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let check = |cdos: &[&[u8]], image_name: &str, words: &str| {
        let options = Options { image_name: image_name.to_owned(), ..Options::default() };
        let error = build(cdos, &options).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    };
    check(&[&one_write()], "seventeen letters", "16 bytes");
    check(&[&one_write(), &[1, 2, 3]], "aie_image", "CDO 1: ");
    assert!(build(&[], &Options { image_name: "sixteen letters!".to_owned(), ..Options::default() }).is_ok());
    assert!(Cdo::parse(&one_write()).is_ok());
}

proptest! {
    #[test]
    fn all_commands_are_there_in_their_order(
        files in prop::collection::vec(prop::collection::vec((any::<u32>(), 2_usize..40), 0..9), 0..4),
    ) {
        let zeros = [0; 160];
        let blocks = |file: &Vec<(u32, usize)>| {
            let mut builder = Builder::new();
            for (address, n_words) in file {
                let data = Words::new(&zeros[..4 * n_words]);
                builder.push(&Command::DmaWrite { address: (*address).into(), data });
            }
            builder.finish()
        };
        let cdos: Vec<Vec<u8>> = files.iter().map(blocks).collect();
        let cdos: Vec<&[u8]> = cdos.iter().map(Vec::as_slice).collect();
        let bytes = build(&cdos, &Options::default()).expect("a PDI");
        let pdi = Pdi::parse(&bytes).expect("readable");
        prop_assert!(pdi.checksums().iter().all(|named| named.checksum.is_right()));
        prop_assert_eq!(&pdi.to_bytes(), &bytes);
        let written = pdi.cdo(0).expect("a CDO").commands().filter_map(|entry| entry.command.written());
        let expected = files.iter().flatten().map(|(address, n_words)| (u64::from(*address), *n_words as u64));
        prop_assert!(written.eq(expected));
    }
}
