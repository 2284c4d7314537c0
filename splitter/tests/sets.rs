//! Sets of rules, alone and together: LRS, ACS and IMS over generation B.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::world::{Net, World, at, peer_of, small};
use splitter::Config;
use splitter::peer::PeerConfig;

fn lossy() -> Net {
    Net {
        delay: 20,
        jitter: 20,
        loss: 30,
        ..Net::default()
    }
}

/// A team whose members all report what they lose.
fn reporting(n: u16, config: &Config, net: Net) -> World {
    let mut world = World::new(config.clone(), net, 3);
    for port in 1..=n {
        let peer = PeerConfig {
            monitor: port == 1,
            report_losses: true,
            ..peer_of(config, port)
        };
        world.join(port, peer);
        world.pass(200);
    }
    world
}

#[test]
fn lost_chunks_are_recovered() {
    let continuity = |lrs: bool| {
        let mut world = reporting(12, &Config { lrs, ..small() }, lossy());
        world.stream(3000, 5);
        assert_eq!(world.splitter.peers().len(), 12, "nobody is expelled for it");
        let all = (1..=12).map(|port| world.continuity(port, 100));
        (all.min().unwrap(), world.uploads)
    };
    let (without, once) = continuity(false);
    let (with, again) = continuity(true);
    assert!(without < 960 && with >= 998, "{without} and {with}");
    assert_eq!(once, 3000);
    assert!(again < 2 * 3000, "{again}");
}

#[test]
fn a_narrow_uplink_carries_what_it_can_and_stays() {
    let mut world = reporting(6, &small(), Net { loss: 0, ..lossy() });
    world.narrow.insert(at(3), 400);
    world.stream(6000, 5);
    assert_eq!(world.splitter.peers().len(), 6);
    assert!(world.splitter.stats().losses > 0);
    for port in [1, 2, 4, 5, 6] {
        assert!(world.continuity(port, 1000) >= 990, "peer {port}");
    }
}

/// IMS of generation B: one copy on the wire, however many listen.
#[test]
fn a_group_costs_the_same_for_any_number() {
    let sent = |n: u16| {
        let config = Config {
            group: Some("224.0.0.1:8001".parse().unwrap()),
            max_arrivals: 50,
            ..small()
        };
        let mut world = World::new(config, Net { loss: 0, ..lossy() }, 1);
        (1..=n).for_each(|port| world.join_one(port));
        world.pass(300);
        let before = world.bytes_sent;
        world.stream(500, 5);
        for port in 1..=n {
            assert_eq!(world.lacks(port, 2..350), [], "peer {port} of {n}");
        }
        world.leave(1);
        world.stream(10, 5);
        assert!(world.node(1).ended.is_some());
        world.bytes_sent - before
    };
    assert_eq!(sent(1), sent(50));
}
