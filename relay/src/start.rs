//! `relay run`: from a configuration to a node at work, and what it prints on the way.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relay_driver::{Backend, probe};
use relay_source::Secret;

use crate::cli::Failure;
use crate::conductor::{self, AccessLog};
use crate::config::{Multicast, Settings, Sources, show_bytes, strange_env};
use crate::local::Local;
use crate::node::Node;
use crate::team::Doorway;
use crate::{keygen, logging, signals, steer};

/// How often it is looked whether all is well.
const LOOK: Duration = Duration::from_millis(250);

/// With room for fewer connections a node is not worth starting.
const CONNECTIONS_MIN: u64 = 16;

/// The environment as the configuration reads it; what is no UTF-8 is not there.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs a node until it is told to end.
///
/// # Errors
///
/// With code 2 for a configuration that cannot be used, with 1 for a node that cannot run.
pub fn run(file: Option<&Path>, flags: &BTreeMap<String, Vec<String>>) -> Result<(), Failure> {
    let mut settings = Settings::load(&Sources {
        file,
        env: &env,
        flags,
    })?;
    logging::start(&settings.log);
    warn_of_strange_env();
    let local = settings
        .local
        .as_ref()
        .map(Local::open)
        .transpose()
        .map_err(Failure::usage)?;
    let told = signals::listen()?;
    settings.station.cast = settings.multicast.as_ref().map(cast).transpose()?;
    let backend = choose(&settings)?;
    fit_descriptors(&mut settings)?;
    let made_up = file
        .is_none()
        .then(|| make_up_password(&mut settings))
        .transpose()?
        .flatten();
    let plan = steer::plan(settings.steer, settings.station.workers, settings.listen.ip());
    let mut plan = plan.map_err(|error| Failure::usage(error.to_string()))?;
    plan.zero_copy = settings.zero_copy;
    let doorway = settings.station.team.as_mut().map(Doorway::take);
    let doorway = doorway
        .transpose()
        .map_err(|error| cannot_lead(&error, &settings))?;
    let mut node = Node::open(
        settings.station.clone(),
        settings.listen,
        backend,
        &plan,
        desk(&settings, backend),
    )
    .map_err(|error| cannot_open(error, &settings))?;
    settings.watchdog.map(|limit| node.watch(limit)).transpose()?;
    doorway.map(|doorway| node.lead(doorway)).transpose()?;
    let mount = local.as_ref().and_then(|local| local.mount()).map(str::to_owned);
    say(&welcome(
        &settings,
        node.listen(),
        made_up.as_deref(),
        mount.as_deref(),
    ));
    if let Some(local) = local {
        node.play(local)?;
    }
    while told.recv_timeout(LOOK).is_err() {
        if node.has_failed() {
            node.close()?;
            return Err(Failure::runtime("the source cannot be played; the log says why"));
        }
        if node.is_broken() {
            node.close()?;
            return Err(Failure::runtime(
                "a worker has stopped by itself; the log says why",
            ));
        }
    }
    tracing::info!("closing; once more to close at once");
    node.close().map_err(Failure::from)
}

/// What the data plane is told of multicast, once the way to the group is known.
fn cast(multicast: &Multicast) -> Result<relay_station::CastSpec, Failure> {
    let (to, asked) = (multicast.to, multicast.interface.as_deref());
    let lan = relay_driver::lan(to.ip(), asked)
        .map_err(|why| Failure::usage(format!("multicast to {to}: {why}")))?;
    Ok(multicast.spec(&lan))
}

fn warn_of_strange_env() {
    let names: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .collect();
    for (name, near) in strange_env(names.iter().map(String::as_str)) {
        let hint = near.map_or_else(String::new, |near| format!("; the nearest known one is {near}"));
        tracing::warn!("{name} is set but means nothing{hint}");
    }
}

/// The backend, with a line that says which and why.
fn choose(settings: &Settings) -> Result<Backend, Failure> {
    let found = probe();
    let backend = settings.backend.unwrap_or(found.backend());
    match (backend, found.backend()) {
        (Backend::Uring, Backend::Mio) => Err(Failure::runtime(format!(
            "backend: expected io_uring, as server.backend says, but this host allows {}; \
             allow io_uring, or use --backend auto",
            found.why
        ))),
        (Backend::Mio, Backend::Uring) => {
            tracing::info!(
                "backend: mio (epoll), because server.backend says so; this host also allows {}",
                found.why
            );
            Ok(backend)
        }
        _ => {
            tracing::info!("backend: {}", found.why);
            Ok(backend)
        }
    }
}

