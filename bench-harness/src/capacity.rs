//! `capacity`: how many viewers at R kb/s this host carries, and what stops it first.
//!
//! A few crowds of growing size are measured; from what a viewer costs (the slope over the crowds, or a head
//! of the largest, whichever is dearer) follows where CPU, memory and open files run out. The smallest of
//! these is the answer. What is not measured here is said: the network card's rate, and the viewers' own
//! ports.

use std::fmt;
use std::fs::read_to_string;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::compare::{self, Comparison};
use crate::error::Error;
use crate::measure::{Load, Numbers};
use crate::procfs::{Machine, file_limit, memory_available_kib, tcp_memory_kib};
use crate::soak::slope;
use crate::stop::Stop;

/// Part of a processor that a server may use before its latency becomes that of a queue.
const CPU_SHARE: f64 = 0.85;
/// Part of the memory available now that viewers may take.
const MEMORY_SHARE: f64 = 0.8;
/// An answer so many times beyond the largest crowd is a guess.
const FAR: u64 = 2;
/// A step that is not carried is tried again: what else this machine does must not be taken for a limit.
const ATTEMPTS: u32 = 2;

/// What to ask.
pub(crate) struct Plan {
    pub(crate) base: compare::Plan,
    pub(crate) steps: Vec<u32>,
    /// Processors that the server may use.
    pub(crate) cores: usize,
    /// Open files the server may have; where not given, what its process may.
    pub(crate) files: Option<u64>,
}

/// One crowd.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    pub(crate) listeners: usize,
    pub(crate) carried: bool,
    pub(crate) error: Option<String>,
    pub(crate) numbers: Option<Numbers>,
}

/// One thing that runs out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) viewers: u64,
    pub(crate) because: String,
    /// What an operator can do about it.
    pub(crate) remedy: String,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) kbps: u32,
    pub(crate) steps: Vec<Step>,
    /// The nearest first.
    pub(crate) limits: Vec<Limit>,
    /// Viewers that a single client address can have here: a proxy, or this bench.
    pub(crate) ports_per_client_address: Option<u64>,
    pub(crate) caveats: Vec<String>,
}

/// Measures the steps, stops at the first that is not carried, and draws the lines.
pub(crate) fn run(plan: &Plan, bar: &ProgressBar, stop: &Stop) -> Result<Report, Error> {
    let memory_kib = memory_available_kib();
    let mut steps: Vec<Step> = Vec::new();
    let mut caveats = Vec::new();
    for listeners in &plan.steps {
        let cell = compare::Plan {
            load: Load {
                listeners: *listeners as usize,
                ..plan.base.load
            },
            targets: plan.base.targets.clone(),
            relay: plan.base.relay.clone(),
            ..plan.base
        };
        let mut taken = None;
        for _ in 0..ATTEMPTS {
            let result = compare::run(&cell, bar, stop)?;
            let step = step(&cell.load, &result);
            caveats = result.caveats;
            let carried = step.carried;
            taken = Some(step);
            if carried {
                break;
            }
        }
        steps.extend(taken);
        if !steps.last().is_some_and(|step| step.carried) {
            break;
        }
    }
    let mut limits = limits(plan, &steps, memory_kib);
    limits.sort_by_key(|limit| limit.viewers);
    Ok(Report {
        kbps: plan.base.load.kbps,
        steps,
        limits,
        ports_per_client_address: client_ports(),
        caveats,
    })
}

fn step(load: &Load, result: &Comparison) -> Step {
    let row = result.medians.first();
    let numbers = row.and_then(|row| row.numbers.clone());
    let good = |n: &Numbers| load.is_carried(n.delivered_ratio) && n.not_served == 0.0 && n.closed == 0.0;
    Step {
        listeners: load.listeners,
        carried: numbers.as_ref().is_some_and(good),
        error: row.and_then(|row| row.error.clone()),
        numbers,
    }
}

