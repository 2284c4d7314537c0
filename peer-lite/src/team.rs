//! A peer as member of a P2PSP team: what it is told at its start, how it is doing, and its thread.
//!
//! The rules are the `splitter` room's; [`member`] carries them out, [`player`] hands what is to be played to the same
//! station that plays links.

mod cap;
mod cloud;
mod header;
mod member;
mod player;

use std::io;
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use mio::{Poll, Waker};
use relay_station::House;
use splitter::Dialect;

use crate::options::{Channel, TeamOptions};
pub(crate) use cloud::Cloud;
use member::Member;

/// How the membership is doing. Counts are of chunks, since the start, over all memberships.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TeamStatus {
    /// Where the splitter is.
    pub splitter: String,
    /// The generation of the wire: `b` or `c`.
    pub wire: String,
    /// `connecting`, `joining`, `member`, `leaving` or `waiting` (to try again).
    pub state: String,
    /// Why the last membership ended, or could not begin.
    pub reason: String,
    /// Whether it only helps, and plays nothing.
    pub donating: bool,
    /// Times it became a member.
    pub joins: u64,
    /// Team mates now.
    pub mates: u64,
    /// Received: new ones, from the splitter and from team mates.
    pub received: u64,
    /// Of these, from the splitter.
    pub from_splitter: u64,
    /// Relayed to team mates.
    pub relayed: u64,
    /// Not relayed, because that would have been over the upload cap.
    pub relays_capped: u64,
    /// Given to players.
    pub played: u64,
    /// Missing when their turn came.
    pub lost: u64,
    /// Of these, brought by the node in time, where the node is known.
    pub filled: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after their turn.
    pub late: u64,
    /// Losses reported to the splitter.
    pub complaints: u64,
    /// Relayed to team mates beyond what came from them: what the team owes us.
    pub debt: i64,
    /// Stream bytes that found no room on their way to the players.
    pub overrun_bytes: u64,
    /// Bytes sent to the team, with the headers of UDP and IP.
    pub bytes_sent: u64,
    /// Datagrams that the kernel did not take.
    pub unsent: u64,
    /// The most of what is sent to the team, in bits per second; 0: no limit.
    pub upload_cap: u64,
}

/// What the member's thread and everybody else share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    status: Mutex<TeamStatus>,
    stop: AtomicBool,
}

impl Shared {
    pub(crate) fn read(&self) -> TeamStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, status: TeamStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// A member at work.
#[derive(Debug)]
pub(crate) struct Membership {
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    thread: JoinHandle<()>,
}

impl Membership {
    /// Begins to join the team of a splitter, which need not be there yet. What the team loses is asked of the cloud.
    ///
    /// # Errors
    ///
    /// When there is no thread or descriptor to be had.
    pub(crate) fn begin(
        channel: &Channel,
        options: &TeamOptions,
        cloud: Option<Cloud>,
        house: Arc<House>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), member::WAKER)?);
        let mut member = Member::new(channel, options, house, shared.clone(), poll, waker.clone());
        cloud.map(|cloud| member.ask_too(cloud)).transpose()?;
        let thread = thread::Builder::new()
            .name("member".into())
            .spawn(move || member.run())?;
        Ok(Self {
            shared,
            waker,
            thread,
        })
    }

    /// Says goodbye and waits until that is heard, a few seconds at most.
    pub(crate) fn leave(self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if self.waker.wake().is_ok() {
            let _ = self.thread.join();
        }
    }
}

/// One letter.
fn wire_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::B => "b",
        Dialect::C => "c",
    }
}

/// The IPv4 endpoint of a host: this wire knows no others.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddrV4> {
    let mut all = (host, port).to_socket_addrs()?;
    let v4 = all.find_map(|at| match at {
        SocketAddr::V4(at) => Some(at),
        SocketAddr::V6(_) => None,
    });
    v4.ok_or_else(|| io::Error::other(format!("expected a host with an IPv4 address, got {host}")))
}
