//! How long a body is: the one decision that smuggling attacks, made once and strictly (RFC 9112 section 6).

use super::{Headers, Refusal, Version};

/// How the bytes after a head are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunked transfer coding: feed it to [`super::Chunked`].
    Chunked,
    /// Everything until the peer says it is done.
    UntilClose,
}

impl Body {
    /// The framing that `headers` declare; `otherwise` when they declare none.
    ///
    /// Refused with 400: `Content-Length` beside `Transfer-Encoding` (section 6.3 rule 3), two of either, a
    /// length that is not plain digits, any coding but `chunked` alone, and any coding in a message older than
    /// HTTP/1.1 (section 6.1).
    pub(super) fn declared(headers: &Headers, version: Version, otherwise: Body) -> Result<Body, Refusal> {
        let mut codings = headers.all("transfer-encoding");
        let mut lengths = headers.all("content-length");
        match (codings.next(), lengths.next()) {
            (None, None) => Ok(otherwise),
            (Some(_), Some(_)) => Err(Refusal::bad("one body framing", "a length and a transfer coding")),
            _ if codings.next().is_some() => Err(Refusal::bad("one Transfer-Encoding", "two")),
            _ if lengths.next().is_some() => Err(Refusal::bad("one Content-Length", "two")),
            (Some(coding), None) => Self::coded(coding, version),
            (None, Some(length)) => digits(length).map(Body::Length),
        }
    }

    fn coded(coding: &str, version: Version) -> Result<Body, Refusal> {
        if version != Version::Http11 {
            return Err(Refusal::bad(
                "no Transfer-Encoding before HTTP/1.1",
                version.as_str(),
            ));
        }
        match coding.eq_ignore_ascii_case("chunked") {
            true => Ok(Body::Chunked),
            false => Err(Refusal::bad("Transfer-Encoding: chunked", coding)),
        }
    }
}

/// A `Content-Length`: digits and nothing else; `u64::from_str` alone would take a plus sign.
fn digits(text: &str) -> Result<u64, Refusal> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| Refusal::bad("a Content-Length of digits below 2^64", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(lines: &str, version: Version) -> Result<Body, u16> {
        let headers = Headers::parse(format!("{lines}\r\n\r\n").as_bytes()).unwrap();
        Body::declared(&headers, version, Body::UntilClose).map_err(|r| r.status)
    }

    #[test]
    fn one_framing_is_read() {
        assert_eq!(declared("A: b", Version::Http11), Ok(Body::UntilClose));
        assert_eq!(
            declared("Content-Length: 0", Version::Http10),
            Ok(Body::Length(0))
        );
        assert_eq!(
            declared("content-length: 18446744073709551615", Version::Http11),
            Ok(Body::Length(u64::MAX))
        );
        assert_eq!(
            declared("Transfer-Encoding: Chunked", Version::Http11),
            Ok(Body::Chunked)
        );
    }

    #[test]
    fn two_readings_are_refused() {
        // Row A5; RFC 9112 sections 6.1 to 6.3.
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 0x5",
            "Content-Length: 5 5",
            "Content-Length:",
            "Content-Length: 18446744073709551616",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            assert_eq!(declared(lines, Version::Http11), Err(400), "{lines}");
        }
        assert_eq!(declared("Transfer-Encoding: chunked", Version::Http10), Err(400));
        assert_eq!(declared("Transfer-Encoding: chunked", Version::Ice10), Err(400));
    }
}
