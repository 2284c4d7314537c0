//! How to start each server that is compared, with a configuration that does not hold it back.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

use crate::error::{Doing, Error};
use crate::http::Url;
use crate::launch::{Guard, Launch};
use crate::stop::Stop;

/// The mount that every server serves.
pub(crate) const MOUNT: &str = "/bench.ts";
/// The same of a server that plays RTMP: an application and a stream.
const STREAM: &str = "/live/bench";
/// Channels of a measured relay, and connections that it keeps from its listeners.
const RELAY_CHANNELS: usize = 4;
const RELAY_RESERVED: usize = 20;
/// How long a server may take until its port is open.
const START_WAIT: Duration = Duration::from_secs(10);
/// Sources log in with this name everywhere.
pub(crate) const USER: &str = "source";
/// From here a source takes its password, and the relay the one to ask for.
pub(crate) const PASSWORD_ENV: &str = "RELAY_AUTH_SOURCE_PASSWORD";
/// What runs an untrusting server when we are root, by preference.
const PLAIN_USERS: [&str; 3] = ["icecast2", "icecast", "nobody"];

/// A server under measurement, which we start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Floor,
    Relay,
    RelayMio,
    Icecast,
    NginxRtmp,
}

/// A server that runs already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) url: Url,
    /// Whose CPU and memory to read.
    pub(crate) pid: Option<u32>,
    /// Publish to it first; else it has its stream already.
    pub(crate) publish: bool,
}

/// Whom to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Ours(Kind),
    Running(Running),
}

impl Target {
    pub(crate) fn name(&self) -> &str {
        match self {
            Target::Ours(kind) => kind.name(),
            Target::Running(running) => &running.name,
        }
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::Relay => "relay",
            Kind::RelayMio => "relay-mio",
            Kind::Icecast => "icecast2",
            Kind::NginxRtmp => "nginx-rtmp",
        }
    }
}

/// What the servers' starts have in common.
pub(crate) struct Setup<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) relay: Option<PathBuf>,
    pub(crate) listeners: usize,
    pub(crate) kbps: u32,
    pub(crate) interval: Duration,
    pub(crate) cpu: Option<usize>,
    /// Worker threads of the relay.
    pub(crate) workers: usize,
}

/// A server that answers on its port. Dropping it ends it, if it is ours.
pub(crate) struct Server {
    guard: Option<Guard>,
    pub(crate) pid: Option<u32>,
    pub(crate) url: Url,
    /// What a source logs in with; none is sent where this is none.
    pub(crate) password: Option<String>,
    pub(crate) publish: bool,
    log: Option<PathBuf>,
}

impl Server {
    /// One that somebody else started. A source's password comes from the environment.
    pub(crate) fn running(running: &Running) -> Server {
        Server {
            guard: None,
            pid: running.pid,
            url: running.url.clone(),
            password: std::env::var(PASSWORD_ENV).ok(),
            publish: running.publish,
            log: None,
        }
    }

    /// An error when it is gone, which it may not be before we end it.
    pub(crate) fn must_run(&mut self) -> Result<(), Error> {
        match (&mut self.guard, self.pid) {
            (Some(guard), _) => guard.must_run(),
            (None, Some(pid)) if !Path::new(&format!("/proc/{pid}")).exists() => {
                Err(Error::Failed(format!("there is no process {pid}")))
            }
            _ => Ok(()),
        }
    }

    /// Adds the end of the server's own words to an error, where we can read them.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match &self.log {
            Some(log) => explain(error, log),
            None => error,
        }
    }
}

