//! A whole team in memory: the splitter's rules, peers that relay as the reference does, and a network in between.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use common::{Datagram, Peer};
use proptest::prelude::*;
use relay_seam::Now;
use splitter::Config;
use splitter::rules::{Act, Dbs, Source, Step};
use splitter::wire::b::{Chunk, GOODBYE};

fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

struct World {
    team: Dbs,
    now: Now,
    peers: BTreeMap<SocketAddrV4, Peer>,
    /// Under way: from, to, bytes.
    wire: Vec<(SocketAddrV4, Datagram)>,
    chunks: u64,
}

impl World {
    fn new(config: Config) -> Self {
        let now = Now::new(0, 0);
        let source = Source::new(at(8000), "eclipse.ts").unwrap();
        let team = Dbs::new(config, source, now).unwrap();
        Self {
            team,
            now,
            peers: BTreeMap::new(),
            wire: Vec::new(),
            chunks: 0,
        }
    }

    /// A team of `n` that know each other.
    fn of(n: u16, config: Config) -> Self {
        let mut world = Self::new(config);
        (1..=n).for_each(|port| world.join(port));
        world.deliver_all();
        world
    }

    fn splitter() -> SocketAddrV4 {
        at(8001)
    }

    fn join(&mut self, port: u16) {
        self.team.arrive(self.now, at(port)).unwrap();
        let told = self.team.hear(self.now, at(port), b"P").tell;
        let (peer, hellos) = Peer::new(Self::splitter(), &told, self.chunks);
        self.post(at(port), hellos);
        self.peers.insert(at(port), peer);
        assert_eq!(self.team.hear(self.now, at(port), b"R").step, Step::Joined);
    }

    fn leave(&mut self, port: u16) {
        let out = self.peers.get_mut(&at(port)).unwrap().leave();
        self.post(at(port), out);
    }

    fn post(&mut self, from: SocketAddrV4, out: Vec<Datagram>) {
        self.wire.extend(out.into_iter().map(|datagram| (from, datagram)));
    }

    /// The next chunk, whose data is its number.
    fn chunk(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let turn = self.team.chunk(self.now);
        assert_eq!(turn.number, self.chunks);
        let data = self.chunks.to_be_bytes();
        self.chunks += 1;
        if let Some(to) = turn.to {
            let mut datagram = Chunk::header(turn.number).to_vec();
            datagram.extend_from_slice(&data);
            self.post(Self::splitter(), vec![(to, datagram)]);
        }
        self.act();
    }

    fn act(&mut self) {
        while let Some(act) = self.team.poll() {
            if let Act::Goodbye(to) = act {
                self.post(Self::splitter(), vec![(to, GOODBYE.to_vec())]);
            }
        }
    }

    fn deliver(&mut self, which: usize) {
        let (from, (to, datagram)) = self.wire.remove(which);
        if to == Self::splitter() {
            self.team.datagram(self.now, from, &datagram);
            return self.act();
        }
        if let Some(peer) = self.peers.get_mut(&to) {
            let out = peer.hear(from, &datagram);
            self.post(to, out);
        }
    }

    fn deliver_all(&mut self) {
        while !self.wire.is_empty() {
            self.deliver(0);
        }
    }

    fn stream(&mut self, chunks: u64) {
        for _ in 0..chunks {
            self.chunk();
            self.deliver_all();
        }
    }

    /// The numbers of `range` that the peer lacks, or has with other data.
    fn lacks(&self, port: u16, range: std::ops::Range<u64>) -> Vec<u64> {
        let got = &self.peers[&at(port)].got;
        range
            .filter(|number| got.get(number).is_none_or(|data| **data != number.to_be_bytes()))
            .collect()
    }
}

fn tiny() -> Config {
    Config {
        chunk_bytes: 8,
        ..Config::default()
    }
}

#[test]
fn every_peer_gets_the_whole_stream() {
    for n in [1, 2, 3, 7, 40] {
        let mut world = World::of(n, tiny());
        world.stream(400);
        // What the last round carries is still being relayed when the stream ends.
        let whole = 400 - 2 * u64::from(n);
        for port in 1..=n {
            assert_eq!(world.lacks(port, 0..whole), [], "peer {port} of {n}");
        }
        assert_eq!(world.team.stats().chunks_sent, 400, "one upload of the stream");
    }
}

#[test]
fn numbers_wrap_and_nobody_notices() {
    let mut world = World::of(3, tiny());
    for _ in 0..7 {
        world.stream(10_000);
        // Behind the window nothing is needed any more.
        for port in 1..=3 {
            let (from, to) = (world.chunks - 10_000, world.chunks - 6);
            assert_eq!(world.lacks(port, from..to), []);
            let peer = world.peers.get_mut(&at(port)).unwrap();
            peer.got = peer.got.split_off(&to);
        }
    }
    assert_eq!(world.team.stats().chunks, 70_000);
}

#[test]
fn newcomers_get_everything_from_when_they_are_known() {
    let mut world = World::of(2, tiny());
    world.stream(70);
    world.join(3);
    world.deliver_all();
    world.stream(200);
    assert_eq!(world.lacks(3, 72..260), []);
    assert_eq!(world.lacks(1, 0..260), []);
}

#[test]
fn a_polite_leave_costs_nobody_a_chunk() {
    for leaver in 1..=6 {
        for when in 30..42 {
            let mut world = World::of(6, tiny());
            world.stream(when);
            world.leave(leaver);
            world.stream(150);
            assert!(world.peers[&at(leaver)].left, "its goodbye was answered");
            for port in (1..=6).filter(|&port| port != leaver) {
                assert_eq!(
                    world.lacks(port, 0..when + 130),
                    [],
                    "peer {port} when {leaver} left at {when}"
                );
            }
        }
    }
}

#[test]
fn the_team_may_empty_and_begin_again() {
    let mut world = World::of(2, tiny());
    world.stream(20);
    world.leave(1);
    world.stream(1);
    world.leave(2);
    world.stream(20);
    assert!(world.team.peers().is_empty());
    world.join(3);
    world.stream(20);
    assert_eq!(world.lacks(3, 41..61), []);
}

#[test]
fn a_selfish_peer_is_expelled_by_complaints_and_the_rest_hear_on() {
    let mut world = World::of(4, tiny());
    world.peers.get_mut(&at(2)).unwrap().selfish = true;
    world.stream(160);
    for number in world.lacks(1, 0..150) {
        let complaint = (number as u16).to_be_bytes();
        world.team.datagram(world.now, at(1), &complaint);
    }
    assert_eq!(world.team.peers(), [at(1), at(3), at(4)]);
    assert_eq!(world.team.stats().expelled_losses, 1);
    let from = world.chunks + 8;
    world.stream(200);
    assert_eq!(world.lacks(1, from..from + 180), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The burst of congestion avoidance passes a chunk on before the next: so a network that delays and reorders
    /// as it likes, but loses nothing, costs no chunk.
    #[test]
    fn delay_and_reordering_cost_no_chunk(n in 1u16..9, picks in prop::collection::vec(0usize..10_000, 900)) {
        let mut world = World::of(n, tiny());
        let mut picks = picks.into_iter();
        for _ in 0..60 {
            world.chunk();
            for pick in picks.by_ref().take(15) {
                if !world.wire.is_empty() {
                    world.deliver(pick % world.wire.len());
                }
            }
        }
        world.deliver_all();
        // The last chunks of each peer have no next one behind them; and what came late may be overtaken.
        world.stream(4 * u64::from(n));
        for port in 1..=n {
            prop_assert_eq!(world.lacks(port, 0..60), vec![]);
        }
    }
}
