//! The loop of both drivers: rest, hear, keep time, ask, act.
//!
//! One turn is one round of the contract in `relay_seam`. What a turn may take is bounded on every side: so many
//! events, so many new connections, so many outputs. Hence a flood of one kind starves no other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use relay_ring::Bell;
use relay_seam::{Input, Machine, Now, Output};

use crate::act::Desk;
use crate::calls::Calls;
use crate::clock;
use crate::door::Door;
use crate::leave::Leavers;
use crate::seat::Seat;
use crate::setup::{HandoverFn, Setup};
use crate::share::Share;
use crate::shore::Shore;
use crate::stats::SharedStats;
use crate::table::Table;
use crate::udp::Mailroom;

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
    pub(crate) share: Option<Share>,
    pub(crate) calls: Calls,
    pub(crate) leavers: Leavers,
    pub(crate) mail: Mailroom,
    pub(crate) handover: HandoverFn,
    pub(crate) stats: Arc<SharedStats>,
    pub(crate) batch: Vec<Output>,
    pub(crate) desk: Desk,
    pub(crate) bell: Bell,
}

impl<'m, S: Shore, M: Machine + ?Sized> Wheel<'m, S, M> {
    pub(crate) fn new(shore: S, setup: Setup, machine: &'m mut M, calls: Calls) -> Self {
        let mail = Mailroom::new(&setup);
        Self {
            shore,
            machine,
            seats: Table::new(setup.max_conns),
            now: clock::now(),
            door: Door::with(setup.guests),
            share: setup.share,
            calls,
            leavers: Leavers::default(),
            mail,
            handover: setup.handover,
            stats: setup.stats,
            batch: Vec::new(),
            desk: Desk::default(),
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
        self.door.use_freed();
        self.say_how_many();
        if busy || self.shore.pending() || self.door.has_waiting() || self.mail.has_arrivals() {
            return self.look();
        }
        if !self.machine.park(true) {
            self.machine.park(false);
            self.machine.handle(self.now, Input::Woken);
            return self.look();
        }
        // Looked at after parking: whoever passes one on rings the same bell.
        if self.is_passed_some() {
            self.machine.park(false);
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
        Now::earliest(
            Now::earliest(self.door.deadline(), self.calls.deadline()),
            self.leavers.deadline(),
        )
    }

    /// Tells the machine what happened.
    pub(crate) fn hear(&mut self) -> io::Result<()> {
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.shore.next()? else { break };
            self.happened(event)?;
        }
        self.hear_mail();
        self.admit()
    }

    /// What is due: accepts to retry, connects to give up, lingerers to cut short.
    fn keep_time(&mut self) -> io::Result<()> {
        self.shore.tidy(self.now);
        self.retry_doors()?;
        self.expire_calls()?;
        self.expire_leavers()
    }
}
