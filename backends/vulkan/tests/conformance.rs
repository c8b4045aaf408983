//! The suite on every Vulkan device that takes part (see `pick`), with the kernels for GPUs and with those
//! for drivers on the CPU, against the CPU's plain reference.

mod pick;

use biga_conformance::{Group, Options};
use biga_cpu::CpuBackend;
use biga_vulkan::{Kernels, VulkanOptions};

// The kernels follow block addresses without knowing which are good.
const OPTIONS: Options = Options { seed: 3, tolerance_factor: 1.0, hostile_addresses: false };

fn check(group: Group, options: impl Into<VulkanOptions>) {
    let reference = CpuBackend::new(biga_cpu::CpuOptions { threads: Some(1), kernels: biga_cpu::Kernels::Reference })
        .open_device()
        .expect("the reference runs everywhere");
    for device in pick::devices(options) {
        println!("{} ({})", device.info().name, device.info().driver);
        biga_conformance::run_group(group, &reference, &*device, &OPTIONS).assert_passed();
    }
}

macro_rules! groups {
    ($module:ident, $kernels:ident: $($name:ident $group:ident),+) => {
        mod $module {
            use super::{Group, Kernels, check};
            $(#[test]
            fn $name() {
                check(Group::$group, Kernels::$kernels);
            })+
        }
    };
}

groups!(gpu_kernels, Gpu:
    embed Embed, norms Norms, products_one_row ProductsOneRow, products_many_rows ProductsManyRows,
    rope Rope, kv_append KvAppend, attention_decode AttentionDecode, attention_prefill AttentionPrefill,
    elementwise Elementwise, sample Sample, layer Layer, memory Memory, refusals Refusals, submission Submission,
    hostile_steps HostileSteps);

// What does not depend on the choice of kernels ran above.
groups!(software_kernels, Software:
    norms Norms, products_one_row ProductsOneRow, products_many_rows ProductsManyRows,
    attention_decode AttentionDecode, attention_prefill AttentionPrefill, sample Sample, layer Layer, hostile_steps HostileSteps);

// As on a card whose memory the host does not see.
#[test]
fn memory_by_copies() {
    check(Group::Memory, VulkanOptions { copies: true, ..VulkanOptions::default() });
}

#[test]
fn weights_by_copies() {
    check(Group::ProductsOneRow, VulkanOptions { copies: true, ..VulkanOptions::default() });
}

// Where launches do not wait for each other in the shader.
#[test]
fn layer_by_barriers() {
    let options = VulkanOptions { kernels: Kernels::Gpu, only_barriers: true, ..VulkanOptions::default() };
    check(Group::Layer, options);
}
