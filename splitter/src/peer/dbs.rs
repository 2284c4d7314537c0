//! DBS (data broadcasting), the peer's side, generation B: join, buffer, relay, play, complain, leave.
//!
//! It gets along with the reference's splitter and peers and does right what they do not: it plays each number once and
//! across the end of the numbers, says which chunks it lost, gives up a splitter that is silent, and does not wait for
//! ever for the answer to its goodbye.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use relay_seam::Now;

use super::action::{Action, Ended, Input};
use super::burst::{Burst, Relay};
use super::config::PeerConfig;
use super::mates::{Mates, Met};
use super::playout::{Due, Kept, Playout};
use super::stats::PeerStats;
use crate::frame::Frame;
use crate::limit::Allowance;
use crate::wire::b::{Chunk, GOODBYE, Greeting, HELLO, READY, ToPeer, ToSplitter, Welcome};
use crate::wire::unwrap_number;

/// A goodbye is repeated so often until it is answered, when no chunk reminds us earlier.
const GOODBYE_AGAIN: Duration = Duration::from_millis(250);
/// Losses reported after one chunk; more come only of numbers that jump.
const COMPLAINTS_MAX: u64 = 16;
/// Chunks that may still be on their way however small the team is.
const REORDER_CHUNKS: u64 = 8;

#[derive(Debug)]
enum Stage {
    /// What the splitter has told so far.
    Joining(Vec<u8>),
    /// The header is on its way.
    Fetching,
    Member,
    Leaving {
        gives_up: Now,
        again: Now,
    },
    Over,
}

/// A member of a team.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    splitter: SocketAddrV4,
    stage: Stage,
    /// Since the welcome.
    playout: Option<Playout>,
    chunk_bytes: u16,
    mates: Mates,
    burst: Burst,
    /// All numbers before this have come, or were complained about.
    judged: u64,
    /// When the splitter was heard last.
    heard: Now,
    upload: Option<Allowance>,
    skipped: Option<(u64, u64)>,
    relays: Vec<Relay>,
    actions: VecDeque<Action>,
    stats: PeerStats,
}

