//! The link: the frames in which one node hands a channel to another, chunk by chunk.
//!
//! A link is the body of an HTTP response: a run of frames, `u32 length, u8 kind, body`, big-endian, where
//! `length` counts the kind and the body and is at most [`FRAME_MAX`]. Parsing gives views over the bytes that
//! arrived; nothing is allocated by a length that the other end claims. Two doors stay open for later versions:
//! a kind that is not known is skipped, and bytes after the known fields of HELLO, PING and JOIN are ignored.
//! A layout that could not be read that way gets a new [`VERSION`].
//!
//! | kind | body |
//! |---|---|
//! | 1 HELLO | `version u8, chunk_size u32, epoch u64, first u64, bitrate_kbps u32, key u16+bytes, path, properties` |
//! | 2 HEADER | `at u64, again u32+bytes, header bytes` |
//! | 3 CHUNK | `number u64, capture_us u64, flags u8, join u16, bytes` |
//! | 4 MUNRO | opaque |
//! | 5 METADATA | title, UTF-8 |
//! | 6 PING | `wall_us u64` |
//! | 7 END | `reason u8, text UTF-8` |
//! | 8 JOIN | `at u64` |
//!
//! In HELLO, `path` is `u8` × (`u8` + node id) and `properties` is `u16` × (`u16` + key, `u16` + value).

use std::fmt;

/// The version of the layout that HELLO announces and this module reads.
pub const VERSION: u8 = 1;
/// The most that a frame's length field may say: kind and body, in bytes.
pub const FRAME_MAX: usize = 1 << 20;
/// Bytes before a frame's body: the length field and the kind.
pub const FRAME_HEAD: usize = 5;
/// Bytes of a CHUNK frame before the payload, frame head included.
pub const CHUNK_OVERHEAD: usize = FRAME_HEAD + 8 + 8 + 1 + 2;
/// The smallest chunk size a channel may have, in bytes: one TS packet.
pub const CHUNK_SIZE_MIN: u32 = 188;
/// The largest chunk size a channel may have, in bytes; `join` offsets fit 16 bits below the "none" mark.
pub const CHUNK_SIZE_MAX: u32 = 65_535;
/// Most nodes on the way from the root, i.e. the deepest tree.
pub const PATH_MAX: usize = 16;
/// Longest node id, in bytes.
pub const NODE_ID_MAX: usize = 64;
/// Most channel properties in a HELLO.
pub const PROPERTIES_MAX: usize = 64;
/// Longest text of an END frame that [`encode_end`] writes, in bytes; longer ones are cut.
pub const END_TEXT_MAX: usize = 255;

/// [`Chunk::flags`]: the last chunk of its epoch, the only one that may be short.
pub const FLAG_LAST: u8 = 1;
/// [`Chunk::flags`]: the bytes before this chunk are not the ones that came before it at the source.
pub const FLAG_DISCONTINUITY: u8 = 2;

/// `join` of a chunk in which no join point lies.
const JOIN_NONE: u16 = 0xFFFF;

/// The kinds of frame, as numbered on the wire.
pub mod kind {
    /// Who speaks, and what follows.
    pub const HELLO: u8 = 1;
    /// Bytes that a newcomer needs before a join point.
    pub const HEADER: u8 = 2;
    /// A slice of the channel.
    pub const CHUNK: u8 = 3;
    /// A signed node of the live Merkle tree.
    pub const MUNRO: u8 = 4;
    /// The title of what is playing.
    pub const METADATA: u8 = 5;
    /// A sign of life.
    pub const PING: u8 = 6;
    /// Nothing more follows.
    pub const END: u8 = 7;
    /// See [`super::Frame::Join`].
    pub const JOIN: u8 = 8;
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is zero, or over the limit.
    #[error("link frame: expected a length from 1 to {FRAME_MAX}, got {got}")]
    Length {
        /// What the field says, or how long the frame to be written would be.
        got: usize,
    },
    /// The body ends before one of its fields does.
    #[error("link frame {frame}: expected {expected} more bytes for {field}, got {got}")]
    Short {
        /// The frame's name.
        frame: &'static str,
        /// The field that is cut off.
        field: &'static str,
        /// How many bytes the field has.
        expected: usize,
        /// How many are left.
        got: usize,
    },
    /// The other end speaks another version.
    #[error("link frame HELLO: expected version {VERSION}, got {got}")]
    Version {
        /// The version it speaks.
        got: u8,
    },
    /// A field is outside its range.
    #[error("link frame {frame}: expected {field} from {min} to {max}, got {got}")]
    Range {
        /// The frame's name.
        frame: &'static str,
        /// The field.
        field: &'static str,
        /// The smallest value allowed.
        min: u64,
        /// The largest value allowed.
        max: u64,
        /// What came.
        got: u64,
    },
    /// A text is not UTF-8.
    #[error("link frame {frame}: expected UTF-8 in {field}, got other bytes after the first {valid}")]
    Text {
        /// The frame's name.
        frame: &'static str,
        /// The field.
        field: &'static str,
        /// How many bytes were good.
        valid: usize,
    },
}

