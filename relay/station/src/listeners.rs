//! *Tell*: listeners are cursors into rings, and this is the room in which the cursors move.
//!
//! A [`Stream`] is one run in one framing, as this worker sees it: a reader (with this worker's one pin), and the
//! listeners that follow it. Rounds visit every listener once, from a place that rotates. Newcomers and those that
//! have become writable go first, in a queue of their own; who has more to get than a turn's bytes is served again when
//! the round is over, and what comes during a round is for the next.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_listener::{Ladder, Lag, Verdict};
use relay_media::{Kind, PACKET_REACH, PacketCut, packet_cut};
use relay_ring::Reader;
use relay_seam::{Conn, Now, Output, Payload, Sent, Span};
use relay_wire::http::Version;
use slab::Slab;

use crate::channel::{Channel, Framing, Run, State};
use crate::counters::Counters;
use crate::house::House;

/// What a listener costs in user memory, in bytes, with what its strings usually hold: for the budget.
pub const LISTENER_BYTES: usize = 1024;

/// Of the time, this much at most is spent telling before rounds are made to wait for one another: a round that
/// took a millisecond is followed by the next one no sooner than this many milliseconds after it began.
const ROUND_COST_FACTOR: u32 = 32;

/// What is hot of a listener: visited in every round.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) conn: Conn,
    /// The next byte it gets, a position of its stream's ring.
    pub(crate) cursor: u64,
    pub(crate) sent: u64,
    pub(crate) stream: u32,
    /// Where it stands among its stream's members.
    place: u32,
    /// The last round of its stream that has visited it.
    visited: u32,
    ladder: Ladder,
    state: Readiness,
    /// It has bytes of its own to be sent first.
    has_own: bool,
    /// It is in its stream's queue already.
    queued: bool,
    cold: Box<Cold>,
}

/// A round visits all of them: one cache line each.
const _: () = assert!(size_of::<Listener>() <= 64);

/// What is cold: looked at when it comes, moves or goes.
#[derive(Debug)]
pub(crate) struct Cold {
    pub(crate) id: u64,
    pub(crate) request: Request,
    /// The channel it asked for; another one's stream may be what it hears.
    pub(crate) home: Arc<Channel>,
    own: Option<(Arc<[u8]>, usize)>,
    /// What its player still misses of the packet in which the kernel stopped taking.
    rest: Option<Rest>,
}

/// The rest of a packet that was cut in two, kept while it can be read: should the listener lose its place, it gets
/// this much before it jumps.
#[derive(Debug)]
struct Rest {
    /// The position of its first byte: good for a cursor that is still there.
    at: u64,
    /// How many bytes it is.
    len: usize,
    /// Of these, what there was of them when they were looked at.
    bytes: Vec<u8>,
}

/// The request that made a listener.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) peer: SocketAddr,
    pub(crate) since: Now,
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) agent: String,
    pub(crate) referer: String,
    pub(crate) icy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// May be sent to.
    Ready,
    /// A send is with the driver.
    InFlight(u32),
    /// The kernel is full; the driver will say when not.
    Full,
    /// Broken; the driver will say so.
    Gone,
}

/// One run in one framing, and who follows it here.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) channel: Arc<Channel>,
    pub(crate) run: Arc<Run>,
    pub(crate) framing: Framing,
    reader: Reader,
    pinned: bool,
    pub(crate) members: Vec<u32>,
    /// Newcomers and those who have become writable: before everybody else.
    first: VecDeque<u32>,
    /// Those who had a turn's bytes and are not yet where the others are: when no round is under way.
    after_all: VecDeque<u32>,
    /// The head as of the last round.
    told: u64,
    /// How many rounds there have been.
    rounds: u32,
    round: Option<Round>,
    next_round: Now,
    rotate: usize,
    seen_version: u64,
    /// Whether its channel was on the air when that was seen.
    on_air: bool,
    /// Members who asked for another mount.
    pub(crate) guests: usize,
    /// Those beside its members who send from it.
    borrowers: usize,
}

#[derive(Debug)]
struct Round {
    began: Now,
    next: usize,
    left: usize,
}

/// All listeners of this worker.
#[derive(Debug)]
pub(crate) struct Listeners {
    house: Arc<House>,
    worker: usize,
    pub(crate) all: Slab<Listener>,
    pub(crate) streams: Slab<Stream>,
    /// Sends that are with the driver.
    in_flight: usize,
    /// The stream whose turn it is.
    turn: usize,
    /// Datagrams with a span are with the driver: one answer for all of them.
    posting: bool,
}