/// Descriptors beside those of connections: rings, bells, logs, standard streams.
fn descriptors_beside(station: &relay_station::Config) -> u64 {
    64 + 16 * station.workers as u64 + 4 * station.channels_max as u64 + conductor::CONNECTIONS_MAX as u64
}

/// Raises the limit of open files as far as it is needed and allowed. A number of connections that was asked for and
/// cannot be had is an error; one that was not is lowered.
pub(crate) fn fit_descriptors(settings: &mut Settings) -> Result<(), Failure> {
    let beside = descriptors_beside(&settings.station);
    let needed = settings.station.connections_max as u64 + beside;
    let errno = |e: nix::Error| Failure::runtime(format!("cannot read the limit of open files: {e}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(errno)?;
    // Root may raise the hard limit as well.
    let may = needed <= hard || setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok();
    let allowed = if may { needed.max(hard) } else { hard };
    if soft < needed.min(allowed) {
        let raised = setrlimit(Resource::RLIMIT_NOFILE, needed.min(allowed), allowed);
        raised.map_err(|e| {
            Failure::runtime(format!("cannot raise the limit of open files to {needed}: {e}"))
        })?;
    }
    if allowed >= needed {
        return Ok(());
    }
    let room = allowed.saturating_sub(beside);
    if room < CONNECTIONS_MIN {
        return Err(Failure::usage(format!(
            "at most {allowed} files may be open here, but {} channels and {} workers alone need {}; \
             raise the limit (ulimit -n {needed}), or lower limits.channels",
            settings.station.channels_max,
            settings.station.workers,
            beside + CONNECTIONS_MIN
        )));
    }
    if settings.connections_given {
        return Err(Failure::usage(format!(
            "limits.connections: expected at most {room}, because at most {allowed} files may be open here, got {}; \
             raise the limit (ulimit -n {needed}, or LimitNOFILE={needed} in the systemd unit)",
            settings.station.connections_max
        )));
    }
    settings.station.connections_max = room as usize;
    settings.station.reserved = settings.station.reserved.min(room as usize / 4);
    settings.station.listener.max = settings
        .station
        .listener
        .max
        .min(room as usize - settings.station.reserved);
    tracing::info!(
        "only {allowed} files may be open here: {} listeners at most; for more, raise the limit (ulimit -n {needed})",
        settings.station.listener.max
    );
    Ok(())
}

/// The first minute with no configuration at all: a root on loopback gets a password, once.
fn make_up_password(settings: &mut Settings) -> Result<Option<String>, Failure> {
    let is_root = settings.station.upstreams.is_empty() && settings.local.is_none();
    if settings.takes_sources() || !is_root || !settings.listen.ip().is_loopback() {
        return Ok(None);
    }
    let password = keygen::short()?;
    settings.station.source.password = Some(Secret::new(&password).map_err(Failure::runtime)?);
    Ok(Some(password))
}

pub(crate) fn desk(settings: &Settings, backend: Backend) -> conductor::Settings {
    let defaults = conductor::Settings::default();
    let host = |ip: IpAddr| {
        if ip.is_unspecified() {
            defaults.hostname.clone()
        } else {
            ip.to_string()
        }
    };
    conductor::Settings {
        admin_password: settings.admin_password.clone(),
        page: settings.page,
        access_log: match settings.log.access.as_deref() {
            None => AccessLog::Off,
            Some(path) if path == Path::new("-") => AccessLog::Stdout,
            Some(path) => AccessLog::File(path.to_owned()),
        },
        started: SystemTime::now(),
        version: env!("CARGO_PKG_VERSION"),
        backend: match backend {
            Backend::Uring => "io_uring",
            Backend::Mio => "mio",
        }
        .to_owned(),
        hostname: settings
            .hostname
            .clone()
            .unwrap_or_else(|| host(settings.listen.ip())),
        contact: settings.contact.clone().unwrap_or(defaults.contact),
        location: settings.location.clone().unwrap_or(defaults.location),
    }
}

fn cannot_lead(error: &io::Error, settings: &Settings) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; --team-listen takes another address, and port 0 takes a free one",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    };
    let at = settings.station.team.as_ref().map(|team| team.listen.to_string());
    let at = at.unwrap_or_default();
    Failure::usage(format!(
        "team: cannot listen on {at} (TCP and UDP): {error}{remedy}"
    ))
}

fn cannot_open(error: io::Error, settings: &Settings) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; --listen takes another address, and port 0 takes a free one",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    };
    let text = error.to_string();
    match text.contains(&settings.listen.to_string()) {
        true => Failure::runtime(format!("{text}{remedy}")),
        false => Failure::runtime(format!("cannot open the node: {text}{remedy}")),
    }
}

