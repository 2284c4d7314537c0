//! The scanner: drives one parser over slices of any size.
//!
//! The parser looks into the caller's slice directly. Only when a unit is cut by the end of a slice are its bytes
//! carried over, and as soon as the next slice holds all that is left, the carry is dropped again.

use crate::flv::Flv;
use crate::frames::Frames;
use crate::mp4::Mp4;
use crate::ogg::Ogg;
use crate::step::{Found, Ledger, Parser, Step};
use crate::ts::Ts;
use crate::webm::WebM;
use crate::{HEADER_MAX, Kind, Mark, Stats};

/// A carry larger than this gives its memory back when it is empty, in bytes.
const CARRY_KEPT: usize = 4 << 10;

/// Watches one stream and finds its headers and join points.
#[derive(Debug)]
pub struct Scanner {
    kind: Kind,
    grammar: Grammar,
    /// Position of the next byte to look at; beyond `fed` while a long unit is passed over.
    at: u64,
    fed: u64,
    carry: Carry,
    need: usize,
    stats: Stats,
    ledger: Ledger,
}

#[derive(Debug)]
enum Grammar {
    Ts(Box<Ts>),
    Flv(Flv),
    Ogg(Ogg),
    WebM(WebM),
    Mp4(Mp4),
    Frames(Frames),
    Opaque,
}

impl Scanner {
    /// A scanner at position 0 of a stream.
    pub fn new(kind: Kind) -> Scanner {
        let grammar = match kind {
            Kind::MpegTs => Grammar::Ts(Box::default()),
            Kind::Flv => Grammar::Flv(Flv::default()),
            Kind::Ogg => Grammar::Ogg(Ogg::default()),
            Kind::WebM => Grammar::WebM(WebM::default()),
            Kind::Mp4 => Grammar::Mp4(Mp4::default()),
            Kind::Mp3 => Grammar::Frames(Frames::mp3()),
            Kind::Adts => Grammar::Frames(Frames::adts()),
            Kind::Other => Grammar::Opaque,
        };
        let (at, fed, need) = (0, 0, 0);
        let (carry, stats, ledger) = (Carry::default(), Stats::default(), Ledger::default());
        Scanner {
            kind,
            grammar,
            at,
            fed,
            carry,
            need,
            stats,
            ledger,
        }
    }

