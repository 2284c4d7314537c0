//! The wire against a capture of the reference: a splitter, a monitor and two peers of generation B, rule set DBS.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use common::pcap::{Packet, packets, said};
use relay_seam::Now;
use splitter::Config;
use splitter::peer::{self, Peer, PeerConfig};
use splitter::rules::{Action, Input, Note, Source, Splitter};
use splitter::wire::b::{Chunk, GOODBYE, Greeting, READY, ToPeer, ToSplitter, Welcome};

const CAPTURE: &[u8] = include_bytes!("captures/generation-b-dbs.pcap");
/// The splitter's port, TCP and UDP.
const SPLITTER: u16 = 8001;
/// The ports of the monitor and the two peers, in the order of joining.
const TEAM: [u16; 3] = [37713, 36605, 45311];
const CHUNK_BYTES: u16 = 1024;

/// The datagrams of the team; other programs spoke on that loopback too.
fn datagrams() -> Vec<Packet> {
    let team = |at: SocketAddrV4| at.port() == SPLITTER || TEAM.contains(&at.port());
    packets(CAPTURE)
        .into_iter()
        .filter(|packet| !packet.tcp && team(packet.from) && team(packet.to))
        .collect()
}

/// What went over a member's TCP connection: from the splitter, and to it.
fn join_of(port: u16) -> (Vec<u8>, Vec<u8>) {
    let (splitter, member) = (here(SPLITTER), here(port));
    (said(CAPTURE, splitter, member), said(CAPTURE, member, splitter))
}

