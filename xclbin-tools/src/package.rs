//! Makes packages from what a compiler wrote or a person described, adds kernels to them, splits and merges them.
//!
//! [`Inputs`] is what goes into a package: memories, a partition with its PDIs, kernels. It comes from the JSON
//! files for `xclbinutil` ([`kernels_from_json`], and `from_json` of the sections' types) or from a
//! [`manifest`]; [`Inputs::build`] makes a package of it. The sections of the result are those that `xclbinutil`
//! makes of the same input, byte for byte, in the same order.
//!
//! Uuid and time come from the caller, so that the same input gives the same bytes.

mod connect;
pub mod edit;
mod group;
mod inputs;
mod kernel;
pub mod manifest;
mod merge;
mod metadata;
mod parts;
mod split;
mod xml;

use std::collections::BTreeSet;

pub use inputs::{Inputs, Stamp};
pub use kernel::{Argument, KERNEL_ID_MAX, Kernel, Qualifier, kernels_from_json};
pub use merge::{Merge, Renumbered};
pub use metadata::metadata_json;
pub use split::Split;

/// The lowest id from `first` to `max` that is not taken.
fn free_id(taken: &BTreeSet<u64>, first: u64, max: u64) -> Option<u64> {
    let mut free = first;
    for id in taken.range(first..) {
        if *id != free {
            break;
        }
        free = free.checked_add(1)?;
    }
    (free <= max).then_some(free)
}

/// The first eight of a list in words, and how many more there are: a file may hold very many.
fn few(items: impl IntoIterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let mut items = items.into_iter();
    let text = items.by_ref().take(SHOWN).collect::<Vec<_>>().join(", ");
    match items.count() {
        0 => text,
        n_more => format!("{text} and {n_more} more"),
    }
}

#[cfg(test)]
mod tests;
