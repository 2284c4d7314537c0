//! Whole teams of generation B under a seeded network: what every member hears, whatever happens.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::world::{Net, World, at, peer_config, small};
use splitter::peer::{Ended, PeerConfig};
use splitter::rules::Note;
use splitter::{Config, peer};

/// A network of a city: 20 ms, up to 20 more.
fn city() -> Net {
    Net {
        delay: 20,
        jitter: 20,
        reports: true,
        ..Net::default()
    }
}

fn monitor() -> PeerConfig {
    PeerConfig {
        monitor: true,
        ..peer_config()
    }
}

#[test]
fn every_peer_gets_the_whole_stream_for_one_upload() {
    for n in [1, 2, 3, 7, 40] {
        let mut world = World::of(n, small(), city(), u64::from(n));
        world.stream(600, 5);
        for port in 1..=n {
            let played = &world.node(port).played;
            assert_eq!(world.lacks(port, 2..450 - u64::from(n)), [], "peer {port} of {n}");
            assert!(played[0] <= 2, "a network that overtakes may hide the first ones");
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
    let mut world = World::of(3, small(), net, 1);
    world.next = 60_000;
    world.stream(80_000, 1);
    for port in 1..=3 {
        assert_eq!(world.lacks(port, 65_536..139_000), [], "peer {port}");
        assert_eq!(world.node(port).jumps, 0);
    }
}

#[test]
fn newcomers_get_everything_from_when_they_are_known() {
    let mut world = World::of(3, small(), city(), 5);
    world.stream(100, 5);
    world.join(4, peer_config());
    world.stream(600, 5);
    let from = world.node(4).played[0].max(130);
    assert!(from < 140, "it begins at {from}");
    assert_eq!(world.lacks(4, from..560), []);
    assert_eq!(world.lacks(1, 10..560), []);
}

#[test]
fn a_polite_leave_costs_nobody_a_chunk() {
    for leaver in 1..=6 {
        let mut world = World::of(6, small(), city(), u64::from(leaver));
        world.stream(230 + u64::from(leaver), 5);
        world.leave(leaver);
        world.stream(400, 5);
        assert_eq!(world.node(leaver).ended, Some(Ended::Left));
        for port in (1..=6).filter(|&port| port != leaver) {
            assert_eq!(world.lacks(port, 10..480), [], "peer {port} when {leaver} left");
        }
    }
}

#[test]
fn the_team_may_empty_and_begin_again() {
    let mut world = World::of(2, small(), city(), 3);
    world.stream(200, 5);
    world.leave(1);
    world.leave(2);
    world.stream(50, 5);
    assert!(world.splitter.peers().is_empty());
    assert!(world.splitter.stats().chunks_without_team > 0);
    world.join(3, peer_config());
    world.stream(300, 5);
    assert_eq!(world.lacks(3, 270..400), []);
}

#[test]
fn a_selfish_peer_is_expelled_by_a_monitor_and_cut_by_the_rest() {
    let mut world = World::of(5, small(), city(), 9);
    world.peers.get_mut(&at(3)).unwrap().selfish = true;
    world.stream(600, 5);
    let expelled: Vec<_> = world
        .notes
        .iter()
        .filter(|(_, _, note)| matches!(note, Note::Expelled(_)))
        .map(|(when, who, _)| (when.mono_ns() / 1_000_000_000, *who))
        .collect();
    assert_eq!(expelled.len(), 1, "{expelled:?}");
    assert_eq!(expelled[0].1, at(3));
    assert!(expelled[0].0 <= 3, "within seconds: {expelled:?}");
    world.stream(900, 5);
    for port in [1, 2, 4, 5] {
        assert_eq!(world.lacks(port, 700..1300), [], "peer {port}");
        assert!(
            !world.node(port).peer.mates().any(|mate| mate == at(3)),
            "{port} serves it still"
        );
    }
}

#[test]
fn a_killed_peer_is_out_within_seconds_with_and_without_a_word_of_its_host() {
    for reports in [true, false] {
        let mut world = World::of(6, small(), Net { reports, ..city() }, 4);
        world.stream(300, 5);
        let killed = world.now;
        world.kill(4);
        world.stream(600, 5);
        let out = world
            .notes
            .iter()
            .find(|(_, who, note)| *who == at(4) && matches!(note, Note::Expelled(_)));
        let after = out.unwrap().0.since(killed);
        assert!(after.as_secs() < 3, "{after:?}");
        world.stream(300, 5);
        for port in [1, 2, 3, 5, 6] {
            assert_eq!(world.lacks(port, 900..1060), [], "peer {port}");
        }
    }
}

#[test]
fn honest_peers_behind_lossy_paths_stay() {
    let net = Net {
        loss: 50,
        twice: 50,
        ..city()
    };
    let config = Config {
        lrs: false,
        ..small()
    };
    let mut world = World::of(12, config, net, 77);
    world.stream(4000, 5);
    let expelled = world.splitter.stats().expelled_losses;
    assert_eq!(expelled, 0, "{:?}", world.splitter.stats());
    assert_eq!(world.splitter.peers().len(), 12);
    for port in 1..=12 {
        // Two hops, each of which loses a twentieth.
        let continuity = world.continuity(port, 100);
        assert!((870..960).contains(&continuity), "peer {port}: {continuity}");
    }
}

/// 30 peers, loss, reordering, doubled datagrams, and all the time somebody comes, goes, or dies.
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
        let mut world = World::of(30, small(), net, seed);
        for port in 101..=130 {
            world.stream(60, 5);
            let gone = 2 + world.dice.below(28) as u16;
            if world.dice.chance(500) {
                world.kill(gone);
            } else if world.peers.contains_key(&at(gone)) {
                world.leave(gone);
            }
            world.join(port, peer_config());
        }
        world.stream(800, 5);
        let here: Vec<_> = world
            .peers
            .iter()
            .filter(|(_, node)| node.ended.is_none())
            .collect();
        assert_eq!(here.len(), world.splitter.peers().len(), "seed {seed}");
        let ports: Vec<u16> = here.iter().map(|(at, _)| at.port()).collect();
        for port in ports {
            let continuity = world.continuity(port, 2000);
            assert!(continuity >= 960, "seed {seed}, peer {port}: {continuity}");
            assert_eq!(world.node(port).jumps, 0);
        }
    }
}

