//! Generation T, ours: the wire of a team in which nothing can be forged from off the path, and nothing bad is
//! played.
//!
//! Every datagram begins with [`VERSION`], its kind, and a **token** of 64 random bits that only its sender and its
//! receiver (and the splitter) know. All integers are in network byte order, chunk numbers the channel's own, `u64`.
//!
//! | datagram | kind | from → to | behind the token |
//! |---|---|---|---|
//! | hello | 1 | peer → splitter | – |
//! | echo | 2 | → splitter, → peer | nonce `u64`, as challenged |
//! | alive | 3 | peer → splitter, peer → peer | mates `u64`: how many it can reach; 0 to peers |
//! | got | 4 | peer → splitter | number: the chunk to relay is here |
//! | missed | 5 | monitor → splitter | number: a complaint |
//! | want | 6 | peer → splitter | number: no mate has it |
//! | goodbye | 7 | peer → splitter, peer → peer | – |
//! | accusation | 8 | peer → splitter | serial `u64`, number, tag (16), digest |
//! | knock | 9 | peer → splitter | serial `u64` of a mate that does not answer |
//! | challenge | 16 | → peer | nonce `u64` |
//! | probe | 17 | splitter → peer | number: is the chunk there? |
//! | released | 18 | splitter → peer | – : the answer to a goodbye |
//! | expelled | 19 | splitter → peer | – |
//! | stranger | 20 | splitter → anybody | – : the token that came is nobody's |
//! | punch | 21 | splitter → peer | endpoint (6) of a mate that cannot get through to you |
//! | opening | 22 | peer → peer | – : means nothing, opens a NAT |
//! | meet | 32 | peer → peer | serial `u64`, token for the answers |
//! | ask | 33 | peer → peer | number: send me this chunk |
//! | lack | 34 | peer → peer | number: I do not have it |
//! | ask for an index | 35 | → peer, → splitter | number of any chunk in it |
//! | chunk | 48 | splitter → peer, peer → peer | number, tag (16), data |
//! | repair | 49 | splitter → peer, peer → peer | number, tag (16), data: not to be relayed |
//! | munro | 50 | splitter → peer, peer → peer | a signed munro |
//! | index | 51 | splitter → peer, peer → peer | `u16` length, a signed munro, the digests of its chunks |
//!
//! A **tag** says who sent a chunk, to the splitter alone: it is keyed with the sender's secret and covers number and
//! digest. The receiver cannot make one, so a tag on wrong data is proof.
//!
//! Over TCP a newcomer says a [`Request`], is told a [`Welcome`], proves by datagrams that it is where it says, and
//! is then told its [`Mate`]s.

use std::net::SocketAddrV4;

use super::{ENDPOINT_BYTES, WireError, push_endpoint, push_u16, read_endpoint};

/// The first byte of every datagram.
pub const VERSION: u8 = 1;
/// Version, kind, token.
pub const HEADER: usize = 2 + 8;
/// Bytes before the data of a chunk: header, number, tag.
pub const CHUNK_HEADER: usize = HEADER + 8 + TAG_BYTES;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// The largest chunk: with UDP over IPv4 it fits an MTU of 1,400 (1,372 bytes of payload).
pub const CHUNK_BYTES_MAX: u16 = 1372 - CHUNK_HEADER as u16;
/// Bytes of a ticket that makes a monitor.
pub const TICKET_BYTES: usize = 16;
/// Bytes of a [`Request`].
pub const REQUEST_BYTES: usize = 2 + 1 + TICKET_BYTES;
/// Bytes of a [`Mate`] in the list.
pub const MATE_BYTES: usize = ENDPOINT_BYTES + 8 + 8;
/// The most mates in a list.
pub const MATES_MAX: usize = 4096;
/// Bytes of a public key.
pub const KEY_BYTES: usize = 65;

/// What both sides of a datagram know, and nobody off the path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Who sent a chunk, to the splitter alone.
pub type Tag = [u8; TAG_BYTES];

