//! NTS (NAT traversal), the peer's side: say who we are until everybody has heard it, at every port where they may
//! be.
//!
//! A hello opens our own NAT for the other's, and the other's for ours: both try at the same time, because the
//! splitter tells both. Where a NAT takes another port for each destination, the next ones are guessed from its step.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use relay_seam::Now;

use crate::wire::nts::{Id, Peer, Word};

/// What is not acknowledged is said again so often, …
const AGAIN: Duration = Duration::from_secs(1);
/// … for so long.
const PATIENCE: Duration = Duration::from_secs(15);
/// Ports that are guessed.
const GUESSES: u16 = 20;
/// Those whom we try to meet at a time.
const WANTED_MAX: usize = 512;

#[derive(Debug)]
struct Wanted {
    peer: Peer,
    again: Now,
    until: Now,
}

/// What is said to one, as bytes and where to.
pub(super) type Said = (SocketAddrV4, Vec<u8>);

#[derive(Debug)]
pub(super) struct Nts {
    pub(super) id: Id,
    splitter: SocketAddrV4,
    /// Those whom we have not met yet, by identifier.
    wanted: BTreeMap<Id, Wanted>,
    /// What the splitter has not acknowledged yet.
    unheard: Vec<(Vec<u8>, Now, Now)>,
    /// The second list has come.
    pub(super) listed: bool,
    /// We have said that we have met everybody, and were heard.
    pub(super) incorporated: bool,
    monitor: bool,
}

/// What a word led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) say: Vec<Said>,
    /// Somebody is at this endpoint.
    pub(super) met: Option<SocketAddrV4>,
}

impl Nts {
    /// We were named; hello to the splitter, and to the monitors at these endpoints.
    pub(super) fn new(
        id: Id,
        splitter: SocketAddrV4,
        monitors: &[SocketAddrV4],
        monitor: bool,
        now: Now,
    ) -> (Self, Vec<Said>) {
        let mut nts = Self {
            id,
            splitter,
            wanted: BTreeMap::new(),
            unheard: Vec::new(),
            listed: false,
            incorporated: false,
            monitor,
        };
        let hello = Word::Hello(id).encode();
        let mut say: Vec<_> = monitors.iter().map(|&at| (at, hello.clone())).collect();
        say.push(nts.tell_splitter(now, hello));
        (nts, say)
    }

    fn tell_splitter(&mut self, now: Now, bytes: Vec<u8>) -> Said {
        self.unheard.push((bytes.clone(), now + AGAIN, now + PATIENCE));
        (self.splitter, bytes)
    }

    /// The list of those whom we are to meet.
    pub(super) fn list(&mut self, now: Now, peers: &[Peer]) -> Vec<Said> {
        self.listed = true;
        let mut say = Vec::new();
        let own = self.id;
        let mut others: Vec<_> = peers.iter().filter(|peer| peer.id != own).collect();
        // Guesses cost ports where our own NAT takes one for each destination: those who need none go first, while
        // the others can still guess ours.
        others.sort_by_key(|peer| peer.step != 0);
        for peer in others {
            say.extend(self.want(now, *peer));
        }
        say.extend(self.finish(now));
        say
    }

    fn want(&mut self, now: Now, peer: Peer) -> Vec<Said> {
        if self.wanted.len() >= WANTED_MAX {
            return Vec::new();
        }
        let (again, until) = (now + AGAIN, now + PATIENCE);
        self.wanted.insert(peer.id, Wanted { peer, again, until });
        self.try_to_meet(&peer)
    }

    /// A hello to every port where it may be.
    fn try_to_meet(&self, peer: &Peer) -> Vec<Said> {
        let hello = Word::Hello(self.id).encode();
        let guesses = if peer.step == 0 { 1 } else { GUESSES };
        let ports = (0..guesses).filter_map(|n| peer.step.checked_mul(n)?.checked_add(peer.at.port()));
        ports
            .map(|port| (SocketAddrV4::new(*peer.at.ip(), port), hello.clone()))
            .collect()
    }

    /// Says that we have met everybody, once, when that is so.
    fn finish(&mut self, now: Now) -> Option<Said> {
        let word = Word::In(self.id).encode();
        let said = self.unheard.iter().any(|(bytes, ..)| *bytes == word);
        let done = self.listed && self.wanted.is_empty() && !self.incorporated && !said;
        done.then(|| self.tell_splitter(now, word))
    }

    /// A word came.
    pub(super) fn hear(&mut self, now: Now, from: SocketAddrV4, word: Word) -> Heard {
        let own = from == self.splitter;
        match word {
            Word::Meet(peer, _) if own && !self.wanted.contains_key(&peer.id) && peer.id != self.id => {
                Heard {
                    say: self.want(now, peer),
                    met: None,
                }
            }
            Word::Newcomer(id, at) if own => Heard {
                say: self.want(now, Peer { id, at, step: 0 }),
                met: None,
            },
            Word::Hello(_) | Word::Seen(..) | Word::In(_) if own => {
                self.acknowledged(word);
                Heard::default()
            }
            // Our own name comes back: somebody has heard it.
            Word::Hello(id) if id == self.id => Heard {
                say: Vec::new(),
                met: Some(from),
            },
            Word::Hello(id) => self.hello(now, from, id),
            _ => Heard::default(),
        }
    }

    fn acknowledged(&mut self, word: Word) {
        let bytes = word.encode();
        self.incorporated |= word == Word::In(self.id);
        self.unheard.retain(|(said, ..)| *said != bytes);
    }

