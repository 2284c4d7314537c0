//! Generation C: the wire of the 2018 peers, which flood chunks by tables and ask each other for what they lack.
//!
//! IPv4 only; all integers in network byte order. A datagram begins with an `i32`: not negative, it is a chunk's
//! number; negative, it says what the datagram is. Nothing is authenticated. Layouts as captured from the reference.
//!
//! | datagram | code | bytes | layout |
//! |---|---|---|---|
//! | chunk | ≥ 0 | 12 + chunk size | `i32` number modulo 2^16, data, origin: IPv4, `i32` port |
//! | hello | −1 | 4 | a newcomer to the splitter and to each listed peer |
//! | goodbye | −2 | 12 | with chunks played and lost, `i32` each: a leaver to the splitter and to peers |
//! | | | 4 | the splitter's answer |
//! | request | −3 | 8 | `i32` number: the sender lacks it, and wants all of its origin's from now on |
//! | prune | −4 | 8 | `i32` number: the sender had it already, and wants no more of its origin's |
//! | lost | −5 | 8 | `i32` number: a monitor to the splitter |
//!
//! A chunk's *origin* is the peer that the splitter gave it to. Over TCP the splitter says a [`Welcome`] and hangs
//! up; the newcomer says nothing.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{WireError, check_sizes, count, push_u16};

/// Bytes before the data of a chunk datagram.
pub const CHUNK_HEADER: usize = 4;
/// Bytes behind the data: the origin.
pub const CHUNK_TRAILER: usize = 8;
/// An IPv4 address and a port of 32 bits.
pub const ENDPOINT_BYTES: usize = 8;
/// The largest chunk that fits a UDP datagram over IPv4.
pub const CHUNK_BYTES_MAX: u16 = 65_495;

const HELLO: i32 = -1;
const GOODBYE: i32 = -2;
const REQUEST: i32 = -3;
const PRUNE: i32 = -4;
const LOST: i32 = -5;
/// Chunk size, own endpoint, buffer, header length.
const BEFORE_HEADER: usize = 2 + ENDPOINT_BYTES + 2 + 2;

/// A chunk datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Modulo 2^16.
    pub number: u16,
    /// Always the team's chunk size.
    pub data: &'a [u8],
    /// The peer that the splitter gave it to.
    pub origin: SocketAddrV4,
}

impl Chunk<'_> {
    /// The bytes that go before the data.
    pub fn header(number: u64) -> [u8; CHUNK_HEADER] {
        i32::from(super::chunk_number(number)).to_be_bytes()
    }

    /// The bytes that go behind the data.
    pub fn trailer(origin: SocketAddrV4) -> [u8; CHUNK_TRAILER] {
        let [a, b, c, d] = origin.ip().octets();
        let [high, low] = origin.port().to_be_bytes();
        [a, b, c, d, 0, 0, high, low]
    }
}

/// Any datagram of this generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// From the splitter, or relayed.
    Chunk(Chunk<'a>),
    /// The sender is new in the team.
    Hello,
    /// The sender leaves: chunks that it played, and lost, as it says.
    Goodbye(i32, i32),
    /// The splitter lets the leaver go, or ends.
    Released,
    /// The sender lacks this chunk.
    Request(u16),
    /// The sender had this chunk already.
    Prune(u16),
    /// The sender did not get this chunk in time.
    Lost(u16),
}

impl<'a> Datagram<'a> {
    /// Read a whole datagram in a team whose chunks have `chunk_bytes` bytes.
    ///
    /// # Errors
    ///
    /// Any other datagram, by its length or its code, and chunk numbers from 2^16 on.
    pub fn parse(datagram: &'a [u8], chunk_bytes: u16) -> Result<Self, WireError> {
        let Some((code, rest)) = datagram.split_first_chunk() else {
            let got = format_args!("{} bytes", datagram.len());
            return Err(WireError::new("a code of 4 bytes", got));
        };
        match (i32::from_be_bytes(*code), rest.len()) {
            (number @ 0.., n) if n == usize::from(chunk_bytes) + CHUNK_TRAILER => parse_chunk(number, rest),
            (HELLO, 0) => Ok(Self::Hello),
            (GOODBYE, 0) => Ok(Self::Released),
            (GOODBYE, 8) => Ok(Self::Goodbye(be32(rest, 0), be32(rest, 4))),
            (REQUEST, 4) => small(be32(rest, 0)).map(Self::Request),
            (PRUNE, 4) => small(be32(rest, 0)).map(Self::Prune),
            (LOST, 4) => small(be32(rest, 0)).map(Self::Lost),
            (code, n) => Err(WireError::new(
                "a chunk, hello, goodbye, request, prune or lost chunk",
                format_args!("code {code} and {n} bytes"),
            )),
        }
    }

