//! When to try again: longer and longer waits, spread by jitter so that a thousand followers of one lost server
//! do not come back in step.

use std::time::Duration;

/// A growing wait. Deterministic for a seed.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    current: Duration,
    state: u64,
}

impl Backoff {
    /// The first wait, before jitter.
    pub const INITIAL: Duration = Duration::from_millis(250);
    /// No wait is longer.
    pub const MAX: Duration = Duration::from_secs(10);

    /// From [`Backoff::INITIAL`], doubling, to [`Backoff::MAX`].
    pub fn new(seed: u64) -> Self {
        Self::between(Self::INITIAL, Self::MAX, seed)
    }

    /// From `initial`, doubling, to `max`.
    pub fn between(initial: Duration, max: Duration, seed: u64) -> Self {
        let initial = initial.min(max);
        Self {
            initial,
            max,
            current: initial,
            state: seed,
        }
    }

    /// The next wait: between half of the current step and all of it. Never more than the maximum.
    #[expect(
        clippy::should_implement_trait,
        reason = "waits are asked for one by one; there is no end to iterate to"
    )]
    pub fn next(&mut self) -> Duration {
        let step = self.current;
        self.current = step.saturating_mul(2).min(self.max);
        let half_ns = u64::try_from(step.as_nanos() / 2).unwrap_or(u64::MAX);
        let jitter = splitmix64(&mut self.state) % half_ns.saturating_add(1);
        step - Duration::from_nanos(jitter)
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.current = self.initial;
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to spread clients.
pub(crate) fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs for the seed 1234567, as in the reference implementation's test vector.
        let mut state = 1_234_567;
        let first: Vec<u64> = (0..3).map(|_| splitmix64(&mut state)).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn waits_grow_to_the_maximum_and_start_again() {
        let mut b = Backoff::new(1);
        let waits: Vec<_> = (0..20).map(|_| b.next()).collect();
        for (wait, step) in waits
            .iter()
            .zip([250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000])
        {
            let step = Duration::from_millis(step);
            assert!((step / 2..=step).contains(wait), "{wait:?} in a step of {step:?}");
        }
        b.reset();
        assert!(b.next() <= Backoff::INITIAL);
    }

    #[test]
    fn seeds_spread() {
        let firsts: std::collections::HashSet<_> = (0..100).map(|seed| Backoff::new(seed).next()).collect();
        assert!(firsts.len() > 90, "{}", firsts.len());
        assert_eq!(Backoff::new(7).next(), Backoff::new(7).next());
    }

    proptest! {
        #[test]
        fn no_setting_panics(initial in any::<Duration>(), max in any::<Duration>(), seed in any::<u64>()) {
            let mut b = Backoff::between(initial, max, seed);
            for _ in 0..100 {
                prop_assert!(b.next() <= max);
            }
        }
    }
}
