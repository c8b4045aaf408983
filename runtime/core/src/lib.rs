//! Plan and run large language models on one machine over several devices.
//!
//! The modules are the stages of one token's journey, in order. Everything up to [`plan::Plan`] is a
//! value: printable, serialisable, testable with no device. This crate names no backend; the
//! application registers the ones it wants with a [`probe::Machine`].
#![forbid(unsafe_code)]

// Ask each backend what exists: a `Machine` with a `Topology`.
pub mod probe;

// A weight file becomes a typed `Model`: config, graph, weights, tokenizer.
pub mod load;

// Model, topology and policy become a `Plan`: where each op runs, and why.
pub mod plan;

// The plan becomes an `Engine`: resident weights, arenas, KV slabs, compiled segments.
pub mod allocate;

// One engine step: tokens become logits.
pub mod execute;

// Logits become a token.
pub mod sample;

// A prompt becomes a text.
pub mod generate;

// Sizes in words, for errors and tables.
pub mod size;

mod error;

pub use allocate::Engine;
pub use biga_hal as hal;
pub use error::{Error, ErrorKind, Result};