/// A listener that lags too much: it is to be let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooSlow;

impl Listeners {
    pub(crate) fn new(house: Arc<House>, worker: usize) -> Self {
        Self {
            house,
            worker,
            all: Slab::new(),
            streams: Slab::new(),
            in_flight: 0,
            turn: 0,
            posting: false,
        }
    }

    fn counters(&self) -> &Counters {
        self.house.counters(self.worker)
    }

    /// The stream of a run in a framing, once its ring is there.
    pub(crate) fn stream(
        &mut self,
        now: Now,
        channel: &Arc<Channel>,
        run: &Arc<Run>,
        framing: Framing,
    ) -> Option<usize> {
        let found = self
            .streams
            .iter()
            .find(|(_, s)| Arc::ptr_eq(&s.run, run) && s.framing == framing);
        if let Some((key, _)) = found {
            return Some(key);
        }
        let ring = run.ring(framing)?;
        let stream = Stream {
            channel: channel.clone(),
            run: run.clone(),
            framing,
            reader: ring.reader(self.worker),
            pinned: false,
            members: Vec::new(),
            first: VecDeque::new(),
            after_all: VecDeque::new(),
            told: ring.head(),
            rounds: 0,
            round: None,
            next_round: now,
            rotate: 0,
            seen_version: 0,
            on_air: false,
            guests: 0,
            borrowers: 0,
        };
        Some(self.streams.insert(stream))
    }

    /// A newcomer: it gets `own` first, then the stream from `cursor` on.
    pub(crate) fn add(
        &mut self,
        conn: Conn,
        id: u64,
        request: Request,
        home: Arc<Channel>,
        own: Vec<u8>,
        stream: usize,
        cursor: u64,
    ) -> usize {
        let key = self.all.insert(Listener {
            conn,
            cursor,
            sent: 0,
            stream: stream as u32,
            place: 0,
            visited: 0,
            ladder: Ladder::default(),
            state: Readiness::Ready,
            has_own: !own.is_empty(),
            queued: false,
            cold: Box::new(Cold {
                id,
                request,
                home,
                own: Some((own.into(), 0)),
                rest: None,
            }),
        });
        self.enter(key, stream);
        self.queue(key);
        key
    }

    /// Takes a listener out. Its channel is told; its connection is somebody else's to close.
    pub(crate) fn remove(&mut self, key: usize) -> (Cold, u64) {
        let listener = self.all.remove(key);
        if matches!(listener.state, Readiness::InFlight(_)) {
            // Its `Sent` will find nobody.
            self.in_flight_done();
        }
        self.leave(
            listener.stream as usize,
            listener.place as usize,
            &listener.cold.home,
        );
        (*listener.cold, listener.sent)
    }

    fn enter(&mut self, key: usize, to: usize) {
        let (stream, listener) = (&mut self.streams[to], &mut self.all[key]);
        listener.stream = to as u32;
        listener.place = stream.members.len() as u32;
        listener.visited = stream.rounds.wrapping_sub(1);
        stream.members.push(key as u32);
        if let Some(round) = &mut stream.round {
            // The list has one more place to go through.
            round.left += 1;
        }
        stream.guests += usize::from(!Arc::ptr_eq(&listener.cold.home, &stream.channel));
        stream.channel.came(stream.framing);
    }

    fn leave(&mut self, stream: usize, place: usize, home: &Arc<Channel>) {
        let stream = &mut self.streams[stream];
        stream.members.swap_remove(place);
        stream.guests -= usize::from(!Arc::ptr_eq(home, &stream.channel));
        stream.channel.left(stream.framing);
        let Some(moved) = stream.members.get(place) else {
            return;
        };
        let moved = *moved as usize;
        self.all[moved].place = place as u32;
        // The round may have passed that place already, and not have come to the one that it had.
        if stream.round.is_some() && self.all[moved].visited != stream.rounds {
            self.queue(moved);
        }
    }

    /// Moves a listener to another stream: `own` first, then from `cursor` on.
    pub(crate) fn shift(&mut self, key: usize, to: usize, own: &[u8], cursor: u64) {
        let (from, place, home) = (
            self.all[key].stream,
            self.all[key].place,
            self.all[key].cold.home.clone(),
        );
        self.leave(from as usize, place as usize, &home);
        self.enter(key, to);
        let listener = &mut self.all[key];
        listener.cursor = cursor;
        listener.queued = false;
        listener.give(own);
        self.queue(key);
    }

