//! The loop of both drivers: rest, hear, keep time, ask, act.
//!
//! One turn is one round of the contract in `relay_seam`. What a turn may take is bounded on every side: so many
//! events, so many new connections, so many outputs. Hence a flood of one kind starves no other.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use relay_ring::Bell;
use relay_seam::{Conn, Input, Machine, Now, Output};

use crate::calls::Calls;
use crate::clock;
use crate::door::Door;
use crate::leave::Leavers;
use crate::setup::{HandoverFn, Setup};
use crate::shore::{Event, Piece, Shore};
use crate::sockopt;
use crate::stats::SharedStats;
use crate::table::Table;

/// Events told to the machine in a turn before it is asked what it wants.
const EVENTS_PER_TURN: usize = 512;
/// How long to sleep when the machine's deadline has passed and it wanted nothing: a guard, never the normal case.
const NAP: Duration = Duration::from_millis(1);

/// A machine, a shore, and everything that is neither.
pub(crate) struct Wheel<'m, S, M: ?Sized> {
    pub(crate) shore: S,
    pub(crate) machine: &'m mut M,
    pub(crate) seats: Table<Seat>,
    pub(crate) now: Now,
    pub(crate) door: Door,
    pub(crate) calls: Calls,
    pub(crate) leavers: Leavers,
    pub(crate) handover: HandoverFn,
    pub(crate) stats: Arc<SharedStats>,
    pub(crate) batch: Vec<Output>,
    bell: Bell,
}

/// One connection. The descriptor is closed once, where the seat ends.
pub(crate) struct Seat {
    pub(crate) fd: OwnedFd,
    pub(crate) phase: Phase,
    /// The peer has said FIN.
    pub(crate) fin: bool,
    /// The machine has been told of a full socket and waits for [`Input::Writable`].
    pub(crate) wants_room: bool,
}

/// What a connection is doing.
pub(crate) enum Phase {
    /// Being connected, for this call.
    Connecting(u64),
    /// The machine's.
    Open,
    /// Let go; so many bytes have been discarded.
    Leaving(usize),
    /// Going to the control plane as soon as nothing is on its way; what was read so far.
    HandingOver(Vec<u8>),
}

impl Seat {
    pub(crate) fn new(fd: OwnedFd, phase: Phase) -> Self {
        Self { fd, phase, fin: false, wants_room: false }
    }
}

impl<'m, S: Shore, M: Machine + ?Sized> Wheel<'m, S, M> {
    pub(crate) fn new(shore: S, setup: Setup, machine: &'m mut M, calls: Calls) -> Self {
        Self {
            shore,
            machine,
            seats: Table::new(setup.max_conns),
            now: clock::now(),
            door: Door::default(),
            calls,
            leavers: Leavers::default(),
            handover: setup.handover,
            stats: setup.stats,
            batch: Vec::new(),
            bell: setup.bell,
        }
    }

    /// Turns until the machine has finished and the last byte of its farewells is delivered or given up.
    pub(crate) fn run(mut self, listeners: usize) -> io::Result<()> {
        for i in 0..listeners {
            self.shore.accept(i)?;
        }
        let mut busy = true;
        while busy || !self.machine.finished() {
            self.stats.turns.one();
            self.rest(busy)?;
            self.hear()?;
            self.keep_time()?;
            busy = self.ask_and_act()?;
        }
        self.say_farewell()
    }

    /// Sleeps until something happens; only looks when there is more to do.
    fn rest(&mut self, busy: bool) -> io::Result<()> {
        if busy || self.shore.pending() || self.door.has_waiting() {
            return self.look();
        }
        if !self.machine.park(true) {
            self.machine.park(false);
            self.machine.handle(self.now, Input::Woken);
            return self.look();
        }
        self.stats.sleeps.one();
        let slept = self.shore.wait(self.time_left());
        self.machine.park(false);
        self.now = clock::now();
        slept
    }

    fn look(&mut self) -> io::Result<()> {
        self.shore.wait(Some(Duration::ZERO))?;
        self.now = clock::now();
        Ok(())
    }

    /// How long to sleep at most. The machine was last asked at `self.now`.
    fn time_left(&self) -> Option<Duration> {
        let asked = self.machine.deadline();
        let stale = asked.is_some_and(|deadline| deadline <= self.now);
        if stale {
            self.stats.stale_deadlines.one();
        }
        let asked = if stale { Some(self.now + NAP) } else { asked };
        let ours = Now::earliest(self.own_deadline(), asked)?;
        Some(ours.since(clock::now()))
    }