impl Peer {
    /// A peer that is connecting to the splitter at this endpoint, TCP and UDP.
    pub fn new(config: PeerConfig, splitter: SocketAddrV4, now: Now) -> Self {
        Self {
            mates: Mates::new(config.mates_max, config.debt_max, config.stranger_debt_max),
            upload: config
                .upload_chunks_max
                .map(|max| Allowance::per_second(max, now)),
            config,
            splitter,
            stage: Stage::Joining(Vec::new()),
            playout: None,
            chunk_bytes: 0,
            burst: Burst::default(),
            judged: 0,
            heard: now,
            skipped: None,
            relays: Vec::new(),
            actions: VecDeque::new(),
            stats: PeerStats::default(),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        match input {
            Input::Connected => self.greet(),
            Input::Told(bytes) => self.told(now, bytes),
            Input::HungUp => self.hung_up(),
            Input::Fetched => self.ready(),
            Input::Datagram(from, datagram) => self.datagram(now, from, datagram),
            Input::Leave => self.leave(now),
            Input::Tick => {}
        }
        self.tick(now);
    }

    /// What to do next; to be asked until `None` after each [`Peer::handle`].
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The data of a chunk that is in the buffer.
    pub fn data(&self, number: u64) -> Option<&[u8]> {
        self.playout.as_ref()?.data(number)
    }

    fn greet(&mut self) {
        let greeting = if self.config.monitor {
            Greeting::Monitor
        } else {
            Greeting::Peer
        };
        self.actions.push_back(Action::Tell(vec![greeting.byte()]));
    }

    fn told(&mut self, now: Now, bytes: &[u8]) {
        let Stage::Joining(heard) = &mut self.stage else {
            return;
        };
        heard.extend_from_slice(bytes);
        let heard = std::mem::take(heard);
        match Welcome::parse(&heard) {
            Err(error) => self.over(Ended::Protocol(error)),
            Ok(Some((welcome, n))) if n + self.header_bytes(&welcome) <= heard.len() => {
                self.heard = now;
                self.welcomed(&welcome, &heard[n..]);
            }
            // Never more than the fields can say: some 500 KiB.
            Ok(_) => self.stage = Stage::Joining(heard),
        }
    }

    fn header_bytes(&self, welcome: &Welcome<'_>) -> usize {
        usize::from(self.config.header_in_join) * usize::from(welcome.header_bytes)
    }

    fn welcomed(&mut self, welcome: &Welcome<'_>, rest: &[u8]) {
        let asked = Playout::bytes(welcome.buffer_chunks, welcome.chunk_bytes);
        if asked > self.config.buffer_bytes_max {
            let limit = self.config.buffer_bytes_max;
            return self.over(Ended::Buffer { limit, asked });
        }
        self.playout = Some(Playout::new(welcome.buffer_chunks, welcome.chunk_bytes));
        self.chunk_bytes = welcome.chunk_bytes;
        for peer in welcome.peers.iter() {
            if self.meet(peer, true) {
                self.send(peer, &HELLO);
            }
        }
        self.stage = Stage::Fetching;
        match (self.config.header_in_join, self.config.fetch_header) {
            (true, _) => {
                let header = rest[..self.header_bytes(welcome)].to_vec();
                self.actions.push_back(Action::Header(header));
                self.ready();
            }
            (false, true) if welcome.header_bytes > 0 => self.actions.push_back(Action::Fetch {
                source: welcome.source,
                channel: welcome.channel.to_vec(),
                bytes: welcome.header_bytes,
            }),
            (false, _) => self.ready(),
        }
    }

    fn ready(&mut self) {
        if matches!(self.stage, Stage::Fetching) {
            self.actions.push_back(Action::Tell(vec![READY]));
            self.actions.push_back(Action::HangUp);
            self.stage = Stage::Member;
        }
    }

    fn hung_up(&mut self) {
        if matches!(self.stage, Stage::Joining(_)) {
            self.over(Ended::Refused);
        }
    }

    /// Whether it is a mate and was none.
    fn meet(&mut self, peer: SocketAddrV4, known: bool) -> bool {
        if peer == self.splitter {
            self.stats.mates_impossible += 1;
            return false;
        }
        let met = self.mates.meet(peer, known);
        self.stats.mates_full += u64::from(met == Met::Full);
        self.stats.mates_impossible += u64::from(met == Met::Impossible);
        met == Met::New
    }

    fn datagram(&mut self, now: Now, from: SocketAddrV4, datagram: &[u8]) {
        if self.playout.is_none() {
            self.stats.early += 1;
            return;
        }
        let own = from == self.splitter;
        match ToPeer::parse(datagram, self.chunk_bytes) {
            Ok(ToPeer::Chunk(chunk)) => self.chunk(now, from, &chunk),
            Ok(ToPeer::Hello) => {
                self.stats.hellos += 1;
                self.meet(from, false);
            }
            Ok(ToPeer::Goodbye) if own => self.released(),
            Ok(ToPeer::Goodbye) => self.forget(from),
            Err(_) => self.stats.unknown += 1,
        }
    }

    fn forget(&mut self, peer: SocketAddrV4) {
        match self.mates.forget(peer) {
            Some(index) => {
                self.stats.goodbyes += 1;
                self.burst.forgot(index);
            }
            None => self.stats.goodbyes_foreign += 1,
        }
    }

    fn chunk(&mut self, now: Now, from: SocketAddrV4, chunk: &Chunk<'_>) {
        let own = from == self.splitter;
        let Some(playout) = &mut self.playout else { return };
        let near = playout.newest().or(self.config.near);
        let number = unwrap_number(chunk.number, near.unwrap_or(u64::from(chunk.number)));
        let first = playout.newest().is_none();
        let kept = playout.offer(number, chunk.data, own);
        self.count(kept, own, number);
        if first || kept == Kept::Jump {
            // Those who were here before us do not know us yet: their chunks of two rounds are not lost, but not ours.
            self.judged = number + 2 * self.mates.len() as u64;
        }
        if own {
            self.heard = now;
        }
        if matches!(kept, Kept::Far | Kept::Old) {
            return;
        }
        self.relay(now, from, number);
        self.play();
        self.complain();
        if own {
            self.remind(now);
        }
    }

    fn count(&mut self, kept: Kept, own: bool, number: u64) {
        let stats = &mut self.stats;
        let counter = match kept {
            Kept::New if own => &mut stats.from_splitter,
            Kept::New => &mut stats.from_mates,
            Kept::Late => &mut stats.late,
            Kept::Again => &mut stats.duplicates,
            Kept::Old => &mut stats.old,
            Kept::Far => &mut stats.far,
            Kept::Jump => &mut stats.jumps,
        };
        *counter += 1;
        if kept == Kept::Jump {
            self.actions.push_back(Action::Jump(number));
        }
    }

    fn relay(&mut self, now: Now, from: SocketAddrV4, number: u64) {
        let mut out = std::mem::take(&mut self.relays);
        self.stats.mates_selfish += if from == self.splitter {
            self.burst.own(number, &mut self.mates, &mut out)
        } else {
            self.meet(from, false);
            self.mates.paid(from);
            self.burst.go_on(&mut self.mates, &mut out)
        };
        out.drain(..).for_each(|(to, number)| self.give(now, to, number));
        self.relays = out;
    }

    fn give(&mut self, now: Now, to: SocketAddrV4, number: u64) {
        if self.data(number).is_none() {
            self.stats.relays_gone += 1;
        } else if self.upload.as_mut().is_some_and(|upload| !upload.take(now)) {
            self.stats.relays_capped += 1;
        } else {
            self.stats.relayed += 1;
            let frame = Frame::new(&Chunk::header(number), &[]);
            self.actions.push_back(Action::Chunk { to, number, frame });
        }
    }

    fn play(&mut self) {
        while let Some(due) = self.playout.as_mut().and_then(Playout::due) {
            self.show(due);
        }
        self.show_skipped();
    }

    fn show(&mut self, due: Due) {
        match due {
            Due::Play(number) => {
                self.show_skipped();
                self.stats.played += 1;
                self.actions.push_back(Action::Play(number));
            }
            Due::Skip(number) => {
                self.stats.lost += 1;
                let (from, count) = self.skipped.unwrap_or((number, 0));
                self.skipped = Some((from, count + 1));
            }
        }
    }

    fn show_skipped(&mut self) {
        if let Some((from, count)) = self.skipped.take() {
            self.actions.push_back(Action::Skip { from, count });
        }
    }

    /// Says which chunks should be here and are not: when they are older than a round and a half (the round in which
    /// they are relayed, and half of one for the network), and in time for them to be sent again.
    fn complain(&mut self) {
        let Some(playout) = &self.playout else { return };
        let Some(newest) = playout.newest() else { return };
        let mates = self.mates.len() as u64;
        let age = (mates + mates / 2 + REORDER_CHUNKS).min(playout.wait() - playout.wait() / 4);
        let until = newest.saturating_sub(age);
        let missing: Vec<_> = (self.judged.max(playout.next())..until)
            .filter(|&number| !playout.has(number))
            .collect();
        self.judged = self.judged.max(until);
        if !(self.config.monitor || self.config.report_losses) {
            return;
        }
        for (n, number) in (0..).zip(missing) {
            if n < COMPLAINTS_MAX {
                self.stats.complaints += 1;
                self.say(ToSplitter::Lost(crate::wire::chunk_number(number)));
            } else {
                self.stats.complaints_withheld += 1;
            }
        }
    }

    fn say(&mut self, what: ToSplitter) {
        let mut bytes = Vec::new();
        what.encode(&mut bytes);
        self.send(self.splitter, &bytes);
    }

    fn send(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.actions.push_back(Action::Send { to, bytes });
    }

    fn leave(&mut self, now: Now) {
        match self.stage {
            Stage::Leaving { .. } => {}
            Stage::Member => {
                let (gives_up, again) = (now + self.config.farewell_timeout, now + GOODBYE_AGAIN);
                self.stage = Stage::Leaving { gives_up, again };
                self.say(ToSplitter::Goodbye);
            }
            // It never was in the team.
            _ => self.over(Ended::Left),
        }
    }

    /// It goes on relaying until the splitter answers; each chunk that comes meanwhile shows that it has not.
    fn remind(&mut self, now: Now) {
        if let Stage::Leaving { again, .. } = &mut self.stage {
            *again = now + GOODBYE_AGAIN;
            self.say(ToSplitter::Goodbye);
        }
    }

    /// The splitter said goodbye. Who did not ask for it stays: the reference's peers do, and anybody could forge it.
    fn released(&mut self) {
        if matches!(self.stage, Stage::Leaving { .. }) {
            let mates: Vec<_> = self.mates.iter().collect();
            mates.into_iter().for_each(|mate| self.send(mate, &GOODBYE));
            self.over(Ended::Left);
        } else {
            self.stats.goodbyes_foreign += 1;
        }
    }

    fn over(&mut self, why: Ended) {
        while let Some(due) = self.playout.as_mut().and_then(Playout::rest) {
            self.show(due);
        }
        self.show_skipped();
        self.actions.push_back(Action::Over(why));
        self.stage = Stage::Over;
    }

    fn tick(&mut self, now: Now) {
        match &mut self.stage {
            Stage::Joining(_) if self.heard + self.config.join_timeout <= now => self.over(Ended::Refused),
            Stage::Member if self.heard + self.config.silence <= now => {
                self.over(Ended::Silence(self.config.silence));
            }
            Stage::Leaving { gives_up, .. } if *gives_up <= now => self.released(),
            Stage::Leaving { again, .. } if *again <= now => {
                *again = now + GOODBYE_AGAIN;
                self.say(ToSplitter::Goodbye);
            }
            _ => {}
        }
    }

    /// When to tell it [`Input::Tick`], at the latest.
    pub fn deadline(&self) -> Option<Now> {
        match self.stage {
            Stage::Joining(_) => Some(self.heard + self.config.join_timeout),
            Stage::Member => Some(self.heard + self.config.silence),
            Stage::Leaving { gives_up, again } => Some(gives_up.min(again)),
            Stage::Fetching | Stage::Over => None,
        }
    }

    /// Whether it is in the team: it was welcomed, and is not leaving.
    pub fn is_member(&self) -> bool {
        matches!(self.stage, Stage::Member)
    }

    /// The number that the player gets next; 0 before the first chunk.
    pub fn next(&self) -> u64 {
        self.playout.as_ref().map_or(0, Playout::next)
    }

    /// Team mates, in the order in which they were met.
    pub fn mates(&self) -> impl ExactSizeIterator<Item = SocketAddrV4> + '_ {
        self.mates.iter()
    }

    /// What has happened so far.
    pub fn stats(&self) -> &PeerStats {
        &self.stats
    }
}

#[cfg(test)]
#[path = "dbs/tests.rs"]
mod tests;
