//! The splitter's side of a secured team (wire T): DBS and ACS as everywhere, with members that are who they say and
//! are where they say, a first hop that is made sure of, and polluters expelled on proof.
//!
//! * **Joining.** Over TCP a newcomer gets its tokens; by datagram it shows where it is; only then it is told of
//!   others, and others of it. A challenge's nonce is a keyed hash of serial and endpoint: it costs no memory.
//! * **First hop.** A chunk that its member does not acknowledge is asked after, and given to another one: what only
//!   one peer was to relay is never lost with it.
//! * **Liveness.** A member that says nothing for [`SecuredConfig::silence`] is out. One that cannot reach half of
//!   the team is given nothing to relay.
//! * **Content.** The channel's munros are told to a few members, who pass them on. Whoever cannot check a chunk
//!   asks for the index: the digests under one munro.
//! * **Pollution.** A chunk's tag is keyed with its sender's secret, which only the sender and we know. So a tag that
//!   fits a wrong digest is proof. An accusation without proof expels nobody, save a monitor's; two of them take a
//!   member its turn, which costs it nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use relay_merkle::{Context, Digest, Munro, PublicKey, SignedMunro, TreeConfig};
use relay_seam::Now;

use super::acs::Acs;
use super::action::{Action, Note, Refusal, Why};
use super::ledger::{Complaint, Ledger};
use crate::config::{Config, ConfigError};
use crate::frame::Frame;
use crate::limit::Allowance;
use crate::secret::{Secret, Use};
use crate::wire::t::{Datagram, Mate, Request, Say, TICKET_BYTES, Tag, Token, Welcome, chunk_header};
use crate::wire::{WireError, chunk_number};

mod arrivals;
mod flights;
mod member;
mod stats;

use arrivals::{Arrivals, Stage};
use flights::{Flights, Overdue};
use member::{Member, Members};
pub use stats::SecuredStats;

/// Losses are halved so often.
const HALVING: Duration = Duration::from_secs(1);
/// The clock's grain: what is due is done so much late at most.
const GRAIN: Duration = Duration::from_millis(50);
/// Members that are told of a munro; they tell the others.
const MUNRO_COPIES: usize = 2;
/// So many members must accuse one before it loses its turn.
const ACCUSERS: usize = 2;
/// What may be sent again at once, in hundredths of a chunk: when a member lies or dies, all others lack the same.
const REPAIR_BURST: u64 = 64 * 100;
/// For each munro so many indexes may be told, and what is not told is kept up to the other number.
const INDEXES_PER_MUNRO: u32 = 2;
const INDEX_BURST: u32 = 32;
/// The digests under a munro are told once in this time: mates tell them to each other.
const INDEX_AGAIN: Duration = Duration::from_millis(150);
/// Answers to strangers a second: they are smaller than what they answer.
const STRANGERS_PER_SECOND: u32 = 100;
/// The most chunks under one munro: their digests fit one datagram.
const CHUNKS_PER_MUNRO_MAX: u32 = 32;

/// Settings of a secured team.
#[derive(Clone, Debug)]
pub struct SecuredConfig {
    /// As in an open team; what belongs to the open wires alone is not looked at.
    pub team: Config,
    /// Whose munros are believed.
    pub key: PublicKey,
    /// The channel, and the life of it whose chunks have these numbers.
    pub context: Context,
    /// The channel's tree; at most 32 chunks under one munro.
    pub tree: TreeConfig,
    /// Whoever shows one of these is a monitor.
    pub tickets: Vec<[u8; TICKET_BYTES]>,
    /// Random, and new for each splitter: all tokens come from it.
    pub secret: [u8; 32],
    /// How much of the stream may be sent again, in percent.
    pub repair_percent: u16,
    /// A chunk that is not acknowledged in this time is asked after; in twice this time it goes to another.
    pub got_timeout: Duration,
    /// A member that says nothing for so long is out.
    pub silence: Duration,
}