    /// When the driver itself has something to do.
    fn own_deadline(&self) -> Option<Now> {
        Now::earliest(Now::earliest(self.door.deadline(), self.calls.deadline()), self.leavers.deadline())
    }

    /// Tells the machine what happened.
    pub(crate) fn hear(&mut self) -> io::Result<()> {
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.shore.next()? else { break };
            self.happened(event)?;
        }
        self.admit()
    }

    fn happened(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Knock(fd) => self.door.knock(fd),
            Event::KnockFailed(listener, error) => self.knock_failed(listener, error)?,
            Event::Bytes(conn, piece) => self.received(conn, piece)?,
            Event::Fin(conn) => self.peer_done(conn)?,
            Event::Broken(conn, errno) => self.lost(conn, errno)?,
            Event::ReadStopped(conn) => self.read_stopped(conn)?,
            Event::Room(conn) => self.room(conn)?,
            Event::Hung(conn) => self.hung(conn)?,
            Event::Bell => self.rung(),
            Event::Answer => self.answered()?,
        }
        Ok(())
    }

    fn received(&mut self, conn: Conn, piece: Piece) -> io::Result<()> {
        let bytes = self.shore.bytes(&piece);
        let mut over = false;
        match self.seats.get_mut(conn).map(|seat| &mut seat.phase) {
            Some(Phase::Open) => {
                self.stats.receives.one();
                self.stats.received_bytes.add(bytes.len() as u64);
                self.machine.handle(self.now, Input::Received { conn, bytes });
            }
            Some(Phase::HandingOver(read_so_far)) => read_so_far.extend_from_slice(bytes),
            Some(Phase::Leaving(discarded)) => {
                self.stats.discarded_bytes.add(bytes.len() as u64);
                *discarded += bytes.len();
                over = *discarded > crate::leave::LINGER_BYTES;
            }
            Some(Phase::Connecting(_)) | None => self.stats.late_completions.one(),
        }
        self.shore.give_back(piece);
        if over { self.cut_short(conn) } else { Ok(()) }
    }

    fn peer_done(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(conn) else { return Ok(()) };
        seat.fin = true;
        match seat.phase {
            Phase::Open => {
                self.shore.watch_hangup(conn)?;
                self.machine.handle(self.now, Input::PeerDone { conn });
                Ok(())
            }
            Phase::Leaving(_) => self.release(conn),
            Phase::HandingOver(_) | Phase::Connecting(_) => Ok(()),
        }
    }

    /// A connection is broken: release it, and say so if it was the machine's.
    pub(crate) fn lost(&mut self, conn: Conn, errno: i32) -> io::Result<()> {
        let Some(seat) = self.seats.get(conn) else { return Ok(()) };
        let open = matches!(seat.phase, Phase::Open);
        if matches!(seat.phase, Phase::HandingOver(_)) {
            self.stats.handovers_lost.one();
        }
        self.release(conn)?;
        if open {
            self.stats.closed_by_peer.one();
            self.machine.handle(self.now, Input::Closed { conn, reason: sockopt::reason(errno) });
        }
        Ok(())
    }

    fn room(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(conn) else { return Ok(()) };
        match seat.phase {
            Phase::Connecting(call) => return self.reached(conn, call),
            Phase::Open if std::mem::take(&mut seat.wants_room) => {
                self.machine.handle(self.now, Input::Writable { conn });
            }
            _ => {}
        }
        Ok(())
    }

    fn hung(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.seats.get(conn) else { return Ok(()) };
        let error = sockopt::take_error(&seat.fd).and_then(|e| e.raw_os_error());
        // A send may have taken the error already; what hangs up without one was reset.
        self.lost(conn, error.unwrap_or(libc::ECONNRESET))
    }

    fn rung(&mut self) {
        self.bell.clear();
        self.stats.rings.one();
        self.machine.handle(self.now, Input::Woken);
    }

    /// What is due: accepts to retry, connects to give up, lingerers to cut short.
    fn keep_time(&mut self) -> io::Result<()> {
        self.retry_doors()?;
        self.expire_calls()?;
        self.expire_leavers()
    }

    /// Forgets a connection and closes it, without a word to the machine.
    pub(crate) fn release(&mut self, conn: Conn) -> io::Result<()> {
        let Some(seat) = self.seats.remove(conn) else { return Ok(()) };
        self.door.freed();
        self.shore.release(conn, seat.fd)
    }
}
