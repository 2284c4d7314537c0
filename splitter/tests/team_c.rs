//! Whole teams of generation C under a seeded network: flooding, requests, prunes.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};

use common::world::{Net, World, at, peer_of, small};
use splitter::peer::{Ended, PeerConfig, Subnet};
use splitter::{Config, Dialect};

fn config() -> Config {
    Config {
        dialect: Dialect::C,
        ..small()
    }
}

fn city() -> Net {
    Net {
        delay: 20,
        jitter: 20,
        reports: true,
        ..Net::default()
    }
}

#[test]
fn every_peer_gets_the_whole_stream_for_one_upload() {
    for n in [1, 2, 3, 7, 40] {
        let mut world = World::of(n, config(), city(), u64::from(n));
        world.stream(600, 5);
        for port in 1..=n {
            assert_eq!(world.lacks(port, 2..450 - u64::from(n)), [], "peer {port} of {n}");
        }
        assert_eq!(world.uploads, 600, "one upload of the stream");
    }
}

#[test]
fn numbers_wrap_and_nobody_notices() {
    let net = Net {
        delay: 1,
        ..Net::default()
    };
    let mut world = World::of(3, config(), net, 1);
    world.next = 60_000;
    world.stream(80_000, 1);
    for port in 1..=3 {
        assert_eq!(world.lacks(port, 65_536..139_000), [], "peer {port}");
        assert_eq!(world.node(port).jumps, 0);
    }
}

#[test]
fn requests_mend_what_paths_lose() {
    let lossy = Net { loss: 30, ..city() };
    let mut world = World::new(config(), lossy, 5);
    for port in 1..=12 {
        let peer = PeerConfig {
            report_losses: true,
            ..peer_of(&config(), port)
        };
        world.join(port, peer);
        world.pass(1200);
    }
    world.stream(4000, 5);
    for port in 1..=12 {
        let continuity = world.continuity(port, 100);
        assert!(continuity >= 995, "peer {port}: {continuity}");
        let stats = world.node(port).peer.stats();
        assert!(stats.requests > 0 && stats.requests_served > 0, "{stats:?}");
    }
    assert_eq!(world.splitter.peers().len(), 12, "nobody is expelled for it");
}

#[test]
fn a_way_around_a_path_that_does_not_work_is_found() {
    let mut world = World::of(6, config(), city(), 6);
    world.cut.insert((at(2), at(5)));
    world.stream(1500, 5);
    assert_eq!(world.lacks(5, 300..1300), []);
    // The others have learnt to relay: not every chunk is asked for.
    let stats = world.node(5).peer.stats();
    assert!(stats.requests < 40, "{stats:?}");
}

#[test]
fn prunes_end_what_comes_twice() {
    let mut world = World::of(6, config(), city(), 6);
    world.cut.insert((at(2), at(5)));
    world.stream(600, 5);
    world.cut.clear();
    world.stream(600, 5);
    let before = world.node(5).peer.stats().duplicates;
    world.stream(600, 5);
    let stats = world.node(5).peer.stats();
    assert!(stats.duplicates - before <= 3, "{stats:?}");
    assert!(stats.prunes > 0, "{stats:?}");
    assert_eq!(world.lacks(5, 300..1500), []);
}

#[test]
fn a_polite_leave_and_a_death_cost_little() {
    let mut world = World::of(8, config(), city(), 2);
    world.stream(300, 5);
    world.leave(3);
    world.stream(300, 5);
    assert_eq!(world.node(3).ended, Some(Ended::Left));
    world.kill(4);
    world.stream(900, 5);
    assert_eq!(world.splitter.peers().len(), 6);
    for port in [1, 2, 5, 6, 7, 8] {
        assert_eq!(world.lacks(port, 10..580), [], "peer {port} after a leave");
        assert_eq!(world.lacks(port, 800..1300), [], "peer {port} after a death");
    }
}

#[test]
fn a_hello_that_is_lost_delays_and_no_more() {
    let mut world = World::new(config(), Net { loss: 1000, ..city() }, 1);
    world.join_one(1);
    world.pass(500);
    assert!(world.splitter.peers().is_empty());
    world.pass(1000);
    assert_eq!(world.splitter.peers(), [at(1)]);
}

/// IMS as the 2018 slides have it: the peers of one subnet hear each other by multicast.
#[test]
fn a_subnet_hears_for_one_copy() {
    let group = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 1234);
    let subnet = Subnet {
        address: Ipv4Addr::LOCALHOST,
        prefix: 8,
        group,
    };
    let team = |subnet: Option<Subnet>| {
        let mut world = World::new(config(), city(), 7);
        for port in 1..=10 {
            let config = peer_of(&config(), port);
            world.join(port, PeerConfig { subnet, ..config });
            world.pass(170);
        }
        world.stream(700, 5);
        for port in 1..=10 {
            assert_eq!(world.lacks(port, 30..500), [], "peer {port}");
        }
        world.bytes_sent
    };
    let (multicast, unicast) = (team(Some(subnet)), team(None));
    assert!(multicast * 4 < unicast, "{multicast} of {unicast}");
}

#[test]
fn a_team_that_churns_streams_on() {
    for seed in 1..=3 {
        let net = Net {
            delay: 10,
            jitter: 30,
            loss: 10,
            twice: 10,
            reports: true,
        };
        let mut world = World::of(30, config(), net, seed);
        for port in 101..=130 {
            world.stream(60, 5);
            let gone = 2 + world.dice.below(28) as u16;
            if world.dice.chance(500) {
                world.kill(gone);
            } else {
                world.leave(gone);
            }
            world.join_one(port);
        }
        world.stream(800, 5);
        let here: Vec<_> = world
            .peers
            .iter()
            .filter(|(_, node)| node.ended.is_none())
            .collect();
        let ports: Vec<u16> = here.iter().map(|(at, _)| at.port()).collect();
        for port in ports {
            let continuity = world.continuity(port, 2000);
            assert!(continuity >= 975, "seed {seed}, peer {port}: {continuity}");
        }
    }
}
