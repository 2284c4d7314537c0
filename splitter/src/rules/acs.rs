//! ACS (adaptive chunk rate): who loses chunks gets fewer to relay.
//!
//! Each member has a period, 1 at first. A complaint that counts makes it one longer, each second makes it one
//! shorter; who has the period *k* is served in one round of *k*. So a member whose uplink is too narrow, or whose
//! path loses much, carries what it can, and is not expelled for what it cannot.

use std::collections::HashMap;

/// The longest period: who cannot carry even a sixteenth of its share carries nothing that matters.
pub(super) const PERIOD_MAX: u32 = 16;

#[derive(Clone, Copy, Debug)]
struct Pace {
    period: u32,
    /// Rounds to let pass.
    wait: u32,
}

/// By serial of the member; who is not in it has the period 1.
#[derive(Debug, Default)]
pub(super) struct Acs {
    slow: HashMap<u64, Pace>,
}

impl Acs {
    /// A chunk of this member was lost.
    pub(super) fn blame(&mut self, serial: u64) {
        let pace = self.slow.entry(serial).or_insert(Pace { period: 1, wait: 0 });
        pace.period = (pace.period + 1).min(PERIOD_MAX);
    }

    /// So many seconds went by.
    pub(super) fn forgive(&mut self, seconds: u64) {
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.slow.retain(|_, pace| {
            pace.period = pace.period.saturating_sub(seconds);
            pace.wait = pace.wait.min(pace.period);
            pace.period > 1
        });
    }

    /// This member is gone.
    pub(super) fn forget(&mut self, serial: u64) {
        self.slow.remove(&serial);
    }

    /// It would be this member's turn: whether it takes it.
    pub(super) fn takes(&mut self, serial: u64) -> bool {
        let Some(pace) = self.slow.get_mut(&serial) else {
            return true;
        };
        if pace.wait > 0 {
            pace.wait -= 1;
            return false;
        }
        pace.wait = pace.period - 1;
        true
    }

    /// Whether anybody's period will change with time.
    pub(super) fn is_waiting(&self) -> bool {
        !self.slow.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(acs: &mut Acs, rounds: u32) -> usize {
        (0..rounds).filter(|_| acs.takes(7)).count()
    }

    #[test]
    fn who_loses_carries_less_and_recovers() {
        let mut acs = Acs::default();
        assert_eq!(turns(&mut acs, 12), 12);
        acs.blame(7);
        assert_eq!(turns(&mut acs, 12), 6);
        acs.blame(7);
        acs.blame(7);
        assert_eq!(turns(&mut acs, 12), 3);
        (0..100).for_each(|_| acs.blame(7));
        assert_eq!(turns(&mut acs, 160), 10, "never nothing");
        acs.forgive(13);
        assert_eq!(turns(&mut acs, 12), 4);
        assert!(acs.is_waiting());
        acs.forgive(u64::MAX);
        assert_eq!((turns(&mut acs, 12), acs.is_waiting()), (12, false));
        acs.blame(7);
        acs.forget(7);
        assert!(!acs.is_waiting());
    }
}
