//! NTS (NAT traversal) over generation B: who is meant by which endpoint, told apart by an identifier.
//!
//! A peer's endpoint may look different from each side. So each peer gets an identifier of seven characters, and says
//! it to whom it wants to meet; the splitter learns from the others how that looked, and tells where to try.
//!
//! | datagram | bytes | from → to | layout |
//! |---|---|---|---|
//! | hello | 7 | → splitter, monitor, peer | identifier; the receiver echoes it |
//! | seen | 9 | monitor, peer → splitter | identifier, `u16` source port of its hello; echoed |
//! | in | 8 | peer → splitter | identifier, `Y`: it has met everybody; echoed |
//! | again | 8 | peer → splitter | identifier, `N`: it has not, and tries from a new socket |
//! | newcomer | 13 | splitter → monitor | identifier, IPv4, `u16` port |
//! | meet | 17 | splitter → peer | identifier, IPv4, `u16` lowest port, `u16` step, `u16` its number in the team |
//!
//! Over TCP the welcome lists the monitors only; 7 bytes with the newcomer's identifier follow, and, when it has said
//! `R` and is known, `u16` the number of other peers with 15 bytes for each: identifier, IPv4, `u16` last source
//! port, `u16` step.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::{ENDPOINT_BYTES, WireError, push_endpoint, push_u16, read_endpoint};

/// Bytes of an identifier.
pub const ID_BYTES: usize = 7;
/// Bytes of one peer in the list.
pub const ENTRY_BYTES: usize = ID_BYTES + ENDPOINT_BYTES + 2;
/// Chunks must be longer than every other datagram: lengths tell them apart.
pub const CHUNK_BYTES_MIN: u16 = 18;

/// A peer's name: seven of `0`–`9` and `A`–`Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; ID_BYTES]);

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Id {
    /// The identifier that is this number, of the first 36^7.
    pub fn numbered(mut n: u64) -> Self {
        let mut id = [0; ID_BYTES];
        for place in &mut id {
            *place = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(n % 36) as usize];
            n /= 36;
        }
        Self(id)
    }

    /// Read it.
    ///
    /// # Errors
    ///
    /// Other characters.
    pub fn parse(bytes: &[u8; ID_BYTES]) -> Result<Self, WireError> {
        let fits = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
        match bytes.iter().all(fits) {
            true => Ok(Self(*bytes)),
            false => Err(WireError::new("0-9 and A-Z", format_args!("{bytes:02x?}"))),
        }
    }

    /// As on the wire.
    pub fn bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }
}

/// A datagram of this set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// I am this; or: I heard that you are.
    Hello(Id),
    /// Its hello came from this port.
    Seen(Id, u16),
    /// It has met everybody.
    In(Id),
    /// It has not.
    Again(Id),
    /// It comes, from there.
    Newcomer(Id, SocketAddrV4),
    /// Say hello to it: at this port, or some steps behind it.
    Meet(Peer, u16),
}

/// Where a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub id: Id,
    /// Its address, and the port that was seen last (or lowest).
    pub at: SocketAddrV4,
    /// How much higher its NAT's next port is; 0 where it is always the same one.
    pub step: u16,
}

impl Word {
    /// Read a whole datagram; `None` where its length is not one of these.
    pub fn parse(datagram: &[u8]) -> Option<Result<Self, WireError>> {
        let (id, rest) = datagram.split_first_chunk::<ID_BYTES>()?;
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let endpoint = |rest: &[u8]| rest.first_chunk().map(read_endpoint);
        let id = Id::parse(id);
        let word = match rest.len() {
            0 => id.map(Self::Hello),
            1 => id.and_then(|id| match rest[0] {
                b'Y' => Ok(Self::In(id)),
                b'N' => Ok(Self::Again(id)),
                other => Err(WireError::new("`Y` or `N`", format_args!("byte {other:#04x}"))),
            }),
            2 => id.map(|id| Self::Seen(id, port(0))),
            6 => {
                let at = endpoint(rest)?;
                id.map(|id| Self::Newcomer(id, at))
            }
            10 => {
                let (at, step) = (endpoint(rest)?, port(6));
                id.map(|id| Self::Meet(Peer { id, at, step }, port(8)))
            }
            _ => return None,
        };
        Some(word)
    }

