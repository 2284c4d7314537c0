//! What the splitter of a secured team has done, counted.

use crate::counters::counters;

counters! {
    /// Counters of one secured team. All of them only grow; every drop has one.
    SecuredStats {
        /// Chunks that came from the source.
        chunks,
        /// Chunks told without their digest, and left out.
        chunks_without_digest,
        /// Chunks given to a member to relay, the second time counted again.
        chunks_sent,
        /// Chunks that nobody got, because the team was empty.
        chunks_without_team,
        /// Chunks given to another member, because the first did not say that it has it.
        regiven,
        /// Chunks that nobody acknowledged until it was too late to give them again.
        regives_late,
        /// Members asked whether a chunk is there.
        probes,
        /// Chunks sent to a member that could get them from no mate.
        repairs,
        /// Indexes sent.
        indexes,
        /// Chunks not sent again because too many were.
        repairs_over_budget,
        /// Indexes not sent because too many were.
        indexes_over_budget,
        /// Repairs and indexes not sent because they are not here any more (or yet), or that member wants too much.
        wants_refused,
        /// Bytes of datagrams that are no chunks.
        control_bytes,
        /// Newcomers that became members.
        joins,
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
        /// Members that are elsewhere now.
        moves,
        /// Members told to open their NAT to another.
        punches,
        /// The same asked for in vain.
        knocks_vain,
        /// Losses counted against a member.
        losses,
        /// Complaints about chunks that were not sent, or so long ago that nobody can say to whom.
        complaints_unsent,
        /// Complaints that blame nobody: of members that are no monitors, and of monitors before and after half of
        /// them had complained about that chunk.
        complaints_unweighed,
        /// Complaints of a member about a chunk that it was itself to relay.
        complaints_own,
        /// Complaints that had been made before by the same member.
        complaints_repeated,
        /// Complaints about somebody who is not a member any more.
        complaints_late,
        /// Accusations that prove nothing.
        accusations_unproven,
        /// Accusations not looked at, because that member accuses too much.
        accusations_refused,
        /// Members expelled because too many of their chunks were lost.
        expelled_losses,
        /// Members expelled because they said nothing.
        expelled_silence,
        /// Members expelled because they sent what is not the channel's.
        expelled_pollution,
        /// Datagrams with a token that is nobody's.
        strangers,
        /// Datagrams that mean nothing, or not in this place.
        datagrams_unknown,
    }
}
