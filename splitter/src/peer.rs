//! The peer's side of P2PSP's sets of rules: how a member joins, relays, plays, complains and leaves.
//!
//! [`Peer`] is told what happened ([`Input`]) and asked what it wants ([`Action`]). It keeps the newest chunks itself
//! (one copy, from the datagram into its buffer): [`Peer::data`] has them, for the player and for what is relayed.

mod action;
mod burst;
mod config;
mod dbs;
mod flood;
mod invitation;
mod mates;
mod nts;
mod playout;
mod secured;
mod stats;

pub use action::{Action, Ended, Input};
pub use config::PeerConfig;
pub use dbs::Peer;
pub use flood::Subnet;
pub use secured::{SecuredPeer, SecuredPeerConfig, SecuredPeerStats};
pub use stats::PeerStats;
