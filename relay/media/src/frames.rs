//! MPEG audio (ISO/IEC 11172-3, 13818-3) and ADTS (ISO/IEC 13818-7 annex 1.A, 14496-3 1.A.2.2) without a container.
//!
//! Every frame is a join point once the header of the next frame has confirmed it. There is no stream header. Layer
//! III frames may refer to up to 511 bytes of earlier frames (the bit reservoir); a decoder that starts in the middle
//! mutes the frame or two that miss it, and FFmpeg does so without printing anything, so no frame is left out.

use crate::step::{Found, Parser, Step, need, until};

/// An ID3v2 tag claiming more than this, in bytes, is not believed: it would hide the stream.
const ID3_MAX: usize = 4 << 20;

/// Scanner state for bare audio frames.
#[derive(Debug)]
pub(crate) struct Frames {
    format: Format,
    /// The fields that all frames of the stream share; `None` while searching.
    stream: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Mpeg,
    Adts,
}

/// A frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// Whole frame, in bytes.
    pub(crate) len: usize,
    /// The fields that do not change within a stream.
    pub(crate) fixed: u32,
}

impl Frames {
    pub(crate) fn mp3() -> Frames {
        Frames {
            format: Format::Mpeg,
            stream: None,
        }
    }

    pub(crate) fn adts() -> Frames {
        Frames {
            format: Format::Adts,
            stream: None,
        }
    }

    fn head_len(&self) -> usize {
        match self.format {
            Format::Mpeg => MPEG_HEAD,
            Format::Adts => ADTS_HEAD,
        }
    }

    fn head(&self, bytes: &[u8]) -> Option<Head> {
        match self.format {
            Format::Mpeg => mpeg_head(bytes),
            Format::Adts => adts_head(bytes),
        }
    }

    fn lost(&mut self, found: &mut Found<'_>) {
        found.stats.resyncs += u64::from(self.stream.take().is_some());
    }

    /// Passes over bytes in which no frame begins.
    fn hunt(&mut self, data: &[u8], found: &mut Found<'_>) -> Step {
        self.lost(found);
        found.skip(1 + until(&data[1..], &[0xFF, b'I']))
    }

    /// Within the thread: the next header confirms this frame, or at least it is passed over.
    fn follow(&mut self, head: Head, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        let whole = head.len + self.head_len();
        need!(data, whole);
        if self
            .head(&data[head.len..])
            .is_some_and(|next| next.fixed == head.fixed)
        {
            found.join(at, at + whole as u64);
        }
        Step::Take(head.len as u64)
    }

    /// Three headers in the right places are a stream.
    fn search(&mut self, head: Head, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        let second = head.len;
        need!(data, second + self.head_len());
        let Some(next) = self.head(&data[second..]).filter(|next| next.fixed == head.fixed) else {
            return self.hunt(data, found);
        };
        let third = second + next.len;
        need!(data, third + self.head_len());
        if self
            .head(&data[third..])
            .is_none_or(|next| next.fixed != head.fixed)
        {
            return self.hunt(data, found);
        }
        self.stream = Some(head.fixed);
        found.join(at, at + (third + self.head_len()) as u64);
        Step::Take(head.len as u64)
    }
}

impl Parser for Frames {
    fn step(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        if data[0] == b'I' {
            need!(data, 10);
            if let Some(len) = id3_len(data) {
                return Step::Take(len as u64);
            }
        }
        if data[0] != 0xFF {
            return self.hunt(data, found);
        }
        need!(data, self.head_len());
        match self.head(data) {
            None => self.hunt(data, found),
            Some(head) if self.stream == Some(head.fixed) => self.follow(head, data, at, found),
            Some(head) => {
                self.lost(found);
                self.search(head, data, at, found)
            }
        }
    }
}

/// The length of an ID3v2 tag (id3.org, ID3v2.4.0 structure, section 3.1) with its header and footer.
fn id3_len(bytes: &[u8]) -> Option<usize> {
    let sizes = &bytes[6..10];
    if &bytes[..3] != b"ID3" || sizes.iter().any(|byte| byte & 0x80 != 0) {
        return None;
    }
    let body = sizes.iter().fold(0, |sum, byte| sum << 7 | usize::from(*byte));
    let footer = if bytes[5] & 0x10 != 0 { 10 } else { 0 };
    Some(10 + body + footer).filter(|len| *len <= ID3_MAX)
}

/// Bytes of an MPEG audio frame header.
pub(crate) const MPEG_HEAD: usize = 4;

