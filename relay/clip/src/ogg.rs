//! Ogg (RFC 3533), paced by granule positions.
//!
//! A loop of one logical stream is a chain (RFC 3533, section 4): each round is a link with a serial number of its
//! own, as radio stations send it. Several streams at once (a picture with sound) are stitched instead, since many
//! players stop where such a chain has its next link: headers once, granule positions and page numbers go on.

mod codec;
mod page;

use std::collections::HashMap;

use codec::Codec;
use page::Page;

use crate::clock::{Clock, STEP_MAX_NS};
use crate::error::Fault;
use crate::format::{Format, Input, SCAN_MAX, Step};
use crate::out::Out;
use crate::span::Span;

const BITS: u32 = 64;
/// Logical streams in one link; more are played but not looked at.
const STREAMS_MAX: usize = 64;
/// Added to the serial numbers per round of a chain: odd, so that it takes 2^32 rounds to come back to one.
const SERIAL_STEP: u32 = 0x9E37_79B1;
/// Between stitched rounds. The last page of sound tells less than its packets hold (the rest is to be cut off),
/// and the first packet of the next round, no longer the first of its stream, yields sound as well: with two of
/// the longest blocks of Vorbis nothing overlaps.
const STITCH_NS: u64 = 50_000_000;

/// An Ogg file.
#[derive(Default)]
pub(crate) struct Ogg {
    streams: HashMap<u32, Stream>,
    /// Where the link began and where the pages so far end, in ns.
    link_ns: u64,
    end_ns: u64,
    in_data: bool,
    serial_shift: u32,
    /// Rounds of several streams go on where the last one ended, this much later; none for a chain.
    stitch_ns: Option<u64>,
    later_round: bool,
    scanned: u64,
    timed: bool,
}

/// A logical stream.
struct Stream {
    /// None where its granule positions cannot be read.
    codec: Option<Codec>,
    clock: Clock,
    headers_left: u32,
    /// Only if stitched: the next page's number, and what was measured in this round.
    sequence: u32,
    span: Option<Span>,
}

impl Format for Ogg {
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        let data = input.data;
        if !b"OggS\0".starts_with(&data[..data.len().min(5)]) {
            return self.scan(data, out);
        }
        let Some(size) = Page::len(data) else {
            return Ok(Step::More);
        };
        let Some(page) = data.get(..size).map(Page) else {
            return Ok(Step::More);
        };
        self.scanned = 0;
        if page.begins() {
            self.begin(&page);
        }
        self.play(&page, out);
        Ok(Step::Took(size))
    }

    fn end_round(&mut self) -> Result<(), Fault> {
        if !self.timed {
            return Err(Fault::NoClock);
        }
        self.scanned = 0;
        self.later_round = true;
        match &mut self.stitch_ns {
            Some(stitch_ns) => {
                let spans = self.streams.values_mut().filter_map(|stream| stream.span.take());
                let round = spans.map(|span| span.reach()).max().unwrap_or_default();
                *stitch_ns = stitch_ns.saturating_add(round).saturating_add(STITCH_NS);
            }
            None => {
                self.serial_shift = self.serial_shift.wrapping_add(SERIAL_STEP);
                // The next page begins a link, whether it says so or not.
                self.in_data = true;
            }
        }
        Ok(())
    }
}

impl Ogg {
    fn scan(&mut self, data: &[u8], out: &mut Out) -> Result<Step, Fault> {
        let n = data[1..]
            .iter()
            .position(|&byte| byte == b'O')
            .map_or(data.len(), |n| n + 1);
        self.scanned += n as u64;
        out.skip(n);
        if self.scanned > SCAN_MAX {
            Err(Fault::NotThis(self.scanned))
        } else {
            Ok(Step::Took(n))
        }
    }

    /// A logical stream begins; after data pages, it begins a new link.
    fn begin(&mut self, page: &Page<'_>) {
        let serial = page.serial();
        if let Some(stream) = self.stitched(serial) {
            stream.headers_left = stream.codec.and_then(|codec| codec.headers).unwrap_or_default();
            return;
        }
        if std::mem::replace(&mut self.in_data, false) {
            // A file that is a chain itself stays one.
            self.stitch_ns = None;
            self.streams.clear();
            self.link_ns = self.end_ns;
        }
        if self.streams.len() < STREAMS_MAX {
            self.streams
                .insert(serial, Stream::new(Codec::read(page.body()), self.link_ns));
        }
    }

