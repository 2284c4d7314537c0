//! Generation C against captures of the reference: teams with and without loss, and with peers that multicast.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use common::pcap::{Packet, packets, said};
use relay_seam::Now;
use splitter::peer::{self, Peer, PeerConfig, Subnet};
use splitter::rules::{Action, Input, Note, Source, Splitter};
use splitter::wire::c::{Datagram, Welcome};
use splitter::{Config, Dialect};

const QUIET: &[u8] = include_bytes!("captures/generation-c-dbs.pcap");
const LOSSY: &[u8] = include_bytes!("captures/generation-c-dbs-loss.pcap");
const MULTICAST: &[u8] = include_bytes!("captures/generation-c-ims.pcap");
/// Each with the ports of its team, in the order of joining.
const TEAMS: [(&[u8], &[u16]); 3] = [
    (QUIET, &[35123, 38047, 59225]),
    (LOSSY, &[34417, 51491, 53547]),
    (MULTICAST, &[58719, 47473, 39103]),
];
const SPLITTER: u16 = 4552;
const CHUNK_BYTES: u16 = 1024;

fn here(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn datagrams(capture: &[u8]) -> Vec<Packet> {
    let mut packets = packets(capture);
    packets.retain(|packet| !packet.tcp);
    packets
}

fn config() -> Config {
    Config {
        dialect: Dialect::C,
        chunk_bytes: CHUNK_BYTES,
        buffer_chunks: 128,
        monitors: 0,
        header_bytes: 0x7400,
        ..Config::default()
    }
}

fn asked(team: &mut Splitter, now: Now, input: Input<'_>) -> Vec<Action> {
    team.handle(now, input);
    std::iter::from_fn(|| team.poll()).collect()
}

fn heard(peer: &mut Peer, now: Now, input: peer::Input<'_>) -> Vec<peer::Action> {
    peer.handle(now, input);
    std::iter::from_fn(|| peer.poll()).collect()
}

#[test]
fn every_datagram_is_read_and_written_byte_for_byte() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for packet in TEAMS.iter().flat_map(|(capture, _)| datagrams(capture)) {
        let word = Datagram::parse(&packet.payload, CHUNK_BYTES).unwrap();
        let mut again = Vec::new();
        word.encode(&mut again);
        assert_eq!(again, packet.payload);
        *seen
            .entry(match word {
                Datagram::Chunk(_) => "chunk",
                Datagram::Hello => "hello",
                Datagram::Goodbye(..) | Datagram::Released => "goodbye",
                Datagram::Request(_) => "request",
                Datagram::Prune(_) => "prune",
                Datagram::Lost(_) => "lost",
            })
            .or_default() += 1;
    }
    let expected = [
        ("chunk", 480),
        ("hello", 15),
        ("lost", 96),
        ("prune", 199),
        ("request", 60),
    ];
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn every_join_is_read_and_written_and_every_truncation_waited_for() {
    for (capture, team) in TEAMS {
        for (nth, &port) in team.iter().enumerate() {
            let told = said(capture, here(SPLITTER), here(port));
            let (welcome, n) = Welcome::parse(&told).unwrap().unwrap();
            assert_eq!(n, told.len());
            assert_eq!(
                (welcome.you, welcome.chunk_bytes, welcome.buffer_chunks),
                (here(port), 1024, 128)
            );
            assert_eq!(
                welcome.peers,
                team[..nth].iter().map(|&port| here(port)).collect::<Vec<_>>()
            );
            let mut again = Vec::new();
            welcome.encode(&mut again).unwrap();
            assert_eq!(again, told);
            // The header is long: its inside cut in steps.
            let cuts = (0..told.len())
                .filter(|cut| !(40..told.len().saturating_sub(40)).contains(cut) || cut % 97 == 0);
            cuts.for_each(|cut| assert_eq!(Welcome::parse(&told[..cut]), Ok(None)));
            assert!(said(capture, here(port), here(SPLITTER)).is_empty());
        }
    }
}

/// The captured teams, led by our rules: the same welcomes, the same chunks to the same peers.
#[test]
fn our_rules_say_what_the_reference_said() {
    let now = Now::new(0, 0);
    for (capture, team) in TEAMS {
        let source = Source::new(here(8000), "LBBB.ogv").unwrap();
        let mut rules = Splitter::new(config(), source, now).unwrap();
        for &port in team {
            let bytes = said(capture, here(SPLITTER), here(port));
            let header = Welcome::parse(&bytes).unwrap().unwrap().0.header.to_vec();
            rules.set_header(header);
            let to = here(port);
            let told = asked(&mut rules, now, Input::Connected(to));
            assert_eq!(told, [Action::Tell { to, bytes }, Action::HangUp(to)]);
            let hello = Input::Datagram(to, &[255; 4]);
            assert_eq!(asked(&mut rules, now, hello), [Action::Note(to, Note::Joined)]);
            if port == team[0] {
                chunks_go_to(&mut rules, capture, port, now);
            }
        }
        let lost = datagrams(capture)
            .into_iter()
            .filter(|packet| packet.to == here(SPLITTER));
        for packet in lost {
            asked(&mut rules, now, Input::Datagram(packet.from, &packet.payload));
        }
        assert_eq!(rules.peers().len(), 3);
        assert_eq!(rules.stats().datagrams_unknown, 0);
    }
}

fn chunks_go_to(rules: &mut Splitter, capture: &[u8], port: u16, now: Now) {
    let chunks = datagrams(capture)
        .into_iter()
        .filter(|packet| packet.payload.len() > 1000);
    for packet in chunks {
        let Ok(Datagram::Chunk(chunk)) = Datagram::parse(&packet.payload, CHUNK_BYTES) else {
            panic!("a chunk")
        };
        let sent = asked(rules, now, Input::Chunk(chunk.number.into()));
        let [Action::Chunk { to, frame, .. }] = sent[..] else {
            panic!("{sent:?}")
        };
        assert_eq!((to, packet.to), (here(port), here(port)));
        assert_eq!(frame.datagram(chunk.data), packet.payload);
    }
}

/// The other direction: our peers in the captured teams join with the same hellos, and ask and tell in the same
/// words.
#[test]
fn our_peers_say_what_the_reference_s_peers_said() {
    let now = Now::new(0, 0);
    for (capture, team) in TEAMS {
        for &port in team {
            let subnet = (capture == MULTICAST).then_some(Subnet {
                address: Ipv4Addr::LOCALHOST,
                prefix: 8,
                group: SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 1234),
            });
            let config = PeerConfig {
                dialect: Dialect::C,
                monitor: port == team[0],
                subnet,
                ..PeerConfig::default()
            };
            let mut peer = Peer::new(config, here(SPLITTER), now);
            assert_eq!(heard(&mut peer, now, peer::Input::Connected), []);
            let told = said(capture, here(SPLITTER), here(port));
            let joined = heard(&mut peer, now, peer::Input::Told(&told));
            let captured: Vec<_> = datagrams(capture)
                .into_iter()
                .filter(|packet| packet.from == here(port))
                .map(|packet| (packet.to, packet.payload))
                .collect();
            // The last peer of the multicast team was captured before it spoke.
            let hellos: Vec<_> = captured
                .iter()
                .filter(|(_, bytes)| bytes.len() == 4)
                .cloned()
                .collect();
            let ours = sent(&joined);
            assert_eq!(
                ours.len(),
                team.iter().position(|&other| other == port).unwrap() + 1
            );
            assert!(hellos.is_empty() || ours == hellos, "{port}: {ours:?}");
            hears_all(&mut peer, capture, port);
        }
    }
}

