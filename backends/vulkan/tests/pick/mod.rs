//! Which Vulkan devices take part in a test: every GPU, and drivers on the CPU that `BIGA_TEST_VULKAN`
//! names by a part of the device's or the driver's name.

use std::sync::Arc;

use biga_hal::{Backend, Device, DeviceKind};
use biga_vulkan::{VulkanBackend, VulkanOptions};

/// The devices, opened. None, with the reason printed, where none takes part and none was named.
///
/// # Panics
/// If a device was named and is not there, or a device does not open.
pub(crate) fn devices(options: impl Into<VulkanOptions>) -> Vec<Arc<dyn Device>> {
    let backend = VulkanBackend::with_options(options.into());
    let wanted = std::env::var("BIGA_TEST_VULKAN").unwrap_or_default().to_lowercase();
    let infos = match backend.probe() {
        Ok(infos) => infos,
        Err(error) => {
            assert!(wanted.is_empty(), "BIGA_TEST_VULKAN={wanted}, but {error}");
            println!("skipped: {error}");
            return Vec::new();
        }
    };
    let named = |text: &str| !wanted.is_empty() && text.to_lowercase().contains(&wanted);
    let mut devices = Vec::new();
    let mut found = false;
    for info in infos {
        let is_named = named(&info.name) || named(&info.driver);
        found |= is_named;
        if info.kind == DeviceKind::SoftwareGpu && !is_named {
            println!(
                "skipped {} ({}): it runs on the CPU and BIGA_TEST_VULKAN does not name it",
                info.name, info.driver
            );
            continue;
        }
        devices.push(backend.open(info.id).unwrap_or_else(|error| panic!("{}: {error}", info.name)));
    }
    assert!(found || wanted.is_empty(), "BIGA_TEST_VULKAN={wanted} names no device");
    devices
}
