//! Who is in the team, in the order of joining, and whose turn it is.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use super::acs::PERIOD_MAX;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Never given twice: a peer that comes again is not blamed for what its predecessor lost.
    pub(super) serial: u64,
    /// Its complaints count.
    pub(super) monitor: bool,
    /// Counted against it; halved each second.
    pub(super) losses: u32,
    /// Chunks that it got.
    pub(super) given: u64,
    /// The last of its chunks that was lost, and how many before it in a row.
    pub(super) lost: Option<u64>,
    pub(super) row: u32,
    /// Reports that its port is closed.
    pub(super) closed: u32,
}

/// Members, found by endpoint and served in turn.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: HashMap<SocketAddrV4, Member>,
    order: Vec<SocketAddrV4>,
    /// Index of the one whose turn it is; 0 when there is none.
    next: usize,
    serials: u64,
    monitors: usize,
}

impl Member {
    /// The `nth` of its chunks was lost. Returns how many in a row.
    pub(super) fn lose(&mut self, nth: u64) -> u32 {
        let follows = self.lost.is_some_and(|lost| lost + 1 == nth);
        self.row = if follows { self.row + 1 } else { 1 };
        self.lost = Some(nth);
        self.row
    }
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn contains(&self, peer: SocketAddrV4) -> bool {
        self.members.contains_key(&peer)
    }

    pub(super) fn serial(&self, peer: SocketAddrV4) -> Option<u64> {
        self.members.get(&peer).map(|member| member.serial)
    }

    /// How many monitors must complain about a chunk before that counts: half of them. One that is behind a bad path
    /// blames nobody alone, where there are three.
    pub(super) fn quorum(&self) -> usize {
        self.monitors.div_ceil(2).max(1)
    }

    pub(super) fn is_monitor(&self, peer: SocketAddrV4) -> bool {
        self.members.get(&peer).is_some_and(|member| member.monitor)
    }

    pub(super) fn get_mut(&mut self, peer: SocketAddrV4) -> Option<&mut Member> {
        self.members.get_mut(&peer)
    }

    /// In the order of joining.
    pub(super) fn peers(&self) -> &[SocketAddrV4] {
        &self.order
    }

    /// Add at the end; whoever had this endpoint is not a member any more. Returns whether somebody had.
    pub(super) fn add(&mut self, peer: SocketAddrV4, monitor: bool) -> bool {
        let again = self.remove(peer);
        self.serials += 1;
        self.monitors += usize::from(monitor);
        self.members.insert(
            peer,
            Member {
                serial: self.serials,
                monitor,
                losses: 0,
                given: 0,
                lost: None,
                row: 0,
                closed: 0,
            },
        );
        self.order.push(peer);
        again
    }

    /// Take out; the turn stays with whose it is, or goes on to the one behind. Returns whether it was a member.
    pub(super) fn remove(&mut self, peer: SocketAddrV4) -> bool {
        let Some(at) = self.order.iter().position(|&other| other == peer) else {
            return false;
        };
        let gone = self.members.remove(&peer);
        self.monitors -= usize::from(gone.is_some_and(|member| member.monitor));
        self.order.remove(at);
        if at < self.next {
            self.next -= 1;
        }
        self.wrap();
        true
    }

    /// Whose turn it is, with its serial, and how many chunks it got before; the next call names the one behind. Who
    /// does not take its turn is passed over, until everybody has been asked [`PERIOD_MAX`] times.
    pub(super) fn turn_of(&mut self, mut takes: impl FnMut(u64) -> bool) -> Option<(SocketAddrV4, u64, u64)> {
        for _ in 0..self.order.len() * PERIOD_MAX as usize {
            let peer = *self.order.get(self.next)?;
            self.next += 1;
            self.wrap();
            let serial = self.serial(peer)?;
            if takes(serial) {
                let nth = self.count(peer);
                return Some((peer, serial, nth));
            }
        }
        None
    }

    fn count(&mut self, peer: SocketAddrV4) -> u64 {
        let Some(member) = self.members.get_mut(&peer) else {
            return 0;
        };
        member.given += 1;
        member.given - 1
    }

    /// All losses are halved `times` times.
    pub(super) fn halve(&mut self, times: u64) {
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        for member in self.members.values_mut() {
            member.losses = member.losses.checked_shr(times).unwrap_or(0);
        }
    }

    pub(super) fn any_losses(&self) -> bool {
        self.members.values().any(|member| member.losses > 0)
    }

    fn wrap(&mut self) {
        if self.next >= self.order.len() {
            self.next = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn peer(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn turns(roster: &mut Roster, n: usize) -> Vec<u16> {
        (0..n)
            .filter_map(|_| roster.turn_of(|_| true))
            .map(|(peer, ..)| peer.port())
            .collect()
    }

    fn of(ports: &[u16]) -> Roster {
        let mut roster = Roster::default();
        for &port in ports {
            roster.add(peer(port), false);
        }
        roster
    }

    #[test]
    fn turns_go_round_and_nobody_is_skipped_when_one_leaves() {
        assert_eq!(turns(&mut Roster::default(), 3), []);
        assert_eq!(turns(&mut of(&[1]), 3), [1, 1, 1]);
        for (gone, then) in [(1, [3, 4, 2]), (2, [3, 4, 1]), (3, [4, 1, 2]), (4, [3, 1, 2])] {
            let mut roster = of(&[1, 2, 3, 4]);
            assert_eq!(turns(&mut roster, 2), [1, 2]);
            assert!(roster.remove(peer(gone)));
            assert!(!roster.remove(peer(gone)));
            assert_eq!(turns(&mut roster, 3), then, "{gone} left");
        }
    }

    #[test]
    fn who_comes_again_goes_to_the_end_as_somebody_else() {
        let mut roster = of(&[1, 2]);
        let before = roster.serial(peer(1));
        roster.get_mut(peer(1)).unwrap().losses = 9;
        assert!(roster.add(peer(1), false));
        assert_ne!(roster.serial(peer(1)), before);
        assert!(!roster.any_losses());
        assert_eq!(turns(&mut roster, 3), [2, 1, 2]);
    }

    #[test]
    fn losses_are_halved_and_long_silence_forgives_all() {
        let mut roster = of(&[1]);
        roster.get_mut(peer(1)).unwrap().losses = 33;
        roster.halve(2);
        assert_eq!(roster.get_mut(peer(1)).unwrap().losses, 8);
        roster.halve(u64::MAX);
        assert!(!roster.any_losses());
    }

    proptest! {
        #[test]
        fn any_coming_and_going_keeps_the_round_fair(steps in prop::collection::vec((0u8..3, 0u16..8), 0..200)) {
            let mut roster = Roster::default();
            for (step, port) in steps {
                match step {
                    0 => { roster.add(peer(port), port % 2 == 0); }
                    1 => { roster.remove(peer(port)); }
                    _ => { roster.turn_of(|_| true); }
                }
                prop_assert_eq!(roster.members.len(), roster.order.len());
                let monitors = roster.members.values().filter(|member| member.monitor).count();
                prop_assert_eq!(roster.monitors, monitors);
                prop_assert!(roster.next < roster.len().max(1));
            }
            let members = roster.len();
            let mut round = turns(&mut roster, members);
            let mut all: Vec<u16> = roster.peers().iter().map(|p| p.port()).collect();
            round.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(round, all);
        }
    }
}
