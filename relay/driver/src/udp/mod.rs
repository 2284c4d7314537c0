//! UDP: sockets, their connected peers, and what arrives on them.
//!
//! Both shores share all of it but the call that sends. Arrivals are watched by an epoll instance, which the shore
//! watches in turn, so a socket costs the shore nothing; they are read in batches, a bounded number in a turn.
//!
//! A **connected peer** is a socket of its own at the same local address, to which the kernel brings what that peer
//! sends. While it is being made, between bind and connect, a stranger's datagram may land on it: hence every arrival
//! is told by the address it came from, and never by the socket it came to.

mod call;
mod hear;
mod letter;
mod post;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use relay_seam::{Conn, Input, Machine, Udp, UdpOptions};

pub(crate) use call::Laid;
use call::{Inbox, Outbox};
use letter::Route;
use socket::{Seat, name_for};

use crate::setup::Setup;
use crate::shore::Shore;
use crate::table::Table;
use crate::wheel::Wheel;

/// Everything that belongs to UDP.
pub(crate) struct Mailroom {
    seats: Table<Seat>,
    /// Made with the first socket.
    desk: Option<Desk>,
    /// Sockets to read; each is in here at most once.
    ready: VecDeque<Conn>,
    outbox: Outbox,
    /// Peers of whom a send has learnt that they are not there.
    unreachable: Vec<(Udp, SocketAddr)>,
    peers: u32,
    limits: Limits,
}

struct Desk {
    arrivals: Epoll,
    inbox: Inbox,
}

struct Limits {
    sockets: u32,
    peers: u32,
    datagram_bytes: usize,
}

impl Mailroom {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self {
            seats: Table::new(setup.max_udp_sockets.saturating_add(setup.max_udp_peers)),
            desk: None,
            ready: VecDeque::new(),
            outbox: Outbox::default(),
            unreachable: Vec::new(),
            peers: 0,
            limits: Limits {
                sockets: setup.max_udp_sockets,
                peers: setup.max_udp_peers,
                datagram_bytes: setup.max_datagram_bytes as usize,
            },
        }
    }

    /// There is something to read.
    pub(crate) fn has_arrivals(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Closes all sockets. Their epoll instance stays: the shore watches it.
    pub(crate) fn shut(&mut self) {
        self.seats = Table::new(0);
        self.ready.clear();
    }

    /// Takes a socket in and watches it.
    fn admit(&mut self, seat: Seat) -> io::Result<Conn> {
        let Some(desk) = &self.desk else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let full = || io::Error::other("the driver's table of UDP sockets is full");
        let place = self.seats.insert(seat).map_err(|_| full())?;
        let watched = self.seats.get(place).map(|seat| {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            desk.arrivals
                .add(seat.fd.as_fd(), EpollEvent::new(flags, pack(place)))
        });
        if let Some(Err(errno)) = watched {
            self.seats.remove(place);
            return Err(errno.into());
        }
        Ok(place)
    }

    /// How to reach `to` from a socket; `None` when it is closed.
    fn route(&self, udp: Udp, to: SocketAddr) -> Option<Route> {
        let owner = self.seats.get(udp.place()).filter(|seat| seat.of.is_none())?;
        let peer = owner.peers.get(&to).copied();
        let place = peer.unwrap_or(udp.place());
        let seat = self.seats.get(place)?;
        Some(Route {
            fd: seat.fd.as_raw_fd(),
            place,
            to: name_for(owner.v6, to),
            connected: peer.is_some(),
            local: seat.local.ip(),
            gso: seat.gso.works(),
            set: seat.gso.set,
        })
    }
}

impl<S: Shore, M: Machine + ?Sized> Wheel<'_, S, M> {
    /// Carries [`relay_seam::Output::OpenUdp`] out.
    pub(crate) fn open_udp(&mut self, token: u64, bind: SocketAddr, options: UdpOptions) -> io::Result<()> {
        self.furnish()?;
        let opened = self.try_open(bind, options);
        match &opened {
            Ok(_) => self.stats.udp_opens.one(),
            Err(_) => self.stats.udp_open_failures.one(),
        }
        let result = opened;
        self.machine.handle(self.now, Input::UdpOpened { token, result });
        Ok(())
    }

    /// What the first socket needs; an error here is the interface's.
    fn furnish(&mut self) -> io::Result<()> {
        if self.mail.desk.is_some() {
            return Ok(());
        }
        let arrivals = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        self.shore.watch_mail(arrivals.0.as_fd())?;
        self.mail.desk = Some(Desk {
            arrivals,
            inbox: Inbox::new(self.mail.limits.datagram_bytes),
        });
        Ok(())
    }

    fn try_open(&mut self, bind: SocketAddr, options: UdpOptions) -> io::Result<(Udp, SocketAddr)> {
        let mail = &mut self.mail;
        if mail.seats.len() as u32 - mail.peers >= mail.limits.sockets {
            let most = mail.limits.sockets;
            return Err(io::Error::other(format!(
                "cannot open udp {bind}: {most} sockets are open already"
            )));
        }
        let seat = Seat::open(bind, options)?;
        let local = seat.local;
        Ok((Udp::new(mail.admit(seat)?), local))
    }

    /// Carries [`relay_seam::Output::ConnectUdp`] out, as far as limits and kernel allow.
    pub(crate) fn connect_udp(&mut self, udp: Udp, peer: SocketAddr) {
        let mail = &mut self.mail;
        let Some(owner) = mail.seats.get(udp.place()).filter(|seat| seat.of.is_none()) else {
            return;
        };
        if owner.peers.contains_key(&peer) {
            return;
        }
        let place = if mail.peers < mail.limits.peers {
            owner.connect(udp, peer).and_then(|seat| mail.admit(seat)).ok()
        } else {
            None
        };
        match (place, mail.seats.get_mut(udp.place())) {
            (Some(place), Some(owner)) => {
                owner.peers.insert(peer, place);
                mail.peers += 1;
                self.stats.udp_peers.one();
            }
            _ => self.stats.udp_peers_refused.one(),
        }
    }

    /// Carries [`relay_seam::Output::DisconnectUdp`] out. What the peer has sent is told first, as far as one call
    /// brings it.
    pub(crate) fn disconnect_udp(&mut self, udp: Udp, peer: SocketAddr) {
        let owner = self.mail.seats.get_mut(udp.place());
        let Some(place) = owner.and_then(|owner| owner.peers.remove(&peer)) else {
            return;
        };
        self.read_mail(place, call::RECEIVED_MAX);
        self.mail.seats.remove(place);
        self.mail.peers -= 1;
        self.door.freed();
    }

    /// Carries [`relay_seam::Output::CloseUdp`] out.
    pub(crate) fn close_udp(&mut self, udp: Udp) {
        let mail = &mut self.mail;
        if mail.seats.get(udp.place()).is_none_or(|seat| seat.of.is_some()) {
            return;
        }
        let Some(owner) = mail.seats.remove(udp.place()) else {
            return;
        };
        for place in owner.peers.into_values() {
            mail.seats.remove(place);
            mail.peers -= 1;
        }
        self.door.freed();
    }
}

/// A place as epoll keeps it.
fn pack(place: Conn) -> u64 {
    u64::from(place.generation()) << 24 | place.slot() as u64
}

fn unpack(packed: u64) -> Conn {
    Conn::new((packed & 0xff_ffff) as u32, (packed >> 24) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_keeps_the_whole_name() {
        for place in [Conn::new(0, 0), Conn::new(Conn::SLOTS_MAX - 1, u32::MAX)] {
            assert_eq!(unpack(pack(place)), place);
        }
    }
}
