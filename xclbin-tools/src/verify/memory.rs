//! Rules for memories: every buffer is connected to one that is there.

use std::collections::{HashMap, HashSet};

use super::{Findings, package::Parts, rule::rules};
use crate::section::{Connectivity, MemTopology, embedded_metadata::Kernel, ip_layout::Ip};

rules! {
    RANGE: Error "connection-range" {
        asks: "a connection names an argument, an entry of IP_LAYOUT and a memory that exist",
        effect: "the runtime reads behind its tables: allocating a buffer fails, or takes memory that is none",
        mend: "build the section anew from the kernels: xclbinutil --add-kernel does",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    NO_MEMORY: Error "argument-without-memory" {
        asks: "CONNECTIVITY names a memory for every buffer of a kernel on the NPU",
        effect: "kernel.group_id() has no answer: the buffer cannot be allocated, or from the wrong memory",
        mend: "add the connection; --add-kernel takes it from the argument's memory-connection",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_xclbin.cpp",
    }
    UNUSED: Warning "memory-unused" {
        asks: "a memory that a buffer is connected to is in use (m_used)",
        effect: "the runtime takes another memory than was meant, or none",
        mend: "set m_used to 1",
        source: "Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h",
    }
    GROUP: Error "group-contradiction" {
        asks: "GROUP_TOPOLOGY and GROUP_CONNECTIVITY hold the memories and connections of MEM_TOPOLOGY and CONNECTIVITY",
        effect: "the runtime prefers the groups: buffers go to other memories than the connections say",
        mend: "leave both sections out of the input; xclbinutil makes them anew",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinUtilities.cxx",
    }
}

/// Checks connections.
pub(super) fn check(parts: &Parts<'_>, found: &mut Findings) {
    check_groups(parts, found);
    if parts.layout.is_none() {
        return;
    }
    let kernels = kernels_of_units(parts);
    if let Some(connections) = &parts.connections {
        check_range(("CONNECTIVITY", connections), ("MEM_TOPOLOGY", parts.memories.as_ref()), &kernels, found);
        check_buffers(connections, &kernels, found);
    }
    if let Some(connections) = &parts.group_connections {
        let memories = ("GROUP_TOPOLOGY", parts.group_memories.as_ref());
        check_range(("GROUP_CONNECTIVITY", connections), memories, &kernels, found);
    }
}

/// The kernel of each entry of IP_LAYOUT, by its name up to the colon.
fn kernels_of_units<'p>(parts: &'p Parts<'_>) -> Vec<Option<&'p Kernel>> {
    let kernels = parts.metadata.iter().flat_map(|metadata| &metadata.kernels);
    let by_name: HashMap<&[u8], &Kernel> = kernels.map(|kernel| (kernel.name.as_bytes(), kernel)).collect();
    let name_of = |ip: &'p Ip| ip.name.bytes().split(|byte| *byte == b':').next().unwrap_or_default();
    parts.ips().iter().map(|ip| by_name.get(name_of(ip)).copied()).collect()
}

type Named<'a, T> = (&'static str, T);

fn check_range(
    (section, connections): Named<'_, &Connectivity>,
    (memory_section, memories): Named<'_, Option<&MemTopology>>,
    kernels: &[Option<&Kernel>],
    found: &mut Findings,
) {
    for (index, connection) in connections.connections.iter().enumerate() {
        let place = format_args!("{section}, connection {index}");
        let entry = |at: i32| usize::try_from(at).ok();
        let kernel = entry(connection.ip).and_then(|at| kernels.get(at));
        let Some(kernel) = kernel else {
            let bound = format_args!("IP_LAYOUT has {} entries, from 0", kernels.len());
            found.add(&RANGE, place, format_args!("entry {} of IP_LAYOUT", connection.ip), bound);
            continue;
        };
        let n_arguments = kernel.map_or(usize::MAX, |kernel| kernel.arguments.len());
        if entry(connection.argument).is_none_or(|at| at >= n_arguments) {
            let bound = format_args!("its kernel has {n_arguments} arguments, from 0");
            found.add(&RANGE, place, format_args!("argument {}", connection.argument), bound);
        }
        // A section that is not there, or cannot be read, has its own finding.
        let Some(MemTopology { memories }) = memories else { continue };
        match entry(connection.memory).and_then(|at| memories.get(at)) {
            None => {
                let bound = format_args!("{memory_section} has {} memories, from 0", memories.len());
                found.add(&RANGE, place, format_args!("memory {}", connection.memory), bound);
            }
            Some(memory) if memory.used == 0 => {
                found.add(&UNUSED, place, format_args!("memory {} ({})", connection.memory, memory.tag), "m_used is 0");
            }
            Some(_) => {}
        }
    }
}

fn check_buffers(connections: &Connectivity, kernels: &[Option<&Kernel>], found: &mut Findings) {
    let connected: HashSet<(i64, i64)> =
        connections.connections.iter().map(|it| (it.ip.into(), it.argument.into())).collect();
    for (ip, kernel) in (0_i64..).zip(kernels) {
        let Some(kernel) = kernel.filter(|kernel| kernel.extended_data.is_some()) else { continue };
        for argument in kernel.arguments.iter().filter(|argument| argument.is_buffer()) {
            let id = i64::try_from(argument.id).unwrap_or(i64::MAX);
            if !connected.contains(&(ip, id)) {
                let place = format_args!("CONNECTIVITY, kernel {}", kernel.name);
                let value = format_args!("argument {} ({})", argument.id, argument.name);
                found.add(&NO_MEMORY, place, value, "no connection names it");
            }
        }
    }
}

/// The groups repeat memories and connections, and may add more.
fn check_groups(parts: &Parts<'_>, found: &mut Findings) {
    if parts.group_memories.is_some() != parts.group_connections.is_some() {
        let (has, lacks) = if parts.group_memories.is_some() {
            ("GROUP_TOPOLOGY", "GROUP_CONNECTIVITY")
        } else {
            ("GROUP_CONNECTIVITY", "GROUP_TOPOLOGY")
        };
        found.add(&GROUP, has, format_args!("no {lacks}"), "there are both or none");
    }
    if let (Some(memories), Some(groups)) = (&parts.memories, &parts.group_memories)
        && groups.memories.len() < memories.memories.len()
    {
        let bound = format_args!("MEM_TOPOLOGY has {}", memories.memories.len());
        found.add(&GROUP, "GROUP_TOPOLOGY", format_args!("{} memories", groups.memories.len()), bound);
    }
    if let (Some(connections), Some(groups)) = (&parts.connections, &parts.group_connections) {
        let arguments = |of: &Connectivity| -> HashSet<(i32, i32)> {
            of.connections.iter().map(|it| (it.ip, it.argument)).collect()
        };
        let (plain, grouped) = (arguments(connections), arguments(groups));
        let mut differing: Vec<_> = plain.symmetric_difference(&grouped).collect();
        differing.sort_unstable();
        for it @ (ip, argument) in differing {
            let (has, lacks) = if plain.contains(it) {
                ("CONNECTIVITY", "GROUP_CONNECTIVITY")
            } else {
                ("GROUP_CONNECTIVITY", "CONNECTIVITY")
            };
            let value = format_args!("argument {argument} of entry {ip}");
            found.add(&GROUP, has, value, format_args!("{lacks} does not have it"));
        }
    }
}
