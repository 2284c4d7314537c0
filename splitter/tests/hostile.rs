//! Secured teams that are mistreated: free riders, bad networks, mass deaths, floods at the door, false words.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use common::secured::{config, empty, join, team};
use common::world::{Lead, Net, World, at, small, splitter_at};
use relay_seam::Now;
use splitter::rules::{Input, Note, Refusal};
use splitter::{Config, Dialect};

fn city() -> Net {
    Net {
        delay: 20,
        jitter: 20,
        ..Net::default()
    }
}

/// A fifth and a half of the team take and give nothing. Where a monitor is, they are soon gone.
#[test]
fn free_riders_cost_the_others_nothing_for_long() {
    for riders in [3, 8] {
        let mut world = empty(config(), city(), riders.into());
        (1..=16).for_each(|port| join(&mut world, port, port == 1));
        world.pass(1500);
        for port in 2..2 + riders {
            world.peers.get_mut(&at(port)).unwrap().selfish = true;
        }
        world.stream(3600, 5);
        assert_eq!(world.splitter.rules.peers().count(), usize::from(16 - riders));
        for port in 2 + riders..=16 {
            assert_eq!(world.lacks(port, 2400..3000), [], "{riders}: peer {port}");
        }
    }
}

#[test]
fn a_bad_network_is_borne() {
    let net = Net {
        delay: 150,
        jitter: 100,
        loss: 50,
        twice: 200,
        reports: false,
    };
    let mut world = team(10, net, 3);
    world.stream(3000, 5);
    assert_eq!(world.splitter.rules.peers().count(), 10);
    for port in 1..=10 {
        let continuity = world.continuity(port, 600);
        assert!(continuity >= 990, "peer {port}: {continuity}");
    }
}

#[test]
fn a_third_of_the_team_dies_at_once() {
    let mut world = team(15, city(), 4);
    world.stream(800, 5);
    (3..8).for_each(|port| world.kill(port));
    world.stream(1800, 5);
    assert_eq!(world.splitter.rules.peers().count(), 10);
    for port in [1, 2, 8, 9, 10, 11, 12, 13, 14, 15] {
        let continuity = world.continuity(port, 0);
        assert!(continuity >= 950, "peer {port}: {continuity}");
        assert_eq!(world.lacks(port, 1500..2000), [], "peer {port}");
    }
}

/// Knocks at the door from anywhere: the table is fixed, and the team streams on.
#[test]
fn a_flood_at_the_door_is_kept_outside() {
    let mut small = config();
    small.max_arrivals = 8;
    let mut world = empty(small, city(), 5);
    for port in 1..=4 {
        join(&mut world, port, false);
        world.pass(500);
    }
    world.stream(100, 5);
    for n in 0..50_000u32 {
        let from = SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 + n), 7);
        world.tell_splitter(Input::Connected(from));
        if n % 3 == 0 {
            world.tell_splitter(Input::Said(from, b"T"));
        }
    }
    assert_eq!(world.splitter.rules.arrivals(), 8);
    assert_eq!(world.splitter.rules.stats().refused_arrivals, 49_992);
    world.pass(5_100);
    join(&mut world, 5, false);
    world.stream(900, 5);
    assert_eq!(
        world.splitter.rules.peers().count(),
        5,
        "those who said nothing more were let go"
    );
    (1..=4).for_each(|port| assert_eq!(world.lacks(port, 110..450), [], "peer {port}"));
}

/// Two hundred names for one host, of every wire.
#[test]
fn one_address_has_few_places() {
    let sybil = |n: u16| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), n);
    let refused = |notes: &[(Now, SocketAddrV4, Note)]| {
        let crowded = |note: &Note| *note == Note::Refused(Refusal::Address(4));
        notes.iter().filter(|(_, _, note)| crowded(note)).count()
    };
    let crowded = |team: Config| Config {
        max_per_address: 4,
        max_arrivals: 64,
        ..team
    };
    let mut secured = empty(crowded(config()), city(), 1);
    (1..=200).for_each(|n| secured.tell_splitter(Input::Connected(sybil(n))));
    assert_eq!(
        (refused(&secured.notes), secured.splitter.rules.arrivals()),
        (196, 4)
    );
    for dialect in [Dialect::B, Dialect::C] {
        let mut open = World::new(crowded(Config { dialect, ..small() }), city(), 1);
        (1..=200).for_each(|n| open.tell_splitter(Input::Connected(sybil(n))));
        assert_eq!((refused(&open.notes), open.splitter.arrivals()), (196, 4));
        open.tell_splitter(Input::Connected(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 1)));
        assert_eq!(open.splitter.arrivals(), 5, "others have theirs");
    }
}

/// Who says that it has what it was never given gets nothing for it, and the chunk goes on.
#[test]
fn false_words_move_nothing() {
    let mut world = team(4, city(), 6);
    world.record = Some(Vec::new());
    world.stream(100, 5);
    let tape = world.record.take().unwrap();
    let got: Vec<_> = tape
        .iter()
        .filter(|(from, to, bytes)| *from == at(2) && *to == splitter_at() && bytes[1] == 4)
        .collect();
    assert!(!got.is_empty());
    for (from, _, bytes) in got {
        for number in [0u64, 99, 100, 5_000, u64::MAX] {
            let mut lie = bytes.clone();
            lie[10..].copy_from_slice(&number.to_be_bytes());
            world.tell_splitter(Input::Datagram(*from, &lie));
        }
    }
    world.stream(1200, 5);
    assert_eq!(world.splitter.rules.peers().count(), 4);
    (1..=4).for_each(|port| assert_eq!(world.lacks(port, 0..700), [], "peer {port}"));
    let idle = world.splitter.deadline().unwrap().since(world.now);
    assert!(idle <= Duration::from_millis(50));
}
