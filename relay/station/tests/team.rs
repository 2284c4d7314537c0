//! A team that a station leads, from newcomers' words to datagrams, with a driver of these tests' own.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use relay_seam::{Conn, Input, Machine, Now, Output, Payload, Udp};
use relay_station::{Answer, CATALOGUE, Config, House, Newcomer, Order, Station, TeamSpec};
use splitter::Dialect;

const MOUNT: &str = "/eclipse.log";
const CHUNK: usize = 1316;
const BUFFER: u16 = 16;
/// Enough for the station to see that nobody knows what it is.
const FIRST: usize = 16 * CHUNK;
const GOODBYE: &[u8] = b"G";

fn peer(n: u16) -> SocketAddrV4 {
    SocketAddrV4::new([127, 0, 0, 1].into(), 5000 + n)
}

fn config(dialect: Dialect) -> Config {
    Config {
        chunk_size: CHUNK as u16,
        team: Some(TeamSpec {
            mount: MOUNT.to_owned(),
            listen: "127.0.0.1:8001".parse().unwrap(),
            http: "127.0.0.1:8000".parse().unwrap(),
            rules: splitter::Config {
                dialect,
                buffer_chunks: BUFFER,
                max_peers: 4,
                send_header: dialect == Dialect::C,
                ..splitter::Config::default()
            },
        }),
        ..common::config(64 << 10)
    }
}

/// The stream: each byte is a function of its place.
fn stream(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|at| (at * 31 / 7) as u8).collect()
}

fn data(number: u64) -> Vec<u8> {
    stream(number * CHUNK as u64, CHUNK)
}

struct World {
    house: Arc<House>,
    station: Station,
    now: Now,
    fed: u64,
    /// The kernel has no socket.
    deaf: bool,
    opens: u32,
    sent: Vec<(SocketAddrV4, Vec<u8>)>,
    known: BTreeSet<SocketAddr>,
}

impl World {
    fn new(dialect: Dialect) -> Self {
        let (house, _events) = House::new(config(dialect)).unwrap();
        let station = Station::new(house.clone(), 0, 1).unwrap();
        let mut world = Self {
            house,
            station,
            now: Now::new(1_000_000_000, 1_000_000),
            fed: 0,
            deaf: false,
            opens: 0,
            sent: Vec::new(),
            known: BTreeSet::new(),
        };
        world.turn();
        world
    }

    /// With a channel on the air.
    fn on_air(dialect: Dialect) -> Self {
        let mut world = Self::new(dialect);
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.fed = 0;
        self.order(Order::Begin {
            mount: MOUNT.to_owned(),
            content_type: Some("text/x-log".to_owned()),
            properties: Vec::new(),
            from: "a test".to_owned(),
        });
        self.feed(FIRST);
    }

    fn udp() -> Udp {
        Udp::new(Conn::new(0, 0))
    }

    fn order(&mut self, order: Order) {
        assert!(self.house.mailbox(0).post(order).is_ok());
        self.station.handle(self.now, Input::Woken);
        self.turn();
    }

    fn feed(&mut self, len: usize) {
        let bytes = stream(self.fed, len);
        self.fed += len as u64;
        self.order(Order::Feed {
            mount: MOUNT.to_owned(),
            bytes,
        });
    }

    fn feed_chunk(&mut self) {
        self.feed(CHUNK);
    }

    /// The number of the next chunk.
    fn next(&self) -> u64 {
        self.fed / CHUNK as u64
    }

    fn say(&mut self, newcomer: Newcomer) -> Vec<Answer> {
        self.order(Order::Team(newcomer));
        let answers = self.house.answers().unwrap();
        std::iter::from_fn(|| answers.take()).collect()
    }

    fn join(&mut self, n: u16) {
        self.say(Newcomer::Connected(peer(n)));
        self.say(Newcomer::Said(peer(n), b"P".to_vec()));
        assert_eq!(
            self.say(Newcomer::Said(peer(n), b"R".to_vec())),
            [Answer::HangUp(peer(n))]
        );
    }

    fn hear(&mut self, from: SocketAddrV4, bytes: &[u8]) {
        let (udp, from) = (Self::udp(), from.into());
        self.station
            .handle(self.now, Input::Datagram { udp, from, bytes });
        self.turn();
    }

    fn closed(&mut self, n: u16) {
        let (udp, peer) = (Self::udp(), peer(n).into());
        self.station.handle(self.now, Input::Unreachable { udp, peer });
        self.turn();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.turn();
    }

