//! Fragmented MP4 (ISO/IEC 14496-12, section 8.8): `ftyp` and `moov` once, then fragments whose decode times go on.
//!
//! A `moof` is written anew, so that it can be sent at any place of any stream: its decode time in 64 bits, its
//! data offsets relative to itself. The bytes of a `mdat` go evenly over the duration of their fragment.

use std::collections::HashMap;

use crate::bytes::{be, len};
use crate::clock::Clock;
use crate::error::Fault;
use crate::format::{Format, Input, Step};
use crate::out::Out;

/// A `mdat` goes in slices of this many bytes.
const SLICE: u64 = 4096;
/// Tracks that are known by their timescale; a `moov` with more is not a live stream.
const TRACKS_MAX: usize = 64;
const NS: u128 = 1_000_000_000;
const REMEDY: &str = "remux it: ffmpeg -i IN -c copy \
                      -movflags +frag_keyframe+empty_moov+default_base_moof OUT.mp4, or to MPEG-TS";

/// A fragmented MP4 file.
pub(crate) struct Mp4 {
    clock: Clock,
    tracks: HashMap<u32, Track>,
    shift_ns: u64,
    sequence: u32,
    /// A `moof` whose `mdat` has not come yet: when it is due and how long it lasts.
    fragment: Option<(u64, u64)>,
    mdat: Option<Mdat>,
    begun: bool,
    greeted: bool,
    timed: bool,
}

#[derive(Clone, Copy)]
struct Track {
    timescale: u64,
    default_duration: u64,
    /// First decode time and end of the newest fragment, in this round.
    first: Option<u64>,
    end: u64,
}

/// A `mdat` under way.
struct Mdat {
    due_ns: u64,
    duration_ns: u64,
    total: u64,
    sent: u64,
}

/// A box's head.
#[derive(Clone, Copy)]
struct Head {
    kind: [u8; 4],
    len: usize,
    /// All of the box.
    size: u64,
}

impl Default for Mp4 {
    fn default() -> Self {
        Self {
            clock: Clock::new(1_000_000_000, 64, 0),
            tracks: HashMap::new(),
            shift_ns: 0,
            sequence: 0,
            fragment: None,
            mdat: None,
            begun: false,
            greeted: false,
            timed: false,
        }
    }
}

impl Format for Mp4 {
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        if let Some(mdat) = &mut self.mdat {
            let step = mdat.slice(input.data, out);
            self.mdat.take_if(|mdat| mdat.sent == mdat.total);
            return Ok(step);
        }
        if !self.begun && !begins(input.data) {
            return Err(Fault::NotThis(0));
        }
        let Some(head) = Head::read(input.data)? else {
            return Ok(Step::More);
        };
        self.begun = true;
        match &head.kind {
            b"mdat" => self.mdat(head, &input.data[..head.len], out),
            b"ftyp" | b"moov" if self.greeted => Ok(Step::Skip(head.size)),
            b"ftyp" | b"moov" | b"moof" => self.whole(head, &input, out),
            // Between a moof and its mdat nothing may be left out: the data offsets count it.
            _ if self.fragment.is_some() => self.whole(head, &input, out),
            _ => Ok(Step::Skip(head.size)),
        }
    }

    fn end_round(&mut self) -> Result<(), Fault> {
        if let Some(mdat) = &self.mdat {
            let found = format!("the end of the file {} bytes early", mdat.total - mdat.sent);
            return Err(Fault::Damaged("all of a mdat", found));
        }
        if !self.timed {
            return Err(Fault::NoClock);
        }
        let round = self.tracks.values_mut().filter_map(Track::round_ns).max();
        self.shift_ns = self.shift_ns.saturating_add(round.unwrap_or(1));
        self.fragment = None;
        self.begun = false;
        self.greeted = true;
        Ok(())
    }
}

impl Mp4 {
    fn mdat(&mut self, head: Head, bytes: &[u8], out: &mut Out) -> Result<Step, Fault> {
        let Some((due_ns, duration_ns)) = self.fragment.take() else {
            return Err(Fault::Unsupported(
                "this MP4 is not fragmented (a mdat without moof)",
                REMEDY,
            ));
        };
        let total = head.size - head.len as u64;
        out.put(due_ns, bytes);
        self.mdat = (total > 0).then_some(Mdat {
            due_ns,
            duration_ns,
            total,
            sent: 0,
        });
        Ok(Step::Took(head.len))
    }

