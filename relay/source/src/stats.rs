//! What one source has done, counted.

/// Counters of one source session. All of them only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceStats {
    /// Bytes that came on the connection after the head, framing included.
    pub bytes_in: u64,
    /// Bytes of the stream that were handed on.
    pub payload_bytes: u64,
    /// Bytes that are not stream: chunk framing, metadata blocks, and whatever came after the body's end.
    pub overhead_bytes: u64,
    /// Times the source was paused because it sent faster than `max_rate`.
    pub pauses: u64,
    /// Titles that came in the stream (pull only).
    pub titles: u64,
}

impl SourceStats {
    /// `came` bytes came and `payload` of them were stream.
    pub(crate) fn count(&mut self, came: usize, payload: u64) {
        self.bytes_in += came as u64;
        self.payload_bytes += payload;
        self.overhead_bytes += came as u64 - payload;
    }
}
