//! The io_uring shore: completions, in batches.
//!
//! One ring per driver. Accept and receive are multishot: armed once, they answer until something ends them; a
//! completion without `F_MORE` is the last of its operation. Receives take buffers from one shared ring of them.
//! Sends copy at once or not at all (`MSG_DONTWAIT`), so a whole batch completes inside the call that submits it,
//! and no send is in flight when a connection is closed.

mod buffers;
#[cfg(test)]
pub(crate) mod faults;
mod halves;
mod ops;
mod ring;
pub(crate) mod setup;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use relay_ring::Bell;
use relay_seam::Conn;

use crate::setup::Setup;
use crate::shore::{Event, Offer, Piece, Shore};
use crate::stats::SharedStats;
use buffers::Buffers;
use halves::Halves;
use ops::{Kind, Plain, Tag};
use ring::{Done, Ring};

/// See the module. The ring is dropped before the buffers that its operations fill.
pub(crate) struct Uring {
    ring: Ring,
    buffers: Buffers,
    halves: Halves,
    listeners: Vec<Way>,
    berths: Vec<Berth>,
    told: VecDeque<Event>,
    /// Receives that ended and are wanted again; armed before the next wait, when buffers have been given back.
    hungry: Vec<Conn>,
    /// Descriptors to close once everything that was queued before is submitted: an operation still in the queue
    /// names its descriptor by number, and the number may be another's by then.
    graves: Vec<OwnedFd>,
    bell: Bell,
    answers: RawFd,
    stats: Arc<SharedStats>,
}

/// A listener.
struct Way {
    socket: TcpListener,
    armed: bool,
}

/// The operations of one connection.
#[derive(Clone, Copy, Default)]
struct Berth {
    live: bool,
    generation: u32,
    fd: RawFd,
    /// The wheel wants its bytes.
    reading: bool,
    /// A receive is in flight; at most one, so that bytes keep their order.
    armed: bool,
    /// It is being cancelled.
    cancelling: bool,
    /// [`Event::Room`] is wanted.
    room: bool,
    /// A poll for it is in flight.
    polled: bool,
    /// [`Event::Hung`] is wanted.
    hangup: bool,
    /// The peer has said FIN: watched by epoll, not by the ring.
    half: bool,
}

impl Berth {
    /// `conn` lies here, and not another.
    fn is(&self, conn: Conn) -> bool {
        self.live && self.generation == conn.generation()
    }
}

impl Uring {
    /// # Errors
    ///
    /// When the kernel refuses the ring, the buffers, or to watch the bell.
    pub(crate) fn new(setup: &mut Setup, answers: BorrowedFd<'_>) -> io::Result<Self> {
        let io = setup::make(setup.sq_entries, setup.cq_entries)
            .map_err(|e| io::Error::new(e.kind(), format!("no io_uring: {}", crate::probe::why_not(&e))))?;
        let buffers = Buffers::new(&io, setup.recv_buffers, setup.recv_buffer_bytes)?;
        let ways = std::mem::take(&mut setup.listeners).into_iter();
        let mut shore = Self {
            ring: Ring::new(io, Arc::clone(&setup.stats)),
            buffers,
            halves: Halves::new()?,
            listeners: ways.map(|socket| Way { socket, armed: false }).collect(),
            berths: Vec::new(),
            told: VecDeque::new(),
            hungry: Vec::new(),
            graves: Vec::new(),
            bell: setup.bell.clone(),
            answers: answers.as_raw_fd(),
            stats: Arc::clone(&setup.stats),
        };
        shore.ring.push(&Plain::watch(shore.bell.as_raw_fd(), Kind::Bell))?;
        shore.ring.push(&Plain::watch(shore.answers, Kind::Answer))?;
        shore.ring.push(&Plain::watch(shore.halves.fd(), Kind::Halves))?;
        Ok(shore)
    }

