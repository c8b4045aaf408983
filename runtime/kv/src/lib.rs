//! The paged KV cache: which block holds which positions of which sequence.
//!
//! This crate decides; it holds no keys or values itself. A *group* is a set of layers that share one
//! block table: same home, format, window and geometry. A *block* holds a fixed count of positions of
//! every layer of its group. Blocks lie in *slabs*, buffers of at most 1 GiB, so that a cache can grow
//! without anything being recorded again: block tables hold plain addresses.
//!
//! Invariants: a block is either free or owned by exactly one sequence; a sequence of length `n` owns
//! the blocks of every position that a window may still look at; freeing and taking never allocates
//! after set-up.
#![forbid(unsafe_code)]

mod cache;
mod pool;

pub use cache::{Cache, CacheLimits, GroupSpec, KvError, SlotId, TableEntry};
pub use pool::{BlockId, Slabs};
