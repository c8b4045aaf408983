//! What a run took place on: the machine, and the one device of it.

use std::{fs, str::FromStr};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) threads: usize,
    pub(crate) memory_bytes: u64,
    /// The operating system's kernel.
    pub(crate) kernel: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (info, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
        let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        Machine {
            cpu: cpu.unwrap_or("unknown").trim().to_owned(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The device that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The first GPU, or the CPU if there is none.
    Auto,
    /// The first GPU.
    Gpu,
    /// As `biga --device` takes it.
    Named(String),
}

impl FromStr for Wanted {
    type Err = std::convert::Infallible;

    fn from_str(word: &str) -> Result<Wanted, Self::Err> {
        Ok(match word {
            "auto" => Wanted::Auto,
            "gpu" => Wanted::Gpu,
            name => Wanted::Named(name.to_owned()),
        })
    }
}

/// A device as `biga probe` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    /// `cpu`, `vulkan:0`.
    pub(crate) id: String,
    /// What `biga --device` is given.
    pub(crate) argument: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) driver: String,
    /// Hardware, driver and version in one string.
    pub(crate) identity: String,
    pub(crate) memory_bytes: u64,
}

impl Device {
    /// The device that is wanted, in the answer of `biga probe --json`.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn choose(probe: &Value, wanted: &Wanted) -> Result<Device> {
        let listed = probe["devices"].as_array().context("biga probe --json lists no devices")?;
        let devices: Vec<Device> = listed.iter().filter_map(Device::read).collect();
        let gpu = || devices.iter().find(|device| matches!(device.kind.as_str(), "integrated-gpu" | "discrete-gpu"));
        let (found, what) = match wanted {
            Wanted::Auto => (gpu().or_else(|| devices.iter().find(|device| device.is_cpu())).cloned(), "GPU or CPU"),
            Wanted::Gpu => (gpu().cloned(), "GPU"),
            Wanted::Named(name) => {
                let named = devices.iter().find(|device| device.is_called(name));
                (named.map(|device| Device { argument: name.clone(), ..device.clone() }), name.as_str())
            }
        };
        let unavailable = probe["unavailable"].as_array();
        let causes = || unavailable.into_iter().flatten().filter_map(|one| one["cause"].as_str());
        found.with_context(|| format!("biga probe lists no device {what}; {}", causes().collect::<Vec<_>>().join("; ")))
    }

    fn read(json: &Value) -> Option<Device> {
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        Some(Device {
            id: text("id")?,
            argument: text("id")?,
            name: text("name")?,
            kind: text("kind")?,
            driver: text("driver")?,
            identity: text("identity")?,
            memory_bytes: json["memory_bytes"].as_u64()?,
        })
    }

    /// By the rules of `biga --device`, as far as they are needed here.
    fn is_called(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        if self.is_cpu() || name == "cpu" {
            return self.id == name;
        }
        let software = name == "lavapipe" && self.kind == "software-gpu";
        let words = format!("{} {}", self.name, self.driver).to_lowercase();
        self.id == name || software || words.contains(&name)
    }

    /// True for the host's own cores.
    pub(crate) fn is_cpu(&self) -> bool {
        self.kind == "cpu"
    }

    /// One of these, for tests of what is told to it.
    #[cfg(test)]
    pub(crate) fn for_tests(id: &str, kind: &str) -> Device {
        let text = |text: &str| text.to_owned();
        let (name, driver, identity) = (text("Some device"), text("driver 1"), text("some device, driver 1"));
        Device { id: text(id), argument: text(id), name, kind: text(kind), driver, identity, memory_bytes: 1 << 30 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Device, Machine, Wanted};
    use serde_json::{Value, json};

    fn device(id: &str, name: &str, kind: &str) -> Value {
        json!({"id": id, "name": name, "kind": kind, "driver": "Driver 7", "identity": "i", "memory_bytes": 5})
    }

    fn probe(devices: &[Value]) -> Value {
        json!({"devices": devices, "unavailable": [{"backend": "npu", "cause": "no driver", "remedy": null}]})
    }

    #[test]
    fn a_gpu_is_chosen_before_the_cpu_and_never_a_stand_in() {
        let cpu = device("cpu", "Some CPU", "cpu");
        let stand_in = device("vulkan:0", "llvmpipe", "software-gpu");
        let gpu = device("vulkan:1", "Some GPU", "discrete-gpu");
        let chosen = |devices: &[Value], wanted: &str| {
            Device::choose(&probe(devices), &wanted.parse().unwrap()).map(|device| (device.id, device.argument))
        };
        let pair = |id: &str, argument: &str| (id.to_owned(), argument.to_owned());
        let all = [cpu.clone(), stand_in.clone(), gpu];
        assert_eq!(chosen(&all, "auto").unwrap(), pair("vulkan:1", "vulkan:1"));
        assert_eq!(chosen(&all, "gpu").unwrap(), pair("vulkan:1", "vulkan:1"));
        assert_eq!(chosen(&[cpu.clone(), stand_in.clone()], "auto").unwrap(), pair("cpu", "cpu"));
        assert!(chosen(&[cpu, stand_in], "gpu").unwrap_err().to_string().contains("no driver"));
        assert_eq!(chosen(&all, "lavapipe").unwrap(), pair("vulkan:0", "lavapipe"));
        assert_eq!(chosen(&all, "some gpu").unwrap(), pair("vulkan:1", "some gpu"));
        assert_eq!(chosen(&all, "cpu").unwrap(), pair("cpu", "cpu"));
        let words = chosen(&all, "radeon").unwrap_err().to_string();
        assert!(words.contains("radeon") && words.contains("no driver"), "{words}");
        assert!(Device::choose(&json!({}), &Wanted::Auto).is_err());
    }

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let machine = Machine::here();
        assert!(machine.threads > 0 && machine.memory_bytes > 0, "{machine:?}");
        assert!(!machine.kernel.is_empty(), "{machine:?}");
    }
}