impl SecuredConfig {
    /// The defaults: 2 % for repair, 250 ms for an acknowledgement, 2.5 s of silence.
    pub fn new(team: Config, key: PublicKey, context: Context, tree: TreeConfig, secret: [u8; 32]) -> Self {
        Self {
            team,
            key,
            context,
            tree,
            tickets: Vec::new(),
            secret,
            repair_percent: 2,
            got_timeout: Duration::from_millis(250),
            silence: Duration::from_millis(2500),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.team.check()?;
        let (got, max) = (self.team.chunk_bytes, crate::wire::t::CHUNK_BYTES_MAX);
        if got > max {
            return Err(ConfigError::ChunkSize { max, got });
        }
        let tree = self.tree.check().is_ok() && self.tree.chunks_per_munro <= CHUNKS_PER_MUNRO_MAX;
        match tree {
            true => Ok(()),
            false => Err(ConfigError::Tree(self.tree.chunks_per_munro)),
        }
    }
}

/// What happened to a secured team's splitter.
#[derive(Clone, Copy, Debug)]
pub enum SecuredInput<'a> {
    /// What happens to any splitter, save that a chunk is there: that takes its digest.
    Team(super::Input<'a>),
    /// The channel's chunk with this number is there, and this is its digest in the channel's tree.
    Chunk(u64, Digest),
    /// A munro was signed over chunks that were told; the digests of its chunks, in order.
    Sealed(&'a SignedMunro, &'a [Digest]),
}

/// What is known of one of the newest chunks.
#[derive(Clone, Copy, Debug)]
struct Recent {
    number: u64,
    digest: Digest,
    /// When it was given to a member to relay, the last time.
    given: Now,
    /// Members that could not get it from their mates since then.
    wants: u32,
}

/// What is known under one munro.
#[derive(Debug)]
struct Seal {
    munro: Vec<u8>,
    leaves: Vec<Digest>,
    /// When somebody was told the digests last: it passes them on.
    told: Option<Now>,
}

/// A secured team and its splitter.
#[derive(Debug)]
pub struct Secured {
    config: SecuredConfig,
    secret: Secret,
    header: Vec<u8>,
    serials: u64,
    arrivals: Arrivals,
    members: Members,
    ledger: Ledger,
    flights: Flights,
    acs: Option<Acs>,
    /// By first chunk.
    seals: BTreeMap<u64, Seal>,
    next: u64,
    recent: Vec<Option<Recent>>,
    halved: Now,
    ticked: Now,
    /// In hundredths of a chunk's bytes.
    repair_budget: u64,
    /// Indexes that may be told.
    index_budget: u32,
    strangers: Allowance,
    actions: VecDeque<Action>,
    stats: SecuredStats,
}

impl Secured {
    /// An empty team; the channel's next chunk is `next`.
    ///
    /// # Errors
    ///
    /// Settings that do not go together.
    pub fn new(config: SecuredConfig, next: u64, now: Now) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            secret: Secret::new(&config.secret),
            header: Vec::new(),
            serials: 0,
            arrivals: Arrivals::default(),
            members: Members::default(),
            ledger: Ledger::new(config.team.buffer_chunks, config.team.max_peers),
            flights: Flights::new(usize::from(config.team.buffer_chunks)),
            acs: config.team.acs.then(Acs::default),
            seals: BTreeMap::new(),
            next,
            recent: vec![None; usize::from(config.team.buffer_chunks)],
            halved: now,
            ticked: now,
            repair_budget: REPAIR_BURST,
            index_budget: 0,
            strangers: Allowance::per_second(STRANGERS_PER_SECOND, now),
            actions: VecDeque::new(),
            stats: SecuredStats::default(),
            config,
        })
    }

    /// The beginning of the stream, for newcomers; at most 65,535 bytes of it.
    pub fn set_header(&mut self, mut header: Vec<u8>) {
        header.truncate(usize::from(u16::MAX));
        self.header = header;
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, input: SecuredInput<'_>) {
        use super::Input;
        match input {
            SecuredInput::Sealed(munro, leaves) => self.sealed(munro, leaves),
            SecuredInput::Chunk(number, digest) => self.chunk(now, number, digest),
            SecuredInput::Team(Input::Chunk(_)) => self.stats.chunks_without_digest += 1,
            SecuredInput::Team(Input::Connected(from)) => self.connected(now, from),
            SecuredInput::Team(Input::Said(from, bytes)) => self.said(now, from, bytes),
            SecuredInput::Team(Input::HungUp(from)) => {
                self.stats.arrivals_lost += u64::from(self.arrivals.remove(from).is_some());
            }
            SecuredInput::Team(Input::Datagram(from, datagram)) => self.datagram(now, from, datagram),
            // Anybody can forge such a report, and silence says the same.
            SecuredInput::Team(Input::Closed(_)) => {}
            SecuredInput::Team(Input::Tick | Input::Close) => self.tick(now),
        }
    }

    /// What to do next; to be asked until `None` after each [`Secured::handle`].
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn call(&self, serial: u64) -> Token {
        self.secret.token(Use::Call, serial, 0)
    }

    fn say(&mut self, serial: u64, to: SocketAddrV4, say: Say<'_>) {
        let token = self.call(serial);
        let bytes = Datagram { token, say }.encode();
        self.stats.control_bytes += bytes.len() as u64;
        self.actions.push_back(Action::Send { to, bytes });
    }

    fn note(&mut self, at: SocketAddrV4, note: Note) {
        self.actions.push_back(Action::Note(at, note));
    }

    // Joining.

    fn connected(&mut self, now: Now, from: SocketAddrV4) {
        self.arrivals.remove(from);
        let team = &self.config.team;
        let near = self.members.at_address(*from.ip()) + self.arrivals.at_address(*from.ip());
        let refusal = if self.members.len() + self.arrivals.len() >= usize::from(team.max_peers) {
            self.stats.refused_full += 1;
            Refusal::Full(team.max_peers)
        } else if self.arrivals.len() >= usize::from(team.max_arrivals) {
            self.stats.refused_arrivals += 1;
            Refusal::Arrivals(team.max_arrivals)
        } else if !from.ip().is_loopback() && near >= usize::from(team.max_per_address) {
            self.stats.refused_address += 1;
            Refusal::Address(team.max_per_address)
        } else {
            return self.arrivals.add(from, now + team.greeting_timeout);
        };
        self.refuse(from, refusal);
    }

    fn refuse(&mut self, from: SocketAddrV4, refusal: Refusal) {
        self.actions.push_back(Action::HangUp(from));
        self.note(from, Note::Refused(refusal));
    }

    fn said(&mut self, now: Now, from: SocketAddrV4, bytes: &[u8]) {
        match self.arrivals.hear(from, bytes) {
            None => self.actions.push_back(Action::HangUp(from)),
            Some(Ok(None)) => {}
            Some(Ok(Some(request))) => self.welcome(now, from, request),
            Some(Err(error)) => self.refuse_protocol(from, error),
        }
    }

    fn refuse_protocol(&mut self, from: SocketAddrV4, error: WireError) {
        self.arrivals.remove(from);
        self.stats.refused_protocol += 1;
        self.refuse(from, error.into());
    }

    fn welcome(&mut self, now: Now, from: SocketAddrV4, request: Request) {
        self.serials += 1;
        let serial = self.serials;
        let known = |ticket| self.config.tickets.contains(&ticket);
        let (pass, call) = (self.secret.token(Use::Pass, serial, 0), self.call(serial));
        let stage = Stage::Told {
            serial,
            pass,
            monitor: request.ticket.is_some_and(known),
        };
        self.arrivals
            .set(from, stage, now + self.config.team.ready_timeout);
        let tree = self.config.tree;
        let bytes = Welcome {
            chunk_bytes: self.config.team.chunk_bytes,
            buffer_chunks: self.config.team.buffer_chunks,
            hash: tree.kind.code(),
            chunks_per_munro: tree.chunks_per_munro as u16,
            serial,
            pass,
            call,
            secret: self.secret.member(serial),
            next: self.next,
            epoch: self.config.context.epoch,
            channel: self.config.context.channel.0,
            key: *self.config.key.swarm_id(),
            header: &self.header,
        }
        .encode();
        self.actions.push_back(Action::Tell { to: from, bytes });
    }

    // Datagrams.

    fn datagram(&mut self, now: Now, from: SocketAddrV4, datagram: &[u8]) {
        let Ok(Datagram { token, say }) = Datagram::parse(datagram) else {
            self.stats.datagrams_unknown += 1;
            return;
        };
        if let Some(serial) = self.members.with_pass(token) {
            return self.member_says(now, from, serial, say);
        }
        match self.arrivals.with_pass(token) {
            Some(arrival) => self.newcomer_says(now, from, arrival, say),
            None => self.stranger(now, from, token),
        }
    }

    /// It may be of a team that was before: that it is nobody's token here tells it so. The answer is no longer than
    /// what it answers, and only who sent the token can know it.
    fn stranger(&mut self, now: Now, to: SocketAddrV4, token: Token) {
        self.stats.strangers += 1;
        if self.strangers.take(now) {
            let say = Say::Stranger;
            let bytes = Datagram { token, say }.encode();
            self.actions.push_back(Action::Send { to, bytes });
        }
    }

    /// Nobody but who is at that endpoint can know it.
    fn nonce(&self, serial: u64, at: SocketAddrV4) -> u64 {
        let endpoint = u64::from(u32::from(*at.ip())) << 16 | u64::from(at.port());
        self.secret.number(Use::Nonce, serial, endpoint)
    }

    fn newcomer_says(
        &mut self,
        now: Now,
        from: SocketAddrV4,
        arrival: (SocketAddrV4, u64, bool),
        say: Say<'_>,
    ) {
        let (door, serial, monitor) = arrival;
        match say {
            Say::Hello => {
                let nonce = self.nonce(serial, from);
                self.say(serial, from, Say::Challenge(nonce));
            }
            Say::Echo(nonce) if nonce == self.nonce(serial, from) => {
                self.arrivals.remove(door);
                self.introduce(door, serial);
                let pass = self.secret.token(Use::Pass, serial, 0);
                let secret = Secret::new(&self.secret.member(serial));
                let member = Member::new(from, monitor, self.call(serial), secret, now);
                self.members.add(serial, pass, member);
                self.stats.joins += 1;
                self.note(from, Note::Joined);
                self.tell_newest(serial, from);
            }
            _ => self.stats.datagrams_unknown += 1,
        }
    }

    /// Tells a newcomer of those who are here.
    fn introduce(&mut self, door: SocketAddrV4, newcomer: u64) {
        let mates: Vec<_> = self
            .members
            .iter()
            .map(|(serial, member)| Mate {
                at: member.at,
                serial,
                ticket: member.secret.token(Use::Ticket, newcomer, 0),
            })
            .collect();
        let mut bytes = Vec::new();
        Mate::encode_list(&mates, &mut bytes);
        self.actions.push_back(Action::Tell { to: door, bytes });
        self.actions.push_back(Action::HangUp(door));
    }

    fn member_says(&mut self, now: Now, from: SocketAddrV4, serial: u64, say: Say<'_>) {
        let Some(member) = self.members.get_mut(serial) else {
            return;
        };
        member.heard = now;
        let at = member.at;
        if from != at {
            return self.moved(now, serial, from, say);
        }
        match say {
            Say::Alive(mates) => member.mates = Some(mates),
            Say::Hello => {}
            Say::Got(number) => self.flights.got(number, serial),
            Say::Missed(number) => self.complaint(serial, number),
            Say::Want(number) => self.want(now, serial, at, number),
            Say::AskIndex(number) => self.want_index(now, serial, at, number),
            Say::Goodbye => self.goodbye(serial, at),
            Say::Knock(other) => self.knock(now, serial, at, other),
            Say::Accusation {
                serial: accused,
                number,
                tag,
                digest,
            } => self.accused(now, serial, accused, number, &tag, digest),
            _ => self.stats.datagrams_unknown += 1,
        }
    }

    /// A member speaks from elsewhere: its NAT may have changed its mind. It must show that it is there before it is
    /// sent more than a challenge.
    fn moved(&mut self, now: Now, serial: u64, from: SocketAddrV4, say: Say<'_>) {
        let nonce = self.nonce(serial, from);
        let Some(member) = self.members.get_mut(serial) else {
            return;
        };
        if say == Say::Echo(nonce) {
            self.stats.moves += 1;
            member.at = from;
        } else if member.answers.take(now) {
            self.say(serial, from, Say::Challenge(nonce));
        }
    }

    fn goodbye(&mut self, serial: u64, at: SocketAddrV4) {
        self.stats.goodbyes += 1;
        self.remove(serial);
        // When it is lost, the repeated goodbye is a stranger's, and answered all the same.
        self.say(serial, at, Say::Released);
        self.note(at, Note::Left);
    }

    fn remove(&mut self, serial: u64) -> Option<Member> {
        self.acs.iter_mut().for_each(|acs| acs.forget(serial));
        self.members.remove(serial)
    }

    fn expel(&mut self, serial: u64, why: Why) {
        let Some(member) = self.remove(serial) else { return };
        self.say(serial, member.at, Say::Expelled);
        self.note(member.at, Note::Expelled(why));
    }

    /// A member cannot get through to another: that one is told to open its NAT, to an endpoint that has shown that
    /// it is one.
    fn knock(&mut self, now: Now, serial: u64, at: SocketAddrV4, other: u64) {
        let allowed = self
            .members
            .get_mut(serial)
            .is_some_and(|member| member.answers.take(now));
        match self
            .members
            .get_mut(other)
            .filter(|_| allowed)
            .map(|other| other.at)
        {
            Some(there) => {
                self.stats.punches += 1;
                self.say(other, there, Say::Punch(at));
            }
            None => self.stats.knocks_vain += 1,
        }
    }

    // Chunks.

    fn chunk(&mut self, now: Now, number: u64, digest: Digest) {
        if number < self.next {
            // The channel has begun again; what was before is of another epoch, and of another team.
            self.seals.clear();
            self.flights.clear();
        }
        self.next = number + 1;
        let slot = self.slot(number);
        self.recent[slot] = Some(Recent {
            number,
            digest,
            given: now,
            wants: 0,
        });
        self.stats.chunks += 1;
        let percent = u64::from(self.config.repair_percent);
        self.repair_budget = (self.repair_budget + percent).min(REPAIR_BURST);
        self.give(now, number);
    }

    fn give(&mut self, now: Now, number: u64) {
        if let Some(recent) = self.recent(number) {
            (recent.given, recent.wants) = (now, 0);
        }
        let turn = match &mut self.acs {
            Some(acs) => self.members.turn(|serial| acs.takes(serial)),
            None => self.members.turn(|_| true),
        };
        let place = turn.map(|(serial, at, nth)| (at, serial, nth));
        self.ledger.set(number, place);
        let Some((serial, at, _)) = turn else {
            self.stats.chunks_without_team += 1;
            return;
        };
        self.flights.start(number, serial, now + self.config.got_timeout);
        self.send_chunk(serial, at, number, false);
    }

    fn slot(&self, number: u64) -> usize {
        // The remainder is below a `u16`.
        (number % self.recent.len() as u64) as usize
    }

    fn recent(&mut self, number: u64) -> Option<&mut Recent> {
        let slot = self.slot(number);
        self.recent[slot]
            .as_mut()
            .filter(|recent| recent.number == number)
    }

    /// The tag is the member's own: it shows the member that nobody on the way changed the chunk, and goes on with
    /// it.
    fn send_chunk(&mut self, serial: u64, to: SocketAddrV4, number: u64, repair: bool) {
        let Some(digest) = self.recent(number).map(|recent| recent.digest) else {
            return;
        };
        let Some(member) = self.members.get(serial) else {
            return;
        };
        self.stats.chunks_sent += u64::from(!repair);
        let tag = member.secret.tag(self.config.context.epoch, number, &digest);
        let frame = Frame::new(&chunk_header(member.call, number, &tag, repair), &[]);
        self.actions.push_back(Action::Chunk { to, number, frame });
    }

    /// Spends some of what may be sent again, in hundredths of a chunk.
    fn afford(&mut self, hundredths: u64) -> bool {
        let rest = self.repair_budget.checked_sub(hundredths);
        self.stats.repairs_over_budget += u64::from(rest.is_none());
        self.repair_budget = rest.unwrap_or(self.repair_budget);
        rest.is_some()
    }

    /// A member got a chunk from none of its mates. The first one gets it; when there is a second, it was lost with
    /// who was to relay it, and another one is.
    fn want(&mut self, now: Now, serial: u64, at: SocketAddrV4, number: u64) {
        let patience = 2 * self.config.got_timeout;
        let allowed = |member: &mut Member| member.answers.take(now);
        if !self.members.get_mut(serial).is_some_and(allowed) {
            self.stats.wants_refused += 1;
            return;
        }
        let wants = match self.recent(number) {
            Some(recent) if recent.given + patience <= now => {
                recent.wants += 1;
                recent.wants
            }
            // It is on its way, or it is not here.
            _ => {
                self.stats.wants_refused += 1;
                return;
            }
        };
        if !self.afford(100) {
            return;
        }
        if wants == 2 {
            self.stats.regiven += 1;
            self.give(now, number);
        } else {
            self.stats.repairs += 1;
            self.send_chunk(serial, at, number, true);
        }
    }

    // Integrity.

    fn sealed(&mut self, signed: &SignedMunro, leaves: &[Digest]) {
        let Munro { bin, .. } = signed.munro;
        let mut munro = Vec::new();
        signed.encode(&mut munro);
        let leaves = leaves.to_vec();
        self.seals.insert(
            bin.first(),
            Seal {
                munro,
                leaves,
                told: None,
            },
        );
        while self.seals.len() as u64 > self.config.tree.munros() {
            self.seals.pop_first();
        }
        self.index_budget = (self.index_budget + INDEXES_PER_MUNRO).min(INDEX_BURST);
        for (serial, at) in self.members.some(MUNRO_COPIES) {
            self.tell_munro(serial, at, bin.first());
        }
    }

    fn tell_munro(&mut self, serial: u64, to: SocketAddrV4, first: u64) {
        let Some(munro) = self.seals.get(&first).map(|seal| seal.munro.clone()) else {
            return;
        };
        self.say(serial, to, Say::Munro(&munro));
    }

    fn tell_newest(&mut self, serial: u64, to: SocketAddrV4) {
        if let Some(&first) = self.seals.keys().next_back() {
            self.tell_munro(serial, to, first);
        }
    }

    fn first_of(&self, number: u64) -> u64 {
        number - number % u64::from(self.config.tree.chunks_per_munro)
    }

    fn want_index(&mut self, now: Now, serial: u64, at: SocketAddrV4, number: u64) {
        let first = self.first_of(number);
        let allowed = |member: &mut Member| member.answers.take(now);
        let allowed = self.members.get_mut(serial).is_some_and(allowed);
        let fresh = |seal: &&mut Seal| seal.told.is_none_or(|told| told + INDEX_AGAIN <= now);
        let Some(seal) = self.seals.get_mut(&first).filter(fresh).filter(|_| allowed) else {
            self.stats.wants_refused += 1;
            return;
        };
        seal.told = Some(now);
        let (munro, leaves) = (seal.munro.clone(), join(&seal.leaves));
        match self.index_budget.checked_sub(1) {
            None => self.stats.indexes_over_budget += 1,
            Some(rest) => {
                self.index_budget = rest;
                self.stats.indexes += 1;
                let (munro, leaves) = (&munro[..], &leaves[..]);
                self.say(serial, at, Say::Index { munro, leaves });
            }
        }
    }

    /// A member says that another one sent it something wrong.
    fn accused(&mut self, now: Now, by: u64, accused: u64, number: u64, tag: &Tag, digest: &[u8]) {
        let allowed = |member: &mut Member| member.answers.take(now);
        if !self.members.get_mut(by).is_some_and(allowed) {
            self.stats.accusations_refused += 1;
            return;
        }
        if self.proves(accused, number, tag, digest) {
            self.stats.expelled_pollution += u64::from(self.members.get_mut(accused).is_some());
            return self.expel(accused, Why::Pollution);
        }
        self.stats.accusations_unproven += 1;
        if self.members.get_mut(by).is_some_and(|by| by.monitor) {
            self.stats.expelled_pollution += u64::from(self.members.get_mut(accused).is_some());
            self.expel(accused, Why::Pollution);
        } else if let Some(member) = self.members.get_mut(accused) {
            member.accuse(by, ACCUSERS);
        }
    }

    /// Whether the accused tagged a digest that is not the chunk's.
    fn proves(&self, accused: u64, number: u64, tag: &Tag, digest: &[u8]) -> bool {
        let Some(digest) = Digest::from_slice(self.config.tree.kind, digest) else {
            return false;
        };
        let first = self.first_of(number);
        let place = usize::try_from(number - first).unwrap_or(usize::MAX);
        let right = self.seals.get(&first).and_then(|seal| seal.leaves.get(place));
        let secret = Secret::new(&self.secret.member(accused));
        let tagged = secret.tag(self.config.context.epoch, number, &digest) == *tag;
        tagged && right.is_some_and(|right| *right != digest)
    }

    // Complaints.

    fn complaint(&mut self, by: u64, number: u64) {
        let Some(monitor) = self.members.get_mut(by).map(|member| member.monitor) else {
            return;
        };
        let lost = chunk_number(number);
        if self.ledger.find(lost).is_none_or(|(found, _)| found != number) {
            self.stats.complaints_unsent += 1;
            return;
        }
        match self.ledger.complain(lost, by, monitor) {
            Complaint::Against {
                serial, nth, trusted, ..
            } if monitor && trusted == self.members.quorum() => self.blame(serial, nth),
            Complaint::Against { .. } => self.stats.complaints_unweighed += 1,
            Complaint::Own => self.stats.complaints_own += 1,
            Complaint::Repeated => self.stats.complaints_repeated += 1,
            Complaint::Unsent => self.stats.complaints_unsent += 1,
        }
    }

    fn blame(&mut self, serial: u64, nth: u64) {
        let Some(member) = self.members.get_mut(serial) else {
            self.stats.complaints_late += 1;
            return;
        };
        self.stats.losses += 1;
        let (losses, row) = member.lose(nth);
        self.acs.iter_mut().for_each(|acs| acs.blame(serial));
        let (limit, row_limit) = (self.config.team.loss_limit, self.config.team.row_limit);
        if row >= row_limit {
            self.stats.expelled_losses += 1;
            self.expel(serial, Why::InARow { limit: row_limit });
        } else if losses > limit {
            self.stats.expelled_losses += 1;
            self.expel(serial, Why::Losses { limit });
        }
    }

    // Time.

    fn tick(&mut self, now: Now) {
        self.ticked = now;
        self.halve(now);
        while let Some(door) = self.arrivals.expire(now) {
            self.stats.arrivals_lost += 1;
            self.refuse(door, Refusal::Late);
        }
        while let Some(serial) = self.members.silent(now, self.config.silence) {
            self.stats.expelled_silence += 1;
            self.expel(serial, Why::Silence(self.config.silence));
        }
        while let Some(overdue) = self.flights.overdue(now, self.config.got_timeout) {
            self.chase(now, overdue);
        }
    }

    /// A chunk was not acknowledged.
    fn chase(&mut self, now: Now, overdue: Overdue) {
        let at = self.members.get_mut(overdue.serial).map(|member| member.at);
        match at {
            Some(at) if !overdue.probed => {
                self.stats.probes += 1;
                self.say(overdue.serial, at, Say::Probe(overdue.number));
            }
            _ if self.next - overdue.number < u64::from(self.config.team.buffer_chunks) => {
                self.stats.regiven += 1;
                self.give(now, overdue.number);
            }
            _ => self.stats.regives_late += 1,
        }
    }

    fn halve(&mut self, now: Now) {
        let times = now.since(self.halved).as_secs() / HALVING.as_secs();
        if times > 0 {
            self.halved = self.halved + HALVING.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX));
            self.members.halve(times);
            self.acs.iter_mut().for_each(|acs| acs.forgive(times));
        }
    }

    /// When to tell it [`super::Input::Tick`], at the latest.
    pub fn deadline(&self) -> Option<Now> {
        let grain = (self.members.len() > 0).then(|| self.ticked + GRAIN);
        Now::earliest(grain, self.arrivals.deadline())
    }

    /// Members' endpoints, in the order of joining.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.members.iter().map(|(_, member)| member.at)
    }

    /// Newcomers on their way in.
    pub fn arrivals(&self) -> usize {
        self.arrivals.len()
    }

    /// What has happened so far.
    pub fn stats(&self) -> &SecuredStats {
        &self.stats
    }

    /// As given.
    pub fn config(&self) -> &SecuredConfig {
        &self.config
    }
}

fn join(leaves: &[Digest]) -> Vec<u8> {
    leaves.iter().flat_map(|leaf| leaf.as_bytes().to_vec()).collect()
}

#[cfg(test)]
#[path = "secured/tests.rs"]
mod tests;
