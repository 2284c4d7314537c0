//! The command line, and the plan that it makes.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};

use clap::{Parser, ValueEnum};
use relay_wire::http::HttpUrl;
use splitter::rules::Source;
use splitter::{Config, Dialect};

/// Leads a P2PSP team: pulls a live stream by HTTP and gives each chunk to one peer, which relays it to the others.
///
/// It speaks generations B and C of the P2PSP wire with the sets of rules DBS, ACS, LRS, NTS and IMS. These wires
/// are OPEN BY DESIGN: nobody is authenticated, nothing is encrypted, and whoever can send a datagram can forge one.
/// So it listens on loopback and private addresses only, unless --i-know-this-wire-is-open is given.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The live stream: http://HOST:PORT/MOUNT
    #[arg(long, value_name = "URL")]
    source: String,
    /// Where peers join (TCP) and chunks come from (UDP, same port); IPv4
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8001")]
    pub(crate) listen: SocketAddrV4,
    /// The generation of the wire: b (the C++ peers of 2016 to 2018) or c (those of 2018, which flood)
    #[arg(long, value_enum, default_value_t = Wire::B)]
    pub(crate) wire: Wire,
    /// Multicast all chunks to this group (IMS, wire b), so that nobody relays
    #[arg(long, value_name = "GROUP:PORT")]
    group: Option<SocketAddrV4>,
    /// Meet peers behind NATs (NTS, wire b; the peers must be built with it)
    #[arg(long)]
    nts: bool,
    /// Never send a lost chunk again (no LRS)
    #[arg(long)]
    no_lrs: bool,
    /// Give members that lose chunks as many as the others (no ACS)
    #[arg(long)]
    no_acs: bool,
    /// Believe peers at this address that they are monitors; repeatable [default: this host's]
    #[arg(long, value_name = "ADDR")]
    monitor_host: Vec<Ipv4Addr>,
    /// Bytes of stream in each chunk
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    chunk_size: u16,
    /// The peers' buffers, in chunks
    #[arg(long, value_name = "N", default_value_t = 256)]
    buffer_chunks: u16,
    /// How much of the source's answer a new peer plays before the first chunk, in chunks
    #[arg(long, value_name = "N", default_value_t = 8)]
    header_chunks: u16,
    /// Send the header to new peers in place of letting them ask the source (peers: --smart_source_client)
    #[arg(long)]
    send_header: bool,
    /// Where new peers are told to ask for the header, if not where this splitter found the source
    #[arg(long, value_name = "ADDR:PORT")]
    source_for_peers: Option<SocketAddrV4>,
    /// The largest team [default: 128, or the buffer if that is smaller]
    #[arg(long, value_name = "N")]
    max_peers: Option<u16>,
    /// The number of monitors that new peers are told
    #[arg(long, value_name = "N", default_value_t = 1)]
    monitors: u16,
    /// Each second one line of JSON on standard output, in place of the status line
    #[arg(long)]
    pub(crate) json: bool,
    /// End after so many seconds
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// Listen on a public address although anybody there can forge and take anything
    #[arg(long)]
    i_know_this_wire_is_open: bool,
}

/// What the team speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    B,
    C,
}