    fn whole(&mut self, head: Head, input: &Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        let size = usize::try_from(head.size).unwrap_or(usize::MAX);
        let Some(bytes) = input.data.get(..size) else {
            return Ok(Step::More);
        };
        let body = &bytes[head.len..];
        match &head.kind {
            b"moov" => out.put(0, &self.moov(bytes, head.len)?),
            b"moof" => self.moof(body, head.size, input.at, out)?,
            _ => out.put(self.clock.due_ns(), bytes),
        }
        Ok(Step::Took(size))
    }

    /// Notes the tracks. The overall duration (`mehd`) is turned into free space: a live stream has none.
    fn moov(&mut self, bytes: &[u8], head: usize) -> Result<Vec<u8>, Fault> {
        let body = &bytes[head..];
        let Some(mvex) = child(body, b"mvex") else {
            return Err(Fault::Unsupported(
                "this MP4 is not fragmented (its moov has no mvex)",
                REMEDY,
            ));
        };
        let traks = boxes(body)
            .filter(|found| found.kind == *b"trak")
            .filter_map(|found| trak(found.body));
        for (id, timescale) in traks.take(TRACKS_MAX) {
            let trex = boxes(mvex).find(|found| found.kind == *b"trex" && be(found.body, 4, 4) == Some(id));
            let default_duration = trex.and_then(|trex| be(trex.body, 12, 4)).unwrap_or_default();
            self.tracks.insert(
                id as u32,
                Track {
                    timescale,
                    default_duration,
                    first: None,
                    end: 0,
                },
            );
        }
        let mut bytes = bytes.to_vec();
        if let Some(at) = mehd_at(&bytes, head) {
            bytes[at..at + 4].copy_from_slice(b"free");
        }
        Ok(bytes)
    }

    fn moof(&mut self, body: &[u8], size: u64, at: u64, out: &mut Out) -> Result<(), Fault> {
        let mut writer = Writer::new(at, size);
        let (mut start_ns, mut duration_ns) = (None, 0);
        for found in boxes(body) {
            match &found.kind {
                b"mfhd" => {
                    self.sequence = self.sequence.wrapping_add(1);
                    writer.put_box(b"mfhd", &[&[0; 4], &self.sequence.to_be_bytes()]);
                }
                b"traf" => {
                    let (start, duration) = self.traf(found.body, start_ns.is_none(), &mut writer)?;
                    start_ns = start_ns.or(Some(start));
                    duration_ns = duration_ns.max(duration);
                }
                _ => writer.bytes.extend_from_slice(found.whole),
            }
        }
        let Some(start_ns) = start_ns else {
            return Err(Fault::Damaged("a traf in every moof", "none".into()));
        };
        self.timed = true;
        let due_ns = self.clock.see(start_ns);
        self.fragment = Some((due_ns, duration_ns));
        out.put(due_ns, &writer.finish());
        Ok(())
    }

