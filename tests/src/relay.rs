//! A running relay, and a running peer.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bins::bin;
use crate::http::{self, Answer, Talk};
use crate::process::{Process, Signal};
use crate::world::{Host, pass};

/// The password of the user `source` in every world.
pub const SOURCE_PASSWORD: &str = "penumbra";
/// The password of the user `admin`.
pub const ADMIN_PASSWORD: &str = "umbra";
/// What nodes show each other.
pub const NODE_TOKEN: &str = "saros-136-token";

/// How long a program may take to listen, on a machine that is busy.
const START: Duration = Duration::from_secs(15);
/// How long descriptors and the like may take to come back (oracle O3 says 2 s; machines are shared).
const SETTLE: Duration = Duration::from_secs(15);
/// Warnings and errors in a log, beyond which it is a flood (oracle O5), per second of the relay's life.
const LOG_LINES_PER_SECOND: usize = 10;

/// Waits until something is so; whether it came to be.
pub fn eventually(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        pass(20);
    }
}

/// The kernel interface that a relay is to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `io_uring`.
    Uring,
    /// `epoll`.
    Mio,
    /// What the relay finds best.
    Auto,
}

impl Backend {
    fn flag(self) -> &'static str {
        match self {
            Backend::Uring => "uring",
            Backend::Mio => "mio",
            Backend::Auto => "auto",
        }
    }
}

/// How a relay is started.
#[derive(Clone, Debug)]
pub struct Opts {
    backend: Backend,
    port: Option<u16>,
    workers: usize,
    batch: String,
    settings: Vec<(String, String)>,
    unset: Vec<&'static str>,
    args: Vec<String>,
    file: Option<String>,
    wrapper: Vec<String>,
}

impl Opts {
    /// One worker, the passwords of the world, and limits as they are by default.
    pub fn on(backend: Backend) -> Self {
        Self {
            backend,
            port: None,
            workers: 1,
            batch: "100ms".into(),
            settings: Vec::new(),
            unset: Vec::new(),
            args: Vec::new(),
            file: None,
            wrapper: Vec::new(),
        }
    }

    /// A key of the configuration, `section.key`, and its value.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        let name = format!("RELAY_{}", key.replace('.', "_").to_uppercase());
        self.settings.push((name, value.to_string()));
        self
    }

    /// Without one of the world's passwords.
    pub fn without(mut self, variable: &'static str) -> Self {
        self.unset.push(variable);
        self
    }

    /// A port of the caller's choice.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// So many workers.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The longest that bytes may wait for others.
    pub fn batch(mut self, time: &str) -> Self {
        time.clone_into(&mut self.batch);
        self
    }

    /// An upstream, after those named before.
    pub fn upstream(mut self, at: SocketAddr) -> Self {
        self.args.extend(["--upstream".into(), format!("http://{at}")]);
        self
    }

    /// More arguments of `relay run`.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// A configuration file with this text.
    pub fn file(mut self, toml: &str) -> Self {
        self.file = Some(toml.to_owned());
        self
    }

    /// A program, with arguments, that starts the relay in its turn (`prlimit`, `strace`, `setpriv`).
    pub fn under(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    fn command(&self, host: &Host, name: &str, at: SocketAddr) -> Command {
        let program = bin("relay");
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, args)) => {
                let mut command = Command::new(wrapper);
                command.args(args).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args([
            "run",
            "--listen",
            &at.to_string(),
            "--backend",
            self.backend.flag(),
        ]);
        command.args([
            "--workers",
            &self.workers.to_string(),
            "--max-batch-delay",
            &self.batch,
        ]);
        if let Some(text) = &self.file {
            let path = host.file(&format!("{name}.toml"));
            std::fs::write(&path, text).unwrap();
            command.arg("-c").arg(path);
        }
        command.args(&self.args);
        command.env("RELAY_AUTH_SOURCE_PASSWORD", SOURCE_PASSWORD);
        command.env("RELAY_AUTH_ADMIN_PASSWORD", ADMIN_PASSWORD);
        command.env("RELAY_AUTH_NODE_TOKEN", NODE_TOKEN);
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        for variable in &self.unset {
            command.env_remove(variable);
        }
        command
    }
}

