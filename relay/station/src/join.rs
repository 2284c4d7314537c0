//! Joining: from a request for a mount to a cursor in a ring.
//!
//! Whoever asks for a mount waits first, if only for an instant: until there is a run, a join point in it, and the
//! framing that was asked for. What it gets before the ring's bytes (response head, container header, a link's HELLO)
//! is its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_link::serve::{path_below, response_head, start};
use relay_link::{Ask, Denied, From as LinkFrom, Position, Window};
use relay_listener::{Greeting, head as greeting};
use relay_seam::{Conn, Now};
use relay_wire::http::RequestHead;
use relay_wire::icy::{EMPTY_BLOCK, METAINT};
use relay_wire::link;

use crate::channel::{Channel, Framing, Run, State};
use crate::conns::Role;
use crate::door::{date, is_http10, request};
use crate::icy;
use crate::keep::NOT_LINKED;
use crate::listeners::Request;
use crate::turn::Station;

/// What somebody wants of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The stream.
    Stream,
    /// The head of the answer alone.
    Head,
    /// The link.
    Link(LinkFrom),
}

/// Somebody who waits for a mount.
#[derive(Debug)]
pub(crate) struct Waiter {
    conn: Conn,
    mount: String,
    request: Request,
    wanted: Wanted,
    until: Now,
}

impl Waiter {
    pub(crate) fn new(conn: Conn, mount: &str, request: Request, wanted: Wanted, until: Now) -> Self {
        Self {
            conn,
            mount: mount.to_owned(),
            request,
            wanted,
            until,
        }
    }
}

/// A place in a ring, and what comes before it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) framing: Framing,
    pub(crate) cursor: u64,
    pub(crate) own: Vec<u8>,
}

impl Station {
    pub(crate) fn link_comes(
        &mut self,
        now: Now,
        conn: Conn,
        peer: SocketAddr,
        since: Now,
        head: &RequestHead,
    ) {
        let ask = Ask::of(head, peer.ip());
        let admitted = self.serve.admit(&ask).map(|r| (r.mount.to_owned(), r.from));
        let (mount, from) = match admitted {
            Ok(admitted) => admitted,
            Err(denied) => return self.deny_link(now, conn, &request(head, peer, since), &denied),
        };
        let request = request(head, peer, since);
        let known = self.house.directory.get(&mount).is_some() || self.house.is_following(&mount);
        if !known && !self.may_follow(&mount) {
            return self.deny_link(now, conn, &request, &Denied::unknown_channel(&mount));
        }
        let until = now + self.house.config.listener.patience;
        self.wait(now, Waiter::new(conn, &mount, request, Wanted::Link(from), until));
    }

    fn deny_link(&mut self, now: Now, conn: Conn, request: &Request, denied: &Denied) {
        self.log(now, request, None, denied.status(), 0);
        self.leave_with(conn, denied.answer());
    }

    /// Lets somebody wait; at once no longer, if the mount is ready.
    pub(crate) fn wait(&mut self, now: Now, waiter: Waiter) {
        let conn = waiter.conn;
        let resume = match waiter.wanted {
            Wanted::Link(LinkFrom::At { epoch, number }) => Some(Position { epoch, number }),
            _ => None,
        };
        self.follow_on_demand(now, &waiter.mount, resume);
        let key = self.waiting.insert(waiter);
        if let Some(entry) = self.conns.get(conn) {
            entry.role = Role::Waiting(key);
        }
        self.counters().waiting.up();
        self.serve_waiter(now, key);
    }

