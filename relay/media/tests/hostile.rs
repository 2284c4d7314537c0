//! What a hostile or broken source sends: nothing panics, stands still or grows, marks do not depend on slicing, and
//! after garbage the next good unit is found.

use std::path::PathBuf;

use proptest::prelude::*;
use relay_media::{HEADER_MAX, JOIN_SPACING, Kind, LOOKBACK_MAX, Mark, Scanner, Stats};

const KINDS: [Kind; 8] = [
    Kind::MpegTs,
    Kind::Flv,
    Kind::Ogg,
    Kind::WebM,
    Kind::Mp4,
    Kind::Mp3,
    Kind::Adts,
    Kind::Other,
];

const CLIPS: [(&str, Kind); 10] = [
    ("h264-aac.ts", Kind::MpegTs),
    ("audio.ts", Kind::MpegTs),
    ("h264-aac.flv", Kind::Flv),
    ("theora-vorbis.ogg", Kind::Ogg),
    ("opus.ogg", Kind::Ogg),
    ("vp8-vorbis.webm", Kind::WebM),
    ("opus.webm", Kind::WebM),
    ("short-fragments.mp4", Kind::Mp4),
    ("cbr.mp3", Kind::Mp3),
    ("aac.aac", Kind::Adts),
];

fn clip(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/media")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn scan(kind: Kind, bytes: &[u8], slices: &[usize]) -> (Vec<Mark>, Stats) {
    let (mut scanner, mut marks, mut rest) = (Scanner::new(kind), Vec::new(), bytes);
    for len in slices.iter().cycle() {
        let (part, tail) = rest.split_at((*len).min(rest.len()));
        scanner.feed(part, &mut marks);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(scanner.position(), bytes.len() as u64);
    (marks, *scanner.stats())
}

fn whole(kind: Kind, bytes: &[u8]) -> (Vec<Mark>, Stats) {
    scan(kind, bytes, &[bytes.len().max(1)])
}

fn joins(marks: &[Mark]) -> Vec<u64> {
    let position = |mark: &Mark| {
        if let Mark::Join { at } = mark {
            Some(*at)
        } else {
            None
        }
    };
    marks.iter().filter_map(position).collect()
}

fn headers(marks: &[Mark]) -> Vec<(u64, Vec<u8>)> {
    let header = |mark: &Mark| match mark {
        Mark::Header { at, bytes, .. } => Some((*at, bytes.to_vec())),
        Mark::Join { .. } => None,
    };
    marks.iter().filter_map(header).collect()
}

/// Bytes without a pattern, the same ones each time.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// What holds for the marks of any input.
fn check_bounds(marks: &[Mark], len: usize) {
    let at = |mark: &Mark| match mark {
        Mark::Join { at } | Mark::Header { at, .. } => *at,
    };
    assert!(marks.iter().map(at).is_sorted(), "{marks:?}");
    assert!(marks.iter().all(|mark| at(mark) <= len as u64));
    let given = headers(marks);
    assert!(given.iter().all(|(_, bytes)| bytes.len() <= HEADER_MAX));
    assert!(given.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= len + HEADER_MAX);
    assert!(joins(marks).len() as u64 <= len as u64 / JOIN_SPACING + given.len() as u64 + 1);
}

/// A clip with bytes changed, left out, doubled.
fn mutated() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..12);
    (0..CLIPS.len(), edits, any::<bool>()).prop_map(|(which, edits, early)| {
        let (name, kind) = CLIPS[which];
        let mut bytes = clip(name);
        for (index, byte, what) in edits {
            // Half of the cases touch the first bytes only: there the tables and headers are.
            let span = if early { 800 } else { bytes.len() };
            let at = index.index(span.min(bytes.len()));
            match what {
                0 => bytes[at] = byte,
                1 => bytes[at] = 0xFF,
                2 => drop(bytes.drain(at..(at + usize::from(byte)).min(bytes.len()))),
                _ => bytes.splice(at..at, noise(usize::from(byte), 77)).for_each(drop),
            }
        }
        (kind, bytes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slicing_does_not_matter((kind, bytes) in mutated(), slices in prop::collection::vec(1..3000usize, 1..20)) {
        let expected = whole(kind, &bytes);
        check_bounds(&expected.0, bytes.len());
        prop_assert_eq!(&scan(kind, &bytes, &slices), &expected);
        prop_assert_eq!(&scan(kind, &bytes, &[1]), &expected);
    }

    #[test]
    fn the_wrong_scanner_copes((_, bytes) in mutated(), which in 0..KINDS.len(), slice in 1..5000usize) {
        let expected = whole(KINDS[which], &bytes);
        check_bounds(&expected.0, bytes.len());
        prop_assert_eq!(&scan(KINDS[which], &bytes, &[slice, 1]), &expected);
    }

    #[test]
    fn noise_has_no_marks(bytes in prop::collection::vec(any::<u8>(), 0..4000), slice in 1..300usize) {
        for kind in KINDS {
            let (marks, _) = scan(kind, &bytes, &[slice]);
            prop_assert_eq!(&marks, &whole(kind, &bytes).0);
            check_bounds(&marks, bytes.len());
            Kind::sniff(&bytes);
        }
    }

    #[test]
    fn seeded_noise_copes(
        seeds in prop::collection::vec(0..SEEDS.len(), 1..60),
        fill in 0..40usize,
        slice in 1..90usize,
    ) {
        let piece = |seed: &usize| [SEEDS[*seed], &noise(fill, *seed as u64)].concat();
        let bytes: Vec<u8> = seeds.iter().flat_map(piece).collect();
        for kind in KINDS {
            let expected = whole(kind, &bytes);
            check_bounds(&expected.0, bytes.len());
            prop_assert_eq!(&scan(kind, &bytes, &[slice]), &expected);
        }
    }
}

/// Beginnings that make a parser believe something.
const SEEDS: [&[u8]; 24] = [
    b"\x47\x40\x00\x10\x00",
    b"\x47\x41\x00\x30\xFF\x40",
    b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
    b"\x09\x00\x00\x05\0\0\0\0\0\0\0\x17\x01\0\0\0\0\0\0\x10",
    b"\x12\xFF\xFF\xFF\0\0\0\0\0\0\0\x02\0\x0AonMetaData",
    b"\x08\x00\x00\x00\0\0\0\0\0\0\0\0\0\0\x0B",
    b"OggS\0\x02",
    b"OggS\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xFF",
    b"\x1A\x45\xDF\xA3\x84\x42\x86\x81\x01",
    b"\x18\x53\x80\x67\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    b"\x16\x54\xAE\x6B\x88\xAE\x86\xD7\x81\x01\x83\x81\x01",
    b"\x16\x54\xAE\x6B\x08\xFF\xFF\xFF\xFF\xFF\xFF",
    b"\x1F\x43\xB6\x75\xFF\xE7\x81\x00",
    b"\xA3\x84\x81\0\0\x80",
    b"\xA0\x80",
    b"\xA0\x86\xA1\x84\x81\0\0\0",
    b"\0\0\0\x10ftypiso5\0\0\0\0",
    b"\0\0\0\x01moof\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    b"\0\0\0\x20moof\0\0\0\x18traf\0\0\0\x10tfhd\0\0\0\0\0\0\0\x01",
    b"\0\0\0\x08mdat",
    b"\xFF\xFB\x90\x64",
    b"\xFF\xF1\x50\x40\x00\xFF\xFC",
    b"ID3\x04\0\0\0\0\0\x05",
    b"ID3\x04\0\0\x7F\x7F\x7F\x7F",
];

#[test]
fn after_garbage_the_stream_is_found_again() {
    for (name, kind) in CLIPS {
        let bytes = clip(name);
        let clean = joins(&whole(kind, &bytes).0);
        for (len, seed) in [(1, 3), (100, 5), (3000, 7), (70_000, 9)] {
            // In front: all joins are found. The first one or two of bare frames are needed to be sure.
            let garbage = noise(len, seed);
            let (marks, stats) = whole(kind, &[&garbage[..], &bytes].concat());
            let expected: Vec<u64> = clean.iter().map(|at| at + len as u64).collect();
            let got = joins(&marks);
            assert!(
                expected.iter().rev().take(2).all(|at| got.contains(at)),
                "{name}: {got:?}, not {expected:?}"
            );
            assert!(stats.skipped_bytes > 0, "{name}: {stats:?}");
            // In the middle of a unit: the stream that follows is found.
            let cut = bytes.len() * 2 / 3;
            let (marks, stats) = whole(kind, &[&bytes[..cut], &garbage, &bytes].concat());
            let offset = (cut + len) as u64;
            let got = joins(&marks);
            let last = *clean.last().expect("every clip has joins") + offset;
            let near = got.iter().any(|at| at.abs_diff(last) < JOIN_SPACING);
            assert!(
                near,
                "{name}: {got:?}, not {last} after {len} bytes of garbage {stats:?}"
            );
            check_bounds(&marks, cut + len + bytes.len());
        }
    }
}

// Transport stream.

fn ts_with(change: impl FnMut(&mut [u8])) -> Vec<u8> {
    let mut bytes = clip("h264-aac.ts");
    bytes.chunks_mut(188).for_each(change);
    bytes
}

#[test]
fn ts_key_frames_without_random_access_marks() {
    for name in ["h264-aac.ts", "h265.ts", "mpeg2-mp2.ts"] {
        let bytes = clip(name);
        let mut plain = bytes.clone();
        let mut cleared = 0;
        for packet in plain
            .chunks_mut(188)
            .filter(|packet| packet[3] & 0x20 != 0 && packet[4] > 0)
        {
            cleared += packet[5] >> 6 & 1;
            packet[5] &= !0x40;
        }
        assert!(cleared > 2, "{name}");
        let picture_joins = joins(&whole(Kind::MpegTs, &plain).0);
        assert_eq!(picture_joins, joins(&whole(Kind::MpegTs, &bytes).0), "{name}");
    }
}

#[test]
fn ts_packets_of_192_and_204_bytes() {
    let bytes = clip("h264-aac.ts");
    let clean = joins(&whole(Kind::MpegTs, &bytes).0);
    for unit in [192, 204] {
        // The time stamp of a 192 byte packet is before it, the parity of a 204 byte packet behind it.
        let lead = if unit == 192 { 4 } else { 0 };
        let longer = |packet: &[u8]| [&vec![0; lead][..], packet, &vec![1; unit - 188 - lead]].concat();
        let stream: Vec<u8> = bytes.chunks(188).flat_map(longer).collect();
        let (marks, stats) = whole(Kind::MpegTs, &stream);
        let expected: Vec<u64> = clean
            .iter()
            .map(|at| at / 188 * unit as u64 + lead as u64)
            .collect();
        assert_eq!(joins(&marks), expected);
        assert_eq!(headers(&marks)[0].1.len(), 2 * unit);
        assert_eq!((stats.skipped_bytes, stats.resyncs), (lead as u64, 0));
    }
}

#[test]
fn ts_lies_in_tables_and_adaptation_fields() {
    let long_sections = ts_with(|packet| {
        if packet[1] & 0x5F == 0x40 && packet[2] == 0 {
            packet[6..8].copy_from_slice(&[0xBF, 0xFF]);
        }
    });
    let (marks, stats) = whole(Kind::MpegTs, &long_sections);
    assert!(marks.is_empty() && stats.bad_units > 0, "section length 4095");

    let adaptation = ts_with(|packet| {
        packet[3] |= 0x20;
        packet[4] = 255;
    });
    let (marks, stats) = whole(Kind::MpegTs, &adaptation);
    assert!(
        marks.is_empty() && stats.bad_units == adaptation.len() as u64 / 188,
        "adaptation field of 255"
    );
}

/// The checksum of sections and pages, bit by bit.
fn crc(start: u32, bytes: &[u8]) -> u32 {
    let shift = |crc: u32| crc << 1 ^ if crc >> 31 == 1 { 0x04C1_1DB7 } else { 0 };
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| shift(crc))
    })
}

