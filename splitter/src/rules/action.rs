//! What a splitter is told, and what it wants done.

use std::net::SocketAddrV4;
use std::time::Duration;

use thiserror::Error;

use crate::frame::Frame;
use crate::wire::WireError;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The channel's chunk with this number is there; numbers only grow, save when the channel begins again.
    Chunk(u64),
    /// Somebody connected over TCP from there, which is its UDP endpoint too.
    Connected(SocketAddrV4),
    /// Bytes came on a newcomer's connection.
    Said(SocketAddrV4, &'a [u8]),
    /// A newcomer's connection ended.
    HungUp(SocketAddrV4),
    /// A datagram came.
    Datagram(SocketAddrV4, &'a [u8]),
    /// The network reports that nobody listens there.
    Closed(SocketAddrV4),
    /// Nothing, but it is time: to be told at [`crate::rules::Splitter::deadline`], and whenever it suits.
    Tick,
    /// The splitter ends: whoever waits for an answer gets it now.
    Close,
}

/// What the rules want done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a chunk: the frame's head, the data of this number, the frame's tail, as one datagram.
    Chunk {
        /// A member, or a group.
        to: SocketAddrV4,
        /// Which data; one of the last [`crate::Config::buffer_chunks`].
        number: u64,
        /// What goes around it.
        frame: Frame,
    },
    /// Send a datagram.
    Send {
        /// Where to.
        to: SocketAddrV4,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Say this on a newcomer's connection.
    Tell {
        /// Whose connection.
        to: SocketAddrV4,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close this newcomer's connection, when it has been told all.
    HangUp(SocketAddrV4),
    /// Nothing; but it is worth a line in the log. The wire often has no word for it.
    Note(SocketAddrV4, Note),
}

/// What happened to a member or newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It is a member.
    Joined,
    /// It said goodbye.
    Left,
    /// It is not a member any more.
    Expelled(Why),
    /// It does not become one.
    Refused(Refusal),
}

/// Why somebody may not join.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Members and newcomers together.
    #[error("expected a team of at most {0} peers, got one more")]
    Full(u16),
    /// Newcomers alone.
    #[error("expected at most {0} newcomers at a time, got one more")]
    Arrivals(u16),
    /// Too many members and newcomers with one address.
    #[error("expected at most {0} peers from one address, got one more")]
    Address(u16),
    /// It does not follow the protocol.
    #[error(transparent)]
    Protocol(#[from] WireError),
    /// It took too long.
    #[error("expected a newcomer that is ready in time")]
    Late,
}

/// Why a member was expelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// What it was to relay did not arrive.
    #[error("expected at most {limit} losses, got one more")]
    Losses {
        /// As configured.
        limit: u32,
    },
    /// Nothing of what it was to relay arrived.
    #[error("expected fewer than {limit} losses in a row")]
    InARow {
        /// As configured.
        limit: u32,
    },
    /// It said nothing.
    #[error("expected to hear of it within {0:?}")]
    Silence(Duration),
    /// It sent what is not the channel's, and that is proven.
    #[error("expected the channel's chunks, got others")]
    Pollution,
    /// Its host says that nobody listens there.
    #[error("expected an open port, got {reports} reports of a closed one")]
    Closed {
        /// As configured.
        reports: u32,
    },
}
