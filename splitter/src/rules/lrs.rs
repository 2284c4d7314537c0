//! LRS (lost chunk recovery): what a member reports lost is sent again.
//!
//! In generation B it goes to that member, which relays it like any other chunk: so whoever lacks it too gets it with
//! it. In generation C the member has asked its mates before, so probably nobody has it: it goes once more to the one
//! that was to relay it, and only then to the member that lacks it, with its origin, so that no table is disturbed.
//!
//! The reference sends again for each report, to the first monitor. Here a report of anybody will do, but it buys
//! little: one chunk is sent again at most [`TIMES_MAX`] times, not more than once a round, and all chunks that are
//! sent again together are at most a configured part of the stream.

/// One chunk is sent again at most so often.
pub(super) const TIMES_MAX: u8 = 3;

#[derive(Clone, Copy, Debug)]
struct Again {
    number: u64,
    times: u8,
    /// How many chunks there had been when it was sent last.
    at: u64,
}

/// Why a chunk is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It was, lately or often enough.
    Enough,
    /// Too many others were.
    Budget,
}

#[derive(Debug)]
pub(super) struct Lrs {
    slots: Vec<Option<Again>>,
    percent: u64,
    /// In hundredths of a chunk.
    budget: u64,
}

impl Lrs {
    /// For the newest `chunks` chunks; `percent` of the stream may be sent again.
    pub(super) fn new(chunks: u16, percent: u16) -> Self {
        Self {
            slots: vec![None; usize::from(chunks)],
            percent: u64::from(percent),
            budget: 0,
        }
    }

    /// The stream went on by a chunk: there is a bit more to spend, up to a tenth of a buffer's share.
    pub(super) fn earn(&mut self) {
        let most = (self.percent * self.slots.len() as u64 / 10).max(100);
        self.budget = (self.budget + self.percent).min(most);
    }

    /// Whether a lost chunk is sent again now, when there have been `chunks` chunks and a round has `round`; how
    /// often it was before.
    pub(super) fn again(&mut self, number: u64, chunks: u64, round: u64) -> Result<u8, Denied> {
        // The remainder is below a `u16`.
        let slot = (number % self.slots.len() as u64) as usize;
        let before = self.slots[slot].filter(|again| again.number == number);
        let times = before.map_or(0, |again| again.times);
        let lately = before.is_some_and(|again| chunks < again.at + round);
        if lately || times >= TIMES_MAX {
            return Err(Denied::Enough);
        }
        self.budget = self.budget.checked_sub(100).ok_or(Denied::Budget)?;
        self.slots[slot] = Some(Again {
            number,
            times: times + 1,
            at: chunks,
        });
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_sent_again_thrice_at_most_and_once_a_round() {
        let mut lrs = Lrs::new(8, 1000);
        (0..8).for_each(|_| lrs.earn());
        assert_eq!(lrs.again(3, 10, 5), Ok(0));
        assert_eq!(lrs.again(3, 14, 5), Err(Denied::Enough));
        assert_eq!(lrs.again(3, 15, 5), Ok(1));
        assert_eq!(lrs.again(3, 20, 5), Ok(2));
        assert_eq!(lrs.again(3, 90, 5), Err(Denied::Enough));
        assert_eq!(lrs.again(11, 90, 5), Ok(0), "another chunk in that place");
    }

    #[test]
    fn all_together_are_a_part_of_the_stream() {
        let mut lrs = Lrs::new(256, 10);
        assert_eq!(lrs.again(0, 0, 1), Err(Denied::Budget));
        let mut sent = 0;
        for number in 0..10_000 {
            lrs.earn();
            sent += u32::from(lrs.again(number, number, 1).is_ok());
        }
        assert_eq!(sent, 1000);
        (0..100_000).for_each(|_| lrs.earn());
        let burst = (0..100).filter(|&n| lrs.again(n, 0, 1).is_ok()).count();
        assert_eq!(burst, 2, "what was not spent is not kept");
    }
}
