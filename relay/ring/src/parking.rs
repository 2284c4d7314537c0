//! Parking: the sleeper's flag, and the two steps on either side of it. No descriptor.
//!
//! * sleeper: `parked.swap(true)`; `fence(SeqCst)`; look at everything that could have changed; sleep;
//! * ringer: change something; `fence(SeqCst)`; if `parked`, take the flag away and wake the sleeper.
//!
//! Of the two fences one comes first. If it is the sleeper's, the ringer sees the flag; if it is the ringer's, the
//! sleeper sees the change. `tests/loom.rs` has a model of it, and models without either fence that lose a wake-up.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::utils::CachePadded;

/// Whether somebody sleeps, or is about to.
#[derive(Debug)]
pub struct Parking {
    parked: CachePadded<AtomicBool>,
}

impl Parking {
    /// Nobody sleeps.
    #[expect(clippy::new_without_default, reason = "loom's flags have no default")]
    pub fn new() -> Self {
        Self {
            parked: CachePadded::new(AtomicBool::new(false)),
        }
    }

    /// The sleeper is about to sleep; it must look at its inputs once more after this, before it does.
    pub fn park(&self) {
        // A store would do: what a ringer took away belongs to an earlier sleep, as an exchange stands next to what it
        // read. An exchange here says so to the model checker as well, once per sleep.
        self.parked.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake.
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::Release);
    }

    /// A ringer, after its change: whether it is the one to wake the sleeper.
    #[must_use]
    pub fn rouse(&self) -> bool {
        fence(Ordering::SeqCst);
        self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::AcqRel)
    }
}
