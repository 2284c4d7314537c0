//! The command line: what can be asked, with examples, and the way from there to the work.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::error::{Doing, Error};
use crate::events::Teller;
use crate::http::{Method, Url};
use crate::measure::Load;
use crate::procfs::{Machine, raise_file_limit};
use crate::progress::say;
use crate::report_plan::{self, Size};
use crate::servers::{Kind, Target};
use crate::source::Kind as Stream;
use crate::stop::Stop;
use crate::{compare, crowd, floor_server, join, launch, progress, report, sink, source, table};

mod loads;

/// Most listeners one address of loopback can have: the ephemeral ports.
const COUNT_MAX: u32 = 28_000;
/// Most listeners of a measured server: several processes, each from an address of its own.
const CROWD_MAX: u32 = 200_000;
/// How long a listener waits for its answer, in ms.
const PATIENCE_MS: u64 = 10_000;
/// Longest measurement, in seconds.
const SECONDS_MAX: u64 = 86_400;
/// Files a crowd needs beyond its sockets.
const FILES_SPARE: u64 = 64;

/// Sources, crowds, floors and comparisons for live stream servers.
///
/// A black box: it speaks HTTP or RTMP to the address you give and to loopback, nothing else.
#[derive(Parser)]
#[command(name = "bench-harness", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  How near is the relay to a bare send() per listener, and how far from Icecast?
    bench-harness compare --against floor,icecast2 --listeners 1000 --kbps 2000 --seconds 10 --json out.json
  A source in one terminal, a crowd in another:
    RELAY_AUTH_SOURCE_PASSWORD=... bench-harness source http://127.0.0.1:8000/eclipse.ts --kbps 2000 --seconds 60
    bench-harness listeners http://127.0.0.1:8000/eclipse.ts --count 1000 --seconds 10
  How long does a newcomer wait for a picture?
    bench-harness join http://127.0.0.1:8000/eclipse.ts --count 50
  How many viewers will this host carry, and what stops it first?
    bench-harness capacity --kbps 2000
  All of it in ten minutes, as one page:
    bench-harness report --quick

Exit status: 0 measured, 1 something failed, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    Source(SourceArgs),
    Listeners(ListenersArgs),
    Floor(FloorArgs),
    Compare(CompareArgs),
    Join(JoinArgs),
    Fanout(loads::FanoutArgs),
    Scale(loads::ScaleArgs),
    Latency(loads::LatencyArgs),
    Churn(loads::ChurnArgs),
    Soak(loads::SoakArgs),
    Capacity(loads::CapacityArgs),
    Outlast(loads::OutlastArgs),
    Sink(SinkArgs),
    Report(ReportArgs),
    #[command(hide = true)]
    FloorServer(FloorServerArgs),
    #[command(hide = true)]
    Churners(loads::ChurnersArgs),
    #[command(hide = true)]
    Launch(LaunchArgs),
}

/// Publish an endless stream at a constant rate, with a capture time in every 1,316 bytes
///
/// The stream is valid MPEG-TS (PAT, PMT, key frames to join at, no picture), or raw stamped blocks. Capture times are
/// the times the pacing asked for, so a server that holds up its source is charged for it.
#[derive(Args)]
#[command(after_help = "Examples:
  RELAY_AUTH_SOURCE_PASSWORD=secret bench-harness source http://127.0.0.1:8000/eclipse.ts --kbps 2000 --seconds 60
  ICE_PW=hackme bench-harness source http://127.0.0.1:8000/a.ts --password-env ICE_PW --method source --gop-ms 1000")]
struct SourceArgs {
    /// Where to publish: http://HOST:PORT/MOUNT, or rtmp://HOST:PORT/APP/NAME
    url: Url,
    /// Rate of the body in kb/s
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(8..=10_000_000))]
    kbps: u32,
    /// How long to publish
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// What the stream is made of; over RTMP it is always H.264 pictures, 25 in a second
    #[arg(long, value_enum, default_value_t = Stream::Ts)]
    kind: Stream,
    /// Time between two join points, in ms
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(40..=60_000))]
    gop_ms: u64,
    /// Groups that fall due within this many ms are sent together
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    packet_ms: u64,
    /// How to announce the source
    #[arg(long, value_enum, default_value_t = Method::Put)]
    method: Method,
    /// User name of the source
    #[arg(long, default_value = crate::servers::USER)]
    user: String,
    /// Environment variable that holds the password; where it is not set, none is sent
    #[arg(long, value_name = "NAME", default_value = crate::servers::PASSWORD_ENV)]
    password_env: String,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "PATH", value_parser = new_file)]
    json: Option<PathBuf>,
    #[arg(long, hide = true)]
    events: bool,
}

