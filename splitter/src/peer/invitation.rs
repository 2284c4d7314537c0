//! A welcome of any open generation, read into what a peer needs of it.

use std::net::SocketAddrV4;

use super::config::PeerConfig;
use crate::dialect::Dialect;
use crate::wire::nts::{ID_BYTES, Id};
use crate::wire::{WireError, b, c};

/// Where the beginning of the stream is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    Nowhere,
    Here(Vec<u8>),
    At {
        source: SocketAddrV4,
        channel: Vec<u8>,
        bytes: u16,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invitation {
    pub(super) chunk_bytes: u16,
    pub(super) buffer_chunks: u16,
    /// Where the splitter sees us, where it says so.
    pub(super) me: Option<SocketAddrV4>,
    pub(super) peers: Vec<SocketAddrV4>,
    pub(super) header: Header,
    pub(super) group: Option<SocketAddrV4>,
    /// How we are called, where that matters.
    pub(super) id: Option<Id>,
}

impl Invitation {
    /// From the start of bytes that are still coming; `Ok(None)`: not complete yet.
    pub(super) fn read(config: &PeerConfig, bytes: &[u8]) -> Result<Option<Self>, WireError> {
        match config.dialect {
            Dialect::B if config.multicast => Ok(b::GroupWelcome::parse(bytes)?.map(|(welcome, _)| Self {
                group: Some(welcome.group),
                ..Self::of_b(&welcome.team, Header::at(&welcome.team))
            })),
            Dialect::B if config.nts => Self::read_nts(bytes),
            Dialect::B => Self::read_b(config, bytes),
            Dialect::C => Ok(c::Welcome::parse(bytes)?.map(|(welcome, _)| Self::of_c(welcome))),
        }
    }

    fn read_b(config: &PeerConfig, bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let Some((welcome, n)) = b::Welcome::parse(bytes)? else {
            return Ok(None);
        };
        if !config.header_in_join {
            return Ok(Some(Self::of_b(&welcome, Header::at(&welcome))));
        }
        let header = bytes.get(n..n + usize::from(welcome.header_bytes));
        Ok(header.map(|header| Self::of_b(&welcome, Header::Here(header.to_vec()))))
    }

    fn read_nts(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let Some((welcome, n)) = b::Welcome::parse(bytes)? else {
            return Ok(None);
        };
        let Some(id) = bytes[n..].first_chunk::<ID_BYTES>() else {
            return Ok(None);
        };
        Ok(Some(Self {
            id: Some(Id::parse(id)?),
            ..Self::of_b(&welcome, Header::at(&welcome))
        }))
    }

    fn of_b(welcome: &b::Welcome<'_>, header: Header) -> Self {
        Self {
            chunk_bytes: welcome.chunk_bytes,
            buffer_chunks: welcome.buffer_chunks,
            me: None,
            peers: welcome.peers.iter().collect(),
            header,
            group: None,
            id: None,
        }
    }

    fn of_c(welcome: c::Welcome<'_>) -> Self {
        let header = match welcome.header {
            [] => Header::Nowhere,
            header => Header::Here(header.to_vec()),
        };
        Self {
            chunk_bytes: welcome.chunk_bytes,
            buffer_chunks: welcome.buffer_chunks,
            me: Some(welcome.you),
            peers: welcome.peers,
            header,
            group: None,
            id: None,
        }
    }
}

impl Header {
    fn at(welcome: &b::Welcome<'_>) -> Self {
        match welcome.header_bytes {
            0 => Self::Nowhere,
            bytes => Self::At {
                source: welcome.source,
                channel: welcome.channel.to_vec(),
                bytes,
            },
        }
    }
}
