//! FLV (Adobe Flash Video File Format 10.1, annex E; enhanced codec headers by the Veovera Enhanced RTMP, v2).
//!
//! Header: the file header, the last `onMetaData` tag and the last sequence header of each track, with their own time
//! stamps. Join point: a tag with a video key frame; without video, any audio tag.

use crate::step::{Found, Parser, Step, need, until};

/// A tag that belongs to the header, in bytes with its trailer; a larger one is not kept.
const KEPT_TAG_MAX: usize = 64 << 10;

/// Sequence headers kept (tracks); more are a flood.
const TRACKS_MAX: usize = 8;

/// While searching, a tag larger than this, in bytes, is not waited for.
const SEARCH_MAX: usize = 64 << 10;

/// So many bytes without a video tag are an audio-only stream, whatever the file header says.
const AUDIO_ONLY_AFTER: u64 = 64 << 10;

const TAG_HEAD: usize = 11;
const TRAILER: usize = 4;
/// How much of a tag's body has to be seen to know what it is.
const LOOK: usize = 8;
const FILE_HEAD: usize = 13;

const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const SCRIPT_AMF3: u8 = 15;
const SCRIPT: u8 = 18;

/// First bytes that are looked at while searching.
const CANDIDATES: [u8; 4] = [AUDIO, VIDEO, SCRIPT, b'F'];

/// Scanner state for FLV.
#[derive(Debug)]
pub(crate) struct Flv {
    synced: bool,
    /// File header and the zero size of the tag before the first.
    opening: [u8; FILE_HEAD],
    metadata: Vec<u8>,
    /// The last sequence header tag of each track.
    tracks: Vec<Track>,
    /// Where the header last changed; `None` when the header given is the one we have.
    changed: Option<u64>,
    has_video: bool,
    began: u64,
}

#[derive(Debug)]
struct Track {
    name: TrackName,
    tag: Vec<u8>,
}

/// Tag type and, with an enhanced header, the codec and track number behind it.
type TrackName = (u8, [u8; 6]);

#[derive(Debug, PartialEq, Eq)]
enum Body {
    Metadata,
    Sequence(TrackName),
    /// A frame a newcomer may start with, and whether it needs a sequence header.
    Start {
        needs_sequence: bool,
    },
    Plain,
}

impl Default for Flv {
    fn default() -> Flv {
        let opening = *b"FLV\x01\x05\0\0\0\x09\0\0\0\0";
        let (metadata, tracks) = (Vec::new(), Vec::new());
        Flv {
            synced: true,
            opening,
            metadata,
            tracks,
            changed: Some(0),
            has_video: false,
            began: 0,
        }
    }
}

impl Parser for Flv {
    fn step(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        if !self.synced && !CANDIDATES.contains(&data[0]) {
            return self.hunt(data, found);
        }
        need!(data, TAG_HEAD);
        if &data[..3] == b"FLV" {
            return self.file(data, at, found);
        }
        let Some(size) = tag_size(data) else {
            return self.hunt(data, found);
        };
        if !self.synced {
            if size > SEARCH_MAX {
                return self.hunt(data, found);
            }
            need!(data, TAG_HEAD + size + TRAILER);
            if trailer(data, size) != Some(TAG_HEAD + size) {
                return self.hunt(data, found);
            }
            self.synced = true;
        }
        need!(data, TAG_HEAD + size.min(LOOK));
        self.tag(data, size, at, found)
    }
}

impl Flv {
    /// A file header; in the middle of a stream it begins a new one.
    fn file(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        need!(data, FILE_HEAD);
        let offset = u32::from_be_bytes([data[5], data[6], data[7], data[8]]);
        if data[3] != 1 || offset != 9 {
            return self.hunt(data, found);
        }
        *self = Flv {
            changed: Some(at + FILE_HEAD as u64),
            began: at,
            ..Flv::default()
        };
        self.opening[4] = data[4];
        Step::Take(FILE_HEAD as u64)
    }

    fn hunt(&mut self, data: &[u8], found: &mut Found<'_>) -> Step {
        found.stats.resyncs += u64::from(std::mem::replace(&mut self.synced, false));
        found.skip(1 + until(&data[1..], &CANDIDATES))
    }

    fn tag(&mut self, data: &[u8], size: usize, at: u64, found: &mut Found<'_>) -> Step {
        let whole = TAG_HEAD + size + TRAILER;
        let body = body(data[0], &data[TAG_HEAD..TAG_HEAD + size.min(LOOK)]);
        self.has_video |= data[0] == VIDEO;
        match body {
            // Players do without metadata, but not without a sequence header.
            Body::Metadata if whole > KEPT_TAG_MAX => found.stats.oversize_headers += 1,
            Body::Sequence(_) if whole > KEPT_TAG_MAX => found.oversize(),
            Body::Metadata | Body::Sequence(_) => {
                need!(data, whole);
                self.keep(body, &data[..whole], at + whole as u64, found);
            }
            Body::Start { needs_sequence } if self.may_start(data[0], needs_sequence, at) => {
                self.give_header(found);
                found.join(at, at + (TAG_HEAD + LOOK) as u64);
            }
            Body::Start { .. } | Body::Plain => {}
        }
        Step::Take(whole as u64)
    }

