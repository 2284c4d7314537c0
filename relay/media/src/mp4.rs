//! Fragmented MP4 (ISO/IEC 14496-12, CMAF ISO/IEC 23000-19).
//!
//! Header: `ftyp` and `moov`. Join point: a `moof`, with the `styp`, `sidx`, `emsg`, `prft` boxes directly before it,
//! whose first video sample is a sync sample; without video, every `moof`. Fragments that address their samples by
//! position in the file cannot be joined: a newcomer's file begins elsewhere.

use crate::HEADER_MAX;
use crate::step::{Found, Parser, Step, need};

/// A box larger than this, in bytes, is taken for garbage: it would hide the stream.
const BOX_MAX: u64 = 256 << 20;

/// A larger `moof`, in bytes, is passed over without a look.
const MOOF_MAX: u64 = 64 << 10;

/// Video tracks remembered.
const TRACKS_MAX: usize = 16;

/// Scanner state for fragmented MP4.
#[derive(Default, Debug)]
pub(crate) struct Mp4 {
    /// Following the boxes; else searching for one that begins something.
    synced: bool,
    /// `ftyp`, as long as no `moov` has followed.
    opening: Vec<u8>,
    has_header: bool,
    video: Vec<Track>,
    /// Where the boxes directly before the next `moof` began.
    lead: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Track {
    id: u32,
    /// From `trex`.
    default_flags: u32,
}

/// The head of a box.
struct Head {
    kind: [u8; 4],
    len: usize,
    whole: u64,
}

impl Parser for Mp4 {
    fn step(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        need!(data, 8);
        let wide = data[..4] == [0, 0, 0, 1];
        need!(data, if wide { 16 } else { 8 });
        match head(data).filter(|head| self.is_believed(head)) {
            Some(head) => {
                self.synced = true;
                self.top_level(head, data, at, found)
            }
            None => self.hunt(found),
        }
    }
}

impl Mp4 {
    /// While searching only the boxes that begin something are believed.
    fn is_believed(&self, head: &Head) -> bool {
        let anchor = matches!(&head.kind, b"ftyp" | b"styp" | b"moov" | b"moof" | b"sidx");
        let printable = head.kind.iter().all(|byte| (0x20..0x7F).contains(byte));
        let small = head.whole <= HEADER_MAX as u64;
        let large = matches!(&head.kind, b"mdat" | b"moov" | b"moof");
        if self.synced {
            printable && (small || large)
        } else {
            anchor && small
        }
    }

    fn hunt(&mut self, found: &mut Found<'_>) -> Step {
        found.stats.resyncs += u64::from(std::mem::replace(&mut self.synced, false));
        self.lead = None;
        found.skip(1)
    }

    fn top_level(&mut self, head: Head, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        match &head.kind {
            b"ftyp" => {
                need!(data, head.whole as usize);
                self.opening = data[..head.whole as usize].to_vec();
                self.lead = None;
            }
            b"moov" => return self.moov(head, data, at, found),
            b"moof" => return self.moof(head, data, at, found),
            b"styp" | b"sidx" | b"ssix" | b"emsg" | b"prft" => {
                self.lead.get_or_insert(at);
            }
            _ => self.lead = None,
        }
        Step::Take(head.whole)
    }

    fn moov(&mut self, head: Head, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        self.lead = None;
        self.has_header = false;
        if self.opening.len() as u64 + head.whole > HEADER_MAX as u64 {
            found.oversize();
            return Step::Take(head.whole);
        }
        need!(data, head.whole as usize);
        let whole = &data[..head.whole as usize];
        if child(&whole[head.len..], b"trak").is_none() {
            found.stats.bad_units += 1;
            return Step::Take(head.whole);
        }
        self.video = video_tracks(&whole[head.len..]);
        self.has_header = true;
        found.header(at + head.whole, &[&self.opening, whole].concat(), 0);
        Step::Take(head.whole)
    }

