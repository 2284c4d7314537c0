//! Which upstream to ask, when to ask again, and when to go back to a better one.
//!
//! Upstreams are listed in order of preference. While nothing is heard, the first that may be tried is tried,
//! and the next beside it when it does not answer soon. While a less preferred one is in use, the better ones are
//! probed now and then; the link in use is let go only when the better one is up, so a change leaves no gap.
//!
//! An upstream that fails waits 250 ms, 500 ms, 1 s … up to 10 s, each wait drawn from its upper half, so that a
//! thousand repeaters do not come back in the same moment. One that would make a loop is put aside for a minute.

use std::time::Duration;

use relay_seam::Now;

use crate::config::UpstreamsConfig;
use crate::dice::Dice;
use crate::stats::UpstreamsStats;

/// One node that the channel can come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// A name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path to pull in place of the channel's own mount, if another.
    pub path: Option<String>,
    /// How it is asked.
    pub kind: Kind,
}

/// How an upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By a link: exact resume.
    Link,
    /// By a plain HTTP GET, as from Icecast: numbering starts here.
    Plain,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection to this upstream, and tell what became of it.
    Connect {
        /// Its place in the list.
        index: usize,
    },
    /// Nothing.
    Wait {
        /// Until then, or until something is told; `None`: until something is told.
        until: Option<Now>,
    },
}

/// What to do with a link that has come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected {
    /// Use it.
    Use {
        /// The upstream used until now: let its link go once the new one has reached its position.
        release: Option<usize>,
    },
    /// Let it go: a better one is in use.
    Surplus,
}

/// Why an attempt failed or a link was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Network,
    /// The upstream answered, but not with the channel.
    Refused,
    /// It receives from this node.
    Loop,
    /// It does not keep the protocol.
    Protocol,
    /// Nothing was heard for too long.
    Silent,
    /// It trails what we have by too much.
    Behind,
    /// It ended the link in good order.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Trying,
    Up { since: Now },
}

#[derive(Debug)]
struct Entry {
    upstream: Upstream,
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Not before then, whatever happens.
    retry_at: Option<Now>,
    /// While a less preferred one is in use, not before then either.
    probe_at: Option<Now>,
}

/// The ordered list, and what is known of each.
#[derive(Debug)]
pub struct Upstreams {
    config: UpstreamsConfig,
    entries: Vec<Entry>,
    /// The one in use.
    current: Option<usize>,
    last_attempt: Option<Now>,
    dice: Dice,
    stats: UpstreamsStats,
}

impl Upstreams {
    /// The list, best first. `seed` spreads the waits: it should differ from node to node.
    pub fn new(list: Vec<Upstream>, config: UpstreamsConfig, seed: u64) -> Self {
        let idle = |upstream| Entry {
            upstream,
            state: State::Idle,
            failures: 0,
            retry_at: None,
            probe_at: None,
        };
        Self {
            config,
            entries: list.into_iter().map(idle).collect(),
            current: None,
            last_attempt: None,
            dice: Dice::new(seed),
            stats: UpstreamsStats::default(),
        }
    }

