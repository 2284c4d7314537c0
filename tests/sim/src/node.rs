//! A node of the world: a house, and what its workers' drivers hold.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Weak};

use crossbeam::channel::Receiver;
use relay_seam::{CloseReason, Conn};
use relay_station::{Config, Event, House, Run, Station};

use crate::net::{Host, WireId};

/// Something a worker's driver has to tell its station.
#[derive(Debug)]
pub(crate) enum Note {
    Accepted(WireId, Host),
    /// The answer to a connect, by its token.
    Reached(u64, WireId, Host),
    Unreached(u64, io::ErrorKind),
    /// There is something to read on a wire.
    Readable(Conn),
    Broken(Conn, CloseReason),
    Room(Conn),
    Woken,
}

/// What a driver knows of one connection.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) conn: Conn,
    pub(crate) wire: WireId,
    /// Which end of the wire is ours.
    pub(crate) end: usize,
    pub(crate) paused: bool,
    pub(crate) fin_told: bool,
    pub(crate) wants_room: bool,
    pub(crate) readable_noted: bool,
    /// Discarded bytes, once it is leaving.
    pub(crate) leaving: Option<usize>,
    pub(crate) user_timeout_ns: Option<u64>,
}

/// One worker: a station and its driver's tables.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) station: Station,
    pub(crate) seats: Vec<Option<Seat>>,
    generations: Vec<u32>,
    pub(crate) notes: VecDeque<Note>,
    /// Connects under way: call number to token.
    pub(crate) calls: BTreeMap<u64, u64>,
    pub(crate) parked: bool,
    /// The turn that is arranged; another one's event is void.
    pub(crate) due: Option<(u64, u64)>,
    pub(crate) stamp: u64,
    pub(crate) busy_until_ns: u64,
    /// Stream bytes that kernels took from it.
    pub(crate) told: u64,
    pub(crate) turns: u64,
    /// Turns in which nothing had happened and nothing was wanted.
    pub(crate) empty_turns: u64,
    pub(crate) stale_deadlines: u64,
    /// Turns in which a bell was all there was, and nothing was wanted.
    pub(crate) false_alarms: u64,
    /// Notes other than bells.
    pub(crate) real_notes: u64,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) config: Config,
    pub(crate) running: Option<Running>,
    /// Every run there ever was.
    pub(crate) runs: Vec<Weak<Run>>,
    /// Accesses and notes it has told.
    pub(crate) log: Vec<Event>,
    pub(crate) incarnation: u64,
}

/// A node's process.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) house: Arc<House>,
    pub(crate) events: Receiver<Event>,
    pub(crate) workers: Vec<Worker>,
}

impl Node {
    pub(crate) fn new(host: Host, config: Config) -> Self {
        Self {
            host,
            config,
            running: None,
            runs: Vec::new(),
            log: Vec::new(),
            incarnation: 0,
        }
    }

    /// Starts its process.
    ///
    /// # Errors
    ///
    /// When the kernel has no descriptor or no memory, or its node id cannot be one.
    pub(crate) fn start(&mut self, seed: u64) -> io::Result<()> {
        let (house, events) = House::new(self.config.clone())?;
        let workers = (0..self.config.workers)
            .map(|worker| {
                let station =
                    Station::new(house.clone(), worker, seed ^ worker as u64).map_err(io::Error::other)?;
                Ok(Worker::new(station))
            })
            .collect::<io::Result<Vec<_>>>()?;
        self.running = Some(Running {
            house,
            events,
            workers,
        });
        self.incarnation += 1;
        Ok(())
    }

    /// Looks at what can only be seen from outside: runs that are new, events that were told.
    pub(crate) fn watch(&mut self) {
        let Some(running) = &self.running else { return };
        while let Ok(event) = running.events.try_recv() {
            self.log.push(event);
        }
        for run in running.house.directory.all().iter().filter_map(|c| c.run()) {
            if !self.runs.iter().any(|known| known.as_ptr() == Arc::as_ptr(&run)) {
                self.runs.push(Arc::downgrade(&run));
            }
        }
    }

    /// One of the catalogue's numbers, over all workers; 0 while the node is down.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let at = relay_station::CATALOGUE
            .iter()
            .position(|entry| entry.name == name);
        let totals = self
            .running
            .as_ref()
            .map(|r| r.house.totals())
            .unwrap_or_default();
        at.and_then(|at| totals.get(at).copied()).unwrap_or(0)
    }

    /// Connections its drivers hold for its stations.
    pub(crate) fn open_seats(&self) -> usize {
        let workers = self.running.iter().flat_map(|r| &r.workers);
        workers
            .map(|w| w.seats.iter().flatten().filter(|s| s.leaving.is_none()).count())
            .sum()
    }
}

impl Worker {
    fn new(station: Station) -> Self {
        Self {
            station,
            seats: Vec::new(),
            generations: Vec::new(),
            notes: VecDeque::new(),
            calls: BTreeMap::new(),
            parked: false,
            due: None,
            stamp: 0,
            busy_until_ns: 0,
            told: 0,
            turns: 0,
            empty_turns: 0,
            stale_deadlines: 0,
            false_alarms: 0,
            real_notes: 0,
        }
    }

    /// A seat in the lowest free slot: slots are reused as soon as they can be.
    pub(crate) fn seat(&mut self, wire: WireId, end: usize) -> Conn {
        let slot = self
            .seats
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.seats.len());
        if slot == self.seats.len() {
            self.seats.push(None);
            self.generations.push(0);
        }
        self.generations[slot] += 1;
        let conn = Conn::new(slot as u32, self.generations[slot]);
        self.seats[slot] = Some(Seat {
            conn,
            wire,
            end,
            paused: false,
            fin_told: false,
            wants_room: false,
            readable_noted: false,
            leaving: None,
            user_timeout_ns: None,
        });
        conn
    }

    pub(crate) fn find(&mut self, conn: Conn) -> Option<&mut Seat> {
        self.seats
            .get_mut(conn.slot())?
            .as_mut()
            .filter(|seat| seat.conn == conn)
    }

    /// A seat that the station may still speak of.
    pub(crate) fn open(&mut self, conn: Conn) -> Option<&mut Seat> {
        self.find(conn).filter(|seat| seat.leaving.is_none())
    }

    pub(crate) fn release(&mut self, conn: Conn) -> Option<Seat> {
        self.find(conn)?;
        self.seats[conn.slot()].take()
    }
}
