//! Request heads, read and written.

use super::auth::scheme;
use super::head::find_end;
use super::response::push_field;
use super::target::{Target, too_long};
use super::{Basic, Body, Headers, Refusal, Version, query_param};

/// A method is at most this many bytes; the longest registered one has 17.
const METHOD_MAX: usize = 20;

/// What a request wants. Case matters (RFC 9110 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `PUT`: a source, as Icecast 2.4 and later have it.
    Put,
    /// `POST`
    Post,
    /// `SOURCE`: a source, as Icecast before 2.4 and libshout have it.
    Source,
    /// `OPTIONS`
    Options,
    /// Any other method: 405.
    Other,
}

impl Method {
    fn parse(word: &str) -> Method {
        match word {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "POST" => Method::Post,
            "SOURCE" => Method::Source,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }

    /// As it is written on the wire; `-` for methods that are not ours.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Source => "SOURCE",
            Method::Options => "OPTIONS",
            Method::Other => "-",
        }
    }
}

/// A request head that has one reading.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// What is wanted.
    pub method: Method,
    /// The target as it came, at most [`super::TARGET_MAX`] bytes; for logs.
    pub target: String,
    /// The path: percent-decoded once, with no empty, `.` or `..` segment and no control character.
    pub path: String,
    /// What stands behind the `?`, still encoded.
    pub query: Option<String>,
    /// The version the client speaks.
    pub version: Version,
    headers: Headers,
    body: Body,
}

impl RequestHead {
    /// Parse a head at the start of `bytes`. `Ok(None)`: it is not complete yet; `Ok(Some((head, n)))`: it took the
    /// first `n` bytes.
    ///
    /// # Errors
    ///
    /// As soon as the bytes so far can no longer become an acceptable head: 400 malformed or ambiguous, 414 target
    /// too long, 431 head too large, 505 version.
    pub fn parse(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
        Self::parse_from(bytes, &mut 0)
    }

    /// [`RequestHead::parse`] for bytes that grow: `scanned` starts at zero, belongs to the connection, and spares
    /// a second look at what an earlier call has seen.
    pub fn parse_from(bytes: &[u8], scanned: &mut usize) -> Result<Option<(RequestHead, usize)>, Refusal> {
        check_first_bytes(bytes)?;
        match find_end(bytes, scanned, too_long)? {
            Some(end) => Ok(Some((Self::whole(&bytes[..end])?, end))),
            None => Ok(None),
        }
    }

    /// Parse a complete head, the empty line included.
    fn whole(head: &[u8]) -> Result<RequestHead, Refusal> {
        let line_end = head.iter().position(|&b| b == b'\r').unwrap_or(head.len());
        let (line, fields) = head.split_at(line_end);
        let (method, target, version) = request_line(line)?;
        let Target { path, query } = Target::parse(target, method)?;
        let headers = Headers::parse(&fields[2..])?;
        if headers.all("host").count() > 1 {
            return Err(Refusal::bad("one Host", "two"));
        }
        let body = Body::declared(&headers, version, undeclared_body(method))?;
        Ok(RequestHead {
            method,
            target: target.into(),
            path,
            query,
            version,
            headers,
            body,
        })
    }

    /// The first field of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// All fields, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter()
    }

    /// The decoded value of a query parameter; see [`query_param`].
    pub fn query_param(&self, key: &str) -> Option<String> {
        query_param(self.query.as_deref()?, key)
    }

    /// Basic credentials; `None` when there are none, when they are malformed, and when there are two.
    pub fn basic_auth(&self) -> Option<Basic> {
        Basic::parse(self.headers.only("authorization")?)
    }

    /// A bearer token (RFC 6750 section 2.1).
    pub fn bearer(&self) -> Option<&str> {
        scheme(self.headers.only("authorization")?, "bearer").filter(|token| !token.is_empty())
    }

    /// How the bytes after the head are framed. Checked when the head was parsed, so no second reading exists.
    ///
    /// A `PUT` or `SOURCE` that declares nothing is a live source and runs until it closes: no RFC allows that of a
    /// request, but every source client does it. Other methods without a declaration have no body.
    pub fn body(&self) -> Body {
        self.body
    }

    /// Whether the client waits for `100 Continue` (RFC 9110 section 10.1.1: from HTTP/1.1 on).
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11
            && self
                .header("expect")
                .is_some_and(|v| v.eq_ignore_ascii_case("100-continue"))
    }

    /// Whether a listener asked for titles in the stream.
    pub fn wants_icy(&self) -> bool {
        self.header("icy-metadata") == Some("1")
    }
}

