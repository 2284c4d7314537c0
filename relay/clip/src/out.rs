//! The pieces between a format and the player: bytes, each with the time they are due.

use std::collections::VecDeque;

/// Bytes due at one time are joined up to this length.
const PIECE_MAX: usize = 16 * 1024;

/// Bytes and when they are due, in nanoseconds of the stream's time since the start of play.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) due_ns: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What a format has put out and the player has not handed on yet.
#[derive(Debug, Default)]
pub(crate) struct Out {
    units: VecDeque<Unit>,
    due_ns: u64,
    still: u64,
    skipped: u64,
}

impl Out {
    /// Bytes that are due at `due_ns`, or at once where that is earlier than what went before.
    pub(crate) fn put(&mut self, due_ns: u64, bytes: &[u8]) {
        self.still = if due_ns > self.due_ns {
            0
        } else {
            self.still + bytes.len() as u64
        };
        self.due_ns = self.due_ns.max(due_ns);
        match self.units.back_mut() {
            Some(last) if last.due_ns == self.due_ns && last.bytes.len() + bytes.len() <= PIECE_MAX => {
                last.bytes.extend_from_slice(bytes);
            }
            _ => self.units.push_back(Unit {
                due_ns: self.due_ns,
                bytes: bytes.to_vec(),
            }),
        }
    }

    /// Bytes of the file that are not passed on because they are no part of the stream (damage, a torn end).
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.skipped += bytes as u64;
    }

    /// Bytes put out since the time last moved on.
    pub(crate) fn still(&self) -> u64 {
        self.still
    }

    /// When the newest bytes are due.
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Total of [`Out::skip`].
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// When the oldest bytes are due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.units.front().map(|unit| unit.due_ns)
    }

    /// The oldest bytes.
    pub(crate) fn take(&mut self) -> Option<Unit> {
        self.units.pop_front()
    }
}
