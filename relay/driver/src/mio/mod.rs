//! The mio shore: readiness by epoll. No `unsafe`.
//!
//! mio registers edge-triggered: an edge is told once, so this shore remembers for each connection that it is
//! readable until a read has emptied it. A connection is read once per turn ([`READ_BYTES`]), then the next one has
//! its turn: a flood on one starves no other.

#![forbid(unsafe_code)]

mod post;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use ::mio::event::Event as Readiness;
use ::mio::unix::SourceFd;
use ::mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{MsgFlags, recv, send};
use relay_ring::Bell;
use relay_seam::Conn;
use socket2::SockRef;

use crate::setup::Setup;
use crate::shore::{Event, Offer, Piece, Shore};
use crate::udp::Laid;
use post::Posts;

/// Bytes read from a connection in a turn.
const READ_BYTES: usize = 64 * 1024;
/// Connections accepted in a turn, per listener.
const ACCEPTS_PER_TURN: usize = 64;
/// Readiness taken from the kernel in one call.
const EVENTS: usize = 1024;

/// Tokens: connections use 56 bits (generation, slot); these are above.
const SPECIAL: usize = 1 << 60;
const BELL: Token = Token(SPECIAL);
const ANSWER: Token = Token(SPECIAL + 1);
const MAIL: Token = Token(SPECIAL + 2);
const LISTENERS: usize = SPECIAL + 3;

/// See the module.
pub(crate) struct Epoll {
    poll: Poll,
    events: Events,
    posts: Posts,
    listeners: Vec<Way>,
    told: VecDeque<Event>,
    /// Readable connections; each is in here at most once.
    readable: VecDeque<Conn>,
    /// How many of them to read in this turn.
    reads_left: usize,
    buffer: Box<[u8]>,
    /// Registered by number; kept so that the number stays ours.
    _bell: Bell,
}

/// A listener.
struct Way {
    socket: TcpListener,
    /// The wheel wants connections from it.
    open: bool,
    /// Somebody may be waiting at it.
    ready: bool,
    left: usize,
}

impl Epoll {
    /// # Errors
    ///
    /// When the kernel refuses the epoll instance or to watch one of the descriptors.
    pub(crate) fn new(setup: &mut Setup, answers: BorrowedFd<'_>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let watch = |fd: RawFd, token| {
            poll.registry()
                .register(&mut SourceFd(&fd), token, Interest::READABLE)
        };
        watch(setup.bell.as_raw_fd(), BELL)?;
        watch(answers.as_raw_fd(), ANSWER)?;
        let mut listeners = Vec::new();
        for (i, socket) in std::mem::take(&mut setup.listeners).into_iter().enumerate() {
            socket.set_nonblocking(true)?;
            watch(socket.as_raw_fd(), Token(LISTENERS + i))?;
            listeners.push(Way {
                socket,
                open: false,
                ready: true,
                left: ACCEPTS_PER_TURN,
            });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            posts: Posts::default(),
            listeners,
            told: VecDeque::new(),
            readable: VecDeque::new(),
            reads_left: 0,
            buffer: vec![0; READ_BYTES].into(),
            _bell: setup.bell.clone(),
        })
    }

    /// Sorts what epoll said.
    fn note(&mut self, what: &Readiness) {
        match what.token() {
            BELL => self.told.push_back(Event::Bell),
            ANSWER => self.told.push_back(Event::Answer),
            MAIL => self.told.push_back(Event::Mail),
            Token(i) if i >= LISTENERS => self.listeners[i - LISTENERS].ready = true,
            Token(packed) => self.note_conn(unpack(packed), what),
        }
    }

    fn note_conn(&mut self, conn: Conn, what: &Readiness) {
        let Some(post) = self.posts.get(conn) else { return };
        let broken = what.is_error() || what.is_write_closed();
        post.broken |= broken;
        if (what.is_writable() || broken) && std::mem::take(&mut post.wants_room) {
            self.told.push_back(Event::Room(conn));
        }
        if broken && std::mem::take(&mut post.wants_hangup) {
            self.told.push_back(Event::Hung(conn));
        }
        if what.is_readable() || what.is_read_closed() || broken {
            post.readable = true;
            post.ending |= what.is_read_closed() || broken;
            self.queue(conn);
        }
    }

    /// Puts a connection in the queue of readable ones, if it is readable, wanted and not there yet.
    fn queue(&mut self, conn: Conn) {
        if let Some(post) = self
            .posts
            .get(conn)
            .filter(|post| post.readable && post.reading && !post.queued)
        {
            post.queued = true;
            self.readable.push_back(conn);
        }
    }

    fn accept_one(&mut self) -> Option<Event> {
        let (i, way) = self
            .listeners
            .iter_mut()
            .enumerate()
            .find(|(_, way)| way.may_accept())?;
        way.left -= 1;
        match SockRef::from(&way.socket).accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
            Ok((socket, _)) => Some(Event::Knock(socket.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                way.ready = false;
                self.accept_one()
            }
            Err(error) => {
                way.open = false;
                Some(Event::KnockFailed(i, error))
            }
        }
    }

    /// Reads from the readable connections of this turn until one has something to tell.
    fn read_one(&mut self) -> Option<Event> {
        while self.reads_left > 0 {
            self.reads_left -= 1;
            let conn = self.readable.pop_front()?;
            let Some(post) = self.posts.get(conn) else {
                continue;
            };
            post.queued = false;
            if !post.reading {
                continue;
            }
            let ending = post.ending;
            let answer = recv(post.fd, &mut self.buffer, MsgFlags::MSG_DONTWAIT);
            // A short read has emptied a stream socket (epoll(7)); only a FIN or an error may still be behind it.
            post.readable = answer.is_ok_and(|n| n == READ_BYTES || ending);
            match answer {
                Ok(0) => {
                    post.reading = false;
                    return Some(Event::Fin(conn));
                }
                Ok(n) => {
                    self.queue(conn);
                    return Some(Event::Bytes(
                        conn,
                        Piece {
                            buffer: 0,
                            len: n as u32,
                        },
                    ));
                }
                Err(nix::Error::EAGAIN) => {}
                Err(nix::Error::EINTR) => {
                    post.readable = true;
                    self.queue(conn);
                }
                Err(errno) => {
                    post.reading = false;
                    return Some(Event::Broken(conn, errno as i32));
                }
            }
        }
        None
    }
}