    /// A tag of the header: keeps it, and remembers when it says something new.
    fn keep(&mut self, body: Body, tag: &[u8], end: u64, found: &mut Found<'_>) {
        let slot = match body {
            Body::Metadata => &mut self.metadata,
            Body::Sequence(name) => match self.tracks.iter().position(|track| track.name == name) {
                Some(known) => &mut self.tracks[known].tag,
                None if self.tracks.len() == TRACKS_MAX => return found.oversize(),
                None => {
                    &mut self
                        .tracks
                        .push_mut(Track {
                            name,
                            tag: Vec::new(),
                        })
                        .tag
                }
            },
            Body::Start { .. } | Body::Plain => return,
        };
        // A repeated tag differs in its time stamp only.
        if slot.get(TAG_HEAD..) != Some(&tag[TAG_HEAD..]) {
            *slot = tag.to_vec();
            self.changed = Some(end);
        }
    }

    fn may_start(&self, kind: u8, needs_sequence: bool, at: u64) -> bool {
        let has_sequence = self.tracks.iter().any(|track| track.name.0 == kind);
        let declared_video = self.opening[4] & 1 != 0 && at - self.began < AUDIO_ONLY_AFTER;
        (kind == VIDEO || !(self.has_video || declared_video)) && (has_sequence || !needs_sequence)
    }

    /// The header is given when a join point follows: until then its parts are still coming in.
    fn give_header(&mut self, found: &mut Found<'_>) {
        let Some(at) = self.changed.take() else { return };
        let tags = self.tracks.iter().flat_map(|track| &track.tag);
        let bytes: Vec<u8> = self
            .opening
            .iter()
            .chain(&self.metadata)
            .chain(tags)
            .copied()
            .collect();
        found.header(at, &bytes, FILE_HEAD);
    }
}

/// The size of a tag's body, when these can be the first bytes of a tag (annex E.4.1); the filter (encryption) bit
/// is tolerated.
fn tag_size(data: &[u8]) -> Option<usize> {
    let known = matches!(data[0] & 0xDF, AUDIO | VIDEO | SCRIPT | SCRIPT_AMF3);
    let size = u32::from_be_bytes([0, data[1], data[2], data[3]]) as usize;
    (known && data[8..11] == [0; 3]).then_some(size)
}

/// The size of the tag as the four bytes behind it say.
fn trailer(data: &[u8], size: usize) -> Option<usize> {
    let bytes = data.get(TAG_HEAD + size..)?.first_chunk::<TRAILER>()?;
    Some(u32::from_be_bytes(*bytes) as usize)
}

/// What a tag is, from the first bytes of its body.
fn body(kind: u8, first: &[u8]) -> Body {
    match kind {
        SCRIPT if first.starts_with(b"\x02\0\x0AonMet") => Body::Metadata,
        VIDEO => video(first),
        AUDIO => audio(first),
        _ => Body::Plain,
    }
}

/// Annex E.4.3: frame type, codec, and for AVC and HEVC the packet type; or the enhanced header.
fn video(first: &[u8]) -> Body {
    let Some(head) = first.first() else {
        return Body::Plain;
    };
    let key = head >> 4 & 7 == 1;
    if head & 0x80 != 0 {
        return enhanced(VIDEO, first, key);
    }
    let packet = first.get(1).copied();
    match (head & 15, packet) {
        (7 | 12, Some(0)) => Body::Sequence((VIDEO, [0; 6])),
        (7 | 12, Some(1)) if key => Body::Start { needs_sequence: true },
        (7 | 12, _) => Body::Plain,
        _ if key => Body::Start {
            needs_sequence: false,
        },
        _ => Body::Plain,
    }
}

/// Annex E.4.2: sound format, and for AAC the packet type; or the enhanced header.
fn audio(first: &[u8]) -> Body {
    let packet = first.get(1).copied();
    match (first.first().map(|head| head >> 4), packet) {
        (Some(9), _) => enhanced(AUDIO, first, true),
        (Some(10), Some(0)) => Body::Sequence((AUDIO, [0; 6])),
        (Some(10), Some(1)) => Body::Start { needs_sequence: true },
        (Some(10) | None, _) => Body::Plain,
        _ => Body::Start {
            needs_sequence: false,
        },
    }
}

/// Enhanced RTMP: the packet type in the low bits, then the codec's name; with several tracks, their layout first
/// and the track's number last.
fn enhanced(kind: u8, first: &[u8], key: bool) -> Body {
    const SEQUENCE_START: u8 = 0;
    let multitrack = if kind == VIDEO { 6 } else { 5 };
    let mut packet = first[0] & 15;
    let mut name = [0; 6];
    if packet == multitrack {
        packet = first.get(1).copied().unwrap_or(0xFF) & 15;
        copy(&mut name, first.get(2..7));
    } else {
        copy(&mut name, first.get(1..5));
    }
    // Coded frames: 1, and for video also 3 (without composition time).
    let coded = packet == 1 || (kind == VIDEO && packet == 3);
    match packet {
        SEQUENCE_START => Body::Sequence((kind, name)),
        _ if coded && key => Body::Start {
            needs_sequence: kind == VIDEO && &name[..4] != b"vp08",
        },
        _ => Body::Plain,
    }
}

fn copy(name: &mut [u8; 6], from: Option<&[u8]>) {
    let from = from.unwrap_or_default();
    name[..from.len()].copy_from_slice(from);
}
