//! Chance, from a seed that the caller gives: rules draw none themselves, so that a story can be told twice.

/// A small generator (splitmix64). Good enough to spread load; nothing secret comes from it.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`; 0 when there is none.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        match n {
            0 => 0,
            n => (self.roll() % n as u64) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_comes_up_and_a_seed_tells_the_story_again() {
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            (0..60).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert!((0..6).all(|side| throw(1).contains(&side)));
        assert_eq!(throw(1), throw(1));
        assert_ne!(throw(1), throw(2));
        assert_eq!(Dice::new(3).below(0), 0);
    }
}
