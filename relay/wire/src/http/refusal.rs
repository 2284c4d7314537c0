//! The one way in which bytes from the network are refused.

use std::fmt;

use super::response::ResponseBuilder;
use crate::text::escape_log;

/// What came is not acceptable: which status answers it, what was expected, and what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status to answer with. For something a *server* sent us, it is what we would have answered.
    pub status: u16,
    /// What was expected, as a noun phrase.
    pub expected: &'static str,
    /// What came: escaped, at most [`Refusal::GOT_MAX`] bytes, never a credential.
    pub got: String,
}

impl Refusal {
    /// `got` is cut to this many bytes.
    pub const GOT_MAX: usize = 120;

    /// A refusal with `status`; `got` is escaped and cut.
    pub fn new(status: u16, expected: &'static str, got: &str) -> Self {
        // Cut first: escaping costs by the length of what a stranger sent.
        let mut got = escape_log(cut(got, Self::GOT_MAX)).into_owned();
        got.truncate(cut(&got, Self::GOT_MAX).len());
        Self {
            status,
            expected,
            got,
        }
    }

    /// 400: not HTTP, or HTTP that can be read in two ways.
    pub(crate) fn bad(expected: &'static str, got: &str) -> Self {
        Self::new(400, expected, got)
    }

    /// The whole answer, in plain text, after which the connection is closed.
    ///
    /// `server` is the `Server` field; `unix_seconds` the `Date`.
    pub fn answer(&self, server: &str, unix_seconds: u64) -> Vec<u8> {
        ResponseBuilder::new(self.status)
            .server(server)
            .date(unix_seconds)
            .header("Content-Type", "text/plain; charset=utf-8")
            .header("X-Content-Type-Options", "nosniff")
            .header("Connection", "close")
            .body(format!("{self}\n").as_bytes())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got {}", self.expected, self.got)
    }
}

impl std::error::Error for Refusal {}

/// The longest prefix of `text` of at most `max` bytes that ends between characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_escaped_and_bounded() {
        let r = Refusal::new(400, "a method", &"\u{1b}[31mä\r\n".repeat(100));
        assert!(r.got.len() <= Refusal::GOT_MAX);
        assert!(r.got.bytes().all(|b| b >= 0x20 && b != 0x7f));
        assert!(r.to_string().starts_with("expected a method, got \\x1b[31m"));
    }

    #[test]
    fn the_answer_is_one_whole_response() {
        let bytes = Refusal::new(414, "a short target", "a long one").answer("totality/0", 784_111_777);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{text}");
        assert!(text.contains("\r\nServer: totality/0\r\n"));
        assert!(text.contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        assert!(text.contains("\r\nConnection: close\r\n"));
        assert!(text.ends_with("\r\n\r\nexpected a short target, got a long one\n"));
    }
}
