//! An endless, valid MPEG transport stream (ISO/IEC 13818-1) around the stamps.
//!
//! One program: H.264 on PID 0x100 (also the PCR), the stamps as private data on PID 0x102. A picture is 16×16 grey
//! pixels, which decode, and a filler NAL unit that brings it to the asked rate. A group of pictures opens with a
//! random-access packet (RAI, PCR, a PES header with PTS), right behind PAT and PMT: parameter sets and an IDR picture.
//! All others are P pictures, each of which repeats the one before: who joins in their midst has nothing to show.
//!
//! A group is seven packets, 1,316 bytes: `[stamp][PAT][PMT][video…]` where tables are due, else `[stamp][video…]`.

use crate::stamp::{self, Stamp};

/// Size of one transport packet in bytes.
pub const PACKET: usize = 188;
/// Packets in a group.
pub const PACKETS: usize = 7;
/// Size of a group in bytes; the size of a relay's chunk.
pub const GROUP: usize = PACKET * PACKETS;
/// Where the stamp lies in its group: behind a transport header (4) and a private_stream_2 PES header (6).
pub const STAMP_AT: usize = 10;
/// The video's packet identifier.
pub const VIDEO_PID: u16 = 0x100;
/// The stamps' packet identifier.
pub const STAMP_PID: u16 = 0x102;
/// The program map's packet identifier.
pub const PMT_PID: u16 = 0x1000;

const FRAME_US: u64 = 40_000;
const TABLES_US: u64 = 100_000;
/// PTS and PCR start here (90 kHz), so that the decoding time is never below zero.
const START_90K: u64 = 90_000;

/// Access unit delimiter (ITU-T H.264, 7.3.2.4): any kind of picture follows.
const DELIMITER: [u8; 6] = [0, 0, 0, 1, 0x09, 0xf0];
/// Sequence and picture parameter sets: baseline, 16×16, 25 frames/s, one reference picture, output in decoding order
/// (`pic_order_cnt_type` 2), `frame_num` of 4 bits, CAVLC, the deblocking filter under the slice's control.
const SETS: [u8; 35] = [
    0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0a, 0xda, 0x7b, 0x01, 0x10, 0, 0, 0x03, 0, 0x10, 0, 0, 0x03, 0x03, 0x20,
    0xf1, 0x22, 0x6a, 0x20, // sequence
    0, 0, 0, 1, 0x68, 0xce, 0x0f, 0x2c, 0x80, // picture
];
/// One grey IDR picture; two kinds, because neighbours must differ in their `idr_pic_id`.
const GREY: [[u8; 14]; 2] = [
    [
        0, 0, 1, 0x65, 0x88, 0x84, 0x04, 0xbc, 0x98, 0xa0, 0, 0x20, 0x2f, 0x80,
    ],
    [
        0, 0, 1, 0x65, 0x88, 0x82, 0x01, 0x1f, 0x26, 0x28, 0, 0x08, 0x09, 0xe0,
    ],
];
/// A P picture whose one macroblock is skipped, with `frame_num` 0: a reference itself, so that the next can follow it.
///
/// H.264, 7.3.3: `first_mb` 1, `slice_type` P 1, parameter set 1, `frame_num` 0000, no override 0, no reordering 0,
/// sliding window 0, `qp_delta` 1, no deblocking 010, `mb_skip_run` of one 010, stop bit 1.
const SKIPPED: [u8; 7] = [0, 0, 1, 0x41, 0b1110_0000, 0b0010_1001, 0b0100_0000];
/// Where `frame_num` stands in [`SKIPPED`]: one bit from the end of this byte.
const FRAME_NUM_AT: usize = 4;
/// A filler data NAL unit, endless: the bytes up to the next frame are 0xff.
const FILLER: [u8; 5] = [0, 0, 0, 1, 0x0c];

