//! The peer's side of a secured team (wire T): it plays only what the channel's key has signed, and knows who lied.
//!
//! * **Joining.** It is given tokens over TCP, shows by datagram where it is, is told of its mates, and says hello
//!   to each with a ticket that only the splitter can have made. A mate is sent nothing large before it has answered
//!   a challenge.
//! * **Relaying.** What the splitter gave goes to every mate, in turn: one for each chunk that comes, and when none
//!   comes, by the clock.
//! * **Checking.** When all chunks under a munro are there, they are checked together. When one does not come, or
//!   they do not fit, the *index* tells which: the digests under that munro, from a mate or the splitter. Who needed
//!   it passes it on.
//! * **Repair.** What should be here and is not is asked of a mate, of another, and then of the splitter, before its
//!   turn to be played comes.
//! * **Liars.** Who sent what is not the channel's is not heard again, and the splitter is shown its tag.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::Duration;

use relay_merkle::{
    Bin, ChannelId, Context, Digest, Form, HashKind, Judgement, LiveConfig, LiveVerifier, MunroRefusal,
    NtpTime, PublicKey, SignedMunro, TreeConfig, Verifier,
};
use relay_seam::Now;

use super::action::{Action, Ended, Input};
use super::playout::Due;
use crate::counters::counters;
use crate::dice::Dice;
use crate::frame::Frame;
use crate::limit::Allowance;
use crate::secret::{Secret, Use};
use crate::wire::WireError;
use crate::wire::t::{Datagram, Mate, Request, Say, TICKET_BYTES, Tag, Token, Welcome, chunk_header};

mod links;
mod quests;
mod vault;

use links::{Link, Links};
use quests::Quests;
use vault::{Kept, Sender, Vault};

/// The clock's grain: what is due is done so much late at most.
const GRAIN: Duration = Duration::from_millis(50);
/// The splitter is told that we are alive so often, and how many mates we reach.
const ALIVE: Duration = Duration::from_millis(400);
/// A hello that is not answered is said again.
const HELLO_AGAIN: Duration = Duration::from_millis(300);
/// After so many hellos the splitter is asked to have the mate open its NAT; after twice as many it is given up.
const KNOCK_AFTER: u8 = 2;
/// Ports that are tried behind a NAT that takes another one for each destination.
const GUESSES: u16 = 12;
/// A goodbye is repeated so often until it is answered.
const GOODBYE_AGAIN: Duration = Duration::from_millis(250);
/// A munro that is new is passed on to so many mates.
const GOSSIP: usize = 4;
/// An index is asked for when a missing chunk has not come in this time: with it, none is needed.
const INDEX_PATIENCE: Duration = Duration::from_millis(150);
/// Mates that are asked for a chunk or an index before the splitter is.
const MATES_ASKED: u32 = 3;
/// Chunks that may still be on their way however small the team is.
const REORDER_CHUNKS: u64 = 16;
/// A mate that was told nothing for so long is told that we are here: NATs forget.
const MATE_TOLD: Duration = Duration::from_secs(5);
/// A mate that says nothing for so long is no mate any more.
const MATE_SILENCE: Duration = Duration::from_secs(15);
/// The most that a splitter may tell over TCP: welcome, header, mates.
const TOLD_MAX: usize = 256 << 10;

/// Settings of a membership in a secured team.
#[derive(Clone, Debug)]
pub struct SecuredPeerConfig {
    /// Random, and new for each membership: tokens for mates come from it.
    pub secret: [u8; 32],
    /// Whose munros are believed, where that is known from elsewhere; otherwise the splitter's word is taken for it.
    pub key: Option<PublicKey>,
    /// What makes a monitor of it.
    pub ticket: Option<[u8; TICKET_BYTES]>,
    /// The most mates. 512.
    pub mates_max: usize,
    /// The most that the buffer may take, in bytes. 64 MiB.
    pub buffer_bytes_max: usize,
    /// Chunks sent to mates a second, at most. No limit.
    pub upload_chunks_max: Option<u32>,
    /// The splitter must have made it a member in this time. 5 s.
    pub join_timeout: Duration,
    /// A splitter that is silent for so long is gone. 15 s.
    pub silence: Duration,
    /// A goodbye that is not answered in this time needs no answer. 2 s.
    pub farewell_timeout: Duration,
}

impl SecuredPeerConfig {
    /// The defaults.
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            key: None,
            ticket: None,
            mates_max: 512,
            buffer_bytes_max: 64 << 20,
            upload_chunks_max: None,
            join_timeout: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            farewell_timeout: Duration::from_secs(2),
        }
    }
}

