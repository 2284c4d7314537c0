//! The stand-alone splitter.
fn main() {}
