//! The member's thread: one poll over the way to the splitter and the team's datagrams, and the rules in the middle.
//!
//! When a membership is over (the splitter went, or let us go), it joins again, later and later.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::{TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};
use relay_link::Position;
use relay_seam::Now;
use relay_station::House;
use socket2::{Domain, Socket, Type};
use splitter::peer::{Action, Ended, Input, Peer, PeerConfig, PeerStats};

use super::cap::Cap;
use super::cloud::{Cloud, Filler};
use super::header::{self, Beginning};
use super::player::Player;
use super::{Shared, TeamStatus, resolve, wire_name};
use crate::options::{Channel, TeamOptions};

pub(super) const WAKER: Token = Token(0);
const DOOR: Token = Token(1);
const POST: Token = Token(2);

/// How long the splitter may take to be reached.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// A splitter that sends nothing for so long is gone: a source that blinks is back by then.
const SILENCE: Duration = Duration::from_secs(5);
/// First and longest wait before it joins again, and after what time as a member it begins with the first again.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_LONGEST: Duration = Duration::from_secs(8);
const SETTLED: Duration = Duration::from_secs(10);
/// Datagrams taken before others have their turn.
const BUDGET: usize = 256;
/// The longest datagram over IPv4.
const DATAGRAM_BYTES: usize = 65_507;
/// The kernel's room for datagrams: a burst of a whole buffer.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long players wait for what the cloud is asked for.
const HOLE_PATIENCE: Duration = Duration::from_secs(2);
/// How often the status is published, and a station without room is tried again.
const SHOWN_EVERY: Duration = Duration::from_millis(100);
/// IPv4 and UDP, before each datagram.
const HEADERS_BYTES: usize = 28;

pub(super) struct Member {
    host: String,
    port: u16,
    config: PeerConfig,
    cap: Option<Cap>,
    donate: bool,
    player: Player,
    shared: Arc<Shared>,
    poll: Poll,
    waker: Arc<Waker>,
    began: Instant,
    status: TeamStatus,
    /// Of memberships that are over.
    past: PeerStats,
    again: Duration,
    cloud: Option<(Arc<Cloud>, Filler)>,
    /// The channel's life, as the cloud counts.
    epoch: Option<u64>,
}

/// One membership.
struct Stay {
    peer: Peer,
    splitter: SocketAddrV4,
    door: Option<TcpStream>,
    post: UdpSocket,
    fetched: (Sender<Beginning>, Receiver<Beginning>),
    follows: bool,
    post_full: bool,
    ended: Option<Ended>,
}

impl Member {
    pub(super) fn new(
        channel: &Channel,
        options: &TeamOptions,
        house: Arc<House>,
        shared: Arc<Shared>,
        poll: Poll,
        waker: Arc<Waker>,
    ) -> Self {
        let (host, port) = (channel.url.host.clone(), channel.url.port);
        let config = PeerConfig {
            dialect: options.wire,
            monitor: options.monitor,
            report_losses: options.report_losses,
            fetch_header: !options.donate,
            silence: SILENCE,
            seed: getrandom::u64().unwrap_or_default(),
            ..PeerConfig::default()
        };
        let began = Instant::now();
        Self {
            status: TeamStatus {
                splitter: format!("{host}:{port}"),
                wire: wire_name(options.wire).into(),
                donating: options.donate,
                upload_cap: options.upload_cap.unwrap_or(0),
                ..TeamStatus::default()
            },
            player: Player::new(house, channel.mount.clone(), format!("p2psp://{host}:{port}")),
            cap: options.upload_cap.map(|cap| Cap::new(cap, began)),
            donate: options.donate,
            host,
            port,
            config,
            shared,
            poll,
            waker,
            began,
            past: PeerStats::default(),
            again: AGAIN_FIRST,
            cloud: None,
            epoch: None,
        }
    }

