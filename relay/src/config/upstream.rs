//! Upstreams as they are written: URLs of nodes, of channels, of plain streams.

use relay_station::UpstreamSpec;
use relay_wire::http::{HttpUrl, RequestHead};

use super::error::Error;
use super::values::Field;

/// What [`mount`] expects.
pub(super) const A_MOUNT: &str = "a mount such as /eclipse.ts that is no page of the relay's own";

/// A mount, as it is written in a URL.
pub(super) fn mount(text: &str) -> Option<String> {
    if !text.starts_with('/') || text.contains('?') {
        return None;
    }
    let head = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", text.replace(' ', "%20"));
    let (head, _) = RequestHead::parse(head.as_bytes()).ok()??;
    (head.path.len() > 1 && !relay_station::is_control_path(&head.path)).then_some(head.path)
}

/// One of `upstreams.list`.
pub(super) fn follow(field: &Field) -> Result<UpstreamSpec, Error> {
    let expected = "http://HOST:PORT, http://HOST:PORT/MOUNT or pull+http://HOST:PORT/MOUNT";
    field.read(expected, |text| match text.strip_prefix("pull+") {
        Some(url) => plain(url, None),
        None => link(text),
    })
}

/// One of `upstreams.pull`.
pub(super) fn pull(field: &Field) -> Result<UpstreamSpec, Error> {
    field.read("MOUNT=URL, as in /local.ts=http://HOST:PORT/remote.ts", |text| {
        let (here, url) = text.split_once('=')?;
        plain(url, Some(mount(here)?))
    })
}

fn link(text: &str) -> Option<UpstreamSpec> {
    let url = HttpUrl::parse(text).ok()?;
    let mount = match url.path_and_query.as_str() {
        "/" => None,
        path => Some(mount(path)?),
    };
    Some(UpstreamSpec {
        host: url.host,
        port: url.port,
        mount,
        plain_url: None,
    })
}

/// The mount here, if not given, is the one there, its query left out.
fn plain(text: &str, here: Option<String>) -> Option<UpstreamSpec> {
    let url = HttpUrl::parse(text).ok()?;
    let path = url.path_and_query.split('?').next().unwrap_or_default();
    let mount = here.or_else(|| mount(path))?;
    Some(UpstreamSpec {
        host: url.host,
        port: url.port,
        mount: Some(mount),
        plain_url: Some(text.to_owned()),
    })
}
