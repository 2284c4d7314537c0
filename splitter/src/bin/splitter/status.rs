//! What is shown each second: a line for people, or one of JSON for programs.

use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::{Map, Value, json};
use splitter::rules::Splitter;

use crate::post::PostStats;
use crate::say;

/// The source's side, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceStats {
    /// Whether the stream comes now.
    pub(crate) up: bool,
    /// Streams that began.
    pub(crate) begun: u64,
    /// Streams that ended, and attempts that failed.
    pub(crate) ended: u64,
    /// Bytes at the ends of streams that were too few for a chunk.
    pub(crate) discarded_bytes: u64,
    /// Bytes of stream in chunks.
    pub(crate) bytes: u64,
}

/// Everything that is shown.
pub(crate) struct Snapshot<'a> {
    pub(crate) elapsed: Duration,
    pub(crate) listen: SocketAddrV4,
    pub(crate) team: &'a Splitter,
    pub(crate) source: &'a SourceStats,
    pub(crate) post: &'a PostStats,
}

/// Remembers what was shown last, for rates.
#[derive(Debug, Default)]
pub(crate) struct Status {
    json: bool,
    at: Duration,
    bytes_in: u64,
    bytes_out: u64,
}

impl Status {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            ..Self::default()
        }
    }

    pub(crate) fn show(&mut self, now: &Snapshot<'_>) {
        let seconds = now.elapsed.saturating_sub(self.at).as_secs_f64().max(1e-3);
        let kbps = |new: u64, old: u64| ((new - old) as f64 * 8.0 / 1000.0 / seconds).round() as u64;
        let kbps_in = kbps(now.source.bytes, self.bytes_in);
        let kbps_out = kbps(now.post.bytes_out, self.bytes_out);
        (self.at, self.bytes_in, self.bytes_out) = (now.elapsed, now.source.bytes, now.post.bytes_out);
        if self.json {
            // A reader that is gone is no reason to end.
            let _ = writeln!(io::stdout(), "{}", now.json(kbps_in, kbps_out));
        } else {
            say(&now.line(kbps_in, kbps_out));
        }
    }
}

impl Snapshot<'_> {
    fn line(&self, kbps_in: u64, kbps_out: u64) -> String {
        let stats = self.team.stats();
        format!(
            "source {} {kbps_in} kb/s | team {} (+{}) | out {kbps_out} kb/s | chunk {} | losses {} | expelled {} | \
             dropped {}",
            if self.source.up { "up" } else { "down" },
            self.team.peers().len(),
            self.team.arrivals(),
            stats.chunks,
            stats.losses,
            stats.expelled_losses + stats.expelled_closed,
            self.post.dropped + self.post.refused,
        )
    }

    fn json(&self, kbps_in: u64, kbps_out: u64) -> Value {
        let peers: Vec<String> = self.team.peers().iter().map(ToString::to_string).collect();
        let team = self
            .team
            .stats()
            .fields()
            .map(|(name, n)| (name.to_owned(), json!(n)));
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "listen": self.listen.to_string(),
            "peers": peers,
            "arrivals": self.team.arrivals(),
            "source": {
                "up": self.source.up,
                "kbps": kbps_in,
                "bytes": self.source.bytes,
                "begun": self.source.begun,
                "ended": self.source.ended,
                "discarded_bytes": self.source.discarded_bytes,
            },
            "udp": {
                "kbps": kbps_out,
                "bytes_out": self.post.bytes_out,
                "dropped": self.post.dropped,
                "refused": self.post.refused,
                "reports_other": self.post.reports_other,
            },
            "team": team.collect::<Map<_, _>>(),
        })
    }
}
