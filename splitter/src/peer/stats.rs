//! What a peer has done, counted.

/// Makes the counters and their list from one place.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $name {
            /// All counters by name, in a fixed order: what a status line or a metrics page shows.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}

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
