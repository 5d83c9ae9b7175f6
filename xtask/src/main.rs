//! Generated files, checks and benchmarks.
fn main() {}
