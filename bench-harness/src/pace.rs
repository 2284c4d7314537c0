//! When which group is due: a constant rate, sent in ticks, against a clock that never drifts.

use std::time::Duration;

/// Turns time since the start into groups that are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    bits_per_group: u128,
    bits_per_second: u128,
    tick: Duration,
}

impl Pace {
    pub(crate) fn new(kbps: u32, group_bytes: usize, tick: Duration) -> Pace {
        Pace {
            bits_per_group: 8 * group_bytes as u128,
            bits_per_second: 1000 * u128::from(kbps),
            tick,
        }
    }

    /// The tick at or after the moment when group `n` is due by the rate alone, since the start.
    pub(crate) fn due(&self, n: u64) -> Duration {
        let exact = u128::from(n) * self.bits_per_group * 1_000_000_000 / self.bits_per_second;
        let tick = self.tick.as_nanos();
        Duration::from_nanos((exact.div_ceil(tick) * tick) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_an_hour_and_due_times_lie_on_ticks() {
        let pace = Pace::new(2_000, 1_316, Duration::from_millis(10));
        let groups_per_hour = 2_000_000 * 3_600 / (8 * 1_316);
        let end = pace.due(groups_per_hour);
        assert!(end > Duration::from_secs(3_599) && end <= Duration::from_millis(3_600_010));
        assert!(
            (0..1_000).all(|n| pace.due(n).as_millis().is_multiple_of(10) && pace.due(n) <= pace.due(n + 1))
        );
    }
}
