//! The page, its assets, playlists, and everything that is not there.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use relay_wire::text::m3u;

use super::answer::{problem, text, typed, with};
use super::desk::Desk;
use super::guard::sane_host;
use super::icecast::own_authority;
use super::views::{href, property};

const PAGE: &str = include_str!("../../assets/page.html");
const STYLE: &str = include_str!("../../assets/page.css");
const SCRIPT: &str = include_str!("../../assets/page.js");
const ICON: &str = include_str!("../../assets/icon.svg");

pub(super) async fn index(State(desk): State<Arc<Desk>>) -> Response {
    if desk.settings.page {
        return typed(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    }
    text(StatusCode::NOT_FOUND, "This relay shows no page.\n")
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "page.css" => typed(StatusCode::OK, "text/css; charset=utf-8", STYLE),
        "page.js" => typed(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => typed(StatusCode::OK, "image/svg+xml", ICON),
        _ => not_found(),
    }
}

pub(super) async fn favicon() -> Response {
    typed(StatusCode::OK, "image/svg+xml", ICON)
}

fn not_found() -> Response {
    text(
        StatusCode::NOT_FOUND,
        "There is nothing here. The page at / lists the channels.\n",
    )
}

/// Playlists, and paths that nobody has.
pub(super) async fn other(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refused = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "This path answers GET and HEAD.\n",
        );
        return with(refused, header::ALLOW, "GET, HEAD");
    }
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy();
    if let Some(mount) = path.strip_suffix(".sdp") {
        return announcement(&desk, mount);
    }
    match path.strip_suffix(".m3u") {
        Some(mount) => playlist(&desk, mount, sane_host(request.headers())),
        None if path.starts_with("/api/") => problem(
            StatusCode::NOT_FOUND,
            "there is no such call; see relay/openapi.yaml",
        ),
        None => not_found(),
    }
}

/// A playlist of one mount: at the name by which the client has reached us, if it is one, else at our own.
fn playlist(desk: &Desk, mount: &str, host: Option<&str>) -> Response {
    let (house, listen) = (desk.house(), desk.stage().listen);
    let channel = house.directory.get(mount);
    let may_come = house.config.on_demand && !house.config.upstreams.is_empty();
    if mount.is_empty() || (channel.is_none() && !may_come) {
        return text(
            StatusCode::NOT_FOUND,
            "There is no such mount here. The page at / lists those there are.\n",
        );
    }
    let ours = if listen.ip().is_unspecified() {
        own_authority(desk)
    } else {
        listen.to_string()
    };
    let name = channel.and_then(|channel| property(&channel.about(), "name"));
    let url = format!("http://{}{}", host.unwrap_or(&ours), href(mount));
    typed(
        StatusCode::OK,
        "audio/x-mpegurl",
        m3u(&url, name.as_deref().unwrap_or(mount)),
    )
}

/// What players open to hear a mount by multicast.
fn announcement(desk: &Desk, mount: &str) -> Response {
    let house = desk.house();
    let Some(mut said) = house.cast_announcement(mount) else {
        return text(
            StatusCode::NOT_FOUND,
            "This mount is not cast by multicast. `relay run --multicast GROUP:PORT` casts one.\n",
        );
    };
    if let Some(name) = house
        .directory
        .get(mount)
        .and_then(|channel| property(&channel.about(), "name"))
    {
        said.name = name;
    }
    typed(StatusCode::OK, "application/sdp", said.text())
}
