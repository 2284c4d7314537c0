//! Asks a node, once, whether it has links.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use relay_link::{Follow, FollowConfig, LINK_FIELD};
use relay_seam::Now;
use relay_wire::http::ResponseHead;

use crate::options::Channel;

/// How long the node may take to be found, and to answer.
const PATIENCE: Duration = Duration::from_secs(1);

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
