//! Bytes at a constant rate, for what has no clock that we can read.

use crate::error::Fault;
use crate::format::{Format, Input, Step};
use crate::out::Out;

/// Bytes that go at one time.
const SLICE: usize = 1316;

/// A constant rate.
pub(crate) struct Rate {
    kbps: u64,
    sent: u64,
}

impl Rate {
    /// `kbps` thousand bits per second; zero counts as one.
    pub(crate) fn new(kbps: u32) -> Self {
        Self {
            kbps: u64::from(kbps.max(1)),
            sent: 0,
        }
    }
}

impl Format for Rate {
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        let n = match input.data.len() {
            SLICE.. => SLICE,
            n if input.ended && n > 0 => n,
            _ => return Ok(Step::More),
        };
        // bits / (kbit/s) = ms
        let due_ns = u128::from(self.sent) * 8 * 1_000_000 / u128::from(self.kbps);
        out.put(u64::try_from(due_ns).unwrap_or(u64::MAX), &input.data[..n]);
        self.sent += n as u64;
        Ok(Step::Took(n))
    }

    fn end_round(&mut self) -> Result<(), Fault> {
        if self.sent == 0 {
            Err(Fault::NoClock)
        } else {
            Ok(())
        }
    }
}
