//! One server, one source, one crowd: a row of the comparison.
//!
//! Server on one processor; source, crowd and this process on the other. The crowd says when its window opens and
//! closes, and the server's CPU time is read at these two moments.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::churn;
use crate::crowd::{RAMP_SLACK, Report};
use crate::crowds;
use crate::error::Error;
use crate::events::Event;
use crate::launch::{Guard, Launch};
use crate::procfs;
use crate::servers::{PASSWORD_ENV, Server, Setup, Target, USER, explain};
use crate::stop::Stop;
use crate::workers::{Look, Worker};

/// The source runs alone for this long, so that the server has something to give.
const HEAD_START: Duration = Duration::from_millis(500);
/// What a child may need beyond the time it was asked to take.
const MARGIN: Duration = Duration::from_secs(30);
/// Time between two looks at the kernel's memory; no multiple of a usual batching interval, so that all its
/// phases are seen.
const LOOK: Duration = Duration::from_millis(23);

/// Time between two samples of what the server holds.
const SAMPLE: Duration = Duration::from_secs(1);

/// What is thrown at a server.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Load {
    pub(crate) listeners: usize,
    pub(crate) kbps: u32,
    pub(crate) seconds: u64,
    pub(crate) interval_ms: u64,
    pub(crate) warm_up_seconds: u64,
    pub(crate) ramp: u32,
    /// How long after the last connection was opened a listener may still wait for its answer.
    pub(crate) patience_ms: u64,
    pub(crate) sample: usize,
    /// So many of the listeners never read.
    pub(crate) stall: usize,
    /// Newcomers per second during the window, beside the crowd; each stays a moment.
    pub(crate) churn: u32,
    /// Worker threads of the relay.
    pub(crate) workers: usize,
    pub(crate) cpu_server: Option<usize>,
    pub(crate) cpu_crowd: Option<usize>,
    /// The crowd is as many processes as these processors, each on one: the first, and how many.
    pub(crate) crowd_cpus: Option<(usize, usize)>,
}

impl Load {
    /// The processor of one process of the crowd.
    pub(crate) fn cpu_of_part(&self, part: usize) -> Option<usize> {
        let spread = self.crowd_cpus.map(|(first, many)| first + part % many.max(1));
        spread.or(self.cpu_crowd)
    }
}

/// Part of what is due that must have come, for a crowd to count as carried.
const CARRIED: f64 = 0.98;

impl Load {
    /// Nearly all that was due in the window came; what the last batch held back may be missing.
    pub(crate) fn is_carried(&self, delivered_ratio: f64) -> bool {
        let batch = self.interval_ms as f64 / (self.seconds.max(1) as f64 * 1e3);
        delivered_ratio + batch.min(0.05) >= CARRIED
    }
}

/// The numbers that are compared. Means and maxima are over one window, or medians over runs.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Numbers {
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_s_per_gb: f64,
    pub(crate) times_floor: Option<f64>,
    /// The same with the kernel's packet threads on both sides: work that one server is charged for and another is not.
    pub(crate) times_floor_whole: Option<f64>,
    /// CPU time over wall time; 1.0 is a whole processor.
    pub(crate) server_busy: f64,
    pub(crate) crowd_busy: f64,
    pub(crate) gbit_per_s: f64,
    /// Mean time between two arrivals at a listener: what the server's batching really was, at most.
    pub(crate) arrival_ms: f64,
    /// CPU time of the kernel's packet threads in the window, machine-wide; in no server's figure.
    pub(crate) softirq_seconds: f64,
    /// Delivered over what the listeners should have had.
    pub(crate) delivered_ratio: f64,
    pub(crate) rss_kib: f64,
    /// Without shared memory and memory files, where the stream is kept.
    pub(crate) own_kib: f64,
    /// Open files of the server at the end of the window.
    pub(crate) files: f64,
    /// Growth of its own memory since just before the crowd came.
    pub(crate) own_kib_per_listener: f64,
    /// Kernel memory of all TCP sockets, both ends, above what it was before the crowd; the most that was seen.
    pub(crate) socket_kib: f64,
    pub(crate) socket_kib_per_listener: f64,
    pub(crate) latency_p50_ms: f64,
    pub(crate) latency_p99_ms: f64,
    pub(crate) latency_p999_ms: f64,
    pub(crate) latency_max_ms: f64,
    pub(crate) gap_max_ms: f64,
    pub(crate) bytes_min_to_max: f64,
    pub(crate) not_served: f64,
    pub(crate) closed: f64,
    /// Missing, repeated, corrupt or broken groups, as the checking listeners saw them.
    pub(crate) faults: f64,
}

/// What the server held at one moment of the window.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Sample {
    /// Since the window opened.
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_kib: u64,
    /// Without shared memory and memory files.
    pub(crate) own_kib: u64,
    pub(crate) files: u64,
    /// CPU time of the kernel's packet threads so far.
    pub(crate) softirq_seconds: f64,
    /// All TCP sockets of the machine.
    pub(crate) socket_kib: u64,
}