    /// It has room again.
    pub(crate) fn writable(&mut self, key: usize) {
        if self.all[key].state == Readiness::Full {
            self.all[key].state = Readiness::Ready;
            self.queue(key);
        }
    }

    fn queue(&mut self, key: usize) {
        let listener = &mut self.all[key];
        if !listener.queued {
            listener.queued = true;
            self.streams[listener.stream as usize].first.push_back(key as u32);
        }
    }

    /// For who has had a turn's bytes and is not yet where the others are.
    fn queue_after_all(&mut self, key: usize) {
        let listener = &mut self.all[key];
        if !listener.queued {
            listener.queued = true;
            self.streams[listener.stream as usize]
                .after_all
                .push_back(key as u32);
        }
    }

    /// The next send, if one is due.
    pub(crate) fn poll(&mut self, now: Now, slow: &mut Vec<usize>) -> Option<Output> {
        for _ in 0..self.streams.capacity().max(1) {
            if self.streams.contains(self.turn)
                && let Some(output) = self.poll_stream(now, self.turn, slow)
            {
                return Some(output);
            }
            self.turn = if self.turn + 1 < self.streams.capacity() {
                self.turn + 1
            } else {
                0
            };
        }
        // A look that led to no send has pinned all the same, and what is pinned is as old as the pin.
        if self.in_flight == 0 {
            self.unpin_all();
        }
        None
    }

    fn poll_stream(&mut self, now: Now, stream: usize, slow: &mut Vec<usize>) -> Option<Output> {
        loop {
            let key = self.next_member(now, stream)?;
            match self.offer(now, key) {
                Ok(Some(output)) => return Some(output),
                Ok(None) => {}
                Err(TooSlow) => slow.push(key),
            }
        }
    }

    /// Whose turn it is: first those in the queue, then the round's next.
    fn next_member(&mut self, now: Now, key: usize) -> Option<usize> {
        if let Some(first) = self.next_queued(key, |stream| &mut stream.first) {
            return Some(first);
        }
        let stream = &mut self.streams[key];
        if stream.round.is_none() && !stream.begin_round(now) {
            return self.next_queued(key, |stream| &mut stream.after_all);
        }
        self.next_of_round(now, key)
    }

    /// The next of a queue who is still there.
    fn next_queued(
        &mut self,
        key: usize,
        queue: impl Fn(&mut Stream) -> &mut VecDeque<u32>,
    ) -> Option<usize> {
        while let Some(next) = queue(&mut self.streams[key]).pop_front() {
            // It may have gone, or moved, since it was queued.
            if let Some(listener) = self.all.get_mut(next as usize)
                && listener.stream as usize == key
                && listener.queued
            {
                listener.queued = false;
                return Some(next as usize);
            }
        }
        None
    }

    /// The round's next, or the end of the round. Who has changed places is met twice, and passed the second time.
    fn next_of_round(&mut self, now: Now, key: usize) -> Option<usize> {
        let stream = &mut self.streams[key];
        let round = stream.round.as_mut()?;
        while round.left > 0 && !stream.members.is_empty() {
            round.left -= 1;
            let at = if round.next < stream.members.len() {
                round.next
            } else {
                0
            };
            round.next = at + 1;
            let member = stream.members[at] as usize;
            if std::mem::replace(&mut self.all[member].visited, stream.rounds) != stream.rounds {
                return Some(member);
            }
        }
        if self.in_flight == 0 {
            let took = now.since(round.began);
            stream.end_round(took, self.house.config.max_batch_delay);
            let counters = self.house.counters(self.worker);
            counters.turns.up();
            counters.tell_us.add(took.as_micros() as u64);
        }
        None
    }