/// A relay on a host. Its log is judged when it goes (oracle O5).
#[derive(Debug)]
pub struct Relay {
    host: Host,
    name: String,
    opts: Opts,
    at: SocketAddr,
    process: Process,
    began: Instant,
    quiet: bool,
}

impl Relay {
    /// Starts a relay and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn start(host: &Host, opts: Opts) -> Self {
        Self::start_as(host, "relay", opts)
    }

    /// The same under a name of its own, where a host has several.
    ///
    /// # Panics
    ///
    /// When it does not listen.
    pub fn start_as(host: &Host, name: &str, opts: Opts) -> Self {
        let at = SocketAddr::new(host.ip(), opts.port.unwrap_or_else(|| host.free_port()));
        let process = Process::start(host, name, opts.command(host, name, at));
        let mut relay = Self {
            host: host.clone(),
            name: name.to_owned(),
            opts,
            at,
            process,
            began: Instant::now(),
            quiet: true,
        };
        relay.await_listening();
        relay
    }

    fn await_listening(&mut self) {
        let listens = eventually(START, || {
            self.process.ended().is_some() || self.host.connect(self.at).is_ok()
        });
        let ended = self.process.ended();
        let said = self.process.said();
        assert!(
            listens && ended.is_none(),
            "expected a relay at {}, got {ended:?}: {said}",
            self.at
        );
    }

    /// Starts it again, as it was, at the same address.
    ///
    /// # Panics
    ///
    /// When it does not listen.
    pub fn start_again(&mut self) {
        self.process.kill9();
        // The kernel takes a dead process's ring down in its own time, and the listening socket with it.
        let free = || self.host.run(|| TcpListener::bind(self.at).is_ok());
        assert!(eventually(SETTLE, free), "{} is not free again", self.at);
        let command = self.opts.command(&self.host, &self.name, self.at);
        self.process = Process::start(&self.host, &self.name, command);
        self.began = Instant::now();
        self.await_listening();
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// The URL of a mount.
    pub fn url(&self, mount: &str) -> String {
        format!("http://{}{mount}", self.at)
    }

    /// Where ffmpeg publishes to.
    pub fn icecast_url(&self, mount: &str) -> String {
        format!("icecast://source:{SOURCE_PASSWORD}@{}{mount}", self.at)
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its process id. Under a wrapper that does not `exec`, the wrapper's child's.
    pub fn pid(&self) -> u32 {
        let own = self.process.pid();
        let children =
            std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let is_relay = |pid: u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("relay"))
        };
        if is_relay(own) {
            return own;
        }
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .find(|pid| is_relay(*pid))
            .unwrap_or(own)
    }

    /// Descriptors it holds.
    pub fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Memory it has resident, in KiB.
    pub fn rss_kib(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or(0)
    }

    /// Processor time it has used.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let rest = text.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse::<u64>().ok())
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// Asks for a path, from its own host.
    pub fn get(&self, path: &str) -> Answer {
        http::get(&self.host, self.at, path, "")
    }

    /// Asks for a path as the administrator.
    pub fn admin(&self, path: &str) -> Answer {
        http::get(&self.host, self.at, path, &http::basic("admin", ADMIN_PASSWORD))
    }

    /// Says bytes on a fresh connection, and hears what comes of it.
    pub fn ask(&self, bytes: &[u8], patience: Duration) -> Answer {
        Talk::open(&self.host, self.at).say(bytes).hear(patience)
    }

    /// A number it publishes, over all its labels; zero if it has none of that name.
    pub fn metric(&self, name: &str) -> u64 {
        let answer = self.get("/metrics");
        assert_eq!(answer.status(), Some(200), "/metrics: {}", answer.text());
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let mine = rest.starts_with(['{', ' '])
                || rest
                    .strip_prefix("_total")
                    .is_some_and(|r| r.starts_with(['{', ' ']));
            mine.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())
                .flatten()
        };
        text.lines().filter_map(value).sum::<f64>() as u64
    }

    /// What it has said.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Whether it still runs.
    pub fn lives(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().cast_signed());
        let _ = nix::sys::signal::kill(pid, signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        self.process.wait(patience)
    }

    /// Ends it as a power cut would.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to end, and says how it did.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        let ended = self.wait(Duration::from_secs(20));
        ended.unwrap_or_else(|| panic!("expected the relay to end on SIGTERM, it runs on"))
    }

    /// For scenarios in which the log is expected to be loud.
    pub fn expect_loud_log(&mut self) {
        self.quiet = false;
    }

    /// O3: descriptors return to what they were. A sweep of two is left for the control plane's own connections.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub fn expect_fds_back(&self, baseline: usize) {
        let back = eventually(SETTLE, || self.fds() <= baseline + 2);
        assert!(back, "expected {baseline} descriptors again, got {}", self.fds());
    }

    /// The process is there, and its data plane answers.
    ///
    /// # Panics
    ///
    /// When it is not, or does not.
    pub fn expect_alive(&mut self) {
        assert!(
            self.lives(),
            "expected the relay to live, got {:?}: {}",
            self.process.ended(),
            self.said()
        );
        let answer = self.ask(b"GET nothing\r\n\r\n", Duration::from_secs(10));
        assert_eq!(
            answer.status(),
            Some(400),
            "expected an answer, got {:?}",
            answer.text()
        );
    }

    /// O5.
    fn judge_log(&self) {
        let said = self.said();
        assert!(!said.contains("panicked at"), "{} panicked:\n{said}", self.name);
        let loud = said
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .count();
        let allowed = LOG_LINES_PER_SECOND * (self.began.elapsed().as_secs() as usize + 2);
        assert!(
            !self.quiet || loud <= allowed,
            "a log flood of {loud} lines from {}",
            self.name
        );
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.judge_log();
        }
    }
}

