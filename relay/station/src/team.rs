//! A P2PSP team that this node leads: one channel's chunks, each given to one peer, which relays it to the others.
//!
//! The rules are the `splitter` room's. One worker leads ([`TEAM_WORKER`]) and follows the channel as its listeners do,
//! whoever writes it: a chunk leaves as a datagram whose head is the wire's and whose body lies in the ring. Chunk
//! numbers are the channel's, so that who also has the link knows where it is. Newcomers join over TCP; those
//! connections are few, slow and soon over, so the control plane holds them: what they say comes as orders, what they
//! are told goes into a mailbox.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use relay_seam::{Datagram, Head, Now, Output, Payload, Span, Udp, UdpOptions};
use splitter::rules::{Action, Input, Note, Source, Splitter};
use splitter::{ConfigError, Frame, TeamStats};

use crate::channel::{Channel, Framing, Run};
use crate::counters::{Count, Counters};
use crate::house::House;
use crate::listeners::Listeners;
use crate::orders::{Event, Level};
use crate::turn::Station;

/// The worker that leads the team.
pub const TEAM_WORKER: usize = 0;

/// What the driver answers when the team's socket is open.
const TOKEN: u64 = 0x7465_616d;
/// A socket that cannot be opened is tried again after this.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Chunks told to the rules before their datagrams leave.
const LOOK_CHUNKS: u64 = 64;
/// Lines in the log, each second; newcomers must not flood it.
const NOTES_PER_SECOND: u32 = 8;

/// The team that a node is to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamSpec {
    /// Of which channel.
    pub mount: String,
    /// Where newcomers come to over TCP, and where its datagrams come from.
    pub listen: SocketAddrV4,
    /// Where newcomers that ask the source for the stream's header are sent: this node's HTTP.
    pub http: SocketAddrV4,
    /// The rules' settings; the size of chunks is the channel's.
    pub rules: splitter::Config,
}

impl TeamSpec {
    /// Whether it can be led.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub fn check(&self) -> Result<(), String> {
        self.rules.check().map_err(|error| error.to_string())?;
        self.source().map(drop)
    }

    fn source(&self) -> Result<Source, String> {
        let channel = self.mount.trim_start_matches('/');
        Source::new(self.http, channel).map_err(|error| error.to_string())
    }

    fn lead(&self, chunk_bytes: u16, now: Now) -> Result<Splitter, LeadError> {
        let rules = splitter::Config {
            chunk_bytes,
            ..self.rules.clone()
        };
        let source = self.source().map_err(LeadError::Source)?;
        Ok(Splitter::new(rules, source, now)?)
    }
}

/// Why a team cannot be led.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeadError {
    /// By these settings.
    #[error("team: {0}")]
    Rules(#[from] ConfigError),
    /// With this mount.
    #[error("team: {0}")]
    Source(String),
}

/// What a newcomer's connection has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newcomer {
    /// It is there.
    Connected(SocketAddrV4),
    /// It has said this.
    Said(SocketAddrV4, Vec<u8>),
    /// It has ended.
    HungUp(SocketAddrV4),
}

/// What becomes of a newcomer's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is told this.
    Tell(SocketAddrV4, Vec<u8>),
    /// It is closed, once it has been told all.
    HangUp(SocketAddrV4),
}

/// The team at work.
#[derive(Debug)]
pub(crate) struct Team {
    spec: TeamSpec,
    rules: Splitter,
    port: Port,
    trail: Option<Trail>,
    posts: VecDeque<Post>,
    /// The rules' counters as they were last published.
    counted: TeamStats,
    notes: (Now, u32),
    over: bool,
}

#[derive(Debug)]
enum Port {
    Shut { again: Now },
    Opening,
    Open(Udp),
}

/// The run that is being followed.
#[derive(Debug)]
struct Trail {
    channel: Arc<Channel>,
    run: Arc<Run>,
    /// Its stream among the listeners'.
    stream: usize,
    /// The next chunk.
    next: u64,
    /// The head as it was last seen.
    seen: u64,
    version: u64,
}

/// Something for the driver.
#[derive(Debug)]
enum Post {
    Chunk {
        to: SocketAddrV4,
        number: u64,
        frame: Frame,
    },
    Send {
        to: SocketAddrV4,
        bytes: Vec<u8>,
    },
    /// Datagrams will often go there.
    Meet(SocketAddrV4),
    Part(SocketAddrV4),
}

/// What the team needs of its worker.
struct Room<'a> {
    house: &'a House,
    worker: usize,
    listeners: &'a mut Listeners,
}

impl Room<'_> {
    fn counters(&self) -> &Counters {
        self.house.counters(self.worker)
    }
}