    /// What the team loses is asked of this node from now on.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub(super) fn ask_too(&mut self, cloud: Cloud) -> io::Result<()> {
        let cloud = Arc::new(cloud);
        let filler = Filler::start(cloud.clone(), self.waker.clone())?;
        self.cloud = Some((cloud, filler));
        Ok(())
    }

    /// Finds out what the numbers of the wire, modulo 2^16, stand for.
    fn locate(&mut self) {
        let Some((cloud, _)) = &self.cloud else { return };
        let place = cloud.locate();
        if let Err(error) = &place {
            tracing::warn!("team: the node does not say where the channel is: {error}");
        }
        self.epoch = place.as_ref().ok().map(|place| place.epoch);
        self.config.near = place.ok().map(|place| place.number).or(self.config.near);
    }

    /// Until told to leave.
    pub(super) fn run(mut self) {
        if !self.donate {
            self.player.open();
            self.player.flush();
        }
        while !self.shared.is_over() {
            self.show("connecting", None);
            let since = Instant::now();
            let why = match self.connect() {
                Ok(stay) => self.stay(stay),
                Err(error) => error.to_string(),
            };
            if self.shared.is_over() {
                break;
            }
            if since.elapsed() >= SETTLED {
                self.again = AGAIN_FIRST;
            }
            why.clone_into(&mut self.status.reason);
            tracing::warn!("team: {why}; again in {:.1} s", self.again.as_secs_f64());
            self.wait();
        }
        self.player.end();
        self.player.flush();
        self.show("left", None);
    }

    fn wait(&mut self) {
        self.show("waiting", None);
        let until = Instant::now() + self.again;
        self.again = (self.again * 2).min(AGAIN_LONGEST);
        let mut events = Events::with_capacity(4);
        while !self.shared.is_over() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let _ = self.poll.poll(&mut events, Some(left.min(SHOWN_EVERY)));
            self.player.flush();
        }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let whole = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        Now::new(whole(self.began.elapsed().as_nanos()), whole(wall.as_micros()))
    }

    /// TCP to the splitter, and UDP at the same local address: that is how the splitter knows us.
    fn connect(&mut self) -> io::Result<Stay> {
        let splitter = resolve(&self.host, self.port)?;
        self.locate();
        let door = std::net::TcpStream::connect_timeout(&splitter.into(), CONNECT_PATIENCE)?;
        let mut post = mio::net::UdpSocket::from_std(datagrams(door.local_addr()?)?);
        door.set_nonblocking(true)?;
        let mut door = TcpStream::from_std(door);
        let registry = self.poll.registry();
        registry.register(&mut door, DOOR, Interest::READABLE)?;
        registry.register(&mut post, POST, Interest::READABLE)?;
        let mut peer = Peer::new(self.config.clone(), splitter, self.now());
        peer.handle(self.now(), Input::Connected);
        Ok(Stay {
            peer,
            splitter,
            door: Some(door),
            post,
            fetched: channel(),
            follows: false,
            post_full: false,
            ended: None,
        })
    }

    /// Until it is over; why.
    fn stay(&mut self, mut stay: Stay) -> String {
        let mut events = Events::with_capacity(16);
        let (mut shown, mut leaving, mut joined) = (Instant::now(), false, false);
        self.act(&mut stay);
        while stay.ended.is_none() {
            let patience = self.patience(&stay);
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return error.to_string(),
                _ => {}
            }
            if self.shared.is_over() && !std::mem::replace(&mut leaving, true) {
                self.tell(&mut stay, Input::Leave);
            }
            stay.post_full |= events.iter().any(|event| event.token() == POST);
            self.hear_door(&mut stay);
            self.hear_post(&mut stay);
            if let Ok(beginning) = stay.fetched.1.try_recv() {
                self.begin(&beginning);
                self.tell(&mut stay, Input::Fetched);
            }
            self.tell(&mut stay, Input::Tick);
            self.fill_holes();
            self.player.flush();
            if stay.peer.is_member() && !std::mem::replace(&mut joined, true) {
                self.status.joins += 1;
                self.status.reason.clear();
            }
            if shown.elapsed() >= SHOWN_EVERY {
                shown = Instant::now();
                self.show(state(joined, leaving), Some(&stay.peer));
            }
        }
        self.past = sum(&self.past, stay.peer.stats());
        // Where the wire's numbers are, should it come back to the same stream.
        self.config.near = Some(stay.peer.next());
        let why = stay.ended.take();
        why.map_or_else(String::new, |why| why.to_string())
    }

    fn patience(&mut self, stay: &Stay) -> Duration {
        if stay.post_full {
            return Duration::ZERO;
        }
        let now = self.now();
        let rules = stay.peer.deadline().map(|due| due.since(now));
        rules.map_or(SHOWN_EVERY, |due| due.min(SHOWN_EVERY))
    }

    fn hear_door(&mut self, stay: &mut Stay) {
        let mut piece = [0; 4096];
        while let Some(door) = &mut stay.door {
            match door.read(&mut piece) {
                Ok(n) if n > 0 => self.tell(stay, Input::Told(&piece[..n])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => {
                    stay.door = None;
                    self.tell(stay, Input::HungUp);
                }
            }
        }
    }

    fn hear_post(&mut self, stay: &mut Stay) {
        if !stay.post_full {
            return;
        }
        let mut datagram = [0; DATAGRAM_BYTES];
        for _ in 0..BUDGET {
            match stay.post.recv_from(&mut datagram) {
                Ok((n, SocketAddr::V4(from))) => self.tell(stay, Input::Datagram(from, &datagram[..n])),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stay.post_full = false;
                    return;
                }
                // What the kernel says of a datagram that was sent.
                Err(_) => {}
            }
        }
    }

    fn tell(&mut self, stay: &mut Stay, input: Input<'_>) {
        stay.peer.handle(self.now(), input);
        self.act(stay);
    }

    /// Carries out what the rules want.
    fn act(&mut self, stay: &mut Stay) {
        while let Some(action) = stay.peer.poll() {
            match action {
                Action::Tell(bytes) => {
                    if let Some(door) = &mut stay.door {
                        // A few bytes; when they fail, never mind.
                        let _ = door.write_all(&bytes);
                    }
                }
                Action::HangUp => stay.door = None,
                Action::Fetch {
                    source,
                    channel,
                    bytes,
                } => self.fetch(stay, source, channel, bytes),
                Action::Header(bytes) => self.begin(&header::read(&bytes)),
                Action::Send { to, bytes } => self.send(&stay.post, to, &bytes),
                Action::Chunk { to, number, frame } => {
                    let data = stay.peer.data(number);
                    let datagram = data.map(|data| frame.datagram(data));
                    datagram
                        .into_iter()
                        .for_each(|bytes| self.relay(&stay.post, to, &bytes));
                }
                Action::Play(number) => {
                    if let Some(data) = stay.peer.data(number).filter(|_| !self.donate) {
                        self.player.chunk(number, data, stay.follows);
                        stay.follows = true;
                    }
                }
                Action::Jump(_) => {
                    self.player.end();
                    stay.follows = false;
                }
                Action::Over(why) => stay.ended = Some(why),
                Action::Skip { from, count } => self.hole(from, count),
                // Groups are heard only where that was asked for.
                Action::Hear(_) => {}
            }
        }
    }

    /// What is missing may be had from the cloud; the player waits for it a moment.
    fn hole(&mut self, number: u64, count: u64) {
        let (Some((_, filler)), Some(epoch)) = (&self.cloud, self.epoch) else {
            return;
        };
        if !self.donate && filler.ask(Position { epoch, number }, count) {
            self.player.hole(number, Instant::now() + HOLE_PATIENCE);
        }
    }

    fn fill_holes(&mut self) {
        while let Some(filled) = self.cloud.as_ref().and_then(|(_, filler)| filler.filled()) {
            self.status.filled += self.player.fill(filled.from, filled.chunks);
        }
        self.player.on_time(Instant::now());
    }

    fn begin(&mut self, beginning: &Beginning) {
        self.player.is_said_to_be(beginning.content_type.clone());
        if !self.donate && !beginning.bytes.is_empty() {
            self.player.header(&beginning.bytes);
        }
    }

    /// On a thread of its own: the team goes on meanwhile.
    fn fetch(&self, stay: &Stay, source: SocketAddrV4, channel: Vec<u8>, bytes: u16) {
        let (tell, waker, splitter) = (stay.fetched.0.clone(), self.waker.clone(), stay.splitter);
        let fetch = move || {
            let asked = match header::may_ask(splitter, source) {
                true => header::ask(source, &channel, bytes),
                false => Err(io::Error::other(
                    "it is in a private network, and the splitter is not",
                )),
            };
            let beginning = asked.unwrap_or_else(|error| {
                tracing::warn!("team: no header from the source at {source}: {error}");
                Beginning::default()
            });
            let _ = tell.send(beginning);
            let _ = waker.wake();
        };
        if thread::Builder::new().name("header".into()).spawn(fetch).is_err() {
            let _ = stay.fetched.0.send(Beginning::default());
        }
    }

    /// A chunk for a team mate, if the cap allows.
    fn relay(&mut self, post: &UdpSocket, to: SocketAddrV4, bytes: &[u8]) {
        let whole = bytes.len() + HEADERS_BYTES;
        match self
            .cap
            .as_mut()
            .is_none_or(|cap| cap.take(whole, Instant::now()))
        {
            true => self.send(post, to, bytes),
            false => self.status.relays_capped += 1,
        }
    }

    fn send(&mut self, post: &UdpSocket, to: SocketAddrV4, bytes: &[u8]) {
        // What the kernel does not take is lost like what the network loses.
        match post.send_to(bytes, to.into()) {
            Ok(_) => self.status.bytes_sent += (bytes.len() + HEADERS_BYTES) as u64,
            Err(_) => self.status.unsent += 1,
        }
    }

    fn show(&mut self, state: &str, peer: Option<&Peer>) {
        let present = peer.map_or(PeerStats::default(), |peer| *peer.stats());
        let stats = sum(&self.past, &present);
        let capped = self.status.relays_capped;
        self.shared.write(TeamStatus {
            state: state.into(),
            mates: peer.map_or(0, |peer| peer.mates().len() as u64),
            received: stats.from_splitter + stats.from_mates + stats.late,
            from_splitter: stats.from_splitter,
            relayed: stats.relayed.saturating_sub(capped),
            played: stats.played,
            lost: stats.lost,
            duplicates: stats.duplicates,
            late: stats.late,
            complaints: stats.complaints,
            debt: stats.relayed.saturating_sub(capped) as i64 - stats.from_mates as i64,
            overrun_bytes: self.player.overrun_bytes,
            ..self.status.clone()
        });
    }
}

fn state(joined: bool, leaving: bool) -> &'static str {
    match (joined, leaving) {
        (_, true) => "leaving",
        (true, false) => "member",
        (false, false) => "joining",
    }
}

/// A UDP socket at this address, with room for bursts.
fn datagrams(at: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking().cloexec(), None)?;
    // The kernel gives what it allows.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// Those counters that are shown.
fn sum(a: &PeerStats, b: &PeerStats) -> PeerStats {
    PeerStats {
        from_splitter: a.from_splitter + b.from_splitter,
        from_mates: a.from_mates + b.from_mates,
        relayed: a.relayed + b.relayed,
        played: a.played + b.played,
        lost: a.lost + b.lost,
        duplicates: a.duplicates + b.duplicates,
        late: a.late + b.late,
        complaints: a.complaints + b.complaints,
        ..PeerStats::default()
    }
}
