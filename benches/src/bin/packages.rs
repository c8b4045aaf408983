//! `packages`: how long `xclbin-tools` takes to read and check a package of 4 MB, and to build one.
//!
//! The package holds sixteen PDIs, half of whose bytes are blocks of memory and half single register writes, which
//! is more commands than packages of that size have. Nothing is read from or written to files in the times, but
//! those of `xclbinutil`, whose whole process is timed where `BIGA_NPU_TOOLS` names a Debian root that has it.
#![forbid(unsafe_code)]

use std::{
    borrow::Cow,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use xclbin_tools::{
    Words,
    axlf::{Axlf, Uuid},
    cdo::{Builder, Command as CdoCommand},
    package::{self, Stamp, kernels_from_json},
    pdi,
    section::{AiePartition, MemTopology, json::Tree},
    verify,
};

/// Times reading, checking and building an NPU package of 4 MB.
#[derive(Debug, Parser)]
#[command(name = "packages", version, max_term_width = 110)]
struct Args {
    /// Runs of each, of which the median counts
    #[arg(short, long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const N_PDIS: usize = 16;

/// Bytes of the CDO of each PDI.
const CDO_BYTES: usize = 256 * 1024;

/// Words in a block: what a core's data memory holds is 16,384.
const BLOCK_WORDS: usize = 2048;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let cdos: Vec<Vec<u8>> = (0..N_PDIS).map(|index| cdo(index as u32)).collect();
    let inputs = Inputs::new();
    let bytes = inputs.build(&cdos)?;
    let findings = verify::package(&bytes, &[], None);
    let errors = findings.count_of(verify::Severity::Error);
    ensure!(errors == 0, "the package has {errors} errors: it is no valid one");

    let read_ms = median_ms(args.runs, || {
        let _ = std::hint::black_box(verify::package(std::hint::black_box(&bytes), &[], None));
        Ok(())
    })?;
    let build_ms = median_ms(args.runs, || {
        std::hint::black_box(inputs.build(std::hint::black_box(&cdos))?);
        Ok(())
    })?;
    let peer = peer(&inputs, &cdos, args.runs.min(11))?;
    let result = json!({
        "version": 1, "size_bytes": bytes.len(), "runs": args.runs,
        "parse_and_verify_ms": read_ms, "build_ms": build_ms,
        "xclbinutil_build_ms": peer.as_ref().map(|peer| peer.build_ms),
        "xclbinutil_info_ms": peer.as_ref().map(|peer| peer.info_ms),
    });
    let text = if args.json { format!("{result}\n") } else { table(&result) };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn table(result: &Value) -> String {
    let mib = result["size_bytes"].as_f64().unwrap_or(0.0) / (1 << 20) as f64;
    let ms = |key: &str| result[key].as_f64().map_or_else(|| "not here".to_owned(), |ms| format!("{ms:.2} ms"));
    format!(
        "a package of {mib:.2} MiB, medians of {} runs\n\
         parse and verify       {}\n\
         build, PDIs included   {}\n\
         xclbinutil, build      {} (a process; PDIs made before)\n\
         xclbinutil --info      {} (a process)\n",
        result["runs"],
        ms("parse_and_verify_ms"),
        ms("build_ms"),
        ms("xclbinutil_build_ms"),
        ms("xclbinutil_info_ms"),
    )
}

fn median_ms(runs: u32, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Blocks into data memories of core tiles in turn, and register writes of a stream switch.
fn cdo(seed: u32) -> Vec<u8> {
    let mut builder = Builder::new();
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut size = 0;
    let mut tile = 0_u64;
    while size < CDO_BYTES {
        let address = ((tile / 4 % 4) << 25) | ((2 + tile % 4) << 20);
        tile += 1;
        let block: Vec<u8> = (0..BLOCK_WORDS).flat_map(|_| next().to_le_bytes()).collect();
        builder.push(&CdoCommand::DmaWrite { address, data: Words::new(&block) });
        for _ in 0..BLOCK_WORDS / 3 {
            builder.push(&CdoCommand::Write { wide: false, address: address | 0x3f000, value: next() });
        }
        size += BLOCK_WORDS * 8;
    }
    builder.finish()
}

/// The JSON that a compiler writes.
struct Inputs {
    memory: String,
    kernels: String,
    partition: String,
}

impl Inputs {
    fn new() -> Inputs {
        let memory = |tag: &str, kib: &str| json!({"m_type": "MEM_DRAM", "m_used": "1", "m_sizeKB": kib, "m_tag": tag, "m_base_address": "0x4000000"});
        let memories = [memory("HOST", "0x10000"), memory("SRAM", "0xc000")];
        let scalar = |name: &str, kind: &str, offset: &str| json!({"name": name, "address-qualifier": "SCALAR", "type": kind, "offset": offset});
        let buffer = |name: &str, memory: &str, kind: &str, offset: &str| json!({"name": name, "memory-connection": memory, "address-qualifier": "GLOBAL", "type": kind, "offset": offset});
        let mut arguments = vec![
            scalar("opcode", "uint64_t", "0x00"),
            buffer("instr", "SRAM", "char *", "0x08"),
            scalar("ninstr", "uint32_t", "0x10"),
        ];
        arguments.extend((0..5).map(|n| buffer(&format!("bo{n}"), "HOST", "void*", &format!("{:#x}", 0x14 + 8 * n))));
        let kernel = |index: usize| {
            let data = json!({"subtype": "DPU", "functional": "0", "dpu_kernel_id": format!("{:#x}", 0x901 + index)});
            json!({"name": format!("KERNEL{index}"), "type": "dpu", "extended-data": data, "arguments": arguments,
                "instances": [{"name": "inst0"}]})
        };
        let pdi = |index: usize| {
            let group = json!({"name": "DPU", "type": "PRIMARY", "pdi_id": format!("{:#x}", index + 1),
                "dpu_kernel_ids": [format!("{:#x}", 0x901 + index)], "pre_cdo_groups": ["0xC1"]});
            json!({"uuid": format!("00000000-0000-0000-0000-0000000000{index:02x}"), "file_name": file_name(index),
                "cdo_groups": [group]})
        };
        Inputs {
            memory: json!({"mem_topology": {"m_count": "2", "m_mem_data": memories}}).to_string(),
            kernels: json!({"ps-kernels": {"kernels": (0..N_PDIS).map(kernel).collect::<Vec<_>>()}}).to_string(),
            partition: json!({"aie_partition": {
                "name": "QoS", "operations_per_cycle": "2048", "inference_fingerprint": "23423",
                "pre_post_fingerprint": "12345", "partition": {"column_width": 4, "start_columns": [0]},
                "PDIs": (0..N_PDIS).map(pdi).collect::<Vec<_>>()}})
            .to_string(),
        }
    }

    /// From JSON and CDOs to the bytes of a package.
    fn build(&self, cdos: &[Vec<u8>]) -> Result<Vec<u8>> {
        let partition = Tree::parse(&self.partition)?;
        let partition = AiePartition::from_json(&partition, "", |name| -> Result<Cow<'static, [u8]>> {
            let index = (0..N_PDIS).find(|&index| file_name(index) == name).context("no such PDI")?;
            Ok(Cow::Owned(pdi::build(&[&cdos[index]], &pdi::Options::default())?))
        })?;
        let memory = MemTopology::from_json(&Tree::parse(&self.memory)?, xclbin_tools::axlf::Kind::MEM_TOPOLOGY)?;
        let kernels = kernels_from_json(&Tree::parse(&self.kernels)?)?;
        let inputs =
            package::Inputs { memory: Some(memory), partition: Some(partition), kernels, ..package::Inputs::default() };
        let package: Axlf<'_> = inputs.build(Stamp { uuid: Uuid([7; 16]), time: 1 })?;
        Ok(package.to_bytes()?)
    }
}

fn file_name(index: usize) -> String {
    format!("{index}.pdi")
}

/// How long another tool takes for the same.
struct Peer {
    build_ms: f64,
    info_ms: f64,
}

fn peer(inputs: &Inputs, cdos: &[Vec<u8>], runs: u32) -> Result<Option<Peer>> {
    let Some(root) = env::var_os("BIGA_NPU_TOOLS").filter(|root| !root.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let folder = env::temp_dir().join(format!("biga-packages-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let timed = time_peer(inputs, cdos, runs, &root, &folder);
    fs::remove_dir_all(&folder)?;
    timed.map(Some)
}

fn time_peer(inputs: &Inputs, cdos: &[Vec<u8>], runs: u32, root: &Path, folder: &Path) -> Result<Peer> {
    for (index, cdo) in cdos.iter().enumerate() {
        fs::write(folder.join(file_name(index)), pdi::build(&[cdo], &pdi::Options::default())?)?;
    }
    for (name, text) in [("mem", &inputs.memory), ("kernels", &inputs.kernels), ("partition", &inputs.partition)] {
        fs::write(folder.join(format!("{name}.json")), text)?;
    }
    let tool = |args: &[&str]| -> Result<()> {
        let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu")).arg(root.join("usr/bin/xclbinutil"));
        command.args(args).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().context("the root's loader does not start")?;
        ensure!(status.success(), "xclbinutil {args:?}: {status}");
        Ok(())
    };
    let build = [
        "--add-replace-section",
        "MEM_TOPOLOGY:JSON:mem.json",
        "--add-kernel",
        "kernels.json",
        "--add-replace-section",
        "AIE_PARTITION:JSON:partition.json",
        "--force",
        "--output",
        "a.xclbin",
    ];
    let build_ms = median_ms(runs, || tool(&build))?;
    let info_ms = median_ms(runs, || tool(&["--info", "--input", "a.xclbin"]))?;
    Ok(Peer { build_ms, info_ms })
}