    /// Turns the station until it wants nothing, in small batches.
    fn turn(&mut self) {
        for _ in 0..10_000 {
            let batch: Vec<Output> = std::iter::from_fn(|| self.station.poll(self.now))
                .take(3)
                .collect();
            if batch.is_empty() {
                return;
            }
            self.carry_out(batch);
        }
        panic!("a station that never rests");
    }

    fn carry_out(&mut self, batch: Vec<Output>) {
        let mut taken = 0;
        for output in &batch {
            let Output::Datagram(datagram) = output else {
                continue;
            };
            let mut bytes = datagram.head.bytes().to_vec();
            match &datagram.body {
                Some(Payload::Span(span)) => bytes.extend_from_slice(self.station.bytes(*span)),
                Some(Payload::Own(own, from)) => bytes.extend_from_slice(&own[*from..]),
                None => {}
            }
            let SocketAddr::V4(to) = datagram.to else {
                panic!("{datagram:?}")
            };
            self.sent.push((to, bytes));
            taken += 1;
        }
        for output in batch {
            self.answer(output);
        }
        if taken > 0 {
            self.station.handle(self.now, Input::Posted { taken, dropped: 0 });
        }
    }

    fn answer(&mut self, output: Output) {
        match output {
            Output::OpenUdp { token, bind, .. } => {
                self.opens += 1;
                let result = match self.deaf {
                    true => Err(std::io::ErrorKind::AddrInUse.into()),
                    false => Ok((Self::udp(), bind)),
                };
                self.station.handle(self.now, Input::UdpOpened { token, result });
            }
            Output::ConnectUdp { peer, .. } => assert!(self.known.insert(peer)),
            Output::DisconnectUdp { peer, .. } => assert!(self.known.remove(&peer)),
            _ => {}
        }
    }