/// Makes group after group; the caller says what time it is in the stream.
pub struct Mux {
    stream: u32,
    seq: u64,
    /// Groups of pictures begun.
    gops: usize,
    /// Pictures since the last IDR picture, modulo 16.
    frame_num: u8,
    gop_us: u64,
    next_frame: u64,
    next_gop: u64,
    next_tables: u64,
    counters: [u8; 4],
}

/// Index of a PID's continuity counter.
#[derive(Clone, Copy)]
enum Lane {
    Pat,
    Pmt,
    Video,
    Stamp,
}

impl Lane {
    fn pid(self) -> u16 {
        match self {
            Lane::Pat => 0,
            Lane::Pmt => PMT_PID,
            Lane::Video => VIDEO_PID,
            Lane::Stamp => STAMP_PID,
        }
    }
}

impl Mux {
    /// A stream with the id `stream` and a random-access point at the first picture after every `gop_us` µs.
    pub fn new(stream: u32, gop_us: u64) -> Mux {
        Mux {
            stream,
            seq: 0,
            gops: 0,
            frame_num: 0,
            gop_us,
            next_frame: 0,
            next_gop: 0,
            next_tables: 0,
            counters: [0; 4],
        }
    }

    /// The next group. `at_us`: time since the start of the stream (PCR, PTS); `due_us`: wall clock for the stamp.
    /// Both must not go back.
    pub fn group(&mut self, at_us: u64, due_us: u64) -> [u8; GROUP] {
        let mut group = [0xff; GROUP];
        let mut packets = group.chunks_exact_mut(PACKET);
        let mut next = || packets.next().unwrap_or_default();
        self.stamp_packet(next());
        let mut left = PACKETS - 1;
        let frame = at_us >= self.next_frame;
        let key = frame && at_us >= self.next_gop;
        if key || at_us >= self.next_tables {
            self.tables(next(), Lane::Pat, &pat());
            self.tables(next(), Lane::Pmt, &pmt());
            self.next_tables = at_us + TABLES_US;
            left -= 2;
        }
        if frame {
            self.frame_start(next(), at_us, key);
            left -= 1;
        }
        (0..left).for_each(|_| self.header(next(), Lane::Video, false, 0x10));
        stamp::write(
            &mut group,
            STAMP_AT,
            Stamp {
                stream: self.stream,
                seq: self.seq,
                due_us,
            },
        );
        self.seq += 1;
        group
    }

    /// Transport header; `control`: adaptation field and payload bits.
    fn header(&mut self, packet: &mut [u8], lane: Lane, start: bool, control: u8) {
        let counter = &mut self.counters[lane as usize];
        let pid = lane.pid();
        packet[0] = 0x47;
        packet[1] = u8::from(start) << 6 | (pid >> 8) as u8;
        packet[2] = pid as u8;
        packet[3] = control | *counter;
        *counter = (*counter + 1) & 0x0f;
    }

    /// private_stream_2: a PES header without time stamps, whose length closes the packet exactly.
    fn stamp_packet(&mut self, packet: &mut [u8]) {
        self.header(packet, Lane::Stamp, true, 0x10);
        packet[4..10].copy_from_slice(&[0, 0, 1, 0xbf, 0, (PACKET - STAMP_AT) as u8]);
    }

    fn tables(&mut self, packet: &mut [u8], lane: Lane, section: &[u8]) {
        self.header(packet, lane, true, 0x10);
        packet[4] = 0; // pointer_field
        packet[5..5 + section.len()].copy_from_slice(section);
    }

