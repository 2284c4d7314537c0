//! One worker's station: the file to open first.
//!
//! The walk of a chunk: [`Station::hear`] (a driver received bytes; who sent them?) → the source's or
//! upstream's session yields stream bytes → `intake`/`feeds` *choose* and `keep` appends them to the run's
//! ring → [`Station::tell`] gives every listener its next stretch of the ring → [`Station::rest`] names the
//! earliest deadline.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use relay_link::{Serve, ServeConfig};
use relay_seam::{CloseReason, Closing, Conn, Input, Machine, Now, Output, Sent, Span};
use relay_source::AuthThrottle;

use crate::cast::{self, Cast};
use crate::channel::{Channel, Framing};
use crate::conns::{Conns, Keyed, Role};
use crate::counters::Counters;
use crate::feeds::Feed;
use crate::house::House;
use crate::intake::{Intake, Introduction};
use crate::join::Waiter;
use crate::listeners::Listeners;
use crate::orders::{ListenerInfo, Order};
use crate::team::{LeadError, TEAM_WORKER, Team};

/// How often a worker that has anything at all looks at what time has done.
const TICK: Duration = Duration::from_millis(100);
/// The same while somebody waits for a picture.
const TICK_WAITING: Duration = Duration::from_millis(20);
/// How often those who do not read are looked at.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// One core's worth of relay.
#[derive(Debug)]
pub struct Station {
    pub(crate) house: Arc<House>,
    pub(crate) worker: usize,
    pub(crate) conns: Conns,
    pub(crate) outbox: VecDeque<Output>,
    pub(crate) doors: VecDeque<(Now, Conn)>,
    pub(crate) listeners: Listeners,
    pub(crate) waiting: Keyed<Waiter>,
    pub(crate) sources: Vec<Conn>,
    pub(crate) local: HashMap<String, Intake>,
    pub(crate) feeds: Keyed<Feed>,
    pub(crate) connecting: HashMap<u64, (usize, u64)>,
    pub(crate) next_token: u64,
    pub(crate) holding: Vec<Arc<Channel>>,
    pub(crate) cast: Option<Box<Cast>>,
    half_closed: Vec<HalfClosed>,
    pub(crate) throttle: AuthThrottle,
    pub(crate) serve: Serve,
    /// Those who lag too much, found while telling.
    slow: Vec<usize>,
    next_tick: Now,
    next_judgement: Now,
    pub(crate) next_refusal_note: Now,
    pub(crate) team: Option<Box<Team>>,
    /// Something has changed that those who wait, or whose run is over, may have been waiting for.
    stirred: bool,
    begun: bool,
    pub(crate) finishing: bool,
}

/// A listener that has closed its side.
#[derive(Debug)]
struct HalfClosed {
    conn: Conn,
    /// When it was last seen to be sent something, or when it closed.
    since: Now,
    sent: u64,
}

