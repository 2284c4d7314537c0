//! Sending datagrams: a batch at once, and what became of it.

use std::io;

use relay_seam::{Input, Machine, Output};

use super::Mailroom;
use super::letter::{Letter, Mail, Parts};
use crate::act::{bytes_of, from_where};
use crate::shore::Shore;
use crate::stats::SharedStats;
use crate::wheel::Wheel;

/// Bytes of a train from which on a connected socket is told its segments once and for all (until they change): less is
/// not worth the call.
const RAILS_FROM: usize = 8 * 1024;

/// What became of a letter.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Taken,
    /// The train is not to the liking of kernel or device: its datagrams go alone.
    Untrained,
    Dropped,
}

impl<S: Shore, M: Machine + ?Sized> Wheel<'_, S, M> {
    /// Connects the peers of a batch, offers all its datagrams, then says what became of them.
    pub(crate) fn post_all(&mut self, batch: &[Output]) -> io::Result<()> {
        let mut any = false;
        for output in batch {
            match output {
                Output::ConnectUdp { udp, peer } => self.connect_udp(*udp, *peer),
                Output::Datagram(_) => any = true,
                _ => {}
            }
        }
        if any { self.post_mail(batch) } else { Ok(()) }
    }

    fn post_mail(&mut self, batch: &[Output]) -> io::Result<()> {
        let (mut mail, mut dropped) = collect(&*self.machine, &self.mail, batch);
        self.stats
            .datagrams_refused
            .add(dropped.iter().filter(|dropped| **dropped).count() as u64);
        self.mail.lay_rails(&mut mail);
        // The mail borrows the machine: until the shore returns, nothing can change it. This is what keeps the ring's
        // memory pinned while the kernel reads it.
        let results = post(&mut self.mail, &mut self.shore, &mail)?;
        for (letter, result) in mail.letters.iter().zip(results) {
            let mut fate = self.mail.judge(letter, result, &self.stats);
            if fate == Fate::Untrained {
                fate = post_singly(&mut self.mail, &mut self.shore, &mail, letter, &self.stats)?;
            }
            if fate != Fate::Taken {
                dropped[letter.outputs.clone()].fill(true);
            }
        }
        drop(mail);
        self.now = crate::clock::now();
        let lost = dropped.iter().filter(|dropped| **dropped).count();
        let (taken, dropped) = ((dropped.len() - lost) as u32, lost as u32);
        self.machine.handle(self.now, Input::Posted { taken, dropped });
        while let Some((udp, peer)) = self.mail.unreachable.pop() {
            self.stats.datagrams_unreachable.one();
            self.machine.handle(self.now, Input::Unreachable { udp, peer });
        }
        Ok(())
    }
}

/// The mail of a batch, and which of its datagram outputs are dropped already.
fn collect<'b, M: Machine + ?Sized>(
    machine: &'b M,
    mailroom: &Mailroom,
    batch: &'b [Output],
) -> (Mail<'b>, Vec<bool>) {
    let mut mail = Mail::with_room(batch.len());
    let mut dropped = Vec::with_capacity(batch.len());
    let mut last = None;
    for output in batch {
        let Output::Datagram(datagram) = output else {
            continue;
        };
        let (udp, to) = (datagram.udp, datagram.to);
        // Neighbours often go the same way: one search serves them.
        let known = last
            .filter(|(known, _)| *known == (udp, to))
            .map(|(_, route)| route);
        let route = known.or_else(|| mailroom.route(udp, to));
        last = route.map(|route| ((udp, to), route));
        let body = datagram.body.as_ref();
        let body = body.map_or(&[][..], |payload| bytes_of(machine, payload));
        let parts = Parts {
            head: datagram.head.bytes(),
            body,
            from: datagram
                .body
                .as_ref()
                .and_then(|payload| from_where(machine, payload)),
        };
        let added = route.is_some_and(|route| mail.add(route, dropped.len(), parts, datagram.segment));
        dropped.push(!added);
    }
    (mail, dropped)
}

/// The datagrams of a refused train, each on its own.
fn post_singly<S: Shore>(
    mailroom: &mut Mailroom,
    shore: &mut S,
    mail: &Mail<'_>,
    letter: &Letter<'_>,
    stats: &SharedStats,
) -> io::Result<Fate> {
    let mut singles = mail.singles(letter);
    mailroom.lay_rails(&mut singles);
    let results = post(mailroom, shore, &singles)?;
    let mut fate = Fate::Taken;
    for (single, result) in singles.letters.iter().zip(results) {
        if mailroom.judge(single, result, stats) != Fate::Taken {
            fate = Fate::Dropped;
        }
    }
    Ok(fate)
}

impl Mailroom {
    /// Sets `UDP_SEGMENT` on connected sockets whose trains are worth it, and notes in all letters what is set.
    fn lay_rails(&mut self, mail: &mut Mail<'_>) {
        let mut changed = false;
        for letter in &mail.letters {
            if letter.count == 1 || letter.len < RAILS_FROM || !letter.route.connected {
                continue;
            }
            let segment = letter.segment as u16;
            let seat = self.seats.get_mut(letter.route.place);
            if let Some(seat) = seat.filter(|seat| seat.gso.set != segment) {
                // Refused: the control message will be, too, and is answered to.
                changed |= seat.set_segment(segment).is_ok();
            }
        }
        let connected = mail.letters.iter_mut().filter(|letter| letter.route.connected);
        for letter in connected.filter(|_| changed) {
            if let Some(seat) = self.seats.get(letter.route.place) {
                letter.route.set = seat.gso.set;
            }
        }
    }

