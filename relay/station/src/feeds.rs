//! Feeds: channels that come from other nodes, by link or by a plain pull.
//!
//! A feed belongs to the worker that began it. Its [`Upstreams`] say whom to ask and when, its [`Merge`] what is new
//! while two links run, and what is new goes to *keep*. A feed that a listener asked for ends when nobody listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_link::{
    Action, Connected, Failure, Follow, FollowConfig, Kind as How, LinkError, LinkEvent, Merge, Position,
    Taken, Upstream, Upstreams,
};
use relay_media::Kind;
use relay_seam::{Closing, Conn, Now, Output};
use relay_source::{Pull, PullEvent, Verdict};
use relay_wire::http::HttpUrl;
use relay_wire::link::EndReason;

use crate::air;
use crate::channel::{Channel, Header, NO_REWIND, State};
use crate::config::UpstreamSpec;
use crate::conns::Role;
use crate::house::House;
use crate::intake::{Intake, Introduction, RunSpec};
use crate::keep::Keeper;
use crate::orders::{Event, Level};
use crate::turn::Station;

/// A feed that was asked for is kept for so long without a listener.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A mount that no upstream knows is not asked for again for so long.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// Giving a connection up, resolving its name included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One mount that comes from elsewhere.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) mount: String,
    always: bool,
    upstreams: Upstreams,
    urls: Vec<Option<HttpUrl>>,
    attempts: Vec<Attempt>,
    next_attempt: u64,
    /// The one that goes on until the better one has caught up.
    releasing: Option<usize>,
    merge: Merge,
    /// The next chunk begins a run anew, earlier than the present one does.
    rewinding: bool,
    pub(crate) kept: Kept,
    idle_since: Now,
    /// No upstream knows the mount, since then.
    unknown_since: Option<Now>,
    /// What was last said of an upstream that cannot be used: said once, until it changes.
    last_why: String,
    /// When to ask [`Upstreams::next_action`] again.
    next_action: Option<Now>,
}

/// What a feed writes.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Nothing yet.
    Nothing,
    /// Chunks as an upstream numbers them.
    Link(Box<Keeper>),
    /// A plain stream, numbered here.
    Plain(Box<Intake>),
}

#[derive(Debug)]
struct Attempt {
    id: u64,
    index: usize,
    conn: Option<Conn>,
    session: Session,
    is_up: bool,
    /// What its HELLO said, and the headers since.
    hello: Option<Hello>,
    headers: Vec<Header>,
}

enum Session {
    Link(Box<Follow>),
    Plain(Box<Pull>),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Session::Link(_) => "Link",
            Session::Plain(_) => "Plain",
        })
    }
}

/// A HELLO, kept.
#[derive(Clone, Debug)]
struct Hello {
    epoch: u64,
    chunk_size: u16,
    kbps: u32,
    content_type: String,
    path: Vec<String>,
    properties: Vec<(String, String)>,
}

/// What an attempt came to while it was fed.
#[derive(Debug)]
enum Outcome {
    Fine,
    Lost(Failure, String),
    Redirect(HttpUrl),
}

impl Station {
    /// Feeds that the configuration asks for; each mount belongs to one worker.
    pub(crate) fn begin_feeds(&mut self, now: Now) {
        let mut mounts: Vec<String> = self
            .house
            .config
            .upstreams
            .iter()
            .filter_map(|u| u.mount.clone())
            .collect();
        // What is cast is wanted, though no listener asks for it.
        let cast = self
            .house
            .config
            .cast
            .as_ref()
            .and_then(|cast| cast.mount.clone());
        mounts.extend(cast.filter(|mount| self.may_follow(mount)));
        mounts.sort();
        mounts.dedup();
        for (i, mount) in mounts.into_iter().enumerate() {
            if i % self.house.config.workers == self.worker {
                self.begin_feed(now, &mount, true, None);
            }
        }
    }

    /// Whether an upstream may be asked for a mount that is not here.
    pub(crate) fn may_follow(&self, mount: &str) -> bool {
        self.house.config.on_demand
            && self.house.config.upstreams.iter().any(|u| u.mount.is_none())
            && FollowConfig::new(mount, &self.house.config.node_id, None).is_ok()
    }

