//! The desk: answers what is not the stream itself (`/status`, playlists), on a thread of its own.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Weak;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use relay_station::House;
use relay_wire::http::{Method, RequestHead, ResponseBuilder};
use relay_wire::text::m3u;

use crate::SOFTWARE;
use crate::status::Gauge;
use std::sync::Arc;

/// Visitors that may wait; more are let go without an answer.
const QUEUE: usize = 32;
/// How long a visitor may take to read its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection, and what was read from it: a whole request head.
type Visitor = (TcpStream, Vec<u8>);

/// The way in, for a driver's handover. The desk closes when the last one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Entrance(Sender<Visitor>);

impl Entrance {
    /// Never waits.
    pub(crate) fn admit(&self, stream: TcpStream, read: Vec<u8>) {
        let _ = self.0.try_send((stream, read));
    }
}

/// Opens the desk.
pub(crate) fn open(house: Weak<House>, gauge: Arc<Gauge>) -> io::Result<Entrance> {
    let (entrance, visitors) = bounded(QUEUE);
    thread::Builder::new()
        .name("desk".into())
        .spawn(move || serve(&visitors, &house, &gauge))?;
    Ok(Entrance(entrance))
}

fn serve(visitors: &Receiver<Visitor>, house: &Weak<House>, gauge: &Gauge) {
    while let Ok((stream, read)) = visitors.recv() {
        let Some(house) = house.upgrade() else { return };
        let answer = answer(&read, &house, gauge);
        // A visitor that went away is no news.
        let _ = tell(stream, &answer);
    }
}

fn tell(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(answer)?;
    stream.shutdown(Shutdown::Write)
}

fn answer(read: &[u8], house: &House, gauge: &Gauge) -> Vec<u8> {
    let Ok(Some((head, _))) = RequestHead::parse(read) else {
        return text(400, "text/plain", "expected a request\n", true);
    };
    let body = match head.method {
        Method::Get => true,
        Method::Head => false,
        _ => return text(405, "text/plain", "GET and HEAD are answered here\n", true),
    };
    match head.path.as_str() {
        "/status" | "/api/v1/status" => match serde_json::to_string_pretty(&gauge.read(house)) {
            Ok(json) => text(200, "application/json", &(json + "\n"), body),
            Err(error) => text(500, "text/plain", &format!("{error}\n"), body),
        },
        "/healthz" => text(200, "text/plain", "ok\n", body),
        path if is_playlist(path, &gauge.mount) => text(
            200,
            "audio/x-mpegurl",
            &m3u(&stream_url(&head, gauge), &gauge.mount),
            body,
        ),
        _ => text(
            404,
            "text/plain",
            "/ plays; /status and /playlist.m3u are here too\n",
            body,
        ),
    }
}

fn is_playlist(path: &str, mount: &str) -> bool {
    path == "/playlist.m3u" || path.strip_suffix(".m3u") == Some(mount)
}

/// The address the visitor used leads players to us as well.
fn stream_url(head: &RequestHead, gauge: &Gauge) -> String {
    match head.header("host").filter(|host| !host.is_empty()) {
        Some(host) => format!("http://{host}/"),
        None => gauge.player_url.clone(),
    }
}

fn text(status: u16, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let head = ResponseBuilder::new(status)
        .server(SOFTWARE)
        .header("Content-Type", content_type)
        .header("Cache-Control", "no-store")
        .header("Access-Control-Allow-Origin", "*")
        .header("Connection", "close");
    if with_body {
        head.body(body.as_bytes())
    } else {
        head.header("Content-Length", &body.len().to_string()).head()
    }
}
