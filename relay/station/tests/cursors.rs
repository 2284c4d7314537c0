//! Cursors under every mood of the kernel: what a listener is told is a contiguous run of the stream but for jumps that
//! are counted; nobody is served twice in a batch; nobody who can take bytes is left behind.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use relay_seam::{CloseReason, Conn, Input, Machine, Now, Output, Payload, Sent};
use relay_station::{CATALOGUE, Config, House, Order, Station};

const MOUNT: &str = "/eclipse.log";
/// Small, so that laps are cheap; the window is three quarters of it.
const RING: usize = 64 * 1024;
const WINDOW: u64 = RING as u64 / 4 * 3;
const BURST: u32 = 8 * 1024;
const TURN: u32 = 16 * 1024;
const GUESTS: usize = 6;
/// Outputs of a batch, where a round is to take many of them.
const SMALL_BATCH: usize = 2;

fn config() -> Config {
    Config {
        listener: relay_listener::Config {
            burst: BURST,
            turn_bytes: TURN,
            // So that a listener which jumps often is still there to be looked at.
            jumps_max: u8::MAX,
            ..relay_listener::Config::default()
        },
        ..common::config(RING)
    }
}

/// The stream: each eight bytes are the number of the word.
fn stream(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64)
        .map(|at| (at / 8).to_be_bytes()[(at % 8) as usize])
        .collect()
}

/// What the kernel says to a send.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Takes,
    /// So much of it, in parts of 256.
    TakesSome(u8),
    Full,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Feed(usize),
    /// The kernel's mood towards a guest from now on.
    Mood(usize, Mood),
    /// A guest's socket has room again.
    Room(usize),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let mood = prop_oneof![
        3 => Just(Mood::Takes),
        2 => any::<u8>().prop_map(Mood::TakesSome),
        1 => Just(Mood::Full),
    ];
    prop_oneof![
        6 => (1..24_000usize).prop_map(Step::Feed),
        3 => (0..GUESTS, mood).prop_map(|(guest, mood)| Step::Mood(guest, mood)),
        3 => (0..GUESTS).prop_map(Step::Room),
        1 => (0..500u16).prop_map(Step::Wait),
    ]
}

/// A listener, as its own end sees it.
struct Guest {
    conn: Conn,
    mood: Mood,
    /// Was told to wait for room.
    full: bool,
    /// The next byte of the stream that it expects.
    at: Option<u64>,
    jumps: u64,
    gone: bool,
}

struct World {
    house: Arc<House>,
    station: Station,
    now: Now,
    fed: u64,
    guests: Vec<Guest>,
}

