//! DBS, rule by rule, each limit at its edge.

use super::*;
use crate::wire::b::{Chunk, GOODBYE, Welcome};
use crate::wire::chunk_number;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};

fn peer(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn at(ms: u64) -> Now {
    Now::new(ms * 1_000_000, 0)
}

fn source() -> Source {
    Source::new(peer(8000), "test.ts").unwrap()
}

/// What one event led to, sorted: the rest stays for [`acts`].
struct Team {
    rules: Splitter,
    next: u64,
    acts: Vec<Act>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    Goodbye(SocketAddrV4),
    HangUp(SocketAddrV4),
    Expelled(SocketAddrV4, Why),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Joined,
    Refused(Refusal),
    Stranger,
}

#[derive(Debug)]
struct Heard {
    tell: Vec<u8>,
    step: Step,
}

#[derive(Debug, PartialEq, Eq)]
struct Turn {
    number: u64,
    to: Option<SocketAddrV4>,
}

impl Deref for Team {
    type Target = Splitter;
    fn deref(&self) -> &Splitter {
        &self.rules
    }
}

impl DerefMut for Team {
    fn deref_mut(&mut self) -> &mut Splitter {
        &mut self.rules
    }
}

impl Team {
    fn new(config: Config) -> Self {
        let rules = Splitter::new(config, source(), at(0)).unwrap();
        Self {
            rules,
            next: 0,
            acts: Vec::new(),
        }
    }

    fn event(&mut self, now: Now, input: Input<'_>) -> Vec<Action> {
        self.rules.handle(now, input);
        let mut rest = Vec::new();
        while let Some(action) = self.rules.poll() {
            match action {
                Action::Send { to, bytes } if bytes == GOODBYE => self.acts.push(Act::Goodbye(to)),
                Action::Note(peer, Note::Expelled(why)) => self.acts.push(Act::Expelled(peer, why)),
                other => rest.push(other),
            }
        }
        rest
    }

    fn chunk(&mut self, now: Now) -> Turn {
        let number = self.next;
        self.next += 1;
        let to = self
            .event(now, Input::Chunk(number))
            .into_iter()
            .find_map(|action| match action {
                Action::Chunk {
                    to,
                    number: sent,
                    frame,
                } => {
                    assert_eq!((sent, frame.head()), (number, &Chunk::header(number)[..]));
                    Some(to)
                }
                _ => None,
            });
        Turn { number, to }
    }

    fn arrive(&mut self, now: Now, from: SocketAddrV4) -> Result<(), Refusal> {
        match self.event(now, Input::Connected(from)).pop() {
            Some(Action::Note(_, Note::Refused(refusal))) => Err(refusal),
            _ => Ok(()),
        }
    }

    fn hear(&mut self, now: Now, from: SocketAddrV4, bytes: &[u8]) -> Heard {
        let (mut tell, mut hung_up, mut step) = (Vec::new(), false, Step::Wait);
        for action in self.event(now, Input::Said(from, bytes)) {
            match action {
                Action::Tell { bytes, .. } => tell.extend(bytes),
                Action::HangUp(_) => hung_up = true,
                Action::Note(_, Note::Joined) => step = Step::Joined,
                Action::Note(_, Note::Refused(refusal)) => step = Step::Refused(refusal),
                _ => {}
            }
        }
        if hung_up && step == Step::Wait {
            step = Step::Stranger;
        }
        Heard { tell, step }
    }

    fn datagram(&mut self, now: Now, from: SocketAddrV4, bytes: &[u8]) {
        self.event(now, Input::Datagram(from, bytes));
    }

    fn tick(&mut self, now: Now) {
        for action in self.event(now, Input::Tick) {
            if let Action::HangUp(peer) = action {
                self.acts.push(Act::HangUp(peer));
            }
        }
    }

    fn hung_up(&mut self, from: SocketAddrV4) {
        self.event(at(0), Input::HungUp(from));
    }

    fn closed(&mut self, peer: SocketAddrV4) {
        self.event(at(0), Input::Closed(peer));
    }

    fn close(&mut self, now: Now) {
        self.event(now, Input::Close);
    }
}

fn dbs(config: Config) -> Team {
    Team::new(config)
}

fn small() -> Config {
    Config {
        buffer_chunks: 8,
        max_peers: 4,
        max_arrivals: 2,
        loss_limit: 3,
        acs: false,
        lrs: false,
        ..Config::default()
    }
}

fn join(team: &mut Team, now: Now, from: SocketAddrV4) -> Vec<u8> {
    team.arrive(now, from).unwrap();
    let heard = team.hear(now, from, b"PR");
    assert_eq!(heard.step, Step::Joined);
    heard.tell
}

/// The second of them is the monitor; the first, where it is alone.
fn team_of(config: Config, n: u16) -> Team {
    let mut team = dbs(config);
    for port in 1..=n {
        team.arrive(at(0), peer(port)).unwrap();
        let said = if port == n.min(2) { b"MR" } else { b"PR" };
        assert_eq!(team.hear(at(0), peer(port), said).step, Step::Joined);
    }
    team
}

fn listed(welcome: &[u8]) -> Vec<u16> {
    let (welcome, _) = Welcome::parse(welcome).unwrap().unwrap();
    welcome.peers.iter().map(|peer| peer.port()).collect()
}

fn acts(team: &mut Team) -> Vec<Act> {
    std::mem::take(&mut team.acts)
}

fn lost(number: u64) -> [u8; 2] {
    chunk_number(number).to_be_bytes()
}

#[test]
fn an_empty_team_is_fine_and_numbers_go_on() {
    let mut team = dbs(Config::default());
    assert_eq!(team.chunk(at(0)), Turn { number: 0, to: None });
    join(&mut team, at(0), peer(1));
    assert_eq!(
        team.chunk(at(0)),
        Turn {
            number: 1,
            to: Some(peer(1))
        }
    );
    assert_eq!(
        team.chunk(at(0)),
        Turn {
            number: 2,
            to: Some(peer(1))
        }
    );
    assert_eq!(
        (team.stats().chunks_without_team, team.stats().chunks_sent),
        (1, 2)
    );
}

#[test]
fn newcomers_are_told_who_is_there_and_who_is_coming() {
    let mut team = team_of(Config::default(), 2);
    team.arrive(at(0), peer(3)).unwrap();
    team.arrive(at(0), peer(4)).unwrap();
    let third = team.hear(at(0), peer(3), b"P");
    assert_eq!((listed(&third.tell), third.step), (vec![1, 2], Step::Wait));
    assert_eq!(
        listed(&team.hear(at(0), peer(4), b"M").tell),
        [1, 2, 3],
        "or 3 and 4 would never meet"
    );
    assert_eq!(
        team.peers(),
        [peer(1), peer(2)],
        "nobody is a member before it is ready"
    );
    assert_eq!(team.hear(at(0), peer(4), b"R").step, Step::Joined);
    assert_eq!(team.hear(at(0), peer(3), b"R").step, Step::Joined);
    assert_eq!(team.peers(), [peer(1), peer(2), peer(4), peer(3)]);
    assert_eq!(
        listed(&join(&mut team, at(0), peer(1))),
        [2, 4, 3],
        "not itself when it comes again"
    );
    assert_eq!((team.stats().joins, team.stats().rejoins), (5, 1));
}

#[test]
fn the_header_is_sent_only_where_it_is_configured() {
    for send_header in [false, true] {
        let mut team = dbs(Config {
            send_header,
            header_bytes: 4,
            ..Config::default()
        });
        let sizes = |tell: &[u8]| {
            let (welcome, n) = Welcome::parse(tell).unwrap().unwrap();
            (welcome.header_bytes, tell[n..].to_vec())
        };
        let before = sizes(&join(&mut team, at(0), peer(1)));
        assert_eq!(before, if send_header { (0, vec![]) } else { (4, vec![]) });
        team.set_header(b"abcdef".to_vec());
        let after = sizes(&join(&mut team, at(0), peer(2)));
        assert_eq!(
            after,
            if send_header {
                (4, b"abcd".to_vec())
            } else {
                (4, vec![])
            }
        );
    }
}

#[test]
fn newcomers_that_do_not_follow_the_protocol_are_let_go() {
    let mut team = dbs(Config::default());
    for (bytes, told) in [(&b"X"[..], false), (b"PX", true), (b"RP", false)] {
        team.arrive(at(0), peer(1)).unwrap();
        let heard = team.hear(at(0), peer(1), bytes);
        assert!(matches!(heard.step, Step::Refused(_)), "{bytes:?}: {heard:?}");
        assert_eq!(!heard.tell.is_empty(), told);
        assert_eq!(team.hear(at(0), peer(1), b"P").step, Step::Stranger);
    }
    assert_eq!(
        (team.arrivals(), team.peers().len(), team.stats().refused_protocol),
        (0, 0, 3)
    );
}

#[test]
fn each_step_of_an_arrival_has_its_time() {
    let mut team = dbs(Config::default());
    team.arrive(at(0), peer(1)).unwrap();
    team.arrive(at(0), peer(2)).unwrap();
    assert_eq!(team.deadline(), Some(at(5_000)));
    team.hear(at(4_999), peer(2), b"P");
    team.tick(at(5_000));
    assert_eq!(acts(&mut team), [Act::HangUp(peer(1))]);
    assert_eq!(team.deadline(), Some(at(19_999)));
    team.tick(at(19_998));
    assert_eq!(acts(&mut team), []);
    team.tick(at(19_999));
    assert_eq!(acts(&mut team), [Act::HangUp(peer(2))]);
    assert_eq!(team.hear(at(20_000), peer(2), b"R").step, Step::Stranger);
    assert_eq!((team.deadline(), team.stats().arrivals_lost), (None, 2));
}

#[test]
fn a_newcomer_that_hangs_up_leaves_its_place() {
    let mut team = team_of(small(), 1);
    team.arrive(at(0), peer(2)).unwrap();
    team.hung_up(peer(2));
    team.hung_up(peer(1));
    assert_eq!(
        (team.arrivals(), team.peers().len(), team.stats().arrivals_lost),
        (0, 1, 1)
    );
}

#[test]
fn the_team_and_its_arrivals_are_limited() {
    let mut team = team_of(small(), 2);
    team.arrive(at(0), peer(3)).unwrap();
    team.arrive(at(0), peer(4)).unwrap();
    assert_eq!(team.arrive(at(0), peer(5)), Err(Refusal::Full(4)));
    assert_eq!(
        team.arrive(at(0), peer(4)),
        Ok(()),
        "the same connection's endpoint again"
    );
    let mut team = team_of(small(), 1);
    team.arrive(at(0), peer(3)).unwrap();
    team.arrive(at(0), peer(4)).unwrap();
    assert_eq!(team.arrive(at(0), peer(5)), Err(Refusal::Arrivals(2)));
    let mut team = team_of(small(), 4);
    assert_eq!(team.arrive(at(0), peer(5)), Err(Refusal::Full(4)));
    assert_eq!(
        team.arrive(at(0), peer(1)),
        Ok(()),
        "who comes again needs no more room"
    );
    assert_eq!((team.stats().refused_full, team.stats().refused_arrivals), (1, 0));
}

#[test]
fn a_goodbye_is_answered_a_round_later_and_again_when_repeated() {
    let mut team = team_of(Config::default(), 3);
    team.chunk(at(0));
    for _ in 0..5 {
        team.datagram(at(0), peer(1), b"G");
    }
    assert_eq!(acts(&mut team), [], "its last chunk is still on its way");
    assert!((0..2).all(|_| team.chunk(at(0)).to != Some(peer(1))));
    assert_eq!(acts(&mut team), []);
    team.chunk(at(0));
    assert_eq!(acts(&mut team), [Act::Goodbye(peer(1))]);
    team.datagram(at(0), peer(1), b"G");
    assert_eq!(
        acts(&mut team),
        [Act::Goodbye(peer(1))],
        "the answer may have been lost"
    );
    team.datagram(at(0), peer(9), b"G");
    assert_eq!(acts(&mut team), [], "never a member");
    assert_eq!((team.stats().goodbyes, team.stats().goodbyes_late), (1, 2));
}

#[test]
fn a_goodbye_is_answered_when_the_source_stands_still_and_when_the_team_ends() {
    let mut team = team_of(Config::default(), 2);
    team.datagram(at(0), peer(1), b"G");
    assert_eq!(team.deadline(), Some(at(1_000)));
    team.tick(at(1_000));
    assert_eq!(acts(&mut team), [Act::Goodbye(peer(1))]);
    team.datagram(at(1_000), peer(2), b"G");
    assert_eq!(
        acts(&mut team),
        [Act::Goodbye(peer(2))],
        "nobody is left to wait for"
    );
    let mut team = team_of(Config::default(), 2);
    team.datagram(at(0), peer(1), b"G");
    team.close(at(0));
    assert_eq!(acts(&mut team), [Act::Goodbye(peer(1))]);
}

#[test]
fn who_comes_back_while_leaving_stays() {
    let mut team = team_of(Config::default(), 2);
    team.datagram(at(0), peer(1), b"G");
    join(&mut team, at(0), peer(1));
    team.tick(at(60_000));
    assert_eq!((acts(&mut team), team.peers().len()), (vec![], 2));
}

#[test]
fn repeated_goodbyes_never_pile_up() {
    let mut team = team_of(Config::default(), 1);
    for _ in 0..5_000 {
        team.rules.handle(at(0), Input::Datagram(peer(1), b"G"));
    }
    let sent =
        std::iter::from_fn(|| team.rules.poll()).filter(|action| matches!(action, Action::Send { .. }));
    assert_eq!(
        sent.count(),
        ACTIONS_MAX - 1,
        "the first goodbye is a line in the log, too"
    );
    assert_eq!(team.stats().farewells_dropped, 5_001 - ACTIONS_MAX as u64);
}

#[test]
fn losses_over_the_limit_expel() {
    let mut team = team_of(small(), 2);
    for _ in 0..8 {
        team.chunk(at(0));
    }
    for number in [0, 2, 4] {
        team.datagram(at(0), peer(2), &lost(number));
    }
    assert_eq!(acts(&mut team), []);
    team.datagram(at(0), peer(2), &lost(6));
    assert_eq!(
        acts(&mut team),
        [Act::Expelled(peer(1), Why::Losses { limit: 3 })]
    );
    assert_eq!((team.peers(), team.stats().losses), (&[peer(2)][..], 4));
    team.datagram(at(0), peer(1), b"G");
    assert_eq!(
        acts(&mut team),
        [Act::Goodbye(peer(1))],
        "the expelled may go too"
    );
}

#[test]
fn only_monitors_blame_and_only_from_where_they_are_believed() {
    let blame = |greeting: &[u8; 2], hosts: Vec<Ipv4Addr>| {
        let mut team = dbs(Config {
            monitor_hosts: hosts,
            ..small()
        });
        join(&mut team, at(0), peer(1));
        team.arrive(at(0), peer(2)).unwrap();
        team.hear(at(0), peer(2), greeting);
        for _ in 0..8 {
            team.chunk(at(0));
        }
        (0..8).for_each(|number| team.datagram(at(0), peer(2), &lost(number)));
        (team.stats().losses > 0, team.stats().complaints_unweighed)
    };
    assert_eq!(blame(b"MR", vec![Ipv4Addr::LOCALHOST]), (true, 0));
    assert_eq!(blame(b"PR", vec![Ipv4Addr::LOCALHOST]), (false, 4));
    assert_eq!(blame(b"MR", vec![]), (false, 4), "a word is no proof");
}

#[test]
fn losses_are_halved_each_second() {
    let mut team = team_of(small(), 2);
    for _ in 0..8 {
        team.chunk(at(0));
    }
    for number in [0, 2, 4] {
        team.datagram(at(999), peer(2), &lost(number));
    }
    assert_eq!(team.deadline(), Some(at(1_000)));
    team.tick(at(1_000));
    team.datagram(at(1_999), peer(2), &lost(6));
    assert_eq!(
        (acts(&mut team), team.peers().len()),
        (vec![], 2),
        "3 / 2 + 1 is not over 3"
    );
    team.tick(at(3_000));
    assert_eq!(team.deadline(), None);
}

#[test]
fn who_loses_everything_is_expelled_even_where_it_gets_little() {
    let mut team = team_of(Config::default(), 3);
    let mut blamed = 0;
    for number in 0..400u64 {
        if team.chunk(at(number * 10)).to == Some(peer(1)) {
            team.datagram(at(number * 10), peer(2), &lost(number));
            blamed += 1;
        }
    }
    assert_eq!(blamed, 8, "and before that its period grew");
    assert_eq!(
        acts(&mut team),
        [Act::Expelled(peer(1), Why::InARow { limit: 8 })]
    );
}

#[test]
fn who_loses_a_part_gets_less_and_stays() {
    let share = |acs: bool, lossy: bool| {
        let mut team = team_of(
            Config {
                acs,
                ..Config::default()
            },
            4,
        );
        let (mut given, mut dice) = (0, crate::dice::Dice::new(1));
        for number in 0..6000u64 {
            let now = at(number * 5);
            if team.chunk(now).to == Some(peer(1)) {
                given += 1;
                if lossy && dice.below(10) < 2 {
                    team.datagram(now, peer(2), &lost(number));
                }
            }
            team.tick(now);
        }
        assert_eq!((acts(&mut team), team.peers().len()), (vec![], 4));
        given
    };
    assert_eq!((share(true, false), share(false, true)), (1500, 1500));
    let adapted = share(true, true);
    assert!((100..600).contains(&adapted), "{adapted}");
}

#[test]
fn what_anybody_lacks_is_sent_again_within_a_budget() {
    let mut team = team_of(
        Config {
            resend_percent: 50,
            ..Config::default()
        },
        1,
    );
    for port in [2, 3] {
        team.arrive(at(0), peer(port)).unwrap();
        team.hear(at(0), peer(port), b"PR");
    }
    for _ in 0..100 {
        team.chunk(at(0));
    }
    let again = |team: &mut Team, who, number| {
        let actions = team.event(at(0), Input::Datagram(peer(who), &lost(number)));
        let sent = actions.into_iter().filter_map(|action| match action {
            Action::Chunk { to, number, .. } => Some((to.port(), number)),
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    assert_eq!(again(&mut team, 2, 96), [(2, 96)], "no monitor, but it lacks it");
    assert_eq!(again(&mut team, 1, 96), [], "the other will relay it");
    assert_eq!(again(&mut team, 1, 97), [(1, 97)], "its own, which never came");
    assert_eq!(again(&mut team, 9, 98), [], "a stranger");
    assert_eq!(again(&mut team, 2, 100), [], "not sent yet");
    for number in 0..90 {
        again(&mut team, 3, number);
    }
    let stats = *team.stats();
    // A tenth of a buffer at half the stream, and no more.
    assert_eq!((stats.resent, stats.resends_enough), (12, 1));
    assert_eq!(stats.resends_over_budget, 80);
    for _ in 0..10 {
        team.chunk(at(0));
    }
    assert_eq!(again(&mut team, 2, 101), [(2, 101)]);
    assert_eq!(team.stats().losses, 1, "only the monitor's complaint blames");
}

#[test]
fn complaints_that_do_not_count_are_counted_apart() {
    let mut team = team_of(small(), 3);
    for _ in 0..6 {
        team.chunk(at(0));
    }
    team.datagram(at(0), peer(9), &lost(0));
    team.datagram(at(0), peer(2), &lost(1));
    team.datagram(at(0), peer(2), &lost(6));
    team.datagram(at(0), peer(2), &lost(0));
    team.datagram(at(0), peer(2), &lost(0));
    join(&mut team, at(0), peer(3));
    team.datagram(at(0), peer(2), &lost(2));
    team.datagram(at(0), peer(2), b"H");
    team.datagram(at(0), peer(2), &[0; 1026]);
    let stats = *team.stats();
    assert_eq!(
        (
            stats.complaints_foreign,
            stats.complaints_own,
            stats.complaints_unsent
        ),
        (1, 1, 1)
    );
    assert_eq!(
        (stats.complaints_repeated, stats.complaints_late, stats.losses),
        (1, 1, 1)
    );
    assert_eq!((stats.datagrams_unknown, team.peers().len()), (2, 3));
}

#[test]
fn a_closed_port_is_believed_the_second_time() {
    let mut team = team_of(Config::default(), 2);
    team.closed(peer(9));
    team.closed(peer(1));
    assert_eq!(team.peers().len(), 2);
    team.closed(peer(1));
    assert_eq!(
        acts(&mut team),
        [Act::Expelled(peer(1), Why::Closed { reports: 2 })]
    );
    assert_eq!(team.chunk(at(0)).to, Some(peer(2)));
    assert_eq!(team.stats().expelled_closed, 1);
}

#[test]
fn sources_that_cannot_be_asked_for_are_refused() {
    for bad in ["a b", "a\r\nHost: x", "\0", &"x".repeat(65_536)] {
        assert!(Source::new(peer(1), bad).is_err());
    }
    let mut team = dbs(Config::default());
    team.set_source(Source::new(peer(1), &"x".repeat(65_535)).unwrap());
    let told = join(&mut team, at(0), peer(2));
    assert_eq!(Welcome::parse(&told).unwrap().unwrap().0.channel.len(), 65_535);
}

#[derive(Clone, Debug)]
enum Event {
    Arrive(u16),
    Hear(u16, Vec<u8>),
    HungUp(u16),
    Datagram(u16, Vec<u8>),
    Closed(u16),
    Chunk,
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let who = 0u16..9;
    let said = prop::sample::select(vec![&b"P"[..], b"M", b"R", b"PR", b"PR", b"x"]);
    let datagram = prop_oneof![
        Just(b"G".to_vec()),
        (0u8..12).prop_map(|n| vec![0, n]),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    let event = prop_oneof![
        2 => who.clone().prop_map(Event::Arrive),
        4 => (who.clone(), said).prop_map(|(who, said)| Event::Hear(who, said.to_vec())),
        1 => who.clone().prop_map(Event::HungUp),
        3 => (who.clone(), datagram).prop_map(|(who, bytes)| Event::Datagram(who, bytes)),
        1 => who.prop_map(Event::Closed),
        6 => Just(Event::Chunk),
        1 => (0u64..7_000).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 0..120)
}

proptest! {
    /// Whatever happens: limits hold, numbers count up, chunks go to members, and each departure is in a counter.
    #[test]
    fn any_history_keeps_the_promises(events in events()) {
        let (mut team, mut ms, mut chunks, mut expelled) = (dbs(small()), 0, 0, 0);
        for event in events {
            match event {
                Event::Arrive(who) => drop(team.arrive(at(ms), peer(who))),
                Event::Hear(who, bytes) => drop(team.hear(at(ms), peer(who), &bytes)),
                Event::HungUp(who) => team.hung_up(peer(who)),
                Event::Datagram(who, bytes) => team.datagram(at(ms), peer(who), &bytes),
                Event::Closed(who) => team.closed(peer(who)),
                Event::Wait(more) => ms += more,
                Event::Chunk => {
                    let members = team.peers().to_vec();
                    let turn = team.chunk(at(ms));
                    prop_assert_eq!(turn.number, chunks);
                    prop_assert_eq!(turn.to.is_none(), members.is_empty());
                    prop_assert!(turn.to.is_none_or(|peer| members.contains(&peer)));
                    chunks += 1;
                }
            }
            team.tick(at(ms));
            expelled += acts(&mut team).iter().filter(|act| matches!(act, Act::Expelled(..))).count() as u64;
            let stats = *team.stats();
            prop_assert!(team.peers().len() + team.arrivals() <= 4 + 1, "one may be both, coming again");
            prop_assert!(team.peers().len() <= 4 && team.arrivals() <= 2);
            prop_assert_eq!(stats.chunks, stats.chunks_sent + stats.chunks_without_team);
            prop_assert_eq!(stats.expelled_losses + stats.expelled_closed, expelled);
            let here = stats.joins - stats.rejoins - stats.goodbyes - expelled;
            prop_assert_eq!(team.peers().len() as u64, here);
            prop_assert!(team.deadline().is_none_or(|deadline| deadline > at(ms)));
        }
    }
}
