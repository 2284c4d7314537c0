//! A cap on what is sent.

use std::time::{Duration, Instant};

/// What may be sent at once after a pause: so much time's worth, and never less than a few chunks.
const BURST: Duration = Duration::from_millis(250);
const BURST_BYTES_MIN: f64 = 8192.0;

/// A bucket of bytes that fills at a rate.
#[derive(Debug)]
pub(super) struct Cap {
    bytes_per_second: f64,
    room: f64,
    filled: Instant,
}

impl Cap {
    pub(super) fn new(bits_per_second: u64, now: Instant) -> Self {
        let mut cap = Self {
            bytes_per_second: bits_per_second as f64 / 8.0,
            room: 0.0,
            filled: now,
        };
        cap.room = cap.most();
        cap
    }

    fn most(&self) -> f64 {
        (self.bytes_per_second * BURST.as_secs_f64()).max(BURST_BYTES_MIN)
    }

    /// Whether so many bytes may be sent now; then they count.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.room = (self.room + passed.as_secs_f64() * self.bytes_per_second).min(self.most());
        let fits = self.room >= bytes as f64;
        if fits {
            self.room -= bytes as f64;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_may_be_sent_and_no_more() {
        let start = Instant::now();
        let mut cap = Cap::new(800_000, start);
        let sent = |cap: &mut Cap, now| (0..1000).filter(|_| cap.take(1000, now)).count();
        assert_eq!(sent(&mut cap, start), 25, "a quarter of a second's worth");
        assert_eq!(sent(&mut cap, start + Duration::from_millis(100)), 10);
        assert_eq!(
            sent(&mut cap, start + Duration::from_secs(100)),
            25,
            "a pause is not saved up"
        );
        let mut none = Cap::new(0, start);
        assert_eq!(sent(&mut none, start), 8);
        assert_eq!(sent(&mut none, start + Duration::from_secs(9)), 0);
    }
}
