//! `biga probe`: the devices, what they can do, what limits the user and the next command for each limit.

use std::fmt::Write;

use anyhow::Context;
use biga::{
    hal::{DeviceInfo, Finding},
    probe::{Link, Measurements, NpuReport, Topology},
};
use serde_json::{Value, json};

use crate::{
    args::ProbeArgs,
    devices,
    exit::{Outcome, usage},
    interrupt,
    output::{self, JSON_VERSION, note},
    progress::Bar,
    size,
};

/// Runs the command.
pub(crate) fn run(args: &ProbeArgs) -> anyhow::Result<Outcome> {
    let (mut machine, path) = devices::machine(&args.machine, args.measure)?;
    let npu = NpuReport::look(std::path::Path::new("/"));
    let mut topology = machine.probe();
    let mut failures = Vec::new();
    if args.measure {
        let path = path.ok_or_else(|| usage("nowhere to store measurements: set HOME, or name a file with --store"))?;
        let selection = named_or_all(&topology, &args.machine.devices)?;
        let opened = machine.open(&selection)?;
        let stop = interrupt::watch()?;
        let bar = Bar::new("measuring");
        let measured = biga::probe::measure(&opened, stop, &mut |progress| bar.set(progress.fraction, &progress.what));
        drop(bar);
        let Some(measured) = measured else {
            note(format_args!("interrupted; nothing was stored in {}", path.display()));
            return Ok(Outcome::Interrupted);
        };
        let (mut store, _) = Measurements::load(&path);
        store.update(&selection, &measured);
        if let Some(aside) = store.save(&path).context("measuring is done but was not kept")? {
            note(format_args!("what was in {} is now in {}", path.display(), aside.display()));
        }
        note(format_args!("measurements stored in {}", path.display()));
        machine.set_measurements(store);
        topology = machine.probe();
        failures = measured.failures;
    } else if !args.machine.devices.is_empty() {
        topology = named_or_all(&topology, &args.machine.devices)?;
    }
    if args.json {
        output::print_json(&to_json(&topology, &npu, &failures))?;
    } else {
        output::print(&to_text(&topology, &npu))?;
    }
    failures.iter().for_each(|failure| note(format_args!("not measured: {failure}")));
    Ok(Outcome::Done)
}

/// The devices named, or every device: stand-ins too, since a probe shows what exists.
fn named_or_all(topology: &Topology, names: &[String]) -> anyhow::Result<Topology> {
    if names.is_empty() {
        return Ok(topology.clone());
    }
    let selection = topology.select(names);
    match selection.missing.first() {
        Some((name, cause)) => {
            let words = format!("no device {name}: {cause}; `biga probe` without --device lists all");
            Err(crate::exit::CliError::DeviceUnavailable(words).into())
        }
        None => Ok(selection.topology),
    }
}

fn to_text(topology: &Topology, npu: &NpuReport) -> String {
    let mut text = String::new();
    for info in &topology.devices {
        device_text(&mut text, info);
    }
    if !npu.devices.is_empty() {
        npu_text(&mut text, npu);
    }
    for (backend, unavailable) in &topology.unavailable {
        let _ = writeln!(text, "{backend}: not available: {}", unavailable.cause);
        if let Some(remedy) = &unavailable.remedy {
            let _ = writeln!(text, "  next: {remedy}");
        }
    }
    links_text(&mut text, topology);
    if topology.devices.iter().any(|info| !info.rates.measured) {
        text += "Some rates are assumptions by kind of device. Next: biga probe --measure\n";
    }
    text
}

fn device_text(text: &mut String, info: &DeviceInfo) {
    let rates = &info.rates;
    let kind = serde_json::to_value(info.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    let _ = writeln!(text, "{}: {}", info.id, info.name);
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<22} {value}");
    };
    fact("kind", &kind.unwrap_or_default());
    // The CPU has no driver: there its instruction sets stand for one, and they are among its facts.
    if info.facts.iter().all(|(_, value)| *value != info.driver) {
        fact("driver", &info.driver);
    }
    fact("memory", &size::bytes(info.memory_bytes));
    fact("largest allocation", &size::bytes(info.max_allocation_bytes));
    fact("host sees its memory", if info.host_visible { "yes" } else { "no" });
    for (name, value) in &info.facts {
        fact(name, value);
    }
    let figures = format!(
        "{}, {}, launch {}, submission {}",
        size::rate(rates.read_bytes_per_s, "B/s"),
        size::rate(rates.flops_per_s, "FLOP/s"),
        size::seconds(rates.launch_s),
        size::seconds(rates.submit_s)
    );
    fact(if rates.measured { "measured" } else { "assumed" }, &figures);
    findings_text(text, &info.findings);
    text.push('\n');
}

