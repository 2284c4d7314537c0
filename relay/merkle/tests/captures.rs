//! What others sent: captured datagrams, byte for byte, and computed trees.

#![allow(clippy::unwrap_used)]

mod common;

use common::{CHUNK, datagram, integrity, parse, swarm_id, unhex};
use relay_merkle::{
    Accepted, Addressing, BadSignature, Bin, Digest, Form, HashKind, Judgement, LiveConfig, LiveVerifier,
    MunroRefusal, Node, NtpTime, PublicKey, Refusal, StaticTree, StaticVerifier, TreeConfig, Verifier, fold,
    rfc_text,
};

const STATIC: &str = include_str!("vectors/static.txt");
const LIVE: &str = include_str!("vectors/live.txt");
const DRAFT: &str = include_str!("vectors/live-draft.txt");
const TREES: &str = include_str!("vectors/trees.txt");

/// The content of the static capture.
fn content() -> Vec<u8> {
    (0..442_u32).map(|i| ((i * i + 3 * i + 7) / 5) as u8).collect()
}

fn static_tree(kind: HashKind) -> StaticTree {
    let leaves: Vec<_> = content().chunks(CHUNK).map(|chunk| kind.leaf(chunk)).collect();
    StaticTree::new(kind, &leaves).unwrap()
}

/// The nodes of one function's tree in the vectors.
fn listed(kind: HashKind, name: &str) -> Vec<Node> {
    let lines = TREES.lines().skip_while(|line| *line != name).skip(1);
    let node = |line: &str| {
        let (bin, hash) = line.split_once(' ')?;
        let bin = Bin::from_number(bin.parse().unwrap()).unwrap();
        let hash = Digest::from_slice(kind, &unhex(hash)).unwrap();
        Some(Node { bin, hash })
    };
    lines.map_while(node).collect()
}

#[test]
fn both_trees_as_computed_elsewhere() {
    for (kind, name) in [(HashKind::Sha1, "sha1"), (HashKind::Sha256, "sha256")] {
        let (tree, nodes) = (static_tree(kind), listed(kind, name));
        assert_eq!(nodes.len(), 15);
        for node in nodes {
            assert_eq!(tree.hash(node.bin), Some(node.hash), "{name} {:?}", node.bin);
        }
        assert_eq!(tree.root().bin, Bin::root_of(7).unwrap());
    }
}

#[test]
fn a_static_seeders_hashes_are_ours() {
    let tree = static_tree(HashKind::Sha1);
    // Datagram 3: the peaks, then the uncles of chunk 0. Its leecher folds the peaks, so it knows what is above them.
    let mut expected: Vec<_> = tree.peaks().collect();
    let peak = expected[0].bin;
    tree.proof_for(0, |bin| bin.contains(peak) && bin != peak, &mut expected)
        .unwrap();
    let sent = datagram(STATIC, 3);
    assert_eq!(sent[4..][..5 * 29], integrity(&expected)[..]);
    // Datagrams 8 and 13: chunks 4 and 2, to somebody with the peaks and what was sent before.
    for (number, chunk, held) in [(8, 4, vec![0, 6]), (13, 2, vec![0, 6, 4, 5])] {
        let peak = tree
            .peaks()
            .find(|peak| peak.bin.contains_chunk(chunk))
            .unwrap()
            .bin;
        let has =
            |bin: Bin| bin.layer() > peak.layer() || held.iter().any(|chunk| bin.contains_chunk(*chunk));
        let mut expected = Vec::new();
        tree.proof_for(chunk, has, &mut expected).unwrap();
        let sent = datagram(STATIC, number);
        assert_eq!(sent[4..][..29], integrity(&expected)[..], "datagram {number}");
    }
}

#[test]
fn a_static_seeders_chunks_are_accepted() {
    let root = static_tree(HashKind::Sha1).root().hash;
    assert_eq!(root.as_bytes(), unhex("af2675734dc9f5eadd76656c4ea284f850b1c6da"));
    let first = parse(&datagram(STATIC, 3));
    let mut leecher = StaticVerifier::from_peaks(root, &first.nodes[..3]).unwrap();
    assert_eq!(leecher.chunks(), 7);
    for number in [3, 5, 8, 9, 13] {
        let said = parse(&datagram(STATIC, number));
        let (chunk, data) = &said.chunks[0];
        assert_eq!(
            leecher.accept(*chunk, data, &said.nodes).unwrap().new,
            1,
            "datagram {number}"
        );
        assert_eq!(data[..], content()[*chunk as usize * CHUNK..][..data.len()]);
    }
    for chunk in [7, 8, u64::MAX] {
        assert_eq!(
            leecher.accept(chunk, b"", &[]),
            Err(Refusal::Range { chunk, count: 1 })
        );
    }
    assert_eq!(
        (0..8).filter(|chunk| leecher.holds(*chunk)).collect::<Vec<_>>(),
        [0, 2, 4, 5, 6]
    );
}

