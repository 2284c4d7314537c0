//! How a peer is doing, in numbers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use relay_station::{Channel, House, Run};

use crate::lan::LanStatus;
use crate::team::{Shared, TeamStatus};

/// How a peer is doing: what `/status` answers.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Status {
    /// What it follows.
    pub url: String,
    /// Where players find it.
    pub player_url: String,
    /// `connecting` (nothing has come yet), `on-air`, `holding` (the source is away for a moment) or `ended`.
    pub state: String,
    /// Why not, when it is not on the air and a reason is known.
    pub reason: String,
    /// Who it hears: the id of the node upstream, or the address of a plain server.
    pub source: String,
    /// How: `link` (chunk-exact), `http` (a plain stream), `team` (from a splitter and mates), `lan` (multicast), or
    /// empty while nothing has come.
    pub via: String,
    /// Which uninterrupted life of the channel this is: Unix microseconds at its root's start of it.
    pub epoch: u64,
    /// Bytes of the channel held in memory.
    pub buffer_bytes: u64,
    /// How much of the channel's time that is, in seconds.
    pub buffer_seconds: f64,
    /// The channel's measured rate, in thousand bits per second.
    pub rate_kbps: u64,
    /// Players now.
    pub listeners: u64,
    /// Stream bytes received so far.
    pub bytes_in: u64,
    /// Stream bytes sent to players so far.
    pub bytes_out: u64,
    /// Times something was missing in the link.
    pub gaps: u64,
    /// Chunks that were missing.
    pub gap_chunks: u64,
    /// Times the node could not be reached or was lost.
    pub upstream_failures: u64,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// How it is doing in its team, if it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<TeamStatus>,
    /// How it is going in the LAN, where it is heard from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lan: Option<LanStatus>,
}

/// Where a [`Status`] is read from.
#[derive(Debug)]
pub(crate) struct Gauge {
    pub(crate) url: String,
    pub(crate) player_url: String,
    pub(crate) mount: String,
    pub(crate) began: Instant,
    /// Its team, if it is in one.
    pub(crate) team: Option<Arc<Shared>>,
    /// The last warning.
    pub(crate) trouble: Mutex<String>,
    /// How it is going in the LAN.
    pub(crate) lan: Option<Arc<Mutex<LanStatus>>>,
}

impl Gauge {
    pub(crate) fn read(&self, house: &House) -> Status {
        let counters = house.counters(0);
        let mut status = Status {
            url: self.url.clone(),
            player_url: self.player_url.clone(),
            state: "connecting".into(),
            listeners: counters.listeners.get(),
            bytes_in: counters.bytes_heard.get(),
            bytes_out: counters.bytes_told.get(),
            gaps: counters.link_gaps.get(),
            gap_chunks: counters.link_gap_chunks.get(),
            upstream_failures: counters.upstream_failures.get(),
            uptime_seconds: self.began.elapsed().as_secs(),
            ..Status::default()
        };
        if let Some(channel) = house.directory.get(&self.mount) {
            fill(&mut status, &channel);
        }
        if let Some(team) = self.team.as_ref().map(|shared| shared.read()) {
            if !status.via.is_empty() {
                status.via = "team".into();
            }
            status.team = Some(team);
        }
        if let Some(lan) = &self.lan {
            let lan = lan.lock().unwrap_or_else(PoisonError::into_inner).clone();
            say_lan(&mut status, lan);
        }
        if status.state != "on-air" {
            status.reason = self
                .trouble
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
        }
        status
    }
}

/// How it is going, where it comes from the LAN.
fn say_lan(status: &mut Status, lan: LanStatus) {
    if !status.via.is_empty() {
        status.via = if lan.silent { "link" } else { "lan" }.into();
    }
    if lan.silent && !lan.linked && status.state == "on-air" {
        status.state = "holding".into();
    }
    (status.gaps, status.gap_chunks) = (lan.lost, lan.lost);
    status.lan = Some(lan);
}

fn fill(status: &mut Status, channel: &Channel) {
    let about = channel.about();
    let Some(run) = channel.run() else { return };
    status.state = about.state.name().into();
    status.source = about.from;
    status.via = if run.path.is_empty() { "http" } else { "link" }.into();
    status.epoch = run.epoch;
    status.rate_kbps = run.bitrate.load(Ordering::Relaxed) / 1000;
    status.buffer_bytes = run.raw.head().saturating_sub(run.raw.floor());
    status.buffer_seconds = held_us(&run) as f64 / 1e6;
}

/// From the capture of the oldest whole chunk to that of the newest, in microseconds.
fn held_us(run: &Run) -> u64 {
    let chunk = u64::from(run.chunk_size).max(1);
    let at = |number: u64| run.index.get(number).map(|info| info.capture_us);
    let oldest = at(run.raw.floor().div_ceil(chunk));
    let newest = (run.raw.head() / chunk).checked_sub(1).and_then(at);
    newest
        .zip(oldest)
        .map_or(0, |(newest, oldest)| newest.saturating_sub(oldest))
}
