//! The gate: who may touch which positions, and when. Head, floor, pins and holds; no memory.
//!
//! The proof obligation is small and is modelled in `tests/loom.rs`:
//!
//! * reader: `pin.store(at, Release)`; `fence(SeqCst)`; read `floor` (Acquire); if `floor > at`, unpin: lapped;
//! * writer: `floor.store(Relaxed)`; `fence(SeqCst)`; read all pins (Acquire); write; `head.store(Release)`.
//!
//! Either the reader sees the new floor and gives up, or the writer sees the pin and stays clear of it. The pin's
//! store is `Release` although it only goes down in the fence's company: a later raise must publish the reads done
//! under the earlier value, and a relaxed store would hide them.
//!
//! A hold outlives its pin: the kernel reads on when the batch is over, until it says that it is done.
//!
//! * reader: pinned as above; `hold.store(Release)`; hand the memory to the kernel; `pin.store(UNPINNED, Release)`;
//!   later, when the kernel is done: `hold.store(none, Release)`;
//! * writer: after the pins, never before them, read the holds (Acquire). What is held is not overwritten: other
//!   memory is put in its place, `since.store(Release)`, `version.fetch_add(Release)`, and only then
//!   `head.store(Release)`.
//!
//! The writer that no longer sees the pin has seen the store that took it away, and with it the hold that came
//! before. Were the holds read first, a reader could hold and unpin between the two looks and be missed by both.
//! A reader that sees the head sees the version that belongs to it.

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam::utils::CachePadded;

/// The pin of a reader that reads nothing.
pub const UNPINNED: u64 = u64::MAX;

/// The most segments a ring's memory has. A segment is what holds are counted by and memory is renewed by: a ring
/// of 4 MiB has segments of 256 KiB. The place of a segment is where in the memory it lies, below this.
pub const SEGMENTS: usize = 16;

/// A reader came too late: what it wanted may be overwritten already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapped {
    /// The oldest position that may still be read.
    pub floor: u64,
}

/// One number for each place.
type Places = CachePadded<[AtomicU64; SEGMENTS]>;

/// Head, floor, and one pin and one set of holds per reader, each on a pair of cache lines of its own.
#[derive(Debug)]
pub struct Gate {
    head: CachePadded<AtomicU64>,
    floor: CachePadded<AtomicU64>,
    /// How often memory was renewed.
    version: CachePadded<AtomicU64>,
    /// By place: segments numbered below this lie in memory that has been swapped out.
    since: Places,
    pins: Box<[CachePadded<AtomicU64>]>,
    /// By reader and place: one more than the newest segment held, 0 for none.
    holds: Box<[Places]>,
}

fn places() -> Places {
    CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)))
}

impl Gate {
    /// A gate for `readers` readers, with everything at position `at`.
    pub fn new(readers: usize, at: u64) -> Self {
        Self {
            head: CachePadded::new(AtomicU64::new(at)),
            floor: CachePadded::new(AtomicU64::new(at)),
            version: CachePadded::new(AtomicU64::new(0)),
            since: places(),
            pins: (0..readers)
                .map(|_| CachePadded::new(AtomicU64::new(UNPINNED)))
                .collect(),
            holds: (0..readers).map(|_| places()).collect(),
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

    /// Reader `slot`: of the segments that share `place`, those numbered below `below` are held; 0 for none. To be
    /// called while the reader's pin still protects what is newly held.
    pub fn hold(&self, slot: usize, place: usize, below: u64) {
        self.holds[slot][place].store(below, Ordering::Release);
    }

    /// Writer, after [`Gate::raise_floor`]: whether somebody holds what lies at `place` now. What is held in memory
    /// that has been swapped out does not count.
    pub fn held(&self, place: usize) -> bool {
        let since = self.since[place].load(Ordering::Relaxed);
        self.holds
            .iter()
            .any(|holds| holds[place].load(Ordering::Acquire) > since)
    }

    /// Writer, before it publishes anything in it: the memory at `place` is other memory from `segment` on.
    pub fn renewed(&self, place: usize, segment: u64) {
        self.since[place].store(segment, Ordering::Release);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The oldest segment that may lie in the memory which is at `place` now.
    pub fn since(&self, place: usize) -> u64 {
        self.since[place].load(Ordering::Acquire)
    }

    /// How often memory was renewed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Writer: everything below `head` is there to be read.
    pub fn publish(&self, head: u64) {
        self.head.store(head, Ordering::Release);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    /// Prefetchers fetch cache lines by pairs: what is nearer than that is shared though nobody shares it.
    const PAIR: usize = 128;

    #[test]
    fn nothing_shares_a_pair_of_cache_lines() {
        let gate = Gate::new(3, 0);
        let mut words = vec![
            ("head", &raw const *gate.head as usize, 8),
            ("floor", &raw const *gate.floor as usize, 8),
            ("version", &raw const *gate.version as usize, 8),
            ("since", &raw const *gate.since as usize, 8 * SEGMENTS),
        ];
        words.extend(gate.pins.iter().map(|pin| ("pin", &raw const **pin as usize, 8)));
        words.extend(
            gate.holds
                .iter()
                .map(|holds| ("holds", &raw const **holds as usize, 8 * SEGMENTS)),
        );
        assert_eq!(words.len(), 4 + 3 + 3);
        words.sort_unstable_by_key(|(_, at, _)| *at);
        for pair in words.windows(2) {
            let (left, right) = (pair[0], pair[1]);
            let last = left.1 + left.2 - 1;
            assert!(
                last / PAIR < right.1 / PAIR,
                "{left:?} and {right:?} lie too close"
            );
        }
    }
}
