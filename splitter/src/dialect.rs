//! What both open generations say, each in its own bytes: the rules speak in these words, a [`Dialect`] spells them.

use std::net::SocketAddrV4;

use crate::frame::Frame;
use crate::wire::{WireError, b, c, chunk_number};

/// A generation of the wire in which nobody is authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The C++ product of 2016 to 2018: congestion avoidance and burst.
    #[default]
    B,
    /// The 2018 peers: flooding by tables, requests and prunes.
    C,
}

/// What a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word<'a> {
    Chunk {
        number: u16,
        data: &'a [u8],
        /// Who was to relay it, where the wire says so.
        origin: Option<SocketAddrV4>,
    },
    Hello,
    /// With chunks played and lost, where the wire has a place for them.
    Goodbye(u64, u64),
    /// The splitter's answer to a goodbye.
    Released,
    Request(u64),
    Prune(u64),
    Lost(u64),
}

impl Dialect {
    /// What a peer hears. `own` when it is the splitter that speaks.
    pub(crate) fn peer_hears(
        self,
        datagram: &[u8],
        chunk_bytes: u16,
        own: bool,
    ) -> Result<Word<'_>, WireError> {
        match self {
            Self::B => b::ToPeer::parse(datagram, chunk_bytes).map(|said| match said {
                b::ToPeer::Chunk(b::Chunk { number, data }) => Word::Chunk {
                    number,
                    data,
                    origin: None,
                },
                b::ToPeer::Hello => Word::Hello,
                b::ToPeer::Goodbye if own => Word::Released,
                b::ToPeer::Goodbye => Word::Goodbye(0, 0),
            }),
            Self::C => c_word(datagram, chunk_bytes),
        }
    }

    /// What a splitter hears.
    pub(crate) fn splitter_hears(self, datagram: &[u8]) -> Result<Word<'_>, WireError> {
        match self {
            Self::B => b::ToSplitter::parse(datagram).map(|said| match said {
                b::ToSplitter::Goodbye => Word::Goodbye(0, 0),
                b::ToSplitter::Lost(number) => Word::Lost(number.into()),
            }),
            // A splitter is told no chunks: one of 0 bytes is none.
            Self::C => match c_word(datagram, 0)? {
                said @ (Word::Hello | Word::Goodbye(..) | Word::Lost(_)) => Ok(said),
                _ => Err(WireError::new(
                    "hello, goodbye or lost chunk",
                    "what is said to peers",
                )),
            },
        }
    }

    /// The datagram for a word; chunks have their [`Dialect::frame`]. `None` where the generation has no such word.
    pub(crate) fn spell(self, word: Word<'_>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::B => match word {
                Word::Hello => out.extend_from_slice(&b::HELLO),
                Word::Goodbye(..) | Word::Released => out.extend_from_slice(&b::GOODBYE),
                Word::Lost(number) => b::ToSplitter::Lost(chunk_number(number)).encode(&mut out),
                Word::Chunk { .. } | Word::Request(_) | Word::Prune(_) => return None,
            },
            Self::C => c_datagram(word)?.encode(&mut out),
        }
        Some(out)
    }

    /// What goes around the data of a chunk that the splitter gave to `origin`.
    pub(crate) fn frame(self, number: u64, origin: SocketAddrV4) -> Frame {
        match self {
            Self::B => Frame::new(&b::Chunk::header(number), &[]),
            Self::C => Frame::new(&c::Chunk::header(number), &c::Chunk::trailer(origin)),
        }
    }

    /// The largest chunk that fits a datagram.
    pub(crate) fn chunk_bytes_max(self) -> u16 {
        match self {
            Self::B => b::CHUNK_BYTES_MAX,
            Self::C => c::CHUNK_BYTES_MAX,
        }
    }
}

fn c_word(datagram: &[u8], chunk_bytes: u16) -> Result<Word<'_>, WireError> {
    let count = |n: i32| u64::try_from(n).unwrap_or(0);
    c::Datagram::parse(datagram, chunk_bytes).map(|said| match said {
        c::Datagram::Chunk(chunk) => Word::Chunk {
            number: chunk.number,
            data: chunk.data,
            origin: Some(chunk.origin),
        },
        c::Datagram::Hello => Word::Hello,
        c::Datagram::Goodbye(played, lost) => Word::Goodbye(count(played), count(lost)),
        c::Datagram::Released => Word::Released,
        c::Datagram::Request(number) => Word::Request(number.into()),
        c::Datagram::Prune(number) => Word::Prune(number.into()),
        c::Datagram::Lost(number) => Word::Lost(number.into()),
    })
}

fn c_datagram(word: Word<'_>) -> Option<c::Datagram<'_>> {
    let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
    Some(match word {
        Word::Hello => c::Datagram::Hello,
        Word::Goodbye(played, lost) => c::Datagram::Goodbye(count(played), count(lost)),
        Word::Released => c::Datagram::Released,
        Word::Request(number) => c::Datagram::Request(chunk_number(number)),
        Word::Prune(number) => c::Datagram::Prune(chunk_number(number)),
        Word::Lost(number) => c::Datagram::Lost(chunk_number(number)),
        Word::Chunk { .. } => return None,
    })
}