    /// What a listener gets now.
    fn offer(&mut self, now: Now, key: usize) -> Result<Option<Output>, TooSlow> {
        let listener = &mut self.all[key];
        if listener.state != Readiness::Ready {
            return Ok(None);
        }
        let conn = listener.conn;
        let payload = if listener.has_own {
            let Some((bytes, from)) = &listener.cold.own else {
                return Ok(None);
            };
            listener.state = Readiness::InFlight(0);
            Payload::Own(bytes.clone(), *from)
        } else {
            let stream = &mut self.streams[listener.stream as usize];
            stream.pin();
            let (head, window) = (stream.reader.seen(), stream.reader.ring().window());
            let behind = if listener.cursor < stream.floor() {
                u64::MAX
            } else {
                head.saturating_sub(listener.cursor)
            };
            let config = &self.house.config.listener;
            match listener
                .ladder
                .judge(now, Lag { behind, window }, config.jumps_max, config.jump_memory)
            {
                Verdict::Fine => {}
                Verdict::Warn => self.house.counters(self.worker).lag_warnings.up(),
                Verdict::Jump if stream.framing != Framing::Link => {
                    return self.jump(key).then_some(None).ok_or(TooSlow);
                }
                // A link that has lost its place ends: the other node knows the number at which to come back.
                Verdict::Jump | Verdict::Close => return Err(TooSlow),
            }
            if behind == 0 {
                return Ok(None);
            }
            let len = stream.portion(listener.cursor, behind, u64::from(config.turn_bytes)) as u32;
            listener.state = Readiness::InFlight(len);
            Payload::Span(Span {
                ring: listener.stream,
                at: listener.cursor,
                len,
            })
        };
        self.in_flight += 1;
        self.counters().sends.up();
        Ok(Some(Output::Send { conn, payload }))
    }

    /// Judges those who are not visited because the kernel is full of what they do not read.
    pub(crate) fn judge_full(&mut self, now: Now, slow: &mut Vec<usize>) {
        let full = |(key, listener): (usize, &Listener)| (listener.state == Readiness::Full).then_some(key);
        let keys: Vec<usize> = self.all.iter().filter_map(full).collect();
        for key in keys {
            if self.all[key]
                .cold
                .rest
                .as_ref()
                .is_some_and(|rest| !rest.is_whole())
            {
                self.remember_rest(key);
            }
            let listener = &mut self.all[key];
            let ring = self.streams[listener.stream as usize].reader.ring();
            let (head, window) = (ring.head(), ring.window());
            if listener.cursor >= ring.floor() || listener.has_own {
                continue;
            }
            let behind = head.saturating_sub(listener.cursor).max(window + 1);
            let config = &self.house.config.listener;
            let verdict =
                listener
                    .ladder
                    .judge(now, Lag { behind, window }, config.jumps_max, config.jump_memory);
            if verdict == Verdict::Close || !self.jump(key) {
                slow.push(key);
            }
        }
        if self.in_flight == 0 {
            self.unpin_all();
        }
    }

    /// Moves a listener that has lost its place to the newest join point of its stream. What the kernel took of a
    /// packet is made whole first. `false` when it has nowhere to go, or that packet's rest was not there yet when it
    /// was last looked for.
    ///
    /// One who had everything, up to the middle of the newest packet, and is then lapped by a whole window between two
    /// turns is torn: letting everybody go who was there would be worse. It is counted.
    fn jump(&mut self, key: usize) -> bool {
        let listener = &mut self.all[key];
        let stream = &mut self.streams[listener.stream as usize];
        let old = listener.cursor;
        let rest = listener.cold.rest.take().filter(|rest| rest.at == old);
        if rest.as_ref().is_some_and(|rest| !rest.is_whole()) {
            return false;
        }
        let Some((cursor, header)) = stream.jump_target(old) else {
            return false;
        };
        let rest = rest.map(|rest| rest.bytes).unwrap_or_default();
        let left = old + rest.len() as u64;
        let left_out = cursor.saturating_sub(left);
        let torn = stream.is_torn(left, cursor);
        listener.cursor = cursor;
        listener.give(&[rest, header].concat());
        let counters = self.house.counters(self.worker);
        counters.lag_jumps.up();
        counters.lag_jumps_torn.add(u64::from(torn));
        counters.lag_jumped_bytes.add(left_out);
        self.queue(key);
        true
    }

    /// Keeps the rest of the packet that a listener whose socket is full was cut off in.
    fn remember_rest(&mut self, key: usize) {
        let listener = &mut self.all[key];
        let known = listener
            .cold
            .rest
            .as_ref()
            .is_some_and(|rest| rest.at == listener.cursor && rest.is_whole());
        let stream = &mut self.streams[listener.stream as usize];
        if listener.has_own || known || !stream.is_packets() {
            return;
        }
        stream.pin();
        if listener.cursor >= stream.floor() {
            listener.cold.rest = stream.rest(listener.cursor);
        }
    }

