//! How a member of generation C relays: by a table that says whose chunks go to whom.
//!
//! *forward*: for each origin, the neighbours that get its chunks from here. At first there is one row: what the
//! splitter gave us goes to everybody we know. Who lacks a chunk *requests* it and gets it, and its origin's from
//! then on; who gets one twice *prunes*, and gets no more of that origin's. So each origin's tree mends itself
//! around paths and peers that do not work.
//!
//! *pending*: what each neighbour is to get. Each new chunk serves one neighbour, in turn, with all that waits for
//! it.
//!
//! With IMS the neighbours of our subnet are one: a multicast group gets what the splitter gave us.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::burst::Relay;
use super::mates::Mates;

/// A subnet whose members hear a multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Any address in it.
    pub address: Ipv4Addr,
    /// Bits of its prefix, at most 32.
    pub prefix: u8,
    /// The group.
    pub group: SocketAddrV4,
}

impl Subnet {
    /// Whether it is in this subnet.
    pub fn contains(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0);
        u32::from(self.address) & mask == u32::from(other) & mask
    }
}

/// What is known about a chunk in the buffer.
#[derive(Clone, Copy, Debug)]
struct Card {
    number: u64,
    origin: SocketAddrV4,
    from: SocketAddrV4,
}

#[derive(Debug)]
struct Line {
    to: SocketAddrV4,
    waiting: VecDeque<u64>,
}

/// Bounded by the mates, the buffer and [`WAITING_MAX`].
#[derive(Debug)]
pub(super) struct Flood {
    me: SocketAddrV4,
    subnet: Option<Subnet>,
    forward: HashMap<SocketAddrV4, Vec<SocketAddrV4>>,
    pending: Vec<Line>,
    next: usize,
    cards: Vec<Option<Card>>,
    providers: HashMap<SocketAddrV4, Provider>,
}

/// From whom an origin's chunks come, at present. Others are pruned, but not this one: two that were pruned at the
/// same time, each for the other, would both be gone.
#[derive(Clone, Copy, Debug)]
struct Provider {
    at: SocketAddrV4,
    /// Chunks in a row that somebody else had first.
    behind: u8,
}

/// After so many chunks in a row that came from others, one of them is the provider.
const BEHIND_MAX: u8 = 4;

/// Chunks that wait for one neighbour; then the oldest is forgotten: it would come too late anyway.
const WAITING_MAX: usize = 256;

impl Flood {
    /// For the peer that the splitter sees at `me`, with as many cards as its buffer has slots.
    pub(super) fn new(me: SocketAddrV4, subnet: Option<Subnet>, slots: usize) -> Self {
        Self {
            me,
            subnet,
            forward: HashMap::new(),
            pending: Vec::new(),
            next: 0,
            cards: vec![None; slots],
            providers: HashMap::new(),
        }
    }

    /// Whether it is ourselves that speak: a multicast may come back.
    pub(super) fn is_me(&self, from: SocketAddrV4) -> bool {
        from == self.me
    }

    /// A new mate gets what the splitter gives us.
    pub(super) fn met(&mut self, mate: SocketAddrV4) {
        let near = self.subnet.filter(|subnet| subnet.contains(*mate.ip()));
        let to = near.map_or(mate, |subnet| subnet.group);
        self.route(self.me, to);
    }

    fn route(&mut self, origin: SocketAddrV4, to: SocketAddrV4) {
        let row = self.forward.entry(origin).or_default();
        if !row.contains(&to) {
            row.push(to);
        }
        if !self.pending.iter().any(|line| line.to == to) {
            let waiting = VecDeque::new();
            self.pending.push(Line { to, waiting });
        }
    }

    /// A mate is gone.
    pub(super) fn forgot(&mut self, mate: SocketAddrV4) {
        for row in self.forward.values_mut() {
            row.retain(|&to| to != mate);
        }
        self.forward.retain(|_, row| !row.is_empty());
        self.providers
            .retain(|&origin, provider| origin != mate && provider.at != mate);
        if let Some(at) = self.pending.iter().position(|line| line.to == mate) {
            self.pending.remove(at);
            self.next -= usize::from(at < self.next);
        }
    }

    /// A chunk is in the buffer now.
    pub(super) fn keep(&mut self, number: u64, origin: SocketAddrV4, from: SocketAddrV4) {
        let slot = self.slot(number);
        self.cards[slot] = Some(Card { number, origin, from });
        let Some(row) = self.forward.get(&origin) else {
            return;
        };
        let gets = |to: SocketAddrV4| to != from && to != origin && row.contains(&to);
        for line in self.pending.iter_mut().filter(|line| gets(line.to)) {
            if line.waiting.len() == WAITING_MAX {
                line.waiting.pop_front();
            }
            line.waiting.push_back(number);
        }
    }

    fn slot(&self, number: u64) -> usize {
        // The remainder is below 2^17.
        (number % self.cards.len() as u64) as usize
    }

