//! What a peer is told at its start, and what its URL says.

use std::net::SocketAddr;

use relay_wire::http::{HttpUrl, Method, RequestHead};
use splitter::Dialect;

/// What a peer is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The channel: `http://NODE:PORT/mount`, or a team: `p2psp://SPLITTER:PORT`. With `lan` it may be empty; otherwise
    /// it names the node that repairs.
    pub url: String,
    /// A multicast group to hear it from.
    pub lan: Option<crate::Lan>,
    /// Where players find it. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The secret that links of the node ask for, if they ask for one.
    pub token: Option<relay_link::Token>,
    /// Find out at the start whether the node has links, and pull the plain stream from one that has none. Takes up
    /// to two seconds when the node does not answer.
    pub plain_too: bool,
    /// Join the team that the node leads with this channel, and hear nothing of it by link. The node must be there.
    pub join_team: bool,
    /// How it behaves in a team.
    pub team: TeamOptions,
}

/// How a peer behaves in a team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamOptions {
    /// What the team speaks.
    pub wire: Dialect,
    /// Bits per second that are sent to team mates at most, with the headers of UDP and IP.
    pub upload_cap: Option<u64>,
    /// Only help: play nothing.
    pub donate: bool,
    /// Say that it is a monitor.
    pub monitor: bool,
    /// Report losses, so that they are sent again. Splitters of the reference may expel others for it.
    pub report_losses: bool,
}

impl Default for TeamOptions {
    fn default() -> Self {
        Self {
            wire: Dialect::B,
            upload_cap: None,
            donate: false,
            monitor: false,
            report_losses: true,
        }
    }
}

impl Options {
    /// The channel at `url`, for players at 127.0.0.1:9999.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            lan: None,
            listen: ([127, 0, 0, 1], 9999).into(),
            token: None,
            plain_too: true,
            join_team: false,
            team: TeamOptions::default(),
        }
    }
}

/// Why a URL is not a channel's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("URL: expected http://NODE:PORT/MOUNT, as in http://127.0.0.1:8000/eclipse.ts; {why}")]
pub struct UrlError {
    why: String,
}

/// A channel's URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) url: HttpUrl,
    /// Decoded, with its slash.
    pub(crate) mount: String,
}

impl Channel {
    /// What begins the URL of a team.
    const TEAM: &str = "p2psp://";
    /// The mount of a team's stream on the peer, where its URL names none.
    const TEAM_MOUNT: &str = "/team";
    /// Where splitters listen unless told otherwise.
    const TEAM_PORT: u16 = 8001;

    /// The team that a URL names, if it names one.
    pub(crate) fn of_team(url: &str) -> Option<Result<Self, UrlError>> {
        let rest = url.strip_prefix(Self::TEAM)?;
        let wrong = |refusal: &dyn std::fmt::Display| UrlError {
            why: format!("or p2psp://SPLITTER:PORT; {refusal}"),
        };
        let parsed = HttpUrl::parse(&format!("http://{rest}")).map_err(|refusal| wrong(&refusal));
        Some(parsed.and_then(|mut url| {
            let mount = decoded(&url.path_and_query)?;
            // A URL of http without a port means 80, which nobody means here.
            if url.port == 80 && !rest.split('/').next().is_some_and(|host| host.ends_with(":80")) {
                url.port = Self::TEAM_PORT;
            }
            let mount = if mount == "/" {
                Self::TEAM_MOUNT.into()
            } else {
                mount
            };
            Ok(Self { url, mount })
        }))
    }

    pub(crate) fn parse(url: &str) -> Result<Self, UrlError> {
        let parsed = HttpUrl::parse(url).map_err(|refusal| UrlError {
            why: refusal.to_string(),
        })?;
        let mount = decoded(&parsed.path_and_query)?;
        if mount == "/" {
            return Err(UrlError {
                why: "there is no mount in it; the node's page lists its channels".into(),
            });
        }
        if relay_station::is_control_path(&mount) {
            return Err(UrlError {
                why: format!("{mount} is a page of the node, not a stream"),
            });
        }
        Ok(Self { url: parsed, mount })
    }
}

/// The path as a node would read it.
fn decoded(target: &str) -> Result<String, UrlError> {
    let head = format!("GET {target} HTTP/1.1\r\nHost: node\r\n\r\n");
    match RequestHead::parse(head.as_bytes()) {
        Ok(Some((head, _))) if head.method == Method::Get => Ok(head.path),
        Ok(_) => Err(UrlError {
            why: "its path cannot be asked for".into(),
        }),
        Err(refusal) => Err(UrlError {
            why: refusal.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_is_named_by_its_splitter() {
        let team = |url: &str| {
            let channel = Channel::of_team(url)?.ok()?;
            Some((channel.url.host, channel.url.port, channel.mount))
        };
        let is = |host: &str, port, mount: &str| Some((host.to_owned(), port, mount.to_owned()));
        assert_eq!(team("p2psp://sun.example:9001"), is("sun.example", 9001, "/team"));
        assert_eq!(team("p2psp://10.0.0.1"), is("10.0.0.1", 8001, "/team"));
        assert_eq!(team("p2psp://h:80/sun.ts"), is("h", 80, "/sun.ts"));
        assert!(Channel::of_team("http://h/sun.ts").is_none());
        assert!(Channel::of_team("p2psp://").unwrap().is_err());
    }

    #[test]
    fn a_url_names_a_node_and_a_mount() {
        let channel = Channel::parse("http://sun.example:8000/a%20b.ts").unwrap();
        assert_eq!(
            (channel.url.host.as_str(), channel.url.port),
            ("sun.example", 8000)
        );
        assert_eq!(channel.mount, "/a b.ts");
    }

    #[test]
    fn what_is_no_channel_is_refused_with_an_example() {
        for bad in [
            "",
            "eclipse.ts",
            "https://h/a",
            "http://h",
            "http://h:8000/",
            "http://h/metrics",
            "http://h/../a",
        ] {
            let text = Channel::parse(bad).unwrap_err().to_string();
            assert!(text.contains("expected http://NODE:PORT/MOUNT"), "{bad}: {text}");
        }
    }
}
