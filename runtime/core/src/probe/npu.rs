//! The NPU as the system shows it: what a user has to fix before any driver call can work.
//!
//! Reads files only (sysfs, procfs, `/dev` metadata, `/etc/group`) below a root folder, so that tests
//! bring their own. It opens no device and runs nothing. What it reads may be missing, odd or hostile:
//! every value is bounded and cleaned before it is shown. Facts of the driver: `drivers/accel/amdxdna`
//! in Linux (PCI table, the need for an IOMMU group, the 64 MiB locked heap of each process).

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use biga_hal::{Finding, Unavailable};

/// Bytes of memory that the driver makes every process lock: its heap.
pub const HEAP_BYTES: u64 = 64 << 20;

/// PCI vendor id of AMD.
const VENDOR_AMD: u64 = 0x1022;
/// Entries of a folder that are looked at; a PCI bus has far fewer.
const MAX_ENTRIES: usize = 4096;
/// The first kernel that carries the driver.
const FIRST_KERNEL: (u64, u64) = (6, 14);

/// Everything that was seen.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct NpuReport {
    /// NPUs on the PCI bus.
    pub devices: Vec<NpuDevice>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Most bytes that this process may lock; `None` if unlimited or unknown.
    pub memlock_bytes: Option<u64>,
    /// What has to be fixed, in the order in which to do it.
    pub findings: Vec<Finding>,
}

/// One NPU.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct NpuDevice {
    /// Such as `0000:c6:00.1`.
    pub pci_address: String,
    /// PCI device id.
    pub device_id: u64,
    /// PCI revision.
    pub revision: u64,
    /// Generation and product names.
    pub model: &'static str,
    /// The kernel driver that holds it.
    pub driver: Option<String>,
    /// Firmware version, if the driver says.
    pub firmware: Option<String>,
    /// True if it stands behind an IOMMU, without which the driver refuses it.
    pub iommu: bool,
    /// Its device file.
    pub node: Option<NpuNode>,
}

/// The device file of an NPU.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct NpuNode {
    /// Such as `/dev/accel/accel0`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owning group, by name where it has one.
    pub group: String,
    /// True if the permission bits let this process read and write it.
    pub usable: bool,
}

impl NpuReport {
    /// Looks below `root`: `/`, or a test's folder.
    pub fn look(root: &Path) -> NpuReport {
        let devices = pci_devices(root);
        let kernel = read_line(&root.join("proc/sys/kernel/osrelease"));
        let memlock_bytes = memlock_bytes(root);
        let mut report = NpuReport { devices, kernel, memlock_bytes, findings: Vec::new() };
        report.findings = report.devices.iter().flat_map(|device| report.findings_of(device)).collect();
        if !report.devices.is_empty() {
            report.findings.extend(report.memlock_finding());
        }
        report.findings.dedup();
        report
    }

    /// Why no device of this machine is an NPU that can be used here.
    pub fn unavailable(&self) -> Unavailable {
        let Some(device) = self.devices.first() else {
            return Unavailable { cause: "no amd npu on the pci bus".to_owned(), remedy: None };
        };
        let name = format!("npu {} at {}", device.model, device.pci_address);
        match self.findings.first() {
            Some(Finding { problem, remedy }) => {
                Unavailable { cause: format!("{name}: {problem}"), remedy: Some(remedy.clone()) }
            }
            None => Unavailable { cause: format!("{name}: no backend for it is registered"), remedy: None },
        }
    }

    fn findings_of(&self, device: &NpuDevice) -> Vec<Finding> {
        let address = &device.pci_address;
        if !device.iommu && device.driver.is_none() {
            return vec![finding(
                format!("{address} has no iommu group, and the driver needs one"),
                "enable the IOMMU in the firmware setup and remove amd_iommu=off and iommu=off from the kernel command line",
            )];
        }
        match (&device.driver, &device.node) {
            (None, _) => vec![self.no_driver(address)],
            (Some(driver), _) if driver != "amdxdna" => vec![finding(
                format!("{address} is held by {driver}, not by amdxdna"),
                format!("echo {address} | sudo tee /sys/bus/pci/drivers/{driver}/unbind && sudo modprobe amdxdna"),
            )],
            (Some(_), None) => vec![finding(
                format!("amdxdna holds {address} but made no file in /dev/accel"),
                "sudo dmesg | grep -i amdxdna; in a container, pass the device: --device /dev/accel/accel0",
            )],
            (Some(_), Some(node)) if !node.usable => vec![no_permission(node)],
            _ => Vec::new(),
        }
    }

    fn no_driver(&self, address: &str) -> Finding {
        let release = self.kernel.as_deref().unwrap_or("unknown");
        match self.kernel.as_deref().and_then(kernel_version) {
            Some(version) if version < FIRST_KERNEL => finding(
                format!("no driver for {address}: amdxdna came with Linux 6.14, this is {release}"),
                "install a newer kernel (Debian: sudo apt install -t stable-backports linux-image-amd64)",
            ),
            _ => finding(
                format!("no driver holds {address} (kernel {release})"),
                "sudo modprobe amdxdna; if it fails, sudo dmesg | grep -i amdxdna names the missing firmware file",
            ),
        }
    }

