//! `xclbin info`: what a package holds, in tables.

mod tables;

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Value, json};
use xclbin_tools::{
    Error,
    axlf::{Axlf, Kind, Place, Section},
    section::{
        AiePartition, Contents,
        aie_partition::{CdoGroup, Pdi},
        embedded_metadata::{Argument, Kernel},
        mem_topology::Memory,
    },
    verify,
};

use super::{dump, exit::Outcome, files, kind, output};

/// Show what a package holds: header, sections, kernels, partition, PDIs, memories
///
/// A section that cannot be read is named with its fault, and the exit code is 1. `xclbin verify` finds what is wrong
/// beyond that.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The package (XCLBIN); `-` is standard input
    input: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let bytes = files::read(&options.input)?;
    let axlf = kind::parse(&options.input, &bytes, verify::Kind::Xclbin, Axlf::parse)?;
    let contents = Contents::of(&axlf);
    if options.json {
        output::print_json(&to_json(&axlf, &contents, bytes.len()))?;
    } else {
        output::print(&tables::print(&axlf, &contents))?;
    }
    Ok(if contents.faults.is_empty() { Outcome::Done } else { Outcome::Found })
}

/// The tables of a package's bytes.
pub(super) fn text(bytes: &[u8]) -> anyhow::Result<String> {
    let axlf = Axlf::parse(bytes)?;
    Ok(tables::print(&axlf, &Contents::of(&axlf)))
}

/// The name of a mode in `xclbin.h`.
fn mode(axlf: &Axlf<'_>) -> String {
    const MODES: [&str; 7] = ["flat", "pr", "tandem_stage2", "tandem_stage2_with_pr", "hw_emu", "sw_emu", "hw_emu_pr"];
    let number = axlf.header().mode;
    MODES.get(usize::from(number)).map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// What one section says about another's entries, looked up once for all.
struct Links {
    /// By unit (`KERNEL:INSTANCE`) and argument: the tag of the first memory that it may stand in.
    memories: BTreeMap<(String, u64), String>,
    /// By kernel id: the first PDI that holds it, and how many more do.
    pdis: BTreeMap<u64, (usize, usize)>,
}

impl Links {
    fn of(contents: &Contents<'_>) -> Links {
        let mut links = Links { memories: BTreeMap::new(), pdis: BTreeMap::new() };
        let tables = (&contents.connectivity, &contents.ip_layout, &contents.mem_topology);
        if let (Some(connectivity), Some(layout), Some(topology)) = tables {
            for connection in &connectivity.connections {
                let ip = usize::try_from(connection.ip).ok().and_then(|ip| layout.ips.get(ip));
                let memory = usize::try_from(connection.memory).ok().and_then(|memory| topology.memories.get(memory));
                if let (Some(ip), Some(memory), Ok(argument)) = (ip, memory, u64::try_from(connection.argument)) {
                    let key = (ip.name.to_string(), argument);
                    links.memories.entry(key).or_insert_with(|| memory.tag.to_string());
                }
            }
        }
        for (pdi, id) in contents.partition.iter().flat_map(AiePartition::kernel_ids) {
            links.pdis.entry(id).and_modify(|(_, more)| *more += 1).or_insert((pdi, 0));
        }
        links
    }

    /// Of an argument of a kernel's first instance.
    fn memory(&self, kernel: &Kernel, argument: &Argument) -> Option<&String> {
        let instance = kernel.instances.first().map_or("", String::as_str);
        self.memories.get(&(format!("{}:{instance}", kernel.name), argument.id))
    }

    fn pdi(&self, kernel: &Kernel) -> Option<(usize, usize)> {
        self.pdis.get(&kernel.extended_data?.kernel_id).copied()
    }
}

/// What the header says, whatever lies where.
pub(super) fn header(axlf: &Axlf<'_>) -> Value {
    let header = axlf.header();
    let version = header.version;
    json!({
        "uuid": header.uuid.to_string(),
        "version": format!("{}.{}.{}", version.major, version.minor, version.patch),
        "timestamp": header.timestamp,
        "unique_id": header.unique_id,
        "feature_rom_timestamp": header.feature_rom_timestamp,
        "mode": mode(axlf),
        "actions": header.actions(),
        "platform_vbnv": header.platform_vbnv.text(),
        "interface_uuid": header.interface_uuid.to_string(),
        "signature_bytes": axlf.signature().map(<[u8]>::len),
        "has_mirror": axlf.mirror().is_some(),
    })
}

fn to_json(axlf: &Axlf<'_>, contents: &Contents<'_>, file_bytes: usize) -> Value {
    let mut info = json!({"version": output::JSON_VERSION, "header": header(axlf)});
    info["header"]["length_bytes"] = json!(axlf.layout().map(|layout| layout.length));
    info["header"]["file_bytes"] = file_bytes.into();
    let places = axlf.layout().map(|layout| &layout.places[..]).unwrap_or_default();
    let section = |(section, place): (&Section<'_>, &Place)| {
        json!({"kind": section.kind.to_string(), "number": section.kind.0, "name": section.name.text(),
            "offset": place.offset, "size_bytes": place.size})
    };
    info["sections"] = axlf.sections().iter().zip(places).map(section).collect();
    if let Some(metadata) = &contents.metadata {
        let mut kernels = dump::kernels(metadata)["kernels"].take();
        let links = Links::of(contents);
        for (value, kernel) in kernels.as_array_mut().into_iter().flatten().zip(&metadata.kernels) {
            value["pdi"] = json!(links.pdi(kernel).map(|(first, _)| first));
            for (value, argument) in value["arguments"].as_array_mut().into_iter().flatten().zip(&kernel.arguments) {
                value["memory"] = json!(links.memory(kernel, argument));
            }
        }
        info["kernels"] = kernels;
    }
    if let Some(partition) = &contents.partition {
        info["partition"] = self::partition(partition);
    }
    if let Some(topology) = &contents.mem_topology {
        let memory = |memory: &Memory| {
            json!({"tag": memory.tag.text(), "type": memory.kind.name(), "used": memory.used != 0,
                "size_kib": memory.size_kib, "base_address": memory.base_address})
        };
        info["memories"] = topology.memories.iter().map(memory).collect();
    }
    let fault = |(kind, error): &(Kind, Error)| json!({"section": kind.to_string(), "error": error.to_string()});
    info["faults"] = contents.faults.iter().map(fault).collect();
    info
}

/// The partition without its images.
pub(super) fn partition(partition: &AiePartition<'_>) -> Value {
    let group = |group: &CdoGroup<'_>| {
        json!({"name": group.name, "type": group.kind.name(), "pdi_id": group.pdi_id,
            "dpu_kernel_ids": group.kernel_ids, "pre_cdo_groups": group.pre_cdo_groups})
    };
    let pdi = |pdi: &Pdi<'_>| {
        json!({"uuid": pdi.uuid.to_string(), "size_bytes": pdi.image.len(),
            "cdo_groups": pdi.groups.iter().map(group).collect::<Vec<_>>()})
    };
    json!({
        "name": partition.name,
        "column_width": partition.column_width,
        "start_columns": partition.start_columns,
        "operations_per_cycle": partition.operations_per_cycle,
        "inference_fingerprint": partition.inference_fingerprint,
        "pre_post_fingerprint": partition.pre_post_fingerprint,
        "kernel_commit_id": partition.kernel_commit_id,
        "pdis": partition.pdis.iter().map(pdi).collect::<Vec<_>>(),
    })
}
