//! A secured team's splitter, rule by rule.

use super::*;
use crate::rules::Input;
use proptest::prelude::*;
use relay_merkle::{ChannelId, Form, LiveTree, NtpTime, Signer};
use std::net::Ipv4Addr;

const TICKET: [u8; 16] = [5; 16];

fn here(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn at(ms: u64) -> Now {
    Now::new(ms * 1_000_000, 1_786_000_000_000_000 + ms * 1000)
}

fn context() -> Context {
    Context {
        channel: ChannelId::of_mount("/x"),
        epoch: 3,
    }
}

fn tree() -> TreeConfig {
    TreeConfig {
        chunks_per_munro: 4,
        ..TreeConfig::default()
    }
}

struct Team {
    rules: Secured,
    tree: LiveTree,
    signer: Signer,
    leaves: Vec<Digest>,
    next: u64,
}

fn config() -> SecuredConfig {
    let team = Config {
        chunk_bytes: 1,
        buffer_chunks: 32,
        max_peers: 32,
        ..Config::default()
    };
    let key = Signer::from_bytes(&[7; 32]).unwrap().public_key().clone();
    let mut config = SecuredConfig::new(team, key, context(), tree(), [1; 32]);
    config.tickets = vec![TICKET];
    config
}

fn leaf(number: u64) -> Digest {
    tree().kind.leaf(&number.to_be_bytes())
}

impl Team {
    /// The first `monitors` of `n` members are monitors; each is at its serial's port.
    fn of(n: u16, monitors: u16) -> Self {
        let mut team = Self {
            rules: Secured::new(config(), 0, at(0)).unwrap(),
            tree: LiveTree::new(tree()).unwrap(),
            signer: Signer::from_bytes(&[7; 32]).unwrap(),
            leaves: Vec::new(),
            next: 0,
        };
        (1..=n).for_each(|port| team.join(port, port <= monitors));
        team
    }

    fn event(&mut self, now: Now, input: SecuredInput<'_>) -> Vec<Action> {
        self.rules.handle(now, input);
        std::iter::from_fn(|| self.rules.poll()).collect()
    }

    fn join(&mut self, port: u16, monitor: bool) {
        let ticket = monitor.then_some(TICKET);
        let door = here(port + 1000);
        self.event(at(0), SecuredInput::Team(Input::Connected(door)));
        let request = Request { ticket }.encode();
        let told = self.event(at(0), SecuredInput::Team(Input::Said(door, &request)));
        let [Action::Tell { bytes, .. }] = &told[..] else {
            panic!("{told:?}")
        };
        let serial = Welcome::parse(bytes).unwrap().unwrap().0.serial;
        assert_eq!(serial, u64::from(port));
        let nonce = self.rules.nonce(serial, here(port));
        let said = self.says(0, port, serial, Say::Hello);
        assert_eq!(said, [(here(port), Said::Challenge(nonce))]);
        assert_eq!(self.says(0, port, serial, Say::Echo(nonce ^ 1)), []);
        let joined = self.hears(0, here(port), serial, Say::Echo(nonce));
        assert!(joined.contains(&Action::Note(here(port), Note::Joined)));
    }

    fn hears(&mut self, ms: u64, from: SocketAddrV4, serial: u64, say: Say<'_>) -> Vec<Action> {
        let token = self.rules.secret.token(Use::Pass, serial, 0);
        let bytes = Datagram { token, say }.encode();
        self.event(at(ms), SecuredInput::Team(Input::Datagram(from, &bytes)))
    }

    /// What the member with this serial says from this port, and what is said then.
    fn says(&mut self, ms: u64, port: u16, serial: u64, say: Say<'_>) -> Vec<(SocketAddrV4, Said)> {
        said(&self.hears(ms, here(port), serial, say))
    }

    fn tick(&mut self, ms: u64) -> Vec<Action> {
        self.event(at(ms), SecuredInput::Team(Input::Tick))
    }

    /// To whom the next chunk goes.
    fn chunk(&mut self, ms: u64) -> Option<u16> {
        let number = self.next;
        self.next += 1;
        let sent = self.event(at(ms), SecuredInput::Chunk(number, leaf(number)));
        self.leaves.push(leaf(number));
        if let Some(node) = self.tree.append(leaf(number)).unwrap() {
            let time = NtpTime::from_unix_us(at(ms).wall_us());
            let (bin, hash) = (node.bin, node.hash);
            let munro = Munro { bin, hash, time };
            let signed = self.signer.sign_munro(&Form::Bound(context()), munro).unwrap();
            let leaves = std::mem::take(&mut self.leaves);
            let told = self.event(at(ms), SecuredInput::Sealed(&signed, &leaves));
            assert_eq!(told.len(), MUNRO_COPIES.min(self.rules.members.len()));
        }
        sent.iter().find_map(|action| match action {
            Action::Chunk { to, .. } => Some(to.port()),
            _ => None,
        })
    }

    fn chunks(&mut self, n: u32) {
        for _ in 0..n {
            self.chunk(0);
        }
    }

    fn accuses(&mut self, by: u16, accused: u64, number: u64, tag: Tag, digest: Digest) {
        self.accuses_at(0, by, accused, number, tag, digest);
    }

    fn accuses_at(&mut self, ms: u64, by: u16, accused: u64, number: u64, tag: Tag, digest: Digest) {
        let (serial, digest) = (accused, digest.as_bytes());
        let say = Say::Accusation {
            serial,
            number,
            tag,
            digest,
        };
        self.says(ms, by, by.into(), say);
    }

    fn here(&self) -> Vec<u16> {
        self.rules.peers().map(|peer| peer.port()).collect()
    }
}

/// What the splitter said, in short.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Challenge(u64),
    Probe(u64),
    Punch(SocketAddrV4),
    Index,
    Repair(u64),
    Chunk(u64),
    Stranger,
    Other,
}

