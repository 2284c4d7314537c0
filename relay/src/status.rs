//! `relay status`: how a running node is doing.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use relay_wire::http::{HttpUrl, RequestBuilder, ResponseHead};
use serde_json::Value;

use crate::cli::{Failure, print};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer is at most so long, in bytes.
const ANSWER_MAX: u64 = 8 << 20;

/// Whom to ask, and how to show it.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The node
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// As JSON: {"node": …, "channels": …}
    #[arg(long)]
    pub json: bool,
}

/// Asks and prints.
///
/// # Errors
///
/// With code 2 for a URL that is none, with 1 when there is no node, or it does not answer.
pub fn run(options: &Options) -> Result<(), Failure> {
    let bare = if options.url.contains("://") {
        options.url.clone()
    } else {
        format!("http://{}", options.url)
    };
    let url = HttpUrl::parse(&bare).map_err(|e| {
        Failure::usage(format!(
            "URL: expected http://HOST:PORT, as in http://127.0.0.1:8000; {e}"
        ))
    })?;
    let node = ask(&url, "/api/v1/node")?;
    let mut channels = ask(&url, "/api/v1/channels")?;
    if options.json {
        let both = serde_json::json!({ "node": node, "channels": channels["channels"].take() });
        return print(&format!("{both:#}\n"));
    }
    print(&table(&node, &channels))
}

fn ask(url: &HttpUrl, path: &str) -> Result<Value, Failure> {
    let here = url.host_header();
    let no = |why: String| Failure::runtime(format!("http://{here}: {why}"));
    let answer =
        fetch(url, path).map_err(|e| no(format!("expected a node to answer, got: {e}; is it running?")))?;
    let head = ResponseHead::parse(&answer).map_err(|e| no(format!("expected an HTTP answer: {e}")))?;
    let Some((head, used)) = head else {
        return Err(no("expected an HTTP answer, got the end of the connection".into()));
    };
    if head.status != 200 {
        return Err(no(format!(
            "expected 200 for {path}, got {}; is it a Totality node?",
            head.status
        )));
    }
    serde_json::from_slice(&answer[used..]).map_err(|e| no(format!("expected JSON at {path}: {e}")))
}

fn fetch(url: &HttpUrl, path: &str) -> std::io::Result<Vec<u8>> {
    let mut error = std::io::ErrorKind::NotFound.into();
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return talk(stream, url, path),
            Err(e) => error = e,
        }
    }
    Err(error)
}

fn talk(mut stream: TcpStream, url: &HttpUrl, path: &str) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = RequestBuilder::get(&url.host_header(), path)
        .header("Connection", "close")
        .finish();
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn table(node: &Value, channels: &Value) -> String {
    let word = |key: &str| node[key].as_str().unwrap_or("?").to_owned();
    let count = |key: &str| node[key].as_u64().unwrap_or(0);
    let mut out = format!(
        "{} · {} · {} · {} worker(s) · up {}\n{} of {} listeners · {} links · {} of {} connections\n",
        word("id"),
        word("software"),
        word("backend"),
        count("workers"),
        humantime::format_duration(Duration::from_secs(count("uptime_s"))),
        count("listeners"),
        count("listeners_max"),
        count("links"),
        count("connections"),
        count("connections_max"),
    );
    if let Some(to) = node["multicast"]["to"].as_str() {
        let mount = node["multicast"]["mount"].as_str().unwrap_or("nothing yet");
        let _ = writeln!(out, "multicast of {mount} to {to}");
    }
    if let (Some(mount), Some(at)) = (node["team"]["mount"].as_str(), node["team"]["at"].as_str()) {
        let members = node["totals"]["team_peers"].as_u64().unwrap_or(0);
        let _ = writeln!(out, "team of {mount} at p2psp://{at}: {members} members");
    }
    let rows: Vec<[String; 6]> = channels["channels"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    if rows.is_empty() {
        out.push_str("no channels\n");
        return out;
    }
    let head = ["CHANNEL", "STATE", "LISTENERS (PEAK)", "KBIT/S", "FORMAT", "FROM"].map(str::to_owned);
    out.push('\n');
    lay_out(&mut out, std::iter::once(&head).chain(&rows));
    out
}

fn row(channel: &Value) -> [String; 6] {
    let word = |key: &str| channel[key].as_str().unwrap_or("-").to_owned();
    let number = |key: &str| channel[key].as_u64().unwrap_or(0);
    let path: Vec<&str> = channel["path"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    [
        word("mount"),
        word("state"),
        format!("{} ({})", number("listeners"), number("listeners_peak")),
        (number("bitrate") / 1000).to_string(),
        word("kind"),
        if path.is_empty() {
            "its source".to_owned()
        } else {
            path.join(" > ")
        },
    ]
}

fn lay_out<'a>(out: &mut String, rows: impl Iterator<Item = &'a [String; 6]> + Clone) {
    let mut widths = [0; 6];
    for row in rows.clone() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
