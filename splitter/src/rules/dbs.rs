//! DBS (data broadcasting), the splitter's side: each chunk goes to one peer, in turn, and that peer relays it.
//!
//! Who may join is not asked, and nothing on the wire is authenticated: that is generations B and C. What is asked is
//! that complaints come from members, about chunks that were really sent, once; that goodbyes are answered, in
//! time, and to nobody who was never here; and that nothing grows beyond its limit.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use relay_seam::Now;

use super::acs::Acs;
use super::action::{Action, Input, Note, Refusal, Why};
use super::arrivals::{Arrivals, Said};
use super::farewell::Farewells;
use super::ledger::{Complaint, Ledger};
use super::lrs::{Denied, Lrs};
use super::nts::{self, Nts};
use super::roster::Roster;
use crate::config::{Config, ConfigError};
use crate::dialect::{Dialect, Word};
use crate::stats::TeamStats;
use crate::wire::b::Greeting;
use crate::wire::nts::Word as NtsWord;
use crate::wire::{WireError, b, c, chunk_number};

/// Losses are halved so often.
const HALVING: Duration = Duration::from_secs(1);
/// In generation C a newcomer says hello by datagram, once; after this time it is a member without.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// With so many actions waiting to be carried out, repeated goodbyes are not answered: they will be repeated.
const ACTIONS_MAX: usize = 1024;

/// Where newcomers fetch the header, as they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    endpoint: SocketAddrV4,
    channel: Vec<u8>,
}

impl Source {
    /// The HTTP server at `endpoint`; `channel` is what to ask for, without the leading slash.
    ///
    /// # Errors
    ///
    /// A channel of more than 65,535 bytes, or one with a control character or space: newcomers paste it into a
    /// request.
    pub fn new(endpoint: SocketAddrV4, channel: &str) -> Result<Self, WireError> {
        let error = |expected, got: String| Err(WireError { expected, got });
        if channel.len() > usize::from(u16::MAX) {
            return error(
                "a channel of at most 65535 bytes",
                format!("{} bytes", channel.len()),
            );
        }
        if let Some(bad) = channel.chars().find(|c| c.is_control() || *c == ' ') {
            return error(
                "a channel without spaces and control characters",
                format!("{bad:?}"),
            );
        }
        Ok(Self {
            endpoint,
            channel: channel.as_bytes().to_vec(),
        })
    }

    /// The server's.
    pub fn endpoint(&self) -> SocketAddrV4 {
        self.endpoint
    }
}

/// A team and its splitter.
#[derive(Debug)]
pub struct Splitter {
    config: Config,
    source: Source,
    header: Vec<u8>,
    roster: Roster,
    ledger: Ledger,
    acs: Option<Acs>,
    lrs: Option<Lrs>,
    nts: Option<Nts>,
    arrivals: Arrivals,
    farewells: Farewells,
    halved: Now,
    actions: VecDeque<Action>,
    stats: TeamStats,
}

