//! Where a connection lies: its operations in flight and what is wanted of it.

use std::os::fd::RawFd;

use relay_seam::Conn;

use super::direct::File;
use super::route::RouteId;

/// The operations of one connection.
#[derive(Clone, Copy, Default)]
pub(super) struct Berth {
    pub(super) live: bool,
    pub(super) generation: u32,
    pub(super) fd: RawFd,
    /// It has a place in the ring's own table of files: its slot.
    pub(super) direct: bool,
    /// By which way its bytes leave.
    pub(super) route: RouteId,
    /// Bytes of it that the kernel may still read.
    pub(super) held: u32,
    /// The wheel wants its bytes.
    pub(super) reading: bool,
    /// A receive is in flight; at most one, so that bytes keep their order.
    pub(super) armed: bool,
    /// It is being cancelled.
    pub(super) cancelling: bool,
    /// `Event::Room` is wanted.
    pub(super) room: bool,
    /// A poll for it is in flight.
    pub(super) polled: bool,
    /// `Event::Hung` is wanted.
    pub(super) hangup: bool,
    /// The peer has said FIN: watched by epoll, not by the ring.
    pub(super) half: bool,
}

impl Berth {
    /// What operations on `conn`, which lies here, name.
    pub(super) fn file(&self, conn: Conn) -> File {
        if self.direct {
            File::Direct(conn.slot() as u32)
        } else {
            File::Plain(self.fd)
        }
    }

    /// `conn` lies here, and not another.
    pub(super) fn is(&self, conn: Conn) -> bool {
        self.live && self.generation == conn.generation()
    }
}