impl World {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: Config) -> Self {
        let (house, _events) = House::new(config).unwrap();
        let station = Station::new(house.clone(), 0, 1).unwrap();
        let mut world = Self {
            house,
            station,
            now: Now::new(1_000_000_000, 1_000_000),
            fed: 0,
            guests: Vec::new(),
        };
        world.order(Order::Begin {
            mount: MOUNT.to_owned(),
            content_type: Some("text/x-log".to_owned()),
            properties: Vec::new(),
            from: "a test".to_owned(),
        });
        world.feed(BURST as usize);
        for guest in 0..GUESTS {
            world.come(guest as u32);
            world.turn();
        }
        world
    }

    /// A listener leaves; another takes the last one's place among the members.
    fn go(&mut self, guest: usize) {
        let guest = &mut self.guests[guest];
        if !std::mem::replace(&mut guest.gone, true) {
            let conn = guest.conn;
            let reason = CloseReason::Reset;
            self.station.handle(self.now, Input::Closed { conn, reason });
        }
    }

    /// One small batch, so that much can happen within a round.
    fn small_batch(&mut self) {
        let poll = || self.station.poll(self.now);
        let batch: Vec<Output> = std::iter::from_fn(poll).take(SMALL_BATCH).collect();
        self.carry_out(&batch);
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

    fn come(&mut self, slot: u32) {
        let conn = Conn::new(slot, 0);
        let peer: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        self.guests.push(Guest {
            conn,
            mood: Mood::Takes,
            full: false,
            at: None,
            jumps: 0,
            gone: false,
        });
        self.station.handle(self.now, Input::Accepted { conn, peer });
        let request = format!("GET {MOUNT} HTTP/1.0\r\n\r\n");
        let bytes = request.as_bytes();
        self.station.handle(self.now, Input::Received { conn, bytes });
    }

    /// Turns the station until it wants nothing, a batch at a time, as a driver does.
    fn turn(&mut self) {
        for _ in 0..10_000 {
            let batch: Vec<Output> = std::iter::from_fn(|| self.station.poll(self.now))
                .take(256)
                .collect();
            if batch.is_empty() {
                return;
            }
            self.carry_out(&batch);
        }
        panic!("the station never comes to rest");
    }

    fn carry_out(&mut self, batch: &[Output]) {
        let mut served = HashSet::new();
        let mut results = Vec::new();
        for output in batch {
            match output {
                Output::Send { conn, payload } => {
                    assert!(served.insert(*conn), "{conn:?} is served twice in a batch");
                    let (from, bytes) = match payload {
                        Payload::Span(span) => (Some(span.at), self.station.bytes(*span)),
                        Payload::Own(bytes, from) => (None, &bytes[*from..]),
                    };
                    assert!(bytes.len() <= TURN as usize, "{} bytes in one turn", bytes.len());
                    let guest = self.guests.iter_mut().find(|guest| guest.conn == *conn).unwrap();
                    assert!(!guest.full && !guest.gone, "{conn:?} has no room");
                    results.push((*conn, guest.take(from, bytes)));
                }
                Output::Close { conn, .. } => {
                    self.guests
                        .iter_mut()
                        .find(|guest| guest.conn == *conn)
                        .unwrap()
                        .gone = true;
                }
                _ => {}
            }
        }
        for (conn, result) in results {
            self.station.handle(self.now, Input::Sent { conn, result });
        }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Feed(len) => self.feed(len),
            Step::Mood(guest, mood) => self.guests[guest].mood = mood,
            Step::Room(guest) => self.room(guest),
            Step::Wait(ms) => {
                self.now = self.now + Duration::from_millis(u64::from(ms));
                self.turn();
            }
        }
    }

    fn room(&mut self, guest: usize) {
        let Guest { conn, full, gone, .. } = &mut self.guests[guest];
        if std::mem::take(full) && !*gone {
            let conn = *conn;
            self.station.handle(self.now, Input::Writable { conn });
            self.turn();
        }
    }

    fn count(&self, name: &str) -> u64 {
        let at = CATALOGUE.iter().position(|entry| entry.name == name).unwrap();
        self.house.totals()[at]
    }
}

