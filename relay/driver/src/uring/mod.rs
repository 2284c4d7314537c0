//! The io_uring shore: completions, in batches.
//!
//! One ring per driver. Accept and receive are multishot: armed once, they answer until something ends them; a
//! completion without `F_MORE` is the last of its operation. Receives take buffers from one shared ring of them.
//! Sends copy at once or not at all (`MSG_DONTWAIT`), so a whole batch completes inside the call that submits it,
//! and no send is in flight when a connection is closed. Where the way out is worth it, they do not copy (`zero.rs`):
//! then the kernel may read ring memory for longer, which the ring knows.

mod berth;
mod buffers;
pub(crate) mod depot;
mod direct;
#[cfg(test)]
pub(crate) mod faults;
mod halves;
mod ops;
mod post;
mod ring;
mod route;
pub(crate) mod setup;
mod told;
mod zero;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry;
use relay_ring::Bell;
use relay_seam::{Conn, Now};

use crate::setup::Setup;
use crate::shore::{Event, Offer, Piece, Shore};
use crate::sockopt;
use crate::stats::SharedStats;
use crate::udp::Laid;
use berth::Berth;
use buffers::Buffers;
use direct::Direct;
use halves::Halves;
use ops::{Kind, Plain, Tag};
use ring::{Done, Ring};
use zero::Zero;

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
    mail: RawFd,
    zero: Zero,
    direct: Direct,
    stats: Arc<SharedStats>,
}

/// A listener.
struct Way {
    socket: TcpListener,
    armed: bool,
}

