//! The gate: who may touch which positions, and when. Head, floor and pins; no memory.
//!
//! The proof obligation is small and is modelled in `tests/loom.rs`:
//!
//! * reader: `pin.store(at, Release)`; `fence(SeqCst)`; read `floor` (Acquire); if `floor > at`, unpin: lapped;
//! * writer: `floor.store(Relaxed)`; `fence(SeqCst)`; read all pins (Acquire); write; `head.store(Release)`.
//!
//! Either the reader sees the new floor and gives up, or the writer sees the pin and stays clear of it. The pin's
//! store is `Release` although it only goes down in the fence's company: a later raise must publish the reads done
//! under the earlier value, and a relaxed store would hide them.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam::utils::CachePadded;

/// The pin of a reader that reads nothing.
pub const UNPINNED: u64 = u64::MAX;

/// A reader came too late: what it wanted may be overwritten already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapped {
    /// The oldest position that may still be read.
    pub floor: u64,
}

/// Head, floor and one pin per reader, each on its own cache line.
#[derive(Debug)]
pub struct Gate {
    head: CachePadded<AtomicU64>,
    floor: CachePadded<AtomicU64>,
    pins: Box<[CachePadded<AtomicU64>]>,
}

impl Gate {
    /// A gate for `readers` readers, with everything at position `at`.
    pub fn new(readers: usize, at: u64) -> Self {
        Self {
            head: CachePadded::new(AtomicU64::new(at)),
            floor: CachePadded::new(AtomicU64::new(at)),
            pins: (0..readers)
                .map(|_| CachePadded::new(AtomicU64::new(UNPINNED)))
                .collect(),
        }
    }

    /// How many readers there is room for.
    pub fn readers(&self) -> usize {
        self.pins.len()
    }

    /// The end of what is published.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The oldest position that may be pinned.
    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Reader `slot` wants to read from `at` on.
    ///
    /// # Errors
    ///
    /// [`Lapped`] when the floor is above `at`; nothing is pinned then.
    pub fn pin(&self, slot: usize, at: u64) -> Result<(), Lapped> {
        self.pins[slot].store(at, Ordering::Release);
        fence(Ordering::SeqCst);
        let floor = self.floor.load(Ordering::Acquire);
        if floor > at {
            self.unpin(slot);
            return Err(Lapped { floor });
        }
        Ok(())
    }

    /// Reader `slot` has done all its reads.
    pub fn unpin(&self, slot: usize) {
        self.pins[slot].store(UNPINNED, Ordering::Release);
    }

    /// Writer: nobody may pin below `floor` from now on. Returns the oldest pin there is: everything from there on
    /// must stay as it is.
    pub fn raise_floor(&self, floor: u64) -> u64 {
        self.floor.store(floor, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.pins
            .iter()
            .map(|pin| pin.load(Ordering::Acquire))
            .min()
            .unwrap_or(UNPINNED)
    }

    /// Writer: everything below `head` is there to be read.
    pub fn publish(&self, head: u64) {
        self.head.store(head, Ordering::Release);
    }
}
