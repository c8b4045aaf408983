//! The cases of each group: which ops, formats, shapes and steps.

pub(crate) mod attention;
pub(crate) mod layer;
pub(crate) mod products;
pub(crate) mod rows;
pub(crate) mod sample;
