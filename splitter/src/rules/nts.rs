//! NTS (NAT traversal), the splitter's side: newcomers say who they are to it and to the monitors, and those who are
//! behind NATs are told where to try.
//!
//! From the ports that a newcomer's hellos came from, the step of its NAT's ports follows: the greatest common
//! divisor of their differences, 0 when they are all one. Then it is told of everybody, and everybody of it, with
//! that step; and it is a member when it says that it has met them. Messages to members go out one with each chunk,
//! three times: there may be many, and a burst would be lost.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use relay_seam::Now;

use crate::dice::Dice;
use crate::wire::nts::{Id, Peer, Word};

/// Monitors have so long to say what they saw.
const SEEN_TIMEOUT: Duration = Duration::from_secs(1);
/// A message to a member goes out after this time where no chunk takes it along.
const PACE: Duration = Duration::from_millis(10);
/// Each message to a member is sent so often.
const TIMES: usize = 3;
/// Messages that wait to be sent; then the oldest are dropped.
const QUEUE_MAX: usize = 4096;
/// Ports of one newcomer that are remembered.
const PORTS_MAX: usize = 16;

#[derive(Debug)]
struct Arriving {
    door: SocketAddrV4,
    monitor: bool,
    /// Where its hello to us came from.
    at: Option<SocketAddrV4>,
    /// All source ports that anybody saw.
    ports: Vec<u16>,
    /// When the others are told, at the latest; `None` when they were.
    until: Option<Now>,
}

/// What happened by a word.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Send these bytes back.
    Echo,
    /// The newcomer at this door is a member, at this endpoint.
    In {
        door: SocketAddrV4,
        at: SocketAddrV4,
        monitor: bool,
    },
    /// It means nothing.
    Nothing,
}

/// Bounded by the newcomers and members that the team allows, and by [`QUEUE_MAX`].
#[derive(Debug)]
pub(super) struct Nts {
    dice: Dice,
    arriving: BTreeMap<Id, Arriving>,
    /// By endpoint: who it is, and its NAT's step.
    members: BTreeMap<SocketAddrV4, (Id, u16)>,
    queue: VecDeque<(SocketAddrV4, Vec<u8>)>,
    /// When one of them was sent last.
    sent: Now,
}

impl Nts {
    pub(super) fn new(seed: u64, now: Now) -> Self {
        Self {
            dice: Dice::new(seed),
            arriving: BTreeMap::new(),
            members: BTreeMap::new(),
            queue: VecDeque::new(),
            sent: now,
        }
    }

    /// A newcomer's identifier.
    pub(super) fn name(&mut self, door: SocketAddrV4, monitor: bool) -> Id {
        self.gone(door);
        let arriving = Arriving {
            door,
            monitor,
            at: None,
            ports: Vec::new(),
            until: None,
        };
        let mut id = Id::numbered(self.dice.roll());
        while self.arriving.contains_key(&id) || self.members.values().any(|(other, _)| *other == id) {
            id = Id::numbered(self.dice.roll());
        }
        self.arriving.insert(id, arriving);
        id
    }

    /// The newcomer at this door is let go.
    pub(super) fn gone(&mut self, door: SocketAddrV4) {
        self.arriving.retain(|_, arriving| arriving.door != door);
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, at: SocketAddrV4) {
        self.members.remove(&at);
        self.queue.retain(|(to, _)| *to != at);
    }

    /// A word came; `monitor` where a monitor says it.
    pub(super) fn hear(&mut self, now: Now, from: SocketAddrV4, word: Word, monitor: bool) -> Heard {
        match word {
            Word::Hello(id) => self.hello(now, from, id),
            Word::Seen(id, port) => {
                if let Some(arriving) = self.arriving.get_mut(&id).filter(|_| monitor) {
                    arriving.saw(port);
                }
                if self.members.contains_key(&from) {
                    Heard::Echo
                } else {
                    Heard::Nothing
                }
            }
            Word::In(id) => self.says_in(from, id),
            // Its next hello comes from another port; what was seen of the first is no help.
            Word::Again(id) => match self.arriving.get_mut(&id).filter(|arriving| arriving.is_at(from)) {
                Some(arriving) => {
                    (arriving.at, arriving.until) = (None, None);
                    arriving.ports.clear();
                    Heard::Echo
                }
                None => Heard::Nothing,
            },
            Word::Newcomer(..) | Word::Meet(..) => Heard::Nothing,
        }
    }

