//! Crowds and clocks: sources, listeners, floors, comparisons, reports.
//!
//! A black box: it speaks to servers over sockets and knows nothing of how a relay is built, but for `sink_driver.rs`,
//! which measures the relay's own driver beside the bare calls. What it writes into a stream, and reads back, is in
//! [`stamp`]; the transport stream around it is in [`ts`]; [`cli`] lists the commands.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cli;
pub mod error;
pub mod stamp;
pub mod ts;
mod workers;

mod capacity;
mod churn;
mod compare;
mod crowd;
mod crowd_report;
mod crowds;
mod events;
mod fanout;
mod floor_server;
mod http;
mod join;
mod join_scan;
mod latency;
mod launch;
mod measure;
mod outlast;
mod pace;
mod procfs;
mod progress;
mod report;
mod report_findings;
mod report_page;
mod report_plan;
mod rtmp;
mod scale;
mod servers;
mod sink;
mod sink_driver;
mod sink_tcp;
mod soak;
mod source;
mod stop;
mod svg;
mod table;
