//! What is counted about listeners on one worker.

/// Plain numbers; the station publishes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Listeners that were greeted with 200.
    pub greeted: u64,
    /// Times a listener fell more than half the window behind.
    pub warned: u64,
    /// Times a listener was moved to a newer join point, having lost its place.
    pub jumped: u64,
    /// Bytes of the stream that jumps left out.
    pub jumped_bytes: u64,
    /// Listeners let go for jumping too often.
    pub closed_slow: u64,
    /// Listeners that were refused for want of room (503).
    pub refused_full: u64,
    /// Requests for a mount that is not there (404).
    pub refused_unknown: u64,
}