/// Connect a crowd, count what each listener gets, and measure delivery for some
///
/// Bytes are dropped in the kernel (recv with MSG_TRUNC), so the crowd costs little; a sample reads all and proves that
/// every group came once and in order. Exit 1 when nobody got a byte, or (with --strict) when anybody was failed.
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness listeners http://127.0.0.1:8000/eclipse.ts --count 1000 --seconds 10 --cpu 1
  bench-harness listeners http://127.0.0.1:8000/eclipse.ts --count 600 --stall 500 --seconds 20 --strict")]
struct ListenersArgs {
    /// What to listen to: http://HOST:PORT/MOUNT, or rtmp://HOST:PORT/APP/NAME
    url: Url,
    /// Connections
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    count: u32,
    /// Length of the measured window, after all are connected and the warm-up is over
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Time between the last connection and the window
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3600))]
    warm_up: u64,
    /// Connections opened per second (500 or 500/s)
    #[arg(long, default_value = "500/s", value_parser = per_second)]
    ramp: u32,
    /// How long after the last connection was opened one may still wait for its answer, in ms
    #[arg(long, value_name = "MS", default_value_t = PATIENCE_MS, value_parser = patience)]
    patience_ms: u64,
    /// So many of them read and check every byte
    #[arg(long, value_name = "N", default_value_t = 20)]
    latency_sample: u32,
    /// So many of them never read
    #[arg(long, value_name = "K", default_value_t = 0)]
    stall: u32,
    /// Stay on this processor
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Connect from this address of this machine
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// The window does not open before this moment, ms since the Unix epoch
    #[arg(long, hide = true, default_value_t = 0)]
    not_before_ms: u64,
    /// Exit 1 unless everybody was served to the end and nothing was lost, repeated or changed
    #[arg(long)]
    strict: bool,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "PATH", value_parser = new_file)]
    json: Option<PathBuf>,
    #[arg(long, hide = true)]
    events: bool,
}

/// What every measured load has in common.
#[derive(Args)]
struct LoadArgs {
    /// Rate of the stream in kb/s
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    kbps: u32,
    /// Length of the measured window of each server
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Time between two sends to a listener: of the floor, and as --max-batch-delay of the relay
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=5000))]
    interval_ms: u64,
    /// Time between the last connection and the window
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: u64,
    /// Connections opened per second (500 or 500/s)
    #[arg(long, default_value = "500/s", value_parser = per_second)]
    ramp: u32,
    /// How long after the last connection was opened a listener may still wait for its answer, in ms
    #[arg(long, value_name = "MS", default_value_t = PATIENCE_MS, value_parser = patience)]
    patience_ms: u64,
    /// So many listeners read and check every byte
    #[arg(long, value_name = "N", default_value_t = 20)]
    latency_sample: u32,
    /// So many of the listeners never read
    #[arg(long, value_name = "K", default_value_t = 0)]
    stall: u32,
    /// Worker threads of the relay; with more than one it may use all processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Processor of the server [default: 0 where there are two]
    #[arg(long, value_name = "N")]
    cpu_server: Option<usize>,
    /// Processor of crowd and source [default: 1 where there are two]
    #[arg(long, value_name = "N")]
    cpu_crowd: Option<usize>,
    /// Write everything measured as JSON to this file
    #[arg(long, value_name = "PATH", value_parser = new_file)]
    json: Option<PathBuf>,
}

/// What a server of plain system calls costs at least: one send() per listener and interval, nothing else
///
/// Answers in CPU-seconds per delivered GB, for this machine, this rate and this interval.
#[derive(Args)]
#[command(after_help = "Example:
  bench-harness floor --count 1000 --kbps 2000 --interval-ms 100 --seconds 10")]
struct FloorArgs {
    /// Listeners
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    count: u32,
    #[command(flatten)]
    load: LoadArgs,
}