    /// Writes one track's part of a fragment; answers when it begins (shifted) and how long it lasts, in ns.
    fn traf(&mut self, body: &[u8], first: bool, writer: &mut Writer) -> Result<(u64, u64), Fault> {
        let damaged = |what| Fault::Damaged(what, format!("a traf of {} bytes", body.len()));
        let tfhd = child(body, b"tfhd")
            .and_then(Tfhd::read)
            .ok_or_else(|| damaged("a tfhd in every traf"))?;
        if !first && tfhd.base.is_none() && !tfhd.base_is_moof {
            return Err(Fault::Unsupported(
                "a fragment's data is placed after another track's",
                REMEDY,
            ));
        }
        let track = self
            .tracks
            .get_mut(&tfhd.track)
            .ok_or_else(|| damaged("a track of the moov"))?;
        let time = child(body, b"tfdt").and_then(tfdt).unwrap_or(track.end);
        let default = tfhd.default_duration.unwrap_or(track.default_duration);
        let truns = boxes(body).filter(|found| found.kind == *b"trun");
        let duration = truns
            .map(|found| trun_duration(found.body, default))
            .fold(0, u64::saturating_add);
        track.first.get_or_insert(time);
        track.end = time.saturating_add(duration);
        let shifted = time.saturating_add(track.ticks(self.shift_ns));

        let from = writer.open(b"traf");
        writer.put_box(b"tfhd", &[&tfhd.rest]);
        writer.put_box(b"tfdt", &[&[1, 0, 0, 0], &shifted.to_be_bytes()]);
        let mut base = tfhd.base;
        for found in boxes(body).filter(|found| !matches!(&found.kind, b"tfhd" | b"tfdt")) {
            match &found.kind {
                b"trun" => writer.trun(found.body, tfhd.base, base.take().is_some()),
                _ => writer.bytes.extend_from_slice(found.whole),
            }
        }
        writer.close(from);
        Ok((track.ns(time).saturating_add(self.shift_ns), track.ns(duration)))
    }
}

impl Track {
    fn ns(&self, ticks: u64) -> u64 {
        u64::try_from(u128::from(ticks) * NS / u128::from(self.timescale)).unwrap_or(u64::MAX)
    }

    fn ticks(&self, ns: u64) -> u64 {
        u64::try_from(u128::from(ns) * u128::from(self.timescale) / NS).unwrap_or(u64::MAX)
    }

    /// How long this round was, rounded up; the next begins.
    fn round_ns(&mut self) -> Option<u64> {
        let ticks = self.end.saturating_sub(self.first.take()?).max(1);
        u64::try_from((u128::from(ticks) * NS).div_ceil(u128::from(self.timescale))).ok()
    }
}

impl Mdat {
    fn slice(&mut self, data: &[u8], out: &mut Out) -> Step {
        let n = SLICE.min(self.total - self.sent) as usize;
        let Some(bytes) = data.get(..n) else {
            return Step::More;
        };
        let part = u128::from(self.duration_ns) * u128::from(self.sent) / u128::from(self.total);
        out.put(
            self.due_ns
                .saturating_add(u64::try_from(part).unwrap_or(u64::MAX)),
            bytes,
        );
        self.sent += n as u64;
        Step::Took(n)
    }
}

impl Head {
    fn read(data: &[u8]) -> Result<Option<Self>, Fault> {
        let (Some(size), Some(kind)) = (be(data, 0, 4), data.get(4..8)) else {
            return Ok(None);
        };
        let kind = [kind[0], kind[1], kind[2], kind[3]];
        let (len, size) = match size {
            1 => match be(data, 8, 8) {
                Some(size) => (16, size),
                None => return Ok(None),
            },
            0 if &kind == b"mdat" => {
                return Err(Fault::Unsupported(
                    "a mdat without a size runs to the end of the file",
                    REMEDY,
                ));
            }
            size => (8, size),
        };
        if size < len as u64 {
            return Err(Fault::Damaged(
                "a box of at least its header",
                format!("{size} bytes"),
            ));
        }
        Ok(Some(Self { kind, len, size }))
    }
}

/// A box inside a whole one.
struct Found<'a> {
    kind: [u8; 4],
    whole: &'a [u8],
    body: &'a [u8],
}

/// The boxes in a body. Stops at damage.
fn boxes(mut body: &[u8]) -> impl Iterator<Item = Found<'_>> {
    std::iter::from_fn(move || {
        let head = Head::read(body).ok()??;
        let whole = body.get(..usize::try_from(head.size).ok()?)?;
        body = &body[whole.len()..];
        Some(Found {
            kind: head.kind,
            whole,
            body: &whole[head.len..],
        })
    })
}

fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(body)
        .find(|found| found.kind == *kind)
        .map(|found| found.body)
}

/// The first box of a file is one of these.
fn begins(data: &[u8]) -> bool {
    const FIRST: [&[u8; 4]; 8] = [
        b"ftyp", b"styp", b"moov", b"moof", b"free", b"skip", b"wide", b"sidx",
    ];
    let kind = data.get(4..8.min(data.len())).unwrap_or_default();
    FIRST.iter().any(|known| known.starts_with(kind)) || kind == b"mdat"
}

