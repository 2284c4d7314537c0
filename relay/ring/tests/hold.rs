//! Holds over real memory, with a pipe in the part of the network card: `vmsplice` leaves references to pages in the
//! pipe, as a zero-copy send leaves them in a socket, and reading the pipe tells what the pages hold by then.
#![cfg(not(any(miri, feature = "loom")))]

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Barrier;

use proptest::prelude::*;
use relay_ring::{Holder, Reader, Ring, SEGMENTS, Writer};

const CAP: usize = Ring::CAPACITY_MIN;

fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8
}

fn stretch(at: u64, len: usize) -> Vec<u8> {
    (at..at + len as u64).map(byte).collect()
}

/// What the kernel was given and has not yet sent.
struct Flight {
    at: u64,
    len: u32,
    pages: OwnedFd,
}

impl Flight {
    fn new(bytes: &[u8], at: u64) -> Self {
        let (pages, entry) = nix::unistd::pipe().expect("a pipe");
        let vector = [IoSlice::new(bytes)];
        // SAFETY: an `IoSlice` is an `iovec` of memory that lives throughout the call; what the pipe refers to
        // afterwards are pages, not addresses.
        let given = unsafe {
            libc::vmsplice(
                entry.as_raw_fd(),
                vector.as_ptr().cast(),
                1,
                libc::SPLICE_F_NONBLOCK,
            )
        };
        assert_eq!(given, bytes.len() as isize, "the pipe is too short");
        Self {
            at,
            len: bytes.len() as u32,
            pages,
        }
    }

    /// Sends it: nothing of it may have changed.
    fn land(self, holder: &mut Holder) {
        let mut sent = vec![0; self.len as usize];
        File::from(self.pages).read_exact(&mut sent).expect("all of it");
        assert!(
            sent == stretch(self.at, sent.len()),
            "what was given at {} has changed",
            self.at
        );
        holder.release(self.at, self.len);
    }
}

/// Gives the kernel a stretch, as a batch does.
fn give(reader: &Reader, holder: &mut Holder, at: u64, len: u32) -> Flight {
    holder.hold(at, len);
    Flight::new(reader.bytes(at, len as usize), at)
}

fn fill(writer: &mut Writer, len: usize) {
    let bytes = stretch(writer.head(), len);
    assert_eq!(writer.append(&bytes), len, "the writer waits for nobody");
}

#[test]
fn what_is_held_stays_and_the_writer_goes_on() {
    let (mut writer, ring) = Ring::new(CAP, 2, 0).expect("memory");
    let (mut reader, mut holder) = (ring.reader(1), ring.holder(1));
    fill(&mut writer, 30_000);
    reader.pin(0).expect("all there");
    let flight = give(&reader, &mut holder, 9_000, 20_000);
    reader.unpin();
    assert_eq!((holder.held(), ring.version()), (20_000, 0));
    fill(&mut writer, CAP - 30_000);
    assert_eq!(ring.version(), 0, "nothing is lapped yet");
    fill(&mut writer, 10 * CAP);
    let touched = 29_000_usize.div_ceil(ring.segment()) - 9_000 / ring.segment();
    assert_eq!(
        ring.version(),
        touched as u64,
        "each segment once, not once in each lap"
    );
    flight.land(&mut holder);
    assert_eq!(holder.held(), 0);
}

#[test]
fn what_is_let_go_in_time_costs_no_renewal() {
    let (mut writer, ring) = Ring::new(CAP, 1, 0).expect("memory");
    let (mut reader, mut holder) = (ring.reader(0), ring.holder(0));
    for _ in 0..200 {
        let at = writer.head();
        fill(&mut writer, 5_001);
        reader.pin(at).expect("just written");
        let (first, second) = (
            give(&reader, &mut holder, at, 4_000),
            give(&reader, &mut holder, at + 10, 4_991),
        );
        reader.unpin();
        second.land(&mut holder);
        first.land(&mut holder);
    }
    assert_eq!(ring.version(), 0);
}

/// A hold that comes when half of its segment's memory is in use again: what was written of the new lap goes along.
#[test]
fn a_late_hold_renews_around_what_was_written() {
    let (mut writer, ring) = Ring::new(CAP, 2, 0).expect("memory");
    let (mut late, mut other, mut holder) = (ring.reader(0), ring.reader(1), ring.holder(0));
    let segment = ring.segment() as u64;
    let half = segment / 2;
    fill(&mut writer, 2 * segment as usize);
    late.pin(half).expect("all there");
    let upto = CAP as u64 + half;
    let rest = stretch(writer.head(), 2 * CAP);
    assert_eq!(writer.append(&rest) as u64, upto - 2 * segment, "up to the pin");
    let flight = give(&late, &mut holder, half, segment as u32);
    other.pin(CAP as u64 - 100).expect("in the window");
    let len = (upto - (CAP as u64 - 100)) as usize;
    let before = other.bytes(CAP as u64 - 100, len);
    late.unpin();
    assert_eq!(ring.version(), 0);
    fill(&mut writer, CAP / 2);
    assert_eq!(ring.version(), 2, "both segments that are held");
    assert_eq!(
        before,
        stretch(CAP as u64 - 100, len),
        "a slice over the seam, across the exchange"
    );
    flight.land(&mut holder);
}

