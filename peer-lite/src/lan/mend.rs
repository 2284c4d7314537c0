//! Holes are mended over the link of a node: it is asked for the chunk in which the first hole begins, and let go when
//! there is none left. While the LAN is silent, it carries the stream.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use relay_cast::receive::Receive;
use relay_cast::rtp::Place;
use relay_link::{Follow, FollowConfig, LinkEvent, Position};
use relay_seam::Now;
use socket2::{Domain, Socket, Type};

use crate::options::Channel;

/// A hole is left alone for so long: what is missing may just be late.
const LATE_AT_MOST: Duration = Duration::from_millis(40);
/// The same, where parity may still bring it: a block's time.
const PARITY_AT_MOST: Duration = Duration::from_millis(300);
/// A node that could not be reached, or went, is asked again after so long.
const BACK_OFF: Duration = Duration::from_secs(1);
/// A node that has brought nothing for so long is let go.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// What a chunk is taken for until a node has said it.
const CHUNK_SIZE: u64 = 1316;
/// Bytes that are read in one turn.
const TURN_MAX: usize = 256 << 10;

/// Who mends.
pub(super) struct Mend {
    channel: Channel,
    follow: FollowConfig,
    /// Where it was found last.
    found: Option<SocketAddr>,
    link: Option<Link>,
    chunk_size: u64,
    not_before: Option<Now>,
    links: u64,
    buffer: Vec<u8>,
}

/// One connection.
struct Link {
    stream: TcpStream,
    follow: Follow,
    /// What is still to be asked; empty: everything has been.
    request: Vec<u8>,
    epoch: Option<u64>,
    heard: Now,
    over: bool,
}

impl Mend {
    pub(super) fn new(channel: Channel, follow: FollowConfig) -> Self {
        Self {
            channel,
            follow,
            found: None,
            link: None,
            chunk_size: CHUNK_SIZE,
            not_before: None,
            links: 0,
            buffer: vec![0; 16 << 10],
        }
    }

    /// How often a node was asked.
    pub(super) fn links(&self) -> u64 {
        self.links
    }

    /// Whether one is answering.
    pub(super) fn is_up(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.epoch.is_some())
    }

    /// What to wait for: to be connected, or to hear.
    pub(super) fn stream(&self) -> Option<(&TcpStream, bool)> {
        let link = self.link.as_ref()?;
        Some((&link.stream, !link.request.is_empty()))
    }

    /// Asks, hears, lets go.
    pub(super) fn turn(&mut self, now: Now, silent: bool, receive: &mut Receive) {
        if let Some(link) = &mut self.link {
            let went = link.turn(now, &mut self.buffer, &mut self.chunk_size, silent, receive);
            if went.is_err() || link.over || now.since(link.heard) >= SILENCE_MAX {
                (self.link, self.found) = (None, None);
                self.not_before = Some(now + BACK_OFF);
            }
        }
        let wish = self.wish(now, silent, receive);
        match (wish, &self.link) {
            (None, Some(_)) => self.link = None,
            (Some(from), None) => self.ask(now, from),
            _ => {}
        }
    }

    /// From where a link is wanted, if one is: none within means live.
    fn wish(&self, now: Now, silent: bool, receive: &Receive) -> Option<Option<Place>> {
        if silent {
            return Some(receive.place());
        }
        let hole = receive.hole()?;
        let patience = if receive.stats().parity > 0 {
            PARITY_AT_MOST
        } else {
            LATE_AT_MOST
        };
        let asking = self.link.is_some();
        (asking || now.since(hole.since) >= patience).then_some(Some(hole.from))
    }

    fn ask(&mut self, now: Now, from: Option<Place>) {
        if self.not_before.is_some_and(|moment| now < moment) {
            return;
        }
        let resume = from.map(|place| Position {
            epoch: place.epoch,
            number: place.at / self.chunk_size,
        });
        self.links += 1;
        match self.connect() {
            Ok(stream) => {
                let follow = Follow::new(&self.follow, resume, now);
                self.link = Some(Link {
                    request: follow.request(&self.channel.url.host_header()),
                    stream,
                    follow,
                    epoch: None,
                    heard: now,
                    over: false,
                });
            }
            Err(error) => {
                tracing::debug!("{}: {error}", self.channel.url);
                self.not_before = Some(now + BACK_OFF);
            }
        }
    }
}

impl Mend {
    /// To where it was found last; its name is looked up again when it could not be reached there.
    fn connect(&mut self) -> io::Result<TcpStream> {
        let at = match self.found {
            Some(at) => at,
            None => {
                let name = (self.channel.url.host.as_str(), self.channel.url.port);
                name.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?
            }
        };
        self.found = Some(at);
        begin(at)
    }
}

impl Link {
    fn turn(
        &mut self,
        now: Now,
        buffer: &mut [u8],
        chunk_size: &mut u64,
        silent: bool,
        receive: &mut Receive,
    ) -> io::Result<()> {
        while !self.request.is_empty() {
            match self.stream.write(&self.request) {
                Ok(n) => drop(self.request.drain(..n)),
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let mut read = 0;
        while read < TURN_MAX {
            match self.stream.read(buffer) {
                Ok(0) => {
                    self.over = true;
                    return Ok(());
                }
                Ok(n) => {
                    read += n;
                    self.take(now, &buffer[..n], chunk_size, silent, receive)?;
                }
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        now: Now,
        bytes: &[u8],
        chunk_size: &mut u64,
        silent: bool,
        receive: &mut Receive,
    ) -> io::Result<()> {
        self.heard = now;
        let (epoch, over) = (&mut self.epoch, &mut self.over);
        let mut on = |event: LinkEvent<'_>| match event {
            LinkEvent::Hello(hello) => {
                *epoch = Some(hello.epoch);
                *chunk_size = u64::from(hello.chunk_size).max(1);
            }
            LinkEvent::Chunk(chunk) => {
                let place = epoch.zip(chunk.number.checked_mul(*chunk_size));
                let place = place.map(|(epoch, at)| Place { epoch, at });
                // What is mended is what the LAN plays; only where that is silent may the node say what is played.
                let fits =
                    |place: &Place| silent || receive.place().is_some_and(|ours| ours.epoch == place.epoch);
                if let Some(place) = place.filter(fits) {
                    receive.repaired(now, place, chunk.bytes);
                }
            }
            LinkEvent::End(_) => *over = true,
            _ => {}
        };
        self.follow.feed(now, bytes, &mut on).map_err(io::Error::other)
    }
}

/// Not connected yet, or nothing there.
fn is_early(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, NotConnected, WouldBlock};
    matches!(error.kind(), WouldBlock | NotConnected | Interrupted)
}

/// Begins to connect; whether that worked shows when something is asked.
fn begin(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(at),
        Type::STREAM.nonblocking().cloexec(),
        None,
    )?;
    match socket.connect(&at.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}
