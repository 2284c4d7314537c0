//! What a peer has done, counted.

use crate::counters::counters;

counters! {
    /// Counters of one membership. All of them only grow; every drop has one.
    PeerStats {
        /// Chunks from the splitter, to be relayed.
        from_splitter,
        /// Chunks from team mates.
        from_mates,
        /// Chunks that came again.
        duplicates,
        /// Chunks that came after their turn: they are relayed, not played.
        late,
        /// Chunks older than the buffer.
        old,
        /// Chunks far ahead of all others, not believed.
        far,
        /// Times that the splitter's numbers went elsewhere.
        jumps,
        /// Chunks relayed, each time counted.
        relayed,
        /// Chunks not relayed because that would be more than may be sent.
        relays_capped,
        /// Chunks not relayed because they had left the buffer.
        relays_gone,
        /// Chunks for the player.
        played,
        /// Chunks that the player did not get.
        lost,
        /// Losses reported to the splitter.
        complaints,
        /// Losses not reported because there were too many at once.
        complaints_withheld,
        /// Team mates asked for a chunk.
        requests,
        /// Chunks wanted by team mates, and sent.
        requests_served,
        /// Chunks wanted by those who are no team mates, or not here.
        requests_vain,
        /// Team mates told that a chunk came again by another way.
        prunes,
        /// The same, heard from team mates.
        prunes_heard,
        /// Datagrams before it was known what they mean.
        early,
        /// Datagrams that mean nothing.
        unknown,
        /// Hellos heard.
        hellos,
        /// Goodbyes of team mates heard.
        goodbyes,
        /// Goodbyes of those who are no team mates.
        goodbyes_foreign,
        /// Team mates not served any more because of their debt.
        mates_selfish,
        /// Endpoints that cannot be a team mate's.
        mates_impossible,
        /// Endpoints beyond the most team mates.
        mates_full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_name() {
        let stats = PeerStats {
            mates_full: 7,
            ..PeerStats::default()
        };
        assert_eq!(stats.fields().last(), Some(("mates_full", 7)));
        assert_eq!(stats.fields().next(), Some(("from_splitter", 0)));
    }
}