/// In huge pages where the host has them (`sysctl vm.nr_hugepages=16`), in ordinary ones elsewhere.
#[test]
fn large_rings_hold_alike() {
    let (mut writer, ring) = Ring::new(16 << 20, 1, 0).expect("memory");
    let (mut reader, mut holder) = (ring.reader(0), ring.holder(0));
    let (capacity, segment) = (ring.capacity(), ring.segment());
    assert!(segment == capacity / SEGMENTS || segment == 2 << 20);
    let bytes = stretch(0, capacity);
    assert_eq!(writer.append(&bytes[..3 * segment]), 3 * segment);
    reader.pin(segment as u64).expect("all there");
    let early = give(&reader, &mut holder, 2 * segment as u64 - 9_000, 20_000);
    let half = 3 * segment / 2;
    let taken = writer.append(&bytes[3 * segment..]);
    reader.unpin();
    reader.pin(half as u64).expect_err("out of the window by now");
    assert_eq!(writer.append(&bytes[..half]), half);
    assert_eq!((taken, ring.version()), (capacity - 3 * segment, 1));
    let at = (capacity + segment) as u64;
    reader.pin(at).expect("just written");
    assert!(reader.bytes(at, half - segment) == &bytes[segment..half]);
    early.land(&mut holder);
}

#[test]
fn a_dropped_holder_holds_nothing() {
    let (mut writer, ring) = Ring::new(CAP, 1, 0).expect("memory");
    let mut reader = ring.reader(0);
    fill(&mut writer, 1_000);
    reader.pin(0).expect("all there");
    let mut holder = ring.holder(0);
    holder.hold(0, 1_000);
    drop(holder);
    reader.unpin();
    fill(&mut writer, 2 * CAP);
    assert_eq!(ring.version(), 0);
}

#[test]
fn a_ring_says_where_it_lies() {
    let (mut writer, ring) = Ring::new(CAP, 1, 7).expect("memory");
    let (_, other) = Ring::new(CAP, 1, 7).expect("memory");
    assert_ne!(ring.id(), other.id());
    assert_eq!(ring.id(), ring.clone().id());
    assert_eq!(ring.segment(), ring.capacity() / SEGMENTS);
    let (start, length) = ring.mapping();
    assert_eq!(length, 2 * ring.capacity());
    fill(&mut writer, CAP);
    let mut reader = ring.reader(0);
    let at = ring.floor() + 1;
    reader.pin(at).expect("in the window");
    let there = reader.bytes(at, 1).as_ptr() as usize;
    assert_eq!(there, start.as_ptr() as usize + ring.offset(at));
    assert_eq!(ring.offset(at + 5 * CAP as u64), ring.offset(at));
}

/// A worker that gives away all it reads and gets it back late, newest first, while the writer goes round and round.
/// The writer has written something; it goes on when all workers have given something away, to be kept to the end.
fn work(ring: &Ring, slot: usize, total: u64, begin: &Barrier) {
    let (mut reader, mut holder) = (ring.reader(slot), ring.holder(slot));
    reader.pin(0).expect("the writer waits");
    let first = give(&reader, &mut holder, 0, 1_000);
    reader.unpin();
    begin.wait();
    let (mut cursor, mut out) = (0, Vec::new());
    while cursor < total {
        match reader.pin(cursor) {
            Err(lapped) => cursor = lapped.floor.max(cursor),
            Ok(head) => {
                let len = (head - cursor).min(7_000) as u32;
                if len > 0 {
                    assert!(reader.bytes(cursor, len as usize) == stretch(cursor, len as usize));
                    out.push(give(&reader, &mut holder, cursor, len));
                }
                cursor += u64::from(len);
            }
        }
        reader.unpin();
        if out.len() > 20 {
            out.drain(5..).rev().for_each(|flight| flight.land(&mut holder));
        }
        if out.len() == 5 && cursor % 3 == 0 {
            out.drain(..).for_each(|flight| flight.land(&mut holder));
        }
    }
    out.into_iter()
        .chain([first])
        .for_each(|flight| flight.land(&mut holder));
    assert_eq!(holder.held(), 0);
}

#[test]
fn workers_on_other_threads_hold_while_the_writer_laps() {
    let (mut writer, ring) = Ring::new(CAP, 3, 0).expect("memory");
    let total = 48 * CAP as u64;
    let begin = Barrier::new(4);
    fill(&mut writer, 1_316);
    std::thread::scope(|scope| {
        for slot in 0..3 {
            let (ring, begin) = (&ring, &begin);
            scope.spawn(move || work(ring, slot, total, begin));
        }
        begin.wait();
        while writer.head() < total {
            let bytes = stretch(writer.head(), 1_316.min((total - writer.head()) as usize));
            let mut taken = 0;
            while taken < bytes.len() {
                taken += writer.append(&bytes[taken..]);
            }
        }
    });
    assert!(
        ring.version() > 0,
        "the first of it was held for longer than a lap"
    );
}