fn findings_text(text: &mut String, findings: &[Finding]) {
    for Finding { problem, remedy } in findings {
        let _ = writeln!(text, "  ! {problem}\n    next: {remedy}");
    }
}

fn npu_text(text: &mut String, npu: &NpuReport) {
    for device in &npu.devices {
        let _ = writeln!(text, "npu at {}: {}", device.pci_address, device.model);
        let mut fact = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<22} {value}");
        };
        fact("pci id", format!("1022:{:04x} revision {:02x}", device.device_id, device.revision));
        fact("driver", device.driver.clone().unwrap_or_else(|| "none".to_owned()));
        fact("firmware", device.firmware.clone().unwrap_or_else(|| "unknown".to_owned()));
        if let Some(node) = &device.node {
            fact("device file", format!("{} mode {:04o} group {}", node.path, node.mode, node.group));
        }
        fact("kernel", npu.kernel.clone().unwrap_or_else(|| "unknown".to_owned()));
        fact("memory it may lock", npu.memlock_bytes.map_or_else(|| "unlimited or unknown".to_owned(), size::bytes));
    }
    findings_text(text, &npu.findings);
    text.push('\n');
}

fn links_text(text: &mut String, topology: &Topology) {
    let links = links(topology);
    for link in &links {
        let how = if link.shared {
            "same memory".to_owned()
        } else {
            format!("copied at {}", size::rate(link.bytes_per_s, "B/s"))
        };
        let source = if link.measured { "measured" } else { "assumed" };
        let _ = writeln!(text, "{} -> {}: {}, {how} ({source})", link.from, link.to, size::seconds(link.latency_s));
    }
    if !links.is_empty() {
        text.push('\n');
    }
}

/// Every pair, measured or assumed.
fn links(topology: &Topology) -> Vec<Link> {
    let ids: Vec<_> = topology.devices.iter().map(|info| info.id).collect();
    let pairs = ids.iter().flat_map(|&from| ids.iter().map(move |&to| (from, to)));
    pairs.filter(|(from, to)| from != to).map(|(from, to)| topology.link(from, to)).collect()
}

fn to_json(topology: &Topology, npu: &NpuReport, failures: &[String]) -> Value {
    let unavailable = topology.unavailable.iter().map(
        |(backend, unavailable)| json!({"backend": backend, "cause": unavailable.cause, "remedy": unavailable.remedy}),
    );
    json!({
        "version": JSON_VERSION,
        "devices": topology.devices.iter().map(device_json).collect::<Vec<_>>(),
        "links": links(topology).iter().map(link_json).collect::<Vec<_>>(),
        "unavailable": unavailable.collect::<Vec<_>>(),
        "npu": npu,
        "not_measured": failures,
    })
}

fn device_json(info: &DeviceInfo) -> Value {
    let facts: serde_json::Map<String, Value> =
        info.facts.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "id": info.id.to_string(),
        "name": info.name,
        "kind": info.kind,
        "driver": info.driver,
        "memory_bytes": info.memory_bytes,
        "max_allocation_bytes": info.max_allocation_bytes,
        "host_visible": info.host_visible,
        "identity": info.identity,
        "rates": info.rates,
        "facts": facts,
        "findings": info.findings,
    })
}

fn link_json(link: &Link) -> Value {
    json!({
        "from": link.from.to_string(),
        "to": link.to.to_string(),
        "latency_s": link.latency_s,
        "bytes_per_s": (!link.shared).then_some(link.bytes_per_s),
        "shared": link.shared,
        "measured": link.measured,
    })
}
