//! Programmable device images: what configures the array.
