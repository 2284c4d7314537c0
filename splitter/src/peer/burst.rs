//! How a member of generation B relays: congestion avoidance, and burst mode when that is too slow.
//!
//! It relays only what the splitter gave it, one copy for each chunk that comes from anybody, so that it sends as
//! evenly as it receives. When the splitter gives the next chunk before the last one has reached everybody, the rest
//! is sent at once.

use std::net::SocketAddrV4;

use super::mates::Mates;

/// What to send: to whom, and which chunk.
pub(super) type Relay = (SocketAddrV4, u64);

#[derive(Debug, Default)]
pub(super) struct Burst {
    /// The last chunk from the splitter.
    own: Option<u64>,
    /// How many mates, of the first in the list, have it.
    given: usize,
    /// Somebody who had it is gone, so that it may be half given with `given` at 0.
    one_left: bool,
}

impl Burst {
    /// The splitter gave this chunk. Returns how many mates were dropped for their debts.
    pub(super) fn own(&mut self, number: u64, mates: &mut Mates, out: &mut Vec<Relay>) -> u64 {
        let mut selfish = 0;
        while (self.given > 0 || self.one_left) && self.given < mates.len() {
            selfish += self.give(mates, out);
        }
        (self.own, self.given, self.one_left) = (Some(number), 0, false);
        selfish + self.go_on(mates, out)
    }

    /// A chunk came: one copy of the own one goes out. Returns how many mates were dropped for their debts.
    pub(super) fn go_on(&mut self, mates: &mut Mates, out: &mut Vec<Relay>) -> u64 {
        if self.given < mates.len() {
            self.give(mates, out)
        } else {
            0
        }
    }

    fn give(&mut self, mates: &mut Mates, out: &mut Vec<Relay>) -> u64 {
        let (Some(own), Some(to)) = (self.own, mates.at(self.given)) else {
            return 0;
        };
        out.push((to, own));
        let selfish = mates.lend(self.given);
        self.given += usize::from(!selfish);
        u64::from(selfish)
    }

    /// The mate at `index` is gone.
    pub(super) fn forgot(&mut self, index: usize) {
        self.one_left |= index < self.given;
        self.given -= usize::from(index < self.given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn team(n: u16) -> (Burst, Mates) {
        let mut mates = Mates::new(500, 128, 8);
        for port in 1..=n {
            mates.meet(at(port), true);
        }
        (Burst::default(), mates)
    }

    fn sent(act: impl FnOnce(&mut Vec<Relay>) -> u64) -> Vec<(u16, u64)> {
        let mut out = Vec::new();
        act(&mut out);
        out.into_iter().map(|(to, number)| (to.port(), number)).collect()
    }

    #[test]
    fn one_copy_for_each_chunk_and_the_rest_in_a_burst() {
        let (mut burst, mut mates) = team(4);
        assert_eq!(
            sent(|out| burst.go_on(&mut mates, out)),
            [],
            "nothing to relay yet"
        );
        assert_eq!(sent(|out| burst.own(7, &mut mates, out)), [(1, 7)]);
        assert_eq!(sent(|out| burst.go_on(&mut mates, out)), [(2, 7)]);
        assert_eq!(
            sent(|out| burst.own(9, &mut mates, out)),
            [(3, 7), (4, 7), (1, 9)]
        );
        for to in 2..=4 {
            assert_eq!(sent(|out| burst.go_on(&mut mates, out)), [(to, 9)]);
        }
        assert_eq!(sent(|out| burst.go_on(&mut mates, out)), []);
        assert_eq!(sent(|out| burst.own(10, &mut mates, out)), [(1, 10)]);
    }

    #[test]
    fn nobody_is_passed_over_when_one_who_was_served_leaves() {
        let (mut burst, mut mates) = team(3);
        sent(|out| burst.own(7, &mut mates, out));
        burst.forgot(mates.forget(at(1)).unwrap());
        assert_eq!(
            sent(|out| burst.own(8, &mut mates, out)),
            [(2, 7), (3, 7), (2, 8)]
        );
    }

    #[test]
    fn who_owes_too_much_is_left_out() {
        let (mut burst, mut mates) = team(2);
        mates.paid(at(2));
        let mut selfish = 0;
        for number in 0..129 {
            selfish += burst.own(number, &mut mates, &mut Vec::new());
            selfish += burst.go_on(&mut mates, &mut Vec::new());
        }
        assert_eq!((selfish, mates.iter().collect::<Vec<_>>()), (1, vec![at(2)]));
    }
}