    /// First packet of a frame: PCR, RAI at a join point, PES header with PTS, the picture, start of the filler unit.
    fn frame_start(&mut self, packet: &mut [u8], at_us: u64, key: bool) {
        self.header(packet, Lane::Video, true, 0x30);
        let clock = START_90K + at_us * 9 / 100;
        packet[4] = 7;
        packet[5] = 0x10 | u8::from(key) << 6;
        packet[6..12].copy_from_slice(&pcr(clock));
        packet[12..21].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5]);
        // On the frames' own grid, wherever in its 40 ms the group fell: encoders do not tremble either.
        let shown = START_90K + at_us / FRAME_US * FRAME_US * 9 / 100 + START_90K / 10;
        packet[21..26].copy_from_slice(&pts(shown));
        let mut at = 26;
        let mut put = |bytes: &[u8]| {
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&DELIMITER);
        if key {
            self.frame_num = 0;
            self.gops += 1;
            put(&SETS);
            put(&GREY[self.gops % 2]);
        } else {
            self.frame_num = (self.frame_num + 1) % 16;
            put(&skipped(self.frame_num));
        }
        put(&FILLER);
        self.next_frame = (at_us / FRAME_US + 1) * FRAME_US;
        if key {
            self.next_gop = (at_us / self.gop_us + 1) * self.gop_us;
        }
    }
}

/// The sequence and the picture parameter set, without start codes: for containers that keep them apart.
pub(crate) fn parameter_sets() -> (&'static [u8], &'static [u8]) {
    (&SETS[4..26], &SETS[30..])
}

/// The key picture that opens the n-th group of pictures, without a start code.
pub(crate) fn key_picture(gop: usize) -> &'static [u8] {
    &GREY[gop % 2][3..]
}

/// The picture with this `frame_num` (0 to 15), which repeats the one before, without a start code.
pub(crate) fn next_picture(frame_num: u8) -> [u8; 4] {
    let [.., a, b, c, d] = skipped(frame_num);
    [a, b, c, d]
}

fn skipped(frame_num: u8) -> [u8; 7] {
    let mut picture = SKIPPED;
    picture[FRAME_NUM_AT] |= frame_num << 1;
    picture
}