/// Bit rates in kb/s by table and index; index 0 (free format) and 15 are not taken.
const RATES: [[u16; 15]; 5] = [
    [
        0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448,
    ],
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// Reads an MPEG audio frame header (ISO/IEC 11172-3, 2.4.1.3), layers I to III, MPEG 1, 2 and 2.5.
pub(crate) fn mpeg_head(bytes: &[u8]) -> Option<Head> {
    let word = u32::from_be_bytes(*bytes.first_chunk::<4>()?);
    let (version, layer) = (word >> 19 & 3, 4 - (word >> 17 & 3));
    let (rate, hertz, padding) = (
        (word >> 12 & 15) as usize,
        word >> 10 & 3,
        (word >> 9 & 1) as usize,
    );
    if word >> 21 != 0x7FF || version == 1 || layer == 4 || hertz == 3 || rate == 0 || rate == 15 {
        return None;
    }
    let (first, half) = (version == 3, [4, 0, 2, 1][version as usize]);
    let hertz = [44_100, 48_000, 32_000][hertz as usize] / half;
    let table = if first {
        layer as usize - 1
    } else {
        if layer == 1 { 3 } else { 4 }
    };
    let bits = usize::from(RATES[table][rate]) * 1000;
    let len = match layer {
        1 => (12 * bits / hertz + padding) * 4,
        3 if !first => 72 * bits / hertz + padding,
        _ => 144 * bits / hertz + padding,
    };
    // Sync word, version, layer and sampling rate; the bit rate, padding and joint stereo may vary.
    Some(Head {
        len,
        fixed: word & 0xFFFE_0C00,
    })
}

/// Bytes of an ADTS header without its checksum.
pub(crate) const ADTS_HEAD: usize = 7;

/// Reads an ADTS header (ISO/IEC 14496-3, 1.A.2.2).
pub(crate) fn adts_head(bytes: &[u8]) -> Option<Head> {
    let bytes = bytes.first_chunk::<ADTS_HEAD>()?;
    let len = usize::from(bytes[3] & 3) << 11 | usize::from(bytes[4]) << 3 | usize::from(bytes[5] >> 5);
    let rate = bytes[2] >> 2 & 15;
    if bytes[0] != 0xFF || bytes[1] & 0xF6 != 0xF0 || rate > 12 || len < ADTS_HEAD {
        return None;
    }
    // Sync word, id, protection; profile, rate, channels. Not the private and copyright bits.
    let fixed = u32::from_be_bytes([bytes[0], bytes[1], bytes[2] & 0xFD, bytes[3] & 0xC0]);
    Some(Head { len, fixed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_lengths() {
        let len = |bytes: [u8; 4]| mpeg_head(&bytes).map(|head| head.len);
        assert_eq!(len([0xFF, 0xFB, 0x90, 0x64]), Some(417)); // MPEG 1 layer III, 128 kb/s, 44.1 kHz
        assert_eq!(len([0xFF, 0xFB, 0x92, 0x64]), Some(418)); // the same, padded
        assert_eq!(len([0xFF, 0xF3, 0x84, 0xC4]), Some(192)); // MPEG 2 layer III, 64 kb/s, 24 kHz
        assert_eq!(len([0xFF, 0xFD, 0xE4, 0x00]), Some(1152)); // MPEG 1 layer II, 384 kb/s, 48 kHz
        assert_eq!(len([0xFF, 0xFF, 0xE4, 0x00]), Some(448)); // MPEG 1 layer I, 448 kb/s, 48 kHz
        assert_eq!(len([0xFF, 0xEB, 0x90, 0x64]), None); // reserved version
        assert_eq!(len([0xFF, 0xFB, 0x00, 0x64]), None); // free format
        assert_eq!(len([0xFF, 0xFB, 0x9C, 0x64]), None); // reserved rate
    }

    #[test]
    fn a_tag_that_would_hide_the_stream_is_not_believed() {
        assert_eq!(id3_len(b"ID3\x04\x00\x00\x00\x00\x02\x01"), Some(10 + 257));
        assert_eq!(id3_len(b"ID3\x04\x00\x10\x00\x00\x02\x01"), Some(20 + 257));
        assert_eq!(id3_len(b"ID3\x04\x00\x00\x7F\x7F\x7F\x7F"), None);
        assert_eq!(id3_len(b"ID3\x04\x00\x00\x80\x00\x00\x00"), None);
    }
}
