//! The host under the house: what to check before an audience arrives, and what it costs to leave it.
//!
//! Every check is a pure reading of a [`Host`]: the live machine, or a saved copy of its files. It changes nothing.
//! [`check`] gives one [`Row`] per check; [`report`] prints them. Nothing here depends on the relay, so that the tool
//! can be copied alone to a machine that has yet to become a node.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod checks;
pub mod host;
pub mod report;

pub use checks::{Check, Demand, check, find, nearest};
pub use host::{Host, Probe, RootedHost};
pub use report::{Row, Status};
