//! Files as they are in the world, played with a clock of our own.
#![allow(clippy::unwrap_used)]

mod bad;
mod loops;
mod pacing;
mod slices;
mod stage;
mod tools;
