//! Generation B: the wire of the C++ splitter and peers (2016 to 2018), for the rule set DBS.
//!
//! IPv4 only; all integers in network byte order. Datagrams are told apart by their **length**: there is no magic,
//! version, checksum or session id, and nothing is authenticated. Layouts as captured from the reference programs.
//!
//! | datagram | bytes | layout |
//! |---|---|---|
//! | chunk | 2 + chunk size | `u16` chunk number modulo 2^16, data |
//! | hello | 1 | `H`, a newcomer to each listed peer |
//! | goodbye | 1 | `G`, a leaver to the splitter and to each peer; the splitter answers with the same |
//! | lost chunk | 2 | `u16` chunk number, to the splitter |
//!
//! Over TCP a newcomer says who it is ([`Greeting`]), is told about the team ([`Welcome`]), and says [`READY`].

use std::net::SocketAddrV4;

pub use super::{ENDPOINT_BYTES, WireError, chunk_number};
use super::{check_sizes, count, push_endpoint, push_u16, read_endpoint};

/// Bytes before the data of a chunk datagram.
pub const CHUNK_HEADER: usize = 2;
/// The largest chunk that fits a UDP datagram over IPv4 (65,507 bytes of payload).
pub const CHUNK_BYTES_MAX: u16 = 65_505;
/// The datagram `H`.
pub const HELLO: [u8; 1] = [b'H'];
/// The datagram `G`.
pub const GOODBYE: [u8; 1] = [b'G'];
/// The last byte of a join: the newcomer is ready for chunks.
pub const READY: u8 = b'R';

/// Source endpoint, length of the channel.
const BEFORE_CHANNEL: usize = ENDPOINT_BYTES + 2;
/// Header size, chunk size, buffer size.
const FRONT: usize = 3 * 2;

/// A chunk datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Modulo 2^16.
    pub number: u16,
    /// Always the team's chunk size.
    pub data: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The view of a datagram of exactly one chunk of `chunk_bytes` bytes; `None` for any other length.
    pub fn parse(datagram: &'a [u8], chunk_bytes: u16) -> Option<Self> {
        let (number, data) = datagram.split_first_chunk::<CHUNK_HEADER>()?;
        (data.len() == usize::from(chunk_bytes)).then(|| Self {
            number: u16::from_be_bytes(*number),
            data,
        })
    }

    /// The bytes that go before the data.
    pub fn header(number: u64) -> [u8; CHUNK_HEADER] {
        chunk_number(number).to_be_bytes()
    }

    /// Append the datagram to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(self.data);
    }
}

/// What a peer says to its splitter in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToSplitter {
    /// `G`: it wants to leave.
    Goodbye,
    /// It did not get this chunk in time.
    Lost(u16),
}

impl ToSplitter {
    /// Read a whole datagram.
    ///
    /// Stricter than the reference splitter, which takes *any* datagram of at least two bytes for a complaint and
    /// any shorter one for a goodbye, so that a stray `H` removed its sender.
    ///
    /// # Errors
    ///
    /// Any other datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, WireError> {
        match *datagram {
            [b'G'] => Ok(ToSplitter::Goodbye),
            [high, low] => Ok(ToSplitter::Lost(u16::from_be_bytes([high, low]))),
            [other] => Err(WireError::new(
                "`G` or two bytes",
                format_args!("byte {other:#04x}"),
            )),
            _ => Err(WireError::new(
                "`G` or two bytes",
                format_args!("{} bytes", datagram.len()),
            )),
        }
    }

    /// Append the datagram to `out`.
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            ToSplitter::Goodbye => out.extend_from_slice(&GOODBYE),
            ToSplitter::Lost(number) => out.extend_from_slice(&number.to_be_bytes()),
        }
    }
}

/// What anybody says to a peer in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToPeer<'a> {
    /// A chunk, from the splitter or relayed.
    Chunk(Chunk<'a>),
    /// `H`: the sender is new in the team.
    Hello,
    /// `G`: the sender leaves; from the splitter: you may go.
    Goodbye,
}