    fn card(&self, number: u64) -> Option<Card> {
        self.cards[self.slot(number)].filter(|card| card.number == number)
    }

    /// Who was to relay the chunk first.
    pub(super) fn origin(&self, number: u64) -> Option<SocketAddrV4> {
        self.card(number).map(|card| card.origin)
    }

    /// The next neighbour for whom something waits gets all of it. Returns the mates dropped for their debts.
    pub(super) fn serve(&mut self, mates: &mut Mates, out: &mut Vec<Relay>) -> u64 {
        let n = self.pending.len();
        let waits = |at: &usize| !self.pending[*at].waiting.is_empty();
        let Some(at) = (0..n).map(|step| (self.next + step) % n).find(waits) else {
            return 0;
        };
        self.next = at + 1;
        let (to, waiting) = (self.pending[at].to, std::mem::take(&mut self.pending[at].waiting));
        let selfish = waiting
            .into_iter()
            .any(|number| self.give(to, number, mates, out));
        if selfish {
            self.forgot(to);
        }
        u64::from(selfish)
    }

    /// Whether the mate was dropped for its debts. A group owes nothing.
    fn give(&self, to: SocketAddrV4, number: u64, mates: &mut Mates, out: &mut Vec<Relay>) -> bool {
        let group = self.subnet.is_some_and(|subnet| subnet.group == to);
        match mates.index(to) {
            Some(index) => {
                out.push((to, number));
                mates.lend(index)
            }
            None => {
                if group {
                    out.push((to, number));
                }
                false
            }
        }
    }

    /// A mate sent a chunk that is new here: whether it is its origin's provider. Origins must be mates.
    pub(super) fn provided(&mut self, origin: SocketAddrV4, from: SocketAddrV4) {
        let (at, behind) = (from, 0);
        let provider = self.providers.entry(origin).or_insert(Provider { at, behind });
        provider.behind = if provider.at == from {
            0
        } else {
            provider.behind + 1
        };
        if provider.behind == BEHIND_MAX || from == origin {
            *provider = Provider { at, behind };
        }
    }

    /// A chunk came again, by another way: who is to send no more of its origin's. The origin itself is the shortest
    /// way, then the provider.
    pub(super) fn surplus(&mut self, number: u64, from: SocketAddrV4) -> Option<SocketAddrV4> {
        let card = self.card(number).filter(|card| card.from != from)?;
        let provider = self.providers.get_mut(&card.origin);
        let is_provider = provider.is_some_and(|provider| {
            let (at, behind) = (from, 0);
            if from == card.origin {
                *provider = Provider { at, behind };
            }
            provider.at == from
        });
        Some(if is_provider { card.from } else { from })
    }

    /// A mate lacks this chunk: it gets it, and its origin's from now on. `None` if the chunk is not here; otherwise
    /// whether the mate was dropped for its debts.
    pub(super) fn request(
        &mut self,
        number: u64,
        from: SocketAddrV4,
        mates: &mut Mates,
        out: &mut Vec<Relay>,
    ) -> Option<bool> {
        let origin = self.origin(number)?;
        // Rows are for us and for mates only: whatever chunks may say about their origin, the table is bounded.
        if origin != from && (origin == self.me || mates.index(origin).is_some()) {
            self.route(origin, from);
        }
        let selfish = self.give(from, number, mates, out);
        if selfish {
            self.forgot(from);
        }
        Some(selfish)
    }

