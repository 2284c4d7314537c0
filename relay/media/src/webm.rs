//! WebM and Matroska (RFC 8794, RFC 9559) as they are streamed: segment and clusters mostly of unknown size.
//!
//! Header: the EBML header, the start of the segment (its size made unknown, since a newcomer does not get all of
//! it), and what comes before the first cluster except indexes and padding, whose offsets would be wrong. Join point:
//! a cluster whose first video block is a key frame; without video, every cluster.
//!
//! The tree is walked flat: segment, cluster and block group are entered, everything else is passed over, and what an
//! element is tells where it is.

use crate::HEADER_MAX;
use crate::step::{Found, Parser, Step, need, until};

/// An element larger than this, in bytes, is taken for garbage: it would hide the stream.
const ELEMENT_MAX: u64 = 64 << 20;

/// The same for elements other than blocks, which are small in a live stream.
const SMALL_MAX: u64 = 1 << 20;

/// Tracks remembered.
const TRACKS_MAX: usize = 32;

const EBML: u32 = 0x1A45_DFA3;
const SEGMENT: u32 = 0x1853_8067;
const SEEK_HEAD: u32 = 0x114D_9B74;
const INFO: u32 = 0x1549_A966;
const TRACKS: u32 = 0x1654_AE6B;
const TRACK_ENTRY: u32 = 0xAE;
const TRACK_NUMBER: u32 = 0xD7;
const TRACK_TYPE: u32 = 0x83;
const CUES: u32 = 0x1C53_BB6B;
const TAGS: u32 = 0x1254_C367;
const CHAPTERS: u32 = 0x1043_A770;
const ATTACHMENTS: u32 = 0x1941_A469;
const CLUSTER: u32 = 0x1F43_B675;
const SIMPLE_BLOCK: u32 = 0xA3;
const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;
const REFERENCE_BLOCK: u32 = 0xFB;
const VOID: u32 = 0xEC;
const CRC: u32 = 0xBF;

/// Scanner state for WebM.
#[derive(Default, Debug)]
pub(crate) struct WebM {
    phase: Phase,
    /// Following the elements; else searching for a document or a cluster.
    synced: bool,
    header: Vec<u8>,
    tracks: Vec<Track>,
    /// The cluster we are in, until its first video block has decided.
    cluster: Option<u64>,
    group: Option<Group>,
}

#[derive(Default, PartialEq, Eq, Debug)]
enum Phase {
    /// No usable header.
    #[default]
    Outside,
    Header,
    Data,
}

#[derive(Clone, Copy, Debug)]
struct Track {
    number: u64,
    is_video: bool,
}

/// A block group being walked: a frame that refers to another one is not a key frame.
#[derive(Clone, Copy, Debug)]
struct Group {
    end: u64,
    is_video: bool,
    refers: bool,
}

/// The head of an element.
#[derive(Clone, Copy)]
struct Element {
    id: u32,
    head: usize,
    /// Size of the body; `None` when unknown.
    size: Option<u64>,
}

impl Element {
    fn whole(self) -> Option<u64> {
        self.size
            .map(|size| self.head as u64 + size)
            .filter(|whole| *whole <= ELEMENT_MAX)
    }
}

impl Parser for WebM {
    fn step(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        self.end_group(at, found);
        if !self.synced {
            return self.hunt(data, at, found);
        }
        match element(data) {
            Ok(element) => self.element(element, data, at, found),
            Err(Some(len)) => Step::Need(len),
            Err(None) => self.lost(found),
        }
    }
}

impl WebM {
    fn lost(&mut self, found: &mut Found<'_>) -> Step {
        self.synced = false;
        (self.cluster, self.group) = (None, None);
        found.stats.resyncs += 1;
        found.skip(1)
    }

    /// Searches for the next cluster or document.
    fn hunt(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        let before = until(data, &[0x1A, 0x1F]);
        if before > 0 {
            return found.skip(before);
        }
        need!(data, 4);
        let id = u32::from_be_bytes([data[0], data[1], data[2], data[3]]);
        if id != EBML && id != CLUSTER {
            return found.skip(1);
        }
        // The first child confirms it.
        let head = match element(data) {
            Ok(element) => element.head,
            Err(Some(len)) => return Step::Need(len),
            Err(None) => return found.skip(1),
        };
        need!(data, head + 1);
        let children: &[u8] = if id == EBML {
            &[0x42, 0xEC, 0xBF]
        } else {
            &[0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0xEC, 0xBF]
        };
        if !children.contains(&data[head]) {
            return found.skip(1);
        }
        self.synced = true;
        self.step(data, at, found)
    }

