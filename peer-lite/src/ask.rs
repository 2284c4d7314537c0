//! Asks a node, once, whether it has links.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use relay_link::{Follow, FollowConfig};
use relay_seam::Now;

use crate::options::Channel;

/// How long the node may take to be found, and to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a node said about links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has this channel by link.
    Link,
    /// It answered, but with no link: a plain server, a link that wants a token, or a channel not yet there.
    NoLink,
    /// It did not answer.
    Silence,
}

/// Asks for the link of a channel and hangs up as soon as the status is known.
pub(crate) fn about_links(channel: &Channel, follow: &FollowConfig) -> Answer {
    match status(channel, follow) {
        Ok(status) if status == *b"200" => Answer::Link,
        Ok(_) => Answer::NoLink,
        Err(_) => Answer::Silence,
    }
}

fn status(channel: &Channel, follow: &FollowConfig) -> io::Result<[u8; 3]> {
    let mut stream = connect(channel)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let session = Follow::new(follow, None, Now::new(0, 0));
    stream.write_all(&session.request(&channel.url.host_header()))?;
    // `HTTP/1.1 200`: the word after the first space.
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    Ok([line[9], line[10], line[11]])
}

fn connect(channel: &Channel) -> io::Result<TcpStream> {
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
