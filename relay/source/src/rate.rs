//! How fast a source may send, and how slowly: silence, trickle and flood. Integer arithmetic throughout.

use std::time::Duration;

use relay_seam::Now;

use crate::config::Config;

const NS_PER_S: u128 = 1_000_000_000;

/// A source may run ahead of `max_rate` by so much before it is paused: a key frame is a burst.
const BURST: Duration = Duration::from_secs(2);

/// What the clock says about a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Keep,
    /// Nothing came within the timeout: the source is gone.
    TimedOut {
        /// Which side did nothing.
        who: &'static str,
        /// What was expected of it.
        why: &'static str,
    },
    /// What came, came slower than `min_rate`: a mount is not held by a trickle.
    TooSlow,
}

/// Whether a source may go on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Read on.
    Go,
    /// Stop reading until then; TCP pushes back on the source.
    Pause {
        /// When to read again.
        until: Now,
    },
}

/// Watches one source's pace.
#[derive(Debug)]
pub(crate) struct Pace {
    timeout: Duration,
    min_rate: u64,
    window: Duration,
    max_rate: Option<u64>,
    /// When bytes last came, or when a pause of our own ended.
    heard: Now,
    window_start: Now,
    window_bytes: u64,
    /// When what has come so far would have come at `max_rate` (the "theoretical arrival time" of GCRA).
    due: Now,
    paused: bool,
}

impl Pace {
    pub(crate) fn new(config: &Config, now: Now) -> Self {
        Self {
            timeout: config.timeout,
            min_rate: config.min_rate,
            window: config.rate_window,
            max_rate: config.max_rate.filter(|&rate| rate > 0),
            heard: now,
            window_start: now,
            window_bytes: 0,
            due: now,
            paused: false,
        }
    }

    /// `bytes` came.
    pub(crate) fn came(&mut self, now: Now, bytes: usize) {
        self.heard = self.heard.max(now);
        self.window_bytes += bytes as u64;
        if let Some(rate) = self.max_rate {
            let ns = bytes as u128 * NS_PER_S / u128::from(rate);
            self.due = self.due.max(now) + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        }
    }

    /// Whether to read on. A pause ends at half the burst, so that a fast source is not toggled at every read.
    /// `true` beside it: the pause starts here.
    pub(crate) fn allowance(&mut self, now: Now) -> (Allowance, bool) {
        let ahead = self.due.since(now);
        if ahead <= BURST / 2 || (ahead <= BURST && !self.paused) {
            self.paused = false;
            return (Allowance::Go, false);
        }
        let until = now + (ahead - BURST / 2);
        // The silence that follows is ours, not the source's.
        self.heard = self.heard.max(until);
        self.window_start = self.window_start.max(until);
        (
            Allowance::Pause { until },
            !std::mem::replace(&mut self.paused, true),
        )
    }

    /// When to ask [`Pace::verdict`] next.
    pub(crate) fn deadline(&self) -> Now {
        (self.heard + self.timeout).min(self.window_start + self.window)
    }

    /// What the clock says; closes a measuring window that is full.
    pub(crate) fn verdict(&mut self, now: Now, who: &'static str) -> Verdict {
        if now >= self.heard + self.timeout {
            return Verdict::TimedOut {
                who,
                why: "expected data within the source timeout, got none",
            };
        }
        if now < self.window_start + self.window {
            return Verdict::Keep;
        }
        let took_ns = now.since(self.window_start).as_nanos();
        let enough = u128::from(self.window_bytes) * NS_PER_S >= u128::from(self.min_rate) * took_ns;
        (self.window_start, self.window_bytes) = (now, 0);
        if enough { Verdict::Keep } else { Verdict::TooSlow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now::new(ms * 1_000_000, 0)
    }

    fn pace(max_rate: Option<u64>) -> Pace {
        Pace::new(
            &Config {
                max_rate,
                ..Config::default()
            },
            at(0),
        )
    }

    #[test]
    fn silence_is_cut_at_the_timeout() {
        let mut p = pace(None);
        p.came(at(1_000), 5000);
        assert_eq!(p.deadline(), at(11_000));
        assert_eq!(p.verdict(at(10_999), "source"), Verdict::Keep);
        assert!(matches!(
            p.verdict(at(11_000), "source"),
            Verdict::TimedOut { who: "source", .. }
        ));
    }

    #[test]
    fn a_trickle_is_cut_after_a_window_and_a_slow_stream_is_not() {
        // Row A11: one byte a second for ever.
        let run = |bytes: usize| {
            let mut p = pace(None);
            (1..=100).find(|&s| {
                p.came(at(s * 1000), bytes);
                p.verdict(at(s * 1000), "source") == Verdict::TooSlow
            })
        };
        assert_eq!(run(1), Some(30));
        assert_eq!(run(63), Some(30));
        assert_eq!(run(64), None);
    }

    #[test]
    fn a_flood_is_held_to_its_rate() {
        // Row A11: twenty times the rate, in reads of 20 ms, for as long as we let it.
        let (rate, mut p, mut sent) = (250_000u64, pace(Some(250_000)), 0u64);
        let mut resume = at(0);
        for ms in (0..60_000).step_by(20) {
            if at(ms) < resume {
                continue;
            }
            sent += rate * 20 / 50;
            p.came(at(ms), (rate * 20 / 50) as usize);
            if let (Allowance::Pause { until }, _) = p.allowance(at(ms)) {
                assert!(until > at(ms));
                resume = until;
            }
            assert_eq!(p.verdict(at(ms), "source"), Verdict::Keep);
        }
        assert!((58 * rate..=63 * rate).contains(&sent), "{sent}");
    }

    #[test]
    fn a_steady_source_is_never_paused() {
        let mut p = pace(Some(1000));
        for s in 0..600 {
            p.came(at(s * 1000), 1000);
            assert_eq!(p.allowance(at(s * 1000)), (Allowance::Go, false));
        }
    }

    #[test]
    fn our_own_pause_is_not_the_sources_silence() {
        let mut p = pace(Some(1000));
        p.came(at(0), 100_000);
        assert_eq!(p.allowance(at(0)), (Allowance::Pause { until: at(99_000) }, true));
        assert!(!p.allowance(at(1)).1);
        assert_eq!(p.verdict(at(99_000), "source"), Verdict::Keep);
        assert_eq!(p.allowance(at(99_000)), (Allowance::Go, false));
        assert!(matches!(
            p.verdict(at(109_000), "source"),
            Verdict::TimedOut { .. }
        ));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut p = pace(Some(1));
        p.came(Now::new(u64::MAX, 0), usize::MAX);
        let _ = (
            p.allowance(Now::new(u64::MAX, 0)),
            p.verdict(Now::new(u64::MAX, 0), "source"),
            p.deadline(),
        );
        assert_eq!(pace(Some(0)).allowance(at(0)), (Allowance::Go, false));
    }
}
