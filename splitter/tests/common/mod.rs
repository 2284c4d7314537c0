//! A generation B peer without I/O, as the reference does it (congestion avoidance and burst), for the tests here.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

pub mod pcap;
pub mod secured;
pub mod world;

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use splitter::wire::b::{GOODBYE, HELLO, ToPeer, Welcome};

/// A peer that received nothing from another for so many chunks stops serving it.
const DEBT_MAX: i32 = 128;

/// Says where a datagram goes, and what it is.
pub type Datagram = (SocketAddrV4, Vec<u8>);

pub struct Peer {
    splitter: SocketAddrV4,
    chunk_bytes: u16,
    list: Vec<(SocketAddrV4, i32)>,
    /// The last chunk from the splitter, and how many peers have it.
    own: Vec<u8>,
    given: usize,
    /// Somebody who had it is gone, so that it may be half given with `given` at 0.
    one_left: bool,
    /// Data by number, unwrapped against the newest.
    pub got: BTreeMap<u64, Vec<u8>>,
    newest: u64,
    leaving: bool,
    /// It has said goodbye to everybody.
    pub left: bool,
    /// Gets chunks from the splitter, and relays none.
    pub selfish: bool,
}

impl Peer {
    /// A peer that got this welcome; `near` is any chunk number less than 2^15 from the next.
    pub fn new(splitter: SocketAddrV4, welcome: &[u8], near: u64) -> (Self, Vec<Datagram>) {
        let (welcome, _) = Welcome::parse(welcome).unwrap().unwrap();
        let peer = Self {
            splitter,
            chunk_bytes: welcome.chunk_bytes,
            list: welcome.peers.iter().map(|peer| (peer, 0)).collect(),
            own: Vec::new(),
            given: 0,
            one_left: false,
            got: BTreeMap::new(),
            newest: near,
            leaving: false,
            left: false,
            selfish: false,
        };
        let hellos = peer
            .list
            .iter()
            .map(|&(other, _)| (other, HELLO.to_vec()))
            .collect();
        (peer, hellos)
    }

    pub fn leave(&mut self) -> Vec<Datagram> {
        self.leaving = true;
        vec![(self.splitter, GOODBYE.to_vec())]
    }

    /// A datagram came; what it sends then.
    pub fn hear(&mut self, from: SocketAddrV4, datagram: &[u8]) -> Vec<Datagram> {
        let mut out = Vec::new();
        if self.left {
            return out;
        }
        match ToPeer::parse(datagram, self.chunk_bytes).unwrap() {
            ToPeer::Chunk(chunk) => {
                self.keep(chunk.number, chunk.data);
                self.relay(from, datagram, &mut out);
                if self.leaving {
                    out.push((self.splitter, GOODBYE.to_vec()));
                }
            }
            ToPeer::Hello => self.meet(from),
            ToPeer::Goodbye if from == self.splitter => self.go(&mut out),
            ToPeer::Goodbye => self.forget(from),
        }
        out
    }

    fn keep(&mut self, number: u16, data: &[u8]) {
        let ahead = number.wrapping_sub(self.newest as u16) as i16;
        let number = self.newest.checked_add_signed(i64::from(ahead)).unwrap();
        self.newest = self.newest.max(number);
        let before = self.got.insert(number, data.to_vec());
        assert_eq!(before, None, "chunk {number} came twice");
    }

    fn relay(&mut self, from: SocketAddrV4, datagram: &[u8], out: &mut Vec<Datagram>) {
        if from == self.splitter {
            while (self.given > 0 || self.one_left) && self.given < self.list.len() {
                self.give(out);
            }
            (self.given, self.one_left, self.own) = (0, false, datagram.to_vec());
        } else {
            self.meet(from);
            self.list
                .iter_mut()
                .filter(|(peer, _)| *peer == from)
                .for_each(|(_, debt)| *debt -= 1);
        }
        if self.given < self.list.len() && !self.own.is_empty() {
            self.give(out);
        }
    }

    fn give(&mut self, out: &mut Vec<Datagram>) {
        let (peer, debt) = &mut self.list[self.given];
        if !self.selfish {
            out.push((*peer, self.own.clone()));
        }
        *debt += 1;
        match *debt > DEBT_MAX {
            true => drop(self.list.remove(self.given)),
            false => self.given += 1,
        }
    }

    fn meet(&mut self, peer: SocketAddrV4) {
        if !self.list.iter().any(|(other, _)| *other == peer) {
            self.list.push((peer, 0));
        }
    }

    fn forget(&mut self, peer: SocketAddrV4) {
        if let Some(at) = self.list.iter().position(|(other, _)| *other == peer) {
            self.list.remove(at);
            self.one_left |= at < self.given;
            self.given -= usize::from(at < self.given);
        }
    }

    fn go(&mut self, out: &mut Vec<Datagram>) {
        if self.leaving {
            self.left = true;
            out.extend(self.list.iter().map(|&(other, _)| (other, GOODBYE.to_vec())));
        }
    }
}
