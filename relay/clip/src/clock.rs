//! A stream's clock: from raw time stamps, which wrap and jump, to a time that only moves on.

/// A step of the stream's own time beyond this is a jump (an edit, a new encoder), not time to wait for.
pub(crate) const STEP_MAX_NS: u64 = 10_000_000_000;

/// A step back within this is reordering and ignored; a longer one is a jump.
const BACK_MAX_NS: u64 = 2_000_000_000;

/// The signed way from `from` to `to` on a circle of 2^`bits`; `bits` is 1 to 64.
pub(crate) fn signed(from: u64, to: u64, bits: u32) -> i64 {
    let shift = 64 - bits;
    (to.wrapping_sub(from) << shift).cast_signed() >> shift
}

/// Turns time stamps into nanoseconds since the start of play.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    due_ns: u64,
    last: Option<u64>,
    bits: u32,
    ticks_per_s: u64,
    ns_rest: u64,
}

impl Clock {
    /// A clock of `ticks_per_s`, whose stamps wrap at 2^`bits`, standing at `due_ns`.
    pub(crate) fn new(ticks_per_s: u64, bits: u32, due_ns: u64) -> Self {
        Self {
            due_ns,
            last: None,
            bits,
            ticks_per_s: ticks_per_s.max(1),
            ns_rest: 0,
        }
    }

    /// A time stamp was met. The first one, and any after a jump, sets the phase and does not move the time.
    pub(crate) fn see(&mut self, raw: u64) -> u64 {
        let step = self.last.map_or(0, |last| signed(last, raw, self.bits));
        let size = self.ns(step.unsigned_abs());
        match step {
            0.. if size <= STEP_MAX_NS => self.forward(step.unsigned_abs()),
            ..0 if size <= BACK_MAX_NS => return self.due_ns,
            _ => self.ns_rest = 0,
        }
        self.last = Some(raw);
        self.due_ns
    }

    /// The next time stamp sets the phase anew.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// Where the clock stands.
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    fn ns(&self, ticks: u64) -> u64 {
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.ticks_per_s);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// Keeps the rest of the division, so that a year of steps does not drift.
    fn forward(&mut self, ticks: u64) {
        let exact = u128::from(ticks) * 1_000_000_000 + u128::from(self.ns_rest);
        let per_s = u128::from(self.ticks_per_s);
        self.ns_rest = (exact % per_s) as u64;
        self.due_ns = self.due_ns.saturating_add((exact / per_s) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_taken_the_short_way_round() {
        assert_eq!(signed(0x1_FFFF_FFFF, 1, 33), 2);
        assert_eq!(signed(1, 0x1_FFFF_FFFF, 33), -2);
        assert_eq!(signed(u64::MAX, 0, 64), 1);
        assert_eq!(signed(5, 5, 32), 0);
    }

    #[test]
    fn time_moves_on_over_a_wrap() {
        let mut clock = Clock::new(90_000, 33, 7);
        assert_eq!(clock.see((1 << 33) - 45_000), 7);
        assert_eq!(clock.see(45_000), 1_000_000_007);
    }

    #[test]
    fn jumps_set_the_phase_and_reordering_is_ignored() {
        let mut clock = Clock::new(1000, 32, 0);
        clock.see(5_000);
        assert_eq!(clock.see(5_040), 40_000_000);
        assert_eq!(clock.see(5_020), 40_000_000);
        assert_eq!(clock.see(5_080), 80_000_000);
        assert_eq!(clock.see(900_000), 80_000_000);
        assert_eq!(clock.see(900_040), 120_000_000);
        assert_eq!(clock.see(0), 120_000_000);
        assert_eq!(clock.see(40), 160_000_000);
    }

    #[test]
    fn thirds_do_not_drift() {
        let mut clock = Clock::new(90_000, 33, 0);
        for raw in 0..=90_000 {
            clock.see(raw);
        }
        assert_eq!(clock.due_ns(), 1_000_000_000);
    }
}
