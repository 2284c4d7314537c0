//! Commands that load a server: the sweep, the chain, those who come and go, the long run, and the limit.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CROWD_MAX, LoadArgs, Rival, per_second, targets, write_json};
use crate::capacity;
use crate::churn;
use crate::compare;
use crate::error::Error;
use crate::events::{Event, Teller};
use crate::fanout;
use crate::http::Url;
use crate::latency::{self, Hop};
use crate::measure::Load;
use crate::outlast;
use crate::procfs::raise_file_limit;
use crate::progress::{self, say};
use crate::scale;
use crate::servers::{Kind, Running, Target};
use crate::soak;
use crate::stop::Stop;

/// `NAME=URL`.
#[derive(Debug, Clone)]
pub(super) struct Named {
    name: String,
    url: Url,
}

fn named(text: &str) -> Result<Named, String> {
    let (name, url) = text
        .split_once('=')
        .ok_or("expected NAME=http://HOST:PORT/MOUNT")?;
    if name.is_empty() {
        return Err("expected a name before the =".into());
    }
    let (name, url) = (name.to_owned(), url.parse()?);
    Ok(Named { name, url })
}

/// A server that runs already.
#[derive(Args)]
pub(super) struct RunningArgs {
    /// Measure this running server too: its name in the table, and what to listen to
    #[arg(long, value_name = "NAME=URL", value_parser = named)]
    server: Option<Named>,
    /// Process of that server, for its CPU and memory (with all its children)
    #[arg(long, value_name = "PID", requires = "server")]
    pid: Option<u32>,
    /// Publish the bench's stream to that URL first (PUT, or RTMP; password in RELAY_AUTH_SOURCE_PASSWORD). Without it
    /// the server must have a stream of --kbps already; latency then needs one from `bench-harness source`
    #[arg(long, requires = "server")]
    publish: bool,
}

impl RunningArgs {
    pub(super) fn target(&self) -> Result<Option<Target>, Error> {
        let Some(Named { name, url }) = self.server.clone() else {
            return Ok(None);
        };
        let (pid, publish) = (self.pid, self.publish);
        if pid.is_none() {
            eprintln!("note: without --pid there are no CPU and memory numbers for {name}");
        }
        Ok(Some(Target::Running(Running {
            name,
            url,
            pid,
            publish,
        })))
    }
}

/// Those who come and go speak HTTP only.
fn check_churn(target: &Target, churn: u32) -> Result<(), Error> {
    match target {
        Target::Running(running) if churn > 0 && running.url.is_rtmp() => Err(Error::Usage(format!(
            "{}: those who come and go speak http://, not rtmp://",
            running.url
        ))),
        _ => Ok(()),
    }
}

/// Which relay.
#[derive(Args)]
struct RelayArgs {
    /// The relay to measure [default: `relay` beside this program]
    #[arg(long, value_name = "PATH")]
    relay: Option<PathBuf>,
}

impl RelayArgs {
    fn path(&self) -> Result<Option<PathBuf>, Error> {
        match &self.relay {
            Some(path) if !path.is_file() => {
                Err(Error::Usage(format!("--relay: there is no {}", path.display())))
            }
            Some(path) => Ok(Some(path.clone())),
            None => Ok(compare::beside_us("relay")),
        }
    }
}

/// What a delivered byte costs, over listeners, rates and batching intervals, beside the floor at the same interval
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness fanout --listeners 1000 --kbps 2000 --intervals 10,40,100,350 --seconds 10
  bench-harness fanout --listeners 19500 --kbps 500 --intervals 200 --seconds 60 --ramp 2000/s
  bench-harness fanout --listeners 1000 --intervals 100 --server other=http://127.0.0.1:8080/a.ts --pid 4711")]