/// What a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table above says each")]
pub enum Say<'a> {
    Hello,
    Echo(u64),
    Alive(u64),
    Got(u64),
    Missed(u64),
    Want(u64),
    Goodbye,
    Accusation {
        serial: u64,
        number: u64,
        tag: Tag,
        digest: &'a [u8],
    },
    Knock(u64),
    Challenge(u64),
    Probe(u64),
    Released,
    Expelled,
    Stranger,
    Punch(SocketAddrV4),
    Opening,
    Meet {
        serial: u64,
        reply: Token,
    },
    Ask(u64),
    Lack(u64),
    AskIndex(u64),
    Chunk {
        number: u64,
        tag: Tag,
        data: &'a [u8],
    },
    Repair {
        number: u64,
        tag: Tag,
        data: &'a [u8],
    },
    Munro(&'a [u8]),
    Index {
        munro: &'a [u8],
        leaves: &'a [u8],
    },
}

/// A whole datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Whose word it is.
    pub token: Token,
    /// What it says.
    pub say: Say<'a>,
}

impl<'a> Datagram<'a> {
    /// Read a whole datagram.
    ///
    /// # Errors
    ///
    /// Another version, a kind that is none, a length that is not the kind's.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        let Some(([version, kind, token @ ..], body)) = datagram.split_first_chunk::<HEADER>() else {
            let got = format_args!("{} bytes", datagram.len());
            return Err(WireError::new("at least 10 bytes", got));
        };
        if *version != VERSION {
            return Err(WireError::new("version 1", version));
        }
        let token = Token(u64::from_be_bytes(*token));
        let say = parse_body(*kind, body).ok_or_else(|| {
            let got = format_args!("kind {kind} with {} bytes", body.len());
            WireError::new("a kind with its length", got)
        })?;
        Ok(Self { token, say })
    }

    /// The datagram's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = header(self.say.kind(), self.token).to_vec();
        self.say.encode(&mut out);
        out
    }
}

fn header(kind: u8, Token(token): Token) -> [u8; HEADER] {
    let [a, b, c, d, e, f, g, h] = token.to_be_bytes();
    [VERSION, kind, a, b, c, d, e, f, g, h]
}

/// The bytes before the data of a chunk, or of a repair.
pub fn chunk_header(token: Token, number: u64, tag: &Tag, repair: bool) -> [u8; CHUNK_HEADER] {
    let mut out = [0; CHUNK_HEADER];
    out[..HEADER].copy_from_slice(&header(if repair { 49 } else { 48 }, token));
    out[HEADER..HEADER + 8].copy_from_slice(&number.to_be_bytes());
    out[HEADER + 8..].copy_from_slice(tag);
    out
}

fn parse_body(kind: u8, body: &[u8]) -> Option<Say<'_>> {
    let number = || body.try_into().ok().map(u64::from_be_bytes);
    let empty = |say| body.is_empty().then_some(say);
    match kind {
        1 => empty(Say::Hello),
        2 => number().map(Say::Echo),
        3 => number().map(Say::Alive),
        4 => number().map(Say::Got),
        5 => number().map(Say::Missed),
        6 => number().map(Say::Want),
        7 => empty(Say::Goodbye),
        8 => parse_accusation(body),
        9 => number().map(Say::Knock),
        16 => number().map(Say::Challenge),
        17 => number().map(Say::Probe),
        18 => empty(Say::Released),
        19 => empty(Say::Expelled),
        20 => empty(Say::Stranger),
        21 => body
            .try_into()
            .ok()
            .map(|endpoint| Say::Punch(read_endpoint(endpoint))),
        22 => empty(Say::Opening),
        32 => parse_meet(body),
        33 => number().map(Say::Ask),
        34 => number().map(Say::Lack),
        35 => number().map(Say::AskIndex),
        48 => parse_chunk(body).map(|(number, tag, data)| Say::Chunk { number, tag, data }),
        49 => parse_chunk(body).map(|(number, tag, data)| Say::Repair { number, tag, data }),
        50 => (!body.is_empty()).then_some(Say::Munro(body)),
        51 => parse_index(body),
        _ => None,
    }
}

fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn parse_accusation(body: &[u8]) -> Option<Say<'_>> {
    let (serial, rest) = split_u64(body)?;
    let (number, rest) = split_u64(rest)?;
    let (tag, digest) = rest.split_first_chunk()?;
    (!digest.is_empty()).then_some(Say::Accusation {
        serial,
        number,
        tag: *tag,
        digest,
    })
}

fn parse_meet(body: &[u8]) -> Option<Say<'_>> {
    let (serial, rest) = split_u64(body)?;
    let (reply, rest) = split_u64(rest)?;
    let reply = Token(reply);
    rest.is_empty().then_some(Say::Meet { serial, reply })
}

fn parse_chunk(body: &[u8]) -> Option<(u64, Tag, &[u8])> {
    let (number, rest) = split_u64(body)?;
    let (tag, data) = rest.split_first_chunk()?;
    (!data.is_empty()).then_some((number, *tag, data))
}

fn parse_index(body: &[u8]) -> Option<Say<'_>> {
    let (length, rest) = body.split_first_chunk()?;
    let (munro, leaves) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    (!munro.is_empty() && !leaves.is_empty()).then_some(Say::Index { munro, leaves })
}

impl Say<'_> {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Echo(_) => 2,
            Self::Alive(_) => 3,
            Self::Got(_) => 4,
            Self::Missed(_) => 5,
            Self::Want(_) => 6,
            Self::Goodbye => 7,
            Self::Accusation { .. } => 8,
            Self::Knock(_) => 9,
            Self::Challenge(_) => 16,
            Self::Probe(_) => 17,
            Self::Released => 18,
            Self::Expelled => 19,
            Self::Stranger => 20,
            Self::Punch(_) => 21,
            Self::Opening => 22,
            Self::Meet { .. } => 32,
            Self::Ask(_) => 33,
            Self::Lack(_) => 34,
            Self::AskIndex(_) => 35,
            Self::Chunk { .. } => 48,
            Self::Repair { .. } => 49,
            Self::Munro(_) => 50,
            Self::Index { .. } => 51,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Hello | Self::Goodbye | Self::Released => {}
            Self::Expelled | Self::Stranger | Self::Opening => {}
            Self::Echo(n)
            | Self::Alive(n)
            | Self::Got(n)
            | Self::Missed(n)
            | Self::Want(n)
            | Self::Knock(n) => put(n, out),
            Self::Challenge(n) | Self::Probe(n) => put(n, out),
            Self::Ask(n) | Self::Lack(n) | Self::AskIndex(n) => put(n, out),
            Self::Punch(endpoint) => push_endpoint(endpoint, out),
            Self::Meet { serial, reply } => {
                put(serial, out);
                put(reply.0, out);
            }
            Self::Accusation {
                serial,
                number,
                tag,
                digest,
            } => {
                put(serial, out);
                put(number, out);
                out.extend_from_slice(&tag);
                out.extend_from_slice(digest);
            }
            Self::Chunk { number, tag, data } | Self::Repair { number, tag, data } => {
                put(number, out);
                out.extend_from_slice(&tag);
                out.extend_from_slice(data);
            }
            Self::Munro(munro) => out.extend_from_slice(munro),
            Self::Index { munro, leaves } => {
                push_u16(u16::try_from(munro.len()).unwrap_or(u16::MAX), out);
                out.extend_from_slice(munro);
                out.extend_from_slice(leaves);
            }
        }
    }
}

fn put(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&n.to_be_bytes());
}

/// What a newcomer says over TCP: `T`, version, role (`P` or `M`), a monitor's ticket (16 bytes, zeros for others).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What makes a monitor of it, if it has one.
    pub ticket: Option<[u8; TICKET_BYTES]>,
}

