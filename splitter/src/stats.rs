//! What a splitter has done, counted.

use crate::counters::counters;

counters! {
    /// Counters of one team. All of them only grow; every drop has one.
    TeamStats {
        /// Chunks that came from the source.
        chunks,
        /// Chunks that were given to a peer.
        chunks_sent,
        /// Chunks that nobody got, because the team was empty.
        chunks_without_team,
        /// Newcomers that became members.
        joins,
        /// Members that came again from the same endpoint and lost their old place.
        rejoins,
        /// Newcomers refused because the team, with those on their way in, was full.
        refused_full,
        /// Newcomers refused because too many were on their way in.
        refused_arrivals,
        /// Newcomers refused because too many have their address.
        refused_address,
        /// Newcomers let go because they did not follow the protocol.
        refused_protocol,
        /// Newcomers let go because they took too long, or hung up.
        arrivals_lost,
        /// Members that said goodbye.
        goodbyes,
        /// Goodbyes of somebody who had left already (answered) or never was a member (not answered).
        goodbyes_late,
        /// Answers to repeated goodbyes that were dropped because too many waited to be sent.
        farewells_dropped,
        /// Losses counted against a member.
        losses,
        /// Complaints of somebody who is not a member.
        complaints_foreign,
        /// Complaints about chunks that were not sent, or so long ago that nobody can say to whom.
        complaints_unsent,
        /// Complaints that had been made before by the same member, or by a whole team.
        complaints_repeated,
        /// Complaints that blame nobody: of members that are no monitors, and of monitors before and after half of
        /// them had complained about that chunk.
        complaints_unweighed,
        /// Complaints of a member about a chunk that it was itself to relay.
        complaints_own,
        /// Complaints about somebody who is not a member any more.
        complaints_late,
        /// Members expelled because too many of their chunks were lost.
        expelled_losses,
        /// Members expelled because their port was reported closed.
        expelled_closed,
        /// Lost chunks sent again.
        resent,
        /// Lost chunks not sent again, because they had been, lately or often.
        resends_enough,
        /// Lost chunks not sent again, because too many were.
        resends_over_budget,
        /// Hellos of somebody who is neither a member nor on its way in.
        hellos_foreign,
        /// Datagrams that are neither a goodbye nor a complaint.
        datagrams_unknown,
    }
}