    /// What became of a send. Returns what was told in bytes.
    pub(crate) fn sent(&mut self, key: usize, result: Sent) {
        self.took(key, result);
        self.in_flight_done();
    }

    fn took(&mut self, key: usize, result: Sent) {
        let counters = self.house.counters(self.worker);
        let listener = &mut self.all[key];
        let Readiness::InFlight(len) = listener.state else {
            return;
        };
        let taken = match result {
            Sent::All => len,
            Sent::Some(n) => n,
            Sent::Full | Sent::Gone => 0,
        };
        listener.state = match result {
            Sent::All => Readiness::Ready,
            Sent::Some(_) | Sent::Full => Readiness::Full,
            Sent::Gone => Readiness::Gone,
        };
        match result {
            Sent::Some(_) => counters.sends_short.up(),
            Sent::Full => counters.sends_full.up(),
            Sent::All | Sent::Gone => {}
        }
        let had_own = listener.has_own;
        if had_own {
            listener.took_own(result);
        } else {
            listener.cursor += u64::from(taken);
            listener.sent += u64::from(taken);
            counters.bytes_told.add(u64::from(taken));
            let stream = &self.streams[listener.stream as usize];
            stream.channel.told(self.worker, u64::from(taken));
        }
        if self.all[key].state == Readiness::Full {
            // Now, while what was offered is pinned: when it is found to have lost its place, that is too late.
            self.remember_rest(key);
        }
        let listener = &self.all[key];
        if listener.state != Readiness::Ready {
            return;
        }
        // What has come since the last round began is for the next.
        let more = listener.cursor < self.streams[listener.stream as usize].told;
        if listener.has_own || (more && had_own) {
            self.queue(key);
        } else if more {
            self.queue_after_all(key);
        }
    }