#[derive(Clone, Debug)]
enum Act {
    Append(usize),
    /// Pins what lies this far behind the head.
    Pin(usize, u64),
    Unpin(usize),
    /// Gives the kernel this much, from this far behind what was seen.
    Give(usize, u64, u32),
    /// Of those in flight, one lands.
    Land(usize),
    Skip(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (1..9_000usize).prop_map(Act::Append),
        4 => (0..2usize, 0..CAP as u64).prop_map(|(slot, back)| Act::Pin(slot, back)),
        3 => (0..2usize).prop_map(Act::Unpin),
        6 => (0..2usize, 0..CAP as u64, 1..12_000u32).prop_map(|(slot, back, len)| Act::Give(slot, back, len)),
        3 => (0..64usize).prop_map(Act::Land),
        1 => prop_oneof![0..3_000u64, 0..200_000u64].prop_map(Act::Skip),
    ]
}

/// What there ought to be.
struct World {
    writer: Writer,
    ring: Ring,
    readers: Vec<Reader>,
    holders: Vec<Holder>,
    flights: Vec<(usize, Flight)>,
}

impl World {
    fn new(start: u64) -> Self {
        let (writer, ring) = Ring::new(CAP, 2, start).expect("memory");
        Self {
            writer,
            readers: (0..2).map(|slot| ring.reader(slot)).collect(),
            holders: (0..2).map(|slot| ring.holder(slot)).collect(),
            flights: Vec::new(),
            ring,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Append(len) => self.append(len),
            Act::Pin(slot, back) => {
                let at = self.writer.head().saturating_sub(back);
                let lapped = at < self.ring.floor();
                assert_eq!(self.readers[slot].pin(at).is_err(), lapped);
            }
            Act::Unpin(slot) => self.readers[slot].unpin(),
            Act::Give(slot, back, len) => self.give(slot, back, len),
            Act::Land(n) if !self.flights.is_empty() => {
                let (slot, flight) = self.flights.swap_remove(n % self.flights.len());
                flight.land(&mut self.holders[slot]);
            }
            Act::Land(_) => {}
            Act::Skip(by) => self.writer.skip_to(self.writer.head() + by),
        }
        self.check();
    }

    fn append(&mut self, len: usize) {
        let (head, before) = (self.writer.head(), self.ring.version());
        let oldest = self.readers.iter().map(Reader::pinned).min().expect("readers");
        let taken = self.writer.append(&stretch(head, len));
        // What a segment laps may be held beside a pin: then its first byte is the limit, without one the pin is.
        let segment = self.ring.segment() as u64;
        let limit = (oldest / segment * segment).saturating_add(CAP as u64);
        assert!(
            taken == len || head + taken as u64 >= limit,
            "only a pin stops the writer"
        );
        assert!(head + taken as u64 <= oldest.saturating_add(CAP as u64).max(head));
        let touched = (len as u64 + 8 * 1024) / segment + 2;
        assert!(self.ring.version() - before <= touched);
    }

    fn give(&mut self, slot: usize, back: u64, len: u32) {
        let (reader, holder) = (&self.readers[slot], &mut self.holders[slot]);
        let at = reader.seen().saturating_sub(back).max(reader.pinned());
        if at >= reader.seen() || self.flights.len() >= 40 {
            return;
        }
        let len = len.min((reader.seen() - at) as u32);
        self.flights.push((slot, give(reader, holder, at, len)));
    }

    fn check(&self) {
        for reader in self
            .readers
            .iter()
            .filter(|reader| reader.pinned() < reader.seen())
        {
            let len = (reader.seen() - reader.pinned()) as usize;
            assert!(reader.bytes(reader.pinned(), len) == stretch(reader.pinned(), len));
        }
        for (slot, holder) in self.holders.iter().enumerate() {
            let flights = self.flights.iter().filter(|(s, _)| *s == slot);
            assert_eq!(
                holder.held(),
                flights.map(|(_, flight)| u64::from(flight.len)).sum()
            );
        }
        assert_eq!(self.ring.head(), self.writer.head());
        assert!(self.ring.head().saturating_sub(self.ring.floor()) <= self.ring.window());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_read_or_held_ever_changes(
        start in prop_oneof![Just(0), 0..200_000u64, (1u64 << 40)..(1 << 41)],
        acts in prop::collection::vec(act(), 1..160),
    ) {
        let mut world = World::new(start);
        acts.into_iter().for_each(|act| world.act(act));
        while !world.flights.is_empty() {
            world.act(Act::Land(0));
        }
        (0..2).for_each(|slot| world.act(Act::Unpin(slot)));
        // Now nothing is in the writer's way, and nothing needs to be renewed any more.
        let version = world.ring.version();
        (0..20).for_each(|_| world.act(Act::Append(8_000)));
        prop_assert_eq!(world.ring.version(), version);
    }
}
