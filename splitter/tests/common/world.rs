//! A whole team in one process: the splitter's rules, the peers' rules, and a seeded network between them.
//!
//! TCP is modelled as it behaves (in order, complete, late), UDP as it may: late, lost, doubled, overtaken. The same
//! seed gives the same story.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddrV4};

use relay_seam::Now;
use splitter::Config;
use splitter::peer::{self, Ended, Peer, PeerConfig, SecuredPeer};
use splitter::rules::{self, Source, Splitter};

pub const CHUNK_BYTES: u16 = 8;
const MS: u64 = 1_000_000;

pub fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

pub fn splitter_at() -> SocketAddrV4 {
    at(8001)
}

/// A small generator (splitmix64): the same everywhere.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    /// With a probability of `per_mille` in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What UDP does to a datagram; probabilities in thousandths, times in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Net {
    pub delay: u64,
    /// Added at random: what is sent later may come earlier.
    pub jitter: u64,
    pub loss: u64,
    pub twice: u64,
    /// Whether hosts say that a port is closed.
    pub reports: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Datagram(SocketAddrV4, SocketAddrV4, Vec<u8>),
    Connect(SocketAddrV4),
    Connected(SocketAddrV4),
    ToSplitter(SocketAddrV4, Vec<u8>),
    ToPeer(SocketAddrV4, Vec<u8>),
    PeerHungUp(SocketAddrV4),
    SplitterHungUp(SocketAddrV4),
}

/// Any splitter's rules.
pub trait Lead {
    fn handle(&mut self, now: Now, input: rules::Input<'_>);
    fn poll(&mut self) -> Option<rules::Action>;
    fn deadline(&self) -> Option<Now>;
    /// The chunk with this number is there.
    fn chunk(&mut self, now: Now, number: u64) {
        self.handle(now, rules::Input::Chunk(number));
    }
}

impl Lead for Splitter {
    fn handle(&mut self, now: Now, input: rules::Input<'_>) {
        Splitter::handle(self, now, input);
    }
    fn poll(&mut self) -> Option<rules::Action> {
        Splitter::poll(self)
    }
    fn deadline(&self) -> Option<Now> {
        Splitter::deadline(self)
    }
}

/// Any peer's rules.
pub trait Member {
    fn handle(&mut self, now: Now, input: peer::Input<'_>);
    fn poll(&mut self) -> Option<peer::Action>;
    fn data(&self, number: u64) -> Option<&[u8]>;
    fn deadline(&self) -> Option<Now>;
}

macro_rules! member {
    ($peer:ty) => {
        impl Member for $peer {
            fn handle(&mut self, now: Now, input: peer::Input<'_>) {
                <$peer>::handle(self, now, input);
            }
            fn poll(&mut self) -> Option<peer::Action> {
                <$peer>::poll(self)
            }
            fn data(&self, number: u64) -> Option<&[u8]> {
                <$peer>::data(self, number)
            }
            fn deadline(&self) -> Option<Now> {
                <$peer>::deadline(self)
            }
        }
    };
}

member!(Peer);
member!(SecuredPeer);

/// One peer and its player.
pub struct Node<P = Peer> {
    pub peer: P,
    pub ended: Option<Ended>,
    /// Numbers that the player got.
    pub played: Vec<u64>,
    pub skipped: u64,
    pub jumps: u64,
    /// It relays nothing.
    pub selfish: bool,
    /// It relays what is not the channel's, to these thousandths of its mates.
    pub polluting: u64,
    /// The multicast group that it hears.
    group: Option<SocketAddrV4>,
    /// The life of the splitter in which it joined.
    life: u64,
}

pub struct World<S = Splitter, P = Peer> {
    pub splitter: S,
    pub peers: BTreeMap<SocketAddrV4, Node<P>>,
    pub net: Net,
    pub dice: Dice,
    pub now: Now,
    pub next: u64,
    pub notes: Vec<(Now, SocketAddrV4, rules::Note)>,
    /// Chunks that the splitter sent, resent ones with them.
    pub uploads: u64,
    /// Bytes of datagrams that anybody sent; a multicast once.
    pub bytes_sent: u64,
    /// Paths that carry nothing.
    pub cut: BTreeSet<(SocketAddrV4, SocketAddrV4)>,
    /// Whose uplink loses so many thousandths.
    pub narrow: BTreeMap<SocketAddrV4, u64>,
    /// Those in front of hosts.
    pub nats: BTreeMap<SocketAddrV4, Nat>,
    /// Datagrams that were sent, if anybody listens.
    pub record: Option<Vec<(SocketAddrV4, SocketAddrV4, Vec<u8>)>>,
    config: Config,
    life: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// No deadline is before this.
    calm: u64,
    order: u64,
}

/// The data of a chunk, which says its number.
pub fn data(number: u64) -> Vec<u8> {
    sized(number, CHUNK_BYTES)
}

fn sized(number: u64, bytes: u16) -> Vec<u8> {
    number
        .to_be_bytes()
        .into_iter()
        .cycle()
        .take(bytes.into())
        .collect()
}

/// How a NAT maps and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// One port for all destinations; anybody may answer.
    FullCone,
    /// One port for all destinations; who was spoken to may answer.
    Cone,
    /// Another port for each destination, each so much higher; who was spoken to may answer.
    Symmetric(u16),
}

/// A NAT with one host behind it.
#[derive(Debug)]
pub struct Nat {
    kind: NatKind,
    ip: Ipv4Addr,
    next: u16,
    ports: BTreeMap<Option<SocketAddrV4>, u16>,
    spoken: BTreeSet<(u16, SocketAddrV4)>,
}

impl Nat {
    pub fn new(kind: NatKind, ip: Ipv4Addr) -> Self {
        Self {
            kind,
            ip,
            next: 40_000,
            ports: BTreeMap::new(),
            spoken: BTreeSet::new(),
        }
    }