/// A configuration that no station can work with.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// A node id that cannot be one.
    #[error("node id: {0}")]
    NodeId(#[from] relay_link::ConfigError),
    /// A team that cannot be led.
    #[error(transparent)]
    Team(#[from] LeadError),
}

impl Station {
    /// The station of one worker of a house.
    ///
    /// # Errors
    ///
    /// When the configured node id cannot be one, or the team cannot be led.
    pub fn new(house: Arc<House>, worker: usize, seed: u64) -> Result<Self, BadConfig> {
        let serve = ServeConfig::new(&house.config.node_id, house.config.node_token.clone())?;
        let spec = house.config.team.clone().filter(|_| worker == TEAM_WORKER);
        let team = spec.map(|spec| Team::new(spec, house.config.chunk_size));
        Ok(Self {
            cast: Cast::new(&house, seed),
            listeners: Listeners::new(house.clone(), worker),
            house,
            worker,
            conns: Conns::default(),
            outbox: VecDeque::new(),
            doors: VecDeque::new(),
            waiting: Keyed::new(),
            sources: Vec::new(),
            local: HashMap::new(),
            feeds: Keyed::new(),
            connecting: HashMap::new(),
            next_token: 1,
            holding: Vec::new(),
            half_closed: Vec::new(),
            throttle: AuthThrottle::new(seed),
            serve: Serve::new(serve),
            slow: Vec::new(),
            next_tick: Now::new(0, 0),
            next_judgement: Now::new(0, 0),
            next_refusal_note: Now::new(0, 0),
            team: team.transpose()?.map(Box::new),
            stirred: false,
            begun: false,
            finishing: false,
        })
    }

    /// *Hear*: bytes arrived; whose are they?
    fn hear(&mut self, now: Now, conn: Conn, bytes: &[u8]) {
        let Some(entry) = self.conns.get(conn) else {
            return self.heard_late(conn, bytes);
        };
        match entry.role {
            Role::Source(_) => self.source_heard(now, conn, bytes),
            Role::Upstream(feed, attempt) => self.upstream_heard(now, conn, feed, attempt, bytes),
            Role::Door(_) => self.door_heard(now, conn, bytes),
            Role::Listener(_) | Role::Waiting(_) | Role::Leaving => self.unasked(conn, bytes),
        }
    }

    /// Bytes of a connection that is about to be handed over go with it.
    fn heard_late(&mut self, conn: Conn, bytes: &[u8]) {
        for output in &mut self.outbox {
            if let Output::HandOver(given) = output
                && given.conn == conn
            {
                given.read_so_far.extend_from_slice(bytes);
            }
        }
    }

    /// *Tell*: the next thing that somebody is to be sent.
    fn tell(&mut self, now: Now) -> Option<Output> {
        let output = self.listeners.poll(now, &mut self.slow);
        self.let_slow_go(now);
        output
    }

    fn let_slow_go(&mut self, now: Now) {
        for key in std::mem::take(&mut self.slow) {
            self.too_slow(now, key);
        }
    }

    /// *Rest*: the earliest moment that anything here wants to see.
    fn rest(&self) -> Option<Now> {
        let busy = self.conns.len() > 0
            || !self.feeds.is_empty()
            || !self.local.is_empty()
            || !self.holding.is_empty()
            || !self.listeners.streams.is_empty();
        let tick = busy.then_some(self.next_tick);
        Now::earliest(tick, self.feeds_deadline())
    }

    /// What time has done.
    fn tick(&mut self, now: Now) {
        let wait = if self.waiting.is_empty() {
            TICK
        } else {
            TICK_WAITING
        };
        self.next_tick = now + wait;
        self.close_late_doors(now);
        self.close_silent_halves(now);
        self.sources_on_time(now);
        self.local_on_time(now);
        self.feeds_on_time(now);
        self.holding_on_time(now);
        self.cast_on_time(now);
        if now >= self.next_judgement {
            self.next_judgement = now + JUDGE_EVERY;
            self.listeners.judge_full(now, &mut self.slow);
            self.let_slow_go(now);
        }
        self.stirred = true;
    }

    /// A head may have moved: whoever sleeps over it is woken. Called by the worker that writes the channel.
    pub(crate) fn news(&mut self, channel: &Channel) {
        if !channel.has_moved() {
            return;
        }
        fence(Ordering::SeqCst);
        if channel.wake.load(Ordering::Relaxed) != 0 {
            let bits = channel.wake.swap(0, Ordering::AcqRel);
            self.house.ring_some(bits & !(1 << self.worker));
        }
        self.stirred |= !self.waiting.is_empty();
    }

    /// Those who wait, and those whose run is over, are looked at again.
    fn stir(&mut self, now: Now) {
        if std::mem::take(&mut self.stirred) {
            self.serve_waiting(now);
            self.settle(now);
        }
    }

    /// Framings that were asked for, titles: whoever writes here looks at once.
    fn serve_writers(&mut self, now: Now) {
        // Whoever writes nothing is woken for every head that moves: it leaves alone what all workers share.
        if self.sources.is_empty() && self.local.is_empty() && self.feeds.is_empty() {
            return;
        }
        let before = self
            .house
            .directory
            .all()
            .iter()
            .map(|c| c.version())
            .sum::<u64>();
        self.sources_on_time(now);
        self.local_on_time(now);
        self.feeds_on_time(now);
        let after = self
            .house
            .directory
            .all()
            .iter()
            .map(|c| c.version())
            .sum::<u64>();
        if before != after {
            self.house.ring_all();
        }
    }

    fn local_on_time(&mut self, now: Now) {
        let (house, worker) = (self.house.clone(), self.worker);
        for intake in self.local.values_mut() {
            let _ = intake.on_time(&house, worker, now);
        }
        let channels: Vec<_> = self.local.values().map(|i| i.channel.clone()).collect();
        channels.iter().for_each(|channel| self.news(channel));
    }

    fn sent(&mut self, now: Now, conn: Conn, result: Sent) {
        let Some(entry) = self.conns.get(conn) else { return };
        if let Role::Listener(key) = entry.role {
            self.listeners.sent(key, result);
        } else if let Some(how) = self.conns.sent(conn, result) {
            self.close(now, conn, how);
        }
    }

    /// What became of all datagrams of a batch.
    fn posted(&mut self, now: Now, taken: u32, dropped: u32) {
        self.counters().posts_taken.add(u64::from(taken));
        self.counters().posts_dropped.add(u64::from(dropped));
        if let Some(cast) = &mut self.cast {
            cast.posted(now, taken);
        }
        self.listeners.posted();
    }

    fn closed(&mut self, now: Now, conn: Conn, reason: CloseReason) {
        let why = match reason {
            CloseReason::Reset => "the connection was reset".to_owned(),
            CloseReason::TimedOut => "the peer is dead".to_owned(),
            CloseReason::Error(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
        };
        self.departs(now, conn, &why);
    }

    /// The peer will say nothing more. A listener that half-closes goes on listening.
    fn peer_done(&mut self, now: Now, conn: Conn) {
        let Some(entry) = self.conns.get(conn) else { return };
        match &entry.role {
            Role::Listener(_) | Role::Waiting(_) => self.half_closed.push(HalfClosed {
                conn,
                since: now,
                sent: 0,
            }),
            Role::Leaving => {}
            Role::Door(_) => self.close(now, conn, Closing::Graceful),
            Role::Source(_) => self.source_ends(now, conn, "it has closed its side"),
            Role::Upstream(feed, attempt) => {
                let (feed, attempt) = (*feed, *attempt);
                self.upstream_gone(now, feed, attempt, "the upstream closed the link");
            }
        }
    }

    /// Who has closed one side and is sent nothing cannot be told from who has gone: after a while it is let go.
    fn close_silent_halves(&mut self, now: Now) {
        let patience = self.house.config.listener.dead_after;
        let mut halves = std::mem::take(&mut self.half_closed);
        halves.retain_mut(|half| {
            let Some(entry) = self.conns.get(half.conn) else {
                return false;
            };
            if let Role::Listener(key) = entry.role {
                let sent = self.listeners.all[key].sent;
                if std::mem::replace(&mut half.sent, sent) != sent {
                    half.since = now;
                }
            }
            if now.since(half.since) < patience {
                return true;
            }
            self.counters().listeners_gone.up();
            self.close(now, half.conn, Closing::Abort);
            false
        });
        self.half_closed.append(&mut halves);
    }

    /// A connection has gone by itself.
    fn departs(&mut self, now: Now, conn: Conn, why: &str) {
        let Some(entry) = self.conns.get(conn) else { return };
        match entry.role {
            Role::Listener(key) => {
                self.counters().listeners_gone.up();
                self.listener_leaves(now, key);
            }
            Role::Waiting(key) => self.waiter_left(key),
            Role::Source(_) => self.source_is_over(now, conn, why),
            Role::Upstream(feed, attempt) => {
                self.forget(conn);
                return self.upstream_gone(now, feed, attempt, why);
            }
            Role::Door(_) | Role::Leaving => {}
        }
        self.forget(conn);
    }

    /// Lets a connection go, whoever it is.
    pub(crate) fn close(&mut self, now: Now, conn: Conn, how: Closing) {
        let Some(entry) = self.conns.get(conn) else { return };
        match entry.role {
            Role::Listener(key) => self.listener_leaves(now, key),
            Role::Waiting(key) => self.waiter_left(key),
            Role::Source(_) => self.source_is_over(now, conn, "it is let go"),
            Role::Door(_) | Role::Leaving | Role::Upstream(..) => {}
        }
        self.forget(conn);
        self.outbox.push_back(Output::Close { conn, how });
    }

    /// A connection is not ours any more.
    pub(crate) fn forget(&mut self, conn: Conn) {
        if let Some(entry) = self.conns.remove(conn) {
            self.counters().connections.down();
            self.house.admission().leave();
            if entry.counted {
                self.house
                    .admission()
                    .release_prefix(entry.peer, self.house.config.listener.max_per_prefix);
            }
        }
    }

    /// Takes a listener out of the books, and writes its line.
    pub(crate) fn listener_leaves(&mut self, now: Now, key: usize) {
        let is_link = self.is_link(key);
        let (cold, sent) = self.listeners.remove(key);
        if is_link {
            self.counters().links.down();
        } else {
            self.counters().listeners.down();
            self.house.admission().release_listener();
        }
        self.log(now, &cold.request, None, 200, sent);
    }

    fn too_slow(&mut self, now: Now, key: usize) {
        let Some(listener) = self.listeners.all.get(key) else {
            return;
        };
        let conn = listener.conn;
        self.counters().lag_closed.up();
        self.close(now, conn, Closing::Abort);
    }

    pub(crate) fn is_link(&self, key: usize) -> bool {
        let listener = &self.listeners.all[key];
        self.listeners.streams[listener.stream as usize].framing == Framing::Link
    }

    /// Bounds the kernel's share of somebody who may not read, of a stream of `bitrate` bits per second (0: unknown).
    pub(crate) fn bound(&mut self, conn: Conn, bitrate: u64) {
        let unsent = self.house.config.unsent_at(bitrate);
        let config = &self.house.config.listener;
        self.outbox.push_back(Output::Bound {
            conn,
            send_buffer: Some(config.send_buffer),
            unsent: Some(unsent),
            user_timeout: Some(config.dead_after),
        });
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.house.counters(self.worker)
    }

    fn take_orders(&mut self, now: Now) {
        while let Some(order) = self.house.mailbox(self.worker).take() {
            self.counters().orders.up();
            self.obey(now, order);
        }
        self.serve_writers(now);
        self.stirred = true;
    }

    fn obey(&mut self, now: Now, order: Order) {
        match order {
            Order::List { mount, reply } => self.list(now, mount.as_deref(), &reply),
            Order::Kill { id, reply } => {
                let _ = reply.try_send(self.kill(now, id));
            }
            Order::Move { from, to, reply } => {
                let _ = reply.try_send(self.move_clients(&from, &to));
            }
            Order::Follow { mount } => self.begin_feed(now, &mount, true, None),
            Order::Begin {
                mount,
                content_type,
                properties,
                from,
            } => {
                self.local_begins(now, &mount, content_type, properties, from);
            }
            Order::Feed { mount, bytes } => {
                let (house, worker) = (self.house.clone(), self.worker);
                if let Some(intake) = self.local.get_mut(&mount) {
                    let _ = intake.hear(&house, worker, now, &bytes);
                    let channel = intake.channel.clone();
                    self.news(&channel);
                }
            }
            Order::End { mount } => {
                if let Some(mut intake) = self.local.remove(&mount) {
                    intake.end(&self.house, self.worker, now);
                    self.holding.push(intake.channel.clone());
                }
            }
            Order::Team(newcomer) => self.team_newcomer(now, &newcomer),
            Order::Stop => self.finish(now),
        }
    }

    fn local_begins(
        &mut self,
        now: Now,
        mount: &str,
        content_type: Option<String>,
        properties: Vec<(String, String)>,
        from: String,
    ) {
        let hold = self.house.config.source_at(mount).hold;
        let Ok(channel) = self.house.directory.get_or_make(mount, hold) else {
            return;
        };
        if channel.claim() {
            let intro = Introduction {
                content_type,
                properties,
                from,
                ..Introduction::default()
            };
            self.local
                .insert(mount.to_owned(), Intake::new(now, channel, intro));
        }
    }

    fn list(&self, now: Now, mount: Option<&str>, reply: &crossbeam::channel::Sender<ListenerInfo>) {
        for (key, listener) in &self.listeners.all {
            let cold = self.listeners.cold(key);
            if mount.is_some_and(|mount| mount != cold.home.mount) {
                continue;
            }
            let stream = &self.listeners.streams[listener.stream as usize];
            let info = ListenerInfo {
                id: cold.id,
                mount: cold.home.mount.clone(),
                peer: cold.request.peer,
                agent: cold.request.agent.clone(),
                seconds: now.since(cold.request.since).as_secs(),
                bytes: listener.sent,
                lag: stream.head().saturating_sub(listener.cursor),
                link: stream.framing == Framing::Link,
            };
            if reply.try_send(info).is_err() {
                return;
            }
        }
    }

    fn kill(&mut self, now: Now, id: u64) -> bool {
        let found = self
            .listeners
            .all
            .iter()
            .find(|(key, _)| self.listeners.cold(*key).id == id);
        let Some(conn) = found.map(|(_, listener)| listener.conn) else {
            return false;
        };
        self.close(now, conn, Closing::Abort);
        true
    }

    /// Gives every listener of a mount another home; settling then moves them.
    fn move_clients(&mut self, from: &str, to: &str) -> usize {
        let Some(target) = self.house.directory.get(to) else {
            return 0;
        };
        let keys: Vec<usize> = self.listeners.all.iter().map(|(key, _)| key).collect();
        let mut moved = 0;
        for key in keys {
            if self.listeners.cold(key).home.mount == from && !self.is_link(key) {
                self.listeners.rehome(key, target.clone());
                moved += 1;
            }
        }
        moved
    }

    /// Everybody is let go; then the driver may return.
    fn finish(&mut self, now: Now) {
        self.finishing = true;
        self.team_finishes(now);
        let conns: Vec<Conn> = self.conns.iter().map(|entry| entry.conn).collect();
        for conn in conns {
            self.close(now, conn, Closing::Graceful);
        }
    }
}

impl Machine for Station {
    fn handle(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Accepted { conn, peer } => self.accepted(now, conn, peer),
            Input::Connected { token, result } => self.connected(now, token, result),
            Input::Received { conn, bytes } => self.hear(now, conn, bytes),
            Input::PeerDone { conn } => self.peer_done(now, conn),
            Input::Closed { conn, reason } => self.closed(now, conn, reason),
            Input::Sent { conn, result } => self.sent(now, conn, result),
            Input::Writable { conn } => match self.conns.get(conn).map(|entry| &entry.role) {
                Some(Role::Listener(key)) => {
                    let key = *key;
                    self.listeners.writable(key);
                }
                _ => self.conns.writable(conn),
            },
            Input::Woken => self.take_orders(now),
            Input::AcceptStalled { .. } => self.counters().accept_stalls.up(),
            Input::UdpOpened { token, result } => {
                if !self.cast_opened(now, token, &result) {
                    self.team_opened(now, token, result);
                }
            }
            Input::Posted { taken, dropped } => self.posted(now, taken, dropped),
            Input::Datagram { udp, from, bytes } => self.team_hears(now, udp, from, bytes),
            Input::Unreachable { udp, peer } => self.team_unreachable(now, udp, peer),
        }
    }

    fn poll(&mut self, now: Now) -> Option<Output> {
        if !self.begun {
            self.begun = true;
            self.begin_feeds(now);
        }
        if self.listeners.at_rest() {
            if now >= self.next_tick || self.feeds_due(now) {
                self.tick(now);
            }
            self.stir(now);
        }
        if let Some(output) = self.outbox.pop_front() {
            return Some(output);
        }
        self.conns
            .poll()
            .or_else(|| self.team_poll(now))
            .or_else(|| self.tell(now))
            .or_else(|| self.cast_poll(now))
            .or_else(|| self.outbox.pop_front())
    }

    fn bytes(&self, span: Span) -> &[u8] {
        match &self.cast {
            Some(cast) if span.ring == cast::RING => cast.reader().bytes(span.at, span.len as usize),
            _ => self.listeners.bytes(span),
        }
    }

    fn reader(&self, span: Span) -> Option<&relay_ring::Reader> {
        match &self.cast {
            Some(cast) if span.ring == cast::RING => Some(cast.reader()),
            _ => self.listeners.reader(span),
        }
    }

    fn deadline(&self) -> Option<Now> {
        let cast = self.cast.as_ref().and_then(|cast| cast.deadline());
        let sent = Now::earliest(cast, self.team_deadline());
        Now::earliest(sent, Now::earliest(self.rest(), self.listeners.deadline()))
    }

    fn park(&mut self, parked: bool) -> bool {
        let bell = self.house.bell(self.worker).clone();
        if !parked {
            bell.unpark();
            return true;
        }
        bell.park();
        let quiet = self.house.mailbox(self.worker).is_empty() && self.listeners.park() && self.team_parks();
        if !quiet {
            bell.unpark();
        }
        quiet
    }

    fn finished(&self) -> bool {
        self.finishing && self.conns.len() == 0 && self.outbox.is_empty() && self.team_is_over()
    }
}