impl Way {
    fn may_accept(&self) -> bool {
        self.open && self.ready && self.left > 0
    }
}

impl Shore for Epoll {
    fn accept(&mut self, i: usize) -> io::Result<()> {
        self.listeners[i].open = true;
        Ok(())
    }

    fn adopt(&mut self, conn: Conn, fd: BorrowedFd<'_>) -> io::Result<()> {
        let raw = fd.as_raw_fd();
        self.posts.open(conn, raw);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut SourceFd(&raw), Token(pack(conn)), both)
    }

    fn read(&mut self, conn: Conn) -> io::Result<()> {
        if let Some(post) = self.posts.get(conn) {
            post.reading = true;
        }
        self.queue(conn);
        Ok(())
    }

    fn stop_reading(&mut self, conn: Conn) -> io::Result<()> {
        if let Some(post) = self.posts.get(conn) {
            post.reading = false;
            self.told.push_back(Event::ReadStopped(conn));
        }
        Ok(())
    }

    fn watch_room(&mut self, conn: Conn) -> io::Result<()> {
        if let Some(post) = self.posts.get(conn) {
            post.wants_room = true;
        }
        Ok(())
    }

    fn watch_hangup(&mut self, conn: Conn) -> io::Result<()> {
        let Some(post) = self.posts.get(conn) else {
            return Ok(());
        };
        post.wants_hangup = !post.broken;
        if post.broken {
            self.told.push_back(Event::Hung(conn));
        }
        Ok(())
    }

    fn release(&mut self, conn: Conn, fd: OwnedFd) -> io::Result<()> {
        // Closing the only descriptor takes it out of the epoll set.
        self.posts.close(conn);
        drop(fd);
        Ok(())
    }

    fn let_go(&mut self, conn: Conn, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.posts.close(conn);
        self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    fn send(&mut self, batch: &[Offer<'_>], results: &mut [i32]) -> io::Result<()> {
        for offer in batch {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            results[offer.index] = match send(offer.fd, offer.bytes, flags) {
                Ok(n) => i32::try_from(n).unwrap_or(i32::MAX),
                Err(errno) => -(errno as i32),
            };
        }
        Ok(())
    }

    fn post(&mut self, letters: &mut Laid<'_>, results: &mut [i32]) -> io::Result<()> {
        letters.send(results);
        Ok(())
    }

    fn watch_mail(&mut self, arrivals: BorrowedFd<'_>) -> io::Result<()> {
        self.poll
            .registry()
            .register(&mut SourceFd(&arrivals.as_raw_fd()), MAIL, Interest::READABLE)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.pending() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for what in &events {
            self.note(what);
        }
        self.events = events;
        self.reads_left = self.readable.len();
        self.listeners
            .iter_mut()
            .for_each(|way| way.left = ACCEPTS_PER_TURN);
        Ok(())
    }

    fn pending(&mut self) -> bool {
        // The budgets of accepting are renewed by `wait`, so they do not count here.
        let knocks = self.listeners.iter().any(|way| way.open && way.ready);
        knocks || !self.told.is_empty() || !self.readable.is_empty()
    }

    fn next(&mut self) -> io::Result<Option<Event>> {
        let event = self.told.pop_front().or_else(|| self.accept_one());
        Ok(event.or_else(|| self.read_one()))
    }

    fn bytes(&self, piece: &Piece) -> &[u8] {
        &self.buffer[..piece.len as usize]
    }

    fn give_back(&mut self, _: Piece) {}
}

fn pack(conn: Conn) -> usize {
    (conn.generation() as usize) << 24 | conn.slot()
}

fn unpack(packed: usize) -> Conn {
    Conn::new((packed & 0xff_ffff) as u32, (packed >> 24) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_the_whole_name() {
        for conn in [
            Conn::new(0, 0),
            Conn::new(Conn::SLOTS_MAX - 1, u32::MAX),
            Conn::new(5, 7),
        ] {
            assert_eq!(unpack(pack(conn)), conn);
            assert!(pack(conn) < SPECIAL);
        }
    }
}