fn said(actions: &[Action]) -> Vec<(SocketAddrV4, Said)> {
    let said = actions.iter().filter_map(|action| match action {
        Action::Send { to, bytes } => Some((
            *to,
            match Datagram::parse(bytes).unwrap().say {
                Say::Challenge(nonce) => Said::Challenge(nonce),
                Say::Probe(number) => Said::Probe(number),
                Say::Punch(at) => Said::Punch(at),
                Say::Index { .. } => Said::Index,
                Say::Stranger => Said::Stranger,
                _ => Said::Other,
            },
        )),
        Action::Chunk { to, number, frame } if frame.head()[1] == 49 => Some((*to, Said::Repair(*number))),
        Action::Chunk { to, number, .. } => Some((*to, Said::Chunk(*number))),
        _ => None,
    });
    said.collect()
}

#[test]
fn chunks_go_round_and_unacknowledged_ones_go_on() {
    let mut team = Team::of(3, 0);
    let given: Vec<_> = (0..4).filter_map(|_| team.chunk(0)).collect();
    assert_eq!(given, [1, 2, 3, 1]);
    for (port, number) in [(1, 0), (2, 1), (1, 3)] {
        team.says(1, port, port.into(), Say::Got(number));
    }
    assert_eq!(team.tick(249), []);
    assert_eq!(said(&team.tick(250)), [(here(3), Said::Probe(2))]);
    assert_eq!(
        said(&team.tick(500)),
        [(here(2), Said::Chunk(2))],
        "another one is to relay it"
    );
    team.says(501, 2, 2, Say::Got(2));
    assert_eq!(said(&team.tick(2_000)), []);
    assert_eq!((team.rules.stats().probes, team.rules.stats().regiven), (1, 1));
}

#[test]
fn who_says_nothing_is_out_and_who_says_anything_is_not() {
    let mut team = Team::of(2, 0);
    team.says(2_000, 2, 2, Say::Alive(1));
    team.tick(2_499);
    assert_eq!(team.here(), [1, 2]);
    team.tick(2_500);
    assert_eq!(team.here(), [2]);
    let answer = team.says(2_501, 1, 1, Say::Alive(1));
    assert_eq!(answer, [(here(1), Said::Stranger)], "so that it joins again");
    assert_eq!(team.rules.stats().expelled_silence, 1);
}

#[test]
fn strangers_are_answered_shortly_and_seldom() {
    let mut team = Team::of(1, 0);
    let answers: usize = (0..1000).map(|_| team.says(0, 9, 77, Say::Alive(1)).len()).sum();
    assert_eq!((answers, team.rules.stats().strangers), (10, 1000));
}

