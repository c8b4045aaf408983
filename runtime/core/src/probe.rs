//! Probe: ask each backend what exists. The result is a [`Topology`]; a [`Machine`] also opens devices.
//!
//! Nothing here decides what runs where. A device that cannot be used is listed with the cause, never
//! dropped in silence.

pub mod machine;

pub mod measure;

pub mod npu;

pub mod select;

pub mod store;

pub mod topology;

pub use machine::{Machine, OpenDevices};
pub use measure::{MeasureProgress, Measured, measure};
pub use npu::NpuReport;
pub use select::Selection;
pub use store::{Measurements, StoreError};
pub use topology::{Link, Topology};
