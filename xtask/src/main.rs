//! (opened below)
fn main() {}
