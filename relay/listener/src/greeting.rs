//! What a listener is told before the stream begins: response heads, as Icecast sends them.

use std::fmt::Write as _;

/// What the head of a good answer says.
#[derive(Clone, Copy, Debug)]
pub struct Greeting<'a> {
    /// `HTTP/1.0` for those who asked in 1.0; there the body ends with the connection in both versions.
    pub http10: bool,
    /// The channel's content type.
    pub content_type: &'a str,
    /// The metadata interval, for those who asked for it.
    pub metaint: Option<usize>,
    /// `icy-*` properties: name (without the prefix) and value, free of control bytes already.
    pub properties: &'a [(String, String)],
    /// The `Server` header.
    pub server: &'a str,
    /// The `Date` header, already formatted.
    pub date: &'a str,
}

/// The head of a 200 to a listener. The body is the stream, until the connection ends.
pub fn head(g: &Greeting<'_>) -> Vec<u8> {
    let mut out = String::with_capacity(512);
    let version = if g.http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let _ = write!(
        out,
        "{version} 200 OK\r\nServer: {}\r\nDate: {}\r\nConnection: close\r\nContent-Type: {}\r\n\
         Cache-Control: no-cache, no-store\r\nPragma: no-cache\r\nExpires: Mon, 26 Jul 1997 05:00:00 GMT\r\n\
         Access-Control-Allow-Origin: *\r\nX-Content-Type-Options: nosniff\r\n",
        g.server, g.date, g.content_type
    );
    for (name, value) in g.properties {
        let _ = write!(out, "icy-{name}: {value}\r\n");
    }
    if let Some(metaint) = g.metaint {
        let _ = write!(out, "icy-metaint: {metaint}\r\n");
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// A short answer that is not a stream. `extra` holds whole header lines, each ended by CRLF.
pub fn refusal(status: u16, reason: &str, extra: &str, text: &str, server: &str, date: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} {reason}\r\nServer: {server}\r\nDate: {date}\r\nConnection: close\r\n\
         Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
         {extra}Content-Length: {}\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

/// 503: come back in so many seconds. The number differs from one caller to the next, so that they do not all
/// come back at once.
pub fn busy(retry_after_s: u32, server: &str, date: &str) -> Vec<u8> {
    let extra = format!("Retry-After: {retry_after_s}\r\n");
    refusal(
        503,
        "Service Unavailable",
        &extra,
        "The relay is full. Please try again in a moment.\n",
        server,
        date,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_ends_once_and_names_what_was_asked_for() {
        let properties = [("name".to_owned(), "Eclipse".to_owned())];
        let g = Greeting {
            http10: false,
            content_type: "video/mp2t",
            metaint: Some(16_000),
            properties: &properties,
            server: "totality",
            date: "now",
        };
        let text = String::from_utf8(head(&g)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.contains("\r\nicy-name: Eclipse\r\n"));
        assert!(text.contains("\r\nicy-metaint: 16000\r\n"));
        assert_eq!(text.find("\r\n\r\n"), Some(text.len() - 4));
    }

    #[test]
    fn a_refusal_tells_its_length() {
        let text = String::from_utf8(busy(7, "totality", "now")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Retry-After: 7\r\n"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