impl Setup<'_> {
    /// The server, running: started, or somebody else's.
    pub(crate) fn open(&self, target: &Target, stop: &Stop) -> Result<Server, Error> {
        match target {
            Target::Ours(kind) => self.start(*kind, stop),
            Target::Running(running) => Ok(Server::running(running)),
        }
    }

    pub(crate) fn start(&self, kind: Kind, stop: &Stop) -> Result<Server, Error> {
        let address = free_port()?;
        let password = random_password()?;
        let log = self
            .directory
            .join(format!("{}-{}.log", kind.name(), address.port()));
        let launch = match kind {
            Kind::Floor => self.floor(address)?,
            Kind::Relay => self.relay(address, &password, "auto")?,
            Kind::RelayMio => self.relay(address, &password, "mio")?,
            Kind::Icecast => self.icecast(address, &password)?,
            Kind::NginxRtmp => self.nginx_rtmp(address)?,
        };
        let url = match kind {
            Kind::NginxRtmp => Url::local_rtmp(address, STREAM),
            _ => Url::local(address, MOUNT),
        };
        let mut guard = launch.cpu(self.cpu).start(kind.name(), &log, false)?;
        await_port(&mut guard, address, stop).map_err(|error| explain(error, &log))?;
        Ok(Server {
            pid: Some(guard.pid()),
            guard: Some(guard),
            url,
            password: Some(password),
            publish: true,
            log: Some(log),
        })
    }

    fn floor(&self, address: SocketAddr) -> Result<Launch, Error> {
        let launch = Launch::own("floor-server")?.flag("--listen", address);
        Ok(launch.flag("--interval-ms", self.interval.as_millis().max(1)))
    }

    fn relay(&self, address: SocketAddr, password: &str, backend: &str) -> Result<Launch, Error> {
        let launch = self.relay_launch(address)?.flag("--backend", backend);
        Ok(launch.env(PASSWORD_ENV, password))
    }

    /// A relay on this address, as this setup wants it, that nobody can publish to yet.
    pub(crate) fn relay_launch(&self, address: SocketAddr) -> Result<Launch, Error> {
        let relay = self.relay.clone().ok_or_else(|| {
            Error::Failed("no relay binary: build it (cargo build --release) or name it with --relay".into())
        })?;
        Ok(Launch::new(relay)
            .arg("run")
            .flag("--listen", address)
            .flag("--workers", self.workers)
            .flag("--limits-listeners", self.listeners + 100)
            // What is kept for other channels and their sources counts against the open files of the crowd.
            .flag("--limits-channels", RELAY_CHANNELS)
            .flag("--limits-reserved", RELAY_RESERVED)
            .flag("--max-batch-delay", format!("{}ms", self.interval.as_millis())))
    }

    /// Icecast refuses root, so it becomes an ordinary user; its files are that user's alone.
    fn icecast(&self, address: SocketAddr, password: &str) -> Result<Launch, Error> {
        let program = find(&["/usr/bin/icecast2", "/usr/bin/icecast", "/usr/local/bin/icecast"])
            .ok_or_else(|| Error::Missing("icecast2 is not installed (apt install icecast2)".into()))?;
        let user = plain_user();
        let home = self.directory.join(format!("icecast-{}", address.port()));
        let config = home.join("icecast.xml");
        let web = find(&[
            "/usr/share/icecast2",
            "/usr/share/icecast",
            "/usr/local/share/icecast",
        ]);
        let xml = icecast_xml(self, address, password, &home, &web.unwrap_or_default())?;
        self.furnish(&home, &config, &xml, user.as_ref())?;
        Ok(Launch::new(program)
            .arg("-c")
            .arg(config)
            .user(user.map(|user| user.name)))
    }

    /// One process, in the foreground, as an ordinary user, with its RTMP module: the listeners of a stream are one
    /// process's anyway.
    fn nginx_rtmp(&self, address: SocketAddr) -> Result<Launch, Error> {
        let program = find(&["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/nginx/sbin/nginx"]);
        let module = find(&[
            "/usr/lib/nginx/modules/ngx_rtmp_module.so",
            "/usr/share/nginx/modules/ngx_rtmp_module.so",
        ]);
        let (Some(program), Some(module)) = (program, module) else {
            let what = "nginx with its RTMP module is not installed (apt install nginx libnginx-mod-rtmp)";
            return Err(Error::Missing(what.into()));
        };
        let user = plain_user();
        let home = self.directory.join(format!("nginx-{}", address.port()));
        let config = home.join("nginx.conf");
        self.furnish(&home, &config, &nginx_conf(self, address, &module), user.as_ref())?;
        Ok(Launch::new(program)
            .arg("-p")
            .arg(&home)
            .arg("-c")
            .arg(config)
            .arg("-e")
            .arg("stderr")
            .user(user.map(|user| user.name)))
    }

    /// A folder with a configuration, both that user's alone.
    fn furnish(&self, home: &Path, config: &Path, text: &str, user: Option<&User>) -> Result<(), Error> {
        fs::create_dir(home)
            .and_then(|()| fs::write(config, ""))
            .and_then(|()| fs::set_permissions(config, fs::Permissions::from_mode(0o600)))
            .and_then(|()| fs::write(config, text))
            .and_then(|()| fs::set_permissions(self.directory, fs::Permissions::from_mode(0o711)))
            .doing(|| format!("cannot write {}", config.display()))?;
        let Some(user) = user else { return Ok(()) };
        let (uid, gid) = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        let given = chown(home, uid, gid).and_then(|()| chown(config, uid, gid));
        given.doing(|| format!("cannot give {} to {}", home.display(), user.name))
    }
}

