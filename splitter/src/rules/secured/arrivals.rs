//! Newcomers of a secured team: a request over TCP, then proof by datagram; each in its time.

use std::net::{Ipv4Addr, SocketAddrV4};

use relay_seam::Now;

use crate::wire::WireError;
use crate::wire::t::{REQUEST_BYTES, Request, Token};

/// How far one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What it said so far, at most [`REQUEST_BYTES`].
    Asking(Vec<u8>),
    /// It has its tokens.
    Told {
        /// Who it will be.
        serial: u64,
        /// What it says to us begins with this.
        pass: Token,
        /// It showed a ticket.
        monitor: bool,
    },
}

#[derive(Debug)]
struct Arrival {
    door: SocketAddrV4,
    stage: Stage,
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

    pub(super) fn at_address(&self, ip: Ipv4Addr) -> usize {
        self.list
            .iter()
            .filter(|arrival| *arrival.door.ip() == ip)
            .count()
    }

    pub(super) fn add(&mut self, door: SocketAddrV4, until: Now) {
        let stage = Stage::Asking(Vec::new());
        self.list.push(Arrival { door, stage, until });
    }

    pub(super) fn remove(&mut self, door: SocketAddrV4) -> Option<Stage> {
        let at = self.list.iter().position(|arrival| arrival.door == door)?;
        Some(self.list.remove(at).stage)
    }

    /// What a newcomer said, when it is complete. `None` for one that is not on its way in.
    pub(super) fn hear(
        &mut self,
        door: SocketAddrV4,
        bytes: &[u8],
    ) -> Option<Result<Option<Request>, WireError>> {
        let arrival = self.list.iter_mut().find(|arrival| arrival.door == door)?;
        let Stage::Asking(said) = &mut arrival.stage else {
            // It was answered, and has nothing more to say; it is not read.
            return Some(Ok(None));
        };
        let room = REQUEST_BYTES - said.len();
        said.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Some(Request::parse(said))
    }

    pub(super) fn set(&mut self, door: SocketAddrV4, stage: Stage, until: Now) {
        if let Some(arrival) = self.list.iter_mut().find(|arrival| arrival.door == door) {
            (arrival.stage, arrival.until) = (stage, until);
        }
    }

    /// The newcomer whose token this is: its door, its serial, and whether it is a monitor.
    pub(super) fn with_pass(&self, token: Token) -> Option<(SocketAddrV4, u64, bool)> {
        self.list.iter().find_map(|arrival| match arrival.stage {
            Stage::Told {
                serial,
                pass,
                monitor,
            } if pass == token => Some((arrival.door, serial, monitor)),
            _ => None,
        })
    }

    /// Takes out one whose time is over.
    pub(super) fn expire(&mut self, now: Now) -> Option<SocketAddrV4> {
        let at = self.list.iter().position(|arrival| arrival.until <= now)?;
        Some(self.list.remove(at).door)
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        self.list.iter().map(|arrival| arrival.until).min()
    }
}
