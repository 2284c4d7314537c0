//! DBS (data broadcasting), the peer's side: join, buffer, relay, play, complain, leave.
//!
//! How chunks are relayed is the generation's: [`super::burst`] in B, [`super::flood`] in C. It gets along with the
//! reference's splitters and peers and does right what they do not: it plays each number once and across the end of
//! the numbers, says which chunks it lost, gives up a splitter that is silent, and does not wait for ever for the
//! answer to its goodbye.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use relay_seam::Now;

use super::action::{Action, Ended, Input};
use super::burst::{Burst, Relay};
use super::config::PeerConfig;
use super::flood::Flood;
use super::invitation::{Header, Invitation};
use super::mates::{Mates, Met};
use super::nts::{Nts, Said};
use super::playout::{Due, Kept, Playout};
use super::stats::PeerStats;
use crate::dialect::{Dialect, Word};
use crate::dice::Dice;
use crate::limit::Allowance;
use crate::wire::b::{Greeting, READY};
use crate::wire::nts::{Id, Peer as Place, Word as NtsWord};
use crate::wire::unwrap_number;

/// A goodbye is repeated so often until it is answered, when no chunk reminds us earlier.
const GOODBYE_AGAIN: Duration = Duration::from_millis(250);
/// The most that a splitter may tell of others after the welcome.
const LIST_MAX: usize = 2 + 65_535 * crate::wire::nts::ENTRY_BYTES;
/// Who multicasts is believed until it is silent for so long.
const CASTER_SILENCE: Duration = Duration::from_secs(1);
/// Losses reported, and chunks asked for, after one chunk; more come only of numbers that jump.
const COMPLAINTS_MAX: u64 = 16;
/// Chunks that may still be on their way however small the team is.
const REORDER_CHUNKS: u64 = 16;

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

#[derive(Debug)]
enum Relaying {
    Burst(Burst),
    Flood(Flood),
    /// The splitter multicasts.
    Nothing,
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
    /// With NTS: who is met, and what the splitter told after the welcome.
    nts: Option<(Nts, Vec<u8>)>,
    /// The name that NTS begins with, and the monitors.
    named: Option<(Id, Vec<SocketAddrV4>)>,
    relaying: Relaying,
    /// All numbers before these have come, or were judged missing, for the first, second and third time.
    judged: [u64; 3],
    /// From here on what has not come is missing, not merely not ours yet.
    settled: u64,
    /// Who multicasts.
    caster: Option<SocketAddrV4>,
    /// When the splitter was heard last.
    heard: Now,
    upload: Option<Allowance>,
    dice: Dice,
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
            dice: Dice::new(config.seed),
            config,
            splitter,
            stage: Stage::Joining(Vec::new()),
            playout: None,
            chunk_bytes: 0,
            nts: None,
            named: None,
            relaying: Relaying::Nothing,
            judged: [0; 3],
            settled: 0,
            caster: None,
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
            Input::HungUp => self.hung_up(now),
            Input::Fetched => self.ready(now),
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

    /// In generation B a newcomer says what it is, save where the splitter multicasts; in C it says nothing.
    fn greet(&mut self) {
        if self.config.dialect == Dialect::B && !self.config.multicast {
            let greeting = if self.config.monitor {
                Greeting::Monitor
            } else {
                Greeting::Peer
            };
            self.actions.push_back(Action::Tell(vec![greeting.byte()]));
        }
    }

    fn told(&mut self, now: Now, bytes: &[u8]) {
        let Stage::Joining(heard) = &mut self.stage else {
            return self.told_of_others(now, bytes);
        };
        heard.extend_from_slice(bytes);
        match Invitation::read(&self.config, heard) {
            Err(error) => self.over(Ended::Protocol(error)),
            Ok(Some(invitation)) => {
                self.heard = now;
                self.welcomed(now, invitation);
            }
            // Never more than the fields can say: some 640 KiB.
            Ok(None) => {}
        }
    }

