//! Program specific information (ISO/IEC 13818-1, 2.4.4): sections out of packets and into packets again.

use super::{PACKET, Packet, SYNC};
use crate::crc::crc32;
use crate::mark::Stats;

/// `table_id` of the program association table.
pub(super) const PAT: u8 = 0x00;
/// `table_id` of a program map table.
pub(super) const PMT: u8 = 0x02;

/// The longest section of these tables: a length of at most 1021, and the three bytes before it.
const SECTION_MAX: usize = 1024;

/// A whole section with a good checksum; empty where there was none yet.
#[derive(Clone, Default, Debug)]
pub(super) struct Section {
    bytes: Vec<u8>,
    /// Continuity counter of its first packet.
    counter: u8,
}

impl Section {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn same(&self, other: &Section) -> bool {
        self.bytes == other.bytes
    }

    /// Of this table, valid now, and its first section: a table of several is not put together.
    pub(super) fn is_current(&self, table: u8) -> bool {
        self.bytes.len() >= 12 && self.bytes[0] == table && self.bytes[5] & 1 == 1 && self.bytes[6] == 0
    }

    /// The program number of a map table.
    pub(super) fn number(&self) -> u16 {
        self.bytes
            .get(3..5)
            .map_or(0, |two| u16::from_be_bytes([two[0], two[1]]))
    }

    /// Program numbers and the packet identifiers of their map tables (2.4.4.3).
    pub(super) fn programs(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        let entries = &self.bytes[8..self.bytes.len() - 4];
        let pairs = entries.as_chunks::<4>().0.iter();
        let pairs = pairs.map(|four| {
            (
                u16::from_be_bytes([four[0], four[1]]),
                u16::from_be_bytes([four[2] & 0x1F, four[3]]),
            )
        });
        // Program 0 is the network table; 0 to 15 and the null packet cannot carry a map table.
        pairs.filter(|(number, pid)| *number != 0 && (0x10..0x1FFF).contains(pid))
    }

    /// Stream types, packet identifiers and descriptors of a map table's streams (2.4.4.8).
    fn streams(&self) -> impl Iterator<Item = (u8, u16, &[u8])> {
        let body = self
            .bytes
            .get(12..self.bytes.len().saturating_sub(4))
            .unwrap_or_default();
        let length = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0] & 0x0F, bytes[1]]));
        let program_info = self.bytes.get(10..12).map_or(0, length);
        let mut rest = body.get(program_info..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_first_chunk::<5>()?;
            let (descriptors, tail) = tail.split_at_checked(length(&head[3..]))?;
            rest = tail;
            Some((
                head[0],
                u16::from_be_bytes([head[1] & 0x1F, head[2]]),
                descriptors,
            ))
        })
    }

    /// The section in packets of its own, each `unit` bytes long.
    pub(super) fn packets(&self, pid: u16, unit: usize) -> Vec<u8> {
        let payload = [&[0][..], &self.bytes].concat();
        let mut packets = Vec::new();
        for (i, part) in payload.chunks(PACKET - 4).enumerate() {
            let start = if i == 0 { 0x40 } else { 0 };
            let counter = self.counter.wrapping_add(i as u8) & 0x0F;
            let end = packets.len() + unit;
            packets.extend([SYNC, start | (pid >> 8) as u8, pid as u8, 0x10 | counter]);
            packets.extend(part);
            packets.resize(end - (unit - PACKET), 0xFF);
            packets.resize(end, 0);
        }
        packets
    }
}

/// Puts sections together that packets carry in pieces.
#[derive(Default, Debug)]
pub(super) struct Assembler {
    bytes: Vec<u8>,
    first_counter: u8,
    last_counter: Option<u8>,
    collecting: bool,
}

impl Assembler {
    pub(super) fn reset(&mut self) {
        *self = Assembler::default();
    }

