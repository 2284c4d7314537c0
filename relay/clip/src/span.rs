//! How long one track of a file is: what a loop must be shifted by, so that the track follows itself.

use crate::clock::signed;

/// One track's time stamps, from the first to the last of a pass.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    bits: u32,
    last: u64,
    at: i64,
    reach: i64,
    steps: i64,
    longest: i64,
}

impl Span {
    /// A track whose first time stamp is `first`; stamps wrap at 2^`bits`.
    pub(crate) fn new(first: u64, bits: u32) -> Self {
        Self {
            bits,
            last: first,
            at: 0,
            reach: 0,
            steps: 0,
            longest: 0,
        }
    }

    /// The next time stamp, in file order (pictures may be reordered).
    pub(crate) fn see(&mut self, raw: u64) {
        self.at = self.at.saturating_add(signed(self.last, raw, self.bits));
        self.last = raw;
        self.steps += 1;
        self.longest = self.longest.max(self.at.saturating_sub(self.reach));
        self.reach = self.reach.max(self.at);
    }

    /// The duration of one element: the mean step, rounded up (exact for a constant rate, in any order of
    /// pictures), but within `limit`; `alone` where there is only one element.
    pub(crate) fn step(&self, alone: u64, limit: u64) -> u64 {
        let reach = self.reach.unsigned_abs();
        match self.steps {
            0 => alone,
            n => reach.div_ceil(n.unsigned_abs()).clamp(1, limit),
        }
    }

    /// The longest step forward; zero where there is only one element.
    pub(crate) fn longest(&self) -> u64 {
        self.longest.unsigned_abs()
    }

    /// From the first time stamp to the largest.
    pub(crate) fn reach(&self) -> u64 {
        self.reach.unsigned_abs()
    }
}

/// Counts a time stamp into a track that may be new.
pub(crate) fn see(span: &mut Option<Span>, raw: u64, bits: u32) {
    match span {
        Some(span) => span.see(raw),
        None => *span = Some(Span::new(raw, bits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(stamps: &[u64]) -> Span {
        let mut span = Span::new(stamps[0], 33);
        stamps[1..].iter().for_each(|&raw| span.see(raw));
        span
    }

    #[test]
    fn a_constant_rate_is_measured_exactly_in_any_order() {
        let plain = span(&[100, 140, 180, 220]);
        assert_eq!((plain.reach(), plain.step(1, 1000)), (120, 40));
        let reordered = span(&[100, 220, 140, 180]);
        assert_eq!((reordered.reach(), reordered.step(1, 1000)), (120, 40));
    }

    #[test]
    fn wraps_single_elements_and_jumps() {
        assert_eq!(span(&[(1 << 33) - 10, 10]).reach(), 20);
        assert_eq!(span(&[5]).step(40, 1000), 40);
        assert_eq!(span(&[0, 1_000_000]).step(40, 1000), 1000);
        assert_eq!(span(&[0, 10, 40, 50]).longest(), 30);
    }
}
