//! All of the crate's unsafe code.
//!
//! # Safety
//! Three things make it sound, and each is established outside the hot path:
//! - a compiled [`crate::executable::Program`] holds every buffer that its calls name, and every range was
//!   checked against its buffer when the program was compiled (`executable.rs`);
//! - what a step brings (token ids, positions, slots, output rows, block addresses) was copied out of the
//!   step buffer and checked before the run (`frame.rs`), and the registry of buffers stays read-locked
//!   until the run ends, so that no block disappears under it;
//! - within a call the workers write disjoint ranges, and between calls they meet at a barrier.
//!
//! Bytes that another device or the host writes while a submission runs are the caller's mistake: fences
//! order them, as the contract says.
#![allow(unsafe_code, reason = "the one place of this crate that may")]

pub(crate) mod memory;
pub(crate) mod run;
pub(crate) mod system;