    /// Asks again for everybody who waits.
    pub(crate) fn serve_waiting(&mut self, now: Now) {
        let keys: Vec<usize> = self.waiting.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.serve_waiter(now, key);
        }
    }

    fn serve_waiter(&mut self, now: Now, key: usize) {
        let waiter = &self.waiting[key];
        let channel = self.house.directory.get(&waiter.mount);
        // Nobody new begins with what is left of a stream whose source has gone.
        let on_air = |c: &&Arc<Channel>| matches!(c.state(), State::OnAir | State::Fallback(_));
        let heard = channel.as_ref().filter(on_air).and_then(|c| self.heard_at(c));
        let place = match &heard {
            Some((_, run)) => self.place(now, channel.as_ref(), run, waiter),
            None => None,
        };
        match (heard, channel, place) {
            (Some((on, run)), Some(home), Some(place)) => self.seat(now, key, home, on, run, place),
            (_, channel, _) => {
                let hopeless = channel.is_none() && !self.follows(&self.waiting[key].mount);
                if hopeless || now >= self.waiting[key].until {
                    self.give_up_waiting(now, key);
                }
            }
        }
    }

    /// What is to be heard at a channel: its own run, or its fallback's.
    pub(crate) fn heard_at(&self, channel: &Arc<Channel>) -> Option<(Arc<Channel>, Arc<Run>)> {
        let on = match channel.state() {
            State::Fallback(mount) => self.house.directory.get(&mount)?,
            _ => channel.clone(),
        };
        let run = on.run().filter(|run| !run.ended())?;
        Some((on, run))
    }

    /// Where a newcomer starts, once everything it needs is there.
    fn place(&self, now: Now, home: Option<&Arc<Channel>>, run: &Arc<Run>, waiter: &Waiter) -> Option<Place> {
        let Wanted::Link(from) = waiter.wanted else {
            let head = |metaint| {
                let about = home.map(|c| c.about()).unwrap_or_default();
                greeting(&Greeting {
                    http10: is_http10(waiter.request.version),
                    content_type: &run.content_type,
                    metaint,
                    properties: &about.properties,
                    server: &self.house.config.software,
                    date: &date(now),
                })
            };
            if waiter.wanted == Wanted::Head {
                let metaint = (waiter.request.icy && icy::carries(run.kind)).then_some(METAINT);
                return Some(Place {
                    framing: Framing::Raw,
                    cursor: 0,
                    own: head(metaint),
                });
            }
            return self.stream_place(run, waiter.request.icy, head);
        };
        self.link_place(home?, run, from, true)
    }

    fn stream_place(
        &self,
        run: &Arc<Run>,
        icy: bool,
        head: impl Fn(Option<usize>) -> Vec<u8>,
    ) -> Option<Place> {
        let at = run.join_point(u64::from(self.house.config.listener.burst))?;
        let header = run.header_at(at).map(|h| h.bytes);
        let header = header.as_deref().unwrap_or_default();
        if icy && icy::carries(run.kind) {
            return self.icy_place(run, at, 0, header).map(|mut place| {
                place.own = [head(Some(METAINT)), place.own].concat();
                place
            });
        }
        Some(Place {
            framing: Framing::Raw,
            cursor: at,
            own: [&head(None), header].concat(),
        })
    }

    /// A place in the framing with metadata blocks, for somebody who has had `had` bytes since its last one.
    pub(crate) fn icy_place(&self, run: &Run, at: u64, had: usize, header: &[u8]) -> Option<Place> {
        let Some((_, phases)) = run.icy.get() else {
            run.icy_wanted.store(true, Ordering::Relaxed);
            self.house.ring_all();
            return None;
        };
        // The framing may not reach back as far as the stream does.
        let (at, phase) = phases.around(at).map(|phase| (at, phase)).or_else(|| {
            let newest = run.newest_join_point()?;
            Some((newest, phases.around(newest)?))
        })?;
        let own = icy::bridge(had, header, at, phase, &EMPTY_BLOCK);
        Some(Place {
            framing: Framing::Icy,
            cursor: phase.framed + (at - phase.raw),
            own,
        })
    }

    /// A place on the link: exactly where asked, if the ring still has it.
    pub(crate) fn link_place(
        &self,
        channel: &Channel,
        run: &Run,
        from: LinkFrom,
        greet: bool,
    ) -> Option<Place> {
        let Some(ring) = run.link.get() else {
            run.link_wanted.store(true, Ordering::Relaxed);
            self.house.ring_all();
            return None;
        };
        // Read before the stream's head: a chunk that is whole by now is framed at or after this.
        let link_head = ring.head();
        let chunk = u64::from(run.chunk_size);
        let next = run.raw.head() / chunk;
        let burst = u64::from(self.house.config.listener.burst);
        let window = Window {
            epoch: run.epoch,
            first: run.oldest().div_ceil(chunk),
            next,
            live: run.join_point(burst).map_or(next, |at| at / chunk),
        };
        if greet && self.wants_rewind(run, from, &window) {
            return None;
        }
        let start = start(from, &window);
        let framed = run
            .index
            .get(start.number)
            .filter(|info| info.len > 0 && info.link_at != NOT_LINKED);
        let cursor = framed.map_or(link_head, |info| info.link_at);
        if cursor < ring.floor() {
            return None;
        }
        let mut own = if greet { response_head(&start) } else { Vec::new() };
        self.hello(&mut own, channel, run, start.number)?;
        Some(Place {
            framing: Framing::Link,
            cursor,
            own,
        })
    }

    /// A node that has just begun to follow a channel does not have what those below it had from its predecessor. Once
    /// per run it begins again, from where they want to go on; they wait for that.
    fn wants_rewind(&self, run: &Run, from: LinkFrom, window: &Window) -> bool {
        let LinkFrom::At { epoch, number } = from else {
            return false;
        };
        let chunk = u64::from(run.chunk_size);
        let never_here = number < window.first && number < run.start / chunk;
        let in_reach = (window.next - number.min(window.next)) * chunk < run.raw.window() / 2;
        if epoch != run.epoch || run.path.is_empty() || run.rewound || !never_here || !in_reach {
            return false;
        }
        run.rewind_to.fetch_min(number, Ordering::Relaxed);
        self.house.ring_all();
        true
    }

    /// HELLO, the header in force, and the title.
    fn hello(&self, own: &mut Vec<u8>, channel: &Channel, run: &Run, first: u64) -> Option<()> {
        let about = channel.about();
        let mut path: Vec<&str> = run.path.iter().map(String::as_str).collect();
        path.extend(path_below(None, &self.house.config.node_id)?);
        let mut properties = vec![("content-type", run.content_type.as_str())];
        properties.extend(
            about
                .properties
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let parts = link::HelloParts {
            chunk_size: u32::from(run.chunk_size),
            epoch: run.epoch,
            first,
            bitrate_kbps: (run.bitrate.load(Ordering::Relaxed) / 1000) as u32,
            public_key: &[],
            path: &path,
            properties: &properties,
        };
        link::encode_hello(own, &parts).ok()?;
        let at = first * u64::from(run.chunk_size) + u64::from(run.chunk_size) - 1;
        if let Some(header) = run.header_at(at) {
            link::encode_header(own, header.at, &header.again, &header.bytes).ok()?;
        }
        if !about.title.is_empty() {
            link::encode_metadata(own, &about.title).ok()?;
        }
        Some(())
    }

    /// A waiter becomes a listener.
    fn seat(
        &mut self,
        now: Now,
        key: usize,
        home: Arc<Channel>,
        on: Arc<Channel>,
        run: Arc<Run>,
        place: Place,
    ) {
        let wanted = self.waiting[key].wanted.clone();
        if wanted == Wanted::Head {
            let waiter = self.waiting.remove(key);
            self.counters().waiting.down();
            self.log(now, &waiter.request, None, 200, 0);
            return self.leave_with(waiter.conn, place.own);
        }
        let Some(stream) = self.listeners.stream(now, &on, &run, place.framing) else {
            return;
        };
        let waiter = self.waiting.remove(key);
        self.counters().waiting.down();
        let id = self.house.next_id();
        let listener = self.listeners.add(
            waiter.conn,
            id,
            waiter.request,
            home,
            place.own,
            stream,
            place.cursor,
        );
        let bitrate = self.listeners.streams[stream].run.bitrate.load(Ordering::Relaxed);
        let is_link = place.framing == Framing::Link;
        if is_link {
            self.counters().links.up();
        } else {
            self.counters().greeted.up();
            self.counters().listeners.up();
        }
        self.bound(waiter.conn, bitrate);
        if let Some(entry) = self.conns.get(waiter.conn) {
            entry.role = Role::Listener(listener);
        }
    }

    fn give_up_waiting(&mut self, now: Now, key: usize) {
        let waiter = self.waiting.remove(key);
        self.counters().waiting.down();
        if waiter.wanted == Wanted::Stream {
            self.house.admission().release_listener();
        }
        let known = self.house.directory.get(&waiter.mount).is_some();
        let status = if known { 503 } else { 404 };
        self.log(now, &waiter.request, None, status, 0);
        if let Wanted::Link(_) = waiter.wanted {
            return self.leave_with(waiter.conn, Denied::unknown_channel(&waiter.mount).answer());
        }
        if known {
            let text =
                "This mount has no source at the moment, or has shown no picture yet. Please try again.\n";
            return self.answer(now, waiter.conn, 503, "Retry-After: 5\r\n", text);
        }
        self.counters().refused_unknown.up();
        self.answer(
            now,
            waiter.conn,
            404,
            "",
            "There is no such mount here. The page at / lists those there are.\n",
        );
    }

    /// A connection that waited has gone.
    pub(crate) fn waiter_left(&mut self, key: usize) {
        let waiter = self.waiting.remove(key);
        self.counters().waiting.down();
        if waiter.wanted == Wanted::Stream {
            self.house.admission().release_listener();
        }
    }
}