    /// Append the datagram to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |fields: &[i32]| {
            fields
                .iter()
                .for_each(|n| out.extend_from_slice(&n.to_be_bytes()))
        };
        match *self {
            Self::Chunk(chunk) => {
                out.extend_from_slice(&Chunk::header(u64::from(chunk.number)));
                out.extend_from_slice(chunk.data);
                out.extend_from_slice(&Chunk::trailer(chunk.origin));
            }
            Self::Hello => put(&[HELLO]),
            Self::Goodbye(played, lost) => put(&[GOODBYE, played, lost]),
            Self::Released => put(&[GOODBYE]),
            Self::Request(number) => put(&[REQUEST, i32::from(number)]),
            Self::Prune(number) => put(&[PRUNE, i32::from(number)]),
            Self::Lost(number) => put(&[LOST, i32::from(number)]),
        }
    }
}

fn parse_chunk(number: i32, rest: &[u8]) -> Result<Datagram<'_>, WireError> {
    let number = small(number)?;
    let (data, origin) = rest.split_at(rest.len() - CHUNK_TRAILER);
    let origin = read_endpoint(origin)?;
    Ok(Datagram::Chunk(Chunk { number, data, origin }))
}

fn be32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn small(number: i32) -> Result<u16, WireError> {
    u16::try_from(number).map_err(|_| WireError::new("a number from 0 to 65535", number))
}

/// Of 8 bytes.
fn read_endpoint(bytes: &[u8]) -> Result<SocketAddrV4, WireError> {
    let ip = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
    Ok(SocketAddrV4::new(ip, small(be32(bytes, 4))?))
}

/// What the splitter tells a newcomer over TCP, in this order: `u16` chunk size, the newcomer's endpoint (IPv4,
/// `i32` port), `u16` buffer size in chunks, `u16` header size in bytes and the header, `u16` number of monitors,
/// `u16` number of peers and 8 bytes for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// Bytes of data in each chunk.
    pub chunk_bytes: u16,
    /// Where the splitter sees the newcomer: what its chunks will have as their origin.
    pub you: SocketAddrV4,
    /// The size of the peers' buffers, in chunks.
    pub buffer_chunks: u16,
    /// The beginning of the stream.
    pub header: &'a [u8],
    /// How many monitors the team has, as configured.
    pub monitors: u16,
    /// Who is in the team already.
    pub peers: Vec<SocketAddrV4>,
}