    /// Whether somebody in this house is asking for a mount.
    pub(crate) fn follows(&self, mount: &str) -> bool {
        let unknown = |feed: &Feed| feed.mount == mount && !feed.always && feed.unknown_since.is_some();
        self.house.is_following(mount) && !self.feeds.iter().any(|(_, feed)| unknown(feed))
    }

    pub(crate) fn follow_on_demand(&mut self, now: Now, mount: &str, resume: Option<Position>) {
        let fed = self
            .house
            .directory
            .get(mount)
            .is_some_and(|channel| channel.is_claimed());
        if !fed && self.may_follow(mount) {
            self.begin_feed(now, mount, false, resume);
        }
    }

    /// Begins to follow a mount; `resume`: from where a node below wants to go on.
    pub(crate) fn begin_feed(&mut self, now: Now, mount: &str, always: bool, resume: Option<Position>) {
        let config = &self.house.config;
        // A mount that is pulled from a plain server is not also asked of nodes that may have any mount.
        let pulled = config
            .upstreams
            .iter()
            .any(|u| u.plain_url.is_some() && u.mount.as_deref() == Some(mount));
        let fits = |u: &&UpstreamSpec| u.mount.as_deref().map_or(!pulled, |m| m == mount);
        let (mut list, mut urls) = (Vec::new(), Vec::new());
        for spec in config.upstreams.iter().filter(fits) {
            let url = spec.plain_url.as_deref().map(HttpUrl::parse);
            let Some(url) = url.transpose().ok() else { continue };
            let kind = if url.is_some() { How::Plain } else { How::Link };
            list.push(Upstream {
                host: spec.host.clone(),
                port: spec.port,
                path: None,
                kind,
            });
            urls.push(url);
        }
        if list.is_empty() || !self.house.begin_following(mount) {
            return;
        }
        let seed = now.wall_us() ^ (mount.len() as u64) << 48 ^ self.house.next_id() << 32;
        self.feeds.insert(Feed {
            mount: mount.to_owned(),
            always,
            upstreams: Upstreams::new(list, config.upstream_timing.clone(), seed),
            urls,
            attempts: Vec::new(),
            next_attempt: 1,
            releasing: None,
            merge: Merge::new(resume),
            rewinding: false,
            kept: Kept::Nothing,
            idle_since: now,
            unknown_since: None,
            last_why: String::new(),
            next_action: Some(now),
        });
    }

