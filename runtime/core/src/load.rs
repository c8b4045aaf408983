//! Load: a weight file becomes a typed model. Nothing here knows of devices.

pub mod config;

pub mod graph;