/// One frame, as a view over the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Who speaks, and what follows.
    Hello(Hello<'a>),
    /// Bytes that a newcomer needs.
    Header(Header<'a>),
    /// A slice of the channel.
    Chunk(Chunk<'a>),
    /// A signed node of the live Merkle tree, opaque here.
    Munro(&'a [u8]),
    /// The title of what is playing.
    Metadata(&'a str),
    /// A sign of life: the sender's wall clock, in µs of Unix time.
    Ping {
        /// Unix time at the sender, µs.
        wall_us: u64,
    },
    /// A join point in a chunk that has been told already: some containers show theirs only later (an Ogg page when
    /// its checksum is in, an MP3 frame when the next one follows).
    Join {
        /// The byte position within the epoch.
        at: u64,
    },
    /// Nothing more follows (after [`EndReason::NewEpoch`]: nothing more of this epoch).
    End(End<'a>),
    /// A frame of a later version; to be skipped.
    Unknown {
        /// Its kind.
        kind: u8,
        /// The length of its body, in bytes.
        len: usize,
    },
}

/// HELLO: the channel, and where in it this link begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Bytes per chunk, [`CHUNK_SIZE_MIN`] to [`CHUNK_SIZE_MAX`].
    pub chunk_size: u32,
    /// The channel's present life.
    pub epoch: u64,
    /// The number of the first chunk that follows.
    pub first: u64,
    /// The stream's rate, kilobits per second; 0 when not known.
    pub bitrate_kbps: u32,
    /// The key that signs the channel; empty when it is not signed.
    pub public_key: &'a [u8],
    /// The nodes from the root down to, and with, the sender.
    pub path: Path<'a>,
    /// What the channel is: `content-type`, `name`, `genre`, `url`, `description`…
    pub properties: Properties<'a>,
}

/// What [`encode_hello`] writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct HelloParts<'a> {
    /// See [`Hello::chunk_size`].
    pub chunk_size: u32,
    /// See [`Hello::epoch`].
    pub epoch: u64,
    /// See [`Hello::first`].
    pub first: u64,
    /// See [`Hello::bitrate_kbps`].
    pub bitrate_kbps: u32,
    /// See [`Hello::public_key`].
    pub public_key: &'a [u8],
    /// From the root down to, and with, this node; at most [`PATH_MAX`].
    pub path: &'a [&'a str],
    /// Key and value; at most [`PROPERTIES_MAX`].
    pub properties: &'a [(&'a str, &'a str)],
}

/// The node ids of a HELLO, already checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Path<'a> {
    /// `u8 length, id`, over and over: each checked by [`Path::parse`].
    bytes: &'a [u8],
}

/// The channel properties of a HELLO, already checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Properties<'a> {
    /// `u16 length, key, u16 length, value`, over and over: each checked by [`Properties::parse`].
    bytes: &'a [u8],
}

/// HEADER: bytes that a newcomer needs before a join point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The byte position within the epoch from which it is in force.
    pub at: u64,
    /// What a listener that is already playing gets when it is moved to another join point.
    pub again: &'a [u8],
    /// What a newcomer gets.
    pub header: &'a [u8],
}

/// CHUNK: a slice of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Its number within the epoch.
    pub number: u64,
    /// When the root captured it, Unix time in µs.
    pub capture_us: u64,
    /// [`FLAG_LAST`], [`FLAG_DISCONTINUITY`]; other bits belong to later versions.
    pub flags: u8,
    /// Offset of the first join point in `bytes`, below its length.
    pub join: Option<u16>,
    /// 1 to [`CHUNK_SIZE_MAX`] bytes.
    pub bytes: &'a [u8],
}

/// END: why nothing more follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End<'a> {
    /// Why, for rules.
    pub reason: EndReason,
    /// Why, for people.
    pub text: &'a str,
}

/// Why a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// 1: the source is gone for good.
    SourceEnded,
    /// 2: a new life of the channel; its HELLO may follow on this link.
    NewEpoch,
    /// 3: the node is shutting down.
    ShuttingDown,
    /// 4: the receiver is among the sender's own upstreams.
    Loop,
    /// 5: the receiver was too slow and what it needs next is no longer held.
    FellBehind,
    /// 6: there is no such channel here (any more).
    UnknownChannel,
    /// A reason of a later version.
    Other(u8),
}

impl EndReason {
    /// The reason behind a number on the wire.
    pub fn from_wire(n: u8) -> Self {
        match n {
            1 => Self::SourceEnded,
            2 => Self::NewEpoch,
            3 => Self::ShuttingDown,
            4 => Self::Loop,
            5 => Self::FellBehind,
            6 => Self::UnknownChannel,
            n => Self::Other(n),
        }
    }

    /// Its number on the wire.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::SourceEnded => 1,
            Self::NewEpoch => 2,
            Self::ShuttingDown => 3,
            Self::Loop => 4,
            Self::FellBehind => 5,
            Self::UnknownChannel => 6,
            Self::Other(n) => n,
        }
    }
}

impl<'a> Frame<'a> {
    /// Reads the body of a frame of this kind.
    ///
    /// # Errors
    ///
    /// Any [`FrameError`]: a field that is cut off, outside its range, or not UTF-8. A kind that is not known is
    /// no error but [`Frame::Unknown`].
    pub fn parse(kind: u8, body: &'a [u8]) -> Result<Self, FrameError> {
        match kind {
            kind::HELLO => Hello::parse(body).map(Frame::Hello),
            kind::HEADER => Header::parse(body).map(Frame::Header),
            kind::CHUNK => Chunk::parse(body).map(Frame::Chunk),
            kind::MUNRO => Ok(Frame::Munro(body)),
            kind::METADATA => utf8("METADATA", "the title", body).map(Frame::Metadata),
            kind::PING => Ok(Frame::Ping {
                wall_us: Fields::new("PING", body).u64("wall_us")?,
            }),
            kind::END => End::parse(body).map(Frame::End),
            kind::JOIN => Ok(Frame::Join {
                at: Fields::new("JOIN", body).u64("at")?,
            }),
            kind => Ok(Frame::Unknown {
                kind,
                len: body.len(),
            }),
        }
    }
}

