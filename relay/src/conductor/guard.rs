//! Who may do what: passwords, and pages of other sites that make a browser ask in its owner's name.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answer::{error_page, text, with};
use super::desk::Desk;
use super::serve::Peer;

/// Who has shown the right password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Admin,
    Source,
}

impl Who {
    /// The user's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Who::Admin => "admin",
            Who::Source => "source",
        }
    }
}

/// Lets in the user `admin`; with a mount, also the user `source` with that mount's password, as Icecast does
/// for titles.
pub(super) fn admit(desk: &Desk, request: &Request, titled: Option<&str>) -> Result<Who, Box<Response>> {
    let ip = request
        .extensions()
        .get::<Peer>()
        .map(|peer| peer.0.ip())
        .ok_or_else(|| Box::new(unknown()))?;
    if let Some(left) = desk.refused(ip) {
        desk.tallies.auth_throttled.up();
        let refused = text(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many wrong passwords from this address.\n",
        );
        return Err(Box::new(with(
            refused,
            header::RETRY_AFTER,
            &(left.as_secs() + 1).to_string(),
        )));
    }
    let source_password = titled.and_then(|mount| desk.house().config.source_at(mount).password.as_ref());
    let admin_password = desk.settings.admin_password.as_ref();
    let given = credentials(request.headers());
    if admin_password.is_none()
        && (source_password.is_none() || given.as_ref().is_some_and(|(u, _)| u == "admin"))
    {
        return Err(Box::new(no_password()));
    }
    let Some((user, password)) = given else {
        return Err(Box::new(unknown()));
    };
    let (who, expected) = match user.as_str() {
        "admin" => (Who::Admin, admin_password),
        "source" => (Who::Source, source_password),
        _ => (Who::Source, None),
    };
    if expected.is_some_and(|expected| expected.matches(&password)) {
        return Ok(who);
    }
    desk.failed(ip);
    Err(Box::new(unknown()))
}

fn no_password() -> Response {
    let why = "This relay has no admin password, so nobody is its administrator. Set RELAY_AUTH_ADMIN_PASSWORD and \
               start it again.";
    text(StatusCode::FORBIDDEN, format!("{why}\n"))
}

fn unknown() -> Response {
    let refused = text(StatusCode::UNAUTHORIZED, "You need to authenticate\n");
    with(
        refused,
        header::WWW_AUTHENTICATE,
        "Basic realm=\"Totality\", charset=\"UTF-8\"",
    )
}

/// User and password of an `Authorization` field (RFC 7617).
fn credentials(fields: &HeaderMap) -> Option<(String, String)> {
    let (scheme, token) = fields
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(token.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Refuses calls that change something when a browser was made to make them: by another site's page (`Origin`,
/// `Sec-Fetch-Site`), or by a page whose name was pointed at this relay (a `Host` that is not ours: DNS rebinding).
pub(super) fn refuse_strangers(desk: &Desk, fields: &HeaderMap) -> Option<Response> {
    let host = fields.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    if is_cross_site(fields, host) {
        desk.tallies.cross_site.up();
        return Some(error_page(
            StatusCode::FORBIDDEN,
            "Another site's page made this request; it is refused.",
        ));
    }
    // Encoders call a relay by whatever name its operator gave it; only a browser can be deceived about a name.
    if is_browser(fields) && host.is_some_and(|host| !is_ours(host, &desk.settings.hostname)) {
        desk.tallies.cross_site.up();
        let why = format!(
            "Calls that change something name this relay by its address, as localhost, or by its configured host name \
             ({}); this one has Host: {}.",
            desk.settings.hostname,
            host.unwrap_or_default(),
        );
        return Some(error_page(StatusCode::MISDIRECTED_REQUEST, &why));
    }
    None
}

fn is_cross_site(fields: &HeaderMap, host: Option<&str>) -> bool {
    let site = fields.get("sec-fetch-site").map(|site| site.as_bytes());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let Some(origin) = fields.get(header::ORIGIN) else {
        return false;
    };
    let authority = origin
        .to_str()
        .ok()
        .and_then(|o| o.split_once("://"))
        .map(|(_, authority)| authority);
    authority.is_none() || authority != host
}

fn is_browser(fields: &HeaderMap) -> bool {
    let agent = fields
        .get(header::USER_AGENT)
        .map_or(&b""[..], |agent| agent.as_bytes());
    agent.starts_with(b"Mozilla/")
        || fields.contains_key("sec-fetch-site")
        || fields.contains_key(header::ORIGIN)
}

/// Whether a `Host` is an address, localhost, or the configured name.
fn is_ours(host: &str, hostname: &str) -> bool {
    let Some(name) = host_name(host) else { return false };
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(hostname)
}

/// The name in an authority without user: `None` when it is not one.
fn host_name(host: &str) -> Option<&str> {
    let sane = |b: u8| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b);
    if host.is_empty() || host.len() > 255 || !host.bytes().all(sane) {
        return None;
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let plain = !name.contains(['[', ']', ':']);
    let port_fits = port.is_empty() || port.parse::<u16>().is_ok();
    ((bracketed || plain) && port_fits && !name.is_empty()).then_some(name)
}

/// The `Host` of a request, if it can stand in a URL.
pub(super) fn sane_host(fields: &HeaderMap) -> Option<&str> {
    let host = fields.get(header::HOST)?.to_str().ok()?;
    host_name(host).map(|_| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_ours() {
        for ours in [
            "127.0.0.1",
            "127.0.0.1:8000",
            "[::1]:8000",
            "[::1]",
            "localhost:8000",
            "LOCALHOST",
            "radio.example:80",
            "radio.example.",
        ] {
            assert!(is_ours(ours, "radio.example"), "{ours}");
        }
        for other in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "",
            "127.0.0.1.evil",
            "a@127.0.0.1",
            "::1",
            "h:99999",
            "[::1",
        ] {
            assert!(!is_ours(other, "radio.example"), "{other}");
        }
    }

    #[test]
    fn another_sites_page_is_recognised() {
        let fields = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(n, v)| (n.parse::<header::HeaderName>().unwrap(), v.parse().unwrap()))
                .collect::<HeaderMap>()
        };
        let host = Some("127.0.0.1:8000");
        assert!(!is_cross_site(&fields(&[]), host));
        assert!(!is_cross_site(
            &fields(&[("origin", "http://127.0.0.1:8000")]),
            host
        ));
        assert!(!is_cross_site(&fields(&[("sec-fetch-site", "none")]), host));
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(is_cross_site(&fields(&[(name, value)]), host), "{name}: {value}");
        }
    }
}
