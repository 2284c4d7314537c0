//! What a peer is told, and what it wants done.

use std::net::SocketAddrV4;
use std::time::Duration;

use thiserror::Error;

use crate::frame::Frame;
use crate::wire::WireError;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The TCP connection to the splitter is there. The UDP socket is bound to its local port.
    Connected,
    /// Bytes came on it.
    Told(&'a [u8]),
    /// It ended. Reference splitters end it before the peer has said that it is ready.
    HungUp,
    /// The header that [`Action::Fetch`] asked for is with the player, or will never be.
    Fetched,
    /// A datagram came.
    Datagram(SocketAddrV4, &'a [u8]),
    /// It is to leave the team.
    Leave,
    /// Nothing, but it is time: to be told at [`crate::peer::Peer::deadline`], and whenever it suits.
    Tick,
}

/// What the rules want done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say this on the connection to the splitter; when that fails, never mind.
    Tell(Vec<u8>),
    /// Close that connection.
    HangUp,
    /// Ask an HTTP server for the beginning of the stream, give so many bytes of its answer to the player, and say
    /// [`Input::Fetched`]. Everything in it comes from the network.
    Fetch {
        /// The server.
        source: SocketAddrV4,
        /// What to ask for, without the leading slash.
        channel: Vec<u8>,
        /// How many bytes, the answer's head included.
        bytes: u16,
    },
    /// Hear this multicast group, until the membership is over: its datagrams are to be told as all others.
    Hear(SocketAddrV4),
    /// The beginning of the stream, for the player, before any chunk.
    Header(Vec<u8>),
    /// Send a datagram.
    Send {
        /// Where to.
        to: SocketAddrV4,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Send a chunk: the frame's head, [`crate::peer::Peer::data`] of this number, the frame's tail, as one datagram.
    Chunk {
        /// A team mate.
        to: SocketAddrV4,
        /// Which chunk.
        number: u64,
        /// What goes around it.
        frame: Frame,
    },
    /// This chunk is next for the player: [`crate::peer::Peer::data`] has it until the next event.
    Play(u64),
    /// These chunks did not come in time: the player goes on behind them.
    Skip {
        /// The first of them.
        from: u64,
        /// How many.
        count: u64,
    },
    /// The splitter counts from elsewhere now; what the player gets next has nothing to do with what it had.
    Jump(u64),
    /// The membership is over; nothing more will be wanted.
    Over(Ended),
}

/// Why a membership is over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Ended {
    /// As asked.
    #[error("left the team")]
    Left,
    /// The splitter hung up before it had told about the team: it has no place, or is none.
    #[error("expected a welcome, got the end of the connection")]
    Refused,
    /// What the splitter told is not of this wire.
    #[error("splitter: {0}")]
    Protocol(#[from] WireError),
    /// The team's buffers are larger than what this peer may spend.
    #[error("expected buffers of at most {limit} bytes, got {asked}")]
    Buffer {
        /// As configured.
        limit: usize,
        /// What the splitter asked for.
        asked: usize,
    },
    /// The splitter says that we do not belong to its team any more.
    #[error("expelled from the team")]
    Expelled,
    /// The splitter does not know us: it has begun again.
    #[error("expected the splitter to know us")]
    Forgotten,
    /// Nothing came from the splitter any more: it is gone, or this peer was expelled.
    #[error("expected a chunk from the splitter within {0:?}")]
    Silence(Duration),
}