/// Start the relay and others one after another, load each in the same way, print one table
///
/// Everything happens on loopback and is stopped again. The rows: floor, the relay on io_uring (`relay`) and on epoll
/// (`relay-mio`), Icecast, nginx-rtmp. Who is not installed is a row that says so. Read the caveats below the table
/// before quoting a number.
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness compare --against floor,icecast2 --listeners 1000 --kbps 2000 --seconds 10 --json out.json
  bench-harness compare --against floor,icecast2,nginx-rtmp --listeners 500 --seconds 10
  bench-harness compare --against floor,mio --listeners 500 --seconds 5 --runs 3
  bench-harness compare --server srs=http://127.0.0.1:8080/live/a.ts --pid 4711 --kbps 2000 --seconds 10")]
struct CompareArgs {
    /// Whom to measure beside the relay
    #[arg(long, value_enum, value_delimiter = ',', default_value = "floor,icecast2")]
    against: Vec<Rival>,
    /// Listeners of each server
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(CROWD_MAX)))]
    listeners: u32,
    /// Repeat everything so often, and print medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The relay to measure [default: `relay` beside this program]
    #[arg(long, value_name = "PATH")]
    relay: Option<PathBuf>,
    /// Leave the relay out
    #[arg(long, conflicts_with = "relay")]
    skip_relay: bool,
    #[command(flatten)]
    running: loads::RunningArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// Who can be measured beside the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rival {
    /// One send() per listener and interval
    Floor,
    /// Icecast 2, from its Debian package
    Icecast2,
    /// nginx with its RTMP module, from the Debian packages
    NginxRtmp,
    /// The relay again, with --backend mio
    Mio,
}

/// Measure how long a newcomer waits: connect to first byte, connect to a decodable picture
///
/// For MPEG-TS: PAT, PMT and a random-access packet of the video have arrived; for RTMP: the codec's configuration and
/// a key picture. Newcomers come one after another.
#[derive(Args)]
#[command(after_help = "Example:
  bench-harness join http://127.0.0.1:8000/eclipse.ts --count 50")]
struct JoinArgs {
    /// What to listen to: http://HOST:PORT/MOUNT, or rtmp://HOST:PORT/APP/NAME
    url: Url,
    /// Newcomers
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// One newcomer gives up after this many ms
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    patience_ms: u64,
    /// Between two newcomers, in ms; an odd number meets all phases of a group of pictures
    #[arg(long, default_value_t = 37, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pause_ms: u64,
    /// Send nobody more after this many seconds
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    limit: u64,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "PATH", value_parser = new_file)]
    json: Option<PathBuf>,
}

/// What the kernel asks for a send, without any server: the floor under all of them
///
/// Everything goes into an `ifb` device in a network namespace of this process (needs root; nothing is left behind), by
/// plain system calls and by the relay's own driver.
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness sink udp
  bench-harness sink udp --peers 512
  bench-harness sink multicast --round-ms 500
  bench-harness sink tcp --peers 64")]
struct SinkArgs {
    /// What to send
    way: sink::Way,
    /// Peers, where there are many
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    peers: u32,
    /// CPU time of each round of each row, in ms
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    round_ms: u64,
    /// Stay on this processor
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "PATH", value_parser = new_file)]
    json: Option<PathBuf>,
}

/// Measure everything and write one page about it, with plots: report.html, and beside it report.md and report.json
///
/// Each part is a command of this program, shown with its figures, so that any of them can be made again.
#[derive(Args)]
#[command(after_help = "Examples:
  bench-harness report --quick --out bench-report
  bench-harness report --full --only fanout,big")]
struct ReportArgs {
    /// Medians of three short windows, a minute of the largest crowd: ten minutes at most (the default)
    #[arg(long)]
    quick: bool,
    /// Longer windows, medians of three runs, a soak of half an hour
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Some seconds, to see that everything works; the numbers mean nothing
    #[arg(long, conflicts_with_all = ["quick", "full"])]
    smoke: bool,
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = "bench-report")]
    out: PathBuf,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<String>,
    /// The relay to measure [default: `relay` beside this program]
    #[arg(long, value_name = "PATH")]
    relay: Option<PathBuf>,
}

/// The floor's server alone.
#[derive(Args)]
struct FloorServerArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5000))]
    interval_ms: u64,
}

