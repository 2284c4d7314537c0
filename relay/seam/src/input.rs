//! What a driver tells a machine.

use std::io;
use std::net::SocketAddr;

use crate::{Conn, Udp};

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
    /// The answer to [`crate::Output::OpenUdp`].
    UdpOpened {
        /// The token of the request.
        token: u64,
        /// The socket and the address it is bound to, or why there is none.
        result: io::Result<(Udp, SocketAddr)>,
    },
    /// A whole datagram arrived. One that is longer than the driver's buffers is dropped and counted, never cut.
    Datagram {
        /// On which socket; that of a connected peer is told as the socket it belongs to.
        udp: Udp,
        /// From whom; IPv4 as such, also where it came to an IPv6 socket. Anybody may have written it there.
        from: SocketAddr,
        /// The driver's, valid only during the call. May be empty.
        bytes: &'a [u8],
    },
    /// A connected peer's host answered that nobody listens at its port (ICMP). A later datagram may still arrive.
    Unreachable {
        /// The socket.
        udp: Udp,
        /// The peer.
        peer: SocketAddr,
    },
    /// What became of all [`crate::Output::Datagram`] of a batch; exactly one for each batch with any. Counted are
    /// outputs: a run of datagrams is taken when the kernel took all of them.
    Posted {
        /// Taken by the kernel.
        taken: u32,
        /// Dropped: the kernel had no room or refused, or the socket is closed.
        dropped: u32,
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
