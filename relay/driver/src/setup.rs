//! What a driver is given at its start.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use relay_ring::Bell;

use crate::share::Share;
use crate::stats::SharedStats;
use crate::uring::depot::Depot;

/// Takes over an open connection, nonblocking, with the bytes that were read from it so far.
/// Called on the driver's thread: it must not wait.
pub type HandoverFn = Box<dyn FnMut(TcpStream, Vec<u8>) + Send>;

/// When to send from registered memory without a copy. Where there is no io_uring, never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Never.
    Off,
    /// On those ways out on which the kernel reports that nothing is copied; each is probed with single sends.
    #[default]
    Auto,
    /// Always, whatever the kernel reports: to measure, and to test.
    Always,
}

/// What a driver is given at its start; [`Setup::new`] has the defaults.
pub struct Setup {
    /// Sockets to accept from, made by [`crate::bind`].
    pub listeners: Vec<TcpListener>,
    /// Connections that are open already: the machine is told that they were accepted. Default none.
    pub guests: Vec<TcpStream>,
    /// The machine's bell: the driver sleeps on its descriptor and says [`relay_seam::Input::Woken`].
    pub bell: Bell,
    /// Most connections held at once; more are closed as they are accepted, with a counter. Default 65,536.
    pub max_conns: u32,
    /// Bytes of one receive buffer. Default 16 KiB.
    pub recv_buffer_bytes: u32,
    /// How many receive buffers a driver has (io_uring), rounded up to a power of two. Default 256.
    pub recv_buffers: u16,
    /// Where connections go that the data plane does not serve.
    pub handover: HandoverFn,
    /// Run on this CPU only. Default none.
    pub pin_to_cpu: Option<usize>,
    /// Its place among workers that pass newcomers to each other. Default none: it keeps what it accepts.
    pub share: Option<Share>,
    /// Submission queue entries (io_uring). Default 512.
    pub sq_entries: u32,
    /// Completion queue entries (io_uring). Default 8,192.
    pub cq_entries: u32,
    /// Most UDP sockets, without those of connected peers. Default 256.
    pub max_udp_sockets: u32,
    /// Most connected UDP peers, of all sockets together: each takes a descriptor. Default 4,096.
    pub max_udp_peers: u32,
    /// Longest datagram that is received, in bytes; a longer one is dropped with a counter. Default 9,216.
    pub max_datagram_bytes: u32,
    /// Whether to send from registered memory without a copy (io_uring, Linux 6.13). Default [`ZeroCopy::Auto`].
    pub zero_copy: ZeroCopy,
    /// Where rings are registered for that: one for all workers of a process. Default its own.
    pub depot: Arc<Depot>,
    /// Where the driver counts; other threads may read it at any time.
    pub stats: Arc<SharedStats>,
}

impl Setup {
    /// The defaults.
    pub fn new(listeners: Vec<TcpListener>, bell: Bell, handover: HandoverFn) -> Self {
        Self {
            listeners,
            guests: Vec::new(),
            bell,
            max_conns: 65_536,
            recv_buffer_bytes: 16 * 1024,
            recv_buffers: 256,
            handover,
            pin_to_cpu: None,
            share: None,
            sq_entries: 512,
            cq_entries: 8192,
            max_udp_sockets: 256,
            max_udp_peers: 4096,
            max_datagram_bytes: 9216,
            zero_copy: ZeroCopy::Auto,
            depot: Arc::default(),
            stats: Arc::default(),
        }
    }
}