    fn berth(&mut self, conn: Conn) -> Option<&mut Berth> {
        self.berths.get_mut(conn.slot()).filter(|berth| berth.is(conn))
    }

    fn arm_recv(&mut self, conn: Conn) -> io::Result<()> {
        let Some(berth) = self.berth(conn).filter(|berth| berth.reading && !berth.armed) else { return Ok(()) };
        berth.armed = true;
        let fd = berth.fd;
        self.ring.push(&Plain::recv(fd, conn))
    }

    fn feed_the_hungry(&mut self) -> io::Result<()> {
        for conn in std::mem::take(&mut self.hungry) {
            self.stats.recv_rearms.one();
            self.arm_recv(conn)?;
        }
        Ok(())
    }

    /// Cancels what is in flight for a connection and forgets it. Nothing of it is told any more.
    fn forget(&mut self, conn: Conn) -> io::Result<()> {
        let Some(berth) = self.berth(conn).map(|berth| std::mem::take(berth)) else { return Ok(()) };
        let kinds = [(Kind::Recv, berth.armed && !berth.cancelling), (Kind::Room, berth.polled)];
        for (kind, _) in kinds.into_iter().filter(|(_, in_flight)| *in_flight) {
            self.ring.push(&Plain::cancel(Tag::new(kind, conn), Kind::Cancel))?;
        }
        Ok(())
    }

    /// After everything queued has been submitted, descriptors may be closed.
    fn bury(&mut self) {
        if self.ring.nothing_queued() {
            self.graves.clear();
        }
    }

    /// What a completion means; `None` when it means nothing to anybody any more.
    fn told_by(&mut self, done: Done) -> io::Result<Option<Event>> {
        let conn = done.tag.conn;
        match done.tag.kind {
            Kind::Accept => self.accepted(done),
            Kind::Recv => self.received(done),
            Kind::Room => Ok(self.polled(conn, done.result)),
            Kind::Bell => self.watched(done).map(|()| Some(Event::Bell)),
            Kind::Answer => self.watched(done).map(|()| Some(Event::Answer)),
            Kind::Halves => {
                self.hear_halves();
                self.watched(done).map(|()| None)
            }
            Kind::CancelRecv => self.cancelled(done),
            Kind::Cancel | Kind::Send => Ok(None),
        }
    }

    /// Watches on, where the kernel has ended a multishot poll.
    fn watched(&mut self, done: Done) -> io::Result<()> {
        if done.more() || done.result == -libc::ECANCELED {
            return Ok(());
        }
        let fd = match done.tag.kind {
            Kind::Bell => self.bell.as_raw_fd(),
            Kind::Halves => self.halves.fd(),
            _ => self.answers,
        };
        self.ring.push(&Plain::watch(fd, done.tag.kind))
    }

    /// A poll for room has completed; `revents` is what it saw, or `-errno`.
    fn polled(&mut self, conn: Conn, revents: i32) -> Option<Event> {
        let berth = self.berth(conn)?;
        berth.polled = false;
        if revents > 0 && revents & i32::from(libc::POLLOUT | libc::POLLERR | libc::POLLHUP) == 0 {
            // Nothing but the peer's FIN.
            return self.watch_half(conn);
        }
        std::mem::take(&mut berth.room).then_some(Event::Room(conn))
    }

    /// Watches a half-closed connection by epoll. What epoll refuses to watch is told as broken.
    fn watch_half(&mut self, conn: Conn) -> Option<Event> {
        let berth = self.berth(conn)?;
        if std::mem::replace(&mut berth.half, true) {
            return None;
        }
        let fd = berth.fd;
        // SAFETY: the wheel keeps the descriptor open until it calls `release` or `let_go`, which end the berth.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let error = self.halves.add(conn, fd).err()?;
        Some(Event::Broken(conn, error.raw_os_error().unwrap_or(libc::EIO)))
    }