#[test]
fn a_tag_on_a_wrong_digest_is_proof_and_nothing_else_is() {
    let mut team = Team::of(4, 1);
    team.chunks(4);
    let tag = |serial, number, digest: &Digest| {
        Secret::new(&Secret::new(&[1; 32]).member(serial)).tag(3, number, digest)
    };
    let (right, wrong) = (leaf(2), leaf(99));
    team.accuses(2, 3, 2, tag(3, 2, &right), right);
    team.accuses(2, 3, 2, tag(3, 2, &right), wrong);
    team.accuses(2, 3, 2, tag(2, 2, &wrong), wrong);
    team.accuses(2, 3, 1, tag(3, 2, &wrong), wrong);
    team.accuses(2, 3, 400, tag(3, 400, &wrong), wrong);
    assert_eq!(
        (team.here().len(), team.rules.stats().accusations_unproven),
        (4, 5)
    );
    team.accuses_at(1_000, 2, 3, 2, tag(3, 2, &wrong), wrong);
    assert_eq!(
        (team.here(), team.rules.stats().expelled_pollution),
        (vec![1, 2, 4], 1)
    );
    team.accuses(1, 4, 2, [0; 16], wrong);
    assert_eq!(team.here(), [1, 2], "a monitor is trusted");
}

#[test]
fn a_crowd_of_liars_expels_nobody() {
    let mut team = Team::of(6, 0);
    team.chunks(4);
    for by in [1, 2, 3, 4] {
        (0..50).for_each(|_| team.accuses(by, 6, 2, [0; 16], leaf(99)));
    }
    assert_eq!(team.here().len(), 6);
    assert!(
        team.rules.stats().accusations_refused > 0,
        "nobody accuses without end"
    );
    let given: Vec<_> = (0..6).filter_map(|_| team.chunk(0)).collect();
    assert!(
        !given.contains(&6),
        "it relays nothing, and hears all the same: {given:?}"
    );
    for accused in 1..=5 {
        for by in (1..=6).filter(|&by| u64::from(by) != accused) {
            team.accuses_at(1_000, by, accused, 2, [0; 16], leaf(99));
        }
    }
    let given: Vec<_> = (0..6).filter_map(|_| team.chunk(1_000)).collect();
    assert_eq!(given.len(), 6, "when all are accused, nobody is");
}

#[test]
fn who_speaks_from_elsewhere_must_show_that_it_is_there() {
    let mut team = Team::of(2, 0);
    let nonce = team.rules.nonce(1, here(50));
    assert_eq!(
        team.says(0, 50, 1, Say::Goodbye),
        [(here(50), Said::Challenge(nonce))]
    );
    assert_eq!(team.here(), [1, 2], "a goodbye from there is not heard");
    let asked: usize = (0..100).map(|_| team.says(0, 50, 1, Say::Alive(1)).len()).sum();
    assert_eq!(asked, 4, "nobody is sent more than a few challenges");
    team.says(0, 50, 1, Say::Echo(nonce));
    assert_eq!((team.here(), team.rules.stats().moves), (vec![50, 2], 1));
    team.says(0, 50, 1, Say::Goodbye);
    assert_eq!(team.here(), [2]);
}

#[test]
fn a_mate_that_cannot_be_reached_is_told_to_open_its_nat() {
    let mut team = Team::of(2, 0);
    assert_eq!(
        team.says(0, 1, 1, Say::Knock(2)),
        [(here(2), Said::Punch(here(1)))]
    );
    assert_eq!(team.says(0, 1, 1, Say::Knock(9)), []);
    let knocks: usize = (0..100).map(|_| team.says(0, 1, 1, Say::Knock(2)).len()).sum();
    assert_eq!(knocks, 3, "and not flooded");
    assert_eq!(team.rules.stats().knocks_vain, 98);
}