impl Request {
    /// The bytes of the request.
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut out = [0; REQUEST_BYTES];
        out[..3].copy_from_slice(&[b'T', VERSION, if self.ticket.is_some() { b'M' } else { b'P' }]);
        out[3..].copy_from_slice(&self.ticket.unwrap_or_default());
        out
    }

    /// Read a request from the start of bytes that are still coming; `Ok(None)`: not complete yet.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let expected = [b'T', VERSION];
        let seen = bytes.len().min(2);
        if bytes[..seen] != expected[..seen] {
            return Err(WireError::new("`T` and version 1", format_args!("{bytes:02x?}")));
        }
        let Some((request, _)) = bytes.split_first_chunk::<REQUEST_BYTES>() else {
            return Ok(None);
        };
        let [_, _, role, ticket @ ..] = *request;
        match role {
            b'P' => Ok(Some(Self { ticket: None })),
            b'M' => Ok(Some(Self { ticket: Some(ticket) })),
            other => Err(WireError::new("`P` or `M`", format_args!("byte {other:#04x}"))),
        }
    }
}

/// What a newcomer is told first, over TCP, in this order: `T`, version, `u16` chunk size, `u16` buffer size, `u8`
/// hash function (its RFC 7574 number), `u16` chunks per munro, serial `u64`, pass and call (tokens towards and
/// from the splitter), secret (16), next chunk `u64`, epoch `u64`, channel (32), the public key (65), `u16` header
/// size and the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// Bytes of data in each chunk, at most [`CHUNK_BYTES_MAX`].
    pub chunk_bytes: u16,
    /// The size of the peers' buffers, in chunks.
    pub buffer_chunks: u16,
    /// The hash function of the channel's tree, by its number.
    pub hash: u8,
    /// Chunks under one munro.
    pub chunks_per_munro: u16,
    /// Who the newcomer is in this team; never given twice.
    pub serial: u64,
    /// What it says to the splitter begins with this.
    pub pass: Token,
    /// What the splitter says to it begins with this.
    pub call: Token,
    /// With this it knows newcomers' tickets, and tags what it sends.
    pub secret: [u8; 16],
    /// The number of the chunk that comes next.
    pub next: u64,
    /// The life of the channel that the numbers count.
    pub epoch: u64,
    /// The channel's name.
    pub channel: [u8; 32],
    /// Whose munros are believed.
    pub key: [u8; KEY_BYTES],
    /// The beginning of the stream.
    pub header: &'a [u8],
}

/// Up to the header's size, which is part of it.
const WELCOME_BYTES: usize = 2 + 2 + 2 + 1 + 2 + 8 * 3 + 16 + 8 * 2 + 32 + KEY_BYTES + 2;

impl<'a> Welcome<'a> {
    /// The bytes of the welcome; a header longer than 65,535 bytes is cut.
    pub fn encode(&self) -> Vec<u8> {
        let header = &self.header[..self.header.len().min(usize::from(u16::MAX))];
        let mut out = vec![b'T', VERSION];
        push_u16(self.chunk_bytes, &mut out);
        push_u16(self.buffer_chunks, &mut out);
        out.push(self.hash);
        push_u16(self.chunks_per_munro, &mut out);
        [self.serial, self.pass.0, self.call.0]
            .into_iter()
            .for_each(|n| put(n, &mut out));
        out.extend_from_slice(&self.secret);
        [self.next, self.epoch].into_iter().for_each(|n| put(n, &mut out));
        out.extend_from_slice(&self.channel);
        out.extend_from_slice(&self.key);
        push_u16(header.len() as u16, &mut out);
        out.extend_from_slice(header);
        out
    }

    /// Read a welcome from the start of bytes that are still coming; `Ok(None)`: not complete yet.
    ///
    /// # Errors
    ///
    /// Another version, sizes that cannot be.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, WireError> {
        let seen = bytes.len().min(2);
        if bytes[..seen] != [b'T', VERSION][..seen] {
            return Err(WireError::new(
                "`T` and version 1",
                format_args!("{:02x?}", &bytes[..seen]),
            ));
        }
        let Some((fixed, rest)) = bytes.split_first_chunk::<WELCOME_BYTES>() else {
            return Ok(None);
        };
        let mut fields = Fields(&fixed[2..]);
        let sizes = (fields.u16(), fields.u16());
        super::check_sizes(sizes.0, CHUNK_BYTES_MAX, sizes.1)?;
        let welcome = Self {
            chunk_bytes: sizes.0,
            buffer_chunks: sizes.1,
            hash: fields.take::<1>()[0],
            chunks_per_munro: fields.u16(),
            serial: fields.u64(),
            pass: Token(fields.u64()),
            call: Token(fields.u64()),
            secret: fields.take(),
            next: fields.u64(),
            epoch: fields.u64(),
            channel: fields.take(),
            key: fields.take(),
            header: &[],
        };
        let header_bytes = usize::from(fields.u16());
        let end = WELCOME_BYTES + header_bytes;
        let Some(header) = rest.get(..header_bytes) else {
            return Ok(None);
        };
        Ok(Some((Self { header, ..welcome }, end)))
    }
}

