//! When a piece may go: never a burst, and never slower than the stream.

use std::time::Duration;

use relay_seam::Now;

/// How far play may run ahead of the stream's clock. It is built up at twice the speed, not in one burst.
pub const LEAD: Duration = Duration::from_millis(200);

/// After a stall (ours, or of a pipe that feeds us) play catches up at twice the speed, but only this much; what
/// is beyond is forgotten: the stream's clock is moved.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// A caller that polls late by less than this loses nothing: the pieces that were due meanwhile go together.
const GRAIN: Duration = Duration::from_millis(100);

/// The stream's clock laid over the caller's.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    /// When the stream's time was zero, in the caller's nanoseconds (negative: before its origin).
    zero_ns: i128,
    /// The last piece: when it was allowed to go, and when it was due in the stream's time.
    went_ns: i128,
    due_ns: u64,
}

impl Pace {
    /// How long a piece due at `due_ns` still has to wait; zero also counts it as gone. The first never waits.
    pub(crate) fn wait(&mut self, now: Now, due_ns: u64) -> Duration {
        let now_ns = i128::from(now.mono_ns());
        let running = *self
            .running
            .get_or_insert_with(|| Running::start(now_ns, due_ns))
            .late(now_ns, due_ns);
        let at = running.allowed(due_ns);
        let wait = at - now_ns;
        if wait > 0 {
            return Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
        }
        self.running = Some(Running {
            went_ns: at.max(now_ns - nanos(GRAIN)),
            due_ns,
            ..running
        });
        Duration::ZERO
    }
}

impl Running {
    fn start(now_ns: i128, due_ns: u64) -> Self {
        Self {
            zero_ns: now_ns - i128::from(due_ns),
            went_ns: now_ns,
            due_ns,
        }
    }

    /// Forgets what is too late to catch up with, seen from the piece that is next.
    fn late(&mut self, now_ns: i128, due_ns: u64) -> &mut Self {
        let late = now_ns - self.zero_ns - i128::from(due_ns);
        self.zero_ns += (late - nanos(CATCH_UP_MAX)).max(0);
        self
    }

    /// The lead before its time, but no faster than twice the stream's speed.
    fn allowed(&self, due_ns: u64) -> i128 {
        let on_time = self.zero_ns + i128::from(due_ns) - nanos(LEAD);
        let half = i128::from(due_ns.saturating_sub(self.due_ns) / 2);
        on_time.max(self.went_ns + half)
    }
}

fn nanos(d: Duration) -> i128 {
    d.as_nanos().cast_signed()
}
