//! Flash video (Adobe, Video File Format Specification 10.1, annex E): tags with millisecond time stamps.

use crate::bytes::{be, len};
use crate::clock::Clock;
use crate::error::Fault;
use crate::format::{Format, Input, Step};
use crate::out::Out;
use crate::span::{self, Span};

const BITS: u32 = 32;
/// A tag's header; behind the body come four bytes of "previous tag size".
const HEAD: usize = 11;
const TRAILER: usize = 4;
/// A track's duration where it has only one tag, and the longest element, in ms.
const ALONE: u64 = 40;
const STEP_LIMIT: u64 = 1000;
/// The largest codec header that is remembered, so as not to send it again, in bytes.
const CODEC_HEADER_MAX: usize = 64 * 1024;

/// An FLV file.
pub(crate) struct Flv {
    clock: Clock,
    shift: u64,
    tracks: [Track; 2],
    in_body: bool,
    greeted: bool,
    timed: bool,
}

/// Audio or video.
#[derive(Default)]
struct Track {
    span: Option<Span>,
    /// The newest sequence header that was sent.
    header: Vec<u8>,
}

/// What a tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Script,
    /// The codec's header, of track 0 (audio) or 1 (video).
    Header(usize),
    Media(usize),
    /// The end of a codec's sequence: untrue in a live stream.
    End,
    Unknown,
}

impl Default for Flv {
    fn default() -> Self {
        Self {
            clock: Clock::new(1000, BITS, 0),
            shift: 0,
            tracks: Default::default(),
            in_body: false,
            greeted: false,
            timed: false,
        }
    }
}

impl Format for Flv {
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        if self.in_body {
            self.tag(input.data, out)
        } else {
            self.file_header(input.data, out)
        }
    }

    fn end_round(&mut self) -> Result<(), Fault> {
        if !self.timed {
            return Err(Fault::NoClock);
        }
        let spans = self.tracks.iter_mut().filter_map(|track| track.span.take());
        let round = spans
            .map(|span| span.reach() + span.step(ALONE, STEP_LIMIT))
            .max();
        self.shift = (self.shift + round.unwrap_or(ALONE)) & u64::from(u32::MAX);
        self.in_body = false;
        Ok(())
    }
}

impl Flv {
    /// "FLV", version, flags, length of this header; then a "previous tag size" of zero.
    fn file_header(&mut self, data: &[u8], out: &mut Out) -> Result<Step, Fault> {
        if !data.starts_with(&b"FLV"[..data.len().min(3)]) {
            return Err(Fault::NotThis(0));
        }
        let Some(header) = len(data, 5, 4) else {
            return Ok(Step::More);
        };
        if !(9..=1024).contains(&header) {
            return Err(Fault::Damaged(
                "a file header of 9 bytes",
                format!("{header} bytes"),
            ));
        }
        if data.len() < header + TRAILER {
            return Ok(Step::More);
        }
        if !std::mem::replace(&mut self.greeted, true) {
            out.put(0, &data[..header + TRAILER]);
        }
        self.in_body = true;
        Ok(Step::Took(header + TRAILER))
    }

    fn tag(&mut self, data: &[u8], out: &mut Out) -> Result<Step, Fault> {
        let kind = data[0] & 0x1F;
        if !matches!(kind, 8 | 9 | 15 | 18) {
            return Err(Fault::Damaged(
                "a tag of type 8, 9, 15 or 18",
                format!("type {kind}"),
            ));
        }
        let Some(size) = len(data, 1, 3).map(|body| HEAD + body + TRAILER) else {
            return Ok(Step::More);
        };
        let Some(bytes) = data.get(..size) else {
            return Ok(Step::More);
        };
        match classify(bytes) {
            Tag::Script if self.shift > 0 => {}
            Tag::Script => out.put(self.clock.due_ns(), &without_ends(bytes)),
            Tag::Header(track) => self.codec_header(track, bytes, out),
            Tag::Media(track) => self.media(track, bytes, out),
            Tag::End | Tag::Unknown => {}
        }
        Ok(Step::Took(size))
    }

    fn codec_header(&mut self, track: usize, bytes: &[u8], out: &mut Out) {
        let body = &bytes[HEAD..];
        let known = &mut self.tracks[track].header;
        if *known == body {
            return;
        }
        known.clear();
        if body.len() <= CODEC_HEADER_MAX {
            known.extend_from_slice(body);
        }
        out.put(self.clock.due_ns(), &self.shifted(bytes));
    }

    fn media(&mut self, track: usize, bytes: &[u8], out: &mut Out) {
        let raw = stamp(bytes);
        span::see(&mut self.tracks[track].span, raw, BITS);
        self.timed = true;
        let due = self.clock.see((raw + self.shift) & u64::from(u32::MAX));
        out.put(due, &self.shifted(bytes));
    }

