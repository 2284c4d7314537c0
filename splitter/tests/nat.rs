//! Teams behind NATs: by NTS over generation B, and by knocking over wire T.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::Ipv4Addr;

use common::secured::{config, empty, join};
use common::world::{Lead, Member, Nat, NatKind, Net, World, at, peer_of, small};
use splitter::Config;
use splitter::peer::PeerConfig;

fn city() -> Net {
    Net {
        delay: 20,
        jitter: 10,
        ..Net::default()
    }
}

fn nat<S: Lead, P: Member>(world: &mut World<S, P>, port: u16, kind: NatKind) {
    let ip = Ipv4Addr::new(10, 9, 0, port as u8);
    world.nats.insert(at(port), Nat::new(kind, ip));
}

/// Port 1 is the monitor, which everybody can reach; the others are behind NATs of these kinds.
fn traversing(nts: bool, kinds: &[NatKind], net: Net) -> World {
    let config = Config {
        nts,
        chunk_bytes: 32,
        ..small()
    };
    let mut world = World::new(config.clone(), net, 5);
    for (port, kind) in (1..).zip(std::iter::once(None).chain(kinds.iter().map(Some))) {
        if let Some(kind) = kind {
            nat(&mut world, port, *kind);
        }
        let peer = PeerConfig {
            monitor: port == 1,
            ..peer_of(&config, port)
        };
        world.join(port, peer);
        world.pass(4_000);
    }
    // Those who cannot meet give up.
    world.stream(320, 50);
    world
}

#[test]
fn without_nts_who_is_behind_a_nat_hears_nothing() {
    let mut world = traversing(false, &[NatKind::Cone], city());
    world.stream(400, 5);
    let stats = world.node(2).peer.stats();
    assert_eq!(stats.from_splitter, 0, "{stats:?}");
}

#[test]
fn cones_and_nats_with_steps_are_traversed() {
    let kinds = [
        NatKind::Cone,
        NatKind::FullCone,
        NatKind::Symmetric(1),
        NatKind::Cone,
        NatKind::Symmetric(3),
    ];
    for lossy in [0, 50] {
        let net = Net {
            loss: lossy,
            ..city()
        };
        let mut world = traversing(true, &kinds, net);
        assert_eq!(
            world.splitter.peers().len(),
            6,
            "{lossy}: {:?}",
            world.splitter.stats()
        );
        assert_eq!(world.splitter.arrivals(), 0);
        world.stream(800, 5);
        for port in 1..=6 {
            let continuity = world.continuity(port, 500);
            let least = if lossy == 0 { 1000 } else { 850 };
            // Two NATs that both take another port each time do not meet but by luck.
            let symmetric = matches!(port, 4 | 6);
            assert!(
                symmetric || continuity >= least,
                "{lossy}: peer {port}: {continuity}"
            );
            assert!(continuity >= 600, "{lossy}: peer {port}: {continuity}");
        }
    }
}

#[test]
fn members_behind_nats_leave_and_die_as_others() {
    let mut world = traversing(true, &[NatKind::Cone; 4], city());
    assert_eq!(world.splitter.peers().len(), 5);
    world.stream(300, 5);
    world.leave(3);
    world.stream(200, 5);
    assert!(world.node(3).ended.is_some());
    world.kill(4);
    world.stream(900, 5);
    assert_eq!(world.splitter.peers().len(), 3);
    for port in [1, 2, 5] {
        assert_eq!(world.lacks(port, 1220..1570), [], "peer {port}");
    }
}

/// A newcomer that never says a word by datagram is let go.
#[test]
fn a_newcomer_that_cannot_be_reached_is_let_go() {
    let mut world = traversing(true, &[NatKind::Cone], city());
    let config = Config {
        nts: true,
        chunk_bytes: 32,
        ..small()
    };
    world.narrow.insert(at(9), 1000);
    world.join(9, peer_of(&config, 9));
    world.pass(3_000);
    assert_eq!(world.splitter.arrivals(), 1);
    world.pass(61_000);
    assert_eq!(
        (world.splitter.arrivals(), world.splitter.stats().arrivals_lost),
        (0, 1)
    );
}

/// Wire T: mates that do not answer are knocked up through the splitter, and what no path brings is asked of others.
#[test]
fn a_secured_team_needs_no_open_port() {
    let mut world = empty(config(), city(), 8);
    let kinds = [
        NatKind::Cone,
        NatKind::Symmetric(1),
        NatKind::Cone,
        NatKind::FullCone,
        NatKind::Cone,
        NatKind::Symmetric(2),
    ];
    for (port, kind) in (1..).zip(kinds) {
        nat(&mut world, port, kind);
        join(&mut world, port, false);
        world.pass(2_000);
    }
    assert_eq!(world.splitter.rules.peers().count(), 6);
    assert!(world.splitter.rules.stats().punches > 0);
    world.stream(2400, 5);
    for port in 1..=6 {
        let continuity = world.continuity(port, 0);
        assert!(
            continuity >= 990,
            "peer {port}: {continuity} {:?}",
            world.node(port).peer.stats()
        );
    }
}
