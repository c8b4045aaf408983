//! What the end-to-end tests share: machines by name, fixtures and their variants, a judge of texts,
//! a counting allocator.

pub mod counting;

pub mod fixture;

pub mod machine;

pub mod right;
