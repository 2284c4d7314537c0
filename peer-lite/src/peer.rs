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

/// A running peer.
#[derive(Debug)]
pub struct Peer {
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
        let listener = relay_driver::bind(options.listen, false, 64)?;
        let listen = listener.local_addr()?;
        let (house, events) = House::new(config(&options, &channel, is_team)?)?;
        let gauge = Arc::new(Gauge {
            url: if is_team {
                options.url.clone()
            } else {
                channel.url.to_string()
            },
            player_url: format!("http://{}/", reachable(listen)),
            mount: channel.mount.clone(),
            team: is_team.then(Arc::default),
            began: Instant::now(),
            trouble: Mutex::default(),
        });
        let desk = desk::open(Arc::downgrade(&house), gauge.clone())?;
        let give = Box::new(move |stream, read| desk.admit(stream, read));
        let mut setup = Setup::new(vec![listener], house.bell(0).clone(), give);
        setup.max_conns = CONNECTIONS_MAX as u32 + 16;
        let seed = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
        let station = Station::new(house.clone(), 0, seed).map_err(io::Error::other)?;
        let crew = Crew::start(Backend::Mio, [(setup, station)])?;
        let membership = match &gauge.team {
            Some(shared) => {
                let (house, shared) = (house.clone(), shared.clone());
                let cloud = node.map(|node| cloud(node, &house, &options)).transpose()?;
                Some(Membership::begin(&channel, &options.team, cloud, house, shared)?)
            }
            None => None,
        };
        thread::Builder::new().name("notes".into()).spawn({
            let gauge = gauge.clone();
            move || write_notes(&events, &gauge)
        })?;
        Ok(Self {
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
struct Found {
    channel: Channel,
    is_team: bool,
    /// The node that leads the team, where it was asked for it.
    node: Option<Channel>,
}

fn find(options: &mut Options) -> io::Result<Found> {
    let invalid = |error: crate::UrlError| io::Error::new(io::ErrorKind::InvalidInput, error);
    let team = Channel::of_team(&options.url);
    let is_team = team.is_some();
    let parsed = team.unwrap_or_else(|| Channel::parse(&options.url));
    let mut found = Found {
        channel: parsed.map_err(invalid)?,
        is_team,
        node: None,
    };
    if options.join_team && !is_team {
        let (team, wire) = about_team(&found.channel)?;
        options.team.wire = wire;
        found.is_team = true;
        found.node = Some(std::mem::replace(&mut found.channel, team));
    }
    Ok(found)
}

/// A wildcard cannot be connected to everywhere; loopback can.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(a) if a.ip().is_unspecified() => ([127, 0, 0, 1], a.port()).into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, a.port()).into(),
        other => other,
    }
}

pub(crate) fn config(options: &Options, channel: &Channel, is_team: bool) -> io::Result<Config> {
    let random = getrandom::u32().map_err(|e| io::Error::other(e.to_string()))?;
    let node_id = format!("peer-{random:08x}");
    let upstreams = match is_team {
        true => Vec::new(),
        false => upstreams(options, channel, &node_id)?,
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
        root_mount: Some(channel.mount.clone()),
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
