//! Carrying out what the machine wants.

use std::io;
use std::os::fd::AsRawFd;

use relay_ring::Reader;
use relay_seam::{Conn, Input, Machine, Output, Payload, Sent};

use crate::clock;
use crate::seat::Phase;
use crate::shore::{Offer, Shore};
use crate::sockopt;
use crate::wheel::Wheel;

/// Outputs carried out together; their sends go to the kernel in one call.
const BATCH: usize = 256;

/// Where a batch of sends is laid out: kept from batch to batch, so that sending allocates nothing.
#[derive(Default)]
pub(crate) struct Desk {
    whom: Vec<(Conn, usize)>,
    results: Vec<i32>,
    offers: Vec<Offer<'static>>,
}

/// An empty vector in the memory of another, for offers that live as long as the next batch.
fn emptied<'b>(mut offers: Vec<Offer<'_>>) -> Vec<Offer<'b>> {
    offers.clear();
    // Collected in place: the memory is reused, and there is nothing to convert.
    offers
        .into_iter()
        .map(|_| -> Offer<'b> { unreachable!("it is empty") })
        .collect()
}

/// What became of a send.
enum Verdict {
    Took(Sent),
    Broke(i32),
}

impl<S: Shore, M: Machine + ?Sized> Wheel<'_, S, M> {
    /// Asks for a batch and carries it out; `false` when nothing is wanted.
    ///
    /// Bounds (and connects of UDP) go first and sends second, so that a `Close` of the same batch finds its last bytes
    /// sent and answered.
    pub(crate) fn ask_and_act(&mut self) -> io::Result<bool> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.extend(std::iter::from_fn(|| self.machine.poll(self.now)).take(BATCH));
        let any = !batch.is_empty();
        self.bound_all(&batch);
        self.send_all(&batch)?;
        self.post_all(&batch)?;
        for output in batch.drain(..) {
            self.carry_out(output)?;
        }
        self.batch = batch;
        Ok(any)
    }

    fn carry_out(&mut self, output: Output) -> io::Result<()> {
        match output {
            Output::Send { .. } | Output::Bound { .. } | Output::Datagram(_) | Output::ConnectUdp { .. } => {
                Ok(())
            }
            Output::Connect {
                token,
                host,
                port,
                timeout,
            } => self.call(token, &host, port, timeout),
            Output::Pause { conn } => self.pause(conn),
            Output::Resume { conn } => self.resume(conn),
            Output::Close { conn, how } => self.close(conn, how),
            Output::HandOver(gift) => self.hand_over(gift),
            Output::OpenUdp { token, bind, options } => self.open_udp(token, bind, options),
            Output::DisconnectUdp { udp, peer } => {
                self.disconnect_udp(udp, peer);
                Ok(())
            }
            Output::CloseUdp { udp } => {
                self.close_udp(udp);
                Ok(())
            }
        }
    }

    fn pause(&mut self, conn: Conn) -> io::Result<()> {
        if self.open_seat(conn).is_some() {
            self.shore.stop_reading(conn)
        } else {
            Ok(())
        }
    }

    fn resume(&mut self, conn: Conn) -> io::Result<()> {
        if self.open_seat(conn).is_some_and(|seat| !seat.fin) {
            self.shore.read(conn)
        } else {
            Ok(())
        }
    }

    fn bound_all(&mut self, batch: &[Output]) {
        for output in batch {
            let Output::Bound {
                conn,
                send_buffer,
                unsent,
                user_timeout,
            } = output
            else {
                continue;
            };
            let Some(seat) = self.open_seat(*conn) else {
                continue;
            };
            if sockopt::bound(&seat.fd, *send_buffer, *unsent, *user_timeout).is_err() {
                self.stats.sockopt_failures.one();
            }
        }
    }

    /// Offers all sends of a batch, then says what became of each.
    fn send_all(&mut self, batch: &[Output]) -> io::Result<()> {
        let mut desk = std::mem::take(&mut self.desk);
        let sent = self.send_by(&mut desk, batch);
        self.desk = desk;
        sent
    }

    fn send_by(&mut self, desk: &mut Desk, batch: &[Output]) -> io::Result<()> {
        desk.whom.clear();
        let mut offers = emptied(std::mem::take(&mut desk.offers));
        for output in batch {
            let Output::Send { conn, payload } = output else {
                continue;
            };
            let bytes = bytes_of(&*self.machine, payload);
            if let Some(seat) = self
                .seats
                .get(*conn)
                .filter(|seat| matches!(seat.phase, Phase::Open))
            {
                offers.push(Offer {
                    index: desk.whom.len(),
                    conn: *conn,
                    fd: seat.fd.as_raw_fd(),
                    bytes,
                    from: from_where(&*self.machine, payload),
                });
            }
            desk.whom.push((*conn, bytes.len()));
        }
        if !desk.whom.is_empty() {
            desk.results.clear();
            desk.results.resize(desk.whom.len(), -libc::ENOTCONN);
            // The offers borrow the machine: until the shore returns, nothing can change it. This is what keeps the
            // ring's memory pinned while the kernel reads it.
            self.shore.send(&offers, &mut desk.results)?;
        }
        desk.offers = emptied(offers);
        self.tell_results(desk)
    }

    fn tell_results(&mut self, desk: &Desk) -> io::Result<()> {
        if desk.whom.is_empty() {
            return Ok(());
        }
        self.now = clock::now();
        let mut results = desk.whom.iter().zip(&desk.results);
        results.try_for_each(|((conn, len), result)| self.sent(*conn, *len, *result))
    }

    fn sent(&mut self, conn: Conn, len: usize, result: i32) -> io::Result<()> {
        self.stats.sends.one();
        match verdict(len, result) {
            Verdict::Took(how) => {
                self.count(how, len);
                if how != Sent::All {
                    self.await_room(conn)?;
                }
                self.machine.handle(self.now, Input::Sent { conn, result: how });
                Ok(())
            }
            Verdict::Broke(errno) => {
                self.stats.gone_sends.one();
                self.machine.handle(
                    self.now,
                    Input::Sent {
                        conn,
                        result: Sent::Gone,
                    },
                );
                if self.open_seat(conn).is_some() {
                    self.lost(conn, errno)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn count(&self, how: Sent, len: usize) {
        match how {
            Sent::All => self.stats.sent_bytes.add(len as u64),
            Sent::Some(n) => {
                self.stats.sent_bytes.add(u64::from(n));
                self.stats.short_sends.one();
            }
            Sent::Full => self.stats.full_sends.one(),
            Sent::Gone => {}
        }
    }

    fn await_room(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.open_seat(conn) else {
            return Ok(());
        };
        seat.wants_room = true;
        self.shore.watch_room(conn)
    }
}

pub(crate) fn bytes_of<'a, M: Machine + ?Sized>(machine: &'a M, payload: &'a Payload) -> &'a [u8] {
    match payload {
        Payload::Span(span) => machine.bytes(*span),
        Payload::Own(bytes, from) => bytes.get(*from..).unwrap_or_default(),
    }
}

/// The reader and the position of a stretch of a ring.
pub(crate) fn from_where<'a, M: Machine + ?Sized>(
    machine: &'a M,
    payload: &Payload,
) -> Option<(&'a Reader, u64)> {
    let Payload::Span(span) = payload else { return None };
    Some((machine.reader(*span)?, span.at))
}

/// `result` is what the kernel said: bytes taken, or `-errno`.
fn verdict(len: usize, result: i32) -> Verdict {
    match u32::try_from(result) {
        Ok(n) if n as usize >= len => Verdict::Took(Sent::All),
        Ok(0) => Verdict::Took(Sent::Full),
        Ok(n) => Verdict::Took(Sent::Some(n)),
        // No memory, or a signal: nothing was taken, and there may be room in a moment.
        Err(_) if matches!(-result, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => {
            Verdict::Took(Sent::Full)
        }
        Err(_) => Verdict::Broke(-result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_vector_keeps_its_memory() {
        let offers: Vec<Offer<'_>> = Vec::with_capacity(BATCH);
        let at = offers.as_ptr() as usize;
        let again: Vec<Offer<'static>> = emptied(offers);
        assert_eq!((again.as_ptr() as usize, again.capacity()), (at, BATCH));
    }

    #[test]
    fn the_kernels_answers_are_understood() {
        let took = |len, result| match verdict(len, result) {
            Verdict::Took(how) => Ok(how),
            Verdict::Broke(errno) => Err(errno),
        };
        assert_eq!(took(10, 10), Ok(Sent::All));
        assert_eq!(took(0, 0), Ok(Sent::All));
        assert_eq!(took(10, 9), Ok(Sent::Some(9)));
        assert_eq!(took(10, 0), Ok(Sent::Full));
        assert_eq!(took(10, -libc::EAGAIN), Ok(Sent::Full));
        assert_eq!(took(10, -libc::EPIPE), Err(libc::EPIPE));
    }
}