impl Uring {
    /// # Errors
    ///
    /// When the kernel refuses the ring, the buffers, or to watch the bell.
    pub(crate) fn new(setup: &mut Setup, answers: BorrowedFd<'_>) -> io::Result<Self> {
        let io = setup::make(setup.sq_entries, setup.cq_entries)
            .map_err(|e| io::Error::new(e.kind(), format!("no io_uring: {}", crate::probe::why_not(&e))))?;
        let buffers = Buffers::that_fit(&io, setup.recv_buffers, setup.recv_buffer_bytes)?;
        let direct = Direct::new(&io, setup.max_conns, setup.zero_copy);
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
            mail: -1,
            direct,
            zero: Zero::new(
                setup.zero_copy,
                Arc::clone(&setup.depot),
                Arc::clone(&setup.stats),
            ),
            stats: Arc::clone(&setup.stats),
        };
        shore
            .ring
            .push(&Plain::watch(shore.bell.as_raw_fd(), Kind::Bell))?;
        shore.ring.push(&Plain::watch(shore.answers, Kind::Answer))?;
        shore.ring.push(&Plain::watch(shore.halves.fd(), Kind::Halves))?;
        Ok(shore)
    }

    fn berth(&mut self, conn: Conn) -> Option<&mut Berth> {
        self.berths.get_mut(conn.slot()).filter(|berth| berth.is(conn))
    }

    /// A send, without a copy if it is worth it.
    fn entry(&mut self, offer: &Offer<'_>) -> Entry {
        let berth = self.berths.get(offer.conn.slot());
        // A seat has a berth; without one, the descriptor is all there is.
        let fallback = Berth {
            fd: offer.fd,
            ..Berth::default()
        };
        let berth = berth
            .filter(|berth| berth.is(offer.conn))
            .copied()
            .unwrap_or(fallback);
        let file = berth.file(offer.conn);
        let parcel = (offer.index, offer.conn, offer.bytes.len());
        let leave = self
            .zero
            .leave(&self.ring.io, berth.route, berth.held, parcel, offer.from);
        match leave {
            Some(leave) => ops::send_zc(file, offer.bytes, leave.buffer, leave.parcel),
            None => ops::send(file, offer.bytes, offer.index),
        }
    }

    /// The notification of a send without a copy.
    fn released(&mut self, done: Done) {
        // By then the connection may have gone; the ring's memory has not.
        if let Some(parcel) = self.zero.released(done.tag.conn, done.copied())
            && let Some(berth) = self.berth(parcel.conn)
        {
            berth.held -= parcel.len;
        }
    }

    fn arm_recv(&mut self, conn: Conn) -> io::Result<()> {
        let Some(berth) = self.berth(conn).filter(|berth| berth.reading && !berth.armed) else {
            return Ok(());
        };
        berth.armed = true;
        let file = berth.file(conn);
        self.ring.push(&Plain::recv(file, conn))
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
        let Some(berth) = self.berth(conn).map(std::mem::take) else {
            return Ok(());
        };
        if berth.direct {
            self.direct.leave(conn.slot());
        }
        let kinds = [
            (Kind::Recv, berth.armed && !berth.cancelling),
            (Kind::Room, berth.polled),
        ];
        for (kind, _) in kinds.into_iter().filter(|(_, in_flight)| *in_flight) {
            self.ring
                .push(&Plain::cancel(Tag::new(kind, conn), Kind::Cancel))?;
        }
        Ok(())
    }

    /// After everything queued has been submitted, descriptors may be closed.
    fn bury(&mut self) {
        if self.ring.nothing_queued() {
            self.direct.clear(&self.ring.io);
            self.graves.clear();
        }
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
        if self.direct.is_leaving(conn.slot()) {
            // What is queued for the last holder of the place is submitted first.
            self.ring.flush()?;
            self.bury();
        }
        let direct = self.direct.enter(&self.ring.io, conn.slot(), fd.as_raw_fd());
        let route = self.zero.route(|| sockopt::ends(&fd));
        self.berths[conn.slot()] = Berth {
            live: true,
            generation: conn.generation(),
            fd: fd.as_raw_fd(),
            direct,
            route,
            ..Berth::default()
        };
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
        let Some(berth) = self.berth(conn) else {
            return Ok(());
        };
        berth.reading = false;
        if !berth.armed {
            self.told.push_back(Event::ReadStopped(conn));
            return Ok(());
        }
        if std::mem::replace(&mut berth.cancelling, true) {
            return Ok(());
        }
        self.ring
            .push(&Plain::cancel(Tag::new(Kind::Recv, conn), Kind::CancelRecv))
    }

    fn watch_room(&mut self, conn: Conn) -> io::Result<()> {
        let Some(berth) = self.berth(conn) else {
            return Ok(());
        };
        berth.room = true;
        if berth.half || std::mem::replace(&mut berth.polled, true) {
            return Ok(());
        }
        let file = berth.file(conn);
        self.ring.push(&Plain::room(file, conn))
    }

    fn watch_hangup(&mut self, conn: Conn) -> io::Result<()> {
        let Some(berth) = self.berth(conn) else {
            return Ok(());
        };
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
        self.ring.flush()?;
        self.bury();
        Ok(())
    }

    fn send(&mut self, batch: &[Offer<'_>], results: &mut [i32]) -> io::Result<()> {
        for offer in batch {
            let entry = self.entry(offer);
            // SAFETY: the bytes are borrowed for the whole of this function, which returns only after `collect` has
            // seen the completion of every send, or after an error has poisoned the ring: then nothing that is still
            // queued is ever submitted, and what was submitted has been copied (`MSG_DONTWAIT` sends finish inside
            // the call that submits them). A send without a copy reads registered memory, whose pages the kernel
            // holds by itself, and whose bytes the ring's holder keeps as they are.
            unsafe { self.ring.push_entry(&entry) }?;
        }
        let Self {
            ring, zero, berths, ..
        } = self;
        ring.collect(batch.len(), |done| match done.tag.kind {
            Kind::Zero => {
                if let Some(parcel) = zero.taken(done.tag.conn, done.result, done.more()) {
                    results[parcel.index] = parcel.answer(done.result);
                    let berth = berths.get_mut(parcel.conn.slot());
                    if let Some(berth) = berth.filter(|berth| berth.is(parcel.conn)) {
                        berth.held += parcel.len;
                    }
                }
            }
            _ => results[done.tag.conn.slot()] = done.result,
        })
    }

    fn post(&mut self, letters: &mut Laid<'_>, results: &mut [i32]) -> io::Result<()> {
        self.post_letters(letters, results)
    }

    fn watch_mail(&mut self, arrivals: BorrowedFd<'_>) -> io::Result<()> {
        self.mail = arrivals.as_raw_fd();
        self.ring.push(&Plain::watch(self.mail, Kind::Mail))
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
            let Some(done) = self.ring.next() else {
                return Ok(None);
            };
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

    fn tidy(&mut self, now: Now) {
        self.zero.tidy(&self.ring.io, now);
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
