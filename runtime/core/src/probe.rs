//! Probe: ask each backend what exists. The result is a [`Topology`]; a [`Machine`] also opens devices.

pub mod topology;

pub use topology::{Link, Topology};
