//! The CPU device: always there, the oracle and the last resort.
//!
//! It computes every op of [`biga_hal::OpKind`] but sampling, on weights in every storage format, and
//! reads those weights where they lie (a mapped file included). A segment is checked and resolved once
//! to a flat list of kernel calls; a submission runs that list on a team of threads that were started
//! when the device was opened. Kernels are chosen at run time ([`Kernels`]) and all of them are checked
//! against one plain reference (`reference.rs`).
//!
//! `unsafe` is confined to `sys`, which turns checked addresses into slices and holds the kernels that
//! are written with vector instructions.
#![deny(unsafe_code)]

mod buffer;
mod dequantise;
mod device;
mod executable;
mod fence;
mod frame;
mod kernels;
mod measure;
mod pool;
mod probe;
mod queue;
mod reference;
mod sys;

pub use device::{CpuBackend, CpuDevice, CpuOptions};
pub use kernels::Kernels;

use biga_hal::DeviceId;

/// The one device of this backend.
pub const DEVICE: DeviceId = DeviceId { backend: "cpu", index: 0 };