    /// A send of a listener that has gone meanwhile, or one of those above, is done.
    fn in_flight_done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.unpin_all();
            // The next batch begins with another stream.
            self.turn += 1;
        }
    }

    fn unpin_all(&mut self) {
        self.streams.iter_mut().for_each(|(_, stream)| stream.unpin());
    }

    /// Whether every send has been answered: only then may streams be rearranged.
    pub(crate) fn at_rest(&self) -> bool {
        self.in_flight == 0
    }

    /// The bytes of a span that is with the driver.
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        self.streams[span.ring as usize]
            .reader
            .bytes(span.at, span.len as usize)
    }

    /// Who reads the ring that a span lies in.
    pub(crate) fn reader(&self, span: Span) -> Option<&Reader> {
        Some(&self.streams.get(span.ring as usize)?.reader)
    }

    /// When the next round is due.
    pub(crate) fn deadline(&self) -> Option<Now> {
        self.streams
            .iter()
            .fold(None, |earliest, (_, s)| Now::earliest(earliest, s.deadline()))
    }

    /// Asks to be woken when a head moves. `false` when one has moved already.
    pub(crate) fn park(&self) -> bool {
        let bit = 1u64 << self.worker;
        self.streams.iter().all(|(_, s)| {
            if s.members.is_empty() || s.has_news() {
                return true;
            }
            s.channel.wake.fetch_or(bit, Ordering::SeqCst);
            std::sync::atomic::fence(Ordering::SeqCst);
            !s.has_news()
        })
    }

    /// Lets go of streams that nobody follows any more.
    pub(crate) fn sweep(&mut self) {
        if self.at_rest() {
            self.streams
                .retain(|_, s| !s.members.is_empty() || s.borrowers > 0);
        }
    }

    /// Somebody beside its members sends from a stream: it stays until given back.
    pub(crate) fn borrow(&mut self, stream: usize) {
        self.streams[stream].borrowers += 1;
    }

    pub(crate) fn give_back(&mut self, stream: usize) {
        self.streams[stream].borrowers -= 1;
    }

    /// From where to where a borrowed stream can be read in this batch.
    pub(crate) fn window(&mut self, stream: usize) -> (u64, u64) {
        let stream = &mut self.streams[stream];
        stream.pin();
        (stream.floor(), stream.reader.seen())
    }

    /// A datagram is to carry these bytes of a borrowed stream: they stay until the batch is posted. `false` when they
    /// have gone, or are not there.
    pub(crate) fn lend(&mut self, span: Span) -> bool {
        let (floor, seen) = self.window(span.ring as usize);
        if span.at < floor || span.at + u64::from(span.len) > seen {
            return false;
        }
        self.in_flight += usize::from(!std::mem::replace(&mut self.posting, true));
        true
    }

    /// What became of a batch's datagrams has been told.
    pub(crate) fn posted(&mut self) {
        if std::mem::take(&mut self.posting) {
            self.in_flight_done();
        }
    }

    /// Asks to be woken when the head of a borrowed stream moves beyond `seen`. `false` when it has.
    pub(crate) fn park_beyond(&self, stream: usize, seen: u64) -> bool {
        let stream = &self.streams[stream];
        stream.channel.wake.fetch_or(1 << self.worker, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        stream.head() <= seen
    }

    /// The cold side of a listener.
    pub(crate) fn cold(&self, key: usize) -> &Cold {
        &self.all[key].cold
    }

    /// Whether a listener has had everything its run will ever have.
    pub(crate) fn drained(&self, key: usize) -> bool {
        let listener = &self.all[key];
        let stream = &self.streams[listener.stream as usize];
        stream.run.ended()
            && !listener.has_own
            && listener.state == Readiness::Ready
            && listener.cursor >= stream.reader.ring().head()
    }

    /// How many bytes a listener has had since its last metadata block.
    pub(crate) fn icy_offset(&self, key: usize) -> Option<usize> {
        let listener = &self.all[key];
        let (_, phases) = self.streams[listener.stream as usize].run.icy.get()?;
        phases.offset(listener.cursor)
    }

    /// A metadata listener's place in the stream.
    pub(crate) fn icy_raw(&self, key: usize) -> Option<u64> {
        let listener = &self.all[key];
        let (_, phases) = self.streams[listener.stream as usize].run.icy.get()?;
        phases.raw(listener.cursor)
    }

    /// Gives a listener another home.
    pub(crate) fn rehome(&mut self, key: usize, home: Arc<Channel>) {
        let listener = &mut self.all[key];
        let stream = &mut self.streams[listener.stream as usize];
        stream.guests -= usize::from(!Arc::ptr_eq(&listener.cold.home, &stream.channel));
        stream.guests += usize::from(!Arc::ptr_eq(&home, &stream.channel));
        listener.cold.home = home;
    }

    /// Whether a listener may be moved away from a stream that goes on.
    pub(crate) fn idle(&self, key: usize) -> bool {
        !self.all[key].has_own && self.all[key].state == Readiness::Ready
    }
}

impl Listener {
    /// Puts bytes of its own before the stream, after those that it still has.
    fn give(&mut self, own: &[u8]) {
        if own.is_empty() {
            return;
        }
        let mut bytes = match &self.cold.own {
            Some((bytes, from)) if self.has_own => bytes[*from..].to_vec(),
            _ => Vec::new(),
        };
        bytes.extend_from_slice(own);
        self.cold.own = Some((bytes.into(), 0));
        self.has_own = true;
    }

    fn took_own(&mut self, result: Sent) {
        let Some((bytes, from)) = &mut self.cold.own else {
            return;
        };
        match result {
            Sent::All => *from = bytes.len(),
            Sent::Some(n) => *from += n as usize,
            Sent::Full | Sent::Gone => {}
        }
        if *from >= bytes.len() {
            self.cold.own = None;
            self.has_own = false;
        }
    }
}

impl Rest {
    fn is_whole(&self) -> bool {
        self.bytes.len() == self.len
    }
}

impl Stream {
    /// Whether it is made of packets that a decoder wants whole.
    fn is_packets(&self) -> bool {
        self.framing == Framing::Raw && self.run.kind == Kind::MpegTs
    }

    /// Where in a packet a pinned position is, with as much of the packet's rest as there is.
    fn cut(&self, at: u64) -> Option<(PacketCut, &[u8])> {
        let from = self.reader.pinned().max(at.saturating_sub(PACKET_REACH));
        let to = self.reader.seen().min(at + PACKET_REACH);
        let around = self.reader.bytes(from, to.checked_sub(from)? as usize);
        let here = usize::try_from(at.checked_sub(from)?).ok()?;
        let after = around.get(here..)?;
        let cut = packet_cut(around, here)?;
        Some((cut, &after[..cut.rest.min(after.len())]))
    }

