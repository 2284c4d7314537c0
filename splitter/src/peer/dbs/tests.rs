//! A peer's life in generation B, rule by rule.

use super::*;
use crate::wire::b::{Chunk, GOODBYE, HELLO, Welcome};
use proptest::prelude::*;
use std::net::Ipv4Addr;

const SPLITTER: u16 = 8001;

fn here(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn at(ms: u64) -> Now {
    Now::new(ms * 1_000_000, 0)
}

fn welcome(peers: &[u16], buffer_chunks: u16) -> Vec<u8> {
    let welcome = Welcome {
        source: here(8000),
        channel: b"test.ts",
        header_bytes: 4,
        chunk_bytes: 8,
        buffer_chunks,
        monitors: 1,
        peers: Default::default(),
    };
    let mut out = Vec::new();
    let peers: Vec<_> = peers.iter().map(|&port| here(port)).collect();
    welcome.encode(peers.into_iter(), &mut out).unwrap();
    out
}

fn acts(peer: &mut Peer) -> Vec<Action> {
    std::iter::from_fn(|| peer.poll()).collect()
}

fn joining(config: PeerConfig) -> Peer {
    let mut peer = Peer::new(config, here(SPLITTER), at(0));
    peer.handle(at(0), Input::Connected);
    peer
}

fn no_header() -> PeerConfig {
    PeerConfig {
        fetch_header: false,
        ..PeerConfig::default()
    }
}

fn member(config: PeerConfig, peers: &[u16], buffer_chunks: u16) -> Peer {
    let mut peer = joining(config);
    peer.handle(at(0), Input::Told(&welcome(peers, buffer_chunks)));
    peer.handle(at(0), Input::Fetched);
    assert!(peer.is_member());
    acts(&mut peer);
    peer
}

fn chunk(peer: &mut Peer, ms: u64, from: u16, number: u16) -> Vec<Action> {
    let datagram = [&number.to_be_bytes()[..], &u64::from(number).to_be_bytes()].concat();
    peer.handle(at(ms), Input::Datagram(here(from), &datagram));
    acts(peer)
}

fn said(actions: &[Action], to: u16) -> Vec<Vec<u8>> {
    let said = actions.iter().filter_map(|action| match action {
        Action::Send { to: there, bytes } if *there == here(to) => Some(bytes.clone()),
        _ => None,
    });
    said.collect()
}

fn relayed(actions: &[Action]) -> Vec<(u16, u64)> {
    let relayed = actions.iter().filter_map(|action| match action {
        Action::Chunk { to, number, frame } => {
            assert_eq!(frame.head(), Chunk::header(*number));
            Some((to.port(), *number))
        }
        _ => None,
    });
    relayed.collect()
}

#[test]
fn it_joins_as_the_reference_does() {
    let mut peer = joining(PeerConfig::default());
    assert_eq!(acts(&mut peer), [Action::Tell(vec![b'P'])]);
    let told = welcome(&[1, 2], 8);
    for byte in &told[..told.len() - 1] {
        peer.handle(at(0), Input::Told(&[*byte]));
        assert_eq!(acts(&mut peer), []);
    }
    peer.handle(at(0), Input::Told(&told[told.len() - 1..]));
    let hello = |port| Action::Send {
        to: here(port),
        bytes: HELLO.to_vec(),
    };
    let fetch = Action::Fetch {
        source: here(8000),
        channel: b"test.ts".to_vec(),
        bytes: 4,
    };
    assert_eq!(acts(&mut peer), [hello(1), hello(2), fetch]);
    peer.handle(at(1), Input::HungUp);
    peer.handle(at(2), Input::Fetched);
    assert_eq!(acts(&mut peer), [Action::Tell(vec![b'R']), Action::HangUp]);
    peer.handle(at(3), Input::Fetched);
    assert_eq!(acts(&mut peer), []);
}

#[test]
fn a_header_that_comes_with_the_welcome_is_waited_for() {
    let mut peer = joining(PeerConfig {
        header_in_join: true,
        monitor: true,
        ..PeerConfig::default()
    });
    assert_eq!(acts(&mut peer), [Action::Tell(vec![b'M'])]);
    peer.handle(at(0), Input::Told(&welcome(&[], 8)));
    peer.handle(at(0), Input::Told(b"hea"));
    assert_eq!(acts(&mut peer), []);
    peer.handle(at(0), Input::Told(b"d"));
    let ready = [
        Action::Header(b"head".to_vec()),
        Action::Tell(vec![b'R']),
        Action::HangUp,
    ];
    assert_eq!(acts(&mut peer), ready);
}

#[test]
fn splitters_that_are_none_are_left() {
    let ended = |peer: &mut Peer| acts(peer).pop();
    let mut silent = joining(PeerConfig::default());
    assert_eq!(silent.deadline(), Some(at(5_000)));
    silent.handle(at(5_000), Input::Tick);
    assert_eq!(ended(&mut silent), Some(Action::Over(Ended::Refused)));
    let mut full = joining(PeerConfig::default());
    full.handle(at(0), Input::HungUp);
    assert_eq!(ended(&mut full), Some(Action::Over(Ended::Refused)));
    let mut greedy = joining(PeerConfig {
        buffer_bytes_max: 2 * 8 * 16 - 1,
        ..no_header()
    });
    greedy.handle(at(0), Input::Told(&welcome(&[], 8)));
    let (limit, asked) = (255, 256);
    assert_eq!(
        ended(&mut greedy),
        Some(Action::Over(Ended::Buffer { limit, asked }))
    );
    let mut nonsense = joining(PeerConfig::default());
    nonsense.handle(at(0), Input::Told(&[0; 40]));
    assert!(matches!(
        ended(&mut nonsense),
        Some(Action::Over(Ended::Protocol(_)))
    ));
    nonsense.handle(at(0), Input::Connected);
    assert_eq!((ended(&mut nonsense), nonsense.deadline()), (None, None));
}

#[test]
fn a_silent_splitter_is_given_up_and_what_is_there_is_played() {
    let mut peer = member(no_header(), &[], 8);
    chunk(&mut peer, 100, SPLITTER, 0);
    chunk(&mut peer, 200, 77, 2);
    assert_eq!(peer.deadline(), Some(at(15_100)), "mates may be mistaken");
    peer.handle(at(15_100), Input::Tick);
    let (from, count) = (1, 1);
    let silence = Ended::Silence(Duration::from_secs(15));
    assert_eq!(
        acts(&mut peer),
        [
            Action::Play(0),
            Action::Skip { from, count },
            Action::Play(2),
            Action::Over(silence)
        ]
    );
}

#[test]
fn it_relays_what_the_splitter_gave_and_meets_who_sends() {
    let mut peer = member(no_header(), &[1], 64);
    assert_eq!(relayed(&chunk(&mut peer, 0, SPLITTER, 0)), [(1, 0)]);
    assert_eq!(
        relayed(&chunk(&mut peer, 0, 9, 1)),
        [(9, 0)],
        "a mate that nobody named"
    );
    assert_eq!(relayed(&chunk(&mut peer, 0, 1, 2)), []);
    peer.handle(at(0), Input::Datagram(here(5), b"H"));
    assert_eq!(relayed(&chunk(&mut peer, 0, SPLITTER, 3)), [(5, 0), (1, 3)]);
    peer.handle(at(0), Input::Datagram(here(1), b"G"));
    peer.handle(at(0), Input::Datagram(here(1), b"G"));
    peer.handle(at(0), Input::Datagram(here(SPLITTER), b"H"));
    peer.handle(at(0), Input::Datagram(here(SPLITTER), b"G"));
    peer.handle(at(0), Input::Datagram(here(5), b"nonsense"));
    assert_eq!(peer.mates().collect::<Vec<_>>(), [here(9), here(5)]);
    let stats = *peer.stats();
    assert_eq!(
        (stats.goodbyes, stats.goodbyes_foreign, stats.mates_impossible),
        (1, 2, 0)
    );
    assert_eq!((stats.hellos, stats.unknown, stats.relayed), (1, 2, 4));
}

#[test]
fn numbers_go_on_across_the_end_and_near_the_cloud_s() {
    for (near, base) in [(None, 0), (Some(9 * 65_536 + 65_000), 9 * 65_536)] {
        let mut peer = member(PeerConfig { near, ..no_header() }, &[], 8);
        let mut played = Vec::new();
        for number in 65_530u32..65_546 {
            let acts = chunk(&mut peer, 0, SPLITTER, number as u16);
            played.extend(acts.into_iter().filter_map(|action| match action {
                Action::Play(number) => Some(number - base),
                _ => None,
            }));
        }
        assert_eq!(played, (65_530..=65_541).collect::<Vec<u64>>());
    }
}

#[test]
fn a_monitor_says_once_what_it_lost_and_others_only_when_asked_to() {
    let complaints = |config: PeerConfig| {
        let mut peer = member(config, &[1, 2], 64);
        let all = (0..48).filter(|n| n % 10 != 3);
        all.flat_map(|n| said(&chunk(&mut peer, 0, SPLITTER, n), SPLITTER))
            .collect::<Vec<_>>()
    };
    let expected: Vec<_> = [13u16, 23].iter().map(|n| n.to_be_bytes().to_vec()).collect();
    let monitor = PeerConfig {
        monitor: true,
        ..no_header()
    };
    assert_eq!(
        complaints(monitor),
        expected,
        "3 is before it was known, 33 may still come"
    );
    let reporter = PeerConfig {
        report_losses: true,
        ..no_header()
    };
    let (first, second) = (&expected[0], &expected[1]);
    assert_eq!(
        complaints(reporter),
        [first, first, first, second, second].map(Clone::clone),
        "three times, as long as it can still come in time"
    );
    assert_eq!(complaints(no_header()), Vec::<Vec<u8>>::new());
}

#[test]
fn one_leap_makes_few_complaints() {
    let mut peer = member(
        PeerConfig {
            monitor: true,
            ..no_header()
        },
        &[],
        512,
    );
    chunk(&mut peer, 0, SPLITTER, 0);
    assert_eq!(said(&chunk(&mut peer, 0, SPLITTER, 500), SPLITTER).len(), 16);
    // Half a buffer ago the player went on; what is of the last 16 may still come.
    assert_eq!(peer.stats().complaints_withheld, 256 - 1 - 16 - 16);
}

#[test]
fn it_leaves_when_answered_or_when_nobody_answers() {
    let goodbye = [GOODBYE.to_vec()];
    let mut peer = member(no_header(), &[1, 2], 8);
    peer.handle(at(0), Input::Leave);
    assert_eq!(said(&acts(&mut peer), SPLITTER), goodbye);
    let acted = chunk(&mut peer, 10, SPLITTER, 0);
    assert_eq!(said(&acted, SPLITTER), goodbye, "a chunk reminds");
    assert_eq!(relayed(&acted), [(1, 0)], "it relays to the last");
    assert_eq!(peer.deadline(), Some(at(260)));
    peer.handle(at(260), Input::Tick);
    assert_eq!(said(&acts(&mut peer), SPLITTER), goodbye);
    peer.handle(at(300), Input::Datagram(here(SPLITTER), b"G"));
    let acted = acts(&mut peer);
    assert_eq!(
        (said(&acted, 1), said(&acted, 2)),
        (goodbye.to_vec(), goodbye.to_vec())
    );
    assert_eq!(acted.last(), Some(&Action::Over(Ended::Left)));

    let mut peer = member(no_header(), &[1], 8);
    peer.handle(at(0), Input::Leave);
    peer.handle(at(2_000), Input::Tick);
    let acted = acts(&mut peer);
    assert_eq!(
        (said(&acted, 1), acted.last()),
        (goodbye.to_vec(), Some(&Action::Over(Ended::Left)))
    );
}

#[test]
fn of_two_who_multicast_the_first_is_heard_until_it_is_silent() {
    let config = PeerConfig {
        multicast: true,
        ..no_header()
    };
    let mut peer = joining(config);
    let team = Welcome {
        source: here(8000),
        channel: b"x",
        header_bytes: 0,
        chunk_bytes: 8,
        buffer_chunks: 8,
        monitors: 0,
        peers: Default::default(),
    };
    let group = "224.0.0.1:8001".parse().unwrap();
    let mut told = Vec::new();
    crate::wire::b::GroupWelcome { team, group }
        .encode(&mut told)
        .unwrap();
    peer.handle(at(0), Input::Told(&told));
    assert_eq!(acts(&mut peer)[0], Action::Hear(group));
    chunk(&mut peer, 0, 7, 0);
    chunk(&mut peer, 500, 9, 1);
    assert_eq!((peer.stats().from_splitter, peer.stats().unknown), (1, 1));
    chunk(&mut peer, 1000, 9, 1);
    assert_eq!(peer.stats().from_splitter, 2);
    peer.handle(at(1000), Input::Leave);
    assert_eq!(
        acts(&mut peer).pop(),
        Some(Action::Over(Ended::Left)),
        "nobody needs to know"
    );
}

#[test]
fn upload_is_capped() {
    let mut peer = member(
        PeerConfig {
            upload_chunks_max: Some(20),
            ..no_header()
        },
        &[1, 2, 3],
        64,
    );
    let sent: usize = (0..100)
        .map(|n| relayed(&chunk(&mut peer, u64::from(n) * 10, SPLITTER, n)).len())
        .sum();
    assert_eq!(sent, 21);
    assert_eq!(peer.stats().relayed + peer.stats().relays_capped, 298);
}

proptest! {
    /// Whatever comes, in whatever state: no panic, bounded mates, each number played at most once and in order.
    #[test]
    fn any_history_keeps_the_promises(
        events in prop::collection::vec(
            (0u8..12, 0u16..6, prop::collection::vec(any::<u8>(), 0..30), 0u64..900), 0..200),
    ) {
        let config = PeerConfig { mates_max: 3, monitor: true, ..PeerConfig::default() };
        let (mut peer, mut ms, mut next, mut number) = (joining(config), 0, None, 65_500u16);
        for (what, who, bytes, wait) in events {
            let from = here(if who == 0 { SPLITTER } else { who });
            number = number.wrapping_add(1);
            let whole = [&number.to_be_bytes()[..], &[7; 8]].concat();
            let told = welcome(&[1, 2], 8);
            let input = match what {
                0 => Input::Told(&bytes),
                1 | 2 => Input::Told(&told),
                3 => Input::Fetched,
                4 => Input::Leave,
                5 => { ms += wait; Input::Tick }
                6 => Input::Datagram(from, b"H"),
                7 => Input::Datagram(from, b"G"),
                8 => Input::Datagram(from, &bytes),
                _ => Input::Datagram(from, &whole),
            };
            peer.handle(at(ms), input);
            while let Some(action) = peer.poll() {
                let (number, count) = match action {
                    Action::Play(number) => {
                        prop_assert!(peer.data(number).is_some());
                        (number, 1)
                    }
                    Action::Skip { from, count } => (from, count),
                    Action::Jump(_) => { next = None; continue }
                    Action::Chunk { number, .. } => { prop_assert!(peer.data(number).is_some()); continue }
                    _ => continue,
                };
                prop_assert!(next.is_none_or(|next| next == number));
                next = Some(number + count);
            }
            prop_assert!(peer.mates().len() <= 3);
            prop_assert!(peer.deadline().is_none_or(|deadline| deadline > at(ms)));
        }
    }
}
