//! A file of any kind, checked whole; and a package's sections, read once for all subjects.

use std::collections::HashSet;

use super::{
    Basis, Findings,
    address::Columns,
    cdo,
    container::{self, Entry},
    elf,
    kernels::{self, Slots},
    memory, partition, pdi,
    rule::rules,
    stream,
};
use crate::{
    array::Device,
    axlf::Kind as SectionKind,
    error::{Error, Result},
    section::{AiePartition, Connectivity, EmbeddedMetadata, IpLayout, MemTopology, ip_layout::Ip},
    txn,
};

rules! {
    LAUNCH: Error "stream-kernel" {
        asks: "the kernel that a stream is given for is in the package, and takes instruction streams",
        effect: "the kernel cannot be opened, or takes the stream for something else",
        mend: "name one of the package's kernels (xclbin info FILE.xclbin lists them)",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A container.
    Xclbin,
    /// An image for the array.
    Pdi,
    /// Commands without the image around them.
    Cdo,
    /// An ELF file of aiebu.
    Elf,
    /// An instruction stream.
    Stream,
}

impl Kind {
    /// What a file is; none if it starts like no kind that is known.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Kind> {
        let starts: [(&[u8], Kind); 4] = [
            (b"xclbin2\0", Kind::Xclbin),
            (&crate::pdi::MAGIC, Kind::Pdi),
            (b"\x04\0\0\0CDO\0", Kind::Cdo),
            (b"\x7fELF", Kind::Elf),
        ];
        let by_start = starts.into_iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| kind);
        // A stream starts with its version alone, so that rows and columns have to be small as well.
        let is_stream = || match bytes {
            [major, minor, generation, rows, columns, ..] => {
                txn::Version::of(*major, *minor).is_some() && *generation < 16 && *rows < 16 && *columns < 128
            }
            _ => false,
        };
        by_start.or_else(|| is_stream().then_some(Kind::Stream))
    }

    /// `xclbin`, `pdi`, `cdo`, `elf`, `stream`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Xclbin => "xclbin",
            Kind::Pdi => "pdi",
            Kind::Cdo => "cdo",
            Kind::Elf => "elf",
            Kind::Stream => "stream",
        }
    }
}

/// What is found in a file that stands alone; none if it is of no kind that is known. Without `device` it is taken
/// from the file, where that says it.
#[must_use]
pub fn file(bytes: &[u8], device: Option<&'static Device>) -> Option<Findings> {
    let mut found = Findings::default();
    found.assume([(device, Basis::Given)]);
    let columns = Columns::of_device(device);
    match Kind::of(bytes)? {
        Kind::Xclbin => return Some(package(bytes, &[], device)),
        Kind::Pdi => pdi::check(bytes, &"PDI", columns, false, &mut found),
        Kind::Cdo => cdo::check_bytes(bytes, cdo::Context { place: &"CDO", columns, is_later: false }, &mut found),
        Kind::Elf => elf::check(bytes, &"ELF", device, &mut found),
        Kind::Stream => {
            let device = found.assume([(device, Basis::Given), (device_of(bytes), Basis::Stream)]);
            let columns = Columns::of_device(device);
            let context = stream::Context { device, ..stream::Context::new(&"stream", columns) };
            stream::check_bytes(bytes, context, &mut found);
        }
    }
    Some(found)
}

/// An instruction stream that is launched with a package.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// What findings call it.
    pub name: &'a str,
    /// The stream.
    pub bytes: &'a [u8],
    /// The kernel that it is launched with, where that is known.
    pub kernel: Option<&'a str>,
}