/// 33 bits of 90 kHz, 6 reserved bits, extension 0.
fn pcr(clock: u64) -> [u8; 6] {
    let value = (clock & 0x1_ffff_ffff) << 15 | 0x3f << 9;
    let bytes = value.to_be_bytes();
    [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

fn pts(clock: u64) -> [u8; 5] {
    [
        0x21 | (clock >> 29) as u8 & 0x0e,
        (clock >> 22) as u8,
        1 | (clock >> 14) as u8,
        (clock >> 7) as u8,
        1 | (clock << 1) as u8,
    ]
}

fn pat() -> Vec<u8> {
    let pmt = PMT_PID | 0xe000;
    section(0x00, &[0, 1, (pmt >> 8) as u8, pmt as u8])
}

fn pmt() -> Vec<u8> {
    let pid = |pid: u16| (pid | 0xe000).to_be_bytes();
    let mut body = pid(VIDEO_PID).to_vec(); // PCR_PID
    body.extend([0xf0, 0]); // no program descriptors
    body.push(0x1b); // H.264
    body.extend(pid(VIDEO_PID));
    body.extend([0xf0, 0]);
    body.push(0x06); // private data in PES packets
    body.extend(pid(STAMP_PID));
    body.extend([0xf0, 0]);
    section(0x02, &body)
}

/// A table section: id, length, table id extension 1, version 0, section 0 of 0, body, CRC.
fn section(table: u8, body: &[u8]) -> Vec<u8> {
    let len = body.len() + 9;
    let mut bytes = vec![table, 0xb0 | (len >> 8) as u8, len as u8, 0, 1, 0xc1, 0, 0];
    bytes.extend(body);
    bytes.extend(crc32_mpeg(&bytes).to_be_bytes());
    bytes
}

/// CRC-32/MPEG-2 (ISO/IEC 13818-1 Annex A): over a section and its CRC it gives 0.
fn crc32_mpeg(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| {
        if crc >> 31 == 1 {
            crc << 1 ^ 0x04c1_1db7
        } else {
            crc << 1
        }
    };
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| bit(crc))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Scanner;
    use std::collections::HashMap;

    fn two_gops() -> Vec<u8> {
        let mut mux = Mux::new(1, 200_000);
        (0..80)
            .flat_map(|i| mux.group(i * 5_000, 1_000_000 + i * 5_000))
            .collect()
    }

    fn pid(packet: &[u8]) -> u16 {
        u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2])
    }

    #[test]
    fn every_packet_has_sync_and_the_next_counter_of_its_pid() {
        let mut last: HashMap<u16, u8> = HashMap::new();
        for packet in two_gops().chunks(PACKET) {
            assert_eq!(packet[0], 0x47);
            let counter = packet[3] & 0x0f;
            if let Some(before) = last.insert(pid(packet), counter) {
                assert_eq!(counter, (before + 1) & 0x0f);
            }
        }
        assert_eq!(last.len(), 4);
    }

    #[test]
    fn join_points_come_right_behind_pat_and_pmt_once_per_gop() {
        let bytes = two_gops();
        let packets: Vec<&[u8]> = bytes.chunks(PACKET).collect();
        let rai = |packet: &&[u8]| packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x40 != 0;
        let joins: Vec<usize> = (0..packets.len()).filter(|i| rai(&packets[*i])).collect();
        assert_eq!(joins.len(), 2);
        for at in joins {
            assert_eq!(
                [pid(packets[at - 2]), pid(packets[at - 1]), pid(packets[at])],
                [0, PMT_PID, VIDEO_PID]
            );
        }
    }

    /// The kinds of the NAL units in the packets that begin a picture.
    fn pictures(bytes: &[u8]) -> Vec<Vec<u8>> {
        let starts = bytes
            .chunks(PACKET)
            .filter(|p| pid(p) == VIDEO_PID && p[1] & 0x40 != 0);
        let units = |p: &[u8]| {
            p.windows(4)
                .filter(|w| w[..3] == [0, 0, 1] && w[3] != 0xe0)
                .map(|w| w[3] & 0x1f)
                .collect()
        };
        starts.map(units).collect()
    }

    #[test]
    fn only_a_group_of_pictures_begins_with_an_idr_picture_and_its_sets() {
        let (key, other) = (vec![9, 7, 8, 5, 12], vec![9, 1, 12]);
        let mut gop = vec![other; 5];
        gop[0] = key;
        assert_eq!(pictures(&two_gops()), [gop.clone(), gop].concat());
    }

    #[test]
    fn each_p_picture_has_the_next_frame_number() {
        let bits = |n| skipped(n)[4];
        assert_eq!(
            (bits(0), bits(1), bits(15)),
            (0b1110_0000, 0b1110_0010, 0b1111_1110)
        );
    }

    #[test]
    fn tables_close_with_a_crc_that_holds() {
        assert_eq!(crc32_mpeg(b"123456789"), 0x0376_e6e7);
        assert_eq!((crc32_mpeg(&pat()), crc32_mpeg(&pmt())), (0, 0));
    }

    #[test]
    fn clocks_are_written_as_the_standard_says() {
        // Read back by the field table of ISO/IEC 13818-1, 2.4.3.5 and 2.4.3.7.
        let clock = 0x1_2345_6789;
        let p = pcr(clock).map(u64::from);
        assert_eq!(p[0] << 25 | p[1] << 17 | p[2] << 9 | p[3] << 1 | p[4] >> 7, clock);
        let t = pts(clock).map(u64::from);
        assert_eq!(
            (t[0] >> 1 & 7) << 30 | t[1] << 22 | (t[2] >> 1) << 15 | t[3] << 7 | t[4] >> 1,
            clock
        );
        assert_eq!((t[0] & 1, t[2] & 1, t[4] & 1, t[0] >> 4), (1, 1, 1, 2));
    }

    #[test]
    fn the_stamps_are_where_the_scanner_expects_them() {
        let mut scanner = Scanner::default();
        let mut due = Vec::new();
        scanner.feed(&two_gops(), |stamp| due.push(stamp.due_us));
        assert!(scanner.seen().is_perfect());
        assert_eq!((due.len(), due[79]), (80, 1_395_000));
    }
}
