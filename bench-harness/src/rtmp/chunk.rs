//! RTMP's chunk stream (specification 1.0, 5.3): messages cut into chunks, and put together again.
//!
//! A reader keeps a few bytes for each chunk stream. Only commands and control messages are gathered, up to a limit;
//! media go on in the pieces in which they came, data messages are skipped.

use super::Media;

/// Longest command or control message that is believed, in bytes.
const GATHER_MAX: usize = 16 * 1024;
/// Chunk streams that a server may use at once.
const STREAMS_MAX: usize = 16;
/// Bytes of a message in one chunk, until a side says otherwise (5.4.1).
const CHUNK: usize = 128;
/// Bytes of the largest chunk that is believed: the length field of a message (5.4.1).
const CHUNK_MAX: u32 = 0xff_ffff;
/// Longest chunk header: basic (3), message (11), extended timestamp (4).
const HEADER_MAX: usize = 18;
/// A timestamp field that says: the real one follows the header.
const EXTENDED: u32 = 0xff_ffff;

/// Message types (5.4, 7.1).
pub(super) const SET_CHUNK_SIZE: u8 = 1;
const ABORT: u8 = 2;
pub(super) const ACKNOWLEDGEMENT: u8 = 3;
pub(super) const USER_CONTROL: u8 = 4;
pub(super) const WINDOW_SIZE: u8 = 5;
pub(super) const PEER_BANDWIDTH: u8 = 6;
const AUDIO: u8 = 8;
pub(super) const VIDEO: u8 = 9;
const COMMAND_AMF3: u8 = 17;
pub(super) const COMMAND: u8 = 20;

/// What a chunk stream carries just now.
#[derive(Debug, Default)]
struct Stream {
    id: u32,
    kind: u8,
    length: usize,
    extended: bool,
    /// Bytes of the message that have not come yet.
    left: usize,
    /// The message so far, where it is gathered.
    gathered: Vec<u8>,
}

#[derive(Debug)]
enum At {
    Header,
    /// So many bytes of this chunk, of the stream at this place, are still to come.
    Payload {
        stream: usize,
        left: usize,
    },
}

/// What a reader found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A whole command (AMF0) or control message.
    Message {
        kind: u8,
        body: &'a [u8],
    },
    Media(Media<'a>),
}

/// Takes a chunk stream apart.
#[derive(Debug)]
pub(super) struct Reader {
    at: At,
    header: [u8; HEADER_MAX],
    have: usize,
    chunk: usize,
    streams: Vec<Stream>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            at: At::Header,
            header: [0; HEADER_MAX],
            have: 0,
            chunk: CHUNK,
            streams: Vec::new(),
        }
    }
}

