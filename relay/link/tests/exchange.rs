//! Two nodes and a connection that breaks: the serving and the following rules against each other, byte by byte.
//!
//! The connection is cut at any byte, and what was under way is lost. The receiver comes back and asks for what
//! comes next. Everything is drawn from a seed; time does not pass.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use relay_link::{
    Ask, Denied, Follow, FollowConfig, From, LinkEvent, Position, Serve, ServeConfig, StartReason, Token,
    Window,
};
use relay_seam::Now;
use relay_wire::http::RequestHead;
use relay_wire::link::{
    Chunk, END_TEXT_MAX, EndReason, HelloParts, encode_chunk, encode_end, encode_header, encode_hello,
    encode_ping,
};

const CHUNK: usize = 188;
const JOIN_EVERY: u64 = 7;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn now() -> Now {
    Now::new(0, 0)
}

/// What chunk `number` of `epoch` holds: different for each.
fn payload(epoch: u64, number: u64) -> Vec<u8> {
    let mut dice = Dice(epoch << 32 | number);
    (0..CHUNK).map(|_| dice.next() as u8).collect()
}

/// A node that has the channel.
struct Node {
    serve: Serve,
    epoch: u64,
    held: VecDeque<u64>,
    next: u64,
    capacity: usize,
}

impl Node {
    fn new(id: &str, capacity: usize, token: Option<&str>) -> Self {
        let token = token.map(|token| Token::new(token).unwrap());
        let serve = Serve::new(ServeConfig::new(id, token).unwrap());
        Self {
            serve,
            epoch: 1,
            held: VecDeque::new(),
            next: 0,
            capacity,
        }
    }

    fn produce(&mut self) {
        self.held.push_back(self.next);
        self.next += 1;
        if self.held.len() > self.capacity {
            self.held.pop_front();
        }
    }

    fn restart(&mut self) {
        (self.epoch, self.next) = (self.epoch + 1, 0);
        self.held.clear();
    }

    fn window(&self) -> Window {
        let first = self.held.front().copied().unwrap_or(self.next);
        let live = (self.next.saturating_sub(1) / JOIN_EVERY * JOIN_EVERY).max(first);
        Window {
            epoch: self.epoch,
            first,
            next: self.next,
            live,
        }
    }
}

/// One connection: what the server has written and the receiver has not read yet.
struct Wire {
    /// The next chunk to write, and of which epoch.
    at: Position,
    under_way: VecDeque<u8>,
}

impl Wire {
    /// The request as the server reads it, and its answer.
    fn open(node: &mut Node, request: &[u8]) -> Result<Self, Denied> {
        let (head, len) = RequestHead::parse(request).unwrap().unwrap();
        assert_eq!(len, request.len());
        let asked = node.serve.admit(&Ask::of(&head, "127.0.0.1".parse().unwrap()))?;
        assert_eq!(asked.mount, "/eclipse.ts");
        let start = node.serve.start(asked.from, &node.window());
        let mut out = relay_link::serve::response_head(&start);
        let parts = HelloParts {
            chunk_size: CHUNK as u32,
            epoch: start.epoch,
            first: start.number,
            path: &["root"],
            ..Default::default()
        };
        encode_hello(&mut out, &parts).unwrap();
        encode_header(&mut out, 0, b"", b"header").unwrap();
        let at = Position {
            epoch: start.epoch,
            number: start.number,
        };
        Ok(Self {
            at,
            under_way: out.into(),
        })
    }

    /// The server writes up to `n` chunks, or a PING; it ends the link when it must.
    fn write(&mut self, node: &Node, n: u64) -> bool {
        let window = node.window();
        let mut out = Vec::new();
        let over = match () {
            () if self.at.epoch != window.epoch => Some(EndReason::NewEpoch),
            () if self.at.number < window.first => Some(EndReason::FellBehind),
            () => None,
        };
        if let Some(reason) = over {
            encode_end(&mut out, reason, &"x".repeat(END_TEXT_MAX));
        } else if self.at.number == window.next {
            encode_ping(&mut out, 1);
        }
        for _ in 0..n.min(window.next - self.at.number.min(window.next)) * u64::from(over.is_none()) {
            let Position { epoch, number } = self.at;
            let bytes = payload(epoch, number);
            encode_chunk(
                &mut out,
                &Chunk {
                    number,
                    capture_us: 0,
                    flags: 0,
                    join: None,
                    bytes: &bytes,
                },
            );
            self.at.number += 1;
        }
        self.under_way.extend(out);
        over.is_none()
    }
}

