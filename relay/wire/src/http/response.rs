//! Response heads, written for clients and read from servers.

use super::head::find_end;
use super::status::reason;
use super::{Body, Headers, Refusal, Version};
use crate::text::http_date;

/// Writes one response.
#[derive(Clone, Debug)]
pub struct ResponseBuilder {
    bytes: Vec<u8>,
}

impl ResponseBuilder {
    /// A response of HTTP/1.1 with `status` and its usual reason.
    pub fn new(status: u16) -> Self {
        Self::with_version(Version::Http11, status)
    }

    /// The same, of another version.
    pub fn with_version(version: Version, status: u16) -> Self {
        Self {
            bytes: format!("{} {status} {}\r\n", version.as_str(), reason(status)).into_bytes(),
        }
    }

    /// The `Server` field.
    pub fn server(self, name: &str) -> Self {
        self.header("Server", name)
    }

    /// The `Date` field, from seconds since 1970.
    pub fn date(self, unix_seconds: u64) -> Self {
        let date = http_date(unix_seconds);
        self.header("Date", &date)
    }

    /// Add a field. Control characters of its value become spaces, so no value can end its line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        push_field(&mut self.bytes, name, value);
        self
    }

    /// The head alone: for streams, HEAD, and answers without a body.
    pub fn head(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }

    /// The whole response: `Content-Length` is added.
    pub fn body(self, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.header("Content-Length", &body.len().to_string()).head();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Append `name: value` with every control character of the value made a space.
///
/// # Panics
///
/// When `name` is not a token: names are ours, never a stranger's.
pub(super) fn push_field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    assert!(
        !name.is_empty() && name.bytes().all(token),
        "header name {name:?}"
    );
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend(
        value
            .bytes()
            .map(|b| if b < 0x20 || b == 0x7f { b' ' } else { b }),
    );
    bytes.extend_from_slice(b"\r\n");
}

/// A response head, as a client reads it.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Three digits.
    pub status: u16,
    /// What the server speaks; `ICY` for SHOUTcast servers.
    pub version: Version,
    /// Its fields.
    pub headers: Headers,
    body: Body,
}

impl ResponseHead {
    /// Parse a head at the start of `bytes`; as [`super::RequestHead::parse`].
    ///
    /// # Errors
    ///
    /// What is not a response, is ambiguous, or is over a limit.
    pub fn parse(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, Refusal> {
        Self::parse_from(bytes, &mut 0)
    }

    /// The same for bytes that grow; `scanned` starts at zero and belongs to the connection.
    pub fn parse_from(bytes: &[u8], scanned: &mut usize) -> Result<Option<(ResponseHead, usize)>, Refusal> {
        check_first_bytes(bytes)?;
        let long_line = || Refusal::bad("a status line of at most 8 KiB", "a longer one");
        match find_end(bytes, scanned, long_line)? {
            Some(end) => Ok(Some((Self::whole(&bytes[..end])?, end))),
            None => Ok(None),
        }
    }

    fn whole(head: &[u8]) -> Result<ResponseHead, Refusal> {
        let line_end = head.iter().position(|&b| b == b'\r').unwrap_or(head.len());
        let (line, fields) = head.split_at(line_end);
        let (version, status) = status_line(line)?;
        let headers = Headers::parse(&fields[2..])?;
        // RFC 9112 section 6.3 rule 1: these never have a body, whatever they declare.
        let bodiless = status < 200 || status == 204 || status == 304;
        let declared = Body::declared(&headers, version, Body::UntilClose)?;
        Ok(ResponseHead {
            status,
            version,
            headers,
            body: if bodiless { Body::None } else { declared },
        })
    }

    /// The first field of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// How the bytes after the head are framed, when the request was not HEAD.
    pub fn body(&self) -> Body {
        self.body
    }
}

/// `HTTP/` or `ICY `, as far as there are bytes.
fn check_first_bytes(bytes: &[u8]) -> Result<(), Refusal> {
    let starts = |word: &[u8]| bytes.iter().zip(word).all(|(a, b)| a == b);
    if starts(b"HTTP/") || starts(b"ICY ") {
        return Ok(());
    }
    Err(Refusal::bad(
        "a response of HTTP/1.x or ICY",
        &format!("first byte {:#04x}", bytes[0]),
    ))
}

/// `VERSION status reason`; the reason may be missing (RFC 9112 section 4) and is not read.
fn status_line(line: &[u8]) -> Result<(Version, u16), Refusal> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(3, ' ');
    let version = match words.next() {
        Some("HTTP/1.1") => Version::Http11,
        Some("HTTP/1.0") => Version::Http10,
        Some("ICY") => Version::Icy,
        _ => return Err(Refusal::bad("a status line of HTTP/1.0, HTTP/1.1 or ICY", &line)),
    };
    match words
        .next()
        .filter(|w| w.len() == 3 && w.bytes().all(|b| b.is_ascii_digit()))
    {
        Some(digits) => Ok((
            version,
            digits.bytes().fold(0, |n, b| n * 10 + u16::from(b - b'0')),
        )),
        None => Err(Refusal::bad("a status of three digits", &line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_response_is_written_and_read_back() {
        let bytes = ResponseBuilder::new(404)
            .server("totality/0")
            .date(0)
            .header("X-A", "b\r\nSet-Cookie: c")
            .body(b"no\n");
        let (head, n) = ResponseHead::parse(&bytes).unwrap().unwrap();
        assert_eq!(
            (head.status, head.version, &bytes[n..]),
            (404, Version::Http11, &b"no\n"[..])
        );
        assert_eq!(head.body(), Body::Length(3));
        assert_eq!(head.header("x-a"), Some("b  Set-Cookie: c"));
        assert_eq!(head.header("set-cookie"), None);
        assert_eq!(head.header("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    }

    #[test]
    fn icy_and_reasonless_lines_are_read() {
        let status = |text: &str| {
            ResponseHead::parse(text.as_bytes())
                .unwrap()
                .map(|(h, _)| (h.version, h.status))
        };
        assert_eq!(
            status("ICY 200 OK\r\nicy-name:x\r\n\r\n"),
            Some((Version::Icy, 200))
        );
        assert_eq!(status("HTTP/1.0 200\r\n\r\n"), Some((Version::Http10, 200)));
        assert_eq!(
            status("HTTP/1.1 401 Authentication Required\r\n\r\n"),
            Some((Version::Http11, 401))
        );
        assert_eq!(status("HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(status(""), None);
    }

    #[test]
    fn bad_servers_are_refused() {
        for bad in [
            "SSH-2.0",
            "HTTP/2.0 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 +20\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\n\n",
            "HTTP/1.1 200\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(ResponseHead::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_answer_has_no_body() {
        let (head, _) = ResponseHead::parse(b"HTTP/1.1 100 Continue\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(head.body(), Body::None);
    }

    proptest! {
        #[test]
        fn no_value_leaves_its_field(value in any::<String>()) {
            let bytes = ResponseBuilder::new(200).header("A", &value).head();
            let (head, n) = ResponseHead::parse(&bytes).unwrap().unwrap();
            prop_assert_eq!((n, head.headers.iter().count()), (bytes.len(), 1));
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ResponseHead::parse(&[b"HTTP/1.1 200 OK\r\n", noise.as_slice(), b"\r\n\r\n"].concat());
        }
    }
}
