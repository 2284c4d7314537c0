//! How much of something is allowed.

use std::time::Duration;

use relay_seam::Now;

const SECOND_NS: u64 = 1_000_000_000;

/// A bucket that fills evenly and holds a tenth of a second's worth, at least one.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    per_second: u32,
    /// In parts of one, of which a second's worth has `SECOND_NS` each.
    level: u64,
    full: u64,
    at: Now,
}

impl Allowance {
    /// So many a second; the bucket is full now.
    pub(crate) fn per_second(per_second: u32, now: Now) -> Self {
        let full = (u64::from(per_second) * SECOND_NS / 10).max(SECOND_NS);
        Self {
            per_second,
            level: full,
            full,
            at: now,
        }
    }

    /// Whether there is one more.
    pub(crate) fn take(&mut self, now: Now) -> bool {
        self.fill(now);
        let there = self.level >= SECOND_NS;
        self.level -= u64::from(there) * SECOND_NS;
        there
    }

    fn fill(&mut self, now: Now) {
        let passed: Duration = now.since(self.at);
        let ns = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        self.level = self.full.min(
            self.level
                .saturating_add(ns.saturating_mul(u64::from(self.per_second))),
        );
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now::new(ms * 1_000_000, 0)
    }

    fn taken(allowance: &mut Allowance, ms: std::ops::Range<u64>) -> usize {
        ms.flat_map(|ms| [ms; 5])
            .filter(|&ms| allowance.take(at(ms)))
            .count()
    }

    #[test]
    fn in_a_second_it_is_what_is_allowed_and_a_tenth_of_it_at_first() {
        assert_eq!(taken(&mut Allowance::per_second(100, at(0)), 0..1000), 109);
        assert_eq!(
            taken(&mut Allowance::per_second(0, at(0)), 0..1000),
            1,
            "the first"
        );
        let mut slow = Allowance::per_second(3, at(0));
        assert_eq!((taken(&mut slow, 0..333), taken(&mut slow, 333..2001)), (1, 5));
        assert_eq!(
            taken(&mut slow, 900_000..900_001),
            1,
            "what was not used is not kept"
        );
    }
}
