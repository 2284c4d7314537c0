//! The driver of one worker: one turn is one round of the contract in `relay_seam`.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use relay_ring::Bell;
use relay_seam::{CloseReason, Closing, Conn, Input, Machine, Output, Payload, Sent};

use crate::net::{End, Host};
use crate::node::{Note, Worker};
use crate::world::World;

/// Virtual time that a send costs.
const SEND_NS: u64 = 4_000;
/// Virtual time that a turn costs.
const TURN_NS: u64 = 2_000;
/// How long a driver sleeps when a deadline has passed and nothing was wanted.
const NAP_NS: u64 = 1_000_000;
/// Discarded bytes after which a lingering close is cut short.
const LINGER_BYTES: usize = 64 * 1024;
/// How long a close may linger.
const LINGER_NS: u64 = 2_000_000_000;
/// Bytes read from one connection in a turn.
const READ_MAX: usize = 64 * 1024;
/// Empty turns of a worker in half a second: more is a busy loop.
pub(crate) const EMPTY_TURNS_MAX: u64 = 120;
/// So many bells may ring for nothing for each thing that really happens in a house: one for every other worker,
/// and then some.
pub(crate) const ALARMS_PER_NOTE: u64 = 8;

/// Whether a worker's bell has rung since it was last cleared.
fn has_rung(bell: &Bell) -> bool {
    let mut fds = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

/// The address of a host.
pub(crate) fn address(host: Host, port: u16) -> SocketAddr {
    SocketAddr::new(
        IpAddr::V4(Ipv4Addr::new(10, 0, (host >> 8) as u8, host as u8)),
        port,
    )
}

impl World {
    fn worker(&mut self, node: usize, worker: usize) -> Option<&mut Worker> {
        self.nodes[node].running.as_mut().map(|r| &mut r.workers[worker])
    }

    /// One turn: hear, ask, act, rest.
    pub(crate) fn turn(&mut self, node: usize, worker: usize, stamp: u64) {
        let now_ns = self.now_ns;
        let Some(running) = &mut self.nodes[node].running else {
            return;
        };
        let bell = running.house.bell(worker).clone();
        let w = &mut running.workers[worker];
        if w.due.is_none_or(|(_, due)| due != stamp) {
            return;
        }
        w.due = None;
        w.turns += 1;
        let slept = std::mem::take(&mut w.parked);
        if slept {
            w.station.park(false);
        }
        let real = w.notes.len();
        w.real_notes += real as u64;
        if has_rung(&bell) {
            bell.clear();
            w.notes.push_back(Note::Woken);
        }
        let heard = w.notes.len();
        let at_once = self.dice.range(1, 64) as usize;
        for _ in 0..heard.min(at_once) {
            let Some(note) = self.worker(node, worker).and_then(|w| w.notes.pop_front()) else {
                break;
            };
            self.hear(node, worker, note);
        }
        let (outputs, sends) = self.ask_and_act(node, worker);
        if let Some(w) = self
            .worker(node, worker)
            .filter(|_| real == 0 && heard == 1 && outputs == 0)
        {
            w.false_alarms += 1;
        }
        let spent = TURN_NS + sends * SEND_NS;
        self.trace.note(
            now_ns,
            "turn",
            [(node * 16 + worker) as u64, heard as u64, outputs as u64],
        );
        self.rest(node, worker, now_ns + spent, slept && heard == 0, outputs == 0);
        self.answer_bells(node);
    }

    /// Whoever is parked and has been rung is awake soon.
    pub(crate) fn answer_bells(&mut self, node: usize) {
        let Some(running) = &self.nodes[node].running else {
            return;
        };
        let parked = running.workers.iter().enumerate().filter(|(_, w)| w.parked);
        let rung: Vec<usize> = parked
            .filter(|(i, _)| has_rung(running.house.bell(*i)))
            .map(|(i, _)| i)
            .collect();
        for worker in rung {
            let soon = self.now_ns + self.dice.range(3_000, 80_000);
            self.wake(node, worker, soon);
        }
    }

    /// Sleeps, or arranges the next turn.
    fn rest(&mut self, node: usize, worker: usize, then_ns: u64, for_nothing: bool, wanted_nothing: bool) {
        let Some(w) = self.worker(node, worker) else {
            return;
        };
        w.busy_until_ns = then_ns;
        if for_nothing && wanted_nothing {
            w.empty_turns += 1;
        }
        if !wanted_nothing || !w.notes.is_empty() {
            return self.wake(node, worker, then_ns);
        }
        if !w.station.park(true) {
            w.station.park(false);
            w.station.handle(World::moment(then_ns), Input::Woken);
            return self.wake(node, worker, then_ns + 1_000);
        }
        w.parked = true;
        let Some(deadline) = w.station.deadline().map(|d| d.mono_ns()) else {
            return;
        };
        if deadline <= then_ns {
            w.stale_deadlines += 1;
            self.wake(node, worker, then_ns + NAP_NS);
        } else {
            self.wake(node, worker, deadline);
        }
    }

    fn handle(&mut self, node: usize, worker: usize, now_ns: u64, input: Input<'_>) {
        if let Some(w) = self.worker(node, worker) {
            w.station.handle(World::moment(now_ns), input);
        }
    }

    /// Tells the station what a note says.
    fn hear(&mut self, node: usize, worker: usize, note: Note) {
        let now_ns = self.now_ns;
        match note {
            Note::Accepted(wire, from) => {
                let End::Seat { conn, .. } = self.wires[wire].ends[1] else {
                    return;
                };
                let peer = address(from, 40_000 + (wire % 20_000) as u16);
                self.handle(node, worker, now_ns, Input::Accepted { conn, peer });
                self.note_readable(node, worker, conn);
            }
            Note::Reached(token, wire, host) => {
                let Some(w) = self.worker(node, worker) else {
                    return;
                };
                let conn = w.seat(wire, 0);
                self.wires[wire].ends[0] = End::Seat { node, worker, conn };
                let result = Ok((conn, address(host, 8000)));
                self.handle(node, worker, now_ns, Input::Connected { token, result });
                if self.wires[wire].reset[0] {
                    return self.broken(node, worker, now_ns, conn, CloseReason::Reset);
                }
                self.note_readable(node, worker, conn);
            }
            Note::Unreached(token, kind) => {
                let result = Err(io::Error::from(kind));
                self.handle(node, worker, now_ns, Input::Connected { token, result });
            }
            Note::Readable(conn) => self.receive(node, worker, conn),
            Note::Broken(conn, reason) => self.broken(node, worker, now_ns, conn, reason),
            Note::Room(conn) => {
                if self.worker(node, worker).is_some_and(|w| w.open(conn).is_some()) {
                    self.handle(node, worker, now_ns, Input::Writable { conn });
                }
            }
            Note::Woken => self.handle(node, worker, now_ns, Input::Woken),
        }
    }

    fn receive(&mut self, node: usize, worker: usize, conn: Conn) {
        let now_ns = self.now_ns;
        let Some(seat) = self.worker(node, worker).and_then(|w| w.find(conn)) else {
            return;
        };
        seat.readable_noted = false;
        let (wire, end, paused, leaving) = (seat.wire, seat.end, seat.paused, seat.leaving.is_some());
        if paused && !leaving {
            return;
        }
        let mut bytes = self.read(wire, end, READ_MAX);
        if leaving {
            return self.discard(node, worker, conn, bytes.len());
        }
        *self.heard.entry(wire).or_default() += bytes.len() as u64;
        while !bytes.is_empty() {
            let len = if self.dice.one_in(3) {
                self.dice.size(bytes.len())
            } else {
                bytes.len().min(16 << 10)
            };
            let rest = bytes.split_off(len);
            self.handle(node, worker, now_ns, Input::Received { conn, bytes: &bytes });
            bytes = rest;
        }
        let pipe = &self.wires[wire].pipes[1 - end];
        let (more, fin) = (!pipe.arrived.is_empty(), pipe.fin_arrived);
        if more {
            return self.note_readable(node, worker, conn);
        }
        let seat = self
            .worker(node, worker)
            .and_then(|w| w.find(conn))
            .filter(|seat| fin && !seat.fin_told);
        if let Some(seat) = seat {
            seat.fin_told = true;
            self.handle(node, worker, now_ns, Input::PeerDone { conn });
        }
    }

    /// Reads for somebody who is leaving.
    fn discard(&mut self, node: usize, worker: usize, conn: Conn, len: usize) {
        let Some(seat) = self.worker(node, worker).and_then(|w| w.find(conn)) else {
            return;
        };
        let (wire, end) = (seat.wire, seat.end);
        let discarded = seat.leaving.unwrap_or(0) + len;
        seat.leaving = Some(discarded);
        let pipe = &self.wires[wire].pipes[1 - end];
        if discarded > LINGER_BYTES || (pipe.fin_arrived && pipe.arrived.is_empty()) {
            self.cut_short(node, worker, conn);
        } else if !pipe.arrived.is_empty() {
            self.note_readable(node, worker, conn);
        }
    }

    /// A lingering close is over.
    pub(crate) fn cut_short(&mut self, node: usize, worker: usize, conn: Conn) {
        let Some(w) = self.worker(node, worker) else {
            return;
        };
        if w.find(conn).is_some_and(|seat| seat.leaving.is_some())
            && let Some(seat) = w.release(conn)
        {
            self.abandon(seat.wire, seat.end);
        }
    }

    /// A connection has broken: release it, and say so if it was the station's.
    fn broken(&mut self, node: usize, worker: usize, now_ns: u64, conn: Conn, reason: CloseReason) {
        let Some(seat) = self.worker(node, worker).and_then(|w| w.release(conn)) else {
            return;
        };
        self.wires[seat.wire].ends[seat.end] = End::Nobody;
        if seat.leaving.is_none() {
            self.handle(node, worker, now_ns, Input::Closed { conn, reason });
        }
    }

    /// A peer that takes nothing for too long is dead.
    pub(crate) fn probe(&mut self, node: usize, worker: usize, conn: Conn) {
        let now_ns = self.now_ns;
        let Some(seat) = self.worker(node, worker).and_then(|w| w.find(conn)) else {
            return;
        };
        let Some(timeout) = seat.user_timeout_ns else {
            return;
        };
        let (wire, end) = (seat.wire, seat.end);
        let pipe = &self.wires[wire].pipes[end];
        if pipe.is_idle() {
            return self.arrange_probe(node, worker, conn, now_ns + timeout);
        }
        let dead_at = pipe.progress_ns + timeout;
        if now_ns < dead_at {
            return self.arrange_probe(node, worker, conn, dead_at);
        }
        self.trace
            .note(now_ns, "dead", [node as u64, worker as u64, conn.slot() as u64]);
        self.send_reset(wire, end);
        self.wires[wire].reset[end] = true;
        self.leave_note(node, worker, Note::Broken(conn, CloseReason::TimedOut));
    }

    /// Asks for a batch and carries it out; how many outputs, and sends among them, there were.
    fn ask_and_act(&mut self, node: usize, worker: usize) -> (usize, u64) {
        let most = if self.dice.one_in(8) {
            self.dice.range(1, 4) as usize
        } else {
            256
        };
        let now = World::moment(self.now_ns);
        let Some(w) = self.worker(node, worker) else {
            return (0, 0);
        };
        let batch: Vec<Output> = std::iter::from_fn(|| w.station.poll(now)).take(most).collect();
        let count = batch.len();
        self.bound_all(node, worker, &batch);
        let sends = self.send_all(node, worker, &batch);
        for output in batch {
            self.carry_out(node, worker, output);
        }
        (count, sends)
    }

    fn bound_all(&mut self, node: usize, worker: usize, batch: &[Output]) {
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
            let now_ns = self.now_ns;
            let Some(seat) = self.worker(node, worker).and_then(|w| w.open(*conn)) else {
                continue;
            };
            let first = seat.user_timeout_ns.is_none();
            seat.user_timeout_ns = user_timeout.map(|t| t.as_nanos() as u64);
            let (wire, end) = (seat.wire, seat.end);
            if let Some(bytes) = send_buffer {
                // The kernel doubles what it is told, and spends the other half on its books.
                self.wires[wire].pipes[end].room = *bytes as usize;
            }
            if let Some(bytes) = unsent {
                self.wires[wire].pipes[end].unsent_max = *bytes as usize;
            }
            if let Some(timeout) = user_timeout.filter(|_| first) {
                self.arrange_probe(node, worker, *conn, now_ns + timeout.as_nanos() as u64);
            }
        }
    }

    /// Offers all sends of a batch, then says what became of each. Between the two the station is only looked at.
    fn send_all(&mut self, node: usize, worker: usize, batch: &[Output]) -> u64 {
        let mut results = Vec::new();
        let mut whom = BTreeSet::new();
        for output in batch {
            let Output::Send { conn, payload } = output else {
                continue;
            };
            if !whom.insert((conn.slot(), conn.generation())) {
                self.wrong(format!(
                    "node {node} worker {worker}: two sends for {conn:?} in one batch"
                ));
            }
            results.push((*conn, self.send(node, worker, *conn, payload)));
        }
        let sends = results.len() as u64;
        let told_ns = self.now_ns + sends * SEND_NS;
        for (conn, (result, is_stream)) in results {
            self.sent(node, worker, told_ns, conn, result, is_stream);
        }
        sends
    }

    /// One send: what became of it, and how many bytes of a stream were taken.
    fn send(&mut self, node: usize, worker: usize, conn: Conn, payload: &Payload) -> (Sent, u64) {
        let whim = self.dice.range(0, 99);
        let part = self.dice.next();
        let Some(running) = &mut self.nodes[node].running else {
            return (Sent::Gone, 0);
        };
        let w = &mut running.workers[worker];
        let seat = w.open(conn).map(|seat| (seat.wire, seat.end));
        let station = &w.station;
        let (bytes, is_stream) = match payload {
            Payload::Span(span) => (station.bytes(*span), true),
            Payload::Own(bytes, from) => (bytes.get(*from..).unwrap_or_default(), false),
        };
        let len = bytes.len();
        let Some((wire, end)) = seat.filter(|(wire, end)| !self.wires[*wire].reset[*end]) else {
            return (Sent::Gone, 0);
        };
        // Kernels take less than they could now and then.
        let bytes = match whim {
            0 => &bytes[..0],
            1..=3 => &bytes[..(part % (len as u64 + 1)) as usize],
            _ => bytes,
        };
        let bytes = bytes.to_vec();
        let taken = self.offer(wire, end, &bytes);
        if len == 0 {
            self.wrong(format!("node {node} worker {worker}: an empty send for {conn:?}"));
        }
        let result = match taken {
            n if n == len => Sent::All,
            0 => Sent::Full,
            n => Sent::Some(n as u32),
        };
        (result, if is_stream { taken as u64 } else { 0 })
    }

    fn sent(&mut self, node: usize, worker: usize, now_ns: u64, conn: Conn, result: Sent, stream: u64) {
        let Some(w) = self.worker(node, worker) else {
            return;
        };
        w.told += stream;
        let seat = w.find(conn).map(|seat| {
            seat.wants_room |= !matches!(result, Sent::All | Sent::Gone);
            (seat.wire, seat.end)
        });
        self.handle(node, worker, now_ns, Input::Sent { conn, result });
        let Some((wire, end)) = seat else { return };
        if result == Sent::Gone {
            if self.wires[wire].reset[end] {
                self.broken(node, worker, now_ns, conn, CloseReason::Reset);
            }
        } else if result != Sent::All && self.wires[wire].pipes[end].has_room() {
            self.tell_room(wire, end);
        }
    }

    fn carry_out(&mut self, node: usize, worker: usize, output: Output) {
        match output {
            Output::Send { .. } | Output::Bound { .. } => {}
            Output::Connect {
                token,
                host,
                port,
                timeout,
            } => {
                self.call(node, worker, token, &host, port, timeout.as_nanos() as u64);
            }
            Output::Pause { conn } => {
                if let Some(seat) = self.worker(node, worker).and_then(|w| w.open(conn)) {
                    seat.paused = true;
                }
            }
            Output::Resume { conn } => {
                if let Some(seat) = self.worker(node, worker).and_then(|w| w.open(conn)) {
                    seat.paused = false;
                    self.note_readable(node, worker, conn);
                }
            }
            Output::Close { conn, how } => self.close(node, worker, conn, how),
            Output::HandOver(gift) => {
                let Some(seat) = self.worker(node, worker).and_then(|w| w.release(gift.conn)) else {
                    return;
                };
                // The control plane of this world answers everything like this.
                self.offer(
                    seat.wire,
                    seat.end,
                    b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n",
                );
                self.abandon(seat.wire, seat.end);
            }
            Output::OpenUdp { token, .. } => {
                let none =
                    std::io::Error::new(std::io::ErrorKind::Unsupported, "this world has no datagrams");
                let (now_ns, result) = (self.now_ns, Err(none));
                self.handle(node, worker, now_ns, Input::UdpOpened { token, result });
            }
            Output::Datagram(_)
            | Output::ConnectUdp { .. }
            | Output::DisconnectUdp { .. }
            | Output::CloseUdp { .. } => {
                self.wrong(format!(
                    "node {node} worker {worker}: uses a UDP socket that was never opened"
                ));
            }
        }
    }

    fn close(&mut self, node: usize, worker: usize, conn: Conn, how: Closing) {
        let now_ns = self.now_ns;
        let Some(w) = self.worker(node, worker) else {
            return;
        };
        let Some(seat) = w.open(conn) else { return };
        let (wire, end, fin_told) = (seat.wire, seat.end, seat.fin_told);
        self.trace
            .note(now_ns, "close", [node as u64, worker as u64, conn.slot() as u64]);
        if how == Closing::Abort {
            if let Some(w) = self.worker(node, worker) {
                w.release(conn);
            }
            return self.send_reset(wire, end);
        }
        if self.wires[wire].reset[end] || fin_told {
            if let Some(w) = self.worker(node, worker) {
                w.release(conn);
            }
            return self.abandon(wire, end);
        }
        if let Some(seat) = self.worker(node, worker).and_then(|w| w.open(conn)) {
            seat.leaving = Some(0);
        }
        self.finish(wire, end);
        self.arrange_linger(node, worker, conn, now_ns + LINGER_NS);
        self.note_readable(node, worker, conn);
    }
}