impl Team {
    pub(crate) fn new(spec: TeamSpec, chunk_bytes: u16) -> Result<Self, LeadError> {
        let start = Now::new(0, 0);
        Ok(Self {
            rules: spec.lead(chunk_bytes, start)?,
            spec,
            port: Port::Shut { again: start },
            trail: None,
            posts: VecDeque::new(),
            counted: TeamStats::default(),
            notes: (start, 0),
            over: false,
        })
    }

    /// Tells the rules, and queues what they want.
    fn tell(&mut self, room: &Room<'_>, now: Now, input: Input<'_>) {
        self.rules.handle(now, input);
        while let Some(action) = self.rules.poll() {
            match action {
                Action::Chunk { to, number, frame } => {
                    self.posts.push_back(Post::Chunk { to, number, frame });
                }
                Action::Send { to, bytes } => self.posts.push_back(Post::Send { to, bytes }),
                Action::Tell { to, bytes } => room.house.answer(room.worker, Answer::Tell(to, bytes)),
                Action::HangUp(from) => room.house.answer(room.worker, Answer::HangUp(from)),
                Action::Note(peer, note) => self.note(room, now, peer, &note),
            }
        }
        self.publish(room.counters());
    }

    fn note(&mut self, room: &Room<'_>, now: Now, peer: SocketAddrV4, note: &Note) {
        let members = self.rules.peers().len();
        let text = match note {
            Note::Joined => format!("{peer} joined, {members} in the team"),
            Note::Left => format!("{peer} left, {members} in the team"),
            Note::Expelled(why) => format!("{peer} expelled: {why}"),
            Note::Refused(why) => format!("{peer} refused: {why}"),
        };
        match note {
            Note::Joined => self.posts.push_back(Post::Meet(peer)),
            Note::Left | Note::Expelled(_) => self.posts.push_back(Post::Part(peer)),
            Note::Refused(_) => {}
        }
        let (since, said) = &mut self.notes;
        if now.since(*since) >= Duration::from_secs(1) {
            (*since, *said) = (now, 0);
        }
        *said += 1;
        if *said <= NOTES_PER_SECOND {
            self.say(room, Level::Info, &text);
        }
    }

    fn say(&self, room: &Room<'_>, level: Level, text: &str) {
        let text = format!("team of {}: {text}", self.spec.mount);
        room.house.tell(room.worker, Event::Note { level, text });
    }

    /// What the rules have counted since the last time goes into the catalogue.
    fn publish(&mut self, counters: &Counters) {
        let (now, before) = (*self.rules.stats(), self.counted);
        let add = |count: &Count, of: fn(&TeamStats) -> u64| count.add(of(&now).saturating_sub(of(&before)));
        add(&counters.team_chunks, |s| s.chunks_sent);
        add(&counters.team_chunks_idle, |s| s.chunks_without_team);
        add(&counters.team_joins, |s| s.joins);
        add(&counters.team_goodbyes, |s| s.goodbyes);
        add(&counters.team_expelled, |s| s.expelled_losses + s.expelled_closed);
        add(&counters.team_refused, |s| {
            s.refused_full + s.refused_arrivals + s.refused_protocol + s.arrivals_lost
        });
        add(&counters.team_losses, |s| s.losses);
        add(&counters.team_resent, |s| s.resent);
        add(&counters.team_not_resent, |s| {
            s.resends_enough + s.resends_over_budget
        });
        add(&counters.team_unheeded, |s| {
            s.complaints_foreign
                + s.complaints_unsent
                + s.complaints_repeated
                + s.complaints_unweighed
                + s.complaints_own
                + s.complaints_late
                + s.goodbyes_late
                + s.hellos_foreign
                + s.datagrams_unknown
        });
        counters.team_peers.set(self.rules.peers().len() as u64);
        self.counted = now;
    }

    fn newcomer(&mut self, room: &Room<'_>, now: Now, newcomer: &Newcomer) {
        match newcomer {
            Newcomer::Connected(from) => {
                self.renew_header();
                self.tell(room, now, Input::Connected(*from));
            }
            Newcomer::Said(from, bytes) => self.tell(room, now, Input::Said(*from, bytes)),
            Newcomer::HungUp(from) => self.tell(room, now, Input::HungUp(*from)),
        }
    }

    /// Newcomers that are told the header get the one in force.
    fn renew_header(&mut self) {
        let Some(trail) = &self.trail else { return };
        let at = trail.next * u64::from(trail.run.chunk_size);
        let header = trail.run.header_at(at).map(|header| header.bytes.to_vec());
        self.rules.set_header(header.unwrap_or_default());
    }

