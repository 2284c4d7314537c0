//! The team's thread: one poll over the door, the post and the source's news, and the rules in the middle.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};
use relay_seam::Now;
use splitter::rules::{Action, Input, Note, Splitter};

use crate::args::{Args, Plan};
use crate::door::{Door, Said};
use crate::log::Log;
use crate::post::{Post, Received};
use crate::recent::Recent;
use crate::source::News;
use crate::status::{Snapshot, SourceStats, Status};
use crate::{Failure, say};

const LISTENER: Token = Token(0);
const POST: Token = Token(1);
const WAKER: Token = Token(2);
const NEWCOMERS: Token = Token(3);

/// Pieces of news that may wait; behind them the source waits.
const NEWS_MAX: usize = 256;
/// Datagrams, and pieces of news, handled before the others have their turn.
const BUDGET: usize = 256;
/// The longest datagram that means anything here has two bytes; what is longer must be seen to be longer.
const DATAGRAM_BYTES: usize = 64;
/// How often the status is shown.
const SHOWN_EVERY: Duration = Duration::from_secs(1);
/// When the system cannot accept a connection now, it is asked again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// A UDP port may be taken where a free TCP port was given: so often another is tried.
const PORT_TRIES: u8 = 16;

pub(crate) struct Team {
    rules: Splitter,
    recent: Recent,
    poll: Poll,
    waker: Arc<Waker>,
    door: Door,
    post: Post,
    listen: SocketAddrV4,
    tell_news: Option<SyncSender<News>>,
    news: Receiver<News>,
    stop: Arc<AtomicBool>,
    began: Instant,
    ends: Option<Instant>,
    source: SourceStats,
    status: Status,
    log: Log,
    shown: Instant,
    /// Whether the door and the post may have more; they are told of only once.
    door_open: bool,
    accept_again: bool,
    post_full: bool,
    news_left: bool,
}

