//! The one binary of Kratix.
fn main() {}