impl<'a> ToPeer<'a> {
    /// Read a whole datagram in a team whose chunks have `chunk_bytes` bytes.
    ///
    /// # Errors
    ///
    /// Any other datagram.
    pub fn parse(datagram: &'a [u8], chunk_bytes: u16) -> Result<Self, WireError> {
        if let Some(chunk) = Chunk::parse(datagram, chunk_bytes) {
            return Ok(ToPeer::Chunk(chunk));
        }
        match *datagram {
            [b'H'] => Ok(ToPeer::Hello),
            [b'G'] => Ok(ToPeer::Goodbye),
            _ => Err(WireError::new(
                "a chunk, `H` or `G`",
                format_args!("{} bytes", datagram.len()),
            )),
        }
    }

    /// Append the datagram to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ToPeer::Chunk(chunk) => chunk.encode(out),
            ToPeer::Hello => out.extend_from_slice(&HELLO),
            ToPeer::Goodbye => out.extend_from_slice(&GOODBYE),
        }
    }
}

/// The first byte of a join: what the newcomer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// `P`: an ordinary peer.
    Peer,
    /// `M`: a monitor, which reports losses.
    Monitor,
}

impl Greeting {
    /// Read the byte.
    ///
    /// # Errors
    ///
    /// Any other byte.
    pub fn parse(byte: u8) -> Result<Self, WireError> {
        match byte {
            b'P' => Ok(Greeting::Peer),
            b'M' => Ok(Greeting::Monitor),
            other => Err(WireError::new("`P` or `M`", format_args!("byte {other:#04x}"))),
        }
    }

    /// As it is on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Greeting::Peer => b'P',
            Greeting::Monitor => b'M',
        }
    }
}

/// A list of endpoints, viewed in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints<'a> {
    bytes: &'a [u8],
}

impl<'a> Endpoints<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len() / ENDPOINT_BYTES
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// In the order in which they joined.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddrV4> + use<'a> {
        self.bytes.as_chunks().0.iter().map(read_endpoint)
    }
}

/// What the splitter tells a newcomer over TCP, in this order: the source's endpoint, `u16` length of the channel and
/// the channel, `u16` header size in bytes, `u16` chunk size, `u16` buffer size in chunks, `u16` number of
/// monitors, `u16` number of peers and 6 bytes for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The HTTP server from which the newcomer takes the header itself; IPv4 and port.
    pub source: SocketAddrV4,
    /// What it asks that server for, without the leading slash. Hostile bytes when received.
    pub channel: &'a [u8],
    /// How many bytes of the source's answer, its HTTP head included, go to the player before the chunks.
    pub header_bytes: u16,
    /// Bytes of data in each chunk.
    pub chunk_bytes: u16,
    /// The size of the peers' buffers, in chunks.
    pub buffer_chunks: u16,
    /// How many monitors the team has, as configured.
    pub monitors: u16,
    /// Who is in the team already.
    pub peers: Endpoints<'a>,
}

impl<'a> Welcome<'a> {
    /// Read a welcome from the start of bytes that are still coming. `Ok(None)`: not complete yet;
    /// `Ok(Some((welcome, n)))`: it took the first `n` bytes. In teams with `smart_source_client` the header
    /// itself, [`Welcome::header_bytes`] long, follows.
    ///
    /// # Errors
    ///
    /// A chunk size that fits no datagram, or 0; a buffer of no chunk.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some(front) = Self::parse_front(bytes)? else {
            return Ok(None);
        };
        let counts = BEFORE_CHANNEL + front.channel.len() + FRONT;
        let Some(&[m0, m1, n0, n1]) = bytes.get(counts..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        let list = counts + 4;
        let end = list + usize::from(u16::from_be_bytes([n0, n1])) * ENDPOINT_BYTES;
        let Some(peers) = bytes.get(list..end) else {
            return Ok(None);
        };
        let welcome = Self {
            monitors: u16::from_be_bytes([m0, m1]),
            peers: Endpoints { bytes: peers },
            ..front
        };
        Ok(Some((welcome, end)))
    }

    /// The first five fields.
    fn parse_front(bytes: &'a [u8]) -> Result<Option<Self>, WireError> {
        let Some((front, rest)) = bytes.split_first_chunk::<BEFORE_CHANNEL>() else {
            return Ok(None);
        };
        let [source @ .., high, low] = front;
        let channel_bytes = usize::from(u16::from_be_bytes([*high, *low]));
        let sizes = rest.get(channel_bytes..).and_then(<[u8]>::first_chunk::<FRONT>);
        let Some(sizes) = sizes else { return Ok(None) };
        let field = |n: usize| u16::from_be_bytes([sizes[2 * n], sizes[2 * n + 1]]);
        check_sizes(field(1), CHUNK_BYTES_MAX, field(2))?;
        Ok(Some(Self {
            source: read_endpoint(source),
            channel: &rest[..channel_bytes],
            header_bytes: field(0),
            chunk_bytes: field(1),
            buffer_chunks: field(2),
            monitors: 0,
            peers: Endpoints::default(),
        }))
    }

    /// Append the bytes of a welcome whose list is `peers` (instead of [`Welcome::peers`]) to `out`.
    ///
    /// # Errors
    ///
    /// A channel or a list longer than a `u16` can say; `out` is as it was.
    pub fn encode(
        &self,
        peers: impl ExactSizeIterator<Item = SocketAddrV4>,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let listed = count(peers.len(), "a team of at most 65535 peers")?;
        self.encode_front(out)?;
        push_u16(self.monitors, out);
        push_u16(listed, out);
        peers.for_each(|peer| push_endpoint(peer, out));
        Ok(())
    }

    fn encode_front(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let channel_bytes = count(self.channel.len(), "a channel of at most 65535 bytes")?;
        push_endpoint(self.source, out);
        push_u16(channel_bytes, out);
        out.extend_from_slice(self.channel);
        for size in [self.header_bytes, self.chunk_bytes, self.buffer_chunks] {
            push_u16(size, out);
        }
        Ok(())
    }
}

