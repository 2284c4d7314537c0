//! URLs of live streams: `http://[user:password@]host[:port]/path?query`.

use std::fmt;
use std::net::Ipv6Addr;

use super::target::percent_decode;
use super::{Basic, Refusal, TARGET_MAX};

/// An `http` URL taken apart. Its `Display` and `Debug` never show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// A name or an address, without brackets.
    pub host: String,
    /// 80 when the URL names none.
    pub port: u16,
    /// What a request asks for: starts with `/`, printable ASCII, no fragment.
    pub path_and_query: String,
    /// The user information, decoded.
    pub basic: Option<Basic>,
}

impl HttpUrl {
    /// Parse `url`.
    ///
    /// # Errors
    ///
    /// Another scheme, an empty or impossible host, a port that is none, control characters, more than
    /// [`TARGET_MAX`] bytes. The status is 400 and the user information is not in the text.
    pub fn parse(url: &str) -> Result<HttpUrl, Refusal> {
        if url.len() > TARGET_MAX {
            return Err(Refusal::bad("a URL of at most 8 KiB", "a longer one"));
        }
        let rest = strip_scheme(url)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (userinfo, place) = match authority.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, authority),
        };
        let (host, port) = host_and_port(place)?;
        let basic = userinfo.map(basic).transpose()?;
        Ok(HttpUrl {
            host,
            port,
            path_and_query: origin_form(path)?,
            basic,
        })
    }

    /// The URL that a `Location` of this one means: absolute, or a path here (RFC 9110 section 10.2.2). The user
    /// information goes along only to the same host and port.
    ///
    /// # Errors
    ///
    /// As [`HttpUrl::parse`]; relative paths are not followed.
    pub fn resolve(&self, location: &str) -> Result<HttpUrl, Refusal> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(HttpUrl {
                path_and_query: origin_form(location)?,
                ..self.clone()
            });
        }
        let mut to = HttpUrl::parse(location)?;
        if to.basic.is_none() && to.host == self.host && to.port == self.port {
            to.basic = self.basic.clone();
        }
        Ok(to)
    }

    /// The value of the `Host` field.
    pub fn host_header(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == 80 {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host_header(), self.path_and_query)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn strip_scheme(url: &str) -> Result<&str, Refusal> {
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok(rest),
        Some((scheme, _)) => Err(Refusal::bad("an http:// URL", scheme)),
        None => Err(Refusal::bad("an http:// URL", "no scheme")),
    }
}

fn host_and_port(place: &str) -> Result<(String, u16), Refusal> {
    let bad = || Refusal::bad("a host and perhaps a port from 1 to 65535", place);
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(bad)?,
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let valid = if place.starts_with('[') {
        host.parse::<Ipv6Addr>().is_ok()
    } else {
        is_name(host)
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|&p| p != 0),
        None if port.is_empty() => Some(80),
        _ => None,
    };
    match port {
        Some(port) if valid => Ok((host.to_ascii_lowercase(), port)),
        _ => Err(bad()),
    }
}

/// A DNS name or an IPv4 address; RFC 1035 allows 253 bytes.
fn is_name(host: &str) -> bool {
    let fits = (1..=253).contains(&host.len());
    fits && host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn basic(userinfo: &str) -> Result<Basic, Refusal> {
    let decode = |text: &str| {
        percent_decode(text.as_bytes(), false)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| Refusal::bad("percent-encoded user information", "something else"))
    };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    Ok(Basic {
        user: decode(user)?,
        password: decode(password)?,
    })
}

/// Path and query as they go on the wire: the fragment cut, characters beyond ASCII percent-encoded.
fn origin_form(path: &str) -> Result<String, Refusal> {
    let path = path.split('#').next().unwrap_or_default();
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(Refusal::bad("a URL without spaces and control characters", path));
    }
    let mut out = String::from(if path.starts_with('/') { "" } else { "/" });
    for byte in path.bytes() {
        match byte.is_ascii() {
            true => out.push(byte as char),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(url: &str) -> Option<(String, u16, String)> {
        HttpUrl::parse(url)
            .ok()
            .map(|u| (u.host, u.port, u.path_and_query))
    }

    #[test]
    fn urls_are_taken_apart() {
        let is = |url, host: &str, port, path: &str| {
            assert_eq!(parts(url), Some((host.into(), port, path.into())), "{url}");
        };
        is("http://h", "h", 80, "/");
        is(
            "HTTP://Radio.example:8000/a.mp3?x=1#y",
            "radio.example",
            8000,
            "/a.mp3?x=1",
        );
        is("http://[::1]:81/a", "::1", 81, "/a");
        is("http://[fe80::1]", "fe80::1", 80, "/");
        is("http://u:p@10.0.0.1/a@b:c", "10.0.0.1", 80, "/a@b:c");
        is("http://h?q", "h", 80, "/?q");
        is("http://h/☀", "h", 80, "/%E2%98%80");
    }

    #[test]
    fn impossible_urls_are_refused() {
        for bad in [
            "",
            "h/a",
            "https://h/",
            "http://",
            "http:///a",
            "http://:80/",
            "http://h:0/",
            "http://h:65536/",
            "http://h:+80/",
            "http://h:/",
            "http://h:80:80/",
            "http://[::1/",
            "http://[x]/",
            "http://[::1]80/",
            "http://::1/",
            "http://h h/",
            "http://h/a b",
            "http://h/\r\n",
            "http://a%00b/",
            "http://%zz@h/",
        ] {
            assert_eq!(parts(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn user_information_is_split_out_and_never_printed() {
        let url = HttpUrl::parse("http://source:hack%40me@h:8000/a").unwrap();
        assert_eq!(url.basic.as_ref().map(|b| b.password.as_str()), Some("hack@me"));
        assert_eq!(format!("{url} {url:?}"), "http://h:8000/a http://h:8000/a");
        let refusal = HttpUrl::parse("http://source:hackme@:99999/").unwrap_err();
        assert!(!refusal.to_string().contains("hackme"), "{refusal}");
    }

    #[test]
    fn locations_are_resolved_and_credentials_stay_home() {
        let url = HttpUrl::parse("http://u:p@h:8000/a").unwrap();
        let to = |location: &str| {
            url.resolve(location)
                .map(|u| (u.to_string(), u.basic.is_some()))
                .ok()
        };
        assert_eq!(to("/b?c"), Some(("http://h:8000/b?c".into(), true)));
        assert_eq!(to("http://h:8000/b"), Some(("http://h:8000/b".into(), true)));
        assert_eq!(to("http://other/b"), Some(("http://other/b".into(), false)));
        assert_eq!(to("http://h/b"), Some(("http://h/b".into(), false)));
        assert_eq!((to("https://h/"), to("//h/"), to("b")), (None, None, None));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_paths_are_safe(url in "(http://)?[a-z@:\\[\\]%/?# é\r]{0,30}") {
            if let Ok(u) = HttpUrl::parse(&url) {
                prop_assert!(u.path_and_query.starts_with('/'));
                prop_assert!(u.path_and_query.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
