//! Load: a weight file becomes a typed model. Nothing here knows of devices.

pub mod error;

pub mod tensors;

pub mod gguf;

pub mod safetensors;

pub mod config;

pub mod graph;
