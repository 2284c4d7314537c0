//! The small world: real binaries, real kernel, scenarios.
//!
//! A [`World`] has hosts, each in a network namespace of its own (or all on loopback, where namespaces cannot be had).
//! On them run a [`Relay`], sources, players and crowds; the verbs here start them, disturb them and ask what became
//! of them. The oracles that hold in every scenario are checked where the thing they speak of lives: the bytes in
//! [`Checker`], the gaps in [`Listener`], descriptors, memory and the log in [`Relay`].
//!
//! Nothing here is built: binaries are those of `TOTALITY_BIN_DIR`, else of `target/release`, else of `target/debug`.

// This is test support: what cannot be had fails the test that wanted it.
#![allow(clippy::unwrap_used)]

mod bins;
mod cage;
mod crowd;
mod http;
mod lan;
mod listener;
mod numbered;
mod process;
mod relay;
mod source;
mod tools;
mod weather;
mod witness;
mod world;

pub use bins::{bin, bin_dir};
pub use cage::Cage;
pub use crowd::{Crowd, Drinkers};
pub use http::{Answer, Talk, basic, get};
pub use lan::Ear;
pub use listener::Listener;
pub use numbered::{Checker, Form, Jump};
pub use process::{Process, Signal};
pub use relay::{ADMIN_PASSWORD, Backend, NODE_TOKEN, Opts, PeerLite, Relay, SOURCE_PASSWORD, eventually};
pub use source::{Framing, Source};
pub use tools::{decodes, ffmpeg, have, icecast, is_root, lacks, note_missing, play, publish, tool, vlc};
pub use weather::{Sky, Weather};
pub use witness::Witness;
pub use world::{Host, World, pass};