    /// As whom the host speaks to `to`.
    fn out(&mut self, to: SocketAddrV4) -> SocketAddrV4 {
        let (key, step) = match self.kind {
            NatKind::Symmetric(step) => (Some(to), step),
            NatKind::FullCone | NatKind::Cone => (None, 1),
        };
        let next = &mut self.next;
        let port = *self.ports.entry(key).or_insert_with(|| {
            *next += step;
            *next
        });
        self.spoken.insert((port, to));
        SocketAddrV4::new(self.ip, port)
    }

    /// Whether what `from` says to this port gets through.
    fn lets_in(&self, port: u16, from: SocketAddrV4) -> bool {
        match self.kind {
            NatKind::FullCone => self.ports.values().any(|&open| open == port),
            NatKind::Cone | NatKind::Symmetric(_) => self.spoken.contains(&(port, from)),
        }
    }
}

pub fn small() -> Config {
    Config {
        chunk_bytes: CHUNK_BYTES,
        header_bytes: 0,
        ..Config::default()
    }
}

/// A peer for a team with this configuration.
pub fn peer_of(config: &Config, port: u16) -> PeerConfig {
    PeerConfig {
        dialect: config.dialect,
        multicast: config.group.is_some(),
        nts: config.nts,
        seed: port.into(),
        ..PeerConfig::default()
    }
}

pub fn peer_config() -> PeerConfig {
    PeerConfig::default()
}

impl World {
    pub fn new(config: Config, net: Net, seed: u64) -> Self {
        Self::with(new_splitter(&config, start()), config, net, seed)
    }

    /// A team of `n` on ports from 1, the first of them a monitor, that has settled.
    pub fn of(n: u16, config: Config, net: Net, seed: u64) -> Self {
        let mut world = Self::new(config, net, seed);
        for port in 1..=n {
            let monitor = port == 1;
            let config = PeerConfig {
                monitor,
                ..peer_of(&world.config, port)
            };
            world.join(port, config);
            world.pass(8 * net.delay + 10);
        }
        world
    }

    /// One more, as the team wants them.
    pub fn join_one(&mut self, port: u16) {
        self.join(port, peer_of(&self.config, port));
    }