fn limits(plan: &Plan, steps: &[Step], memory_kib: Option<u64>) -> Vec<Limit> {
    let mut limits = Vec::new();
    let machine_cores = Machine::look().cores;
    let measured = |value: fn(&Numbers) -> f64| {
        let carried = steps.iter().filter(|step| step.carried);
        let points: Vec<(f64, f64)> = carried
            .filter_map(|step| Some((step.listeners as f64, value(step.numbers.as_ref()?))))
            .collect();
        line(&points)
    };
    let mut add = |what, (base, each): (f64, f64), most: f64, because: String, remedy: String| {
        if each > 0.0 && most > 0.0 {
            let viewers = ((most - base) / each).max(0.0) as u64;
            limits.push(Limit {
                what,
                viewers,
                because,
                remedy,
            });
        }
    };
    let last = steps.iter().rev().find(|step| step.carried);
    let share = |value: fn(&Numbers) -> f64| {
        let each = last.and_then(|step| Some(value(step.numbers.as_ref()?) / step.listeners.max(1) as f64));
        each.unwrap_or(0.0)
    };
    // Not the slope alone: a crowd costs more per head as it outgrows the caches, and a base that is noise
    // would be taken off its price. What a head of the largest crowd cost is the least that is believed.
    let cpu = (0.0, measured(whole_busy).1.max(share(whole_busy)));
    let most = CPU_SHARE * plan.cores as f64;
    add(
        "CPU",
        cpu,
        most,
        format!(
            "{:.1} us of CPU per viewer and second; {most:.2} processors to spend",
            cpu.1 * 1e6
        ),
        match machine_cores.saturating_sub(plan.cores) {
            0 => "batch longer (--interval-ms), or put repeaters on other machines".into(),
            _ => format!(
                "let it have all {machine_cores} processors of this machine (--workers), or batch longer \
                 (--interval-ms)"
            ),
        },
    );
    let user = measured(|n| n.own_kib)
        .1
        .max(figure(last, |n| n.own_kib_per_listener));
    // The kernel frees late what an earlier crowd held, so a later one can seem to hold nothing: the most of
    // all counts.
    let carried = steps.iter().filter(|step| step.carried);
    let kernel = carried
        .map(|step| figure(Some(step), |n| n.socket_kib_per_listener))
        .fold(0.0, f64::max);
    if let Some(available) = memory_kib {
        let (each, most) = (user + kernel, available as f64 * MEMORY_SHARE);
        add(
            "memory",
            (0.0, each),
            most,
            format!(
                "{each:.1} KiB per viewer ({:.1} server, {:.1} kernel, both ends of loopback); {:.0} MiB to spend",
                user,
                kernel,
                most / 1024.0
            ),
            "more memory, or less of it for the send buffer of each viewer".into(),
        );
    }
    if let Some(most) = tcp_memory_max_kib() {
        let spent = tcp_memory_kib() as f64;
        add(
            "TCP memory",
            (spent, kernel),
            most as f64,
            format!(
                "net.ipv4.tcp_mem allows {:.0} MiB to all sockets together",
                most as f64 / 1024.0
            ),
            "raise the last number of net.ipv4.tcp_mem (`tuning check`)".into(),
        );
    }
    let files = measured(|n| n.files);
    if let Some(most) = plan.files {
        // A server that keeps viewers out of its own table of files is still bound by the limit at accept.
        let each = files.1.max(1.0);
        let base = files.0.max(0.0);
        add(
            "open files",
            (base, each),
            most as f64,
            format!("RLIMIT_NOFILE {most}"),
            "ulimit -Hn, or LimitNOFILE= of the service (`tuning check`)".into(),
        );
    }
    if let Some((open, most)) = system_files() {
        add(
            "system files",
            (open as f64, 1.0),
            most as f64,
            format!("fs.file-max {most}, of which {open} are open"),
            "raise fs.file-max".into(),
        );
    }
    if let Some(mbps) = fastest_link() {
        let each = f64::from(plan.base.load.kbps) / 1000.0;
        add(
            "network card",
            (0.0, each),
            0.95 * mbps as f64,
            format!("its link runs at {mbps} Mb/s"),
            "a faster link, several of them, or repeaters on other machines".into(),
        );
    }
    if let Some(broken) = steps.iter().find(|step| !step.carried) {
        let why = broken
            .error
            .clone()
            .unwrap_or_else(|| "not everybody got all".into());
        let viewers = broken.listeners.saturating_sub(1) as u64;
        let what = "measured step";
        limits.push(Limit {
            what,
            viewers,
            because: format!("{} viewers were not carried: {why}", broken.listeners),
            remedy: "see what was full in that step: the crowd's processor, or the server's".into(),
        });
    }
    limits
}

/// Processors that the server and the kernel's packet threads used.
fn whole_busy(n: &Numbers) -> f64 {
    n.server_busy * (1.0 + n.softirq_seconds / n.cpu_seconds.max(1e-9))
}

fn figure(step: Option<&Step>, value: fn(&Numbers) -> f64) -> f64 {
    step.and_then(|step| step.numbers.as_ref()).map_or(0.0, value)
}

/// A number beyond all machines is none.
fn count(viewers: u64) -> String {
    match viewers {
        0..=999_999_999 => viewers.to_string(),
        _ => "no end of".into(),
    }
}