    /// Takes the payload of one packet; `done` gets each section that ends in it.
    pub(super) fn feed(&mut self, packet: &Packet<'_>, stats: &mut Stats, mut done: impl FnMut(Section)) {
        if packet.payload.is_empty() || self.last_counter == Some(packet.counter) {
            return;
        }
        let follows = self
            .last_counter
            .is_none_or(|last| (last + 1) & 0x0F == packet.counter);
        self.last_counter = Some(packet.counter);
        self.collecting &= follows;
        if !packet.starts_unit {
            return self.collect(packet.payload, packet.counter, stats, &mut done);
        }
        // A section starts behind as many bytes as the first one says; they end the section before (2.4.4.1).
        let (pointer, rest) = (usize::from(packet.payload[0]), &packet.payload[1..]);
        let Some((tail, head)) = rest.split_at_checked(pointer) else {
            stats.bad_units += 1;
            self.collecting = false;
            return;
        };
        self.collect(tail, packet.counter, stats, &mut done);
        self.bytes.clear();
        self.collecting = true;
        self.collect(head, packet.counter, stats, &mut done);
    }

    /// Takes bytes of sections, one behind the other, until stuffing.
    fn collect(&mut self, mut part: &[u8], counter: u8, stats: &mut Stats, done: &mut impl FnMut(Section)) {
        while self.collecting && !part.is_empty() {
            if self.bytes.is_empty() {
                self.first_counter = counter;
                if part[0] == 0xFF {
                    self.collecting = false;
                    return;
                }
            }
            let wanted = match self.bytes.len() {
                0..3 => 3,
                _ => 3 + usize::from(u16::from_be_bytes([self.bytes[1] & 0x0F, self.bytes[2]])),
            };
            if wanted > SECTION_MAX {
                stats.bad_units += 1;
                self.collecting = false;
                return;
            }
            let (now, later) = part.split_at(part.len().min(wanted - self.bytes.len()));
            self.bytes.extend_from_slice(now);
            part = later;
            self.finish(stats, done);
        }
    }

    fn finish(&mut self, stats: &mut Stats, done: &mut impl FnMut(Section)) {
        let [_, high, low, ..] = self.bytes[..] else {
            return;
        };
        if self.bytes.len() < 3 + usize::from(u16::from_be_bytes([high & 0x0F, low])) {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        // Sections without the long syntax have no checksum and are none of these tables.
        let good = bytes.len() >= 12 && high & 0x80 != 0 && crc32(!0, &bytes) == 0;
        if good {
            done(Section {
                bytes,
                counter: self.first_counter,
            });
        } else {
            stats.bad_units += 1;
        }
    }
}

/// One program of the association table.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) number: u16,
    pub(super) pid: u16,
    pub(super) map: Section,
}

impl Program {
    pub(super) fn new(number: u16, pid: u16) -> Program {
        Program {
            number,
            pid,
            map: Section::default(),
        }
    }
}

/// The stream that decides on join points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lead {
    pub(super) pid: u16,
    pub(super) is_video: bool,
    /// `stream_type`.
    pub(super) codec: u8,
}

/// The first video stream of the first program that has one; else the first stream of sound.
pub(super) fn lead(programs: &[Program]) -> Option<Lead> {
    let streams = || programs.iter().flat_map(|program| program.map.streams());
    let video = streams().find(|(codec, _, descriptors)| is_video(*codec, descriptors));
    let other = || streams().find(|(codec, _, _)| is_audio(*codec));
    let is_video = video.is_some();
    video
        .or_else(other)
        .map(|(codec, pid, _)| Lead { pid, is_video, codec })
}

/// Stream types (table 2-34) of video; private streams by their registration descriptor (2.6.8).
fn is_video(codec: u8, descriptors: &[u8]) -> bool {
    const REGISTRATION: u8 = 5;
    let registered = |name: &[u8; 4]| {
        let mut rest = descriptors;
        std::iter::from_fn(|| {
            let (head, tail) = rest.split_first_chunk::<2>()?;
            let (body, tail) = tail.split_at_checked(usize::from(head[1]))?;
            rest = tail;
            Some((head[0], body))
        })
        .any(|(tag, body)| tag == REGISTRATION && body.starts_with(name))
    };
    match codec {
        0x01 | 0x02 | 0x10 | 0x1B | 0x1E..=0x21 | 0x24 | 0x33 | 0x35 | 0x42 | 0xD1 | 0xD2 | 0xEA => true,
        0x06 => registered(b"AV01") || registered(b"VP09") || registered(b"drac"),
        _ => false,
    }
}

