//! What an operator may set for a team, with the defaults and why they are what they are.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use thiserror::Error;

use crate::dialect::Dialect;
use crate::wire::nts::CHUNK_BYTES_MIN;

/// Settings of one team. [`Config::check`] says whether they go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the team speaks; the wire does not tell. B.
    pub dialect: Dialect,
    /// ACS: members whose chunks are lost get fewer to relay. Yes.
    pub acs: bool,
    /// LRS: chunks that are reported lost are sent again. Yes.
    pub lrs: bool,
    /// How much of the stream may be sent again, in percent. 100.
    pub resend_percent: u16,
    /// NTS, generation B: members are met through their NATs. No.
    pub nts: bool,
    /// With NTS: a newcomer that has not met everybody in this time is let go. 60 s.
    pub nts_timeout: Duration,
    /// Where chance begins: newcomers' names. 0.
    pub seed: u64,
    /// IMS, generation B: all chunks go to this multicast group, and nobody relays. None.
    pub group: Option<SocketAddrV4>,
    /// Bytes of data in each chunk, 1 to 65,505. 1024, as the reference has it: with all headers it fits any MTU.
    pub chunk_bytes: u16,
    /// The peers' buffers, in chunks, and how far back a loss may be reported. 256, as the reference has it.
    pub buffer_chunks: u16,
    /// Bytes of the source's answer, its HTTP head included, that a newcomer's player gets before the chunks. 8192.
    pub header_bytes: u16,
    /// Whether the header is sent in the join (`smart_source_client` of the reference, which must be set at the
    /// peers too: the wire does not tell). Otherwise each peer asks the source itself.
    pub send_header: bool,
    /// The number of monitors that newcomers are told. 1.
    pub monitors: u16,
    /// Who says that it is a monitor is believed from these addresses; only monitors' complaints count. This host.
    pub monitor_hosts: Vec<Ipv4Addr>,
    /// The largest team. 128, half a buffer: a chunk reaches the last peer one round (one chunk for each peer)
    /// after the first, and reference peers begin to play with half a buffer.
    pub max_peers: u16,
    /// The most peers with one address, this host's own left out. 32: a household or a hall behind one NAT.
    pub max_per_address: u16,
    /// Newcomers that may be on their way in at a time. 32.
    pub max_arrivals: u16,
    /// A peer is expelled when its counted losses are over this. 32. They are halved each second.
    pub loss_limit: u32,
    /// A peer is expelled when so many of its chunks in a row are lost: then it is gone, or relays nothing. 8.
    pub row_limit: u32,
    /// A peer is expelled after so many reports that its port is closed. 2: one may be from before it came.
    pub closed_limit: u32,
    /// A newcomer that has not said what it is in this time is let go. 5 s.
    pub greeting_timeout: Duration,
    /// A newcomer that is not ready in this time is let go. 15 s: it fetches the header from the source meanwhile.
    pub ready_timeout: Duration,
    /// A leaver is let go after one more round, or after this time when the source is slower. 1 s.
    pub farewell_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dialect: Dialect::B,
            acs: true,
            lrs: true,
            resend_percent: 100,
            nts: false,
            nts_timeout: Duration::from_secs(60),
            seed: 0,
            group: None,
            chunk_bytes: 1024,
            buffer_chunks: 256,
            header_bytes: 8192,
            send_header: false,
            monitors: 1,
            monitor_hosts: vec![Ipv4Addr::LOCALHOST],
            max_peers: 128,
            max_per_address: 32,
            max_arrivals: 32,
            loss_limit: 32,
            row_limit: 8,
            closed_limit: 2,
            greeting_timeout: Duration::from_secs(5),
            ready_timeout: Duration::from_secs(15),
            farewell_timeout: Duration::from_secs(1),
        }
    }
}

/// Settings that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No datagram has this size.
    #[error("expected a chunk of 1 to {max} bytes, got {got}")]
    ChunkSize {
        /// What fits a datagram with what goes around it.
        max: u16,
        /// As configured.
        got: u16,
    },
    /// The digests under one munro must fit a datagram.
    #[error("expected a tree with 2, 4, 8, 16 or 32 chunks under a munro, got {0}")]
    Tree(u32),
    /// Nobody can hear it.
    #[error("expected a multicast group (224.0.0.0/4) and a port, got {0}")]
    Group(SocketAddrV4),
    /// There is no wire for it.
    #[error("expected NTS in generation B, without a group and without the header in the join")]
    Nts,
    /// Lengths tell datagrams apart.
    #[error("expected chunks of at least 18 bytes with NTS, got {0}")]
    NtsChunk(u16),
    /// In generation C it is the peers that multicast.
    #[error("expected no multicast group in generation C, got {0}")]
    GroupInC(SocketAddrV4),
    /// No peer can be in a team of none.
    #[error("expected a limit of at least 1 {0}, got 0")]
    Zero(&'static str),
    /// A round must fit the peers' buffers.
    #[error("expected a team no larger than the buffer ({buffer_chunks} chunks), got {max_peers} peers")]
    Team {
        /// As configured.
        max_peers: u16,
        /// As configured.
        buffer_chunks: u16,
    },
}

