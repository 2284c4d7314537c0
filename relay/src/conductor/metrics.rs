//! `/metrics`: Prometheus' text format, version 0.0.4.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use relay_station::CATALOGUE;

use super::answer::typed;
use super::desk::Desk;
use super::views::{ChannelView, all};

/// Channels with lines of their own; the others are summed up under [`OTHERS`], so that a stranger who publishes under
/// many names cannot flood a time series database.
const CHANNELS_MAX: usize = 200;
/// The mount label of those. No mount is called so: mounts begin with `/`.
const OTHERS: &str = "…other";

/// A text in the making.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    /// What a metric is. Ends of lines in a sentence would end it.
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', " ");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let _ = write!(
                self.0,
                "{}{label}=\"{}\"",
                if n == 0 { '{' } else { ',' },
                escape_label(text)
            );
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A metric of one value.
    fn one(&mut self, name: &str, help: &str, kind: &str, value: impl std::fmt::Display) {
        self.head(name, help, kind);
        self.value(name, &[], value);
    }
}

/// Backslash, quote and line end, as the format says; other control characters, which it allows, would still play
/// tricks on a terminal.
fn escape_label(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

pub(super) async fn metrics(State(desk): State<Arc<Desk>>) -> Response {
    let mut text = Text::default();
    about(&mut text, &desk);
    workers(&mut text, &desk);
    drivers(&mut text, &desk);
    channels(&mut text, &all(&desk.house().directory.all()));
    for (name, help, value) in desk.tallies.each() {
        text.one(&format!("totality_control_{name}"), help, "counter", value);
    }
    process(&mut text, &desk);
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.0)
}

fn about(text: &mut Text, desk: &Desk) {
    let (house, settings) = (desk.house(), &desk.settings);
    let config = &house.config;
    let labels = [
        ("version", settings.version),
        ("backend", settings.backend.as_str()),
        ("node", config.node_id.as_str()),
    ];
    text.head("totality_build_info", "What runs here; always 1.", "gauge");
    text.value("totality_build_info", &labels, 1);
    let limits = [
        (
            "uptime_seconds",
            "Seconds since the relay was started.",
            desk.uptime_s(),
        ),
        (
            "draining",
            "Whether no new listener is taken (1) or all are (0).",
            u64::from(house.is_draining()),
        ),
        (
            "workers",
            "Workers that share the channels.",
            config.workers as u64,
        ),
        (
            "channels",
            "Channels that are known, on the air or not.",
            house.directory.all().len() as u64,
        ),
        (
            "channels_limit",
            "Channels that there may be.",
            config.channels_max as u64,
        ),
        (
            "connections_limit",
            "Connections that there may be.",
            config.connections_max as u64,
        ),
        (
            "listeners_limit",
            "Listeners that there may be.",
            config.listener.max as u64,
        ),
        (
            "memory_limit_bytes",
            "What the limits on memory add up to.",
            config.budget().total(),
        ),
    ];
    for (name, help, value) in limits {
        text.one(&format!("totality_{name}"), help, "gauge", value);
    }
}

fn workers(text: &mut Text, desk: &Desk) {
    let house = desk.house();
    let values: Vec<Vec<u64>> = (0..house.config.workers)
        .map(|worker| house.counters(worker).values())
        .collect();
    for (n, entry) in CATALOGUE.iter().enumerate() {
        let name = format!("totality_{}", entry.name);
        text.head(&name, entry.help, if entry.gauge { "gauge" } else { "counter" });
        for (worker, values) in values.iter().enumerate() {
            text.value(&name, &[("worker", &worker.to_string())], values[n]);
        }
    }
}

fn drivers(text: &mut Text, desk: &Desk) {
    let stats: Vec<_> = desk.stage().drivers.iter().map(|driver| driver.read()).collect();
    let Some(first) = stats.first() else { return };
    for (n, (name, help, _)) in first.each().enumerate() {
        let name = format!("totality_driver_{name}");
        text.head(&name, help, "counter");
        for (worker, stats) in stats.iter().enumerate() {
            let value = stats.each().nth(n).map_or(0, |(_, _, value)| value);
            text.value(&name, &[("worker", &worker.to_string())], value);
        }
    }
}

/// A number of a channel, and how it is told.
type Column = (&'static str, &'static str, &'static str, fn(&ChannelView) -> u64);

const COLUMNS: [Column; 6] = [
    (
        "totality_channel_on_air",
        "Whether the channel is fed now (1) or not (0).",
        "gauge",
        |c| u64::from(c.state == "on-air"),
    ),
    (
        "totality_channel_listeners",
        "Listeners of the channel.",
        "gauge",
        |c| c.listeners as u64,
    ),
    (
        "totality_channel_listeners_peak",
        "Most listeners of the channel at once.",
        "gauge",
        |c| c.listeners_peak as u64,
    ),
    (
        "totality_channel_bits_per_second",
        "The channel's bit rate, over the last seconds.",
        "gauge",
        |c| c.bitrate,
    ),
    (
        "totality_channel_bytes_in",
        "Stream bytes of the channel received.",
        "counter",
        |c| c.bytes_in,
    ),
    (
        "totality_channel_bytes_out",
        "Stream bytes of the channel sent.",
        "counter",
        |c| c.bytes_out,
    ),
];

fn channels(text: &mut Text, views: &[ChannelView]) {
    let (own, others) = views.split_at(views.len().min(CHANNELS_MAX));
    for (name, help, kind, value) in COLUMNS {
        text.head(name, help, kind);
        for view in own {
            text.value(name, &[("mount", &view.mount)], value(view));
        }
        if !others.is_empty() {
            text.value(name, &[("mount", OTHERS)], others.iter().map(value).sum::<u64>());
        }
    }
}

/// What the kernel says of the process, under the names that Prometheus' own libraries use.
fn process(text: &mut Text, desk: &Desk) {
    let started = desk.started_s();
    text.one(
        "process_start_time_seconds",
        "Unix time at which the process began.",
        "gauge",
        started,
    );
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        text.one(
            "process_open_fds",
            "Open file descriptors.",
            "gauge",
            fds.count().saturating_sub(1),
        );
    }
    if let Ok((soft, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        text.one(
            "process_max_fds",
            "File descriptors that there may be.",
            "gauge",
            soft,
        );
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let field = |name: &str| -> Option<u64> {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        };
        if let Some(kib) = field("VmRSS:") {
            text.one(
                "process_resident_memory_bytes",
                "Memory in use.",
                "gauge",
                kib * 1024,
            );
        }
        if let Some(threads) = field("Threads:") {
            text.one("process_threads", "Threads.", "gauge", threads);
        }
    }
    if let Some(seconds) = cpu_seconds() {
        text.one(
            "process_cpu_seconds_total",
            "User and system time spent.",
            "counter",
            seconds,
        );
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_does_not_end_early() {
        let mut text = Text::default();
        text.value("m", &[("a", "x\"} 1\n\\\x1b"), ("b", "☀")], 7);
        assert_eq!(text.0, "m{a=\"x\\\"} 1\\n\\\\\u{fffd}\",b=\"☀\"} 7\n");
    }
}
