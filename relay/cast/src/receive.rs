//! Putting a stream together from datagrams: in order, each once, holes repaired while there is time.
//!
//! Three kinds of senders are understood. Ours names the byte position of each datagram: holes are known exactly, and
//! what a link brings of the same stream fits in. Others' RTP is ordered by sequence number. Bare packets are played as
//! they come. What is held for the sake of a hole is bounded in bytes, in pieces and in time; then the hole is left.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use relay_seam::Now;

use crate::fec::Decoder;
use crate::is_packets;
use crate::rtp::{Head, PAYLOAD_PARITY, PAYLOAD_TS, Place};

/// Bytes that are held behind holes, at most.
pub const HELD_BYTES_MAX: usize = 8 << 20;
/// Pieces that are held behind holes, at most.
pub const HELD_PIECES_MAX: usize = 16_384;
/// A hole of more bytes than this is no hole but a leap: nobody is asked to fill it.
pub const HOLE_BYTES_MAX: u64 = 16 << 20;
/// So many datagrams in a row that are older than what was played: it is we who are wrong, and begin anew there.
const STRAYS_MAX: u32 = 256;

/// What has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams of the stream that came.
    pub received: u64,
    /// Parity datagrams that came.
    pub parity: u64,
    /// Datagrams that are nothing we know, or useless.
    pub malformed: u64,
    /// Datagrams that came twice, or too late.
    pub duplicates: u64,
    /// Datagrams that parity has brought back.
    pub recovered: u64,
    /// Pieces that a link has brought.
    pub repaired: u64,
    /// Datagrams that nobody has brought, as many as fit into the holes.
    pub lost: u64,
    /// Times the stream began anew.
    pub turns: u64,
}

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first byte that is missing.
    pub from: Place,
    /// The first byte after it that is there.
    pub to: u64,
    /// When that came.
    pub since: Now,
}

/// Whose numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Byte positions of an epoch.
    Places(u64),
    /// Sequence numbers of a sender.
    Sequence(u32),
    /// No numbers.
    Bare,
}

/// Who brought a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Air,
    Parity,
    Link,
}

/// A stretch of the stream that waits for what comes before it.
#[derive(Debug)]
struct Piece {
    end: u64,
    bytes: Vec<u8>,
    since: Now,
}

/// Puts a stream together.
#[derive(Debug)]
pub struct Receive {
    patience: Duration,
    stats: Stats,
    origin: Option<Origin>,
    /// What was played before: its stragglers are not heard.
    past: Option<Origin>,
    /// The next byte, or sequence number unwrapped, to be played.
    next: u64,
    held: BTreeMap<u64, Piece>,
    held_bytes: usize,
    due: VecDeque<Vec<u8>>,
    /// Remembers from the start: the first parity comes after what it is for.
    decoder: Decoder,
    strays: u32,
}