impl Reader {
    /// Takes the next bytes. An error of `found` ends the work and is handed on.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut found: impl FnMut(Found<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        while let [first, rest @ ..] = bytes {
            match self.at {
                At::Header => {
                    self.header[self.have] = *first;
                    self.have += 1;
                    bytes = rest;
                    self.header_byte(&mut found)?;
                }
                At::Payload { stream, left } => {
                    let (piece, rest) = bytes.split_at(left.min(bytes.len()));
                    bytes = rest;
                    self.at = At::Payload {
                        stream,
                        left: left - piece.len(),
                    };
                    self.payload(stream, piece, &mut found)?;
                    if left == piece.len() {
                        self.at = At::Header;
                    }
                }
            }
        }
        Ok(())
    }

    /// One more byte of a header: begins the payload when it is whole.
    fn header_byte(&mut self, found: &mut impl FnMut(Found<'_>) -> Result<(), String>) -> Result<(), String> {
        let Some((format, id, basic)) = self.basic() else {
            return Ok(());
        };
        let fields = [11, 7, 3, 0][usize::from(format)];
        if self.have < basic + fields {
            return Ok(());
        }
        let stream = self.stream(id)?;
        let mut head = [0; 11];
        head[..fields].copy_from_slice(&self.header[basic..basic + fields]);
        let extended = match fields {
            0 => self.streams[stream].extended,
            _ => u24(&head) == EXTENDED,
        };
        if self.have < basic + fields + 4 * usize::from(extended) {
            return Ok(());
        }
        self.have = 0;
        let carried = &mut self.streams[stream];
        if carried.left > 0 && format != 3 {
            return Err(format!("a new message inside one of chunk stream {id}"));
        }
        if carried.kind == 0 && format > 1 {
            return Err(format!(
                "a continuation on chunk stream {id}, where nothing was before"
            ));
        }
        carried.extended = extended;
        if fields >= 7 {
            (carried.length, carried.kind) = (u24(&head[3..]) as usize, head[6]);
        }
        self.begin(stream, found)
    }

    /// The format, the chunk stream and the length of the basic header, as soon as it is there.
    fn basic(&self) -> Option<(u8, u32, usize)> {
        let (format, low) = (self.header[0] >> 6, self.header[0] & 0x3f);
        let (length, id) = match low {
            0 => (2, 64 + u32::from(self.header[1])),
            1 => (
                3,
                64 + u32::from(self.header[1]) + (u32::from(self.header[2]) << 8),
            ),
            low => (1, u32::from(low)),
        };
        (self.have >= length).then_some((format, id, length))
    }

    fn stream(&mut self, id: u32) -> Result<usize, String> {
        if let Some(place) = self.streams.iter().position(|stream| stream.id == id) {
            return Ok(place);
        }
        if self.streams.len() >= STREAMS_MAX {
            return Err(format!("more than {STREAMS_MAX} chunk streams"));
        }
        self.streams.push(Stream {
            id,
            ..Stream::default()
        });
        Ok(self.streams.len() - 1)
    }

    fn begin(
        &mut self,
        place: usize,
        found: &mut impl FnMut(Found<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let stream = &mut self.streams[place];
        if stream.left == 0 {
            if stream.is_gathered() && stream.length > GATHER_MAX {
                return Err(format!(
                    "a message of kind {} and {} bytes",
                    stream.kind, stream.length
                ));
            }
            stream.left = stream.length;
            stream.gathered.clear();
        }
        let left = stream.left.min(self.chunk);
        if left == 0 {
            return self.payload(place, &[], found);
        }
        self.at = At::Payload { stream: place, left };
        Ok(())
    }

    fn payload(
        &mut self,
        place: usize,
        piece: &[u8],
        found: &mut impl FnMut(Found<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let stream = &mut self.streams[place];
        let first = stream.left == stream.length;
        stream.left -= piece.len();
        if matches!(stream.kind, AUDIO | VIDEO) {
            let is_video = stream.kind == VIDEO;
            return found(Found::Media(Media {
                is_video,
                first,
                bytes: piece,
            }));
        }
        if !stream.is_gathered() {
            return Ok(());
        }
        stream.gathered.extend(piece);
        if stream.left > 0 {
            return Ok(());
        }
        let (kind, body) = (stream.kind, std::mem::take(&mut stream.gathered));
        let told = match kind {
            SET_CHUNK_SIZE | ABORT => self.control(kind, &body),
            // The same in AMF3 is AMF0 behind a byte that says so, as every server sends it.
            COMMAND_AMF3 => found(Found::Message {
                kind: COMMAND,
                body: body.get(1..).unwrap_or_default(),
            }),
            _ => found(Found::Message { kind, body: &body }),
        };
        if let Some(stream) = self.streams.get_mut(place) {
            stream.gathered = body;
            stream.gathered.clear();
        }
        told
    }

    fn control(&mut self, kind: u8, body: &[u8]) -> Result<(), String> {
        let number = super::chunk::number(body).ok_or("a control message without its number")?;
        if kind == SET_CHUNK_SIZE {
            if number == 0 || number > CHUNK_MAX {
                return Err(format!("chunks of {number} bytes"));
            }
            self.chunk = number as usize;
            return Ok(());
        }
        for stream in self.streams.iter_mut().filter(|stream| stream.id == number) {
            stream.left = 0;
        }
        Ok(())
    }
}

impl Stream {
    fn is_gathered(&self) -> bool {
        matches!(self.kind, 1..=6 | COMMAND_AMF3 | COMMAND)
    }
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2])
}

/// The number that most control messages are.
pub(super) fn number(body: &[u8]) -> Option<u32> {
    let four = body.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*four))
}

/// Puts messages into chunks.
#[derive(Debug)]
pub(super) struct Writer {
    chunk: usize,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { chunk: CHUNK }
    }
}

impl Writer {
    /// From now on, chunks of so many bytes; tells the other side.
    pub(super) fn set_chunk(&mut self, size: usize, out: &mut Vec<u8>) {
        self.message((2, SET_CHUNK_SIZE, 0), 0, &(size as u32).to_be_bytes(), out);
        self.chunk = size;
    }

