//! Who comes in: accepted connections, and what to do when the kernel cannot accept.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use relay_seam::{Input, Machine, Now};

use crate::seat::{Phase, Seat};
use crate::share::{Newcomer, Share};
use crate::shore::Shore;
use crate::sockopt;
use crate::wheel::Wheel;

/// New connections told to the machine in a turn; the rest wait for the next.
const ADMITTED_PER_TURN: usize = 64;
/// First and longest wait before the kernel is asked again to accept after it had no descriptors or memory.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(1);
/// A failure later than this after the last one is a new stall, and told to the machine again.
const CALM: Duration = Duration::from_secs(2);

/// The state of the way in.
#[derive(Default)]
pub(crate) struct Door {
    /// Accepted, not told yet.
    waiting: VecDeque<OwnedFd>,
    /// Listeners that could not accept and are to try again.
    stalled: Vec<usize>,
    retry_at: Option<Now>,
    backoff: Duration,
    last_failure: Option<Now>,
    freed: bool,
    /// No more of it: the machine has finished.
    shut: bool,
}

impl Door {
    /// A door behind which some wait already.
    pub(crate) fn with(guests: Vec<TcpStream>) -> Self {
        let waiting = guests
            .into_iter()
            .filter(|guest| guest.set_nonblocking(true).is_ok())
            .map(OwnedFd::from)
            .collect();
        Self {
            waiting,
            ..Self::default()
        }
    }

    pub(crate) fn knock(&mut self, fd: OwnedFd) {
        if !self.shut {
            self.backoff = Duration::ZERO;
            self.waiting.push_back(fd);
        }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn deadline(&self) -> Option<Now> {
        self.retry_at
    }

    /// A descriptor is being freed: by the next turn it is.
    pub(crate) fn freed(&mut self) {
        self.freed = true;
    }

    /// Lets a stalled listener try at once if a descriptor was freed in the turn that has ended.
    pub(crate) fn use_freed(&mut self) {
        let freed = std::mem::take(&mut self.freed);
        if let Some(at) = self.retry_at.as_mut().filter(|_| freed) {
            *at = Now::new(0, 0);
        }
    }

    /// Lets nobody in any more.
    pub(crate) fn shut(&mut self) {
        *self = Self {
            shut: true,
            ..Self::default()
        };
    }

    /// Notes a listener to retry; `true` when this is a new stall, which the machine should hear of.
    fn stall(&mut self, listener: usize, now: Now) -> bool {
        let new = self.last_failure.is_none_or(|last| now.since(last) > CALM);
        self.last_failure = Some(now);
        self.backoff = (self.backoff * 2).clamp(RETRY_FIRST, RETRY_LONGEST);
        self.stalled.push(listener);
        self.retry_at = Some(now + self.backoff);
        new
    }

    /// The listeners that are due.
    fn due(&mut self, now: Now) -> Vec<usize> {
        if self.retry_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.retry_at = None;
        std::mem::take(&mut self.stalled)
    }
}

impl<S: Shore, M: Machine + ?Sized> Wheel<'_, S, M> {
    /// Takes newcomers in, so many per turn: those passed on by other workers first, as they have waited longest.
    pub(crate) fn admit(&mut self) -> io::Result<()> {
        for _ in 0..ADMITTED_PER_TURN {
            if let Some(fd) = self.share.as_ref().and_then(Share::take) {
                self.stats.connections_taken.one();
                self.welcome(fd)?;
            } else if let Some(fd) = self.door.waiting.pop_front() {
                self.stats.accepts.one();
                if let Some(fd) = self.keep_or_pass(fd) {
                    self.welcome(fd)?;
                }
            } else {
                break;
            }
            self.say_how_many();
        }
        Ok(())
    }

    /// A newcomer that is ours; `None` when another worker has it now.
    fn keep_or_pass(&mut self, fd: OwnedFd) -> Option<OwnedFd> {
        let Some(share) = &self.share else { return Some(fd) };
        match share.place(fd) {
            Newcomer::Mine(fd) => Some(fd),
            Newcomer::Kept(fd) => {
                self.stats.passes_full.one();
                Some(fd)
            }
            Newcomer::Passed => {
                self.stats.connections_passed.one();
                None
            }
        }
    }

    /// Lets the other workers know how many connections are here.
    pub(crate) fn say_how_many(&mut self) {
        if let Some(share) = &mut self.share {
            share.say(self.seats.len());
        }
    }

    pub(crate) fn is_passed_some(&self) -> bool {
        self.share.as_ref().is_some_and(Share::has_waiting)
    }

    fn welcome(&mut self, fd: OwnedFd) -> io::Result<()> {
        let Ok(peer) = sockopt::peer(&fd) else {
            // Reset before we looked.
            self.stats.accepts_lost.one();
            return Ok(());
        };
        let Ok(conn) = self.seats.insert(Seat::new(fd, Phase::Open)) else {
            self.stats.accepts_refused.one();
            return Ok(());
        };
        let adopted = self
            .seats
            .get(conn)
            .map(|seat| self.shore.adopt(conn, seat.fd.as_fd()));
        if let Some(Err(_)) = adopted {
            self.stats.accepts_lost.one();
            return self.release(conn);
        }
        self.shore.read(conn)?;
        self.machine.handle(self.now, Input::Accepted { conn, peer });
        Ok(())
    }

    pub(crate) fn knock_failed(&mut self, listener: usize, error: io::Error) -> io::Result<()> {
        if is_of_one_connection(&error) {
            return self.shore.accept(listener);
        }
        self.stats.accept_stalls.one();
        if self.door.stall(listener, self.now) {
            self.machine.handle(self.now, Input::AcceptStalled { error });
        }
        Ok(())
    }

    pub(crate) fn retry_doors(&mut self) -> io::Result<()> {
        for listener in self.door.due(self.now) {
            self.shore.accept(listener)?;
        }
        Ok(())
    }
}

/// accept(2): errors already pending on the new connection; the listener itself is well.
fn is_of_one_connection(error: &io::Error) -> bool {
    const OF_ONE: [i32; 11] = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EAGAIN,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EPERM,
    ];
    error.raw_os_error().is_some_and(|errno| OF_ONE.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now::new(0, 0) + Duration::from_millis(ms + 10_000)
    }

    #[test]
    fn a_stall_is_told_once_and_retried_more_and_more_seldom() {
        let mut door = Door::default();
        assert!(door.stall(0, at(0)));
        assert!(door.due(at(99)).is_empty());
        assert_eq!(door.due(at(100)), [0]);
        assert!(!door.stall(0, at(100)));
        assert!(door.due(at(299)).is_empty());
        assert_eq!(door.due(at(300)), [0]);
        for i in 0..10 {
            assert!(!door.stall(0, at(300 + i)));
        }
        assert_eq!(door.deadline(), Some(at(1309)), "never more than a second");
        assert!(door.stall(0, at(9000)), "a calm of two seconds ends a stall");
    }

    #[test]
    fn a_freed_descriptor_is_used_in_the_next_turn() {
        let mut door = Door::default();
        door.freed();
        door.use_freed();
        assert_eq!(door.deadline(), None);
        door.stall(3, at(0));
        door.use_freed();
        assert!(door.due(at(1)).is_empty());
        door.freed();
        door.use_freed();
        assert_eq!(door.due(at(1)), [3]);
    }
}
