//! Leads a P2PSP team: the byte layouts of the wire and the splitter's rules, both without I/O.
//!
//! A *splitter* cuts one live stream into chunks and gives each to one *peer* of its *team*, in turn; that peer
//! relays it to all others. So the whole team hears the stream for one upload of it.
//!
//! [`wire::b`] has the layouts of generation B (the C++ product of 2016 to 2018); [`rules::Dbs`] is the set of rules
//! called DBS (data broadcasting). What the rules do not do: open sockets, read clocks, know HTTP. The program
//! `splitter` in `src/bin` does.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod rules;
pub mod stats;
pub mod wire;

pub use config::{Config, ConfigError};
pub use stats::TeamStats;
