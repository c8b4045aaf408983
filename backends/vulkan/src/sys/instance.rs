//! The loader and the instance, opened at run time.

use std::{fmt, sync::Arc};

use ash::vk;
use biga_hal::Unavailable;

/// An open loader with an instance.
pub(crate) struct Instance {
    pub(super) entry: ash::Entry,
    pub(super) raw: ash::Instance,
}

/// A device that the instance lists.
#[derive(Clone)]
pub(crate) struct PhysicalDevice {
    pub(super) instance: Arc<Instance>,
    pub(super) raw: vk::PhysicalDevice,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

fn unavailable(cause: String, remedy: &str) -> Unavailable {
    Unavailable { cause, remedy: Some(remedy.to_owned()) }
}

impl Instance {
    /// Opens the loader and makes an instance of Vulkan 1.3.
    pub(crate) fn new() -> Result<Arc<Instance>, Unavailable> {
        // SAFETY: the library found under the loader's own name is a Vulkan loader; it stays loaded for
        // as long as `entry` lives, which `Instance` owns.
        let entry = unsafe { ash::Entry::load() }.map_err(|error| {
            unavailable(format!("no Vulkan loader: {error}"), "install the loader: apt install libvulkan1")
        })?;
        let application = vk::ApplicationInfo::default().engine_name(c"biga").api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `info` and what it points to live until the call returns.
        let raw = unsafe { entry.create_instance(&info, None) }.map_err(|error| match error {
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => unavailable(
                "the Vulkan loader finds no driver".to_owned(),
                "install a driver: apt install mesa-vulkan-drivers, or check VK_DRIVER_FILES",
            ),
            other => unavailable(
                format!("the Vulkan loader makes no instance: {other}"),
                "run `vulkaninfo --summary` for the loader's own report",
            ),
        })?;
        Ok(Arc::new(Instance { entry, raw }))
    }

    /// Every device, in the loader's order.
    pub(crate) fn physical_devices(self: &Arc<Instance>) -> Result<Vec<PhysicalDevice>, Unavailable> {
        // SAFETY: the instance is alive.
        let raw = unsafe { self.raw.enumerate_physical_devices() }.map_err(|error| {
            unavailable(
                format!("the Vulkan driver fails at start: {error}"),
                "check access to the GPU: ls -l /dev/dri, and that the user is in the group `render`",
            )
        })?;
        if raw.is_empty() {
            return Err(unavailable(
                "the Vulkan driver lists no device".to_owned(),
                "check access to the GPU: ls -l /dev/dri, and that the user is in the group `render`",
            ));
        }
        Ok(raw.into_iter().map(|raw| PhysicalDevice { instance: Arc::clone(self), raw }).collect())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: every object made from the instance holds an `Arc` of it, so none is left.
        unsafe { self.raw.destroy_instance(None) };
    }
}