    fn shifted(&self, bytes: &[u8]) -> Vec<u8> {
        let stamp = (stamp(bytes) + self.shift) as u32;
        let mut bytes = bytes.to_vec();
        bytes[4..7].copy_from_slice(&stamp.to_be_bytes()[1..]);
        bytes[7] = (stamp >> 24) as u8;
        bytes
    }
}

/// 24 bits, then the upper 8.
fn stamp(tag: &[u8]) -> u64 {
    be(tag, 4, 3).unwrap_or_default() | be(tag, 7, 1).unwrap_or_default() << 24
}

fn classify(tag: &[u8]) -> Tag {
    let body = &tag[HEAD..tag.len() - TRAILER];
    let (first, second) = (body.first().copied(), body.get(1).copied());
    match (tag[0] & 0x1F, first, second) {
        (18 | 15, ..) => Tag::Script,
        (_, None, _) => Tag::Unknown,
        // AAC
        (8, Some(first), Some(0)) if first >> 4 == 10 => Tag::Header(0),
        // Enhanced RTMP: the codec by its FourCC, the packet's type in the low bits.
        (8, Some(first), _) if first >> 4 == 9 => enhanced(first, 0),
        (8, ..) => Tag::Media(0),
        (9, Some(first), _) if first & 0x80 != 0 => enhanced(first, 1),
        // AVC (and HEVC as 12)
        (9, Some(first), Some(0)) if matches!(first & 15, 7 | 12) => Tag::Header(1),
        (9, Some(first), Some(2)) if matches!(first & 15, 7 | 12) => Tag::End,
        _ => Tag::Media(1),
    }
}

fn enhanced(first: u8, track: usize) -> Tag {
    match first & 15 {
        0 => Tag::Header(track),
        2 => Tag::End,
        // Metadata (video 4), channel map (audio 4): said once, like a header, but never remembered as one.
        4 => Tag::Unknown,
        _ => Tag::Media(track),
    }
}

/// `onMetaData` without what a live stream does not have: `duration` and `filesize` become zero.
fn without_ends(tag: &[u8]) -> Vec<u8> {
    let mut tag = tag.to_vec();
    for name in [&b"\x00\x08duration\x00"[..], b"\x00\x08filesize\x00"] {
        let at = tag
            .windows(name.len())
            .position(|bytes| bytes == name)
            .map(|at| at + name.len());
        if let Some(number) = at.and_then(|at| tag.get_mut(at..at + 8)) {
            number.fill(0);
        }
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(kind: u8, stamp: u32, body: &[u8]) -> Vec<u8> {
        let mut tag = vec![kind];
        tag.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        tag.extend_from_slice(&stamp.to_be_bytes()[1..]);
        tag.push((stamp >> 24) as u8);
        tag.extend_from_slice(&[0; 3]);
        tag.extend_from_slice(body);
        tag.extend_from_slice(&(11 + body.len() as u32).to_be_bytes());
        tag
    }

    #[test]
    fn tags_are_told_apart() {
        assert_eq!(classify(&tag(8, 0, &[0xAF, 0, 1])), Tag::Header(0));
        assert_eq!(classify(&tag(8, 0, &[0xAF, 1, 1])), Tag::Media(0));
        assert_eq!(classify(&tag(9, 0, &[0x17, 0, 1])), Tag::Header(1));
        assert_eq!(classify(&tag(9, 0, &[0x17, 2, 1])), Tag::End);
        assert_eq!(classify(&tag(9, 0, &[0x90, b'h'])), Tag::Header(1));
        assert_eq!(classify(&tag(9, 0, &[0x91, b'h'])), Tag::Media(1));
        assert_eq!(classify(&tag(9, 0, &[0x22])), Tag::Media(1));
        assert_eq!(classify(&tag(9, 0, &[])), Tag::Unknown);
    }

    #[test]
    fn stamps_have_their_top_byte_last_and_wrap() {
        let flv = Flv {
            shift: 2,
            ..Flv::default()
        };
        let shifted = flv.shifted(&tag(9, 0x01FF_FFFF, &[0x22]));
        assert_eq!(stamp(&shifted), 0x0200_0001);
        assert_eq!(stamp(&flv.shifted(&tag(9, u32::MAX, &[0x22]))), 1);
    }

    #[test]
    fn the_end_is_taken_out_of_the_metadata() {
        let body = b"\x00\x08duration\x00\x40\x23\x33\x33\x33\x33\x33\x33\x00\x05width";
        let cleaned = without_ends(&tag(18, 0, body));
        assert_eq!(
            cleaned,
            tag(18, 0, b"\x00\x08duration\x00\0\0\0\0\0\0\0\0\x00\x05width")
        );
    }
}