    /// The upstream at a place in the list.
    pub fn get(&self, index: usize) -> Option<&Upstream> {
        self.entries.get(index).map(|entry| &entry.upstream)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The one in use.
    pub fn current(&self) -> Option<usize> {
        self.current
    }

    /// What has been counted.
    pub fn stats(&self) -> UpstreamsStats {
        self.stats
    }

    /// What to do now. Each [`Action::Connect`] is one attempt, to be answered by [`Upstreams::on_connected`] or
    /// [`Upstreams::on_failed`]; ask again until it says wait, and after everything told.
    pub fn next_action(&mut self, now: Now) -> Action {
        let ready = self
            .waiting()
            .find(|(_, when)| when.is_none_or(|when| when <= now));
        match ready {
            Some((index, _)) => self.connect(index, now),
            None => Action::Wait {
                until: self.waiting().filter_map(|(_, when)| when).min(),
            },
        }
    }

    /// A link to this upstream is up: for a link its HELLO was accepted, for a plain pull its head.
    pub fn on_connected(&mut self, index: usize, now: Now) -> Connected {
        let Some(entry) = self.entries.get_mut(index) else {
            return Connected::Surplus;
        };
        if self.current.is_some_and(|current| current < index) {
            entry.state = State::Idle;
            self.stats.surplus += 1;
            return Connected::Surplus;
        }
        entry.state = State::Up { since: now };
        self.stats.connected += 1;
        let release = self.current.filter(|current| *current != index);
        self.current = Some(index);
        if let Some(old) = release {
            self.stats.switched += 1;
            self.settle(old, now);
        }
        self.plan_probes(index, now);
        Connected::Use { release }
    }

    /// An attempt has failed.
    pub fn on_failed(&mut self, index: usize, now: Now, failure: Failure) {
        if self
            .entries
            .get(index)
            .is_none_or(|entry| entry.state != State::Trying)
        {
            return;
        }
        self.stats.failed += 1;
        self.put_off(index, now, failure);
        if self.current.is_some() {
            let wait = self.probe_wait();
            self.entries[index].probe_at = Some(now + wait);
        }
    }

    /// The link in use is lost. What is told of a link that has been released already is ignored.
    pub fn on_lost(&mut self, index: usize, now: Now, failure: Failure) {
        if self.current != Some(index) {
            return;
        }
        self.stats.lost += 1;
        self.current = None;
        self.settle(index, now);
        self.put_off(index, now, failure);
    }

    /// The entries that may be of use, best first, and from when on each may be tried; `None` = has been for ever.
    fn waiting(&self) -> impl Iterator<Item = (usize, Option<Now>)> {
        let better = self.current.unwrap_or(self.entries.len());
        let entries = self.entries.iter().enumerate().take(better);
        let idle = entries.filter(|(_, entry)| entry.state == State::Idle);
        idle.map(|(index, entry)| (index, self.may_try(index, entry)))
    }

    fn may_try(&self, index: usize, entry: &Entry) -> Option<Now> {
        if self.current.is_some() {
            return entry.retry_at.max(entry.probe_at);
        }
        // A better one that is being tried gets a moment for itself.
        let better_tried = self.entries[..index]
            .iter()
            .any(|entry| entry.state == State::Trying);
        let hedge = self
            .last_attempt
            .filter(|_| better_tried)
            .map(|at| at + self.config.hedge_after);
        entry.retry_at.max(hedge)
    }

    fn connect(&mut self, index: usize, now: Now) -> Action {
        self.entries[index].state = State::Trying;
        self.last_attempt = Some(now);
        self.stats.attempts += 1;
        self.stats.probes += u64::from(self.current.is_some());
        Action::Connect { index }
    }

    /// A link is over. Only one that has lasted clears its upstream's failures: one that comes up and breaks at
    /// once, over and over, backs off like one that does not come up.
    fn settle(&mut self, index: usize, now: Now) {
        let entry = &mut self.entries[index];
        if let State::Up { since } = entry.state
            && now.since(since) >= self.config.stable_after
        {
            entry.failures = 0;
        }
        entry.state = State::Idle;
    }

    /// Back-off, or aside.
    fn put_off(&mut self, index: usize, now: Now, failure: Failure) {
        let failures = self.entries[index].failures.saturating_add(1);
        let wait = if failure == Failure::Loop {
            self.stats.loops += 1;
            self.config.loop_aside
        } else {
            self.backoff(failures)
        };
        let entry = &mut self.entries[index];
        entry.state = State::Idle;
        entry.failures = failures;
        entry.retry_at = Some(now + wait);
    }

    /// The wait after so many failures in a row: from the upper half of `min · 2ⁿ⁻¹`, at most `max`.
    fn backoff(&mut self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
        let full = self
            .config
            .backoff_min
            .saturating_mul(doubled)
            .min(self.config.backoff_max);
        self.upper_half(full)
    }

    fn probe_wait(&mut self) -> Duration {
        self.upper_half(self.config.probe_every)
    }

    fn upper_half(&mut self, full: Duration) -> Duration {
        let half = full / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        full - Duration::from_nanos(self.dice.below(span))
    }

    /// The better ones are probed from a while after the change on.
    fn plan_probes(&mut self, current: usize, now: Now) {
        for index in 0..current {
            let wait = self.probe_wait();
            self.entries[index].probe_at = Some(now + wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now::new(ms * 1_000_000, 0)
    }

    fn list(n: usize) -> Upstreams {
        list_with(n, 1)
    }

    fn list_with(n: usize, seed: u64) -> Upstreams {
        let upstream = |i| Upstream {
            host: format!("node{i}"),
            port: 8000,
            path: None,
            kind: Kind::Link,
        };
        Upstreams::new((0..n).map(upstream).collect(), UpstreamsConfig::default(), seed)
    }

    /// The moment of the next attempt, which is made.
    fn attempt(up: &mut Upstreams, mut now: Now) -> (usize, Now) {
        loop {
            match up.next_action(now) {
                Action::Connect { index } => return (index, now),
                Action::Wait { until: Some(until) } => {
                    assert!(until > now, "a wait lies ahead");
                    now = until;
                }
                Action::Wait { until: None } => panic!("waits for ever"),
            }
        }
    }

    fn connect(up: &mut Upstreams, index: usize, now: Now) -> Now {
        let (got, now) = attempt(up, now);
        assert_eq!(got, index);
        assert!(matches!(up.on_connected(index, now), Connected::Use { .. }));
        now
    }

    #[test]
    fn the_first_is_tried_first_and_at_once() {
        assert_eq!(attempt(&mut list(3), at(5)), (0, at(5)));
        assert_eq!(list(0).next_action(at(0)), Action::Wait { until: None });
    }

    #[test]
    fn a_lost_upstream_is_asked_again_within_a_quarter_second() {
        for seed in 0..200 {
            let mut up = list_with(1, seed);
            connect(&mut up, 0, at(0));
            up.on_lost(0, at(60_000), Failure::Network);
            let (_, when) = attempt(&mut up, at(60_000));
            let wait = when - at(60_000);
            assert!((125..=250).contains(&wait.as_millis()), "{wait:?}");
        }
    }

    #[test]
    fn waits_double_up_to_the_limit_and_are_spread() {
        let mut first_waits = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let (mut up, mut now) = (list_with(1, seed), at(0));
            let mut full = 250;
            attempt(&mut up, now);
            for failure in 0..12 {
                up.on_failed(0, now, Failure::Network);
                let (_, when) = attempt(&mut up, now);
                let wait = (when - now).as_millis() as u64;
                assert!(
                    (full / 2..=full).contains(&wait),
                    "failure {failure}: {wait} of {full}"
                );
                if failure == 0 {
                    first_waits.insert(wait);
                }
                full = (2 * full).min(10_000);
                now = when;
            }
        }
        assert!(first_waits.len() > 20, "spread over {} values", first_waits.len());
    }

    #[test]
    fn the_next_one_takes_over_at_once() {
        let mut up = list(2);
        connect(&mut up, 0, at(0));
        up.on_lost(0, at(20_000), Failure::Network);
        assert_eq!(attempt(&mut up, at(20_000)), (1, at(20_000)));
    }

    #[test]
    fn one_that_does_not_answer_is_hedged() {
        let mut up = list(3);
        assert_eq!(attempt(&mut up, at(0)), (0, at(0)));
        assert_eq!(attempt(&mut up, at(0)), (1, at(500)));
        assert_eq!(up.on_connected(1, at(600)), Connected::Use { release: None });
        // The slow one answers after all, and is better.
        assert_eq!(up.on_connected(0, at(900)), Connected::Use { release: Some(1) });
        assert_eq!(up.next_action(at(901)), Action::Wait { until: None });
        assert_eq!(up.stats().switched, 1);
    }

    #[test]
    fn a_worse_one_that_comes_late_is_surplus() {
        let mut up = list(2);
        attempt(&mut up, at(0));
        attempt(&mut up, at(0));
        assert_eq!(up.on_connected(0, at(700)), Connected::Use { release: None });
        assert_eq!(up.on_connected(1, at(800)), Connected::Surplus);
        assert_eq!(up.current(), Some(0));
    }

    #[test]
    fn better_ones_are_probed_and_taken_back_without_a_gap() {
        let mut up = list(3);
        for index in 0..2 {
            assert_eq!(attempt(&mut up, at(0)).0, index);
            up.on_failed(index, at(0), Failure::Network);
        }
        connect(&mut up, 2, at(0));
        let (index, when) = attempt(&mut up, at(0));
        assert!(
            (15_000..=30_000).contains(&(when - at(0)).as_millis()),
            "{when:?}"
        );
        up.on_failed(index, when, Failure::Refused);
        assert_eq!(up.current(), Some(2), "a failed probe changes nothing");
        let (other, when) = attempt(&mut up, when);
        assert_eq!(other, 1 - index, "each better one is probed in turn");
        assert_eq!(up.on_connected(other, when), Connected::Use { release: Some(2) });
        up.on_lost(2, when, Failure::Ended);
        assert_eq!(up.current(), Some(other), "the end of a released link is no loss");
    }

    #[test]
    fn of_several_that_may_be_tried_the_best_is() {
        let mut up = list(3);
        for index in [0, 1] {
            assert_eq!(attempt(&mut up, at(0)).0, index);
            up.on_failed(index, at(0), Failure::Network);
        }
        // Both back-offs are over, and the third has never been tried: age does not matter, order does.
        assert_eq!(attempt(&mut up, at(5000)), (0, at(5000)));
    }

    #[test]
    fn a_worse_one_being_tried_does_not_hold_up_a_better_one() {
        let mut up = list(2);
        connect(&mut up, 0, at(0));
        up.on_lost(0, at(20_000), Failure::Network);
        assert_eq!(attempt(&mut up, at(20_000)), (1, at(20_000)));
        let (index, when) = attempt(&mut up, at(20_000));
        assert!(index == 0 && when <= at(20_250), "{when:?}");
    }

    #[test]
    fn a_loss_does_not_wait_for_a_probe() {
        let mut up = list(2);
        attempt(&mut up, at(0));
        up.on_failed(0, at(0), Failure::Network);
        connect(&mut up, 1, at(0));
        up.on_lost(1, at(20_000), Failure::Network);
        // Its back-off is long over; only its probe time is not.
        assert_eq!(attempt(&mut up, at(20_000)), (0, at(20_000)));
    }

    #[test]
    fn a_loop_is_put_aside_for_a_minute() {
        let mut up = list(1);
        attempt(&mut up, at(0));
        up.on_failed(0, at(100), Failure::Loop);
        assert_eq!(attempt(&mut up, at(100)), (0, at(60_100)));
        assert_eq!(up.stats().loops, 1);
    }

    #[test]
    fn one_that_breaks_at_once_backs_off_and_one_that_lasted_does_not() {
        let (mut up, mut now) = (list(1), at(0));
        for _ in 0..6 {
            now = connect(&mut up, 0, now);
            up.on_lost(0, now, Failure::Network);
        }
        let (_, when) = attempt(&mut up, now);
        assert!((when - now).as_millis() >= 4000, "{:?}", when - now);
        up.on_connected(0, when);
        let lost = when + Duration::from_secs(10);
        up.on_lost(0, lost, Failure::Network);
        assert!((attempt(&mut up, lost).1 - lost).as_millis() <= 250);
    }

    #[test]
    fn what_names_nobody_is_ignored() {
        let mut up = list(1);
        up.on_failed(0, at(0), Failure::Network);
        up.on_failed(9, at(0), Failure::Network);
        up.on_lost(0, at(0), Failure::Network);
        assert_eq!(up.on_connected(9, at(0)), Connected::Surplus);
        assert_eq!((up.stats(), up.current()), (UpstreamsStats::default(), None));
    }

    /// Nodes go up and down at random; attempts take random times. One connection per node at most, a node that
    /// is up is found soon, and in the end the first is in use.
    #[test]
    fn in_a_random_world_the_best_one_is_found() {
        for seed in 0..60 {
            let mut world = World::new(seed);
            for _ in 0..3000 {
                world.step(true);
            }
            world.healthy = vec![true; world.healthy.len()];
            for _ in 0..3000 {
                world.step(false);
            }
            assert_eq!(world.up.current(), Some(0), "seed {seed}");
        }
    }

    struct World {
        up: Upstreams,
        dice: Dice,
        now_ms: u64,
        healthy: Vec<bool>,
        /// When each attempt in flight is answered.
        pending: Vec<Option<u64>>,
        dark_ms: u64,
    }

    impl World {
        const STEP_MS: u64 = 50;

        fn new(seed: u64) -> Self {
            let n = 1 + (seed % 4) as usize;
            let (up, dice) = (list_with(n, seed), Dice::new(seed ^ 77));
            Self {
                up,
                dice,
                now_ms: 0,
                healthy: vec![false; n],
                pending: vec![None; n],
                dark_ms: 0,
            }
        }

        fn step(&mut self, weather: bool) {
            self.now_ms += Self::STEP_MS;
            if weather && self.dice.below(40) == 0 {
                let i = self.dice.below(self.healthy.len() as u64) as usize;
                self.healthy[i] = !self.healthy[i];
            }
            self.answer();
            let now = at(self.now_ms);
            if let Some(current) = self.up.current().filter(|current| !self.healthy[*current]) {
                self.up.on_lost(current, now, Failure::Network);
            }
            while let Action::Connect { index } = self.up.next_action(now) {
                assert_eq!(self.pending[index], None, "one attempt at a time");
                assert_ne!(self.up.current(), Some(index));
                self.pending[index] = Some(self.now_ms + self.dice.below(2000));
            }
            self.check();
        }

        fn answer(&mut self) {
            let now = at(self.now_ms);
            for index in 0..self.pending.len() {
                if self.pending[index].is_some_and(|due| due <= self.now_ms) {
                    self.pending[index] = None;
                    if self.healthy[index] {
                        self.up.on_connected(index, now);
                    } else {
                        self.up.on_failed(index, now, Failure::Network);
                    }
                }
            }
        }

        /// Nobody waits in the dark for longer than the longest back-off and an attempt while one node is up.
        fn check(&mut self) {
            let dark = self.up.current().is_none() && self.healthy.iter().any(|up| *up);
            self.dark_ms = if dark { self.dark_ms + Self::STEP_MS } else { 0 };
            // Health changes every 2 s or so: the bound holds for one node that stays up, hence the slack.
            assert!(self.dark_ms < 40_000, "dark for {} ms", self.dark_ms);
        }
    }
}
