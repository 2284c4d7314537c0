//! DBS (data broadcasting), the splitter's side: each chunk goes to one peer, in turn, and that peer relays it.
//!
//! Who may join is not asked, and nothing on the wire is authenticated: that is generation B. What is asked here is
//! that complaints come from members, about chunks that were really sent, once; that goodbyes are answered, in
//! time, and to nobody who was never here; and that nothing grows beyond its limit.
//!
//! The caller carries each [`Act`] out before it hands in the next event.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use relay_seam::Now;
use thiserror::Error;

use super::arrivals::{Arrivals, Said};
use super::farewell::Farewells;
use super::ledger::{Complaint, Ledger};
use super::roster::Roster;
use crate::config::{Config, ConfigError};
use crate::stats::TeamStats;
use crate::wire::b::{ToSplitter, Welcome, WireError};

/// Losses are halved so often.
const HALVING: Duration = Duration::from_secs(1);
/// With so many acts waiting to be carried out, repeated goodbyes are not answered: they will be repeated.
const ACTS_MAX: usize = 1024;

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

/// Why somebody may not join now. Generation B has no word for it: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Members and newcomers together.
    #[error("expected a team of at most {0} peers, got one more")]
    Full(u16),
    /// Newcomers alone.
    #[error("expected at most {0} newcomers at a time, got one more")]
    Arrivals(u16),
}

/// What a newcomer's bytes lead to: first say [`Heard::tell`], then take the [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// To be sent on its connection; may be empty.
    pub tell: Vec<u8>,
    /// What then.
    pub step: Step,
}

/// What to do with a newcomer's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Keep it: more must come.
    Wait,
    /// The newcomer is a member: close it.
    Joined,
    /// It does not follow the protocol: close it.
    Refused(WireError),
    /// It is not on its way in (any more): close it.
    Stranger,
}

/// Where a chunk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// From 0, never wrapping; the wire has it modulo 2^16.
    pub number: u64,
    /// The peer that gets it; nobody when the team is empty.
    pub to: Option<SocketAddrV4>,
}

/// What the rules want done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send a goodbye datagram to this endpoint.
    Goodbye(SocketAddrV4),
    /// Close the connection of this newcomer: its time is over.
    HangUp(SocketAddrV4),
    /// Nothing; but say in the log that this member was expelled. The wire has no word for it.
    Expelled(SocketAddrV4, Why),
}

/// Why a member was expelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// What it was to relay did not arrive.
    #[error("expected at most {limit} losses, got one more")]
    Losses {
        /// As configured.
        limit: u32,
    },
    /// Its host says that nobody listens there.
    #[error("expected an open port, got {reports} reports of a closed one")]
    Closed {
        /// As configured.
        reports: u32,
    },
}

/// A team and its splitter.
#[derive(Debug)]
pub struct Dbs {
    config: Config,
    source: Source,
    header: Vec<u8>,
    roster: Roster,
    ledger: Ledger,
    arrivals: Arrivals,
    farewells: Farewells,
    halved: Now,
    acts: VecDeque<Act>,
    stats: TeamStats,
}

impl Dbs {
    /// An empty team.
    ///
    /// # Errors
    ///
    /// Settings that do not go together.
    pub fn new(config: Config, source: Source, now: Now) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            ledger: Ledger::new(config.buffer_chunks, config.max_peers),
            config,
            source,
            header: Vec::new(),
            roster: Roster::default(),
            arrivals: Arrivals::default(),
            farewells: Farewells::default(),
            halved: now,
            acts: VecDeque::new(),
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

    /// A chunk of [`Config::chunk_bytes`] bytes came: to whom it goes.
    pub fn chunk(&mut self, now: Now) -> Turn {
        let turn = self.roster.turn();
        let number = self.ledger.write(turn);
        self.stats.chunks += 1;
        match turn {
            Some(_) => self.stats.chunks_sent += 1,
            None => self.stats.chunks_without_team += 1,
        }
        self.let_go(now);
        Turn {
            number,
            to: turn.map(|(peer, _)| peer),
        }
    }