    fn hello(&mut self, now: Now, from: SocketAddrV4, id: Id) -> Heard {
        let alone = self.members.is_empty();
        let Some(arriving) = self.arriving.get_mut(&id).filter(|arriving| arriving.is_at(from)) else {
            let known = self.members.get(&from).is_some_and(|(other, _)| *other == id);
            return if known { Heard::Echo } else { Heard::Nothing };
        };
        let first = arriving.at.is_none();
        arriving.at = Some(from);
        arriving.saw(from.port());
        // Monitors are to be where everybody can reach them, and the first has nobody to meet.
        if arriving.monitor || alone {
            return self.incorporate(id);
        }
        if first {
            self.arriving
                .entry(id)
                .and_modify(|arriving| arriving.until = Some(now + SEEN_TIMEOUT));
        }
        Heard::Echo
    }

    fn says_in(&mut self, from: SocketAddrV4, id: Id) -> Heard {
        let here = |arriving: &Arriving| arriving.at == Some(from) && arriving.until.is_none();
        if self.arriving.get(&id).is_some_and(here) {
            return self.incorporate(id);
        }
        match self.members.get(&from) {
            Some((other, _)) if *other == id => Heard::Echo,
            _ => Heard::Nothing,
        }
    }

    fn incorporate(&mut self, id: Id) -> Heard {
        let Some(arriving) = self.arriving.remove(&id) else {
            return Heard::Nothing;
        };
        let Some(at) = arriving.at else {
            return Heard::Nothing;
        };
        self.members.insert(at, (id, step(&arriving.ports)));
        Heard::In {
            door: arriving.door,
            at,
            monitor: arriving.monitor,
        }
    }

    /// One newcomer of which enough is known: its door, and the list that it is told. `monitors` have seen it, or
    /// their time is over. From now on the others are told of it, too.
    pub(super) fn introduce(&mut self, now: Now, monitors: usize) -> Option<(SocketAddrV4, Vec<u8>)> {
        let ready = |arriving: &Arriving| {
            let all = arriving.ports.len() > monitors;
            arriving.until.is_some_and(|until| all || until <= now)
        };
        let (&id, arriving) = self.arriving.iter_mut().find(|(_, arriving)| ready(arriving))?;
        arriving.until = None;
        let (door, at) = (arriving.door, arriving.at?);
        let step = step(&arriving.ports);
        let port = arriving.ports.iter().copied().max().unwrap_or(at.port());
        let at = SocketAddrV4::new(*at.ip(), port);
        let mut list = Vec::new();
        Peer::encode_list(&self.peers(), &mut list);
        let newcomer = Peer { id, at, step };
        self.tell_all(&newcomer);
        Some((door, list))
    }

    fn peers(&self) -> Vec<Peer> {
        let peers = self.members.iter();
        peers.map(|(&at, &(id, step))| Peer { id, at, step }).collect()
    }

    fn tell_all(&mut self, newcomer: &Peer) {
        let members: Vec<_> = self.members.keys().copied().collect();
        for _ in 0..TIMES {
            for (number, &to) in (0..).zip(&members) {
                if self.queue.len() == QUEUE_MAX {
                    self.queue.pop_front();
                }
                self.queue.push_back((to, Word::Meet(*newcomer, number).encode()));
            }
        }
    }

    /// The next message to a member: one goes out with each chunk, or when none comes, after a while.
    pub(super) fn next(&mut self, now: Now) -> Option<(SocketAddrV4, Vec<u8>)> {
        self.sent = now;
        self.queue.pop_front()
    }

    /// The same by the clock.
    pub(super) fn due(&mut self, now: Now) -> Option<(SocketAddrV4, Vec<u8>)> {
        (self.sent + PACE <= now).then(|| self.next(now)).flatten()
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        let arriving = self.arriving.values().filter_map(|arriving| arriving.until).min();
        let queue = (!self.queue.is_empty()).then(|| self.sent + PACE);
        Now::earliest(arriving, queue)
    }
}

impl Arriving {
    /// Whether it may speak from there: the address is that of its TCP connection.
    fn is_at(&self, from: SocketAddrV4) -> bool {
        self.door.ip() == from.ip()
    }

    fn saw(&mut self, port: u16) {
        if self.ports.len() < PORTS_MAX {
            self.ports.push(port);
        }
    }
}

/// How far apart a NAT's ports are.
fn step(ports: &[u16]) -> u16 {
    let lowest = ports.iter().copied().min().unwrap_or(0);
    ports
        .iter()
        .fold(0, |step, &port| greatest_common_divisor(step, port - lowest))
}