    /// Time has passed for all feeds.
    pub(crate) fn feeds_on_time(&mut self, now: Now) {
        let keys: Vec<usize> = self.feeds.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.check_attempts(now, key);
            self.service_feed(now, key);
            if self.is_over(now, key) {
                self.end_feed(now, key);
            } else {
                self.next_actions(now, key);
            }
        }
    }

    /// The earliest moment at which a feed wants to act.
    pub(crate) fn feeds_deadline(&self) -> Option<Now> {
        self.feeds.iter().fold(None, |earliest, (_, feed)| {
            Now::earliest(earliest, feed.next_action)
        })
    }

    /// Whether any feed wants to act by now.
    pub(crate) fn feeds_due(&self, now: Now) -> bool {
        self.feeds_deadline().is_some_and(|at| at <= now)
    }

    fn check_attempts(&mut self, now: Now, key: usize) {
        let feed = &mut self.feeds[key];
        let mut lost = Vec::new();
        for attempt in feed.attempts.iter_mut().filter(|a| a.conn.is_some()) {
            let late = match &mut attempt.session {
                Session::Link(follow) => follow.check(now).err().map(|e| (e.failure(), e.to_string())),
                Session::Plain(pull) => match pull.on_time(now) {
                    Verdict::Keep => None,
                    _ => Some((
                        Failure::Silent,
                        "expected a stream, got nothing in time".to_owned(),
                    )),
                },
            };
            lost.extend(late.map(|(failure, why)| (attempt.id, failure, why)));
        }
        for (id, failure, why) in lost {
            self.drop_attempt(now, key, id, failure, &why, true);
        }
    }

    fn service_feed(&mut self, now: Now, key: usize) {
        let (house, worker) = (self.house.clone(), self.worker);
        let feed = &mut self.feeds[key];
        match &mut feed.kept {
            Kept::Nothing => {}
            Kept::Link(keeper) => {
                keeper.service(now);
                let _ = keeper.grow(now, &house);
                let number = keeper.run.rewind_to.swap(NO_REWIND, Ordering::Relaxed);
                let epoch = keeper.run.epoch;
                if number != NO_REWIND && !feed.rewinding {
                    return self.rewind(now, key, Position { epoch, number });
                }
            }
            Kept::Plain(intake) => {
                let _ = intake.on_time(&house, worker, now);
            }
        }
        let Some(channel) = feed.channel() else { return };
        if channel.is_followed() || feed.always {
            feed.idle_since = now;
        }
        self.news(&channel);
    }

    /// Asks the upstream again, from an earlier chunk on, for a node below that wants to go on there.
    fn rewind(&mut self, now: Now, key: usize, to: Position) {
        let feed = &mut self.feeds[key];
        feed.merge = Merge::new(Some(to));
        feed.rewinding = true;
        let open: Vec<u64> = feed.attempts.iter().map(|a| a.id).collect();
        for id in open {
            self.drop_attempt(
                now,
                key,
                id,
                Failure::Ended,
                "to ask it for an earlier chunk",
                true,
            );
        }
    }

    fn is_over(&self, now: Now, key: usize) -> bool {
        let feed = &self.feeds[key];
        if feed.always {
            return false;
        }
        match feed.unknown_since {
            Some(since) => now.since(since) >= UNKNOWN_FOR,
            None => now.since(feed.idle_since) >= IDLE_MAX,
        }
    }

    fn end_feed(&mut self, now: Now, key: usize) {
        let feed = self.feeds.remove(key);
        for conn in feed.attempts.iter().filter_map(|a| a.conn) {
            self.close(now, conn, Closing::Graceful);
        }
        self.house.end_following(&feed.mount);
        self.end_kept(now, feed.kept);
    }

    fn end_kept(&mut self, now: Now, kept: Kept) {
        match kept {
            Kept::Nothing => {}
            Kept::Link(mut keeper) => {
                keeper.end(now);
                keeper.channel.release();
                air::gone(&self.house, self.worker, now, &keeper.channel);
                self.hold_or_drop(keeper.channel.clone());
            }
            Kept::Plain(mut intake) => {
                intake.end(&self.house, self.worker, now);
                self.hold_or_drop(intake.channel.clone());
            }
        }
    }

    /// A feed that ends because nobody listens leaves nothing behind.
    fn hold_or_drop(&mut self, channel: Arc<Channel>) {
        if !channel.is_followed() {
            channel.change(|about| about.state = State::Ended);
            self.house.directory.remove(&channel);
        } else {
            self.holding.push(channel);
        }
    }

    /// Asks the upstreams' rule, and does what it says.
    fn next_actions(&mut self, now: Now, key: usize) {
        loop {
            let feed = &mut self.feeds[key];
            match feed.upstreams.next_action(now) {
                Action::Wait { until } => {
                    feed.next_action = until;
                    return;
                }
                Action::Connect { index } => self.attempt(now, key, index),
            }
        }
    }

    fn attempt(&mut self, now: Now, key: usize, index: usize) {
        let config = &self.house.config;
        let feed = &mut self.feeds[key];
        let session = match &feed.urls[index] {
            Some(url) => {
                let source = config.source_at(&feed.mount);
                Session::Plain(Box::new(Pull::new(url.clone(), &config.software, source, now)))
            }
            None => match FollowConfig::new(&feed.mount, &config.node_id, config.node_token.clone()) {
                Ok(follow) => Session::Link(Box::new(Follow::new(&follow, feed.merge.next(), now))),
                Err(_) => return feed.upstreams.on_failed(index, now, Failure::Refused),
            },
        };
        let (host, port) = match &session {
            Session::Plain(pull) => (pull.url().host.clone(), pull.url().port),
            Session::Link(_) => match feed.upstreams.get(index) {
                Some(upstream) => (upstream.host.clone(), upstream.port),
                None => return,
            },
        };
        let id = feed.next_attempt;
        feed.next_attempt += 1;
        feed.attempts.push(Attempt {
            id,
            index,
            conn: None,
            session,
            is_up: false,
            hello: None,
            headers: Vec::new(),
        });
        self.connect(key, id, host, port);
    }

    fn connect(&mut self, key: usize, id: u64, host: String, port: u16) {
        let token = self.next_token;
        self.next_token += 1;
        self.connecting.insert(token, (key, id));
        self.outbox.push_back(Output::Connect {
            token,
            host,
            port,
            timeout: CONNECT_TIMEOUT,
        });
    }

    pub(crate) fn connected(&mut self, now: Now, token: u64, result: std::io::Result<(Conn, SocketAddr)>) {
        let Some((key, id)) = self.connecting.remove(&token) else {
            return;
        };
        let known = self
            .feeds
            .get(key)
            .is_some_and(|feed| feed.attempts.iter().any(|a| a.id == id));
        match result {
            Ok((conn, peer)) => {
                self.house.admission().enter();
                self.counters().connections.up();
                self.conns.add(conn, peer, Role::Upstream(key, id), false);
                if !known {
                    return self.close(now, conn, Closing::Abort);
                }
                self.ask_upstream(now, key, id, conn);
            }
            Err(error) if known => {
                self.drop_attempt(now, key, id, Failure::Network, &error.to_string(), false);
                self.next_actions(now, key);
            }
            Err(_) => {}
        }
    }

    fn ask_upstream(&mut self, now: Now, key: usize, id: u64, conn: Conn) {
        let house = self.house.clone();
        let feed = &mut self.feeds[key];
        let resume = feed.merge.next();
        let Some(attempt) = feed.attempts.iter_mut().find(|a| a.id == id) else {
            return;
        };
        attempt.conn = Some(conn);
        let request = match &mut attempt.session {
            Session::Plain(pull) => pull.request(),
            Session::Link(follow) => {
                // Connecting took its time: ask for what is next now, and count silence from now.
                if let Ok(config) = FollowConfig::new(
                    &feed.mount,
                    &house.config.node_id,
                    house.config.node_token.clone(),
                ) {
                    **follow = Follow::new(&config, resume, now);
                }
                let upstream = feed.upstreams.get(attempt.index);
                follow.request(&upstream.map_or_else(String::new, |u| host_field(&u.host, u.port)))
            }
        };
        self.conns.say(conn, request, None);
    }

    pub(crate) fn upstream_heard(&mut self, now: Now, conn: Conn, key: usize, id: u64, bytes: &[u8]) {
        let (house, worker) = (self.house.clone(), self.worker);
        let Some(feed) = self.feeds.get_mut(key) else {
            return;
        };
        let Some(at) = feed.attempts.iter().position(|a| a.id == id) else {
            return;
        };
        let mut attempt = feed.attempts.swap_remove(at);
        let outcome = match &mut attempt.session {
            Session::Link(_) => feed.hear_link(&house, worker, now, &mut attempt, bytes),
            Session::Plain(_) => feed.hear_plain(&house, worker, now, &mut attempt, bytes),
        };
        let release = feed.release_if_caught_up(&attempt);
        let surplus = attempt.is_up
            && feed.upstreams.current() != Some(attempt.index)
            && feed.releasing != Some(attempt.index);
        feed.attempts.push(attempt);
        let channel = feed.channel();
        if let Some(channel) = channel {
            self.news(&channel);
        }
        if let Some(old) = release {
            self.close_attempts(now, key, old, id);
        }
        match outcome {
            Outcome::Fine if surplus => self.close_attempt(now, key, id),
            Outcome::Fine => {}
            Outcome::Redirect(url) => self.redirect(now, conn, key, id, url),
            Outcome::Lost(failure, why) => {
                self.drop_attempt(now, key, id, failure, &why, true);
                self.next_actions(now, key);
            }
        }
    }

    /// An upstream's connection is over.
    pub(crate) fn upstream_gone(&mut self, now: Now, key: usize, id: u64, why: &str) {
        if self
            .feeds
            .get(key)
            .is_some_and(|feed| feed.attempts.iter().any(|a| a.id == id))
        {
            self.drop_attempt(now, key, id, Failure::Network, why, true);
            self.next_actions(now, key);
        }
    }

    fn redirect(&mut self, now: Now, conn: Conn, key: usize, id: u64, url: HttpUrl) {
        let house = self.house.clone();
        self.close(now, conn, Closing::Graceful);
        let feed = &mut self.feeds[key];
        let source = house.config.source_at(&feed.mount);
        let (host, port) = (url.host.clone(), url.port);
        let Some(attempt) = feed.attempts.iter_mut().find(|a| a.id == id) else {
            return;
        };
        attempt.conn = None;
        if let Session::Plain(pull) = &mut attempt.session {
            **pull = pull.follow(url, source, now);
        }
        self.connect(key, id, host, port);
    }

    /// Closes an attempt that is not wanted, without a word to the rule.
    fn close_attempt(&mut self, now: Now, key: usize, id: u64) {
        let attempts = &mut self.feeds[key].attempts;
        let Some(at) = attempts.iter().position(|a| a.id == id) else {
            return;
        };
        if let Some(conn) = attempts.swap_remove(at).conn {
            self.close(now, conn, Closing::Graceful);
        }
    }

    fn close_attempts(&mut self, now: Now, key: usize, index: usize, but: u64) {
        let same = |a: &&Attempt| a.index == index && a.id != but;
        let ids: Vec<u64> = self.feeds[key]
            .attempts
            .iter()
            .filter(same)
            .map(|a| a.id)
            .collect();
        ids.into_iter().for_each(|id| self.close_attempt(now, key, id));
    }

    /// An attempt has failed, or its link is lost.
    fn drop_attempt(&mut self, now: Now, key: usize, id: u64, failure: Failure, why: &str, was_open: bool) {
        self.counters().upstream_failures.up();
        if failure == Failure::Loop {
            self.counters().upstream_loops.up();
        }
        let house = self.house.clone();
        let feed = &mut self.feeds[key];
        let Some(at) = feed.attempts.iter().position(|a| a.id == id) else {
            return;
        };
        let attempt = feed.attempts.swap_remove(at);
        let was_current = feed.upstreams.current() == Some(attempt.index) && attempt.is_up;
        if was_current {
            feed.upstreams.on_lost(attempt.index, now, failure);
        } else {
            feed.upstreams.on_failed(attempt.index, now, failure);
        }
        if feed.releasing == Some(attempt.index) {
            feed.releasing = None;
        }
        let nobody = feed.attempts.iter().all(|a| a.conn.is_none() || !a.is_up);
        if failure == Failure::Behind && matches!(feed.kept, Kept::Nothing) {
            feed.merge = Merge::default();
        }
        if failure == Failure::Refused && matches!(feed.kept, Kept::Nothing) {
            feed.unknown_since.get_or_insert(now);
        }
        feed.next_action = Some(now);
        let upstream = feed
            .upstreams
            .get(attempt.index)
            .map_or_else(String::new, |u| host_field(&u.host, u.port));
        let mount = feed.mount.clone();
        let orphan = (nobody && was_current).then(|| feed.orphan()).flatten();
        if let Some(channel) = orphan {
            air::gone(&house, self.worker, now, &channel);
            self.holding.push(channel);
        }
        let feed = &mut self.feeds[key];
        // That a mount is not there is no news where strangers may ask for any.
        let token = why.contains("got 401") || why.contains("got 403");
        let news = feed.last_why != why && (feed.always || failure != Failure::Refused || token);
        if was_current || failure == Failure::Loop || news {
            feed.last_why = why.to_owned();
            let text = format!(
                "{mount}: upstream {upstream}: {}",
                relay_wire::text::escape_log(why)
            );
            self.house.tell(
                self.worker,
                Event::Note {
                    level: Level::Warn,
                    text,
                },
            );
        }
        if let Some(conn) = attempt.conn.filter(|_| was_open) {
            self.close(now, conn, Closing::Graceful);
        }
    }
}