/// Base and slope. One point is a line through the origin.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    match points {
        [] => (0.0, 0.0),
        [(x, y)] => (0.0, y / x.max(1.0)),
        _ => {
            let each = slope(points.iter().copied());
            let mean =
                |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / points.len() as f64;
            (mean(|point| point.1) - each * mean(|point| point.0), each)
        }
    }
}

/// Memory that all TCP sockets of the machine may have, in KiB (pages of 4 KiB).
fn tcp_memory_max_kib() -> Option<u64> {
    let text = read_to_string("/proc/sys/net/ipv4/tcp_mem").ok()?;
    let pages: u64 = text.split_whitespace().nth(2)?.parse().ok()?;
    pages.checked_mul(4)
}

/// Open files of the machine, and the most there may be.
fn system_files() -> Option<(u64, u64)> {
    let text = read_to_string("/proc/sys/fs/file-nr").ok()?;
    let mut words = text.split_whitespace().map(str::parse);
    let (open, _, most) = (words.next()?.ok()?, words.next()?, words.next()?.ok()?);
    Some((open, most))
}

/// Mb/s of the fastest card that says so.
fn fastest_link() -> Option<u64> {
    let cards = std::fs::read_dir("/sys/class/net").ok()?.flatten();
    let speed = |path: std::path::PathBuf| {
        read_to_string(path.join("speed"))
            .ok()?
            .trim()
            .parse::<i64>()
            .ok()
    };
    let speeds = cards.filter_map(|card| speed(card.path()));
    speeds.filter(|mbps| *mbps > 0).map(|mbps| mbps as u64).max()
}

/// Ports that one client address has for connections to one server: a bound on those behind a proxy, not on the server.
fn client_ports() -> Option<u64> {
    let text = read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = text.split_whitespace().filter_map(|end| end.parse::<u64>().ok());
    let (first, last) = (ends.next()?, ends.next()?);
    Some((last + 1).saturating_sub(first))
}

/// Open files that a server under this process, or an already running one, may have.
pub(crate) fn files_of(pid: Option<u32>) -> Option<u64> {
    file_limit(pid.unwrap_or_else(std::process::id))
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let Some(n) = &step.numbers else {
                let why = step.error.as_deref().unwrap_or("no numbers");
                writeln!(out, "{:>7} viewers: {why}", step.listeners)?;
                continue;
            };
            writeln!(
                out,
                "{:>7} viewers: {:.2} Gb/s, CPU {:.1}%, {:.0}% of due, p99 {:.1} ms, {:.1} KiB server + {:.0} \
                 KiB kernel each",
                step.listeners,
                n.gbit_per_s,
                n.server_busy * 100.0,
                n.delivered_ratio * 100.0,
                n.latency_p99_ms,
                n.own_kib_per_listener,
                n.socket_kib_per_listener
            )?;
        }
        for Limit {
            what,
            viewers,
            because,
            ..
        } in &self.limits
        {
            writeln!(
                out,
                "limit   {what:<13} {:>9} viewers: {because}",
                count(*viewers)
            )?;
        }
        if let Some(ports) = self.ports_per_client_address {
            writeln!(
                out,
                "note    {ports} viewers at most from one client address (a proxy): wider \
                 net.ipv4.ip_local_port_range, or more addresses"
            )?;
        }
        if !self.limits.iter().any(|limit| limit.what == "network card") {
            writeln!(
                out,
                "note    no network card says how fast its link is: its rate is a limit of its own"
            )?;
        }
        let carried = self
            .steps
            .iter()
            .filter(|step| step.carried)
            .map(|step| step.listeners);
        let (most, first) = (carried.max().unwrap_or(0) as u64, self.limits.first());
        if first.is_some_and(|limit| limit.viewers > FAR * most) {
            writeln!(
                out,
                "note    the answer is far beyond the {most} viewers that were measured: larger --steps make it surer"
            )?;
        }
        let kbps = self.kbps;
        match self.limits.first() {
            Some(Limit {
                what,
                viewers,
                remedy,
                ..
            }) => {
                let gbps = *viewers as f64 * f64::from(kbps) * 1e-6;
                write!(
                    out,
                    "answer  about {viewers} viewers at {kbps} kb/s ({gbps:.2} Gb/s); what stops it first: {what}\n\
                     remedy  {remedy}"
                )
            }
            None => write!(out, "answer  none: nothing could be measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_base_and_a_slope() {
        assert_eq!(line(&[(100.0, 30.0), (200.0, 50.0)]), (10.0, 0.2));
        assert_eq!(line(&[(100.0, 30.0)]), (0.0, 0.3));
        assert_eq!(line(&[]), (0.0, 0.0));
    }
}
