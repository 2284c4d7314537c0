//! `latency`: how old the bytes are at each hop of a chain, and at its end: root → repeater → repeater → peer.
//!
//! Every crowd listens at the same time to the same stream, so a hop's share is the difference of two neighbours. All
//! times count from when a group was *due* at the source, which is the correction for coordinated omission.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::crowd::Report as Crowd;
use crate::crowd_report::Latency;
use crate::crowds;
use crate::error::{Doing, Error};
use crate::http::Url;
use crate::join;
use crate::launch::{Guard, Launch, pin};
use crate::measure::{self, Heard, Load};
use crate::procfs::Machine;
use crate::servers::{Kind, MOUNT, Server, Setup, await_port, explain, free_port};
use crate::stop::Stop;
use crate::table::aligned;

/// What a crowd may need beyond the time it was asked to take.
const MARGIN: Duration = Duration::from_secs(30);

/// How long a new node may take until the stream can be heard from it.
const STREAM_WAIT: Duration = Duration::from_secs(15);

/// A place of the chain where the stream can be heard.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) name: String,
    pub(crate) url: Url,
}

/// What to measure.
pub(crate) struct Plan {
    /// Chains that run already; else one is built.
    pub(crate) hops: Vec<Hop>,
    pub(crate) relay: Option<PathBuf>,
    pub(crate) peer: Option<PathBuf>,
    /// Repeaters between root and peer.
    pub(crate) repeaters: usize,
    /// `listeners` of them at each relay.
    pub(crate) load: Load,
    /// Listeners of the peer.
    pub(crate) end_listeners: usize,
}

/// One hop's numbers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) hop: String,
    pub(crate) listeners: usize,
    pub(crate) error: Option<String>,
    pub(crate) latency_ms: Latency,
    pub(crate) gap_ms_max: f64,
    /// Bytes delivered over what was due at the rate.
    pub(crate) delivered_ratio: f64,
    pub(crate) faults: u64,
}

/// All hops, in the order of the chain.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) load: Load,
    pub(crate) rows: Vec<Row>,
}

/// Programs of a chain; they end with it, the last first.
struct Chain {
    hops: Vec<Hop>,
    _source: Option<Heard>,
    nodes: Vec<Guard>,
    _root: Option<Server>,
}

/// Builds the chain where none is given, and listens to every hop at once.
pub(crate) fn run(plan: &Plan, stop: &Stop) -> Result<Report, Error> {
    let machine = Machine::look();
    if let Some(cpu) = plan.load.cpu_crowd {
        pin(cpu)?;
    }
    let directory = tempfile::Builder::new().prefix("bench-").tempdir();
    let directory = directory.doing(|| "cannot make a temporary directory".into())?;
    let mut chain = if plan.hops.is_empty() {
        build(plan, directory.path(), stop)?
    } else {
        Chain {
            hops: plan.hops.clone(),
            _source: None,
            nodes: Vec::new(),
            _root: None,
        }
    };
    let rows = listen(plan, &chain.hops, directory.path(), stop)?;
    chain.nodes.iter_mut().try_for_each(Guard::must_run)?;
    Ok(Report {
        machine,
        load: plan.load,
        rows,
    })
}

fn build(plan: &Plan, directory: &Path, stop: &Stop) -> Result<Chain, Error> {
    let load = &plan.load;
    let setup = Setup {
        directory,
        relay: plan.relay.clone(),
        listeners: load.listeners,
        kbps: load.kbps,
        interval: Duration::from_millis(load.interval_ms),
        cpu: load.cpu_server,
        workers: load.workers,
    };
    let root = setup.start(Kind::Relay, stop)?;
    let length = load.seconds + load.warm_up_seconds + 300;
    let source = measure::publish(&root, directory, (load.kbps, length), load.cpu_crowd, stop)?;
    let (mut above, mut nodes) = (root.url.clone(), Vec::new());
    let mut hops = vec![Hop {
        name: "root".into(),
        url: above.clone(),
    }];
    for n in 1..=plan.repeaters {
        let name = format!("repeater-{n}");
        let address = free_port()?;
        let launch = setup.relay_launch(address)?.flag("--upstream", &above);
        nodes.push(node(
            launch.cpu(load.cpu_server),
            &name,
            address,
            directory,
            stop,
        )?);
        above = Url::local(address, MOUNT);
        await_stream(&above, stop)?;
        hops.push(Hop {
            name,
            url: above.clone(),
        });
    }
    if let Some(peer) = &plan.peer {
        let address = free_port()?;
        let launch = Launch::new(peer)
            .arg(above.to_string())
            .flag("--listen", address)
            .arg("--quiet");
        nodes.push(node(
            launch.cpu(load.cpu_server),
            "peer",
            address,
            directory,
            stop,
        )?);
        hops.push(Hop {
            name: "peer".into(),
            url: Url::local(address, "/"),
        });
        await_stream(&Url::local(address, "/"), stop)?;
    }
    nodes.reverse();
    Ok(Chain {
        hops,
        _source: Some(source),
        nodes,
        _root: Some(root),
    })
}