impl Feed {
    /// The channel that it feeds, if it does.
    pub(crate) fn channel(&self) -> Option<Arc<Channel>> {
        match &self.kept {
            Kept::Nothing => None,
            Kept::Link(keeper) => Some(keeper.channel.clone()),
            Kept::Plain(intake) => Some(intake.channel.clone()),
        }
    }

    /// Its last upstream is lost. A link's run stays open: another node may go on with it.
    fn orphan(&mut self) -> Option<Arc<Channel>> {
        let channel = self.channel();
        if let Kept::Plain(intake) = &mut self.kept {
            // A plain stream has no numbers to go on from.
            if let Some(keeper) = &mut intake.keeper {
                keeper.run.end();
            }
            intake.channel.release();
            self.kept = Kept::Nothing;
        }
        channel
    }

    fn release_if_caught_up(&mut self, attempt: &Attempt) -> Option<usize> {
        let Session::Link(follow) = &attempt.session else {
            return self.releasing.take();
        };
        let leads = self.upstreams.current() == Some(attempt.index);
        if leads && self.releasing.is_some() && self.merge.caught_up(follow.position()) {
            return self.releasing.take();
        }
        None
    }

    /// An attempt has shown that it works.
    fn comes_up(&mut self, now: Now, attempt: &mut Attempt) {
        attempt.is_up = true;
        self.unknown_since = None;
        if let Connected::Use { release } = self.upstreams.on_connected(attempt.index, now) {
            self.releasing = release;
        }
    }

