//! The third driver: a seeded simulator for the rules.
//!
//! Real stations, turned on one thread over a network and a clock that are made up. A seed decides everything: who
//! is there, what they do, how bytes are cut, what breaks and when; the same seed is the same story to the last
//! event, so that whatever it finds can be looked at again. Start with `turn.rs`, which is the driver; `world.rs`
//! has the clock and the wires, `plan.rs` makes stories from seeds, and `check/` says what must be true in each.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod dice;
mod listener;
mod net;
mod node;
mod pipe;
mod plan;
mod source;
mod tape;
mod trace;
mod turn;
mod world;

#[cfg(test)]
mod stories;

/// What became of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What was wrong, with the moment (simulated seconds); empty when all was well.
    pub wrongs: Vec<String>,
    /// A hash of everything that happened, in order: two runs of one seed agree.
    pub hash: u64,
    /// How many events it was made of.
    pub events: u64,
    /// How long it was, in simulated milliseconds.
    pub simulated_ms: u64,
    /// Payload bytes that listeners received and that were checked one by one.
    pub checked_bytes: u64,
    /// Jumps that listeners saw.
    pub jumps: u64,
}

/// Plays the story of a seed. With `print`, every event is printed.
pub fn play(seed: u64, print: bool) -> Outcome {
    let (mut world, gone_ns) = plan::random(seed, print);
    world.run_until(gone_ns);
    // Long enough for holds, dead peers and feeds that nobody hears.
    world.run_until(gone_ns + 25_000_000_000);
    world.judge();
    world.outcome(seed)
}
