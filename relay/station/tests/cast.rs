//! What is cast: whole packets, in order, each byte once, however the source brings them and the kernel takes them.

#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;
use proptest::prelude::*;
use relay_cast::receive::Receive;
use relay_cast::rtp::{Head, Place};
use relay_cast::{BODY_BYTES, PACKET, SYNC, is_packets};
use relay_seam::{Conn, Datagram, Input, Machine, Now, Output, Payload, Udp};
use relay_station::{CATALOGUE, CastSpec, Config, Event, House, Level, Order, Station};

const MOUNT: &str = "/eclipse.ts";
const GROUP: &str = "239.255.42.1:5004";
/// Small, so that laps are cheap.
const RING: usize = 64 * 1024;
/// As many datagrams may go out in a millisecond.
const BURST: usize = 64;

fn spec() -> CastSpec {
    CastSpec {
        to: GROUP.parse().unwrap(),
        interface: None,
        from: None,
        mount: None,
        rtp: true,
        ttl: 1,
        fec: None,
    }
}

fn config(cast: CastSpec) -> Config {
    Config {
        ring_max_bytes: 8 * RING,
        cast: Some(cast),
        ..common::config(RING)
    }
}

/// Packets that say which they are, and hold no sync byte but the first.
fn packets(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let packet = |n: u64| {
        let mut bytes = vec![(n % 64) as u8; PACKET];
        // A stream of padding (13818-1, 2.4.1): nothing for the scanner.
        bytes[..4].copy_from_slice(&[SYNC, 0x1F, 0xFF, 0x10]);
        bytes
    };
    numbers.flat_map(packet).collect()
}

/// A datagram that went out.
#[derive(Clone, Debug)]
struct Heard {
    to: SocketAddr,
    bytes: Vec<u8>,
    at_ns: u64,
}

impl Heard {
    fn rtp(&self) -> (Head, Place, &[u8]) {
        let (head, body) = Head::parse(&self.bytes).unwrap();
        (head, head.place.unwrap(), body)
    }
}

struct Stage {
    house: Arc<House>,
    events: Receiver<Event>,
    station: Station,
    now: Now,
    /// The stream of this epoch so far.
    fed: Vec<u8>,
    heard: Vec<Heard>,
    /// What the kernel does with datagrams, and with sockets that are to be opened.
    takes: bool,
    opens: bool,
    opened: u32,
    closed: u32,
}

impl Stage {
    fn new(cast: CastSpec) -> Self {
        let (house, events) = House::new(config(cast)).unwrap();
        let station = Station::new(house.clone(), 0, 0x1234_5678_9abc_def0).unwrap();
        Self {
            house,
            events,
            station,
            now: Now::new(1_000_000_000, 1_700_000_000_000_000),
            fed: Vec::new(),
            heard: Vec::new(),
            takes: true,
            opens: true,
            opened: 0,
            closed: 0,
        }
    }

    /// On the air, with these bytes, for so long that it has been looked at.
    fn on_air(cast: CastSpec, first: &[u8]) -> Self {
        let mut stage = Self::new(cast);
        stage.begin(first);
        stage
    }

    fn begin(&mut self, first: &[u8]) {
        self.fed.clear();
        self.order(Order::Begin {
            mount: MOUNT.to_owned(),
            content_type: None,
            properties: Vec::new(),
            from: "a test".to_owned(),
        });
        self.feed(first);
        self.wait(300);
    }

    fn order(&mut self, order: Order) {
        assert!(self.house.mailbox(0).post(order).is_ok());
        self.station.handle(self.now, Input::Woken);
        self.turn();
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.fed.extend_from_slice(bytes);
        let (mount, bytes) = (MOUNT.to_owned(), bytes.to_vec());
        self.order(Order::Feed { mount, bytes });
    }

    fn end(&mut self) {
        let mount = MOUNT.to_owned();
        self.order(Order::End { mount });
    }

