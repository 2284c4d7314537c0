//! `relay demo`: a root, a repeater and a peer on this machine, over real sockets, with the built-in picture.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use peer_lite::Peer;
use relay_driver::probe;
use relay_station::House;

use crate::cli::Failure;
use crate::config::{Settings, Sources, show_bytes};
use crate::local::Local;
use crate::node::Node;
use crate::{logging, signals, start, steer};

/// Where nothing has arrived in time, the judgement waits so much longer: a slow machine is no broken one.
const GRACE: Duration = Duration::from_secs(10);

/// Before its URLs are shown the chain is given so long to come up; usually it takes a moment.
const COMING_UP: Duration = Duration::from_secs(5);

/// The picture, for players.
const TS: &str = "/eclipse.ts";
/// The picture, for browsers.
const WEBM: &str = "/eclipse.webm";

/// The status line is rewritten so often on a terminal.
const TICK: Duration = Duration::from_millis(500);
/// Elsewhere a line is written so often.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How to show it.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// End after so many seconds, and say whether every hop worked
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// The root's port N; the repeater takes N+10, the peer N+1999. 0: free ones
    #[arg(long, value_name = "N", default_value_t = 8000)]
    pub port: u16,
}

/// Runs it.
///
/// # Errors
///
/// With code 1 when a port is taken, or when something did not arrive at the other end.
pub fn run(options: &Options) -> Result<(), Failure> {
    let told = signals::listen()?;
    let chain = Chain::open(options.port)?;
    say(&chain.banner());
    let mut screen = Screen::new();
    let end = options.seconds.map(|n| Instant::now() + Duration::from_secs(n));
    loop {
        let left = end.map_or(TICK, |end| {
            end.saturating_duration_since(Instant::now()).min(TICK)
        });
        if told.recv_timeout(left.max(TICK / 10)).is_ok() || end.is_some_and(|end| chain.may_end(end)) {
            break;
        }
        chain.check()?;
        screen.show(&chain);
    }
    screen.end();
    chain.close(options.seconds.is_some())
}

/// The three, from the source on.
#[derive(Debug)]
struct Chain {
    root: Node,
    repeater: Node,
    peer: Peer,
    backend: String,
}

impl Chain {
    fn open(port: u16) -> Result<Self, Failure> {
        let [root, repeater, peer] = ports(port)?;
        let found = probe();
        let open = |name: &str, listen: SocketAddr, upstream: Option<SocketAddr>| {
            let mut settings = settings(upstream)?;
            settings.listen = listen;
            settings.station.node_id = name.to_owned();
            logging::start(&settings.log);
            start::fit_descriptors(&mut settings)?;
            let desk = start::desk(&settings, found.backend());
            let plan = steer::plan(settings.steer, settings.station.workers, listen.ip());
            let plan = plan.map_err(|error| Failure::usage(error.to_string()))?;
            Node::open(settings.station, listen, found.backend(), &plan, desk)
                .map_err(|error| taken(error, listen))
        };
        let root = open("root", root, None)?;
        root.play(Local::clip(
            TS,
            relay_clip::ECLIPSE_TS,
            "Eclipse (built-in picture)",
        ))?;
        root.play(Local::clip(
            WEBM,
            relay_clip::ECLIPSE_WEBM,
            "Eclipse, for browsers",
        ))?;
        wait_until(|| carries(&root));
        let repeater = open("repeater", repeater, Some(root.listen()))?;
        wait_until(|| carries(&repeater));
        let url = format!("http://{}{TS}", repeater.listen());
        let options = peer_lite::Options {
            listen: peer,
            plain_too: false,
            ..peer_lite::Options::new(&url)
        };
        let peer = Peer::start(options).map_err(|error| taken(error, peer))?;
        wait_until(|| !peer.status().via.is_empty());
        Ok(Self {
            root,
            repeater,
            peer,
            backend: found.why,
        })
    }

