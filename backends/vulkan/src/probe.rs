//! What each Vulkan device is, and what limits it: from driver facts to [`DeviceInfo`].

use ash::vk;
use biga_hal::{DeviceId, DeviceInfo, DeviceKind, Finding, Rates};

use crate::sys::facts::Facts;

/// Lavapipe crashes on buffers beyond 2 GiB although it offers them.
const SOFTWARE_MAX_BUFFER_BYTES: u64 = (1 << 31) - (1 << 16);

/// The device's place in the listing as an identity.
pub(crate) fn id(index: usize) -> DeviceId {
    DeviceId { backend: "vulkan", index }
}

/// How policies see the device.
pub(crate) fn kind(facts: &Facts) -> DeviceKind {
    match facts.device_type {
        vk::PhysicalDeviceType::INTEGRATED_GPU => DeviceKind::IntegratedGpu,
        vk::PhysicalDeviceType::DISCRETE_GPU | vk::PhysicalDeviceType::VIRTUAL_GPU => DeviceKind::DiscreteGpu,
        _ => DeviceKind::SoftwareGpu,
    }
}

/// Everything that is known before opening.
pub(crate) fn info(index: usize, facts: &Facts) -> DeviceInfo {
    let kind = kind(facts);
    DeviceInfo {
        id: id(index),
        name: facts.name.clone(),
        kind,
        driver: driver(facts),
        memory_bytes: memory_bytes(kind, facts),
        max_allocation_bytes: max_allocation_bytes(kind, facts),
        host_visible: kind != DeviceKind::DiscreteGpu,
        rates: default_rates(kind),
        identity: format!(
            "vulkan {:04x}:{:04x} {} {} {:x}",
            facts.vendor_id, facts.device_id, facts.name, facts.driver_info, facts.driver_version
        ),
        facts: listed(facts),
        findings: findings(kind, facts),
    }
}

fn driver(facts: &Facts) -> String {
    let version = facts.driver_info.trim();
    match (facts.driver_name.is_empty(), version.is_empty()) {
        (true, _) => format!("version {:x}", facts.driver_version),
        (false, true) => format!("{} {:x}", facts.driver_name, facts.driver_version),
        (false, false) => format!("{} {version}", facts.driver_name),
    }
}

fn memory_bytes(kind: DeviceKind, facts: &Facts) -> u64 {
    let available = |heap: &crate::sys::facts::Heap| heap.budget_bytes.unwrap_or(heap.size_bytes).min(heap.size_bytes);
    match kind {
        // All heaps of an integrated device are the same memory, split by the driver.
        DeviceKind::IntegratedGpu => facts.heaps.iter().map(available).sum(),
        _ => facts.heaps.iter().filter(|heap| heap.device_local).map(available).max().unwrap_or(0),
    }
}

pub(crate) fn max_allocation_bytes(kind: DeviceKind, facts: &Facts) -> u64 {
    let limit = facts.max_allocation_bytes.min(facts.max_buffer_bytes);
    if kind == DeviceKind::SoftwareGpu { limit.min(SOFTWARE_MAX_BUFFER_BYTES) } else { limit }
}

/// Assumptions until the device is measured: typical of the kind, on the low side.
fn default_rates(kind: DeviceKind) -> Rates {
    let (read_bytes_per_s, flops_per_s, launch_s, submit_s) = match kind {
        DeviceKind::DiscreteGpu => (400e9, 5e12, 4e-6, 50e-6),
        DeviceKind::IntegratedGpu => (70e9, 1e12, 6e-6, 50e-6),
        _ => (5e9, 20e9, 20e-6, 100e-6),
    };
    Rates { read_bytes_per_s, flops_per_s, launch_s, submit_s, measured: false }
}

fn version(v: u32) -> String {
    format!("{}.{}.{}", vk::api_version_major(v), vk::api_version_minor(v), vk::api_version_patch(v))
}

fn listed(facts: &Facts) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| list.push((name.to_owned(), value));
    let yes_no = |b: bool| if b { "yes" } else { "no" }.to_owned();
    add("vulkan", version(facts.api_version));
    add("device type", format!("{:?}", facts.device_type).to_lowercase());
    add("pci id", format!("{:04x}:{:04x}", facts.vendor_id, facts.device_id));
    for (i, heap) in facts.heaps.iter().enumerate() {
        let place = if heap.device_local { "device-local" } else { "host" };
        let budget = heap.budget_bytes.map_or(String::new(), |b| format!(", budget {} MiB", b >> 20));
        add(&format!("heap {i}"), format!("{} MiB {place}{budget}", heap.size_bytes >> 20));
    }
    for (i, memory_type) in facts.memory_types.iter().enumerate() {
        let flags = format!("{:?}", memory_type.flags).to_lowercase();
        add(&format!("memory type {i}"), format!("heap {}: {flags}", memory_type.heap));
    }
    let (size, min, max) = (facts.subgroup_size, facts.min_subgroup_size, facts.max_subgroup_size);
    add("subgroup size", if min == max { size.to_string() } else { format!("{size} ({min} to {max})") });
    if let Some(accelerated) = facts.dot_4x8_accelerated {
        add("integer dot product 4x8 accelerated", yes_no(accelerated));
    }
    let shapes = if facts.matrix_shapes.is_empty() { "none".to_owned() } else { facts.matrix_shapes.join(", ") };
    add("cooperative matrix", shapes);
    if let Some(count) = facts.compute_units {
        add("compute units", count.to_string());
    }
    add(
        "import of host memory",
        facts.host_pointer_alignment.map_or("no".to_owned(), |a| format!("yes, aligned to {a} bytes")),
    );
    add("external memory fd", yes_no(facts.has_extension(ash::khr::external_memory_fd::NAME)));
    add("external memory dma-buf", yes_no(facts.has_extension(ash::ext::external_memory_dma_buf::NAME)));
    add("shared memory", format!("{} KiB", facts.max_shared_bytes >> 10));
    add("largest allocation", format!("{} MiB", facts.max_allocation_bytes >> 20));
    list
}