/// A server's row in one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) server: String,
    /// Why there are no numbers.
    pub(crate) error: Option<String>,
    /// It is not installed here: no failure of anybody.
    pub(crate) missing: bool,
    pub(crate) numbers: Option<Numbers>,
    pub(crate) crowd: Option<Report>,
    pub(crate) churn: Option<churn::Report>,
    /// About one each second of the window.
    pub(crate) samples: Vec<Sample>,
    /// What each worker of a relay did in the window.
    pub(crate) workers: Vec<Worker>,
}

/// Measures one server; a failure of the server becomes the row's error, an interruption is ours.
pub(crate) fn row(target: &Target, setup: &Setup<'_>, load: &Load, stop: &Stop) -> Result<Row, Error> {
    match attempt(target, setup, load, stop) {
        Ok(row) => Ok(row),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(_) if stop.asked() => Err(Error::Interrupted),
        Err(error) => Ok(Row {
            server: target.name().to_owned(),
            error: Some(error.to_string()),
            missing: matches!(error, Error::Missing(_)),
            numbers: None,
            crowd: None,
            churn: None,
            samples: Vec::new(),
            workers: Vec::new(),
        }),
    }
}

fn attempt(target: &Target, setup: &Setup<'_>, load: &Load, stop: &Stop) -> Result<Row, Error> {
    let mut server = setup.open(target, stop)?;
    server.must_run()?;
    let mut outcome = with_source(&mut server, setup.directory, load, stop);
    if let Ok(row) = &mut outcome {
        row.server = target.name().to_owned();
    }
    outcome.map_err(|error| server.explain(error))
}

fn with_source(server: &mut Server, directory: &Path, load: &Load, stop: &Stop) -> Result<Row, Error> {
    if !server.publish {
        return with_crowd(server, directory, load, stop);
    }
    let seconds = load.seconds + load.warm_up_seconds + 300;
    let mut source = publish(server, directory, (load.kbps, seconds), load.cpu_crowd, stop)?;
    let measured = with_crowd(server, directory, load, stop)?;
    source.guard.must_run()?;
    Ok(measured)
}

/// Starts a source of so many kb/s and seconds, and gives it a moment.
pub(crate) fn publish(
    server: &Server,
    directory: &Path,
    (kbps, seconds): (u32, u64),
    cpu: Option<usize>,
    stop: &Stop,
) -> Result<Heard, Error> {
    let source = Launch::own("source")?
        .arg(server.url.to_string())
        .flag("--kbps", kbps)
        .flag("--seconds", seconds)
        .flag("--user", USER)
        .flag("--password-env", PASSWORD_ENV)
        .arg("--events")
        .cpu(cpu);
    let source = match &server.password {
        Some(password) => source.env(PASSWORD_ENV, password),
        None => source,
    };
    let mut source = Heard::start(source, "source", directory)?;
    source.expect(MARGIN, stop, |event| {
        matches!(event, Some(Event::Publishing)).then_some(())
    })?;
    pause(HEAD_START, stop)?;
    Ok(source)
}

/// What a server holds, read from outside. Nothing where we have no process to read.
struct Gauge(Vec<u32>);

impl Gauge {
    fn of(server: &Server) -> Gauge {
        Gauge(server.pid.map(procfs::tree).unwrap_or_default())
    }

    fn read(&self, start: Instant) -> Sample {
        Sample {
            seconds: start.elapsed().as_secs_f64(),
            cpu_seconds: procfs::cpu(&self.0).as_secs_f64(),
            rss_kib: procfs::rss_kib(&self.0),
            own_kib: procfs::own_kib(&self.0),
            files: procfs::files(&self.0),
            softirq_seconds: procfs::softirq_cpu().as_secs_f64(),
            socket_kib: procfs::tcp_memory_kib(),
        }
    }
}