    fn welcomed(&mut self, now: Now, invitation: Invitation) {
        let asked = Playout::bytes(invitation.buffer_chunks, invitation.chunk_bytes);
        if asked > self.config.buffer_bytes_max {
            let limit = self.config.buffer_bytes_max;
            return self.over(Ended::Buffer { limit, asked });
        }
        self.playout = Some(Playout::new(invitation.buffer_chunks, invitation.chunk_bytes));
        self.chunk_bytes = invitation.chunk_bytes;
        self.relaying = match (invitation.me, invitation.group) {
            (_, Some(group)) => {
                self.actions.push_back(Action::Hear(group));
                Relaying::Nothing
            }
            (Some(me), None) => {
                self.hear_subnet();
                let slots = 2 * usize::from(invitation.buffer_chunks);
                Relaying::Flood(Flood::new(me, self.config.subnet, slots))
            }
            (None, None) => Relaying::Burst(Burst::default()),
        };
        match invitation.id {
            Some(id) => self.named = Some((id, invitation.peers)),
            None => self.introduce(invitation.peers),
        }
        self.stage = Stage::Fetching;
        self.begin(now, invitation.header);
    }

    fn hear_subnet(&mut self) {
        if let Some(subnet) = self.config.subnet {
            self.actions.push_back(Action::Hear(subnet.group));
        }
    }

    /// Says hello: in generation C to the splitter, too, which only then knows that we are there.
    fn introduce(&mut self, peers: Vec<SocketAddrV4>) {
        if self.config.dialect == Dialect::C {
            self.say(self.splitter, Word::Hello);
        }
        for peer in peers {
            if self.meet(peer, true) {
                self.say(peer, Word::Hello);
            }
        }
    }

    fn begin(&mut self, now: Now, header: Header) {
        match header {
            Header::At {
                source,
                channel,
                bytes,
            } if self.config.fetch_header => {
                return self.actions.push_back(Action::Fetch {
                    source,
                    channel,
                    bytes,
                });
            }
            Header::Here(header) => self.actions.push_back(Action::Header(header)),
            Header::At { .. } | Header::Nowhere => {}
        }
        self.ready(now);
    }

    fn ready(&mut self, now: Now) {
        if matches!(self.stage, Stage::Fetching) {
            if self.config.dialect == Dialect::B {
                self.actions.push_back(Action::Tell(vec![READY]));
            }
            self.stage = Stage::Member;
            match self.named.take() {
                // The connection stays until everybody is met.
                Some((id, monitors)) => {
                    let (nts, say) = Nts::new(id, self.splitter, &monitors, self.config.monitor, now);
                    self.nts = Some((nts, Vec::new()));
                    self.say_all(say);
                }
                None => self.actions.push_back(Action::HangUp),
            }
        }
    }

    fn say_all(&mut self, say: Vec<Said>) {
        let sends = say.into_iter().map(|(to, bytes)| Action::Send { to, bytes });
        self.actions.extend(sends);
    }

    /// With NTS the splitter tells of the others when it knows how we can be reached.
    fn told_of_others(&mut self, now: Now, bytes: &[u8]) {
        let Some((nts, told)) = &mut self.nts else { return };
        if nts.listed || told.len() + bytes.len() > LIST_MAX {
            return;
        }
        told.extend_from_slice(bytes);
        match Place::parse_list(told) {
            Ok(Some(places)) => {
                let say = nts.list(now, &places);
                self.say_all(say);
            }
            Ok(None) => {}
            Err(error) => self.over(Ended::Protocol(error)),
        }
    }

    fn nts_says(&mut self, now: Now, from: SocketAddrV4, word: NtsWord) {
        let Some((nts, _)) = &mut self.nts else { return };
        let before = nts.incorporated;
        let heard = nts.hear(now, from, word);
        let done = nts.incorporated && !before;
        self.say_all(heard.say);
        if let Some(mate) = heard.met {
            self.meet(mate, true);
            self.found(now, mate);
        }
        if done {
            self.actions.push_back(Action::HangUp);
        }
    }

    /// Who speaks to us need not be looked for.
    fn found(&mut self, now: Now, mate: SocketAddrV4) {
        let said = self.nts.as_mut().and_then(|(nts, _)| nts.found(now, mate));
        self.say_all(said.into_iter().collect());
    }