/// Stream types of sound; private streams mostly are (AC-3, Opus).
fn is_audio(codec: u8) -> bool {
    matches!(
        codec,
        0x03 | 0x04 | 0x06 | 0x0F | 0x11 | 0x1C | 0x2D | 0x2E | 0x80..=0x87
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(length: u16, body: &[u8]) -> Vec<u8> {
        let head = [0x00, 0xB0 | (length >> 8) as u8, length as u8];
        let mut bytes = [&head[..], body].concat();
        bytes.extend(crc32(!0, &bytes).to_be_bytes());
        bytes
    }

    fn feed(
        assembler: &mut Assembler,
        payload: &[u8],
        starts_unit: bool,
        counter: u8,
    ) -> (Vec<Section>, Stats) {
        let (mut done, mut stats) = (Vec::new(), Stats::default());
        let packet = Packet {
            pid: 0,
            starts_unit,
            is_random_access: false,
            counter,
            payload,
        };
        assembler.feed(&packet, &mut stats, |section| done.push(section));
        (done, stats)
    }

    #[test]
    fn a_section_across_packets_and_back() {
        let body: Vec<u8> = [&[0, 1, 0xC1, 0, 0][..], &[0, 1, 0xE1, 0x00].repeat(60)].concat();
        let bytes = section(body.len() as u16 + 4, &body);
        let (mut assembler, payload) = (Assembler::default(), [&[0][..], &bytes].concat());
        assert!(feed(&mut assembler, &payload[..184], true, 15).0.is_empty());
        let (done, stats) = feed(&mut assembler, &payload[184..], false, 0);
        assert_eq!(stats, Stats::default());
        assert_eq!(done[0].bytes, bytes);
        assert_eq!(done[0].programs().count(), 60);

        let packets = done[0].packets(0, PACKET);
        assert_eq!(packets.len(), 2 * PACKET);
        let mut again = Assembler::default();
        let found: Vec<Section> = packets
            .chunks(PACKET)
            .filter_map(super::super::packet)
            .flat_map(|packet| {
                let mut done = Vec::new();
                again.feed(&packet, &mut Stats::default(), |section| done.push(section));
                done
            })
            .collect();
        assert!(found[0].same(&done[0]) && found[0].counter == 15);
    }

    #[test]
    fn bad_sections_are_counted() {
        let mut assembler = Assembler::default();
        let (done, stats) = feed(&mut assembler, &[0, 0x00, 0xBF, 0xFF, 0, 0], true, 0);
        assert!(done.is_empty() && stats.bad_units == 1, "length 4095");
        let (done, stats) = feed(&mut assembler, &[200, 0x00, 0xB0, 0x0D], true, 1);
        assert!(
            done.is_empty() && stats.bad_units == 1,
            "pointer beyond the packet"
        );
        let mut bytes = section(13, &[0, 1, 0xC1, 0, 0, 0, 1, 0xE1, 0]);
        bytes[9] ^= 1;
        let (done, stats) = feed(&mut assembler, &[&[0][..], &bytes].concat(), true, 2);
        assert!(done.is_empty() && stats.bad_units == 1, "checksum");
    }

    #[test]
    fn a_lost_packet_spoils_the_section() {
        let body: Vec<u8> = [&[0, 1, 0xC1, 0, 0][..], &[0, 1, 0xE1, 0x00].repeat(60)].concat();
        let payload = [&[0][..], &section(body.len() as u16 + 4, &body)].concat();
        let mut assembler = Assembler::default();
        feed(&mut assembler, &payload[..184], true, 3);
        assert!(feed(&mut assembler, &payload[184..], false, 5).0.is_empty());
    }
}
