//! Source sessions and the rule that says who is on the air.
//!
//! A stream comes in by [`push`] (an encoder's `PUT` or `SOURCE`) or by [`pull`] (we ask a server for its live
//! URL); each is one session, told the time and the bytes, and it yields payload and titles. [`onair`] decides, for
//! one mount, what its listeners hear when a source comes, blinks and goes; [`backoff`] when to try a lost one again.
//! Sans-IO: no clock, socket, thread or file in here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backoff;
mod body;
pub mod config;
pub mod onair;
pub mod properties;
pub mod pull;
pub mod push;
mod rate;
pub mod stats;
pub mod throttle;

pub use backoff::Backoff;
pub use config::{Config, Secret, SecretError};
pub use onair::{OnAir, State, Transition};
pub use properties::Properties;
pub use pull::{Pull, PullEvent};
pub use push::{Admitted, Answer, Progress, Push};
pub use rate::{Allowance, Verdict};
pub use stats::SourceStats;
pub use throttle::AuthThrottle;