fn greatest_common_divisor(mut a: u16, mut b: u16) -> u16 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
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

    #[test]
    fn a_nat_s_step_is_what_its_ports_have_in_common() {
        for (ports, expected) in [
            (&[][..], 0),
            (&[5000], 0),
            (&[5000, 5000], 0),
            (&[5000, 5001], 1),
            (&[5004, 5000, 5010], 2),
            (&[0, 65_535], 65_535),
        ] {
            assert_eq!(step(ports), expected, "{ports:?}");
        }
    }

    #[test]
    fn the_first_and_monitors_are_in_at_once_and_others_when_they_say_so() {
        let mut nts = Nts::new(1, ms(0));
        let first = nts.name(at(1, 1), false);
        let incorporated = |ip, monitor| Heard::In {
            door: at(ip, 1),
            at: at(ip, 700),
            monitor,
        };
        let hello = Word::Hello(first);
        assert_eq!(
            nts.hear(ms(0), at(9, 700), hello, false),
            Heard::Nothing,
            "another's name"
        );
        assert_eq!(nts.hear(ms(0), at(1, 700), hello, false), incorporated(1, false));
        assert_eq!(
            nts.hear(ms(0), at(1, 700), hello, false),
            Heard::Echo,
            "its echo was lost"
        );
        let monitor = nts.name(at(2, 1), true);
        assert_eq!(
            nts.hear(ms(0), at(2, 700), Word::Hello(monitor), false),
            incorporated(2, true)
        );

        let id = nts.name(at(3, 1), false);
        assert_eq!(nts.hear(ms(0), at(3, 700), Word::Hello(id), false), Heard::Echo);
        assert_eq!(
            nts.hear(ms(0), at(3, 700), Word::In(id), false),
            Heard::Nothing,
            "too early"
        );
        assert_eq!(nts.introduce(ms(999), 1), None);
        assert_eq!(
            nts.hear(ms(0), at(1, 700), Word::Seen(id, 704), false),
            Heard::Echo
        );
        assert_eq!(nts.introduce(ms(999), 1), None, "only monitors' word counts");
        assert_eq!(
            nts.hear(ms(0), at(2, 700), Word::Seen(id, 702), true),
            Heard::Echo
        );
        let (door, list) = nts.introduce(ms(0), 1).unwrap();
        assert_eq!(
            (door, Peer::parse_list(&list).unwrap().unwrap().len()),
            (at(3, 1), 2)
        );
        let told: Vec<_> = std::iter::from_fn(|| nts.next(ms(0))).collect();
        assert_eq!(told.len(), 2 * TIMES);
        let newcomer = Peer {
            id,
            at: at(3, 702),
            step: 2,
        };
        assert_eq!(told[0], (at(1, 700), Word::Meet(newcomer, 0).encode()));
        assert_eq!(
            nts.hear(ms(0), at(3, 700), Word::In(id), false),
            incorporated(3, false)
        );
        assert_eq!(nts.hear(ms(0), at(3, 700), Word::In(id), false), Heard::Echo);
    }

    #[test]
    fn silent_monitors_are_not_waited_for_and_who_tries_again_begins_again() {
        let mut nts = Nts::new(1, ms(0));
        let first = nts.name(at(1, 1), false);
        nts.hear(ms(0), at(1, 700), Word::Hello(first), false);
        let id = nts.name(at(3, 1), false);
        nts.hear(ms(0), at(3, 700), Word::Hello(id), false);
        assert_eq!(nts.deadline(), Some(ms(1000)));
        assert!(nts.introduce(ms(1000), 5).is_some());
        assert_eq!(nts.introduce(ms(9000), 0), None);
        assert_eq!((nts.due(ms(9)), nts.due(ms(10)).is_some()), (None, true));
        assert_eq!(nts.deadline(), Some(ms(20)));
        nts.hear(ms(0), at(3, 700), Word::Again(id), false);
        assert_eq!(nts.hear(ms(0), at(3, 700), Word::In(id), false), Heard::Nothing);
        nts.hear(ms(2000), at(3, 800), Word::Hello(id), false);
        assert!(std::iter::from_fn(|| nts.next(ms(2000))).count() > 0);
        assert_eq!(nts.deadline(), Some(ms(3000)));
        nts.gone(at(3, 1));
        nts.forget(at(1, 700));
        assert_eq!((nts.deadline(), nts.next(ms(0))), (None, None));
    }
}