impl<'a> Hello<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut f = Fields::new("HELLO", body);
        let version = f.u8("version")?;
        if version != VERSION {
            return Err(FrameError::Version { got: version });
        }
        let chunk_size = f.u32("chunk_size")?;
        chunk_size_in_range(chunk_size)?;
        Ok(Self {
            chunk_size,
            epoch: f.u64("epoch")?,
            first: f.u64("first")?,
            bitrate_kbps: f.u32("bitrate_kbps")?,
            public_key: f.short_bytes("public_key")?,
            path: Path::parse(&mut f)?,
            properties: Properties::parse(&mut f)?,
        })
    }
}

impl<'a> Path<'a> {
    fn parse(f: &mut Fields<'a>) -> Result<Self, FrameError> {
        let count = f.u8("path count")?;
        in_range("HELLO", "path count", 0, PATH_MAX, usize::from(count))?;
        let from = f.rest;
        for _ in 0..count {
            let id = f.tiny_bytes("node id")?;
            in_range("HELLO", "node id length", 1, NODE_ID_MAX, id.len())?;
            utf8("HELLO", "node id", id)?;
        }
        Ok(Self {
            bytes: &from[..from.len() - f.rest.len()],
        })
    }

    /// The ids, the root's first.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut f = Fields::new("HELLO", self.bytes);
        std::iter::from_fn(move || utf8("HELLO", "node id", f.tiny_bytes("node id").ok()?).ok())
    }

    /// Whether `id` is on the path.
    pub fn contains(self, id: &str) -> bool {
        self.iter().any(|node| node == id)
    }
}

impl<'a> Properties<'a> {
    fn parse(f: &mut Fields<'a>) -> Result<Self, FrameError> {
        let count = f.u16("property count")?;
        in_range("HELLO", "property count", 0, PROPERTIES_MAX, usize::from(count))?;
        let from = f.rest;
        for _ in 0..count {
            f.property()?;
        }
        Ok(Self {
            bytes: &from[..from.len() - f.rest.len()],
        })
    }

    /// Keys and values, as sent.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut f = Fields::new("HELLO", self.bytes);
        std::iter::from_fn(move || f.property().ok())
    }

    /// The first value of `key` (keys are compared as they are, lower case by custom).
    pub fn get(self, key: &str) -> Option<&'a str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }
}

impl fmt::Debug for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> Header<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut f = Fields::new("HEADER", body);
        let at = f.u64("at")?;
        let again = f.long_bytes("again")?;
        Ok(Self {
            at,
            again,
            header: f.rest,
        })
    }
}

impl<'a> Chunk<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut f = Fields::new("CHUNK", body);
        let (number, capture_us) = (f.u64("number")?, f.u64("capture_us")?);
        let (flags, join) = (f.u8("flags")?, f.u16("join")?);
        let bytes = f.rest;
        in_range("CHUNK", "payload length", 1, CHUNK_SIZE_MAX as usize, bytes.len())?;
        let join = (join != JOIN_NONE).then_some(join);
        if let Some(join) = join {
            in_range("CHUNK", "join", 0, bytes.len() - 1, usize::from(join))?;
        }
        Ok(Self {
            number,
            capture_us,
            flags,
            join,
            bytes,
        })
    }

    /// Whether this is the last chunk of its epoch.
    pub fn is_last(&self) -> bool {
        self.flags & FLAG_LAST != 0
    }
}

impl<'a> End<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let mut f = Fields::new("END", body);
        let reason = EndReason::from_wire(f.u8("reason")?);
        Ok(Self {
            reason,
            text: utf8("END", "the text", f.rest)?,
        })
    }
}

