//! What the end-to-end tests share: machines by name, fixtures and their variants, a judge of texts,
//! a counting allocator.

use std::path::{Path, PathBuf};

pub mod choice;

pub mod counting;

pub mod disguise;

pub mod fixture;

pub mod machine;

pub mod right;

/// The folder of this package: where whoever runs the tests says, else where they were built. A packed
/// test runs on a machine that has no source tree.
pub fn folder() -> PathBuf {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).to_owned(),
    }
}