    fn banner(&self) -> String {
        let (root, repeater) = (self.root.listen(), self.repeater.listen());
        let player = self.peer.player_url();
        let bold = |text: &str| {
            if io::stderr().is_terminal() {
                format!("\x1b[1m{text}\x1b[0m")
            } else {
                text.into()
            }
        };
        format!(
            "{}\n\n  \
             picture ──▶ root {root} ──link──▶ repeater {repeater} ──link──▶ peer {} ──▶ your player\n  \
             on {}\n\n\
             {}\n  \
             mpv     {player}\n  \
             vlc     {player}\n  \
             ffplay  {player}\n  \
             browser http://{root}/   (the page; the picture alone: http://{root}{WEBM})\n\n\
             {}\n  \
             ffplay  http://{root}{TS}\n  \
             ffplay  http://{repeater}{TS}\n  \
             curl    {player}status\n\n\
             Nothing here can be reached from outside this machine. Ctrl-C ends it.\n\n",
            bold("Totality: a live relay, from end to end on this machine"),
            self.peer.listen(),
            self.backend,
            bold("Watch at the end of the chain:"),
            bold("Or at any hop:"),
        )
    }

    fn may_end(&self, end: Instant) -> bool {
        let now = Instant::now();
        now >= end + GRACE || (now >= end && self.peer.status().bytes_in > 0)
    }

    fn check(&self) -> Result<(), Failure> {
        let broken = [
            ("root", self.root.is_broken()),
            ("repeater", self.repeater.is_broken()),
            ("peer", self.peer.is_broken()),
        ];
        match broken.iter().find(|(_, broken)| *broken) {
            Some((name, _)) => Err(Failure::runtime(format!(
                "a worker of the {name} has stopped by itself"
            ))),
            None => Ok(()),
        }
    }

    /// Says what went through each hop, and whether that was all.
    fn close(self, judge: bool) -> Result<(), Failure> {
        let (root, repeater) = (Traffic::of(self.root.house()), Traffic::of(self.repeater.house()));
        let peer = self.peer.status();
        let at_peer = Traffic {
            heard: peer.bytes_in,
            told: peer.bytes_out,
            ..Traffic::default()
        };
        for (name, traffic) in [("root", root), ("repeater", repeater), ("peer", at_peer)] {
            say(&format!(
                "{name:<9} {:>9} in  {:>9} out\n",
                show_bytes(traffic.heard),
                show_bytes(traffic.told)
            ));
        }
        // At once: each may have players that it takes a while to let go.
        let Self {
            root,
            repeater,
            peer: last,
            ..
        } = self;
        let closed = std::thread::scope(|scope| {
            let all = [
                scope.spawn(|| last.stop()),
                scope.spawn(|| repeater.close()),
                scope.spawn(|| root.close()),
            ];
            all.map(|one| {
                one.join()
                    .unwrap_or_else(|_| Err(io::Error::other("closing failed")))
            })
        });
        closed.into_iter().collect::<io::Result<()>>()?;
        if judge {
            judgement(&peer)?;
        }
        Ok(())
    }
}

fn judgement(peer: &peer_lite::Status) -> Result<(), Failure> {
    if peer.bytes_in == 0 {
        return Err(Failure::runtime(
            "nothing arrived at the peer: the chain is broken",
        ));
    }
    say(&format!(
        "Every hop worked: the peer held {:.1} s of the picture, with {} gaps.\n",
        peer.buffer_seconds, peer.gaps
    ));
    Ok(())
}

/// No file and no environment: the demo is the same everywhere.
fn settings(upstream: Option<SocketAddr>) -> Result<Settings, Failure> {
    let mut flags: BTreeMap<String, Vec<String>> = [
        ("server.workers", "1"),
        ("limits.listeners", "500"),
        ("limits.channels", "4"),
        ("log.level", "warn"),
    ]
    .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
    .into();
    if let Some(upstream) = upstream {
        let mounts = [TS, WEBM].map(|mount| format!("http://{upstream}{mount}"));
        flags.insert("upstreams.list".into(), mounts.into());
    }
    Ok(Settings::load(&Sources {
        file: None,
        env: &|_| None,
        flags: &flags,
    })?)
}