    /// A stream that goes on in this round.
    fn stitched(&mut self, serial: u32) -> Option<&mut Stream> {
        let stitched = self.later_round && self.stitch_ns.is_some();
        self.streams.get_mut(&serial).filter(|_| stitched)
    }

    fn play(&mut self, page: &Page<'_>, out: &mut Out) {
        let serial = page.serial();
        let Some(stream) = self.streams.get_mut(&serial) else {
            return self.pass(page, self.end_ns.max(self.link_ns), out);
        };
        let due_ns = stream.clock.due_ns();
        if stream.is_header(page) {
            // In stitched rounds only the first has headers.
            if self.stitch_ns.is_none() || !self.later_round {
                stream.sequence = stream.sequence.wrapping_add(1);
                self.pass(page, due_ns, out);
            }
            return;
        }
        self.first_data();
        match self.stitch_ns {
            Some(stitch_ns) => self.stitch(page, stitch_ns, out),
            None => self.chain(page, out),
        }
    }

    /// With the first data page of a round it is known how many streams there are.
    fn first_data(&mut self) {
        let first = !std::mem::replace(&mut self.in_data, true);
        let known = || {
            self.streams
                .values()
                .all(|stream| stream.codec.is_some_and(|codec| codec.headers.is_some()))
        };
        if first && !self.later_round && self.link_ns == 0 && self.streams.len() > 1 && known() {
            self.stitch_ns = Some(0);
        }
    }

    fn chain(&mut self, page: &Page<'_>, out: &mut Out) {
        let Some(stream) = self.streams.get_mut(&page.serial()) else {
            return;
        };
        let due_ns = stream.clock.due_ns();
        if let Some(ns) = stream.end_of(page) {
            self.end_ns = self.end_ns.max(stream.clock.see(ns));
            self.timed = true;
        }
        self.pass(page, due_ns, out);
    }

    fn stitch(&mut self, page: &Page<'_>, stitch_ns: u64, out: &mut Out) {
        let Some(stream) = self.streams.get_mut(&page.serial()) else {
            return;
        };
        let due_ns = stream.clock.due_ns();
        if let Some(ns) = stream.end_of(page) {
            stream.measure(ns);
            self.end_ns = self.end_ns.max(stream.clock.see(ns.saturating_add(stitch_ns)));
            self.timed = true;
        }
        let codec = stream.codec;
        let granule = page
            .granule()
            .map(|granule| codec.map_or(granule, |codec| codec.later(granule, stitch_ns)));
        out.put(due_ns, &page.moved(granule, stream.sequence));
        stream.sequence = stream.sequence.wrapping_add(1);
    }

    /// As it is, but for the serial number of the round.
    fn pass(&self, page: &Page<'_>, due_ns: u64, out: &mut Out) {
        match self.serial_shift {
            0 => out.put(due_ns, page.0),
            shift => out.put(due_ns, &page.renamed(page.serial().wrapping_add(shift))),
        }
    }
}

impl Stream {
    fn new(codec: Option<Codec>, link_ns: u64) -> Self {
        let mut clock = Clock::new(1_000_000_000, BITS, link_ns);
        clock.see(0);
        // Where it is not said how many headers there are, the granule position 0 tells them.
        let headers_left = codec.and_then(|codec| codec.headers).unwrap_or(u32::MAX);
        Self {
            codec,
            clock,
            headers_left,
            sequence: 0,
            span: None,
        }
    }

    /// Counts a page's packets off the headers that are to come.
    fn is_header(&mut self, page: &Page<'_>) -> bool {
        let header = match self.headers_left {
            u32::MAX => page.begins() || page.granule() == Some(0),
            left => left > 0,
        };
        if self.headers_left != u32::MAX {
            self.headers_left = self.headers_left.saturating_sub(page.packets());
        }
        header
    }

    /// Where a page ends, in ns. A page is due at the end of the page before it.
    fn end_of(&self, page: &Page<'_>) -> Option<u64> {
        Some(self.codec?.ns(page.granule()?))
    }

    /// A stream begins at zero unless its first page ends much later: then it was cut out of a longer one.
    fn measure(&mut self, ns: u64) {
        let first = if ns <= STEP_MAX_NS { 0 } else { ns };
        self.span.get_or_insert_with(|| Span::new(first, BITS)).see(ns);
    }
}
