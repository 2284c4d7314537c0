//! Team mates, in the order in which they were met, and what each owes.
//!
//! A chunk sent is a debt of one, a chunk received pays one back. Who owes too much is not served any more until it
//! sends something. Debts fade while chunks are sent, so that a mate behind a lossy path is not taken for a selfish
//! one: at a limit of 128, up to a quarter of what it sends may be lost.

use std::net::SocketAddrV4;

#[derive(Clone, Copy, Debug)]
struct Mate {
    at: SocketAddrV4,
    debt: i32,
    sent: u32,
    /// The splitter named it, or it has sent a chunk: it is really there.
    known: bool,
}

/// Bounded by configuration.
#[derive(Debug)]
pub(super) struct Mates {
    list: Vec<Mate>,
    max: usize,
    debt_max: i32,
    stranger_debt_max: i32,
}

/// What became of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// It is a mate now.
    New,
    /// It was one.
    Known,
    /// There are too many.
    Full,
    /// Nobody can be there.
    Impossible,
}

impl Mates {
    pub(super) fn new(max: u16, debt_max: u32, stranger_debt_max: u32) -> Self {
        let debt = |max| i32::try_from(max).unwrap_or(i32::MAX / 2);
        Self {
            list: Vec::new(),
            max: usize::from(max),
            debt_max: debt(debt_max),
            stranger_debt_max: debt(stranger_debt_max),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn at(&self, index: usize) -> Option<SocketAddrV4> {
        self.list.get(index).map(|mate| mate.at)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = SocketAddrV4> + '_ {
        self.list.iter().map(|mate| mate.at)
    }

    /// Where it is in the list.
    pub(super) fn index(&self, at: SocketAddrV4) -> Option<usize> {
        self.list.iter().position(|mate| mate.at == at)
    }

    /// Somebody is at this endpoint. `known` where the splitter says so.
    pub(super) fn meet(&mut self, at: SocketAddrV4, known: bool) -> Met {
        let ip = at.ip();
        if ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified() || at.port() == 0 {
            return Met::Impossible;
        }
        match self.index(at) {
            Some(index) => {
                self.list[index].known |= known;
                Met::Known
            }
            None if self.list.len() >= self.max => Met::Full,
            None => {
                let (debt, sent) = (0, 0);
                self.list.push(Mate {
                    at,
                    debt,
                    sent,
                    known,
                });
                Met::New
            }
        }
    }

    /// It sent a chunk.
    pub(super) fn paid(&mut self, at: SocketAddrV4) {
        if let Some(index) = self.index(at) {
            let mate = &mut self.list[index];
            mate.debt = (mate.debt - 1).max(-self.debt_max);
            mate.known = true;
        }
    }

    /// It gets a chunk. Whether it owes too much now, and is no mate any more.
    pub(super) fn lend(&mut self, index: usize) -> bool {
        let (max, stranger_max) = (self.debt_max, self.stranger_debt_max);
        let mate = &mut self.list[index];
        mate.debt += 1;
        mate.sent += 1;
        if mate.sent >= 2 * max.unsigned_abs() {
            (mate.sent, mate.debt) = (0, mate.debt / 2);
        }
        let over = mate.debt > if mate.known { max } else { stranger_max };
        if over {
            self.list.remove(index);
        }
        over
    }

    /// Where it was.
    pub(super) fn forget(&mut self, at: SocketAddrV4) -> Option<usize> {
        let index = self.index(at)?;
        self.list.remove(index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn mates() -> Mates {
        Mates::new(3, 128, 8)
    }

    /// Chunks that it gets until it is served no more, when it sends one for each `every` of them.
    fn served(mates: &mut Mates, every: u32) -> u32 {
        (1..10_000)
            .find(|n| {
                if n % every == 0 {
                    mates.paid(at(1));
                }
                mates.lend(0)
            })
            .unwrap_or(u32::MAX)
    }

    #[test]
    fn who_gives_nothing_gets_nothing_and_strangers_sooner() {
        for (known, limit) in [(true, 129), (false, 9)] {
            let mut mates = mates();
            assert_eq!(mates.meet(at(1), known), Met::New);
            assert_eq!(served(&mut mates, u32::MAX), limit);
            assert!(mates.index(at(1)).is_none());
            assert_eq!(mates.meet(at(1), true), Met::New, "it may come back");
        }
    }

    #[test]
    fn loss_is_no_selfishness() {
        // Each fourth chunk is lost, on the way to us.
        let mut mates = mates();
        mates.meet(at(1), true);
        let selfish = (1..100_000).any(|n| {
            if n % 4 != 0 {
                mates.paid(at(1));
            }
            mates.lend(0)
        });
        assert!(!selfish);
        let mut mates = Mates::new(1, 128, 8);
        mates.meet(at(1), true);
        assert_ne!(served(&mut mates, 4), u32::MAX, "one for four is");
    }

    #[test]
    fn nobody_is_met_where_nobody_can_be() {
        let mut mates = mates();
        for bad in ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "10.0.0.1:0"] {
            assert_eq!(mates.meet(bad.parse().unwrap(), true), Met::Impossible);
        }
        assert!((1..=3).all(|port| mates.meet(at(port), true) == Met::New));
        assert_eq!(mates.meet(at(4), true), Met::Full);
        assert_eq!(mates.meet(at(3), true), Met::Known);
        assert_eq!((mates.forget(at(2)), mates.forget(at(2))), (Some(1), None));
        assert_eq!(mates.iter().collect::<Vec<_>>(), [at(1), at(3)]);
    }
}
