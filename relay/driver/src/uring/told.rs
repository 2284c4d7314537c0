//! What completions mean.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use relay_seam::Conn;

use super::ops::{Kind, Plain, Tag};
use super::ring::Done;
use super::{Uring, newcomer};
use crate::shore::{Event, Piece, Shore};

impl Uring {
    /// What a completion means; `None` when it means nothing to anybody any more.
    pub(super) fn told_by(&mut self, done: Done) -> io::Result<Option<Event>> {
        let conn = done.tag.conn;
        match done.tag.kind {
            Kind::Accept => self.accepted(done),
            Kind::Recv => self.received(done),
            Kind::Room => Ok(self.polled(conn, done.result)),
            Kind::Bell => self.watched(done).map(|()| Some(Event::Bell)),
            Kind::Answer => self.watched(done).map(|()| Some(Event::Answer)),
            Kind::Mail => self.watched(done).map(|()| Some(Event::Mail)),
            Kind::Halves => {
                self.hear_halves();
                self.watched(done).map(|()| None)
            }
            Kind::CancelRecv => self.cancelled(done),
            Kind::Zero => {
                self.released(done);
                Ok(None)
            }
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
            Kind::Mail => self.mail,
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
    pub(super) fn watch_half(&mut self, conn: Conn) -> Option<Event> {
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
        let Self {
            halves, berths, told, ..
        } = self;
        halves.drain(|news| {
            let conn = news.conn;
            let Some(berth) = berths.get_mut(conn.slot()).filter(|berth| berth.is(conn)) else {
                return;
            };
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
            return Ok(Some(Event::KnockFailed(
                i,
                io::Error::from_raw_os_error(-done.result),
            )));
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
            if done.more() {
                // The cancellation has missed it.
                self.ring
                    .push(&Plain::cancel(Tag::new(Kind::Recv, conn), Kind::Cancel))?;
            }
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
            (1.., Some(buffer)) => Some(Event::Bytes(
                conn,
                Piece {
                    buffer,
                    len: done.result as u32,
                },
            )),
            (1.., None) => Some(Event::Broken(conn, libc::EIO)),
            (error, buffer) => {
                buffer.into_iter().for_each(|id| self.buffers.give(id));
                self.recv_failed(conn, -error)
            }
        };
        if !done.more() {
            self.recv_ended(
                conn,
                wanted,
                matches!(event, Some(Event::Fin(_) | Event::Broken(..))),
            );
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
        let again = self
            .berth(conn)
            .is_some_and(|berth| berth.armed && berth.cancelling && done.result < 0);
        if again {
            self.stats.cancel_retries.one();
            self.ring
                .push(&Plain::cancel(Tag::new(Kind::Recv, conn), Kind::CancelRecv))?;
        }
        Ok(None)
    }
}
