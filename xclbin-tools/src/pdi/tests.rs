use proptest::prelude::*;

use super::{ImageHeader, ImageHeaderTable, MAGIC, PartitionHeader, Pdi};

/// A PDI of `n` images of one partition with four words each.
fn pdi_of(n: u32) -> Vec<u8> {
    let (image_word, partition_word) = (0x24, 0x24 + 16 * n);
    let data_word = partition_word + 32 * n;
    let mut table = [0; 32];
    table[..5].copy_from_slice(&[0x40000, n, image_word, n, partition_word]);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(ImageHeaderTable::new(table).to_bytes());
    for index in 0..n {
        let mut words = [0; 16];
        words[..5].copy_from_slice(&[partition_word + 32 * index, 1, 0, 0, u32::from_le_bytes(*b"left")]);
        bytes.extend(ImageHeader::new(words).to_bytes());
    }
    for index in 0..n {
        let mut words = [0; 32];
        words[..3].copy_from_slice(&[4, 3, 4]);
        words[8] = data_word + 4 * index;
        bytes.extend(PartitionHeader::new(words).to_bytes());
    }
    for index in 0..4 * n {
        bytes.extend(index.to_le_bytes());
    }
    bytes
}

fn check_refused(bytes: &[u8], words: &str) {
    let error = Pdi::parse(bytes).expect_err("refused").to_string();
    assert!(error.contains(words), "{error}");
}

/// With one word of the file replaced.
fn with_word(mut bytes: Vec<u8>, word: usize, value: u32) -> Vec<u8> {
    bytes[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn images_and_partitions_are_found() {
    for n in 0..4 {
        let bytes = pdi_of(n);
        let pdi = Pdi::parse(&bytes).expect("a PDI");
        assert_eq!((pdi.images.len(), pdi.partitions.len()), (n as usize, n as usize));
        assert!(pdi.images.iter().all(|image| image.name() == "left"));
        for (index, partition) in pdi.partitions.iter().enumerate() {
            assert_eq!(partition.data[0], 4 * index as u8);
        }
        assert!(pdi.checksums().iter().all(|named| named.checksum.is_right()));
        assert_eq!(pdi.checksums().len(), 1 + 2 * n as usize);
        assert_eq!(pdi.to_bytes(), bytes);
    }
}

#[test]
fn wrong_checksums_are_shown() {
    // A reserved word of the second partition header.
    let bytes = with_word(pdi_of(2), 0x24 + 32 + 32 + 22, 1);
    let pdi = Pdi::parse(&bytes).expect("readable");
    let wrong: Vec<_> = pdi.checksums().into_iter().filter(|named| !named.checksum.is_right()).collect();
    assert_eq!(wrong.len(), 1);
    assert_eq!((wrong[0].name.as_str(), wrong[0].offset), ("partition header 1", 4 * (0x24 + 32 + 32)));
    assert!(!pdi.is_transformed());
}

#[test]
fn a_transformed_partition_reaches_to_the_end() {
    let header = 0x24 + 16;
    let mark = 0x8866 | 1 << 8 | 0x3c10 << 16;
    let mut bytes = with_word(pdi_of(1), header + 28, 1);
    bytes = with_word(bytes, header + 29, 0x3c10);
    let length_changed = with_word(bytes.clone(), header + 2, 0x1000);
    check_refused(&length_changed, "partition data");
    let bytes = with_word(length_changed, header + 30, mark);
    let pdi = Pdi::parse(&bytes).expect("a transformed PDI");
    assert!(pdi.is_transformed());
    assert_eq!(pdi.partitions[0].data.len(), 16);
    assert_eq!(pdi.partitions[0].header.transform().map(|transform| transform.command_zone_bytes), Some(0x3c10));
    assert_eq!(pdi.to_bytes(), bytes);
}

#[test]
fn what_cannot_be_read_is_refused() {
    check_refused(&[0xdd], "magic");
    check_refused(&[0; 300], "magic");
    check_refused(&pdi_of(1)[..100], "image header table");
    check_refused(&with_word(pdi_of(1), 4, 0xaa99_5566), "boot image");
    check_refused(&with_word(pdi_of(1), 5, u32::MAX), "image count");
    check_refused(&with_word(pdi_of(1), 7, u32::MAX), "partition count");
    check_refused(&with_word(pdi_of(1), 6, 0x4000_0000), "image header offset");
    check_refused(&with_word(pdi_of(1), 8, 0x50), "partition header");
    check_refused(&with_word(pdi_of(1), 0x34 + 8, 0x55), "partition data");
    // Both partitions are the whole file.
    let words = pdi_of(2).len() as u32 / 4;
    let mut bytes = pdi_of(2);
    for header in [0x44, 0x64] {
        bytes = with_word(with_word(bytes, header + 2, words), header + 8, 0);
    }
    check_refused(&bytes, "overlap");
}

#[test]
fn names_of_words_are_in_their_order() {
    for fields in [ImageHeaderTable::FIELDS, ImageHeader::FIELDS, PartitionHeader::FIELDS] {
        assert!(fields.is_sorted_by(|left, right| left.1 < right.1));
        assert_eq!(fields[fields.len() - 1].0, "stored_checksum");
    }
}

proptest! {
    #[test]
    fn what_is_read_is_written(n in 0_u32..4, word in 0_usize..200, value in any::<u32>(), cut in any::<usize>()) {
        let bytes = pdi_of(n);
        let words = bytes.len() / 4;
        let mut bytes = with_word(bytes, word % words, value);
        bytes.truncate(bytes.len() - cut % 8);
        if let Ok(pdi) = Pdi::parse(&bytes) {
            prop_assert_eq!(&pdi.to_bytes(), &bytes);
            let _ = pdi.checksums();
            let _ = pdi.partitions.iter().filter(|partition| partition.cdo().is_ok()).count();
        }
    }
}
