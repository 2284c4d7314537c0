//! The mates of a secured peer: who they are, where they have shown that they are, and what waits for them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddrV4;

use relay_seam::Now;

use crate::limit::Allowance;
use crate::wire::t::Token;

/// What one mate may ask for in a second: a stream, where it and others cannot reach each other but through us.
const ANSWERS_PER_SECOND: u32 = 200;
/// Chunks that wait for one mate; then the oldest is forgotten: it would come too late anyway.
const WAITING_MAX: usize = 64;

/// One mate.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) at: SocketAddrV4,
    /// What we say begins with this.
    pub(super) send: Token,
    /// What it says begins with this.
    pub(super) recv: Token,
    /// It has shown that it is there: only then it gets more than it gives.
    pub(super) proven: bool,
    /// When it said something last.
    pub(super) heard: Now,
    /// When it was told something last.
    pub(super) told: Now,
    pub(super) answers: Allowance,
    /// We were told of it, and say hello: how often, and when again.
    pub(super) tries: u8,
    pub(super) again: Now,
    waiting: VecDeque<u64>,
}

impl Link {
    pub(super) fn new(at: SocketAddrV4, send: Token, recv: Token, now: Now) -> Self {
        Self {
            at,
            send,
            recv,
            proven: false,
            heard: now,
            told: now,
            answers: Allowance::per_second(ANSWERS_PER_SECOND, now),
            tries: 0,
            again: now,
            waiting: VecDeque::new(),
        }
    }
}

/// Bounded by configuration.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: BTreeMap<u64, Link>,
    tokens: HashMap<Token, u64>,
    /// Those who lied; never heard again.
    banned: Vec<u64>,
    served: u64,
}

impl Links {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn insert(&mut self, serial: u64, link: Link) {
        self.remove(serial);
        self.tokens.insert(link.recv, serial);
        self.all.insert(serial, link);
    }

    pub(super) fn remove(&mut self, serial: u64) -> bool {
        let gone = self.all.remove(&serial);
        if let Some(link) = &gone {
            self.tokens.remove(&link.recv);
        }
        gone.is_some()
    }

    pub(super) fn ban(&mut self, serial: u64) {
        self.remove(serial);
        if !self.banned.contains(&serial) {
            self.banned.push(serial);
        }
    }

    pub(super) fn is_banned(&self, serial: u64) -> bool {
        self.banned.contains(&serial)
    }

    pub(super) fn get(&self, serial: u64) -> Option<&Link> {
        self.all.get(&serial)
    }

    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut Link> {
        self.all.get_mut(&serial)
    }

    pub(super) fn with_token(&self, token: Token) -> Option<u64> {
        self.tokens.get(&token).copied()
    }

    pub(super) fn serials(&self) -> impl Iterator<Item = u64> + '_ {
        self.all.keys().copied()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Link)> + '_ {
        self.all.iter_mut().map(|(&serial, link)| (serial, link))
    }

    /// Those who have shown that they are there.
    pub(super) fn proven(&self) -> Vec<u64> {
        let proven = self.all.iter().filter(|(_, link)| link.proven);
        proven.map(|(&serial, _)| serial).collect()
    }

    /// A chunk that the splitter gave us waits for all mates now.
    pub(super) fn queue(&mut self, number: u64) {
        for link in self.all.values_mut().filter(|link| link.proven) {
            if link.waiting.len() == WAITING_MAX {
                link.waiting.pop_front();
            }
            link.waiting.push_back(number);
        }
    }

    /// The next mate for whom something waits, and all of it.
    pub(super) fn serve(&mut self) -> Option<(u64, VecDeque<u64>)> {
        let waits = |(_, link): &(&u64, &Link)| !link.waiting.is_empty();
        let behind = self.all.range(self.served.saturating_add(1)..).find(waits);
        let serial = behind
            .or_else(|| self.all.iter().find(waits))
            .map(|(&serial, _)| serial)?;
        self.served = serial;
        let link = self.all.get_mut(&serial)?;
        Some((serial, std::mem::take(&mut link.waiting)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn links(n: u64) -> Links {
        let mut links = Links::default();
        for serial in 1..=n {
            let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, serial as u16);
            let mut link = Link::new(at, Token(serial), Token(100 + serial), Now::new(0, 0));
            link.proven = serial != 3;
            links.insert(serial, link);
        }
        links
    }

    #[test]
    fn mates_are_served_in_turn_with_all_that_waits() {
        let mut links = links(4);
        links.queue(7);
        assert_eq!(links.serve(), Some((1, [7].into())));
        links.queue(8);
        assert_eq!(links.serve(), Some((2, [7, 8].into())));
        assert_eq!(
            links.serve(),
            Some((4, [7, 8].into())),
            "3 has not shown where it is"
        );
        assert_eq!(links.serve(), Some((1, [8].into())));
        assert_eq!(links.serve(), None);
        (0..1000).for_each(|number| links.queue(number));
        assert_eq!(links.serve().unwrap().1.len(), WAITING_MAX);
    }

    #[test]
    fn the_gone_are_not_heard() {
        let mut links = links(4);
        assert_eq!(links.with_token(Token(102)), Some(2));
        links.ban(2);
        assert!(links.is_banned(2) && !links.is_banned(1));
        assert_eq!((links.with_token(Token(102)), links.len()), (None, 3));
        assert!(links.remove(1) && !links.remove(1));
        assert_eq!(links.proven(), [4]);
    }
}