/// A node that follows, and everything it was told.
struct Repeater {
    config: FollowConfig,
    link: Follow,
    got: Vec<Position>,
    missing: u64,
    epochs: u64,
}

impl Repeater {
    fn new(id: &str, token: Option<&str>) -> Self {
        let token = token.map(|token| Token::new(token).unwrap());
        let config = FollowConfig::new("/eclipse.ts", id, token).unwrap();
        let link = Follow::new(&config, None, now());
        Self {
            config,
            link,
            got: Vec::new(),
            missing: 0,
            epochs: 0,
        }
    }

    fn reconnect(&mut self) {
        self.link = Follow::new(&self.config, self.link.position(), now());
    }

    fn request(&self) -> Vec<u8> {
        self.link.request("127.0.0.1:8000")
    }

    /// Reads `n` bytes; checks each chunk's content and that its place is the one after the last.
    fn read(&mut self, wire: &mut Wire, n: usize) {
        let n = n.min(wire.under_way.len());
        let bytes: Vec<u8> = wire.under_way.drain(..n).collect();
        let (got, missing, epochs) = (&mut self.got, &mut self.missing, &mut self.epochs);
        let mut epoch = self.link.position().map_or(0, |at| at.epoch);
        let mut jump = got.is_empty();
        let told = self.link.feed(now(), &bytes, &mut |event| match event {
            LinkEvent::Hello(hello) => epoch = hello.epoch,
            LinkEvent::NewEpoch { .. } => (*epochs, jump) = (*epochs + 1, true),
            LinkEvent::Gap { expected, got } => (*missing, jump) = (*missing + got - expected, true),
            LinkEvent::Chunk(chunk) => {
                assert_eq!(chunk.bytes, payload(epoch, chunk.number));
                let next = got.last().map(|last: &Position| Position {
                    number: last.number + 1,
                    ..*last
                });
                let here = Position {
                    epoch,
                    number: chunk.number,
                };
                // A new epoch may have been told in an earlier read.
                assert!(
                    jump || next == Some(here) || next.is_none_or(|next| next.epoch != epoch),
                    "{here:?}"
                );
                jump = false;
                got.push(here);
            }
            _ => {}
        });
        assert_eq!(told, Ok(()));
    }
}

struct World {
    dice: Dice,
    nodes: Vec<Node>,
    /// By how many chunks each node trails the first.
    trails: Vec<u64>,
    repeater: Repeater,
    wire: Option<(usize, Wire)>,
    cuts: u64,
}

impl World {
    fn new(seed: u64, capacity: usize, trails: &[u64]) -> Self {
        let node = |i| Node::new(&format!("node{i}"), capacity, Some("t0ken"));
        Self {
            dice: Dice(seed),
            nodes: (0..trails.len()).map(node).collect(),
            trails: trails.to_vec(),
            repeater: Repeater::new("edge", Some("t0ken")),
            wire: None,
            cuts: 0,
        }
    }

    fn produce(&mut self, n: u64) {
        for _ in 0..n {
            let ahead = self.nodes[0].next + 1;
            for (node, trail) in self.nodes.iter_mut().zip(&self.trails) {
                if node.next + trail < ahead {
                    node.produce();
                }
            }
        }
    }

    fn connect(&mut self) {
        if self.wire.is_none() {
            let chosen = self.dice.below(self.nodes.len() as u64) as usize;
            self.repeater.reconnect();
            let wire = Wire::open(&mut self.nodes[chosen], &self.repeater.request()).unwrap();
            self.wire = Some((chosen, wire));
        }
    }

    /// Some chunks are written, some bytes arrive, and one time in `cut_in` the connection is lost.
    fn step(&mut self, cut_in: u64) {
        self.connect();
        let Some((chosen, wire)) = &mut self.wire else {
            return;
        };
        let open = wire.write(&self.nodes[*chosen], self.dice.below(5));
        let n = self.dice.below(1500) as usize;
        self.repeater.read(wire, if open { n } else { usize::MAX });
        let cut = self.dice.below(cut_in) == 0;
        if cut || !open {
            self.wire = None;
            self.cuts += 1;
        }
    }

    /// Until everything that the first node has has arrived.
    fn drain(&mut self) {
        self.trails.fill(0);
        self.produce(0);
        for node in 1..self.nodes.len() {
            while self.nodes[node].next < self.nodes[0].next {
                self.nodes[node].produce();
            }
        }
        let end = Position {
            epoch: self.nodes[0].epoch,
            number: self.nodes[0].next,
        };
        let mut steps = 0;
        while self.repeater.link.position() != Some(end) {
            self.step(50);
            steps += 1;
            assert!(
                steps < 20_000,
                "at {:?}, not at {end:?}",
                self.repeater.link.position()
            );
        }
    }

