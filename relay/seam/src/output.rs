//! What a machine asks of a driver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{Conn, Datagram, Udp, UdpOptions};

/// Something is wanted.
#[derive(Debug)]
pub enum Output {
    /// Offer these bytes to a connection, without waiting. At most one `Send` for a connection is in a batch.
    Send {
        /// To whom.
        conn: Conn,
        /// What.
        payload: Payload,
    },
    /// Open a TCP connection. The driver resolves the name off the data path and tries each address in turn.
    Connect {
        /// Comes back in [`crate::Input::Connected`].
        token: u64,
        /// A host name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Give up after this long, resolving included.
        timeout: Duration,
    },
    /// Stop reading from a connection: TCP pushes back on its peer.
    Pause {
        /// From whom.
        conn: Conn,
    },
    /// Read again.
    Resume {
        /// From whom.
        conn: Conn,
    },
    /// Bound the kernel's share of a connection's memory.
    Bound {
        /// Whose.
        conn: Conn,
        /// `SO_SNDBUF` in bytes (the kernel doubles it), or none to leave the kernel's own tuning.
        send_buffer: Option<u32>,
        /// `TCP_NOTSENT_LOWAT` in bytes.
        unsent: Option<u32>,
        /// `TCP_USER_TIMEOUT`: a peer that acknowledges nothing for so long is dead.
        user_timeout: Option<Duration>,
    },
    /// Let a connection go. No input names it afterwards.
    Close {
        /// Whom.
        conn: Conn,
        /// How.
        how: Closing,
    },
    /// Give an open connection, with what was read from it so far, to the control plane.
    HandOver(Handover),
    /// Open a UDP socket; receiving is armed at once.
    OpenUdp {
        /// Comes back in [`crate::Input::UdpOpened`].
        token: u64,
        /// Where to; port 0: any.
        bind: SocketAddr,
        /// How.
        options: UdpOptions,
    },
    /// Datagrams will often go to this peer (or group): the driver may give it a connected socket at the same local
    /// address, which spares the kernel the search for a route and brings [`crate::Input::Unreachable`]. Nothing else
    /// changes: the machine goes on to name socket and address. Beyond the driver's limit, or where the kernel
    /// refuses, it has no effect but a counter. Carried out before the datagrams of its batch.
    ConnectUdp {
        /// The socket.
        udp: Udp,
        /// The peer.
        peer: SocketAddr,
    },
    /// Undo a [`Output::ConnectUdp`], if it had an effect. What has arrived on the connected socket and was not told
    /// yet is lost.
    DisconnectUdp {
        /// The socket.
        udp: Udp,
        /// The peer.
        peer: SocketAddr,
    },
    /// Offer a datagram, or a run of them, to the kernel.
    Datagram(Datagram),
    /// Close a UDP socket and those of its connected peers. No input names it afterwards.
    CloseUdp {
        /// Which.
        udp: Udp,
    },
}

/// A connection that the data plane does not serve itself.
#[derive(Debug)]
pub struct Handover {
    /// Which. No input names it afterwards.
    pub conn: Conn,
    /// Everything received on it so far: a whole request head and perhaps more. As of the poll that gives it out:
    /// bytes may still arrive between a machine's decision and that poll.
    pub read_so_far: Vec<u8>,
}

/// How a connection is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// What was sent is delivered, then FIN. The driver reads and discards for a moment first (bounded in bytes
    /// and time), so that an answer to a request with an unread body is not destroyed by a reset.
    Graceful,
    /// Reset at once; unsent kernel memory is returned immediately. For peers that do not read.
    Abort,
}

/// Bytes to send.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A stretch of pinned ring memory; fetch it by [`crate::Machine::bytes`].
    Span(Span),
    /// A connection's own bytes (a response head, a container header), from an offset on.
    Own(Arc<[u8]>, usize),
}

/// A stretch of a ring. The number is the machine's name for the ring; only the machine can turn it into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The machine's name for the ring.
    pub ring: u32,
    /// How many bytes.
    pub len: u32,
    /// Ring position of the first byte.
    pub at: u64,
}