    /// What the kernel's answer means for a letter; counts it.
    fn judge(&mut self, letter: &Letter<'_>, result: i32, stats: &SharedStats) -> Fate {
        if result >= 0 {
            stats.datagrams_sent.add(letter.count as u64);
            stats.datagram_bytes_sent.add(letter.len as u64);
            if letter.count > 1 {
                stats.trains.one();
                let seat = self.seats.get_mut(letter.route.place);
                seat.into_iter().for_each(|seat| seat.gso.taken());
            }
            return Fate::Taken;
        }
        match (-result, self.seats.get_mut(letter.route.place)) {
            (errno @ (libc::EIO | libc::EINVAL | libc::EMSGSIZE), Some(seat)) if letter.count > 1 => {
                stats.trains_refused.one();
                seat.gso.refused(errno);
                // Left on the socket, it would be held against single datagrams, too.
                if seat.gso.set != 0 && seat.set_segment(0).is_err() {
                    stats.sockopt_failures.one();
                }
                Fate::Untrained
            }
            (libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR, _) => {
                stats.datagrams_full.add(letter.count as u64);
                Fate::Dropped
            }
            (errno, seat) => {
                stats.datagrams_refused.add(letter.count as u64);
                if errno == libc::ECONNREFUSED {
                    // The answer to an earlier one; the kernel tells it to whoever comes next.
                    self.unreachable.extend(seat.and_then(|seat| seat.of));
                }
                Fate::Dropped
            }
        }
    }
}

fn post<S: Shore>(mailroom: &mut Mailroom, shore: &mut S, mail: &Mail<'_>) -> io::Result<Vec<i32>> {
    let mut results = vec![-libc::ENOTCONN; mail.letters.len()];
    shore.post(&mut mailroom.outbox.lay_out(mail), &mut results)?;
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::socket::Seat;
    use relay_seam::{Udp, UdpOptions};
    use std::net::SocketAddr;

    const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

    /// A mailroom with one socket and one connected peer.
    fn room() -> (Mailroom, Udp) {
        let bell = relay_ring::Bell::new().unwrap();
        let setup = crate::Setup::new(Vec::new(), bell, Box::new(|_, _| {}));
        let mut room = Mailroom::new(&setup);
        let seat = Seat::open(([127, 0, 0, 1], 0).into(), UdpOptions::default()).unwrap();
        let udp = Udp::new(room.seats.insert(seat).ok().unwrap());
        let peer = room
            .seats
            .get(udp.place())
            .unwrap()
            .connect(udp, PEER.into())
            .unwrap();
        let peer = room.seats.insert(peer).ok().unwrap();
        room.seats
            .get_mut(udp.place())
            .unwrap()
            .peers
            .insert(PEER.into(), peer);
        (room, udp)
    }

    fn train<'a>(room: &Mailroom, udp: Udp, bytes: &'a [u8]) -> Mail<'a> {
        let mut mail = Mail::default();
        let route = room.route(udp, SocketAddr::from(PEER)).unwrap();
        assert!(route.connected);
        let parts = Parts {
            body: bytes,
            ..Parts::default()
        };
        assert!(mail.add(route, 0, parts, 1000));
        mail
    }

    #[test]
    fn the_kernels_answers_are_understood_and_counted() {
        let (mut room, udp) = room();
        let bytes = [1; 3000];
        let mail = train(&room, udp, &bytes);
        let stats = SharedStats::default();
        let mut judged = |result| room.judge(&mail.letters[0], result, &stats);
        assert_eq!(judged(3000), Fate::Taken);
        assert_eq!(
            (judged(-libc::EAGAIN), judged(-libc::ENOBUFS)),
            (Fate::Dropped, Fate::Dropped)
        );
        assert_eq!(
            (judged(-libc::EPERM), judged(-libc::ECONNREFUSED)),
            (Fate::Dropped, Fate::Dropped)
        );
        assert_eq!(judged(-libc::EMSGSIZE), Fate::Untrained);
        let stats = stats.read();
        assert_eq!(
            (stats.datagrams_sent, stats.trains, stats.trains_refused),
            (3, 1, 1)
        );
        assert_eq!((stats.datagrams_full, stats.datagrams_refused), (6, 6));
        assert_eq!(room.unreachable, [(udp, SocketAddr::from(PEER))]);
    }

    #[test]
    fn rails_are_laid_for_long_trains_and_taken_up_when_the_device_refuses() {
        let (mut room, udp) = room();
        let stats = SharedStats::default();
        let bytes = [1; 9000];
        let mut short = train(&room, udp, &bytes[..3000]);
        room.lay_rails(&mut short);
        assert_eq!(short.letters[0].control(), Some(1000));
        let mut long = train(&room, udp, &bytes);
        room.lay_rails(&mut long);
        assert_eq!(long.letters[0].control(), None);
        assert_eq!(train(&room, udp, &bytes[..3000]).letters[0].control(), None);
        room.judge(&long.letters[0], -libc::EIO, &stats);
        let route = room.route(udp, SocketAddr::from(PEER)).unwrap();
        assert_eq!((route.gso, route.set), (false, 0));
    }
}
