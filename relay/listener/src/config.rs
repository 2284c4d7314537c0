//! What an operator may say about listeners.

use std::time::Duration;

/// Limits and manners of listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many listeners at once, over all workers; one more is answered 503 with `Retry-After`.
    pub max: usize,
    /// How many connections from one address (IPv4) or one /64 (IPv6); loopback is exempt. 0: no limit.
    pub max_per_prefix: usize,
    /// A newcomer starts at the newest join point that is at least this many bytes behind the head, so that a
    /// player has something to fill its buffer with.
    pub burst: u32,
    /// The most that one listener is sent in one turn, in bytes: a laggard's backlog does not hold up the others.
    pub turn_bytes: u32,
    /// `SO_SNDBUF` in bytes (the kernel doubles it): bounds what is sent and not yet acknowledged.
    pub send_buffer: u32,
    /// `TCP_NOTSENT_LOWAT` in bytes: bounds what is accepted and not yet sent, which is all that the kernel holds of a
    /// listener that does not read. What does not fit stays in the ring, which is shared. Where a batch of the stream
    /// is larger, the bound is raised to half as much again as the batch, at most to `send_buffer`.
    pub unsent: u32,
    /// A peer that acknowledges nothing for so long is dead (`TCP_USER_TIMEOUT`).
    pub dead_after: Duration,
    /// How long a listener may wait for a mount that has no picture yet.
    pub patience: Duration,
    /// How many jumps within [`Config::jump_memory`] close a listener.
    pub jumps_max: u8,
    /// How long a jump is remembered.
    pub jump_memory: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max: 20_000,
            max_per_prefix: 256,
            burst: 64 * 1024,
            turn_bytes: 128 * 1024,
            send_buffer: 128 * 1024,
            unsent: 32 * 1024,
            dead_after: Duration::from_secs(15),
            patience: Duration::from_secs(10),
            jumps_max: 3,
            jump_memory: Duration::from_secs(60),
        }
    }
}