    pub fn join(&mut self, port: u16, config: PeerConfig) {
        let peer = Peer::new(config, splitter_at(), self.now);
        self.enter(port, peer);
    }

    pub fn restart_splitter(&mut self) {
        self.replace_splitter(new_splitter(&self.config, self.now));
    }
}

/// When it all begins.
pub fn start() -> Now {
    moment(0)
}

/// So many nanoseconds later.
fn moment(ns: u64) -> Now {
    Now::new(ns, 1_786_000_000_000_000 + ns / 1000)
}

impl<S: Lead, P: Member> World<S, P> {
    pub fn with(splitter: S, config: Config, net: Net, seed: u64) -> Self {
        let now = start();
        Self {
            splitter,
            peers: BTreeMap::new(),
            net,
            dice: Dice(seed),
            now,
            next: 0,
            notes: Vec::new(),
            uploads: 0,
            bytes_sent: 0,
            cut: BTreeSet::new(),
            narrow: BTreeMap::new(),
            nats: BTreeMap::new(),
            record: None,
            config,
            life: 0,
            events: BinaryHeap::new(),
            calm: 0,
            order: 0,
        }
    }

    pub fn enter(&mut self, port: u16, peer: P) {
        let node = Node {
            peer,
            ended: None,
            played: Vec::new(),
            skipped: 0,
            jumps: 0,
            selfish: false,
            polluting: 0,
            group: None,
            life: self.life,
        };
        self.calm_until(node.peer.deadline());
        self.peers.insert(at(port), node);
        self.later(self.net.delay, Event::Connect(at(port)));
    }

    pub fn leave(&mut self, port: u16) {
        self.tell_peer(at(port), peer::Input::Leave);
    }

    /// The same peer, from another port from now on.
    pub fn rename(&mut self, port: u16, new: u16) {
        let node = self.peers.remove(&at(port)).unwrap();
        self.peers.insert(at(new), node);
    }

    /// It is gone without a word; its host is still there.
    pub fn kill(&mut self, port: u16) {
        self.peers.remove(&at(port));
    }

    /// Another splitter at the same endpoint, which knows nobody; the channel's numbers go on.
    pub fn replace_splitter(&mut self, splitter: S) {
        self.life += 1;
        self.splitter = splitter;
    }

    fn later(&mut self, ms: u64, event: Event) {
        self.order += 1;
        let when = self.now.mono_ns() + ms * MS;
        self.events.push(Reverse((when, self.order, event)));
    }

    fn post(&mut self, from: SocketAddrV4, to: SocketAddrV4, bytes: Vec<u8>) {
        self.bytes_sent += bytes.len() as u64;
        if to.ip().is_multicast() {
            let hears = |node: &Node<P>| node.group == Some(to);
            let all: Vec<_> = self
                .peers
                .iter()
                .filter(|(_, node)| hears(node))
                .map(|(&at, _)| at)
                .collect();
            all.into_iter()
                .for_each(|one| self.post_one(from, one, bytes.clone()));
        } else {
            self.post_one(from, to, bytes);
        }
    }

    fn post_one(&mut self, from: SocketAddrV4, to: SocketAddrV4, bytes: Vec<u8>) {
        let from = self.nats.get_mut(&from).map_or(from, |nat| nat.out(to));
        if let Some(tape) = &mut self.record {
            tape.push((from, to, bytes.clone()));
        }
        let narrow = self.narrow.get(&from).copied().unwrap_or(0);
        let lost = self.dice.chance(self.net.loss) || (narrow > 0 && self.dice.chance(narrow));
        if lost || self.cut.contains(&(from, to)) {
            return;
        }
        let copies = 1 + u64::from(self.dice.chance(self.net.twice));
        for _ in 0..copies {
            let delay = self.net.delay + self.dice.below(self.net.jitter + 1);
            self.later(delay, Event::Datagram(from, to, bytes.clone()));
        }
    }