impl Receive {
    /// A receiver that waits so long for what is missing.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            stats: Stats::default(),
            origin: None,
            past: None,
            next: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            due: VecDeque::new(),
            decoder: Decoder::new(),
            strays: 0,
        }
    }

    /// What has been counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// A datagram came to the port of the stream.
    pub fn media(&mut self, now: Now, datagram: &[u8]) {
        self.stats.received += 1;
        if is_packets(datagram) {
            return self.bare(datagram);
        }
        let Some((head, body)) = stream(datagram) else {
            self.stats.malformed += 1;
            return;
        };
        self.take(now, &head, body, By::Air);
        let recovered = self.decoder.data(&head, datagram);
        self.take_recovered(now, &recovered);
    }

    /// A datagram came to the port of parity.
    pub fn parity(&mut self, now: Now, datagram: &[u8]) {
        self.stats.parity += 1;
        let decoder = &mut self.decoder;
        let made = match Head::parse(datagram) {
            Ok((head, payload)) if head.payload_type == PAYLOAD_PARITY => decoder.parity(payload).ok(),
            _ => None,
        };
        match made {
            Some(made) => self.take_recovered(now, &made),
            None => self.stats.malformed += 1,
        }
    }

    /// A link brought a stretch of the stream.
    pub fn repaired(&mut self, now: Now, place: Place, bytes: &[u8]) {
        let Some(end) = place
            .at
            .checked_add(bytes.len() as u64)
            .filter(|end| *end > place.at)
        else {
            return;
        };
        self.insert(now, Origin::Places(place.epoch), place.at, end, bytes, By::Link);
    }

    /// The next bytes to be played, if they are there, or what is before them has been waited for long enough.
    pub fn poll(&mut self, now: Now) -> Option<Vec<u8>> {
        while self.due.is_empty() && self.deadline().is_some_and(|deadline| deadline <= now) {
            self.leave_hole();
        }
        self.due.pop_front()
    }

    /// When a hole is left although nothing came.
    pub fn deadline(&self) -> Option<Now> {
        let (_, first) = self.held.first_key_value()?;
        Some(first.since + self.patience)
    }

    /// What is missing first, where it can be named to others.
    pub fn hole(&self) -> Option<Hole> {
        let (to, first) = self.held.first_key_value()?;
        let from = self.place()?;
        (*to - from.at <= HOLE_BYTES_MAX).then_some(Hole {
            from,
            to: *to,
            since: first.since,
        })
    }

    /// The next byte to be played, where it can be named to others.
    pub fn place(&self) -> Option<Place> {
        match self.origin {
            Some(Origin::Places(epoch)) => Some(Place { epoch, at: self.next }),
            _ => None,
        }
    }

    fn bare(&mut self, datagram: &[u8]) {
        if self.origin != Some(Origin::Bare) {
            self.turn(Origin::Bare, 0);
        }
        self.next += 1;
        self.due.push_back(datagram.to_vec());
    }

    fn take_recovered(&mut self, now: Now, recovered: &[Vec<u8>]) {
        for datagram in recovered {
            match stream(datagram) {
                Some((head, body)) => self.take(now, &head, body, By::Parity),
                None => self.stats.malformed += 1,
            }
        }
    }

    fn take(&mut self, now: Now, head: &Head, body: &[u8], by: By) {
        let (origin, at, width) = match head.place {
            Some(place) => (Origin::Places(place.epoch), place.at, body.len() as u64),
            None => {
                let origin = Origin::Sequence(head.ssrc);
                (origin, self.unwrapped(origin, head.sequence), 1)
            }
        };
        match at.checked_add(width) {
            Some(end) => self.insert(now, origin, at, end, body, by),
            None => self.stats.malformed += 1,
        }
    }

    /// A sequence number with the rounds that it has made: the one nearest to what is to be played next.
    fn unwrapped(&self, origin: Origin, sequence: u16) -> u64 {
        if self.origin != Some(origin) {
            // Room for what is older.
            return u64::from(sequence) + (1 << 32);
        }
        let ahead = sequence.wrapping_sub(self.next as u16).cast_signed();
        self.next.saturating_add_signed(i64::from(ahead))
    }

    fn insert(&mut self, now: Now, origin: Origin, at: u64, end: u64, bytes: &[u8], by: By) {
        if self.past == Some(origin) {
            return self.late(by);
        }
        if self.origin != Some(origin) {
            self.turn(origin, at);
        }
        if end <= self.next {
            self.late(by);
            self.strays += u32::from(by == By::Air);
            if self.strays < STRAYS_MAX {
                return;
            }
            self.turn(origin, at);
        }
        self.strays = 0;
        if self.held.get(&at).is_some_and(|piece| piece.end >= end) {
            return self.late(by);
        }
        self.count(by);
        let piece = Piece {
            end,
            bytes: bytes.to_vec(),
            since: now,
        };
        self.held_bytes += bytes.len();
        if let Some(shorter) = self.held.insert(at, piece) {
            self.held_bytes -= shorter.bytes.len();
        }
        self.drain();
        while self.held_bytes > HELD_BYTES_MAX || self.held.len() > HELD_PIECES_MAX {
            self.leave_hole();
        }
    }

    fn count(&mut self, by: By) {
        match by {
            By::Air => {}
            By::Parity => self.stats.recovered += 1,
            By::Link => self.stats.repaired += 1,
        }
    }

    /// Links bring what is there already, too: that is nothing to be counted.
    fn late(&mut self, by: By) {
        self.stats.duplicates += u64::from(by == By::Air);
    }

    /// Another sender, another epoch, or a leap backwards: what is held is played, and then it begins there.
    fn turn(&mut self, origin: Origin, at: u64) {
        while !self.held.is_empty() {
            self.leave_hole();
        }
        if self.origin != Some(origin) {
            self.past = self.origin;
        }
        self.stats.turns += u64::from(self.origin.is_some());
        (self.origin, self.next, self.strays) = (Some(origin), at, 0);
    }

    /// Goes on behind what is missing.
    fn leave_hole(&mut self) {
        let Some((at, first)) = self.held.first_key_value() else {
            return;
        };
        let width = (first.end - at).max(1);
        self.stats.lost += at.saturating_sub(self.next).div_ceil(width);
        self.next = self.next.max(*at);
        self.drain();
    }

    /// Plays what follows on what was played.
    fn drain(&mut self) {
        while let Some(entry) = self.held.first_entry().filter(|entry| *entry.key() <= self.next) {
            let (at, mut piece) = entry.remove_entry();
            self.held_bytes -= piece.bytes.len();
            if piece.end <= self.next {
                continue;
            }
            if matches!(self.origin, Some(Origin::Places(_))) {
                piece.bytes.drain(..(self.next - at) as usize);
            }
            self.next = piece.end;
            self.due.push_back(piece.bytes);
        }
    }
}