#[test]
fn what_no_mate_has_is_sent_again_to_the_first_and_given_again_for_the_second() {
    let mut team = Team::of(4, 0);
    team.chunks(8);
    for (number, port) in (0..8).zip([1, 2, 3, 4].into_iter().cycle()) {
        team.says(0, port, port.into(), Say::Got(number));
    }
    assert_eq!(team.says(499, 2, 2, Say::Want(0)), [], "it is on its way");
    assert_eq!(team.says(500, 2, 2, Say::Want(0)), [(here(2), Said::Repair(0))]);
    assert_eq!(team.says(500, 3, 3, Say::Want(0)), [(here(1), Said::Chunk(0))]);
    assert_eq!(team.says(501, 4, 4, Say::Want(0)), [], "it is on its way again");
    assert_eq!(team.says(600, 4, 4, Say::Want(8)), [], "there is none yet");
    let wants: usize = (0..100)
        .map(|n| team.says(700, 4, 4, Say::Want(n % 8)).len())
        .sum();
    assert!(wants <= 5, "one member does not get everything: {wants}");
    assert!(team.rules.stats().wants_refused > 90);
}

#[test]
fn an_index_is_told_once_in_a_while() {
    let mut team = Team::of(3, 0);
    team.chunks(8);
    assert_eq!(team.says(0, 1, 1, Say::AskIndex(3)), [(here(1), Said::Index)]);
    assert_eq!(team.says(0, 2, 2, Say::AskIndex(0)), [], "its mate passes it on");
    assert_eq!(team.says(0, 2, 2, Say::AskIndex(4)), [(here(2), Said::Index)]);
    assert_eq!(team.says(0, 2, 2, Say::AskIndex(9)), [], "not signed yet");
    assert_eq!(team.says(150, 2, 2, Say::AskIndex(0)), [(here(2), Said::Index)]);
}

#[test]
fn a_complaint_counts_only_about_what_was_sent() {
    let mut team = Team::of(3, 1);
    team.chunks(12);
    for number in [1, 1, 0, 65_536 + 1, 12, u64::MAX] {
        team.says(0, 1, 1, Say::Missed(number));
    }
    team.says(0, 3, 3, Say::Missed(4));
    let stats = *team.rules.stats();
    assert_eq!(
        (stats.losses, stats.complaints_repeated, stats.complaints_own),
        (1, 1, 1)
    );
    assert_eq!((stats.complaints_unsent, stats.complaints_unweighed), (3, 1));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut SecuredConfig)| {
        let mut config = config();
        change(&mut config);
        Secured::new(config, 0, at(0)).is_err()
    };
    assert!(!refused(|_| {}));
    assert!(refused(|config| config.team.chunk_bytes = 1339));
    assert!(refused(|config| config.tree.chunks_per_munro = 64));
    assert!(refused(|config| config.tree.chunks_per_munro = 3));
    assert!(refused(|config| config.team.max_peers = 0));
}

proptest! {
    /// Whatever members and strangers say: no panic, bounded answers, and only those leave who said so themselves.
    #[test]
    fn any_words_keep_the_promises(
        words in prop::collection::vec(
            (0u64..6, 0u16..6, 0u8..60, prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..150),
    ) {
        let (mut team, mut goodbyes) = (Team::of(3, 0), 0);
        for (ms, (serial, port, kind, body, small)) in (0..).zip(words) {
            let mut bytes = vec![1, kind];
            bytes.extend(team.rules.secret.token(Use::Pass, serial, 0).0.to_be_bytes());
            match small {
                true => bytes.extend((u64::from(kind) % 9).to_be_bytes()),
                false => bytes.extend(body),
            }
            let before = team.here().len();
            let acted = team.event(at(ms), SecuredInput::Team(Input::Datagram(here(port), &bytes)));
            prop_assert!(acted.len() <= 3);
            let sent: usize = said(&acted).len();
            prop_assert!(sent <= 1);
            goodbyes += before - team.here().len();
            prop_assert_eq!(team.rules.stats().goodbyes, goodbyes as u64);
            if ms % 3 == 0 {
                team.chunk(ms);
            }
        }
    }

    #[test]
    fn any_bytes_at_the_door_are_refused_or_waited_for(said in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut team = Team::of(0, 0);
        team.event(at(0), SecuredInput::Team(Input::Connected(here(1))));
        for byte in said {
            team.event(at(0), SecuredInput::Team(Input::Said(here(1), &[byte])));
        }
        prop_assert!(team.rules.arrivals() <= 1 && team.here().is_empty());
    }
}