/// Room for everyone, and a queue of 4,096 messages each (the default holds 256, of which audio and video are dropped
/// when it is full); large chunks, so that a picture is not cut into many.
fn nginx_conf(setup: &Setup<'_>, address: SocketAddr, module: &Path) -> String {
    let (clients, module) = (setup.listeners + 100, module.display());
    format!(
        "load_module {module};
daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
worker_rlimit_nofile {files};
events {{ worker_connections {clients}; }}
rtmp {{
  server {{
    listen {address};
    chunk_size 65536;
    max_message 64M;
    out_queue 4096;
    access_log off;
    application live {{ live on; }}
  }}
}}
",
        files = clients + 100
    )
}

fn plain_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    PLAIN_USERS
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
}

fn find(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Room for everyone, and a queue of at least 4 s (the default holds 2 s of 2 Mb/s and would drop listeners early).
fn icecast_xml(
    setup: &Setup<'_>,
    address: SocketAddr,
    password: &str,
    home: &Path,
    web: &Path,
) -> Result<String, Error> {
    let (clients, admin) = (setup.listeners + 100, random_password()?);
    let queue = (u64::from(setup.kbps) * 125 * 4).max(4 << 20);
    let (home, web, port, ip) = (home.display(), web.display(), address.port(), address.ip());
    Ok(format!(
        "<icecast>
  <location>bench</location><admin>bench@localhost</admin><hostname>localhost</hostname>
  <limits><clients>{clients}</clients><sources>2</sources><queue-size>{queue}</queue-size>
    <client-timeout>30</client-timeout><header-timeout>15</header-timeout><source-timeout>30</source-timeout>
    <burst-on-connect>1</burst-on-connect><burst-size>65535</burst-size></limits>
  <authentication><source-password>{password}</source-password><relay-password>{admin}</relay-password>
    <admin-user>admin</admin-user><admin-password>{admin}</admin-password></authentication>
  <listen-socket><port>{port}</port><bind-address>{ip}</bind-address></listen-socket>
  <fileserve>0</fileserve>
  <paths><basedir>{web}</basedir><logdir>{home}</logdir><webroot>{web}/web</webroot>
    <adminroot>{web}/admin</adminroot></paths>
  <logging><accesslog>access.log</accesslog><errorlog>error.log</errorlog><loglevel>2</loglevel></logging>
  <security><chroot>0</chroot></security>
</icecast>
"
    ))
}

/// A port nobody has just now.
pub(crate) fn free_port() -> Result<SocketAddr, Error> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(|| "no port on 127.0.0.1".into())?;
    probe.local_addr().doing(|| "no port on 127.0.0.1".into())
}

pub(crate) fn random_password() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Failed(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(crate) fn await_port(guard: &mut Guard, address: SocketAddr, stop: &Stop) -> Result<(), Error> {
    let deadline = Instant::now() + START_WAIT;
    while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
        stop.check()?;
        guard.must_run()?;
        if Instant::now() > deadline {
            return Err(Error::Failed(format!(
                "nothing listens on {address} after {START_WAIT:?}"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Adds the end of a server's own words to an error.
pub(crate) fn explain(error: Error, log: &Path) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    if lines.is_empty() || matches!(error, Error::Interrupted | Error::Missing(_)) {
        return error;
    }
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    Error::Failed(format!("{error}; its last words:\n  {}", lines.join("\n  ")))
}