    /// The next thing for the driver.
    fn poll(&mut self, room: &mut Room<'_>, now: Now) -> Option<Output> {
        if let Port::Shut { again } = self.port
            && again <= now
            && !self.over
        {
            self.port = Port::Opening;
            return Some(Output::OpenUdp {
                token: TOKEN,
                bind: SocketAddr::V4(self.spec.listen),
                options: UdpOptions::default(),
            });
        }
        if self.rules.deadline().is_some_and(|due| due <= now) {
            self.tell(room, now, Input::Tick);
        }
        loop {
            while let Some(post) = self.posts.pop_front() {
                match self.output(room, post) {
                    Some(output) => return Some(output),
                    None => room.counters().team_unposted.up(),
                }
            }
            if self.over || !self.look(room, now) {
                return None;
            }
        }
    }

    /// As the driver wants it; `None` for what cannot be sent any more.
    fn output(&self, room: &mut Room<'_>, post: Post) -> Option<Output> {
        let Port::Open(udp) = self.port else { return None };
        let datagram = |to: SocketAddrV4, head: &[u8], body: Option<Payload>| {
            Some(Output::Datagram(Datagram {
                udp,
                to: SocketAddr::V4(to),
                head: Head::new(head)?,
                body,
                segment: 0,
            }))
        };
        match post {
            Post::Meet(peer) => Some(Output::ConnectUdp {
                udp,
                peer: peer.into(),
            }),
            Post::Part(peer) => Some(Output::DisconnectUdp {
                udp,
                peer: peer.into(),
            }),
            Post::Send { to, bytes } => datagram(to, &[], Some(Payload::Own(bytes.into(), 0))),
            Post::Chunk { to, number, frame } => {
                let span = self.span(room, number)?;
                let body = match frame.tail() {
                    [] => Payload::Span(span),
                    // A datagram has a head and a body: what ends with a tail is put together here.
                    tail => Payload::Own([room.listeners.bytes(span), tail].concat().into(), 0),
                };
                datagram(to, frame.head(), Some(body))
            }
        }
    }

    /// Where a chunk lies, pinned until the batch is posted.
    fn span(&self, room: &mut Room<'_>, number: u64) -> Option<Span> {
        let trail = self.trail.as_ref().filter(|trail| number < trail.next)?;
        let size = trail.run.chunk_size;
        let span = Span {
            ring: trail.stream as u32,
            len: size.into(),
            at: number.checked_mul(size.into())?,
        };
        room.listeners.lend(span).then_some(span)
    }

    /// Tells the rules of chunks that have become whole; `false` when there are none.
    fn look(&mut self, room: &mut Room<'_>, now: Now) -> bool {
        self.follow(room, now);
        let Some(trail) = &mut self.trail else {
            return false;
        };
        let size = u64::from(trail.run.chunk_size);
        let (floor, head) = room.listeners.window(trail.stream);
        let (oldest, whole) = (floor.div_ceil(size), head / size);
        trail.seen = head;
        // Who is so far behind that its peers' buffers could not hold it goes on with the newest.
        let behind = whole.saturating_sub(trail.next) > u64::from(self.spec.rules.buffer_chunks);
        if trail.next < oldest || behind {
            room.counters().team_chunks_missed.add(whole - trail.next);
            trail.next = whole;
        }
        let (from, to) = (trail.next, whole.min(trail.next + LOOK_CHUNKS));
        trail.next = to;
        (from..to).for_each(|number| self.tell(room, now, Input::Chunk(number)));
        from < to
    }

    /// Sees to it that the channel's present run is followed, once the former one has been told to its end.
    fn follow(&mut self, room: &mut Room<'_>, now: Now) {
        if let Some(trail) = &mut self.trail {
            let version = trail.channel.version();
            if std::mem::replace(&mut trail.version, version) == version && !trail.run.ended() {
                return;
            }
            let size = u64::from(trail.run.chunk_size);
            if trail.run.raw.head() / size > trail.next {
                // Not told to its end: to be looked at again.
                trail.version = 0;
                return;
            }
        }
        let Some(channel) = room.house.directory.get(&self.spec.mount) else {
            return;
        };
        if let Some(run) = channel.run().filter(|run| !run.ended() && !self.is_on(run)) {
            self.move_to(room, now, channel, run);
        }
    }

    fn is_on(&self, run: &Arc<Run>) -> bool {
        self.trail
            .as_ref()
            .is_some_and(|trail| Arc::ptr_eq(&trail.run, run))
    }

    fn move_to(&mut self, room: &mut Room<'_>, now: Now, channel: Arc<Channel>, run: Arc<Run>) {
        let Some(stream) = room.listeners.stream(now, &channel, &run, Framing::Raw) else {
            return;
        };
        let size = u64::from(run.chunk_size);
        let next = match &self.trail {
            // A larger ring of the same epoch, or of the same channel begun again: nothing of it has been told.
            Some(old) if old.run.epoch == run.epoch => old.next,
            Some(_) => run.start.div_ceil(size),
            None => run.raw.head() / size,
        };
        self.leave(room);
        room.listeners.borrow(stream);
        if run.chunk_size != self.rules.config().chunk_bytes {
            self.begin_anew(room, now, run.chunk_size);
        }
        self.trail = Some(Trail {
            version: channel.version(),
            channel,
            run,
            stream,
            next,
            seen: 0,
        });
    }

