//! The log on standard error: for people, or one JSON object a line.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::Log;

/// Begins to log; the first call counts.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false);
    // A second start (in tests) changes nothing.
    let _ = match log.json {
        true => builder.json().flatten_event(true).try_init(),
        false => builder
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .try_init(),
    };
}
