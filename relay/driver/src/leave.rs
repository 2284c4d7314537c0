//! Who goes: closes of both kinds, lingering, handing over, and the end of the driver.
//!
//! Closing a socket with unread bytes makes the kernel reset the connection, which may destroy an answer that the
//! peer has not read yet (RFC 9112 section 9.6). Hence a graceful close says FIN, then reads and discards for a
//! moment, bounded in bytes, time and number.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use relay_seam::{Closing, Conn, Handover, Machine, Now};

use crate::clock;
use crate::seat::{Phase, Seat};
use crate::share::Share;
use crate::shore::Shore;
use crate::sockopt;
use crate::wheel::Wheel;

/// Discarded bytes after which a lingering close is cut short.
pub(crate) const LINGER_BYTES: usize = 64 * 1024;
/// How long a close may linger.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How many may linger at once; the oldest gives way.
const LINGERERS_MAX: usize = 1024;

/// Lingering connections, oldest first: all linger equally long, so the first is the first to expire. May name
/// connections that are gone already.
#[derive(Default)]
pub(crate) struct Leavers {
    queue: VecDeque<(Now, Conn)>,
}

impl Leavers {
    pub(crate) fn deadline(&self) -> Option<Now> {
        self.queue.front().map(|(until, _)| *until)
    }

    /// Adds one; gives back the one that has to make room.
    fn push(&mut self, until: Now, conn: Conn) -> Option<Conn> {
        self.queue.push_back((until, conn));
        if self.queue.len() > LINGERERS_MAX {
            self.queue.pop_front().map(|(_, conn)| conn)
        } else {
            None
        }
    }

    fn expired(&mut self, now: Now) -> Option<Conn> {
        self.queue
            .pop_front_if(|(until, _)| *until <= now)
            .map(|(_, conn)| conn)
    }
}

impl<S: Shore, M: Machine + ?Sized> Wheel<'_, S, M> {
    pub(crate) fn close(&mut self, conn: Conn, how: Closing) -> io::Result<()> {
        match how {
            Closing::Abort => self.abort(conn),
            Closing::Graceful => self.linger(conn),
        }
    }

    fn abort(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.open_seat(conn) else {
            return Ok(());
        };
        let set = sockopt::reset_on_close(&seat.fd);
        if set.is_err() {
            self.stats.sockopt_failures.one();
        }
        self.stats.aborts.one();
        self.release(conn)
    }

    fn linger(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.open_seat(conn) else {
            return Ok(());
        };
        let over = sockopt::finish(&seat.fd).is_err() || seat.fin;
        seat.phase = Phase::Leaving(0);
        self.stats.graceful_closes.one();
        if over {
            // Nothing unread can come any more, so closing says no more than was said.
            return self.release(conn);
        }
        self.shore.read(conn)?;
        match self.leavers.push(self.now + LINGER_TIME, conn) {
            Some(oldest) => self.cut_short(oldest),
            None => Ok(()),
        }
    }

    /// Ends a lingering close before the peer has; no effect on one that is over.
    pub(crate) fn cut_short(&mut self, conn: Conn) -> io::Result<()> {
        if self
            .seats
            .get(conn)
            .is_some_and(|seat| matches!(seat.phase, Phase::Leaving(_)))
        {
            self.stats.lingers_cut.one();
            self.release(conn)?;
        }
        Ok(())
    }

    pub(crate) fn expire_leavers(&mut self) -> io::Result<()> {
        while let Some(conn) = self.leavers.expired(self.now) {
            self.cut_short(conn)?;
        }
        Ok(())
    }

    /// Stops receiving; the connection goes when all that is on its way has come.
    pub(crate) fn hand_over(&mut self, gift: Handover) -> io::Result<()> {
        let Some(seat) = self.open_seat(gift.conn) else {
            return Ok(());
        };
        seat.phase = Phase::HandingOver(gift.read_so_far);
        self.shore.stop_reading(gift.conn)
    }

    pub(crate) fn read_stopped(&mut self, conn: Conn) -> io::Result<()> {
        let Some(Seat {
            phase: Phase::HandingOver(_),
            ..
        }) = self.seats.get(conn)
        else {
            return Ok(());
        };
        let Some(seat) = self.seats.remove(conn) else {
            return Ok(());
        };
        self.shore.let_go(conn, seat.fd.as_fd())?;
        if let Phase::HandingOver(read_so_far) = seat.phase {
            self.stats.handovers.one();
            (self.handover)(TcpStream::from(seat.fd), read_so_far);
        }
        Ok(())
    }

    /// The machine has finished: closes what is open, then waits for those who are on their way out.
    pub(crate) fn say_farewell(&mut self) -> io::Result<()> {
        self.door.shut();
        // From here on nobody is passed to us.
        let waited = self.share.take().map_or(0, Share::leave);
        self.stats.passes_lost.add(waited);
        self.calls.forget_all();
        self.mail.shut();
        let goes = |seat: &Seat| matches!(seat.phase, Phase::Open | Phase::Connecting(_));
        let gone: Vec<Conn> = self
            .seats
            .iter()
            .filter(|(_, seat)| goes(seat))
            .map(|(conn, _)| conn)
            .collect();
        for conn in gone {
            self.release(conn)?;
        }
        while !self.seats.is_empty() {
            let left = self.leavers.deadline().map(|until| until.since(clock::now()));
            self.shore.wait(left)?;
            self.now = clock::now();
            self.hear()?;
            self.expire_leavers()?;
        }
        Ok(())
    }

    /// A connection that is still the machine's to speak of.
    pub(crate) fn open_seat(&mut self, conn: Conn) -> Option<&mut Seat> {
        self.seats
            .get_mut(conn)
            .filter(|seat| matches!(seat.phase, Phase::Open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lingerer_gives_way() {
        let mut leavers = Leavers::default();
        let until = Now::new(9, 9);
        for i in 0..LINGERERS_MAX as u32 {
            assert_eq!(leavers.push(until, Conn::new(i, 0)), None);
        }
        assert_eq!(leavers.push(until, Conn::new(7777, 0)), Some(Conn::new(0, 0)));
        assert_eq!(leavers.expired(Now::new(8, 8)), None);
        assert_eq!(leavers.expired(until), Some(Conn::new(1, 0)));
    }
}
