//! What an operator may set for a team, with the defaults and why they are what they are.

use std::net::Ipv4Addr;
use std::time::Duration;

use thiserror::Error;

use crate::wire::b::CHUNK_BYTES_MAX;

/// Settings of one team. [`Config::check`] says whether they go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
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
    /// Newcomers that may be on their way in at a time. 32.
    pub max_arrivals: u16,
    /// A peer is expelled when its counted losses are over this. 32. They are halved each second.
    pub loss_limit: u32,
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
            chunk_bytes: 1024,
            buffer_chunks: 256,
            header_bytes: 8192,
            send_header: false,
            monitors: 1,
            monitor_hosts: vec![Ipv4Addr::LOCALHOST],
            max_peers: 128,
            max_arrivals: 32,
            loss_limit: 32,
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
    #[error("expected a chunk of 1 to 65505 bytes, got {0}")]
    ChunkSize(u16),
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
    /// Whether a team can be led with these settings.
    ///
    /// # Errors
    ///
    /// The first setting that is impossible.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(1..=CHUNK_BYTES_MAX).contains(&self.chunk_bytes) {
            return Err(ConfigError::ChunkSize(self.chunk_bytes));
        }
        let limits = [
            (self.buffer_chunks, "chunk of buffer"),
            (self.max_peers, "peer"),
            (self.max_arrivals, "arrival"),
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
        assert_eq!(with(65_506, 256, 2, 1), Err(ConfigError::ChunkSize(65_506)));
        assert_eq!(with(0, 256, 2, 1), Err(ConfigError::ChunkSize(0)));
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
