//! Any bytes as an XCLBIN: the container, its sections as models and as JSON, and everything in them checked.

use xclbin_tools::{
    axlf::{Axlf, Kind},
    package::{Merge, Split},
    section::{self, AiePartition, EmbeddedMetadata, IpLayout, MemTopology},
    verify,
};

/// Reads `data`, writes it back, and again after a change that changes nothing.
pub(crate) fn check(data: &[u8]) {
    let _ = verify::file(data, None);
    let Ok(package) = Axlf::parse(data) else { return };
    assert_eq!(package.to_bytes().as_deref(), Ok(data), "what was read is written back");
    for part in package.sections() {
        if let Ok(Some(json)) = section::to_json(part.kind, &part.bytes) {
            let _ = section::from_json(part.kind, &json);
        }
        models(part.kind, &part.bytes);
    }
    if let Ok(split) = Split::of(&package) {
        // More parts take longer and are no other case.
        for part in split.packages().take(4).flatten() {
            let _ = (part.to_bytes(), Merge::default().run(&[("whole", package.clone()), ("part", part.clone())]));
        }
    }
    let mut anew = package.clone();
    anew.sections_mut();
    if let Ok(bytes) = anew.to_bytes() {
        let again = Axlf::parse(&bytes).expect("what was laid out can be read");
        assert_eq!(again.sections(), package.sections());
    }
}

/// A model that was read is read again as the same from what it writes.
fn models(kind: Kind, bytes: &[u8]) {
    match kind {
        Kind::AIE_PARTITION => {
            let Ok(partition) = AiePartition::parse(bytes) else { return };
            let bytes = partition.to_bytes().expect("what was read can be written");
            assert_eq!(AiePartition::parse(&bytes).as_ref(), Ok(&partition));
        }
        Kind::IP_LAYOUT => {
            let Ok(layout) = IpLayout::parse(bytes) else { return };
            let bytes = layout.to_bytes().expect("what was read can be written");
            assert_eq!(IpLayout::parse(&bytes).as_ref(), Ok(&layout));
        }
        Kind::MEM_TOPOLOGY | Kind::GROUP_TOPOLOGY => {
            let Ok(topology) = MemTopology::parse(bytes) else { return };
            let bytes = topology.to_bytes().expect("what was read can be written");
            assert_eq!(MemTopology::parse(&bytes).as_ref(), Ok(&topology));
        }
        Kind::EMBEDDED_METADATA => {
            let _ = EmbeddedMetadata::parse(bytes);
        }
        _ => {}
    }
}
