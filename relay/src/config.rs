//! Configuration: flags over environment over file over defaults, each value with where it came from.
//!
//! `config/keys.rs` has the table of everything that can be set; this file says what each value must be.

mod cast;
mod error;
mod file;
mod keys;
mod show;
mod team;
#[cfg(test)]
mod tests;
mod units;
mod upstream;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relay_driver::{Backend, ZeroCopy};
use relay_link::Token;
use relay_source::Secret;
use relay_station::UpstreamSpec;

use crate::steer::Steer;

pub use cast::Multicast;
pub use error::{Error, Origin};
pub use keys::{KEYS, Key, SECTIONS, Shape};
pub use show::example;
pub use units::show_bytes;

use crate::watchdog;

use values::{Field, Values};

/// Workers at most: the channels' wake-up masks have so many bits.
pub const WORKERS_MAX: u64 = 64;

/// Connections beyond the listeners, where nothing is said.
const CONNECTIONS_BESIDE: usize = 1000;

/// Where values come from.
pub struct Sources<'a> {
    /// The file, if there is one.
    pub file: Option<&'a Path>,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Flags: values by `section.name`.
    pub flags: &'a BTreeMap<String, Vec<String>>,
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// A backend, if one is forced.
    pub backend: Option<Backend>,
    /// Which worker a newcomer comes to.
    pub steer: Steer,
    /// Whether workers send without a copy.
    pub zero_copy: ZeroCopy,
    /// What the data plane is told.
    pub station: relay_station::Config,
    /// Whether the number of connections was given, and must not be lowered in silence.
    pub connections_given: bool,
    /// After so long without a turn, a worker is stuck; none: nobody watches.
    pub watchdog: Option<Duration>,
    /// The password of `admin`.
    pub admin_password: Option<Secret>,
    /// Whether there is a page.
    pub page: bool,
    /// The name that others know.
    pub hostname: Option<String>,
    /// Whom to write to.
    pub contact: Option<String>,
    /// Where it stands.
    pub location: Option<String>,
    /// A channel from a file or a pipe.
    pub local: Option<Local>,
    /// A channel for the whole LAN.
    pub multicast: Option<Multicast>,
    /// Logs.
    pub log: Log,
    values: Values,
}

/// A channel from a file or from standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The file; none: standard input.
    pub file: Option<PathBuf>,
    /// Again and again.
    pub looped: bool,
    /// Its mount; none: from its name.
    pub mount: Option<String>,
    /// A rate in place of its clock, in kbit/s.
    pub kbps: Option<u32>,
    /// Its media type.
    pub content_type: Option<String>,
    /// Its name, for people.
    pub name: Option<String>,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// As JSON, not for people.
    pub json: bool,
    /// A level or a filter.
    pub level: String,
    /// The access log: none, `-` or a file.
    pub access: Option<PathBuf>,
}

impl Settings {
    /// Reads and checks everything.
    ///
    /// # Errors
    ///
    /// The first mistake, with its place.
    pub fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let mut values = Values::default();
        if let Some(path) = sources.file {
            file::read(path, &mut values)?;
        }
        values.set_env(sources.env);
        values.set_flags(sources.flags);
        Reader(&values).settings()
    }

    /// The effective configuration as TOML, with where each value came from; secrets are `***`.
    pub fn show(&self) -> String {
        show::effective(&self.values)
    }

    /// Whether sources may publish anywhere.
    pub fn takes_sources(&self) -> bool {
        let station = &self.station;
        station.source.password.is_some() || station.mounts.values().any(|m| m.password.is_some())
    }
}

/// Names in the environment that look like keys and are none, with the nearest that is one.
pub fn strange_env<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(String, Option<String>)> {
    let known: Vec<String> = KEYS.iter().map(Key::env).collect();
    let is_ours = |name: &&str| {
        SECTIONS
            .iter()
            .any(|(s, _)| name.starts_with(&format!("RELAY_{}_", s.to_uppercase())))
    };
    let strange = names
        .filter(is_ours)
        .filter(|name| !known.iter().any(|k| k == name));
    let near = |name: &str| error::nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
    strange.map(|name| (name.to_owned(), near(name))).collect()
}