fn node(
    launch: Launch,
    name: &str,
    address: SocketAddr,
    directory: &Path,
    stop: &Stop,
) -> Result<Guard, Error> {
    let log = directory.join(format!("{name}.log"));
    let mut guard = launch.start(name, &log, false)?;
    await_port(&mut guard, address, stop).map_err(|error| explain(error, &log))?;
    Ok(guard)
}

/// Until the stream can be joined there: a node further down asks the one above it only once in a while.
fn await_stream(url: &Url, stop: &Stop) -> Result<(), Error> {
    let plan = join::Plan {
        url: url.clone(),
        count: 1,
        patience: Duration::from_secs(5),
        pause: Duration::from_millis(100),
        limit: Duration::from_secs(5),
    };
    let start = Instant::now();
    loop {
        let newcomer = join::run(&plan, stop)?;
        stop.check()?;
        if newcomer.joined > 0 {
            return Ok(());
        }
        if start.elapsed() > STREAM_WAIT {
            let why = newcomer.first_error.unwrap_or_default();
            return Err(Error::Failed(format!(
                "{url} has no stream after {STREAM_WAIT:?}: {why}"
            )));
        }
    }
}

/// All crowds at once; one that fails is a row that says so.
fn listen(plan: &Plan, hops: &[Hop], directory: &Path, stop: &Stop) -> Result<Vec<Row>, Error> {
    let mut crowds = Vec::new();
    for hop in hops {
        let count = if hop.name == "peer" {
            plan.end_listeners
        } else {
            plan.load.listeners
        };
        let load = Load {
            listeners: count,
            sample: plan.load.sample.min(count),
            stall: 0,
            ..plan.load
        };
        crowds.push((hop, count, crowds::start(&hop.url, directory, &load)?));
    }
    let ramp = Duration::from_secs_f64(plan.load.listeners as f64 / f64::from(plan.load.ramp));
    let within = ramp + Duration::from_secs(plan.load.seconds + plan.load.warm_up_seconds) + MARGIN;
    let mut rows = Vec::new();
    for (hop, count, crowd) in crowds {
        let outcome = crowds::join(crowd, within, stop);
        stop.check()?;
        rows.push(row(hop, count, plan.load.kbps, outcome));
    }
    Ok(rows)
}

fn row(hop: &Hop, listeners: usize, kbps: u32, outcome: Result<Crowd, Error>) -> Row {
    let (report, error) = match outcome {
        Ok(report) => (report, None),
        Err(error) => (Crowd::default(), Some(error.to_string())),
    };
    let gone = report.all_gone();
    let silent = (report.latency_ms.samples == 0).then(|| {
        let why = report.tally.first_error.clone();
        why.unwrap_or_else(|| "no stamped group came in the window".into())
    });
    let due = listeners as f64 * f64::from(kbps) * 125.0 * report.seconds;
    let seen = &report.tally.seen;
    Row {
        delivered_ratio: report.bytes as f64 / due.max(1.0),
        hop: hop.name.clone(),
        listeners,
        error: error.or(gone).or(silent),
        faults: seen.missing + seen.repeated + seen.corrupt + seen.breaks,
        latency_ms: report.latency_ms,
        gap_ms_max: report.gap_ms_max,
    }
}

impl Report {
    /// True when each hop was heard.
    pub(crate) fn is_complete(&self) -> bool {
        self.rows.iter().all(|row| row.error.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = [
            "hop", "lst", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "hop +p50", "hop +p99",
            "of due", "gap ms", "faults",
        ];
        let mut cells = vec![heads.map(str::to_owned).to_vec()];
        let mut above = Latency::default();
        for row in &self.rows {
            let l = &row.latency_ms;
            cells.push(match &row.error {
                Some(error) => vec![row.hop.clone(), row.listeners.to_string(), error.clone()],
                None => vec![
                    row.hop.clone(),
                    row.listeners.to_string(),
                    format!("{:.2}", l.p50),
                    format!("{:.2}", l.p90),
                    format!("{:.2}", l.p99),
                    format!("{:.2}", l.p999),
                    format!("{:.2}", l.max),
                    format!("{:+.2}", l.p50 - above.p50),
                    format!("{:+.2}", l.p99 - above.p99),
                    format!("{:.0}%", row.delivered_ratio * 100.0),
                    format!("{:.0}", row.gap_ms_max),
                    row.faults.to_string(),
                ],
            });
            above = l.clone();
        }
        let Machine {
            cpu,
            cores,
            kernel,
            load,
            ..
        } = &self.machine;
        write!(
            out,
            "{}\n\n- all times: group due at the source -> read by a listener; HDR histogram, 3 digits\n\
             - machine: {cpu}, {cores} cores, Linux {kernel}, load before {load:.2}; all nodes share processors",
            aligned(&cells)
        )
    }
}