/// Reads fields of an array whose length was checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_at(N);
        self.0 = rest;
        let mut out = [0; N];
        out.copy_from_slice(field);
        out
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}

/// One mate in the list that a newcomer is told when it has shown where it is: endpoint, serial, and the ticket by
/// which that mate knows that the splitter sent us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mate {
    /// Where it is; it has shown that to the splitter.
    pub at: SocketAddrV4,
    /// Who it is.
    pub serial: u64,
    /// What we say to it begins with this.
    pub ticket: Token,
}

impl Mate {
    /// Append `u16` the number of mates, and each, to `out`; at most [`MATES_MAX`] of them.
    pub fn encode_list(mates: &[Self], out: &mut Vec<u8>) {
        let mates = &mates[..mates.len().min(MATES_MAX)];
        push_u16(mates.len() as u16, out);
        for mate in mates {
            push_endpoint(mate.at, out);
            put(mate.serial, out);
            put(mate.ticket.0, out);
        }
    }

    /// Read a list from the start of bytes that are still coming; `Ok(None)`: not complete yet.
    ///
    /// # Errors
    ///
    /// More than [`MATES_MAX`].
    pub fn parse_list(bytes: &[u8]) -> Result<Option<(Vec<Self>, usize)>, WireError> {
        let Some((count, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let count = usize::from(u16::from_be_bytes(*count));
        if count > MATES_MAX {
            return Err(WireError::new("at most 4096 mates", count));
        }
        let Some(list) = rest.get(..count * MATE_BYTES) else {
            return Ok(None);
        };
        let mates = list.as_chunks::<MATE_BYTES>().0.iter().map(|mate| {
            let mut fields = Fields(mate);
            Self {
                at: read_endpoint(&fields.take()),
                serial: fields.u64(),
                ticket: Token(fields.u64()),
            }
        });
        Ok(Some((mates.collect(), 2 + list.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn endpoint(n: u64) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from((n >> 16) as u32), n as u16)
    }

    fn says(n: u64, bytes: &[u8]) -> Vec<Say<'_>> {
        let (tag, number, serial) = ([7; TAG_BYTES], n, n ^ 5);
        vec![
            Say::Hello,
            Say::Echo(n),
            Say::Alive(n),
            Say::Got(n),
            Say::Missed(n),
            Say::Want(n),
            Say::Goodbye,
            Say::Accusation {
                serial,
                number,
                tag,
                digest: bytes,
            },
            Say::Knock(n),
            Say::Challenge(n),
            Say::Probe(n),
            Say::Released,
            Say::Expelled,
            Say::Stranger,
            Say::Punch(endpoint(n)),
            Say::Opening,
            Say::Meet {
                serial,
                reply: Token(n),
            },
            Say::Ask(n),
            Say::Lack(n),
            Say::AskIndex(n),
            Say::Chunk {
                number,
                tag,
                data: bytes,
            },
            Say::Repair {
                number,
                tag,
                data: bytes,
            },
            Say::Munro(bytes),
            Say::Index {
                munro: bytes,
                leaves: &[1],
            },
        ]
    }

    #[test]
    fn other_versions_kinds_and_lengths_are_refused() {
        let hello = Datagram {
            token: Token(3),
            say: Say::Hello,
        }
        .encode();
        assert_eq!(hello.len(), HEADER);
        for (at, value) in [(0, 0), (0, 2), (1, 0), (1, 99)] {
            let mut bad = hello.clone();
            bad[at] = value;
            assert!(Datagram::parse(&bad).is_err(), "{at} {value}");
        }
        assert!(Datagram::parse(&[&hello[..], &[0]].concat()).is_err());
        assert!((0..HEADER).all(|cut| Datagram::parse(&hello[..cut]).is_err()));
        assert!(
            !format!("{:?}", Token(77)).contains("77"),
            "tokens do not get into logs"
        );
    }

    #[test]
    fn a_chunk_s_header_is_what_the_whole_says() {
        let (number, tag) = (9, [3; TAG_BYTES]);
        for repair in [false, true] {
            let header = chunk_header(Token(4), number, &tag, repair);
            let whole = [&header[..], b"data"].concat();
            let read = Datagram::parse(&whole).unwrap();
            assert_eq!(read.encode(), whole);
            assert_eq!(matches!(read.say, Say::Repair { .. }), repair);
        }
        assert_eq!(CHUNK_BYTES_MAX, 1338, "so that the channel's 1316 fit");
    }

    #[test]
    fn a_request_is_read_back_and_nonsense_refused_at_once() {
        for ticket in [None, Some([9; 16])] {
            let bytes = Request { ticket }.encode();
            assert!((0..bytes.len()).all(|cut| Request::parse(&bytes[..cut]) == Ok(None)));
            assert_eq!(Request::parse(&bytes), Ok(Some(Request { ticket })));
        }
        let mut other = Request { ticket: None }.encode();
        other[2] = b'X';
        for bad in [&b"P"[..], b"T\0", b"TT", &other] {
            assert!(Request::parse(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn every_datagram_is_read_back(n: u64, token: u64, bytes in prop::collection::vec(any::<u8>(), 1..50)) {
            for say in says(n, &bytes) {
                let whole = Datagram { token: Token(token), say };
                let bytes = whole.encode();
                prop_assert_eq!(Datagram::parse(&bytes), Ok(whole));
            }
        }

        #[test]
        fn noise_is_refused_or_read_exactly(kind: u8, noise in prop::collection::vec(any::<u8>(), 0..60)) {
            for bytes in [[&[VERSION, kind][..], &noise].concat(), noise] {
                if let Ok(read) = Datagram::parse(&bytes) {
                    prop_assert_eq!(read.encode(), bytes);
                } else if let Ok(Some((welcome, n))) = Welcome::parse(&bytes) {
                    prop_assert_eq!(&welcome.encode()[..], &bytes[..n]);
                }
            }
        }

        #[test]
        fn a_welcome_and_a_list_are_read_back_and_never_too_early(
            sizes in (1..=CHUNK_BYTES_MAX, 1u16.., any::<u8>(), any::<u16>()),
            n: u64, header in prop::collection::vec(any::<u8>(), 0..20),
            mates in prop::collection::vec((0u64..1 << 48, any::<u64>()), 0..20),
        ) {
            let (chunk_bytes, buffer_chunks, hash, chunks_per_munro) = sizes;
            let said = Welcome {
                chunk_bytes, buffer_chunks, hash, chunks_per_munro, serial: n, pass: Token(n ^ 1), call: Token(n ^ 2),
                secret: [1; 16], next: n ^ 3, epoch: n ^ 4, channel: [2; 32], key: [3; KEY_BYTES], header: &header,
            };
            let mut bytes = said.encode();
            let end = bytes.len();
            prop_assert!((0..end).all(|cut| Welcome::parse(&bytes[..cut]) == Ok(None)));
            let list: Vec<_> = mates.into_iter()
                .map(|(at, serial)| Mate { at: endpoint(at), serial, ticket: Token(serial ^ n) })
                .collect();
            Mate::encode_list(&list, &mut bytes);
            prop_assert_eq!(Welcome::parse(&bytes), Ok(Some((said, end))));
            let rest = &bytes[end..];
            prop_assert!((0..rest.len()).all(|cut| Mate::parse_list(&rest[..cut]) == Ok(None)));
            prop_assert_eq!(Mate::parse_list(rest), Ok(Some((list, rest.len()))));
        }
    }
}