/// Turns values into settings.
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn settings(&self) -> Result<Settings, Error> {
        let listen = self.need(
            "server",
            "listen",
            "an address such as 127.0.0.1:8000 or [::]:8000",
            |t| t.parse().ok(),
        )?;
        let backend = match self.need("server", "backend", "uring, mio or auto", backend)? {
            Choice::Auto => None,
            Choice::This(backend) => Some(backend),
        };
        let (connections_given, station) = self.station()?;
        Ok(Settings {
            listen,
            backend,
            steer: self.need("server", "steer", "cpu, hash or auto", Steer::read)?,
            zero_copy: self.need("server", "zero_copy", "auto, off or always", zero_copy)?,
            station,
            connections_given,
            watchdog: self.watchdog()?,
            admin_password: self.secret("admin_password")?,
            page: self.switch("server", "page")?,
            hostname: self.words("server", "hostname")?,
            contact: self.words("server", "contact")?,
            location: self.words("server", "location")?,
            local: self.local()?,
            multicast: self.multicast()?,
            log: self.log()?,
            values: self.0.clone(),
        })
    }

    fn watchdog(&self) -> Result<Option<Duration>, Error> {
        let (least, most) = (watchdog::LIMIT_MIN, Duration::from_secs(3600));
        let limit = self.need("server", "watchdog", "0s or a time from 1s to 1h", |text| {
            units::time(text).filter(|limit| limit.is_zero() || (least..=most).contains(limit))
        })?;
        Ok((!limit.is_zero()).then_some(limit))
    }

    fn station(&self) -> Result<(bool, relay_station::Config), Error> {
        let source = self.source()?;
        let listener = self.listener()?;
        let (given, connections_max) = self.connections(listener.max)?;
        let reserved = self.count("limits", "reserved", 0, connections_max as u64)? as usize;
        let team = self.team()?;
        let config = relay_station::Config {
            node_id: self.node_id()?,
            software: concat!("totality/", env!("CARGO_PKG_VERSION")).into(),
            workers: self.workers()?,
            max_batch_delay: self.time(
                "server",
                "max_batch_delay",
                Duration::ZERO,
                Duration::from_secs(5),
            )?,
            connections_max,
            reserved,
            head_timeout: self.time(
                "limits",
                "head_timeout",
                Duration::from_millis(100),
                Duration::from_secs(600),
            )?,
            channels_max: self.count("limits", "channels", 1, 65_536)? as usize,
            ring_bytes: self.bytes("limits", "ring", 256 << 10, 1 << 32)? as usize,
            ring_seconds: self.count("limits", "ring_seconds", 1, 3600)? as u32,
            ring_max_bytes: self.bytes("limits", "ring_max", 65536, 1 << 32)? as usize,
            chunk_size: self.count("limits", "chunk_size", 188, 32_768)? as u16,
            listener,
            mounts: self.mounts(&source)?,
            source,
            node_token: self.token()?,
            upstream_timing: relay_link::UpstreamsConfig::default(),
            root_mount: None,
            upstreams: self.upstreams()?,
            on_demand: true,
            // Its interface is looked for at the start.
            cast: None,
            team,
        };
        Ok((given, config))
    }

    fn listener(&self) -> Result<relay_listener::Config, Error> {
        let minute = Duration::from_secs(60);
        Ok(relay_listener::Config {
            max: self.count("limits", "listeners", 1, 10_000_000)? as usize,
            max_per_prefix: self.count("limits", "per_prefix", 0, 10_000_000)? as usize,
            burst: self.bytes("limits", "burst", 0, 64 << 20)? as u32,
            turn_bytes: self.bytes("limits", "turn_bytes", 1500, 16 << 20)? as u32,
            send_buffer: self.bytes("limits", "send_buffer", 4096, 16 << 20)? as u32,
            unsent: self.bytes("limits", "unsent", 4096, 16 << 20)? as u32,
            dead_after: self.time("limits", "dead_after", Duration::from_secs(1), 60 * minute)?,
            patience: self.time("limits", "patience", Duration::ZERO, 10 * minute)?,
            jumps_max: self.count("limits", "jumps", 1, 255)? as u8,
            jump_memory: self.time("limits", "jump_memory", Duration::from_secs(1), 60 * minute)?,
        })
    }

    fn connections(&self, listeners: usize) -> Result<(bool, usize), Error> {
        let auto = listeners + CONNECTIONS_BESIDE;
        let Some(field) = self
            .0
            .text("limits", "connections")
            .filter(|field| field.text != "auto")
        else {
            return Ok((false, auto));
        };
        let least = listeners as u64 + 1;
        let expected = format!("auto or a whole number over {listeners} (limits.listeners)");
        Ok((
            true,
            field.read(&expected, |t| units::number(t, least, 100_000_000))? as usize,
        ))
    }

    fn workers(&self) -> Result<usize, Error> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.need(
            "server",
            "workers",
            &format!("auto or a whole number from 1 to {WORKERS_MAX}"),
            |text| match text {
                "auto" => Some(cores.min(WORKERS_MAX as usize)),
                text => units::number(text, 1, WORKERS_MAX).map(|n| n as usize),
            },
        )
    }

    fn node_id(&self) -> Result<String, Error> {
        let Some(field) = self.0.text("server", "node_id") else {
            return Ok(format!(
                "node-{:08x}",
                getrandom::u32().unwrap_or_else(|_| std::process::id())
            ));
        };
        let expected = "1 to 64 visible ASCII characters without a comma";
        field.read(expected, |id| {
            relay_link::ServeConfig::new(id, None).ok().map(|_| id.to_owned())
        })
    }

    fn source(&self) -> Result<relay_source::Config, Error> {
        let mut config = relay_source::Config {
            password: self.secret("source_password")?,
            ..Default::default()
        };
        for name in keys::MOUNT_KEYS {
            if let Some(field) = self.0.text("source", name) {
                set_source(&mut config, name, &field)?;
            }
        }
        Ok(config)
    }

    /// What is not said of a mount is as for all.
    fn mounts(&self, all: &relay_source::Config) -> Result<BTreeMap<String, relay_source::Config>, Error> {
        let mut mounts = BTreeMap::new();
        for (mount, given) in &self.0.mounts {
            let mut config = all.clone();
            for (name, value) in given {
                let key = format!("mounts.{mount:?}.{name}");
                match Field::of(&key, value.clone(), *name == "password") {
                    Some(field) => set_source(&mut config, name, &field)?,
                    None if *name == "fallback" => config.fallback = None,
                    None if *name == "max_rate" => config.max_rate = None,
                    None => {
                        let empty = Field {
                            key,
                            text: String::new(),
                            origin: value.origin.clone(),
                            secret: false,
                        };
                        return Err(empty.wrong("a value"));
                    }
                }
            }
            mounts.insert(mount.clone(), config);
        }
        Ok(mounts)
    }

    fn upstreams(&self) -> Result<Vec<UpstreamSpec>, Error> {
        let mut list = Vec::new();
        for field in self.0.list("upstreams", "list") {
            list.push(upstream::follow(&field)?);
        }
        for field in self.0.list("upstreams", "pull") {
            list.push(upstream::pull(&field)?);
        }
        Ok(list)
    }

    fn local(&self) -> Result<Option<Local>, Error> {
        let Some(source) = self.0.text("local", "source") else {
            return self.stray_local().map(|()| None);
        };
        let looped = self.switch("local", "loop")?;
        if looped && source.text == "-" {
            return Err(source.wrong("a file, because of loop (standard input cannot be rewound)"));
        }
        let kbps = self.0.text("local", "kbps");
        let mount = self.0.text("local", "mount");
        Ok(Some(Local {
            file: (source.text != "-").then(|| source.text.clone().into()),
            looped,
            mount: mount
                .map(|field| field.read(upstream::A_MOUNT, upstream::mount))
                .transpose()?,
            kbps: kbps
                .map(|f| {
                    f.read("a whole number from 1 to 1000000 (kbit/s)", |t| {
                        units::number(t, 1, 1_000_000)
                    })
                })
                .transpose()?
                .map(|n| n as u32),
            content_type: self.words("local", "content_type")?,
            name: self.words("local", "name")?,
        }))
    }

    /// Flags of a local channel without one are a mistake that would go unnoticed.
    fn stray_local(&self) -> Result<(), Error> {
        let names = ["loop", "mount", "kbps", "content_type", "name"];
        let is_stray = |field: &Field| field.origin != Origin::Default && field.text != "false";
        let stray = names
            .iter()
            .find_map(|name| self.0.text("local", name).filter(is_stray));
        match stray {
            Some(field) => Err(field.wrong("a local.source (--source FILE or --source -) to go with it")),
            None => Ok(()),
        }
    }

    fn log(&self) -> Result<Log, Error> {
        Ok(Log {
            json: self.need("log", "format", "human or json", |t| match t {
                "human" => Some(false),
                "json" => Some(true),
                _ => None,
            })?,
            level: self.need(
                "log",
                "level",
                "error, warn, info, debug, trace or a filter",
                |t| {
                    tracing_subscriber::EnvFilter::try_new(t)
                        .ok()
                        .map(|_| t.to_owned())
                },
            )?,
            access: self.0.text("log", "access").map(|field| field.text.into()),
        })
    }

    fn secret(&self, name: &str) -> Result<Option<Secret>, Error> {
        self.0
            .text("auth", name)
            .map(|field| read_secret(&field))
            .transpose()
    }

    fn token(&self) -> Result<Option<Token>, Error> {
        let Some(field) = self.0.text("auth", "node_token") else {
            return Ok(None);
        };
        let text = secret_text(&field)?;
        field
            .read("1 to 256 visible ASCII characters", |_| Token::new(&text).ok())
            .map(Some)
    }

    /// Words that end up in header fields.
    fn words(&self, section: &str, name: &str) -> Result<Option<String>, Error> {
        let Some(field) = self.0.text(section, name) else {
            return Ok(None);
        };
        let clean = |t: &str| (t.len() <= 256 && !t.chars().any(char::is_control)).then(|| t.to_owned());
        field
            .read("at most 256 bytes without control characters", clean)
            .map(Some)
    }

    fn switch(&self, section: &str, name: &str) -> Result<bool, Error> {
        self.need(section, name, "true or false", units::switch)
    }

    fn count(&self, section: &str, name: &str, min: u64, max: u64) -> Result<u64, Error> {
        self.need(
            section,
            name,
            &format!("a whole number from {min} to {max}"),
            |t| units::number(t, min, max),
        )
    }

    fn bytes(&self, section: &str, name: &str, min: u64, max: u64) -> Result<u64, Error> {
        let expected = format!(
            "a size from {} to {}, such as 64KiB",
            show_bytes(min),
            show_bytes(max)
        );
        self.need(section, name, &expected, |t| {
            units::bytes(t).filter(|n| (min..=max).contains(n))
        })
    }

    fn time(&self, section: &str, name: &str, min: Duration, max: Duration) -> Result<Duration, Error> {
        let (least, most) = (humantime::format_duration(min), humantime::format_duration(max));
        let expected = format!("a time from {least} to {most}, such as 100ms or 10s");
        self.need(section, name, &expected, |t| {
            units::time(t).filter(|d| (min..=max).contains(d))
        })
    }

    /// A key that has a default; written as nothing it is wrong.
    fn need<T>(
        &self,
        section: &str,
        name: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let empty = || Field {
            key: format!("{section}.{name}"),
            text: String::new(),
            origin: keys::find(section, name).map_or(Origin::Default, |key| self.0.get(key).origin),
            secret: false,
        };
        self.0
            .text(section, name)
            .unwrap_or_else(empty)
            .read(expected, read)
    }
}

