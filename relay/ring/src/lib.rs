//! Chunk memory: one writer, many cursors, pins, parking and mailboxes.
//!
//! A [`Writer`] appends bytes to a [`Ring`]; a [`Reader`] (one per worker, not one per listener) pins the oldest
//! position it is about to read, reads, and lets go. Positions are `u64` counts of bytes since the ring was made:
//! they never wrap, and the memory behind them is mapped twice in a row, so that any stretch is one slice.
//!
//! ```text
//!            floor                              head          granted
//!   ...........|=============== window ==========|.... slack ....|
//!              ^ no reader may pin older         ^ newest byte published
//! ```
//!
//! The window is what readers may use; the slack in front of it is being overwritten, and is checked against the
//! pins first. The writer never waits: what a pin forbids it to overwrite, it refuses to take
//! ([`Writer::append`] says how much it took), and its caller stops reading the source for a moment. What the kernel
//! reads beyond a pin is held ([`Holder`]): there the writer puts other memory in place and goes on.
//!
//! With the feature `poison` the writer spoils what has fallen out of the window and is neither pinned nor held. Who
//! reads it all the same reads 0xdd, and a test sees that at once instead of once in a lap. It is for tests only.
//!
//! `unsafe` lives in `memory` (the mapping) and `ring` (slices of it), nowhere else in this crate.

mod bell;
mod gate;
mod hold;
mod index;
mod mailbox;
mod memory;
mod parking;
mod ring;

/// What memory is filled with that nobody may read any more, where the feature `poison` is on.
#[cfg(feature = "poison")]
pub const POISON: u8 = 0xdd;

pub use bell::Bell;
pub use gate::{Gate, Lapped, SEGMENTS, UNPINNED};
pub use hold::Holder;
pub use index::{ChunkInfo, Index, NO_JOIN};
pub use mailbox::Mailbox;
pub use parking::Parking;
pub use ring::{Reader, Ring, Writer};
