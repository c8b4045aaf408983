//! The unsafe part: every call into the Vulkan driver.
//!
//! Each file wraps one noun and gives the rest of the crate safe functions on owned types. Handles
//! never leave this module. What the type system cannot show, and what every `SAFETY` comment relies on:
//!
//! - an object keeps its parent alive (`Arc`), so a handle is valid as long as its owner;
//! - a buffer is destroyed only after everything submitted before has finished ([`memory`]);
//! - a recording is destroyed only after its last submission has finished ([`submit`]);
//! - kernels reach memory by address: whoever records a launch holds the buffers behind the addresses
//!   as long as the recording lives (`executable`), and kernels never leave the ranges they are given.
#![allow(unsafe_code, reason = "calls into the Vulkan driver")]

pub(crate) mod instance;

pub(crate) mod facts;

pub(crate) mod device;

pub(crate) mod memory;

pub(crate) mod pipeline;

pub(crate) mod statistics;

mod stream;

pub(crate) mod submit;

pub(crate) mod timing;
