//! Header fields of one head.

use std::fmt;

use super::{HEADERS_MAX, Refusal};
use crate::text::latin1_or_utf8;

/// The fields of a head in the order they came. Values that are not UTF-8 are read as Latin-1, which is what
/// old stream clients mean.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    fields: Vec<(Box<str>, Box<str>)>,
}

impl Headers {
    /// Parse the field lines of a head, the empty line included (RFC 9112 section 5).
    pub(crate) fn parse(lines: &[u8]) -> Result<Self, Refusal> {
        let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
        match httparse::parse_headers(lines, &mut room) {
            Ok(httparse::Status::Complete((_, fields))) => Self::collect(fields),
            // The caller found the empty line, so a partial parse means that the lines do not add up.
            Ok(httparse::Status::Partial) => Err(Refusal::bad("header fields", "an unfinished field")),
            Err(httparse::Error::TooManyHeaders) => {
                Err(Refusal::new(431, "at most 100 header fields", "more"))
            }
            Err(e) => Err(Refusal::bad("header fields as `name: value`", &e.to_string())),
        }
    }

    fn collect(fields: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        // httparse is asked for strictness by the lines above it; an empty name is the one thing it has let
        // through in the past, and smuggling lives there.
        if fields.iter().any(|f| f.name.is_empty()) {
            return Err(Refusal::bad("header fields as `name: value`", "an empty name"));
        }
        let fields = fields
            .iter()
            .map(|f| (f.name.into(), latin1_or_utf8(f.value).into()))
            .collect();
        Ok(Self { fields })
    }

    /// The first field of that name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    /// Every field of that name, whatever its case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    /// The value when there is exactly one field of that name; two are as good as none where a choice between
    /// them would be a guess.
    pub fn only<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(n, v)| (&**n, &**v))
    }
}

impl fmt::Debug for Headers {
    /// Names and values, but never a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(n, v)| (n, if is_secret(n) { "***" } else { v })),
            )
            .finish()
    }
}

fn is_secret(name: &str) -> bool {
    ["authorization", "proxy-authorization", "cookie", "set-cookie"]
        .iter()
        .any(|s| name.eq_ignore_ascii_case(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &str) -> Result<Headers, Refusal> {
        Headers::parse(format!("{lines}\r\n\r\n").as_bytes())
    }

    #[test]
    fn names_are_found_in_any_case_and_values_are_trimmed() {
        let h = parse("Ice-Name:  Eclipse \r\nX: 1\r\nx: 2").unwrap();
        assert_eq!(h.get("ice-name"), Some("Eclipse"));
        assert_eq!(h.all("X").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((h.only("x"), h.only("ICE-NAME")), (None, Some("Eclipse")));
    }

    #[test]
    fn latin1_values_become_text() {
        let h = Headers::parse(b"ice-name: Fr\xe9quence\r\n\r\n").unwrap();
        assert_eq!(h.get("ice-name"), Some("Fréquence"));
    }

    #[test]
    fn malformed_fields_are_refused() {
        // RFC 9112 section 5.1 (no space before the colon), 5.2 (no folding); row A5.
        for bad in [
            "A: b\r\n folded",
            "A: b\r\n\tfolded",
            " A: b",
            "A : b",
            ": empty",
            "nocolon",
            "A: \0",
            "Ä: b",
        ] {
            assert_eq!(parse(bad).unwrap_err().status, 400, "{bad:?}");
        }
    }

    #[test]
    fn the_hundred_and_first_field_is_431() {
        let lines = |n| vec!["a: b"; n].join("\r\n");
        assert_eq!(parse(&lines(100)).unwrap().iter().count(), 100);
        assert_eq!(parse(&lines(101)).unwrap_err().status, 431);
    }

    #[test]
    fn credentials_are_not_printed() {
        let text = format!("{:?}", parse("Authorization: Basic c2VjcmV0\r\nHost: x").unwrap());
        assert!(
            text.contains("***") && !text.contains("c2VjcmV0") && text.contains("Host"),
            "{text}"
        );
    }
}
