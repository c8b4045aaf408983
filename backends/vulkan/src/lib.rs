//! The Vulkan device: buffer device addresses instead of descriptors, segments recorded once and replayed.
//!
//! Order of reading: `probe` lists devices and says what limits them, `device` opens one, `buffer` holds
//! memory, `weight` lays weights out, `staging` carries them where the host does not reach, `lower` turns a
//! segment into launches with the tiles of `tile`, some of which rest on what a device tells of its `elements`,
//! `hazard` puts barriers between them, `executable` records them, `queue` and `fence` run and await them.
//! `inspect` shows what the driver's compiler makes of the kernels.
//! All unsafe code is in `sys`, whose head lists what it relies on.
//!
//! The loader is opened at run time, so that a machine without Vulkan only lacks the device. Kernels
//! never trust a step: counts are cut to the bucket, token ids and slots to their tables, and a block
//! address of zero is skipped.
#![deny(unsafe_code)]

mod probe;

mod device;

mod buffer;

mod supports;

mod weight;

mod staging;

mod tile;

mod elements;

mod tuning;

mod lower;

mod hazard;

mod chain;

mod executable;

mod queue;

mod fence;

mod measure;

mod options;

mod tune;

mod inspect;

mod sys;

pub use device::VulkanBackend;
pub use inspect::CompiledKernel;
pub use options::{Kernels, VulkanOptions};
pub use tile::{Matrices, MatrixTile, Share};
