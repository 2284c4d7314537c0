//! Whole secured teams under a seeded network. The world checks every byte that a player gets.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::secured::{Channel, Team, config, empty, join, peer_config, team};
use common::world::{Lead, Net, at, splitter_at};
use relay_merkle::Signer;
use splitter::peer::{self, Ended, SecuredPeer};
use splitter::rules::{self, Note, Refusal, Why};

fn city() -> Net {
    Net {
        delay: 20,
        jitter: 20,
        reports: true,
        ..Net::default()
    }
}

fn expelled(world: &Team, port: u16) -> Option<(relay_seam::Now, Why)> {
    world.notes.iter().find_map(|(when, who, note)| match note {
        Note::Expelled(why) if *who == at(port) => Some((*when, *why)),
        _ => None,
    })
}

#[test]
fn every_peer_gets_the_whole_stream_for_one_upload() {
    for n in [1, 2, 3, 7, 30] {
        let mut world = team(n, city(), u64::from(n));
        world.stream(900, 5);
        assert_eq!(world.splitter.rules.peers().count(), usize::from(n));
        for port in 1..=n {
            assert_eq!(world.lacks(port, 0..350), [], "peer {port} of {n}");
            assert_eq!(world.node(port).peer.mates(), usize::from(n) - 1);
        }
        let stats = world.splitter.rules.stats();
        assert_eq!((world.uploads, stats.probes, stats.regiven), (900, 0, 0));
    }
}

#[test]
fn what_paths_lose_is_repaired_before_its_turn() {
    for loss in [10, 30, 100] {
        let mut world = team(12, Net { loss, ..city() }, loss);
        world.stream(2400, 5);
        assert_eq!(
            world.splitter.rules.peers().count(),
            12,
            "nobody is expelled for it"
        );
        for port in 1..=12 {
            let continuity = world.continuity(port, 600);
            let least = if loss < 100 { 1000 } else { 997 };
            assert!(continuity >= least, "{loss}: peer {port}: {continuity}");
        }
        let stats = world.splitter.rules.stats();
        let more = world.uploads - 2400;
        assert!(
            more <= 64 + 2400 * (2 * loss + 20) / 1000,
            "{loss}: {more} more than 2400, {stats:?}"
        );
    }
}

#[test]
fn numbers_are_the_channel_s_and_never_wrap() {
    let net = Net {
        delay: 1,
        ..Net::default()
    };
    let mut world = empty(config(), net, 1);
    world.next = 65_504;
    let signer = Signer::generate().unwrap();
    world.replace_splitter(Channel::new(config(), signer, 1, 65_504, world.now));
    (1..=3).for_each(|port| join_current(&mut world, port));
    world.pass(500);
    world.stream(2000, 2);
    for port in 1..=3 {
        assert_eq!(world.lacks(port, 65_504..66_900), [], "peer {port}");
    }
}

fn join_current(world: &mut Team, port: u16) {
    let peer = SecuredPeer::new(peer_config(port, false), splitter_at(), world.now);
    world.enter(port, peer);
}

#[test]
fn a_killed_peer_is_out_in_time_and_costs_nobody_a_chunk() {
    let mut world = team(8, city(), 4);
    world.stream(800, 5);
    let killed = world.now;
    world.kill(4);
    world.stream(1600, 5);
    let (when, why) = expelled(&world, 4).unwrap();
    assert!(matches!(why, Why::Silence(_)));
    assert!(when.since(killed).as_millis() <= 3000, "{:?}", when.since(killed));
    for port in [1, 2, 3, 5, 6, 7, 8] {
        assert_eq!(world.lacks(port, 0..1800), [], "peer {port}");
    }
}

#[test]
fn a_polite_leave_costs_nobody_a_chunk() {
    let mut world = team(6, city(), 5);
    world.stream(800, 5);
    world.leave(2);
    world.stream(1200, 5);
    assert_eq!(world.node(2).ended, Some(Ended::Left));
    assert_eq!(world.splitter.rules.stats().goodbyes, 1);
    for port in [1, 3, 4, 5, 6] {
        assert_eq!(world.lacks(port, 0..1400), [], "peer {port}");
        assert_eq!(world.node(port).peer.mates(), 4);
    }
}