impl Wire {
    fn dialect(self) -> Dialect {
        match self {
            Self::B => Dialect::B,
            Self::C => Dialect::C,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  splitter --source http://127.0.0.1:8000/eclipse.ts
  splitter --source http://icecast.lan:8000/test.ogg --listen 192.168.1.10:8001

Exit codes: 0 ended as told, 1 could not run, 2 wrong usage";

/// What to do, checked.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) url: HttpUrl,
    pub(crate) config: Config,
    /// What peers are told, until the source has been found elsewhere.
    pub(crate) source: Source,
    /// Peers are told the same wherever the source is found.
    pub(crate) fixed: bool,
}

impl Args {
    /// # Errors
    ///
    /// A sentence for the user.
    pub(crate) fn plan(&self) -> Result<Plan, String> {
        self.check_listen()?;
        let url = HttpUrl::parse(&self.source).map_err(|error| format!("--source: {error}"))?;
        let config = self.config()?;
        let endpoint = match self.source_for_peers {
            Some(endpoint) => endpoint,
            None => resolve(&url).map_err(|why| format!("--source: {why}"))?[0],
        };
        let source = announced(&url, endpoint).map_err(|why| format!("--source: {why}"))?;
        Ok(Plan {
            url,
            config,
            source,
            fixed: self.source_for_peers.is_some(),
        })
    }

    fn config(&self) -> Result<Config, String> {
        let header_bytes = u32::from(self.header_chunks) * u32::from(self.chunk_size);
        let header_bytes = u16::try_from(header_bytes)
            .map_err(|_| format!("--header-chunks: expected at most 65535 bytes, got {header_bytes}"))?;
        let defaults = Config::default();
        let config = Config {
            dialect: self.wire.dialect(),
            group: self.group,
            nts: self.nts,
            // Names should differ from run to run, and nothing more.
            seed: u64::from(std::process::id()),
            acs: !self.no_acs,
            lrs: !self.no_lrs,
            monitor_hosts: match self.monitor_host.as_slice() {
                [] => defaults.monitor_hosts,
                hosts => hosts.to_vec(),
            },
            chunk_bytes: self.chunk_size,
            buffer_chunks: self.buffer_chunks,
            header_bytes,
            // Generation C has no other way.
            send_header: self.send_header || self.wire == Wire::C,
            monitors: self.monitors,
            max_peers: self
                .max_peers
                .unwrap_or(defaults.max_peers.min(self.buffer_chunks)),
            ..defaults
        };
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    fn check_listen(&self) -> Result<(), String> {
        if self.i_know_this_wire_is_open || is_near(*self.listen.ip()) {
            return Ok(());
        }
        Err(format!(
            "--listen: expected a loopback or private address, got {}: this wire authenticates nobody; \
             give --i-know-this-wire-is-open to listen there all the same",
            self.listen
        ))
    }

    /// What a user may want to know before peers come.
    pub(crate) fn warning(&self, plan: &Plan) -> Option<String> {
        let loopback =
            !self.send_header && !self.listen.ip().is_loopback() && plan.source.endpoint().ip().is_loopback();
        loopback.then(|| {
            format!(
                "peers on other machines will look for the source on their own ({}); \
                 --source-for-peers names an address that they can reach",
                plan.source.endpoint()
            )
        })
    }
}

fn is_near(ip: Ipv4Addr) -> bool {
    ip.is_loopback() || ip.is_private() || ip.is_link_local()
}

/// What peers are told about the source at this URL, found at this endpoint.
pub(crate) fn announced(url: &HttpUrl, endpoint: SocketAddrV4) -> Result<Source, String> {
    let channel = url
        .path_and_query
        .strip_prefix('/')
        .unwrap_or(&url.path_and_query);
    Source::new(endpoint, channel).map_err(|error| error.to_string())
}

/// The IPv4 endpoints of a URL's host, at least one: this wire can say no others to peers.
pub(crate) fn resolve(url: &HttpUrl) -> Result<Vec<SocketAddrV4>, String> {
    let all = (url.host.as_str(), url.port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot find {}: {error}", url.host))?;
    let found: Vec<_> = all
        .filter_map(|endpoint| match endpoint {
            SocketAddr::V4(endpoint) => Some(endpoint),
            SocketAddr::V6(_) => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(format!("expected a host with an IPv4 address, got {}", url.host)),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(more: &[&str]) -> Result<Plan, String> {
        let line = ["splitter", "--source", "http://127.0.0.1:8000/a/test.ts?x=1"]
            .iter()
            .chain(more);
        Args::try_parse_from(line)
            .map_err(|error| error.to_string())?
            .plan()
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let plan = plan(&[]).unwrap();
        let seed = plan.config.seed;
        assert_eq!(
            plan.config,
            Config {
                seed,
                ..Config::default()
            }
        );
        let source = Source::new("127.0.0.1:8000".parse().unwrap(), "a/test.ts?x=1").unwrap();
        assert_eq!(plan.source, source);
    }

    #[test]
    fn public_addresses_need_the_long_word() {
        for near in [
            "127.0.0.1:0",
            "10.1.2.3:1",
            "192.168.0.1:8001",
            "172.16.0.1:1",
            "169.254.1.1:1",
        ] {
            assert!(plan(&["--listen", near]).is_ok(), "{near}");
        }
        for open in ["0.0.0.0:8001", "8.8.8.8:8001", "172.32.0.1:1", "224.0.0.1:1"] {
            let why = plan(&["--listen", open]).unwrap_err();
            assert!(why.contains("--i-know-this-wire-is-open"), "{why}");
            assert!(plan(&["--listen", open, "--i-know-this-wire-is-open"]).is_ok());
        }
        assert!(plan(&["--listen", "[::1]:8001"]).is_err());
    }

    #[test]
    fn sizes_are_checked_together() {
        assert_eq!(plan(&["--buffer-chunks", "64"]).unwrap().config.max_peers, 64);
        assert_eq!(
            plan(&["--header-chunks", "63"]).unwrap().config.header_bytes,
            64_512
        );
        for bad in [
            ["--header-chunks", "64"],
            ["--max-peers", "257"],
            ["--chunk-size", "0"],
            ["--monitors", "-1"],
            ["--group", "10.0.0.1:8001"],
            ["--wire", "a"],
        ] {
            assert!(plan(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn wires_and_sets_of_rules_are_chosen() {
        let config = |more: &[&str]| plan(more).unwrap().config;
        assert_eq!(config(&[]).dialect, Dialect::B);
        let c = config(&["--wire", "c", "--no-lrs", "--no-acs"]);
        assert_eq!(
            (c.dialect, c.lrs, c.acs, c.send_header),
            (Dialect::C, false, false, true)
        );
        let hosts = config(&["--monitor-host", "10.0.0.1", "--monitor-host", "10.0.0.2"]).monitor_hosts;
        assert_eq!(hosts, [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]);
        let group = config(&["--group", "239.255.42.2:8001"]).group;
        assert_eq!(group, Some("239.255.42.2:8001".parse().unwrap()));
        assert!(plan(&["--wire", "c", "--group", "239.255.42.2:8001"]).is_err());
        assert!(config(&["--nts"]).nts);
        assert!(plan(&["--nts", "--send-header"]).is_err());
        assert!(plan(&["--nts", "--chunk-size", "17"]).is_err());
    }

    #[test]
    fn who_cannot_be_reached_by_peers_is_told() {
        let args = |more: &[&str]| {
            let line = ["splitter", "--source", "http://127.0.0.1/"].iter().chain(more);
            let args = Args::try_parse_from(line).unwrap();
            args.warning(&args.plan().unwrap())
        };
        assert_eq!(args(&[]), None);
        let far = ["--listen", "10.0.0.1:1"];
        assert!(args(&far).unwrap().contains("--source-for-peers"));
        assert_eq!(
            args(&[&far[..], &["--source-for-peers", "10.0.0.1:80"]].concat()),
            None
        );
        assert_eq!(args(&[&far[..], &["--send-header"]].concat()), None);
    }

    #[test]
    fn addresses_of_the_new_kind_cannot_be_announced() {
        let url = HttpUrl::parse("http://[::1]:8000/a").unwrap();
        assert!(resolve(&url).unwrap_err().contains("IPv4"));
    }
}