/// What the splitter tells a newcomer over TCP where it multicasts (IMS): the first five fields of [`Welcome`], and
/// the group. The newcomer does not greet; it says [`READY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupWelcome<'a> {
    /// As in [`Welcome`]; no monitors and no peers.
    pub team: Welcome<'a>,
    /// Where chunks come: the multicast group and its port.
    pub group: SocketAddrV4,
}

impl<'a> GroupWelcome<'a> {
    /// Read a welcome from the start of bytes that are still coming; `Ok(None)`: not complete yet.
    ///
    /// # Errors
    ///
    /// As [`Welcome::parse`]; a group that is no multicast group.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((length, _)) = bytes
            .get(ENDPOINT_BYTES..)
            .and_then(<[u8]>::split_first_chunk::<2>)
        else {
            return Ok(None);
        };
        let group_at = BEFORE_CHANNEL + usize::from(u16::from_be_bytes(*length)) + 3 * 2;
        let Some(group) = bytes.get(group_at..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        let group = read_endpoint(group);
        if !group.ip().is_multicast() {
            return Err(WireError::new("a multicast group", group));
        }
        let team = Welcome::parse_front(&bytes[..group_at])?;
        Ok(team.map(|team| (Self { team, group }, group_at + ENDPOINT_BYTES)))
    }

    /// Append the bytes of the welcome to `out`.
    ///
    /// # Errors
    ///
    /// A channel longer than a `u16` can say; `out` is as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.team.encode_front(out)?;
        push_endpoint(self.group, out);
        Ok(())
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

