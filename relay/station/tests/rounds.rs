//! Rounds, turn by turn: a stream that goes on while a batch is with the kernel starves nobody, and who has much to
//! catch up with is not served again before the others.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relay_seam::{Conn, Input, Machine, Now, Output, Payload, Sent};
use relay_station::{Config, House, Order, Station};

const RING: usize = 1 << 20;
const TURN: u32 = 16 * 1024;

fn config(workers: usize) -> Config {
    Config {
        workers,
        max_batch_delay: Duration::from_millis(100),
        listener: relay_listener::Config {
            burst: 0,
            turn_bytes: TURN,
            ..relay_listener::Config::default()
        },
        ..common::config(RING)
    }
}

fn order(house: &House, station: &mut Station, now: Now, order: Order) {
    assert!(house.mailbox(0).post(order).is_ok());
    station.handle(now, Input::Woken);
}

fn begin(house: &House, station: &mut Station, now: Now, mount: &str) {
    order(
        house,
        station,
        now,
        Order::Begin {
            mount: mount.to_owned(),
            content_type: Some("text/x-log".to_owned()),
            properties: Vec::new(),
            from: "a test".to_owned(),
        },
    );
}

fn feed(house: &House, station: &mut Station, now: Now, mount: &str, len: usize) {
    order(
        house,
        station,
        now,
        Order::Feed {
            mount: mount.to_owned(),
            bytes: vec![7; len],
        },
    );
}

fn come(station: &mut Station, now: Now, slot: u32, mount: &str) {
    let conn = Conn::new(slot, 0);
    let peer: SocketAddr = "127.0.0.1:4000".parse().unwrap();
    station.handle(now, Input::Accepted { conn, peer });
    let request = format!("GET {mount} HTTP/1.0\r\n\r\n");
    station.handle(
        now,
        Input::Received {
            conn,
            bytes: request.as_bytes(),
        },
    );
}

fn batch(station: &mut Station, now: Now, most: usize) -> Vec<(Conn, Option<u64>, u32)> {
    let mut sends = Vec::new();
    for output in std::iter::from_fn(|| station.poll(now)).take(most) {
        if let Output::Send { conn, payload } = output {
            let (at, len) = match &payload {
                Payload::Span(span) => (Some(span.at), span.len),
                Payload::Own(bytes, from) => (None, (bytes.len() - from) as u32),
            };
            sends.push((conn, at, len));
        }
    }
    sends
}

fn all_taken(station: &mut Station, now: Now, sends: &[(Conn, Option<u64>, u32)]) {
    for (conn, ..) in sends {
        station.handle(
            now,
            Input::Sent {
                conn: *conn,
                result: Sent::All,
            },
        );
    }
}

fn settle(station: &mut Station, now: Now) {
    for _ in 0..1000 {
        let mut any = false;
        let mut sends = Vec::new();
        for output in std::iter::from_fn(|| station.poll(now)).take(256) {
            any = true;
            if let Output::Send { conn, .. } = output {
                sends.push((conn, None, 0));
            }
        }
        if !any {
            return;
        }
        all_taken(station, now, &sends);
    }
    panic!("never at rest");
}

/// The writer is another worker: the head moves while a batch is with the kernel.
#[test]
fn a_head_that_moves_during_each_batch_starves_nobody() {
    let (house, _events) = House::new(config(2)).unwrap();
    let house: Arc<House> = house;
    let mut writer = Station::new(house.clone(), 0, 1).unwrap();
    let mut teller = Station::new(house.clone(), 1, 2).unwrap();
    let mut now = Now::new(1_000_000_000, 1_000_000);
    begin(&house, &mut writer, now, "/a.log");
    feed(&house, &mut writer, now, "/a.log", 8000);
    settle(&mut writer, now);
    for slot in 0..6 {
        come(&mut teller, now, slot, "/a.log");
        settle(&mut teller, now);
    }
    let mut served = [0u32; 6];
    now = now + Duration::from_secs(1);
    feed(&house, &mut writer, now, "/a.log", 1000);
    settle(&mut writer, now);
    teller.handle(now, Input::Woken);
    for _ in 0..1000 {
        let sends = batch(&mut teller, now, 2);
        // Meanwhile the source's worker has appended a little.
        feed(&house, &mut writer, now, "/a.log", 100);
        settle(&mut writer, now);
        now = now + Duration::from_micros(1300);
        for (conn, ..) in &sends {
            served[conn.slot()] += 1;
        }
        all_taken(&mut teller, now, &sends);
        teller.handle(now, Input::Woken);
    }
    assert!(served.iter().all(|n| *n > 0), "{served:?}");
}

/// One worker, who catches up is served again and again before those who are in time.
#[test]
fn nobody_is_served_twice_before_everybody_was_once() {
    let (house, _events) = House::new(config(1)).unwrap();
    let mut station = Station::new(house.clone(), 0, 1).unwrap();
    let mut now = Now::new(1_000_000_000, 1_000_000);
    begin(&house, &mut station, now, "/a.log");
    begin(&house, &mut station, now, "/b.log");
    feed(&house, &mut station, now, "/a.log", 8000);
    feed(&house, &mut station, now, "/b.log", 8000);
    settle(&mut station, now);
    for slot in 0..6 {
        come(&mut station, now, slot, "/a.log");
        settle(&mut station, now);
    }
    come(&mut station, now, 6, "/b.log");
    settle(&mut station, now);
    // Everybody is ten turns behind on /a; /b has a word to say.
    now = now + Duration::from_secs(1);
    for _ in 0..10 {
        feed(&house, &mut station, now, "/a.log", TURN as usize);
    }
    feed(&house, &mut station, now, "/b.log", 8);
    let mut orders = Vec::new();
    for _ in 0..200 {
        let sends = batch(&mut station, now, 2);
        orders.extend(sends.iter().map(|s| s.0.slot()));
        all_taken(&mut station, now, &sends);
    }
    let first = |slot| orders.iter().position(|s| *s == slot);
    let late = (0..7).map(|s| first(s).unwrap()).max().unwrap();
    assert!(
        late < 8,
        "somebody was served only after {late} sends: {orders:?}"
    );
}
