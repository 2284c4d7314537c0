//! One stream for a whole LAN: what a multicast datagram looks like, and how a stream is put together from those that
//! arrive.
//!
//! A datagram carries seven packets of MPEG-TS, bare or behind an RTP header ([`rtp`], RFC 3550 and 2250) that any
//! player understands. Ours has an extension (RFC 8285) that names the datagram's place in the stream, so that a hole
//! can be filled from elsewhere. [`fec`] makes and uses parity datagrams; [`receive`] puts the stream together;
//! [`sdp`] is the announcement. Nothing here opens a socket or reads a clock.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod fec;
pub mod receive;
pub mod rtp;
pub mod sdp;

/// Bytes of a packet of MPEG-TS (ISO/IEC 13818-1, 2.4.3).
pub const PACKET: usize = 188;

/// The first byte of each.
pub const SYNC: u8 = 0x47;

/// Packets in a datagram: as many as fit any Ethernet.
pub const PACKETS: usize = 7;

/// Stream bytes of a whole datagram.
pub const BODY_BYTES: usize = PACKETS * PACKET;

/// Whether bytes are whole packets, one behind the other.
pub fn is_packets(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len().is_multiple_of(PACKET)
        && bytes.iter().step_by(PACKET).all(|first| *first == SYNC)
}