fn findings(kind: DeviceKind, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !facts.missing.is_empty() {
        findings.push(Finding {
            problem: format!("the driver lacks {}", facts.missing.join(", ")),
            remedy: "install a newer driver: apt install -t bookworm-backports mesa-vulkan-drivers".to_owned(),
        });
    }
    if kind == DeviceKind::SoftwareGpu {
        findings.push(Finding {
            problem: "this Vulkan driver runs on the CPU; it takes part only when named".to_owned(),
            remedy: format!("for tests: --device {}", facts.name.split_whitespace().next().unwrap_or("lavapipe")),
        });
    }
    findings
}

/// Facts of a device that does not exist, for tests of what is decided by them.
#[cfg(test)]
pub(crate) fn example_facts() -> Facts {
    use crate::sys::facts::{Heap, MemoryType};
    Facts {
        api_version: vk::API_VERSION_1_3,
        device_type: vk::PhysicalDeviceType::INTEGRATED_GPU,
        vendor_id: 0x1002,
        device_id: 0x1586,
        name: "example".to_owned(),
        driver_name: "radv".to_owned(),
        driver_info: "Mesa 26".to_owned(),
        driver_version: 1,
        extensions: Vec::new(),
        missing: Vec::new(),
        heaps: vec![
            Heap { size_bytes: 4 << 30, device_local: false, budget_bytes: Some(3 << 30) },
            Heap { size_bytes: 8 << 30, device_local: true, budget_bytes: None },
        ],
        memory_types: vec![
            MemoryType { flags: vk::MemoryPropertyFlags::DEVICE_LOCAL, heap: 1 },
            MemoryType {
                flags: vk::MemoryPropertyFlags::DEVICE_LOCAL
                    | vk::MemoryPropertyFlags::HOST_VISIBLE
                    | vk::MemoryPropertyFlags::HOST_COHERENT,
                heap: 1,
            },
            MemoryType {
                flags: vk::MemoryPropertyFlags::HOST_VISIBLE
                    | vk::MemoryPropertyFlags::HOST_COHERENT
                    | vk::MemoryPropertyFlags::HOST_CACHED,
                heap: 0,
            },
        ],
        max_allocation_bytes: 4 << 30,
        max_buffer_bytes: 8 << 30,
        max_shared_bytes: 65536,
        timestamp_bits: 64,
        timestamp_period_ns: 10.0,
        max_grid: [65535; 3],
        max_lanes: 1024,
        subgroup_size: 64,
        min_subgroup_size: 32,
        max_subgroup_size: 64,
        max_workgroup_subgroups: 32,
        can_require_subgroup_size: true,
        dot_4x8_accelerated: Some(true),
        host_pointer_alignment: None,
        matrix_shapes: Vec::new(),
        matrix_f16: vec![[16, 16, 16]],
        compute_units: Some(16),
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceKind, example_facts, info, vk};

    #[test]
    fn an_integrated_device_counts_every_heap_within_its_budget() {
        let info = info(0, &example_facts());
        assert_eq!(info.kind, DeviceKind::IntegratedGpu);
        assert_eq!(info.memory_bytes, 11 << 30);
        assert_eq!(info.max_allocation_bytes, 4 << 30);
        assert!(info.findings.is_empty());
    }

    #[test]
    fn a_driver_on_the_cpu_is_bounded_below_two_gib_and_says_so() {
        let mut facts = example_facts();
        facts.device_type = vk::PhysicalDeviceType::CPU;
        let info = info(1, &facts);
        assert_eq!(info.kind, DeviceKind::SoftwareGpu);
        assert!(info.max_allocation_bytes < 2 << 30);
        assert_eq!(info.findings.len(), 1);
    }

    #[test]
    fn an_absent_feature_is_named_with_a_remedy() {
        let mut facts = example_facts();
        facts.missing.push("scalarBlockLayout");
        let findings = info(0, &facts).findings;
        assert!(findings[0].problem.contains("scalarBlockLayout"), "{findings:?}");
    }
}
