//! The clock of both drivers.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use relay_seam::Now;

/// The moment: `CLOCK_MONOTONIC`, whose origin is the same for every thread of the host, and Unix time.
pub(crate) fn now() -> Now {
    Now::new(monotonic_ns(), unix_us())
}

fn monotonic_ns() -> u64 {
    // The clock always exists on Linux; a kernel without it would give a time that stands still.
    let Ok(t) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        return 0;
    };
    u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
