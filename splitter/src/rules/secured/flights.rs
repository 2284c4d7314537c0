//! Chunks on their first hop: given to a member, not acknowledged yet.

use std::collections::VecDeque;
use std::time::Duration;

use relay_seam::Now;

#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    serial: u64,
    until: Now,
    probed: bool,
}

/// A chunk that was not acknowledged in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) number: u64,
    pub(super) serial: u64,
    /// It was asked after already.
    pub(super) probed: bool,
}

/// In the order in which they are due.
#[derive(Debug)]
pub(super) struct Flights {
    list: VecDeque<Flight>,
    max: usize,
}

impl Flights {
    /// At most `max` are watched; then the oldest is let go.
    pub(super) fn new(max: usize) -> Self {
        Self {
            list: VecDeque::new(),
            max,
        }
    }

    pub(super) fn start(&mut self, number: u64, serial: u64, until: Now) {
        self.put(Flight {
            number,
            serial,
            until,
            probed: false,
        });
    }

    fn put(&mut self, flight: Flight) {
        if self.list.len() == self.max {
            self.list.pop_front();
        }
        self.list.push_back(flight);
    }

    /// This member has this chunk.
    pub(super) fn got(&mut self, number: u64, serial: u64) {
        self.list
            .retain(|flight| (flight.number, flight.serial) != (number, serial));
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Takes one that is due; it is watched once more, for `again`, if it was not asked after yet.
    pub(super) fn overdue(&mut self, now: Now, again: Duration) -> Option<Overdue> {
        let flight = self.list.pop_front_if(|flight| flight.until <= now)?;
        if !flight.probed {
            self.put(Flight {
                until: now + again,
                probed: true,
                ..flight
            });
        }
        Some(Overdue {
            number: flight.number,
            serial: flight.serial,
            probed: flight.probed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now::new(ms * 1_000_000, 0)
    }

    #[test]
    fn what_is_not_acknowledged_is_asked_after_once() {
        let (mut flights, again) = (Flights::new(2), Duration::from_millis(10));
        (1..=3).for_each(|number| flights.start(number, 7, at(10)));
        assert_eq!(flights.overdue(at(9), again), None);
        flights.got(2, 8);
        let overdue = |number, probed| {
            Some(Overdue {
                number,
                serial: 7,
                probed,
            })
        };
        assert_eq!(
            flights.overdue(at(10), again),
            overdue(2, false),
            "the first was one too many"
        );
        assert_eq!(flights.overdue(at(10), again), overdue(3, false));
        assert_eq!(flights.overdue(at(19), again), None);
        flights.got(2, 7);
        assert_eq!(flights.overdue(at(20), again), overdue(3, true));
        assert_eq!(flights.overdue(at(99), again), None);
    }
}
