//! As much HTTP as a source and a listener need: a URL, two request heads, and a response head read with a limit. A URL
//! may name an RTMP stream instead.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Doing, Error};
use crate::rtmp::{Client, Role};

/// Longest response head that is believed, in bytes.
pub(crate) const HEAD_MAX: usize = 16 * 1024;

/// `http://HOST[:PORT]/PATH` or `rtmp://HOST[:PORT]/APP/NAME`; nothing else is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    is_rtmp: bool,
    authority: String,
    path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let (is_rtmp, rest) = match (text.strip_prefix("http://"), text.strip_prefix("rtmp://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err("expected http://HOST[:PORT]/PATH or rtmp://HOST[:PORT]/APP/NAME".into()),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || !clean(text) {
            return Err("expected http://HOST[:PORT]/PATH, without spaces".into());
        }
        let path = if path.is_empty() { "/" } else { path };
        let names = |path: &str| {
            path[1..]
                .split_once('/')
                .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
        };
        if is_rtmp && !names(path) {
            return Err("expected rtmp://HOST[:PORT]/APP/NAME: an application and a stream".into());
        }
        Ok(Url {
            is_rtmp,
            authority: authority.into(),
            path: path.into(),
        })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_rtmp { "rtmp" } else { "http" };
        write!(out, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Url {
    /// A mount on an address of this machine.
    pub(crate) fn local(address: SocketAddr, path: &str) -> Url {
        Url {
            is_rtmp: false,
            authority: address.to_string(),
            path: path.into(),
        }
    }

    /// A stream of an RTMP server on this machine; `path`: `/APP/NAME`.
    pub(crate) fn local_rtmp(address: SocketAddr, path: &str) -> Url {
        Url {
            is_rtmp: true,
            ..Url::local(address, path)
        }
    }

    pub(crate) fn is_rtmp(&self) -> bool {
        self.is_rtmp
    }

    /// A connection that plays or publishes this stream; none where the URL is HTTP.
    pub(crate) fn rtmp(&self, role: Role) -> Option<Client> {
        let (app, name) = self.path.strip_prefix('/')?.split_once('/')?;
        self.is_rtmp
            .then(|| Client::new(role, &self.authority, app, name))
    }

    /// The first address of the host; port 80 unless given, 1935 for RTMP.
    pub(crate) fn address(&self) -> Result<SocketAddr, Error> {
        let has_port = self
            .authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let target = if has_port {
            self.authority.clone()
        } else {
            format!("{}:{}", self.authority, if self.is_rtmp { 1935 } else { 80 })
        };
        let mut found = target
            .to_socket_addrs()
            .doing(|| format!("cannot resolve {target}"))?;
        found
            .next()
            .ok_or_else(|| Error::Failed(format!("{target} has no address")))
    }

    /// A listener's request. HTTP/1.0, so that the body comes without chunk framing.
    pub(crate) fn get(&self) -> String {
        let Url { authority, path, .. } = self;
        format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: bench-harness\r\n\r\n")
    }

    /// A source's request, in Icecast's manner. `login`: user and password.
    pub(crate) fn put(&self, method: Method, content_type: &str, login: Option<(&str, &str)>) -> String {
        let Url { authority, path, .. } = self;
        let auth = login.map(|(user, password)| {
            format!(
                "Authorization: Basic {}\r\n",
                STANDARD.encode(format!("{user}:{password}"))
            )
        });
        let (verb, version, expect) = match method {
            Method::Put => ("PUT", "1.1", "Expect: 100-continue\r\n"),
            Method::Source => ("SOURCE", "1.0", ""),
        };
        format!(
            "{verb} {path} HTTP/{version}\r\nHost: {authority}\r\nUser-Agent: bench-harness\r\n{}{expect}\
             Content-Type: {content_type}\r\nIce-Name: bench-harness\r\nIce-Public: 0\r\n\r\n",
            auth.unwrap_or_default(),
        )
    }
}

/// How a source announces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Method {
    /// `PUT`, HTTP/1.1, `Expect: 100-continue`
    Put,
    /// `SOURCE`, HTTP/1.0, as older source clients do
    Source,
}

/// What became of the bytes given to a [`Head`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The head is not complete.
    More,
    /// Complete: its status, how many of the bytes just given belonged to it, and the length of the body, if promised.
    Done {
        status: u16,
        used: usize,
        length: Option<u64>,
    },
    /// Not a response head.
    Bad(String),
}