    fn hear_link(
        &mut self,
        house: &House,
        worker: usize,
        now: Now,
        attempt: &mut Attempt,
        bytes: &[u8],
    ) -> Outcome {
        let Attempt {
            index,
            session,
            hello,
            headers,
            ..
        } = attempt;
        let Session::Link(follow) = session else {
            return Outcome::Fine;
        };
        let leads = match self.releasing {
            Some(old) => *index == old,
            None => self.upstreams.current().is_none_or(|current| current == *index),
        };
        let mut wrong: Option<Outcome> = None;
        let fed = follow.feed(now, bytes, &mut |event| {
            if wrong.is_none() {
                wrong = self.link_event(house, worker, now, leads, hello, headers, event);
            }
        });
        let is_up = follow.is_up();
        if is_up && !attempt.is_up {
            self.comes_up(now, attempt);
        }
        match (wrong, fed) {
            (Some(outcome), _) => outcome,
            (None, Err(error)) => {
                let hint = match error {
                    LinkError::NotALink { .. } | LinkError::Status { got: 400..500 } => {
                        " (a plain HTTP or Icecast server is pulled by pull+http://… instead)"
                    }
                    _ => "",
                };
                Outcome::Lost(error.failure(), format!("{error}{hint}"))
            }
            (None, Ok(())) => Outcome::Fine,
        }
    }

