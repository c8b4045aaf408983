//! Which of the devices found take part, by the names that users give them.

use biga_hal::{DeviceInfo, DeviceKind, Unavailable};

use super::Topology;

/// What a list of names stands for on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// The devices that take part. The CPU is always among them, as the last resort.
    pub topology: Topology,
    /// Names that no device answers to, with the cause.
    pub missing: Vec<(String, String)>,
}

impl Topology {
    /// Picks devices by name: `cpu`, `npu`, `npu-sim`, an id such as `vulkan:1`, or any part of a GPU's
    /// or its driver's name in any case; `lavapipe` means Mesa's CPU driver whatever it calls itself.
    ///
    /// Without names every device takes part except GPU drivers that run on the CPU and simulators:
    /// those must be named, because they stand in for hardware and are never the faster choice.
    pub fn select(&self, names: &[String]) -> Selection {
        let taken = |info: &DeviceInfo| {
            info.kind == DeviceKind::Cpu
                || if names.is_empty() { !by_name_only(info) } else { names.iter().any(|name| answers_to(info, name)) }
        };
        let missing = names
            .iter()
            .filter(|name| !self.devices.iter().any(|info| answers_to(info, name)))
            .map(|name| (name.clone(), self.why_missing(name)))
            .collect();
        Selection { topology: self.keep(taken), missing }
    }

    fn keep(&self, taken: impl Fn(&DeviceInfo) -> bool) -> Topology {
        let (devices, left): (Vec<_>, Vec<_>) = self.devices.iter().cloned().partition(|info| taken(info));
        let stays = |id| devices.iter().any(|info| info.id == id);
        let links = self.links.iter().filter(|link| stays(link.from) && stays(link.to)).copied().collect();
        let mut unavailable = self.unavailable.clone();
        for info in left.iter().filter(|info| !devices.iter().any(|kept| kept.id.backend == info.id.backend)) {
            unavailable.push((info.id.backend, left_out(info)));
        }
        Topology { devices, links, unavailable }
    }

    fn why_missing(&self, name: &str) -> String {
        let backend = name.split(':').next().unwrap_or(name);
        let backend = if backend == "lavapipe" { "vulkan" } else { backend };
        let cause = self.unavailable.iter().find(|(known, _)| known.eq_ignore_ascii_case(backend));
        if let Some((_, unavailable)) = cause {
            return unavailable.cause.clone();
        }
        let found: Vec<String> = self.devices.iter().map(|info| format!("{} ({})", info.id, info.name)).collect();
        let mut why = format!("no device answers to {name:?}; found: {}", found.join(", "));
        for (backend, unavailable) in &self.unavailable {
            why += &format!("; no {backend} device: {}", unavailable.cause);
        }
        why
    }
}

/// True for stand-ins, which take part only when named.
fn by_name_only(info: &DeviceInfo) -> bool {
    info.kind == DeviceKind::SoftwareGpu || info.id.backend == "npu-sim"
}

fn answers_to(info: &DeviceInfo, name: &str) -> bool {
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        return false;
    }
    let described = format!("{} {}", info.name, info.driver).to_lowercase();
    match (name.as_str(), info.kind) {
        ("lavapipe", kind) => {
            kind == DeviceKind::SoftwareGpu && (described.contains("llvmpipe") || described.contains("lavapipe"))
        }
        ("cpu", kind) => kind == DeviceKind::Cpu,
        ("npu" | "npu-sim", _) => info.id.backend == name,
        (_, DeviceKind::Cpu | DeviceKind::Npu) => info.id.to_string() == name,
        (name, _) if name.starts_with(&format!("{}:", info.id.backend)) => info.id.to_string() == name,
        (name, _) => described.contains(name),
    }
}

fn left_out(info: &DeviceInfo) -> Unavailable {
    let name = if info.kind == DeviceKind::SoftwareGpu { "lavapipe".to_owned() } else { info.id.to_string() };
    let cause = if by_name_only(info) {
        format!("{} ({}) is no hardware and takes part only when named", info.name, info.id)
    } else {
        format!("{} ({}) is not among the devices named", info.name, info.id)
    };
    Unavailable { cause, remedy: Some(format!("add --device {name}")) }
}

#[cfg(test)]
mod tests {
    use biga_hal::{DeviceId, DeviceInfo, DeviceKind, Rates, Unavailable};

