//! Ogg (RFC 3533): paced by granule positions; each round is a new link of a chain, with serial numbers of its own.

use std::collections::HashMap;

use crate::bytes::{be, le, len};
use crate::clock::Clock;
use crate::error::Fault;
use crate::format::{Format, Input, SCAN_MAX, Step};
use crate::out::Out;

/// A page's header without its segment table.
const HEAD: usize = 27;
const BEGIN: u8 = 2;
/// Logical streams in one link; more are played but not looked at.
const STREAMS_MAX: usize = 64;
/// Added to the serial numbers per round: odd, so that it takes 2^32 rounds to come back to one.
const SERIAL_STEP: u32 = 0x9E37_79B1;

/// An Ogg file.
#[derive(Default)]
pub(crate) struct Ogg {
    streams: HashMap<u32, Stream>,
    /// Where the link began and where the pages so far end, in ns.
    link_ns: u64,
    end_ns: u64,
    in_data: bool,
    serial_shift: u32,
    scanned: u64,
    timed: bool,
}

/// A logical stream with granule positions that we can read.
struct Stream {
    codec: Codec,
    clock: Clock,
}

/// How granule positions are time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    /// Samples, of which the first `skip` are before time zero.
    Samples { per_s: u64, skip: u64 },
    /// The number of a key frame, shifted, and the pictures since.
    Frames { num: u64, den: u64, shift: u32 },
}

impl Format for Ogg {
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        let data = input.data;
        if !b"OggS\0".starts_with(&data[..data.len().min(5)]) {
            return self.scan(data, out);
        }
        let Some(size) = page_len(data) else {
            return Ok(Step::More);
        };
        let Some(page) = data.get(..size) else {
            return Ok(Step::More);
        };
        self.scanned = 0;
        let due = self.page(page);
        out.put(due, &self.renamed(page));
        Ok(Step::Took(size))
    }

    fn end_round(&mut self) -> Result<(), Fault> {
        self.serial_shift = self.serial_shift.wrapping_add(SERIAL_STEP);
        self.scanned = 0;
        // The next page begins a link, whether it says so or not.
        self.in_data = true;
        if self.timed { Ok(()) } else { Err(Fault::NoClock) }
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

    /// When a page is due: at the end of its stream's page before, since a granule position is the end of a page.
    fn page(&mut self, page: &[u8]) -> u64 {
        let serial = le(page, 14, 4).unwrap_or_default() as u32;
        if page[5] & BEGIN != 0 {
            self.begin(serial, page);
            return self.link_ns;
        }
        let granule = le(page, 6, 8).unwrap_or(u64::MAX);
        let Some(stream) = self.streams.get_mut(&serial) else {
            return self.end_ns.max(self.link_ns);
        };
        let due = stream.clock.due_ns();
        // Header pages have granule 0; a page on which no packet ends has -1.
        if granule == u64::MAX || (granule == 0 && !self.in_data) {
            return due;
        }
        self.in_data = true;
        self.timed = true;
        let ticks = stream.codec.ticks(granule);
        self.end_ns = self.end_ns.max(stream.clock.see(ticks));
        due
    }

    /// A logical stream begins; after data pages, it begins a new link.
    fn begin(&mut self, serial: u32, page: &[u8]) {
        if std::mem::replace(&mut self.in_data, false) {
            self.streams.clear();
            self.link_ns = self.end_ns;
        }
        let body = HEAD + usize::from(page[26]);
        let codec = page.get(body..).and_then(Codec::read);
        let Some(codec) = codec.filter(|_| self.streams.len() < STREAMS_MAX) else {
            return;
        };
        let mut clock = Clock::new(codec.per_s(), 64, self.link_ns);
        clock.see(0);
        self.streams.insert(serial, Stream { codec, clock });
    }

    /// The page with the serial number of this round.
    fn renamed(&self, page: &[u8]) -> Vec<u8> {
        let mut page = page.to_vec();
        if self.serial_shift != 0 {
            let serial = le(&page, 14, 4).unwrap_or_default() as u32;
            page[14..18].copy_from_slice(&serial.wrapping_add(self.serial_shift).to_le_bytes());
            page[22..26].fill(0);
            let sum = crc(&page);
            page[22..26].copy_from_slice(&sum.to_le_bytes());
        }
        page
    }
}