    fn welcome(channel: &[u8]) -> Welcome<'_> {
        Welcome {
            source: endpoint(0x7f00_0001_1f40),
            channel,
            header_bytes: 8192,
            chunk_bytes: 1024,
            buffer_chunks: 256,
            monitors: 1,
            peers: Endpoints { bytes: &[] },
        }
    }

    #[test]
    fn lengths_tell_datagrams_apart() {
        assert_eq!(ToSplitter::parse(b"G"), Ok(ToSplitter::Goodbye));
        assert_eq!(ToSplitter::parse(&[1, 2]), Ok(ToSplitter::Lost(0x102)));
        for stray in [&b""[..], b"H", b"g", b"abc", &[0; 1026]] {
            assert!(ToSplitter::parse(stray).is_err(), "{stray:?}");
        }
        assert_eq!(ToPeer::parse(b"H", 1024), Ok(ToPeer::Hello));
        assert_eq!(ToPeer::parse(b"G", 1024), Ok(ToPeer::Goodbye));
        for stray in [&b""[..], b"x", b"GG", &[0; 1025], &[0; 1027]] {
            assert!(ToPeer::parse(stray, 1024).is_err(), "{} bytes", stray.len());
        }
        assert_eq!(
            ToSplitter::parse(b"H").unwrap_err().to_string(),
            "expected `G` or two bytes, got byte 0x48"
        );
    }

    #[test]
    fn numbers_wrap_on_the_wire_only() {
        assert_eq!(
            (chunk_number(65_535), chunk_number(65_536), chunk_number(u64::MAX)),
            (65_535, 0, 65_535)
        );
        assert_eq!(Chunk::header(65_536 + 258), [1, 2]);
    }

    #[test]
    fn greetings_are_p_and_m() {
        for greeting in [Greeting::Peer, Greeting::Monitor] {
            assert_eq!(Greeting::parse(greeting.byte()), Ok(greeting));
        }
        assert!(Greeting::parse(b'R').is_err());
    }

    #[test]
    fn a_channel_too_long_to_say_is_refused_before_a_byte_is_written() {
        let long = vec![b'x'; 65_536];
        let mut out = Vec::new();
        assert!(welcome(&long).encode([].into_iter(), &mut out).is_err());
        assert!(
            welcome(b"x")
                .encode((0..65_536).map(|n: i32| endpoint(n as u64)), &mut out)
                .is_err()
        );
        assert!(out.is_empty());
        assert!(welcome(&long[1..]).encode([].into_iter(), &mut out).is_ok());
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (chunk, buffer) in [(0, 256), (65_506, 256), (1024, 0)] {
            let mut out = Vec::new();
            let bad = Welcome {
                chunk_bytes: chunk,
                buffer_chunks: buffer,
                ..welcome(b"x")
            };
            bad.encode([].into_iter(), &mut out).unwrap();
            assert!(Welcome::parse(&out).is_err(), "{chunk} {buffer}");
        }
    }

    proptest! {
        #[test]
        fn a_welcome_is_read_back_and_never_too_early(
            source in 0u64..1 << 48,
            channel in prop::collection::vec(any::<u8>(), 0..40),
            sizes in (any::<u16>(), 1..=CHUNK_BYTES_MAX, 1u16.., any::<u16>()),
            peers in prop::collection::vec(0u64..1 << 48, 0..20),
            after in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let (header_bytes, chunk_bytes, buffer_chunks, monitors) = sizes;
            let said = Welcome {
                source: endpoint(source), header_bytes, chunk_bytes, buffer_chunks, monitors, ..welcome(&channel)
            };
            let mut bytes = Vec::new();
            said.encode(peers.iter().map(|&n| endpoint(n)), &mut bytes).unwrap();
            for cut in 0..bytes.len() {
                prop_assert_eq!(Welcome::parse(&bytes[..cut]), Ok(None));
            }
            let end = bytes.len();
            bytes.extend_from_slice(&after);
            let (read, n) = Welcome::parse(&bytes).unwrap().unwrap();
            prop_assert_eq!(n, end);
            prop_assert_eq!(read.peers.len(), peers.len());
            prop_assert_eq!(read.peers.is_empty(), peers.is_empty());
            prop_assert!(read.peers.iter().eq(peers.iter().map(|&n| endpoint(n))));
            prop_assert_eq!(Welcome { peers: said.peers, ..read }, said);
        }

        #[test]
        fn datagrams_are_read_back(number: u64, data in prop::collection::vec(any::<u8>(), 1..50)) {
            let chunk = Chunk { number: chunk_number(number), data: &data };
            let mut bytes = Vec::new();
            chunk.encode(&mut bytes);
            prop_assert_eq!(&bytes[..2], &Chunk::header(number));
            prop_assert_eq!(ToPeer::parse(&bytes, data.len() as u16), Ok(ToPeer::Chunk(chunk)));
            let mut lost = Vec::new();
            ToSplitter::Lost(chunk.number).encode(&mut lost);
            prop_assert_eq!(ToSplitter::parse(&lost), Ok(ToSplitter::Lost(chunk.number)));
        }

        #[test]
        fn noise_is_refused_or_read_exactly(noise in prop::collection::vec(any::<u8>(), 0..80), size in 1u16..80) {
            let mut again = Vec::new();
            if let Ok(said) = ToPeer::parse(&noise, size) {
                said.encode(&mut again);
                prop_assert_eq!(&again, &noise);
            }
            again.clear();
            if let Ok(said) = ToSplitter::parse(&noise) {
                said.encode(&mut again);
                prop_assert_eq!(&again, &noise);
            }
            again.clear();
            if let Ok(Some((welcome, n))) = Welcome::parse(&noise) {
                welcome.encode(welcome.peers.iter().collect::<Vec<_>>().into_iter(), &mut again).unwrap();
                prop_assert_eq!(&again[..], &noise[..n]);
            }
        }
    }
}