    fn hear_halves(&mut self) {
        let Self { halves, berths, told, .. } = self;
        halves.drain(|news| {
            let conn = news.conn;
            let Some(berth) = berths.get_mut(conn.slot()).filter(|berth| berth.is(conn)) else { return };
            if std::mem::take(&mut berth.room) {
                told.push_back(Event::Room(conn));
            }
            if news.broken && std::mem::take(&mut berth.hangup) {
                told.push_back(Event::Hung(conn));
            }
        });
    }

    fn accepted(&mut self, done: Done) -> io::Result<Option<Event>> {
        let i = done.tag.conn.slot();
        if !done.more() {
            self.listeners[i].armed = false;
        }
        if done.result < 0 {
            return Ok(Some(Event::KnockFailed(i, io::Error::from_raw_os_error(-done.result))));
        }
        if !done.more() {
            self.stats.accept_rearms.one();
            self.accept(i)?;
        }
        Ok(Some(Event::Knock(newcomer(done))))
    }

    fn received(&mut self, done: Done) -> io::Result<Option<Event>> {
        let conn = done.tag.conn;
        let Some(berth) = self.berth(conn) else {
            self.stats.late_completions.one();
            done.buffer().into_iter().for_each(|id| self.buffers.give(id));
            return Ok(None);
        };
        let wanted = berth.reading;
        if !done.more() {
            (berth.armed, berth.cancelling) = (false, false);
        }
        let event = match (done.result, done.buffer()) {
            (0, buffer) => {
                berth.reading = false;
                buffer.into_iter().for_each(|id| self.buffers.give(id));
                Some(Event::Fin(conn))
            }
            (1.., Some(buffer)) => Some(Event::Bytes(conn, Piece { buffer, len: done.result as u32 })),
            (1.., None) => Some(Event::Broken(conn, libc::EIO)),
            (error, buffer) => {
                buffer.into_iter().for_each(|id| self.buffers.give(id));
                self.recv_failed(conn, -error)
            }
        };
        if !done.more() {
            self.recv_ended(conn, wanted, matches!(event, Some(Event::Fin(_) | Event::Broken(..))));
        }
        Ok(event)
    }

    /// An error of a receive is the connection's, or only the end of this operation.
    fn recv_failed(&mut self, conn: Conn, errno: i32) -> Option<Event> {
        match errno {
            libc::ECANCELED | libc::EAGAIN | libc::EINTR => None,
            libc::ENOBUFS => {
                self.stats.enobufs.one();
                None
            }
            _ => Some(Event::Broken(conn, errno)),
        }
    }

    /// A receive is in flight no more: arm it again, or say that it has stopped.
    fn recv_ended(&mut self, conn: Conn, wanted: bool, over: bool) {
        if !wanted {
            self.told.push_back(Event::ReadStopped(conn));
        } else if !over {
            self.hungry.push(conn);
        }
    }

    /// A cancellation that found nothing, while the receive is still there, is repeated.
    fn cancelled(&mut self, done: Done) -> io::Result<Option<Event>> {
        let conn = done.tag.conn;
        let again = self.berth(conn).is_some_and(|berth| berth.armed && berth.cancelling && done.result < 0);
        if again {
            self.stats.cancel_retries.one();
            self.ring.push(&Plain::cancel(Tag::new(Kind::Recv, conn), Kind::CancelRecv))?;
        }
        Ok(None)
    }
}

/// The descriptor that a successful accept made.
fn newcomer(done: Done) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and named it in this completion alone.
    unsafe { OwnedFd::from_raw_fd(done.result) }
}

impl Shore for Uring {
    fn accept(&mut self, i: usize) -> io::Result<()> {
        let way = &mut self.listeners[i];
        if way.armed {
            return Ok(());
        }
        way.armed = true;
        self.ring.push(&Plain::accept(way.socket.as_raw_fd(), i))
    }

