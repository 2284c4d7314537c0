//! How a container parser speaks to the scanner that drives it.
//!
//! A parser sees the bytes at its position and answers with a [`Step`]. It must decide from the bytes alone, never
//! from how many there happen to be: "too few" is answered by asking for the number it needs. That is what makes
//! marks independent of slicing.

use std::sync::Arc;

use crate::mark::{Mark, Stats};
use crate::{HEADER_MAX, JOIN_SPACING, LOOKBACK_MAX};

/// A parser's answer.
#[derive(Debug)]
pub(crate) enum Step {
    /// Call again when at least this many bytes can be seen at the present position; at most `HEADER_MAX`.
    Need(usize),
    /// Move on by this many bytes, seen or not; at least 1.
    Take(u64),
}

/// One container's grammar.
pub(crate) trait Parser {
    /// Looks at `data`, which begins at position `at` and is never empty.
    fn step(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step;
}

/// What the scanner remembers about the marks it gave.
#[derive(Default, Debug)]
pub(crate) struct Ledger {
    header_bytes: u64,
    last_join: Option<u64>,
    blocked: bool,
}

/// Where a parser puts what it finds. Keeps the rules that hold for every container.
pub(crate) struct Found<'a> {
    pub(crate) marks: &'a mut Vec<Mark>,
    pub(crate) stats: &'a mut Stats,
    pub(crate) ledger: &'a mut Ledger,
}

impl Found<'_> {
    /// A newcomer may start at `at`; the byte before `proof` has shown it.
    pub(crate) fn join(&mut self, at: u64, proof: u64) {
        if self.ledger.blocked || proof - at > LOOKBACK_MAX {
            self.stats.joins_withheld += 1;
        } else if self.ledger.last_join.is_some_and(|last| at < last + JOIN_SPACING) {
            self.stats.joins_thinned += 1;
        } else {
            self.ledger.last_join = Some(at);
            self.stats.joins += 1;
            self.marks.push(Mark::Join { at });
        }
    }

    /// A new header is in force from `at` on; of it, a listener already playing is spared the first `opening` bytes.
    pub(crate) fn header(&mut self, at: u64, bytes: &[u8], opening: usize) {
        self.ledger.last_join = None;
        self.ledger.blocked = !self.affordable(at, bytes.len());
        if self.ledger.blocked {
            return;
        }
        let whole: Arc<[u8]> = bytes.into();
        let again = if opening == 0 {
            whole.clone()
        } else {
            bytes[opening.min(bytes.len())..].into()
        };
        self.ledger.header_bytes += bytes.len() as u64;
        self.stats.headers += 1;
        self.marks.push(Mark::Header {
            at,
            bytes: whole,
            again,
        });
    }

    /// The header that was being gathered is too large to keep.
    pub(crate) fn oversize(&mut self) {
        self.stats.oversize_headers += 1;
        self.ledger.blocked = true;
    }

    /// Headers must not outweigh the stream they come from: a small change in a large header, over and over, would
    /// turn few bytes in into many bytes kept.
    fn affordable(&mut self, at: u64, len: usize) -> bool {
        if len > HEADER_MAX {
            self.stats.oversize_headers += 1;
            return false;
        }
        let fits = self.ledger.header_bytes + len as u64 <= at + HEADER_MAX as u64;
        self.stats.headers_refused += u64::from(!fits);
        fits
    }

    /// Counts bytes passed over while searching and takes them.
    pub(crate) fn skip(&mut self, len: usize) -> Step {
        self.stats.skipped_bytes += len as u64;
        Step::Take(len as u64)
    }
}

/// How many bytes of `data` come before the first of `wanted`; all of them when there is none.
pub(crate) fn until(data: &[u8], wanted: &[u8]) -> usize {
    data.iter()
        .position(|byte| wanted.contains(byte))
        .unwrap_or(data.len())
}

/// Leaves the function with [`Step::Need`] unless `$data` holds `$len` bytes.
macro_rules! need {
    ($data:expr, $len:expr) => {
        if $data.len() < $len {
            return $crate::step::Step::Need($len);
        }
    };
}
pub(crate) use need;