/// A section of its own in packets.
fn section(pid: u16, table: u8, number: u16, body: &[u8], counter: u8) -> Vec<u8> {
    let length = body.len() + 9;
    let head = [
        table,
        0xB0 | (length >> 8) as u8,
        length as u8,
        (number >> 8) as u8,
        number as u8,
        0xC1,
        0,
        0,
    ];
    let mut bytes = [&[0][..], &head, body].concat();
    let crc = crc(!0, &bytes[1..]);
    bytes.extend(crc.to_be_bytes());
    let mut packets = Vec::new();
    for (i, part) in bytes.chunks(184).enumerate() {
        let start = if i == 0 { 0x40 } else { 0 };
        let end = packets.len() + 188;
        packets.extend([
            0x47,
            start | (pid >> 8) as u8,
            pid as u8,
            0x10 | (counter + i as u8) & 15,
        ]);
        packets.extend(part);
        packets.resize(end, 0xFF);
    }
    packets
}

fn pat(programs: impl Iterator<Item = (u16, u16)>, counter: u8) -> Vec<u8> {
    let body: Vec<u8> = programs
        .flat_map(|(number, pid)| {
            [
                (number >> 8) as u8,
                number as u8,
                0xE0 | (pid >> 8) as u8,
                pid as u8,
            ]
        })
        .collect();
    section(0, 0, 1, &body, counter)
}