/// Become another program, on a processor, as a user, bound to the parent's life.
#[derive(Args)]
struct LaunchArgs {
    #[arg(long)]
    cpu: Vec<usize>,
    #[arg(long)]
    user: Option<String>,
    #[arg(long)]
    parent: i32,
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// A path that can be written to when all is measured, as far as its folder tells now.
fn new_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder.is_none_or(Path::is_dir) && !path.is_dir() {
        true => Ok(path),
        false => Err("expected a file in a folder that is there".into()),
    }
}

fn patience(text: &str) -> Result<u64, String> {
    let ms = text.parse().ok().filter(|ms| (1..=60_000).contains(ms));
    ms.ok_or_else(|| "expected 1 to 60000 ms".into())
}

fn per_second(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    number
        .filter(|n| (1..=100_000).contains(n))
        .ok_or_else(|| "expected 1/s to 100000/s".into())
}

/// Does what was asked.
pub fn run(cli: Cli) -> Result<(), Error> {
    if let Command::Launch(args) = &cli.command {
        return Err(launch::become_program(
            &args.cpu,
            args.user.as_deref(),
            args.parent,
            &args.command,
        ));
    }
    let stop = Stop::install()?;
    match cli.command {
        Command::Source(args) => run_source(args, &stop),
        Command::Listeners(args) => run_listeners(args, &stop),
        Command::Floor(args) => run_floor(args, &stop),
        Command::Compare(args) => run_compare(args, &stop),
        Command::Join(args) => run_join(args, &stop),
        Command::Fanout(args) => loads::fanout(args, &stop),
        Command::Scale(args) => loads::scale(args, &stop),
        Command::Latency(args) => loads::latency(args, &stop),
        Command::Churn(args) => loads::churn(args, &stop),
        Command::Soak(args) => loads::soak(args, &stop),
        Command::Capacity(args) => loads::capacity(args, &stop),
        Command::Outlast(args) => loads::outlast(args, &stop),
        Command::Sink(args) => run_sink(args, &stop),
        Command::Report(args) => run_report(args, &stop),
        Command::Churners(args) => loads::churners(args, &stop),
        Command::FloorServer(args) => {
            raise_file_limit();
            floor_server::run(args.listen, Duration::from_millis(args.interval_ms), &stop)
        }
        Command::Launch(_) => Ok(()),
    }
}

fn run_source(args: SourceArgs, stop: &Stop) -> Result<(), Error> {
    let password = std::env::var(&args.password_env).ok();
    if password.is_none() {
        eprintln!("note: {} is not set, so no password is sent", args.password_env);
    }
    let plan = source::Plan {
        url: args.url,
        kbps: args.kbps,
        length: Duration::from_secs(args.seconds),
        kind: args.kind,
        gop: Duration::from_millis(args.gop_ms),
        tick: Duration::from_millis(args.packet_ms),
        method: args.method,
        user: args.user,
        password,
    };
    let bar = progress::seconds(args.seconds, "publishing");
    let report = source::run(&plan, Teller(args.events), stop, |second| {
        bar.set_position(second)
    })?;
    bar.finish_and_clear();
    if !args.events {
        let source::Report {
            seconds,
            groups,
            bytes,
            kbps,
            late_ms_max,
            write_ms_max,
        } = &report;
        say(format_args!(
            "published   {bytes} bytes in {groups} groups, {seconds:.1} s = {kbps:.0} kb/s"
        ));
        say(format_args!(
            "lateness    max {late_ms_max:.1} ms behind the clock, longest write {write_ms_max:.1} ms"
        ));
    }
    write_json(args.json.as_deref(), &report)
}