    /// Lets time pass as a driver would: no further at once than the station wants to sleep.
    fn wait(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now + Duration::from_millis(1);
            self.turn();
        }
    }

    fn turn(&mut self) {
        for _ in 0..10_000 {
            let poll = || self.station.poll(self.now);
            let batch: Vec<Output> = std::iter::from_fn(poll).take(256).collect();
            if batch.is_empty() {
                return;
            }
            self.carry_out(batch);
        }
        panic!("the station never comes to rest");
    }

    fn carry_out(&mut self, batch: Vec<Output>) {
        let mut posted = 0;
        for output in batch {
            match output {
                Output::Datagram(datagram) => {
                    posted += 1;
                    self.post(&datagram);
                }
                Output::OpenUdp { token, .. } => self.open(token),
                Output::CloseUdp { .. } => self.closed += 1,
                _ => {}
            }
        }
        if posted > 0 {
            let (taken, dropped) = if self.takes { (posted, 0) } else { (0, posted) };
            self.station.handle(self.now, Input::Posted { taken, dropped });
        }
    }

    fn open(&mut self, token: u64) {
        let result = match self.opens {
            true => Ok((Udp::new(Conn::new(0, self.opened)), "0.0.0.0:9".parse().unwrap())),
            false => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        self.opened += u32::from(self.opens);
        self.station.handle(self.now, Input::UdpOpened { token, result });
    }

    fn post(&mut self, datagram: &Datagram) {
        assert_eq!(
            datagram.udp.place().generation() + 1,
            self.opened,
            "a socket that is closed"
        );
        let body = match datagram.body.as_ref().unwrap() {
            Payload::Span(span) => self.station.bytes(*span),
            Payload::Own(bytes, from) => &bytes[*from..],
        };
        let bytes = [datagram.head.bytes(), body].concat();
        let cut = if datagram.segment > 0 {
            usize::from(datagram.segment)
        } else {
            bytes.len()
        };
        self.heard.extend(bytes.chunks(cut).map(|bytes| Heard {
            to: datagram.to,
            bytes: bytes.to_vec(),
            at_ns: self.now.mono_ns(),
        }));
    }

    fn count(&self, name: &str) -> u64 {
        let at = CATALOGUE.iter().position(|entry| entry.name == name).unwrap();
        self.house.totals()[at]
    }

    fn warnings(&self) -> Vec<String> {
        let warning = |event| match event {
            Event::Note {
                level: Level::Warn,
                text,
            } => Some(text),
            _ => None,
        };
        self.events.try_iter().filter_map(warning).collect()
    }

    /// Everything that was fed from `from` on has gone out, in order, up to less than a datagram (or a packet).
    fn expect_all_since(&self, from: u64, rest_max: usize) {
        let mut at = from;
        for (i, heard) in self.heard.iter().enumerate() {
            let (head, place, body) = heard.rtp();
            assert_eq!(place.at, at, "datagram {i}");
            assert!(is_packets(body) && body.len() <= BODY_BYTES);
            assert_eq!(body, &self.fed[at as usize..][..body.len()]);
            assert_eq!(
                head.sequence,
                self.heard[0].rtp().0.sequence.wrapping_add(i as u16)
            );
            at += body.len() as u64;
        }
        let rest = self.fed.len() - at as usize;
        assert!(rest < rest_max, "{rest} bytes have not gone out");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Feed(usize),
    Wait(u64),
    Takes(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..24_000usize).prop_map(Step::Feed),
        2 => (1..20u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Takes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_goes_out_once_and_in_order(
        before in 0..PACKET,
        steps in prop::collection::vec(step(), 1..60),
        rtp in any::<bool>(),
    ) {
        let stream = packets(0..20_000);
        // A source may begin in the middle of a packet.
        let stream = &stream[PACKET - before..];
        let mut stage = Stage::on_air(CastSpec { rtp, ..spec() }, &stream[..4000]);
        for step in steps {
            match step {
                Step::Feed(len) => {
                    let at = stage.fed.len();
                    stage.wait(1);
                    stage.feed(&stream[at..stream.len().min(at + len)]);
                }
                Step::Wait(ms) => stage.wait(ms),
                Step::Takes(takes) => stage.takes = takes,
            }
        }
        stage.wait(2);
        if rtp {
            stage.expect_all_since(before as u64, BODY_BYTES);
        } else {
            let sent: Vec<u8> = stage.heard.iter().flat_map(|heard| heard.bytes.clone()).collect();
            prop_assert_eq!(&sent[..], &stage.fed[before..][..sent.len()]);
            prop_assert!(stage.heard.iter().all(|heard| heard.bytes.len() == BODY_BYTES));
            prop_assert!(stage.fed.len() - before - sent.len() < BODY_BYTES);
        }
        prop_assert_eq!(stage.count("cast_lost_bytes"), 0);
        prop_assert_eq!(stage.count("cast_skipped_bytes"), before as u64);
        prop_assert_eq!(stage.count("cast_datagrams"), stage.heard.len() as u64);
        // Nothing stays pinned: the writer was never refused.
        prop_assert_eq!(stage.count("ring_refusals"), 0);
        for heard in &stage.heard {
            let at_once = stage.heard.iter().filter(|other| other.at_ns == heard.at_ns).count();
            prop_assert!(at_once <= BURST, "{at_once} at once");
        }
    }
}

#[test]
fn a_damaged_packet_is_left_out_and_no_other() {
    let mut stream = packets(0..200);
    stream[99 * PACKET] = 0;
    let mut stage = Stage::on_air(spec(), &stream[..4000]);
    stage.feed(&stream[4000..]);
    stage.wait(5);
    let sent: Vec<u8> = stage
        .heard
        .iter()
        .flat_map(|heard| heard.rtp().2.to_vec())
        .collect();
    let good = [&stream[..99 * PACKET], &stream[100 * PACKET..]].concat();
    assert_eq!(sent, good[..sent.len()]);
    assert!(good.len() - sent.len() < BODY_BYTES);
    assert_eq!(stage.count("cast_skipped_bytes"), PACKET as u64);
    // Decoders are told that the time stamps may leap (RFC 2250, section 2): at the beginning, and there.
    let marked = stage.heard.iter().filter(|heard| heard.rtp().0.marker);
    let places: Vec<u64> = marked.map(|heard| heard.rtp().1.at).collect();
    assert_eq!(places, [0, 100 * PACKET as u64]);
}

#[test]
fn an_epoch_goes_out_to_its_last_packet_and_another_follows() {
    let stream = packets(0..100);
    let mut stage = Stage::on_air(spec(), &stream);
    stage.end();
    stage.wait(300);
    stage.expect_all_since(0, PACKET);
    let (first, before) = (stage.heard[0].rtp().1.epoch, stage.heard.len());
    stage.begin(&packets(7..60));
    stage.wait(300);
    let old = stage.heard.drain(..before).next_back().unwrap();
    stage.expect_all_since(0, BODY_BYTES);
    let (head, place, _) = stage.heard[0].rtp();
    assert!(head.marker && place.epoch > first);
    let (last, ..) = old.rtp();
    assert_eq!(
        (head.sequence, head.ssrc),
        (last.sequence.wrapping_add(1), last.ssrc)
    );
}

/// A ring that proves too small is exchanged for a larger one with the same bytes: nobody notices.
#[test]
fn a_larger_ring_makes_no_difference() {
    let stream = packets(0..8000);
    let mut stage = Stage::on_air(spec(), &stream[..4000]);
    let ring = |stage: &Stage| {
        stage
            .house
            .directory
            .get(MOUNT)
            .unwrap()
            .run()
            .unwrap()
            .raw
            .capacity()
    };
    let before = ring(&stage);
    for piece in stream[4000..].chunks(20_000) {
        stage.feed(piece);
        stage.wait(100);
    }
    assert!(ring(&stage) > before, "{before} bytes were enough");
    stage.expect_all_since(0, BODY_BYTES);
    assert_eq!(stage.count("cast_lost_bytes"), 0);
}

#[test]
fn what_cannot_go_out_in_time_is_left_out_and_counted() {
    let mut stage = Stage::new(spec());
    stage.opens = false;
    let stream = packets(0..2000);
    stage.begin(&stream[..4000]);
    for at in (4000..stream.len() - 4000).step_by(4000) {
        stage.feed(&stream[at..at + 4000]);
    }
    assert!(stage.heard.is_empty());
    let warnings = stage.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains(GROUP), "{warnings:?}");
    stage.opens = true;
    stage.wait(3000);
    let first = stage.heard[0].rtp().1.at;
    assert!(first > 0 && stage.count("cast_lost_bytes") + stage.count("cast_skipped_bytes") == first);
    stage.expect_all_since(first, BODY_BYTES);
}

#[test]
fn a_socket_that_takes_nothing_is_opened_anew() {
    let stream = packets(0..500);
    let mut stage = Stage::on_air(spec(), &stream[..8000]);
    stage.takes = false;
    for at in (8000..80_000).step_by(2000) {
        stage.feed(&stream[at..at + 2000]);
        stage.wait(100);
    }
    assert!(
        stage.closed > 0 && stage.opened == stage.closed + 1,
        "{} {}",
        stage.opened,
        stage.closed
    );
    // It is no reason to leave anything out.
    stage.expect_all_since(0, BODY_BYTES);
    assert!(stage.count("posts_dropped") > 0);
}

#[test]
fn what_is_no_transport_stream_is_refused_once_with_a_remedy() {
    let named = CastSpec {
        mount: Some(MOUNT.to_owned()),
        ..spec()
    };
    let mut stage = Stage::new(named);
    stage.begin(b"FLV\x01\x05\0\0\0\x09\0\0\0\0");
    stage.wait(2000);
    let warnings = stage.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("only MPEG-TS"),
        "{warnings:?}"
    );
    assert!(stage.heard.is_empty() && stage.opened == 0);
}

