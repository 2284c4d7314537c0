//! The smallest peer: follows one channel of a node and hands it to any number of local players over HTTP.
//!
//! A peer is a node with one worker, one channel and no source: the same station and the same driver as a relay, on
//! mio, so that it needs neither root nor io_uring. `/` plays, `/status` says how it goes, `/playlist.m3u` opens in
//! any player. The file to open first is `peer.rs`.
//!
//! Or it is a member of a P2PSP team (`team.rs`): then the chunks come from the splitter and from team mates.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ask;
mod desk;
mod lan;
mod options;
mod peer;
mod status;
mod team;

pub use ask::announced;
pub use lan::{Lan, LanStatus};
pub use options::{Options, TeamOptions, UrlError};
pub use peer::Peer;
pub use status::Status;
pub use team::TeamStatus;

/// What a peer calls itself towards nodes and players.
pub const SOFTWARE: &str = concat!("totality-peer-lite/", env!("CARGO_PKG_VERSION"));