counters! {
    /// Counters of one membership in a secured team. All of them only grow; every drop has one.
    SecuredPeerStats {
        /// Chunks from the splitter, to be relayed.
        from_splitter,
        /// Chunks from mates, relayed to us.
        from_mates,
        /// Chunks that we had asked for, from mates and the splitter.
        repaired,
        /// Chunks that came again.
        duplicates,
        /// Chunks that came after their turn.
        old,
        /// Chunks far ahead of what is vouched for.
        far,
        /// Chunks that are not the channel's.
        bad,
        /// Chunks relayed or sent on request, each time counted.
        relayed,
        /// Chunks not sent because that would be more than may be sent.
        relays_capped,
        /// Chunks not relayed because they had left the buffer.
        relays_gone,
        /// Chunks for the player.
        played,
        /// Chunks that the player did not get.
        lost,
        /// Mates asked for a chunk.
        asks,
        /// The splitter asked for a chunk that no mate had.
        wants,
        /// Indexes asked for.
        indexes_asked,
        /// Indexes that came and were believed.
        indexes,
        /// Munros believed.
        munros,
        /// Munros and indexes that were not believed.
        munros_refused,
        /// Chunks sent because a mate asked.
        answers,
        /// Mates told that a chunk or index is not here.
        lacks,
        /// Requests not answered because that mate asks too much.
        asks_refused,
        /// Complaints to the splitter.
        complaints,
        /// Mates cut because they lied.
        liars,
        /// Mates given up because they do not answer, or send nothing.
        mates_silent,
        /// Newcomers whose ticket does not fit, or for whom there is no room.
        mates_refused,
        /// Datagrams with a token that is nobody's.
        strangers,
        /// Datagrams that mean nothing, or not in this place.
        unknown,
    }
}

/// What the welcome said.
#[derive(Debug)]
struct Home {
    serial: u64,
    pass: Token,
    call: Token,
    secret: Secret,
    chunk_bytes: u16,
    chunks_per_munro: u64,
    epoch: u64,
    kind: HashKind,
}

#[derive(Debug)]
enum Stage {
    Joining,
    Member,
    Leaving { gives_up: Now, again: Now },
    Over,
}

/// A member of a secured team.
#[derive(Debug)]
pub struct SecuredPeer {
    config: SecuredPeerConfig,
    splitter: SocketAddrV4,
    stage: Stage,
    began: Now,
    told: Vec<u8>,
    home: Option<Home>,
    vault: Option<Vault>,
    verifier: Option<LiveVerifier>,
    links: Links,
    /// Makes tokens for mates.
    secret: Secret,
    chunks: Quests,
    indexes: Quests,
    /// All numbers before this were looked at whether they are missing.
    judged: u64,
    /// All munros before the one with this chunk were looked at whether they are checked.
    checked: u64,
    heard: Now,
    spoke: Now,
    said_alive: Now,
    ticked: Now,
    /// A chunk came since the last tick.
    lively: bool,
    upload: Option<Allowance>,
    dice: Dice,
    /// The mate that last had what we lacked: it is asked first.
    lucky: Option<u64>,
    skipped: Option<(u64, u64)>,
    actions: VecDeque<Action>,
    stats: SecuredPeerStats,
}