/// No player ever gets a bad byte: the world would say so. Who sends them is out, or has nothing to relay.
#[test]
fn polluters_reach_no_player_and_lose_their_place() {
    for (often, monitor) in [(1000, true), (100, true), (1000, false), (100, false)] {
        let mut world = empty(config(), city(), often);
        (1..=10).for_each(|port| join(&mut world, port, monitor && port == 1));
        world.pass(1500);
        world.stream(700, 5);
        world.peers.get_mut(&at(7)).unwrap().polluting = often;
        let began = world.now;
        world.stream(1500, 5);
        let stats = *world.splitter.rules.stats();
        if let Some((when, why)) = expelled(&world, 7) {
            assert_eq!(why, Why::Pollution);
            assert!(when.since(began).as_secs() <= 5, "{:?}", when.since(began));
            assert_eq!(world.node(7).ended, Some(Ended::Expelled));
        } else {
            assert!(!monitor || often < 1000, "a monitor's word is enough");
            assert!(stats.accusations_unproven >= 2, "{stats:?}");
            let before = world.node(7).peer.stats().from_splitter;
            world.stream(200, 5);
            let after = world.node(7).peer.stats().from_splitter;
            assert_eq!(after, before, "it has nothing to relay");
        }
        for port in (1..=10).filter(|&port| port != 7) {
            assert_eq!(world.lacks(port, 0..1600), [], "peer {port}, {often}, {monitor}");
        }
    }
}

#[test]
fn a_selfish_peer_is_expelled_where_a_monitor_is() {
    let mut world = empty(config(), city(), 3);
    (1..=6).for_each(|port| join(&mut world, port, port == 1));
    world.pass(1500);
    world.peers.get_mut(&at(5)).unwrap().selfish = true;
    world.stream(1500, 5);
    assert!(matches!(expelled(&world, 5), Some((_, Why::InARow { .. }))));
    for port in [1, 2, 3, 4, 6] {
        assert!(
            world.continuity(port, 0) >= 960,
            "peer {port}: {}",
            world.continuity(port, 0)
        );
    }
}

#[test]
fn a_splitter_that_begins_again_is_noticed_at_once_and_its_old_chunks_are_refused() {
    let mut world = team(4, city(), 8);
    world.stream(640, 5);
    world.next = 0;
    let next = Channel::new(config(), Signer::generate().unwrap(), 2, 0, world.now);
    world.replace_splitter(next);
    world.stream(160, 5);
    for port in 1..=4 {
        assert_eq!(world.node(port).ended, Some(Ended::Forgotten), "peer {port}");
        join_current(&mut world, port);
    }
    world.pass(1500);
    world.stream(1200, 5);
    for port in 1..=4 {
        assert_eq!(world.lacks(port, 176..700), [], "peer {port}");
    }
}

/// Its NAT gives it another port in the middle of the stream.
#[test]
fn a_peer_that_moves_is_followed_when_it_has_shown_where_it_is() {
    let mut world = team(6, city(), 9);
    world.stream(600, 5);
    world.rename(3, 1003);
    world.stream(1600, 5);
    assert!(expelled(&world, 3).is_none());
    assert!(world.splitter.rules.peers().any(|peer| peer == at(1003)));
    assert_eq!(world.splitter.rules.stats().moves, 1);
    for port in [1, 2, 4, 5, 6, 1003] {
        assert_eq!(world.lacks(port, 0..1500), [], "peer {port}");
    }
}

