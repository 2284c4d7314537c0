//! What fuzzing feeds: each function takes any bytes at all, and panics where the rules break a promise.
//!
//! `tests/corpora.rs` runs the committed corpora through the same functions with every ordinary test.

#![allow(missing_docs, unreachable_pub)]

use std::net::{Ipv4Addr, SocketAddrV4};

use relay_merkle::{ChannelId, Context, Signer, TreeConfig};
use relay_seam::Now;
use splitter::peer::{self, Peer, PeerConfig, SecuredPeer, SecuredPeerConfig};
use splitter::rules::{self, Secured, SecuredConfig, SecuredInput, Source, Splitter};
use splitter::wire::{b, c, t};
use splitter::{Config, Dialect};

fn here(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1 + port % 8)
}

fn at(ms: u64) -> Now {
    Now::new(ms * 1_000_000, ms * 1000)
}

/// Events: two bytes say what and how long, then come the bytes of it.
fn events(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[what, length], behind) = rest.split_first_chunk()?;
        let (event, next) = behind.split_at(behind.len().min(usize::from(length) * 8));
        rest = next;
        Some((what, event))
    })
}

/// Every reader of every wire.
pub fn wires(bytes: &[u8]) {
    let mut again = Vec::new();
    if let Ok(said) = b::ToPeer::parse(bytes, 16) {
        said.encode(&mut again);
        assert_eq!(again, bytes);
    }
    again.clear();
    if let Ok(said) = c::Datagram::parse(bytes, 16) {
        said.encode(&mut again);
        assert_eq!(again, bytes);
    }
    if let Ok(said) = t::Datagram::parse(bytes) {
        assert_eq!(said.encode(), bytes);
    }
    let _ = b::ToSplitter::parse(bytes);
    let _ = b::Welcome::parse(bytes);
    let _ = b::GroupWelcome::parse(bytes);
    let _ = c::Welcome::parse(bytes);
    let _ = t::Request::parse(bytes);
    let _ = t::Mate::parse_list(bytes);
    if let Ok(Some((welcome, n))) = t::Welcome::parse(bytes) {
        assert_eq!(welcome.encode(), bytes[..n]);
    }
}

/// A splitter's input from an event: the low bits of `what` say which, the others who.
fn splitter_input<'a>(what: u8, number: u64, event: &'a [u8]) -> rules::Input<'a> {
    let who = here(u16::from(what >> 3));
    match what & 7 {
        0 => rules::Input::Chunk(number),
        1 => rules::Input::Connected(who),
        2 | 3 => rules::Input::Said(who, event),
        4 => rules::Input::HungUp(who),
        5 => rules::Input::Closed(who),
        6 => rules::Input::Tick,
        _ => rules::Input::Datagram(who, event),
    }
}

/// A splitter of any wire, whoever says whatever.
pub fn splitter(bytes: &[u8]) {
    let Some((&wire, bytes)) = bytes.split_first() else {
        return;
    };
    let config = Config {
        dialect: if wire & 1 == 0 { Dialect::B } else { Dialect::C },
        nts: wire & 5 == 4,
        chunk_bytes: 24,
        buffer_chunks: 32,
        max_peers: 8,
        max_arrivals: 4,
        ..Config::default()
    };
    if wire & 2 == 0 {
        open_splitter(config, bytes);
    } else {
        secured_splitter(config, bytes);
    }
}

fn open_splitter(config: Config, bytes: &[u8]) {
    let source = Source::new(here(0), "x").expect("a source");
    let mut team = Splitter::new(config, source, at(0)).expect("settings that go together");
    for (n, (what, event)) in (0..).zip(events(bytes)) {
        team.handle(at(n * 40), splitter_input(what, n, event));
        while team.poll().is_some() {}
        assert!(team.peers().len() <= 8 && team.arrivals() <= 4);
    }
}

fn secured_splitter(config: Config, bytes: &[u8]) {
    let context = Context {
        channel: ChannelId::of_mount("/x"),
        epoch: 1,
    };
    let signer = Signer::from_bytes(&[7; 32]).expect("a key");
    let tree = TreeConfig::default();
    let key = signer.public_key().clone();
    let settings = SecuredConfig::new(config, key, context, tree, [1; 32]);
    let mut team = Secured::new(settings, 0, at(0)).expect("settings that go together");
    for (n, (what, event)) in (0..).zip(events(bytes)) {
        let now = at(n * 40);
        match splitter_input(what, n, event) {
            rules::Input::Chunk(number) => {
                team.handle(now, SecuredInput::Chunk(number, tree.kind.leaf(event)));
            }
            input => team.handle(now, SecuredInput::Team(input)),
        }
        while team.poll().is_some() {}
        assert!(team.peers().count() <= 8 && team.arrivals() <= 4);
    }
}

fn peer_input<'a>(what: u8, event: &'a [u8]) -> peer::Input<'a> {
    match what & 7 {
        0 => peer::Input::Connected,
        1 | 2 => peer::Input::Told(event),
        3 => peer::Input::Fetched,
        4 if what >> 3 == 31 => peer::Input::Leave,
        4 => peer::Input::Tick,
        5 if what >> 3 == 31 => peer::Input::HungUp,
        _ => peer::Input::Datagram(here(u16::from(what >> 3)), event),
    }
}

/// A peer of any wire, whoever says whatever.
pub fn peer(bytes: &[u8]) {
    let Some((&wire, bytes)) = bytes.split_first() else {
        return;
    };
    if wire & 3 == 3 {
        return secured_peer(bytes);
    }
    let config = PeerConfig {
        dialect: if wire & 1 == 0 { Dialect::B } else { Dialect::C },
        multicast: wire & 3 == 2,
        nts: wire & 7 == 4,
        monitor: true,
        mates_max: 4,
        buffer_bytes_max: 1 << 20,
        ..PeerConfig::default()
    };
    let mut peer = Peer::new(config, here(0), at(0));
    for (n, (what, event)) in (0..).zip(events(bytes)) {
        peer.handle(at(n * 40), peer_input(what, event));
        while let Some(action) = peer.poll() {
            if let peer::Action::Play(number) | peer::Action::Chunk { number, .. } = action {
                assert!(peer.data(number).is_some());
            }
        }
        assert!(peer.mates().len() <= 4);
    }
}

fn secured_peer(bytes: &[u8]) {
    let config = SecuredPeerConfig {
        mates_max: 4,
        buffer_bytes_max: 1 << 20,
        ..SecuredPeerConfig::new([3; 32])
    };
    let mut peer = SecuredPeer::new(config, here(0), at(0));
    for (n, (what, event)) in (0..).zip(events(bytes)) {
        peer.handle(at(n * 40), peer_input(what, event));
        while let Some(action) = peer.poll() {
            assert!(!matches!(action, peer::Action::Play(_)), "nothing is signed here");
        }
        assert!(peer.mates() <= 4);
    }
}