    /// `n` chunks, one each `gap_ms`.
    pub fn stream(&mut self, n: u64, gap_ms: u64) {
        for _ in 0..n {
            let number = self.next;
            self.next += 1;
            self.splitter.chunk(self.now, number);
            self.act_for_splitter();
            self.pass(gap_ms);
        }
    }

    /// Lets time go by.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ns() + ms * MS;
        loop {
            let event = self.events.peek().map(|Reverse((when, ..))| *when);
            let when = event.unwrap_or(u64::MAX).min(self.calm);
            if when > end {
                break;
            }
            self.now = moment(when.max(self.now.mono_ns()));
            if event == Some(when) {
                let Reverse((_, _, event)) = self.events.pop().unwrap();
                self.happen(event);
            } else {
                self.tick();
            }
        }
        self.now = moment(end);
    }

    /// Wakes those whose time it is.
    fn tick(&mut self) {
        let now = self.now;
        let due = |deadline: Option<Now>| deadline.is_some_and(|when| when <= now);
        if due(self.splitter.deadline()) {
            self.tell_splitter(rules::Input::Tick);
        }
        let peers: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, node)| due(node.peer.deadline()))
            .map(|(&at, _)| at)
            .collect();
        for peer in peers {
            self.tell_peer(peer, peer::Input::Tick);
        }
        let peers = self.peers.values().filter_map(|node| node.peer.deadline());
        let next = peers.chain(self.splitter.deadline()).map(Now::mono_ns).min();
        self.calm = next.unwrap_or(u64::MAX);
    }

    fn calm_until(&mut self, deadline: Option<Now>) {
        self.calm = deadline.map_or(self.calm, |when| self.calm.min(when.mono_ns()));
    }

    fn happen(&mut self, event: Event) {
        let current = |world: &Self, peer| world.peers.get(&peer).is_some_and(|node| node.life == world.life);
        match event {
            Event::Datagram(from, to, bytes) if to == splitter_at() => {
                self.tell_splitter(rules::Input::Datagram(from, &bytes));
            }
            Event::Datagram(from, to, bytes) if self.nats.values().any(|nat| nat.ip == *to.ip()) => {
                let behind = |nat: &Nat| nat.ip == *to.ip() && nat.lets_in(to.port(), from);
                let host = self
                    .nats
                    .iter()
                    .find(|(_, nat)| behind(nat))
                    .map(|(&host, _)| host);
                if let Some(host) = host {
                    self.tell_peer(host, peer::Input::Datagram(from, &bytes));
                }
            }
            Event::Datagram(from, to, bytes) if self.peers.contains_key(&to) => {
                self.tell_peer(to, peer::Input::Datagram(from, &bytes));
            }
            Event::Datagram(from, to, _)
                if self.net.reports && from == splitter_at() && !to.ip().is_multicast() =>
            {
                self.tell_splitter(rules::Input::Closed(to));
            }
            Event::Connect(peer) if current(self, peer) => {
                self.later(self.net.delay, Event::Connected(peer));
                self.tell_splitter(rules::Input::Connected(self.door(peer)));
            }
            Event::Connected(peer) => self.tell_peer(peer, peer::Input::Connected),
            Event::ToSplitter(peer, bytes) if current(self, peer) => {
                self.tell_splitter(rules::Input::Said(self.door(peer), &bytes));
            }
            Event::ToPeer(peer, bytes) => self.tell_peer(peer, peer::Input::Told(&bytes)),
            Event::PeerHungUp(peer) if current(self, peer) => {
                self.tell_splitter(rules::Input::HungUp(self.door(peer)));
            }
            Event::SplitterHungUp(peer) => self.tell_peer(peer, peer::Input::HungUp),
            _ => {}
        }
    }

    /// As whom a host connects: a NAT has another port for TCP.
    fn door(&self, host: SocketAddrV4) -> SocketAddrV4 {
        self.nats
            .get(&host)
            .map_or(host, |nat| SocketAddrV4::new(nat.ip, host.port()))
    }

    fn host(&self, door: SocketAddrV4) -> SocketAddrV4 {
        let behind = self.nats.iter().find(|(_, nat)| nat.ip == *door.ip());
        behind.map_or(door, |(&host, _)| host)
    }

    pub fn tell_splitter(&mut self, input: rules::Input<'_>) {
        self.splitter.handle(self.now, input);
        self.act_for_splitter();
    }

    fn act_for_splitter(&mut self) {
        while let Some(action) = self.splitter.poll() {
            match action {
                rules::Action::Chunk { to, number, frame } => {
                    self.uploads += 1;
                    self.post(
                        splitter_at(),
                        to,
                        frame.datagram(&sized(number, self.config.chunk_bytes)),
                    );
                }
                rules::Action::Send { to, bytes } => self.post(splitter_at(), to, bytes),
                rules::Action::Tell { to, bytes } => {
                    let host = self.host(to);
                    self.later(self.net.delay, Event::ToPeer(host, bytes));
                }
                rules::Action::HangUp(door) => {
                    let host = self.host(door);
                    self.later(self.net.delay, Event::SplitterHungUp(host));
                }
                rules::Action::Note(peer, note) => self.notes.push((self.now, peer, note)),
            }
        }
        self.calm_until(self.splitter.deadline());
    }

    pub fn tell_peer(&mut self, who: SocketAddrV4, input: peer::Input<'_>) {
        let Some(mut node) = self.peers.remove(&who) else {
            return;
        };
        node.peer.handle(self.now, input);
        while let Some(action) = node.peer.poll() {
            self.act(who, &mut node, action);
        }
        self.calm_until(node.peer.deadline());
        self.peers.insert(who, node);
    }

    fn act(&mut self, who: SocketAddrV4, node: &mut Node<P>, action: peer::Action) {
        match action {
            peer::Action::Tell(bytes) => self.later(self.net.delay, Event::ToSplitter(who, bytes)),
            peer::Action::HangUp => self.later(self.net.delay, Event::PeerHungUp(who)),
            peer::Action::Fetch { .. } => panic!("there is no header here"),
            peer::Action::Header(_) => {}
            peer::Action::Hear(group) => node.group = Some(group),
            peer::Action::Send { to, bytes } => self.post(who, to, bytes),
            peer::Action::Chunk { to, number, frame } => {
                let mut bytes = frame.datagram(node.peer.data(number).unwrap());
                if self.dice.chance(node.polluting) {
                    *bytes.last_mut().unwrap() ^= 1;
                }
                if !node.selfish {
                    self.post(who, to, bytes);
                }
            }
            peer::Action::Play(number) => {
                assert_eq!(
                    node.peer.data(number),
                    Some(&sized(number, self.config.chunk_bytes)[..]),
                    "{who} plays {number}"
                );
                assert!(
                    node.played.last().is_none_or(|&last| last < number),
                    "{who} plays {number} again"
                );
                node.played.push(number);
            }
            peer::Action::Skip { count, .. } => node.skipped += count,
            peer::Action::Jump(_) => node.jumps += 1,
            peer::Action::Over(ended) => node.ended = Some(ended),
        }
    }

    pub fn node(&self, port: u16) -> &Node<P> {
        &self.peers[&at(port)]
    }

    /// Thousandths of the numbers from `from` to the last one played that the player got.
    pub fn continuity(&self, port: u16, from: u64) -> u64 {
        let played = &self.node(port).played;
        let got = played.iter().filter(|&&number| number >= from).count() as u64;
        let last = played.last().copied().unwrap_or(0);
        (got * 1000) / (last + 1).saturating_sub(from).max(1)
    }

    /// The numbers of `range` that the player did not get.
    pub fn lacks(&self, port: u16, range: std::ops::Range<u64>) -> Vec<u64> {
        let played = &self.node(port).played;
        range
            .filter(|number| played.binary_search(number).is_err())
            .collect()
    }
}

fn new_splitter(config: &Config, now: Now) -> Splitter {
    let source = Source::new(at(8000), "eclipse.ts").unwrap();
    Splitter::new(config.clone(), source, now).unwrap()
}
