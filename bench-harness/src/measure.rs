//! One server, one source, one crowd: a row of the comparison.
//!
//! Server on one processor; source, crowd and this process on the other. The crowd says when its window opens and
//! closes, and the server's CPU time is read at these two moments.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::crowd::Report;
use crate::error::Error;
use crate::events::Event;
use crate::launch::{Guard, Launch};
use crate::procfs;
use crate::servers::{Kind, PASSWORD_ENV, Server, Setup, USER, explain};
use crate::stop::Stop;

/// The source runs alone for this long, so that the server has something to give.
const HEAD_START: Duration = Duration::from_millis(500);
/// What a child may need beyond the time it was asked to take.
const MARGIN: Duration = Duration::from_secs(30);
/// Time between two looks at the kernel's memory; no multiple of a usual batching interval, so that all its phases are seen.
const LOOK: Duration = Duration::from_millis(23);

/// What is thrown at a server.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Load {
    pub(crate) listeners: usize,
    pub(crate) kbps: u32,
    pub(crate) seconds: u64,
    pub(crate) interval_ms: u64,
    pub(crate) warm_up_seconds: u64,
    pub(crate) ramp: u32,
    pub(crate) sample: usize,
    /// So many of the listeners never read.
    pub(crate) stall: usize,
    pub(crate) cpu_server: Option<usize>,
    pub(crate) cpu_crowd: Option<usize>,
}

/// The numbers that are compared. Means and maxima are over one window, or medians over runs.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Numbers {
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_s_per_gb: f64,
    pub(crate) times_floor: Option<f64>,
    /// CPU time over wall time; 1.0 is a whole processor.
    pub(crate) server_busy: f64,
    pub(crate) crowd_busy: f64,
    pub(crate) gbit_per_s: f64,
    /// Delivered over what the listeners should have had.
    pub(crate) delivered_ratio: f64,
    pub(crate) rss_kib: f64,
    pub(crate) rss_kib_per_listener: f64,
    /// Kernel memory of all TCP sockets, both ends, above what it was before the crowd; the most that was seen.
    pub(crate) socket_kib: f64,
    pub(crate) socket_kib_per_listener: f64,
    pub(crate) latency_p50_ms: f64,
    pub(crate) latency_p99_ms: f64,
    pub(crate) latency_max_ms: f64,
    pub(crate) gap_max_ms: f64,
    pub(crate) bytes_min_to_max: f64,
    pub(crate) not_served: f64,
    pub(crate) closed: f64,
    /// Missing, repeated, corrupt or broken groups, as the checking listeners saw them.
    pub(crate) faults: f64,
}

/// A server's row in one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) server: &'static str,
    /// Why there are no numbers.
    pub(crate) error: Option<String>,
    pub(crate) numbers: Option<Numbers>,
    pub(crate) crowd: Option<Report>,
}

/// Measures one server; a failure of the server becomes the row's error, an interruption is ours.
pub(crate) fn row(kind: Kind, setup: &Setup<'_>, load: &Load, stop: &Stop) -> Result<Row, Error> {
    let server = kind.name();
    match attempt(kind, setup, load, stop) {
        Ok((numbers, crowd)) => Ok(Row {
            server,
            error: None,
            numbers: Some(numbers),
            crowd: Some(crowd),
        }),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(_) if stop.asked() => Err(Error::Interrupted),
        Err(error) => Ok(Row {
            server,
            error: Some(error.to_string()),
            numbers: None,
            crowd: None,
        }),
    }
}

fn attempt(kind: Kind, setup: &Setup<'_>, load: &Load, stop: &Stop) -> Result<(Numbers, Report), Error> {
    let mut server = setup.start(kind, stop)?;
    let outcome = with_source(&mut server, setup.directory, load, stop);
    outcome.map_err(|error| explain(error, &server.log))
}

fn with_source(
    server: &mut Server,
    directory: &Path,
    load: &Load,
    stop: &Stop,
) -> Result<(Numbers, Report), Error> {
    let source = Launch::own("source")?
        .arg(server.url.to_string())
        .flag("--kbps", load.kbps)
        .flag("--seconds", load.seconds + load.warm_up_seconds + 300)
        .flag("--user", USER)
        .flag("--password-env", PASSWORD_ENV)
        .arg("--events")
        .env(PASSWORD_ENV, &server.password)
        .cpu(load.cpu_crowd);
    let mut source = Heard::start(source, "source", directory)?;
    source.expect(MARGIN, stop, |event| {
        matches!(event, Some(Event::Publishing)).then_some(())
    })?;
    pause(HEAD_START, stop)?;
    let measured = with_crowd(server, directory, load, stop)?;
    source.guard.must_run()?;
    Ok(measured)
}

