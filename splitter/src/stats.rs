//! What a splitter has done, counted.

/// Counters of one team. All of them only grow; every drop has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TeamStats {
    /// Chunks that came from the source.
    pub chunks: u64,
    /// Chunks that were given to a peer.
    pub chunks_sent: u64,
    /// Chunks that nobody got, because the team was empty.
    pub chunks_without_team: u64,
    /// Newcomers that became members.
    pub joins: u64,
    /// Members that came again from the same endpoint and lost their old place.
    pub rejoins: u64,
    /// Newcomers refused because the team, with those on their way in, was full.
    pub refused_full: u64,
    /// Newcomers refused because too many were on their way in.
    pub refused_arrivals: u64,
    /// Newcomers let go because they did not follow the protocol.
    pub refused_protocol: u64,
    /// Newcomers let go because they took too long, or hung up.
    pub arrivals_lost: u64,
    /// Members that said goodbye.
    pub goodbyes: u64,
    /// Goodbyes of somebody who had left already (answered) or never was a member (not answered).
    pub goodbyes_late: u64,
    /// Answers to repeated goodbyes that were dropped because too many waited to be sent.
    pub farewells_dropped: u64,
    /// Losses counted against a member.
    pub losses: u64,
    /// Complaints of somebody who is not a member.
    pub complaints_foreign: u64,
    /// Complaints about chunks that were not sent, or so long ago that nobody can say to whom.
    pub complaints_unsent: u64,
    /// Complaints that had been made before by the same member.
    pub complaints_repeated: u64,
    /// Complaints of members that are no monitors: they cannot blame anybody.
    pub complaints_unweighed: u64,
    /// Complaints of a member about a chunk that it was itself to relay.
    pub complaints_own: u64,
    /// Complaints about somebody who is not a member any more.
    pub complaints_late: u64,
    /// Members expelled because too many of their chunks were lost.
    pub expelled_losses: u64,
    /// Members expelled because their port was reported closed.
    pub expelled_closed: u64,
    /// Datagrams that are neither a goodbye nor a complaint.
    pub datagrams_unknown: u64,
}

impl TeamStats {
    /// All counters by name, in a fixed order: what a status line or a metrics page shows.
    pub fn fields(&self) -> [(&'static str, u64); 22] {
        [
            ("chunks", self.chunks),
            ("chunks_sent", self.chunks_sent),
            ("chunks_without_team", self.chunks_without_team),
            ("joins", self.joins),
            ("rejoins", self.rejoins),
            ("refused_full", self.refused_full),
            ("refused_arrivals", self.refused_arrivals),
            ("refused_protocol", self.refused_protocol),
            ("arrivals_lost", self.arrivals_lost),
            ("goodbyes", self.goodbyes),
            ("goodbyes_late", self.goodbyes_late),
            ("farewells_dropped", self.farewells_dropped),
            ("losses", self.losses),
            ("complaints_foreign", self.complaints_foreign),
            ("complaints_unsent", self.complaints_unsent),
            ("complaints_repeated", self.complaints_repeated),
            ("complaints_unweighed", self.complaints_unweighed),
            ("complaints_own", self.complaints_own),
            ("complaints_late", self.complaints_late),
            ("expelled_losses", self.expelled_losses),
            ("expelled_closed", self.expelled_closed),
            ("datagrams_unknown", self.datagrams_unknown),
        ]
    }
}
