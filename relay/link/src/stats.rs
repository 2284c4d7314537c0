//! What the link's rules count: every refusal, every drop, every jump.

/// Counters of one followed link. Bytes are payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowStats {
    /// Chunks let through.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks dropped because they had been let through before.
    pub duplicates: u64,
    /// Jumps forward within an epoch.
    pub gaps: u64,
    /// Chunks that those jumps passed over.
    pub gap_chunks: u64,
    /// New lives of the channel.
    pub epochs: u64,
    /// Signs of life.
    pub pings: u64,
    /// Frames of later versions that were skipped.
    pub unknown: u64,
    /// Frames dropped because they came after END.
    pub after_end: u64,
}

/// Counters of a channel that several links bring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeStats {
    /// Chunks kept.
    pub kept: u64,
    /// Chunks dropped because another link had brought them.
    pub repeats: u64,
    /// Chunks dropped because they were beyond what the leading link had brought.
    pub early: u64,
    /// Chunks that no link brought.
    pub missing: u64,
}

/// Counters of the serving side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeStats {
    /// Requests let in.
    pub admitted: u64,
    /// Requests that were not a link's (400, 404, 405).
    pub denied_request: u64,
    /// Requests without the node token (401), or from afar where there is none (403).
    pub denied_access: u64,
    /// Requests that would have made a loop (508).
    pub denied_loop: u64,
    /// Links started exactly where asked.
    pub exact: u64,
    /// Links that asked for the live edge.
    pub live: u64,
    /// Links whose next chunk was no longer held.
    pub fell_behind: u64,
    /// Links whose next chunk has not come here yet.
    pub ahead: u64,
    /// Links that came from another epoch.
    pub new_epoch: u64,
    /// Chunks that could not be given again.
    pub gap_chunks: u64,
}

/// Counters of the choice among upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamsStats {
    /// Connections asked for.
    pub attempts: u64,
    /// Of these, tries of a better upstream while another was in use.
    pub probes: u64,
    /// Links that came up.
    pub connected: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Links that were lost.
    pub lost: u64,
    /// Changes to a better upstream while another was in use.
    pub switched: u64,
    /// Upstreams put aside because they would make a loop.
    pub loops: u64,
    /// Links that came up when a better one was in use already.
    pub surplus: u64,
}