#[test]
fn ts_thousands_of_programs_are_bounded() {
    let mut stream = Vec::new();
    for round in 0..40u16 {
        stream.extend(pat(
            (0..250).map(|i| (round * 200 + i + 1, 0x20 + round * 200 + i)),
            round as u8 * 6,
        ));
        for i in 0..250 {
            let video = [0xE1, 0x00, 0xF0, 0x00, 0x1B, 0xE0, 0x10, 0xF0, 0x00];
            stream.extend(section(0x20 + round * 200 + i, 2, round * 200 + i + 1, &video, 0));
        }
    }
    let (marks, _) = whole(Kind::MpegTs, &stream);
    check_bounds(&marks, stream.len());
    let longest = headers(&marks)
        .iter()
        .map(|(_, bytes)| bytes.len())
        .max()
        .expect("headers are given");
    // A table of 250 programs in 6 packets, and the map tables of 16.
    assert_eq!(longest, (6 + 16) * 188);
}

#[test]
fn ts_tables_that_name_each_other() {
    // All programs in one map packet identifier; a map table that names itself as the video stream.
    let video = [0xE1, 0x00, 0xF0, 0x00, 0x1B, 0xE1, 0x00, 0xF0, 0x00];
    let mut stream = Vec::new();
    for round in 0..50 {
        stream.extend(pat((1..10).map(|number| (number, 0x100)), round));
        (1..10).for_each(|number| {
            stream.extend(section(
                0x100,
                2,
                number,
                &video,
                round.wrapping_mul(9).wrapping_add(number as u8) & 15,
            ))
        });
    }
    let (marks, _) = whole(Kind::MpegTs, &stream);
    check_bounds(&marks, stream.len());
    // Descriptor lengths beyond the section.
    let far = [0xE1, 0x00, 0xF3, 0xFF, 0x1B, 0xE1, 0x00, 0xF3, 0xFF];
    let stream = [
        pat([(1, 0x100)].into_iter(), 0),
        section(0x100, 2, 1, &far, 0),
        vec![0x47; 2 * 188],
    ]
    .concat();
    assert!(joins(&whole(Kind::MpegTs, &stream).0).is_empty());
}

