//! How devices are opened.

use crate::tile::Matrices;

/// Which product kernels to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kernels {
    /// By the kind of device.
    #[default]
    Auto,
    /// Those for GPUs.
    Gpu,
    /// Those for drivers that run on the CPU.
    Software,
}

/// How to open devices.
#[derive(Clone, Copy, Debug, Default)]
pub struct VulkanOptions {
    /// Kernels.
    pub kernels: Kernels,
    /// Matrix instructions.
    pub matrices: Matrices,
    /// Orders launches by pipeline barriers even where kernels can wait for each other; for tests and for measuring.
    pub only_barriers: bool,
    /// Fills and reads memory of the device by copies of its own even where the host sees it; for tests and for
    /// measuring. What host code declares as its own it sees all the same.
    pub copies: bool,
}

impl From<Kernels> for VulkanOptions {
    fn from(kernels: Kernels) -> VulkanOptions {
        VulkanOptions { kernels, ..VulkanOptions::default() }
    }
}
