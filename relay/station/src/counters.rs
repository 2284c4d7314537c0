//! The catalogue: every number that a worker publishes, one sentence each.
//!
//! A worker owns its block and stores into it with relaxed atomics; anybody may read. Blocks lie on cache lines of
//! their own, so that counting shares nothing between workers.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! catalogue {
    ($($kind:ident $name:ident: $help:literal;)*) => {
        /// One worker's numbers.
        #[derive(Debug, Default)]
        pub struct Counters { $(#[doc = $help] pub $name: Count,)* }

        /// What a number is, for `/metrics`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Entry {
            /// Its name, without the `totality_` prefix.
            pub name: &'static str,
            /// One sentence.
            pub help: &'static str,
            /// Whether it can go down.
            pub gauge: bool,
        }

        /// The catalogue, in the order of [`Counters::values`].
        pub const CATALOGUE: &[Entry] = &[$(Entry {
            name: stringify!($name), help: $help, gauge: catalogue!(@gauge $kind),
        },)*];

        impl Counters {
            /// The numbers, in the order of [`CATALOGUE`].
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name.get(),)*]
            }
        }
    };
    (@gauge gauge) => { true };
    (@gauge total) => { false };
}

catalogue! {
    gauge connections: "Connections open on the data plane.";
    gauge listeners: "Listeners being served.";
    gauge waiting: "Listeners waiting for a mount that has no picture yet.";
    gauge links: "Links to other nodes being served.";
    gauge sources: "Sources on the air.";
    total accepted: "Connections accepted.";
    total accept_stalls: "Times the kernel refused to accept for want of descriptors or memory.";
    total heads_refused: "Requests refused before they were understood (4xx by the parser).";
    total heads_timed_out: "Connections closed because their request head did not come in time.";
    total handed_over: "Connections handed over to the control plane.";
    total greeted: "Listeners greeted with 200.";
    total refused_full: "Listeners refused for want of room (503).";
    total refused_prefix: "Connections refused because their address has too many already (503).";
    total refused_unknown: "Requests for a mount that is not there (404).";
    total refused_sources: "Sources refused (401, 403, 409, 415, 429).";
    total lag_warnings: "Times a listener fell more than half the window behind.";
    total lag_jumps: "Times a listener was moved to a newer join point, having lost its place.";
    total lag_jumps_torn: "Of these, jumps from within a packet: a whole window had come between two turns.";
    total lag_jumped_bytes: "Bytes of streams that jumps left out.";
    total lag_closed: "Listeners let go for jumping too often.";
    total listeners_gone: "Listeners that left, or whose connection broke.";
    total listeners_ended: "Listeners whose channel ended.";
    total bytes_heard: "Stream bytes received from sources and upstreams.";
    total bytes_told: "Stream bytes sent to listeners and links.";
    total sends: "Sends offered to the kernel.";
    total sends_short: "Sends of which the kernel took only a part.";
    total sends_full: "Sends of which the kernel took nothing.";
    total source_pauses: "Times a source was pushed back because it was faster than its limit.";
    total source_timeouts: "Sources cut because nothing, or too little, came.";
    total ring_refusals: "Times the ring refused bytes because a reader held its pin too long.";
    total ring_lost_bytes: "Bytes lost because the ring refused them and there was no room to hold them back.";
    total epochs: "Epochs begun.";
    total link_gaps: "Gaps in a link, declared.";
    total link_gap_chunks: "Chunks that were lost in such gaps.";
    total link_duplicates: "Chunks that came twice over a link and were dropped.";
    total upstream_failures: "Times an upstream could not be reached or was lost.";
    total upstream_loops: "Times an upstream was refused because it follows us.";
    total events_lost: "Log events lost because the control plane did not keep up.";
    total orders: "Orders taken from the control plane.";
    total cast_datagrams: "Multicast datagrams offered to the kernel, without parity.";
    total cast_bytes: "Stream bytes in them.";
    total cast_lost_bytes: "Stream bytes that were never cast: lost from the ring before, or not brought by a link.";
    total cast_skipped_bytes: "Stream bytes that were never cast because they are no whole packets.";
    total posts_taken: "Datagrams, or runs of them, that the kernel took.";
    total posts_dropped: "Datagrams, or runs of them, that the kernel had no room for, or refused.";
    gauge team_peers: "Members of the P2PSP team.";
    total team_chunks: "Chunks given to members of the team.";
    total team_chunks_idle: "Chunks that nobody got because the team was empty.";
    total team_chunks_missed: "Chunks left out because the team had fallen too far behind its channel.";
    total team_joins: "Newcomers that became members of the team.";
    total team_goodbyes: "Members that said goodbye.";
    total team_expelled: "Members expelled, because chunks that they were to relay were lost or their port was closed.";
    total team_refused: "Newcomers to the team refused or let go.";
    total team_losses: "Losses counted against members.";
    total team_resent: "Lost chunks sent again.";
    total team_not_resent: "Lost chunks not sent again, because they had been, or too many were.";
    total team_unheeded: "What was said to the team by strangers, again, too late or without a meaning.";
    total team_unposted: "Datagrams of the team dropped because its socket was shut or the chunk had gone.";
    total team_answers_lost: "Answers to newcomers dropped because the control plane did not keep up.";
    total turns: "Rounds of telling.";
    total tell_us: "Microseconds spent in rounds of telling.";
}

/// One number: written by one worker, read by anybody.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn up(&self) {
        self.add(1);
    }

    /// `n` more. A plain load and store: there is one writer.
    pub fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Now so many.
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// One fewer.
    pub fn down(&self) {
        self.0.store(
            self.0.load(Ordering::Relaxed).saturating_sub(1),
            Ordering::Relaxed,
        );
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