pub(super) struct FanoutArgs {
    /// Numbers of listeners
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(CROWD_MAX)),
    )]
    listeners: Vec<u32>,
    /// Rates of the stream in kb/s
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    rates: Vec<u32>,
    /// Batching intervals in ms
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=5000))]
    intervals: Vec<u64>,
    /// Whom to measure beside the relay
    #[arg(long, value_enum, value_delimiter = ',', default_value = "floor")]
    against: Vec<Rival>,
    /// Leave the relay out
    #[arg(long)]
    skip_relay: bool,
    /// Repeat each point so often, and print medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    running: RunningArgs,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn fanout(args: FanoutArgs, stop: &Stop) -> Result<(), Error> {
    let mut targets = targets(&args.against, args.skip_relay);
    targets.extend(args.running.target()?);
    let or = |list: Vec<u64>, one| if list.is_empty() { vec![one] } else { list };
    let intervals_ms = or(args.intervals, args.load.interval_ms);
    let kbps = if args.rates.is_empty() {
        vec![args.load.kbps]
    } else {
        args.rates
    };
    let most = args.listeners.iter().copied().max().unwrap_or(1);
    let points = args.listeners.len() * kbps.len() * intervals_ms.len();
    let bar = progress::steps(u64::from(args.runs) * (points * targets.len()) as u64);
    let plan = fanout::Plan {
        base: compare::Plan {
            targets,
            runs: args.runs,
            relay: args.relay.path()?,
            load: args.load.load(most)?,
        },
        listeners: args.listeners,
        kbps,
        intervals_ms,
    };
    let sweep = fanout::run(plan, &bar, stop)?;
    bar.finish_and_clear();
    say(sweep.text());
    write_json(args.load.json.as_deref(), &sweep)?;
    complete(sweep.is_complete())
}

/// What a byte costs a worker alone, and as others work beside it: 1, 2, 4, … workers, each with as many listeners
///
/// Cost is the CPU time of the workers' threads over the bytes they told: the crowd is not in it. It has processors of
/// its own as long as there are more than workers.
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness scale --listeners 500 --kbps 2000 --interval-ms 40 --seconds 10 --runs 3 --json scale.json
  bench-harness scale --counts 1,2 --mio")]
pub(super) struct ScaleArgs {
    /// Listeners of each worker
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=i64::from(CROWD_MAX)))]
    listeners: u32,
    /// Numbers of workers [default: 1, 2, 4, … and as many as there are processors]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=64))]
    counts: Vec<u16>,
    /// The relay on epoll instead of io_uring
    #[arg(long)]
    mio: bool,
    /// Repeat everything so often, and print medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn scale(args: ScaleArgs, stop: &Stop) -> Result<(), Error> {
    let kind = if args.mio { Kind::RelayMio } else { Kind::Relay };
    let bar = progress::steps(0);
    let plan = scale::Plan {
        base: compare::Plan {
            targets: vec![Target::Ours(kind)],
            runs: args.runs,
            relay: args.relay.path()?,
            load: args.load.load(args.listeners)?,
        },
        counts: args.counts.into_iter().map(usize::from).collect(),
    };
    let scaling = scale::run(plan, &bar, stop)?;
    bar.finish_and_clear();
    say(scaling.text());
    write_json(args.load.json.as_deref(), &scaling)?;
    complete(scaling.is_complete())
}

fn complete(complete: bool) -> Result<(), Error> {
    match complete {
        true => Ok(()),
        false => Err(Error::Failed("not everything could be measured".into())),
    }
}

/// Delivery latency at each hop of a chain of relays, and at its end
///
/// Builds root → repeater → repeater → peer on loopback, all with the same --interval-ms (0: nothing is ever held
/// back), or listens to what runs already (--hop, in the order of the chain; the source must be `bench-harness source`
/// on a machine with the same clock).
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness latency --interval-ms 0 --listeners 20 --seconds 10
  bench-harness latency --hop root=http://127.0.0.1:8000/a.ts --hop far=http://127.0.0.1:8001/a.ts")]
pub(super) struct LatencyArgs {
    /// Listen here instead of building a chain; again for each hop
    #[arg(long = "hop", value_name = "NAME=URL", value_parser = named)]
    hops: Vec<Named>,
    /// Repeaters between root and peer
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=8))]
    repeaters: u8,
    /// Listeners at each relay
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(CROWD_MAX)))]
    listeners: u32,
    /// Listeners at the peer
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    players: u32,
    /// The peer program [default: `peer-lite` beside this program; left out where there is none]
    #[arg(long, value_name = "PATH")]
    peer: Option<PathBuf>,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn latency(args: LatencyArgs, stop: &Stop) -> Result<(), Error> {
    let hops = args
        .hops
        .into_iter()
        .map(|Named { name, url }| Hop { name, url })
        .collect();
    let plan = latency::Plan {
        hops,
        relay: args.relay.path()?,
        peer: args.peer.or_else(|| compare::beside_us("peer-lite")),
        repeaters: args.repeaters.into(),
        load: args.load.load(args.listeners)?,
        end_listeners: args.players as usize,
    };
    let bar = progress::busy("listening at every hop");
    let report = latency::run(&plan, stop)?;
    bar.finish_and_clear();
    say(&report);
    write_json(args.load.json.as_deref(), &report)?;
    complete(report.is_complete())
}

