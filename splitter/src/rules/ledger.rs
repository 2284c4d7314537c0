//! Which member got which of the last chunks, and who has complained about which.
//!
//! Chunk numbers are the channel's here; the wire's are unwrapped against the newest one. Of a buffer of more than
//! 2^15 chunks, only that many can be complained about: the wire's older numbers are ambiguous.

use std::net::SocketAddrV4;

use crate::wire::unwrap_number;

#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    to: SocketAddrV4,
    serial: u64,
    /// How many that member had got before.
    nth: u64,
    /// Serials of those who complained about it.
    by: Vec<u64>,
    /// How many of them are monitors.
    trusted: usize,
}

/// What a complaint comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// It is against the member that had this endpoint and serial, about the `nth` chunk it got; with how many
    /// monitors complained about that chunk.
    Against {
        peer: SocketAddrV4,
        serial: u64,
        nth: u64,
        trusted: usize,
    },
    /// The complainer was itself to relay that chunk.
    Own,
    /// Made before, or more complaints about one chunk than a team has members.
    Repeated,
    /// Not sent, or too long ago.
    Unsent,
}

/// The last chunks, as many as the peers' buffers hold.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Vec<Option<Entry>>,
    newest: Option<u64>,
    by_max: usize,
}

impl Ledger {
    /// Remembers `chunks` chunks, each with complaints of at most `by_max` members.
    pub(super) fn new(chunks: u16, by_max: u16) -> Self {
        Self {
            entries: vec![None; usize::from(chunks)],
            newest: None,
            by_max: usize::from(by_max),
        }
    }

    /// The chunk `number` goes to the member with this endpoint and serial, as its n-th, or to nobody. When it is not
    /// newer than the newest, the channel has begun again, and what was before is forgotten.
    pub(super) fn write(&mut self, number: u64, to: Option<(SocketAddrV4, u64, u64)>) {
        if self.newest.is_some_and(|newest| number <= newest) {
            self.entries.fill(None);
        }
        self.newest = Some(number);
        self.place(number, to);
    }

    fn place(&mut self, number: u64, to: Option<(SocketAddrV4, u64, u64)>) {
        let slot = self.slot(number);
        self.entries[slot] = to.map(|(to, serial, nth)| Entry {
            number,
            to,
            serial,
            nth,
            by: Vec::new(),
            trusted: 0,
        });
    }

    /// The same for a chunk that may be an older one, given to somebody else now.
    pub(super) fn set(&mut self, number: u64, to: Option<(SocketAddrV4, u64, u64)>) {
        match self.newest {
            Some(newest) if number <= newest && newest - number < self.entries.len() as u64 => {
                self.place(number, to);
            }
            _ => self.write(number, to),
        }
    }

    /// The member with the serial `by` did not get the chunk with the wire's number `lost`.
    pub(super) fn complain(&mut self, lost: u16, by: u64, monitor: bool) -> Complaint {
        let by_max = self.by_max;
        let Some(entry) = self.entry(lost) else {
            return Complaint::Unsent;
        };
        if entry.serial == by {
            return Complaint::Own;
        }
        if entry.by.contains(&by) || entry.by.len() >= by_max {
            return Complaint::Repeated;
        }
        entry.by.push(by);
        entry.trusted += usize::from(monitor);
        Complaint::Against {
            peer: entry.to,
            serial: entry.serial,
            nth: entry.nth,
            trusted: entry.trusted,
        }
    }

    /// The chunk with the wire's number `lost`, and to whom it went.
    pub(super) fn find(&mut self, lost: u16) -> Option<(u64, SocketAddrV4)> {
        self.entry(lost).map(|entry| (entry.number, entry.to))
    }

    fn entry(&mut self, lost: u16) -> Option<&mut Entry> {
        let newest = self.newest?;
        let number = unwrap_number(lost, newest);
        if number > newest || newest - number >= self.entries.len() as u64 {
            return None;
        }
        let slot = self.slot(number);
        self.entries[slot].as_mut().filter(|entry| entry.number == number)
    }