    fn sent(&mut self) -> Vec<(SocketAddrV4, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// Those whom the driver may keep a socket for.
    fn known(&self) -> Vec<SocketAddr> {
        self.known.iter().copied().collect()
    }

    fn count(&self, name: &str) -> u64 {
        let at = CATALOGUE.iter().position(|entry| entry.name == name).unwrap();
        self.house.totals()[at]
    }
}

fn chunk_b(number: u64) -> Vec<u8> {
    [&(number as u16).to_be_bytes()[..], &data(number)].concat()
}

#[test]
fn chunks_go_to_members_by_turns_under_the_channels_numbers() {
    let mut world = World::on_air(Dialect::B);
    world.feed_chunk();
    assert_eq!(world.sent(), [], "nobody is there");
    world.join(1);
    world.join(2);
    assert_eq!(world.count("team_peers"), 2);
    assert_eq!(world.known(), [peer(1).into(), peer(2).into()]);
    let first = world.next();
    // Half a chunk is none.
    world.feed(CHUNK / 2);
    assert_eq!(world.sent(), []);
    world.feed(CHUNK / 2);
    world.feed(2 * CHUNK);
    let expected = [(1, first), (2, first + 1), (1, first + 2)].map(|(n, number)| (peer(n), chunk_b(number)));
    assert_eq!(world.sent(), expected);
    assert_eq!(world.count("posts_taken"), 3);
    assert_eq!(world.count("team_chunks"), 3);
}

#[test]
fn a_newcomer_is_told_where_the_source_is() {
    let mut world = World::on_air(Dialect::B);
    assert_eq!(world.say(Newcomer::Connected(peer(1))), []);
    let told = world.say(Newcomer::Said(peer(1), b"P".to_vec()));
    let [Answer::Tell(to, bytes)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(*to, peer(1));
    let source = [
        &[127, 0, 0, 1][..],
        &8000u16.to_be_bytes(),
        &11u16.to_be_bytes(),
        b"eclipse.log",
    ]
    .concat();
    assert!(bytes.starts_with(&source), "{bytes:?}");
    // It goes, and nobody minds.
    assert_eq!(world.say(Newcomer::HungUp(peer(1))), []);
    assert_eq!(world.count("team_refused"), 1);
    let nonsense = world.say(Newcomer::Said(peer(9), b"P".to_vec()));
    assert_eq!(nonsense, [Answer::HangUp(peer(9))], "who never connected");
}

#[test]
fn generation_c_has_bytes_behind_the_data() {
    let mut world = World::on_air(Dialect::C);
    let told = world.say(Newcomer::Connected(peer(1)));
    assert!(
        matches!(told[..], [Answer::Tell(..), Answer::HangUp(_)]),
        "{told:?}"
    );
    world.hear(peer(1), &[0xff; 4]);
    assert_eq!(world.count("team_joins"), 1);
    let number = world.next();
    world.feed_chunk();
    let head = (number as u32).to_be_bytes();
    let tail = [&[127, 0, 0, 1][..], &u32::from(peer(1).port()).to_be_bytes()].concat();
    assert_eq!(
        world.sent(),
        [(peer(1), [&head[..], &data(number), &tail].concat())]
    );
}

#[test]
fn what_is_reported_lost_is_sent_again_while_it_is_there() {
    let mut world = World::on_air(Dialect::B);
    world.join(1);
    world.join(2);
    let number = world.next();
    world.feed(2 * CHUNK);
    world.sent();
    world.hear(peer(2), &(number as u16).to_be_bytes());
    assert_eq!(world.sent(), [(peer(2), chunk_b(number))]);
    assert_eq!(world.count("team_resent"), 1);
    // Long ago; or nobody knows of what.
    world.feed(20 * CHUNK);
    world.feed(20 * CHUNK);
    world.sent();
    world.hear(peer(2), &(number as u16).to_be_bytes());
    world.hear(peer(2), &[1; 700]);
    world.hear(peer(7), &(number as u16).to_be_bytes());
    assert_eq!(world.sent(), []);
    assert!(world.count("team_unheeded") >= 3);
}

#[test]
fn who_goes_is_answered_and_who_is_gone_is_noticed() {
    let mut world = World::on_air(Dialect::B);
    (1..=3).for_each(|n| world.join(n));
    world.hear(peer(2), GOODBYE);
    assert_eq!(world.count("team_peers"), 2);
    world.feed(4 * CHUNK);
    assert!(world.sent().contains(&(peer(2), GOODBYE.to_vec())));
    world.closed(3);
    assert_eq!(
        world.count("team_peers"),
        2,
        "one report may be from before it came"
    );
    world.closed(3);
    assert_eq!((world.count("team_peers"), world.count("team_expelled")), (1, 1));
    assert_eq!(world.known(), [peer(1).into()]);
    world.feed(2 * CHUNK);
    assert!(world.sent().iter().all(|(to, _)| *to == peer(1)));
}

#[test]
fn a_channel_that_begins_again_is_followed_from_its_beginning() {
    let mut world = World::on_air(Dialect::B);
    world.join(1);
    world.feed(3 * CHUNK);
    world.sent();
    world.order(Order::End {
        mount: MOUNT.to_owned(),
    });
    world.begin();
    let numbers: Vec<u64> = (0..world.next()).collect();
    let expected: Vec<_> = numbers.iter().map(|&number| (peer(1), chunk_b(number))).collect();
    assert_eq!(world.sent(), expected);
}

#[test]
fn what_no_buffer_could_hold_is_left_out() {
    let mut world = World::on_air(Dialect::B);
    world.join(1);
    let number = world.next();
    world.feed(30 * CHUNK);
    assert_eq!(world.sent(), []);
    assert_eq!(world.count("team_chunks_missed"), 30);
    world.feed_chunk();
    assert_eq!(world.sent(), [(peer(1), chunk_b(number + 30))]);
}

#[test]
fn a_socket_that_cannot_be_had_is_asked_for_again() {
    let mut world = World::new(Dialect::B);
    assert_eq!(world.opens, 1);
    let (house, _events) = House::new(config(Dialect::B)).unwrap();
    world.station = Station::new(house.clone(), 0, 1).unwrap();
    world.house = house;
    world.deaf = true;
    world.turn();
    assert_eq!(world.opens, 2);
    world.begin();
    world.join(1);
    world.feed_chunk();
    assert_eq!(world.sent(), []);
    assert!(world.count("team_unposted") > 0);
    world.deaf = false;
    assert!(world.station.deadline().is_some());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.opens, 3);
    world.feed_chunk();
    assert_eq!(world.sent().len(), 1);
}

#[test]
fn sleep_is_not_slept_over_a_chunk() {
    let mut world = World::on_air(Dialect::B);
    world.join(1);
    assert!(world.station.park(true), "nothing to do");
    world.station.park(false);
    let bytes = stream(world.fed, CHUNK);
    world.fed += CHUNK as u64;
    let mount = MOUNT.to_owned();
    assert!(world.house.mailbox(0).post(Order::Feed { mount, bytes }).is_ok());
    world.station.handle(world.now, Input::Woken);
    assert!(!world.station.park(true), "a chunk is there");
    world.station.park(false);
    world.turn();
    assert_eq!(world.sent().len(), 1);
    assert!(world.station.park(true));
}

#[test]
fn the_end_is_said_and_over() {
    let mut world = World::on_air(Dialect::B);
    world.join(1);
    world.join(2);
    world.hear(peer(2), GOODBYE);
    world.order(Order::Stop);
    assert!(
        world.sent().contains(&(peer(2), GOODBYE.to_vec())),
        "who waits is answered"
    );
    assert!(world.station.finished());
}