/// People who come and go beside a crowd that stays: does anybody who stays notice?
#[derive(Args)]
#[command(after_help = "Example:
  bench-harness churn --per-second 1000 --listeners 5000 --kbps 500 --seconds 10")]
pub(super) struct ChurnArgs {
    /// Newcomers per second
    #[arg(long, default_value = "1000/s", value_parser = per_second)]
    per_second: u32,
    /// Listeners that stay
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=i64::from(CROWD_MAX)))]
    listeners: u32,
    /// Longest gap that those who stay may see, in ms; exit 1 beyond
    #[arg(long, default_value_t = 250)]
    gap_ms: u32,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    running: RunningArgs,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn churn(args: ChurnArgs, stop: &Stop) -> Result<(), Error> {
    let target = args.running.target()?.unwrap_or(Target::Ours(Kind::Relay));
    check_churn(&target, args.per_second)?;
    let load = Load {
        churn: args.per_second,
        ..args.load.load(args.listeners)?
    };
    let comparison = one(target, args.relay.path()?, load, stop)?;
    say(comparison.text());
    let mut gap: f64 = 0.0;
    for row in comparison.runs.iter().flatten() {
        if let (Some(churn), Some(numbers)) = (&row.churn, &row.numbers) {
            say(format_args!("\n{churn}"));
            say(format_args!(
                "those who stayed: longest gap {:.0} ms, {} closed",
                numbers.gap_max_ms, numbers.closed
            ));
            gap = gap.max(numbers.gap_max_ms);
        }
    }
    write_json(args.load.json.as_deref(), &comparison)?;
    complete(comparison.is_complete())?;
    match gap <= f64::from(args.gap_ms) {
        true => Ok(()),
        false => Err(Error::Failed(format!(
            "somebody who stayed heard nothing for {gap:.0} ms (limit {})",
            args.gap_ms
        ))),
    }
}

fn one(
    target: Target,
    relay: Option<PathBuf>,
    load: Load,
    stop: &Stop,
) -> Result<compare::Comparison, Error> {
    let plan = compare::Plan {
        targets: vec![target],
        runs: 1,
        relay,
        load,
    };
    let bar = progress::steps(1);
    let comparison = compare::run(&plan, &bar, stop)?;
    bar.finish_and_clear();
    Ok(comparison)
}

/// One load for a long time: do memory and open files grow?
#[derive(Args)]
#[command(after_help = "Example:
  bench-harness soak --listeners 500 --kbps 1000 --seconds 3600 --json soak.json")]
pub(super) struct SoakArgs {
    /// Listeners
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=i64::from(CROWD_MAX)))]
    listeners: u32,
    /// Newcomers per second who come and go, beside the crowd
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    churn: u32,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    running: RunningArgs,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn soak(args: SoakArgs, stop: &Stop) -> Result<(), Error> {
    let target = args.running.target()?.unwrap_or(Target::Ours(Kind::Relay));
    check_churn(&target, args.churn)?;
    let load = Load {
        churn: args.churn,
        ..args.load.load(args.listeners)?
    };
    let report = soak::Report::of(one(target, args.relay.path()?, load, stop)?);
    say(report.comparison.text());
    report
        .growth
        .iter()
        .for_each(|growth| say(format_args!("\n{growth}")));
    write_json(args.load.json.as_deref(), &report)?;
    complete(report.comparison.is_complete())
}

/// How many viewers at --kbps will this host carry, and what stops it first?
///
/// Measures a few growing crowds and tells from what a viewer costs where CPU, memory and open files run out.
/// Without a URL it asks about the relay beside this program.
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness capacity --kbps 2000
  bench-harness capacity http://127.0.0.1:8000/a.ts --pid 4711 --kbps 2000 --steps 50,100,200")]