    fn moof(&mut self, head: Head, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        let start = self.lead.unwrap_or(at);
        if !self.has_header || head.whole > MOOF_MAX {
            found.stats.joins_withheld += 1;
            self.lead = None;
            return Step::Take(head.whole);
        }
        need!(data, head.whole as usize);
        self.lead = None;
        match starts_clean(&data[head.len..head.whole as usize], &self.video) {
            Some(true) => found.join(start, at + head.whole),
            Some(false) => {}
            None => found.stats.joins_withheld += 1,
        }
        Step::Take(head.whole)
    }
}

/// Reads the head of a box; `None` when these bytes are none, or when it has no end.
fn head(data: &[u8]) -> Option<Head> {
    let (size, rest) = data.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let (len, whole) = match u32::from_be_bytes(*size) {
        1 => (16, u64::from_be_bytes(*rest.first_chunk::<8>()?)),
        small => (8, u64::from(small)),
    };
    (whole >= len as u64 && whole <= BOX_MAX).then_some(Head {
        kind: *kind,
        len,
        whole,
    })
}

/// The boxes inside a box that lies in memory whole; ends at the first that does not fit.
fn children(mut body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let head = head(body)?;
        let bytes = body.get(head.len..head.whole as usize)?;
        body = &body[head.whole as usize..];
        Some((head.kind, bytes))
    })
}

fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(body).find(|child| child.0 == *kind).map(|child| child.1)
}

fn word(bytes: &[u8], from: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(from..)?.first_chunk::<4>()?))
}

/// The video tracks of a `moov`, with their default sample flags (8.3.2, 8.4.3, 8.8.3).
fn video_tracks(moov: &[u8]) -> Vec<Track> {
    let of_kind = |body, kind: [u8; 4]| {
        children(body)
            .filter(move |child| child.0 == kind)
            .map(|child| child.1)
    };
    let extends = child(moov, b"mvex").unwrap_or_default();
    let default_flags = |id: u32| {
        let trex = of_kind(extends, *b"trex").find(|trex| word(trex, 4) == Some(id));
        trex.and_then(|trex| word(trex, 20)).unwrap_or(0)
    };
    of_kind(moov, *b"trak")
        .filter_map(video_track)
        .take(TRACKS_MAX)
        .map(|id| Track {
            id,
            default_flags: default_flags(id),
        })
        .collect()
}

/// The track number of a `trak`, when it is video.
fn video_track(trak: &[u8]) -> Option<u32> {
    let handler = child(child(trak, b"mdia")?, b"hdlr")?;
    let header = child(trak, b"tkhd")?;
    let long = *header.first()? == 1;
    (handler.get(8..12)? == b"vide").then(|| word(header, if long { 20 } else { 12 }))?
}

/// Whether a newcomer may start with this fragment; `None` when its samples are addressed by their position in the
/// file, or when it is damaged.
fn starts_clean(moof: &[u8], video: &[Track]) -> Option<bool> {
    const BASE_DATA_OFFSET: u32 = 1;
    let mut first_video = None;
    for (_, traf) in children(moof).filter(|child| &child.0 == b"traf") {
        let header = child(traf, b"tfhd")?;
        let (flags, id) = (word(header, 0)?, word(header, 4)?);
        if flags & BASE_DATA_OFFSET != 0 {
            return None;
        }
        let track = video.iter().find(|track| track.id == id);
        let first = track.and_then(|track| first_sample_flags(traf, header, track.default_flags));
        first_video = first_video.or(first);
    }
    Some(first_video.map_or(video.is_empty(), is_sync))
}

/// The flags of the first sample of a track fragment (8.8.7, 8.8.8): its own, or the defaults in their order.
fn first_sample_flags(traf: &[u8], tfhd: &[u8], from_trex: u32) -> Option<u32> {
    let run = child(traf, b"trun")?;
    let (run_flags, samples) = (word(run, 0)?, word(run, 4)?);
    if samples == 0 {
        return None;
    }
    let has = |bit: u32| run_flags & bit != 0;
    let data_offset = if has(0x1) { 4 } else { 0 };
    if has(0x4) {
        return word(run, 8 + data_offset);
    }
    if has(0x400) {
        let before = [0x100, 0x200].into_iter().filter(|bit| has(*bit)).count() * 4;
        return word(run, 8 + data_offset + before);
    }
    Some(default_flags(tfhd).unwrap_or(from_trex))
}

/// `default_sample_flags` of a `tfhd`, behind the optional fields before it.
fn default_flags(tfhd: &[u8]) -> Option<u32> {
    let flags = word(tfhd, 0)?;
    let widths = [(0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4)];
    let before: usize = widths
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, width)| width)
        .sum();
    (flags & 0x20 != 0).then(|| word(tfhd, 8 + before))?
}

/// Sample flags (8.8.3.1): not marked as non-sync, and not said to depend on others.
fn is_sync(flags: u32) -> bool {
    flags & 0x0001_0000 == 0 && flags >> 24 & 3 != 1
}
