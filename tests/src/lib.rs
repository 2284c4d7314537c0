//! The small world: real binaries, real kernel, scenarios.