/// A response head as it comes in, in any slicing.
#[derive(Debug, Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Progress {
        let before = self.bytes.len();
        self.bytes.extend(&bytes[..bytes.len().min(HEAD_MAX - before)]);
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
        match end {
            Some(end) => self.finish(end + 4, before),
            None if self.bytes.len() >= HEAD_MAX => {
                Progress::Bad(format!("no end of the response head within {HEAD_MAX} bytes"))
            }
            None => Progress::More,
        }
    }

    fn finish(&mut self, end: usize, before: usize) -> Progress {
        self.bytes.truncate(end);
        let head = String::from_utf8_lossy(&self.bytes);
        let first = head.lines().next().unwrap_or_default();
        let mut words = first.split_ascii_whitespace();
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|code| code.parse().ok());
        let Some(status) = status.filter(|_| version.starts_with("HTTP/1.") || version == "ICY") else {
            let shown: String = first.chars().take(60).collect();
            return Progress::Bad(format!("expected `HTTP/1.x 200 …`, got {shown:?}"));
        };
        if header(&head, "transfer-encoding").is_some() {
            return Progress::Bad("chunked body in answer to an HTTP/1.0 request".into());
        }
        let length = match header(&head, "content-length").map(str::parse) {
            None => None,
            Some(Ok(length)) => Some(length),
            Some(Err(_)) => return Progress::Bad("a Content-Length that is no number".into()),
        };
        Progress::Done {
            status,
            used: end - before,
            length,
        }
    }
}

/// Why an answer with this status is none.
pub(crate) fn rejected(status: u16) -> String {
    match status {
        300..400 => format!("expected 200, got {status}: redirects are not followed"),
        status => format!("expected 200, got {status}"),
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn urls_are_taken_apart() {
        assert_eq!(
            url("http://127.0.0.1:8000/a.ts").to_string(),
            "http://127.0.0.1:8000/a.ts"
        );
        assert_eq!(url("http://127.0.0.1").address().unwrap().port(), 80);
        assert_eq!(url("http://[::1]:81/x").address().unwrap().port(), 81);
        assert_eq!(url("rtmp://127.0.0.1/live/a").address().unwrap().port(), 1935);
        assert_eq!(url("rtmp://h:1/live/a?b=c").to_string(), "rtmp://h:1/live/a?b=c");
        assert!(
            url("rtmp://h/live/a").rtmp(Role::Play).is_some()
                && url("http://h/live/a").rtmp(Role::Play).is_none()
        );
        for bad in [
            "rtmp://h/live",
            "rtmp://h/live/",
            "rtmp://h//a",
            "rtmp:///a/b",
            "https://h/",
            "h/x",
            "http://",
            "http://a/ b",
            "http://a/\r\nX: y",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_put_carries_basic_auth_and_expect() {
        let head = url("http://h:1/m").put(Method::Put, "video/mp2t", Some(("source", "pw")));
        assert!(head.starts_with("PUT /m HTTP/1.1\r\nHost: h:1\r\n"), "{head}");
        assert!(head.contains("Authorization: Basic c291cmNlOnB3\r\n"), "{head}");
        assert!(
            head.contains("Expect: 100-continue\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }

    #[test]
    fn a_head_ends_where_it_ends_in_any_slicing() {
        let whole = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nbody";
        for cut in 1..whole.len() - 4 {
            let mut head = Head::default();
            let (first, second) = whole.split_at(cut);
            assert_eq!(head.feed(first), Progress::More);
            let used = whole.len() - 4 - cut;
            let (status, length) = (200, None);
            assert_eq!(head.feed(second), Progress::Done { status, used, length });
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = |bytes: &[u8]| matches!(Head::default().feed(bytes), Progress::Bad(_));
        assert!(bad(b"SSH-2.0-x\r\n\r\n"));
        assert!(bad(b"HTTP/1.1 abc\r\n\r\n"));
        assert!(bad(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
        assert!(bad(b"HTTP/1.1 200 OK\r\nContent-Length: long\r\n\r\n"));
        assert!(bad(&[b'x'; HEAD_MAX + 1]));
    }
}
