//! Prints what a Vulkan driver's compiler makes of every kernel that the backend would run on its device.
//!
//! `compiled_kernels [WORDS]...` takes the first GPU that the loader lists. Without words it writes JSON for
//! `cargo xtask shaders`; with some, the machine code of the kernels whose name holds all of them. Nothing
//! runs on the device, so Mesa's shim for absent hardware will do.

mod segments;
mod spirv;

use std::{collections::BTreeMap, error::Error};

use biga_hal::{Backend, DType, DeviceKind};
use biga_vulkan::{CompiledKernel, Matrices, VulkanBackend, VulkanOptions};
use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The last form that RADV gives of a kernel.
const MACHINE_CODE: &str = "Assembly";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let backend = VulkanBackend::new();
    let infos = backend.probe().map_err(|error| error.to_string())?;
    let gpu = infos.iter().find(|info| info.kind != DeviceKind::SoftwareGpu).ok_or("the loader lists no GPU")?;
    let segments = segments::all()?;
    let mut compiled = backend.inspect(gpu.id, &segments)?;
    // Kernels for GPUs without matrix instructions are kept as good.
    let without = VulkanBackend::with_options(VulkanOptions { matrices: Matrices::Never, ..VulkanOptions::default() });
    for one in without.inspect(gpu.id, &segments)? {
        if !compiled.iter().any(|seen| seen.kernel == one.kernel && seen.constants == one.constants) {
            compiled.push(one);
        }
    }
    if !words.is_empty() {
        print_code(&compiled, &words);
        return Ok(());
    }
    let kernels = compiled.iter().map(described).collect::<Result<Vec<Value>>>()?;
    let reached = |(source, format): (&str, &str)| compiled.iter().any(|one| named(one) == (source, format));
    let unreached: Vec<_> = biga_shaders::variants().filter(|variant| !reached(*variant)).collect();
    let report = json!({
        "device": gpu.name,
        "driver": gpu.driver,
        // Where nothing computes, opening the device must fail.
        "refusal": backend.open(gpu.id).err().map(|error| error.to_string()),
        "kernels": kernels,
        "unreached": unreached,
    });
    println!("{report}");
    Ok(())
}

/// Source and format.
fn named(compiled: &CompiledKernel) -> (&'static str, &'static str) {
    let (source, format) = compiled.kernel.source();
    (source, format.map_or("", DType::name))
}

/// The specialisation constants by their names in the source.
fn constants(compiled: &CompiledKernel) -> Vec<(String, u32)> {
    let names = spirv::constant_names(compiled.kernel.spirv().unwrap_or_default());
    let named = |(i, &value): (usize, &u32)| names.get(&(i as u32)).map(|name| (name.clone(), value));
    // The workgroup's size has no name.
    let lanes = compiled.constants.first().map(|&lanes| ("LANES".to_owned(), lanes));
    lanes.into_iter().chain(compiled.constants.iter().enumerate().skip(1).filter_map(named)).collect()
}

fn machine_code(compiled: &CompiledKernel) -> Option<&str> {
    compiled.texts.iter().find(|(name, _)| name == MACHINE_CODE).map(|(_, text)| text.as_str())
}

fn described(compiled: &CompiledKernel) -> Result<Value> {
    let (source, format) = named(compiled);
    let statistics: Map<String, Value> =
        compiled.statistics.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
    Ok(json!({
        "source": source,
        "format": format,
        "constants": constants(compiled),
        "subgroup_size": compiled.subgroup_size,
        "statistics": statistics,
        // Some drivers keep their machine code to themselves.
        "instructions": machine_code(compiled).map(instructions),
    }))
}

/// How often each instruction stands in the machine code. Both halves of a dual one count.
fn instructions(text: &str) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let code = line.split(';').next().unwrap_or_default();
        for half in code.split("::") {
            let name = half.split_whitespace().next().unwrap_or_default();
            if name.contains('_') && name.starts_with(|c: char| c.is_ascii_lowercase()) {
                *counts.entry(name).or_default() += 1;
            }
        }
    }
    counts
}

fn print_code(compiled: &[CompiledKernel], words: &[String]) {
    for one in compiled {
        let (source, format) = named(one);
        let constants: Vec<String> = constants(one).iter().map(|(name, value)| format!("{name}={value}")).collect();
        let name = format!("{source} {format} {}", constants.join(" "));
        if words.iter().all(|word| name.split(' ').any(|part| part == word)) {
            println!("== {name}");
            for (statistic, value) in &one.statistics {
                println!("{statistic}: {value}");
            }
            println!("{}", machine_code(one).unwrap_or_default());
        }
    }
}