/// Where the three listen.
fn ports(port: u16) -> Result<[SocketAddr; 3], Failure> {
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if port == 0 {
        return free_ports().map_err(Failure::from);
    }
    let all = port.checked_add(10).zip(port.checked_add(1999));
    let (repeater, peer) = all.ok_or_else(|| {
        Failure::usage(format!(
            "--port: expected a number up to {}, got {port}",
            u16::MAX - 1999
        ))
    })?;
    Ok([at(port), at(repeater), at(peer)])
}

/// Three that nobody uses at the moment.
fn free_ports() -> io::Result<[SocketAddr; 3]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let all = [bind()?, bind()?, bind()?];
    Ok([all[0].local_addr()?, all[1].local_addr()?, all[2].local_addr()?])
}

fn taken(error: io::Error, at: SocketAddr) -> Failure {
    match error.kind() {
        io::ErrorKind::AddrInUse => Failure::runtime(format!(
            "port {} is in use; --port takes other ones, and --port 0 free ones",
            at.port()
        )),
        _ => Failure::from(error),
    }
}

/// Whether both forms of the picture are on the air.
fn carries(node: &Node) -> bool {
    [TS, WEBM].iter().all(|mount| {
        node.house()
            .directory
            .get(mount)
            .is_some_and(|channel| channel.run().is_some())
    })
}

/// Waits, but not for ever: what does not come up is seen soon enough.
fn wait_until(ready: impl Fn() -> bool) {
    let began = Instant::now();
    while !ready() && began.elapsed() < COMING_UP {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Numbers of one node.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    heard: u64,
    told: u64,
    listeners: u64,
}

impl Traffic {
    fn of(house: &House) -> Self {
        let mut all = Self::default();
        for worker in 0..house.config.workers {
            let counters = house.counters(worker);
            all.heard += counters.bytes_heard.get();
            all.told += counters.bytes_told.get();
            all.listeners += counters.listeners.get();
        }
        all
    }
}

/// The live line.
#[derive(Debug)]
struct Screen {
    terminal: bool,
    last: Option<(Instant, [Traffic; 3])>,
    written: Instant,
}

impl Screen {
    fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            last: None,
            written: Instant::now(),
        }
    }

    fn show(&mut self, chain: &Chain) {
        let peer = chain.peer.status();
        let at_peer = Traffic {
            heard: peer.bytes_in,
            told: peer.bytes_out,
            listeners: peer.listeners,
        };
        let traffic = [
            Traffic::of(chain.root.house()),
            Traffic::of(chain.repeater.house()),
            at_peer,
        ];
        let due = self.terminal || self.written.elapsed() >= LINE_EVERY;
        let Some((since, before)) = self.last.filter(|_| due) else {
            if self.last.is_none() {
                self.last = Some((Instant::now(), traffic));
            }
            return;
        };
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        let hop = |i: usize, name: &str| {
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 * 8e-6 / seconds;
            let (heard, told) = (
                rate(traffic[i].heard, before[i].heard),
                rate(traffic[i].told, before[i].told),
            );
            format!(
                "{name} {heard:.1}▸{told:.1} Mb/s {}",
                people(traffic[i].listeners)
            )
        };
        let line = format!(
            "{} │ {} │ {}, buffer {:.1} s",
            hop(0, "root"),
            hop(1, "repeater"),
            hop(2, "peer"),
            peer.buffer_seconds
        );
        say(&if self.terminal {
            format!("\r\x1b[K{line}")
        } else {
            format!("{line}\n")
        });
        self.last = Some((Instant::now(), traffic));
        self.written = Instant::now();
    }

    fn end(&self) {
        if self.terminal {
            say("\n");
        }
        say("\n");
    }
}

fn people(n: u64) -> String {
    format!("{n} listener{}", if n == 1 { "" } else { "s" })
}

fn say(text: &str) {
    // Nobody may be reading; the show goes on.
    let _ = io::stderr().write_all(text.as_bytes());
}
