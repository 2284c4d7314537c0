//! Captured datagrams (RFC 7574, 32-bit chunk ranges), taken apart as far as the Merkle room is concerned.

#![allow(dead_code, reason = "each test file uses its part")]

use relay_merkle::{Addressing, Bin, Digest, HashKind, Munro, Node, NtpTime, Signature, SignedMunro};

/// Bytes of a chunk in the captures.
pub(crate) const CHUNK: usize = 64;

/// The bytes that a line of hexadecimal stands for.
pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex
        .chars()
        .map(|c| c.to_digit(16).expect("a digit") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The datagram with this number.
pub(crate) fn datagram(capture: &str, number: usize) -> Vec<u8> {
    let prefix = format!("{number} ");
    let line = capture.lines().find_map(|line| line.strip_prefix(&prefix));
    unhex(line.expect("a datagram with that number"))
}

/// The swarm identifier in an opening handshake, which in these captures stands after the two versions.
pub(crate) fn swarm_id(handshake: &[u8]) -> &[u8] {
    assert_eq!(handshake[13], 2, "option 2");
    let length = usize::from(handshake[14]) << 8 | usize::from(handshake[15]);
    &handshake[16..16 + length]
}

/// What a seeder's datagram says about integrity.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) nodes: Vec<Node>,
    pub(crate) munros: Vec<SignedMunro>,
    pub(crate) chunks: Vec<(u64, Vec<u8>)>,
}

/// Takes a seeder's datagram apart; SHA-1.
pub(crate) fn parse(datagram: &[u8]) -> Said {
    let mut said = Said::default();
    let mut rest = &datagram[4..];
    let mut take = |length: usize| {
        let (head, tail) = rest.split_at(length.min(rest.len()));
        rest = tail;
        head
    };
    loop {
        match take(1) {
            [] => return said,
            [0] => {
                // A handshake of these captures ends at its first 0xFF.
                while take(1) != [0xFF] {}
            }
            [1] => {
                let chunk = node(take(8)).first();
                take(8);
                said.chunks.push((chunk, take(CHUNK).to_vec()));
            }
            [3] => {
                take(8);
            }
            [4] => {
                let bin = node(take(8));
                let hash = Digest::from_slice(HashKind::Sha1, take(20)).expect("20 bytes");
                said.nodes.push(Node { bin, hash });
            }
            [6] => {}
            [7] => {
                let bin = node(take(8));
                let time = NtpTime(u64::from_be_bytes(take(8).try_into().expect("8 bytes")));
                let signature = Signature(take(64).try_into().expect("64 bytes"));
                let hash = said.nodes.iter().find(|node| node.bin == bin);
                let hash = hash.expect("INTEGRITY of the munro comes first").hash;
                let munro = Munro { bin, hash, time };
                said.munros.push(SignedMunro { munro, signature });
            }
            other => panic!("message type {other:?}"),
        }
    }
}

fn node(spec: &[u8]) -> Bin {
    Addressing::Range32.node(spec).expect("one node of the tree")
}

/// The datagram's bytes from and to, as hexadecimal would count them: what of it are INTEGRITY messages of `nodes`.
pub(crate) fn integrity(nodes: &[Node]) -> Vec<u8> {
    let mut out = Vec::new();
    for node in nodes {
        out.push(4);
        Addressing::Range32
            .put(node.bin, &mut out)
            .expect("32 bits are enough");
        out.extend(node.hash.as_bytes());
    }
    out
}
