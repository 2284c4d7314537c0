//! Time, as an argument.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment: monotonic nanoseconds for deadlines and rates, and the wall clock for what is written on the wire.
///
/// Ordered and compared by the monotonic part alone; the wall clock may jump and no rule may care.
#[derive(Clone, Copy)]
pub struct Now {
    mono_ns: u64,
    wall_us: u64,
}

impl Now {
    /// A moment at `mono_ns` nanoseconds of a monotonic clock (any origin) and `wall_us` microseconds of Unix time.
    pub fn new(mono_ns: u64, wall_us: u64) -> Self {
        Self { mono_ns, wall_us }
    }

    /// Monotonic nanoseconds since the driver's origin.
    pub fn mono_ns(self) -> u64 {
        self.mono_ns
    }

    /// Unix time in microseconds: for capture times and logs, never for deadlines.
    pub fn wall_us(self) -> u64 {
        self.wall_us
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_nanos(self.mono_ns.saturating_sub(earlier.mono_ns))
    }

    /// The earlier of two optional moments: how deadlines are folded.
    pub fn earliest(a: Option<Now>, b: Option<Now>) -> Option<Now> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if a <= b { a } else { b }),
            (a, b) => a.or(b),
        }
    }
}

impl Add<Duration> for Now {
    type Output = Now;

    fn add(self, d: Duration) -> Now {
        Now {
            mono_ns: self
                .mono_ns
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
            wall_us: self
                .wall_us
                .saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
        }
    }
}

impl Sub<Now> for Now {
    type Output = Duration;

    fn sub(self, earlier: Now) -> Duration {
        self.since(earlier)
    }
}

impl PartialEq for Now {
    fn eq(&self, other: &Self) -> bool {
        self.mono_ns == other.mono_ns
    }
}

impl Eq for Now {}

impl PartialOrd for Now {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Now {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.mono_ns.cmp(&other.mono_ns)
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.mono_ns as f64 / 1e9)
    }
}
