//! What differs between the two drivers: how to wait, receive and send.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use relay_ring::Reader;
use relay_seam::{Conn, Now};

use crate::udp::Laid;

/// One kernel interface. The wheel owns the descriptors; a shore only works on them, and is told before one is
/// closed ([`Shore::release`]) or leaves the house ([`Shore::let_go`]).
///
/// Errors are those of the interface itself and end the driver; what happens to one connection is an [`Event`].
pub(crate) trait Shore {
    /// Accepts on listener `i` (again).
    fn accept(&mut self, i: usize) -> io::Result<()>;
    /// Takes a connection in; an error refuses this connection only.
    fn adopt(&mut self, conn: Conn, fd: BorrowedFd<'_>) -> io::Result<()>;
    /// Receives from a connection from now on; no effect while it does already.
    fn read(&mut self, conn: Conn) -> io::Result<()>;
    /// Stops receiving. Bytes that are on their way still come; [`Event::ReadStopped`] says that they all have.
    fn stop_reading(&mut self, conn: Conn) -> io::Result<()>;
    /// Says [`Event::Room`] once when the connection takes bytes, or can say whether it has connected.
    fn watch_room(&mut self, conn: Conn) -> io::Result<()>;
    /// Says [`Event::Hung`] once when the connection breaks, although nothing is being received any more.
    fn watch_hangup(&mut self, conn: Conn) -> io::Result<()>;
    /// Forgets a connection and closes it.
    fn release(&mut self, conn: Conn, fd: OwnedFd) -> io::Result<()>;
    /// Forgets a connection that is given away: after this the shore never touches its descriptor.
    fn let_go(&mut self, conn: Conn, fd: BorrowedFd<'_>) -> io::Result<()>;
    /// Offers each to the kernel without waiting; `results[offer.index]` is what became of it: bytes taken or
    /// `-errno`. The kernel is done with the bytes when this returns, or the shore has taken a hold of their ring.
    fn send(&mut self, batch: &[Offer<'_>], results: &mut [i32]) -> io::Result<()>;
    /// Offers each letter to the kernel without waiting; `results[i]` is what became of the `i`-th: bytes taken or
    /// `-errno`. The kernel is done with the bytes when this returns.
    fn post(&mut self, letters: &mut Laid<'_>, results: &mut [i32]) -> io::Result<()>;
    /// Says [`Event::Mail`] whenever this epoll instance has news; it stays as long as the shore. Called once.
    fn watch_mail(&mut self, arrivals: BorrowedFd<'_>) -> io::Result<()>;
    /// Waits until something has happened, at most `timeout` (`None`: for ever; zero: only look).
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;
    /// Something has happened that [`Shore::next`] has not told yet, or is bound to without waiting.
    fn pending(&mut self) -> bool;
    /// The next thing that happened.
    fn next(&mut self) -> io::Result<Option<Event>>;
    /// The received bytes of a piece.
    fn bytes(&self, piece: &Piece) -> &[u8];
    /// A piece is not needed any more. Not giving one back costs a receive buffer.
    fn give_back(&mut self, piece: Piece);
    /// Called once a turn: lets go of what has not been used for a while.
    fn tidy(&mut self, now: Now) {
        let _ = now;
    }
}

/// One send of a batch.
pub(crate) struct Offer<'a> {
    /// Where its result goes.
    pub(crate) index: usize,
    pub(crate) conn: Conn,
    pub(crate) fd: RawFd,
    pub(crate) bytes: &'a [u8],
    /// Where in which ring the bytes lie, if they do.
    pub(crate) from: Option<(&'a Reader, u64)>,
}

/// Received bytes in a shore's buffer. Not `Clone`: it is given back once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) buffer: u16,
    pub(crate) len: u32,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A listener accepted a connection.
    Knock(OwnedFd),
    /// Listener `0` cannot accept and has stopped trying: call [`Shore::accept`] again when it is time.
    KnockFailed(usize, io::Error),
    /// Bytes arrived.
    Bytes(Conn, Piece),
    /// The peer will send nothing more; receiving has stopped.
    Fin(Conn),
    /// Receiving failed with this `errno`.
    Broken(Conn, i32),
    /// Receiving has stopped as asked and nothing is on its way.
    ReadStopped(Conn),
    /// A watched connection has room, or is connected, or failed.
    Room(Conn),
    /// A watched connection broke.
    Hung(Conn),
    /// The machine's bell.
    Bell,
    /// The resolver has an answer.
    Answer,
    /// Datagrams have come.
    Mail,
}