    /// Somebody connected over TCP from `from`, which will be its UDP endpoint too.
    ///
    /// # Errors
    ///
    /// When there is no place: the connection is closed.
    pub fn arrive(&mut self, now: Now, from: SocketAddrV4) -> Result<(), Refused> {
        self.arrivals.remove(from);
        let taken = self.roster.len() - usize::from(self.roster.contains(from)) + self.arrivals.len();
        if taken >= usize::from(self.config.max_peers) {
            self.stats.refused_full += 1;
            return Err(Refused::Full(self.config.max_peers));
        }
        if self.arrivals.len() >= usize::from(self.config.max_arrivals) {
            self.stats.refused_arrivals += 1;
            return Err(Refused::Arrivals(self.config.max_arrivals));
        }
        self.arrivals.add(from, now + self.config.greeting_timeout);
        Ok(())
    }

    /// Bytes came on a newcomer's connection. What follows its `R` is not read.
    pub fn hear(&mut self, now: Now, from: SocketAddrV4, bytes: &[u8]) -> Heard {
        let mut tell = Vec::new();
        for &byte in bytes {
            let step = match self.arrivals.hear(from, byte, now + self.config.ready_timeout) {
                Said::Greeted => self.welcome(from, &mut tell),
                Said::Ready => self.join(from),
                Said::Nonsense(error) => self.refuse(error),
                Said::Stranger => Step::Stranger,
            };
            if step != Step::Wait {
                return Heard { tell, step };
            }
        }
        Heard {
            tell,
            step: Step::Wait,
        }
    }

    fn welcome(&mut self, from: SocketAddrV4, out: &mut Vec<u8>) -> Step {
        let members = self.roster.peers().iter().copied();
        let others: Vec<_> = members
            .chain(self.arrivals.told().filter(|&peer| !self.roster.contains(peer)))
            .filter(|&peer| peer != from)
            .collect();
        match self.welcome_now().encode(others.into_iter(), out) {
            Ok(()) if self.config.send_header => out.extend_from_slice(&self.header),
            Ok(()) => {}
            // Not with lists and channels that passed `Source::new` and `arrive`; but never worth a panic.
            Err(error) => {
                self.arrivals.remove(from);
                return self.refuse(error);
            }
        }
        Step::Wait
    }