#[test]
fn packets_of_another_length_are_said_to_be_wrong() {
    let long: Vec<u8> = packets(0..1500)
        .chunks(PACKET)
        .flat_map(|packet| [packet, &[0; 4]].concat())
        .collect();
    let mut stage = Stage::on_air(spec(), &long[..8000]);
    for at in (8000..long.len() - 8000).step_by(8000) {
        stage.wait(1);
        stage.feed(&long[at..at + 8000]);
    }
    stage.wait(300);
    assert!(stage.heard.is_empty());
    let warnings = stage.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("188 bytes"),
        "{warnings:?}"
    );
}

#[test]
fn parity_is_enough_to_bring_back_what_is_lost() {
    let fec = "4+2".parse().ok();
    let stream = packets(0..700);
    let mut stage = Stage::on_air(CastSpec { fec, ..spec() }, &stream[..4000]);
    for piece in stream[4000..].chunks(8000) {
        stage.wait(1);
        stage.feed(piece);
    }
    stage.wait(300);
    let (media, parity): (SocketAddr, SocketAddr) =
        (GROUP.parse().unwrap(), "239.255.42.1:5006".parse().unwrap());
    let mut receive = Receive::new(Duration::from_secs(1));
    // The first parity tells a receiver that there is any: from then on every third datagram is lost.
    let mut knows = false;
    for (i, heard) in stage.heard.iter().enumerate() {
        match heard.to {
            to if to == parity => receive.parity(stage.now, &heard.bytes),
            to => {
                assert_eq!(to, media);
                if !knows || i % 3 != 0 {
                    receive.media(stage.now, &heard.bytes);
                }
            }
        }
        knows |= heard.to == parity;
    }
    let bytes: Vec<u8> = std::iter::from_fn(|| receive.poll(stage.now)).flatten().collect();
    assert!(receive.stats().recovered > 10, "{:?}", receive.stats());
    assert_eq!(bytes, stage.fed[..bytes.len()]);
    assert!(
        stage.fed.len() - bytes.len() < BODY_BYTES,
        "{} of {}",
        bytes.len(),
        stage.fed.len()
    );
}
