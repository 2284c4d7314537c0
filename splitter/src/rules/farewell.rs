//! Leavers, who may go one round after they have said so, and those who are gone.
//!
//! A reference peer repeats its goodbye with each chunk it receives until it is answered, and waits for ever if it
//! never is. Until then it relays the last chunk it was given: so the answer waits for one more round, in which it
//! receives enough chunks to relay that one to everybody, and nobody loses a chunk to a polite leave.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use relay_seam::Now;

/// So many of the gone are remembered, the newest: their goodbyes are answered (again).
const GONE_MAX: usize = 1024;

#[derive(Debug)]
struct Leaver {
    peer: SocketAddrV4,
    /// Answered when this many chunks have been sent, …
    chunks: u64,
    /// … or at this time.
    until: Now,
}

/// Bounded by the caller, which adds only members, and by [`GONE_MAX`].
#[derive(Debug, Default)]
pub(super) struct Farewells {
    leavers: Vec<Leaver>,
    gone: VecDeque<SocketAddrV4>,
}

impl Farewells {
    /// How many wait for their answer.
    pub(super) fn waiting(&self) -> usize {
        self.leavers.len()
    }

    pub(super) fn is_leaving(&self, peer: SocketAddrV4) -> bool {
        self.leavers.iter().any(|leaver| leaver.peer == peer)
    }

    pub(super) fn is_gone(&self, peer: SocketAddrV4) -> bool {
        self.gone.contains(&peer)
    }

    /// It may go when `chunks` chunks have been sent, or at `until`.
    pub(super) fn leave(&mut self, peer: SocketAddrV4, chunks: u64, until: Now) {
        self.leavers.push(Leaver { peer, chunks, until });
    }

    /// It is gone: expelled, or answered.
    pub(super) fn gone(&mut self, peer: SocketAddrV4) {
        self.back(peer);
        if self.gone.len() == GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back(peer);
    }

    /// It is a member (again).
    pub(super) fn back(&mut self, peer: SocketAddrV4) {
        self.leavers.retain(|leaver| leaver.peer != peer);
        self.gone.retain(|&other| other != peer);
    }

    /// Takes one that may go, now that `chunks` chunks have been sent.
    pub(super) fn due(&mut self, now: Now, chunks: u64) -> Option<SocketAddrV4> {
        let may_go = |leaver: &Leaver| leaver.chunks <= chunks || leaver.until <= now;
        let peer = self.leavers.iter().find(|leaver| may_go(leaver))?.peer;
        self.gone(peer);
        Some(peer)
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        self.leavers.iter().map(|leaver| leaver.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn peer(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    #[test]
    fn the_gone_are_remembered_up_to_a_limit() {
        let mut farewells = Farewells::default();
        for port in 1..=1025 {
            farewells.gone(peer(port));
        }
        assert_eq!(
            (farewells.is_gone(peer(1)), farewells.is_gone(peer(2))),
            (false, true)
        );
        farewells.gone(peer(2));
        farewells.gone(peer(2000));
        let gone = |port| farewells.is_gone(peer(port));
        assert_eq!((gone(2), gone(3), gone(4), gone(2000)), (true, false, true, true));
    }

    #[test]
    fn who_comes_back_is_neither_leaving_nor_gone() {
        let mut farewells = Farewells::default();
        farewells.leave(peer(1), 5, Now::new(5, 0));
        assert!(farewells.is_leaving(peer(1)));
        farewells.back(peer(1));
        assert_eq!(farewells.due(Now::new(9, 0), 9), None);
        assert!(!farewells.is_gone(peer(1)));
    }
}