    fn welcome_now(&self) -> Welcome<'_> {
        let sent = u16::try_from(self.header.len()).unwrap_or(u16::MAX);
        Welcome {
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

    fn join(&mut self, from: SocketAddrV4) -> Step {
        self.farewells.back(from);
        let again = self.roster.add(from);
        self.stats.joins += 1;
        self.stats.rejoins += u64::from(again);
        Step::Joined
    }

    fn refuse(&mut self, error: WireError) -> Step {
        self.stats.refused_protocol += 1;
        Step::Refused(error)
    }

    /// A newcomer's connection ended. Nothing happens to one that is a member already.
    pub fn hung_up(&mut self, from: SocketAddrV4) {
        self.stats.arrivals_lost += u64::from(self.arrivals.remove(from));
    }

    /// A datagram came.
    pub fn datagram(&mut self, now: Now, from: SocketAddrV4, datagram: &[u8]) {
        match ToSplitter::parse(datagram) {
            Ok(ToSplitter::Goodbye) => self.goodbye(now, from),
            Ok(ToSplitter::Lost(number)) => self.complaint(now, from, number),
            Err(_) => self.stats.datagrams_unknown += 1,
        }
    }

    fn goodbye(&mut self, now: Now, peer: SocketAddrV4) {
        // As it was with the leaver: the round in which its last chunk is relayed.
        let round = self.roster.len() as u64;
        if self.roster.remove(peer) {
            self.stats.goodbyes += 1;
            let crowded = self.farewells.waiting() >= usize::from(self.config.max_peers);
            let chunks = if crowded { 0 } else { self.ledger.next() + round };
            self.farewells
                .leave(peer, chunks, now + self.config.farewell_timeout);
            self.let_go(now);
        } else if !self.farewells.is_leaving(peer) {
            self.stats.goodbyes_late += 1;
            self.answer_again(peer);
        }
    }

    /// The first answer may have been lost. Who never was a member gets none: two splitters that answered every
    /// goodbye would never stop.
    fn answer_again(&mut self, peer: SocketAddrV4) {
        match self.farewells.is_gone(peer) {
            true if self.acts.len() < ACTS_MAX => self.acts.push_back(Act::Goodbye(peer)),
            true => self.stats.farewells_dropped += 1,
            false => {}
        }
    }

    /// Answer the leavers that may go. With nobody left, nobody needs another round.
    fn let_go(&mut self, now: Now) {
        let chunks = if self.roster.len() == 0 {
            u64::MAX
        } else {
            self.ledger.next()
        };
        while let Some(peer) = self.farewells.due(now, chunks) {
            self.acts.push_back(Act::Goodbye(peer));
        }
    }

    fn complaint(&mut self, now: Now, from: SocketAddrV4, lost: u16) {
        self.halve(now);
        let Some(by) = self.roster.serial(from) else {
            self.stats.complaints_foreign += 1;
            return;
        };
        match self.ledger.complain(lost, by) {
            Complaint::Against(peer, serial) => self.blame(peer, serial),
            Complaint::Own => self.stats.complaints_own += 1,
            Complaint::Repeated => self.stats.complaints_repeated += 1,
            Complaint::Unsent => self.stats.complaints_unsent += 1,
        }
    }

    fn blame(&mut self, peer: SocketAddrV4, serial: u64) {
        let limit = self.config.loss_limit;
        match self.roster.get_mut(peer).filter(|member| member.serial == serial) {
            None => self.stats.complaints_late += 1,
            Some(member) => {
                self.stats.losses += 1;
                member.losses += 1;
                if member.losses > limit {
                    self.stats.expelled_losses += 1;
                    self.expel(peer, Why::Losses { limit });
                }
            }
        }
    }

    /// The network reports that nobody listens at `peer`: the only sign of death that this generation has.
    pub fn closed(&mut self, peer: SocketAddrV4) {
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

    fn expel(&mut self, peer: SocketAddrV4, why: Why) {
        self.roster.remove(peer);
        self.farewells.gone(peer);
        self.acts.push_back(Act::Expelled(peer, why));
    }

    /// What the clock says; to be called at [`Dbs::deadline`], and whenever it suits.
    pub fn tick(&mut self, now: Now) {
        self.halve(now);
        self.let_go(now);
        while let Some(from) = self.arrivals.expire(now) {
            self.stats.arrivals_lost += 1;
            self.acts.push_back(Act::HangUp(from));
        }
    }

    fn halve(&mut self, now: Now) {
        let times = now.since(self.halved).as_secs() / HALVING.as_secs();
        if times > 0 {
            self.halved = self.halved + HALVING.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX));
            self.roster.halve(times);
        }
    }

    /// When to call [`Dbs::tick`], at the latest.
    pub fn deadline(&self) -> Option<Now> {
        let halving = self.roster.any_losses().then(|| self.halved + HALVING);
        let others = Now::earliest(self.arrivals.deadline(), self.farewells.deadline());
        Now::earliest(halving, others)
    }

    /// What to do next; to be asked until `None` after every other call.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// The splitter ends: whoever waits for the answer to its goodbye gets it now.
    pub fn close(&mut self, now: Now) {
        while let Some(peer) = self.farewells.due(now, u64::MAX) {
            self.acts.push_back(Act::Goodbye(peer));
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