    /// What follows a pinned position up to the end of its packet, unless it is between two.
    fn rest(&self, at: u64) -> Option<Rest> {
        let (cut, bytes) = self.cut(at).filter(|(cut, _)| cut.rest > 0)?;
        Some(Rest {
            at,
            len: cut.rest,
            bytes: bytes.to_vec(),
        })
    }

    /// Whether a packet begins at `to` and none at `from`, long gone.
    fn is_torn(&self, from: u64, to: u64) -> bool {
        let unit = self
            .is_packets()
            .then(|| self.cut(to))
            .flatten()
            .map(|(cut, _)| cut.unit as u64);
        unit.is_some_and(|unit| !(to - from).is_multiple_of(unit))
    }

    /// How much somebody at `at` is sent at once who is so far behind: about `most`, up to the end of a packet.
    fn portion(&self, at: u64, behind: u64, most: u64) -> u64 {
        if behind <= most || !self.is_packets() {
            return behind.min(most);
        }
        let rest = self.cut(at + most).map_or(0, |(cut, _)| cut.rest as u64);
        behind.min(most + rest)
    }

    /// The head of its ring.
    pub(crate) fn head(&self) -> u64 {
        self.reader.ring().head()
    }

    fn has_news(&self) -> bool {
        self.reader.ring().head() > self.told
    }

    /// Pins the whole window, for the sends of this batch.
    fn pin(&mut self) {
        while !self.pinned {
            // The floor may rise between the look and the pin; then the next look sees the new one.
            let floor = self.reader.ring().floor();
            self.pinned = self.reader.pin(floor).is_ok();
        }
    }

    fn unpin(&mut self) {
        if self.pinned {
            self.pinned = false;
            self.reader.unpin();
        }
    }

    /// The oldest position that this batch may send.
    fn floor(&self) -> u64 {
        self.reader.pinned()
    }

    fn begin_round(&mut self, now: Now) -> bool {
        if self.members.is_empty() || now < self.next_round || !self.has_news() {
            return false;
        }
        self.told = self.reader.ring().head();
        self.rounds = self.rounds.wrapping_add(1);
        self.rotate = self.rotate.wrapping_add(1) % self.members.len().max(1);
        self.round = Some(Round {
            began: now,
            next: self.rotate,
            left: self.members.len(),
        });
        true
    }

    fn end_round(&mut self, took: Duration, max_delay: Duration) {
        if let Some(round) = self.round.take() {
            self.next_round = round.began + (took * ROUND_COST_FACTOR).min(max_delay);
        }
    }

    fn deadline(&self) -> Option<Now> {
        if !self.first.is_empty() || !self.after_all.is_empty() || self.round.is_some() {
            Some(Now::new(0, 0))
        } else if self.members.is_empty() || !self.has_news() {
            None
        } else {
            Some(self.next_round)
        }
    }

    /// Where somebody at `old` goes who has lost the place.
    fn jump_target(&self, old: u64) -> Option<(u64, Vec<u8>)> {
        let newest = self.run.newest_join_point();
        match self.framing {
            Framing::Raw => {
                let to = newest.filter(|to| *to > old)?;
                Some((
                    to,
                    self.run
                        .header_between(old, to)
                        .map_or_else(Vec::new, |again| again.to_vec()),
                ))
            }
            Framing::Link => None,
            Framing::Icy => {
                let (_, phases) = self.run.icy.get()?;
                let had = phases.offset(old);
                let joined = newest.zip(had).and_then(|(at, had)| phases.join(at, had));
                let joined = joined.filter(|(to, _)| *to > old);
                // Cut off within a block, or without a join point: the same place in a newer interval.
                joined.or_else(|| {
                    phases
                        .same_place(old, self.reader.ring().head())
                        .map(|to| (to, Vec::new()))
                })
            }
        }
    }

    /// Whether the channel has changed since this was last asked.
    pub(crate) fn changed(&mut self) -> bool {
        let version = self.channel.version();
        let changed = std::mem::replace(&mut self.seen_version, version) != version;
        if changed {
            // The state takes a lock that all workers share: it is asked for only when it may be another.
            self.on_air = matches!(self.channel.state(), State::OnAir);
        }
        changed
    }

    /// Whether the listeners here hear another mount than they asked for, or one that is over.
    pub(crate) fn is_stale(&self) -> bool {
        self.run.ended() || !self.on_air
    }
}