    fn memlock_finding(&self) -> Option<Finding> {
        let bytes = self.memlock_bytes.filter(|&bytes| bytes < HEAP_BYTES)?;
        Some(finding(
            format!("this process may lock {bytes} bytes of memory, the npu needs {HEAP_BYTES}"),
            "echo '* - memlock unlimited' | sudo tee /etc/security/limits.d/99-npu.conf, then log in again",
        ))
    }
}

fn finding(problem: String, remedy: impl Into<String>) -> Finding {
    Finding { problem, remedy: remedy.into() }
}

fn no_permission(node: &NpuNode) -> Finding {
    let NpuNode { path, mode, group, .. } = node;
    let remedy = if mode & 0o060 == 0o060 && group != "root" {
        format!("sudo usermod -aG {group} \"$USER\", then log in again")
    } else {
        format!("sudo chgrp render {path} && sudo chmod 660 {path}; sudo usermod -aG render \"$USER\"")
    };
    finding(format!("this user may not open {path} (mode {mode:04o}, group {group})"), remedy)
}

/// Generation and products by PCI id and revision; `None` for anything that is no NPU of this vendor.
fn model(device_id: u64, revision: u64) -> Option<&'static str> {
    Some(match (device_id, revision) {
        (0x1502, _) => "NPU1 (Phoenix, Hawk Point)",
        (0x17f0, 0x00) => "NPU2 (Strix, early revision)",
        (0x17f0, 0x10) => "NPU4 (Strix Point)",
        (0x17f0, 0x11) => "NPU5 (Strix Halo)",
        (0x17f0, 0x20) => "NPU6 (Krackan Point)",
        (0x17f0, _) => "NPU of the Strix generation, unknown revision",
        (0x17f1..=0x17f3 | 0x1b0b | 0x1b0c, _) => "NPU of a later generation",
        _ => return None,
    })
}

fn pci_devices(root: &Path) -> Vec<NpuDevice> {
    let mut devices: Vec<NpuDevice> =
        entries(&root.join("sys/bus/pci/devices")).iter().filter_map(|path| npu_at(root, path)).collect();
    devices.sort_by(|a, b| a.pci_address.cmp(&b.pci_address));
    devices
}

fn npu_at(root: &Path, path: &Path) -> Option<NpuDevice> {
    let number = |name: &str| read_line(&path.join(name)).and_then(|text| hexadecimal(&text));
    if number("vendor")? != VENDOR_AMD {
        return None;
    }
    let device_id = number("device")?;
    let revision = number("revision").unwrap_or(0);
    let driver = fs::read_link(path.join("driver")).ok();
    Some(NpuDevice {
        pci_address: cleaned(&path.file_name()?.to_string_lossy()),
        device_id,
        revision,
        model: model(device_id, revision)?,
        driver: driver.and_then(|link| Some(cleaned(&link.file_name()?.to_string_lossy()))),
        firmware: read_line(&path.join("fw_version")),
        iommu: path.join("iommu_group").symlink_metadata().is_ok(),
        node: entries(&path.join("accel")).iter().find_map(|entry| node(root, entry)),
    })
}

fn node(root: &Path, entry: &Path) -> Option<NpuNode> {
    let name = entry.file_name()?.to_str()?;
    let digits = name.strip_prefix("accel")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let metadata = fs::metadata(root.join("dev/accel").join(name)).ok()?;
    Some(NpuNode {
        path: format!("/dev/accel/{name}"),
        mode: metadata.mode() & 0o7777,
        group: group_name(root, metadata.gid()),
        usable: usable(root, &metadata),
    })
}

/// Whether the permission bits give this process both reading and writing. Access lists are not read.
fn usable(root: &Path, metadata: &fs::Metadata) -> bool {
    let status = read_text(&root.join("proc/self/status")).unwrap_or_default();
    let ids = |field: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("");
        line.split_whitespace().filter_map(|id| id.parse().ok()).collect()
    };
    // The second number of `Uid:` and `Gid:` is the effective id.
    let effective = |field: &str| ids(field).get(1).copied();
    let groups = ids("Groups:");
    let in_group = effective("Gid:") == Some(metadata.gid()) || groups.contains(&metadata.gid());
    let bits = match effective("Uid:") {
        Some(0) => return true,
        Some(uid) if uid == metadata.uid() => metadata.mode() >> 6,
        _ if in_group => metadata.mode() >> 3,
        _ => metadata.mode(),
    };
    bits & 0o6 == 0o6
}

fn group_name(root: &Path, gid: u32) -> String {
    let groups = read_text(&root.join("etc/group")).unwrap_or_default();
    let wanted = gid.to_string();
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted && !name.is_empty()).then(|| cleaned(name))
    });
    named.unwrap_or(wanted)
}

fn memlock_bytes(root: &Path) -> Option<u64> {
    let limits = read_text(&root.join("proc/self/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kernel_version(release: &str) -> Option<(u64, u64)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = read.take(MAX_ENTRIES).flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The first line, cleaned, or nothing.
fn read_line(path: &Path) -> Option<String> {
    let text = read_text(path)?;
    let line = cleaned(text.lines().next()?.trim());
    (!line.is_empty()).then_some(line)
}

/// At most 64 KiB of a regular file. Others are left alone: reading a pipe would wait for ever.
fn read_text(path: &Path) -> Option<String> {
    const MAX_BYTES: u64 = 64 << 10;
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file).and_then(|_| fs::File::open(path).ok())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// At most 80 characters, without those that move a terminal's cursor.
fn cleaned(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests;