fn undeclared_body(method: Method) -> Body {
    match method {
        Method::Put | Method::Source => Body::UntilClose,
        _ => Body::None,
    }
}

/// Refuse at once what cannot become a request: TLS, RTMP, HTTP/2, noise. Waiting for more of it would only hold
/// the connection. Only the offending byte is told: the rest may be a password (SHOUTcast sources begin with one).
fn check_first_bytes(bytes: &[u8]) -> Result<(), Refusal> {
    for (at, &byte) in bytes.iter().take(METHOD_MAX + 1).enumerate() {
        match byte {
            b'A'..=b'Z' | b'-' | b'_' if at < METHOD_MAX => {}
            // RFC 9113 section 3.4 keeps this method for the HTTP/2 preface.
            b' ' if &bytes[..at] == b"PRI" => return Err(Refusal::bad("HTTP/1.x", "HTTP/2")),
            b' ' if at > 0 => return Ok(()),
            0x16 if at == 0 => return Err(Refusal::bad("plain HTTP", "a TLS handshake")),
            _ => return Err(Refusal::bad("an HTTP method", &format!("byte {byte:#04x}"))),
        }
    }
    Ok(())
}

/// `METHOD target VERSION`, one space between each (RFC 9112 section 3).
fn request_line(line: &[u8]) -> Result<(Method, &str, Version), Refusal> {
    let line =
        std::str::from_utf8(line).map_err(|_| Refusal::bad("a request line of UTF-8", "other bytes"))?;
    let mut words = line.split(' ');
    let words = (words.next(), words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = words else {
        // Not echoed: `SOURCE password /mount` is an old way to log in.
        return Err(Refusal::bad(
            "a request line of method, target and version",
            "something else",
        ));
    };
    Ok((Method::parse(method), target, request_version(version)?))
}

fn request_version(word: &str) -> Result<Version, Refusal> {
    match word {
        "HTTP/1.1" => Ok(Version::Http11),
        "HTTP/1.0" => Ok(Version::Http10),
        "ICE/1.0" => Ok(Version::Ice10),
        _ if is_http_version(word) => Err(Refusal::new(505, "HTTP/1.0 or HTTP/1.1", word)),
        _ => Err(Refusal::bad("HTTP/1.0, HTTP/1.1 or ICE/1.0", "another word")),
    }
}

fn is_http_version(word: &str) -> bool {
    let digits = word.strip_prefix("HTTP/").and_then(|v| v.split_once('.'));
    digits.is_some_and(|(a, b)| {
        [a, b]
            .iter()
            .all(|d| d.len() == 1 && d.as_bytes()[0].is_ascii_digit())
    })
}

/// Writes the head of a client's request.
#[derive(Clone, Debug)]
pub struct RequestBuilder {
    bytes: Vec<u8>,
}

impl RequestBuilder {
    /// `GET target HTTP/1.1` with its `Host`. Both are sanitised like field values; a target's spaces become `%20`.
    pub fn get(host: &str, target: &str) -> Self {
        let mut bytes = b"GET ".to_vec();
        let safe = target.chars().filter(|c| !c.is_control());
        bytes.extend(safe.collect::<String>().replace(' ', "%20").bytes());
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        push_field(&mut bytes, "Host", host);
        Self { bytes }
    }

    /// Add a field; control characters of its value become spaces.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        push_field(&mut self.bytes, name, value);
        self
    }

    /// The whole head.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HEAD_BYTES_MAX, TARGET_MAX};
    use proptest::prelude::*;

    fn parse(head: &str) -> Result<RequestHead, u16> {
        let whole = RequestHead::parse(head.as_bytes()).map_err(|r| r.status)?;
        Ok(whole.expect("a complete head").0)
    }

    #[test]
    fn an_icecast_source_is_read() {
        let text = "PUT /eclipse.ts?x=1 HTTP/1.1\r\nHost: h:8000\r\nAuthorization: Basic c291cmNlOmhhY2ttZQ==\r\n\
                    Expect: 100-continue\r\nIce-Name: Eclipse\r\n\r\nrest";
        let (head, n) = RequestHead::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(&text[n..], "rest");
        assert_eq!(
            (head.method, head.path.as_str(), head.version),
            (Method::Put, "/eclipse.ts", Version::Http11)
        );
        assert_eq!(
            (head.target.as_str(), head.query_param("x").as_deref()),
            ("/eclipse.ts?x=1", Some("1"))
        );
        assert_eq!(
            head.basic_auth().map(|b| (b.user, b.password)),
            Some(("source".into(), "hackme".into()))
        );
        assert_eq!(head.header("ice-name"), Some("Eclipse"));
        assert!(head.expects_continue() && !head.wants_icy());
        assert_eq!(head.body(), Body::UntilClose);
        assert!(!format!("{head:?}").contains("c291cmNl"));
    }

    #[test]
    fn legacy_and_proxy_spellings_are_read() {
        assert_eq!(
            parse("SOURCE /a.ogg ICE/1.0\r\n\r\n").unwrap().version,
            Version::Ice10
        );
        assert_eq!(
            parse("SOURCE / HTTP/1.0\r\n\r\n").unwrap().body(),
            Body::UntilClose
        );
        assert_eq!(
            parse("GET http://elsewhere:81/a?b HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap()
                .path,
            "/a"
        );
        assert_eq!(parse("OPTIONS * HTTP/1.1\r\n\r\n").unwrap().path, "*");
        assert_eq!(parse("DELETE /a HTTP/1.1\r\n\r\n").unwrap().method, Method::Other);
        assert!(
            parse("GET /a HTTP/1.0\r\nicy-metadata: 1\r\n\r\n")
                .unwrap()
                .wants_icy()
        );
        assert_eq!(
            parse("GET /link HTTP/1.1\r\nauthorization: bearer t0k\r\n\r\n")
                .unwrap()
                .bearer(),
            Some("t0k")
        );
    }

    #[test]
    fn an_expectation_of_http_1_0_is_ignored() {
        assert!(
            !parse("PUT /a HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")
                .unwrap()
                .expects_continue()
        );
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        // Row A5; RFC 9112 sections 2.2, 3, 3.2, 5.1, 5.2, 6.1, 6.3.
        let long_target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64 * 1024));
        let long_header = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(64 * 1024));
        let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        let ten_thousand = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
        for (status, bad) in [
            (414, long_target.as_str()),
            (431, &long_header),
            (431, &many_headers),
            (431, &ten_thousand),
            (
                400,
                "GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                400,
                "GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            ),
            (400, "GET / HTTP/1.1\r\nContent-Length: +5\r\n\r\n"),
            (
                400,
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            ),
            (400, "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"),
            (400, "GET / HTTP/1.1\nHost: x\n\n"),
            (400, "GET / HTTP/1.1\r\nHost: x\n\r\n"),
            (400, "GET / HTTP/1.1\r\n: x\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            (400, "\r\nGET / HTTP/1.1\r\n\r\n"),
            (400, "GET  / HTTP/1.1\r\n\r\n"),
            (400, "GET /  HTTP/1.1\r\n\r\n"),
            (400, "GET / HTTP/1.1 \r\n\r\n"),
            (400, "GET /a b HTTP/1.1\r\n\r\n"),
            (400, "GET /\r\n\r\n"),
            (400, "GET\t/ HTTP/1.1\r\n\r\n"),
            (400, "GET / http/1.1\r\n\r\n"),
            (400, "SOURCE hackme /a.mp3\r\n\r\n"),
            (400, "CONNECT host:443 HTTP/1.1\r\n\r\n"),
            (505, "GET / HTTP/1.2\r\n\r\n"),
            (505, "GET / HTTP/2.0\r\n\r\n"),
        ] {
            assert_eq!(parse(bad).err(), Some(status), "{:?}", &bad[..bad.len().min(60)]);
        }
    }

    #[test]
    fn other_protocols_are_refused_at_the_first_bytes() {
        // Row A16.
        for bad in [
            &b"\x16\x03\x01"[..],
            b"\x16",
            b"\xc0\x03",
            b"\x03",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PRI ",
            b"\x00\x00",
            b"\x80",
            b"get",
            b"ABCDEFGHIJKLMNOPQRSTU",
            b" ",
            b"hackme\r\n",
        ] {
            assert_eq!(RequestHead::parse(bad).unwrap_err().status, 400, "{bad:?}");
        }
        assert!(RequestHead::parse(b"").unwrap().is_none());
        assert!(RequestHead::parse(b"GE").unwrap().is_none());
    }

    #[test]
    fn a_password_is_not_echoed() {
        for bad in [
            "SOURCE hackme /a.mp3\r\n\r\n",
            "hackme\r\n",
            "SOURCE /a hackme\r\n\r\n",
        ] {
            let refusal = RequestHead::parse(bad.as_bytes()).unwrap_err();
            assert!(!refusal.to_string().contains("hackme"), "{refusal}");
        }
    }

    #[test]
    fn a_written_request_is_read_back() {
        let bytes = RequestBuilder::get("h:80", "/a b\r\nX: y")
            .header("User-Agent", "a\r\nInjected: b")
            .finish();
        let (head, n) = RequestHead::parse(&bytes).unwrap().unwrap();
        assert_eq!(n, bytes.len());
        assert_eq!((head.path.as_str(), head.headers().count()), ("/a bX: y", 2));
        assert_eq!(head.header("user-agent"), Some("a  Injected: b"));
    }

    /// The answer to `bytes` when they come in pieces that end at `cuts`.
    fn piecewise(bytes: &[u8], cuts: impl Iterator<Item = usize>) -> Result<Option<(String, usize)>, u16> {
        let mut scanned = 0;
        for end in cuts.chain([bytes.len()]) {
            match RequestHead::parse_from(&bytes[..end], &mut scanned) {
                Ok(None) => {}
                Ok(Some((head, n))) => return Ok(Some((format!("{head:?}"), n))),
                Err(r) => return Err(r.status),
            }
        }
        Ok(None)
    }

    #[test]
    fn a_request_split_anywhere_reads_the_same() {
        // Row A3.
        for text in [
            "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nbody",
            "GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
        ] {
            let whole = piecewise(text.as_bytes(), std::iter::empty());
            for cut in 0..text.len() {
                assert_eq!(
                    piecewise(text.as_bytes(), std::iter::once(cut)),
                    whole,
                    "{text:?} at {cut}"
                );
            }
            assert_eq!(piecewise(text.as_bytes(), 0..text.len()), whole);
        }
    }

    #[test]
    fn limits_do_not_depend_on_the_split() {
        for (target, header, status) in [(TARGET_MAX + 1, 1, 414), (64 * 1024, 1, 414), (1, 64 * 1024, 431)] {
            let text = format!(
                "GET /{} HTTP/1.1\r\nA: {}\r\n\r\n",
                "a".repeat(target),
                "b".repeat(header)
            );
            assert_eq!(
                piecewise(text.as_bytes(), (0..text.len()).step_by(997)),
                Err(status)
            );
            assert_eq!(piecewise(text.as_bytes(), std::iter::empty()), Err(status));
            assert!(text.len() < HEAD_BYTES_MAX || status > 400);
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_splits_agree(
            start in prop::sample::select(vec!["", "GET / HTTP/1.1\r\n", "PUT /a HTTP/1.1\r\nContent-Length: "]),
            noise in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(b"\r\n: aA0".to_vec())],
                0..120,
            ),
        ) {
            let bytes = [start.as_bytes(), &noise].concat();
            let whole = piecewise(&bytes, std::iter::empty());
            prop_assert_eq!(piecewise(&bytes, 0..bytes.len()), whole);
        }
    }
}