fn run_listeners(args: ListenersArgs, stop: &Stop) -> Result<(), Error> {
    check_stall(args.stall, args.count)?;
    if args.stall > 0 && args.url.is_rtmp() {
        let why = "--stall needs http://: without reading, nobody gets through the handshake of RTMP";
        return Err(Error::Usage(why.into()));
    }
    check_files(args.count)?;
    args.cpu.map_or(Ok(()), launch::pin)?;
    let plan = crowd::Plan {
        url: args.url,
        count: args.count as usize,
        from: args.from,
        not_before_ms: args.not_before_ms,
        ramp: args.ramp,
        patience: Duration::from_millis(args.patience_ms),
        sample: args.latency_sample as usize,
        stall: args.stall as usize,
        warm_up: Duration::from_secs(args.warm_up),
        window: Duration::from_secs(args.seconds),
    };
    let whole = u64::from(args.count / args.ramp) + args.warm_up + args.seconds;
    let bar = progress::seconds(whole, "listening");
    let report = crowd::run(&plan, Teller(args.events), stop, |second| {
        bar.set_position(second)
    })?;
    bar.finish_and_clear();
    if !args.events {
        say(&report);
    }
    write_json(args.json.as_deref(), &report)?;
    stop.check()?;
    match report.bytes {
        0 if args.stall < args.count => Err(Error::Failed("nobody got a byte".into())),
        _ if args.strict && !report.is_clean() => Err(Error::Failed("not everybody was served well".into())),
        _ => Ok(()),
    }
}

fn check_stall(stall: u32, count: u32) -> Result<(), Error> {
    if stall <= count {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "--stall {stall} is more than the {count} listeners"
    )))
}

fn check_files(count: u32) -> Result<(), Error> {
    let limit = raise_file_limit();
    if u64::from(count) + FILES_SPARE <= limit {
        return Ok(());
    }
    let needed = u64::from(count) + FILES_SPARE;
    Err(Error::Usage(format!(
        "{count} listeners need {needed} open files, the limit is {limit}: raise it (ulimit -Hn)"
    )))
}

impl LoadArgs {
    fn load(&self, listeners: u32) -> Result<Load, Error> {
        raise_file_limit();
        check_stall(self.stall, listeners)?;
        let cores = Machine::look().cores;
        let default = |cpu| (cores > 1).then_some(cpu);
        let load = Load {
            listeners: listeners as usize,
            kbps: self.kbps,
            seconds: self.seconds,
            interval_ms: self.interval_ms,
            warm_up_seconds: self.warm_up,
            ramp: self.ramp,
            patience_ms: self.patience_ms,
            sample: self.latency_sample as usize,
            stall: self.stall as usize,
            churn: 0,
            workers: self.workers.into(),
            cpu_server: self.cpu_server.or(default(0).filter(|_| self.workers == 1)),
            cpu_crowd: self.cpu_crowd.or(default(1)),
            crowd_cpus: None,
        };
        let missing = [load.cpu_server, load.cpu_crowd]
            .into_iter()
            .flatten()
            .find(|cpu| *cpu >= cores);
        match missing {
            Some(cpu) => Err(Error::Usage(format!(
                "there is no processor {cpu}: this machine has {cores}"
            ))),
            None => Ok(load),
        }
    }
}

fn run_floor(args: FloorArgs, stop: &Stop) -> Result<(), Error> {
    let load = args.load.load(args.count)?;
    measure(
        compare::Plan {
            targets: vec![Target::Ours(Kind::Floor)],
            runs: 1,
            relay: None,
            load,
        },
        args.load.json,
        stop,
    )
}

fn run_compare(args: CompareArgs, stop: &Stop) -> Result<(), Error> {
    let load = args.load.load(args.listeners)?;
    if let Some(path) = args.relay.as_ref().filter(|path| !path.is_file()) {
        return Err(Error::Usage(format!("--relay: there is no {}", path.display())));
    }
    let mut targets = targets(&args.against, args.skip_relay);
    targets.extend(args.running.target()?);
    let relay = args.relay.or_else(|| compare::beside_us("relay"));
    measure(
        compare::Plan {
            targets,
            runs: args.runs,
            relay,
            load,
        },
        args.load.json,
        stop,
    )
}

/// The floor first, for the ratios; then the relay and who else was asked for.
fn targets(against: &[Rival], skip_relay: bool) -> Vec<Target> {
    let asked = |rival| against.contains(&rival);
    let rows = [
        (Kind::Floor, asked(Rival::Floor)),
        (Kind::Relay, !skip_relay),
        (Kind::RelayMio, asked(Rival::Mio)),
        (Kind::Icecast, asked(Rival::Icecast2)),
        (Kind::NginxRtmp, asked(Rival::NginxRtmp)),
    ];
    rows.into_iter()
        .filter(|(_, wanted)| *wanted)
        .map(|(kind, _)| Target::Ours(kind))
        .collect()
}

