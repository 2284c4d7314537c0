//! The lag ladder: what becomes of a listener that does not keep up.
//!
//! Half the window behind: warned (counted). The whole window behind: it jumps to the newest join point. Jumping for
//! the third time within the memory: it is let go. The source never waits for it.

use std::time::Duration;

use relay_seam::Now;

/// How far behind a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Bytes between its cursor and the head.
    pub behind: u64,
    /// Bytes that the ring keeps for readers.
    pub window: u64,
}

/// What the ladder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do.
    Fine,
    /// It has just fallen more than half the window behind.
    Warn,
    /// It has lost its place: move it to the newest join point.
    Jump,
    /// It has jumped too often: let it go.
    Close,
}

/// A listener's standing on the ladder; 8 bytes, on the hot path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    warned: bool,
    jumps: u8,
    /// Seconds of the driver's clock at the first jump that is still remembered.
    first_jump_s: u32,
}

impl Ladder {
    /// Judges a listener; called when something is about to be sent to it.
    pub fn judge(&mut self, now: Now, lag: Lag, jumps_max: u8, memory: Duration) -> Verdict {
        if lag.behind > lag.window {
            return self.jump(now, jumps_max, memory);
        }
        let slow = lag.behind > lag.window / 2;
        let verdict = if slow && !self.warned {
            Verdict::Warn
        } else {
            Verdict::Fine
        };
        self.warned = slow;
        verdict
    }

    fn jump(&mut self, now: Now, jumps_max: u8, memory: Duration) -> Verdict {
        let now_s = seconds(now);
        if self.jumps == 0 || u64::from(now_s.saturating_sub(self.first_jump_s)) > memory.as_secs() {
            self.jumps = 0;
            self.first_jump_s = now_s;
        }
        self.jumps = self.jumps.saturating_add(1);
        self.warned = false;
        if self.jumps >= jumps_max {
            Verdict::Close
        } else {
            Verdict::Jump
        }
    }
}

fn seconds(now: Now) -> u32 {
    u32::try_from(now.mono_ns() / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(60);

    fn at(s: u64) -> Now {
        Now::new(s * 1_000_000_000, 0)
    }

    fn judge(ladder: &mut Ladder, s: u64, behind: u64) -> Verdict {
        ladder.judge(at(s), Lag { behind, window: 1000 }, 3, MEMORY)
    }

    #[test]
    fn half_the_window_warns_once_until_it_has_caught_up() {
        let mut l = Ladder::default();
        assert_eq!(judge(&mut l, 0, 500), Verdict::Fine);
        assert_eq!(judge(&mut l, 1, 501), Verdict::Warn);
        assert_eq!(judge(&mut l, 2, 900), Verdict::Fine);
        assert_eq!(judge(&mut l, 3, 10), Verdict::Fine);
        assert_eq!(judge(&mut l, 4, 600), Verdict::Warn);
    }

    #[test]
    fn the_third_jump_within_a_minute_closes() {
        let mut l = Ladder::default();
        assert_eq!(judge(&mut l, 0, 1001), Verdict::Jump);
        assert_eq!(judge(&mut l, 30, 1001), Verdict::Jump);
        assert_eq!(judge(&mut l, 60, 1001), Verdict::Close);
    }

    #[test]
    fn old_jumps_are_forgotten() {
        let mut l = Ladder::default();
        assert_eq!(judge(&mut l, 0, 1001), Verdict::Jump);
        assert_eq!(judge(&mut l, 50, 1001), Verdict::Jump);
        assert_eq!(judge(&mut l, 61, 1001), Verdict::Jump);
        assert_eq!(judge(&mut l, 62, 1001), Verdict::Jump);
        assert_eq!(judge(&mut l, 63, 1001), Verdict::Close);
    }

    #[test]
    fn it_fits_the_hot_path() {
        assert_eq!(size_of::<Ladder>(), 8);
    }
}
