//! `/admin/…`: what Icecast lets an administrator, and a source, ask and change.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use percent_encoding::percent_decode;
use relay_station::{Channel, State as OnAir};
use relay_wire::http::query_param;
use relay_wire::text::iso_date;

use super::answer::{error_page, escape_xml, text, with, xml};
use super::desk::Desk;
use super::guard::{self, Who};
use super::icecast::{ice_date, listen_url, sources, title};
use super::serve::{Peer, User};
use super::views::{ChannelView, property};

/// A title is cut to this many bytes; players are sent what fits a metadata block.
const TITLE_MAX: usize = 2048;

/// One call, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Stats,
    ListClients,
    ListMounts,
    Metadata,
    KillClient,
    MoveClients,
    KillSource,
}

impl Call {
    /// With `.xsl` Icecast answers the same as a page; here it is XML either way.
    fn named(name: &str) -> Option<Call> {
        Some(match name.strip_suffix(".xsl").unwrap_or(name) {
            "stats" | "stats.xml" => Call::Stats,
            "listclients" => Call::ListClients,
            "listmounts" => Call::ListMounts,
            "metadata" => Call::Metadata,
            "killclient" => Call::KillClient,
            "moveclients" => Call::MoveClients,
            "killsource" => Call::KillSource,
            _ => return None,
        })
    }

    fn changes(self) -> bool {
        !matches!(self, Call::Stats | Call::ListClients | Call::ListMounts)
    }
}

/// What a call refuses, as Icecast does.
fn bad(why: &str) -> Response {
    error_page(StatusCode::BAD_REQUEST, why)
}

/// What a call has done.
fn done(message: &str, ok: bool) -> Response {
    let message = escape_xml(message);
    xml(&format!(
        "<iceresponse><message>{message}</message><return>{}</return></iceresponse>",
        u8::from(ok)
    ))
}

pub(super) async fn call(
    State(desk): State<Arc<Desk>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let Some(call) = Call::named(&name) else {
        return bad("Unknown admin request");
    };
    // HEAD promises to change nothing (RFC 9110, 9.2.1); GET does too, but Icecast's clients know nothing else.
    let fits = match *request.method() {
        Method::GET | Method::POST => true,
        Method::HEAD => !call.changes(),
        _ => false,
    };
    if !fits {
        let refused = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "This call answers GET and POST.\n",
        );
        return with(refused, header::ALLOW, "GET, POST");
    }
    if call.changes()
        && let Some(refused) = guard::refuse_strangers(&desk, request.headers())
    {
        return refused;
    }
    let asked = Asked {
        query: request.uri().query().unwrap_or_default(),
    };
    let mount = asked.get("mount");
    let titled = if call == Call::Metadata {
        mount.as_deref()
    } else {
        None
    };
    let who = match guard::admit(&desk, &request, titled) {
        Ok(who) => who,
        Err(refused) => return *refused,
    };
    let mut answer = match call {
        Call::Stats => stats(&desk, mount.as_deref()),
        Call::ListMounts => list_mounts(&desk),
        _ => {
            let Some(channel) = mount.and_then(|mount| desk.house().directory.get(&mount)) else {
                return bad("Source does not exist");
            };
            match call {
                Call::ListClients => list_clients(&desk, &channel).await,
                Call::Metadata => metadata(&desk, &channel, who, &request, &asked),
                Call::KillClient => kill_client(&desk, &channel, &asked).await,
                Call::MoveClients => move_clients(&desk, &channel, &asked).await,
                _ => kill_source(&channel),
            }
        }
    };
    answer.extensions_mut().insert(User(who.name()));
    answer
}

/// A query's parameters.
struct Asked<'a> {
    query: &'a str,
}

impl Asked<'_> {
    fn get(&self, key: &str) -> Option<String> {
        query_param(self.query, key).filter(|value| !value.is_empty())
    }

    /// A parameter in the encoding that `charset` names: UTF-8 where it is valid, else Latin-1, unless it says Latin-1.
    fn worded(&self, key: &str) -> Option<String> {
        let charset = self.get("charset").unwrap_or_default().to_ascii_lowercase();
        if !matches!(
            charset.as_str(),
            "iso-8859-1" | "iso8859-1" | "latin1" | "latin-1"
        ) {
            return self.get(key);
        }
        let (_, raw) = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)?;
        let spaced = raw.replace('+', " ");
        Some(percent_decode(spaced.as_bytes()).map(char::from).collect())
    }
}