fn with_crowd(
    server: &mut Server,
    directory: &Path,
    load: &Load,
    stop: &Stop,
) -> Result<(Numbers, Report), Error> {
    let family = procfs::tree(server.guard.pid());
    let (rss_before, sockets_before) = (procfs::rss_kib(&family), procfs::tcp_memory_kib());
    let crowd = Launch::own("listeners")?
        .arg(server.url.to_string())
        .flag("--count", load.listeners)
        .flag("--seconds", load.seconds)
        .flag("--warm-up", load.warm_up_seconds)
        .flag("--ramp", load.ramp)
        .flag("--latency-sample", load.sample)
        .flag("--stall", load.stall)
        .arg("--events")
        .cpu(load.cpu_crowd);
    let mut crowd = Heard::start(crowd, "listeners", directory)?;
    let ramp = Duration::from_secs_f64(load.listeners as f64 / f64::from(load.ramp));
    let before = ramp + Duration::from_secs(load.warm_up_seconds) + MARGIN;
    crowd.expect(before, stop, |event| {
        matches!(event, Some(Event::Start)).then_some(())
    })?;
    let family = procfs::tree(server.guard.pid());
    let cpu_before = procfs::cpu(&family);
    let mut sockets = 0;
    crowd.expect(Duration::from_secs(load.seconds) + MARGIN, stop, |event| {
        sockets = sockets.max(procfs::tcp_memory_kib());
        matches!(event, Some(Event::End)).then_some(())
    })?;
    let cpu = procfs::cpu(&family).saturating_sub(cpu_before);
    let rss = procfs::rss_kib(&family);
    server.guard.must_run()?;
    let report = crowd.expect(MARGIN, stop, |event| match event {
        Some(Event::Crowd { report }) => Some(Report::clone(report)),
        _ => None,
    })?;
    let sockets = sockets.saturating_sub(sockets_before);
    Ok((numbers(load, &report, cpu, rss_before, rss, sockets), report))
}

fn numbers(load: &Load, crowd: &Report, cpu: Duration, rss_before: u64, rss: u64, sockets: u64) -> Numbers {
    let (cpu_seconds, gb) = (cpu.as_secs_f64(), crowd.bytes as f64 * 1e-9);
    let per_listener = |kib: u64| kib as f64 / load.listeners as f64;
    let wanted = (load.listeners - load.stall) as f64 * f64::from(load.kbps) * 125.0 * crowd.seconds;
    let t = &crowd.tally;
    let seen = &t.seen;
    Numbers {
        cpu_seconds,
        cpu_s_per_gb: cpu_seconds / gb.max(1e-9),
        times_floor: None,
        server_busy: cpu_seconds / crowd.seconds.max(1e-9),
        crowd_busy: crowd.cpu_seconds / crowd.seconds.max(1e-9),
        gbit_per_s: crowd.gbit_per_s,
        delivered_ratio: crowd.bytes as f64 / wanted.max(1.0),
        rss_kib: rss as f64,
        rss_kib_per_listener: per_listener(rss.saturating_sub(rss_before)),
        socket_kib: sockets as f64,
        socket_kib_per_listener: per_listener(sockets),
        latency_p50_ms: crowd.latency_ms.p50,
        latency_p99_ms: crowd.latency_ms.p99,
        latency_max_ms: crowd.latency_ms.max,
        gap_max_ms: crowd.gap_ms_max,
        bytes_min_to_max: crowd.bytes_min as f64 / (crowd.bytes_max as f64).max(1.0),
        not_served: crowd.asked.saturating_sub(t.served) as f64,
        closed: t.closed as f64,
        faults: (seen.missing + seen.repeated + seen.corrupt + seen.breaks) as f64,
    }
}

fn pause(time: Duration, stop: &Stop) -> Result<(), Error> {
    std::thread::sleep(time);
    stop.check()
}

/// A child of our own kind, and the events it tells.
struct Heard {
    guard: Guard,
    events: Receiver<Event>,
    log: std::path::PathBuf,
    name: &'static str,
}

impl Heard {
    fn start(launch: Launch, name: &'static str, directory: &Path) -> Result<Heard, Error> {
        let log = directory.join(format!("{name}.log"));
        let mut guard = launch.start(name, &log, true)?;
        let (tell, events) = channel();
        if let Some(out) = guard.take_stdout() {
            // Ends with the child: its end of the pipe closes.
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let Ok(event) = serde_json::from_str(&line) else {
                        continue;
                    };
                    if tell.send(event).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Heard {
            guard,
            events,
            log,
            name,
        })
    }

    /// Waits until `pick` finds what it wants. It is also called at every look, with no event.
    fn expect<T>(
        &mut self,
        within: Duration,
        stop: &Stop,
        mut pick: impl FnMut(Option<&Event>) -> Option<T>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            stop.check()?;
            match self.events.recv_timeout(LOOK) {
                Ok(event) => {
                    if let Some(found) = pick(Some(&event)) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    pick(None);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let ended = Error::Failed(format!("{} ended early", self.name));
                    return Err(explain(ended, &self.log));
                }
            }
        }
        Err(Error::Failed(format!(
            "{} did not get on within {within:?}",
            self.name
        )))
    }
}
