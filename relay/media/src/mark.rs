//! What a scanner finds, and what it counts.

use std::sync::Arc;

/// One finding, in order of position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A newcomer may start here, after having been sent the header in force (none, where there was no
    /// [`Mark::Header`] yet: MP3 and ADTS need none).
    Join {
        /// Position in the stream; at most [`LOOKBACK_MAX`](crate::LOOKBACK_MAX) before the byte that proved it.
        at: u64,
    },
    /// From a position on, newcomers need these bytes first. Replaces the header in force for every later join.
    Header {
        /// The first position this header is good for.
        at: u64,
        /// What a newcomer is sent before its join point; at most [`HEADER_MAX`](crate::HEADER_MAX) bytes.
        bytes: Arc<[u8]>,
        /// What a listener that is already playing is sent when it is moved to a join point of this header from one
        /// of another header: the same bytes, for FLV without the file header. A listener that has been sent this
        /// header is better moved without it: Ogg and WebM readers take a repetition for a new stream.
        again: Arc<[u8]>,
    },
}

/// Counters of one scanner. All of them only grow.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Join points given.
    pub joins: u64,
    /// Join points left out because the last one was less than [`JOIN_SPACING`](crate::JOIN_SPACING) bytes before.
    pub joins_thinned: u64,
    /// Join points withheld: proven too late, or without a usable header.
    pub joins_withheld: u64,
    /// Headers given.
    pub headers: u64,
    /// Headers over [`HEADER_MAX`](crate::HEADER_MAX), or with more parts than we keep.
    pub oversize_headers: u64,
    /// Headers refused because the stream changes its header so often that headers would outweigh the stream.
    pub headers_refused: u64,
    /// Times the thread was lost and the next unit had to be searched for.
    pub resyncs: u64,
    /// Bytes passed over while searching.
    pub skipped_bytes: u64,
    /// Units that were found but not good: checksum, length, or fields that contradict each other.
    pub bad_units: u64,
}
