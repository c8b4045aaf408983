//! What this processor is: cores that may be used, instruction sets, caches, memory.

use std::{fs, path::Path};

use biga_hal::{DeviceInfo, DeviceKind, Rates};

use crate::{CpuOptions, DEVICE, sys::system};

/// Threads to start.
pub(crate) fn threads(options: CpuOptions) -> usize {
    options.threads.unwrap_or_else(usable_cores).clamp(1, 1024)
}

/// Everything that is known before the device is opened.
pub(crate) fn info(options: CpuOptions) -> DeviceInfo {
    let (name, sets, threads) = (model_name(), instruction_sets(), threads(options));
    let memory_bytes = available_memory_bytes();
    let kernels = options.kernels.resolve().unwrap_or(options.kernels).name();
    let mut facts = vec![("threads".to_owned(), threads.to_string()), ("instruction sets".to_owned(), sets.join(" "))];
    facts.extend(caches());
    DeviceInfo {
        id: DEVICE,
        kind: DeviceKind::Cpu,
        driver: sets.join(" "),
        memory_bytes,
        max_allocation_bytes: memory_bytes,
        host_visible: true,
        rates: assumed_rates(threads),
        identity: format!("cpu/{}/{name}/{threads} threads/{kernels}", env!("CARGO_PKG_VERSION")),
        name,
        facts,
        findings: Vec::new(),
    }
}

/// Modest values for a laptop core, until they are measured.
fn assumed_rates(threads: usize) -> Rates {
    Rates {
        read_bytes_per_s: 12e9 * threads.min(4) as f64,
        flops_per_s: 30e9 * threads as f64,
        launch_s: 2e-6,
        submit_s: 10e-6,
        measured: false,
    }
}

/// Cores by affinity and by the control group's quota, whichever is less.
fn usable_cores() -> usize {
    let cores = system::affinity_cores()
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    quota_cores().map_or(cores, |quota| quota.min(cores)).max(1)
}

/// Whole cores that the control group's quota allows, if it sets one.
fn quota_cores() -> Option<usize> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let folder = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    // The tightest limit on the way up to the root counts.
    let v2 = folder.ancestors().filter_map(|folder| parse_cpu_max(&fs::read_to_string(folder.join("cpu.max")).ok()?));
    let number = |file: &str| fs::read_to_string(Path::new("/sys/fs/cgroup/cpu").join(file)).ok()?.trim().parse().ok();
    let v1 = number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us")).and_then(|(q, p)| whole_cores(q, p));
    v2.chain(v1).min()
}

/// `max 100000` or `150000 100000`: quota and period.
fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cores(quota.parse().ok()?, period.parse().ok()?)
}

fn whole_cores(quota: f64, period: f64) -> Option<usize> {
    (quota > 0.0 && period > 0.0).then(|| ((quota / period) as usize).max(1))
}

fn model_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// The vector instruction sets that the kernels know of.
#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    let known = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bw", std::is_x86_feature_detected!("avx512bw")),
        ("avx512vl", std::is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
        ("avxvnni", std::is_x86_feature_detected!("avxvnni")),
    ];
    known.into_iter().filter_map(|(name, found)| found.then_some(name)).collect()
}

/// Other processors run the portable kernels.
#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

/// Data and unified caches of core 0, as the system lists them.
fn caches() -> Vec<(String, String)> {
    let read = |index: usize, file: &str| {
        let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}")).ok()?;
        Some(text.trim().to_owned())
    };
    let one = |index| {
        let (level, kind, size) = (read(index, "level")?, read(index, "type")?, read(index, "size")?);
        (kind != "Instruction").then(|| (format!("L{level} cache"), size))
    };
    (0..8).filter_map(one).collect()
}

/// Memory that can be had without swapping, within the control group's limit.
fn available_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = parse_available(&text).unwrap_or(1 << 30);
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max").or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let used = number("/sys/fs/cgroup/memory.current")
        .or_else(|| number("/sys/fs/cgroup/memory/memory.usage_in_bytes"))
        .unwrap_or(0);
    limit.map_or(available, |limit| available.min(limit.saturating_sub(used)))
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{info, parse_available, parse_cpu_max, threads};
    use crate::CpuOptions;

    #[test]
    fn quotas_are_whole_cores() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1));
        assert_eq!(parse_cpu_max("400000 100000"), Some(4));
        assert_eq!(parse_cpu_max("50000 100000"), Some(1));
        assert_eq!(parse_cpu_max("1 0"), None);
        assert_eq!(parse_cpu_max("garbage"), None);
    }

    #[test]
    fn available_memory_is_read() {
        assert_eq!(parse_available("MemTotal: 9 kB\nMemAvailable:   2 kB\n"), Some(2048));
        assert_eq!(parse_available("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn this_machine_has_cores_memory_and_an_identity() {
        let info = info(CpuOptions::default());
        assert!(info.memory_bytes > 0 && !info.name.is_empty() && !info.rates.measured);
        assert!(threads(CpuOptions::default()) >= 1);
        assert_eq!(threads(CpuOptions { threads: Some(0), ..CpuOptions::default() }), 1);
    }
}
