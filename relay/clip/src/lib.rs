//! A file as a live stream: paced by its own clock, looped with continuous time stamps; and the demo's picture.
//!
//! [`Player`] is fed a file in pieces and says which bytes may go when. It knows the clock of each container
//! (PCR, granule position, cluster time, …) and does not decode anything. Played in a loop, every round continues
//! the one before: time stamps, continuity counters and sequence numbers are rewritten so that a decoder sees one
//! endless stream. It reads no file and no clock; the caller does, see [`Player::poll`].
//!
//! [`ECLIPSE_TS`] and [`ECLIPSE_WEBM`] are the built-in moving picture with sound of `relay demo`;
//! `assets/make.sh` makes them.
//!
//! | kind | clock | the next round of a loop |
//! |---|---|---|
//! | MPEG-TS | PCR, else DTS/PTS | PCR, OPCR, PTS, DTS shifted; continuity counters go on |
//! | FLV | tag time stamps | time stamps shifted; headers only when they change |
//! | WebM | cluster and block times | cluster times shifted; header once; always a live Segment of unknown size |
//! | Ogg, one stream | granule positions | a new link of the chain (RFC 3533, section 4), with a new serial number |
//! | Ogg, several | granule positions | granule positions and page numbers go on; headers once |
//! | fragmented MP4 | `tfdt`, `trun` | `tfdt` shifted, `mfhd` counted on; `ftyp` and `moov` once |
//! | MP3, ADTS | frame durations | frames again; ID3 tags and the Xing/Info frame left out |
//! | anything | a given rate | the bytes again |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bytes;
mod clock;
mod error;
mod flv;
mod format;
mod frames;
mod mp4;
mod ogg;
mod out;
mod pace;
mod player;
mod rate;
mod span;
mod ts;
mod webm;

pub use error::Error;
pub use pace::{CATCH_UP_MAX, LEAD};
pub use player::{Config, Player, Poll, Stats, UNIT_MAX, UNTIMED_MAX};
pub use relay_media::Kind;

/// The built-in picture as MPEG-TS: H.264 480×270 at 25/s, key frame every 0.96 s, AAC mono at 48 kHz; 9.6 s.
pub const ECLIPSE_TS: &[u8] = include_bytes!("../assets/eclipse.ts");

/// The built-in picture as WebM: VP9 480×270 at 25/s, key frame every 0.96 s, Opus mono; 9.6 s.
pub const ECLIPSE_WEBM: &[u8] = include_bytes!("../assets/eclipse.webm");
