//! Newcomers on their way in, over TCP: greeting, welcome, ready; each step in its time.

use std::net::SocketAddrV4;

use relay_seam::Now;

use crate::wire::WireError;
use crate::wire::b::{Greeting, READY};

/// What a newcomer's byte means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It says what it is: it wants the welcome.
    Greeted(Greeting),
    /// It is ready for chunks, and no arrival any more; what it said it is, if it was to say so.
    Ready(Option<Greeting>),
    /// It does not follow the protocol, and is no arrival any more.
    Nonsense(WireError),
    /// It is no arrival.
    Stranger,
}

#[derive(Debug)]
struct Arrival {
    from: SocketAddrV4,
    greeted: Option<Greeting>,
    told: bool,
    until: Now,
}

/// A short list: it is bounded by configuration, and searched.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    list: Vec<Arrival>,
}

impl Arrivals {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// How many others have this one's address.
    pub(super) fn at_address(&self, from: SocketAddrV4) -> usize {
        let same = |arrival: &&Arrival| arrival.from.ip() == from.ip();
        self.list.iter().filter(same).count()
    }

    /// A connection from `from` is there; what it is must be said by `until`. One that was there before is forgotten.
    pub(super) fn add(&mut self, from: SocketAddrV4, until: Now) {
        self.remove(from);
        self.list.push(Arrival {
            from,
            greeted: None,
            told: false,
            until,
        });
    }

    /// The same for one that is told without a greeting.
    pub(super) fn add_told(&mut self, from: SocketAddrV4, until: Now) {
        self.add(from, until);
        self.list
            .iter_mut()
            .for_each(|arrival| arrival.told |= arrival.from == from);
    }

    /// Returns whether it was on its way in.
    pub(super) fn remove(&mut self, from: SocketAddrV4) -> bool {
        let before = self.list.len();
        self.list.retain(|arrival| arrival.from != from);
        self.list.len() < before
    }

    /// One byte of a newcomer, which must be ready by `until` when this is its greeting.
    pub(super) fn hear(&mut self, from: SocketAddrV4, byte: u8, until: Now) -> Said {
        let Some(arrival) = self.list.iter_mut().find(|arrival| arrival.from == from) else {
            return Said::Stranger;
        };
        match (arrival.told, Greeting::parse(byte)) {
            (false, Ok(greeting)) => {
                (arrival.greeted, arrival.told, arrival.until) = (Some(greeting), true, until);
                Said::Greeted(greeting)
            }
            (false, Err(error)) => self.nonsense(from, error),
            (true, _) if byte == READY => {
                let greeting = arrival.greeted;
                self.remove(from);
                Said::Ready(greeting)
            }
            (true, _) => {
                let got = format!("byte {byte:#04x}");
                self.nonsense(from, WireError { expected: "`R`", got })
            }
        }
    }

    fn nonsense(&mut self, from: SocketAddrV4, error: WireError) -> Said {
        self.remove(from);
        Said::Nonsense(error)
    }

    /// Those who have been told about the team: the next newcomer must know them, or neither would ever hear of the
    /// other.
    pub(super) fn told(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.list
            .iter()
            .filter(|arrival| arrival.told)
            .map(|arrival| arrival.from)
    }

    /// Takes out one whose time is over.
    pub(super) fn expire(&mut self, now: Now) -> Option<SocketAddrV4> {
        let at = self.list.iter().position(|arrival| arrival.until <= now)?;
        Some(self.list.remove(at).from)
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        self.list.iter().map(|arrival| arrival.until).min()
    }
}
