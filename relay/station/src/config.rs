//! What the rooms' own configurations add up to, for one relay.

use std::collections::BTreeMap;
use std::time::Duration;

/// Everything the data plane needs to know at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name in link paths and status pages: random, or given.
    pub node_id: String,
    /// The `Server` header, and `User-Agent` towards upstreams.
    pub software: String,
    /// How many workers share the channels.
    pub workers: usize,
    /// The longest a listener's bytes may wait for others to be sent with; zero: never wait.
    pub max_batch_delay: Duration,
    /// How many connections of every kind, over all workers.
    pub connections_max: usize,
    /// Of those, how many are kept free for sources, links and the control plane.
    pub reserved: usize,
    /// How long a request head may take.
    pub head_timeout: Duration,
    /// How many channels at once.
    pub channels_max: usize,
    /// Bytes of ring per channel, when nothing is known of its bit rate.
    pub ring_bytes: usize,
    /// How much time a ring holds, when the bit rate is known.
    pub ring_seconds: u32,
    /// No ring grows beyond this many bytes, whatever the bit rate.
    pub ring_max_bytes: usize,
    /// The size of a chunk at channels that begin here, in bytes.
    pub chunk_size: u16,
    /// Listeners.
    pub listener: relay_listener::Config,
    /// Sources, where nothing else is said of their mount.
    pub source: relay_source::Config,
    /// Sources of certain mounts.
    pub mounts: BTreeMap<String, relay_source::Config>,
    /// What links to and from this node show; none: links are for loopback only.
    pub node_token: Option<relay_link::Token>,
    /// When upstreams are tried.
    pub upstream_timing: relay_link::UpstreamsConfig,
    /// The mount that `/` stands for, if any (peer-lite).
    pub root_mount: Option<String>,
    /// Where mounts that are not here come from.
    pub upstreams: Vec<UpstreamSpec>,
    /// Follow mounts of the upstreams when a listener asks for one.
    pub on_demand: bool,
    /// A channel that goes out by multicast.
    pub cast: Option<crate::CastSpec>,
    /// The P2PSP team to lead, if any.
    pub team: Option<crate::team::TeamSpec>,
}

/// One upstream, as configured. The order of the list is the order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// Where, without a path: what `http://host:port` says.
    pub host: String,
    /// The port.
    pub port: u16,
    /// A mount that is always followed; none: any mount, when it is asked for.
    pub mount: Option<String>,
    /// A plain HTTP (Icecast) stream to pull, by its whole URL, instead of a link.
    pub plain_url: Option<String>,
}

impl Config {
    /// The ring that a bit rate asks for, in bytes; three quarters of a ring are its window.
    pub(crate) fn ring_for(&self, kbps: u64) -> usize {
        let wanted = kbps * 125 * u64::from(self.ring_seconds) / 3 * 4;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        wanted.min(self.ring_max_bytes).max(self.ring_bytes)
    }

    /// How much the kernel may hold unsent for a listener to a stream of `bitrate` bits per second: half as much again
    /// as comes in the longest batch, so that a batch goes in one send also where TCP paces it. Never more than what
    /// the whole send buffer is bounded to, and never less than is configured.
    pub(crate) fn unsent_at(&self, bitrate: u64) -> u32 {
        let batch = u128::from(bitrate / 8) * self.max_batch_delay.as_millis() / 1000;
        let wanted = u32::try_from(batch * 3 / 2).unwrap_or(u32::MAX);
        let listener = &self.listener;
        wanted.min(listener.send_buffer).max(listener.unsent)
    }

    /// What is said of the sources of a mount.
    pub fn source_at(&self, mount: &str) -> &relay_source::Config {
        self.mounts.get(mount).unwrap_or(&self.source)
    }

    /// The memory that the limits add up to, in bytes: what is printed at start and not exceeded.
    pub fn budget(&self) -> Budget {
        let ring = self.ring_bytes.max(self.ring_max_bytes).next_power_of_two();
        // Raw, link and metadata framing may each have a ring; the old run of a channel lives on until it is drained;
        // and the kernel may keep one older version of a run's memory, for peers that do not acknowledge what they were
        // sent without a copy.
        let channel = 3 * 3 * ring;
        Budget {
            channels: (channel * self.channels_max) as u64,
            listeners_user: (self.connections_max * crate::LISTENER_BYTES) as u64,
            listeners_kernel: self.listener.max as u64 * 2 * u64::from(self.listener.send_buffer),
            heads: ((self.connections_max - self.listener.max.min(self.connections_max))
                * relay_wire::http::HEAD_BYTES_MAX) as u64,
        }
    }
}

/// Sums of limits, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Rings of all channels.
    pub channels: u64,
    /// Our own state of all connections.
    pub listeners_user: u64,
    /// Socket buffers of listeners that do not read.
    pub listeners_kernel: u64,
    /// Request heads in the making.
    pub heads: u64,
}

impl Budget {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.channels + self.listeners_user + self.listeners_kernel + self.heads
    }
}
