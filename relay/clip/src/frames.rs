//! MPEG audio (layers I–III, ISO/IEC 11172-3 and 13818-3) and AAC in ADTS frames (ISO/IEC 13818-7): every frame
//! says how long it is, in bytes and in samples.

use crate::bytes::be;
use crate::error::Fault;
use crate::format::{Format, Input, SCAN_MAX, Step};
use crate::out::Out;

/// Enough for either header.
const HEAD: usize = 7;

/// One audio frame, as told by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Bytes, the header included; at least [`HEAD`].
    pub(crate) len: usize,
    /// Samples per channel.
    pub(crate) samples: u32,
    /// Samples per second.
    pub(crate) rate: u32,
    /// Version and layer: the same in all frames of a stream.
    family: u8,
}

/// Reads a header; none where it is not one.
pub(crate) type Parse = fn(&[u8]) -> Option<Frame>;

/// Bit rates in kbit/s by row (see [`mp3_row`]) and index 1–14.
const KBPS: [[u32; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// A header of MPEG audio.
pub(crate) fn mp3(data: &[u8]) -> Option<Frame> {
    let head = be(data, 0, 4)?;
    let (version, layer) = (head >> 19 & 3, head >> 17 & 3);
    let (bits, rate) = ((head >> 12 & 15) as usize, (head >> 10 & 3) as usize);
    if head >> 21 != 0x7FF || version == 1 || layer == 0 || bits == 0 || bits == 15 || rate == 3 {
        return None;
    }
    let bps = KBPS[mp3_row(version, layer)][bits - 1] * 1000;
    let rate = [44_100, 48_000, 32_000][rate] >> [2, 0, 1, 0][version as usize];
    let samples = match (layer, version) {
        (3, _) => 384,
        (1, 0 | 2) => 576,
        _ => 1152,
    };
    let padding = (head >> 9 & 1) as u32;
    let len = if layer == 3 {
        (12 * bps / rate + padding) * 4
    } else {
        samples / 8 * bps / rate + padding
    };
    Some(Frame {
        len: len as usize,
        samples,
        rate,
        family: data[1] & 0xFE,
    })
}

fn mp3_row(version: u64, layer: u64) -> usize {
    match (version, layer) {
        (3, 3) => 0,
        (3, 2) => 1,
        (3, _) => 2,
        (_, 3) => 3,
        _ => 4,
    }
}

/// A header of AAC in ADTS.
pub(crate) fn adts(data: &[u8]) -> Option<Frame> {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let head = be(data, 0, HEAD)?;
    let rate = *RATES.get((head >> 34 & 15) as usize)?;
    let len = (head >> 13 & 0x1FFF) as usize;
    if head >> 44 != 0xFFF || head >> 41 & 3 != 0 || len < HEAD {
        return None;
    }
    let samples = 1024 * ((head & 3) as u32 + 1);
    Some(Frame {
        len,
        samples,
        rate,
        family: data[1] & 0xFE,
    })
}

/// A stream of frames.
pub(crate) struct Frames {
    parse: Parse,
    family: Option<u8>,
    rate: u32,
    base_ns: u64,
    samples: u64,
    scanned: u64,
    played: bool,
}

impl Frames {
    /// MPEG audio.
    pub(crate) fn mp3() -> Self {
        Self {
            parse: mp3,
            family: None,
            rate: 1,
            base_ns: 0,
            samples: 0,
            scanned: 0,
            played: false,
        }
    }

    /// AAC in ADTS.
    pub(crate) fn adts() -> Self {
        Self {
            parse: adts,
            ..Self::mp3()
        }
    }

    /// The frame that begins here: in sync, whatever is of the stream's family; out of sync, only what is followed
    /// by another one (or by the end of the file).
    fn frame(&self, input: &Input<'_>) -> Option<Frame> {
        let frame = (self.parse)(input.data)?;
        let next = input.data.get(frame.len..).unwrap_or_default();
        let follows = || match (self.parse)(next) {
            Some(next) => next.family == frame.family,
            None => input.ended && next.len() < HEAD,
        };
        match self.family {
            Some(family) => (family == frame.family).then_some(frame),
            None => follows().then_some(frame),
        }
    }

    fn due_ns(&self) -> u64 {
        let ns = u128::from(self.samples) * 1_000_000_000 / u128::from(self.rate);
        self.base_ns.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    fn play(&mut self, frame: Frame, bytes: &[u8], out: &mut Out) {
        if frame.rate != self.rate {
            self.base_ns = self.due_ns();
            self.samples = 0;
            self.rate = frame.rate;
        }
        let first = self.family.replace(frame.family).is_none();
        self.scanned = 0;
        if first && is_summary(bytes) {
            return;
        }
        out.put(self.due_ns(), bytes);
        self.samples += u64::from(frame.samples);
        self.played = true;
    }

    /// Looks further: nothing begins here.
    fn scan(&mut self, input: &Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        self.family = None;
        let n = input.data[1..]
            .iter()
            .position(|&byte| byte == 0xFF || byte == b'I');
        let n = n.map_or(input.data.len(), |n| n + 1);
        self.scanned += n as u64;
        out.skip(n);
        if self.scanned > SCAN_MAX {
            Err(Fault::NotThis(self.scanned))
        } else {
            Ok(Step::Took(n))
        }
    }
}

impl Format for Frames {
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        if let Some(step) = id3(&input) {
            return Ok(step);
        }
        if input.data.len() < HEAD && !input.ended {
            return Ok(Step::More);
        }
        let Some(head) = (self.parse)(input.data) else {
            return self.scan(&input, out);
        };
        // Out of sync the next header is looked at as well.
        let wanted = if self.family.is_some() {
            head.len
        } else {
            head.len + HEAD
        };
        if input.data.len() < wanted && !input.ended {
            return Ok(Step::More);
        }
        match self.frame(&input) {
            Some(frame) if input.data.len() < frame.len => Ok(Step::More),
            Some(frame) => {
                self.play(frame, &input.data[..frame.len], out);
                Ok(Step::Took(frame.len))
            }
            None => self.scan(&input, out),
        }
    }

    fn end_round(&mut self) -> Result<(), Fault> {
        self.family = None;
        self.scanned = 0;
        if self.played { Ok(()) } else { Err(Fault::NoClock) }
    }
}

/// An ID3v2 tag (id3.org, ID3v2.4 section 3.1): its size is 4 × 7 bits, without header and footer.
fn id3(input: &Input<'_>) -> Option<Step> {
    let data = input.data;
    if data.len() < 10 && !input.ended && b"ID3".starts_with(&data[..data.len().min(3)]) {
        return Some(Step::More);
    }
    let size = be(data, 6, 4).filter(|size| data.starts_with(b"ID3") && size & 0x8080_8080 == 0)?;
    let size = (0..4).fold(0, |sum, i| sum | (size >> (8 * i) & 0x7F) << (7 * i));
    let footer = if data[5] & 0x10 != 0 { 10 } else { 0 };
    Some(Step::Skip(10 + size + footer))
}

/// A first frame that only tells encoder and number of frames (Xing, Info, VBRI): untrue for a live stream.
fn is_summary(frame: &[u8]) -> bool {
    let head = &frame[..frame.len().min(44)];
    [b"Xing", b"Info", b"VBRI"]
        .iter()
        .any(|&mark| head.windows(4).any(|bytes| bytes == mark))
}

/// Adds up the duration of frames that come in slices: what one PES packet holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    to_next: usize,
    head: Vec<u8>,
    lost: bool,
    samples: u64,
    rate: u32,
}

impl Counter {
    /// Counting starts anew; a frame that is under way is finished but not counted.
    pub(crate) fn restart(&mut self) {
        self.samples = 0;
    }

    /// The next slice.
    pub(crate) fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.lost {
            let pass = self.to_next.min(data.len());
            self.to_next -= pass;
            data = &data[pass..];
            let want = (HEAD - self.head.len()).min(data.len());
            self.head.extend_from_slice(&data[..want]);
            data = &data[want..];
            if self.head.len() == HEAD {
                self.count();
            }
        }
    }

    /// The frames counted, in ticks of `per_s`, rounded up; none where this is not such audio.
    pub(crate) fn ticks(&self, per_s: u64) -> Option<u64> {
        let counted = !self.lost && self.samples > 0;
        counted.then(|| (self.samples * per_s).div_ceil(u64::from(self.rate.max(1))))
    }

    fn count(&mut self) {
        match adts(&self.head).or_else(|| mp3(&self.head)) {
            Some(frame) if frame.len >= HEAD => {
                self.samples += u64::from(frame.samples);
                self.rate = frame.rate;
                self.to_next = frame.len - HEAD;
            }
            _ => self.lost = true,
        }
        self.head.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AAC LC, 48 kHz, 20 bytes.
    fn adts_frame() -> Vec<u8> {
        let mut frame = vec![0xFF, 0xF1, 0x4C, 0x80, 0x02, 0x9F, 0xFC];
        frame.resize(20, 0);
        frame
    }

    #[test]
    fn headers_of_both() {
        let aac = adts(&adts_frame()).unwrap();
        assert_eq!((aac.len, aac.samples, aac.rate), (20, 1024, 48_000));
        let mp3_128 = mp3(&[0xFF, 0xFB, 0x90, 0x00]).unwrap();
        assert_eq!((mp3_128.len, mp3_128.samples, mp3_128.rate), (417, 1152, 44_100));
        let mpeg2 = mp3(&[0xFF, 0xF3, 0x84, 0x00]).unwrap();
        assert_eq!((mpeg2.len, mpeg2.samples, mpeg2.rate), (192, 576, 24_000));
        let layer1 = mp3(&[0xFF, 0xFF, 0xC4, 0x00]).unwrap();
        assert_eq!((layer1.len, layer1.samples), (384, 384));
        assert_eq!(mp3(&[0xFF, 0xFB, 0xF0, 0x00]), None);
        assert_eq!(adts(&[0xFF, 0xF1, 0x4C, 0x80, 0x00, 0x1F, 0xFC]), None);
    }

    #[test]
    fn a_counter_counts_frames_in_any_slices() {
        let frames = adts_frame().repeat(3);
        for slice in 1..=frames.len() {
            let mut counter = Counter::default();
            frames.chunks(slice).for_each(|bytes| counter.feed(bytes));
            assert_eq!(counter.ticks(90_000), Some(5760), "slices of {slice}");
        }
        let mut lost = Counter::default();
        lost.feed(&[0; 30]);
        assert_eq!(lost.ticks(90_000), None);
    }

    #[test]
    fn tags_are_skipped_by_their_size() {
        let tag = b"ID3\x04\x00\x00\x00\x00\x02\x01rest";
        assert_eq!(
            id3(&Input {
                data: tag,
                at: 0,
                ended: false
            }),
            Some(Step::Skip(10 + 257))
        );
        assert_eq!(
            id3(&Input {
                data: b"ID",
                at: 0,
                ended: false
            }),
            Some(Step::More)
        );
        assert_eq!(
            id3(&Input {
                data: b"\xFF\xFB",
                at: 0,
                ended: false
            }),
            None
        );
    }
}
