//! The rules of one HTTP listener: how it is greeted, how far it may lag, and when it is let go.
//!
//! No bytes pass through here: a listener is a cursor into a ring that the station holds, and these rules say what
//! the cursor may do.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod greeting;
mod ladder;

pub use config::Config;
pub use greeting::{Greeting, busy, head, refusal};
pub use ladder::{Ladder, Lag, Verdict};