// FLV.

fn flv_tag(kind: u8, body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32).to_be_bytes();
    let trailer = (body.len() as u32 + 11).to_be_bytes();
    [&[kind], &size[1..], &[0; 7], body, &trailer].concat()
}

const FLV_FILE: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

#[test]
fn flv_headers_must_not_outweigh_the_stream() {
    let metadata = flv_tag(18, &[&b"\x02\0\x0AonMetaData"[..], &[0; 60_000]].concat());
    let mut stream = [FLV_FILE, &metadata].concat();
    for i in 0..200u8 {
        stream.extend(flv_tag(9, &[0x17, 0, 0, 0, 0, i]));
        stream.extend(flv_tag(9, &[0x17, 1, 0, 0, 0, 0]));
    }
    let (marks, stats) = whole(Kind::Flv, &stream);
    check_bounds(&marks, stream.len());
    assert!(
        stats.headers > 10 && stats.headers_refused > 100 && stats.joins_withheld > 100,
        "{stats:?}"
    );
}

#[test]
fn flv_header_follows_the_stream() {
    let first = flv_tag(9, &[0x17, 0, 0, 0, 0, 1]);
    let second = flv_tag(9, &[0x17, 0, 0, 0, 0, 2]);
    let key = flv_tag(9, &[&[0x17, 1, 0, 0, 0][..], &[9; 1500]].concat());
    let inter = flv_tag(9, &[0x27, 1, 0, 0, 0, 9]);
    let large = flv_tag(18, &[&b"\x02\0\x0AonMetaData"[..], &[0; 70_000]].concat());
    // A key frame without its sequence header is none; a repeated one is no news; a large onMetaData is left out.
    let stream = [
        FLV_FILE, &large, &key, &first, &key, &inter, &first, &key, &second, &key,
    ]
    .concat();
    let (marks, stats) = whole(Kind::Flv, &stream);
    let given = headers(&marks);
    assert_eq!(given.len(), 2);
    assert_eq!(given[0].1, [FLV_FILE, &first].concat());
    assert_eq!(given[1].1, [FLV_FILE, &second].concat());
    assert_eq!(joins(&marks).len(), 3);
    assert_eq!(stats.oversize_headers, 1);
    let Mark::Header { again, .. } = &marks[0] else {
        panic!("{:?}", marks[0])
    };
    assert_eq!(again[..], first);
}