impl Guest {
    /// Is offered bytes of the stream from a position on, or bytes of its own.
    fn take(&mut self, from: Option<u64>, bytes: &[u8]) -> Sent {
        let took = match self.mood {
            Mood::Takes => bytes.len(),
            Mood::TakesSome(part) => bytes.len() * usize::from(part) / 256,
            Mood::Full => 0,
        };
        match (from, self.at) {
            (None, at) => assert!(at.is_none(), "bytes of its own in the middle of the stream"),
            (Some(from), at) => {
                assert!(
                    bytes == stream(from, bytes.len()),
                    "not what the stream says at {from}"
                );
                assert!(at.is_none_or(|at| at <= from), "from {at:?} back to {from}");
                self.jumps += u64::from(at.is_some_and(|at| at < from));
                self.at = Some(from + took as u64);
            }
        }
        self.full = took < bytes.len();
        match took {
            _ if took == bytes.len() => Sent::All,
            0 => Sent::Full,
            n => Sent::Some(n as u32),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn listeners_get_a_run_of_the_stream(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.play(step);
        }
        // Everybody takes everything now: nobody who is still there may be left behind.
        for guest in 0..GUESTS {
            world.guests[guest].mood = Mood::Takes;
        }
        for _ in 0..4 {
            (0..GUESTS).for_each(|guest| world.room(guest));
            world.now = world.now + Duration::from_secs(1);
            world.turn();
        }
        world.feed(64);
        for guest in world.guests.iter().filter(|guest| !guest.gone) {
            prop_assert_eq!(guest.at, Some(world.fed), "{:?} is left behind", guest.conn);
        }
        let jumps: u64 = world.guests.iter().map(|guest| guest.jumps).sum();
        prop_assert!(jumps <= world.count("lag_jumps"), "{} jumps, some not counted", jumps);
    }
}

/// What happens between two small batches of a round.
#[derive(Clone, Debug)]
enum Stir {
    Come,
    Go(usize),
    Batch,
}

fn stir() -> impl Strategy<Value = Stir> {
    prop_oneof![
        2 => Just(Stir::Come),
        2 => (0..64usize).prop_map(Stir::Go),
        3 => Just(Stir::Batch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Members change places when others leave, and the list grows when others come: the round that is under way
    /// serves everybody all the same.
    #[test]
    fn comings_and_goings_within_a_round_skip_nobody(stirs in prop::collection::vec(stir(), 1..60)) {
        let mut world = World::new();
        for stir in stirs.chunks(8) {
            let bytes = stream(world.fed, 1000);
            world.fed += 1000;
            let mount = MOUNT.to_owned();
            assert!(world.house.mailbox(0).post(Order::Feed { mount, bytes }).is_ok());
            world.station.handle(world.now, Input::Woken);
            for stir in stir {
                match stir {
                    Stir::Come => world.come(world.guests.len() as u32),
                    Stir::Go(guest) => world.go(guest % world.guests.len()),
                    Stir::Batch => world.small_batch(),
                }
            }
            world.turn();
            for guest in world.guests.iter().filter(|guest| !guest.gone) {
                prop_assert_eq!(guest.at, Some(world.fed), "{:?} was skipped", guest.conn);
            }
        }
    }
}

/// `TCP_NOTSENT_LOWAT` of a listener who comes now.
fn unsent_of_a_newcomer(world: &mut World) -> u32 {
    world.come(world.guests.len() as u32);
    let mut unsent = None;
    for _ in 0..10 {
        let batch: Vec<Output> = std::iter::from_fn(|| world.station.poll(world.now)).collect();
        world.carry_out(&batch);
        let bound = batch.iter().find_map(|output| match output {
            Output::Bound { unsent, .. } => Some(*unsent),
            _ => None,
        });
        unsent = unsent.or(bound.flatten());
    }
    unsent.expect("a newcomer is bounded")
}

#[test]
fn the_kernel_may_hold_a_batch_of_a_fast_stream() {
    let least = relay_listener::Config::default().unsent;
    let most = relay_listener::Config::default().send_buffer;
    for (delay_ms, expected) in [(0, least), (350, most), (5000, most)] {
        let mut world = World::with(Config {
            max_batch_delay: Duration::from_millis(delay_ms),
            ..config()
        });
        assert_eq!(
            unsent_of_a_newcomer(&mut world),
            least,
            "nothing is known of the rate yet"
        );
        // Four seconds of 2 Mb/s: the rate is known.
        for _ in 0..40 {
            world.now = world.now + Duration::from_millis(100);
            world.feed(25_000);
        }
        let unsent = unsent_of_a_newcomer(&mut world);
        assert!(
            (expected.min(100_000)..=expected).contains(&unsent),
            "{unsent} at {delay_ms} ms"
        );
    }
}

/// The steps above do lap somebody, or the test would show nothing.
#[test]
fn who_never_reads_is_lapped_and_comes_back_at_a_newer_place() {
    let mut world = World::new();
    world.play(Step::Mood(0, Mood::Full));
    for _ in 0..8 {
        world.play(Step::Feed(WINDOW as usize / 2));
        world.play(Step::Wait(100));
    }
    world.play(Step::Mood(0, Mood::Takes));
    world.play(Step::Room(0));
    world.play(Step::Feed(8));
    let lapped = &world.guests[0];
    assert_eq!((lapped.jumps, lapped.at), (1, Some(world.fed)));
    assert!(world.count("lag_jumps") >= 1);
    assert!(
        world.guests[1..]
            .iter()
            .all(|guest| (guest.jumps, guest.at) == (0, Some(world.fed)))
    );
}