    fn adopt(&mut self, conn: Conn, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.berths.len() <= conn.slot() {
            self.berths.resize(conn.slot() + 1, Berth::default());
        }
        self.berths[conn.slot()] =
            Berth { live: true, generation: conn.generation(), fd: fd.as_raw_fd(), ..Berth::default() };
        Ok(())
    }

    fn read(&mut self, conn: Conn) -> io::Result<()> {
        if let Some(berth) = self.berth(conn) {
            berth.reading = true;
        }
        // One that is being cancelled is armed again when its last completion has come.
        self.arm_recv(conn)
    }

    fn stop_reading(&mut self, conn: Conn) -> io::Result<()> {
        let Some(berth) = self.berth(conn) else { return Ok(()) };
        berth.reading = false;
        if !berth.armed {
            self.told.push_back(Event::ReadStopped(conn));
            return Ok(());
        }
        if std::mem::replace(&mut berth.cancelling, true) {
            return Ok(());
        }
        self.ring.push(&Plain::cancel(Tag::new(Kind::Recv, conn), Kind::CancelRecv))
    }

    fn watch_room(&mut self, conn: Conn) -> io::Result<()> {
        let Some(berth) = self.berth(conn) else { return Ok(()) };
        berth.room = true;
        if berth.half || std::mem::replace(&mut berth.polled, true) {
            return Ok(());
        }
        let fd = berth.fd;
        self.ring.push(&Plain::room(fd, conn))
    }

    fn watch_hangup(&mut self, conn: Conn) -> io::Result<()> {
        let Some(berth) = self.berth(conn) else { return Ok(()) };
        berth.hangup = true;
        let refused = self.watch_half(conn);
        self.told.extend(refused);
        Ok(())
    }

    fn release(&mut self, conn: Conn, fd: OwnedFd) -> io::Result<()> {
        self.graves.push(fd);
        self.forget(conn)
    }

    fn let_go(&mut self, conn: Conn, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.berth(conn).is_some_and(|berth| berth.half) {
            self.halves.remove(fd);
        }
        self.forget(conn)?;
        // What is queued may name the descriptor, which is another's from now on.
        self.ring.flush()
    }

    fn send(&mut self, batch: &[Offer<'_>], results: &mut [i32]) -> io::Result<()> {
        for offer in batch {
            let entry = ops::send(offer.fd, offer.bytes, offer.index);
            // SAFETY: the bytes are borrowed for the whole of this function, which returns only after `collect` has
            // seen the completion of every send, or after an error has poisoned the ring: then nothing that is still
            // queued is ever submitted, and what was submitted has been copied (`MSG_DONTWAIT` sends finish inside
            // the call that submits them).
            unsafe { self.ring.push_entry(&entry) }?;
        }
        self.ring.collect(batch.len(), |index, result| results[index] = result)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.feed_the_hungry()?;
        if timeout == Some(Duration::ZERO) || self.pending() {
            self.ring.look()?;
        } else {
            self.ring.wait(timeout)?;
        }
        self.bury();
        Ok(())
    }

    fn pending(&mut self) -> bool {
        !self.told.is_empty() || !self.hungry.is_empty() || self.ring.pending()
    }

    fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(Some(event));
            }
            let Some(done) = self.ring.next() else { return Ok(None) };
            if let Some(event) = self.told_by(done)? {
                return Ok(Some(event));
            }
        }
    }

    fn bytes(&self, piece: &Piece) -> &[u8] {
        self.buffers.bytes(piece.buffer, piece.len)
    }

    fn give_back(&mut self, piece: Piece) {
        self.buffers.give(piece.buffer);
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let buffers = &mut self.buffers;
        let quiet = self.ring.wind_down(|done| {
            if done.tag.kind == Kind::Accept && done.result >= 0 {
                // Accepted while we were leaving: closed.
                drop(newcomer(done));
            }
        });
        if quiet {
            buffers.detach(&self.ring.io);
        }
    }
}