    /// Chunks of another size need another team: its members have been told the former size.
    fn begin_anew(&mut self, room: &Room<'_>, now: Now, chunk_bytes: u16) {
        match self.spec.lead(chunk_bytes, now) {
            Ok(rules) => {
                let members = self.rules.peers().to_vec();
                self.posts.extend(members.into_iter().map(Post::Part));
                (self.rules, self.counted) = (rules, TeamStats::default());
                self.say(
                    room,
                    Level::Info,
                    "chunks have another size; the team begins anew",
                );
            }
            Err(error) => self.say(room, Level::Warn, &error.to_string()),
        }
    }

    fn leave(&mut self, room: &mut Room<'_>) {
        if let Some(trail) = self.trail.take() {
            room.listeners.give_back(trail.stream);
        }
    }

    fn opened(&mut self, room: &Room<'_>, now: Now, result: std::io::Result<(Udp, SocketAddr)>) {
        match result {
            Ok((udp, _)) => {
                self.port = Port::Open(udp);
                let members = self.rules.peers().to_vec();
                self.posts.extend(members.into_iter().map(Post::Meet));
            }
            Err(error) => {
                self.port = Port::Shut {
                    again: now + OPEN_AGAIN,
                };
                self.say(room, Level::Warn, &error.to_string());
            }
        }
    }

    fn owns(&self, udp: Udp) -> bool {
        matches!(self.port, Port::Open(own) if own == udp)
    }

    fn deadline(&self) -> Option<Now> {
        let at_once = Some(Now::new(0, 0));
        if !self.posts.is_empty() {
            return at_once;
        }
        if self.over {
            return None;
        }
        let whole = |trail: &Trail| trail.run.raw.head() / u64::from(trail.run.chunk_size) > trail.next;
        if self.trail.as_ref().is_some_and(whole) {
            return at_once;
        }
        let again = match self.port {
            Port::Shut { again } => Some(again),
            Port::Opening | Port::Open(_) => None,
        };
        Now::earliest(again, self.rules.deadline())
    }

    fn finish(&mut self, room: &mut Room<'_>, now: Now) {
        self.tell(room, now, Input::Close);
        self.over = true;
        self.leave(room);
    }
}

impl Station {
    /// Does something with the team, if this worker leads one.
    fn with_team<T>(&mut self, act: impl FnOnce(&mut Team, &mut Room<'_>) -> T) -> Option<T> {
        let team = self.team.as_mut()?;
        let mut room = Room {
            house: &self.house,
            worker: self.worker,
            listeners: &mut self.listeners,
        };
        Some(act(team, &mut room))
    }

    pub(crate) fn team_poll(&mut self, now: Now) -> Option<Output> {
        self.with_team(|team, room| team.poll(room, now)).flatten()
    }

    pub(crate) fn team_newcomer(&mut self, now: Now, newcomer: &Newcomer) {
        self.with_team(|team, room| team.newcomer(room, now, newcomer));
    }

    /// The answer to an `OpenUdp`; whether it was the team's.
    pub(crate) fn team_opened(&mut self, now: Now, token: u64, result: std::io::Result<(Udp, SocketAddr)>) {
        if token == TOKEN {
            self.with_team(|team, room| team.opened(room, now, result));
        }
    }

    pub(crate) fn team_hears(&mut self, now: Now, udp: Udp, from: SocketAddr, bytes: &[u8]) {
        self.with_team(|team, room| match from {
            SocketAddr::V4(from) if team.owns(udp) => team.tell(room, now, Input::Datagram(from, bytes)),
            _ => {}
        });
    }

    pub(crate) fn team_unreachable(&mut self, now: Now, udp: Udp, peer: SocketAddr) {
        self.with_team(|team, room| match peer {
            SocketAddr::V4(peer) if team.owns(udp) => team.tell(room, now, Input::Closed(peer)),
            _ => {}
        });
    }

    pub(crate) fn team_deadline(&self) -> Option<Now> {
        self.team.as_ref()?.deadline()
    }

    /// Asks to be woken for the next bytes of the team's channel; `false` when there are some.
    pub(crate) fn team_parks(&self) -> bool {
        let trail = self.team.as_ref().and_then(|team| team.trail.as_ref());
        trail.is_none_or(|trail| self.listeners.park_beyond(trail.stream, trail.seen))
    }

    pub(crate) fn team_finishes(&mut self, now: Now) {
        self.with_team(|team, room| team.finish(room, now));
    }

    pub(crate) fn team_is_over(&self) -> bool {
        self.team
            .as_ref()
            .is_none_or(|team| team.over && team.posts.is_empty())
    }
}