    fn hung_up(&mut self, now: Now) {
        if matches!(self.stage, Stage::Joining(_)) {
            self.over(Ended::Refused);
        }
        // With NTS that is the last word of a join.
        if let Some((nts, _)) = &mut self.nts {
            nts.incorporated = true;
            self.heard = now;
        }
    }

    /// How long the splitter may be silent: longer while we look for our mates, for until then it has nothing for us.
    fn patience(&self) -> Duration {
        let looking = self.nts.as_ref().is_some_and(|(nts, _)| !nts.incorporated);
        self.config.silence * if looking { 3 } else { 1 }
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
        if let (Met::New, Relaying::Flood(flood)) = (met, &mut self.relaying) {
            flood.met(peer);
        }
        met == Met::New
    }

    fn datagram(&mut self, now: Now, from: SocketAddrV4, datagram: &[u8]) {
        if self.playout.is_none() {
            self.stats.early += 1;
            return;
        }
        self.tune_in(now, from);
        let own = self.is_splitter(from);
        if let Some(Ok(word)) = NtsWord::parse(datagram).filter(|_| self.nts.is_some()) {
            if own {
                self.heard = now;
            }
            return self.nts_says(now, from, word);
        }
        let word = self.config.dialect.peer_hears(datagram, self.chunk_bytes, own);
        match (word, &self.relaying) {
            // What we multicast may come back.
            (_, Relaying::Flood(flood)) if flood.is_me(from) => {}
            (Ok(Word::Chunk { number, data, origin }), relaying)
                if own || !matches!(relaying, Relaying::Nothing) =>
            {
                self.chunk(now, from, number, data, origin.unwrap_or(from));
            }
            (Ok(Word::Released), _) if own => self.released(),
            (Ok(word), Relaying::Burst(_) | Relaying::Flood(_)) if !own => self.mate_says(now, from, word),
            _ => self.stats.unknown += 1,
        }
    }

    /// A splitter that multicasts does it from another endpoint, which nobody tells: it is the one that is heard.
    fn is_splitter(&self, from: SocketAddrV4) -> bool {
        from == self.splitter || self.caster == Some(from)
    }

    fn tune_in(&mut self, now: Now, from: SocketAddrV4) {
        let silent = self.caster.is_none() || self.heard + CASTER_SILENCE <= now;
        if self.config.multicast && silent {
            self.caster = Some(from);
        }
    }

    fn mate_says(&mut self, now: Now, from: SocketAddrV4, word: Word<'_>) {
        match word {
            Word::Hello => {
                self.stats.hellos += 1;
                self.meet(from, false);
            }
            Word::Goodbye(..) => self.forget(from),
            Word::Request(number) => self.requested(now, from, number),
            Word::Prune(number) => self.pruned(from, number),
            Word::Chunk { .. } | Word::Released | Word::Lost(_) => self.stats.unknown += 1,
        }
    }

    fn forget(&mut self, peer: SocketAddrV4) {
        let Some(index) = self.mates.forget(peer) else {
            self.stats.goodbyes_foreign += 1;
            return;
        };
        self.stats.goodbyes += 1;
        match &mut self.relaying {
            Relaying::Burst(burst) => burst.forgot(index),
            Relaying::Flood(flood) => flood.forgot(peer),
            Relaying::Nothing => {}
        }
    }

    fn requested(&mut self, now: Now, from: SocketAddrV4, number: u64) {
        let number = self.unwrap(number);
        let mut out = std::mem::take(&mut self.relays);
        let mate = self.mates.index(from).is_some();
        let served = match &mut self.relaying {
            Relaying::Flood(flood) if mate => flood.request(number, from, &mut self.mates, &mut out),
            _ => None,
        };
        match served {
            Some(selfish) => {
                self.stats.requests_served += 1;
                self.stats.mates_selfish += u64::from(selfish);
            }
            None => self.stats.requests_vain += 1,
        }
        self.give_all(now, out);
    }

    fn pruned(&mut self, from: SocketAddrV4, number: u64) {
        let number = self.unwrap(number);
        if let Relaying::Flood(flood) = &mut self.relaying {
            self.stats.prunes_heard += 1;
            flood.prune(number, from);
        }
    }