    /// What came is, within each epoch, in strict order.
    fn check_order(&self) {
        for pair in self.repeater.got.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            assert!((a.epoch, a.number) < (b.epoch, b.number), "{a:?} then {b:?}");
        }
    }
}

#[test]
fn every_chunk_comes_exactly_once_while_the_window_holds_it() {
    let mut cuts = 0;
    for seed in 0..40 {
        let mut world = World::new(seed, 100_000, &[0]);
        for _ in 0..400 {
            let n = world.dice.below(4);
            world.produce(n);
            world.step(4);
        }
        world.drain();
        let numbers: Vec<u64> = world.repeater.got.iter().map(|at| at.number).collect();
        let first = numbers[0];
        assert_eq!(
            numbers,
            (first..world.nodes[0].next).collect::<Vec<_>>(),
            "seed {seed}"
        );
        assert_eq!((world.repeater.missing, world.repeater.epochs), (0, 0));
        cuts += world.cuts;
    }
    assert!(cuts > 2000, "the connection broke {cuts} times");
}

#[test]
fn a_change_of_upstream_leaves_no_gap_and_no_repeat() {
    for seed in 0..40 {
        let mut world = World::new(seed, 100_000, &[0, 9, 40]);
        for _ in 0..400 {
            let n = world.dice.below(4);
            world.produce(n);
            world.step(6);
        }
        world.drain();
        let numbers: Vec<u64> = world.repeater.got.iter().map(|at| at.number).collect();
        assert_eq!(
            numbers,
            (numbers[0]..world.nodes[0].next).collect::<Vec<_>>(),
            "seed {seed}"
        );
        let ahead: u64 = world.nodes.iter().map(|node| node.serve.stats().ahead).sum();
        assert!(ahead > 0, "seed {seed}: no upstream ever trailed");
    }
}

#[test]
fn what_falls_out_of_the_window_is_counted_to_the_chunk() {
    let mut gaps = 0;
    for seed in 0..40 {
        let mut world = World::new(seed, 30, &[0]);
        for _ in 0..400 {
            let n = world.dice.below(6);
            world.produce(n);
            world.step(5);
        }
        world.drain();
        world.check_order();
        let came = world.repeater.got.len() as u64;
        let first = world.repeater.got[0].number;
        assert_eq!(
            first + came + world.repeater.missing,
            world.nodes[0].next,
            "seed {seed}"
        );
        gaps += world.repeater.missing;
    }
    assert!(gaps > 1000, "{gaps} chunks fell out");
}

#[test]
fn a_root_that_restarts_is_a_declared_new_epoch() {
    for seed in 0..40 {
        let mut world = World::new(seed, 100_000, &[0]);
        for turn in 0..5 {
            for _ in 0..60 {
                let n = world.dice.below(4);
                world.produce(n);
                world.step(8);
            }
            world.drain();
            assert_eq!(world.repeater.epochs, turn, "seed {seed}");
            world.nodes[0].restart();
            // A killed process takes its connections with it.
            world.wire = None;
            world.produce(1);
        }
        world.check_order();
    }
}

#[test]
fn a_node_does_not_follow_itself_and_a_stranger_follows_nobody() {
    let mut node = Node::new("same", 10, None);
    let denied = Wire::open(&mut node, &Repeater::new("same", None).request())
        .err()
        .unwrap();
    assert_eq!(denied.status(), 508);
    let mut guarded = Node::new("root", 10, Some("t0ken"));
    for token in [None, Some("other")] {
        let denied = Wire::open(&mut guarded, &Repeater::new("edge", token).request())
            .err()
            .unwrap();
        assert_eq!(denied.status(), 401);
    }
}

#[test]
fn a_resume_asks_for_what_comes_next() {
    let mut node = Node::new("root", 100, None);
    (0..50).for_each(|_| node.produce());
    let mut repeater = Repeater::new("edge", None);
    let mut wire = Wire::open(&mut node, &repeater.request()).unwrap();
    wire.write(&node, 100);
    repeater.read(&mut wire, usize::MAX);
    repeater.reconnect();
    let (head, _) = RequestHead::parse(&repeater.request()).unwrap().unwrap();
    let asked = node.serve.admit(&Ask::of(&head, "::1".parse().unwrap())).unwrap();
    assert_eq!(asked.from, From::At { epoch: 1, number: 50 });
    assert_eq!(
        node.serve.start(asked.from, &node.window()).reason,
        StartReason::Exact
    );
}