/// What is found in a package, and in the instruction streams that are launched with it. Without `device` it is taken
/// from the partition or else from a stream, where they say it.
#[must_use]
pub fn package(bytes: &[u8], launches: &[Launch<'_>], device: Option<&'static Device>) -> Findings {
    let mut found = Findings::default();
    let entries = container::check(bytes, &mut found);
    let mut parts = Parts::read(&entries, &mut found);
    let by_partition = parts.partition.as_ref().and_then(partition::device_of);
    let by_stream = launches.iter().find_map(|launch| device_of(launch.bytes));
    let known = [(device, Basis::Given), (by_partition, Basis::Partition), (by_stream, Basis::Stream)];
    parts.device = found.assume(known);
    parts.check_names(&mut found);
    if let Some(partition) = &parts.partition {
        partition::check(partition, &parts, &mut found);
    }
    if let Some(entry) = entries.iter().find(|entry| entry.kind == SectionKind::AIE_PARTITION) {
        partition::check_spans(entry.bytes, &mut found);
    }
    kernels::check(&parts, &mut found);
    memory::check(&parts, &mut found);
    check_launches(launches, &parts, &mut found);
    found
}

fn check_launches(launches: &[Launch<'_>], parts: &Parts<'_>, found: &mut Findings) {
    let groups = |partition: &AiePartition<'_>| -> HashSet<u64> {
        partition.pdis.iter().flat_map(|pdi| &pdi.groups).map(|group| group.pdi_id).collect()
    };
    let pdis = parts.partition.as_ref().map(groups);
    for Launch { name, bytes, kernel } in launches {
        let slots = parts.metadata.as_ref().and_then(|metadata| Slots::of(metadata, *kernel));
        if let Some(kernel) = kernel.filter(|_| parts.metadata.is_some() && slots.is_none()) {
            found.add(&LAUNCH, name, kernel, "EMBEDDED_METADATA has no such kernel that takes a stream");
        }
        let context = stream::Context {
            device: parts.device,
            slots: slots.as_ref(),
            pdis: pdis.as_ref(),
            built_for: parts.partition.as_ref().and_then(partition::built_for),
            ..stream::Context::new(name, parts.columns())
        };
        stream::check_bytes(bytes, context, found);
    }
}

/// The device that a stream's header names.
fn device_of(stream: &[u8]) -> Option<&'static Device> {
    Device::by_generation(*stream.get(2)?)
}

/// What a package's sections say.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) partition: Option<AiePartition<'a>>,
    pub(super) metadata: Option<EmbeddedMetadata>,
    pub(super) layout: Option<IpLayout>,
    pub(super) memories: Option<MemTopology>,
    pub(super) connections: Option<Connectivity>,
    pub(super) group_memories: Option<MemTopology>,
    pub(super) group_connections: Option<Connectivity>,
    /// Where it is known.
    pub(super) device: Option<&'static Device>,
}

impl<'a> Parts<'a> {
    /// Reads the first section of each kind; what its parser refuses is a finding.
    fn read(entries: &[Entry<'a>], found: &mut Findings) -> Parts<'a> {
        Parts {
            partition: section(entries, SectionKind::AIE_PARTITION, AiePartition::parse, found),
            metadata: section(entries, SectionKind::EMBEDDED_METADATA, EmbeddedMetadata::parse, found),
            layout: section(entries, SectionKind::IP_LAYOUT, IpLayout::parse, found),
            memories: section(entries, SectionKind::MEM_TOPOLOGY, MemTopology::parse, found),
            connections: section(entries, SectionKind::CONNECTIVITY, Connectivity::parse, found),
            group_memories: section(entries, SectionKind::GROUP_TOPOLOGY, MemTopology::parse, found),
            group_connections: section(entries, SectionKind::GROUP_CONNECTIVITY, Connectivity::parse, found),
            device: None,
        }
    }

    /// The entries of IP_LAYOUT.
    pub(super) fn ips(&self) -> &[Ip] {
        self.layout.as_ref().map_or(&[], |layout| &layout.ips)
    }

    /// The columns that streams may reach.
    fn columns(&self) -> Columns {
        let on_device = Columns::of_device(self.device);
        let width = self.partition.as_ref().map(|partition| partition.column_width);
        match width {
            Some(width) if width > 0 && width <= on_device.count() => Columns::of_partition(width),
            _ => on_device,
        }
    }

    fn check_names(&self, found: &mut Findings) {
        for (index, ip) in self.ips().iter().enumerate().filter(|(_, ip)| !ip.name.is_terminated()) {
            let place = format_args!("IP_LAYOUT, entry {index}");
            found.add(&container::UNTERMINATED, place, ip.name, "at most 63 bytes and NUL");
        }
        let memories = [("MEM_TOPOLOGY", &self.memories), ("GROUP_TOPOLOGY", &self.group_memories)];
        for (section, memories) in memories {
            let memories = memories.iter().flat_map(|memories| &memories.memories).enumerate();
            for (index, memory) in memories.filter(|(_, memory)| !memory.tag.is_terminated()) {
                let place = format_args!("{section}, memory {index}");
                found.add(&container::UNTERMINATED, place, memory.tag, "at most 15 bytes and NUL");
            }
        }
    }
}

fn section<'a, T>(
    entries: &[Entry<'a>],
    kind: SectionKind,
    parse: fn(&'a [u8]) -> Result<T>,
    found: &mut Findings,
) -> Option<T> {
    let entry = entries.iter().find(|entry| entry.kind == kind)?;
    let parsed = parse(entry.bytes);
    let rule = |error: &Error| if error.is_too_large() { &container::TOO_LARGE } else { &container::SECTION };
    parsed.inspect_err(|error| found.add_error(rule(error), &kind, error)).ok()
}
