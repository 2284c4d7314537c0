//! One core's worth of relay, without I/O. The file to open first is `turn.rs`.
//!
//! A [`Station`] is a [`relay_seam::Machine`]: a driver tells it what happened and carries out what it wants. All the
//! stations of a relay share a [`House`]: the directory of channels, limits, mailboxes and counters.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod air;
mod cast;
mod channel;
mod config;
mod conns;
mod counters;
mod directory;
mod door;
mod feeds;
mod house;
mod icy;
mod intake;
mod join;
mod keep;
#[cfg(test)]
mod lines;
mod listeners;
mod orders;
mod settle;
mod sources;
mod team;
mod turn;

pub use cast::CastSpec;
pub use channel::{About, Channel, Framing, Header, Run, State};
pub use config::{Budget, Config, UpstreamSpec};
pub use counters::{CATALOGUE, Count, Counters, Entry};
pub use directory::{Directory, Full};
pub use door::is_control_path;
pub use house::{Admission, House};
pub use listeners::LISTENER_BYTES;
pub use orders::{Access, Event, Level, ListenerInfo, Order};
pub use team::{Answer, LeadError, Newcomer, TEAM_WORKER, TeamSpec};
pub use turn::Station;