impl<'a> Welcome<'a> {
    /// Read a welcome from the start of bytes that are still coming; `Ok(None)`: not complete yet.
    ///
    /// # Errors
    ///
    /// A chunk size that fits no datagram, or 0; a buffer of no chunk; a port that is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<BEFORE_HEADER>() else {
            return Ok(None);
        };
        let be16 = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (chunk_bytes, buffer_chunks) = (be16(fixed, 0), be16(fixed, 2 + ENDPOINT_BYTES));
        check_sizes(chunk_bytes, CHUNK_BYTES_MAX, buffer_chunks)?;
        let you = read_endpoint(&fixed[2..2 + ENDPOINT_BYTES])?;
        let header_bytes = usize::from(be16(fixed, BEFORE_HEADER - 2));
        let (Some(header), Some(counts)) =
            (rest.get(..header_bytes), rest.get(header_bytes..header_bytes + 4))
        else {
            return Ok(None);
        };
        let list = header_bytes + 4;
        let end = list + usize::from(be16(counts, 2)) * ENDPOINT_BYTES;
        let Some(peers) = rest.get(list..end) else {
            return Ok(None);
        };
        let peers = peers.chunks_exact(ENDPOINT_BYTES).map(read_endpoint);
        let welcome = Self {
            chunk_bytes,
            you,
            buffer_chunks,
            header,
            monitors: be16(counts, 0),
            peers: peers.collect::<Result<_, _>>()?,
        };
        Ok(Some((welcome, BEFORE_HEADER + end)))
    }

    /// Append the bytes of the welcome to `out`.
    ///
    /// # Errors
    ///
    /// A header or a list longer than a `u16` can say; `out` is as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let header_bytes = count(self.header.len(), "a header of at most 65535 bytes")?;
        let listed = count(self.peers.len(), "a team of at most 65535 peers")?;
        push_u16(self.chunk_bytes, out);
        out.extend_from_slice(&Chunk::trailer(self.you));
        push_u16(self.buffer_chunks, out);
        push_u16(header_bytes, out);
        out.extend_from_slice(self.header);
        push_u16(self.monitors, out);
        push_u16(listed, out);
        for &peer in &self.peers {
            out.extend_from_slice(&Chunk::trailer(peer));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(n: u64) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from((n >> 16) as u32), n as u16)
    }

    #[test]
    fn codes_and_lengths_tell_datagrams_apart() {
        fn parse(bytes: &[u8]) -> Result<Datagram<'_>, WireError> {
            Datagram::parse(bytes, 16)
        }
        assert_eq!(parse(&[255; 4]), Ok(Datagram::Hello));
        assert_eq!(parse(&[255, 255, 255, 254]), Ok(Datagram::Released));
        assert_eq!(
            parse(&[255, 255, 255, 253, 0, 0, 1, 2]),
            Ok(Datagram::Request(0x102))
        );
        let bad: [&[u8]; 6] = [
            b"",
            b"abc",
            &[255; 5],
            &[255, 255, 255, 253, 0, 1, 0, 0],
            &[0, 1, 0, 0],
            &[255, 255, 255, 250, 0, 0, 0, 0],
        ];
        for bad in bad {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let mut chunk = [0; 28];
        assert!(parse(&chunk).is_ok());
        chunk[1] = 1;
        assert!(parse(&chunk).is_err(), "65536");
        (chunk[1], chunk[24]) = (0, 1);
        assert!(parse(&chunk).is_err(), "a port of 25 bits");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (chunk_bytes, buffer_chunks) in [(0, 256), (65_496, 256), (1024, 0)] {
            let bad = Welcome {
                chunk_bytes,
                you: endpoint(1),
                buffer_chunks,
                header: &[],
                monitors: 0,
                peers: Vec::new(),
            };
            let mut out = Vec::new();
            bad.encode(&mut out).unwrap();
            assert!(Welcome::parse(&out).is_err(), "{chunk_bytes} {buffer_chunks}");
            let long = vec![0; 65_536];
            let bad = Welcome { header: &long, ..bad };
            out.clear();
            assert!(bad.encode(&mut out).is_err() && out.is_empty());
        }
    }

    proptest! {
        #[test]
        fn a_welcome_is_read_back_and_never_too_early(
            you in 0u64..1 << 48,
            header in prop::collection::vec(any::<u8>(), 0..40),
            sizes in (1..=CHUNK_BYTES_MAX, 1u16.., any::<u16>()),
            peers in prop::collection::vec(0u64..1 << 48, 0..20),
        ) {
            let (chunk_bytes, buffer_chunks, monitors) = sizes;
            let said = Welcome {
                chunk_bytes, you: endpoint(you), buffer_chunks, header: &header, monitors,
                peers: peers.into_iter().map(endpoint).collect(),
            };
            let mut bytes = Vec::new();
            said.encode(&mut bytes).unwrap();
            for cut in 0..bytes.len() {
                prop_assert_eq!(Welcome::parse(&bytes[..cut]), Ok(None));
            }
            let end = bytes.len();
            bytes.push(7);
            prop_assert_eq!(Welcome::parse(&bytes), Ok(Some((said, end))));
        }

        #[test]
        fn noise_is_refused_or_read_exactly(
            code in -7i32..3, noise in prop::collection::vec(any::<u8>(), 0..40), size in 1u16..30,
        ) {
            let mut again = Vec::new();
            let coded = [&code.to_be_bytes()[..], &noise].concat();
            for bytes in [&coded, &noise] {
                if let Ok(said) = Datagram::parse(bytes, size) {
                    again.clear();
                    said.encode(&mut again);
                    prop_assert_eq!(&again, bytes);
                }
            }
            again.clear();
            if let Ok(Some((welcome, n))) = Welcome::parse(&noise) {
                welcome.encode(&mut again).unwrap();
                prop_assert_eq!(&again[..], &noise[..n]);
            }
        }
    }
}