/// A track's ID and timescale.
fn trak(body: &[u8]) -> Option<(u64, u64)> {
    let tkhd = child(body, b"tkhd")?;
    let mdhd = child(child(body, b"mdia")?, b"mdhd")?;
    let at = |full: &[u8]| if full.first() == Some(&1) { 20 } else { 12 };
    let timescale = be(mdhd, at(mdhd), 4).filter(|&per_s| per_s > 0)?;
    Some((be(tkhd, at(tkhd), 4)?, timescale))
}

/// Where the type of the `mehd` is in a `moov`.
fn mehd_at(moov: &[u8], head: usize) -> Option<usize> {
    let place = |kind: &[u8; 4], from: usize, body: &[u8]| {
        let mut at = from;
        boxes(body).find_map(|found| {
            let here = at;
            at += found.whole.len();
            (found.kind == *kind).then_some((here, found.whole.len() - found.body.len(), found.body.len()))
        })
    };
    let (mvex, mvex_head, mvex_len) = place(b"mvex", head, &moov[head..])?;
    let from = mvex + mvex_head;
    let (mehd, ..) = place(b"mehd", from, &moov[from..from + mvex_len])?;
    Some(mehd + 4)
}

fn tfdt(body: &[u8]) -> Option<u64> {
    if body.first() == Some(&1) {
        be(body, 4, 8)
    } else {
        be(body, 4, 4)
    }
}

/// What a `tfhd` says, and its body as it is written: without an absolute place, relative to the `moof`.
struct Tfhd {
    track: u32,
    base: Option<u64>,
    base_is_moof: bool,
    default_duration: Option<u64>,
    rest: Vec<u8>,
}

impl Tfhd {
    fn read(body: &[u8]) -> Option<Self> {
        const BASE: u64 = 1;
        const BASE_IS_MOOF: u64 = 0x02_0000;
        let flags = be(body, 1, 3)?;
        let base = if flags & BASE != 0 {
            Some(be(body, 8, 8)?)
        } else {
            None
        };
        let fields = if base.is_some() { 16 } else { 8 };
        let duration_at = fields + if flags & 2 != 0 { 4 } else { 0 };
        let default_duration = if flags & 8 != 0 {
            Some(be(body, duration_at, 4)?)
        } else {
            None
        };
        let flags = flags & !BASE | BASE_IS_MOOF;
        let mut rest = (flags as u32).to_be_bytes().to_vec();
        rest.extend_from_slice(body.get(4..8)?);
        rest.extend_from_slice(body.get(fields..)?);
        let base_is_moof = be(body, 1, 3)? & BASE_IS_MOOF != 0;
        Some(Self {
            track: be(body, 4, 4)? as u32,
            base,
            base_is_moof,
            default_duration,
            rest,
        })
    }
}

/// The duration of a run, in ticks.
fn trun_duration(body: &[u8], default: u64) -> u64 {
    let (flags, count) = (
        be(body, 1, 3).unwrap_or_default(),
        len(body, 4, 4).unwrap_or_default(),
    );
    if flags & 0x100 == 0 {
        return (count as u64).saturating_mul(default);
    }
    let entries = 8 + 4 * (flags & 1).count_ones() as usize + 4 * (flags & 4).count_ones() as usize;
    let entry = 4 * (flags & 0xF00).count_ones() as usize;
    let samples = body
        .get(entries..)
        .unwrap_or_default()
        .chunks_exact(entry)
        .take(count);
    samples
        .filter_map(|sample| be(sample, 0, 4))
        .fold(0, u64::saturating_add)
}

/// Writes a `moof` that may become longer than the one it is made from.
struct Writer {
    bytes: Vec<u8>,
    at: u64,
    was: u64,
    /// Where data offsets are, and the offset from the start of the old `moof`.
    offsets: Vec<(usize, i64)>,
}

impl Writer {
    /// For the `moof` of `was` bytes at offset `at` of the file.
    fn new(at: u64, was: u64) -> Self {
        let mut writer = Self {
            bytes: Vec::new(),
            at,
            was,
            offsets: Vec::new(),
        };
        writer.open(b"moof");
        writer
    }

