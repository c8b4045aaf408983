//! Rules for AIE_PARTITION: columns, where it may start, and its PDIs with their groups.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Findings, address::Columns, package::Parts, pdi, rule::rules};
use crate::{
    array::Device,
    axlf::Uuid,
    section::{
        AiePartition,
        aie_partition::{CdoType, Pdi, Span},
        ip_layout::IpType,
    },
};

rules! {
    WIDTH: Error "column-width" {
        asks: "a partition has one column at least, and no more than the device",
        effect: "the driver finds no columns for it: creating a context fails",
        mend: "set column_width to the number of columns that the kernel was compiled for",
        source: "amd/xdna-driver:src/driver/amdxdna/aie2_ctx_runqueue.c",
    }
    START: Error "start-column" {
        asks: "a partition may start somewhere, and lies inside the array wherever it may",
        effect: "the driver finds no place for it, or columns outside the array are meant",
        mend: "list start columns from 0 to columns of the device - column_width",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    START_TWICE: Warning "start-column-duplicate" {
        asks: "a start column stands once",
        effect: "none that is known: the second one says nothing; another one may have been meant",
        mend: "list each start column once",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    START_UNUSED: Warning "start-column-driver" {
        asks: "one of the start columns is one where the device's driver starts partitions of that width",
        effect: "the driver starts it elsewhere, which works as long as nothing depends on the column; \
            a runtime that asks for the listed ones finds no place",
        mend: "list the driver's: multiples of the width on npu4; columns from 0 or 1 on npu1",
        source: "amd/xdna-driver:src/driver/amdxdna/aie2_ctx.c",
    }
    ALIGNMENT: Warning "partition-alignment" {
        asks: "tables, images and lists in AIE_PARTITION start at a multiple of 8, start columns at one of 2",
        effect: "the runtime reads numbers in place, where compilers expect them aligned: undefined, mostly slower",
        mend: "build the section anew from its JSON",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/SectionAIEPartition.cxx",
    }
    OVERLAP: Error "partition-overlap" {
        asks: "what AIE_PARTITION names lies behind its head, and no two things share a part of their bytes",
        effect: "one of them holds the other's bytes: ids, columns or an image are garbage",
        mend: "build the section anew from its JSON",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/SectionAIEPartition.cxx",
    }
    OPERATIONS: Warning "operations-per-cycle" {
        asks: "operations per cycle are more than 0",
        effect: "the driver reckons that the partition can do nothing, and gives it the lowest clock",
        mend: "set operations_per_cycle; compilers write 2048",
        source: "amd/xdna-driver:src/driver/amdxdna/aie2_ctx.c",
    }
    NO_PDI: Error "partition-without-pdi" {
        asks: "a partition has a PDI",
        effect: "creating a context fails: there is nothing to configure the array with",
        mend: "add the PDI that the compiler or bootgen made",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    EMPTY_PDI: Error "pdi-without-image" {
        asks: "a PDI of the partition has an image",
        effect: "the firmware is given an empty image: creating a context fails",
        mend: "add the PDI's file (pdi_image)",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    PRIMARY: Error "partition-without-primary" {
        asks: "a partition has a group of type PRIMARY or PRE_POST",
        effect: "only LITE images are there, which change a configuration that nothing loads",
        mend: "set the type of the group with the whole configuration to PRIMARY",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    GROUP_TYPE: Error "group-type" {
        asks: "a group is PRIMARY (1), LITE (2) or PRE_POST (3)",
        effect: "readers take the group for an unknown one and pass it over, its kernels with it",
        mend: "set cdo_type to PRIMARY",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    GROUP_EMPTY: Warning "group-without-kernel" {
        asks: "a PDI has a group, and a group has a kernel's id",
        effect: "no kernel leads to the PDI, so that it is never loaded",
        mend: "write the kernel's id into dpu_kernel_ids",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    PDI_ID: Error "pdi-id-duplicate" {
        asks: "no two groups have one PDI id",
        effect: "a LOADPDI operation or another tool that goes by the id takes the wrong image",
        mend: "number the PDIs anew, from 1",
        source: "https://github.com/Xilinx/mlir-aie/pull/1561",
    }
    PDI_UUID: Warning "pdi-uuid-duplicate" {
        asks: "no two PDIs have one UUID, other than zero",
        effect: "a tool or cache that goes by the UUID takes one image for the other",
        mend: "give each PDI a UUID of its own",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    PDI_IMAGE: Warning "pdi-image-duplicate" {
        asks: "no two PDIs have the same image",
        effect: "kernels of different names do the same: if that was not meant, results are garbage or a launch hangs",
        mend: "check that each kernel was packed with its own PDI; one PDI can hold the ids of several kernels",
        source: "https://github.com/1bit-MONSTER/1bit-MONSTER/issues/1062",
    }
    TOO_MANY: Error "kernel-count" {
        asks: "a package has no more than 32 kernels on the NPU",
        effect: "a context holds 32 compute units: configuring it fails",
        mend: "split the package",
        source: "amd/xdna-driver:src/driver/amdxdna/aie2_msg_priv.h",
    }
}

/// A context's compute units.
const N_UNITS_MAX: usize = 32;

/// Checks the partition and the images in it.
pub(super) fn check(partition: &AiePartition<'_>, parts: &Parts<'_>, found: &mut Findings) {
    let columns = check_columns(partition, parts.device, found);
    if partition.operations_per_cycle == 0 {
        found.add(&OPERATIONS, "AIE_PARTITION", "0 operations per cycle", "at least 1");
    }
    let n_units = parts.ips().iter().filter(|ip| ip.kind == IpType::PS_KERNEL).count();
    if n_units > N_UNITS_MAX {
        found.add(&TOO_MANY, "IP_LAYOUT", format_args!("{n_units} kernels"), format_args!("at most {N_UNITS_MAX}"));
    }
    if partition.pdis.is_empty() {
        return found.add(&NO_PDI, "AIE_PARTITION", "no PDI", "at least one");
    }
    check_groups(partition, found);
    check_images(partition, columns, found);
}

/// Checks width and starts; returns the columns that images may reach.
fn check_columns(partition: &AiePartition<'_>, device: Option<&'static Device>, found: &mut Findings) -> Columns {
    let width = partition.column_width;
    let on_device = Columns::of_device(device);
    if width == 0 || width > on_device.count() {
        found.add(&WIDTH, "AIE_PARTITION", format_args!("{width} columns"), on_device);
        return on_device;
    }
    if partition.start_columns.is_empty() {
        found.add(&START, "AIE_PARTITION", "no start column", "at least one");
    }
    let mut seen = HashSet::new();
    for start in &partition.start_columns {
        if u32::from(*start).saturating_add(width.into()) > on_device.count().into() {
            let value = format_args!("columns {start} and on, {width} of them");
            found.add(&START, "AIE_PARTITION", value, on_device);
        } else if !seen.insert(start) {
            found.add(&START_TWICE, "AIE_PARTITION", format_args!("column {start}"), "it stands before");
        }
    }
    check_starts(partition, device, found);
    Columns::of_partition(width)
}

/// Starts against those of the driver, which gives npu1's columns away from 1 on; compilers count these from 0.
fn check_starts(partition: &AiePartition<'_>, device: Option<&'static Device>, found: &mut Findings) {
    let (Some(device), width) = (device, partition.column_width) else { return };
    let fits = |start: &u16| {
        let moved = start.saturating_add(device.first_column.into());
        device.driver_starts(width).any(|it| it == *start || it == moved)
    };
    let starts = &partition.start_columns;
    if starts.iter().all(|start| device.holds(*start, width)) && !starts.is_empty() && !starts.iter().any(fits) {
        let listed: Vec<u16> = device.driver_starts(width).collect();
        let bound = format_args!("the driver of {} starts {width} columns at {listed:?}", device.name);
        let shown: Vec<&u16> = starts.iter().take(8).collect();
        found.add(&START_UNUSED, "AIE_PARTITION", format_args!("start columns {shown:?}"), bound);
    }
}

/// The device all of whose starts a package lists, if they are of one device alone: those of the driver, or those
/// that compilers write, who count four columns for npu1 and eight for npu4.
pub(super) fn built_for(partition: &AiePartition<'_>) -> Option<&'static Device> {
    let width = partition.column_width;
    let starts: BTreeSet<u16> = partition.start_columns.iter().copied().collect();
    let is_whole = |device: &&Device| {
        let n_columns = u16::from(device.n_columns.saturating_sub(device.first_column));
        let by_compiler = (0..n_columns.saturating_add(1).saturating_sub(width)).collect();
        // One start alone may as well be one that somebody wants; older compilers wrote 1 to 4 for either device.
        starts.len() > 1
            && starts != BTreeSet::from([1, 2, 3, 4])
            && (starts == by_compiler || starts == device.driver_starts(width).collect())
    };
    let mut fitting = Device::ALL.into_iter().filter(is_whole);
    fitting.next().filter(|_| fitting.next().is_none())
}

/// Bytes of a partition before its lists.
const HEAD: Span = Span { what: "head", at: 0, offset: 0, size: 184 };

/// Checks where lists, names and images lie; what cannot be read is found elsewhere.
pub(super) fn check_spans(section: &[u8], found: &mut Findings) {
    let Ok(mut spans) = AiePartition::spans(section) else { return };
    let is_name = |span: &Span| span.what.ends_with("name") || span.what == "kernel_commit_id";
    for span in spans.iter().filter(|span| !is_name(span)) {
        let alignment = if span.what == "start_columns" { 2 } else { 8 };
        if !span.offset.is_multiple_of(alignment) {
            let place = format_args!("AIE_PARTITION, byte {:#x}, {}", span.at, span.what);
            found.add(&ALIGNMENT, place, format_args!("{:#x}", span.offset), format_args!("a multiple of {alignment}"));
        }
    }
    // An empty name is a zero that may stand anywhere.
    spans.retain(|span| !is_name(span) || span.size > 1);
    spans.push(HEAD);
    spans.sort_by_key(|span| (span.offset, span.size));
    let mut before: Option<Span> = None;
    for span in spans {
        let end = |span: Span| span.offset.saturating_add(span.size);
        if let Some(before) = before.filter(|before| end(*before) > span.offset) {
            // The same list, name or image twice is shared, not damaged; a name may end another.
            let is_shared = (before.what, before.offset, before.size) == (span.what, span.offset, span.size);
            let are_names = is_name(&before) && is_name(&span);
            if !is_shared && !are_names {
                let place = format_args!("AIE_PARTITION, byte {:#x}, {}", span.at, span.what);
                let bound = format_args!("{} takes {:#x} to {:#x}", before.what, before.offset, end(before));
                found.add(&OVERLAP, place, format_args!("{} bytes from {:#x}", span.size, span.offset), bound);
            }
        }
        before = Some(before.filter(|before| end(*before) > end(span)).unwrap_or(span));
    }
}

/// The device that a partition can be for, if there is only one.
pub(super) fn device_of(partition: &AiePartition<'_>) -> Option<&'static Device> {
    let starts = || partition.start_columns.iter().chain(partition.start_columns.is_empty().then_some(&0));
    let holds = |device: &&Device| starts().all(|start| device.holds(*start, partition.column_width));
    let mut fitting = Device::ALL.into_iter().filter(holds);
    fitting.next().filter(|_| fitting.next().is_none())
}

fn check_groups(partition: &AiePartition<'_>, found: &mut Findings) {
    let mut ids: HashMap<u64, usize> = HashMap::new();
    let groups =
        || partition.pdis.iter().enumerate().flat_map(|(index, pdi)| pdi.groups.iter().map(move |it| (index, it)));
    for (index, group) in groups() {
        let place = format_args!("AIE_PARTITION, PDI {index}, group {}", group.name);
        if !(1..=3).contains(&group.kind.0) {
            found.add(
                &GROUP_TYPE,
                place,
                format_args!("type {}", group.kind.0),
                "1 (PRIMARY), 2 (LITE) or 3 (PRE_POST)",
            );
        }
        if group.kernel_ids.is_empty() {
            found.add(&GROUP_EMPTY, place, "no kernel id", "at least one");
        }
        if let Some(first) = ids.insert(group.pdi_id, index) {
            found.add(&PDI_ID, place, format_args!("PDI id {:#x}", group.pdi_id), format_args!("PDI {first} has it"));
        }
    }
    let has_known = groups().any(|(_, group)| (1..=3).contains(&group.kind.0));
    if has_known && !groups().any(|(_, group)| is_whole(group.kind)) {
        found.add(&PRIMARY, "AIE_PARTITION", "only LITE groups", "one of type PRIMARY or PRE_POST");
    }
}

/// Whether a group configures the whole partition by itself.
pub(super) fn is_whole(kind: CdoType) -> bool {
    [CdoType::PRIMARY, PRE_POST].contains(&kind)
}

/// A change of a configuration that another group loads (`enum CDO_Type`).
const LITE: CdoType = CdoType(2);

/// A whole configuration, with pre- or postprocessing.
const PRE_POST: CdoType = CdoType(3);

/// Each image once, however many PDIs have it.
fn check_images(partition: &AiePartition<'_>, columns: Columns, found: &mut Findings) {
    let mut images: HashMap<&[u8], usize> = HashMap::new();
    let mut uuids: HashMap<Uuid, usize> = HashMap::new();
    for (index, image) in partition.pdis.iter().enumerate() {
        let place = format_args!("AIE_PARTITION, PDI {index}");
        if image.groups.is_empty() {
            found.add(&GROUP_EMPTY, place, "no group", "at least one");
        }
        if let Some(first) = uuids.insert(image.uuid, index).filter(|_| image.uuid != Uuid::default()) {
            found.add(&PDI_UUID, place, format_args!("UUID {}", image.uuid), format_args!("PDI {first} has it"));
        }
        if image.image.is_empty() {
            found.add(&EMPTY_PDI, place, "0 bytes", "an image");
            continue;
        }
        if let Some(first) = images.get(&*image.image) {
            let bound = format_args!("PDI {first} has the same {} bytes", image.image.len());
            found.add(&PDI_IMAGE, place, name_of(image), bound);
            continue;
        }
        images.insert(&image.image, index);
        let is_later = !image.groups.is_empty() && image.groups.iter().all(|group| group.kind == LITE);
        pdi::check(&image.image, &place, columns, is_later, found);
    }
}

fn name_of(pdi: &Pdi<'_>) -> String {
    let names: Vec<&str> = pdi.groups.iter().map(|group| &*group.name).collect();
    format!("image of {}", if names.is_empty() { "no group".to_owned() } else { names.join(", ") })
}
