//! Containers of our own making, and what is wrong with broken ones.

use proptest::prelude::*;

use super::*;

fn section(kind: Kind, name: &str, bytes: &[u8]) -> Section<'static> {
    Section { kind, name: Name::cut(name.as_bytes()), bytes: Cow::Owned(bytes.to_vec()) }
}

fn small() -> Axlf<'static> {
    let connection = [1_u32, 3, 0, 1].map(u32::to_le_bytes).concat();
    let sections = vec![section(Kind(18), "image", b"12345"), section(Kind::CONNECTIVITY, "", &connection)];
    let mut axlf = Axlf::new(Header::default(), sections);
    axlf.header_mut().set_time(1_700_000_000);
    axlf
}

#[test]
fn sections_begin_at_multiples_of_eight_and_the_length_counts_the_mirror() {
    let bytes = small().to_bytes().unwrap();
    let axlf = Axlf::parse(&bytes).unwrap();
    let layout = axlf.layout().unwrap();
    assert_eq!(layout.length, bytes.len() as u64);
    assert_eq!(layout.places.iter().map(|place| (place.offset, place.size)).collect::<Vec<_>>(), [(536, 5), (544, 16)]);
    assert_eq!(axlf.sections(), small().sections());
    assert_eq!(layout.gaps.len(), 2);
    let mirror = std::str::from_utf8(axlf.mirror().unwrap()).unwrap();
    assert!(mirror.starts_with(r#"{"schema_version":{"major":"1","#), "{mirror}");
    assert!(mirror.contains(r#""UniqueID":"00f15365","#) || mirror.contains(r#""TimeStamp":"1700000000""#), "{mirror}");
    assert!(mirror.contains(r#""Version":"\u0002.\u0019.0""#), "{mirror}");
    assert!(mirror.contains(r#""m_connection":[{"arg_index":"3","#), "{mirror}");
}

#[test]
fn a_container_of_nothing_is_header_and_mirror() {
    let bytes = Axlf::default().to_bytes().unwrap();
    assert!(bytes[HEADER_BYTES..].starts_with(b"XCLBIN_MIRROR_DATA_START{"));
    assert_eq!(Axlf::parse(&bytes).unwrap().sections(), []);
}

#[test]
fn odd_files_are_written_as_they_were() {
    let mut bytes = small().to_bytes().unwrap();
    // The gap before the second section is no longer zero, and something follows the mirror.
    bytes[541] = 7;
    bytes.extend(b"trailing");
    // Both sections name the same bytes, off the alignment, and the name goes on behind its NUL.
    bytes[456 + 24..456 + 32].copy_from_slice(&545_u64.to_le_bytes());
    bytes[456 + 4 + 12] = b'z';
    let axlf = Axlf::parse(&bytes).unwrap();
    assert_eq!(axlf.to_bytes().unwrap(), bytes);
    assert_eq!(axlf.layout().unwrap().places[0].offset, 545);
}

#[test]
fn a_change_lays_out_anew_and_drops_the_signature() {
    let mut axlf = small();
    axlf.header_mut().signature_length = 4;
    let mut bytes = axlf.to_bytes().unwrap();
    assert_eq!(bytes[8..12], [0xff; 4]);
    bytes[8..12].copy_from_slice(&4_i32.to_le_bytes());
    bytes.extend(b"sign");
    let length = bytes.len() as u64;
    bytes[304..312].copy_from_slice(&length.to_le_bytes());
    bytes.extend(b"not counted");
    let mut axlf = Axlf::parse(&bytes).unwrap();
    assert_eq!(axlf.signature(), Some(&b"sign"[..]));
    assert_eq!(axlf.to_bytes().unwrap(), bytes);
    axlf.sections_mut().pop();
    let changed = axlf.to_bytes().unwrap();
    let changed = Axlf::parse(&changed).unwrap();
    assert_eq!((changed.signature(), changed.sections().len()), (None, 1));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let good = small().to_bytes().unwrap();
    let check = |change: &dyn Fn(&mut Vec<u8>), words: &str| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = Axlf::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(&|bytes| bytes.truncate(100), "axlf, byte 0x28: m_keyBlock is 256 bytes long: only 60 are left of 100");
    check(&|bytes| bytes[6] = b'1', "axlf, byte 0x0: magic is xclbin1\\0: \"xclbin2\" is expected");
    check(&|bytes| bytes.truncate(600), "byte 0x130: m_length");
    check(&|bytes| bytes[448] = 255, "section 2");
    let offset = |bytes: &mut Vec<u8>| bytes[456 + 24..456 + 32].copy_from_slice(&u64::MAX.to_le_bytes());
    check(&offset, "section 0: PDI: axlf, byte 0x1e0: section is 5 bytes from 0xffffffffffffffff");
    let size = |bytes: &mut Vec<u8>| bytes[456 + 32..456 + 40].copy_from_slice(&u64::MAX.to_le_bytes());
    check(&size, "section 0: PDI");
}

#[test]
fn sections_that_multiply_the_file_are_refused() {
    let sections = (0..8).map(|_| section(Kind(18), "", &[0; 4096])).collect();
    let mut bytes = Axlf::new(Header::default(), sections).to_bytes().unwrap();
    let length = bytes.len() as u64;
    for entry in 0..8 {
        let at = 456 + 40 * entry;
        bytes[at + 24..at + 32].copy_from_slice(&0_u64.to_le_bytes());
        bytes[at + 32..at + 40].copy_from_slice(&length.to_le_bytes());
    }
    let error = Axlf::parse(&bytes).unwrap_err().to_string();
    assert!(error.contains("at most twice"), "{error}");
}

prop_compose! {
    fn axlfs()(
        time in any::<u64>(),
        mode in any::<u16>(),
        uuid in any::<[u8; 16]>(),
        sections in prop::collection::vec((36_u32..60, any::<[u8; 16]>(), prop::collection::vec(any::<u8>(), 0..50)), 0..6),
    ) -> Axlf<'static> {
        let mut header = Header { mode, uuid: Uuid(uuid), ..Header::default() };
        header.set_time(time);
        let section = |(kind, name, bytes)| Section { kind: Kind(kind), name: Name(name), bytes: Cow::Owned(bytes) };
        Axlf::new(header, sections.into_iter().map(section).collect())
    }
}

proptest! {
    #[test]
    fn every_model_reads_back(axlf in axlfs()) {
        let bytes = axlf.to_bytes().unwrap();
        let read = Axlf::parse(&bytes).unwrap();
        prop_assert_eq!(read.header(), axlf.header());
        prop_assert_eq!(read.sections(), axlf.sections());
        prop_assert_eq!(read.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn what_is_read_is_written_as_it_was(
        axlf in axlfs(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = axlf.to_bytes().unwrap();
        for (index, value) in flips {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Ok(read) = Axlf::parse(&bytes) {
            prop_assert_eq!(read.to_bytes().unwrap(), bytes.clone());
        }
        let _ = Axlf::parse(&bytes[..cut.index(bytes.len())]);
    }
}
