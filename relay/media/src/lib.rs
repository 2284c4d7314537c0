//! Container scanners: header and join points for TS, FLV, Ogg, WebM, fMP4, MP3, ADTS.
//!
//! A [`Scanner`] watches the bytes of one live stream pass, in slices of any size, and says two things about them
//! as [`Mark`]s: which bytes a newcomer needs first (the **header**), and at which positions it may start (the
//! **join points**). What a newcomer is sent, header and then the stream from a join point, decodes from its first
//! byte.
//!
//! The stream itself is not kept here: it lies in the channel's ring, and a mark names a position in it, counted
//! from the first byte fed. A scanner keeps its parse state, the header, and at most one unit (a page, a packet, a
//! box) that the slicing has cut; [`HEADER_MAX`] bounds each of them.
//!
//! Marks do not depend on how the stream was sliced. Everything that is fed is taken for hostile: a scanner does
//! not fail, it counts ([`Stats`]), passes over what it does not understand, and finds the next unit again.
//!
//! ```
//! use relay_media::{Kind, Mark, Scanner};
//!
//! let frame = |payload: u8| [&[0xFF, 0xFB, 0x90, 0x64][..], &[payload; 413]].concat();
//! let stream: Vec<u8> = (0..10).flat_map(frame).collect();
//! assert_eq!(Kind::sniff(&stream), Some(Kind::Mp3));
//!
//! let (mut scanner, mut marks) = (Scanner::new(Kind::Mp3), Vec::new());
//! stream.chunks(100).for_each(|slice| scanner.feed(slice, &mut marks));
//! // A frame every 417 bytes, but not more than one join point in 1,024 bytes.
//! assert_eq!(marks, [0, 1251, 2502].map(|at| Mark::Join { at }));
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod crc;
mod flv;
mod frames;
mod kind;
mod mark;
mod mp4;
mod ogg;
mod scanner;
mod step;
mod ts;
mod webm;

pub use kind::{Kind, SNIFF_BYTES};
pub use mark::{Mark, Stats};
pub use scanner::Scanner;
pub use ts::{PACKET_REACH, PacketCut, packet_cut};

/// The largest header, in bytes. A larger one is a stream error: counted, and the stream passes on without header
/// and joins until the next header.
pub const HEADER_MAX: usize = 1 << 20;

/// How far, in bytes, a join point may lie behind the byte that proved it. A ring must hold more than this.
pub const LOOKBACK_MAX: u64 = 128 << 10;

/// Join points closer together than this, in bytes, are thinned out: no listener gains by them, and a stream of tiny
/// frames must not fill an index.
pub const JOIN_SPACING: u64 = 1 << 10;