#[test]
fn flv_enhanced_headers() {
    let sequence = flv_tag(9, b"\x90hvc1config");
    let key = flv_tag(9, b"\x91hvc1\0\0\0frame");
    let key_x = flv_tag(9, &[b"\x93hvc1frame", &[0; 1200][..]].concat());
    let inter = flv_tag(9, &[b"\xA3hvc1frame", &[0; 1200][..]].concat());
    let stream = [FLV_FILE, &sequence, &key, &key_x, &inter, &key_x].concat();
    let (marks, _) = whole(Kind::Flv, &stream);
    assert_eq!(headers(&marks)[0].1, [FLV_FILE, &sequence].concat());
    let first = (FLV_FILE.len() + sequence.len()) as u64;
    // The second one is closer to the first than joins are kept.
    assert_eq!(
        joins(&marks),
        [first, first + (key.len() + key_x.len() + inter.len()) as u64]
    );
}

#[test]
fn flv_without_key_frames_or_with_a_video_flag_that_lies() {
    let sequence = flv_tag(9, &[0x17, 0, 0, 0, 0, 1]);
    let inter = flv_tag(9, &[&[0x27, 1, 0, 0, 0][..], &[7; 3000]].concat());
    let stream = [FLV_FILE, &sequence, &inter.repeat(200)].concat();
    assert_eq!(whole(Kind::Flv, &stream).0, []);

    // Declared as sound and video, but there is only sound.
    let sound = flv_tag(8, &[&[0x2F][..], &[7; 1500]].concat());
    let stream = [FLV_FILE, &sound.repeat(100)].concat();
    let (marks, _) = whole(Kind::Flv, &stream);
    assert!(joins(&marks).len() > 40 && joins(&marks)[0] >= 64 << 10);
}

// Ogg.

fn ogg_laced(flags: u8, serial: u32, laces: &[u8], body: &[u8]) -> Vec<u8> {
    let head = [
        &b"OggS\0"[..],
        &[flags],
        &[0; 8],
        &serial.to_le_bytes(),
        &[0; 8],
        &[laces.len() as u8],
    ]
    .concat();
    let mut page = [&head[..], laces, body].concat();
    let crc = crc(0, &page);
    page[22..26].copy_from_slice(&crc.to_le_bytes());
    page
}

fn ogg_page(flags: u8, serial: u32, body: &[u8]) -> Vec<u8> {
    let mut laces = vec![255; body.len() / 255];
    laces.push((body.len() % 255) as u8);
    ogg_laced(flags, serial, &laces, body)
}

