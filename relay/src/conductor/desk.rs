//! What every answer may look at: settings, the relay, and the control plane's own numbers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::Sender;
use relay_driver::SharedStats;
use relay_seam::Now;
use relay_source::AuthThrottle;
use relay_station::{Access, CATALOGUE, House};

use super::Settings;

/// Titles that a mount may be given in a second.
pub(super) const TITLES_PER_SECOND: u32 = 10;

/// The relay that is served.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) house: Arc<House>,
    pub(super) drivers: Vec<Arc<SharedStats>>,
    pub(super) listen: SocketAddr,
}

/// Everything that answers are made from.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) settings: Settings,
    pub(super) tallies: Tallies,
    /// When each worker was last asked for a sign of life, and whether it gave one.
    pub(super) pulse: tokio::sync::Mutex<Option<(Instant, Vec<bool>)>>,
    stage: OnceLock<Arc<Stage>>,
    lines: Sender<Access>,
    throttle: Mutex<AuthThrottle>,
    titles: Mutex<HashMap<String, (u64, u32)>>,
    origin: Instant,
}

impl Desk {
    pub(super) fn new(settings: Settings, lines: Sender<Access>) -> io::Result<Self> {
        let seed = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self {
            settings,
            tallies: Tallies::default(),
            pulse: tokio::sync::Mutex::new(None),
            stage: OnceLock::new(),
            lines,
            throttle: Mutex::new(AuthThrottle::new(seed)),
            titles: Mutex::new(HashMap::new()),
            origin: Instant::now(),
        })
    }

    pub(super) fn attach(&self, stage: Arc<Stage>) {
        let _ = self.stage.set(stage);
    }

    /// The relay.
    ///
    /// # Panics
    ///
    /// Before it is attached: no connection is looked at before that.
    pub(super) fn stage(&self) -> &Stage {
        self.stage
            .get()
            .expect("connections are served once a relay is attached")
    }

    /// The relay's house.
    pub(super) fn house(&self) -> &House {
        &self.stage().house
    }

    /// One number of the catalogue, over all workers; 0 for a name that is not in it.
    pub(super) fn total(&self, name: &str) -> u64 {
        let at = CATALOGUE.iter().position(|entry| entry.name == name);
        at.and_then(|at| self.house().totals().get(at).copied())
            .unwrap_or(0)
    }

    /// A line for the access log; counted when the scribe does not keep up.
    pub(super) fn log(&self, access: Access) {
        if self.lines.try_send(access).is_err() {
            self.tallies.lines_lost.up();
        }
    }

    /// How long an address may not try a password any more.
    pub(super) fn refused(&self, ip: IpAddr) -> Option<Duration> {
        self.throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .refused(ip, self.now())
    }

    /// An address tried a wrong one.
    pub(super) fn failed(&self, ip: IpAddr) {
        self.tallies.auth_failures.up();
        self.throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .failed(ip, self.now());
    }

    /// Whether a mount that exists may be given another title now.
    pub(super) fn may_title(&self, mount: &str) -> bool {
        let second = self.origin.elapsed().as_secs();
        let mut titles = self.titles.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the present second counts, so the table is as small as the number of mounts titled in it.
        titles.retain(|_, (at, _)| *at == second);
        let (_, given) = titles.entry(mount.to_owned()).or_insert((second, 0));
        *given += 1;
        *given <= TITLES_PER_SECOND
    }

    fn now(&self) -> Now {
        Now::new(
            u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX),
            unix_us(),
        )
    }

    /// Seconds since the relay was started.
    pub(super) fn uptime_s(&self) -> u64 {
        self.settings.started.elapsed().unwrap_or_default().as_secs()
    }

    /// When that was, in Unix seconds.
    pub(super) fn started_s(&self) -> u64 {
        self.settings
            .started
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    }
}

/// Unix time in seconds.
pub(super) fn unix_s() -> u64 {
    unix_us() / 1_000_000
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A number that any thread may raise.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    pub(super) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! tallies {
    ($($name:ident: $help:literal;)*) => {
        /// The control plane's own numbers.
        #[derive(Debug, Default)]
        pub(super) struct Tallies { $(pub(super) $name: Tally,)* }

        impl Tallies {
            /// Each with its name and what it says.
            pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $help, self.$name.get()),)*].into_iter()
            }
        }
    };
}

tallies! {
    requests: "Requests that the control plane answered.";
    refused_full: "Connections closed because the control plane had too many already.";
    broken: "Connections that broke, were not HTTP, or took too long, before they were answered in full.";
    auth_failures: "Wrong names or passwords.";
    auth_throttled: "Requests refused because their address sent too many wrong passwords (429).";
    cross_site: "Requests refused because another site's page, or another host name, had made them (403, 421).";
    titles: "Titles set.";
    titles_limited: "Titles refused because their mount got too many in a second (429).";
    orders_unanswered: "Orders that a worker did not answer in time.";
    lines_lost: "Lines of the control plane's own that the access log lost because its writer did not keep up.";
}
