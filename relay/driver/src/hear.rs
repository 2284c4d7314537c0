//! Telling the machine what happened.

use std::io;

use relay_seam::{Conn, Input, Machine};

use crate::leave::LINGER_BYTES;
use crate::seat::Phase;
use crate::shore::{Event, Piece, Shore};
use crate::sockopt;
use crate::wheel::Wheel;

impl<S: Shore, M: Machine + ?Sized> Wheel<'_, S, M> {
    pub(crate) fn happened(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Knock(fd) => self.door.knock(fd),
            Event::KnockFailed(listener, error) => self.knock_failed(listener, error)?,
            Event::Bytes(conn, piece) => self.received(conn, piece)?,
            Event::Fin(conn) => self.peer_done(conn)?,
            Event::Broken(conn, errno) => self.lost(conn, errno)?,
            Event::ReadStopped(conn) => self.read_stopped(conn)?,
            Event::Room(conn) => self.room(conn)?,
            Event::Hung(conn) => self.hung(conn)?,
            Event::Bell => self.rung(),
            Event::Answer => self.answered()?,
            Event::Mail => self.mail_came(),
        }
        Ok(())
    }

    fn received(&mut self, conn: Conn, piece: Piece) -> io::Result<()> {
        let bytes = self.shore.bytes(&piece);
        let mut over = false;
        match self.seats.get_mut(conn).map(|seat| &mut seat.phase) {
            Some(Phase::Open) => {
                self.stats.receives.one();
                self.stats.received_bytes.add(bytes.len() as u64);
                self.machine.handle(self.now, Input::Received { conn, bytes });
            }
            Some(Phase::HandingOver(read_so_far)) => read_so_far.extend_from_slice(bytes),
            Some(Phase::Leaving(discarded)) => {
                self.stats.discarded_bytes.add(bytes.len() as u64);
                *discarded += bytes.len();
                over = *discarded > LINGER_BYTES;
            }
            Some(Phase::Connecting(_)) | None => self.stats.late_completions.one(),
        }
        self.shore.give_back(piece);
        if over { self.cut_short(conn) } else { Ok(()) }
    }

    fn peer_done(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(conn) else {
            return Ok(());
        };
        seat.fin = true;
        match seat.phase {
            Phase::Open => {
                self.shore.watch_hangup(conn)?;
                self.machine.handle(self.now, Input::PeerDone { conn });
                Ok(())
            }
            Phase::Leaving(_) => self.release(conn),
            Phase::HandingOver(_) | Phase::Connecting(_) => Ok(()),
        }
    }

    /// A connection is broken: release it, and say so if it was the machine's.
    pub(crate) fn lost(&mut self, conn: Conn, errno: i32) -> io::Result<()> {
        let Some(seat) = self.seats.get(conn) else {
            return Ok(());
        };
        let open = matches!(seat.phase, Phase::Open);
        if matches!(seat.phase, Phase::HandingOver(_)) {
            self.stats.handovers_lost.one();
        }
        self.release(conn)?;
        if open {
            self.stats.closed_by_peer.one();
            self.machine.handle(
                self.now,
                Input::Closed {
                    conn,
                    reason: sockopt::reason(errno),
                },
            );
        }
        Ok(())
    }

    fn room(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(conn) else {
            return Ok(());
        };
        match seat.phase {
            Phase::Connecting(call) => return self.reached(conn, call),
            Phase::Open if std::mem::take(&mut seat.wants_room) => {
                self.machine.handle(self.now, Input::Writable { conn });
            }
            _ => {}
        }
        Ok(())
    }

    fn hung(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.seats.get(conn) else {
            return Ok(());
        };
        let error = sockopt::take_error(&seat.fd).and_then(|e| e.raw_os_error());
        // A send may have taken the error already; what hangs up without one was reset.
        self.lost(conn, error.unwrap_or(libc::ECONNRESET))
    }

    fn rung(&mut self) {
        self.bell.clear();
        self.stats.rings.one();
        self.machine.handle(self.now, Input::Woken);
    }

    /// Forgets a connection and closes it, without a word to the machine.
    pub(crate) fn release(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.seats.remove(conn) else {
            return Ok(());
        };
        self.door.freed();
        self.shore.release(conn, seat.fd)
    }
}