/// Header and packets of a datagram of the stream.
fn stream(datagram: &[u8]) -> Option<(Head, &[u8])> {
    let (head, body) = Head::parse(datagram).ok()?;
    (head.payload_type == PAYLOAD_TS && is_packets(body)).then_some((head, body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fec::{Encoder, Shape};
    use crate::{PACKET, SYNC};

    const PATIENCE: Duration = Duration::from_millis(100);

    fn ms(n: u64) -> Now {
        Now::new(n * 1_000_000, 0)
    }

    fn packet(n: u64) -> Vec<u8> {
        let mut bytes = vec![0; PACKET];
        bytes[0] = SYNC;
        bytes[4..12].copy_from_slice(&n.to_be_bytes());
        bytes
    }

    fn head(n: u64, epoch: Option<u64>) -> Head {
        Head {
            payload_type: PAYLOAD_TS,
            marker: false,
            sequence: (n as u16).wrapping_add(65_500),
            timestamp: 0,
            ssrc: 5,
            place: epoch.map(|epoch| Place {
                epoch,
                at: n * PACKET as u64,
            }),
        }
    }

    /// The `n`-th datagram: ours, or somebody else's.
    fn datagram(n: u64, epoch: Option<u64>) -> Vec<u8> {
        let (bytes, len) = head(n, epoch).encode();
        [&bytes[..len], &packet(n)].concat()
    }

    fn played(receive: &mut Receive, now: Now) -> Vec<u64> {
        let mut bytes = Vec::new();
        while let Some(more) = receive.poll(now) {
            bytes.extend(more);
        }
        assert!(bytes.is_empty() || is_packets(&bytes));
        let number = |packet: &[u8]| u64::from_be_bytes(packet[4..12].try_into().unwrap());
        bytes.chunks(PACKET).map(number).collect()
    }

    proptest! {
        #[test]
        fn any_order_is_put_right(
            order in Just((1..60u64).collect::<Vec<_>>()).prop_shuffle(),
            twice in proptest::collection::vec(1..60u64, 0..20),
            ours in any::<bool>(),
        ) {
            let epoch = ours.then_some(9);
            let mut receive = Receive::new(PATIENCE);
            receive.media(ms(0), &datagram(0, epoch));
            order.iter().chain(&twice).for_each(|n| receive.media(ms(1), &datagram(*n, epoch)));
            prop_assert_eq!(played(&mut receive, ms(2)), (0..60).collect::<Vec<_>>());
            let stats = receive.stats();
            prop_assert_eq!((stats.lost, stats.duplicates), (0, twice.len() as u64));
            prop_assert!(receive.held.is_empty() && receive.held_bytes == 0);
        }

        #[test]
        fn what_is_lost_is_waited_for_and_counted(
            lost in proptest::sample::subsequence((1..59u64).collect::<Vec<_>>(), 0..20),
        ) {
            let mut receive = Receive::new(PATIENCE);
            let came: Vec<u64> = (0..60).filter(|n| !lost.contains(n)).collect();
            came.iter().for_each(|n| receive.media(ms(0), &datagram(*n, Some(1))));
            let until = lost.first().copied().unwrap_or(60);
            prop_assert_eq!(played(&mut receive, ms(99)), (0..until).collect::<Vec<_>>());
            prop_assert_eq!(played(&mut receive, ms(100)), came[until as usize..].to_vec());
            prop_assert_eq!(receive.stats().lost, lost.len() as u64);
        }

        #[test]
        fn a_link_fills_every_hole(
            lost in proptest::sample::subsequence((1..59u64).collect::<Vec<_>>(), 1..20),
            chunk in 100usize..700,
        ) {
            let mut receive = Receive::new(PATIENCE);
            let stream: Vec<u8> = (0..60).flat_map(packet).collect();
            let came = (0..60).filter(|n| !lost.contains(n));
            came.for_each(|n| receive.media(ms(0), &datagram(n, Some(1))));
            let mut asked = 0;
            while let Some(hole) = receive.hole() {
                // Chunks lie on a grid of their own.
                let first = hole.from.at as usize / chunk;
                let last = (hole.to as usize).div_ceil(chunk);
                for at in (first..last).map(|number| number * chunk) {
                    let bytes = &stream[at..stream.len().min(at + chunk)];
                    receive.repaired(ms(1), Place { epoch: 1, at: at as u64 }, bytes);
                }
                asked += 1;
                prop_assert!(asked <= lost.len());
            }
            prop_assert_eq!(played(&mut receive, ms(1)), (0..60).collect::<Vec<_>>());
            prop_assert_eq!(receive.stats().lost, 0);
        }

        #[test]
        fn parity_fills_holes(lost in proptest::sample::subsequence((1..24u64).collect::<Vec<_>>(), 0..4)) {
            let mut encoder = Encoder::new(Shape::new(8, 4).unwrap(), 5);
            let mut receive = Receive::new(PATIENCE);
            for n in 0..24 {
                let bytes = datagram(n, Some(1));
                let parity = encoder.push(ms(0), head(n, None).sequence, &bytes[..36], &bytes[36..]);
                if !lost.contains(&n) {
                    receive.media(ms(0), &bytes);
                }
                for payload in parity {
                    let rtp = Head { payload_type: PAYLOAD_PARITY, ..head(0, None) };
                    let (bytes, len) = rtp.encode();
                    receive.parity(ms(0), &[&bytes[..len], &payload].concat());
                }
            }
            prop_assert_eq!(receive.stats().recovered, lost.len() as u64);
            prop_assert_eq!(played(&mut receive, ms(0)), (0..24).collect::<Vec<_>>());
            prop_assert_eq!(receive.stats().lost, 0);
        }

        #[test]
        fn garbage_is_survived(
            rubbish in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..20),
            cut in 0usize..224,
            places in proptest::collection::vec((0..3u64, any::<u64>()), 0..50),
        ) {
            let mut receive = Receive::new(PATIENCE);
            receive.media(ms(0), &datagram(0, Some(1)));
            for bytes in &rubbish {
                receive.media(ms(0), bytes);
                receive.parity(ms(0), bytes);
            }
            receive.media(ms(0), &datagram(7, Some(1))[..cut]);
            receive.parity(ms(0), &datagram(7, Some(1))[..cut]);
            for (epoch, at) in places {
                receive.repaired(ms(0), Place { epoch, at }, &[1, 2, 3]);
                let rtp = Head { place: Some(Place { epoch, at }), ..head(1, None) };
                let (bytes, len) = rtp.encode();
                receive.media(ms(0), &[&bytes[..len], &packet(1)].concat());
            }
            while receive.poll(ms(1000)).is_some() {}
            prop_assert!(receive.held.is_empty() && receive.held_bytes == 0);
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut receive = Receive::new(PATIENCE);
        // Every second one is lost, and nobody has any patience to lose.
        for n in (0..100_000).step_by(2) {
            receive.media(ms(0), &datagram(n, Some(1)));
            assert!(receive.held_bytes <= HELD_BYTES_MAX && receive.held.len() <= HELD_PIECES_MAX);
            receive.due.clear();
        }
        assert!(receive.stats().lost > 0);
    }

    #[test]
    fn another_epoch_begins_where_it_begins_and_the_old_one_is_over() {
        let mut receive = Receive::new(PATIENCE);
        receive.media(ms(0), &datagram(3, Some(1)));
        receive.media(ms(0), &datagram(5, Some(1)));
        receive.media(ms(0), &datagram(0, Some(2)));
        receive.media(ms(0), &datagram(4, Some(1)));
        receive.media(ms(0), &datagram(1, Some(2)));
        assert_eq!(played(&mut receive, ms(0)), [3, 5, 0, 1]);
        let stats = receive.stats();
        assert_eq!((stats.lost, stats.duplicates, stats.turns), (1, 1, 1));
    }

    #[test]
    fn one_lie_about_the_place_does_not_last() {
        let mut receive = Receive::new(PATIENCE);
        receive.media(ms(0), &datagram(1 << 40, Some(1)));
        (0..2 * u64::from(STRAYS_MAX)).for_each(|n| receive.media(ms(0), &datagram(n, Some(1))));
        assert_eq!(
            played(&mut receive, ms(0)).last(),
            Some(&(2 * u64::from(STRAYS_MAX) - 1))
        );
    }

    #[test]
    fn bare_packets_are_played_as_they_come() {
        let mut receive = Receive::new(PATIENCE);
        for n in [4, 2, 3] {
            receive.media(ms(0), &packet(n));
        }
        assert_eq!(played(&mut receive, ms(0)), [4, 2, 3]);
        assert_eq!((receive.hole(), receive.place()), (None, None));
    }

    #[test]
    fn a_leap_is_no_hole_that_anybody_could_fill() {
        let mut receive = Receive::new(PATIENCE);
        receive.media(ms(0), &datagram(0, Some(1)));
        receive.media(ms(0), &datagram(HOLE_BYTES_MAX, Some(1)));
        assert_eq!(receive.hole(), None);
        receive.media(ms(0), &datagram(2, Some(1)));
        let hole = receive.hole().unwrap();
        assert_eq!((hole.from.at, hole.to), (PACKET as u64, 2 * PACKET as u64));
    }
}
