//! Asks a node, once: whether it has links, where its team is, and by which group it casts a channel.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use relay_cast::sdp::Announcement;
use relay_link::{Follow, FollowConfig, LINK_FIELD};
use relay_seam::Now;
use relay_wire::http::{HEAD_BYTES_MAX, RequestBuilder, ResponseHead};
use splitter::Dialect;

use crate::lan::Lan;
use crate::options::Channel;

/// How long the node may take to be found, and to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a node says of itself is shorter.
const NODE_BYTES_MAX: u64 = 256 << 10;

/// Bytes of an answer that are read at most: its head, and an announcement.
const ANSWER_MAX: u64 = (HEAD_BYTES_MAX + relay_cast::sdp::BYTES_MAX) as u64;

/// What a node said about links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has links, and so this channel by link, now or when it comes.
    Link,
    /// It answered, but with no link: a plain server, or a link that is not for us.
    NoLink,
    /// It did not answer.
    Silence,
}

/// Asks for the link of a channel and hangs up as soon as the answer is known.
pub(crate) fn about_links(channel: &Channel, follow: &FollowConfig) -> Answer {
    match answer(channel, follow) {
        Ok(head) if head.status == 200 => Answer::Link,
        // The node has links, and the channel may come.
        Ok(head) if head.status == 404 && head.header(LINK_FIELD).is_some() => Answer::Link,
        Ok(_) => Answer::NoLink,
        Err(_) => Answer::Silence,
    }
}

/// The team that a node leads with a channel: the channel as its splitter has it, and what is spoken there.
///
/// # Errors
///
/// When the node does not answer, or leads no team with this channel.
pub(crate) fn about_team(channel: &Channel) -> io::Result<(Channel, Dialect)> {
    let mut stream = connect(channel)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let host = channel.url.host_header();
    write!(stream, "GET /api/v1/node HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(NODE_BYTES_MAX).read_to_end(&mut answer)?;
    let head = ResponseHead::parse(&answer).map_err(io::Error::other)?;
    let body = head.map_or(&[][..], |(_, at)| &answer[at..]);
    let node: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let found = team_of(channel, &node["team"]);
    found.ok_or_else(|| {
        let mount = &channel.mount;
        io::Error::other(format!(
            "the node at {host} leads no team with {mount} (relay run --team {mount})"
        ))
    })
}

fn team_of(channel: &Channel, team: &serde_json::Value) -> Option<(Channel, Dialect)> {
    let at: SocketAddr = team["at"].as_str()?.parse().ok()?;
    let wire = match team["wire"].as_str()? {
        "b" => Dialect::B,
        "c" => Dialect::C,
        _ => return None,
    };
    let mut found = channel.clone();
    found.url.port = at.port();
    // At every address of the node: so at the one that we know.
    if !at.ip().is_unspecified() {
        found.url.host = at.ip().to_string();
    }
    (team["mount"].as_str()? == channel.mount).then_some((found, wire))
}

/// The group by which a node casts a channel, as it announces it.
///
/// # Errors
///
/// A sentence that says what was expected and what came.
pub fn announced(url: &str) -> Result<Lan, String> {
    let channel = Channel::parse(url).map_err(|error| error.to_string())?;
    let text = fetch(&channel).map_err(|error| format!("expected the announcement at {url}.sdp: {error}"))?;
    let said = Announcement::read(&text).map_err(|error| format!("{url}.sdp: {error}"))?;
    let sender = said.from.and_then(|from| match from {
        // In the range of RFC 4607 there is nothing without naming the sender.
        IpAddr::V4(from) if matches!(said.to.ip(), IpAddr::V4(group) if group.octets()[0] == 232) => {
            Some(from)
        }
        _ => None,
    });
    Ok(Lan {
        group: said.to,
        sender,
        interface: None,
    })
}

fn fetch(channel: &Channel) -> io::Result<String> {
    let mut stream = connect(channel)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = format!("{}.sdp", channel.url.path_and_query);
    let request = RequestBuilder::get(&channel.url.host_header(), &path).header("Connection", "close");
    stream.write_all(&request.finish())?;
    let mut said = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut said)?;
    let (head, used) = ResponseHead::parse(&said)
        .map_err(io::Error::other)?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let text = String::from_utf8_lossy(&said[used..]).into_owned();
    match head.status {
        200 => Ok(text),
        status => Err(io::Error::other(format!("{status}: {}", text.trim()))),
    }
}

fn answer(channel: &Channel, follow: &FollowConfig) -> io::Result<ResponseHead> {
    let mut stream = connect(channel)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let session = Follow::new(follow, None, Now::new(0, 0));
    stream.write_all(&session.request(&channel.url.host_header()))?;
    let (mut head, mut piece) = (Vec::new(), [0; 2048]);
    loop {
        let n = stream.read(&mut piece)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&piece[..n]);
        // The parser refuses a head that is too long, which bounds the loop.
        if let Some((head, _)) = ResponseHead::parse(&head).map_err(io::Error::other)? {
            return Ok(head);
        }
    }
}

pub(crate) fn connect(channel: &Channel) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (channel.url.host.as_str(), channel.url.port)
        .to_socket_addrs()?
        .take(2)
    {
        match TcpStream::connect_timeout(&address, PATIENCE / 2) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_team_is_where_the_node_says() {
        let channel = Channel::parse("http://sun.example:8000/a.ts").unwrap();
        let of = |mount: &str, at: &str, wire: &str| {
            let team = serde_json::json!({ "mount": mount, "at": at, "wire": wire });
            let (team, wire) = team_of(&channel, &team)?;
            Some((team.url.host, team.url.port, wire))
        };
        let is = |host: &str, wire| Some((host.to_owned(), 8001, wire));
        assert_eq!(of("/a.ts", "10.0.0.1:8001", "b"), is("10.0.0.1", Dialect::B));
        assert_eq!(of("/a.ts", "0.0.0.0:8001", "c"), is("sun.example", Dialect::C));
        assert_eq!(of("/b.ts", "10.0.0.1:8001", "b"), None, "another channel's");
        assert_eq!(of("/a.ts", "10.0.0.1", "b"), None);
        assert_eq!(of("/a.ts", "10.0.0.1:8001", "z"), None);
        assert_eq!(team_of(&channel, &serde_json::Value::Null), None);
    }
}