enum Choice {
    Auto,
    This(Backend),
}

fn backend(text: &str) -> Option<Choice> {
    match text {
        "auto" => Some(Choice::Auto),
        "uring" => Some(Choice::This(Backend::Uring)),
        "mio" => Some(Choice::This(Backend::Mio)),
        _ => None,
    }
}

fn zero_copy(text: &str) -> Option<ZeroCopy> {
    match text {
        "auto" => Some(ZeroCopy::Auto),
        "off" => Some(ZeroCopy::Off),
        "always" => Some(ZeroCopy::Always),
        _ => None,
    }
}

/// One key of `[source]` or of a mount.
fn set_source(config: &mut relay_source::Config, name: &str, field: &Field) -> Result<(), Error> {
    let time = |max: u64| {
        let expected = format!(
            "a time from 0s to {}",
            humantime::format_duration(Duration::from_secs(max))
        );
        field.read(&expected, |t| units::time(t).filter(|d| d.as_secs() <= max))
    };
    let rate = || field.read("a rate such as 500kbit/s or 8Mbit/s", units::rate);
    match name {
        "password" => config.password = Some(read_secret(field)?),
        "timeout" => config.timeout = time(3600)?,
        "hold" => config.hold = time(86_400)?,
        "rate_window" => config.rate_window = time(3600)?,
        "fallback" => config.fallback = Some(field.read(upstream::A_MOUNT, upstream::mount)?),
        "min_rate" => config.min_rate = rate()?,
        "max_rate" => config.max_rate = Some(rate()?),
        _ => {}
    }
    Ok(())
}

fn read_secret(field: &Field) -> Result<Secret, Error> {
    let text = secret_text(field)?;
    field.read("a password of 1 to 256 bytes", |_| Secret::new(&text).ok())
}

/// The secret itself, or what the file holds that it names.
fn secret_text(field: &Field) -> Result<String, Error> {
    let Some(path) = field.text.strip_prefix('@') else {
        return Ok(field.text.clone());
    };
    let text = std::fs::read_to_string(path).map_err(|e| Error::Value {
        origin: field.origin.clone(),
        key: field.key.clone(),
        expected: "a file that can be read".into(),
        got: format!("{path:?}: {e}"),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
