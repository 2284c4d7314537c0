//! Metadata framing: the stream with a metadata block after every so many bytes, framed once for all listeners.
//!
//! The interval runs on the ring, not on each listener. A newcomer starts at a join point, which lies anywhere within
//! an interval, and expects its first block a whole interval later; what is missing is filled with bytes that every
//! decoder of these formats skips: an ID3v2 tag of just the right length. From then on it is in phase with
//! everybody, and its bytes come from the ring.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use relay_media::Kind;
use relay_ring::{Ring, Writer};
use relay_wire::icy::{EMPTY_BLOCK, METAINT, block};

/// The smallest ID3v2 tag: its head.
const TAG_MIN: usize = 10;

/// Whether channels of a kind carry metadata blocks when asked: those whose players expect it, and can skip a tag.
pub(crate) fn carries(kind: Kind) -> bool {
    matches!(kind, Kind::Mp3 | Kind::Adts)
}

/// Where intervals begin: position in the stream, and in the framed ring. Looked up when somebody joins.
#[derive(Debug, Default)]
pub(crate) struct Phases(RwLock<VecDeque<Phase>>);

/// The beginning of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// Position in the stream.
    pub(crate) raw: u64,
    /// Position in the framed ring.
    pub(crate) framed: u64,
}

impl Phases {
    /// Remembers an interval, and forgets those that nobody needs: a laggard may be a window behind the floor
    /// when it is found out.
    fn push(&self, phase: Phase, ring: &Ring) {
        let floor = ring.floor().saturating_sub(ring.window());
        let mut phases = self.0.write().unwrap_or_else(PoisonError::into_inner);
        while phases.len() > 1 && phases[1].framed <= floor {
            phases.pop_front();
        }
        phases.push_back(phase);
    }

    /// The interval that a stream position lies in.
    pub(crate) fn around(&self, raw: u64) -> Option<Phase> {
        let phases = self.0.read().unwrap_or_else(PoisonError::into_inner);
        phases
            .iter()
            .rev()
            .find(|p| p.raw <= raw && raw < p.raw + METAINT as u64)
            .copied()
    }

    /// How many bytes into its interval a framed position is, blocks not counted; none inside a block.
    pub(crate) fn offset(&self, framed: u64) -> Option<usize> {
        self.place(framed)
            .map(|(offset, _)| offset)
            .filter(|offset| *offset <= METAINT)
    }

    /// The stream position of a framed one; none inside a block.
    pub(crate) fn raw(&self, framed: u64) -> Option<u64> {
        let offset = self.offset(framed)? as u64;
        let phases = self.0.read().unwrap_or_else(PoisonError::into_inner);
        phases
            .iter()
            .rev()
            .find(|p| p.framed + offset == framed)
            .map(|p| p.raw + offset)
    }

    /// The framed position of a stream position, for somebody who has had `had` bytes since the last block: the very
    /// same place in another framing of the same stream.
    pub(crate) fn framed(&self, raw: u64, had: usize) -> Option<u64> {
        let begin = raw.checked_sub(had as u64)?;
        let phases = self.0.read().unwrap_or_else(PoisonError::into_inner);
        phases
            .iter()
            .rev()
            .find(|p| p.raw == begin)
            .map(|p| p.framed + had as u64)
    }

    /// Where somebody goes on who has had `had` bytes since the last block and is to hear the stream from `at` on, and
    /// what comes before.
    pub(crate) fn join(&self, at: u64, had: usize) -> Option<(u64, Vec<u8>)> {
        let phase = self.around(at)?;
        Some((
            phase.framed + (at - phase.raw),
            bridge(had, &[], at, phase, &EMPTY_BLOCK),
        ))
    }

    /// Where intervals begin, modulo their length.
    pub(crate) fn alignment(&self) -> Option<u64> {
        let phases = self.0.read().unwrap_or_else(PoisonError::into_inner);
        phases.back().map(|p| p.raw % METAINT as u64)
    }