impl Codec {
    /// The codec by the first packet of its stream.
    fn read(packet: &[u8]) -> Option<Self> {
        let samples = |per_s, skip| (per_s > 0).then_some(Codec::Samples { per_s, skip });
        if packet.starts_with(b"\x01vorbis") {
            samples(le(packet, 12, 4)?, 0)
        } else if packet.starts_with(b"OpusHead") {
            samples(48_000, le(packet, 10, 2)?)
        } else if packet.starts_with(b"\x7FFLAC") {
            samples(be(packet, 27, 3)? >> 4, 0)
        } else if packet.starts_with(b"Speex   ") {
            samples(le(packet, 36, 4)?, 0)
        } else if packet.starts_with(b"\x80theora") {
            let (num, den) = (be(packet, 22, 4)?, be(packet, 26, 4)?);
            let shift = (be(packet, 40, 2)? >> 5 & 31) as u32;
            (num > 0 && den > 0).then_some(Codec::Frames { num, den, shift })
        } else {
            None
        }
    }

    fn per_s(self) -> u64 {
        match self {
            Codec::Samples { per_s, .. } => per_s,
            Codec::Frames { .. } => 1_000_000_000,
        }
    }

    /// A granule position as ticks of [`Codec::per_s`].
    fn ticks(self, granule: u64) -> u64 {
        match self {
            Codec::Samples { skip, .. } => granule.saturating_sub(skip),
            Codec::Frames { num, den, shift } => {
                let frames = (granule >> shift) + (granule & ((1 << shift) - 1));
                let ns = u128::from(frames) * u128::from(den) * 1_000_000_000 / u128::from(num);
                u64::try_from(ns).unwrap_or(u64::MAX)
            }
        }
    }
}

/// The length of the page that begins here; none where its segment table is not all there.
fn page_len(data: &[u8]) -> Option<usize> {
    let segments = len(data, 26, 1)?;
    let table = data.get(HEAD..HEAD + segments)?;
    Some(HEAD + segments + table.iter().map(|&n| usize::from(n)).sum::<usize>())
}

/// The page's check sum: polynomial 0x04C11DB7, not reflected, starting from zero.
fn crc(page: &[u8]) -> u32 {
    page.iter().fold(0, |sum, &byte| {
        sum << 8 ^ CRC[(sum >> 24) as usize ^ usize::from(byte)]
    })
}

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut sum = (i as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum >> 31 == 1 {
                sum << 1 ^ 0x04C1_1DB7
            } else {
                sum << 1
            };
            bit += 1;
        }
        table[i] = sum;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sum_is_that_of_ogg() {
        // CRC-32 with this polynomial, unreflected, from zero and without a final xor.
        assert_eq!(crc(b"123456789"), 0x89A1_897F);
        assert_eq!(crc(&[]), 0);
    }

    #[test]
    fn granules_of_each_codec() {
        let mut opus = b"OpusHead\x01\x02\x38\x01".to_vec();
        opus.resize(19, 0);
        let opus = Codec::read(&opus).unwrap();
        assert_eq!(
            (opus.per_s(), opus.ticks(312 + 480), opus.ticks(0)),
            (48_000, 480, 0)
        );
        let mut theora = b"\x80theora".to_vec();
        theora.resize(42, 0);
        theora[25] = 25;
        theora[29] = 1;
        theora[40..42].copy_from_slice(&[0, 6 << 5]);
        let theora = Codec::read(&theora).unwrap();
        assert_eq!(
            theora,
            Codec::Frames {
                num: 25,
                den: 1,
                shift: 6
            }
        );
        assert_eq!(theora.ticks(24 << 6 | 1), 1_000_000_000);
        assert_eq!(Codec::read(b"\x01vorbis"), None);
        assert_eq!(Codec::read(b"fishead\0"), None);
    }
}