#[test]
fn ogg_chains_bring_new_headers() {
    let (one, two) = (clip("opus.ogg"), clip("theora-vorbis.ogg"));
    let (marks, _) = whole(Kind::Ogg, &[&one[..], &two, &one].concat());
    let given = headers(&marks);
    assert_eq!(given.len(), 3);
    assert_eq!(given[0].1, given[2].1);
    assert_eq!(given[1].1, two[..given[1].0 as usize - one.len()]);
    let expected = 2 * joins(&whole(Kind::Ogg, &one).0).len() + joins(&whole(Kind::Ogg, &two).0).len();
    assert_eq!(joins(&marks).len(), expected);
}

#[test]
fn ogg_a_damaged_page_is_no_join() {
    let mut bytes = clip("flac.ogg");
    let clean = joins(&whole(Kind::Ogg, &bytes).0);
    bytes[clean[3] as usize + 300] ^= 1;
    let (marks, stats) = whole(Kind::Ogg, &bytes);
    assert_eq!(stats.bad_units, 1);
    assert_eq!(joins(&marks), [&clean[..3], &clean[4..]].concat());
}

#[test]
fn ogg_floods_of_serials_and_headers() {
    let head = |serial| ogg_page(2, serial, b"OpusHead\x01\x01\0\0\x80\xBB\0\0\0\0\0");
    let flood: Vec<u8> = (0..5000).flat_map(head).collect();
    let (marks, stats) = whole(Kind::Ogg, &flood);
    assert!(marks.is_empty() && stats.oversize_headers > 100, "{stats:?}");

    // A comment header without an end: 255 lacing values of 255, again and again.
    let long = ogg_laced(1, 1, &[255; 255], &vec![7; 255 * 255]);
    let stream = [head(1), long.repeat(20), clip("opus.ogg")].concat();
    let (marks, stats) = whole(Kind::Ogg, &stream);
    assert_eq!((stats.oversize_headers, stats.headers), (1, 1));
    assert_eq!(
        joins(&marks).len(),
        joins(&whole(Kind::Ogg, &clip("opus.ogg")).0).len(),
        "the next chain is good"
    );
}

#[test]
fn ogg_theora_key_frames_inside_pages() {
    let clip = clip("theora-vorbis.ogg");
    let header = &headers(&whole(Kind::Ogg, &clip).0)[0].1;
    let serial = u32::from_le_bytes([header[14], header[15], header[16], header[17]]);
    // Two packets on a page, of which the second is the key frame; muxers that do so do it always.
    let body = [&[0x40; 1100][..], &[0x00; 200]].concat();
    let page = ogg_laced(0, serial, &[255, 255, 255, 255, 80, 200], &body);
    let (marks, stats) = whole(Kind::Ogg, &[header, &page.repeat(5)[..]].concat());
    assert_eq!(stats.bad_units, 0);
    let first = header.len() as u64;
    assert_eq!(joins(&marks), [1, 2, 3, 4].map(|i| first + i * page.len() as u64));
}

#[test]
fn ogg_skeleton_is_carried_in_the_header() {
    let opus = clip("opus.ogg");
    let (head, rest) = opus.split_at(47);
    assert_eq!(rest[..4], *b"OggS");
    let tags = headers(&whole(Kind::Ogg, &opus).0)[0].1[47..].to_vec();
    let data = &rest[tags.len()..];
    let skeleton = [
        ogg_page(2, 77, &[b"fishead\0", &[0; 56][..]].concat()),
        ogg_page(0, 77, b"fisbone\0"),
    ];
    let last = ogg_page(4, 77, b"");
    let header = [&skeleton[0], head, &skeleton[1], &tags, &last].concat();
    // An index over two pages is left out: its positions are those of the file's beginning.
    let index = ogg_laced(0, 77, &[255; 10], &[&b"index\0"[..], &[0; 2544]].concat());
    let index = [index, ogg_page(1, 77, &[0; 100])].concat();
    let stream = [&skeleton[0], head, &skeleton[1], &index, &tags, &last, data].concat();
    let (marks, stats) = whole(Kind::Ogg, &stream);
    assert_eq!(headers(&marks), [((header.len() + index.len()) as u64, header)]);
    assert_eq!((joins(&marks).len(), stats.bad_units), (8, 0));
}

