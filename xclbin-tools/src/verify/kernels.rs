//! Rules for kernels: one id in XML, IP_LAYOUT and the groups of AIE_PARTITION, and arguments as firmware takes them.

use std::collections::{HashMap, HashSet};

use super::{Findings, package::Parts, partition::is_whole, rule::rules};
use crate::section::{
    AiePartition, EmbeddedMetadata,
    embedded_metadata::Kernel,
    ip_layout::{Ip, IpType},
};

mod arguments;

pub(super) use arguments::{RULES as ARGUMENT_RULES, Slots};

rules! {
    NO_KERNEL: Error "kernel-missing" {
        asks: "EMBEDDED_METADATA names a kernel of the NPU: one with extended-data",
        effect: "creating a context fails: the runtime finds no kernel",
        mend: "add the kernel (xclbinutil --add-kernel), its id in extended-data",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    NO_ID: Error "kernel-no-id" {
        asks: "a kernel of type dpu has extended-data with its id",
        effect: "the runtime takes 0 for the id, finds no PDI for it and drops the kernel",
        mend: "give extended-data {functional, subtype, dpu_kernel_id} to the kernel",
        source: "Xilinx/XRT:src/runtime_src/core/common/xclbin_parser.cpp",
    }
    NAME_TWICE: Error "kernel-name-duplicate" {
        asks: "no two kernels have one name, no two entries of IP_LAYOUT either",
        effect: "the runtime takes id and arguments of the first for both: the second runs the first's image",
        mend: "rename one of them",
        source: "Xilinx/XRT:src/runtime_src/core/common/xclbin_parser.cpp",
    }
    NO_PDI: Error "kernel-without-pdi" {
        asks: "a group of AIE_PARTITION holds the id of every kernel",
        effect: "the runtime drops the kernel: opening it fails, or no context can be made",
        mend: "write the kernel's id into dpu_kernel_ids of its PDI's group",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    NO_LAYOUT: Error "kernel-without-unit" {
        asks: "IP_LAYOUT has the entry KERNEL:INSTANCE for every instance of a kernel",
        effect: "the kernel has no compute unit: opening it fails",
        mend: "add the entry, of type IP_PS_KERNEL and subtype DPU",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    NO_XML: Error "unit-without-kernel" {
        asks: "every kernel in IP_LAYOUT is an instance that EMBEDDED_METADATA has",
        effect: "the unit cannot be opened, for nothing says what its arguments are",
        mend: "add the kernel to EMBEDDED_METADATA, or take its entry out of IP_LAYOUT",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    TYPE: Error "kernel-type" {
        asks: "a kernel of the NPU is IP_PS_KERNEL in IP_LAYOUT",
        effect: "the runtime takes it for a kernel of programmable logic and looks for its registers",
        mend: "set m_type to IP_PS_KERNEL",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    SUBTYPE: Warning "kernel-subtype" {
        asks: "a kernel of the NPU has subtype DPU in IP_LAYOUT",
        effect: "tools that look for kernels of the NPU pass it over; its id there has no meaning",
        mend: "set m_subtype to DPU and m_kernel_id to the kernel's id",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinUtilities.cxx",
    }
    FUNCTIONAL: Error "kernel-functional" {
        asks: "IP_LAYOUT and EMBEDDED_METADATA say the same of what a kernel is for: DPU, or pre- and postprocessing",
        effect: "firmware takes the command's arguments in another layout than they were written",
        mend: "set m_functional to what extended-data says",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    ID_DIFFERS: Error "kernel-id-differs" {
        asks: "a kernel has one id in EMBEDDED_METADATA and IP_LAYOUT",
        effect: "whoever goes by IP_LAYOUT loads another kernel's image: results are garbage",
        mend: "write the id of extended-data into m_kernel_id",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinUtilities.cxx",
    }
    ID_WIDE: Warning "kernel-id-wide" {
        asks: "a kernel's id has no more than the 12 bits of IP_LAYOUT's field",
        effect: "IP_LAYOUT holds its low 12 bits (0x1010 becomes 0x010): tools that compare ids see another kernel",
        mend: "number kernels below 0x1000",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    ID_TWICE: Error "kernel-id-duplicate" {
        asks: "no two kernels have one id while an image has no kernel, nor one id in the 12 bits of IP_LAYOUT",
        effect: "both run the image of the first PDI that has the id: results are wrong and nothing says so",
        mend: "give each kernel an id of its own, in all three places",
        source: "https://github.com/Xilinx/mlir-aie/pull/1561",
    }
    ALIAS: Warning "kernel-alias" {
        asks: "a kernel's id is that of one kernel, even where all images have kernels",
        effect: "both kernels run the same image: right for a second name, garbage if another image was meant",
        mend: "nothing, if it is meant; otherwise add the other image, with an id of its own",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    TWO_PDIS: Error "kernel-in-two-pdis" {
        asks: "one group of one PDI holds the id of a kernel",
        effect: "the runtime takes the first PDI: the kernel may run on the wrong image",
        mend: "renumber the kernels of one of the PDIs",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
    UNUSED_PDI: Warning "pdi-without-kernel" {
        asks: "every id in a PRIMARY or PRE_POST group is that of a kernel",
        effect: "the PDI can never be loaded; it takes memory, and a kernel may be missing",
        mend: "add the kernel to EMBEDDED_METADATA and IP_LAYOUT, or take the PDI out",
        source: "amd/xdna-driver:src/shim/hwctx.cpp",
    }
}

/// Checks kernels and their arguments.
pub(super) fn check(parts: &Parts<'_>, found: &mut Findings) {
    let Some(metadata) = &parts.metadata else { return };
    let on_npu: Vec<&Kernel> = metadata.kernels.iter().filter(|kernel| kernel.extended_data.is_some()).collect();
    if on_npu.is_empty() {
        found.add(&NO_KERNEL, "EMBEDDED_METADATA", "no kernel with extended-data", "at least one");
    }
    check_names(metadata, parts, found);
    for kernel in &metadata.kernels {
        if kernel.extended_data.is_none() && kernel.kind == "dpu" {
            found.add(&NO_ID, place(kernel), "no extended-data", "its id is expected there");
        }
    }
    let is_matched = parts.partition.as_ref().is_some_and(|partition| check_groups(partition, &on_npu, found));
    if parts.layout.is_some() {
        check_units(&on_npu, parts, found);
    }
    check_ids(&on_npu, is_matched, found);
    for kernel in on_npu {
        arguments::check(kernel, found);
    }
}

/// Where a kernel is.
fn place(kernel: &Kernel) -> String {
    format!("EMBEDDED_METADATA, kernel {}", kernel.name)
}

fn check_names(metadata: &EmbeddedMetadata, parts: &Parts<'_>, found: &mut Findings) {
    let mut names = HashSet::new();
    for kernel in metadata.kernels.iter().filter(|kernel| !names.insert(kernel.name.as_str())) {
        found.add(&NAME_TWICE, place(kernel), &kernel.name, "another kernel has the name");
    }
    let mut units = HashSet::new();
    for (index, ip) in parts.ips().iter().enumerate().filter(|(_, ip)| !units.insert(ip.name.bytes())) {
        found.add(&NAME_TWICE, format_args!("IP_LAYOUT, entry {index}"), ip.name, "another entry has the name");
    }
}

/// The ids of groups against those of kernels, both ways; says whether each image is that of a kernel, and each id
/// leads to one image.
fn check_groups(partition: &AiePartition<'_>, on_npu: &[&Kernel], found: &mut Findings) -> bool {
    let mut is_matched = true;
    let mut first_pdi: HashMap<u64, usize> = HashMap::new();
    let ids: HashSet<u64> =
        on_npu.iter().filter_map(|kernel| kernel.extended_data).map(|data| data.kernel_id).collect();
    for (index, pdi) in partition.pdis.iter().enumerate() {
        for (group, id) in pdi.groups.iter().flat_map(|group| group.kernel_ids.iter().map(move |id| (group, *id))) {
            let place = format_args!("AIE_PARTITION, PDI {index}, group {}", group.name);
            match first_pdi.get(&id) {
                Some(first) => {
                    is_matched = false;
                    found.add(&TWO_PDIS, place, format_args!("kernel id {id:#x}"), format_args!("PDI {first} has it"));
                }
                None => drop(first_pdi.insert(id, index)),
            }
            if !ids.contains(&id) && is_whole(group.kind) {
                is_matched = false;
                found.add(&UNUSED_PDI, place, format_args!("kernel id {id:#x}"), "no kernel has it");
            }
        }
    }
    for kernel in on_npu {
        let id = kernel.extended_data.map_or(0, |data| data.kernel_id);
        if !first_pdi.contains_key(&id) || id > u16::MAX.into() {
            let bound =
                if id > u16::MAX.into() { "the runtime keeps 16 bits" } else { "no group of AIE_PARTITION has it" };
            found.add(&NO_PDI, place(kernel), format_args!("kernel id {id:#x}"), bound);
        }
    }
    is_matched
}

/// Kernels against IP_LAYOUT, both ways.
fn check_units(on_npu: &[&Kernel], parts: &Parts<'_>, found: &mut Findings) {
    let mut units: HashMap<&[u8], (usize, &Ip)> = HashMap::new();
    for (index, ip) in parts.ips().iter().enumerate() {
        units.entry(ip.name.bytes()).or_insert((index, ip));
    }
    let mut of_kernels = HashSet::new();
    for kernel in on_npu {
        for instance in &kernel.instances {
            let mut name = format!("{}:{instance}", kernel.name).into_bytes();
            // The field holds 63 bytes and a NUL.
            name.truncate(63);
            match units.get(name.as_slice()) {
                Some((index, ip)) => {
                    check_unit(kernel, *index, ip, found);
                    of_kernels.insert(*index);
                }
                None => {
                    let value = format_args!("instance {instance}");
                    found.add(&NO_LAYOUT, place(kernel), value, "IP_LAYOUT has no such entry");
                }
            }
        }
        if kernel.instances.is_empty() {
            found.add(&NO_LAYOUT, place(kernel), "no instance", "at least one");
        }
    }
    for (index, ip) in parts.ips().iter().enumerate() {
        if ip.kind == IpType::PS_KERNEL
            && !of_kernels.contains(&index)
            && units.get(ip.name.bytes()).is_some_and(|unit| unit.0 == index)
        {
            let place = format_args!("IP_LAYOUT, entry {index}");
            found.add(&NO_XML, place, ip.name, "EMBEDDED_METADATA has no such instance of an NPU's kernel");
        }
    }
}

/// What IP_LAYOUT says of a kernel.
fn check_unit(kernel: &Kernel, index: usize, ip: &Ip, found: &mut Findings) {
    let place = format_args!("IP_LAYOUT, entry {index} ({})", ip.name);
    let Some(data) = kernel.extended_data else { return };
    if ip.kind != IpType::PS_KERNEL {
        return found.add(&TYPE, place, ip.kind.name(), "IP_PS_KERNEL");
    }
    let Some(id) = ip.kernel_id() else {
        return found.add(&SUBTYPE, place, format_args!("subtype {}", ip.subtype()), "1 (DPU)");
    };
    if u64::from(ip.functional()) != data.functional {
        let value = format_args!("functional {}", ip.functional());
        found.add(&FUNCTIONAL, place, value, format_args!("EMBEDDED_METADATA has {}", data.functional));
    }
    if u64::from(id) != data.kernel_id & 0xfff {
        let bound = format_args!("EMBEDDED_METADATA has {:#x}", data.kernel_id);
        found.add(&ID_DIFFERS, place, format_args!("kernel id {id:#x}"), bound);
    } else if data.kernel_id > 0xfff {
        let bound = format_args!("EMBEDDED_METADATA has {:#x}, of which 12 bits fit", data.kernel_id);
        found.add(&ID_WIDE, place, format_args!("kernel id {id:#x}"), bound);
    }
}

/// Ids that stand twice. Where every image has its kernel, a second one of the same id is a second name.
fn check_ids(on_npu: &[&Kernel], is_matched: bool, found: &mut Findings) {
    let mut seen: HashMap<(u64, u64), (&Kernel, u64)> = HashMap::new();
    for kernel in on_npu {
        // Without a subtype a kernel is a second name in AMD's packages, for profiling.
        let data = kernel.extended_data.filter(|data| data.subtype == Some(u64::from(Ip::SUBTYPE_DPU)));
        let Some(data) = data else { continue };
        let (first, id) = seen.entry((data.functional, data.kernel_id & 0xfff)).or_insert((kernel, data.kernel_id));
        if !std::ptr::eq(*first, *kernel) {
            let rule = if is_matched && *id == data.kernel_id { &ALIAS } else { &ID_TWICE };
            let value = format_args!("kernel id {:#x}", data.kernel_id);
            found.add(rule, place(kernel), value, format_args!("kernel {} has {id:#x}", first.name));
        }
    }
}
