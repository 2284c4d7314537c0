//! Ogg (RFC 3533) with Vorbis, Opus (RFC 7845), Theora, FLAC (RFC 9639 section 10.1) and Speex; Skeleton is
//! carried, but for its index.
//!
//! Header: all pages from the first "beginning of stream" page up to the first data page. A new beginning is a new
//! chain and brings a new header. Join point: a page that begins with a fresh packet, where there is Theora, with a
//! key frame. Pages are kept whole; one with a bad checksum counts as not there.

use crate::HEADER_MAX;
use crate::crc::crc32;
use crate::step::{Found, Parser, Step, need, until};

/// Logical streams in one chain; more are a flood.
const STREAMS_MAX: usize = 16;

/// Key frames found in the middle of a page, and none at the start of one, before they are taken as join points.
const INNER_KEYS: u32 = 2;

/// Scanner state for Ogg.
#[derive(Default, Debug)]
pub(crate) struct Ogg {
    phase: Phase,
    streams: Vec<Stream>,
    /// The header pages of the chain that is beginning.
    header: Vec<u8>,
    /// Past the "beginning of stream" pages of the chain.
    secondary: bool,
    inner_keys: u32,
}

#[derive(Default, PartialEq, Eq, Debug)]
enum Phase {
    /// No usable header: before the first chain, or in one whose header is over the limits.
    #[default]
    Outside,
    Header,
    Data,
}

#[derive(Debug)]
struct Stream {
    serial: u32,
    codec: Codec,
    /// Header packets still to come; `UNCOUNTED` until a FLAC block says it is the last one.
    left: u32,
    /// Within a Skeleton index.
    indexes: bool,
}

const UNCOUNTED: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Codec {
    Audio,
    Flac,
    Theora,
    Skeleton,
}

impl Parser for Ogg {
    fn step(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        if data[0] != b'O' {
            return found.skip(until(data, b"O"));
        }
        need!(data, 27);
        if &data[..5] != b"OggS\0" {
            return found.skip(1);
        }
        let body = 27 + usize::from(data[26]);
        need!(data, body);
        let whole = body + data[27..body].iter().map(|len| usize::from(*len)).sum::<usize>();
        need!(data, whole);
        let page = Page {
            bytes: &data[..whole],
        };
        if page.is_good() {
            self.page(page, at, found);
        } else {
            // The whole claimed page: trying again at every byte would cost a checksum each.
            found.stats.bad_units += 1;
            found.stats.skipped_bytes += whole as u64;
        }
        Step::Take(whole as u64)
    }
}

impl Ogg {
    fn page(&mut self, page: Page<'_>, at: u64, found: &mut Found<'_>) {
        if page.begins_stream() {
            self.begin(page, found);
        } else if self.phase == Phase::Header && !self.is_header(page) {
            self.open(page, at, found);
        } else if self.phase == Phase::Header {
            self.secondary = true;
            self.gather(page, found);
        } else if self.phase == Phase::Data {
            self.data(page, at, found);
        }
    }

    /// A logical stream begins, and with the first of them a chain.
    fn begin(&mut self, page: Page<'_>, found: &mut Found<'_>) {
        if self.phase != Phase::Header || self.secondary {
            *self = Ogg {
                phase: Phase::Header,
                ..Ogg::default()
            };
        }
        let known = self.streams.iter().any(|stream| stream.serial == page.serial());
        if known || self.streams.len() == STREAMS_MAX {
            return self.give_up(found);
        }
        let first = page.packets().next().map_or(&[][..], |packet| packet.bytes);
        self.streams.push(Stream::new(page.serial(), first));
        self.gather(page, found);
    }

    fn give_up(&mut self, found: &mut Found<'_>) {
        *self = Ogg::default();
        found.oversize();
    }

    /// Whether this page still belongs to the header. Strangers' pages do not end it.
    fn is_header(&mut self, page: Page<'_>) -> bool {
        let stream = self
            .streams
            .iter_mut()
            .find(|stream| stream.serial == page.serial());
        stream.is_none_or(|stream| stream.codec == Codec::Skeleton || stream.awaits(page))
    }

    /// Takes a page into the header and counts the header packets that end on it.
    fn gather(&mut self, page: Page<'_>, found: &mut Found<'_>) {
        let Some(stream) = self
            .streams
            .iter_mut()
            .find(|stream| stream.serial == page.serial())
        else {
            found.stats.bad_units += 1;
            return;
        };
        if stream.is_index(page) {
            return;
        }
        for packet in page.packets() {
            stream.count(packet);
        }
        if self.header.len() + page.bytes.len() > HEADER_MAX {
            return self.give_up(found);
        }
        self.header.extend_from_slice(page.bytes);
    }

    /// The first data page of a stream: when every stream has its header, data begins here.
    fn open(&mut self, page: Page<'_>, at: u64, found: &mut Found<'_>) {
        self.secondary = true;
        if self.streams.iter().any(|stream| stream.left > 0) {
            return;
        }
        self.phase = Phase::Data;
        found.header(at, &std::mem::take(&mut self.header), 0);
        self.data(page, at, found);
    }

    fn data(&mut self, page: Page<'_>, at: u64, found: &mut Found<'_>) {
        let theora = self.streams.iter().find(|stream| stream.codec == Codec::Theora);
        let lead = theora.or_else(|| self.streams.iter().find(|stream| stream.codec != Codec::Skeleton));
        let Some(lead) = lead.filter(|lead| lead.serial == page.serial()) else {
            return;
        };
        let fresh = match lead.codec {
            Codec::Theora => self.is_key_page(page),
            _ => page
                .packets()
                .next()
                .is_some_and(|packet| packet.begins && !packet.bytes.is_empty()),
        };
        if fresh {
            found.join(at, at + page.bytes.len() as u64);
        }
    }