#[test]
fn ogg_flac_that_does_not_count_its_headers() {
    let frame = ogg_page(0, 5, &[&[0xFF, 0xF8][..], &[0; 1500]].concat());
    let counted_by_flag = [
        &ogg_page(2, 5, b"\x7FFLAC\x01\0\0\0fLaC\0")[..],
        &ogg_page(0, 5, b"\x84\0\0\0"),
    ];
    let as_it_is = [&ogg_page(2, 5, b"fLaC")[..], &ogg_page(0, 5, b"\x12\0\x12\0")];
    for header in [counted_by_flag.concat(), as_it_is.concat()] {
        let (marks, _) = whole(Kind::Ogg, &[&header[..], &frame, &frame].concat());
        let first = header.len() as u64;
        assert_eq!(headers(&marks), [(first, header)]);
        assert_eq!(joins(&marks), [first, first + frame.len() as u64]);
    }
}

// WebM.

const EBML: &[u8] = b"\x1A\x45\xDF\xA3\x84\x42\x86\x81\x01";
const SEGMENT: &[u8] = b"\x18\x53\x80\x67\x01\0\0\0\0\0\xFF\xFF";
const VIDEO_TRACK: &[u8] = b"\x16\x54\xAE\x6B\x88\xAE\x86\xD7\x81\x01\x83\x81\x01";
const CLUSTER: &[u8] = b"\x1F\x43\xB6\x75\xFF\xE7\x81\x00";

#[test]
fn webm_block_groups_and_a_known_segment_size() {
    let void = [&b"\xEC\x44\xB0"[..], &[0; 1200]].concat();
    let key = b"\xA0\x87\xA1\x85\x81\0\0\0\x01";
    let inter = b"\xA0\x8A\xA1\x85\x81\0\0\0\x01\xFB\x81\x01";
    let stream = [
        EBML,
        SEGMENT,
        VIDEO_TRACK,
        CLUSTER,
        key,
        &void,
        CLUSTER,
        inter,
        &void,
        CLUSTER,
        &void,
        key,
        &void,
    ]
    .concat();
    let (marks, stats) = whole(Kind::WebM, &stream);
    assert_eq!((stats.resyncs, stats.skipped_bytes), (0, 0));
    let unknown = b"\x18\x53\x80\x67\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
    assert_eq!(headers(&marks)[0].1, [EBML, unknown, VIDEO_TRACK].concat());
    let first = (EBML.len() + SEGMENT.len() + VIDEO_TRACK.len()) as u64;
    let second = first + (CLUSTER.len() + key.len() + void.len()) as u64;
    let third = second + (CLUSTER.len() + inter.len() + void.len()) as u64;
    assert_eq!(joins(&marks), [first, third]);
}

#[test]
fn webm_headers_over_the_limit() {
    let tags = [&b"\x12\x54\xC3\x67\x10\x08\0\0"[..], &[0; 0x8_0000]].concat();
    let block = b"\xA3\x84\x81\0\0\x80";
    let large = [EBML, SEGMENT, VIDEO_TRACK, &tags, &tags, CLUSTER, block].concat();
    let small = [EBML, SEGMENT, VIDEO_TRACK, CLUSTER, block].concat();
    let (marks, stats) = whole(Kind::WebM, &[&large[..], &small].concat());
    assert_eq!(stats.oversize_headers, 1);
    assert_eq!((headers(&marks).len(), joins(&marks).len()), (1, 1));
    assert!(joins(&marks)[0] > large.len() as u64);
}

#[test]
fn webm_a_picture_that_comes_too_late() {
    let void = [&b"\xEC\x22\x00\x00"[..], &[0; 0x2_0000]].concat();
    let stream = [
        EBML,
        SEGMENT,
        VIDEO_TRACK,
        CLUSTER,
        &void,
        b"\xA3\x84\x81\0\0\x80",
    ]
    .concat();
    let (marks, stats) = whole(Kind::WebM, &stream);
    assert!(void.len() as u64 > LOOKBACK_MAX);
    assert_eq!((joins(&marks).len(), stats.joins_withheld), (0, 1));
}

