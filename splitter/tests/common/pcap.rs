//! The packets of a capture: little-endian pcap of Ethernet (1) or Linux cooked frames (276) with IPv4.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

#[derive(Clone, Debug)]
pub struct Packet {
    pub tcp: bool,
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub payload: Vec<u8>,
}

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// All packets with a payload.
pub fn packets(capture: &[u8]) -> Vec<Packet> {
    assert_eq!(capture[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a little-endian pcap");
    let frame_header = match capture[20] as u16 | (capture[21] as u16) << 8 {
        1 => 14,
        276 => 20,
        other => panic!("frames of kind {other}"),
    };
    let (mut rest, mut out) = (&capture[24..], Vec::new());
    while !rest.is_empty() {
        let captured = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        out.push(packet(&rest[16 + frame_header..16 + captured]));
        rest = &rest[16 + captured..];
    }
    out.retain(|packet| !packet.payload.is_empty());
    out
}

fn packet(frame: &[u8]) -> Packet {
    let ip = &frame[..be16(frame, 2)];
    let segment = &ip[usize::from(ip[0] & 15) * 4..];
    let tcp = ip[9] == 6;
    let header = if tcp { usize::from(segment[12] >> 4) * 4 } else { 8 };
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    Packet {
        tcp,
        from: SocketAddrV4::new(address(12), be16(segment, 0) as u16),
        to: SocketAddrV4::new(address(16), be16(segment, 2) as u16),
        payload: segment[header..].to_vec(),
    }
}

/// What went over a TCP connection in one direction.
pub fn said(capture: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let segments = packets(capture)
        .into_iter()
        .filter(|packet| packet.tcp && (packet.from, packet.to) == (from, to));
    segments.flat_map(|packet| packet.payload).collect()
}
