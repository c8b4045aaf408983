//! Defects of PDIs and CDOs.

use std::borrow::Cow;

use xclbin_tools::{
    cdo::{Cdo, Checksum},
    section::aie_partition::CdoType,
    verify::{self, Findings},
};

use super::{
    Row,
    sample::{CDO_NPU1, Sample, image},
};

/// The valid package with a line more in its CDO.
fn line(line: &str) -> Findings {
    text(&format!("{CDO_NPU1}\n{line}\n"))
}

fn text(text: &str) -> Findings {
    let mut sample = Sample::npu1();
    sample.partition.pdis[0].image = Cow::Owned(image(text));
    sample.check()
}

/// The valid package with bytes of its PDI changed.
fn bytes(change: fn(&mut Vec<u8>)) -> Findings {
    let mut sample = Sample::npu1();
    change(sample.partition.pdis[0].image.to_mut());
    sample.check()
}

const TABLE: usize = 0x10;
const IMAGE_HEADER: usize = 0x90;
const PARTITION_HEADER: usize = 0xd0;
const CDO: usize = 0x150;

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn put(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

/// Makes the checksum of a header right, its last word.
fn sum(bytes: &mut [u8], header: usize, n_words: usize) {
    let words: Vec<u32> = (0..n_words - 1).map(|index| word(bytes, header + 4 * index)).collect();
    put(bytes, header + 4 * (n_words - 1), Checksum::of(&words));
}

/// Rewrites the image as aie-pdi-transform does: a command zone of groups, then the data of blocks.
fn transform(bytes: &mut Vec<u8>, n_cut_bytes: usize) {
    use xclbin_tools::cdo::Command;
    let (mut zone, mut data) = (Vec::<u32>::new(), Vec::new());
    let cdo = Cdo::parse(&bytes[CDO..]).unwrap();
    for entry in cdo.commands() {
        match entry.command {
            Command::MaskWrite { address, mask, value, .. } => {
                zone.extend([2, 1, u32::try_from(address).unwrap(), mask, value]);
            }
            Command::Write { address, value, .. } => zone.extend([3, 1, u32::try_from(address).unwrap(), value]),
            Command::DmaWrite { address, data: words } => {
                let (at, n_words) = (u32::try_from(data.len()).unwrap(), u32::try_from(words.len()).unwrap());
                zone.extend([5, 1, 0, u32::try_from(address).unwrap(), at, n_words]);
                data.extend_from_slice(words.as_bytes());
            }
            Command::Nop { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    data.truncate(data.len() - n_cut_bytes);
    bytes.truncate(CDO + 20);
    bytes.extend(zone.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(data);
    let zone_bytes = u32::try_from(4 * zone.len()).unwrap();
    put(bytes, PARTITION_HEADER + 4 * 28, 1);
    put(bytes, PARTITION_HEADER + 4 * 29, zone_bytes);
    put(bytes, PARTITION_HEADER + 4 * 30, 0x8866 | 0x100 | zone_bytes.rotate_left(16));
}

fn pdis() -> Vec<Row> {
    vec![
        ("pdi-malformed", &[], || bytes(|it| it[0] = 0)),
        ("pdi-malformed", &[], || bytes(|it| it.truncate(0x100))),
        ("pdi-malformed", &[], || bytes(|it| put(it, TABLE + 4, 1000))),
        ("pdi-table-checksum", &[], || bytes(|it| put(it, TABLE + 4 * 8, 1))),
        ("pdi-image-checksum", &[], || bytes(|it| put(it, IMAGE_HEADER + 4 * 9, 1))),
        ("pdi-partition-checksum", &[], || bytes(|it| put(it, PARTITION_HEADER + 4 * 12, 1))),
        ("pdi-transformed", &[], || bytes(|it| transform(it, 0))),
        ("cdo-cut", &["pdi-transformed"], || bytes(|it| transform(it, 20))),
        ("pdi-partitions", &[], || {
            bytes(|it| {
                put(it, TABLE + 4, 0);
                sum(it, TABLE, 32);
            })
        }),
        ("pdi-length", &[], || {
            bytes(|it| {
                let n_words = word(it, PARTITION_HEADER + 4);
                put(it, PARTITION_HEADER + 4, n_words - 4);
                sum(it, PARTITION_HEADER, 32);
            })
        }),
        ("pdi-empty", &[], || text("nop\n")),
    ]
}

fn cdos() -> Vec<Row> {
    vec![
        ("cdo-malformed", &[], || bytes(|it| it[CDO + 4] = b'X')),
        // The length of the first command, which then takes all others for its payload and more.
        ("cdo-malformed", &[], || bytes(|it| put(it, CDO + 20, 0x00ff_0102))),
        ("cdo-checksum", &[], || bytes(|it| put(it, CDO + 16, 1))),
        ("cdo-command", &[], || line("delay delay_us=1")),
        ("address-column", &[], || line("write tile(1,1)+0xc0000 value=0")),
        ("address-column", &[], || {
            let cdo = xclbin_tools::cdo::assemble("write tile(5,2)+0x1f000 value=0\n").unwrap();
            verify::file(&cdo, xclbin_tools::array::Device::by_name("npu1")).unwrap()
        }),
        ("address-row", &[], || line("write tile(0,6)+0x0 value=0")),
        ("address-hole", &[], || line("write tile(0,1)+0x80000 value=0")),
        ("address-hole", &[], || line("write tile(0,0)+0x0 value=0")),
        ("address-alignment", &[], || line("write tile(0,1)+0xc0002 value=0")),
        ("memory-end", &[], || line("dma_write tile(0,2)+0xfffc\n    0x1 0x2")),
        ("memory-end", &[], || line("dma_write tile(0,1)+0x7fff8\n    0x1 0x2 0x3")),
        ("program-end", &[], || line("dma_write tile(0,2)+0x23ffc\n    0x1 0x2")),
        ("descriptor-end", &[], || line("dma_write tile(0,2)+0x1d000\n    0x1 0x2 0x3 0x4 0x5 0x6 0x7")),
        ("poll-never", &["cdo-command"], || line("mask_poll tile(0,1)+0xc0000 mask=0x3 value=0x4 timeout_us=1")),
        ("core-without-program", &[], || line("mask_write tile(0,2)+0x32000 mask=0x1 value=0x1")),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    [pdis(), cdos()].concat()
}

#[test]
fn a_core_with_a_program_and_a_later_image_are_no_defects() {
    let enable = "mask_write tile(0,2)+0x32000 mask=0x1 value=0x1";
    let found = line(&format!("dma_write tile(0,2)+0x20000\n    0x1 0x2\n{enable}"));
    assert!(found.is_empty(), "{found:?}");
    let mut sample = Sample::two();
    let later = &mut sample.partition.pdis[1];
    later.image = Cow::Owned(image(enable));
    later.groups[0].kind = CdoType(2);
    let found = sample.check();
    assert!(found.is_empty(), "{found:?}");
}