fn measure(plan: compare::Plan, json: Option<PathBuf>, stop: &Stop) -> Result<(), Error> {
    let bar = progress::steps(u64::from(plan.runs) * plan.targets.len() as u64);
    let comparison = compare::run(&plan, &bar, stop)?;
    bar.finish_and_clear();
    say(comparison.text());
    write_json(json.as_deref(), &comparison)?;
    match comparison.is_complete() {
        true => Ok(()),
        false => Err(Error::Failed("not every server could be measured".into())),
    }
}

fn run_join(args: JoinArgs, stop: &Stop) -> Result<(), Error> {
    let plan = join::Plan {
        url: args.url,
        count: args.count as usize,
        patience: Duration::from_millis(args.patience_ms),
        pause: Duration::from_millis(args.pause_ms),
        limit: Duration::from_secs(args.limit),
    };
    let bar = progress::busy("sending newcomers");
    let report = join::run(&plan, stop)?;
    bar.finish_and_clear();
    say(&report);
    write_json(args.json.as_deref(), &report)?;
    stop.check()?;
    match report.joined {
        0 => Err(Error::Failed("no newcomer found a join point".into())),
        _ => Ok(()),
    }
}

fn run_sink(args: SinkArgs, stop: &Stop) -> Result<(), Error> {
    raise_file_limit();
    args.cpu.map_or(Ok(()), launch::pin)?;
    let plan = sink::Plan {
        way: args.way,
        peers: args.peers as usize,
        round: Duration::from_millis(args.round_ms),
    };
    let bar = progress::busy("sending into the sink");
    let report = sink::run(&plan, stop)?;
    bar.finish_and_clear();
    say(&report);
    write_json(args.json.as_deref(), &report)
}

fn run_report(args: ReportArgs, stop: &Stop) -> Result<(), Error> {
    let size = match (args.full, args.smoke) {
        (true, _) => Size::Full,
        (_, true) => Size::Smoke,
        _ => Size::Quick,
    };
    let known: Vec<&str> = report_plan::parts(size).iter().map(|part| part.key).collect();
    if let Some(wrong) = args.only.iter().find(|key| !known.contains(&key.as_str())) {
        let known = known.join(", ");
        return Err(Error::Usage(format!(
            "--only: there is no part {wrong}; there are {known}"
        )));
    }
    let plan = report::Plan {
        size,
        out: args.out,
        only: args.only,
        relay: args.relay,
    };
    let bar = progress::steps(0);
    let report = report::run(&plan, &bar, stop)?;
    bar.finish_and_clear();
    if size != Size::Smoke {
        say(table::findings(&report.findings));
    }
    for part in &report.parts {
        match (part.lacking, part.status) {
            (Some(lacking), _) => say(format_args!("{}: not measured: {lacking}", part.key)),
            (None, Some(0)) => {}
            _ => say(format_args!("{}: {}", part.key, part.why_not())),
        }
    }
    say(format_args!(
        "written to {} (and report.md, report.json)",
        plan.out.join("report.html").display()
    ));
    // The numbers of a smoke report mean nothing: that each command came to a good end is its result.
    let fine = |part: &&report::Done| part.is_fine() && (size != Size::Smoke || part.ended_well());
    match report.parts.iter().find(|part| !fine(part)) {
        None => Ok(()),
        Some(part) => Err(Error::Failed(format!(
            "`{}` failed: {}",
            part.command,
            part.text.trim_end()
        ))),
    }
}

fn write_json(path: Option<&Path>, value: &impl Serialize) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from);
    text.and_then(|text| std::fs::write(path, text + "\n"))
        .doing(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ramps_are_rates() {
        assert_eq!((per_second("500/s"), per_second("7")), (Ok(500), Ok(7)));
        assert!(per_second("0").is_err() && per_second("x/s").is_err() && per_second("5/m").is_err());
    }

    #[test]
    fn the_floor_is_measured_first() {
        let all = targets(&[Rival::Icecast2, Rival::Mio, Rival::Floor], false);
        let order = [Kind::Floor, Kind::Relay, Kind::RelayMio, Kind::Icecast];
        assert_eq!(all, order.map(Target::Ours));
        assert_eq!(targets(&[Rival::Icecast2], true), [Target::Ours(Kind::Icecast)]);
    }
}