/// What a captured peer was sent, ours understands; what it complains about, the reference's complained about.
fn hears_all(peer: &mut Peer, capture: &[u8], port: u16) {
    let now = Now::new(Duration::from_secs(1).as_nanos() as u64, 0);
    let own = |packet: &Packet| packet.from == packet.to;
    let mut complaints = Vec::new();
    for packet in datagrams(capture) {
        if packet.to == here(port) && !own(&packet) {
            let actions = heard(peer, now, peer::Input::Datagram(packet.from, &packet.payload));
            complaints.extend(sent(&actions).into_iter().filter(|(to, _)| *to == here(SPLITTER)));
        }
    }
    assert_eq!(peer.stats().unknown, 0);
    let theirs: Vec<_> = datagrams(capture)
        .into_iter()
        .filter(|packet| packet.from == here(port))
        .map(|packet| (packet.to, packet.payload))
        .collect();
    assert!(
        complaints.iter().all(|complaint| theirs.contains(complaint)),
        "{complaints:?}"
    );
}

fn sent(actions: &[peer::Action]) -> Vec<(SocketAddrV4, Vec<u8>)> {
    let sent = actions.iter().filter_map(|action| match action {
        peer::Action::Send { to, bytes } => Some((*to, bytes.clone())),
        _ => None,
    });
    sent.collect()
}