impl Config {
    /// The sets of rules in force, by the names that the literature has for them.
    pub fn sets(&self) -> Vec<&'static str> {
        let sets = [
            (self.group.is_none(), "DBS"),
            (self.group.is_some(), "IMS"),
            (self.acs && self.group.is_none(), "ACS"),
            (self.lrs && self.group.is_none(), "LRS"),
            (self.nts, "NTS"),
        ];
        sets.into_iter()
            .filter(|(in_force, _)| *in_force)
            .map(|(_, name)| name)
            .collect()
    }

    /// Whether a team can be led with these settings.
    ///
    /// # Errors
    ///
    /// The first setting that is impossible.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (got, max) = (self.chunk_bytes, self.dialect.chunk_bytes_max());
        if !(1..=max).contains(&got) {
            return Err(ConfigError::ChunkSize { max, got });
        }
        match (self.group, self.dialect) {
            (Some(group), _) if !group.ip().is_multicast() || group.port() == 0 => {
                return Err(ConfigError::Group(group));
            }
            (Some(group), Dialect::C) => return Err(ConfigError::GroupInC(group)),
            _ if self.nts && (self.group.is_some() || self.dialect == Dialect::C || self.send_header) => {
                return Err(ConfigError::Nts);
            }
            _ if self.nts && self.chunk_bytes < CHUNK_BYTES_MIN => {
                return Err(ConfigError::NtsChunk(self.chunk_bytes));
            }
            _ => {}
        }
        let limits = [
            (self.buffer_chunks, "chunk of buffer"),
            (self.max_peers, "peer"),
            (self.max_arrivals, "arrival"),
            (self.max_per_address, "peer with one address"),
            (u16::from(self.row_limit > 0), "loss in a row"),
        ];
        if let Some((_, what)) = limits.into_iter().find(|&(limit, _)| limit == 0) {
            return Err(ConfigError::Zero(what));
        }
        match self.max_peers > self.buffer_chunks {
            true => Err(ConfigError::Team {
                max_peers: self.max_peers,
                buffer_chunks: self.buffer_chunks,
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_their_names() {
        assert_eq!(Config::default().sets(), ["DBS", "ACS", "LRS"]);
        let group = Config {
            group: Some("224.0.0.1:8001".parse().unwrap()),
            ..Config::default()
        };
        assert_eq!(group.sets(), ["IMS"]);
        let nts = Config {
            nts: true,
            acs: false,
            ..Config::default()
        };
        assert_eq!((nts.sets(), nts.check()), (vec!["DBS", "LRS", "NTS"], Ok(())));
        let short = Config {
            chunk_bytes: 17,
            ..nts
        };
        assert_eq!(short.check(), Err(ConfigError::NtsChunk(17)));
    }

    #[test]
    fn each_limit_holds_at_its_edge() {
        let with = |chunk_bytes, buffer_chunks, max_peers, max_arrivals| {
            Config {
                chunk_bytes,
                buffer_chunks,
                max_peers,
                max_arrivals,
                ..Config::default()
            }
            .check()
        };
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(with(1, 1, 1, 1), Ok(()));
        assert_eq!(with(65_505, 65_535, 65_535, 1), Ok(()));
        assert_eq!(
            with(65_506, 256, 2, 1),
            Err(ConfigError::ChunkSize {
                max: 65_505,
                got: 65_506
            })
        );
        assert_eq!(
            with(0, 256, 2, 1),
            Err(ConfigError::ChunkSize { max: 65_505, got: 0 })
        );
        let wire = |dialect, group: Option<&str>| {
            let config = Config {
                dialect,
                group: group.map(|group| group.parse().unwrap()),
                ..Config::default()
            };
            config.check()
        };
        assert_eq!(wire(Dialect::B, Some("224.0.0.1:8001")), Ok(()));
        let bad = "10.0.0.1:8001".parse().unwrap();
        assert_eq!(
            wire(Dialect::B, Some("10.0.0.1:8001")),
            Err(ConfigError::Group(bad))
        );
        assert!(wire(Dialect::B, Some("224.0.0.1:0")).is_err());
        assert!(wire(Dialect::C, Some("224.0.0.1:8001")).is_err());
        assert_eq!(with(1024, 0, 2, 1), Err(ConfigError::Zero("chunk of buffer")));
        assert_eq!(with(1024, 256, 0, 1), Err(ConfigError::Zero("peer")));
        assert_eq!(with(1024, 256, 2, 0), Err(ConfigError::Zero("arrival")));
        assert_eq!(
            with(1024, 256, 257, 1),
            Err(ConfigError::Team {
                max_peers: 257,
                buffer_chunks: 256
            })
        );
    }
}