#[test]
fn from_off_the_path_nothing_can_be_forged() {
    let mut world = team(4, city(), 10);
    world.stream(400, 5);
    // Every kind, with tokens that are guesses, from strangers and in others' names.
    for round in 0..200u64 {
        let from = if round % 2 == 0 { at(2) } else { at(99) };
        for kind in 0..=60u8 {
            let mut bytes = vec![1, kind];
            bytes.extend_from_slice(&world.dice.roll().to_be_bytes());
            let more = world.dice.below(60);
            bytes.extend((0..more).map(|n| n as u8));
            world.tell_splitter(rules::Input::Datagram(from, &bytes));
            let name = if round % 3 == 0 { splitter_at() } else { from };
            world.tell_peer(at(1), peer::Input::Datagram(name, &bytes));
        }
    }
    world.stream(1200, 5);
    let stats = world.splitter.rules.stats();
    assert_eq!(
        (world.splitter.rules.peers().count(), stats.joins, stats.goodbyes),
        (4, 4, 0)
    );
    assert!(stats.strangers > 0 && stats.datagrams_unknown > 0);
    (1..=4).for_each(|port| assert_eq!(world.lacks(port, 0..1000), [], "peer {port}"));
}

/// What was recorded, said again later, changes nothing.
#[test]
fn replays_are_heard_as_what_they_are() {
    let mut world = team(4, city(), 11);
    world.record = Some(Vec::new());
    world.stream(400, 5);
    let tape = world.record.take().unwrap();
    world.stream(600, 5);
    for (from, to, bytes) in tape {
        if to == splitter_at() {
            world.tell_splitter(rules::Input::Datagram(from, &bytes));
        } else {
            world.tell_peer(to, peer::Input::Datagram(from, &bytes));
        }
    }
    world.stream(1200, 5);
    assert_eq!(world.splitter.rules.peers().count(), 4);
    (1..=4).for_each(|port| assert_eq!(world.lacks(port, 0..1650), [], "peer {port}"));
}

#[test]
fn full_teams_and_crowded_addresses_are_refused_and_half_a_join_is_let_go() {
    let mut small = config();
    (small.max_peers, small.max_arrivals) = (3, 2);
    let mut world = empty(small, city(), 1);
    (1..=3).for_each(|port| join(&mut world, port, false));
    world.pass(30);
    assert!(
        world
            .notes
            .iter()
            .any(|(_, _, note)| *note == Note::Refused(Refusal::Arrivals(2)))
    );
    world.pass(1500);
    join(&mut world, 4, false);
    world.pass(1500);
    join(&mut world, 5, false);
    world.pass(1500);
    assert_eq!(world.node(5).ended, Some(Ended::Refused));
    assert_eq!(world.splitter.rules.peers().count(), 3);
    // One that connects and says nothing, or half of it.
    let mut world = empty(config(), city(), 1);
    for (port, said) in [(1, &b""[..]), (2, b"T\x01P")] {
        world.tell_splitter(rules::Input::Connected(at(port)));
        world.tell_splitter(rules::Input::Said(at(port), said));
    }
    assert_eq!(world.splitter.rules.arrivals(), 2);
    world
        .splitter
        .handle(world.now + std::time::Duration::from_secs(5), rules::Input::Tick);
    assert_eq!(world.splitter.rules.arrivals(), 0);
    assert_eq!(world.splitter.rules.stats().arrivals_lost, 2);
}

/// Each two seconds one dies, of forty, with 1 % loss on every path: what the dead were to relay is given again.
#[test]
fn a_team_that_churns_streams_on() {
    let net = Net {
        delay: 10,
        jitter: 30,
        loss: 10,
        twice: 10,
        reports: true,
    };
    let mut world = team(40, net, 12);
    world.stream(600, 5);
    for newcomer in 200..206 {
        let gone = 1 + world.dice.below(40) as u16;
        world.kill(gone);
        join(&mut world, newcomer, false);
        world.stream(400, 5);
    }
    let ports: Vec<u16> = world
        .peers
        .keys()
        .map(|at| at.port())
        .filter(|&port| port <= 40)
        .collect();
    for port in ports {
        assert!(
            world.node(port).ended.is_none(),
            "peer {port}: {:?}",
            world.node(port).ended
        );
        let continuity = world.continuity(port, 600);
        assert!(continuity >= 999, "peer {port}: {continuity}");
        assert!(world.node(port).peer.deadline().is_some());
    }
    let stats = world.splitter.rules.stats();
    assert!(
        world.uploads <= 3000 * 110 / 100,
        "{} uploads, {stats:?}",
        world.uploads
    );
}
