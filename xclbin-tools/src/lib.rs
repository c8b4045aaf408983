//! Packages for AMD's NPUs, read and written byte for byte.
//!
//! | format | module | holds |
//! |---|---|---|
//! | XCLBIN | [`axlf`], its sections in [`section`] | the container: kernels, memory, partition, PDIs |
//! | PDI | [`pdi`] | the image that configures the array |
//! | CDO v2 | [`cdo`] | the commands inside a PDI |
//! | `insts.bin` | [`txn`] | the instruction stream of one launch |
//! | aiebu ELF | [`elf`] | instruction stream, and PDIs, with relocations |
//!
//! Reading borrows from the input: a view holds slices of it. Everything in a file is hostile until checked;
//! an [`Error`] says part, offset, value and bound. What was read is written back byte for byte.
//! [`package`] makes, splits and merges XCLBINs, [`verify`] finds what hardware would answer with garbage or
//! a hang, [`mod@array`] knows the devices, [`draw`] shows what a PDI makes of one, [`diff`] compares by meaning.
//! Nothing here opens a device or a file; the command `xclbin` does the latter.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

pub mod error;

mod bytes;
mod words;

pub mod axlf;
pub mod section;

pub mod cdo;
pub mod pdi;

pub mod elf;
pub mod txn;

pub mod array;

pub mod package;

pub mod diff;
pub mod draw;
pub mod verify;

pub use error::{Error, Result};
pub use words::Words;
