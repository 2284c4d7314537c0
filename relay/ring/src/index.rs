//! The chunk index: what is known about each chunk beside its bytes.
//!
//! Chunk `n` of an epoch begins at position `n * chunk_size`, so the index holds no positions, only what arithmetic
//! cannot tell. Entries are guarded by their own number (a sequence lock of plain atomics): a reader that is lapped
//! while it reads gets `None`, never a mixture.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A chunk without a join point.
pub const NO_JOIN: u16 = u16::MAX;

/// What is known about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Its number within the epoch.
    pub number: u64,
    /// When its first byte reached the root, Unix time in microseconds.
    pub capture_us: u64,
    /// Where its frame begins in the link's framing, a position of that ring.
    pub link_at: u64,
    /// Offset of the first join point in it, or [`NO_JOIN`].
    pub join: u16,
    /// Its length in bytes: the chunk size, or less for the last of an epoch.
    pub len: u16,
}

/// The entries of the newest chunks; one writer, any number of readers.
#[derive(Debug)]
pub struct Index {
    entries: Box<[Entry]>,
    mask: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// `number + 1`; 0 while it is being written or has never been.
    stamp: AtomicU64,
    capture_us: AtomicU64,
    link_at: AtomicU64,
    rest: AtomicU64,
}

impl Index {
    /// Room for at least `chunks` chunks; 32 bytes each.
    pub fn new(chunks: usize) -> Self {
        let n = chunks.next_power_of_two();
        Self {
            entries: (0..n).map(|_| Entry::default()).collect(),
            mask: n as u64 - 1,
        }
    }

    /// The memory it costs, in bytes.
    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>()
    }

    /// Writer: sets the entry of a chunk; the entry `entries` chunks earlier is forgotten.
    pub fn set(&self, info: ChunkInfo) {
        let entry = self.entry(info.number);
        entry.stamp.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        entry.capture_us.store(info.capture_us, Ordering::Relaxed);
        entry.link_at.store(info.link_at, Ordering::Relaxed);
        entry.rest.store(
            u64::from(info.join) | u64::from(info.len) << 16,
            Ordering::Relaxed,
        );
        entry.stamp.store(info.number + 1, Ordering::Release);
    }

    /// What is known about a chunk, if it is among the newest.
    pub fn get(&self, number: u64) -> Option<ChunkInfo> {
        let entry = self.entry(number);
        if entry.stamp.load(Ordering::Acquire) != number + 1 {
            return None;
        }
        let capture_us = entry.capture_us.load(Ordering::Relaxed);
        let link_at = entry.link_at.load(Ordering::Relaxed);
        let rest = entry.rest.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if entry.stamp.load(Ordering::Relaxed) != number + 1 {
            return None;
        }
        Some(ChunkInfo {
            number,
            capture_us,
            link_at,
            join: rest as u16,
            len: (rest >> 16) as u16,
        })
    }

    /// The newest chunk in `(oldest..=newest)` that has a join point.
    pub fn newest_join(&self, newest: u64, oldest: u64) -> Option<ChunkInfo> {
        let oldest = oldest.max(newest.saturating_sub(self.mask));
        (oldest..=newest)
            .rev()
            .find_map(|n| self.get(n).filter(|info| info.join != NO_JOIN))
    }

    /// The oldest chunk in `oldest..=newest` that has a join point.
    pub fn oldest_join(&self, newest: u64, oldest: u64) -> Option<ChunkInfo> {
        let oldest = oldest.max(newest.saturating_sub(self.mask));
        (oldest..=newest).find_map(|n| self.get(n).filter(|info| info.join != NO_JOIN))
    }

    fn entry(&self, number: u64) -> &Entry {
        &self.entries[(number & self.mask) as usize]
    }
}