    fn link_event(
        &mut self,
        house: &House,
        worker: usize,
        now: Now,
        leads: bool,
        hello: &mut Option<Hello>,
        headers: &mut Vec<Header>,
        event: LinkEvent<'_>,
    ) -> Option<Outcome> {
        match event {
            LinkEvent::Hello(h) => {
                if hello.as_ref().is_none_or(|old| old.epoch != h.epoch) {
                    headers.clear();
                }
                // Somebody below asked for what the upstream has not come to: from the live edge, then.
                let ahead = |p: Position| p.epoch == h.epoch && h.first < p.number;
                if matches!(self.kept, Kept::Nothing) && self.merge.next().is_some_and(ahead) {
                    self.merge = Merge::default();
                    return Some(Outcome::Lost(
                        Failure::Behind,
                        "it has not come so far".to_owned(),
                    ));
                }
                *hello = Some(Hello::keep(&h));
                self.begin_run(house, worker, now, leads, hello, headers, h.first, false)
            }
            LinkEvent::Header(h) => {
                let header = Header {
                    at: h.at,
                    bytes: h.header.into(),
                    again: h.again.into(),
                };
                if let (Kept::Link(keeper), Some(hello)) = (&mut self.kept, &*hello)
                    && keeper.run.epoch == hello.epoch
                    && keeper.run.header_at(header.at).as_ref() != Some(&header)
                {
                    keeper.header(now, header.clone());
                }
                headers.push(header);
                if headers.len() > 8 {
                    headers.remove(0);
                }
                None
            }
            LinkEvent::Chunk(chunk) => {
                let epoch = hello.as_ref()?.epoch;
                match self.merge.take(
                    Position {
                        epoch,
                        number: chunk.number,
                    },
                    leads,
                ) {
                    Taken::Repeat | Taken::Early => {
                        house.counters(worker).link_duplicates.up();
                        return None;
                    }
                    Taken::Jump { missing } => {
                        house.counters(worker).link_gaps.up();
                        house.counters(worker).link_gap_chunks.add(missing);
                    }
                    Taken::Next | Taken::Epoch { .. } => {}
                }
                if let Some(wrong) =
                    self.begin_run(house, worker, now, true, hello, headers, chunk.number, true)
                {
                    return Some(wrong);
                }
                let Kept::Link(keeper) = &mut self.kept else {
                    return None;
                };
                if !keeper.ready(chunk.bytes.len()) {
                    house.counters(worker).ring_refusals.up();
                    self.merge = Merge::new(Some(Position {
                        epoch,
                        number: chunk.number,
                    }));
                    return Some(Outcome::Lost(
                        Failure::Network,
                        "the ring is held by a reader".to_owned(),
                    ));
                }
                house.counters(worker).bytes_heard.add(chunk.bytes.len() as u64);
                keeper.append_chunk(now, &chunk);
                None
            }
            LinkEvent::Join { at } => {
                if let (Kept::Link(keeper), Some(hello)) = (&mut self.kept, &*hello)
                    && keeper.run.epoch == hello.epoch
                {
                    keeper.join(now, at);
                }
                None
            }
            LinkEvent::Metadata(title) => {
                if let Some(channel) = self.channel()
                    && channel.about().title != title
                {
                    channel.set_title(title);
                }
                None
            }
            LinkEvent::End(end) => match end.reason {
                EndReason::NewEpoch => None,
                EndReason::UnknownChannel => Some(Outcome::Lost(Failure::Refused, end.text.to_owned())),
                EndReason::Loop => Some(Outcome::Lost(Failure::Loop, end.text.to_owned())),
                _ => Some(Outcome::Lost(Failure::Ended, end.text.to_owned())),
            },
            LinkEvent::Munro(_)
            | LinkEvent::Ping { .. }
            | LinkEvent::Gap { .. }
            | LinkEvent::NewEpoch { .. } => None,
        }
    }