/// An element with text.
fn element(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(out, "<{name}>{}</{name}>", escape_xml(&value.to_string()));
}

fn stats(desk: &Desk, mount: Option<&str>) -> Response {
    let channels = sources(desk, mount);
    if mount.is_some() && channels.is_empty() {
        return bad("Source does not exist");
    }
    let mut out = String::from("<icestats>");
    let (house, settings, started) = (desk.house(), &desk.settings, desk.started_s());
    element(&mut out, "admin", &settings.contact);
    element(&mut out, "client_connections", desk.total("accepted"));
    element(&mut out, "clients", house.admission().connections());
    element(&mut out, "connections", desk.total("accepted"));
    element(&mut out, "file_connections", desk.total("handed_over"));
    element(&mut out, "host", &settings.hostname);
    element(&mut out, "listener_connections", desk.total("greeted"));
    element(&mut out, "listeners", house.admission().listeners());
    element(&mut out, "location", &settings.location);
    element(&mut out, "server_id", &house.config.software);
    element(&mut out, "server_start", ice_date(started));
    element(&mut out, "server_start_iso8601", iso_date(started));
    element(&mut out, "source_total_connections", desk.total("epochs"));
    element(&mut out, "sources", channels.len());
    for channel in &channels {
        source_stats(&mut out, desk, channel);
    }
    out.push_str("</icestats>");
    xml(&out)
}

fn source_stats(out: &mut String, desk: &Desk, channel: &Channel) {
    let (about, view) = (channel.about(), ChannelView::of(channel));
    let _ = write!(out, "<source mount=\"{}\">", escape_xml(&channel.mount));
    for (name, key) in [
        ("audio_info", "audio-info"),
        ("bitrate", "br"),
        ("genre", "genre"),
    ] {
        if let Some(value) = property(&about, key) {
            element(out, name, value);
        }
    }
    element(out, "listener_peak", view.listeners_peak);
    element(out, "listeners", view.listeners);
    element(out, "listenurl", listen_url(desk, &channel.mount));
    element(out, "max_listeners", "unlimited");
    for (name, key) in [
        ("public", "pub"),
        ("server_description", "description"),
        ("server_name", "name"),
        ("server_url", "url"),
    ] {
        if let Some(value) = property(&about, key) {
            element(out, name, value);
        }
    }
    element(
        out,
        "server_type",
        view.content_type.as_deref().unwrap_or("application/octet-stream"),
    );
    element(out, "source_ip", address(&about.from));
    element(out, "stream_start", ice_date(about.since_s));
    element(out, "stream_start_iso8601", iso_date(about.since_s));
    if let Some(title) = title(&about) {
        element(out, "title", title);
    }
    element(out, "total_bytes_read", view.bytes_in);
    element(out, "total_bytes_sent", view.bytes_out);
    element(out, "user_agent", &about.agent);
    out.push_str("</source>");
}

/// The address without its port, where it is one.
fn address(from: &str) -> String {
    let peer = from.parse::<std::net::SocketAddr>();
    peer.map_or_else(|_| from.to_owned(), |peer| peer.ip().to_canonical().to_string())
}

fn list_mounts(desk: &Desk) -> Response {
    let mut out = String::from("<icestats>");
    for channel in sources(desk, None) {
        let view = ChannelView::of(&channel);
        let fallback = desk.house().config.source_at(&channel.mount).fallback.clone();
        let _ = write!(out, "<source mount=\"{}\">", escape_xml(&channel.mount));
        element(&mut out, "fallback", fallback.unwrap_or_default());
        element(&mut out, "listeners", view.listeners);
        element(&mut out, "Connected", view.seconds);
        element(&mut out, "content-type", view.content_type.unwrap_or_default());
        out.push_str("</source>");
    }
    out.push_str("</icestats>");
    xml(&out)
}

async fn list_clients(desk: &Desk, channel: &Channel) -> Response {
    let listeners = desk.listeners(Some(&channel.mount)).await;
    let mut out = format!("<icestats><source mount=\"{}\">", escape_xml(&channel.mount));
    element(&mut out, "Listeners", listeners.len());
    for listener in listeners {
        out.push_str("<listener>");
        element(&mut out, "IP", listener.peer.ip().to_canonical());
        element(&mut out, "UserAgent", &listener.agent);
        element(&mut out, "Connected", listener.seconds);
        element(&mut out, "ID", listener.id);
        out.push_str("</listener>");
    }
    out.push_str("</source></icestats>");
    xml(&out)
}