pub(super) struct CapacityArgs {
    /// A running server, with a stream of --kbps
    url: Option<Url>,
    /// Process of that server, for its CPU, memory and files
    #[arg(long, value_name = "PID", requires = "url")]
    pid: Option<u32>,
    /// Publish the bench's stream to that URL first (password in RELAY_AUTH_SOURCE_PASSWORD)
    #[arg(long, requires = "url")]
    publish: bool,
    /// Crowds to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "300,1000,3000",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(CROWD_MAX)),
    )]
    steps: Vec<u32>,
    /// Processors the server may have [default: one per worker]
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) fn capacity(args: CapacityArgs, stop: &Stop) -> Result<(), Error> {
    let target = match args.url {
        None => Target::Ours(Kind::Relay),
        Some(url) => Target::Running(Running {
            name: "server".into(),
            url,
            pid: args.pid,
            publish: args.publish,
        }),
    };
    raise_file_limit();
    let most = args.steps.iter().copied().max().unwrap_or(1);
    let bar = progress::steps(args.steps.len() as u64);
    let plan = capacity::Plan {
        files: capacity::files_of(args.pid),
        cores: args.cores.unwrap_or(args.load.workers.into()),
        base: compare::Plan {
            targets: vec![target],
            runs: 1,
            relay: args.relay.path()?,
            load: args.load.load(most)?,
        },
        steps: args.steps,
    };
    let report = capacity::run(&plan, &bar, stop)?;
    bar.finish_and_clear();
    say(&report);
    write_json(args.load.json.as_deref(), &report)?;
    complete(!report.limits.is_empty())
}

/// Where does another server stop serving in time, and does the relay keep on at twice that load?
///
/// Growing crowds for the other server, until one is not served in time; then twice that crowd for the relay, in the
/// same run, on the same processor.
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness outlast --from 600 --kbps 2000 --seconds 5
  bench-harness outlast --rival nginx-rtmp --from 1000 --factor 1.5")]
pub(super) struct OutlastArgs {
    /// The other server
    #[arg(long, value_enum, default_value_t = Server::Icecast2)]
    rival: Server,
    /// Its first crowd
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    from: u32,
    /// Each crowd is so many times the one before
    #[arg(long, value_name = "X", default_value_t = 1.25, value_parser = factor)]
    factor: f64,
    /// What is older than this at the 99th percentile is not in time
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    late_ms: u32,
    #[command(flatten)]
    relay: RelayArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// Another server that we can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Server {
    /// Icecast 2, from its Debian package
    Icecast2,
    /// nginx with its RTMP module, from the Debian packages
    NginxRtmp,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (1.05..=8.0).contains(factor));
    factor.ok_or_else(|| "expected 1.05 to 8".into())
}

pub(super) fn outlast(args: OutlastArgs, stop: &Stop) -> Result<(), Error> {
    raise_file_limit();
    let bar = progress::steps(0);
    let plan = outlast::Plan {
        rival: match args.rival {
            Server::Icecast2 => Kind::Icecast,
            Server::NginxRtmp => Kind::NginxRtmp,
        },
        factor: args.factor,
        late_ms: args.late_ms.into(),
        base: compare::Plan {
            targets: Vec::new(),
            runs: 1,
            relay: args.relay.path()?,
            load: args.load.load(args.from)?,
        },
    };
    let report = outlast::run(&plan, &bar, stop)?;
    bar.finish_and_clear();
    say(&report);
    write_json(args.load.json.as_deref(), &report)?;
    complete(report.is_complete())
}

/// The newcomers alone: a child of the harness.
#[derive(Args)]
pub(super) struct ChurnersArgs {
    url: Url,
    #[arg(long)]
    per_second: u32,
    #[arg(long)]
    seconds: u64,
    #[arg(long, default_value_t = 500)]
    stay_ms: u64,
}

pub(super) fn churners(args: ChurnersArgs, stop: &Stop) -> Result<(), Error> {
    raise_file_limit();
    let plan = churn::Plan {
        url: args.url,
        per_second: args.per_second.max(1),
        window: Duration::from_secs(args.seconds),
        stay: Duration::from_millis(args.stay_ms),
    };
    let report = Box::new(churn::run(&plan, stop)?);
    Teller(true).tell(&Event::Churn { report });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_url() {
        let found = named("a=http://127.0.0.1:1/x?y=z").unwrap();
        assert_eq!(
            (found.name.as_str(), found.url.to_string().as_str()),
            ("a", "http://127.0.0.1:1/x?y=z")
        );
        assert!(named("http://127.0.0.1/").is_err() && named("=http://a/").is_err() && named("a=b").is_err());
    }
}
