//! How long to wait before the source is asked again: longer each time, spread by chance.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait, before it is spread.
const FIRST: Duration = Duration::from_millis(250);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    /// The standard library's own seed of this process: enough to keep splitters out of step.
    chance: RandomState,
    waits: u64,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            next: FIRST,
            chance: RandomState::new(),
            waits: 0,
        }
    }

    /// Between half of the step and all of it; the next step is twice as long.
    pub(crate) fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        self.waits += 1;
        let half = step.as_millis() as u64 / 2;
        step - Duration::from_millis(self.chance.hash_one(self.waits) % (half + 1))
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[test]
fn waits_grow_to_the_longest_and_start_again() {
    let mut backoff = Backoff::new();
    for step in [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
        let wait = backoff.wait().as_millis();
        assert!((step / 2..=step).contains(&wait), "{wait} in a step of {step}");
    }
    backoff.reset();
    assert!(backoff.wait() <= FIRST);
}