    /// It is there, and where it is we know now: nothing more needs to be guessed.
    fn hello(&mut self, now: Now, from: SocketAddrV4, id: Id) -> Heard {
        let mut say = vec![(from, Word::Hello(id).encode())];
        if self.wanted.remove(&id).is_some() {
            // Its NAT is open for us, ours for it: so it hears this one.
            say.push((from, Word::Hello(self.id).encode()));
        }
        if self.monitor {
            let seen = Word::Seen(id, from.port()).encode();
            if self.unheard.iter().all(|(said, ..)| *said != seen) {
                say.push(self.tell_splitter(now, seen));
            }
        }
        say.extend(self.finish(now));
        Heard { say, met: Some(from) }
    }

    /// Somebody at this endpoint has heard us, or sends us chunks: it need not be looked for.
    pub(super) fn found(&mut self, now: Now, at: SocketAddrV4) -> Option<Said> {
        let near = |wanted: &Wanted| {
            let Peer { at: there, step, .. } = wanted.peer;
            let ahead = at.port().wrapping_sub(there.port());
            let guessed = step != 0 && ahead % step == 0 && ahead / step < GUESSES;
            *there.ip() == *at.ip() && (ahead == 0 || guessed)
        };
        self.wanted.retain(|_, wanted| !near(wanted));
        self.finish(now)
    }

    /// What is to be said again now.
    pub(super) fn again(&mut self, now: Now) -> Vec<Said> {
        self.wanted.retain(|_, wanted| wanted.until > now);
        self.unheard.retain(|(_, _, until)| *until > now);
        let mut due = Vec::new();
        for wanted in self.wanted.values_mut().filter(|wanted| wanted.again <= now) {
            wanted.again = now + AGAIN;
            due.push(wanted.peer);
        }
        let mut say: Vec<_> = due.iter().flat_map(|peer| self.try_to_meet(peer)).collect();
        for (bytes, again, _) in self.unheard.iter_mut().filter(|(_, again, _)| *again <= now) {
            *again = now + AGAIN;
            say.push((self.splitter, bytes.clone()));
        }
        say.extend(self.finish(now));
        say
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        let wanted = self.wanted.values().map(|wanted| wanted.again.min(wanted.until));
        let unheard = self.unheard.iter().map(|(_, again, until)| (*again).min(*until));
        wanted.chain(unheard).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn at(ip: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, ip), port)
    }

    fn ms(ms: u64) -> Now {
        Now::new(ms * 1_000_000, 0)
    }

    const SPLITTER: u8 = 1;

    fn named(monitor: bool) -> Nts {
        let (nts, said) = Nts::new(Id::numbered(5), at(SPLITTER, 1), &[at(2, 2)], monitor, ms(0));
        let hello = Word::Hello(Id::numbered(5)).encode();
        assert_eq!(said, [(at(2, 2), hello.clone()), (at(SPLITTER, 1), hello)]);
        nts
    }

    fn peer(ip: u8, step: u16) -> Peer {
        Peer {
            id: Id::numbered(ip.into()),
            at: at(ip, 700),
            step,
        }
    }

    #[test]
    fn it_says_hello_until_everybody_heard_and_then_that_it_is_in() {
        let mut nts = named(false);
        assert_eq!(nts.again(ms(999)), []);
        assert_eq!(nts.again(ms(1000)).len(), 1, "the splitter was silent");
        nts.hear(ms(1000), at(SPLITTER, 1), Word::Hello(nts.id));
        assert_eq!(nts.deadline(), None);
        let tries = nts.list(ms(1000), &[peer(7, 0), peer(8, 2)]);
        let ports: Vec<_> = tries.iter().map(|(to, _)| to.port()).collect();
        assert_eq!(
            (ports[0], &ports[1..4], ports.len()),
            (700, &[700, 702, 704][..], 21)
        );
        assert_eq!(nts.found(ms(1000), at(7, 700)), None, "one is left");
        let heard = nts.hear(ms(1000), at(8, 706), Word::Hello(Id::numbered(8)));
        assert_eq!(heard.met, Some(at(8, 706)));
        assert!(heard.say.contains(&(at(SPLITTER, 1), Word::In(nts.id).encode())));
        assert_eq!(nts.again(ms(2000)).len(), 1, "until it is heard");
        nts.hear(ms(2000), at(SPLITTER, 1), Word::In(nts.id));
        assert_eq!((nts.again(ms(9000)), nts.deadline()), (vec![], None));
    }

    #[test]
    fn nobody_is_looked_for_for_ever() {
        let mut nts = named(false);
        nts.hear(ms(0), at(SPLITTER, 1), Word::Meet(peer(9, 0), 3));
        nts.hear(ms(0), at(6, 6), Word::Meet(peer(8, 0), 3));
        assert_eq!(
            nts.again(ms(1000)).len(),
            2,
            "its hello, and one to 9: 8 was a stranger's word"
        );
        assert_eq!(nts.again(ms(15_000)), []);
        assert_eq!(nts.deadline(), None);
    }

    #[test]
    fn a_monitor_says_what_it_sees() {
        let mut nts = named(true);
        let id = Id::numbered(9);
        let heard = nts.hear(ms(0), at(9, 704), Word::Hello(id));
        let expected = [
            (at(9, 704), Word::Hello(id).encode()),
            (at(SPLITTER, 1), Word::Seen(id, 704).encode()),
        ];
        assert_eq!(heard.say, expected);
        assert_eq!(
            nts.hear(ms(0), at(9, 704), Word::Hello(id)).say.len(),
            1,
            "said already"
        );
    }
}
