//! What a peer may be told, with the defaults and why they are what they are.

use std::time::Duration;

use super::flood::Subnet;
use crate::dialect::Dialect;

/// Settings of one membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// What the team speaks; the wire does not tell. B.
    pub dialect: Dialect,
    /// Generation B: the splitter multicasts (IMS), and nobody relays. The wire does not tell. No.
    pub multicast: bool,
    /// Generation B: the team traverses NATs (NTS). The wire does not tell. No.
    pub nts: bool,
    /// Generation C: the subnet whose members hear what we relay by multicast (IMS). None.
    pub subnet: Option<Subnet>,
    /// Generation C: leave without a word to the team mates, because the goodbye of one that joined later ends the
    /// reference's peers. They notice that nothing comes. Yes.
    pub spare_reference_peers: bool,
    /// Where chance begins: which team mate is asked. To differ from peer to peer. 0.
    pub seed: u64,
    /// Whether it says that it is a monitor, which reports losses to the splitter. Without: no.
    pub monitor: bool,
    /// Whether it reports losses although it is no monitor: splitters with the rule set LRS send them again, and no
    /// splitter of ours blames anybody for it. Reference splitters would: so only with ours. No.
    pub report_losses: bool,
    /// Whether the beginning of the stream is to be fetched from the source. Yes; who has it from elsewhere says no.
    pub fetch_header: bool,
    /// Whether the header comes with the welcome (`smart_source_client` of the reference; the wire does not tell).
    /// No.
    pub header_in_join: bool,
    /// A chunk number less than 2^15 away from the present ones, where it is known: the cloud's. The wire has numbers
    /// modulo 2^16; without it they begin at what the wire says.
    pub near: Option<u64>,
    /// The most team mates. 512.
    pub mates_max: u16,
    /// The most that the buffer may take, in bytes: the splitter says how large it is. 64 MiB.
    pub buffer_bytes_max: usize,
    /// A team mate that owes so many chunks is not served any more until it sends one. 128, as the reference has it.
    pub debt_max: u32,
    /// The same for one that only said hello, of which nobody knows whether it is really there. 8.
    pub stranger_debt_max: u32,
    /// Chunks relayed a second, at most; what is over is not sent, and counted. No limit.
    pub upload_chunks_max: Option<u32>,
    /// The splitter must have welcomed it in this time. 5 s.
    pub join_timeout: Duration,
    /// A splitter that is silent for so long is gone, or has let us go. 15 s.
    pub silence: Duration,
    /// A goodbye that is not answered in this time needs no answer. 2 s.
    pub farewell_timeout: Duration,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            dialect: Dialect::B,
            multicast: false,
            nts: false,
            subnet: None,
            spare_reference_peers: true,
            seed: 0,
            monitor: false,
            report_losses: false,
            fetch_header: true,
            header_in_join: false,
            near: None,
            mates_max: 512,
            buffer_bytes_max: 64 << 20,
            debt_max: 128,
            stranger_debt_max: 8,
            upload_chunks_max: None,
            join_timeout: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            farewell_timeout: Duration::from_secs(2),
        }
    }
}
