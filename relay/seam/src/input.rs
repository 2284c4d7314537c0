//! What a driver tells a machine.

use std::io;
use std::net::SocketAddr;

use crate::Conn;

/// Something happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A listening socket accepted a connection. Receiving is armed already.
    Accepted {
        /// Its name from now on.
        conn: Conn,
        /// Who is there.
        peer: SocketAddr,
    },
    /// The answer to [`crate::Output::Connect`]; on success receiving is armed already.
    Connected {
        /// The token of the request.
        token: u64,
        /// The connection and the address reached, or why there is none (after every resolved address was tried).
        result: io::Result<(Conn, SocketAddr)>,
    },
    /// Bytes arrived. They are the driver's and valid only during the call.
    Received {
        /// From whom.
        conn: Conn,
        /// Never empty.
        bytes: &'a [u8],
    },
    /// The peer will send nothing more (FIN). Sending to it is still allowed: some players half-close.
    PeerDone {
        /// Who.
        conn: Conn,
    },
    /// The connection is gone: reset, timed out in the kernel, or an error on send. The driver has released it.
    Closed {
        /// Who.
        conn: Conn,
        /// Why.
        reason: CloseReason,
    },
    /// What became of one [`crate::Output::Send`]; exactly one for each.
    Sent {
        /// To whom.
        conn: Conn,
        /// How it went.
        result: Sent,
    },
    /// A connection whose last send was [`Sent::Full`] or short has room again.
    Writable {
        /// Who.
        conn: Conn,
    },
    /// The machine's bell was rung: look into the mailbox and at the heads of the rings.
    Woken,
    /// The kernel refuses new connections for want of descriptors or memory; the driver tries again by itself.
    AcceptStalled {
        /// What the kernel said (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`).
        error: io::Error,
    },
}

/// How one send went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took all of it.
    All,
    /// The kernel took this many bytes (at least one) and then was full; the driver says [`Input::Writable`] later.
    Some(u32),
    /// The kernel took nothing; the driver says [`Input::Writable`] when there is room.
    Full,
    /// The connection is broken or gone. [`Input::Closed`] follows, or has been told already.
    Gone,
}

/// Why a connection ended without the machine asking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer reset it.
    Reset,
    /// The kernel gave up on the peer (`TCP_USER_TIMEOUT`, keep-alive).
    TimedOut,
    /// Any other error, by its `errno`.
    Error(i32),
}