    /// A run for the epoch of a HELLO, unless it is there already.
    fn begin_run(
        &mut self,
        house: &House,
        worker: usize,
        now: Now,
        leads: bool,
        hello: &Option<Hello>,
        headers: &[Header],
        first: u64,
        is_chunk: bool,
    ) -> Option<Outcome> {
        let hello = hello.as_ref()?;
        if let Kept::Link(keeper) = &self.kept
            && keeper.run.epoch == hello.epoch
            && keeper.run.chunk_size != hello.chunk_size
        {
            return Some(Outcome::Lost(
                Failure::Protocol,
                "its chunks have changed their size within an epoch".to_owned(),
            ));
        }
        let channel = match &self.kept {
            Kept::Link(keeper) if keeper.run.epoch == hello.epoch && (!self.rewinding || !is_chunk) => {
                // The same life goes on after a pause.
                if leads && keeper.channel.on_air(|rule| rule.state()) != relay_source::State::OnAir {
                    air::up(house, worker, &keeper.channel.clone());
                }
                return None;
            }
            Kept::Link(_) if !leads => return None,
            Kept::Link(keeper) => keeper.channel.clone(),
            // A link takes over from a plain pull; the claim is ours already.
            Kept::Plain(_) if !is_chunk => return None,
            Kept::Plain(intake) => intake.channel.clone(),
            _ => match house
                .directory
                .get_or_make(&self.mount, house.config.source_at(&self.mount).hold)
            {
                Ok(channel) if channel.claim() => channel,
                Ok(_) => {
                    return Some(Outcome::Lost(
                        Failure::Refused,
                        "the mount has a source here".to_owned(),
                    ));
                }
                Err(full) => return Some(Outcome::Lost(Failure::Refused, full.to_string())),
            },
        };
        match &mut self.kept {
            Kept::Link(keeper) => keeper.end(now),
            Kept::Plain(intake) => intake.keeper.iter_mut().for_each(|keeper| keeper.end(now)),
            Kept::Nothing => {}
        }
        channel.change(|about| {
            about.properties = hello.properties.clone();
            about.since_s = now.wall_us() / 1_000_000;
            about.from = hello.path.last().cloned().unwrap_or_default();
        });
        let spec = RunSpec {
            epoch: hello.epoch,
            chunk_size: hello.chunk_size,
            kind: Kind::from_content_type(&hello.content_type).unwrap_or(Kind::Other),
            content_type: hello.content_type.clone(),
            path: hello.path.clone(),
            kbps: hello.kbps,
            first,
            rewound: std::mem::take(&mut self.rewinding),
        };
        match spec.begin(house, worker, now, &channel, None) {
            Ok(mut keeper) => {
                headers
                    .iter()
                    .cloned()
                    .for_each(|header| keeper.header(now, header));
                self.kept = Kept::Link(Box::new(keeper));
                None
            }
            Err(error) => {
                channel.release();
                Some(Outcome::Lost(
                    Failure::Refused,
                    format!("no memory for its ring: {error}"),
                ))
            }
        }
    }