#[test]
fn peaks_that_lie_are_refused() {
    let tree = static_tree(HashKind::Sha1);
    let root = tree.root().hash;
    let peaks: Vec<_> = tree.peaks().collect();
    assert_eq!(fold(HashKind::Sha1, &peaks), Some(tree.root()));
    assert!(StaticVerifier::from_peaks(root, &[]).is_none());
    assert!(StaticVerifier::from_peaks(root, &peaks[1..]).is_none());
    assert!(StaticVerifier::from_peaks(root, &peaks[..2]).is_none());
    let mut swapped = peaks.clone();
    swapped.swap(0, 1);
    assert!(StaticVerifier::from_peaks(root, &swapped).is_none());
    let doubled = [tree.root(), tree.root()];
    assert_eq!(fold(HashKind::Sha1, &doubled), None);
    // They lead to the root, but a tree of 8 chunks has one peak.
    let halves = [tree.root().bin.left(), tree.root().bin.right()].map(|bin| {
        let bin = bin.unwrap();
        let hash = tree.hash(bin).unwrap();
        Node { bin, hash }
    });
    assert_eq!(fold(HashKind::Sha1, &halves), Some(tree.root()));
    assert!(StaticVerifier::from_peaks(root, &halves).is_none());
    let mut altered = peaks;
    altered[1].hash = altered[0].hash;
    assert!(StaticVerifier::from_peaks(root, &altered).is_none());
}

fn live_verifier(capture: &str) -> LiveVerifier {
    let tree = TreeConfig {
        kind: HashKind::Sha1,
        chunks_per_munro: 32,
        window: 256,
    };
    let key = PublicKey::from_swarm_id(swarm_id(&datagram(capture, 0))).unwrap();
    let verifier = Verifier::new(key, Form::Rfc(Addressing::Range32));
    let config = LiveConfig {
        tree,
        ..LiveConfig::default()
    };
    LiveVerifier::new(config, verifier).unwrap()
}

#[test]
fn a_live_seeders_munro_and_chunks_are_accepted() {
    let mut leecher = live_verifier(LIVE);
    let said = parse(&datagram(LIVE, 3));
    let signed = said.munros[0];
    // What was signed: the specification and the time as they came, then the hash.
    let sent = datagram(LIVE, 3);
    let text = [&sent[35..51], &sent[14..34]].concat();
    assert_eq!(rfc_text(Addressing::Range32, &signed.munro), Some(text));
    let now = NtpTime(signed.munro.time.0 + (1 << 32));
    assert_eq!(leecher.offer(&signed, now), Ok(Judgement::New));
    assert_eq!(leecher.offer(&signed, now), Ok(Judgement::Known));
    for (number, chunk, uncles, hashes) in [(5, 256, 5, 5), (7, 257, 0, 0), (8, 258, 1, 1)] {
        let said = parse(&datagram(LIVE, number));
        assert_eq!((said.nodes.len(), said.chunks[0].0), (uncles, chunk));
        let accepted = leecher.accept(chunk, &said.chunks[0].1, &said.nodes);
        assert_eq!(
            accepted,
            Ok(Accepted {
                new: 1,
                again: 0,
                hashes
            }),
            "datagram {number}"
        );
    }
    let stats = leecher.stats();
    assert_eq!(
        (stats.signature_checks, stats.chunks, stats.munros_again),
        (1, 3, 1)
    );
}

#[test]
fn a_live_seeders_hashes_are_what_we_would_send_on() {
    let mut leecher = live_verifier(LIVE);
    let signed = parse(&datagram(LIVE, 3)).munros[0];
    leecher.offer(&signed, signed.munro.time).unwrap();
    let sent = datagram(LIVE, 5);
    let said = parse(&sent);
    leecher.accept(256, &said.chunks[0].1, &said.nodes).unwrap();
    let mut ours = Vec::new();
    assert_eq!(leecher.proof_for(256, |_| false, &mut ours), Ok(&signed));
    assert_eq!(sent[4..][..5 * 29], integrity(&ours)[..]);
}

#[test]
fn a_live_seeders_chunk_with_one_bit_wrong_is_refused() {
    let mut leecher = live_verifier(LIVE);
    let signed = parse(&datagram(LIVE, 3)).munros[0];
    leecher.offer(&signed, signed.munro.time).unwrap();
    let said = parse(&datagram(LIVE, 5));
    for bit in 0..8 * CHUNK {
        let mut data = said.chunks[0].1.clone();
        data[bit / 8] ^= 1 << (bit % 8);
        let refused = leecher.accept(256, &data, &said.nodes);
        assert!(
            matches!(refused, Err(Refusal::Wrong { .. })),
            "bit {bit}: {refused:?}"
        );
    }
    assert!(!leecher.holds(256));
    assert_eq!(leecher.stats().chunks_wrong, 8 * CHUNK as u64);
}

#[test]
fn the_drafts_munros_do_not_verify() {
    let mut leecher = live_verifier(DRAFT);
    let signed = parse(&datagram(DRAFT, 3)).munros[0];
    let bin = signed.munro.bin;
    let forged = MunroRefusal::Signature(BadSignature::Forged { bin });
    assert_eq!(leecher.offer(&signed, signed.munro.time), Err(forged));
    assert_eq!((leecher.stats().munros_forged, leecher.newest()), (1, None));
    // The signature itself is sound: it covers the bare hash.
    let key = PublicKey::from_swarm_id(swarm_id(&datagram(DRAFT, 0))).unwrap();
    assert!(key.verifies(signed.munro.hash.as_bytes(), &signed.signature));
}

#[test]
fn every_bit_of_a_captured_munro_matters() {
    let leecher = live_verifier(LIVE);
    let signed = parse(&datagram(LIVE, 3)).munros[0];
    let mut encoded = Vec::new();
    signed.encode(&mut encoded);
    for bit in 0..8 * encoded.len() {
        let mut altered = encoded.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let Ok(altered) = relay_merkle::SignedMunro::decode(&altered) else {
            continue;
        };
        assert!(leecher.verifier().verify(&altered).is_err(), "bit {bit}");
    }
}
