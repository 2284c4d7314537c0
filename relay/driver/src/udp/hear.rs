//! Hearing datagrams.

use nix::sys::epoll::{EpollEvent, EpollTimeout};
use relay_seam::{Conn, Input, Machine, Udp};
use std::os::fd::AsFd;

use super::call::RECEIVED_MAX;
use super::{Desk, unpack};
use crate::shore::Shore;
use crate::wheel::Wheel;

/// Datagrams told to the machine in a turn; the rest wait in the kernel, which drops what it has no room for.
const DATAGRAMS_PER_TURN: usize = 256;
/// Sockets asked about in one call.
const EVENTS: usize = 64;

impl<S: Shore, M: Machine + ?Sized> Wheel<'_, S, M> {
    /// Notes which sockets have something to read.
    pub(crate) fn mail_came(&mut self) {
        let mail = &mut self.mail;
        let Some(desk) = &mail.desk else { return };
        let mut events = [EpollEvent::empty(); EVENTS];
        // Each socket is named at most once for what it has now; so many calls name them all.
        for _ in 0..=mail.seats.len() / EVENTS {
            let n = desk.arrivals.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
            for event in &events[..n] {
                let place = unpack(event.data());
                if let Some(seat) = mail.seats.get_mut(place).filter(|seat| !seat.queued) {
                    seat.queued = true;
                    mail.ready.push_back(place);
                }
            }
            if n < EVENTS {
                return;
            }
        }
    }

    /// Reads the sockets that have something, in turn.
    pub(crate) fn hear_mail(&mut self) {
        let mut left = DATAGRAMS_PER_TURN;
        while left > 0 {
            let Some(place) = self.mail.ready.pop_front() else {
                return;
            };
            if self.mail.seats.get(place).is_none() {
                continue;
            }
            match self.read_mail(place, left.min(RECEIVED_MAX)) {
                Some(n) => {
                    left = left.saturating_sub(n.max(1));
                    self.mail.ready.push_back(place);
                }
                None => {
                    if let Some(seat) = self.mail.seats.get_mut(place) {
                        seat.queued = false;
                    }
                }
            }
        }
    }

    /// Tells the machine at most `most` datagrams of a socket, and how many those were; `None` when it was empty.
    pub(super) fn read_mail(&mut self, place: Conn, most: usize) -> Option<usize> {
        let mail = &mut self.mail;
        let (Some(seat), Some(Desk { inbox, .. })) = (mail.seats.get(place), &mut mail.desk) else {
            return None;
        };
        let udp = seat.of.map_or(Udp::new(place), |(udp, _)| udp);
        match inbox.receive(seat.fd.as_fd(), most) {
            Ok(n) => {
                self.tell_arrivals(udp, n);
                Some(n)
            }
            Err(libc::EAGAIN) => None,
            Err(errno) => {
                // An answer of the network to something sent; the kernel has told it and forgets it.
                match seat.of {
                    Some((udp, peer)) if errno == libc::ECONNREFUSED => {
                        self.stats.datagrams_unreachable.one();
                        self.machine.handle(self.now, Input::Unreachable { udp, peer });
                    }
                    _ => self.stats.udp_errors.one(),
                }
                Some(0)
            }
        }
    }

    fn tell_arrivals(&mut self, udp: Udp, n: usize) {
        let Some(Desk { inbox, .. }) = &self.mail.desk else {
            return;
        };
        for i in 0..n {
            let arrival = inbox.arrival(i);
            let (Some(from), false) = (arrival.from, arrival.cut) else {
                self.stats.datagrams_too_long.one();
                continue;
            };
            self.stats.datagrams_received.one();
            self.stats.datagram_bytes_received.add(arrival.bytes.len() as u64);
            let bytes = arrival.bytes;
            self.machine
                .handle(self.now, Input::Datagram { udp, from, bytes });
        }
    }
}