    use super::Topology;
    use crate::probe::Link;

    fn device(backend: &'static str, index: usize, kind: DeviceKind, name: &str, driver: &str) -> DeviceInfo {
        let rates = Rates { read_bytes_per_s: 1e9, flops_per_s: 1e9, launch_s: 1e-6, submit_s: 1e-5, measured: false };
        DeviceInfo {
            id: DeviceId { backend, index },
            name: name.into(),
            kind,
            driver: driver.into(),
            memory_bytes: 1 << 30,
            max_allocation_bytes: 1 << 30,
            host_visible: true,
            rates,
            identity: format!("{backend}-{index}"),
            facts: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn machine() -> Topology {
        let radeon = device("vulkan", 0, DeviceKind::IntegratedGpu, "AMD Radeon 780M (RADV PHOENIX)", "radv 25.0.7");
        let llvmpipe = device("vulkan", 1, DeviceKind::SoftwareGpu, "llvmpipe (LLVM 19.1.7, 256 bits)", "Mesa 25.0.7");
        let cpu = device("cpu", 0, DeviceKind::Cpu, "AMD Ryzen 9", "avx512");
        let link = Link {
            from: radeon.id,
            to: llvmpipe.id,
            latency_s: 1e-5,
            bytes_per_s: 1e10,
            shared: false,
            measured: true,
        };
        let cause = Unavailable { cause: "no amd npu on the pci bus".into(), remedy: None };
        Topology { devices: vec![radeon, llvmpipe, cpu], links: vec![link], unavailable: vec![("npu", cause)] }
    }

    fn check(names: &[&str], taken: &[&str], missing: &[&str]) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let selection = machine().select(&names);
        let ids: Vec<String> = selection.topology.devices.iter().map(|info| info.id.to_string()).collect();
        assert_eq!(ids, taken, "{names:?}");
        let absent: Vec<&str> = selection.missing.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(absent, missing, "{names:?}");
    }

    #[test]
    fn names_pick_devices_and_the_cpu_stays() {
        check(&[], &["vulkan:0", "cpu"], &[]);
        check(&["cpu"], &["cpu"], &[]);
        check(&["lavapipe"], &["vulkan:1", "cpu"], &[]);
        check(&["LLVMpipe"], &["vulkan:1", "cpu"], &[]);
        check(&["vulkan:1", "vulkan:0"], &["vulkan:0", "vulkan:1", "cpu"], &[]);
        check(&["radeon"], &["vulkan:0", "cpu"], &[]);
        check(&["phoenix"], &["vulkan:0", "cpu"], &[]);
        check(&["npu"], &["cpu"], &["npu"]);
        check(&["npu-sim"], &["cpu"], &["npu-sim"]);
        check(&["vulkan:7"], &["cpu"], &["vulkan:7"]);
        check(&["geforce", "radv"], &["vulkan:0", "cpu"], &["geforce"]);
        check(&[""], &["cpu"], &[""]);
        check(&["ryzen"], &["cpu"], &["ryzen"]);
    }

    #[test]
    fn a_missing_device_says_why() {
        let missing = machine().select(&["npu".into()]).missing;
        assert_eq!(missing, [("npu".to_owned(), "no amd npu on the pci bus".to_owned())]);
        let why = &machine().select(&["vulkan:9".into()]).missing[0].1;
        assert!(why.contains("vulkan:9") && why.contains("vulkan:0 (AMD Radeon 780M"), "{why}");
    }

    #[test]
    fn a_stand_in_left_out_is_named_with_the_way_to_get_it() {
        let mut topology = machine();
        topology.devices.remove(0);
        let selected = topology.select(&[]).topology;
        let (_, cause) = selected.unavailable.iter().find(|(backend, _)| *backend == "vulkan").unwrap();
        assert!(cause.cause.contains("takes part only when named"), "{cause}");
        assert_eq!(cause.remedy.as_deref(), Some("add --device lavapipe"));
    }

    #[test]
    fn links_stay_only_between_devices_that_stay() {
        assert_eq!(machine().select(&[]).topology.links.len(), 0);
        assert_eq!(machine().select(&["vulkan:0".into(), "vulkan:1".into()]).topology.links.len(), 1);
    }
}