    /// What the wire's number stands for.
    fn unwrap(&self, number: u64) -> u64 {
        let newest = self.playout.as_ref().and_then(Playout::newest);
        let near = newest.or(self.config.near).unwrap_or(number);
        unwrap_number(crate::wire::chunk_number(number), near)
    }

    fn chunk(&mut self, now: Now, from: SocketAddrV4, number: u16, data: &[u8], origin: SocketAddrV4) {
        let (own, number) = (self.is_splitter(from), self.unwrap(number.into()));
        let Some(playout) = &mut self.playout else { return };
        let first = playout.newest().is_none();
        let kept = playout.offer(number, data, own);
        self.count(kept, own, number);
        if first || kept == Kept::Jump {
            // Those who were here before us do not know us yet: their chunks of two rounds are not lost, but not
            // ours.
            self.settled = number + 2 * self.mates.len() as u64;
            self.judged = [self.settled; 3];
        }
        if own {
            self.heard = now;
        }
        if matches!(kept, Kept::Far | Kept::Old) {
            return;
        }
        self.relay(now, from, number, origin, kept == Kept::Again);
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

    fn relay(&mut self, now: Now, from: SocketAddrV4, number: u64, origin: SocketAddrV4, again: bool) {
        let own = self.is_splitter(from);
        if !own && !matches!(self.relaying, Relaying::Nothing) {
            if self.meet(from, false) {
                self.found(now, from);
            }
            self.mates.paid(from);
        }
        let (mut out, mut surplus) = (std::mem::take(&mut self.relays), None);
        let mates = &mut self.mates;
        self.stats.mates_selfish += match &mut self.relaying {
            Relaying::Burst(burst) if own => burst.own(number, mates, &mut out),
            Relaying::Burst(burst) => burst.go_on(mates, &mut out),
            Relaying::Flood(flood) if again => {
                surplus = if own { None } else { flood.surplus(number, from) };
                0
            }
            Relaying::Flood(flood) => {
                flood.keep(number, origin, from);
                if mates.index(origin).is_some() {
                    flood.provided(origin, from);
                }
                flood.serve(mates, &mut out)
            }
            Relaying::Nothing => 0,
        };
        if let Some(mate) = surplus.filter(|&mate| mate != self.splitter) {
            self.stats.prunes += 1;
            self.say(mate, Word::Prune(number));
        }
        self.give_all(now, out);
    }

    fn give_all(&mut self, now: Now, mut out: Vec<Relay>) {
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
            let origin = match &self.relaying {
                Relaying::Flood(flood) => flood.origin(number).unwrap_or(self.splitter),
                Relaying::Burst(_) | Relaying::Nothing => self.splitter,
            };
            let frame = self.config.dialect.frame(number, origin);
            self.actions.push_back(Action::Chunk { to, number, frame });
        }
    }