    /// Whether a key frame begins this page. Muxers start a page for it; where one never does, the page in which a
    /// key frame begins has to do.
    fn is_key_page(&mut self, page: Page<'_>) -> bool {
        let mut packets = page.packets();
        let first = packets.next().is_some_and(Packet::is_key);
        let inner = !first && packets.any(Packet::is_key);
        self.inner_keys += u32::from(inner && self.inner_keys < INNER_KEYS);
        if first && self.inner_keys < INNER_KEYS {
            self.inner_keys = 0;
        }
        first || (inner && self.inner_keys == INNER_KEYS)
    }
}

impl Stream {
    fn new(serial: u32, first: &[u8]) -> Stream {
        let (codec, left) = codec(first);
        Stream {
            serial,
            codec,
            left,
            indexes: false,
        }
    }

    /// Whether header packets are still to come. FLAC that does not count them ends them with its first frame.
    fn awaits(&mut self, page: Page<'_>) -> bool {
        let is_frame = page
            .packets()
            .next()
            .is_some_and(|packet| packet.begins && packet.bytes.first() == Some(&0xFF));
        if self.left == UNCOUNTED && is_frame {
            self.left = 0;
        }
        self.left > 0
    }

    /// Pages of a Skeleton index, which finds its way in the file from its beginning, are of no use to a newcomer.
    fn is_index(&mut self, page: Page<'_>) -> bool {
        let fresh = page.packets().next().filter(|packet| packet.begins);
        if let Some(packet) = fresh {
            self.indexes = self.codec == Codec::Skeleton && packet.bytes.starts_with(b"index\0");
        }
        self.indexes
    }

    fn count(&mut self, packet: Packet<'_>) {
        if self.codec == Codec::Flac && self.left == UNCOUNTED {
            // RFC 9639, 8.1: the first bit of a metadata block says that it is the last one.
            let last = packet.begins
                && packet
                    .bytes
                    .first()
                    .is_some_and(|byte| byte & 0x80 != 0 && *byte != 0xFF);
            self.left = if last { 1 } else { UNCOUNTED };
        }
        if packet.ends && self.left != UNCOUNTED {
            self.left = self.left.saturating_sub(1);
        }
    }
}

/// What the first packet of a stream says: codec, and how many header packets there are, with this one.
fn codec(first: &[u8]) -> (Codec, u32) {
    let number = |from: usize| first.get(from).copied().map_or(0, u32::from);
    match first {
        [0x80, b't', b'h', b'e', b'o', b'r', b'a', ..] => (Codec::Theora, 3),
        [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => (Codec::Audio, 3),
        [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', ..] => (Codec::Audio, 2),
        // Byte 68 is the low byte of the number of extra headers.
        [b'S', b'p', b'e', b'e', b'x', b' ', ..] => (Codec::Audio, 2 + number(68)),
        [0x7F, b'F', b'L', b'A', b'C', ..] => match number(7) << 8 | number(8) {
            0 => (Codec::Flac, UNCOUNTED),
            count => (Codec::Flac, count + 1),
        },
        // Before there was a mapping, FLAC was put into Ogg as it is.
        [b'f', b'L', b'a', b'C', ..] => (Codec::Flac, UNCOUNTED),
        [b'f', b'i', b's', b'h', b'e', b'a', b'd', ..] => (Codec::Skeleton, 0),
        _ => (Codec::Audio, 1),
    }
}

/// A whole page.
#[derive(Clone, Copy)]
struct Page<'a> {
    bytes: &'a [u8],
}

/// The part of a packet that lies on one page.
#[derive(Clone, Copy)]
struct Packet<'a> {
    bytes: &'a [u8],
    begins: bool,
    ends: bool,
}

impl Packet<'_> {
    /// A Theora data packet of an intra frame (Theora specification, 7.1).
    fn is_key(self) -> bool {
        self.begins && self.bytes.first().is_some_and(|byte| byte & 0xC0 == 0)
    }
}

impl<'a> Page<'a> {
    fn begins_stream(self) -> bool {
        self.bytes[5] & 2 != 0
    }

    fn serial(self) -> u32 {
        u32::from_le_bytes([self.bytes[14], self.bytes[15], self.bytes[16], self.bytes[17]])
    }

    /// The checksum is taken with its own field as zero.
    fn is_good(self) -> bool {
        let claimed = u32::from_le_bytes([self.bytes[22], self.bytes[23], self.bytes[24], self.bytes[25]]);
        crc32(crc32(crc32(0, &self.bytes[..22]), &[0; 4]), &self.bytes[26..]) == claimed
    }

    /// The packets on this page, by the lacing values (RFC 3533, section 5).
    fn packets(self) -> impl Iterator<Item = Packet<'a>> {
        let (table, mut body) = self.bytes[27..].split_at(usize::from(self.bytes[26]));
        let mut begins = self.bytes[5] & 1 == 0;
        table.split_inclusive(|lace| *lace < 255).map(move |laces| {
            let (bytes, rest) = body.split_at(laces.iter().map(|lace| usize::from(*lace)).sum());
            body = rest;
            let ends = laces.last().is_some_and(|lace| *lace < 255);
            Packet {
                bytes,
                begins: std::mem::replace(&mut begins, true),
                ends,
            }
        })
    }
}