    /// Where somebody at `framed` goes who has lost the place: to the same place in the newest interval that has it,
    /// so that what the listener counts stays right. Inside a block, that is one with a block of the same length.
    pub(crate) fn same_place(&self, framed: u64, head: u64) -> Option<u64> {
        let (offset, len) = self.place(framed)?;
        let phases = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let ends = phases.iter().skip(1).map(|p| Some(p.framed)).chain([None]);
        let fits = |(phase, end): &(&Phase, Option<u64>)| {
            let same_block = offset <= METAINT || end.is_some_and(|end| Some(end - phase.framed) == len);
            phase.framed + offset as u64 <= head && same_block
        };
        let newest = phases.iter().zip(ends).filter(fits).last();
        newest
            .map(|(phase, _)| phase.framed + offset as u64)
            .filter(|to| *to > framed)
    }

    /// Offset into its interval, and the interval's length, block included, once it is over.
    fn place(&self, framed: u64) -> Option<(usize, Option<u64>)> {
        let phases = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let at = phases.iter().rposition(|p| p.framed <= framed)?;
        let len = phases.get(at + 1).map(|next| next.framed - phases[at].framed);
        let offset = usize::try_from(framed - phases[at].framed).ok()?;
        (offset <= METAINT || len.is_some()).then_some((offset, len))
    }
}

/// The hand that frames.
#[derive(Debug)]
pub(crate) struct IcyWriter {
    ring: Writer,
    /// Position in the stream of the next byte.
    raw: u64,
    /// Stream bytes until the next block.
    until: usize,
    block: Vec<u8>,
}

impl IcyWriter {
    /// Begins at stream position `raw` with a whole interval.
    pub(crate) fn new(ring: Writer, raw: u64, title: &str, phases: &Phases) -> Self {
        phases.push(
            Phase {
                raw,
                framed: ring.head(),
            },
            ring.ring(),
        );
        Self {
            ring,
            raw,
            until: METAINT,
            block: block(title, None),
        }
    }

    /// The title that blocks carry from the next on. Each block carries it: somebody is always new.
    pub(crate) fn set_title(&mut self, title: &str) {
        self.block = block(title, None);
    }

    /// Frames stream bytes. A ring that refuses (a reader held its pin for too long) gets a hole there.
    pub(crate) fn append(&mut self, mut bytes: &[u8], phases: &Phases) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.until));
            write_or_skip(&mut self.ring, now);
            self.raw += now.len() as u64;
            self.until -= now.len();
            bytes = later;
            if self.until == 0 {
                let block = std::mem::take(&mut self.block);
                write_or_skip(&mut self.ring, &block);
                self.block = block;
                self.until = METAINT;
                let phase = Phase {
                    raw: self.raw,
                    framed: self.ring.head(),
                };
                phases.push(phase, self.ring.ring());
            }
        }
    }

    /// A hole in the stream: the framed ring laps everybody and begins a new interval.
    pub(crate) fn skip_to(&mut self, raw: u64, phases: &Phases) {
        let to = self.ring.head() + 1;
        self.ring.skip_to(to);
        self.raw = raw;
        self.until = METAINT;
        phases.push(Phase { raw, framed: to }, self.ring.ring());
    }
}

/// Writes all of it, or leaves a hole of its length.
pub(crate) fn write_or_skip(ring: &mut Writer, bytes: &[u8]) {
    if ring.ready(bytes.len()) {
        ring.append(bytes);
    } else {
        let to = ring.head() + bytes.len() as u64;
        ring.skip_to(to);
    }
}

/// What brings a listener into phase: `had` bytes since its last block, about to be given `first` (a header),
/// then the ring from `raw` on, which lies in `phase`. Returns the bytes to send before the ring.
pub(crate) fn bridge(had: usize, first: &[u8], raw: u64, phase: Phase, empty_block: &[u8]) -> Vec<u8> {
    let gap_in_ring = (phase.raw + METAINT as u64 - raw) as usize;
    // Stream bytes to be sent before the ring, so that the listener's next block is the ring's: the header, and a tag.
    let mut pad = (2 * METAINT - gap_in_ring) as i64 - had as i64 - first.len() as i64;
    while pad >= METAINT as i64 + TAG_MIN as i64 {
        pad -= METAINT as i64;
    }
    while pad != 0 && pad < TAG_MIN as i64 {
        pad += METAINT as i64;
    }
    let mut stream = first.to_vec();
    stream.extend_from_slice(&id3_tag(pad as usize));
    interleave(had, &stream, empty_block)
}