    fn open(&mut self, kind: &[u8; 4]) -> usize {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(kind);
        from
    }

    fn close(&mut self, from: usize) {
        let size = (self.bytes.len() - from) as u32;
        self.bytes[from..from + 4].copy_from_slice(&size.to_be_bytes());
    }

    fn put_box(&mut self, kind: &[u8; 4], parts: &[&[u8]]) {
        let from = self.open(kind);
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.close(from);
    }

    /// A run, with its data offset made relative to the `moof`. `leads`: the first of a `traf` with a place of its
    /// own gets an offset even where it had none. Runs without an offset follow the one before.
    fn trun(&mut self, body: &[u8], base: Option<u64>, leads: bool) {
        let flags = be(body, 0, 4).unwrap_or_default() as u32;
        let offset = if flags & 1 != 0 {
            be(body, 8, 4).map(|offset| i64::from(offset as i32))
        } else {
            None
        };
        let Some(offset) = offset.or(leads.then_some(0)) else {
            return self.put_box(b"trun", &[body]);
        };
        let from = self.open(b"trun");
        self.bytes.extend_from_slice(&(flags | 1).to_be_bytes());
        self.bytes.extend_from_slice(body.get(4..8).unwrap_or_default());
        let base = base.map_or(0, |base| base.wrapping_sub(self.at).cast_signed());
        self.offsets.push((self.bytes.len(), base.saturating_add(offset)));
        self.bytes.extend_from_slice(&[0; 4]);
        let fields = if flags & 1 != 0 { 12 } else { 8 };
        self.bytes
            .extend_from_slice(body.get(fields..).unwrap_or_default());
        self.close(from);
    }

    fn finish(mut self) -> Vec<u8> {
        self.close(0);
        let grown = self.bytes.len() as i64 - self.was.cast_signed();
        for (at, offset) in std::mem::take(&mut self.offsets) {
            let offset = offset.saturating_add(grown) as i32;
            self.bytes[at..at + 4].copy_from_slice(&offset.to_be_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_place_becomes_relative_to_the_moof() {
        // base-data-offset 5,000 and default duration 512 of track 2.
        let mut body = vec![0, 0, 0, 9, 0, 0, 0, 2];
        body.extend_from_slice(&5_000_u64.to_be_bytes());
        body.extend_from_slice(&512_u32.to_be_bytes());
        let tfhd = Tfhd::read(&body).unwrap();
        assert_eq!(
            (tfhd.track, tfhd.base, tfhd.default_duration),
            (2, Some(5_000), Some(512))
        );
        assert_eq!(tfhd.rest, [0, 2, 0, 8, 0, 0, 0, 2, 0, 0, 2, 0]);

        let mut writer = Writer::new(4_000, 100);
        writer.trun(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7], tfhd.base, true);
        writer.trun(&[0, 0, 0, 0, 0, 0, 0, 1], tfhd.base, false);
        let moof = writer.finish();
        let trun = child(&moof[8..], b"trun").unwrap();
        // The moof shrinks from 100 bytes to 44.
        assert_eq!((moof.len(), be(trun, 8, 4)), (44, Some(1_007 - 56)));
    }

    #[test]
    fn durations_of_runs() {
        let run = [
            0, 0, 3, 1, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0, 1,
        ];
        assert_eq!(trun_duration(&run, 100), 11);
        assert_eq!(trun_duration(&[0, 0, 0, 0, 0, 0, 0, 3], 100), 300);
        assert_eq!(trun_duration(&[0, 0, 1, 0, 255, 255, 255, 255], 100), 0);
        assert_eq!(trun_duration(&[], 100), 0);
    }

    #[test]
    fn rounds_are_rounded_up_in_every_timescale() {
        let mut track = Track {
            timescale: 90_000,
            default_duration: 0,
            first: Some(7),
            end: 8,
        };
        assert_eq!(track.round_ns(), Some(11_112));
        assert_eq!(track.ticks(11_112), 1);
        assert_eq!(track.round_ns(), None);
    }
}