/// A running `peer-lite`.
#[derive(Debug)]
pub struct PeerLite {
    host: Host,
    at: SocketAddr,
    process: Process,
}

impl PeerLite {
    /// Follows a node's mount, and serves players on its own host.
    ///
    /// # Panics
    ///
    /// When it does not listen.
    pub fn start(host: &Host, url: &str) -> Self {
        Self::start_with(host, url, &[])
    }

    /// The same with more arguments.
    ///
    /// # Panics
    ///
    /// When it does not listen.
    pub fn start_with(host: &Host, url: &str, args: &[&str]) -> Self {
        let at = SocketAddr::new(host.ip(), host.free_port());
        let mut command = Command::new(bin("peer-lite"));
        let url = Some(url).filter(|url| !url.is_empty());
        command
            .args(url)
            .args(["--listen", &at.to_string()])
            .args(args)
            .env("RELAY_AUTH_NODE_TOKEN", NODE_TOKEN);
        let mut process = Process::start(host, "peer-lite", command);
        let listens = eventually(START, || process.ended().is_some() || host.connect(at).is_ok());
        assert!(
            listens && process.ended().is_none(),
            "expected a peer at {at}, got: {}",
            process.said()
        );
        let host = host.clone();
        Self { host, at, process }
    }

    /// Where players connect.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// What it has said.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// How it is doing, as it says itself; nothing when it does not answer.
    pub fn status(&self) -> serde_json::Value {
        let answer = http::get(&self.host, self.at, "/status", "");
        serde_json::from_slice(answer.body()).unwrap_or_default()
    }

    /// A number of its team's.
    pub fn team(&self, name: &str) -> i64 {
        self.status()["team"][name].as_i64().unwrap_or(0)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Opts {
    /// Runs the relay as the user nobody, under more wrappers.
    pub fn as_nobody(self, words: &[&str]) -> Self {
        let all = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            .iter()
            .chain(words);
        self.under(&all.copied().collect::<Vec<_>>())
    }
}