    fn element(&mut self, element: Element, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        match element.id {
            EBML => return self.document(element, data, found),
            SEGMENT => return self.segment(element, data),
            CLUSTER => return self.cluster(element, at, found),
            _ => {}
        }
        // RFC 9559 allows an unknown size to segment and cluster only.
        let Some(whole) = element.whole() else {
            return self.lost(found);
        };
        match element.id {
            INFO | TRACKS | TAGS | CHAPTERS | ATTACHMENTS => {
                return self.describe(element, whole, data, found);
            }
            SIMPLE_BLOCK | BLOCK if self.phase == Phase::Data => {
                return self.block(element, whole, data, at, found);
            }
            SIMPLE_BLOCK | BLOCK => {}
            BLOCK_GROUP => {
                self.group = Some(Group {
                    end: at + whole,
                    is_video: false,
                    refers: false,
                });
                return Step::Take(element.head as u64);
            }
            REFERENCE_BLOCK if whole <= SMALL_MAX => {
                self.group.iter_mut().for_each(|group| group.refers = true);
            }
            id if !is_known(id) || whole > SMALL_MAX => return self.lost(found),
            _ => {}
        }
        Step::Take(whole)
    }

    /// A document begins, and with it a header.
    fn document(&mut self, element: Element, data: &[u8], found: &mut Found<'_>) -> Step {
        let Some(whole) = element.whole().filter(|whole| *whole <= HEADER_MAX as u64) else {
            return self.lost(found);
        };
        need!(data, whole as usize);
        *self = WebM {
            phase: Phase::Header,
            synced: true,
            header: data[..whole as usize].to_vec(),
            ..WebM::default()
        };
        Step::Take(whole)
    }

    fn segment(&mut self, element: Element, data: &[u8]) -> Step {
        if self.phase == Phase::Header {
            self.header.extend_from_slice(&data[..4]);
            // A size of all ones is unknown (RFC 8794, section 6.2), in as many bytes as there were.
            let width = element.head - 4;
            self.header.push(0xFF >> (width - 1));
            self.header.extend(std::iter::repeat_n(0xFF, width - 1));
        }
        Step::Take(element.head as u64)
    }

    /// An element that describes the stream: before the first cluster it belongs to the header.
    fn describe(&mut self, element: Element, whole: u64, data: &[u8], found: &mut Found<'_>) -> Step {
        if self.phase != Phase::Header {
            return Step::Take(whole);
        }
        if self.header.len() as u64 + whole > HEADER_MAX as u64 {
            *self = WebM {
                synced: true,
                ..WebM::default()
            };
            found.oversize();
            return Step::Take(whole);
        }
        need!(data, whole as usize);
        let bytes = &data[..whole as usize];
        self.header.extend_from_slice(bytes);
        if element.id == TRACKS {
            self.tracks = tracks(&bytes[element.head..]);
        }
        Step::Take(whole)
    }

    fn cluster(&mut self, element: Element, at: u64, found: &mut Found<'_>) -> Step {
        if self.phase == Phase::Header && !self.tracks.is_empty() {
            self.phase = Phase::Data;
            found.header(at, &std::mem::take(&mut self.header), 0);
        }
        self.cluster = (self.phase == Phase::Data).then_some(at);
        if !self.tracks.iter().any(|track| track.is_video)
            && let Some(at) = self.cluster.take()
        {
            found.join(at, at + element.head as u64);
        }
        Step::Take(element.head as u64)
    }

    /// A block (RFC 9559, section 10): track number, time stamp, flags. The first video block of a cluster decides.
    fn block(&mut self, element: Element, whole: u64, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        let body = element.head;
        need!(data, body + 1);
        let width = data[body].leading_zeros() as usize + 1;
        if width > 8 || whole < (body + width + 3) as u64 {
            found.stats.bad_units += 1;
            return Step::Take(whole);
        }
        need!(data, body + width + 3);
        let number = number(&data[body..body + width]);
        let Some(track) = self.tracks.iter().find(|track| track.number == number) else {
            return self.lost(found);
        };
        if track.is_video {
            match &mut self.group {
                Some(group) if element.id == BLOCK => group.is_video = true,
                _ => self.decide(
                    data[body + width + 2] & 0x80 != 0,
                    at + (body + width + 3) as u64,
                    found,
                ),
            }
        }
        Step::Take(whole)
    }