    /// Appends a message: its chunk stream (2 to 63), kind and message stream, and its time in ms.
    pub(super) fn message(&self, (id, kind, stream): (u8, u8, u32), ms: u32, body: &[u8], out: &mut Vec<u8>) {
        let extended = ms >= EXTENDED;
        let length = (body.len() as u32).to_be_bytes();
        out.push(id);
        out.extend(&ms.min(EXTENDED).to_be_bytes()[1..]);
        out.extend(&length[1..]);
        out.push(kind);
        out.extend(stream.to_le_bytes());
        for (n, piece) in body.chunks(self.chunk).enumerate() {
            if n > 0 {
                out.push(0xc0 | id);
            }
            if extended {
                out.extend(ms.to_be_bytes());
            }
            out.extend(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that is found in `bytes`, cut into pieces of this size; media put together again.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<(u8, Vec<u8>)>, String> {
        let (mut reader, mut all) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.feed(piece, |found| {
                match found {
                    Found::Message { kind, body } => all.push((kind, body.to_vec())),
                    Found::Media(media) if media.first => all.push((VIDEO, media.bytes.to_vec())),
                    Found::Media(media) => all.last_mut().unwrap().1.extend(media.bytes),
                }
                Ok(())
            })?;
        }
        Ok(all)
    }

    #[test]
    fn messages_come_whole_out_of_chunks_of_any_size_in_any_slicing() {
        let (mut out, mut writer) = (Vec::new(), Writer::default());
        let (command, picture) = (vec![5; 300], (0..=255).collect::<Vec<u8>>().repeat(10));
        writer.message((3, COMMAND, 0), 0, &command, &mut out);
        writer.set_chunk(1000, &mut out);
        writer.message((6, VIDEO, 1), 40, &picture, &mut out);
        writer.message((6, VIDEO, 1), EXTENDED + 5, &picture, &mut out);
        for piece in [1, 7, 128, 129, 100_000] {
            let wanted = vec![
                (COMMAND, command.clone()),
                (VIDEO, picture.clone()),
                (VIDEO, picture.clone()),
            ];
            assert_eq!(read(&out, piece), Ok(wanted), "{piece}");
        }
    }

    #[test]
    fn streams_may_interleave_and_headers_may_be_short() {
        let mut bytes = vec![3, 0, 0, 0, 0, 0, 130, COMMAND, 0, 0, 0, 0];
        bytes.extend([1; 128]);
        bytes.extend([0x42, 0, 0, 0, 0, 0, 4, WINDOW_SIZE, 0, 0, 1, 0]); // chunk stream 2, without a stream's number
        bytes.extend([0xc3, 1, 1]);
        bytes.push(0xc2); // the same header again: another message of its kind and length
        bytes.extend([0, 0, 2, 0]);
        let found = read(&bytes, 1).unwrap();
        let kinds: Vec<(u8, usize)> = found.iter().map(|(kind, body)| (*kind, body.len())).collect();
        assert_eq!(kinds, [(WINDOW_SIZE, 4), (COMMAND, 130), (WINDOW_SIZE, 4)]);
    }

    #[test]
    fn long_basic_headers_and_lost_messages_are_understood() {
        let mut bytes = vec![1, 0, 1, 0, 0, 0, 0, 0, 200, VIDEO, 0, 0, 0, 0]; // chunk stream 64 + 256
        bytes.extend([7; 128]);
        bytes.extend([2, 0, 0, 0, 0, 0, 4, ABORT, 0, 0, 0, 0, 0, 0, 1, 64]);
        bytes.extend([1, 0, 1, 0, 0, 0, 0, 0, 1, VIDEO, 0, 0, 0, 0, 9]);
        let found = read(&bytes, 5).unwrap();
        assert_eq!((found.len(), &found[1]), (2, &(VIDEO, vec![9])));
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let bad = |bytes: &[u8]| read(bytes, 1).is_err();
        assert!(bad(&[0xc3]), "a continuation of nothing");
        let mut new_inside = vec![3, 0, 0, 0, 0, 0, 200, COMMAND, 0, 0, 0, 0];
        new_inside.extend([0; 128]);
        new_inside.extend([3, 0, 0, 0, 0, 0, 200, COMMAND, 0, 0, 0, 0]);
        assert!(bad(&new_inside));
        assert!(bad(&[
            2,
            0,
            0,
            0,
            0,
            0,
            4,
            SET_CHUNK_SIZE,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0
        ]));
        assert!(bad(&[
            2,
            0,
            0,
            0,
            0,
            0,
            4,
            SET_CHUNK_SIZE,
            0,
            0,
            0,
            0,
            0xff,
            0,
            0,
            0
        ]));
        assert!(bad(&[2, 0, 0, 0, 0, 0, 2, SET_CHUNK_SIZE, 0, 0, 0, 0, 0, 1]));
        assert!(
            bad(&[3, 0, 0, 0, 0xff, 0xff, 0xff, COMMAND, 0, 0, 0, 0]),
            "16 MiB of command"
        );
        let many: Vec<u8> = (2..40)
            .flat_map(|id| [id, 0, 0, 0, 0, 0, 0, VIDEO, 0, 0, 0, 0])
            .collect();
        assert!(bad(&many));
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..3000), piece in 1usize..700) {
            let mut reader = Reader::default();
            for piece in bytes.chunks(piece) {
                if reader.feed(piece, |_| Ok(())).is_err() {
                    break;
                }
            }
            prop_assert!(reader.streams.len() <= STREAMS_MAX);
            prop_assert!(reader.streams.iter().all(|stream| stream.gathered.capacity() <= 2 * GATHER_MAX));
        }
    }
}