/// What the limits add up to.
pub(crate) fn budget_line(station: &relay_station::Config) -> String {
    let budget = station.budget();
    let listeners = station.listener.max.max(1) as u64;
    format!(
        "budget: at most {}: {} channels × {}, {} listeners × {} here and {} in the kernel, {} of request heads",
        show_bytes(budget.total()),
        station.channels_max,
        show_bytes(budget.channels / station.channels_max.max(1) as u64),
        listeners,
        show_bytes(budget.listeners_user / station.connections_max.max(1) as u64),
        show_bytes(budget.listeners_kernel / listeners),
        show_bytes(budget.heads),
    )
}

/// What somebody needs to know who has just started a node.
fn welcome(settings: &Settings, listen: SocketAddr, made_up: Option<&str>, mount: Option<&str>) -> String {
    let base = format!("http://{}", reachable(listen));
    let mut out = format!(
        "Totality relay {} ({}), listening on {listen}, {} worker{}\n{}\n",
        env!("CARGO_PKG_VERSION"),
        settings.station.node_id,
        settings.station.workers,
        if settings.station.workers == 1 { "" } else { "s" },
        budget_line(&settings.station),
    );
    for upstream in &settings.station.upstreams {
        out += &format!("Upstream  {}\n", name_upstream(upstream));
    }
    out += &publish(settings, listen, made_up);
    out += &match mount {
        Some(mount) => format!("Listen    {base}{mount}   (ffplay, mpv, vlc, or a browser at {base}/)\n"),
        None => format!("Listen    {base}/MOUNT   (ffplay, mpv, vlc, or a browser at {base}/)\n"),
    };
    if let Some(multicast) = &settings.multicast {
        out += &multicast.welcome();
    }
    if let Some(team) = &settings.station.team {
        out += &format!(
            "Join      peer-lite p2psp://{}   (the team of {})\n",
            team.listen, team.mount
        );
    }
    out
}

fn name_upstream(spec: &relay_station::UpstreamSpec) -> String {
    let at = if spec.host.contains(':') {
        format!("[{}]:{}", spec.host, spec.port)
    } else {
        format!("{}:{}", spec.host, spec.port)
    };
    match (&spec.mount, &spec.plain_url) {
        (None, _) => format!("http://{at}: any channel, by link, while somebody listens"),
        (Some(mount), None) => format!("http://{at}{mount}: always, by link"),
        (Some(mount), Some(_)) => format!("http://{at}: pulled always, as {mount}"),
    }
}

fn publish(settings: &Settings, listen: SocketAddr, made_up: Option<&str>) -> String {
    if !settings.takes_sources() {
        return match settings.station.upstreams.is_empty() && settings.local.is_none() {
            true => "Publish   refused: there is no source password. \
                     Set RELAY_AUTH_SOURCE_PASSWORD (relay keygen makes one)\n          \
                     or auth.source_password in the file, and start again.\n"
                .to_owned(),
            false => {
                "Publish   refused, as there is no source password (RELAY_AUTH_SOURCE_PASSWORD)\n".to_owned()
            }
        };
    }
    let set = made_up.map_or_else(String::new, |password| {
        format!("          export RELAY_AUTH_SOURCE_PASSWORD={password}   # made up for this run, not shown again\n")
    });
    format!(
        "Publish   as user `source`, for example:\n{set}          \
         ffmpeg -re -i FILE -c copy -f mpegts -content_type video/mp2t \\\n            \
         icecast://source:$RELAY_AUTH_SOURCE_PASSWORD@{}/live.ts\n",
        reachable(listen)
    )
}

/// A wildcard cannot be connected to everywhere; loopback can.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => ([127, 0, 0, 1], listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    }
}

fn say(text: &str) {
    // Nobody may be reading; the node runs all the same.
    let _ = io::stderr().write_all(text.as_bytes());
}
