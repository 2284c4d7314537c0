//! Files as they are in the world, played with a clock of our own.
#![allow(clippy::unwrap_used)]

mod bad;
mod joins;
mod loops;
mod pacing;
mod picture;
mod slices;
mod stage;
mod tools;