    fn play(&mut self) {
        let (first, _) = self.ages();
        if let Some(playout) = &mut self.playout {
            playout.begin(self.settled, first);
        }
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
    /// they are relayed, and half of one for the network), and in time for them to be sent again. In generation C a
    /// mate is asked first, and the splitter told when that did not help.
    fn complain(&mut self) {
        let (first, latest) = self.ages();
        match self.config.dialect {
            Dialect::B => {
                let missing = self.missing(0, first);
                self.report(missing);
                let again =
                    [(1, first.midpoint(latest)), (2, latest)].map(|(nth, age)| self.missing(nth, age));
                // Splitters of ours count it once; those of the reference each time.
                if self.config.report_losses {
                    again.into_iter().for_each(|missing| self.report(missing));
                }
            }
            Dialect::C => {
                let missing = self.missing(0, first);
                self.ask(missing);
                let missing = self.missing(1, first.midpoint(latest));
                self.ask(missing.clone());
                self.report(missing);
            }
        }
    }

    /// How far behind the newest a number is missing, and how far at the latest.
    fn ages(&self) -> (u64, u64) {
        let wait = self.playout.as_ref().map_or(0, Playout::wait);
        let (mates, latest) = (self.mates.len() as u64, wait - wait / 4);
        ((mates + mates / 2 + REORDER_CHUNKS).min(latest), latest)
    }

    /// The numbers that are `age` behind the newest, were not judged yet for the `nth` time, and are not here.
    fn missing(&mut self, nth: usize, age: u64) -> Vec<u64> {
        let Some(playout) = &self.playout else {
            return Vec::new();
        };
        let until = playout.newest().unwrap_or(0).saturating_sub(age);
        let from = self.judged[nth].max(playout.next());
        self.judged[nth] = self.judged[nth].max(until);
        (from..until).filter(|&number| !playout.has(number)).collect()
    }

    fn report(&mut self, missing: Vec<u64>) {
        if !(self.config.monitor || self.config.report_losses) {
            return;
        }
        for (n, number) in (0..).zip(missing) {
            if n < COMPLAINTS_MAX {
                self.stats.complaints += 1;
                self.say(self.splitter, Word::Lost(number));
            } else {
                self.stats.complaints_withheld += 1;
            }
        }
    }

    fn ask(&mut self, missing: Vec<u64>) {
        for (n, number) in (0..).zip(missing) {
            let who = self.mates.at(self.dice.below(self.mates.len()));
            let Some(mate) = who.filter(|_| n < COMPLAINTS_MAX) else {
                self.stats.complaints_withheld += 1;
                continue;
            };
            self.stats.requests += 1;
            self.say(mate, Word::Request(number));
        }
    }

    fn say(&mut self, to: SocketAddrV4, word: Word<'_>) {
        if let Some(bytes) = self.config.dialect.spell(word) {
            self.actions.push_back(Action::Send { to, bytes });
        }
    }

    fn say_goodbye(&mut self, to: SocketAddrV4) {
        self.say(to, Word::Goodbye(self.stats.played, self.stats.lost));
    }

    fn leave(&mut self, now: Now) {
        match self.stage {
            Stage::Leaving { .. } => {}
            Stage::Member if !self.config.multicast => {
                let (gives_up, again) = (now + self.config.farewell_timeout, now + GOODBYE_AGAIN);
                self.stage = Stage::Leaving { gives_up, again };
                self.say_goodbye(self.splitter);
            }
            // It never was in the team, or nobody would miss it.
            _ => self.over(Ended::Left),
        }
    }

    /// It goes on relaying until the splitter answers; each chunk that comes meanwhile shows that it has not.
    fn remind(&mut self, now: Now) {
        if let Stage::Leaving { again, .. } = &mut self.stage {
            *again = now + GOODBYE_AGAIN;
            self.say_goodbye(self.splitter);
        }
    }

    /// The splitter said goodbye. Who did not ask for it stays: the reference's peers do, and anybody could forge it.
    fn released(&mut self) {
        if matches!(self.stage, Stage::Leaving { .. }) {
            if self.config.dialect == Dialect::B || !self.config.spare_reference_peers {
                let mates: Vec<_> = self.mates.iter().collect();
                mates.into_iter().for_each(|mate| self.say_goodbye(mate));
            }
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
        let patience = self.patience();
        match &mut self.stage {
            Stage::Joining(_) if self.heard + self.config.join_timeout <= now => self.over(Ended::Refused),
            Stage::Member if self.heard + patience <= now => {
                self.over(Ended::Silence(patience));
            }
            Stage::Leaving { gives_up, .. } if *gives_up <= now => self.released(),
            Stage::Leaving { again, .. } if *again <= now => {
                *again = now + GOODBYE_AGAIN;
                self.say_goodbye(self.splitter);
            }
            _ => {}
        }
        if matches!(self.stage, Stage::Member) {
            let say = self.nts.as_mut().map(|(nts, _)| nts.again(now));
            self.say_all(say.unwrap_or_default());
        }
    }

    /// When to tell it [`Input::Tick`], at the latest.
    pub fn deadline(&self) -> Option<Now> {
        match self.stage {
            Stage::Joining(_) => Some(self.heard + self.config.join_timeout),
            Stage::Member => {
                let nts = self.nts.as_ref().and_then(|(nts, _)| nts.deadline());
                Now::earliest(nts, Some(self.heard + self.patience()))
            }
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
