//! The cloud beside the team: a node that leads a team has links, too, and chunks have the same numbers on both
//! ways. So what the team did not bring in time is asked of the node, chunk by chunk, while the player is kept waiting.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use mio::Waker;
use relay_link::{Follow, FollowConfig, LinkEvent, Position};
use relay_seam::Now;

use crate::ask;
use crate::options::Channel;

/// How long the node may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Holes that may wait to be asked for; the node is asked for one at a time, which bounds what it sends in vain.
const HOLES_MAX: usize = 8;
/// The largest hole that is worth asking for, in chunks.
pub(super) const HOLE_CHUNKS_MAX: u64 = 64;

/// A node that has the team's channel.
#[derive(Debug)]
pub(crate) struct Cloud {
    node: Channel,
    follow: FollowConfig,
}

/// What was missing, as far as the node had it.
#[derive(Debug)]
pub(super) struct Filled {
    /// The number of the first that was missing.
    pub(super) from: u64,
    /// In order.
    pub(super) chunks: Vec<(u64, Vec<u8>)>,
}

impl Cloud {
    /// The channel at this node.
    pub(crate) fn new(node: Channel, follow: FollowConfig) -> Self {
        Self { node, follow }
    }

    /// Where the channel is about now.
    ///
    /// # Errors
    ///
    /// When the node does not answer, or has no link for us.
    pub(super) fn locate(&self) -> io::Result<Position> {
        let mut found = None;
        self.read(None, &mut |event| {
            if let LinkEvent::Hello(hello) = event {
                let (epoch, number) = (hello.epoch, hello.first);
                found = Some(Position { epoch, number });
            }
            found.is_none()
        })?;
        found.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// So many chunks from a place on, or those of them that the node still has.
    fn chunks(&self, at: Position, count: u64) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let end = at.number.saturating_add(count);
        let mut chunks = Vec::new();
        self.read(Some(at), &mut |event| match event {
            LinkEvent::Chunk(chunk) if chunk.number < end => {
                chunks.push((chunk.number, chunk.bytes.to_vec()));
                chunk.number + 1 < end
            }
            LinkEvent::Hello(hello) => hello.epoch == at.epoch,
            LinkEvent::Gap { got, .. } => got < end,
            LinkEvent::Chunk(_) | LinkEvent::NewEpoch { .. } | LinkEvent::End(_) => false,
            _ => true,
        })?;
        Ok(chunks)
    }

    /// Reads a link while `on` wants more, not for long.
    fn read(&self, from: Option<Position>, on: &mut impl FnMut(LinkEvent<'_>) -> bool) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut stream = ask::connect(&self.node)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut session = Follow::new(&self.follow, from, Now::new(0, 0));
        stream.write_all(&session.request(&self.node.url.host_header()))?;
        let (mut piece, mut goes_on) = ([0; 8 << 10], true);
        while goes_on && Instant::now() < until {
            let n = stream.read(&mut piece)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            session
                .feed(Now::new(0, 0), &piece[..n], &mut |event| {
                    goes_on = goes_on && on(event)
                })
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// The thread that asks.
#[derive(Debug)]
pub(super) struct Filler {
    holes: SyncSender<(Position, u64)>,
    filled: Receiver<Filled>,
}

impl Filler {
    /// Begins to ask; it ends with what is returned.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub(super) fn start(cloud: Arc<Cloud>, waker: Arc<Waker>) -> io::Result<Self> {
        let (holes, missing) = sync_channel(HOLES_MAX);
        let (tell, filled) = channel();
        thread::Builder::new()
            .name("cloud".into())
            .spawn(move || fill(&cloud, &missing, &tell, &waker))?;
        Ok(Self { holes, filled })
    }

    /// Asks for what is missing; `false` when too much is being asked for already.
    pub(super) fn ask(&self, at: Position, count: u64) -> bool {
        count <= HOLE_CHUNKS_MAX && self.holes.try_send((at, count)).is_ok()
    }

    /// The next answer.
    pub(super) fn filled(&self) -> Option<Filled> {
        self.filled.try_recv().ok()
    }
}

fn fill(cloud: &Cloud, missing: &Receiver<(Position, u64)>, tell: &Sender<Filled>, waker: &Waker) {
    while let Ok((at, count)) = missing.recv() {
        let chunks = cloud.chunks(at, count).unwrap_or_else(|error| {
            tracing::debug!(
                "team: {count} chunks from {} on are not at the node: {error}",
                at.number
            );
            Vec::new()
        });
        let from = at.number;
        if tell.send(Filled { from, chunks }).is_err() || waker.wake().is_err() {
            return;
        }
    }
}