    /// A neighbour had this chunk already.
    pub(super) fn prune(&mut self, number: u64, from: SocketAddrV4) {
        let Some(origin) = self.origin(number) else { return };
        if let Some(row) = self.forward.get_mut(&origin) {
            row.retain(|&to| to != from);
        }
        self.forward.retain(|_, row| !row.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    const ME: u16 = 100;
    const SPLITTER: u16 = 8001;

    fn team(n: u16) -> (Flood, Mates) {
        let (mut flood, mut mates) = (Flood::new(at(ME), None, 16), Mates::new(500, 128, 8));
        for port in 1..=n {
            mates.meet(at(port), true);
            flood.met(at(port));
        }
        (flood, mates)
    }

    fn serve(flood: &mut Flood, mates: &mut Mates) -> Vec<(u16, u64)> {
        let mut out = Vec::new();
        flood.serve(mates, &mut out);
        out.into_iter().map(|(to, number)| (to.port(), number)).collect()
    }

    #[test]
    fn own_chunks_go_to_everybody_in_turn_and_in_one_burst() {
        let (mut flood, mut mates) = team(3);
        assert_eq!(serve(&mut flood, &mut mates), []);
        flood.keep(1, at(ME), at(SPLITTER));
        assert_eq!(serve(&mut flood, &mut mates), [(1, 1)]);
        flood.keep(2, at(1), at(1));
        flood.keep(3, at(ME), at(SPLITTER));
        assert_eq!(serve(&mut flood, &mut mates), [(2, 1), (2, 3)]);
        assert_eq!(serve(&mut flood, &mut mates), [(3, 1), (3, 3)]);
        assert_eq!(serve(&mut flood, &mut mates), [(1, 3)]);
        assert_eq!(serve(&mut flood, &mut mates), []);
    }

    #[test]
    fn requests_open_a_way_at_once_and_prunes_close_it() {
        let (mut flood, mut mates) = team(3);
        flood.keep(1, at(2), at(2));
        let mut out = Vec::new();
        assert_eq!(flood.request(9, at(3), &mut mates, &mut out), None);
        assert_eq!(flood.request(1, at(3), &mut mates, &mut out), Some(false));
        assert_eq!(out, [(at(3), 1)]);
        flood.keep(4, at(2), at(2));
        assert_eq!(serve(&mut flood, &mut mates), [(3, 4)]);
        flood.prune(4, at(3));
        flood.keep(5, at(2), at(2));
        assert_eq!(serve(&mut flood, &mut mates), []);
        flood.keep(6, at(77), at(2));
        flood.request(6, at(3), &mut mates, &mut out);
        assert!(
            !flood.forward.contains_key(&at(77)),
            "an origin that nobody knows has no row"
        );
    }

    #[test]
    fn of_two_ways_one_is_pruned_and_not_both() {
        let (mut flood, _) = team(3);
        let mut came = |number, from: u16| {
            flood.keep(number, at(9), at(from));
            flood.provided(at(9), at(from));
        };
        came(1, 1);
        came(2, 2);
        assert_eq!(flood.surplus(1, at(1)), None, "the network doubled it");
        assert_eq!(flood.surplus(1, at(2)), Some(at(2)));
        assert_eq!(flood.surplus(2, at(1)), Some(at(2)), "the later one, again");
        assert_eq!(flood.surplus(7, at(1)), None);
        let mut came = |number, from: u16| {
            flood.keep(number, at(9), at(from));
            flood.provided(at(9), at(from));
        };
        (3..6).for_each(|number| came(number, 2));
        assert_eq!(
            flood.surplus(5, at(1)),
            Some(at(1)),
            "it has been behind for long"
        );
        assert_eq!(flood.surplus(5, at(9)), Some(at(2)), "the origin itself");
        assert_eq!(flood.surplus(5, at(1)), Some(at(1)));
    }

    #[test]
    fn who_asks_for_everything_and_gives_nothing_is_dropped() {
        let (mut flood, mut mates) = team(1);
        flood.keep(1, at(ME), at(SPLITTER));
        let mut out = Vec::new();
        let selfish = (0..200).find(|_| flood.request(1, at(1), &mut mates, &mut out) == Some(true));
        assert_eq!((selfish, mates.len(), out.len()), (Some(128), 0, 129));
        flood.request(1, at(1), &mut mates, &mut out);
        assert_eq!(out.len(), 129, "no mate, no chunk");
    }

    #[test]
    fn what_waits_is_bounded_and_the_gone_get_nothing() {
        let (mut flood, mut mates) = team(2);
        (0..1000).for_each(|number| flood.keep(number, at(ME), at(SPLITTER)));
        mates.forget(at(1));
        flood.forgot(at(1));
        // More than a mate may owe.
        assert_eq!(serve(&mut flood, &mut mates).len(), 129);
        assert_eq!((serve(&mut flood, &mut mates), mates.len()), (vec![], 0));
        let (mut flood, _) = team(1);
        (0..1000).for_each(|number| flood.keep(number, at(ME), at(SPLITTER)));
        assert_eq!(flood.pending[0].waiting.len(), WAITING_MAX);
        assert_eq!(flood.pending[0].waiting[0], 1000 - WAITING_MAX as u64);
    }

    #[test]
    fn neighbours_in_the_subnet_are_one_group() {
        let group = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 1234);
        let subnet = Subnet {
            address: Ipv4Addr::new(10, 0, 0, 7),
            prefix: 24,
            group,
        };
        let all = Subnet { prefix: 0, ..subnet };
        let one = Subnet { prefix: 32, ..subnet };
        let far = Ipv4Addr::new(10, 0, 1, 1);
        assert!(!subnet.contains(far) && all.contains(far));
        assert!(one.contains(subnet.address) && !one.contains(Ipv4Addr::new(10, 0, 0, 8)));

        let (mut flood, mut mates) = (Flood::new(at(ME), Some(subnet), 16), Mates::new(9, 128, 8));
        for ip in [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), far] {
            mates.meet(SocketAddrV4::new(ip, 1), true);
            flood.met(SocketAddrV4::new(ip, 1));
        }
        flood.keep(1, at(ME), at(SPLITTER));
        let mut out = Vec::new();
        (0..5).for_each(|_| assert_eq!(flood.serve(&mut mates, &mut out), 0));
        assert_eq!(out, [(group, 1), (SocketAddrV4::new(far, 1), 1)]);
    }
}
