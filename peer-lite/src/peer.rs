//! A peer: one worker on mio that follows one channel.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use relay_driver::{Backend, Crew, Setup};
use relay_link::FollowConfig;
use relay_station::{Config, Event, House, Level, Order, Station, UpstreamSpec};

use crate::ask::{Answer, about_links, about_team};
use crate::desk;
use crate::lan::Listening;
use crate::options::Channel;
use crate::status::{Gauge, Status};
use crate::team::{Cloud, Membership};
use crate::{Options, SOFTWARE};

/// Players and visitors at once.
const CONNECTIONS_MAX: usize = 64;
/// Of those, players at most.
const PLAYERS_MAX: usize = 48;
/// Bytes of the channel that are kept at least, in a ring of a power of two.
const RING_BYTES: usize = 4 << 20;

/// The mount of what comes from the LAN alone.
const LAN_MOUNT: &str = "/lan.ts";

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    lan: Option<Listening>,
    house: Arc<House>,
    gauge: Arc<Gauge>,
    listen: SocketAddr,
    crew: Crew,
    membership: Option<Membership>,
}

impl Peer {
    /// Starts to follow a channel and to listen for players. The node need not be there yet.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when the URL is not a channel's (with a [`crate::UrlError`] inside); else what
    /// the kernel or the node said: no team is led there, the address is in use, or there is no descriptor or
    /// thread left.
    pub fn start(mut options: Options) -> io::Result<Self> {
        let Found {
            channel,
            is_team,
            node,
        } = find(&mut options)?;
        let mount = channel
            .as_ref()
            .map_or(LAN_MOUNT, |channel| &channel.mount)
            .to_owned();
        let listener = relay_driver::bind(options.listen, false, 64)?;
        let listen = listener.local_addr()?;
        // A team and the LAN bring the stream by themselves.
        let upstream = channel.as_ref().filter(|_| !is_team && options.lan.is_none());
        let (house, events) = House::new(config(&options, &mount, upstream)?)?;
        let lan = begin_lan(&options, &mount, channel.clone(), &house)?;
        let gauge = Arc::new(Gauge {
            url: shown(&options, channel.as_ref(), is_team),
            player_url: format!("http://{}/", reachable(listen)),
            mount,
            team: is_team.then(Arc::default),
            began: Instant::now(),
            trouble: Mutex::default(),
            lan: lan.as_ref().map(Listening::shared),
        });
        let desk = desk::open(Arc::downgrade(&house), gauge.clone())?;
        let give = Box::new(move |stream, read| desk.admit(stream, read));
        let mut setup = Setup::new(vec![listener], house.bell(0).clone(), give);
        setup.max_conns = CONNECTIONS_MAX as u32 + 16;
        let seed = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
        let station = Station::new(house.clone(), 0, seed).map_err(io::Error::other)?;
        let crew = Crew::start(Backend::Mio, [(setup, station)])?;
        let membership = match gauge.team.as_ref().zip(channel.as_ref()) {
            Some((shared, channel)) => {
                let (house, shared) = (house.clone(), shared.clone());
                let cloud = node.map(|node| cloud(node, &house, &options)).transpose()?;
                Some(Membership::begin(channel, &options.team, cloud, house, shared)?)
            }
            None => None,
        };
        thread::Builder::new().name("notes".into()).spawn({
            let gauge = gauge.clone();
            move || write_notes(&events, &gauge)
        })?;
        Ok(Self {
            lan,
            house,
            gauge,
            listen,
            crew,
            membership,
        })
    }

    /// Where players find it; the port is known even if 0 was asked for.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// What players open.
    pub fn player_url(&self) -> &str {
        &self.gauge.player_url
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.gauge.read(&self.house)
    }

    /// Whether its worker has stopped by itself.
    pub fn is_broken(&self) -> bool {
        self.crew.is_broken()
    }

    /// Says goodbye to its team, if it is in one, and lets the players go; takes up to two seconds when one of
    /// them does not listen, and as long when the splitter does not.
    ///
    /// # Errors
    ///
    /// When its worker broke.
    pub fn stop(self) -> io::Result<()> {
        if let Some(membership) = self.membership {
            membership.leave();
        }
        drop(self.lan);
        self.house.drain();
        while !self.crew.is_broken() && self.house.mailbox(0).post(Order::Stop).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        self.crew.join().map(drop)
    }
}

fn cloud(node: Channel, house: &House, options: &Options) -> io::Result<Cloud> {
    let follow = FollowConfig::new(&node.mount, &house.config.node_id, options.token.clone());
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    Ok(Cloud::new(node, follow.map_err(invalid)?))
}