    fn hear_plain(
        &mut self,
        house: &House,
        worker: usize,
        now: Now,
        attempt: &mut Attempt,
        bytes: &[u8],
    ) -> Outcome {
        let Session::Plain(pull) = &mut attempt.session else {
            return Outcome::Fine;
        };
        let from = format!("{}:{}", pull.url().host, pull.url().port);
        let (mut outcome, mut accepted) = (Outcome::Fine, false);
        let (mount, kept) = (&self.mount, &mut self.kept);
        let fed = pull.feed(now, bytes, &mut |event| match event {
            PullEvent::Accepted(properties) => {
                accepted = true;
                let channel = match house
                    .directory
                    .get_or_make(mount, house.config.source_at(mount).hold)
                {
                    Ok(channel) if matches!(kept, Kept::Plain(_)) || channel.claim() => channel,
                    _ => {
                        outcome = Outcome::Lost(
                            Failure::Refused,
                            "the mount is taken, or there are too many".to_owned(),
                        );
                        return;
                    }
                };
                if let Kept::Plain(old) = kept
                    && let Some(keeper) = &mut old.keeper
                {
                    keeper.end(now);
                }
                let intro = Introduction::new(&properties, from.clone(), String::new());
                *kept = Kept::Plain(Box::new(Intake::new(now, channel, intro)));
            }
            PullEvent::Payload(piece) => {
                if let Kept::Plain(intake) = kept
                    && let Err(error) = intake.hear(house, worker, now, piece)
                {
                    outcome = Outcome::Lost(Failure::Refused, error.to_string());
                }
            }
            PullEvent::Title(title) => {
                if let Kept::Plain(intake) = kept
                    && intake.channel.about().title != title
                {
                    intake.channel.set_title(title);
                }
            }
            PullEvent::Redirect(url) => outcome = Outcome::Redirect(url),
            PullEvent::End => outcome = Outcome::Lost(Failure::Ended, "it has said all".to_owned()),
        });
        if accepted && !attempt.is_up {
            self.comes_up(now, attempt);
        }
        match (outcome, fed) {
            (Outcome::Fine, Err(refusal)) => Outcome::Lost(Failure::Refused, refusal.to_string()),
            (outcome, _) => outcome,
        }
    }
}

impl Hello {
    fn keep(h: &relay_wire::link::Hello<'_>) -> Self {
        let mut properties: Vec<(String, String)> =
            h.properties.iter().map(|(k, v)| (clean(k), clean(v))).collect();
        let at = properties.iter().position(|(name, _)| name == "content-type");
        let content_type = at.map(|at| properties.remove(at).1).unwrap_or_default();
        Self {
            epoch: h.epoch,
            chunk_size: u16::try_from(h.chunk_size).unwrap_or(u16::MAX),
            kbps: h.bitrate_kbps,
            content_type,
            path: h.path.iter().map(str::to_owned).collect(),
            properties,
        }
    }
}

/// An upstream's words go into our own response heads: no control characters, and not for ever.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(relay_source::properties::VALUE_MAX)
        .collect()
}

fn host_field(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