    /// The container this scanner reads.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes fed so far.
    pub fn position(&self) -> u64 {
        self.fed
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Looks at the next bytes of the stream; appends what it found, in order of position.
    pub fn feed(&mut self, bytes: &[u8], marks: &mut Vec<Mark>) {
        let start = self.fed;
        self.fed += bytes.len() as u64;
        if matches!(self.grammar, Grammar::Opaque) {
            self.at = self.fed;
        }
        while self.at < self.fed {
            let more = match self.carry.is_empty() {
                true => self.walk(&bytes[(self.at - start) as usize..], marks),
                false => self.walk_carry(bytes, start, marks),
            };
            if !more {
                return;
            }
        }
    }

    /// One step over the caller's own bytes; `false` when they are used up.
    fn walk(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> bool {
        match self.step(data, marks) {
            Step::Take(len) => self.at += len,
            Step::Need(len) => {
                self.carry.extend(data);
                self.need = len;
                return false;
            }
        }
        true
    }

    /// One step over a unit that began in an earlier slice; `false` when this slice does not complete it.
    fn walk_carry(&mut self, bytes: &[u8], start: u64, marks: &mut Vec<Mark>) -> bool {
        let used = (self.at + self.carry.len() as u64 - start) as usize;
        let missing = self.need.saturating_sub(self.carry.len()).min(bytes.len() - used);
        self.carry.extend(&bytes[used..used + missing]);
        if self.carry.len() < self.need {
            return false;
        }
        let carry = std::mem::take(&mut self.carry);
        let step = self.step(carry.bytes(), marks);
        self.carry = carry;
        match step {
            Step::Take(len) => self.drop_carry(len, start),
            Step::Need(len) => self.need = len,
        }
        true
    }

    fn drop_carry(&mut self, len: u64, start: u64) {
        self.at += len;
        // What is left in the carry came from this slice when it begins there: then look at the slice instead.
        if self.at >= start || len >= self.carry.len() as u64 {
            self.carry.clear();
        } else {
            self.carry.advance(len as usize);
        }
        self.need = 0;
    }

    fn step(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> Step {
        let mut found = Found {
            marks,
            stats: &mut self.stats,
            ledger: &mut self.ledger,
        };
        let step = match &mut self.grammar {
            Grammar::Ts(parser) => parser.step(data, self.at, &mut found),
            Grammar::Flv(parser) => parser.step(data, self.at, &mut found),
            Grammar::Ogg(parser) => parser.step(data, self.at, &mut found),
            Grammar::WebM(parser) => parser.step(data, self.at, &mut found),
            Grammar::Mp4(parser) => parser.step(data, self.at, &mut found),
            Grammar::Frames(parser) => parser.step(data, self.at, &mut found),
            Grammar::Opaque => Step::Take(data.len() as u64),
        };
        // A parser that asks for what it has, for more than is ever kept, or for nothing, would stand still.
        let sound = match step {
            Step::Take(len) => len > 0,
            Step::Need(len) => len > data.len() && len <= HEADER_MAX,
        };
        debug_assert!(
            sound,
            "{:?}: {step:?} with {} bytes at {}",
            self.kind,
            data.len(),
            self.at
        );
        if sound { step } else { found.skip(1) }
    }
}

/// The bytes of a unit that was cut; its front can be dropped cheaply.
#[derive(Default, Debug)]
struct Carry {
    bytes: Vec<u8>,
    front: usize,
}

impl Carry {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.front..]
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.front
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn extend(&mut self, more: &[u8]) {
        // Moving the rest down only when at least as much was dropped keeps the work linear.
        if self.front > self.len() {
            self.bytes.drain(..self.front);
            self.front = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    fn advance(&mut self, len: usize) {
        self.front += len;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.front = 0;
        self.bytes.shrink_to(CARRY_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beginnings of units that claim to be long.
    const LONG: [(Kind, &[u8]); 6] = [
        (Kind::Mp4, b"\0\x0F\xFF\xFFmoov"),
        (Kind::Mp4, b"\0\x0F\xFF\xFFftyp"),
        (Kind::WebM, b"\x1A\x45\xDF\xA3\x2F\x00\x00\x42\x86\x81\x01"),
        (Kind::Flv, b"\x12\xFF\xFF\xFF\0\0\0\0\0\0\0\x02\0\x0AonMetaData"),
        (
            Kind::Ogg,
            b"OggS\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xFF\xFF\xFF\xFF\xFF",
        ),
        (Kind::MpegTs, b"\x47\x47\x47"),
    ];

    #[test]
    fn what_is_carried_is_bounded_and_given_back() {
        for (kind, long) in LONG {
            let (mut scanner, mut marks) = (Scanner::new(kind), Vec::new());
            scanner.feed(long, &mut marks);
            for _ in 0..2 * HEADER_MAX / 1000 {
                scanner.feed(&[0xFF; 1000], &mut marks);
                assert!(scanner.carry.len() <= HEADER_MAX, "{kind:?}");
            }
            assert!(marks.is_empty());
            assert!(
                scanner.carry.bytes.capacity() <= CARRY_KEPT,
                "{kind:?}: {:?}",
                scanner.stats
            );
        }
    }

    #[test]
    fn a_carried_unit_ends_in_the_slice_that_completes_it() {
        let mut scanner = Scanner::new(Kind::Mp3);
        let frame = [&[0xFF, 0xFB, 0x90, 0x64][..], &[0; 413]].concat();
        let mut marks = Vec::new();
        for _ in 0..20 {
            scanner.feed(&frame, &mut marks);
        }
        // Only what the last slice left open: the frame that no next header has confirmed.
        assert_eq!(scanner.carry.len(), frame.len());
        assert!(marks.len() > 5);
    }
}