impl SecuredPeer {
    /// A peer that is connecting to the splitter at this endpoint, TCP and UDP.
    pub fn new(config: SecuredPeerConfig, splitter: SocketAddrV4, now: Now) -> Self {
        let secret = Secret::new(&config.secret);
        Self {
            lucky: None,
            upload: config
                .upload_chunks_max
                .map(|max| Allowance::per_second(max, now)),
            dice: Dice::new(secret.number(Use::Nonce, 0, 0)),
            secret,
            config,
            splitter,
            stage: Stage::Joining,
            began: now,
            told: Vec::new(),
            home: None,
            vault: None,
            verifier: None,
            links: Links::default(),
            chunks: Quests::default(),
            indexes: Quests::default(),
            judged: 0,
            checked: 0,
            heard: now,
            spoke: now,
            said_alive: now,
            ticked: now,
            lively: false,
            skipped: None,
            actions: VecDeque::new(),
            stats: SecuredPeerStats::default(),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        match input {
            Input::Connected => {
                let ticket = self.config.ticket;
                let request = Request { ticket }.encode().to_vec();
                self.actions.push_back(Action::Tell(request));
            }
            Input::Told(bytes) => self.told(now, bytes),
            Input::HungUp if matches!(self.stage, Stage::Joining) && self.home.is_none() => {
                self.over(Ended::Refused);
            }
            Input::HungUp | Input::Fetched | Input::Tick => {}
            Input::Datagram(from, datagram) => self.datagram(now, from, datagram),
            Input::Leave => self.leave(now),
        }
        if self.ticked + GRAIN <= now {
            self.tick(now);
        }
    }

    /// What to do next; to be asked until `None` after each [`SecuredPeer::handle`].
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The data of a chunk that is in the buffer.
    pub fn data(&self, number: u64) -> Option<&[u8]> {
        self.vault.as_ref()?.data(number)
    }

    fn say(&mut self, to: SocketAddrV4, token: Token, say: Say<'_>) {
        let bytes = Datagram { token, say }.encode();
        self.actions.push_back(Action::Send { to, bytes });
    }

    fn say_home(&mut self, now: Now, say: Say<'_>) {
        if let Some(pass) = self.home.as_ref().map(|home| home.pass) {
            self.spoke = now;
            self.say(self.splitter, pass, say);
        }
    }

    fn say_mate(&mut self, serial: u64, say: Say<'_>) {
        if let Some((at, token)) = self.links.get(serial).map(|link| (link.at, link.send)) {
            self.say(at, token, say);
        }
    }

    // Joining.

    fn told(&mut self, now: Now, bytes: &[u8]) {
        if !matches!(self.stage, Stage::Joining) || self.told.len() + bytes.len() > TOLD_MAX {
            return;
        }
        self.told.extend_from_slice(bytes);
        let told = std::mem::take(&mut self.told);
        let read = match self.home {
            None => self.read_welcome(now, &told),
            Some(_) => self.read_mates(now, &told),
        };
        match read {
            Ok(n) => {
                self.told = told[n..].to_vec();
                // The rest may be the list.
                if n > 0 && !self.told.is_empty() {
                    self.told(now, &[]);
                }
            }
            Err(ended) => self.over(ended),
        }
    }

    /// How many bytes were read: none when it is not complete.
    fn read_welcome(&mut self, now: Now, told: &[u8]) -> Result<usize, Ended> {
        let Some((welcome, n)) = Welcome::parse(told)? else {
            return Ok(0);
        };
        let asked = Vault::bytes(welcome.buffer_chunks, welcome.chunk_bytes);
        if asked > self.config.buffer_bytes_max {
            let limit = self.config.buffer_bytes_max;
            return Err(Ended::Buffer { limit, asked });
        }
        self.settle(&welcome)?;
        if !welcome.header.is_empty() {
            self.actions.push_back(Action::Header(welcome.header.to_vec()));
        }
        (self.heard, self.ticked) = (now, now);
        self.say_home(now, Say::Hello);
        Ok(n)
    }

    fn settle(&mut self, welcome: &Welcome<'_>) -> Result<(), Ended> {
        let wrong = |expected, got: String| Ended::Protocol(WireError { expected, got });
        let kind = HashKind::from_code(welcome.hash)
            .ok_or_else(|| wrong("hash function 0 or 2", welcome.hash.to_string()))?;
        let key = PublicKey::from_swarm_id(&welcome.key)
            .map_err(|error| wrong("a public key", error.to_string()))?;
        if self.config.key.as_ref().is_some_and(|known| *known != key) {
            return Err(wrong("the channel's key", format!("{key:?}")));
        }
        let chunks_per_munro = u32::from(welcome.chunks_per_munro);
        let tree = TreeConfig {
            kind,
            chunks_per_munro,
            window: 2 * u64::from(welcome.buffer_chunks) + 2 * u64::from(chunks_per_munro),
        };
        let live = LiveConfig {
            tree,
            ..LiveConfig::default()
        };
        let context = Context {
            channel: ChannelId(welcome.channel),
            epoch: welcome.epoch,
        };
        let verifier = LiveVerifier::new(live, Verifier::new(key, Form::Bound(context)))
            .map_err(|error| wrong("a tree", error.to_string()))?;
        let per_munro = u64::from(chunks_per_munro);
        // Whoever joins in the middle of a munro could not check the rest of it alone.
        let first = welcome.next.div_ceil(per_munro).saturating_mul(per_munro);
        let buffer = u64::from(welcome.buffer_chunks);
        let wait = buffer.saturating_sub(per_munro).max(buffer / 2);
        self.vault = Some(Vault::new(
            welcome.buffer_chunks,
            welcome.chunk_bytes,
            kind,
            first,
            wait,
        ));
        self.verifier = Some(verifier);
        (self.judged, self.checked) = (first, first);
        self.home = Some(Home {
            serial: welcome.serial,
            pass: welcome.pass,
            call: welcome.call,
            secret: Secret::new(&welcome.secret),
            chunk_bytes: welcome.chunk_bytes,
            chunks_per_munro: per_munro,
            epoch: welcome.epoch,
            kind,
        });
        Ok(())
    }

    fn read_mates(&mut self, now: Now, told: &[u8]) -> Result<usize, Ended> {
        let Some((mates, n)) = Mate::parse_list(told)? else {
            return Ok(0);
        };
        self.stage = Stage::Member;
        self.actions.push_back(Action::HangUp);
        for mate in mates {
            if self.links.len() >= self.config.mates_max || !is_possible(mate.at) || mate.at == self.splitter
            {
                self.stats.mates_refused += 1;
                continue;
            }
            let reply = self.secret.token(Use::Reply, mate.serial, 0);
            self.links
                .insert(mate.serial, Link::new(mate.at, mate.ticket, reply, now));
            self.greet(now, mate.serial, reply);
        }
        Ok(n)
    }

    fn greet(&mut self, now: Now, mate: u64, reply: Token) {
        let Some(serial) = self.home.as_ref().map(|home| home.serial) else {
            return;
        };
        if let Some(link) = self.links.get_mut(mate) {
            link.tries += 1;
            link.again = now + HELLO_AGAIN;
        }
        let Some((at, token, tries)) = self.links.get(mate).map(|link| (link.at, link.send, link.tries))
        else {
            return;
        };
        // Its NAT may take another port for us, too.
        let ports = if tries > KNOCK_AFTER {
            usize::from(GUESSES)
        } else {
            1
        };
        for at in guesses(at).take(ports) {
            self.say(at, token, Say::Meet { serial, reply });
        }
    }

    // Datagrams.

    fn datagram(&mut self, now: Now, from: SocketAddrV4, datagram: &[u8]) {
        let Ok(Datagram { token, say }) = Datagram::parse(datagram) else {
            self.stats.unknown += 1;
            return;
        };
        let Some(home) = &self.home else {
            self.stats.strangers += 1;
            return;
        };
        if token == home.call {
            return self.splitter_says(now, from, say);
        }
        if say == Say::Stranger && token == home.pass && from == self.splitter {
            return self.forgotten();
        }
        match self.links.with_token(token) {
            Some(serial) => self.mate_says(now, from, serial, say),
            None => self.stranger_says(now, from, token, say),
        }
    }

    /// The splitter does not know us (any more).
    fn forgotten(&mut self) {
        match self.stage {
            Stage::Leaving { .. } => self.released(),
            _ => self.over(Ended::Forgotten),
        }
    }

    fn splitter_says(&mut self, now: Now, from: SocketAddrV4, say: Say<'_>) {
        if from != self.splitter {
            self.stats.strangers += 1;
            return;
        }
        self.heard = now;
        match say {
            Say::Challenge(nonce) => self.say_home(now, Say::Echo(nonce)),
            Say::Chunk { number, tag, data } => self.own_chunk(now, number, &tag, data),
            Say::Repair { number, tag, data } => self.repaired(now, number, data, Sender { serial: 0, tag }),
            Say::Probe(number) => self.probed(now, number),
            Say::Munro(munro) => self.munro(now, munro, 0),
            Say::Index { munro, leaves } => self.index(now, munro, leaves, 0),
            Say::Punch(at) => self.open(at),
            Say::Released if matches!(self.stage, Stage::Leaving { .. }) => self.released(),
            Say::Expelled => self.over(Ended::Expelled),
            _ => self.stats.unknown += 1,
        }
    }

    /// A mate cannot get through to us: our NAT must have seen us speak to it. Its own NAT may take another port
    /// for us than for the splitter, probably one of the next.
    fn open(&mut self, at: SocketAddrV4) {
        for at in guesses(at) {
            self.say(at, Token(0), Say::Opening);
        }
    }

    /// A newcomer, perhaps: its ticket is made of our secret and its serial.
    fn stranger_says(&mut self, now: Now, from: SocketAddrV4, token: Token, say: Say<'_>) {
        let (Say::Meet { serial, reply }, Some(home)) = (say, &self.home) else {
            self.stats.strangers += u64::from(say != Say::Opening);
            return;
        };
        let ticket = home.secret.token(Use::Ticket, serial, 0) == token;
        let room = self.links.len() < self.config.mates_max;
        if !ticket || !room || self.links.is_banned(serial) || !is_possible(from) {
            self.stats.mates_refused += 1;
            return;
        }
        // We say hello to nobody who says it to us: it does so again.
        let mut link = Link::new(from, reply, token, now);
        link.tries = u8::MAX;
        self.links.insert(serial, link);
        self.challenge(serial, from);
    }

    fn challenge(&mut self, serial: u64, at: SocketAddrV4) {
        let nonce = self.nonce(serial, at);
        if let Some(token) = self.links.get(serial).map(|link| link.send) {
            self.say(at, token, Say::Challenge(nonce));
        }
    }

    /// Nobody but who is at that endpoint can know it.
    fn nonce(&self, serial: u64, at: SocketAddrV4) -> u64 {
        let endpoint = u64::from(u32::from(*at.ip())) << 16 | u64::from(at.port());
        self.secret.number(Use::Nonce, serial, endpoint)
    }

    fn mate_says(&mut self, now: Now, from: SocketAddrV4, serial: u64, say: Say<'_>) {
        if let Say::Echo(nonce) = say {
            return self.echoed(serial, from, nonce);
        }
        let Some(link) = self.links.get_mut(serial) else {
            return;
        };
        if from != link.at || !link.proven {
            return self.unproven_says(now, from, serial, say);
        }
        link.heard = now;
        match say {
            Say::Alive(_) => {}
            Say::Chunk { number, tag, data } => self.relayed_chunk(now, number, data, Sender { serial, tag }),
            Say::Repair { number, tag, data } => self.repaired(now, number, data, Sender { serial, tag }),
            Say::Munro(munro) => self.munro(now, munro, serial),
            Say::Index { munro, leaves } => self.index(now, munro, leaves, serial),
            Say::Ask(number) => self.asked(now, serial, number),
            Say::AskIndex(number) => self.asked_index(now, serial, number),
            Say::Lack(number) => {
                self.chunks.denied(number, now);
                let first = self.first_of(number);
                self.indexes.denied(first, now);
            }
            Say::Goodbye => drop(self.links.remove(serial)),
            // The answer to its hello was lost.
            Say::Meet { .. } => self.challenge(serial, from),
            Say::Challenge(nonce) => self.say_mate(serial, Say::Echo(nonce)),
            _ => self.stats.unknown += 1,
        }
    }

    /// A mate has shown that it is there, if the nonce is that of our challenge.
    fn echoed(&mut self, serial: u64, from: SocketAddrV4, nonce: u64) {
        if nonce != self.nonce(serial, from) {
            self.stats.unknown += 1;
        } else if let Some(link) = self.links.get_mut(serial) {
            (link.at, link.proven) = (from, true);
        }
    }

    /// A mate of which nobody knows yet whether it is there, or is there now. To the first challenge of one that the
    /// splitter named, at the endpoint that it named, belongs the word of the splitter.
    fn unproven_says(&mut self, now: Now, from: SocketAddrV4, serial: u64, say: Say<'_>) {
        let Some(link) = self.links.get_mut(serial) else {
            return;
        };
        match say {
            Say::Challenge(nonce) if from == link.at => {
                (link.proven, link.heard) = (true, now);
                self.say_mate(serial, Say::Echo(nonce));
            }
            // It answers from another endpoint than the splitter knows: that it is there, it must show us, too.
            Say::Challenge(nonce) if !link.proven && link.answers.take(now) => {
                link.heard = now;
                let token = link.send;
                self.say(from, token, Say::Echo(nonce));
                self.challenge(serial, from);
            }
            _ if link.answers.take(now) => self.challenge(serial, from),
            _ => self.stats.asks_refused += 1,
        }
    }

    // Chunks.

    fn fits(&mut self, data: &[u8]) -> bool {
        let fits = self
            .home
            .as_ref()
            .is_some_and(|home| data.len() == usize::from(home.chunk_bytes));
        self.stats.unknown += u64::from(!fits);
        fits
    }

    fn keep(&mut self, number: u64, data: &[u8], sender: Sender) -> Kept {
        let Some(vault) = &mut self.vault else {
            return Kept::Old;
        };
        let kept = vault.offer(number, data, sender);
        match kept {
            Kept::New => {}
            Kept::Again => self.stats.duplicates += 1,
            Kept::Old => self.stats.old += 1,
            Kept::Far => self.stats.far += 1,
        }
        kept
    }

    /// Whether the splitter sent this, and nobody changed it on the way.
    fn is_genuine(&mut self, number: u64, tag: &Tag, data: &[u8]) -> bool {
        let genuine = self
            .home
            .as_ref()
            .is_some_and(|home| home.secret.tag(home.epoch, number, &home.kind.leaf(data)) == *tag);
        self.stats.bad += u64::from(!genuine);
        genuine
    }

    /// It is relayed before its munro is there: the tag shows that it is what the splitter sent.
    fn own_chunk(&mut self, now: Now, number: u64, tag: &Tag, data: &[u8]) {
        if !self.fits(data) {
            return;
        }
        if !self.is_genuine(number, tag, data) {
            return;
        }
        self.say_home(now, Say::Got(number));
        if let Some(vault) = &mut self.vault {
            vault.vouch(number);
        }
        let (serial, tag) = (0, *tag);
        if self.keep(number, data, Sender { serial, tag }) == Kept::New {
            self.stats.from_splitter += 1;
        }
        if self.data(number).is_some() {
            self.links.queue(number);
        }
        self.progress(now, number);
    }

    fn relayed_chunk(&mut self, now: Now, number: u64, data: &[u8], sender: Sender) {
        if !self.fits(data) {
            return;
        }
        if self.keep(number, data, sender) == Kept::New {
            self.stats.from_mates += 1;
        }
        self.progress(now, number);
    }

    fn repaired(&mut self, now: Now, number: u64, data: &[u8], sender: Sender) {
        let splitter = sender.serial == 0;
        if self.fits(data) && (!splitter || self.is_genuine(number, &sender.tag, data)) {
            if self.keep(number, data, sender) == Kept::New {
                self.stats.repaired += 1;
                self.lucky = (!splitter).then_some(sender.serial).or(self.lucky);
            }
            self.progress(now, number);
        }
    }

    /// Something came: it may be what a munro waited for, and it is time to serve the next mate.
    fn progress(&mut self, now: Now, number: u64) {
        self.lively = true;
        self.chunks.end(number);
        self.check(now, number);
        self.serve(now);
        self.judge(now);
        self.play();
    }

    fn serve(&mut self, now: Now) {
        if let Some((serial, numbers)) = self.links.serve() {
            numbers
                .into_iter()
                .for_each(|number| self.give(now, serial, number, false));
        }
    }

    fn give(&mut self, now: Now, mate: u64, number: u64, repair: bool) {
        let (Some(vault), Some(home), Some(link)) = (&self.vault, &self.home, self.links.get_mut(mate))
        else {
            return;
        };
        let Some(digest) = vault.digest(number) else {
            self.stats.relays_gone += 1;
            return;
        };
        if self.upload.as_mut().is_some_and(|upload| !upload.take(now)) {
            self.stats.relays_capped += 1;
            return;
        }
        let tag = home.secret.tag(home.epoch, number, &digest);
        link.told = now;
        let (to, head) = (link.at, chunk_header(link.send, number, &tag, repair));
        let frame = Frame::new(&head, &[]);
        self.stats.relayed += 1;
        self.actions.push_back(Action::Chunk { to, number, frame });
    }

    fn probed(&mut self, now: Now, number: u64) {
        // What is not here is given to another.
        if self.data(number).is_some() {
            self.say_home(now, Say::Got(number));
        }
    }

    /// Asked by a mate: only what is checked, or the splitter's own word, is passed on.
    fn asked(&mut self, now: Now, serial: u64, number: u64) {
        let allowed = self
            .links
            .get_mut(serial)
            .is_some_and(|link| link.answers.take(now));
        let fit = self.vault.as_ref().is_some_and(|vault| vault.is_fit(number));
        if !allowed {
            self.stats.asks_refused += 1;
        } else if fit {
            self.stats.answers += 1;
            self.give(now, serial, number, true);
        } else {
            self.stats.lacks += 1;
            self.say_mate(serial, Say::Lack(number));
        }
    }

    // Integrity.

    fn first_of(&self, number: u64) -> u64 {
        let per_munro = self.home.as_ref().map_or(1, |home| home.chunks_per_munro);
        number - number % per_munro
    }

    fn munro(&mut self, now: Now, munro: &[u8], from: u64) {
        match self.believe(now, munro) {
            Ok((signed, Judgement::New)) => {
                self.stats.munros += 1;
                self.gossip(Say::Munro(munro), from);
                if let Some(vault) = &mut self.vault {
                    vault.vouch(signed.munro.bin.last());
                }
                self.check(now, signed.munro.bin.first());
                self.judge(now);
                self.play();
            }
            Ok((_, Judgement::Known)) => {}
            Err(forged) => self.disbelieve(from, forged),
        }
    }

    /// Whether the munro is forged, where it is not believed.
    fn believe(&mut self, now: Now, munro: &[u8]) -> Result<(SignedMunro, Judgement), bool> {
        let signed = SignedMunro::decode(munro).map_err(|_| true)?;
        let Some(verifier) = &mut self.verifier else {
            return Err(false);
        };
        match verifier.offer(&signed, NtpTime::from_unix_us(now.wall_us())) {
            Ok(judgement) => Ok((signed, judgement)),
            Err(refusal) => Err(matches!(
                refusal,
                MunroRefusal::Signature(_) | MunroRefusal::Conflict { .. } | MunroRefusal::Shape { .. }
            )),
        }
    }

    /// A munro's signature costs us to check. Who sends a bad one is not heard again: it costs us one.
    fn disbelieve(&mut self, from: u64, forged: bool) {
        self.stats.munros_refused += 1;
        if forged && from != 0 {
            self.stats.liars += 1;
            self.links.ban(from);
        }
    }

    fn gossip(&mut self, say: Say<'_>, from: u64) {
        let mut mates = self.links.proven();
        mates.retain(|&serial| serial != from);
        for _ in 0..GOSSIP.min(mates.len()) {
            let serial = mates.swap_remove(self.dice.below(mates.len()));
            self.say_mate(serial, say);
        }
    }

    fn index(&mut self, now: Now, munro: &[u8], said: &[u8], from: u64) {
        let signed = match self.believe(now, munro) {
            Ok((signed, judgement)) => {
                self.stats.munros += u64::from(judgement == Judgement::New);
                signed
            }
            Err(forged) => return self.disbelieve(from, forged),
        };
        let (first, last) = (signed.munro.bin.first(), signed.munro.bin.last());
        let (Some(home), Some(verifier), Some(vault)) = (&self.home, &mut self.verifier, &mut self.vault)
        else {
            return;
        };
        vault.vouch(last);
        let leaves: Option<Vec<_>> = said
            .chunks(home.kind.len())
            .map(|leaf| Digest::from_slice(home.kind, leaf))
            .collect();
        let whole = leaves.filter(|leaves| leaves.len() as u64 == home.chunks_per_munro);
        if whole.is_some_and(|leaves| verifier.accept_batch(first, &leaves, &[]).is_ok()) {
            self.stats.indexes += 1;
            // Where chunks are lost others lack the same: so who wanted it passes it on.
            if self.indexes.is_open(first) {
                self.gossip(Say::Index { munro, leaves: said }, from);
            }
            self.check_known(now, first..last + 1);
            self.play();
        } else {
            self.disbelieve(from, true);
        }
    }

    /// Checks this chunk where its digest is known; otherwise all under its munro together, when all are there.
    fn check(&mut self, now: Now, number: u64) {
        if self.right_digest(number).is_some() {
            return self.check_known(now, number..number + 1);
        }
        let first = self.first_of(number);
        let (Some(home), Some(verifier), Some(vault)) = (&self.home, &mut self.verifier, &self.vault) else {
            return;
        };
        if verifier.munro(first).is_none() {
            return;
        }
        let numbers = first..first + home.chunks_per_munro;
        let leaves: Option<Vec<_>> = numbers.clone().map(|number| vault.digest(number)).collect();
        let Some(leaves) = leaves else { return };
        match verifier.accept_batch(first, &leaves, &[]) {
            Ok(_) => self.check_known(now, numbers),
            Err(_) => drop(self.indexes.want(first, now)),
        }
    }

    /// What the munros say that this chunk's digest is.
    fn right_digest(&self, number: u64) -> Option<Digest> {
        self.verifier.as_ref()?.hash(Bin::leaf(number)?)
    }

    fn check_known(&mut self, now: Now, numbers: Range<u64>) {
        let first = self.first_of(numbers.start);
        self.indexes.end(first);
        for number in numbers {
            let Some(right) = self.right_digest(number) else {
                continue;
            };
            let liar = self.vault.as_mut().and_then(|vault| vault.check(number, right));
            if let Some((sender, digest)) = liar {
                self.caught(now, number, sender, &digest);
            }
        }
    }

    /// Somebody sent what is not the channel's: it is not heard again, and shown to the splitter.
    fn caught(&mut self, now: Now, number: u64, sender: Sender, digest: &Digest) {
        self.stats.bad += 1;
        let Sender { serial, tag } = sender;
        if serial != 0 {
            self.stats.liars += u64::from(!self.links.is_banned(serial));
            self.links.ban(serial);
            let digest = digest.as_bytes();
            self.say_home(
                now,
                Say::Accusation {
                    serial,
                    number,
                    tag,
                    digest,
                },
            );
        }
        self.chunks.want(number, now);
    }

    fn asked_index(&mut self, now: Now, serial: u64, number: u64) {
        let allowed = self
            .links
            .get_mut(serial)
            .is_some_and(|link| link.answers.take(now));
        if !allowed {
            self.stats.asks_refused += 1;
            return;
        }
        match self.known_index(self.first_of(number)) {
            Some((munro, leaves)) => {
                let (munro, leaves) = (&munro[..], &leaves[..]);
                self.say_mate(serial, Say::Index { munro, leaves });
            }
            None => {
                self.stats.lacks += 1;
                self.say_mate(serial, Say::Lack(number));
            }
        }
    }

    fn known_index(&self, first: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        let (home, verifier) = (self.home.as_ref()?, self.verifier.as_ref()?);
        let mut munro = Vec::new();
        verifier.munro(first)?.encode(&mut munro);
        let mut leaves = Vec::new();
        for number in first..first + home.chunks_per_munro {
            let digest = verifier.hash(Bin::leaf(number)?)?;
            leaves.extend_from_slice(digest.as_bytes());
        }
        Some((munro, leaves))
    }

    // Repair.

    /// Looks for what should be here: chunks older than a round and a bit, and munros whose chunks are still not
    /// checked.
    fn judge(&mut self, now: Now) {
        let (Some(home), Some(vault), Some(verifier)) = (&self.home, &self.vault, &self.verifier) else {
            return;
        };
        let mates = self.links.len() as u64;
        let latest = vault.wait() / 2;
        let age = (mates + mates / 8 + REORDER_CHUNKS).min(latest);
        let until = vault.newest().saturating_sub(age);
        let mut missed = Vec::new();
        for number in self.judged.max(vault.next())..until {
            let there = vault.has(number);
            if !there && !self.chunks.want(number, now) {
                break;
            }
            if !there {
                missed.push(number);
                // Its munro's chunks cannot be checked together soon: nor can others pass them on.
                let first = number - number % home.chunks_per_munro;
                self.indexes.want(first, now + INDEX_PATIENCE);
            }
            self.judged = number + 1;
        }
        let per_munro = home.chunks_per_munro;
        let late = vault.newest().saturating_sub(age + (vault.wait() - age) / 3);
        let mut first = self.checked.max(self.first_of(vault.next()));
        while first + per_munro <= late {
            let known = Bin::leaf(first).is_some_and(|leaf| verifier.hash(leaf).is_some());
            if !known && !self.indexes.want(first, now) {
                break;
            }
            first += per_munro;
        }
        self.checked = first;
        self.complain(now, &missed);
    }

    /// A monitor tells the splitter, which knows who was to relay it.
    fn complain(&mut self, now: Now, missed: &[u64]) {
        if self.config.ticket.is_some() {
            for &number in missed {
                self.stats.complaints += 1;
                self.say_home(now, Say::Missed(number));
            }
        }
    }

    fn repair(&mut self, now: Now) {
        let next = self.vault.as_ref().map_or(0, Vault::next);
        self.chunks.forget_before(next);
        self.indexes.forget_before(self.first_of(next));
        let mates = self.links.proven();
        for (number, tries) in self.chunks.due(now) {
            let lucky = self.lucky.filter(|serial| tries == 0 && mates.contains(serial));
            let mate = lucky.or(mates.get(self.dice.below(mates.len())).copied());
            match mate.filter(|_| tries % (MATES_ASKED + 1) < MATES_ASKED) {
                Some(mate) => {
                    self.stats.asks += 1;
                    self.say_mate(mate, Say::Ask(number));
                }
                None => {
                    self.stats.wants += 1;
                    self.say_home(now, Say::Want(number));
                }
            }
        }
        for (first, tries) in self.indexes.due(now) {
            self.stats.indexes_asked += 1;
            let mate = mates.get(self.dice.below(mates.len())).copied();
            match mate.filter(|_| tries % (MATES_ASKED + 1) < MATES_ASKED) {
                Some(mate) => self.say_mate(mate, Say::AskIndex(first)),
                None => self.say_home(now, Say::AskIndex(first)),
            }
        }
    }

    fn play(&mut self) {
        while let Some(due) = self.vault.as_mut().and_then(Vault::due) {
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

    // Leaving, and time.

    fn leave(&mut self, now: Now) {
        match self.stage {
            Stage::Leaving { .. } => {}
            Stage::Member => {
                let (gives_up, again) = (now + self.config.farewell_timeout, now + GOODBYE_AGAIN);
                self.stage = Stage::Leaving { gives_up, again };
                // What we still have to relay goes out now: nobody is to lose a chunk to our leaving.
                while let Some((serial, numbers)) = self.links.serve() {
                    numbers
                        .into_iter()
                        .for_each(|number| self.give(now, serial, number, false));
                }
                self.say_home(now, Say::Goodbye);
            }
            _ => self.over(Ended::Left),
        }
    }

    fn released(&mut self) {
        let mates: Vec<_> = self.links.serials().collect();
        mates
            .into_iter()
            .for_each(|serial| self.say_mate(serial, Say::Goodbye));
        self.over(Ended::Left);
    }

    fn over(&mut self, why: Ended) {
        while let Some(due) = self.vault.as_mut().and_then(Vault::rest) {
            self.show(due);
        }
        self.show_skipped();
        self.actions.push_back(Action::Over(why));
        self.stage = Stage::Over;
    }

    fn tick(&mut self, now: Now) {
        self.ticked = now;
        match self.stage {
            Stage::Joining if self.began + self.config.join_timeout <= now => {
                return self.over(Ended::Refused);
            }
            Stage::Joining if self.home.is_some() && self.spoke + HELLO_AGAIN <= now => {
                return self.say_home(now, Say::Hello);
            }
            Stage::Member if self.heard + self.config.silence <= now => {
                return self.over(Ended::Silence(self.config.silence));
            }
            Stage::Leaving { gives_up, .. } if gives_up <= now => return self.released(),
            Stage::Leaving { gives_up, again } if again <= now => {
                let again = now + GOODBYE_AGAIN;
                self.stage = Stage::Leaving { gives_up, again };
                self.say_home(now, Say::Goodbye);
            }
            Stage::Joining | Stage::Member | Stage::Leaving { .. } | Stage::Over => {}
        }
        if matches!(self.stage, Stage::Member) {
            self.live(now);
        }
    }

    fn live(&mut self, now: Now) {
        if self.said_alive + ALIVE <= now {
            self.said_alive = now;
            let mates = self.links.proven().len() as u64;
            self.say_home(now, Say::Alive(mates));
        }
        if !std::mem::take(&mut self.lively) {
            // Nothing came that would have paced what we relay.
            (0..1 + self.links.len() / 16).for_each(|_| self.serve(now));
        }
        self.judge(now);
        self.repair(now);
        self.greet_again(now);
    }

    /// Says hello again to those who did not answer, and gives up those who do not, or are silent.
    fn greet_again(&mut self, now: Now) {
        let (mut hellos, mut gone, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for (serial, link) in self.links.iter_mut() {
            let unanswered = !link.proven && link.tries > 2 * KNOCK_AFTER;
            let patience = if unanswered {
                MATE_SILENCE / 4
            } else {
                MATE_SILENCE
            };
            if (link.proven || unanswered) && link.heard + patience <= now {
                gone.push(serial);
            } else if link.proven && link.told + MATE_TOLD <= now {
                link.told = now;
                idle.push(serial);
            } else if !link.proven && !unanswered && link.again <= now {
                hellos.push((serial, link.recv, link.tries));
            }
        }
        idle.into_iter()
            .for_each(|serial| self.say_mate(serial, Say::Alive(0)));
        for serial in gone {
            self.stats.mates_silent += 1;
            self.links.remove(serial);
        }
        for (serial, reply, tries) in hellos {
            if tries >= KNOCK_AFTER {
                self.say_home(now, Say::Knock(serial));
            }
            self.greet(now, serial, reply);
        }
    }

    /// When to tell it [`Input::Tick`], at the latest.
    pub fn deadline(&self) -> Option<Now> {
        match self.stage {
            Stage::Over => None,
            _ => Some(self.ticked + GRAIN),
        }
    }

    /// Whether it is in the team: it was told of its mates, and is not leaving.
    pub fn is_member(&self) -> bool {
        matches!(self.stage, Stage::Member)
    }

    /// The number that the player gets next; 0 before the welcome.
    pub fn next(&self) -> u64 {
        self.vault.as_ref().map_or(0, Vault::next)
    }

    /// How many mates it has.
    pub fn mates(&self) -> usize {
        self.links.len()
    }

    /// What has happened so far.
    pub fn stats(&self) -> &SecuredPeerStats {
        &self.stats
    }
}

/// This endpoint, and those with the next ports.
fn guesses(at: SocketAddrV4) -> impl Iterator<Item = SocketAddrV4> {
    let ports = (0..GUESSES).filter_map(move |n| at.port().checked_add(n));
    ports.map(move |port| SocketAddrV4::new(*at.ip(), port))
}

/// Whether anybody can be there.
fn is_possible(at: SocketAddrV4) -> bool {
    let ip = at.ip();
    !(ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified() || at.port() == 0)
}