fn metadata(desk: &Desk, channel: &Channel, who: Who, request: &Request, asked: &Asked<'_>) -> Response {
    if asked.get("mode").as_deref() != Some("updinfo") {
        return bad("No such mode; updinfo is the one there is");
    }
    if channel.state() == OnAir::Ended {
        return bad("Source does not exist");
    }
    if who == Who::Source && !is_its_source(channel, request) {
        return error_page(
            StatusCode::FORBIDDEN,
            "A source may set the title from its own address only",
        );
    }
    let title = match (
        asked.worded("song"),
        asked.worded("artist"),
        asked.worded("title"),
    ) {
        (Some(song), _, _) => song,
        (None, Some(artist), Some(title)) => format!("{artist} - {title}"),
        (None, None, Some(title)) => title,
        // An empty song takes the title away; nothing at all is a mistake.
        (None, None, None) if query_param(asked.query, "song").is_some() => String::new(),
        _ => return bad("No song, and no artist with a title"),
    };
    if !desk.may_title(&channel.mount) {
        desk.tallies.titles_limited.up();
        let refused = error_page(StatusCode::TOO_MANY_REQUESTS, "Too many titles in this second");
        return with(refused, header::RETRY_AFTER, "1");
    }
    channel.set_title(&clean(&title));
    desk.tallies.titles.up();
    done("Metadata update successful", true)
}

/// Whether a request comes from where the channel's source is.
fn is_its_source(channel: &Channel, request: &Request) -> bool {
    let Some(Peer(peer)) = request.extensions().get::<Peer>() else {
        return false;
    };
    let source = channel.about().from.parse::<std::net::SocketAddr>();
    source.is_ok_and(|source| source.ip().to_canonical() == peer.ip().to_canonical())
}

/// A title without control characters, at most [`TITLE_MAX`] bytes.
fn clean(title: &str) -> String {
    let title = &title[..title.floor_char_boundary(TITLE_MAX)];
    let words: String = title
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // A control character beyond ASCII has two bytes, a space one: it cannot have grown.
    words.trim().to_owned()
}

async fn kill_client(desk: &Desk, channel: &Channel, asked: &Asked<'_>) -> Response {
    let Some(text) = asked.get("id") else {
        return bad("Missing parameter");
    };
    let Ok(id) = text.parse::<u64>() else {
        return bad("The id of a client is a number");
    };
    let here = desk
        .listeners(Some(&channel.mount))
        .await
        .iter()
        .any(|listener| listener.id == id);
    if here && desk.kill(id).await {
        return done(&format!("Client {id} removed"), true);
    }
    done(&format!("Client {id} not found"), false)
}

async fn move_clients(desk: &Desk, channel: &Channel, asked: &Asked<'_>) -> Response {
    let Some(to) = asked.get("destination") else {
        return bad("Missing parameter");
    };
    let to = desk
        .house()
        .directory
        .get(&to)
        .filter(|to| !matches!(to.state(), OnAir::Idle | OnAir::Ended));
    let Some(to) = to else {
        return bad("No such destination");
    };
    if to.mount == channel.mount {
        return bad("supplied mountpoints are identical");
    }
    desk.move_clients(&channel.mount, &to.mount).await;
    done(
        &format!("Clients moved from {} to {}", channel.mount, to.mount),
        true,
    )
}

fn kill_source(channel: &Channel) -> Response {
    if matches!(channel.state(), OnAir::Idle | OnAir::Ended) || !channel.is_claimed() {
        return bad("Source does not exist");
    }
    channel.change(|about| about.kill = true);
    done("Source Removed", true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_bounded_and_of_one_line() {
        assert_eq!(clean(" a\r\nb\0\u{9b} "), "a  b");
        let long = clean(&"é".repeat(40_000));
        assert_eq!(long.len(), TITLE_MAX);
        assert!(clean(&"\u{85}☀".repeat(10_000)).len() <= TITLE_MAX);
    }

    #[test]
    fn a_charset_is_believed() {
        let asked = |query| Asked { query };
        assert_eq!(asked("song=%C3%A9+b").worded("song").unwrap(), "é b");
        assert_eq!(asked("song=%E9").worded("song").unwrap(), "é");
        assert_eq!(
            asked("song=%C3%A9&charset=ISO-8859-1").worded("song").unwrap(),
            "Ã©"
        );
        assert_eq!(asked("song=").worded("song"), None);
    }
}
