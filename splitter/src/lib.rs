//! P2PSP: the byte layouts of the wire, and the rules of splitter and peer, all without I/O.
//!
//! A *splitter* cuts one live stream into chunks and gives each to one *peer* of its *team*, in turn; that peer
//! relays it to all others. So the whole team hears the stream for one upload of it.
//!
//! [`wire`] has the layouts, [`rules::Splitter`] the splitter's side of the rules, [`peer::Peer`] the peer's. What
//! they do not do: open sockets, read clocks, know HTTP. The program `splitter` in `src/bin` does.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
mod counters;
mod dialect;
mod dice;
mod frame;
mod limit;
pub mod peer;
pub mod rules;
mod secret;
pub mod stats;
pub mod wire;

pub use config::{Config, ConfigError};
pub use dialect::Dialect;
pub use frame::{FRAME_MAX, Frame};
pub use stats::TeamStats;