    /// The datagram's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(17);
        match self {
            Self::Hello(id) => out.extend_from_slice(id.bytes()),
            Self::Seen(id, port) => {
                out.extend_from_slice(id.bytes());
                push_u16(*port, &mut out);
            }
            Self::In(id) | Self::Again(id) => {
                out.extend_from_slice(id.bytes());
                out.push(if matches!(self, Self::In(_)) { b'Y' } else { b'N' });
            }
            Self::Newcomer(id, at) => {
                out.extend_from_slice(id.bytes());
                push_endpoint(*at, &mut out);
            }
            Self::Meet(peer, number) => {
                peer.encode(&mut out);
                push_u16(*number, &mut out);
            }
        }
        out
    }
}

impl Peer {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.bytes());
        push_endpoint(self.at, out);
        push_u16(self.step, out);
    }

    /// Append `u16` the number of peers, and each, to `out`.
    pub fn encode_list(peers: &[Self], out: &mut Vec<u8>) {
        let peers = &peers[..peers.len().min(usize::from(u16::MAX))];
        push_u16(peers.len() as u16, out);
        peers.iter().for_each(|peer| peer.encode(out));
    }

    /// Read a list from the start of bytes that are still coming; `Ok(None)`: not complete yet.
    ///
    /// # Errors
    ///
    /// An identifier with other characters.
    pub fn parse_list(bytes: &[u8]) -> Result<Option<Vec<Self>>, WireError> {
        let Some((count, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let count = usize::from(u16::from_be_bytes(*count));
        let Some(list) = rest.get(..count * ENTRY_BYTES) else {
            return Ok(None);
        };
        let peers = list.as_chunks::<ENTRY_BYTES>().0.iter().map(|entry| {
            let [i0, i1, i2, i3, i4, i5, i6, a, b, c, d, p0, p1, s0, s1] = *entry;
            let ip = Ipv4Addr::new(a, b, c, d);
            Ok(Self {
                id: Id::parse(&[i0, i1, i2, i3, i4, i5, i6])?,
                at: SocketAddrV4::new(ip, u16::from_be_bytes([p0, p1])),
                step: u16::from_be_bytes([s0, s1]),
            })
        });
        peers.collect::<Result<_, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn identifiers_are_seven_characters() {
        assert_eq!(Id::numbered(0).bytes(), b"0000000");
        assert_eq!(Id::numbered(36 * 36 + 35).bytes(), b"Z010000");
        assert_eq!(Id::parse(b"AB01Z9X").unwrap().bytes(), b"AB01Z9X");
        assert!(Id::parse(b"ab01z9x").is_err());
        assert!(Word::parse(b"AB01Z9X?").unwrap().is_err());
        assert!(
            [0, 1, 2, 6, 10, 12, 18]
                .iter()
                .all(|&n| Word::parse(&vec![b'A'; n]).is_none())
        );
    }

    proptest! {
        #[test]
        fn every_word_and_list_is_read_back(n: u64, port: u16, step: u16, ip: u32, peers in 0u64..9) {
            let (id, at) = (Id::numbered(n), SocketAddrV4::new(Ipv4Addr::from(ip), port));
            let peer = Peer { id, at, step };
            let words = [
                Word::Hello(id), Word::Seen(id, port), Word::In(id), Word::Again(id), Word::Newcomer(id, at),
                Word::Meet(peer, step),
            ];
            for word in words {
                prop_assert_eq!(Word::parse(&word.encode()), Some(Ok(word)));
            }
            let list: Vec<_> = (0..peers).map(|n| Peer { id: Id::numbered(n), ..peer }).collect();
            let mut bytes = Vec::new();
            Peer::encode_list(&list, &mut bytes);
            prop_assert!((0..bytes.len()).all(|cut| Peer::parse_list(&bytes[..cut]) == Ok(None)));
            prop_assert_eq!(Peer::parse_list(&bytes), Ok(Some(list)));
        }

        #[test]
        fn noise_is_refused_or_read_exactly(noise in prop::collection::vec(any::<u8>(), 0..30)) {
            if let Some(Ok(word)) = Word::parse(&noise) {
                prop_assert_eq!(word.encode(), noise);
            }
        }
    }
}
