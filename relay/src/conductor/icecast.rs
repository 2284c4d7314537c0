//! Status as Icecast 2.4 answers it: scripts and players read these.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use relay_station::{About, Channel, State as OnAir};
use relay_wire::http::query_param;
use relay_wire::text::{escape_html, http_date, iso_date};
use serde::Serialize;

use super::answer::{json, typed};
use super::desk::Desk;
use super::views::{ChannelView, href, property};

#[derive(Debug, Serialize)]
struct Status {
    icestats: IceStats,
}

/// Fields in Icecast's order, which is the alphabet's.
#[derive(Debug, Serialize)]
struct IceStats {
    admin: String,
    host: String,
    location: String,
    server_id: String,
    server_start: String,
    server_start_iso8601: String,
    #[serde(skip_serializing_if = "Sources::is_none")]
    source: Sources,
    dummy: (),
}

/// Nothing, an object, or an array: as Icecast's style sheet makes them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Sources {
    None,
    One(Box<Source>),
    Many(Vec<Source>),
}

impl Sources {
    fn is_none(&self) -> bool {
        matches!(self, Sources::None)
    }
}

#[derive(Debug, Serialize)]
struct Source {
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bitrate: Option<u64>,
    genre: String,
    listener_peak: usize,
    listeners: usize,
    listenurl: String,
    server_description: String,
    server_name: String,
    server_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_url: Option<String>,
    stream_start: String,
    stream_start_iso8601: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    dummy: (),
}

/// The date as Icecast writes it.
pub(super) fn ice_date(unix_s: u64) -> String {
    http_date(unix_s).replace("GMT", "+0000")
}

/// Where a mount is heard, by the configured name.
pub(super) fn listen_url(desk: &Desk, mount: &str) -> String {
    format!("http://{}{}", own_authority(desk), href(mount))
}

/// Host and port by the configured name.
pub(super) fn own_authority(desk: &Desk) -> String {
    let (host, port) = (&desk.settings.hostname, desk.stage().listen.port());
    // An IPv6 address stands in brackets (RFC 3986, 3.2.2).
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The channels that Icecast would count as sources: those that are, or just were, on the air.
pub(super) fn sources(desk: &Desk, mount: Option<&str>) -> Vec<Arc<Channel>> {
    let heard = |channel: &Arc<Channel>| !matches!(channel.state(), OnAir::Idle | OnAir::Ended);
    let asked = |channel: &Arc<Channel>| mount.is_none_or(|mount| channel.mount == mount);
    desk.house()
        .directory
        .all()
        .into_iter()
        .filter(|c| asked(c) && heard(c))
        .collect()
}

fn source(desk: &Desk, channel: &Channel) -> Source {
    let (about, view) = (channel.about(), ChannelView::of(channel));
    let text = |key: &str, unsaid: &str| property(&about, key).unwrap_or_else(|| unsaid.to_owned());
    Source {
        audio_info: property(&about, "audio-info"),
        bitrate: view.declared_kbps,
        genre: text("genre", "various"),
        listener_peak: view.listeners_peak,
        listeners: view.listeners,
        listenurl: listen_url(desk, &channel.mount),
        server_description: text("description", "Unspecified description"),
        server_name: text("name", "Unspecified name"),
        server_type: view
            .content_type
            .clone()
            .unwrap_or_else(|| "application/octet-stream".to_owned()),
        server_url: property(&about, "url"),
        stream_start: ice_date(about.since_s),
        stream_start_iso8601: iso_date(about.since_s),
        title: title(&about),
        dummy: (),
    }
}

/// The title, if there is one.
pub(super) fn title(about: &About) -> Option<String> {
    Some(about.title.clone()).filter(|title| !title.is_empty())
}

/// The mount that a request is about.
pub(super) fn asked_mount(request: &Request) -> Option<String> {
    request
        .uri()
        .query()
        .and_then(|query| query_param(query, "mount"))
        .filter(|mount| !mount.is_empty())
}

pub(super) async fn status_json(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let channels = sources(&desk, asked_mount(&request).as_deref());
    let mut all: Vec<Source> = channels.iter().map(|channel| source(&desk, channel)).collect();
    let source = match all.len() {
        0 => Sources::None,
        1 => all.pop().map_or(Sources::None, |one| Sources::One(Box::new(one))),
        _ => Sources::Many(all),
    };
    let (settings, started) = (&desk.settings, desk.started_s());
    json(
        StatusCode::OK,
        &Status {
            icestats: IceStats {
                admin: settings.contact.clone(),
                host: settings.hostname.clone(),
                location: settings.location.clone(),
                server_id: desk.house().config.software.clone(),
                server_start: ice_date(started),
                server_start_iso8601: iso_date(started),
                source,
                dummy: (),
            },
        },
    )
}

pub(super) async fn status_html(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let channels = sources(&desk, asked_mount(&request).as_deref());
    let mut rows = String::new();
    for channel in &channels {
        let s = source(&desk, channel);
        let link = href(&channel.mount);
        rows.push_str(&format!(
            "<tr><td><a href=\"{link}\">{}</a> (<a href=\"{link}.m3u\">M3U</a>)</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td></tr>\n",
            escape_html(&channel.mount),
            escape_html(&s.server_name),
            escape_html(&s.server_type),
            s.listeners,
            s.listener_peak,
            escape_html(s.title.as_deref().unwrap_or("")),
        ));
    }
    let heads =
        "<tr><th>Mount</th><th>Name</th><th>Type</th><th>Listeners</th><th>Peak</th><th>Title</th></tr>";
    html("Status", &format!("<table>{heads}\n{rows}</table>"))
}

pub(super) async fn version_html(State(desk): State<Arc<Desk>>) -> Response {
    let config = &desk.house().config;
    let rows: String = [
        ("Software", config.software.as_str()),
        ("Version", desk.settings.version),
        ("Node", config.node_id.as_str()),
        ("I/O", desk.settings.backend.as_str()),
        ("Started", ice_date(desk.started_s()).as_str()),
    ]
    .iter()
    .map(|(name, value)| format!("<tr><th>{name}</th><td>{}</td></tr>\n", escape_html(value)))
    .collect();
    html("Server version", &format!("<table>{rows}</table>"))
}

/// A plain page; `body` is escaped already.
fn html(title: &str, body: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} - Totality</title>\
         <link rel=\"stylesheet\" href=\"/assets/page.css\"></head>\n<body class=\"plain\"><h1>{title}</h1>\n{body}\n\
         </body></html>\n"
    );
    typed(StatusCode::OK, "text/html; charset=utf-8", page)
}
