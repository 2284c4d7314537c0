//! The host under the house: what to check before an audience arrives, and what it costs to leave it.
//!
//! Every check is a pure reading of a [`Host`]: the live machine, or a saved copy of its files. It changes nothing.
//! [`check`] gives one [`Row`] per check; [`report`] prints them. [`plan()`] takes from the same rows what can be set,
//! [`apply()`] sets it with every old value in a [`journal`] first, and [`revert()`] puts them back. Nothing here
//! depends on the relay, so that the tool can be copied alone to a machine that has yet to become a node.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod apply;
pub mod checks;
pub mod host;
pub mod journal;
pub mod machine;
pub mod place;
pub mod plan;
pub mod report;
pub mod revert;
pub mod said;

pub use apply::{Outcome, State, apply, rehearse};
pub use checks::{Check, Consent, Demand, check, find, nearest};
pub use host::{Host, Probe, RootedHost};
pub use machine::Machine;
pub use place::Place;
pub use plan::{Choice, Plan, plan};
pub use report::{Row, Status};
pub use revert::revert;