impl Team {
    /// # Errors
    ///
    /// A port in use or an address that is not here are wrong usage.
    pub(crate) fn open(plan: &Plan, args: &Args, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        let (listener, socket, listen) =
            bind(args.listen).map_err(|error| cannot_listen(args.listen, &error))?;
        let runtime = |error: io::Error| Failure::Runtime(format!("cannot set up the network: {error}"));
        if plan.config.group.is_some() {
            multicast(&socket, listen)?;
        }
        let poll = Poll::new().map_err(runtime)?;
        let mut door = Door::new(listener, NEWCOMERS);
        let mut post = Post::new(socket).map_err(runtime)?;
        poll.registry()
            .register(door.listener(), LISTENER, Interest::READABLE)
            .map_err(runtime)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(post.socket(), POST, both)
            .map_err(runtime)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(runtime)?);
        let rules = Splitter::new(plan.config.clone(), plan.source.clone(), now(Instant::now()));
        let rules = rules.map_err(|error| Failure::Usage(error.to_string()))?;
        greet(plan, args, listen);
        let (tell_news, news) = sync_channel(NEWS_MAX);
        let began = Instant::now();
        Ok(Self {
            rules,
            recent: Recent::new(plan.config.buffer_chunks),
            poll,
            waker,
            door,
            post,
            listen,
            tell_news: Some(tell_news),
            news,
            stop,
            began,
            ends: args
                .seconds
                .and_then(|seconds| began.checked_add(Duration::from_secs(seconds))),
            source: SourceStats::default(),
            status: Status::new(args.json),
            log: Log::default(),
            shown: began,
            door_open: true,
            accept_again: false,
            post_full: true,
            news_left: false,
        })
    }

    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Where the source tells its news; once.
    pub(crate) fn news(&mut self) -> SyncSender<News> {
        self.tell_news.take().expect("the source is started once")
    }

    /// Until told to stop.
    ///
    /// # Errors
    ///
    /// When the system cannot be polled.
    pub(crate) fn lead(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while !self.over() {
            match self.poll.poll(&mut events, Some(self.patience())) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => self.turn(&events),
            }
        }
        self.tell(Input::Close);
        self.show();
        Ok(())
    }

    fn over(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.ends.is_some_and(|end| end <= Instant::now())
    }

    fn now(&self) -> Now {
        now(self.began)
    }

    /// How long nothing needs to be done unless something happens.
    fn patience(&self) -> Duration {
        if self.news_left || self.post_full || (self.door_open && !self.accept_again) {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let shown = (self.shown + SHOWN_EVERY).saturating_duration_since(now);
        let ends = self.ends.map(|end| end.saturating_duration_since(now));
        let rules = self.rules.deadline().map(|deadline| deadline.since(self.now()));
        let door = self.accept_again.then_some(ACCEPT_AGAIN);
        [ends, rules, door]
            .into_iter()
            .flatten()
            .fold(shown, Duration::min)
    }

    fn turn(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                LISTENER => self.door_open = true,
                POST => self.post_full = true,
                WAKER => self.news_left = true,
                newcomer => self.newcomer(newcomer),
            }
        }
        self.accept();
        self.hear_post();
        self.hear_news();
        self.tell(Input::Tick);
        if self.shown.elapsed() >= SHOWN_EVERY {
            self.shown += SHOWN_EVERY;
            self.show();
        }
    }

    fn accept(&mut self) {
        if !self.door_open {
            return;
        }
        let mut came = Vec::new();
        let result = self.door.accept(&mut came);
        self.door_open = !matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.accept_again = self.door_open && result.is_err();
        for (stream, from) in came {
            // Kept first, so that the rules can hang up on those whom they refuse.
            if self.door.keep(self.poll.registry(), stream, from).is_ok() {
                self.tell(Input::Connected(from));
            }
        }
    }

    fn newcomer(&mut self, token: Token) {
        let Some(from) = self.door.who(token) else { return };
        self.door.flush(from);
        loop {
            match self.door.read(from) {
                Said::Nothing => return,
                Said::Over => {
                    self.tell(Input::HungUp(from));
                    return self.door.close(from);
                }
                Said::Bytes(bytes) => self.tell(Input::Said(from, &bytes)),
            }
        }
    }

    fn hear_post(&mut self) {
        if !self.post_full {
            return;
        }
        self.post.flush();
        self.post.read_reports();
        let mut buffer = [0; DATAGRAM_BYTES];
        for _ in 0..BUDGET {
            match self.post.receive(&mut buffer) {
                Received::Datagram(n, from) => self.tell(Input::Datagram(from, &buffer[..n])),
                Received::Error => {}
                Received::Nothing => {
                    self.post_full = false;
                    break;
                }
            }
        }
        while let Some(peer) = self.post.closed() {
            self.tell(Input::Closed(peer));
        }
    }

    fn hear_news(&mut self) {
        for _ in 0..BUDGET {
            match self.news.try_recv() {
                Ok(news) => self.hear_one(news),
                // The source's thread ends only with this one.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    self.news_left = false;
                    return;
                }
            }
        }
    }

    fn hear_one(&mut self, news: News) {
        match news {
            News::Chunk(data) => self.chunk(data),
            News::Header(header) => self.rules.set_header(header),
            News::Begins(source) => {
                (self.source.up, self.source.begun) = (true, self.source.begun + 1);
                self.log.say("the source streams");
                if let Some(source) = source {
                    self.rules.set_source(source);
                }
            }
            News::Ended {
                why,
                discarded,
                again,
            } => {
                (self.source.up, self.source.ended) = (false, self.source.ended + 1);
                self.source.discarded_bytes += discarded as u64;
                self.log
                    .say(&format!("source: {why}; again in {:.1} s", again.as_secs_f64()));
            }
        }
    }

    fn chunk(&mut self, data: Vec<u8>) {
        self.source.bytes += data.len() as u64;
        let number = self.recent.push(data);
        self.tell(Input::Chunk(number));
    }

    /// Tell the rules, and carry out what they want.
    fn tell(&mut self, input: Input<'_>) {
        self.rules.handle(self.now(), input);
        while let Some(action) = self.rules.poll() {
            match action {
                Action::Chunk { to, number, frame } => {
                    if let Some(data) = self.recent.get(number) {
                        self.post.send(to, frame.datagram(data));
                    }
                }
                Action::Send { to, bytes } => self.post.send(to, bytes),
                Action::Tell { to, bytes } => self.door.tell(to, &bytes),
                Action::HangUp(from) => self.door.close(from),
                Action::Note(peer, note) => self.note(peer, &note),
            }
        }
    }

    fn note(&mut self, peer: SocketAddrV4, note: &Note) {
        let members = self.rules.peers().len();
        self.log.say(&match note {
            Note::Joined => format!("{peer} joined, {members} in the team"),
            Note::Left => format!("{peer} left, {members} in the team"),
            Note::Expelled(why) => format!("{peer} expelled: {why}"),
            Note::Refused(why) => format!("{peer} refused: {why}"),
        });
    }

    fn show(&mut self) {
        self.log.next_second();
        self.status.show(&Snapshot {
            elapsed: self.began.elapsed(),
            listen: self.listen,
            team: &self.rules,
            source: &self.source,
            post: &self.post.stats,
        });
    }
}