fn here(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

#[test]
fn every_datagram_is_read_and_written_byte_for_byte() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for Packet {
        from, to, payload, ..
    } in datagrams()
    {
        let mut again = Vec::new();
        let kind = if to == here(SPLITTER) {
            let said = ToSplitter::parse(&payload).unwrap();
            said.encode(&mut again);
            assert_eq!(said, ToSplitter::Goodbye);
            "goodbye to the splitter"
        } else {
            let said = ToPeer::parse(&payload, CHUNK_BYTES).unwrap();
            said.encode(&mut again);
            match said {
                ToPeer::Chunk(_) => "chunk",
                ToPeer::Hello => "hello",
                ToPeer::Goodbye if from == here(SPLITTER) => "goodbye answered",
                ToPeer::Goodbye => "goodbye to a peer",
            }
        };
        assert_eq!(again, payload);
        *seen.entry(kind).or_default() += 1;
    }
    let expected = [
        ("chunk", 160),
        ("goodbye answered", 3),
        ("goodbye to a peer", 3),
        ("goodbye to the splitter", 14),
        ("hello", 3),
    ];
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn chunks_are_numbered_from_0() {
    let chunks = datagrams().into_iter().filter(|packet| packet.payload.len() > 1);
    let numbers: Vec<u16> = chunks
        .map(|p| Chunk::parse(&p.payload, CHUNK_BYTES).unwrap().number)
        .collect();
    assert_eq!(numbers, (0..160).collect::<Vec<u16>>());
}

#[test]
fn every_join_is_read_and_written_byte_for_byte() {
    for (nth, port) in TEAM.into_iter().enumerate() {
        let (told, said) = join_of(port);
        let (welcome, n) = Welcome::parse(&told).unwrap().unwrap();
        assert_eq!(n, told.len());
        assert_eq!((welcome.source, welcome.channel), (here(8000), &b"test.ts"[..]));
        let sizes = (
            welcome.header_bytes,
            welcome.chunk_bytes,
            welcome.buffer_chunks,
            welcome.monitors,
        );
        assert_eq!(sizes, (8192, CHUNK_BYTES, 256, 1));
        let peers: Vec<_> = welcome.peers.iter().collect();
        assert_eq!(
            peers,
            TEAM[..nth].iter().map(|&port| here(port)).collect::<Vec<_>>()
        );
        let mut again = Vec::new();
        welcome.encode(peers.into_iter(), &mut again).unwrap();
        assert_eq!(again, told);
        let greeting = Greeting::parse(said[0]).unwrap();
        assert_eq!(
            greeting,
            if nth == 0 {
                Greeting::Monitor
            } else {
                Greeting::Peer
            }
        );
        assert_eq!(said[1..], [READY]);
    }
}

#[test]
fn every_truncation_of_a_join_is_waited_for() {
    for port in TEAM {
        let (told, _) = join_of(port);
        for cut in 0..told.len() {
            assert_eq!(Welcome::parse(&told[..cut]), Ok(None));
        }
    }
}

/// The captured team, led by our rules: they say what the reference said, byte for byte, to each newcomer, number
/// the same chunks, and answer the same goodbyes.
#[test]
fn our_rules_say_what_the_reference_said() {
    let now = Now::new(0, 0);
    let source = Source::new(here(8000), "test.ts").unwrap();
    let mut team = Splitter::new(Config::default(), source, now).unwrap();
    for port in TEAM {
        let (bytes, said) = join_of(port);
        asked(&mut team, now, Input::Connected(here(port)));
        let to = here(port);
        let told = asked(&mut team, now, Input::Said(to, &said[..1]));
        assert_eq!(told, [Action::Tell { to, bytes }]);
        let ready = asked(&mut team, now, Input::Said(to, &said[1..]));
        assert_eq!(ready, [Action::HangUp(to), Action::Note(to, Note::Joined)]);
        if port == TEAM[0] {
            chunks_go_to(&mut team, port, now);
        }
    }
    let mut answered = Vec::new();
    for Packet { from, payload, .. } in datagrams()
        .into_iter()
        .filter(|packet| packet.to == here(SPLITTER))
    {
        answered.extend(asked(&mut team, now, Input::Datagram(from, &payload)));
        let later = now + Config::default().farewell_timeout;
        answered.extend(asked(&mut team, later, Input::Tick));
    }
    for port in TEAM {
        let goodbye = Action::Send {
            to: here(port),
            bytes: GOODBYE.to_vec(),
        };
        assert!(answered.contains(&goodbye), "{port}: {answered:?}");
    }
    assert_eq!((team.peers().len(), team.stats().goodbyes), (0, 3));
}

fn asked(team: &mut Splitter, now: Now, input: Input<'_>) -> Vec<Action> {
    team.handle(now, input);
    std::iter::from_fn(|| team.poll()).collect()
}

fn chunks_go_to(team: &mut Splitter, port: u16, now: Now) {
    let chunks = datagrams().into_iter().filter(|packet| packet.payload.len() > 1);
    for (number, packet) in (0..).zip(chunks) {
        let sent = asked(team, now, Input::Chunk(number));
        let [Action::Chunk { to, number: n, frame }] = sent[..] else {
            panic!("{sent:?}")
        };
        assert_eq!((to, n, packet.to), (here(port), number, here(port)));
        assert_eq!(frame.datagram(&packet.payload[2..]), packet.payload);
    }
}

/// The other direction: our peer hears what each reference peer heard, says what it said, and plays what it was sent.
#[test]
fn our_peer_says_what_the_reference_s_peers_said() {
    let now = Now::new(0, 0);
    for port in TEAM {
        let (told, said) = join_of(port);
        let config = PeerConfig {
            monitor: said[0] == b'M',
            ..PeerConfig::default()
        };
        let mut peer = Peer::new(config, here(SPLITTER), now);
        let mut wanted = heard(&mut peer, now, peer::Input::Connected);
        wanted.extend(heard(&mut peer, now, peer::Input::Told(&told)));
        let fetch = wanted.pop();
        assert!(
            matches!(fetch, Some(peer::Action::Fetch { bytes: 8192, .. })),
            "{fetch:?}"
        );
        wanted.extend(heard(&mut peer, now, peer::Input::Fetched));
        let spoken = wanted.iter().filter_map(|action| match action {
            peer::Action::Tell(bytes) => Some(bytes.clone()),
            _ => None,
        });
        assert_eq!(spoken.collect::<Vec<_>>().concat(), said);
        assert_eq!(sent(&wanted), sent_by(port, b"H"), "{port}'s hellos");

        let mut played = Vec::new();
        for packet in datagrams().into_iter().filter(|packet| packet.to == here(port)) {
            played.extend(heard(
                &mut peer,
                now,
                peer::Input::Datagram(packet.from, &packet.payload),
            ));
        }
        let numbers = played.iter().filter_map(|action| match action {
            peer::Action::Play(number) => Some(*number),
            _ => None,
        });
        let expected = if port == TEAM[0] { 160 - 128 } else { 0 };
        assert_eq!(numbers.collect::<Vec<_>>(), (0..expected).collect::<Vec<_>>());

        let goodbye = heard(&mut peer, now, peer::Input::Leave);
        assert_eq!(sent(&goodbye), [(SPLITTER, GOODBYE.to_vec())]);
        let farewell = heard(&mut peer, now, peer::Input::Datagram(here(SPLITTER), &GOODBYE));
        let mates: Vec<_> = peer.mates().map(|mate| (mate.port(), GOODBYE.to_vec())).collect();
        assert_eq!(sent(&farewell), mates);
    }
}

fn heard(peer: &mut Peer, now: Now, input: peer::Input<'_>) -> Vec<peer::Action> {
    peer.handle(now, input);
    std::iter::from_fn(|| peer.poll()).collect()
}

fn sent(actions: &[peer::Action]) -> Vec<(u16, Vec<u8>)> {
    let sent = actions.iter().filter_map(|action| match action {
        peer::Action::Send { to, bytes } => Some((to.port(), bytes.clone())),
        _ => None,
    });
    sent.collect()
}

/// What a captured peer sent of this kind, and to whom.
fn sent_by(port: u16, kind: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let packets = datagrams()
        .into_iter()
        .filter(|packet| packet.from == here(port) && packet.payload == kind);
    packets.map(|packet| (packet.to.port(), packet.payload)).collect()
}