/// An ID3v2.4 tag of just `len` bytes that says nothing; nothing at all for 0.
fn id3_tag(len: usize) -> Vec<u8> {
    if len < TAG_MIN {
        return Vec::new();
    }
    let body = len - TAG_MIN;
    let mut tag = vec![0; len];
    tag[..6].copy_from_slice(b"ID3\x04\0\0");
    for (i, byte) in tag[6..10].iter_mut().enumerate() {
        *byte = ((body >> (7 * (3 - i))) & 0x7f) as u8;
    }
    tag
}

/// Puts blocks where a listener expects them that has had `had` bytes since its last one.
fn interleave(mut had: usize, mut stream: &[u8], empty_block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stream.len() + 64);
    loop {
        if had == METAINT {
            out.extend_from_slice(empty_block);
            had = 0;
        }
        if stream.is_empty() {
            return out;
        }
        let (now, later) = stream.split_at(stream.len().min(METAINT - had));
        out.extend_from_slice(now);
        had += now.len();
        stream = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use relay_wire::icy::{Deinterleaver, Piece};

    fn id3_len(bytes: &[u8]) -> usize {
        if bytes.starts_with(b"ID3") {
            10 + bytes[6..10].iter().fold(0, |n, b| n << 7 | usize::from(*b))
        } else {
            0
        }
    }

    #[test]
    fn a_laggard_keeps_its_count() {
        let (writer, ring) = Ring::new(Ring::CAPACITY_MIN, 1, 0).unwrap();
        let phases = Phases::default();
        let mut icy = IcyWriter::new(writer, 0, "tune", &phases);
        let stream: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        icy.append(&stream, &phases);
        // 16,000 of stream and a block of 33: "StreamTitle='tune';" fits two sixteens, and the length byte.
        let period = METAINT as u64 + 1 + 32;
        for old in [3, 16_000, 16_010] {
            let to = phases.same_place(old, ring.head()).unwrap();
            assert!(old < ring.floor() && to >= ring.floor(), "{old} -> {to}");
            assert_eq!((to - old) % period, 0);
        }
    }

    proptest! {
        #[test]
        fn a_newcomer_anywhere_is_in_phase(at in 0u64..40_000, had in 0usize..=METAINT, first in 0usize..300) {
            let stream: Vec<u8> = (0..70_000u32).map(|i| (i % 251) as u8 | 1).collect();
            let (writer, ring) = Ring::new(1 << 18, 1, 0).unwrap();
            let phases = Phases::default();
            let mut icy = IcyWriter::new(writer, 0, "tune", &phases);
            for piece in stream.chunks(777) {
                icy.append(piece, &phases);
            }
            let phase = phases.around(at).unwrap();
            let header = vec![b'H'; first];
            let own = bridge(had, &header, at, phase, &[0]);
            let cursor = phase.framed + (at - phase.raw);
            let mut reader = ring.reader(0);
            let head = reader.pin(cursor).unwrap();
            let mut heard = vec![b'.'; had];
            heard.extend_from_slice(&own);
            heard.extend_from_slice(reader.bytes(cursor, (head - cursor) as usize));

            let (mut payload, mut titles) = (Vec::new(), Vec::new());
            Deinterleaver::new(METAINT).unwrap().feed(&heard, &mut |piece| match piece {
                Piece::Payload(bytes) => payload.extend_from_slice(bytes),
                Piece::Title(title) => titles.push(title.to_owned()),
            });
            let payload = &payload[had..];
            prop_assert!(payload.starts_with(&header));
            let payload = &payload[first..];
            prop_assert_eq!(&payload[id3_len(payload)..], &stream[at as usize..]);
            prop_assert!(titles.iter().all(|t| t == "tune"));
            prop_assert!(!titles.is_empty());
        }
    }
}