#[test]
fn webm_a_picture_of_32_mebibytes() {
    let opening = [EBML, SEGMENT, VIDEO_TRACK, CLUSTER, b"\xA3\x12\0\0\0\x81\0\0\x80"].concat();
    let ending = [CLUSTER, b"\xA3\x84\x81\0\0\x80"].concat();
    let (mut scanner, mut marks) = (Scanner::new(Kind::WebM), Vec::new());
    scanner.feed(&opening, &mut marks);
    // Four of its bytes were in the opening.
    (0..511).for_each(|_| scanner.feed(&[0x1F; 65_536], &mut marks));
    scanner.feed(&[0x1F; 65_532], &mut marks);
    scanner.feed(&ending, &mut marks);
    assert_eq!(joins(&marks).len(), 2);
}

// MP4.

#[test]
fn mp4_joins_take_along_what_belongs_to_the_fragment() {
    let bytes = clip("short-fragments.mp4");
    let clean = joins(&whole(Kind::Mp4, &bytes).0);
    let styp = b"\0\0\0\x10stypmsdh\0\0\0\0";
    let prft = b"\0\0\0\x18prft\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let free = b"\0\0\0\x08free";
    let at = *clean.last().expect("every clip has joins") as usize;
    let stream = [&bytes[..at], free, styp, prft, &bytes[at..]].concat();
    let (marks, _) = whole(Kind::Mp4, &stream);
    assert_eq!(joins(&marks).last().copied(), Some((at + free.len()) as u64));
}

#[test]
fn mp4_fragments_addressed_by_file_position_are_no_joins() {
    let mut bytes = clip("h264-aac.mp4");
    let tfhd: Vec<usize> = (0..bytes.len() - 4)
        .filter(|at| &bytes[*at..at + 4] == b"tfhd")
        .collect();
    assert!(tfhd.len() > 3);
    tfhd.iter().for_each(|at| bytes[at + 7] |= 1);
    let (marks, stats) = whole(Kind::Mp4, &bytes);
    assert_eq!(
        (headers(&marks).len(), joins(&marks).len(), stats.joins_withheld),
        (1, 0, 3)
    );
}

#[test]
fn mp4_boxes_that_lie_about_their_size() {
    let bytes = clip("h264-aac.mp4");
    let moov = [&0x10_0000u32.to_be_bytes()[..], b"moov", &vec![0; 0x10_0000 - 8]].concat();
    let (marks, stats) = whole(Kind::Mp4, &[&bytes[..28], &moov, &bytes].concat());
    assert_eq!(
        (stats.oversize_headers, headers(&marks).len(), joins(&marks).len()),
        (1, 1, 3),
        "moov of 1 MiB"
    );
    for size in [0u32, 1, 7, 0x7FFF_FFFF] {
        let lie = [&size.to_be_bytes()[..], b"free"].concat();
        let (marks, stats) = whole(Kind::Mp4, &[&lie[..], &bytes].concat());
        assert_eq!(
            (joins(&marks).len(), stats.skipped_bytes),
            (3, 8),
            "a box of {size} bytes"
        );
    }
}

// Bare frames.

#[test]
fn mp3_tags_in_the_middle_and_tags_that_lie() {
    let bytes = clip("cbr.mp3");
    let clean = joins(&whole(Kind::Mp3, &bytes).0);
    let (marks, stats) = whole(Kind::Mp3, &[&bytes[..], &bytes].concat());
    assert_eq!(
        (stats.resyncs, stats.skipped_bytes),
        (0, 0),
        "a tag between two songs"
    );
    assert!(joins(&marks).len() >= 2 * clean.len() - 1);
    let (marks, stats) = whole(Kind::Mp3, &[b"ID3\x04\0\0\x7F\x7F\x7F\x7F", &bytes[..]].concat());
    assert_eq!(joins(&marks).len(), clean.len());
    assert_eq!(stats.skipped_bytes, 10);
}