#[test]
fn a_splitter_that_begins_again_is_left_and_joined_again() {
    let mut world = World::of(4, small(), city(), 8);
    world.stream(300, 5);
    world.restart_splitter();
    world.stream(3200, 5);
    for port in 1..=4 {
        assert!(
            matches!(world.node(port).ended, Some(Ended::Silence(_))),
            "peer {port}"
        );
        world.join(port, peer_config());
    }
    world.pass(100);
    let from = world.next;
    world.stream(400, 5);
    for port in 1..=4 {
        assert_eq!(world.lacks(port, from + 2..from + 260), [], "peer {port}");
    }
}

#[test]
fn whoever_does_not_fit_is_hung_up_on() {
    let config = Config {
        max_peers: 2,
        ..small()
    };
    let mut world = World::of(3, config, city(), 2);
    world.stream(10, 5);
    assert_eq!(world.node(3).ended, Some(Ended::Refused));
    assert_eq!(world.splitter.peers(), [at(1), at(2)]);
}

/// 200 peers that join at once, in a buffer that is large enough: everybody meets everybody.
#[test]
fn many_join_at_once() {
    let config = Config {
        max_peers: 200,
        max_arrivals: 200,
        buffer_chunks: 800,
        ..small()
    };
    let mut world = World::new(config, city(), 6);
    for port in 1..=200 {
        world.join(port, if port == 1 { monitor() } else { peer_config() });
    }
    world.pass(300);
    assert_eq!(world.splitter.peers().len(), 200);
    world.stream(900, 5);
    for port in 1..=200 {
        assert_eq!(world.node(port).peer.mates().len(), 199, "peer {port}");
        assert_eq!(world.lacks(port, 210..300), [], "peer {port}");
    }
}

#[test]
fn a_peer_that_stays_out_of_the_team_hears_nothing_of_it() {
    let mut world = World::of(2, small(), city(), 2);
    world.stream(50, 5);
    // A stranger's goodbyes, hellos and complaints, as anybody may send them.
    for bytes in [&b"G"[..], b"H", &[0, 3], &[], &[1; 100]] {
        world.tell_splitter(splitter::rules::Input::Datagram(at(99), bytes));
        world.tell_peer(at(1), peer::Input::Datagram(at(99), &bytes[..bytes.len().min(7)]));
    }
    world.stream(400, 5);
    assert_eq!(world.splitter.peers().len(), 2);
    assert_eq!(world.lacks(1, 4..310), []);
    assert!(
        !world.node(1).peer.mates().any(|mate| mate == at(99)),
        "it was given 8 chunks, and no more"
    );
}
