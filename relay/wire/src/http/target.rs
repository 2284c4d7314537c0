//! Request targets: one decoded path, or a refusal (RFC 9112 section 3.2).

use super::{Method, Refusal, TARGET_MAX};
use crate::text::latin1_or_utf8;

/// A target taken apart.
pub(super) struct Target {
    /// Percent-decoded once and checked; `*` for `OPTIONS *`.
    pub(super) path: String,
    /// What stands behind the first `?`, still encoded.
    pub(super) query: Option<String>,
}

impl Target {
    /// Origin form, absolute form (the authority is ignored: one server, one name space), and `*` for OPTIONS.
    pub(super) fn parse(target: &str, method: Method) -> Result<Target, Refusal> {
        if target.len() > TARGET_MAX {
            return Err(too_long());
        }
        if let Some(bad) = target.bytes().find(|&b| b <= b' ' || b == 0x7f || b == b'#') {
            return Err(Refusal::bad(
                "a target without control bytes and #",
                &format!("byte {bad:#04x}"),
            ));
        }
        if target == "*" && method == Method::Options {
            return Ok(Target {
                path: "*".into(),
                query: None,
            });
        }
        let origin = origin_form(target);
        let (path, query) = match origin.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (origin, None),
        };
        Ok(Target {
            path: checked_path(path)?,
            query,
        })
    }
}

pub(super) fn too_long() -> Refusal {
    Refusal::new(414, "a request target of at most 8 KiB", "a longer one")
}

/// Cut `http://authority` off an absolute form.
fn origin_form(target: &str) -> &str {
    let scheme = "http://";
    let rest = match target.get(..scheme.len()) {
        Some(head) if head.eq_ignore_ascii_case(scheme) => &target[scheme.len()..],
        _ => return target,
    };
    match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'/' => &rest[at..],
        _ => "/",
    }
}

/// Decode and check. Paths name mounts, so there is one spelling for each: no empty, `.` or `..` segment, no
/// backslash, no control byte, no dot at the end.
fn checked_path(encoded: &str) -> Result<String, Refusal> {
    let path = percent_decode(encoded.as_bytes(), false)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::bad("a path of percent-encoded UTF-8", encoded))?;
    let expected = if !path.starts_with('/') {
        "a path that starts with /"
    } else if path.chars().any(|c| c.is_control() || c == '\\') {
        "a path without control characters and backslashes"
    } else if path.contains("//") || path.split('/').any(|s| s == "." || s == "..") {
        "a path without empty, . and .. segments"
    } else if path.ends_with('.') {
        "a path that does not end with a dot"
    } else {
        return Ok(path);
    };
    Err(Refusal::bad(expected, &path))
}

/// Decode `%XX`; `None` when a `%` is not followed by two digits, or, where `lenient`, leave it as it is.
pub(super) fn percent_decode(text: &[u8], lenient: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let decoded = if byte == b'%' { hex_pair(tail) } else { None };
        match decoded {
            Some(value) => out.push(value),
            None if byte == b'%' && !lenient => return None,
            None => out.push(byte),
        }
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    Some(out)
}

fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| (*text.get(at)? as char).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// The value of the first `key` in an encoded query or form body: `+` is a space, `%XX` is decoded, bytes that
/// are not UTF-8 are read as Latin-1 (stream clients send titles in it). Never fails; absent is `None`.
pub fn query_param(query: &str, key: &str) -> Option<String> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(name, _)| form_decode(name) == key)
        .map(|(_, value)| form_decode(value))
}

fn form_decode(text: &str) -> String {
    let spaced: Vec<u8> = text.bytes().map(|b| if b == b'+' { b' ' } else { b }).collect();
    latin1_or_utf8(&percent_decode(&spaced, true).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(target: &str) -> Result<String, u16> {
        Target::parse(target, Method::Get)
            .map(|t| t.path)
            .map_err(|r| r.status)
    }

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(path("/eclipse.ts").as_deref(), Ok("/eclipse.ts"));
        assert_eq!(path("/").as_deref(), Ok("/"));
        assert_eq!(path("/%e2%98%80.ts?x=%00").as_deref(), Ok("/☀.ts"));
        assert_eq!(path("/%252e%252e").as_deref(), Ok("/%2e%2e"));
        assert_eq!(path("http://host:8000/a").as_deref(), Ok("/a"));
        assert_eq!(path("HTTP://host").as_deref(), Ok("/"));
        assert_eq!(path("http://host?a/b").as_deref(), Ok("/"));
        assert_eq!(path("/a/").as_deref(), Ok("/a/"));
        assert_eq!(path("/...a/.b").as_deref(), Ok("/...a/.b"));
    }

    #[test]
    fn bad_paths_are_refused() {
        // Row A7.
        for bad in [
            "//",
            "/a//b",
            "/..",
            "/../a",
            "/a/../b",
            "/.",
            "/./a",
            "/%2e%2e%2f",
            "/%2e%2e",
            "/a%2f%2e%2e%2fb",
            "/%00",
            "/a%0d%0ab",
            "/%7f",
            "/a.",
            "/a%2e",
            "/a\\",
            "/a%5c",
            "/%ff",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "",
            "a",
            "*",
            "?",
            "host:80",
            "ftp://x/",
            "http://h//",
            "/a#b",
            "/a b",
            "/a\t",
            "/\u{7f}",
            "/%c2%85",
        ] {
            assert_eq!(path(bad), Err(400), "{bad:?}");
        }
        assert_eq!(path(&format!("/{}", "a".repeat(TARGET_MAX))), Err(414));
    }

    #[test]
    fn the_asterisk_is_for_options() {
        assert_eq!(
            Target::parse("*", Method::Options)
                .map(|t| t.path)
                .ok()
                .as_deref(),
            Some("*")
        );
    }

    #[test]
    fn form_values() {
        let q = "mount=%2Flive.mp3&mode=updinfo&song=Sun+%26+Moon%3D1&x&caf%E9=%E9t%E9&p=100%";
        let get = |key| query_param(q, key);
        assert_eq!(get("mount").as_deref(), Some("/live.mp3"));
        assert_eq!(get("song").as_deref(), Some("Sun & Moon=1"));
        assert_eq!(get("x").as_deref(), Some(""));
        assert_eq!(get("café").as_deref(), Some("été"));
        assert_eq!(get("p").as_deref(), Some("100%"));
        assert_eq!(get("none"), None);
    }

    proptest! {
        #[test]
        fn an_accepted_path_is_harmless(target in "/[a-z%0-9A-F./\\\\]{0,12}") {
            if let Ok(path) = path(&target) {
                prop_assert!(path.starts_with('/') && !path.contains("//") && !path.contains('\\'));
                prop_assert!(path.split('/').all(|s| s != ".." && s != "."));
                prop_assert!(path.chars().all(|c| !c.is_control()));
            }
        }

        #[test]
        fn no_query_panics(query in any::<String>(), key in "[a-z]{0,3}") {
            let _ = query_param(&query, &key);
        }
    }
}