impl Splitter {
    /// An empty team.
    ///
    /// # Errors
    ///
    /// Settings that do not go together.
    pub fn new(config: Config, source: Source, now: Now) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            ledger: Ledger::new(config.buffer_chunks, config.max_peers),
            acs: config.acs.then(Acs::default),
            lrs: config
                .lrs
                .then(|| Lrs::new(config.buffer_chunks, config.resend_percent)),
            nts: config.nts.then(|| Nts::new(config.seed, now)),
            config,
            source,
            header: Vec::new(),
            roster: Roster::default(),
            arrivals: Arrivals::default(),
            farewells: Farewells::default(),
            halved: now,
            actions: VecDeque::new(),
            stats: TeamStats::default(),
        })
    }

    /// The source is elsewhere: newcomers are told so from now on.
    pub fn set_source(&mut self, source: Source) {
        self.source = source;
    }

    /// The beginning of the source's answer, for newcomers that get it from us (see [`Config::send_header`]). Cut to
    /// [`Config::header_bytes`].
    pub fn set_header(&mut self, mut header: Vec<u8>) {
        header.truncate(usize::from(self.config.header_bytes));
        self.header = header;
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Chunk(number) => self.chunk(now, number),
            Input::Connected(from) => self.arrive(now, from),
            Input::Said(from, bytes) => self.hear(now, from, bytes),
            Input::HungUp(from) => self.hung_up(from),
            Input::Datagram(from, datagram) => self.datagram(now, from, datagram),
            Input::Closed(peer) => self.closed(peer),
            Input::Tick => self.tick(now),
            Input::Close => self.close(now),
        }
        self.introduce(now);
    }

    /// What to do next; to be asked until `None` after each [`Splitter::handle`].
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn chunk(&mut self, now: Now, number: u64) {
        self.stats.chunks += 1;
        self.lrs.iter_mut().for_each(Lrs::earn);
        let news = self.nts.as_mut().and_then(|nts| nts.next(now));
        self.send_news(news);
        match self.config.group {
            Some(group) => self.send_chunk(group, number, group),
            None => self.chunk_to_next(number),
        }
        self.let_go(now);
    }

    fn chunk_to_next(&mut self, number: u64) {
        let turn = match &mut self.acs {
            Some(acs) => self.roster.turn_of(|serial| acs.takes(serial)),
            None => self.roster.turn_of(|_| true),
        };
        self.ledger.write(number, turn);
        match turn {
            Some((to, ..)) => self.send_chunk(to, number, to),
            None => self.stats.chunks_without_team += 1,
        }
    }

    fn send_chunk(&mut self, to: SocketAddrV4, number: u64, origin: SocketAddrV4) {
        self.stats.chunks_sent += 1;
        let frame = self.config.dialect.frame(number, origin);
        self.actions.push_back(Action::Chunk { to, number, frame });
    }

    fn arrive(&mut self, now: Now, from: SocketAddrV4) {
        self.arrivals.remove(from);
        if let Err(refusal) = self.place_for(from) {
            return self.refuse(from, refusal);
        }
        match (self.config.group, self.config.dialect) {
            (Some(group), _) => {
                self.arrivals.add_told(from, now + self.config.ready_timeout);
                self.tell(from, |team, out| team.group_welcome(group).encode(out));
            }
            (None, Dialect::B) => self.arrivals.add(from, now + self.config.greeting_timeout),
            (None, Dialect::C) => {
                self.tell(from, |team, out| team.welcome_c(from).encode(out));
                self.actions.push_back(Action::HangUp(from));
                self.arrivals.add_told(from, now + HELLO_TIMEOUT);
            }
        }
    }

    fn is_monitor(&self, from: SocketAddrV4, greeting: Greeting) -> bool {
        greeting == Greeting::Monitor && self.config.monitor_hosts.contains(from.ip())
    }

    fn greeted(&mut self, from: SocketAddrV4, greeting: Greeting) {
        let monitor = self.is_monitor(from, greeting);
        let id = self.nts.as_mut().map(|nts| nts.name(from, monitor));
        self.tell(from, |team, out| match id {
            None => team.welcome_b(from, out),
            Some(id) => {
                team.front().encode(team.monitors().into_iter(), out)?;
                out.extend_from_slice(id.bytes());
                Ok(())
            }
        });
    }

    /// As many as newcomers are told that there are.
    fn monitors(&self) -> Vec<SocketAddrV4> {
        let peers = self.roster.peers().iter().copied();
        peers
            .filter(|&peer| self.roster.is_monitor(peer))
            .take(usize::from(self.config.monitors))
            .collect()
    }

    /// NTS: tells newcomers of the others, and the others of them.
    fn introduce(&mut self, now: Now) {
        if self.nts.is_none() {
            return;
        }
        let monitors = self.monitors().len();
        while let Some((to, bytes)) = self.nts.as_mut().and_then(|nts| nts.introduce(now, monitors)) {
            self.actions.push_back(Action::Tell { to, bytes });
        }
    }

    fn send_news(&mut self, news: Option<(SocketAddrV4, Vec<u8>)>) {
        if let Some((to, bytes)) = news {
            self.actions.push_back(Action::Send { to, bytes });
        }
    }

    fn nts_says(&mut self, now: Now, from: SocketAddrV4, word: NtsWord) {
        let monitor = self.roster.is_monitor(from);
        let Some(nts) = &mut self.nts else { return };
        match nts.hear(now, from, word, monitor) {
            nts::Heard::Nothing => {
                self.stats.datagrams_unknown += 1;
                return;
            }
            nts::Heard::Echo => {}
            nts::Heard::In { door, at, monitor } => {
                self.arrivals.remove(door);
                self.actions.push_back(Action::HangUp(door));
                self.join(at, monitor);
            }
        }
        self.send_news(Some((from, word.encode())));
    }

    fn forget_name(&mut self, peer: SocketAddrV4) {
        self.nts.iter_mut().for_each(|nts| nts.forget(peer));
    }

    /// Says a welcome.
    fn tell(&mut self, to: SocketAddrV4, welcome: impl FnOnce(&Self, &mut Vec<u8>) -> Result<(), WireError>) {
        let mut bytes = Vec::new();
        match welcome(self, &mut bytes) {
            Ok(()) => self.actions.push_back(Action::Tell { to, bytes }),
            // Not with lists and channels that passed `Source::new` and `arrive`; but never worth a panic.
            Err(error) => {
                self.arrivals.remove(to);
                self.refuse_protocol(to, error);
            }
        }
    }

    /// In generation C a newcomer is told, hung up on, and heard by datagram.
    fn hung_up(&mut self, from: SocketAddrV4) {
        if self.config.dialect == Dialect::B {
            self.stats.arrivals_lost += u64::from(self.arrivals.remove(from));
            self.nts.iter_mut().for_each(|nts| nts.gone(from));
        }
    }

    fn place_for(&mut self, from: SocketAddrV4) -> Result<(), Refusal> {
        let config = &self.config;
        let taken = self.roster.len() - usize::from(self.roster.contains(from)) + self.arrivals.len();
        if taken >= usize::from(config.max_peers) {
            self.stats.refused_full += 1;
            return Err(Refusal::Full(config.max_peers));
        }
        if self.arrivals.len() >= usize::from(config.max_arrivals) {
            self.stats.refused_arrivals += 1;
            return Err(Refusal::Arrivals(config.max_arrivals));
        }
        let same = |peer: &SocketAddrV4| peer.ip() == from.ip() && *peer != from;
        let near =
            self.roster.peers().iter().filter(|peer| same(peer)).count() + self.arrivals.at_address(from);
        if !from.ip().is_loopback() && near >= usize::from(config.max_per_address) {
            self.stats.refused_address += 1;
            return Err(Refusal::Address(config.max_per_address));
        }
        Ok(())
    }

    /// What follows a newcomer's `R` is not read.
    fn hear(&mut self, now: Now, from: SocketAddrV4, bytes: &[u8]) {
        for &byte in bytes {
            match self.arrivals.hear(from, byte, now + self.config.ready_timeout) {
                Said::Greeted(greeting) => self.greeted(from, greeting),
                Said::Ready(greeting) => return self.ready(now, from, greeting),
                Said::Nonsense(error) => return self.refuse_protocol(from, error),
                Said::Stranger => return self.actions.push_back(Action::HangUp(from)),
            }
        }
    }

    fn refuse_protocol(&mut self, from: SocketAddrV4, error: WireError) {
        self.stats.refused_protocol += 1;
        self.refuse(from, error.into());
    }

    fn refuse(&mut self, from: SocketAddrV4, refusal: Refusal) {
        self.actions.push_back(Action::HangUp(from));
        self.actions.push_back(Action::Note(from, Note::Refused(refusal)));
    }

    /// Members and those on their way in, without `from`.
    fn others(&self, from: SocketAddrV4) -> Vec<SocketAddrV4> {
        let members = self.roster.peers().iter().copied();
        let told = self.arrivals.told().filter(|&peer| !self.roster.contains(peer));
        members.chain(told).filter(|&peer| peer != from).collect()
    }

    fn welcome_b(&self, from: SocketAddrV4, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.front().encode(self.others(from).into_iter(), out)?;
        if self.config.send_header {
            out.extend_from_slice(&self.header);
        }
        Ok(())
    }

    fn front(&self) -> b::Welcome<'_> {
        let sent = u16::try_from(self.header.len()).unwrap_or(u16::MAX);
        b::Welcome {
            source: self.source.endpoint,
            channel: &self.source.channel,
            header_bytes: if self.config.send_header {
                sent
            } else {
                self.config.header_bytes
            },
            chunk_bytes: self.config.chunk_bytes,
            buffer_chunks: self.config.buffer_chunks,
            monitors: self.config.monitors,
            peers: Default::default(),
        }
    }

    fn group_welcome(&self, group: SocketAddrV4) -> b::GroupWelcome<'_> {
        let team = b::Welcome {
            header_bytes: self.config.header_bytes,
            ..self.front()
        };
        b::GroupWelcome { team, group }
    }

    fn welcome_c(&self, from: SocketAddrV4) -> c::Welcome<'_> {
        c::Welcome {
            chunk_bytes: self.config.chunk_bytes,
            you: from,
            buffer_chunks: self.config.buffer_chunks,
            header: &self.header,
            monitors: self.config.monitors,
            peers: self.others(from),
        }
    }

    /// A newcomer is ready.
    fn ready(&mut self, now: Now, from: SocketAddrV4, greeting: Option<Greeting>) {
        if self.nts.is_some() {
            // It has yet to be reached.
            return self.arrivals.add_told(from, now + self.config.nts_timeout);
        }
        self.actions.push_back(Action::HangUp(from));
        match (greeting, self.config.group) {
            (Some(greeting), None) => self.join(from, self.is_monitor(from, greeting)),
            // Who hears a group is not in a team: nobody would miss it.
            _ => self.stats.joins += 1,
        }
    }

    /// Generation C has no word for monitors.
    fn join_c(&mut self, from: SocketAddrV4) {
        self.join(from, self.config.monitor_hosts.contains(from.ip()));
    }

    fn join(&mut self, from: SocketAddrV4, monitor: bool) {
        self.farewells.back(from);
        self.forget_pace(from);
        let again = self.roster.add(from, monitor);
        self.stats.joins += 1;
        self.stats.rejoins += u64::from(again);
        self.actions.push_back(Action::Note(from, Note::Joined));
    }

    fn datagram(&mut self, now: Now, from: SocketAddrV4, datagram: &[u8]) {
        if let Some(Ok(word)) = NtsWord::parse(datagram).filter(|_| self.nts.is_some()) {
            return self.nts_says(now, from, word);
        }
        match self.config.dialect.splitter_hears(datagram) {
            Ok(Word::Hello) if self.arrivals.remove(from) => self.join_c(from),
            Ok(Word::Hello) => self.stats.hellos_foreign += u64::from(!self.roster.contains(from)),
            Ok(Word::Goodbye(..)) => self.goodbye(now, from),
            Ok(Word::Lost(number)) => self.complaint(now, from, chunk_number(number)),
            _ => self.stats.datagrams_unknown += 1,
        }
    }

    fn goodbye(&mut self, now: Now, peer: SocketAddrV4) {
        // As it was with the leaver: the round in which its last chunk is relayed.
        let round = self.roster.len() as u64;
        self.forget_pace(peer);
        self.forget_name(peer);
        if self.roster.remove(peer) {
            self.stats.goodbyes += 1;
            self.actions.push_back(Action::Note(peer, Note::Left));
            let crowded = self.farewells.waiting() >= usize::from(self.config.max_peers);
            let chunks = if crowded { 0 } else { self.stats.chunks + round };
            self.farewells
                .leave(peer, chunks, now + self.config.farewell_timeout);
            self.let_go(now);
        } else if !self.farewells.is_leaving(peer) {
            self.stats.goodbyes_late += 1;
            self.answer_again(peer);
        }
    }

    fn send_goodbye(&mut self, to: SocketAddrV4) {
        if let Some(bytes) = self.config.dialect.spell(Word::Released) {
            self.actions.push_back(Action::Send { to, bytes });
        }
    }

    /// The first answer may have been lost. Who never was a member gets none: two splitters that answered every
    /// goodbye would never stop.
    fn answer_again(&mut self, peer: SocketAddrV4) {
        match self.farewells.is_gone(peer) {
            true if self.actions.len() < ACTIONS_MAX => self.send_goodbye(peer),
            true => self.stats.farewells_dropped += 1,
            false => {}
        }
    }

    /// Answer the leavers that may go. With nobody left, nobody needs another round.
    fn let_go(&mut self, now: Now) {
        let chunks = if self.roster.len() == 0 {
            u64::MAX
        } else {
            self.stats.chunks
        };
        while let Some(peer) = self.farewells.due(now, chunks) {
            self.send_goodbye(peer);
        }
    }

    fn complaint(&mut self, now: Now, from: SocketAddrV4, lost: u16) {
        self.halve(now);
        let Some(by) = self.roster.serial(from) else {
            self.stats.complaints_foreign += 1;
            return;
        };
        let monitor = self.roster.is_monitor(from);
        match self.ledger.complain(lost, by, monitor) {
            Complaint::Against {
                peer,
                serial,
                nth,
                trusted,
            } => {
                self.resend(from, lost);
                match monitor && trusted == self.roster.quorum() {
                    true => self.blame(peer, serial, nth),
                    false => self.stats.complaints_unweighed += 1,
                }
            }
            Complaint::Own => {
                self.stats.complaints_own += 1;
                self.resend(from, lost);
            }
            Complaint::Repeated => {
                self.stats.complaints_repeated += 1;
                self.resend(from, lost);
            }
            Complaint::Unsent => self.stats.complaints_unsent += 1,
        }
    }

    /// What a member lacks is sent again, where that is the rule.
    fn resend(&mut self, by: SocketAddrV4, lost: u16) {
        let (chunks, round) = (self.stats.chunks, self.roster.len() as u64);
        let (Some(lrs), Some((number, origin))) = (&mut self.lrs, self.ledger.find(lost)) else {
            return;
        };
        match lrs.again(number, chunks, round) {
            Ok(times) => {
                let first = times == 0 && self.config.dialect == Dialect::C && self.roster.contains(origin);
                let to = if first { origin } else { by };
                self.stats.resent += 1;
                let frame = self.config.dialect.frame(number, origin);
                self.actions.push_back(Action::Chunk { to, number, frame });
            }
            Err(Denied::Enough) => self.stats.resends_enough += 1,
            Err(Denied::Budget) => self.stats.resends_over_budget += 1,
        }
    }

    /// The `nth` chunk of this member was lost.
    fn blame(&mut self, peer: SocketAddrV4, serial: u64, nth: u64) {
        let Some(member) = self.roster.get_mut(peer).filter(|member| member.serial == serial) else {
            self.stats.complaints_late += 1;
            return;
        };
        self.stats.losses += 1;
        member.losses += 1;
        let row = member.lose(nth);
        let losses = member.losses;
        self.acs.iter_mut().for_each(|acs| acs.blame(serial));
        let (limit, row_limit) = (self.config.loss_limit, self.config.row_limit);
        if row >= row_limit {
            self.stats.expelled_losses += 1;
            self.expel(peer, Why::InARow { limit: row_limit });
        } else if losses > limit {
            self.stats.expelled_losses += 1;
            self.expel(peer, Why::Losses { limit });
        }
    }

    /// The network reports that nobody listens at `peer`: the only sign of death that this generation has.
    fn closed(&mut self, peer: SocketAddrV4) {
        let reports = self.config.closed_limit;
        let Some(member) = self.roster.get_mut(peer) else {
            return;
        };
        member.closed += 1;
        if member.closed >= reports {
            self.stats.expelled_closed += 1;
            self.expel(peer, Why::Closed { reports });
        }
    }

    fn forget_pace(&mut self, peer: SocketAddrV4) {
        if let (Some(acs), Some(serial)) = (&mut self.acs, self.roster.serial(peer)) {
            acs.forget(serial);
        }
    }

    fn expel(&mut self, peer: SocketAddrV4, why: Why) {
        self.forget_pace(peer);
        self.forget_name(peer);
        self.roster.remove(peer);
        self.farewells.gone(peer);
        self.actions.push_back(Action::Note(peer, Note::Expelled(why)));
    }

    fn tick(&mut self, now: Now) {
        self.halve(now);
        self.let_go(now);
        let news = self.nts.as_mut().and_then(|nts| nts.due(now));
        self.send_news(news);
        while let Some(from) = self.arrivals.expire(now) {
            // In generation C its hello may have been lost, and its TCP connection has shown that it is there.
            if self.config.dialect == Dialect::C && self.config.group.is_none() {
                self.join_c(from);
            } else {
                self.stats.arrivals_lost += 1;
                self.nts.iter_mut().for_each(|nts| nts.gone(from));
                self.refuse(from, Refusal::Late);
            }
        }
    }

    fn halve(&mut self, now: Now) {
        let times = now.since(self.halved).as_secs() / HALVING.as_secs();
        if times > 0 {
            self.halved = self.halved + HALVING.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX));
            self.roster.halve(times);
            self.acs.iter_mut().for_each(|acs| acs.forgive(times));
        }
    }

    /// When to tell it [`Input::Tick`], at the latest.
    pub fn deadline(&self) -> Option<Now> {
        let slow = self.acs.as_ref().is_some_and(Acs::is_waiting);
        let halving = (slow || self.roster.any_losses()).then(|| self.halved + HALVING);
        let others = Now::earliest(self.arrivals.deadline(), self.farewells.deadline());
        let nts = self.nts.as_ref().and_then(Nts::deadline);
        Now::earliest(nts, Now::earliest(halving, others))
    }

    fn close(&mut self, now: Now) {
        while let Some(peer) = self.farewells.due(now, u64::MAX) {
            self.send_goodbye(peer);
        }
    }

    /// Members, in the order of joining.
    pub fn peers(&self) -> &[SocketAddrV4] {
        self.roster.peers()
    }

    /// Newcomers on their way in.
    pub fn arrivals(&self) -> usize {
        self.arrivals.len()
    }

    /// What has happened so far.
    pub fn stats(&self) -> &TeamStats {
        &self.stats
    }

    /// As given.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

#[cfg(test)]
#[path = "dbs/tests.rs"]
mod tests;
