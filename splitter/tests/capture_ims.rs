//! IMS of generation B against a capture of the reference: a splitter that multicasts, and three that listen.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};

use common::pcap::{packets, said};
use relay_seam::Now;
use splitter::Config;
use splitter::peer::{self, Peer, PeerConfig};
use splitter::rules::{Action, Input, Source, Splitter};
use splitter::wire::b::{GroupWelcome, READY, ToPeer};

const CAPTURE: &[u8] = include_bytes!("captures/generation-b-ims.pcap");
const SPLITTER: u16 = 8001;
const LISTENERS: [u16; 3] = [42567, 49007, 58055];

fn here(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn group() -> SocketAddrV4 {
    "224.0.0.1:8001".parse().unwrap()
}

fn heard(peer: &mut Peer, input: peer::Input<'_>) -> Vec<peer::Action> {
    peer.handle(Now::new(0, 0), input);
    std::iter::from_fn(|| peer.poll()).collect()
}

#[test]
fn every_join_is_read_and_written_and_every_truncation_waited_for() {
    for port in LISTENERS {
        let told = said(CAPTURE, here(SPLITTER), here(port));
        let (welcome, n) = GroupWelcome::parse(&told).unwrap().unwrap();
        assert_eq!((n, welcome.group), (told.len(), group()));
        assert_eq!(
            (welcome.team.chunk_bytes, welcome.team.buffer_chunks),
            (1024, 256)
        );
        let mut again = Vec::new();
        welcome.encode(&mut again).unwrap();
        assert_eq!(again, told);
        assert!((0..told.len()).all(|cut| GroupWelcome::parse(&told[..cut]) == Ok(None)));
        assert_eq!(said(CAPTURE, here(port), here(SPLITTER)), [READY]);
    }
}

#[test]
fn a_group_that_is_none_is_refused() {
    let told = said(CAPTURE, here(SPLITTER), here(LISTENERS[0]));
    let at = told.len() - 6;
    let unicast = [&told[..at], &[10, 0, 0, 1, 1, 1]].concat();
    assert!(GroupWelcome::parse(&unicast).is_err());
}

#[test]
fn our_rules_say_what_the_reference_said() {
    let config = Config {
        group: Some(group()),
        ..Config::default()
    };
    let source = Source::new(here(8000), "test.ts").unwrap();
    let mut rules = Splitter::new(config, source, Now::new(0, 0)).unwrap();
    let mut asked = |input: Input<'_>| {
        rules.handle(Now::new(0, 0), input);
        std::iter::from_fn(|| rules.poll()).collect::<Vec<_>>()
    };
    for port in LISTENERS {
        let (to, bytes) = (here(port), said(CAPTURE, here(SPLITTER), here(port)));
        assert_eq!(asked(Input::Connected(to)), [Action::Tell { to, bytes }]);
        assert_eq!(asked(Input::Said(to, &[READY])), [Action::HangUp(to)]);
    }
    for (number, packet) in (0..).zip(packets(CAPTURE).iter().filter(|packet| !packet.tcp)) {
        let sent = asked(Input::Chunk(number));
        let [Action::Chunk { to, frame, .. }] = sent[..] else {
            panic!("{sent:?}")
        };
        assert_eq!(
            (to, frame.datagram(&packet.payload[2..])),
            (group(), packet.payload.clone())
        );
    }
}

#[test]
fn our_peer_hears_the_reference_s_group() {
    let port = LISTENERS[1];
    let config = PeerConfig {
        multicast: true,
        ..PeerConfig::default()
    };
    let mut peer = Peer::new(config, here(SPLITTER), Now::new(0, 0));
    assert_eq!(heard(&mut peer, peer::Input::Connected), []);
    let told = said(CAPTURE, here(SPLITTER), here(port));
    let joined = heard(&mut peer, peer::Input::Told(&told));
    assert_eq!(joined[0], peer::Action::Hear(group()));
    assert!(
        matches!(joined[1], peer::Action::Fetch { bytes: 8192, .. }),
        "{joined:?}"
    );
    let ready = [peer::Action::Tell(vec![READY]), peer::Action::HangUp];
    assert_eq!(heard(&mut peer, peer::Input::Fetched), ready);
    for packet in packets(CAPTURE).into_iter().filter(|packet| !packet.tcp) {
        let Ok(ToPeer::Chunk(chunk)) = ToPeer::parse(&packet.payload, 1024) else {
            panic!("a chunk")
        };
        heard(&mut peer, peer::Input::Datagram(packet.from, &packet.payload));
        assert_eq!(peer.data(chunk.number.into()), Some(chunk.data));
    }
    let stats = peer.stats();
    assert_eq!((stats.from_splitter, stats.played, stats.relayed), (160, 32, 0));
    assert_eq!(
        heard(&mut peer, peer::Input::Leave).len(),
        129,
        "the rest of the buffer, and the end"
    );
}