/// A walk over the fields of one body.
struct Fields<'a> {
    frame: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(frame: &'static str, rest: &'a [u8]) -> Self {
        Self { frame, rest }
    }

    fn take(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], FrameError> {
        let short = FrameError::Short {
            frame: self.frame,
            field,
            expected: n,
            got: self.rest.len(),
        };
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, field)?);
        Ok(bytes)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, FrameError> {
        self.number(field).map(u8::from_be_bytes)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, FrameError> {
        self.number(field).map(u16::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, FrameError> {
        self.number(field).map(u32::from_be_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, FrameError> {
        self.number(field).map(u64::from_be_bytes)
    }

    fn tiny_bytes(&mut self, field: &'static str) -> Result<&'a [u8], FrameError> {
        let n = self.u8(field)?;
        self.take(n.into(), field)
    }

    fn short_bytes(&mut self, field: &'static str) -> Result<&'a [u8], FrameError> {
        let n = self.u16(field)?;
        self.take(n.into(), field)
    }

    fn long_bytes(&mut self, field: &'static str) -> Result<&'a [u8], FrameError> {
        let n = self.u32(field)?;
        self.take(n as usize, field)
    }

    fn property(&mut self) -> Result<(&'a str, &'a str), FrameError> {
        let key = self.short_bytes("property key")?;
        let value = self.short_bytes("property value")?;
        Ok((
            utf8("HELLO", "property key", key)?,
            utf8("HELLO", "property value", value)?,
        ))
    }
}

fn utf8<'a>(frame: &'static str, field: &'static str, bytes: &'a [u8]) -> Result<&'a str, FrameError> {
    std::str::from_utf8(bytes).map_err(|e| FrameError::Text {
        frame,
        field,
        valid: e.valid_up_to(),
    })
}

fn in_range(
    frame: &'static str,
    field: &'static str,
    min: usize,
    max: usize,
    got: usize,
) -> Result<(), FrameError> {
    if (min..=max).contains(&got) {
        return Ok(());
    }
    Err(FrameError::Range {
        frame,
        field,
        min: min as u64,
        max: max as u64,
        got: got as u64,
    })
}

fn chunk_size_in_range(got: u32) -> Result<(), FrameError> {
    in_range(
        "HELLO",
        "chunk_size",
        CHUNK_SIZE_MIN as usize,
        CHUNK_SIZE_MAX as usize,
        got as usize,
    )
}

/// A frame cut off the front of some bytes: its kind, its body, and what follows.
type Cut<'a> = (u8, &'a [u8], &'a [u8]);

/// Cuts one whole frame off the front. `None` when there is not a whole one.
///
/// # Errors
///
/// [`FrameError::Length`], as soon as the length field itself is there.
fn split(bytes: &[u8]) -> Result<Option<Cut<'_>>, FrameError> {
    let Some(total) = total_len(bytes)? else {
        return Ok(None);
    };
    let Some((frame, rest)) = bytes.split_at_checked(total) else {
        return Ok(None);
    };
    Ok(Some((frame[4], &frame[FRAME_HEAD..], rest)))
}

/// How long the frame at the front is, with its length field; `None` while the length field is not whole.
fn total_len(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(field) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*field) as usize;
    if !(1..=FRAME_MAX).contains(&length) {
        return Err(FrameError::Length { got: length });
    }
    Ok(Some(4 + length))
}

/// Frames out of a stream of bytes that is cut anywhere.
///
/// A frame that lies wholly in the bytes of one call is given without copying. A partial one is kept: memory
/// grows with the bytes that have really arrived (at most twice as many) and never over [`FRAME_MAX`] + 4.
#[derive(Debug, Default)]
pub struct FrameReader {
    partial: Vec<u8>,
    failed: Option<FrameError>,
}

/// A buffer larger than this is let go once its frame has been given.
const KEEP_MAX: usize = 128 * 1024;

impl FrameReader {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and gives each frame that is whole now.
    ///
    /// # Errors
    ///
    /// The first [`FrameError`], after every good frame before it was given. There is no way to find the next
    /// frame after a bad one: every later call answers the same error.
    pub fn feed(&mut self, bytes: &[u8], on: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.frames(bytes, on);
        self.failed = result.err();
        result
    }

    /// Bytes of a partial frame held, at most [`FRAME_MAX`] + 4.
    pub fn held(&self) -> usize {
        self.partial.len()
    }

    fn frames(&mut self, bytes: &[u8], on: &mut impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        let mut rest = self.complete(bytes, on)?;
        while let Some((kind, body, after)) = split(rest)? {
            on(Frame::parse(kind, body)?);
            rest = after;
        }
        if !rest.is_empty() {
            self.keep(rest)?;
        }
        Ok(())
    }

    /// Tries to complete the frame that is held; gives what of `bytes` lies after it.
    fn complete<'a>(
        &mut self,
        bytes: &'a [u8],
        on: &mut impl FnMut(Frame<'_>),
    ) -> Result<&'a [u8], FrameError> {
        let mut rest = bytes;
        // At most twice around: first the length field, then what it counts.
        while !self.partial.is_empty() && !rest.is_empty() {
            let wanted = total_len(&self.partial)?.unwrap_or(4);
            let (now, later) = rest.split_at(rest.len().min(wanted - self.partial.len()));
            self.keep(now)?;
            rest = later;
            if let Some((kind, body, _)) = split(&self.partial)? {
                on(Frame::parse(kind, body)?);
                self.forget();
            }
        }
        Ok(rest)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let need = self.partial.len() + bytes.len();
        if need > self.partial.capacity() {
            // Doubling keeps the copying linear; the claimed length only ever makes it less.
            let claimed = total_len(&self.partial)?.unwrap_or(usize::MAX);
            let target = (2 * need).min(claimed).max(need);
            self.partial.reserve_exact(target - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn forget(&mut self) {
        self.partial.clear();
        if self.partial.capacity() > KEEP_MAX {
            self.partial = Vec::new();
        }
    }
}

/// Appends one frame whose body `write` appends; on error `out` is as it was.
fn frame(
    out: &mut Vec<u8>,
    kind: u8,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), FrameError>,
) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    let result = write(out).and_then(|()| length_of(out.len() - start - 4));
    match result {
        Ok(length) => out[start..start + 4].copy_from_slice(&length.to_be_bytes()),
        Err(_) => out.truncate(start),
    }
    result.map(|_| ())
}

fn length_of(got: usize) -> Result<u32, FrameError> {
    u32::try_from(got)
        .ok()
        .filter(|n| *n as usize <= FRAME_MAX)
        .ok_or(FrameError::Length { got })
}

/// Appends a HELLO.
///
/// # Errors
///
/// [`FrameError::Range`] for a chunk size, path, id, property or key outside its limit; `out` is then as it was.
pub fn encode_hello(out: &mut Vec<u8>, hello: &HelloParts<'_>) -> Result<(), FrameError> {
    chunk_size_in_range(hello.chunk_size)?;
    in_range("HELLO", "path count", 0, PATH_MAX, hello.path.len())?;
    in_range(
        "HELLO",
        "property count",
        0,
        PROPERTIES_MAX,
        hello.properties.len(),
    )?;
    frame(out, kind::HELLO, |out| {
        out.push(VERSION);
        out.extend_from_slice(&hello.chunk_size.to_be_bytes());
        out.extend_from_slice(&hello.epoch.to_be_bytes());
        out.extend_from_slice(&hello.first.to_be_bytes());
        out.extend_from_slice(&hello.bitrate_kbps.to_be_bytes());
        put_short(out, "public_key", hello.public_key)?;
        put_path(out, hello.path)?;
        put_properties(out, hello.properties)
    })
}

fn put_path(out: &mut Vec<u8>, path: &[&str]) -> Result<(), FrameError> {
    out.push(path.len() as u8);
    for id in path {
        in_range("HELLO", "node id length", 1, NODE_ID_MAX, id.len())?;
        out.push(id.len() as u8);
        out.extend_from_slice(id.as_bytes());
    }
    Ok(())
}

fn put_properties(out: &mut Vec<u8>, properties: &[(&str, &str)]) -> Result<(), FrameError> {
    out.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    for (key, value) in properties {
        put_short(out, "property key", key.as_bytes())?;
        put_short(out, "property value", value.as_bytes())?;
    }
    Ok(())
}

fn put_short(out: &mut Vec<u8>, field: &'static str, bytes: &[u8]) -> Result<(), FrameError> {
    in_range("HELLO", field, 0, usize::from(u16::MAX), bytes.len())?;
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a HEADER: from byte `at` of the epoch on, `header` is what a newcomer needs, `again` what a listener
/// that is already playing gets when it is moved.
///
/// # Errors
///
/// [`FrameError::Length`] when it does not fit a frame; `out` is then as it was.
pub fn encode_header(out: &mut Vec<u8>, at: u64, again: &[u8], header: &[u8]) -> Result<(), FrameError> {
    // Before anything is copied, and so that `again` fits its length field.
    let again_len = length_of(1 + 8 + 4 + again.len() + header.len()).map(|_| again.len() as u32)?;
    frame(out, kind::HEADER, |out| {
        out.extend_from_slice(&at.to_be_bytes());
        out.extend_from_slice(&again_len.to_be_bytes());
        out.extend_from_slice(again);
        out.extend_from_slice(header);
        Ok(())
    })
}

/// The bytes of a CHUNK frame before its payload of `len` bytes, so that the payload can be sent from where it is.
///
/// # Panics
///
/// When `len` is not 1 to [`CHUNK_SIZE_MAX`], or `join` is not below `len`: both come from our own ring.
pub fn encode_chunk_head(
    number: u64,
    capture_us: u64,
    flags: u8,
    join: Option<u16>,
    len: usize,
) -> [u8; CHUNK_OVERHEAD] {
    assert!(
        (1..=CHUNK_SIZE_MAX as usize).contains(&len),
        "chunk of {len} bytes"
    );
    assert!(
        join.is_none_or(|join| usize::from(join) < len),
        "join {join:?} outside a chunk of {len} bytes"
    );
    let length = (CHUNK_OVERHEAD - 4 + len) as u32;
    let mut head = [0; CHUNK_OVERHEAD];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind::CHUNK;
    head[5..13].copy_from_slice(&number.to_be_bytes());
    head[13..21].copy_from_slice(&capture_us.to_be_bytes());
    head[21] = flags;
    head[22..24].copy_from_slice(&join.unwrap_or(JOIN_NONE).to_be_bytes());
    head
}

/// Appends a whole CHUNK, payload and all.
///
/// # Panics
///
/// As [`encode_chunk_head`].
pub fn encode_chunk(out: &mut Vec<u8>, chunk: &Chunk<'_>) {
    let Chunk {
        number,
        capture_us,
        flags,
        join,
        bytes,
    } = *chunk;
    out.extend_from_slice(&encode_chunk_head(number, capture_us, flags, join, bytes.len()));
    out.extend_from_slice(bytes);
}

/// Appends a MUNRO.
///
/// # Errors
///
/// [`FrameError::Length`] when it does not fit a frame; `out` is then as it was.
pub fn encode_munro(out: &mut Vec<u8>, munro: &[u8]) -> Result<(), FrameError> {
    put_opaque(out, kind::MUNRO, munro)
}

/// Appends a METADATA.
///
/// # Errors
///
/// [`FrameError::Length`] when it does not fit a frame; `out` is then as it was.
pub fn encode_metadata(out: &mut Vec<u8>, title: &str) -> Result<(), FrameError> {
    put_opaque(out, kind::METADATA, title.as_bytes())
}

fn put_opaque(out: &mut Vec<u8>, kind: u8, body: &[u8]) -> Result<(), FrameError> {
    length_of(1 + body.len())?;
    frame(out, kind, |out| {
        out.extend_from_slice(body);
        Ok(())
    })
}

/// Appends a PING: this node's wall clock, in µs of Unix time.
pub fn encode_ping(out: &mut Vec<u8>, wall_us: u64) {
    out.extend_from_slice(&9u32.to_be_bytes());
    out.push(kind::PING);
    out.extend_from_slice(&wall_us.to_be_bytes());
}

/// Appends a JOIN: a newcomer may start at byte `at` of the epoch.
pub fn encode_join(out: &mut Vec<u8>, at: u64) {
    out.extend_from_slice(&9u32.to_be_bytes());
    out.push(kind::JOIN);
    out.extend_from_slice(&at.to_be_bytes());
}

/// Appends an END. The text is cut to [`END_TEXT_MAX`] bytes, between characters.
pub fn encode_end(out: &mut Vec<u8>, reason: EndReason, text: &str) {
    let text = &text[..text.floor_char_boundary(END_TEXT_MAX)];
    out.extend_from_slice(&(2 + text.len() as u32).to_be_bytes());
    out.extend_from_slice(&[kind::END, reason.to_wire()]);
    out.extend_from_slice(text.as_bytes());
}

/// An entry for fuzzers: the first byte picks how the rest is sliced; whole and sliced must agree.
///
/// # Panics
///
/// When they do not: a finding.
pub fn fuzz_frames(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let whole = transcript(&mut std::iter::once(stream));
    let sliced = transcript(&mut stream.chunks(usize::from(*cut) + 1));
    assert_eq!(
        whole,
        sliced,
        "the same bytes, sliced by {}, read differently",
        usize::from(*cut) + 1
    );
}

fn transcript(slices: &mut dyn Iterator<Item = &[u8]>) -> (Vec<String>, Option<FrameError>) {
    let (mut reader, mut told) = (FrameReader::new(), Vec::new());
    for slice in slices {
        if let Err(error) = reader.feed(slice, &mut |frame| told.push(format!("{frame:?}"))) {
            return (told, Some(error));
        }
    }
    (told, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64: seeded, so that a failure repeats.
    struct Dice(u64);

    impl Dice {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }

        fn below(&mut self, n: usize) -> usize {
            (self.next() % n as u64) as usize
        }

        fn bytes(&mut self, max: usize) -> Vec<u8> {
            (0..self.below(max + 1)).map(|_| self.next() as u8).collect()
        }

        fn text(&mut self, min: usize, max: usize) -> String {
            (0..min + self.below(max - min + 1))
                .map(|_| ['a', 'Z', '7', '-', '.'][self.below(5)])
                .collect()
        }
    }

    fn read(bytes: &[u8]) -> (Vec<String>, Option<FrameError>) {
        transcript(&mut std::iter::once(bytes))
    }

    /// A random good stream, and how each of its frames must read.
    fn stream(dice: &mut Dice, frames: usize) -> (Vec<u8>, Vec<String>) {
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..frames {
            expected.push(any_frame(dice, &mut out));
        }
        (out, expected)
    }

    fn any_frame(dice: &mut Dice, out: &mut Vec<u8>) -> String {
        match dice.below(9) {
            0 => any_hello(dice, out),
            1 => {
                let (at, again, header) = (dice.next(), dice.bytes(40), dice.bytes(900));
                encode_header(out, at, &again, &header).unwrap();
                format!(
                    "{:?}",
                    Frame::Header(Header {
                        at,
                        again: &again,
                        header: &header
                    })
                )
            }
            2 => {
                let munro = dice.bytes(120);
                encode_munro(out, &munro).unwrap();
                format!("{:?}", Frame::Munro(&munro))
            }
            3 => {
                let title = dice.text(0, 60) + "é";
                encode_metadata(out, &title).unwrap();
                format!("{:?}", Frame::Metadata(&title))
            }
            4 => {
                let wall_us = dice.next();
                encode_ping(out, wall_us);
                format!("{:?}", Frame::Ping { wall_us })
            }
            5 => {
                let at = dice.next();
                encode_join(out, at);
                format!("{:?}", Frame::Join { at })
            }
            6 => {
                let (reason, text) = (EndReason::from_wire(dice.next() as u8), dice.text(0, 80));
                encode_end(out, reason, &text);
                format!("{:?}", Frame::End(End { reason, text: &text }))
            }
            7 => {
                let (kind, body) = (9 + dice.below(247) as u8, dice.bytes(50));
                put_opaque(out, kind, &body).unwrap();
                format!(
                    "{:?}",
                    Frame::Unknown {
                        kind,
                        len: body.len()
                    }
                )
            }
            _ => any_chunk(dice, out),
        }
    }

    fn any_chunk(dice: &mut Dice, out: &mut Vec<u8>) -> String {
        let mut bytes = dice.bytes(1400);
        bytes.push(7);
        let join = (dice.below(2) == 0).then(|| dice.below(bytes.len()) as u16);
        let (number, capture_us, flags) = (dice.next(), dice.next(), dice.next() as u8);
        let chunk = Chunk {
            number,
            capture_us,
            flags,
            join,
            bytes: &bytes,
        };
        encode_chunk(out, &chunk);
        format!("{:?}", Frame::Chunk(chunk))
    }

    fn any_hello(dice: &mut Dice, out: &mut Vec<u8>) -> String {
        let key = dice.bytes(70);
        let ids: Vec<_> = (0..dice.below(PATH_MAX + 1))
            .map(|_| dice.text(1, NODE_ID_MAX))
            .collect();
        let props: Vec<_> = (0..dice.below(PROPERTIES_MAX + 1))
            .map(|_| (dice.text(0, 20), dice.text(0, 30)))
            .collect();
        let path: Vec<_> = ids.iter().map(String::as_str).collect();
        let properties: Vec<_> = props.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let parts = HelloParts {
            chunk_size: CHUNK_SIZE_MIN + dice.below((CHUNK_SIZE_MAX - CHUNK_SIZE_MIN + 1) as usize) as u32,
            epoch: dice.next(),
            first: dice.next(),
            bitrate_kbps: dice.next() as u32,
            public_key: &key,
            path: &path,
            properties: &properties,
        };
        encode_hello(out, &parts).unwrap();
        told_hello(&parts)
    }

    /// The `Debug` form of the HELLO that `parts` make, written without the parser.
    fn told_hello(p: &HelloParts<'_>) -> String {
        let entries: Vec<_> = p
            .properties
            .iter()
            .map(|(k, v)| format!("{k:?}: {v:?}"))
            .collect();
        format!(
            "Hello(Hello {{ chunk_size: {}, epoch: {}, first: {}, bitrate_kbps: {}, public_key: {:?}, path: {:?}, \
             properties: {{{}}} }})",
            p.chunk_size,
            p.epoch,
            p.first,
            p.bitrate_kbps,
            p.public_key,
            p.path,
            entries.join(", ")
        )
    }

    fn parts() -> HelloParts<'static> {
        HelloParts {
            chunk_size: 1316,
            epoch: 7,
            first: 40,
            bitrate_kbps: 2000,
            public_key: &[1, 2, 3],
            path: &["root", "edge-1"],
            properties: &[("content-type", "video/mp2t"), ("name", "Eclipse")],
        }
    }

    fn body_of(out: &[u8]) -> &[u8] {
        &out[FRAME_HEAD..]
    }

    #[test]
    fn what_is_written_is_read_in_any_slicing() {
        for seed in 0..300 {
            let mut dice = Dice(seed);
            let frames = 1 + dice.below(12);
            let (bytes, expected) = stream(&mut dice, frames);
            assert_eq!(read(&bytes), (expected.clone(), None), "seed {seed}");
            for size in [1, 2, 3, 5, 64, 1316, 1 + dice.below(4000)] {
                assert_eq!(
                    transcript(&mut bytes.chunks(size)),
                    (expected.clone(), None),
                    "seed {seed}/{size}"
                );
            }
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut out = Vec::new();
        encode_chunk(
            &mut out,
            &Chunk {
                number: 0x0102,
                capture_us: 0x0304,
                flags: FLAG_LAST,
                join: None,
                bytes: b"abc",
            },
        );
        let expected = [
            &[0, 0, 0, 23, 3][..],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 0, 0, 0, 0, 0, 3, 4],
            &[1, 0xFF, 0xFF],
            b"abc",
        ];
        assert_eq!(out, expected.concat());
        assert_eq!(out.len(), CHUNK_OVERHEAD + 3);

        out.clear();
        encode_hello(
            &mut out,
            &HelloParts {
                path: &["r"],
                properties: &[("k", "v")],
                ..parts()
            },
        )
        .unwrap();
        let expected = [
            &[0, 0, 0, 42, 1, 1, 0, 0, 5, 36][..],
            &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 7, 208],
            &[0, 3, 1, 2, 3, 1, 1, b'r', 0, 1, 0, 1, b'k', 0, 1, b'v'],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn a_hello_answers_questions() {
        let mut out = Vec::new();
        encode_hello(&mut out, &parts()).unwrap();
        let Ok(Frame::Hello(hello)) = Frame::parse(kind::HELLO, body_of(&out)) else {
            panic!("not a HELLO")
        };
        assert!(hello.path.contains("edge-1") && !hello.path.contains("edge"));
        assert_eq!(hello.properties.get("name"), Some("Eclipse"));
        assert_eq!(hello.properties.get("genre"), None);
    }

    #[test]
    fn every_truncation_of_a_body_is_refused_or_shorter() {
        let mut out = Vec::new();
        encode_hello(&mut out, &parts()).unwrap();
        for n in 0..body_of(&out).len() {
            let got = Frame::parse(kind::HELLO, &body_of(&out)[..n]);
            assert!(
                matches!(got, Err(FrameError::Short { frame: "HELLO", .. })),
                "{n}: {got:?}"
            );
        }
        for (kind, fixed) in [
            (kind::CHUNK, 20),
            (kind::HEADER, 12),
            (kind::PING, 8),
            (kind::JOIN, 8),
            (kind::END, 1),
        ] {
            for n in 0..fixed {
                assert!(
                    Frame::parse(kind, &vec![0; n]).is_err(),
                    "kind {kind} with {n} bytes"
                );
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_gives_whole_frames_only() {
        let (bytes, expected) = stream(&mut Dice(5), 9);
        for n in 0..bytes.len() {
            let (told, error) = read(&bytes[..n]);
            assert_eq!((error, &told[..]), (None, &expected[..told.len()]));
            assert!(told.len() < expected.len());
        }
    }

    #[test]
    fn later_versions_of_known_frames_are_read() {
        let mut out = Vec::new();
        encode_hello(&mut out, &parts()).unwrap();
        let known = Frame::parse(kind::HELLO, body_of(&out)).unwrap();
        let mut longer = body_of(&out).to_vec();
        longer.extend_from_slice(b"something new");
        assert_eq!(Frame::parse(kind::HELLO, &longer).unwrap(), known);
        assert_eq!(
            Frame::parse(kind::PING, &[0, 0, 0, 0, 0, 0, 0, 5, 9]),
            Ok(Frame::Ping { wall_us: 5 })
        );
        longer[0] = 2;
        assert_eq!(
            Frame::parse(kind::HELLO, &longer),
            Err(FrameError::Version { got: 2 })
        );
    }

    #[test]
    fn lengths_out_of_range_are_refused_at_once() {
        for got in [0, FRAME_MAX + 1, u32::MAX as usize] {
            assert_eq!(
                read(&(got as u32).to_be_bytes()),
                (vec![], Some(FrameError::Length { got }))
            );
        }
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut reader = FrameReader::new();
        let mut claim = (FRAME_MAX as u32).to_be_bytes().to_vec();
        claim.push(kind::MUNRO);
        reader.feed(&claim, &mut |_| panic!("no frame yet")).unwrap();
        for _ in 0..1000 {
            reader.feed(&[1], &mut |_| panic!("no frame yet")).unwrap();
            assert!(reader.partial.capacity() <= 2 * reader.held().max(FRAME_HEAD));
        }
    }

    #[test]
    fn the_largest_frame_fits_exactly_and_its_buffer_is_let_go() {
        let mut out = Vec::new();
        encode_munro(&mut out, &vec![9; FRAME_MAX - 1]).unwrap();
        let (mut reader, mut given) = (FrameReader::new(), 0);
        for slice in out.chunks(10_000) {
            reader
                .feed(slice, &mut |frame| {
                    given += usize::from(matches!(frame, Frame::Munro(_)))
                })
                .unwrap();
            assert!(reader.partial.capacity() <= FRAME_MAX + 4);
        }
        assert_eq!((given, reader.held(), reader.partial.capacity()), (1, 0, 0));
        assert_eq!(
            encode_munro(&mut out, &vec![9; FRAME_MAX]),
            Err(FrameError::Length { got: FRAME_MAX + 1 })
        );
        assert_eq!(out.len(), FRAME_MAX + 4, "a refused frame leaves nothing behind");
    }

    #[test]
    fn limits_hold_both_ways() {
        let long = "x".repeat(NODE_ID_MAX + 1);
        let cases = [
            HelloParts {
                chunk_size: 187,
                ..parts()
            },
            HelloParts {
                chunk_size: 65_536,
                ..parts()
            },
            HelloParts {
                path: &["a"; PATH_MAX + 1],
                ..parts()
            },
            HelloParts {
                path: &[""],
                ..parts()
            },
            HelloParts {
                path: &[&long],
                ..parts()
            },
            HelloParts {
                properties: &[("a", "b"); PROPERTIES_MAX + 1],
                ..parts()
            },
            HelloParts {
                public_key: &[0; 65_536],
                ..parts()
            },
        ];
        for case in cases {
            let mut out = vec![1];
            assert!(
                matches!(encode_hello(&mut out, &case), Err(FrameError::Range { .. })),
                "{case:?}"
            );
            assert_eq!(out, [1]);
        }
        // The same over the wire: path count at its place after the key.
        let mut out = Vec::new();
        encode_hello(&mut out, &parts()).unwrap();
        let mut body = body_of(&out).to_vec();
        body[30] = PATH_MAX as u8 + 1;
        assert!(matches!(
            Frame::parse(kind::HELLO, &body),
            Err(FrameError::Range {
                field: "path count",
                ..
            })
        ));
    }

    #[test]
    fn a_chunk_is_checked() {
        let chunk = |join: u16, len: usize| {
            let mut body = vec![0; 19];
            body[17..19].copy_from_slice(&join.to_be_bytes());
            body.resize(19 + len, 0);
            Frame::parse(kind::CHUNK, &body)
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        assert_eq!(chunk(9, 10), Ok(()));
        assert_eq!(chunk(JOIN_NONE, 65_535), Ok(()));
        assert_eq!(
            chunk(10, 10),
            Err("link frame CHUNK: expected join from 0 to 9, got 10".into())
        );
        assert!(chunk(0, 0).is_err());
        assert!(chunk(0, 65_536).is_err());
    }

    #[test]
    fn text_must_be_text_and_end_is_cut_between_characters() {
        assert!(matches!(
            Frame::parse(kind::METADATA, b"ab\xFF"),
            Err(FrameError::Text { valid: 2, .. })
        ));
        let mut out = Vec::new();
        encode_end(&mut out, EndReason::ShuttingDown, &"é".repeat(200));
        let Ok(Frame::End(end)) = Frame::parse(kind::END, body_of(&out)) else {
            panic!("not an END")
        };
        assert_eq!(
            (end.reason, end.text.len()),
            (EndReason::ShuttingDown, END_TEXT_MAX - 1)
        );
        for n in 0..=u8::MAX {
            assert_eq!(EndReason::from_wire(n).to_wire(), n);
        }
    }

    #[test]
    fn an_error_lasts() {
        let mut reader = FrameReader::new();
        let bad = reader.feed(&[0, 0, 0, 0], &mut |_| ());
        let mut good = Vec::new();
        encode_ping(&mut good, 1);
        assert_eq!(reader.feed(&good, &mut |_| panic!("after an error")), bad);
    }

    #[test]
    fn random_and_damaged_bytes_never_panic() {
        let mut dice = Dice(99);
        for _ in 0..3000 {
            fuzz_frames(&dice.bytes(300));
            // Good streams with a few bytes changed reach deeper than noise.
            let (mut bytes, _) = stream(&mut dice, 3);
            for _ in 0..1 + dice.below(4) {
                let at = dice.below(bytes.len());
                bytes[at] = dice.next() as u8;
            }
            fuzz_frames(&bytes);
            // Every kind with short noise as its body.
            let _ = Frame::parse(dice.below(9) as u8, &dice.bytes(60));
        }
    }
}