/// What a URL has led to.
#[derive(Default)]
struct Found {
    /// None: it comes from the LAN alone.
    channel: Option<Channel>,
    is_team: bool,
    /// The node that leads the team, where it was asked for it.
    node: Option<Channel>,
}

fn find(options: &mut Options) -> io::Result<Found> {
    let invalid = |error: crate::UrlError| io::Error::new(io::ErrorKind::InvalidInput, error);
    if options.lan.is_some() && options.url.is_empty() {
        return Ok(Found::default());
    }
    let team = Channel::of_team(&options.url).filter(|_| options.lan.is_none());
    let is_team = team.is_some();
    let channel = team
        .unwrap_or_else(|| Channel::parse(&options.url))
        .map_err(invalid)?;
    if options.join_team && !is_team && options.lan.is_none() {
        let (team, wire) = about_team(&channel)?;
        options.team.wire = wire;
        return Ok(Found {
            channel: Some(team),
            is_team: true,
            node: Some(channel),
        });
    }
    Ok(Found {
        channel: Some(channel),
        is_team,
        node: None,
    })
}

/// A wildcard cannot be connected to everywhere; loopback can.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(a) if a.ip().is_unspecified() => ([127, 0, 0, 1], a.port()).into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, a.port()).into(),
        other => other,
    }
}

/// What it follows, in a word.
fn shown(options: &Options, channel: Option<&Channel>, is_team: bool) -> String {
    match (channel, &options.lan) {
        (Some(channel), _) if !is_team => channel.url.to_string(),
        (None, Some(lan)) => lan.to_string(),
        _ => options.url.clone(),
    }
}

/// Begins to hear the LAN, if that was asked for.
fn begin_lan(
    options: &Options,
    mount: &str,
    channel: Option<Channel>,
    house: &Arc<House>,
) -> io::Result<Option<Listening>> {
    let Some(lan) = &options.lan else { return Ok(None) };
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let follow = FollowConfig::new(mount, &house.config.node_id, options.token.clone()).map_err(invalid)?;
    let node = channel.map(|channel| (channel, follow));
    Listening::begin(lan, mount, node, house.clone()).map(Some)
}

pub(crate) fn config(options: &Options, mount: &str, upstream: Option<&Channel>) -> io::Result<Config> {
    let random = getrandom::u32().map_err(|e| io::Error::other(e.to_string()))?;
    let node_id = format!("peer-{random:08x}");
    let upstreams = match upstream {
        Some(channel) => upstreams(options, channel, &node_id)?,
        None => Vec::new(),
    };
    Ok(Config {
        node_id,
        software: SOFTWARE.into(),
        workers: 1,
        max_batch_delay: Duration::ZERO,
        connections_max: CONNECTIONS_MAX,
        reserved: CONNECTIONS_MAX - PLAYERS_MAX,
        head_timeout: Duration::from_secs(10),
        channels_max: 2,
        ring_bytes: RING_BYTES,
        ring_seconds: 16,
        ring_max_bytes: 16 << 20,
        chunk_size: 1316,
        listener: relay_listener::Config {
            max: PLAYERS_MAX,
            ..Default::default()
        },
        source: relay_source::Config::default(),
        mounts: Default::default(),
        node_token: options.token.clone(),
        upstream_timing: relay_link::UpstreamsConfig::default(),
        root_mount: Some(mount.to_owned()),
        upstreams,
        on_demand: false,
        cast: None,
        team: None,
    })
}

/// The link, and behind it the plain stream where it is not certain that there is a link.
fn upstreams(options: &Options, channel: &Channel, node_id: &str) -> io::Result<Vec<UpstreamSpec>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let follow = FollowConfig::new(&channel.mount, node_id, options.token.clone()).map_err(invalid)?;
    let link = UpstreamSpec {
        host: channel.url.host.clone(),
        port: channel.url.port,
        mount: Some(channel.mount.clone()),
        plain_url: None,
    };
    if !options.plain_too || about_links(channel, &follow) == Answer::Link {
        return Ok(vec![link]);
    }
    let plain = UpstreamSpec {
        plain_url: Some(options.url.clone()),
        ..link.clone()
    };
    Ok(vec![link, plain])
}

fn write_notes(events: &Receiver<Event>, gauge: &Gauge) {
    while let Ok(event) = events.recv() {
        match event {
            Event::Note {
                level: Level::Info,
                text,
            } => tracing::info!("{text}"),
            Event::Note {
                level: Level::Warn,
                text,
            } => {
                tracing::warn!("{text}");
                *gauge.trouble.lock().unwrap_or_else(PoisonError::into_inner) = text;
            }
            Event::Access(access) => tracing::debug!("{} {} {}", access.peer, access.target, access.status),
        }
    }
}