fn now(began: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    Now::new(whole(began.elapsed().as_nanos()), whole(wall.as_micros()))
}

/// TCP and UDP on one port; port 0 is any that is free for both.
fn bind(listen: SocketAddrV4) -> io::Result<(TcpListener, UdpSocket, SocketAddrV4)> {
    let mut tries = PORT_TRIES;
    loop {
        let listener = TcpListener::bind(SocketAddr::V4(listen))?;
        let bound = SocketAddrV4::new(*listen.ip(), listener.local_addr()?.port());
        match UdpSocket::bind(SocketAddr::V4(bound)) {
            Ok(socket) => return Ok((listener, socket, bound)),
            Err(error) if listen.port() != 0 || tries == 0 => return Err(error),
            Err(_) => tries -= 1,
        }
    }
}

/// Datagrams to a group leave by the interface that we listen on, and stay in its network.
fn multicast(socket: &UdpSocket, listen: SocketAddrV4) -> Result<(), Failure> {
    let socket = socket2::SockRef::from(socket);
    let set = socket.set_multicast_if_v4(listen.ip());
    set.and_then(|()| socket.set_multicast_ttl_v4(1)).map_err(|error| {
        Failure::Usage(format!(
            "--group: cannot multicast from {}: {error}; --listen takes the address of the interface to send by",
            listen.ip()
        ))
    })
}

fn cannot_listen(listen: SocketAddrV4, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => "is a splitter running already? --listen takes another port",
        ErrorKind::AddrNotAvailable => "--listen takes an address of this machine",
        ErrorKind::PermissionDenied => "--listen takes a port from 1024 on",
        _ => return Failure::Runtime(format!("cannot listen on {listen}: {error}")),
    };
    Failure::Usage(format!("cannot listen on {listen}: {error}; {remedy}"))
}

/// What is to be known at the start: where, and the limits.
fn greet(plan: &Plan, args: &Args, listen: SocketAddrV4) {
    let config = &plan.config;
    say(&format!(
        "Leading a P2PSP team (generation {:?}, {}) on {listen}, TCP and UDP, from {}",
        config.dialect,
        config.sets().join(", "),
        plan.url
    ));
    say(&format!(
        "Limits: {} peers, {} newcomers at a time, chunks of {} bytes, buffers of {} chunks",
        config.max_peers, config.max_arrivals, config.chunk_bytes, config.buffer_chunks
    ));
    if let Some(warning) = args.warning(plan) {
        say(&format!("Warning: {warning}"));
    }
    if args.json {
        let line = serde_json::json!({ "event": "listening", "listen": listen.to_string() });
        let _ = io::Write::write_all(&mut io::stdout(), format!("{line}\n").as_bytes());
    }
}
