//! Defects of the container.

use std::borrow::Cow;

use xclbin_tools::{
    axlf::{Axlf, Kind, Section, Uuid},
    section::{AiePartition, Name, aie_partition::Span},
    verify::Findings,
};

use super::{Row, sample::Sample};

/// The valid package with some bytes changed.
fn bytes(change: fn(&mut Vec<u8>)) -> Findings {
    let sample = Sample::npu1();
    let mut bytes = sample.container().to_bytes().unwrap();
    change(&mut bytes);
    sample.check_bytes(&bytes)
}

/// The valid package with its container changed.
fn container(change: fn(&mut Axlf<'static>)) -> Findings {
    let sample = Sample::npu1();
    let mut container = sample.container();
    change(&mut container);
    sample.check_bytes(&container.to_bytes().unwrap())
}

/// The valid package with a section more, whose entry of the table is changed: `offset` and `size` of it.
fn section(change: fn(offset: u64, size: u64) -> (u64, u64)) -> Findings {
    let sample = Sample::npu1();
    let mut container = sample.container();
    let kind = Kind::from_name("USER_METADATA").unwrap();
    container.sections_mut().push(Section { kind, name: Name::default(), bytes: Cow::Owned(vec![1; 16]) });
    let mut bytes = container.to_bytes().unwrap();
    let entry = 456 + 40 * (container.sections().len() - 1);
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (offset, size) = change(number(entry + 24), number(entry + 32));
    put(&mut bytes, entry + 24, &offset.to_le_bytes());
    put(&mut bytes, entry + 32, &size.to_le_bytes());
    sample.check_bytes(&bytes)
}

/// The valid package with a section's bytes changed.
fn inside(kind: Kind, change: fn(&mut Vec<u8>)) -> Findings {
    let sample = Sample::npu1();
    let container = sample.container();
    let section = container.sections().iter().position(|section| section.kind == kind).unwrap();
    let mut content = container.sections()[section].bytes.to_vec();
    let mut bytes = container.to_bytes().unwrap();
    let at = bytes.windows(content.len()).position(|window| window == content).unwrap();
    change(&mut content);
    put(&mut bytes, at, &content);
    sample.check_bytes(&bytes)
}

/// The valid package with the list of kernel ids elsewhere, by section and offset of the table of groups.
fn kernel_ids(elsewhere: fn(&[u8], usize) -> usize) -> Findings {
    let sample = Sample::npu1();
    let mut container = sample.container();
    let section = container.sections_mut().iter_mut().find(|section| section.kind == Kind::AIE_PARTITION).unwrap();
    let mut content = section.bytes.to_vec();
    let spans = AiePartition::spans(&content).unwrap();
    let field = |what: &str, by: fn(&Span) -> u64| {
        usize::try_from(by(spans.iter().find(|span| span.what == what).unwrap())).unwrap()
    };
    let to = elsewhere(&content, field("cdo_groups", |span| span.offset));
    let at = field("dpu_kernel_ids", |span| span.at);
    content.resize(content.len() + 16, 0);
    put(&mut content, to, &0x901_u64.to_le_bytes());
    put(&mut content, at + 4, &u32::try_from(to).unwrap().to_le_bytes());
    section.bytes = Cow::Owned(content);
    sample.check_bytes(&container.to_bytes().unwrap())
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// Replaces the last such text, which stands in the mirror, by one of the same length.
fn mirror(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).rposition(|window| window == from.as_bytes()).expect("a text of the mirror");
    put(bytes, at, to.as_bytes());
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        ("container-malformed", &["section-missing"], || bytes(|it| it.truncate(400))),
        ("file-length", &[], || bytes(|it| it.push(0))),
        ("file-length", &[], || bytes(|it| it.truncate(it.len() - 1))),
        ("section-count", &["section-missing", "mirror-contradiction"], || bytes(|it| put(it, 448, &[0; 4]))),
        ("header-mode", &[], || bytes(|it| put(it, 332, &[7, 0]))),
        ("signature-state", &[], || bytes(|it| put(it, 8, &0_i32.to_le_bytes()))),
        ("signature-state", &[], || bytes(|it| put(it, 8, &i32::MAX.to_le_bytes()))),
        ("package-uuid", &[], || container(|it| it.header_mut().uuid = Uuid::default())),
        ("section-outside", &[], || section(|_, size| (u64::MAX - 7, size))),
        ("section-outside", &[], || section(|offset, _| (offset, 1 << 40))),
        ("section-outside", &["mirror-contradiction"], || section(|_, size| (0, size))),
        ("section-alignment", &["mirror-contradiction"], || section(|offset, size| (offset + 4, size - 4))),
        ("section-overlap", &["mirror-contradiction"], || section(|offset, size| (offset - 8, size))),
        ("section-duplicate", &[], || {
            container(|it| {
                let again = it.section(Kind::IP_LAYOUT).unwrap().clone();
                it.sections_mut().push(again);
            })
        }),
        ("section-missing", &[], || container(|it| it.sections_mut().retain(|it| it.kind != Kind::EMBEDDED_METADATA))),
        // The offset of the partition's name.
        ("section-malformed", &[], || inside(Kind::AIE_PARTITION, |it| put(it, 4, &u32::MAX.to_le_bytes()))),
        ("section-malformed", &[], || inside(Kind::EMBEDDED_METADATA, |it| put(it, 0, b"no XML"))),
        ("section-not-checked", &[], || {
            let sample = Sample::npu1();
            let mut container = sample.container();
            let xml = container.sections_mut().iter_mut().find(|it| it.kind == Kind::EMBEDDED_METADATA).unwrap();
            xml.bytes.to_mut().splice(..0, format!("<!--{}-->", "x".repeat(1 << 20)).bytes());
            sample.check_bytes(&container.to_bytes().unwrap())
        }),
        ("section-malformed", &[], || inside(Kind::MEM_TOPOLOGY, |it| put(it, 0, &[3]))),
        // The list of kernel ids behind all others, but not at a multiple of 8; and inside the table of groups.
        ("partition-alignment", &[], || kernel_ids(|section, _| section.len() + 4)),
        ("partition-overlap", &[], || kernel_ids(|_, groups| groups + 40)),
        ("text-unterminated", &[], || container(|it| it.header_mut().platform_vbnv = Name([b'x'; 64]))),
        ("text-unterminated", &[], || container(|it| it.sections_mut()[0].name = Name([b'x'; 16]))),
        ("mirror-contradiction", &[], || bytes(|it| mirror(it, "\"XclBinUUID\":\"07", "\"XclBinUUID\":\"08"))),
        ("mirror-contradiction", &[], || bytes(|it| mirror(it, "\"m_used\":\"1\"", "\"m_used\":\"0\""))),
        ("mirror-contradiction", &[], || bytes(|it| mirror(it, "\"Kind\":\"27\"", "\"Kind\":\"28\""))),
        ("mirror-contradiction", &[], || bytes(|it| mirror(it, "{\"schema", "[\"schema"))),
    ]
}
