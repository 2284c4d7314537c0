//! The smallest peer: follows one channel of a node and hands it to any number of local players over HTTP.
//!
//! A peer is a node with one worker, one channel and no source: the same station and the same driver as a relay, on
//! mio, so that it needs neither root nor io_uring. `/` plays, `/status` says how it goes, `/playlist.m3u` opens in
//! any player. The file to open first is `peer.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ask;
mod desk;
mod options;
mod peer;
mod status;

pub use options::{Options, UrlError};
pub use peer::Peer;
pub use status::Status;

/// What a peer calls itself towards nodes and players.
pub const SOFTWARE: &str = concat!("totality-peer-lite/", env!("CARGO_PKG_VERSION"));