    fn slot(&self, number: u64) -> usize {
        // The remainder is below a `u16`.
        (number % self.entries.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::chunk_number;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn peer(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn against(port: u16, serial: u64) -> Complaint {
        Complaint::Against {
            peer: peer(port),
            serial,
            nth: 0,
            trusted: 1,
        }
    }

    fn after(chunks: u64, window: u16) -> Ledger {
        let mut ledger = Ledger::new(window, 8);
        (0..chunks).for_each(|n| ledger.write(n, Some((peer(n as u16), n, 0))));
        ledger
    }

    #[test]
    fn only_what_was_sent_lately_can_be_lost() {
        assert_eq!(Ledger::new(4, 8).complain(0, 99, true), Complaint::Unsent);
        let mut ledger = after(10, 4);
        for unsent in [0, 5, 10, 11, 65_535] {
            assert_eq!(ledger.complain(unsent, 99, true), Complaint::Unsent, "{unsent}");
        }
        for sent in 6..10 {
            assert_eq!(ledger.complain(sent, 99, true), against(sent, u64::from(sent)));
        }
        ledger.write(10, None);
        assert_eq!(
            ledger.complain(10, 99, true),
            Complaint::Unsent,
            "it went to nobody"
        );
    }

    #[test]
    fn a_complaint_counts_once_and_not_against_oneself() {
        let mut ledger = after(4, 4);
        assert_eq!(ledger.complain(2, 2, true), Complaint::Own);
        assert!(matches!(ledger.complain(2, 9, true), Complaint::Against { .. }));
        assert_eq!(ledger.complain(2, 9, true), Complaint::Repeated);
        assert!(matches!(ledger.complain(2, 10, true), Complaint::Against { .. }));
    }

    #[test]
    fn complaints_about_one_chunk_are_bounded() {
        let mut ledger = after(4, 4);
        let counted =
            (100..1000).filter(|&by| matches!(ledger.complain(2, by, true), Complaint::Against { .. }));
        assert_eq!(counted.count(), 8);
    }

    #[test]
    fn numbers_are_unwrapped_across_the_wire_s_end() {
        let mut ledger = after(65_538, 4);
        for (lost, serial) in [(65_534, 65_534), (65_535, 65_535), (0, 65_536), (1, 65_537)] {
            let blamed = against(serial as u16, serial);
            assert_eq!(ledger.complain(lost, u64::MAX, true), blamed, "{lost}");
        }
        assert_eq!(ledger.complain(2, u64::MAX, true), Complaint::Unsent);
    }

    #[test]
    fn a_channel_that_begins_again_is_not_blamed_for_what_was_before() {
        let mut ledger = after(10, 8);
        ledger.write(3, Some((peer(77), 77, 0)));
        assert_eq!(ledger.complain(2, 99, true), Complaint::Unsent);
        assert_eq!(ledger.complain(9, 99, true), Complaint::Unsent);
        assert_eq!(ledger.complain(3, 99, true), against(77, 77));
        ledger.write(1000, Some((peer(78), 78, 0)));
        assert_eq!(ledger.complain(3, 99, true), Complaint::Unsent, "too long ago");
    }

    proptest! {
        #[test]
        fn every_number_of_the_window_is_found_and_no_other(chunks in 0u64..3000, window in 1u16..70, lost: u16) {
            // Numbers near the wrap, without writing 65,536 chunks each time.
            let mut ledger = Ledger::new(window, 8);
            let offset = 65_000 + chunks;
            (offset..offset + 200).for_each(|n| ledger.write(n, Some((peer(n as u16), n, 0))));
            let sent = ledger.entries.iter().flatten().find(|e| chunk_number(e.number) == lost).cloned();
            let expected = sent.map_or(Complaint::Unsent, |e| against(e.to.port(), e.serial));
            prop_assert_eq!(ledger.complain(lost, u64::MAX, true), expected);
        }
    }
}