    fn end_group(&mut self, at: u64, found: &mut Found<'_>) {
        if let Some(group) = self.group.filter(|group| group.end <= at) {
            self.group = None;
            if group.is_video {
                self.decide(!group.refers, at, found);
            }
        }
    }

    fn decide(&mut self, is_key: bool, proof: u64, found: &mut Found<'_>) {
        if let Some(at) = self.cluster.take().filter(|_| is_key) {
            found.join(at, proof);
        }
    }
}

/// Level 1 and cluster elements that may be passed over (RFC 9559, section 5.1), among them block group's children.
fn is_known(id: u32) -> bool {
    const TIMESTAMP: u32 = 0xE7;
    const POSITION: u32 = 0xA7;
    const PREV_SIZE: u32 = 0xAB;
    const SILENT_TRACKS: u32 = 0x5854;
    const ENCRYPTED_BLOCK: u32 = 0xAF;
    const BLOCK_VIRTUAL: u32 = 0xA2;
    const BLOCK_ADDITIONS: u32 = 0x75A1;
    const BLOCK_DURATION: u32 = 0x9B;
    const REFERENCE_PRIORITY: u32 = 0xFA;
    const REFERENCE_VIRTUAL: u32 = 0xFD;
    const CODEC_STATE: u32 = 0xA4;
    const DISCARD_PADDING: u32 = 0x75A2;
    const SLICES: u32 = 0x8E;
    matches!(
        id,
        SEEK_HEAD
            | CUES
            | VOID
            | CRC
            | SIMPLE_BLOCK
            | BLOCK
            | TIMESTAMP
            | POSITION
            | PREV_SIZE
            | SILENT_TRACKS
    ) || matches!(
        id,
        ENCRYPTED_BLOCK | BLOCK_VIRTUAL | BLOCK_ADDITIONS | BLOCK_DURATION | REFERENCE_PRIORITY
    ) || matches!(id, REFERENCE_VIRTUAL | CODEC_STATE | DISCARD_PADDING | SLICES)
}

/// Reads the head of an element (RFC 8794, sections 4 and 5); `Err(Some(n))` asks for `n` bytes, `Err(None)` says
/// that this is none.
fn element(data: &[u8]) -> Result<Element, Option<usize>> {
    let enough = |len: usize| if data.len() < len { Err(Some(len)) } else { Ok(()) };
    enough(1)?;
    let id_width = data[0].leading_zeros() as usize + 1;
    if id_width > 4 {
        return Err(None);
    }
    enough(id_width + 1)?;
    let size_width = data[id_width].leading_zeros() as usize + 1;
    if size_width > 8 {
        return Err(None);
    }
    let head = id_width + size_width;
    enough(head)?;
    let id = data[..id_width]
        .iter()
        .fold(0, |id, byte| id << 8 | u32::from(*byte));
    let size = number(&data[id_width..head]);
    let unknown = (1 << (7 * size_width)) - 1;
    Ok(Element {
        id,
        head,
        size: Some(size).filter(|size| *size != unknown),
    })
}

/// A variable-size integer of which the width is known, without its marker.
fn number(bytes: &[u8]) -> u64 {
    let marked = bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    marked & ((1 << (7 * bytes.len())) - 1)
}

/// The children of an element that lies in memory whole; ends at the first that does not fit.
fn children(mut body: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let child = element(body).ok()?;
        let end = child.head + usize::try_from(child.size?).ok()?;
        let bytes = body.get(child.head..end)?;
        body = &body[end..];
        Some((child.id, bytes))
    })
}

/// The tracks that a `Tracks` element describes.
fn tracks(body: &[u8]) -> Vec<Track> {
    const VIDEO: u64 = 1;
    let integer = |entry: &[u8], wanted: u32| {
        let (_, bytes) = children(entry).find(|(id, bytes)| *id == wanted && bytes.len() <= 8)?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    children(body)
        .filter(|(id, _)| *id == TRACK_ENTRY)
        .filter_map(|(_, entry)| {
            let is_video = integer(entry, TRACK_TYPE)? == VIDEO;
            Some(Track {
                number: integer(entry, TRACK_NUMBER)?,
                is_video,
            })
        })
        .take(TRACKS_MAX)
        .collect()
}