fn with_crowd(server: &mut Server, directory: &Path, load: &Load, stop: &Stop) -> Result<Row, Error> {
    let before = Gauge::of(server).read(Instant::now());
    let mut crowds = crowds::start(&server.url, directory, load)?;
    let ramp = Duration::from_secs_f64(load.listeners as f64 / f64::from(load.ramp));
    let patience = ramp * RAMP_SLACK + Duration::from_secs(load.warm_up_seconds) + MARGIN;
    crowds[0].expect(patience, stop, |event| {
        matches!(event, Some(Event::Start)).then_some(())
    })?;
    let churners = churners(server, directory, load)?;
    let (gauge, start) = (Gauge::of(server), Instant::now());
    let mut samples = vec![gauge.read(start)];
    let look = Look::at(server);
    let (mut sockets, mut due) = (0, SAMPLE);
    crowds[0].expect(Duration::from_secs(load.seconds) + MARGIN, stop, |event| {
        sockets = sockets.max(procfs::tcp_memory_kib());
        let ended = matches!(event, Some(Event::End));
        if ended || start.elapsed() >= due {
            samples.push(gauge.read(start));
            due += SAMPLE;
        }
        ended.then_some(())
    })?;
    let workers = look.until(&Look::at(server));
    server.must_run()?;
    let churn = churners.map(|churners| await_churn(churners, stop)).transpose()?;
    let report = crowds::join(crowds, MARGIN, stop)?;
    if let Some(why) = report.all_gone() {
        return Err(Error::Failed(why));
    }
    if report.bytes == 0 && load.stall < load.listeners {
        let why = report.tally.first_error.clone();
        let why = why.unwrap_or_else(|| "silence behind the head of the answer".into());
        return Err(Error::Failed(format!("nobody got a byte in the window: {why}")));
    }
    if report.tally.lied > 0 {
        let (lied, why) = (
            report.tally.lied,
            report.tally.first_error.clone().unwrap_or_default(),
        );
        return Err(Error::Failed(format!(
            "{lied} listeners were given another length than promised: {why}"
        )));
    }
    let numbers = numbers(load, &report, (&before, &samples), sockets);
    Ok(Row {
        server: String::new(),
        error: None,
        missing: false,
        numbers: Some(numbers),
        crowd: Some(report),
        churn,
        samples,
        workers,
    })
}

fn churners(server: &Server, directory: &Path, load: &Load) -> Result<Option<Heard>, Error> {
    if load.churn == 0 {
        return Ok(None);
    }
    let launch = Launch::own("churners")?
        .arg(server.url.to_string())
        .flag("--per-second", load.churn)
        .flag("--seconds", load.seconds)
        .cpu(load.cpu_crowd);
    Heard::start(launch, "churners", directory).map(Some)
}

fn await_churn(mut churners: Heard, stop: &Stop) -> Result<churn::Report, Error> {
    churners.expect(MARGIN, stop, |event| match event {
        Some(Event::Churn { report }) => Some(churn::Report::clone(report)),
        _ => None,
    })
}

fn numbers(load: &Load, crowd: &Report, (before, samples): (&Sample, &[Sample]), sockets: u64) -> Numbers {
    let first = samples.first().copied().unwrap_or_default();
    let last = samples.last().copied().unwrap_or_default();
    let (cpu_seconds, gb) = (last.cpu_seconds - first.cpu_seconds, crowd.bytes as f64 * 1e-9);
    let per_listener = |kib: u64| kib as f64 / load.listeners as f64;
    let wanted = (load.listeners - load.stall) as f64 * f64::from(load.kbps) * 125.0 * crowd.seconds;
    let sockets = sockets.saturating_sub(before.socket_kib);
    let (t, latency) = (&crowd.tally, &crowd.latency_ms);
    let seen = &t.seen;
    Numbers {
        cpu_seconds,
        cpu_s_per_gb: cpu_seconds / gb.max(1e-9),
        times_floor: None,
        times_floor_whole: None,
        server_busy: cpu_seconds / crowd.seconds.max(1e-9),
        crowd_busy: crowd.cpu_seconds / crowd.seconds.max(1e-9),
        gbit_per_s: crowd.gbit_per_s,
        arrival_ms: (load.listeners - load.stall) as f64 * crowd.seconds * 1e3
            / (crowd.arrivals as f64).max(1.0),
        softirq_seconds: last.softirq_seconds - first.softirq_seconds,
        delivered_ratio: crowd.bytes as f64 / wanted.max(1.0),
        rss_kib: last.rss_kib as f64,
        own_kib: last.own_kib as f64,
        files: last.files as f64,
        own_kib_per_listener: per_listener(last.own_kib.saturating_sub(before.own_kib)),
        socket_kib: sockets as f64,
        socket_kib_per_listener: per_listener(sockets),
        latency_p50_ms: latency.p50,
        latency_p99_ms: latency.p99,
        latency_p999_ms: latency.p999,
        latency_max_ms: latency.max,
        gap_max_ms: crowd.gap_ms_max,
        bytes_min_to_max: crowd.bytes_min as f64 / (crowd.bytes_max as f64).max(1.0),
        not_served: crowd.asked.saturating_sub(t.served) as f64,
        closed: (t.closed + t.lied) as f64,
        faults: (seen.missing + seen.repeated + seen.corrupt + seen.breaks) as f64,
    }
}

fn pause(time: Duration, stop: &Stop) -> Result<(), Error> {
    std::thread::sleep(time);
    stop.check()
}

/// A child of our own kind, and the events it tells.
pub(crate) struct Heard {
    pub(crate) guard: Guard,
    events: Receiver<Event>,
    log: std::path::PathBuf,
    name: &'static str,
}

impl Heard {
    pub(crate) fn start(launch: Launch, name: &'static str, directory: &Path) -> Result<Heard, Error> {
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
    pub(crate) fn expect<T>(
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
