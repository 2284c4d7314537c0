//! Crowds and clocks: sources, listeners, floors, comparisons, reports.
//!
//! A black box: it speaks to servers over sockets and knows nothing of how a relay is built. What it writes into a
//! stream, and reads back, is in [`stamp`]; the transport stream around it is in [`ts`]; [`cli`] lists the commands.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod stamp;
pub mod ts;
pub mod error;
mod stop;
