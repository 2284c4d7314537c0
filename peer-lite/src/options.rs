//! What a peer is told at its start, and what its URL says.

use std::net::SocketAddr;

use relay_wire::http::{HttpUrl, Method, RequestHead};

/// What a peer is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The channel: `http://NODE:PORT/mount`.
    pub url: String,
    /// Where players find it. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The secret that links of the node ask for, if they ask for one.
    pub token: Option<relay_link::Token>,
    /// Find out at the start whether the node has links, and pull the plain stream from one that has none. Takes up
    /// to two seconds when the node does not answer.
    pub plain_too: bool,
}

impl Options {
    /// The channel at `url`, for players at 127.0.0.1:9999.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            listen: ([127, 0, 0, 1], 9999).into(),
            token: None,
            plain_too: true,
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
